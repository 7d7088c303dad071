"""Losses of topology: the limits that theory gives (methods, 6.2), and loops written out."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import distance

from normfuse.imaging.topology import (INTRA_MARGIN, cosine_distances, inter_loss, intra_loss,
                                       mutual_nearest, tokens)


def places(seed: int = 0, n: int = 60, channels: int = 8) -> torch.Tensor:
    """Smooth features of points in a cube, so that some lie near others."""
    rng = np.random.default_rng(seed)
    where = np.random.default_rng(99).uniform(-1, 1, (n, 3))  # everybody's anatomy
    waves = np.cos(where @ rng.normal(size=(3, channels)) * 2 + rng.uniform(0, 6, channels))
    return torch.tensor(waves)


def turned(z: torch.Tensor, seed: int = 1) -> torch.Tensor:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(z.shape[1],) * 2))
    return z @ torch.tensor(q)


def mean_of(loss, *args, n: int = 20) -> float:
    """Over the chance of who is drawn."""
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        found.append(float(loss(*args)))
    return float(np.mean(found))


class TestTokens:
    def test_a_token_is_a_place(self):
        maps = torch.randn(2, 3, 4, 5, 6)
        found = tokens(maps)
        assert found.shape == (2, 120, 3)
        assert torch.equal(found[1, 5 * 6 + 2 * 6 + 3], maps[1, :, 1, 2, 3])

    def test_distances_are_scipys(self):
        a, b = places(0), places(1)
        theirs = distance.cdist(a.numpy(), b.numpy(), "cosine")
        assert np.allclose(cosine_distances(a, b).numpy(), theirs)


class TestIntra:
    def test_a_collapse_costs_the_margin(self):
        same = torch.ones(40, 8, dtype=torch.float64)
        assert float(intra_loss(same, same)) == pytest.approx(INTRA_MARGIN)
        assert float(intra_loss(same, same, margin=0.3)) == pytest.approx(0.3)

    def test_agreement_is_cheap_and_chance_is_dear(self):
        z = places()
        agreeing = mean_of(intra_loss, z, turned(z))
        assert agreeing < 0.02
        assert mean_of(intra_loss, z, z[torch.randperm(len(z))]) > 5 * agreeing + 0.1

    def test_turns_and_sizes_do_not_matter(self):
        a, b = places(0), places(1)
        loss = mean_of(intra_loss, a, b)
        assert mean_of(intra_loss, a, turned(b)) == pytest.approx(loss, rel=1e-9)
        assert mean_of(intra_loss, a, 7 * b) == pytest.approx(loss, rel=1e-9)

    def test_it_is_what_is_written(self):
        """With as few tokens that there is no choice of who is drawn."""
        a, b = places(0, n=5), places(1, n=5)
        by_hand = []
        for one, two in ((a.numpy(), b.numpy()), (b.numpy(), a.numpy())):
            apart = distance.cdist(two, two, "cosine")
            for i in range(5):
                order = np.argsort(np.linalg.norm(one - one[i], axis=1))[1:]
                near, far = order[:2], order[2:]  # all pairings of two by two, on average
                by_hand.append(np.mean([[max(0, apart[i, j] - apart[i, k] + 0.05)
                                         for k in far] for j in near]))
        assert mean_of(lambda x, y: intra_loss(x, y, 2), a, b, n=400) == pytest.approx(
            np.mean(by_hand), abs=0.01)

    def test_it_teaches(self):
        torch.manual_seed(0)
        target, z = places(0), torch.randn(60, 8, dtype=torch.float64, requires_grad=True)
        descent = torch.optim.Adam([z], 0.05)
        before = mean_of(intra_loss, target, z.detach())
        for _ in range(60):
            descent.zero_grad()
            intra_loss(target, z).backward()
            descent.step()
        assert mean_of(intra_loss, target, z.detach()) < 0.4 * before

    def test_too_few_tokens(self):
        with pytest.raises(ValueError, match="11 at least"):
            intra_loss(places(n=10), places(n=10))
        with pytest.raises(ValueError, match="as many tokens"):
            intra_loss(places(n=20), places(n=21))


class TestInter:
    def test_a_collapse_is_not_seen(self):
        """Why it is never used alone."""
        same = torch.ones(40, 8, dtype=torch.float64)
        assert float(inter_loss(same, same.clone())) == 0

    def test_one_anatomy_is_nearer_than_chance(self):
        z = places()
        noisy = z + 0.1 * torch.randn(z.shape, dtype=z.dtype, generator=torch.manual_seed(3))
        alike = mean_of(inter_loss, z, noisy[torch.randperm(len(z))])
        rng = torch.Generator().manual_seed(0)
        strangers = [torch.randn(60, 8, generator=rng, dtype=torch.float64) for _ in range(2)]
        assert alike < 0.5 * mean_of(inter_loss, *strangers)

    def test_pairs_are_mutual(self):
        a, b = places(0), places(1)
        mine, theirs = mutual_nearest(a, b)
        apart = distance.cdist(a.numpy(), b.numpy(), "cosine")
        assert len(mine) > 1
        for i, j in zip(mine.tolist(), theirs.tolist()):
            assert apart[i].argmin() == j and apart[:, j].argmin() == i

    def test_gradients_are_finite(self):
        a, b = (places(s).requires_grad_() for s in (0, 1))
        inter_loss(a, b).backward()
        assert torch.isfinite(a.grad if a.grad is not None else torch.zeros(1)).all()
        assert torch.isfinite(b.grad).all() and b.grad.abs().sum() > 0

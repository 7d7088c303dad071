"""The contrastive loss and what shows a collapse.

Witnesses: the loss written out pair by pair; SciPy's distances and cosines; the values that theory
gives of constant and of isotropic representations.
"""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import distance

from normfuse.imaging.contrastive import (AbsoluteDifference, Cosine, MeanSquare, closeness,
                                          collapse_value, effective_rank, info_nce, uniformity)
from normfuse.imaging.supervision import Alternating, BottleneckFirst, Summed

CRITICS = [MeanSquare(), AbsoluteDifference(), Cosine()]
N = 6


def pairs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(N, 3, 4, 4, generator=rng, dtype=torch.float64)
    return a, a + 0.3 * torch.randn(a.shape, generator=rng, dtype=torch.float64)


def written_out(critic: str, a: np.ndarray, b: np.ndarray) -> float:
    """h of two patches, (channels, pixels) each."""
    if critic == "MeanSquare":
        return -float(distance.sqeuclidean(a.ravel(), b.ravel())) / a.size
    if critic == "AbsoluteDifference":
        return -float(distance.cityblock(a.ravel(), b.ravel())) / a.shape[1]
    return float(np.mean([1 - distance.cosine(a[:, p], b[:, p]) for p in range(a.shape[1])]))


@pytest.mark.parametrize("critic", CRITICS, ids=repr)
class TestInfoNCE:
    def test_it_is_what_is_written(self, critic):
        a, b = pairs()
        rows = torch.cat([a, b]).flatten(2).numpy()
        name, losses = type(critic).__name__, []
        for i in range(2 * N):
            h = [written_out(name, rows[i], rows[k]) / 0.5 for k in range(2 * N)]
            others = [math.exp(h[k]) for k in range(2 * N) if k != i]
            losses.append(math.log(sum(others)) - h[(i + N) % (2 * N)])
        assert float(info_nce(a, b, critic)) == pytest.approx(np.mean(losses), rel=1e-9)

    def test_a_collapse_costs_what_is_foretold(self, critic):
        same = torch.full((N, 3, 4, 4), 0.7)
        assert float(info_nce(same, same, critic)) == pytest.approx(collapse_value(N), abs=1e-5)
        assert collapse_value(N) == pytest.approx(math.log(2 * N - 1))

    def test_order_side_and_common_turns_do_not_matter(self, critic):
        a, b = pairs()
        loss = float(info_nce(a, b, critic))
        order = torch.randperm(N)
        assert float(info_nce(a[order], b[order], critic)) == pytest.approx(loss)
        assert float(info_nce(b, a, critic)) == pytest.approx(loss)
        turned = (t.rot90(1, (2, 3)) for t in (a, b))
        assert float(info_nce(*turned, critic)) == pytest.approx(loss)

    def test_partners_that_agree_are_better(self, critic):
        a, b = pairs()
        assert info_nce(a, a, critic) < info_nce(a, b, critic) < info_nce(a, b.roll(1, 0), critic)

    def test_it_bounds_mutual_information(self, critic):
        """log(2N - 1) - L <= I of two Gaussians with correlation .8."""
        rng = torch.Generator().manual_seed(1)
        x = torch.randn(512, 4, generator=rng)
        y = 0.8 * x + 0.6 * torch.randn(512, 4, generator=rng)
        true = -0.5 * 4 * math.log(1 - 0.64)
        for temperature in (0.1, 0.5, 2.0):
            bound = collapse_value(512) - float(info_nce(x, y, critic, temperature))
            assert bound <= true

    def test_gradients_are_those_of_differences(self, critic):
        a, b = (t[:3, :, :2, :2].clone() for t in pairs())
        assert torch.autograd.gradcheck(lambda x, y: info_nce(x, y, critic),
                                        (a.requires_grad_(), b.requires_grad_()), atol=1e-6)


def test_what_each_critic_does_not_see():
    a, b = pairs()
    for critic in CRITICS[:2]:
        assert info_nce(a + 7, b + 7, critic) == pytest.approx(float(info_nce(a, b, critic)))
        assert info_nce(3 * a, 3 * b, critic) != pytest.approx(float(info_nce(a, b, critic)))
    cosine = CRITICS[2]
    assert info_nce(3 * a, 5 * b, cosine) == pytest.approx(float(info_nce(a, b, cosine)))
    assert info_nce(a + 7, b + 7, cosine) != pytest.approx(float(info_nce(a, b, cosine)))


def test_large_levels_lose_no_digits():
    a, b = (t.float() for t in pairs())
    assert float(info_nce(a + 1e3, b + 1e3, MeanSquare())) == pytest.approx(
        float(info_nce(a, b, MeanSquare())), rel=1e-2)


def test_refusals():
    a, b = pairs()
    with pytest.raises(ValueError, match="two channels"):
        info_nce(a[:, :1], b[:, :1], Cosine())
    with pytest.raises(ValueError, match="one shape"):
        info_nce(a, b[:3], MeanSquare())
    with pytest.raises(ValueError, match="two rows"):
        info_nce(a[:1], b[:1], MeanSquare())


class TestMonitors:
    def test_rank(self):
        rng = torch.Generator().manual_seed(0)
        full = torch.randn(500, 16, generator=rng)
        part = full.clone()
        part[:, 4:] *= 1e-3
        assert effective_rank(full) == pytest.approx(15.9, abs=0.1)
        assert effective_rank(part) == pytest.approx(4.1, abs=0.15)
        assert effective_rank(torch.ones(9, 5)) == 0
        assert effective_rank(full + 100) == pytest.approx(effective_rank(full), rel=1e-3)

    def test_closeness_and_uniformity(self):
        rng = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 400, 8, generator=rng)
        assert closeness(a, 3 * a) == pytest.approx(0)
        assert closeness(a, b) == pytest.approx(2, abs=0.1)
        assert uniformity(torch.ones(50, 8)) == 0
        by_scipy = np.log(np.mean(np.exp(-2 * distance.pdist(
            (a / a.norm(dim=1, keepdim=True)).numpy()) ** 2)))
        assert uniformity(a) == pytest.approx(by_scipy, rel=1e-5)


def test_supervisions_take_their_turns():
    epochs = range(10)
    assert {Summed(weight=0.3).weights(e, 10) for e in epochs} == {(1.0, 0.3)}
    turns = [Alternating().weights(e, 10) for e in epochs]
    assert turns == [(1.0, 0.0), (0.0, 1.0)] * 5
    first = [BottleneckFirst(share=0.3).weights(e, 10) for e in epochs]
    assert first == [(0.0, 1.0)] * 3 + [(1.0, 0.0)] * 7

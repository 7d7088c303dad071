"""Generalized Wasserstein barycenters: absent modalities, refusals, and random shapes.

Outside witnesses: NumPy's least squares for every mean, and the literal weights of
../shared/methods/methods.md (section 1.4) for what is absent. Covariances are checked against
their definitions in tests/test_generalized.py, not here.
"""
from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from normfuse.fusion import (
    Drop,
    GeneralizedWassersteinBarycenter,
    Given,
    Learned,
    LearnedMaps,
    LinearMaps,
    SharedPrivate,
    SubstitutePrior,
    WassersteinBarycenter,
    full,
    gaussian,
)

WEIGHTS = [0.5, 0.3, 0.2]
# Rows are modalities, columns four subjects; the last one has nothing.
PRESENT = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]).bool()
PRIVATE = [slice(2, 4), slice(4, 6), slice(6, 8)]
BLOCKS = SharedPrivate(private=2)


def drawn(seed, shape=(3, 4, 8), whole=False):
    """Gaussians with all different locs and scales."""
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)
    if not whole:
        return gaussian(loc, scale)
    mixed = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    return full(loc, torch.diag_embed(scale) + 0.4 * mixed.tril(-1))


def covariance(q):
    return q.covariance_matrix if hasattr(q, "covariance_matrix") else torch.diag_embed(q.variance)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("missing", [Drop(), SubstitutePrior()])
def test_an_absent_modality_leaves_its_prior_in_its_block(missing, whole):
    experts, priors = drawn(0, whole=whole), drawn(1, whole=whole)
    fuse = GeneralizedWassersteinBarycenter(BLOCKS, missing=missing, weights=Given(WEIGHTS))
    ready = fuse.sized(3, 8)
    for told in (None, priors):
        q = ready(experts, PRESENT, told)
        for m, n in (~PRESENT).nonzero().tolist():
            own = PRIVATE[m]
            mean = torch.zeros(2).double() if told is None else told.mean[m, n, own]
            spread = torch.eye(2).double() if told is None else covariance(told)[m, n, own, own]
            torch.testing.assert_close(q.mean[n, own], mean, rtol=0, atol=0)
            torch.testing.assert_close(covariance(q)[n, own, own], spread, rtol=0, atol=1e-15)


@pytest.mark.parametrize("told", [False, True])
def test_the_prior_expert_shrinks_by_its_share_of_the_weight(told):
    """By w0 / (w + w0), where w is 1 - w0 times the share of the owners among the present."""
    experts, priors, w0 = drawn(2), drawn(3) if told else None, 0.15
    plain, pulled = (GeneralizedWassersteinBarycenter(
        BLOCKS, prior_weight=w, weights=Given(WEIGHTS)).sized(3, 8) for w in (0.0, w0))
    before, after = (a(experts, PRESENT, priors) for a in (plain, pulled))
    w = torch.zeros(4, 8, dtype=torch.float64)
    for n in range(3):
        total = sum(w for w, there in zip(WEIGHTS, PRESENT[:, n]) if there)
        w[n, :2] = 1 - w0
        for m in PRESENT[:, n].nonzero():
            w[n, PRIVATE[m]] = (1 - w0) * WEIGHTS[m] / total
    share = w0 / (w + w0)
    p = plain.prior(priors) if told else gaussian(0 * w, torch.ones_like(w))
    for ours, unpulled, prior in [(after.mean, before.mean, p.mean),
                                  (after.stddev, before.stddev, p.stddev)]:
        expected = unpulled + share * (prior - unpulled)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-15)
    owned = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]]).repeat_interleave(2, 1).bool()
    assert (share[:3, 2:] < 1)[owned].all() and (share[:3, 2:] == 1)[~owned].all()


@pytest.mark.parametrize("fuse, owners", [
    (WassersteinBarycenter(missing=SubstitutePrior(), weights=Given(WEIGHTS)), None),
    (GeneralizedWassersteinBarycenter(BLOCKS, missing=SubstitutePrior(), weights=Given(WEIGHTS)),
     BLOCKS)])
def test_shifts_from_the_prior_add_up(fuse, owners):
    """Of means and of sds: sum over the present m of w_m (mu_m - mu_p,m), the same for sigma."""
    experts, priors = drawn(4), drawn(5)
    ready = fuse.sized(3, 8)
    q, p = ready(experts, PRESENT, priors), ready.prior(priors)
    owns = torch.ones(3, 8) if owners is None else owners.sized(3, 8).owned()
    w = torch.tensor(WEIGHTS, dtype=torch.float64)[:, None] * owns
    w = (w / w.sum(0))[:, None] * PRESENT[..., None]
    for ours, origin, mine, own in [(q.mean, p.mean, experts.mean, priors.mean),
                                    (q.stddev, p.stddev, experts.stddev, priors.stddev)]:
        torch.testing.assert_close(ours - origin, (w * (mine - own)).sum(0), rtol=0, atol=1e-15)
    torch.testing.assert_close(ready.contributions(experts, PRESENT, priors),
                               w * (experts.mean - priors.mean), rtol=0, atol=1e-15)
    # so a modality that lies where its prior does might as well be absent
    loc, scale = (torch.where(PRESENT[..., None], a, b) for a, b in
                  [(experts.mean, priors.mean), (experts.stddev, priors.stddev)])
    same = ready(gaussian(loc, scale), torch.ones_like(PRESENT), priors)
    assert (same.mean == q.mean).all() and (same.stddev == q.stddev).all()


@pytest.mark.parametrize("options, advice", [
    ({"maps": LinearMaps(torch.eye(3, 4).repeat(2, 1, 1))},
     r"ranks \[3, 3\] do not each see all 4 .* Give prior_weight > 0, .05 for instance"),
    ({"maps": LinearMaps(torch.stack([torch.eye(4), torch.ones(4, 4)]))}, r"ranks \[4, 1\]"),
    ({"maps": LinearMaps([[[1.0, 0.0], [0.0, 1e-7]]])}, r"ranks \[1\]"),
    ({"maps": LearnedMaps()}, "need prior_weight of at least 0.05, got 0.0"),
    ({"maps": LearnedMaps(), "prior_weight": 0.049}, "infinite; they need prior_weight"),
    ({"maps": LearnedMaps(), "prior_weight": 0.1, "missing": SubstitutePrior()},
     r"SubstitutePrior\(\) needs SharedPrivate maps: seen through other maps"),
    ({"prior_weight": 1.0}, r"at least 0 and below 1; got 1.0"),
    ({"prior_weight": -0.1}, r"at least 0 and below 1; got -0.1"),
])
def test_degenerate_barycenters_are_refused_with_advice(options, advice):
    with pytest.raises(ValueError, match=advice):
        GeneralizedWassersteinBarycenter(**options)


def test_singular_maps_pass_with_a_prior_expert():
    GeneralizedWassersteinBarycenter(LinearMaps(torch.ones(2, 3, 4)), prior_weight=0.01)
    GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.05)


def test_maps_that_do_not_fit_are_refused():
    wide = GeneralizedWassersteinBarycenter(SharedPrivate(private=3))
    with pytest.raises(ValueError, match=r"3 private blocks of 3 leave -1 of 8 .* lower private"):
        wide.sized(3, 8)
    assert wide.sized(3, 10).owned().sum(1).tolist() == [4, 4, 4]
    assert SharedPrivate().sized(3, 17).owned().sum(0).tolist() == [3] * 11 + [1] * 6  # a half
    maps = GeneralizedWassersteinBarycenter(LinearMaps(torch.ones(2, 3, 4)), prior_weight=0.1)
    with pytest.raises(ValueError, match="for 2 modalities and 4 latent dimensions; the model has "
                                         "3 and 4"):
        maps.sized(3, 4)
    with pytest.raises(ValueError, match="comes first"):
        GeneralizedWassersteinBarycenter()(drawn(0), PRESENT)
    with pytest.raises(ValueError, match=r"shape \(3, 4\)"):
        LinearMaps(torch.ones(3, 4))
    with pytest.raises(ValueError, match="whole number"):
        SharedPrivate(private=-1)


@pytest.mark.parametrize("prior_weight", [0.0, 0.1])
def test_weights_per_dimension_need_diagonal_experts(prior_weight):
    """Even where the shapes would fit (nothing private): one covariance has one weight."""
    fuse = GeneralizedWassersteinBarycenter(SharedPrivate(private=0), prior_weight=prior_weight,
                                            weights=Learned(per_dimension=True)).sized(3, 8)
    assert fuse(drawn(6), PRESENT).mean.shape == (4, 8)
    with pytest.raises(TypeError, match="weights per latent dimension"):
        fuse(drawn(6, whole=True), PRESENT)


def test_given_maps_are_not_rounded():
    """A third is no binary number: in a float64 model it is as near as float64 gets."""
    maps = np.random.default_rng(0).normal(size=(3, 5, 4)) / 3
    experts = drawn(7, (3, 1, 5))
    fuse = GeneralizedWassersteinBarycenter(LinearMaps(maps), weights=Given(WEIGHTS))
    q = fuse.sized(3, 4).double()(experts, torch.ones(3, 1, dtype=torch.bool))
    rows = np.concatenate([w ** 0.5 * p for w, p in zip(WEIGHTS, maps)])
    told = np.concatenate([w ** 0.5 * mu for w, mu in zip(WEIGHTS, experts.mean[:, 0].numpy())])
    np.testing.assert_allclose(q.mean[0], np.linalg.lstsq(rows, told)[0], rtol=0, atol=1e-13)


def test_gradient_through_maps_that_lose_rank():
    """P' C P is singular here: its root is noisy at 1e-8, so the difference steps are wide."""
    maps = np.random.default_rng(5).normal(size=(3, 4, 4))
    maps[0, 3] = 0.0
    experts, other = drawn(8, (3, 1, 4), True), drawn(9, (3, 1, 4), True)
    fuse = GeneralizedWassersteinBarycenter(LinearMaps(maps), prior_weight=0.2).sized(3, 4)

    def spread(step):
        moved = full(experts.loc, experts.scale_tril + step * other.scale_tril)
        q = fuse(moved, torch.ones(3, 1, dtype=torch.bool))
        return q.covariance_matrix.square().sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    spread(step).backward()
    near, far = (float(spread(h) - spread(-h)) for h in (1e-2, 2e-2))
    assert step.grad.item() == pytest.approx((8 * near - far) / 0.12, rel=1e-6)


@st.composite
def problems(draw):
    m, n = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    private = draw(st.integers(0, 2))
    width = draw(st.integers(1, 3)) + m * private
    present = torch.tensor(draw(st.lists(st.booleans(), min_size=m * n, max_size=m * n)))
    weights = draw(st.lists(st.integers(1, 5), min_size=m, max_size=m))
    return ((m, n, width), private, present.reshape(m, n), weights, draw(st.booleans()),
            draw(st.booleans()), draw(st.sampled_from([0.0, 0.2])),
            draw(st.sampled_from([Drop(), SubstitutePrior()])), draw(st.integers(0, 99)))


def least_squares(owns, weights, loc, there, prior_weight, origin):
    """The shift from the origin that fits what each modality sees best; 0 where nobody sees."""
    w = there * np.array(weights)
    w = (1 - prior_weight) * w / max(w.sum(), 1)
    rows = np.concatenate([np.diag(k * owns[m]) for m, k in enumerate(w ** 0.5)]
                          + [prior_weight ** 0.5 * np.eye(len(origin))])
    told = np.concatenate([k * owns[m] * (loc[m] - origin) for m, k in enumerate(w ** 0.5)]
                          + [0 * origin])
    return origin + np.linalg.lstsq(rows, told)[0]


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(problems())
def test_any_shape_and_pattern(problem):
    shape, private, present, weights, whole, told, prior_weight, missing, seed = problem
    fuse = GeneralizedWassersteinBarycenter(SharedPrivate(private=private), missing=missing,
                                            prior_weight=prior_weight, weights=Given(weights))
    ready = fuse.sized(shape[0], shape[2])
    owns = ready.owned().numpy()
    experts = drawn(seed, shape, whole)
    experts.mean.requires_grad_()
    priors = drawn(seed + 100, shape, whole) if told else None
    q = ready(experts, present, priors)
    spread = covariance(q)
    assert torch.isfinite(q.mean).all() and torch.isfinite(spread).all()
    assert (torch.linalg.eigvalsh(spread) > 1e-3).all()
    everyone = np.ones(shape[0])
    for n in range(shape[1]):
        origin = np.zeros(shape[2]) if priors is None else least_squares(
            owns, weights, priors.mean[:, n].numpy(), everyone, 0.0, np.zeros(shape[2]))
        loc, there = experts.mean[:, n].detach().numpy(), present[:, n].numpy()
        if isinstance(missing, SubstitutePrior):
            own = 0.0 if priors is None else priors.mean[:, n].numpy()
            loc, there = np.where(there[:, None], loc, own), everyone
        expected = least_squares(owns, weights, loc, there, prior_weight, origin)
        np.testing.assert_allclose(q.mean[n].detach(), expected, rtol=0, atol=1e-13)
    q.mean.sum().backward()
    assert (experts.mean.grad[~present] == 0).all() and torch.isfinite(experts.mean.grad).all()

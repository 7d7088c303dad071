"""What locs and scales of all aggregators obey together: units, rotations, order, rounding.

Outside witnesses: the literal mean precision in NumPy, and float64 for what float32 gives. The
laws of units and rotations need none: they compare an aggregator with itself on moved experts.
"""
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from normfuse.fusion import (
    GeneralizedProductOfExperts,
    GeneralizedWassersteinBarycenter,
    Given,
    Learned,
    LinearMaps,
    MixtureOfExperts,
    MomentMatchingBarycenter,
    ProductOfExperts,
    SharedPrivate,
    SubsetMixture,
    SubstitutePrior,
    WassersteinBarycenter,
    full,
    gaussian,
)
from normfuse.fusion.experts import moments

# Rows are modalities, columns four subjects; the last one has nothing.
PRESENT = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]).bool()
DIAGONAL = [GeneralizedProductOfExperts(), MomentMatchingBarycenter(weights=Learned()),
            SubsetMixture(MomentMatchingBarycenter(missing=SubstitutePrior())),
            WassersteinBarycenter(weights=Learned(per_dimension=True))]
ANY = [ProductOfExperts(), ProductOfExperts(prior_expert=False),
       WassersteinBarycenter(weights=Given([5, 2, 3])),
       WassersteinBarycenter(missing=SubstitutePrior(), weights=Learned()),
       GeneralizedWassersteinBarycenter(SharedPrivate(private=1)),
       GeneralizedWassersteinBarycenter(SharedPrivate(private=1), prior_weight=0.1),
       GeneralizedWassersteinBarycenter(SharedPrivate(private=1), missing=SubstitutePrior()),
       MixtureOfExperts(weights=Learned()), SubsetMixture(ProductOfExperts()),
       SubsetMixture(WassersteinBarycenter(), weights=Learned())]
CASES = [(a, False) for a in DIAGONAL + ANY] + [(a, True) for a in ANY]


def drawn(seed, whole=False, centre=0.0, shape=(3, 4, 5)):
    """Gaussians with all different locs and scales."""
    generator = torch.Generator().manual_seed(seed)
    loc = centre + torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)
    if not whole:
        return gaussian(loc, scale)
    mixed = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    return full(loc, torch.diag_embed(scale) + 0.3 * mixed.tril(-1))


def ready(fuse):
    """For three modalities and five dimensions; parameters stirred."""
    made = fuse.sized(3, 5).double()
    for parameter in made.parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        parameter.data += noise.double()
    return made


def parts(q):
    """Locs and scales, of the components if it is a mixture."""
    return [t.detach() for t in moments(getattr(q, "components", q))]


def moved(q, matrix, shift):
    """The law of A z + b. A diagonal Gaussian stays one, so A must then be diagonal."""
    loc, scale = moments(q)
    if scale.dim() == loc.dim():
        return gaussian(loc @ matrix.T + shift, scale * matrix.diagonal())
    covariance = matrix @ q.covariance_matrix @ matrix.T
    return full(loc @ matrix.T + shift, torch.linalg.cholesky(covariance))


@pytest.mark.parametrize("fuse, whole", CASES)
def test_standard_priors_are_the_default(fuse, whole):
    """And a prior that all modalities share is the fused prior, not a sharper one."""
    fuse, experts, common = ready(fuse), drawn(0, whole), drawn(2, whole, shape=(1, 4, 5))
    zero, one = torch.zeros(3, 4, 5).double(), torch.ones(3, 4, 5).double()
    standard = full(zero, torch.diag_embed(one)) if whole else gaussian(zero, one)
    for ours, told in zip(parts(fuse(experts, PRESENT)), parts(fuse(experts, PRESENT, standard))):
        torch.testing.assert_close(ours, told, rtol=0, atol=1e-13)
    if isinstance(fuse, (MomentMatchingBarycenter, WassersteinBarycenter, ProductOfExperts)):
        p = fuse.prior(common.expand((3, 4)))
        for ours, told in zip(parts(p), parts(common)):
            torch.testing.assert_close(ours, told[0], rtol=0, atol=1e-13)


def test_a_full_products_prior_has_the_mean_precision():
    priors = drawn(3, True)
    p = ProductOfExperts().prior(priors)
    precision = np.linalg.inv(priors.covariance_matrix.numpy())
    pull = np.einsum("mnij,mnj->ni", precision, priors.mean.numpy()) / 3
    np.testing.assert_allclose(np.linalg.inv(p.covariance_matrix), precision.mean(0), atol=1e-12)
    np.testing.assert_allclose(precision.mean(0) @ p.mean[..., None].numpy(), pull[..., None],
                               atol=1e-12)


@pytest.mark.parametrize("fuse, whole", CASES)
def test_units_and_origin_of_the_latent_space_do_not_matter(fuse, whole):
    """Fusing A z + b, priors too, is fusing z and moving the result; one unit for all of z."""
    fuse, experts, priors = ready(fuse), drawn(0, whole), drawn(2, whole)
    matrix, shift = -2.5 * torch.eye(5).double(), torch.linspace(-3, 4, 5).double()
    matrix = matrix if whole else -matrix  # sds are positive
    q = fuse(experts, PRESENT, priors)
    other = fuse(moved(experts, matrix, shift), PRESENT, moved(priors, matrix, shift))
    expected = moved(getattr(q, "components", q), matrix, shift)
    # a block's covariance in all of z is singular: its root is good to 1e-8 only, q to 2e-7
    error = 1e-6 if whole and getattr(fuse, "prior_weight", 0) else 1e-12
    for ours, told in zip(parts(other), parts(expected)):
        torch.testing.assert_close(ours, told, rtol=0, atol=error)
    assert (getattr(q, "weights", shift) == getattr(other, "weights", shift)).all()


@pytest.mark.parametrize("fuse, kind", [
    (ProductOfExperts(), "any"), (ProductOfExperts(prior_expert=False), "any"),
    (WassersteinBarycenter(weights=Learned()), "rotation"),
    (SubsetMixture(WassersteinBarycenter(missing=SubstitutePrior())), "rotation")])
def test_linear_maps_of_the_latent_space(fuse, kind):
    """Products follow every invertible linear map, Wasserstein barycenters rotations only."""
    fuse, experts, priors = ready(fuse), drawn(0, True), drawn(2, True)
    matrix = torch.randn(5, 5, generator=torch.Generator().manual_seed(4)).double()
    turn = torch.linalg.qr(matrix)[0]
    shift = torch.linspace(-3, 4, 5).double()
    for a, keeps in ((turn, True), (matrix, kind == "any")):
        q = fuse(experts, PRESENT, priors)
        other = fuse(moved(experts, a, shift), PRESENT, moved(priors, a, shift))
        expected = moved(getattr(q, "components", q), a, shift)
        gap = (parts(other)[1] - parts(expected)[1]).abs().max()
        assert gap < 1e-11 if keeps else gap > 0.01
        torch.testing.assert_close(parts(other)[0], parts(expected)[0], rtol=0, atol=1e-11)


def test_generalized_barycenter_follows_rotations_of_its_maps():
    """q of the maps P_m R' is R q, for rotations R; the prior N(0, I) stays what it is."""
    maps = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(5)).double()
    turn = torch.linalg.qr(drawn(6, shape=(5, 5)).mean)[0]
    experts = drawn(0, True, shape=(3, 4, 4))
    q, other = (GeneralizedWassersteinBarycenter(LinearMaps(p), prior_weight=0.1).sized(3, 5)(
        experts, PRESENT) for p in (maps, maps @ turn.T))
    torch.testing.assert_close(other.mean, q.mean @ turn.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(other.covariance_matrix, turn @ q.covariance_matrix @ turn.T,
                               rtol=0, atol=3e-7)


@pytest.mark.parametrize("learned", [False, True])
def test_moment_matching_has_the_moments_of_the_mixture(learned):
    one, other = (ready(fuse(weights=Learned()) if learned else fuse())
                  for fuse in (MomentMatchingBarycenter, MixtureOfExperts))
    q, mixture = (a(drawn(0), PRESENT) for a in (one, other))
    torch.testing.assert_close(q.mean, mixture.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(q.variance, mixture.variance, rtol=1e-14, atol=0)


@pytest.mark.parametrize("weights", [Given([1, 1, 1]), Given([5, 2, 3])])
def test_variance_order(weights):
    """Harmonic mean of variances <= squared mean of sds <= moments of the mixture."""
    experts, everyone = drawn(0, shape=(3, 2000, 5)), torch.ones(3, 2000, dtype=torch.bool)
    sds = [fuse(weights=weights).sized(3, 5)(experts, everyone).stddev for fuse in (
        GeneralizedProductOfExperts, WassersteinBarycenter, MomentMatchingBarycenter)]
    assert (sds[0] < sds[1]).all() and (sds[1] < sds[2]).all()
    sd = experts.stddev
    assert (sd.amin(0) < sds[0]).all() and (sds[1] < sd.amax(0)).all()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("fuse", DIAGONAL + ANY)
def test_float32_is_as_good_as_its_inputs(fuse, told):
    """1e-6 of the largest loc and of every sd, with all locs near 50."""
    exact = ready(fuse)
    single = copy.deepcopy(exact).float()
    rounded = [drawn(seed, centre=50.0) for seed in (0, 2)]
    rounded = [gaussian(q.mean.float(), q.stddev.float()) for q in rounded]
    q, expected = (parts(a(experts, PRESENT, priors if told else None)) for a, (experts, priors)
                   in ((single, rounded),
                       (exact, [gaussian(q.mean.double(), q.stddev.double()) for q in rounded])))
    assert q[0].dtype == torch.float32
    np.testing.assert_allclose(q[0], expected[0], rtol=0, atol=1e-6 * 50)
    np.testing.assert_allclose(q[1], expected[1], rtol=1e-6)

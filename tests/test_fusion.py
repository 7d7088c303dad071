"""Oracles of the aggregators; their laws are in test_fusion_laws.py.

Outside witnesses: the literal formulas evaluated in NumPy, POT (Bures-Wasserstein barycenter and
distance), SciPy minimisation of the defining divergence, and the outputs of two other packages on
fixed inputs (../shared/peers/peer_fixtures.json). No witness: sampling from the mixtures, which is
checked against their own moments.
"""
from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from normfuse.fusion import (
    GeneralizedProductOfExperts,
    MixtureOfExperts,
    ProductOfExperts,
    SubsetMixture,
    SubsetPosterior,
    WassersteinBarycenter,
    gaussian,
    sigma_points,
)


LOC = np.array([[0.3, -1.2], [1.7, 0.4], [-0.6, 2.1]])
SD = np.array([[0.5, 1.4], [0.9, 0.3], [2.0, 0.7]])


def fused(aggregator, rows=(0, 1, 2)):
    present = torch.zeros(3, 1, dtype=torch.bool)
    present[list(rows)] = True
    experts = gaussian(torch.tensor(LOC)[:, None], torch.tensor(SD)[:, None])
    return aggregator.sized(3, 2)(experts, present)


def moments(q):
    return q.mean[0].detach().numpy(), q.stddev[0].detach().numpy()


@pytest.mark.parametrize("rows", [(0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("prior", [True, False])
def test_product_formula(rows, prior):
    t = 1 / SD[list(rows)] ** 2
    total = prior + t.sum(0)
    mean, sd = moments(fused(ProductOfExperts(prior_expert=prior), rows))
    np.testing.assert_allclose(mean, (t * LOC[list(rows)]).sum(0) / total, rtol=1e-12)
    np.testing.assert_allclose(sd, total ** -0.5, rtol=1e-12)


@pytest.mark.parametrize("rows", [(0,), (1, 2), (0, 1, 2)])
def test_generalized_product_formula_with_learned_weights(rows):
    ready = GeneralizedProductOfExperts().sized(3, 2).double()
    ready.weights.logits.data = torch.tensor([[0.3, -1.0], [0.8, 0.1], [-0.4, 0.6]]).double()
    alpha = np.exp(ready.weights.logits.detach().numpy())[list(rows)]
    alpha /= alpha.sum(0)
    present = torch.zeros(3, 1, dtype=torch.bool)
    present[list(rows)] = True
    q = ready(gaussian(torch.tensor(LOC)[:, None], torch.tensor(SD)[:, None]), present)
    t = alpha / SD[list(rows)] ** 2
    np.testing.assert_allclose(q.mean[0].detach(), (t * LOC[list(rows)]).sum(0) / t.sum(0))
    np.testing.assert_allclose(q.stddev[0].detach(), t.sum(0) ** -0.5)


@pytest.mark.parametrize("rows", [(2,), (0, 2), (0, 1, 2)])
def test_wasserstein_equals_pot(rows):
    ot = pytest.importorskip("ot", reason="POT is the outside witness")
    covariances = np.stack([np.diag(s ** 2) for s in SD[list(rows)]])
    mean, covariance = ot.gaussian.bures_wasserstein_barycenter(
        LOC[list(rows)], covariances, num_iter=2000, eps=1e-12)
    ours = moments(fused(WassersteinBarycenter(), rows))
    np.testing.assert_allclose(ours[0], mean, atol=1e-9)
    np.testing.assert_allclose(np.diag(ours[1] ** 2), covariance, atol=1e-6)


def divergence(kind, m, s, j):
    mu, sd = LOC[j, 0], SD[j, 0]
    if kind == "wasserstein":
        return (m - mu) ** 2 + (s - sd) ** 2
    return np.log(sd / s) + (s ** 2 + (m - mu) ** 2) / (2 * sd ** 2) - 0.5  # KL(q || q_j)


@pytest.mark.parametrize("aggregator, kind, entropy", [
    (WassersteinBarycenter(), "wasserstein", 0.0),
    (GeneralizedProductOfExperts(), "kl", 0.0),
    (ProductOfExperts(prior_expert=False), "kl", 2.0),  # weights 1: plus (M - 1) H(q)
])
def test_each_minimises_its_divergence(aggregator, kind, entropy):
    def objective(theta):
        m, s = theta[0], np.exp(theta[1])
        return sum(divergence(kind, m, s, j) for j in range(3)) + entropy * np.log(s)

    best = optimize.minimize(objective, [0.1, 0.2], method="BFGS", options={"gtol": 1e-9}).x
    mean, sd = moments(fused(aggregator))
    np.testing.assert_allclose([mean[0], sd[0]], [best[0], np.exp(best[1])], atol=1e-5)


@pytest.mark.parametrize("aggregator", [MixtureOfExperts(),
                                        SubsetMixture(WassersteinBarycenter())])
def test_mixture_density_is_the_literal_one(aggregator):
    q = fused(aggregator)
    x = np.array([[0.2, -0.7]])
    if isinstance(aggregator, MixtureOfExperts):
        parts = [(LOC[j], SD[j]) for j in range(3)]
    else:
        subsets = chain.from_iterable(combinations(range(3), r) for r in (1, 2, 3))
        parts = [(LOC[list(s)].mean(0), SD[list(s)].mean(0)) for s in subsets]
    literal = np.mean([stats.norm.pdf(x[0], m, s).prod() for m, s in parts])
    assert q.log_prob(torch.tensor(x)).item() == pytest.approx(np.log(literal), rel=1e-10)


def test_mixture_integrates_to_one():
    q = fused(SubsetMixture(ProductOfExperts()), rows=(0, 2))
    total = integrate.dblquad(
        lambda y, x: float(q.log_prob(torch.tensor([[x, y]], dtype=torch.float64)).exp()),
        -5, 5, -6, 6, epsabs=1e-4)[0]
    assert total == pytest.approx(1, abs=2e-3)


def test_subset_mixture_only_uses_what_is_present():
    q = fused(SubsetMixture(WassersteinBarycenter()), rows=(0, 2))
    assert (q.weights > 0).sum() == 3
    assert q.weights.sum() == pytest.approx(1)


def test_collapsed_mixture_is_not_the_mixture():
    """Averaging subset barycenters by the Wasserstein rule is the plain barycenter again."""
    q = fused(SubsetMixture(WassersteinBarycenter()))
    plain = fused(WassersteinBarycenter())
    np.testing.assert_allclose(q.components.base_dist.scale.mean(0), plain.stddev, rtol=1e-12)
    assert (q.stddev > 1.1 * plain.stddev).any()


def test_variance_order_for_equal_weights():
    """Harmonic mean of variances <= squared mean of sds <= moment-matched mixture."""
    sds = [moments(fused(a))[1] for a in (GeneralizedProductOfExperts(), WassersteinBarycenter(),
                                          MixtureOfExperts())]
    assert (sds[0] < sds[1]).all() and (sds[1] < sds[2]).all()


def test_over_confident_expert():
    """Methods note 1.1: product follows it, the Wasserstein barycenter does not."""
    experts = gaussian(torch.tensor([0.0, 0.0, 5.0]).reshape(3, 1, 1),
                       torch.tensor([1.0, 1.0, 0.05]).reshape(3, 1, 1))
    everyone = torch.ones(3, 1, dtype=torch.bool)
    product = ProductOfExperts(prior_expert=False)(experts, everyone)
    barycenter = WassersteinBarycenter()(experts, everyone)
    assert product.mean.item() == pytest.approx(4.975, abs=1e-3)
    assert (barycenter.mean.item(), barycenter.stddev.item()) == pytest.approx((5 / 3, 2.05 / 3))


@pytest.mark.parametrize("aggregator", [WassersteinBarycenter(), MixtureOfExperts(),
                                        SubsetMixture(ProductOfExperts())])
def test_sigma_points_carry_mean_and_covariance(aggregator):
    q = fused(aggregator)
    points, weights = sigma_points(q)
    np.testing.assert_allclose(weights.sum(0), 1)
    mean = (weights[..., None] * points).sum(0)
    np.testing.assert_allclose(mean, q.mean, atol=1e-12)
    centred = points - mean
    covariance = torch.einsum("sn,sni,snj->nij", weights, centred, centred)
    np.testing.assert_allclose(covariance.diagonal(dim1=1, dim2=2), q.variance, atol=1e-12)


def test_wrong_shapes_and_types_are_refused():
    experts = gaussian(torch.zeros(2, 4, 3), torch.ones(2, 4, 3))
    with pytest.raises(ValueError, match=r"present has shape \(4, 2\)"):
        WassersteinBarycenter()(experts, torch.ones(4, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match="one Gaussian per subset"):
        SubsetMixture(MixtureOfExperts())
    with pytest.raises(ValueError, match="batch shape"):
        SubsetPosterior(experts, torch.full((2, 4), 0.5)).expand(torch.Size([9]))


@pytest.mark.parametrize("key, rows, prior", [
    ("multivae.stable_poe (prior expert)", [0, 1, 2], True),
    ("multivae.stable_poe (no prior)", [0, 1, 2], False),
    ("multivae.stable_poe subset m1,m3 (prior expert)", [0, 2], True),
    ("multivae.stable_poe, m2 missing for rows 0-2 by logvar=inf (prior expert)", None, True),
    ("multiviewae.alphaProductOfExperts (geometric mean, w=1/3)", [0, 1, 2], None),
])
def test_products_equal_other_packages(peer_fixtures, key, rows, prior):
    """Fixed inputs and the outputs of multivae 1.0.3 and multiviewae 1.1.8."""
    loc = torch.tensor(peer_fixtures["unimodal"]["mu"], dtype=torch.float64)
    scale = (0.5 * torch.tensor(peer_fixtures["unimodal"]["logvar"], dtype=torch.float64)).exp()
    present = torch.zeros(loc.shape[:2], dtype=torch.bool)
    present[rows if rows is not None else [0, 1, 2]] = True
    if rows is None:
        present[1, :3] = False
    aggregator = GeneralizedProductOfExperts() if prior is None \
        else ProductOfExperts(prior_expert=prior)
    q = aggregator.sized(3, 2)(gaussian(loc, scale), present)
    mean, logvar = (torch.tensor(v, dtype=torch.float64).reshape(q.mean.shape)
                    for v in peer_fixtures["aggregators"][key])
    torch.testing.assert_close(q.mean.detach(), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(q.variance.detach().log(), logvar, rtol=0, atol=1e-6)

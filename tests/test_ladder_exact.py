"""The hierarchical model on linear hierarchies, where everything is known exactly.

Outside witnesses: exact log p(x_S) and p(z1, z2 | x_S) of the linear hierarchies of
linear_truths.py (themselves tested against dense Gaussian algebra in test_linear_gaussian.py).
The networks have the truth's decoders, noise and priors; from one modality their posterior is
exact too, from several no fusion's is.
"""
from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from linear_truths import (DEEP, DEEP_BLOCKS, PATTERNS, SEVEN, alike, blocked, estimate, everyone,
                           linear_ladder)

from normfuse.evidence import log_likelihood
from normfuse.fusion import (GeneralizedProductOfExperts, Given, MixtureOfExperts,
                             MomentMatchingBarycenter, ProductOfExperts, SubsetMixture,
                             SubstitutePrior, WassersteinBarycenter)
from normfuse.inference import Amortised, Refined
from normfuse.models import Elbo, Iwae, Ladder, OneLatent, StratifiedElbo
from normfuse.models.bounds import importance

CASES = {  # with likelihood factors for products, else with unimodal posteriors
    "poe": (DEEP, ProductOfExperts(), {"factors": True}),
    "mopoe": (DEEP, SubsetMixture(ProductOfExperts(), weights=SEVEN), {"factors": True}),
    "gpoe": (DEEP, GeneralizedProductOfExperts(), {}),
    "moment": (DEEP, MomentMatchingBarycenter(), {}),
    "wb": (DEEP, WassersteinBarycenter(), {"spread": 0.4}),
    "moe": (DEEP, MixtureOfExperts(weights=Given([5, 3, 2])), {"spread": 0.4}),
    "mwb": (DEEP, SubsetMixture(WassersteinBarycenter(), weights=SEVEN), {"spread": 0.4}),
    "wb, prior substituted": (DEEP, WassersteinBarycenter(missing=SubstitutePrior()),
                              {"spread": 0.4}),
    "gwb": (DEEP_BLOCKS, blocked(), {}),
    "gwb, prior substituted": (DEEP_BLOCKS, blocked(missing=SubstitutePrior()), {}),
    "mgwb": (DEEP_BLOCKS, SubsetMixture(blocked(), weights=SEVEN), {})}
ONE_IS_EXACT = list(CASES)[:7]
BOUNDS = (Elbo(), StratifiedElbo(), StratifiedElbo(mixture_density=True), Iwae(draws=7),
          Iwae(draws=49))


@pytest.mark.parametrize("name", CASES)
def test_bounds_are_ordered_below_the_exact_log_p_of_a_hierarchy(name):
    truth, fusion, options = CASES[name]
    vae = linear_ladder(truth, fusion, **options)
    for pattern in PATTERNS[::4]:
        batch = alike(truth, pattern)
        exact = truth.log_prob(batch.x, batch.present).mean().item()
        found = [estimate(bound, vae, batch, 30) for bound in BOUNDS]
        for value, error in found:
            assert value <= exact + 5 * error + 1e-9
        for (low, error), (high, another) in pairwise(found):
            assert low <= high + 5 * math.hypot(error, another) + 1e-9
        if all(pattern):
            assert found[2][0] < found[-1][0] - 4 * math.hypot(found[2][1], found[-1][1])
            assert exact - found[-1][0] < (1.5 if truth is DEEP_BLOCKS else 0.1)


@pytest.mark.parametrize("name", CASES)
def test_importance_weights_are_literal(name):
    """log p(x, z) = log p(x) + log p(z | x) at every draw, z being all levels."""
    truth, fusion, options = CASES[name]
    vae, batch = linear_ladder(truth, fusion, **options), everyone(truth, 1)
    draws = vae.draws(batch, batch.present, 10)
    exact, p = (f(batch.x, batch.present) for f in (truth.log_prob, truth.posterior))
    there = draws.share > 0
    found = importance(vae, batch, draws)[0] + draws.log_q
    expected = exact + p.log_prob(draws.z) + draws.share.log()
    torch.testing.assert_close(found[there], expected[there], atol=1e-9, rtol=0)
    assert (found[~there] == -torch.inf).all()
    torch.testing.assert_close(draws.log_prior, truth.prior().log_prob(draws.z))
    torch.testing.assert_close(draws.share.sum(0), torch.ones(7).double())


@pytest.mark.parametrize("name", CASES)
def test_moments_of_the_posterior_are_those_of_its_draws(name):
    truth, fusion, options = CASES[name]
    vae, batch, n = linear_ladder(truth, fusion, **options), everyone(truth, 1), 7000
    with torch.no_grad():
        q, draws, top = vae.posterior(batch), vae.draws(batch, batch.present, n), vae.widths[0]
    low = draws.z[..., top:] - draws.z[..., :top] @ truth.link.T - truth.link_offset
    e = torch.cat([draws.z[..., :top], low / truth.link_sd], -1)
    torch.testing.assert_close(vae.position(batch)[0], q.mean, atol=1e-9, rtol=0)
    share = draws.share[..., None]
    mean = (share * e).sum(0)
    away = e - mean
    for value, each in ((q.mean, e), (q.variance, away ** 2)):
        found = (share * each).sum(0)
        error = (share ** 2 * (each - found) ** 2).sum(0).sqrt()
        assert ((value - found).abs() < 5 * error).all() and error.max() < 0.15
    if hasattr(q, "covariance_matrix"):
        each = away[..., :, None] * away[..., None, :]
        assert ((each.mean(0) - q.covariance_matrix).abs()
                < 5 * each.std(0) / len(e) ** 0.5).all()


@pytest.mark.parametrize("name", ONE_IS_EXACT)
def test_with_one_modality_the_hierarchy_is_exact(name):
    truth, fusion, options = CASES[name]
    vae = linear_ladder(truth, fusion, **options)
    for pattern in PATTERNS:
        batch = alike(truth, pattern)
        exact = truth.log_prob(batch.x, batch.present)
        q, p = vae.posterior(batch), truth.flat().posterior(batch.x, batch.present)
        loss = sum(StratifiedElbo(mixture_density=True).terms(vae, batch, 1.0)[0].values())
        if sum(pattern) == 1:  # standard coordinates are the independent latents of flat()
            torch.testing.assert_close(q.mean, p.mean, atol=1e-9, rtol=0)
            torch.testing.assert_close(q.variance, p.variance, atol=1e-9, rtol=0)
            z = p.sample((20,))
            torch.testing.assert_close(q.log_prob(z), p.log_prob(z), atol=1e-9, rtol=0)
            assert loss.item() == pytest.approx(-exact.mean().item(), abs=1e-9)
            found = log_likelihood(vae, batch, Amortised(), 1)
            torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)
        else:
            assert (q.mean - p.mean).abs().max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_refined_evidence_of_a_linear_hierarchy_is_exact(name):
    truth, fusion, options = CASES[name]
    vae, batch = linear_ladder(truth, fusion, **options), everyone(truth)
    exact = truth.log_prob(batch.x, batch.present)
    off = (log_likelihood(vae, batch, Refined(), 1000) - exact).abs()
    assert off.max() < 1e-9
    near = (log_likelihood(vae, batch, Amortised(), 1000) - exact).abs()
    assert near.max() < (1.5 if truth is DEEP_BLOCKS else 0.3)


@pytest.mark.parametrize("fusion", [WassersteinBarycenter(), ProductOfExperts(),
                                    MixtureOfExperts()], ids=repr)
def test_a_ladder_with_one_step_is_the_flat_model(fusion):
    batch, losses = everyone(DEEP), []
    for recipe in (Ladder(levels=(4,), hidden=(8,)), OneLatent(n_latent=4, hidden=(8,))):
        torch.manual_seed(3)
        vae = recipe.build({"m1": 4, "m2": 5, "m3": 6}, 0, fusion).double().eval()
        found = [vae.posterior(batch).mean, *vae.position(batch), vae.posterior(batch).variance]
        torch.manual_seed(4)
        losses.append((found, Iwae(draws=6).terms(vae, batch, 1.0)[0], vae.loss(batch)))
    (one, iwae, terms), (two, same, others) = losses
    for a, b in zip(one, two):
        torch.testing.assert_close(a, b)
    if not isinstance(fusion, MixtureOfExperts):  # whose draws come in another order
        assert iwae["iwae"].item() == pytest.approx(same["iwae"].item())
        assert {k: v.item() for k, v in terms.items()} == pytest.approx(
            {k: v.item() for k, v in others.items()})

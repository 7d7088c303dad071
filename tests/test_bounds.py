"""Bounds of log p(x) that training maximises, on models whose log p(x) is known exactly.

Outside witnesses: the exact log p(x_S) and p(z | x_S) of the linear-Gaussian truths of
linear_truths.py (themselves tested against dense Gaussian algebra in test_linear_gaussian.py);
log p - ELBO = KL(q || p(z | x)) by torch's KL of multivariate normals; Pyro's RenyiELBO for
importance weighting; torch's MixtureSameFamily; central differences. The divergence of a mixture
from the exact posterior has no closed form: it is averaged over draws.
"""
from __future__ import annotations

import math
from itertools import pairwise, product

import pyro
import pytest
import torch
from linear_truths import (ALIGNED, CASES, EXACT, ITERATED, PATTERNS, alike, estimate, everyone,
                           linear_vae, made)
from pyro.infer import RenyiELBO
from torch.distributions import (Categorical, MixtureSameFamily, MultivariateNormal, Normal,
                                 kl_divergence)

import normfuse as nf
from normfuse.fusion import (Learned, MixtureOfExperts, ProductOfExperts, SubsetMixture,
                             WassersteinBarycenter)
from normfuse.models import Elbo, Iwae, OneLatent, StratifiedElbo
from normfuse.models.bounds import importance


@pytest.mark.parametrize("name", CASES)
def test_bounds_are_ordered_below_the_exact_log_p(name):
    truth, vae = made(name)
    bounds = [StratifiedElbo(), StratifiedElbo(mixture_density=True),
              *(Iwae(draws=k) for k in (1, 2, 5, 10, 50))]
    for pattern in PATTERNS[::3] if name in ITERATED else PATTERNS:
        batch = alike(truth, pattern)
        exact = truth.log_prob(batch.x, batch.present).mean().item()
        found = [estimate(bound, vae, batch, 10 if name in ITERATED else 60) for bound in bounds]
        for (low, error), (high, another) in pairwise(found):
            assert low <= high + 5 * math.hypot(error, another) + 1e-9
        for value, error in found:
            assert value <= exact + 5 * error + 1e-9
        if all(pattern) and name not in EXACT:
            assert found[0][0] < found[-1][0] - 5 * math.hypot(found[0][1], found[-1][1])
            assert exact - found[-1][0] < 0.1 < exact - found[0][0]


@pytest.mark.parametrize("name", CASES)
def test_elbos_fall_short_of_log_p_by_a_divergence_from_the_exact_posterior(name):
    """Two-sided, and it makes the average of one-component draws the stratified bound."""
    truth, vae = made(name)
    for pattern in (PATTERNS[0], PATTERNS[2], PATTERNS[-1]):
        batch = alike(truth, pattern)
        exact, p = (f(batch.x, batch.present) for f in (truth.log_prob, truth.posterior))
        with torch.no_grad():
            q = vae.posterior(batch)
        parts, weights = (q.components, q.weights) if hasattr(q, "components") else \
            (q.expand((1, len(batch))), torch.ones(1, len(batch)))
        covariance = parts.covariance_matrix if isinstance(parts, MultivariateNormal) \
            else torch.diag_embed(parts.variance)
        gap = (weights * kl_divergence(MultivariateNormal(parts.mean, covariance), p)).sum(0)
        times = 30 if name in ITERATED else 200
        for bound, each in ((Elbo(), times), (StratifiedElbo(draws=times), 1)):
            value, error = estimate(bound, vae, batch, each)
            assert value == pytest.approx((exact - gap).mean().item(), abs=5 * error + 1e-9)
        z = q.rsample((4000,))
        true = q.log_prob(z) - p.log_prob(z)
        bound = StratifiedElbo(draws=times, mixture_density=True)
        value, error = estimate(bound, vae, batch, 1)
        error = math.hypot(error, true.mean(1).std().item() / 4000 ** 0.5)
        assert value == pytest.approx((exact - true.mean(0)).mean().item(), abs=5 * error + 1e-9)


def test_hiding_modalities_averages_bounds_over_what_is_left():
    truth = ALIGNED
    vae, shown = (linear_vae(truth, WassersteinBarycenter(), hide=hide) for hide in (0.5, 0))
    batch, expected = alike(truth, PATTERNS[0]), 0.0
    exact, p = (f(batch.x, batch.present) for f in (truth.log_prob, truth.posterior))
    for pattern in PATTERNS:  # each kept with chance 1/8; nobody is left with nothing instead
        q = shown.posterior(batch, torch.tensor(pattern)[:, None].expand(3, len(batch)))
        gap = kl_divergence(MultivariateNormal(q.mean, torch.diag_embed(q.variance)), p)
        expected += (2 if all(pattern) else 1) / 8 * (exact - gap).mean().item()
    for bound in (Elbo(), StratifiedElbo(draws=3)):
        value, error = estimate(bound, vae, batch, 400)
        assert value == pytest.approx(expected, abs=5 * error)
    assert estimate(Iwae(draws=50), vae, batch)[0] < exact.mean()


@pytest.mark.parametrize("name", sorted(EXACT))
def test_a_product_of_likelihood_factors_is_tight_draw_by_draw(name):
    truth, vae = made(name)
    for pattern in PATTERNS:
        batch = alike(truth, pattern)
        exact, p = (f(batch.x, batch.present) for f in (truth.log_prob, truth.posterior))
        q = vae.posterior(batch)
        torch.testing.assert_close(q.mean, p.mean, atol=1e-9, rtol=0)
        torch.testing.assert_close(q.variance, p.variance, atol=1e-9, rtol=0)
        for bound in (StratifiedElbo(mixture_density=True), Iwae(draws=1), Iwae(draws=5)):
            terms = bound.terms(vae, batch, 1.0)[0]
            assert -sum(terms.values()).item() == pytest.approx(exact.mean().item(), abs=1e-9)


@pytest.mark.parametrize("name", ["poe without prior", "wb", "gwb"])
def test_importance_weighted_bounds_are_pyros(name):
    truth, vae = made(name)
    batch = everyone(truth).take(torch.arange(14).repeat(30))
    theirs = RenyiELBO(alpha=0, num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(0)
    with torch.no_grad(), pyro.validation_enabled(False):
        found = torch.tensor([-theirs.loss(vae.model, vae.guide, batch, batch.present)
                              for _ in range(30)]) / len(batch)
    value, error = estimate(Iwae(draws=5), vae, everyone(truth), 100)
    error = math.hypot(error, found.std().item() / 30 ** 0.5)
    assert value == pytest.approx(found.mean().item(), abs=5 * error) and error < 0.03


@pytest.mark.parametrize("name", ["moe", "mopoe", "full mwb"])
def test_mixture_draws_have_the_mixtures_density(name):
    truth, vae = made(name)
    batch, pieces = everyone(truth, 1), []
    draws = vae.draws(batch, batch.present, 15)
    weight = importance(vae, batch, draws)[0]
    q = vae.posterior(batch)
    n, each = len(q.weights), -(-15 // len(q.weights))
    assert len(draws.z) == n * each
    torch.testing.assert_close(draws.share, (q.weights / each).repeat_interleave(each, 0))
    for i in range(len(batch)):
        some = q.weights[:, i] > 0
        assert some.sum() == (batch.present[:, i].sum() if n == 3
                              else 2 ** batch.present[:, i].sum() - 1)
        covariance = torch.diag_embed(q.components.variance) if name != "full mwb" \
            else q.components.covariance_matrix
        theirs = MixtureSameFamily(
            Categorical(q.weights[some, i]),
            MultivariateNormal(q.components.mean[some, i], covariance[some, i]))
        log_p = Normal(0.0, 1.0).log_prob(draws.z[:, i]).sum(-1)
        for m, (w, c, s) in enumerate(zip(truth.loadings, truth.offsets, truth.sds)):
            if batch.present[m, i]:
                mean = draws.z[:, i] @ w.T + c
                log_p = log_p + Normal(mean, s).log_prob(batch.x[m][i]).sum(-1)
        pieces.append(log_p - theirs.log_prob(draws.z[:, i]) + draws.share[:, i].log())
    torch.testing.assert_close(weight, torch.stack(pieces, 1))


def gradients(vae, bound, batch, seeds=100):
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        vae.zero_grad()
        sum(bound.terms(vae, batch, 1.0)[0].values()).backward()
        found.append(torch.cat([p.grad.ravel() for p in vae.parameters() if p.grad is not None]))
    return torch.stack(found)


@pytest.mark.parametrize("fusion", [WassersteinBarycenter(), SubsetMixture(
    ProductOfExperts(), weights=Learned())], ids=repr)
def test_resampling_keeps_the_value_and_the_expected_gradient(fusion):
    vae = linear_vae(ALIGNED, fusion, factors=not isinstance(fusion, WassersteinBarycenter))
    for p in vae.decoders.parameters():
        p.data += 0.3  # at the optimum all gradients would vanish
    vae.train()
    batch = everyone(ALIGNED).take(torch.arange(14).repeat(12))
    whole = gradients(vae, Iwae(draws=8, resampled=None), batch)
    for r in (1, 2):
        away = gradients(vae, Iwae(draws=8, resampled=r), batch) - whole
        error = away.std(0) / len(away) ** 0.5
        assert (away.mean(0).abs() <= 5 * error + 1e-12).all()
        assert error.norm() < 0.03 * whole.mean(0).norm()
        losses = []
        for some in (None, r):
            torch.manual_seed(1)
            losses.append(Iwae(draws=8, resampled=some).terms(vae, batch, 1.0)[0]["iwae"].item())
        assert losses[0] == losses[1]
    other = gradients(vae, StratifiedElbo(draws=2, mixture_density=True), batch) - whole
    assert (other.mean(0).abs() > 20 * other.std(0) / len(other) ** 0.5).any()  # would be seen


@pytest.mark.parametrize("floor", [0.0, 3.0])
def test_free_bits_are_a_floor_in_training_only(floor):
    truth, vae = made("wb")
    batch, terms = everyone(truth), {}
    for bound, training in product((Elbo(), Elbo(free_bits=floor)), (True, False)):
        vae.train(training).zero_grad()
        torch.manual_seed(6)
        found = bound.terms(vae, batch, 1.0)[0]
        found["kl"].backward()
        slope = vae.encoders[0].net[-1].weight.grad.abs().max().item()
        terms[bound.free_bits, training] = found.pop("kl").item(), slope, sum(found.values())
    kl, slope, rest = terms[0.0, True]
    assert 0.5 < kl < 3 and slope > 0
    assert terms[floor, False] == (kl, slope, rest)
    assert terms[floor, True] == ((kl, slope, rest) if floor == 0 else (floor, 0.0, rest))


@pytest.mark.parametrize("fusion", [MixtureOfExperts(weights=Learned()), SubsetMixture(
    WassersteinBarycenter(), weights=Learned())], ids=repr)
def test_learned_mixture_weights_need_a_bound_that_visits_all(fusion):
    advice = "gives no gradient: it draws one of them. Use bound=StratifiedElbo\\(\\) or Iwae"
    with pytest.raises(ValueError, match=advice):
        OneLatent().build({"t1": 4}, 0, fusion)
    with pytest.raises(ValueError, match=advice):
        nf.NormativeModel(fusion, model=OneLatent(bound=Elbo(free_bits=1.0)))
    nf.NormativeModel(SubsetMixture(WassersteinBarycenter(weights=Learned())))
    vae, batch = linear_vae(ALIGNED, fusion), everyone(ALIGNED)
    logits = vae.fusion.weights.logits
    logits.data += torch.linspace(-1, 0.5, len(logits))
    bounds = (StratifiedElbo(), StratifiedElbo(mixture_density=True), Iwae(draws=9))
    for bound in bounds:  # the same noise at every call
        def loss():
            torch.manual_seed(2)
            return sum(bound.terms(vae, batch, 1.0)[0].values())

        slope, = torch.autograd.grad(loss(), logits)
        for k in range(len(logits)):
            logits.data[k] += 1e-5
            high = loss().item()
            logits.data[k] -= 2e-5
            assert slope[k].item() == pytest.approx((high - loss().item()) / 2e-5, abs=1e-7)
            logits.data[k] += 1e-5
        assert slope.abs().max() > 1e-3

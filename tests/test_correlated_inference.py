"""Posteriors, log p and leave-one-out expectations when noise correlates inside modalities.

Outside witnesses: dense Gaussian algebra of the linear truths of correlated_truths.py (each
person's own covariance matrix, torch's MultivariateNormal), the probabilistic CCA of benchmarks/
at equal parameters, autograd for gradients, and what inference itself says once a cell is really
hidden. Leave-one-out with bent decoders has no other witness than the last.
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from correlated_truths import WIDTHS, CorrelatedTruth, mask
from linear_truths import DEEP, everyone, linear_ladder
from torch.distributions import MultivariateNormal

from normfuse.conditional import leave_one_out
from normfuse.evidence import log_likelihood
from normfuse.fusion import SubsetMixture, WassersteinBarycenter
from normfuse.inference import Amortised, Energy, Refined
from normfuse.models import Batch, Elbo, Iwae, MultimodalVAE, OneLatent

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
try:  # scripts that import each other by bare name, not a package
    from probabilistic_cca import ProbabilisticCCA
finally:
    del sys.path[0]

TRUTH = CorrelatedTruth.random(seed=5)
CASES = {"whole": {}, "absent": {"absent": 0.4}, "holes": {"holes": 0.3},
         "both": {"absent": 0.4, "holes": 0.3}}


@pytest.fixture(params=CASES)
def batch(request):
    return TRUTH.people(25, 1, **CASES[request.param])


def blocks(batch):
    cells = mask(batch).split(WIDTHS, 1)
    return [torch.where(c, x, torch.nan).numpy() for x, c in zip(batch.x, cells)]


def as_pcca():
    return ProbabilisticCCA(*(tuple(t.numpy() for t in part) for part in (
        TRUTH.base.offsets, TRUTH.base.loadings, TRUTH.noise)))


def bent(n_latent=2):
    """Decoders whose perceptrons curve, with the truth's noise."""
    vae = MultimodalVAE({f"m{k + 1}": p for k, p in enumerate(WIDTHS)}, 1, WassersteinBarycenter(),
                        OneLatent(n_latent=n_latent, hidden=(16,), dropout=0.0)).double().eval()
    torch.manual_seed(3)
    for decoder, noise, sd, r in zip(vae.decoders, vae.noise, TRUTH.base.sds, TRUTH.correlations):
        decoder.net[-1].weight.data.normal_().mul_(0.3)
        decoder.skip.weight.data.normal_()
        noise.set(sd.clone(), r)
    return vae.requires_grad_(False)


def people(vae, n=25, holes=0.2):
    batch = TRUTH.people(n, 2, holes, 0.3)
    torch.manual_seed(1)
    means = vae.decode(torch.randn(n, 2).double(), batch.design)
    cells = mask(batch).split(WIDTHS, 1)
    kept = tuple(torch.where(c, mean + noise.sample(mean.shape), 0.0)
                 for c, mean, noise in zip(cells, means, vae.noise))
    return Batch(kept, cells, batch.present, batch.design)


def test_refined_posterior_of_linear_decoders_is_exact(batch):
    mean, covariance = TRUTH.posterior(batch)
    q = Refined(steps=1).posterior(TRUTH.model(), batch)
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.covariance_matrix, covariance)


def test_evidence_of_linear_decoders_is_exact(batch):
    found = log_likelihood(TRUTH.model(), batch, Refined(), 1)
    torch.testing.assert_close(found, TRUTH.log_prob(batch), atol=1e-9, rtol=0)
    np.testing.assert_allclose(found, as_pcca().log_likelihood(blocks(batch)), atol=1e-9)
    off = log_likelihood(TRUTH.model(), batch, Amortised(), 4000) - TRUTH.log_prob(batch)
    assert off.mean() < 0.05  # a lower bound on average


def test_slopes_of_an_affine_model_may_be_taken_at_one_person(batch, monkeypatch):
    vae = TRUTH.model()
    short = Refined().posterior(vae, batch), leave_one_out(vae, batch)
    assert vae.is_affine
    monkeypatch.setattr(MultimodalVAE, "is_affine", False)
    long = Refined().posterior(vae, batch), leave_one_out(vae, batch)
    torch.testing.assert_close(short[0].mean, long[0].mean)
    torch.testing.assert_close(short[0].covariance_matrix, long[0].covariance_matrix)
    torch.testing.assert_close(short[1], long[1], equal_nan=True)


def test_newton_terms_are_those_of_the_joint_density():
    vae = bent()
    batch, z = people(vae), torch.randn(25, 2).double().requires_grad_()
    means = vae.decode(z, batch.design)
    log_p = -0.5 * z.square().sum()
    for x, mean, cells, psi in zip(batch.x, means, batch.measured, TRUTH.noise):
        for i, known in enumerate(cells):
            o = torch.nonzero(known).ravel()
            if len(o):
                log_p = log_p + MultivariateNormal(mean[i, o], psi[o][:, o]).log_prob(x[i, o])
    expected = torch.autograd.grad(log_p, z)[0]
    gradient, precision = Energy(vae, batch).newton(z.detach())
    torch.testing.assert_close(gradient, expected)
    for i in range(5):  # J' Psi^-1 J over measured cells
        literal = torch.eye(2).double()
        for m, psi in enumerate(TRUTH.noise):
            o = torch.nonzero(batch.measured[m][i]).ravel()
            if len(o):
                j = torch.func.jacrev(lambda at: vae.decode(
                    at[None], batch.design[i:i + 1])[m][0])(z[i].detach())[o]
                literal += j.T @ torch.linalg.solve(psi[o][:, o], j)
        torch.testing.assert_close(precision[i], literal)


@pytest.mark.parametrize("fusion", [WassersteinBarycenter(), SubsetMixture(
    WassersteinBarycenter())], ids=repr)
@pytest.mark.parametrize("make", [TRUTH.model, bent], ids=["linear", "bent"])
def test_a_persons_results_are_theirs_alone(fusion, make):
    vae = make()
    vae.fusion = fusion
    batch = people(vae)
    whole = Refined(steps=3).posterior(vae, batch), log_likelihood(vae, batch, Refined(), 5), \
        leave_one_out(vae, batch)
    for i in range(0, 25, 4):
        alone = batch.take(torch.tensor([i]))
        q = Refined(steps=3).posterior(vae, alone)
        torch.testing.assert_close(q.mean[0], whole[0].mean[i], atol=1e-11, rtol=0)
        torch.testing.assert_close(log_likelihood(vae, alone, Refined(), 5)[0], whole[1][i],
                                   atol=1e-9, rtol=0)
        for part, of_all in zip(leave_one_out(vae, alone), whole[2]):
            torch.testing.assert_close(part[0], of_all[i], equal_nan=True, atol=1e-9, rtol=0)


def test_what_stands_in_unmeasured_cells_is_not_read():
    vae = bent()
    batch = people(vae)
    junk = tuple(torch.where(c, x, 1e6) for x, c in zip(batch.x, batch.measured))
    spoilt = Batch(junk, batch.measured, batch.present, batch.design)
    z = vae.posterior(batch).mean
    torch.testing.assert_close(Energy(vae, spoilt)(z), Energy(vae, batch)(z), rtol=0, atol=0)
    for a, b in zip(Energy(vae, spoilt).newton(z), Energy(vae, batch).newton(z)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_linear_hierarchy_is_exact_too():
    vae, batch, flat = linear_ladder(DEEP, WassersteinBarycenter()), everyone(DEEP), DEEP.flat()
    truth = CorrelatedTruth(flat, CorrelatedTruth.random(seed=9).correlations)
    for noise, sd, r in zip(vae.noise, flat.sds, truth.correlations):
        noise.set(sd.clone(), r)
    found = log_likelihood(vae, batch, Refined(), 1)
    torch.testing.assert_close(found, truth.log_prob(batch), atol=1e-9, rtol=0)
    for a, b in zip(leave_one_out(vae, batch), truth.others(batch)):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_bounds_stay_below():
    batch, vae = TRUTH.people(400, 3, 0.2, 0.3), TRUTH.model()
    exact = TRUTH.log_prob(batch).mean().item()
    torch.manual_seed(0)
    with torch.no_grad():
        found = [-sum(bound.terms(vae, batch, 1.0)[0].values()).item()
                 for bound in (Elbo(), Iwae(draws=50))]
    assert found[0] < found[1] < exact


def test_each_cell_given_all_others_is_exact_with_linear_decoders(batch):
    found, expected = leave_one_out(TRUTH.model(), batch), TRUTH.others(batch)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, equal_nan=True)
    z = (torch.cat(batch.x, 1) - found[0]) / found[1].sqrt()
    np.testing.assert_allclose(z, np.hstack(as_pcca().residual_z(blocks(batch))), atol=1e-9)


def test_a_persons_only_cell_has_the_law_of_the_population():
    batch = TRUTH.people(1)
    only = torch.zeros(1, sum(WIDTHS), dtype=torch.bool)
    only[0, 2] = True
    batch = Batch(batch.x, only.split(WIDTHS, 1), torch.tensor([[True], [False], [False]]),
                  batch.design)
    mean, variance = leave_one_out(TRUTH.model(), batch)
    torch.testing.assert_close(mean[0, 2], TRUTH.offset[2])
    torch.testing.assert_close(variance[0, 2], TRUTH.covariance[2, 2])
    assert mean.isnan().sum() == variance.isnan().sum() == sum(WIDTHS) - 1


def hidden(vae, batch, m, j):
    """Mean and variance of cell j of modality m once it is hidden and z found without it."""
    cells = batch.measured[m].clone()
    cells[:, j] = False
    rest = Batch(batch.x, tuple(cells if k == m else c for k, c in enumerate(batch.measured)),
                 batch.present, batch.design)
    q = Refined(steps=30).posterior(vae, rest)
    mean = vae.decode(q.mean, batch.design)[m]
    slopes = Energy(vae, rest).linearised(q.mean)[1][m].expand(-1, len(batch), -1)
    psi, found = TRUTH.noise[m], torch.empty(2, len(batch)).double()
    for i, known in enumerate(cells):
        o = torch.nonzero(known).ravel()
        gain = torch.linalg.solve(psi[o][:, o], psi[o, j])
        slope = slopes[:, i, j] - slopes[:, i, o] @ gain
        found[0, i] = mean[i, j] + gain @ (batch.x[m] - mean)[i, o]
        found[1, i] = psi[j, j] - gain @ psi[o, j] + slope @ q.covariance_matrix[i] @ slope
    return found


@pytest.mark.parametrize("make, allowed", [(TRUTH.model, 1e-9), (bent, 0.1)],
                         ids=["linear", "bent"])
def test_leaving_a_cell_out_is_as_hiding_it(make, allowed):
    """``allowed`` is in predictive sds, of nine in ten people."""
    vae = make()
    batch = people(vae, 60)
    mean, variance = (t.split(WIDTHS, 1) for t in leave_one_out(vae, batch, Refined(steps=30)))
    for m, j in ((0, 1), (1, 0), (2, 5)):
        seen = batch.measured[m][:, j]
        again = hidden(vae, batch, m, j)
        off = (mean[m][:, j] - again[0]).abs() / again[1].sqrt()
        assert off[seen].quantile(0.9) < allowed
        assert (variance[m][:, j] / again[1] - 1)[seen].abs().quantile(0.9) < allowed

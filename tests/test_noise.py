"""Noise that correlates inside a modality, in any pattern of measured cells.

Outside witnesses: torch's MultivariateNormal and dense inverses over each person's measured cells.
"""
from __future__ import annotations

import pytest
import torch
from correlated_truths import CorrelatedTruth
from torch.distributions import MultivariateNormal

import normfuse as nf
from normfuse.models import Noise, OneLatent
from normfuse.models.likelihood import MeasuredNormal
from normfuse.models.noise import NOISE_FLOOR
from normfuse.testing import tiny_cohort

P = 6


def correlated(p=P, seed=0):
    truth = CorrelatedTruth.random((p,), 1, seed)
    noise = Noise(p).double()
    noise.set(truth.base.sds[0].clone(), truth.correlations[0])
    return noise, truth.noise[0]


def patterns(n=9, p=P):
    """Everything, nothing, one cell, all but one, and others, some of them twice."""
    torch.manual_seed(2)
    cells = torch.rand(n, p) > 0.4
    cells[0], cells[1], cells[2], cells[3] = True, False, torch.arange(p) == 2, \
        torch.arange(p) != 1
    cells[5] = cells[4]
    return cells


def dense(covariance, cells, block):
    """Each person's noise over the measured cells, and what was measured."""
    for i, known in enumerate(cells):
        o = torch.nonzero(known).ravel()
        yield i, o, covariance[o][:, o], block[i, o]


def test_quadratic_forms_and_determinants_of_any_pattern():
    (noise, covariance), cells = correlated(), patterns()
    e = torch.randn(len(cells), P).double()
    spoilt = torch.where(cells, e, torch.nan)
    seen = noise.among(cells)
    white, weighed, diagonal = seen.whiten(spoilt), seen.weigh(spoilt), seen.precision_diagonal
    for i, o, psi, known in dense(covariance, cells, e):
        inverse = torch.linalg.inv(psi)
        torch.testing.assert_close(white[i].square().sum(), known @ inverse @ known)
        torch.testing.assert_close(seen.log_det[i], torch.logdet(psi))
        torch.testing.assert_close(weighed[i, o], inverse @ known)
        torch.testing.assert_close(diagonal[i, o], inverse.diagonal())
        assert (weighed[i][~cells[i]].abs() < 1e-12).all() and not diagonal[i][~cells[i]].any()


def test_missing_cells_are_filled_with_what_the_others_say():
    (noise, covariance), cells = correlated(), patterns()
    cells = cells[cells.any(1)]
    e = torch.randn(len(cells), P).double()
    seen, expected = noise.among(cells), torch.zeros(P, P).double()
    filled = seen.fill(torch.where(cells, e, torch.nan))
    for i, o, psi, known in dense(covariance, cells, e):
        u = torch.nonzero(~cells[i]).ravel()
        gain = covariance[u][:, o] @ torch.linalg.inv(psi)
        torch.testing.assert_close(filled[i, o], known)
        torch.testing.assert_close(filled[i, u], gain @ known)
        expected[u[:, None], u] += covariance[u][:, u] - gain @ covariance[o][:, u]
    torch.testing.assert_close(seen.left_open(), expected)


@pytest.mark.parametrize("cells", [None, patterns()[patterns().any(1)]], ids=["whole", "holes"])
def test_uncorrelated_is_a_correlation_of_one(cells):
    noises = Noise(P).double(), Noise(P).double()
    noises[0].set(torch.rand(P).double() + 0.5)
    noises[1].set(noises[0].sd.data, torch.eye(P).double())
    assert [noise.is_correlated for noise in noises] == [False, True]
    one, other = (noise.among(cells) for noise in noises)
    block = torch.randn(3, 8, P).double()
    for name in ("whiten", "weigh", "fill"):
        torch.testing.assert_close(getattr(one, name)(block), getattr(other, name)(block))
    for name in ("log_det", "precision_diagonal"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    torch.testing.assert_close(one.left_open(), other.left_open())


@pytest.mark.parametrize("cells", [None, patterns()], ids=["whole", "holes"])
def test_a_block_that_is_the_same_for_everybody_is_read_once(cells):
    noise, _ = correlated()
    block, seen = torch.randn(3, 1, P).double(), noise.among(cells)
    for act in (seen.whiten, seen.weigh):
        torch.testing.assert_close(act(block).expand(3, 9, P), act(block.expand(3, 9, P)))


@pytest.mark.parametrize("cells", [None, patterns()], ids=["whole", "holes"])
def test_density_and_its_gradient_are_those_of_a_multivariate_normal(cells):
    noise, covariance = correlated()
    x, mean = torch.randn(9, P).double(), torch.randn(4, 9, P).double().requires_grad_()
    found = MeasuredNormal(mean, noise, cells).log_prob(x)
    known = torch.ones(9, P, dtype=torch.bool) if cells is None else cells
    expected = torch.zeros(4, 9).double()
    for i, o, psi, part in dense(covariance, known, x):
        if len(o):
            expected[:, i] = MultivariateNormal(mean[:, i, o], psi).log_prob(part)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(t.sum(), mean)[0] for t in (found, expected)))


def test_draws_scatter_as_the_noise_says():
    noise, covariance = correlated()
    torch.manual_seed(0)
    drawn = MeasuredNormal(torch.ones(1, P).double(), noise, None).sample(torch.Size([200_000]))
    torch.testing.assert_close(drawn[:, 0].T.cov(), covariance, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.mean(0), torch.ones(1, P).double(), atol=0.02, rtol=0)


@pytest.mark.parametrize("shrinkage", [0.05, 0.4, 1.0])
def test_shrinking_keeps_variances(shrinkage):
    covariance = CorrelatedTruth.random((P,), 1).noise[0]
    noise = Noise(P).double()
    noise.set_shrunk(covariance, shrinkage)
    torch.testing.assert_close(noise.sd.data, covariance.diagonal().sqrt())
    assert noise.is_correlated == (shrinkage < 1)
    if shrinkage < 1:
        off = ~torch.eye(P, dtype=torch.bool)
        full = noise.sd[:, None] * noise.correlation * noise.sd
        torch.testing.assert_close(full[off], (1 - shrinkage) * covariance[off])
        torch.testing.assert_close(full.diagonal(), covariance.diagonal())


def test_a_feature_without_noise_of_its_own_leaves_a_covariance():
    covariance = torch.ones(3, 3).double()  # one thing three times
    covariance[2] = covariance[:, 2] = 0  # and one that never varies
    noise = Noise(3).double()
    noise.set_shrunk(covariance, 0.05)
    assert noise.sd[2] == NOISE_FLOOR and noise.inverse_root.isfinite().all()


def test_state_goes_into_a_fresh_model_whether_or_not_noise_correlates():
    recipe, sizes = OneLatent(n_latent=2, hidden=(4,)), {"a": P, "b": 3}
    build = lambda: recipe.build(sizes, 0, nf.fusion.WassersteinBarycenter()).double()
    one, other, plain = build(), build(), build()
    one.noise[0] = correlated()[0]
    other.load_state_dict(one.state_dict())
    assert other.noise[0].is_correlated and not other.noise[1].is_correlated
    torch.testing.assert_close(other.noise[0].inverse_root, one.noise[0].inverse_root)
    other.load_state_dict(plain.state_dict())
    assert not other.noise[0].is_correlated


def test_a_saved_model_keeps_its_correlations(tmp_path):
    cohort = tiny_cohort(90, seed=3)
    model = nf.NormativeModel(model=OneLatent(n_latent=2, hidden=(6,)), calibration=nf.HeldOut(),
                              plan=nf.TrainingPlan(max_epochs=4, warmup=1))
    model.fit(cohort.reference_subjects())
    for noise in model.fitted.vae.noise:
        p = len(noise.sd)
        noise.set(noise.sd.data, 0.3 * torch.ones(p, p).double() + 0.7 * torch.eye(p).double())
    again = nf.NormativeModel.load(model.save(tmp_path / "model"))
    assert all(noise.is_correlated for noise in again.fitted.vae.noise)
    for name in ("log_likelihood", "predict"):
        one, other = (getattr(m, name)(cohort) for m in (model, again))
        assert one.equals(other)

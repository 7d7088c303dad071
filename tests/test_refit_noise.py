"""Noise correlations learned in the last step of a fit, and kept only where they pay.

Outside witnesses: the exact log p of linear truths with and without correlated noise
(correlated_truths.py), and the maximum that the probabilistic CCA of benchmarks/ finds at the same
shrinkage.
"""
from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from correlated_truths import CorrelatedTruth, mask

from normfuse import refit as module
from normfuse.evidence import log_likelihood
from normfuse.expected_sums import FeatureSums, JointSums
from normfuse.fusion import WassersteinBarycenter, sigma_points
from normfuse.inference import Amortised, Refined
from normfuse.models import Ladder, OneLatent
from normfuse.refit import SHRINKAGES, choose_shrinkages, maximise, refit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
try:  # scripts that import each other by bare name, not a package
    from probabilistic_cca import ProbabilisticCCA
finally:
    del sys.path[0]

WIDTHS = (12, 9, 10)
TRUTH = CorrelatedTruth.random(WIDTHS, 2, seed=2)
DIAGONAL = CorrelatedTruth.random(WIDTHS, 2, seed=2, strength=0.0)
BENT, NO_SKIP = (OneLatent(n_latent=2, hidden=(8,), skip=skip) for skip in (True, False))
TALL = Ladder(levels=(2, 1), hidden=(8,))


def fresh(recipe=OneLatent(n_latent=2, hidden=(), dropout=0.0), n_design=1):
    torch.manual_seed(3)
    vae = recipe.build({f"m{k}": width for k, width in enumerate(WIDTHS)}, n_design,
                       WassersteinBarycenter())
    return vae.double().eval().requires_grad_(False)


def per_feature(vae, batch, inference=Refined()):
    return (log_likelihood(vae, batch, inference, 5).sum() / mask(batch).sum()).item()


def parts(truth, n=260, **missing):
    """People to learn from, to choose by, and others; of the last the exact nats per feature."""
    others = truth.people(1000, 2, **missing)
    exact = (truth.log_prob(others).sum() / mask(others).sum()).item()
    return truth.people(n, 0, **missing), truth.people(n // 4, 1, **missing), others, exact


def refitted(training, held_out, monkeypatch, grid=SHRINKAGES, vae=None, inference=Refined()):
    monkeypatch.setattr(module, "SHRINKAGES", grid)
    vae = fresh() if vae is None else copy.deepcopy(vae)
    refit(vae, training, held_out, inference, rounds=40)
    return vae


@pytest.mark.parametrize("shrinkage, missing", [
    (0.3, {}), (0.8, {}),
    pytest.param(0.5, {"holes": 0.15, "absent": 0.2}, marks=pytest.mark.slow)])
def test_rounds_end_where_probabilistic_cca_ends(shrinkage, missing, monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 0.0)
    monkeypatch.setattr(module, "COVARIATE_RIDGE", 1e9)  # which it does not have
    batch, vae = TRUTH.people(100, 0, **missing), fresh()
    maximise(vae, batch, Refined(steps=1), 30, relevance=False)
    maximise(vae, batch, Refined(steps=1), 250, shrinkages=[shrinkage] * 3, relevance=False)
    blocks = [torch.where(c, x, torch.nan).numpy()
              for x, c in zip(batch.x, mask(batch).split(WIDTHS, 1))]
    theirs = ProbabilisticCCA.start(blocks, 2, shrinkage=shrinkage).improved(
        blocks, n_iterations=5000, tolerance=1e-7)
    ours = log_likelihood(vae, batch, Refined(), 1).mean().item()
    assert ours == pytest.approx(theirs.log_likelihood(blocks).mean(), abs=2e-3)


def test_without_shrinkage_every_round_makes_people_more_probable(monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 0.0)
    monkeypatch.setattr(module, "COVARIATE_RIDGE", 0.0)
    batch, vae, seen = TRUTH.people(300, 0, holes=0.1), fresh(), []
    maximise(vae, batch, Refined(steps=1), 3, relevance=False)
    for _ in range(15):
        maximise(vae, batch, Refined(steps=1), 1, shrinkages=[0.0] * 3, relevance=False)
        seen.append(per_feature(vae, batch))
    assert (np.diff(seen) > -1e-10).all() and seen[-1] > seen[0]


@pytest.mark.parametrize("missing", [{}, {"holes": 0.1, "absent": 0.3}], ids=["whole", "missing"])
def test_correlated_noise_is_found_and_brings_people_nearer_to_the_truth(missing, monkeypatch):
    training, held_out, others, exact = parts(TRUTH, **missing)
    plain = per_feature(refitted(training, held_out, monkeypatch, (1.0,)), others)
    vae = refitted(training, held_out, monkeypatch)
    found = per_feature(vae, others)
    assert all(noise.is_correlated for noise in vae.noise)
    assert plain < exact - 0.1 and found > exact - 0.3 * (exact - plain)
    for noise, r in zip(vae.noise, TRUTH.correlations):
        off = ~torch.eye(len(r), dtype=torch.bool)
        assert np.corrcoef(noise.correlation[off], r[off])[0, 1] > 0.6


@pytest.mark.parametrize("n", [100, 260])
def test_where_noise_is_independent_next_to_nothing_is_lost(n, monkeypatch):
    training, held_out, others, _ = parts(DIAGONAL, n)
    plain = per_feature(refitted(training, held_out, monkeypatch, (1.0,)), others)
    assert per_feature(refitted(training, held_out, monkeypatch), others) > plain - 0.002


def test_only_the_modality_whose_noise_correlates_keeps_correlations():
    mixed = CorrelatedTruth(TRUTH.base, (TRUTH.correlations[0], *DIAGONAL.correlations[1:]))
    training, held_out, _, _ = parts(mixed, 600)
    vae = fresh()
    maximise(vae, training, Refined(), 40)
    chosen = choose_shrinkages(vae, training, held_out, Refined())
    assert chosen[0] < 0.3
    for noise in vae.noise[1:]:  # chance leaves correlations of 1 / sqrt(600) = 0.04 in them
        off = noise.correlation[~torch.eye(len(noise.correlation), dtype=torch.bool)]
        assert off.square().sum() <= 0.03 ** 2 * len(off)


def test_large_modalities_stay_independent(monkeypatch):
    monkeypatch.setattr(module, "MOST_CORRELATED", 10)
    training, held_out, _, _ = parts(TRUTH)
    vae = refitted(training, held_out, monkeypatch)
    assert [noise.is_correlated for noise in vae.noise] == [False, True, True]


@pytest.mark.parametrize("inference, recipe", [
    (Refined(), BENT), (Amortised(), NO_SKIP),
    *(pytest.param(*both, marks=pytest.mark.slow) for both in (
        (Amortised(), BENT), (Refined(), NO_SKIP), (Refined(), TALL), (Amortised(), TALL)))])
def test_any_model_and_inference_can_learn_them(recipe, inference, monkeypatch):
    training, held_out, others, _ = parts(TRUTH, 200, holes=0.05, absent=0.2)
    vae = fresh(recipe)
    plain = refitted(training, held_out, monkeypatch, (1.0,), vae, inference)
    found = refitted(training, held_out, monkeypatch, SHRINKAGES[::3], vae, inference)
    assert all(noise.is_correlated for noise in found.noise)
    assert per_feature(found, others, inference) > per_feature(plain, others, inference) + 0.05


@pytest.mark.parametrize("recipe", [BENT, TALL], ids=["flat", "ladder"])
def test_sums_are_literal_expectations_under_bent_decoders(recipe):
    batch, vae = TRUTH.people(30, 0, absent=0.3), fresh(recipe)
    for decoder in vae.decoders:
        decoder.net[-1].weight.normal_()
    q = Refined().posterior(vae, batch)
    points, weights = sigma_points(q)
    for m, (decoder, noise) in enumerate(zip(vae.decoders, vae.noise)):
        rows = torch.nonzero(batch.present[m]).ravel()
        read = vae.read_by_decoders(points)[m]
        away = (batch.x[m] - vae.decode(points, batch.design)[m])[:, rows]
        literal = torch.einsum("sn,snp,snq->pq", weights[:, rows], away, away) / len(rows)
        joint, apart = (kind(m, decoder, noise, False, *more) for kind, more in (
            (JointSums, (0.5,)), (FeatureSums, ())))
        for sums in (joint, apart):
            for some in (torch.arange(12), torch.arange(12, 30)):
                sums.add(batch.take(some), read[:, some], weights[:, some])
        torch.testing.assert_close(joint.covariance(joint.affine), literal)
        torch.testing.assert_close(joint.second.diagonal(), apart.squares)
        torch.testing.assert_close(joint.cross, apart.cross)

"""The linear baseline against closed forms of the multivariate normal."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import normfuse as nf
from normfuse.models import Linear
from normfuse.testing import tiny_cohort

PLAN = nf.TrainingPlan(max_epochs=8, warmup=2, progress=False)
pytestmark = pytest.mark.filterwarnings("ignore:age of .* lies outside")


@pytest.fixture(scope="module")
def people():
    healthy = tiny_cohort(260, seed=4).reference_subjects()
    return healthy.select(healthy.ids[:160]), healthy.select(healthy.ids[160:])


@pytest.fixture(scope="module")
def model(people):
    return nf.NormativeModel(model=Linear(n_latent=2), plan=PLAN, calibration=nf.HeldOut()
                             ).fit(people[0])


def law(model, batch, i):
    """Mean and covariance of all features of one person, measured or not."""
    vae = model.fitted.vae
    w, mean, noise = [], [], []
    for decoder, psi in zip(vae.decoders, vae.noise):
        affine = decoder.affine()
        w.append(affine[:, :2])
        mean.append(affine[:, 2:-1] @ batch.design[i] + affine[:, -1])
        white = psi.among(None).whiten(torch.eye(len(affine), dtype=torch.float64)[:, None])[:, 0]
        noise.append(torch.linalg.inv(white @ white.T))
    w = torch.cat(w)
    return torch.cat(mean).numpy(), (w @ w.T + torch.block_diag(*noise)).numpy()


def values(batch, i):
    x = torch.cat([x[i] for x in batch.x]).numpy()
    seen = torch.cat([torch.ones(x.shape[1], dtype=torch.bool) if m is None else m[i]
                      for x, m in zip(batch.x, batch.measured)]).numpy()
    return x, seen


def test_probabilities_are_those_of_the_normal_law(model, people):
    f, new = model.fitted, people[1]
    aligned = f.preparation.aligned(new)
    batch, found = f.preparation.batch(aligned), model.log_likelihood(new)["log_likelihood"]
    slopes = f.preparation.log_slopes(aligned)
    for i in range(0, len(new), 7):
        (x, seen), (mean, covariance) = values(batch, i), law(model, batch, i)
        exact = stats.multivariate_normal.logpdf(x[seen], mean[seen],
                                                 covariance[np.ix_(seen, seen)])
        assert found.iloc[i] == pytest.approx(exact + slopes[i], abs=1e-8)


def test_focal_expectations_are_conditional_means(model, people):
    f, new = model.fitted, people[1]
    batch = f.preparation.batch(f.preparation.aligned(new))
    with torch.no_grad():
        expected = model.kind_called("focal").predicted(f.vae, batch, model.inference)
    for i in range(0, len(new), 7):
        (x, seen), (mean, covariance) = values(batch, i), law(model, batch, i)
        at = np.flatnonzero(seen)
        for j in at[::3]:
            others = at[at != j]
            weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, j])
            assert torch.cat(expected.mean, -1)[i, j].item() == pytest.approx(
                mean[j] + weights @ (x - mean)[others], abs=1e-8)
            assert torch.cat(expected.sd, -1)[i, j].item() ** 2 == pytest.approx(
                covariance[j, j] - weights @ covariance[others, j], abs=1e-8)


def test_it_is_saved_and_loaded(model, people, tmp_path):
    again = nf.NormativeModel.load(model.save(tmp_path / "model"))
    assert again.model == model.model
    np.testing.assert_array_equal(again.deviations(people[1]).z, model.deviations(people[1]).z)

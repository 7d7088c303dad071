"""Exact linear-Gaussian models, the oracles of other tests.

Outside witnesses: scipy.stats.multivariate_normal on the dense marginal covariance, conditioning
by the Schur complement of the dense joint covariance (no precision, no Woodbury identity, no
change of variables), and the exact numbers stored with other packages' outputs
(../shared/peers/peer_fixtures.json). Samplers: chi-squared goodness of fit.
"""
from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from normfuse.testing.linear_gaussian import LinearGaussian
from normfuse.testing.linear_hierarchy import LinearHierarchy

FEATURES = (4, 5, 6)
FLAT = LinearGaussian.random(FEATURES, 3, seed=4)
DEEP = LinearHierarchy.random(FEATURES, (2, 3), seed=5)
PRESENT = torch.tensor(list(product([True, False], repeat=3))).T  # with the empty pattern


def dense(model: LinearGaussian | LinearHierarchy) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of (latents, x_1, x_2, x_3), built from the generative formulas."""
    w = torch.cat(model.loadings).numpy()
    offset, noise = torch.cat(model.offsets).numpy(), torch.cat(model.sds).numpy() ** 2
    if isinstance(model, LinearGaussian):
        z, zz = np.zeros(w.shape[1]), np.eye(w.shape[1])
    else:
        b = model.link.numpy()
        z = np.concatenate([np.zeros(b.shape[1]), model.link_offset.numpy()])
        zz = np.block([[np.eye(b.shape[1]), b.T],
                       [b, b @ b.T + np.diag(model.link_sd.numpy() ** 2)]])
        w = np.hstack([torch.cat(model.top_loadings).numpy(), w])
    return (np.concatenate([z, w @ z + offset]),
            np.block([[zz, zz @ w.T], [w @ zz, w @ zz @ w.T + np.diag(noise)]]))


def spoilt(xs: tuple[Tensor, ...], present: Tensor) -> tuple[Tensor, ...]:
    """Absent blocks hold NaN."""
    return tuple(torch.where(here[:, None], x, torch.nan) for x, here in zip(xs, present))


def data(model: LinearGaussian | LinearHierarchy) -> tuple[Tensor, ...]:
    return spoilt(model.sample(PRESENT.shape[1], seed=2), PRESENT)


def conditioned(model: LinearGaussian | LinearHierarchy, x: np.ndarray
                ) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of everything given the cells of x that are not NaN, and log p(x)."""
    mean, cov = dense(model)
    seen = np.flatnonzero(~np.isnan(x)) + len(mean) - len(x)
    if not len(seen):
        return mean, cov, 0.0
    gain = np.linalg.solve(cov[np.ix_(seen, seen)], cov[seen]).T
    values = x[~np.isnan(x)]
    log_p = stats.multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(values)
    return mean + gain @ (values - mean[seen]), cov - gain @ cov[seen], float(log_p)


@pytest.mark.parametrize("model", [FLAT, DEEP], ids=["flat", "hierarchy"])
def test_against_the_dense_joint_gaussian(model: LinearGaussian | LinearHierarchy) -> None:
    xs = data(model)
    q, log_p = model.posterior(xs, PRESENT), model.log_prob(xs, PRESENT)
    expected, d = torch.cat(model.expected(xs, PRESENT), 1), q.event_shape[0]
    for i, x in enumerate(torch.cat(xs, 1).numpy()):
        mean, cov, exact = conditioned(model, x)
        assert log_p[i].item() == pytest.approx(exact, abs=1e-10)
        np.testing.assert_allclose(q.mean[i], mean[:d], atol=1e-10)
        np.testing.assert_allclose(q.covariance_matrix[i], cov[:d, :d], atol=1e-10)
        absent = np.isnan(x)
        np.testing.assert_allclose(expected[i, absent], mean[d:][absent], atol=1e-10)


def test_expected_of_a_present_modality_is_its_shared_part() -> None:
    xs = data(FLAT)
    z = FLAT.posterior(xs, PRESENT).mean
    torch.testing.assert_close(FLAT.expected(xs, PRESENT)[1],
                               z @ FLAT.loadings[1].T + FLAT.offsets[1])


def test_factors_build_every_posterior() -> None:
    xs = FLAT.sample(PRESENT.shape[1], seed=2)
    factors = [FLAT.expert(m, x) for m, x in enumerate(xs)]
    q = FLAT.posterior(spoilt(xs, PRESENT), PRESENT)
    for i, here in enumerate(PRESENT.T):
        chosen = [f for f, h in zip(factors, here) if h]
        precision = sum((f.precision for f in chosen), torch.eye(3).double())
        linear = sum((f.linear[i] for f in chosen), torch.zeros(3).double())
        torch.testing.assert_close(q.precision_matrix[i], precision)
        torch.testing.assert_close(q.mean[i], torch.linalg.solve(precision, linear))


def test_a_factor_alone_is_generalised_least_squares() -> None:
    x = FLAT.sample(5, seed=3)[2]
    normal = FLAT.expert(2, x).normal()
    w = (FLAT.loadings[2] / FLAT.sds[2][:, None]).numpy()
    y = ((x - FLAT.offsets[2]) / FLAT.sds[2]).numpy()
    np.testing.assert_allclose(normal.mean, np.linalg.lstsq(w, y.T)[0].T, atol=1e-10)


def test_a_factor_without_full_rank_is_refused() -> None:
    thin = LinearGaussian.random((2, 5), 3)
    factor = thin.expert(0, thin.sample(4)[0])
    with pytest.raises(ValueError, match="rank 2 in 3 latent dimensions.*unimodal"):
        factor.normal()


@pytest.mark.parametrize("m", [0, 1, 2])
def test_unimodal_is_the_posterior_from_one(m: int) -> None:
    xs = FLAT.sample(7, seed=6)
    only = torch.zeros(3, 7, dtype=torch.bool)
    only[m] = True
    q, alone = FLAT.posterior(xs, only), FLAT.unimodal(m, xs[m])
    torch.testing.assert_close(alone.mean, q.mean)
    torch.testing.assert_close(alone.covariance_matrix.expand(7, 3, 3), q.covariance_matrix)


@pytest.mark.parametrize("model", [FLAT, DEEP], ids=["flat", "hierarchy"])
def test_samples_follow_the_density(model: LinearGaussian | LinearHierarchy) -> None:
    mean, cov = dense(model)
    x = torch.cat(model.sample(2000, seed=8), 1).numpy()
    p = x.shape[1]
    white = np.linalg.solve(np.linalg.cholesky(cov[-p:, -p:]), (x - mean[-p:]).T)
    assert stats.kstest((white ** 2).sum(0), stats.chi2(p).cdf).pvalue > 0.01
    assert stats.kstest(white.ravel(), stats.norm.cdf).pvalue > 0.01
    np.testing.assert_array_equal(model.sample(9, seed=1)[1], model.sample(9, seed=1)[1])
    assert not torch.equal(model.sample(9, seed=1)[1], model.sample(9, seed=2)[1])


def test_prior_of_the_hierarchy() -> None:
    mean, cov = dense(DEEP)
    np.testing.assert_allclose(DEEP.prior().mean, mean[:5])
    np.testing.assert_allclose(DEEP.prior().covariance_matrix, cov[:5, :5])


def test_bayes_theorem_holds_in_the_hierarchy() -> None:
    """log p(x) = log p(z) + log p(x | z) - log p(z | x) at any z, from the printed formulas."""
    xs, everyone = DEEP.sample(6, seed=9), torch.ones(3, 6, dtype=torch.bool)
    z1, z2 = torch.randn(2, generator=torch.Generator().manual_seed(1)).double(), torch.arange(3.0)
    z2 = z2.double()
    normal = torch.distributions.Normal
    log_joint = normal(0, 1).log_prob(z1).sum() + normal(
        DEEP.link @ z1 + DEEP.link_offset, DEEP.link_sd).log_prob(z2).sum()
    for x, w, v, c, s in zip(xs, DEEP.loadings, DEEP.top_loadings, DEEP.offsets, DEEP.sds):
        log_joint = log_joint + normal(w @ z2 + v @ z1 + c, s).log_prob(x).sum(-1)
    q = DEEP.posterior(xs, everyone).log_prob(torch.cat([z1, z2]))
    torch.testing.assert_close(DEEP.log_prob(xs, everyone), log_joint - q)


def test_exact_numbers_stored_with_other_packages(peer_fixtures: dict) -> None:
    given, exact = peer_fixtures["input"], peer_fixtures["exact"]
    params, names = given["params"], list(given["X"])
    exactly = partial(torch.tensor, dtype=torch.float64)
    model = LinearGaussian(
        tuple(exactly(params[m]["C"]) for m in names),
        tuple(exactly(params[m]["c"]) for m in names),
        tuple(exactly([given["scale"][m]] * len(params[m]["c"])) for m in names))
    xs = tuple(exactly(given["X"][m]) for m in names)
    everyone = torch.ones(3, len(xs[0]), dtype=torch.bool)
    q = model.posterior(xs, everyone)
    np.testing.assert_allclose(model.log_prob(xs, everyone), exact["log p(x) per subject"],
                               atol=1e-10)
    np.testing.assert_allclose(q.mean, exact["posterior mean"], atol=1e-10)
    np.testing.assert_allclose(q.covariance_matrix[3], exact["posterior cov"], atol=1e-10)


def test_what_is_refused() -> None:
    xs, everyone = FLAT.sample(4), torch.ones(3, 4, dtype=torch.bool)
    holed = (xs[0], torch.where(torch.arange(20).reshape(4, 5) == 7, torch.nan, xs[1]), xs[2])
    with pytest.raises(ValueError, match="modality 1 is present but holds NaN for 1 subjects"):
        FLAT.log_prob(holed, everyone)
    with pytest.raises(ValueError, match=r"present has shape \(4, 3\)"):
        FLAT.posterior(xs, everyone.T)
    with pytest.raises(ValueError, match="sds must be positive"):
        LinearGaussian(FLAT.loadings, FLAT.offsets, tuple(s - 0.6 for s in FLAT.sds))
    with pytest.raises(ValueError, match="offsets have shapes"):
        LinearGaussian(FLAT.loadings, FLAT.offsets[::-1], FLAT.sds)
    with pytest.raises(ValueError, match="n_lower first"):
        LinearHierarchy(DEEP.link.T, DEEP.link_offset, DEEP.link_sd, DEEP.loadings,
                        DEEP.top_loadings, DEEP.offsets, DEEP.sds)

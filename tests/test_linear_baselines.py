"""The linear rivals of ``benchmarks/``: factor analysis and probabilistic CCA.

Outside witnesses: scipy.stats.multivariate_normal and the Schur complement on the dense covariance
of each subject's measured cells, the exact likelihood of the model that made the data
(LinearGaussian), sklearn's FactorAnalysis and CCA, and Bach and Jordan's closed form from an SVD.
No witness: the maximum with missing cells, which is checked by the gradient of the dense
likelihood there.
"""
from __future__ import annotations

import doctest
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import cross_decomposition, decomposition

from normfuse.testing.linear_gaussian import LinearGaussian

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
try:  # scripts that import each other by bare name, not a package
    import factor_analysis
    import linear_models
    import probabilistic_cca
finally:
    del sys.path[0]

FactorModel, ProbabilisticCCA = linear_models.FactorModel, probabilistic_cca.ProbabilisticCCA
SIZES = (4, 5, 6)
TRUTH = LinearGaussian.random(SIZES, 2, seed=11)
Blocks = list[np.ndarray]


def drawn(n: int, seed: int) -> Blocks:
    return [x.numpy().copy() for x in TRUTH.sample(n, seed)]


def own_noise(n: int, seed: int) -> Blocks:
    """One factor shared, two strong ones in each block alone."""
    rng, maps = np.random.default_rng(seed), np.random.default_rng(0)
    z = rng.normal(size=(n, 1))
    return [z @ maps.normal(size=(1, p)) + 1.5 * rng.normal(size=(n, 2)) @ maps.normal(size=(2, p))
            + 0.6 * rng.normal(size=(n, p)) + maps.normal(size=p) for p in SIZES]


def holed(blocks: Blocks, seed: int, cells: int = 40) -> Blocks:
    """Modalities 1 and 2 absent for three in ten, ``cells`` subjects with holes, one empty."""
    rng, found = np.random.default_rng(seed), [x.copy() for x in blocks]
    for x in found[1:]:
        x[rng.random(len(x)) < 0.3] = np.nan
    for x in found:
        x[:cells][rng.random((cells, x.shape[1])) < 0.2] = np.nan
        x[0] = np.nan
    return found


def arbitrary(seed: int = 0) -> Any:
    """A model with full noise covariances, not fitted to anything."""
    rng = np.random.default_rng(seed)
    roots = [rng.normal(size=(p, p)) / 2 for p in SIZES]
    return ProbabilisticCCA(tuple(rng.normal(size=p) for p in SIZES),
                            tuple(rng.normal(size=(p, 2)) for p in SIZES),
                            tuple(r @ r.T + 0.2 * np.eye(len(r)) for r in roots))


def dense(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all features side by side."""
    w = np.vstack(model.loadings)
    covariance, at = w @ w.T, 0
    for noise in model.noise:
        covariance[at:at + len(noise), at:at + len(noise)] += noise
        at += len(noise)
    return np.concatenate(model.offsets), covariance


def dense_log_likelihood(model: Any, blocks: Blocks) -> np.ndarray:
    mean, covariance = dense(model)
    seen = ~np.isnan(np.hstack(blocks))
    return np.array([stats.multivariate_normal(mean[s], covariance[np.ix_(s, s)]).logpdf(x[s])
                     if s.any() else 0.0 for x, s in zip(np.hstack(blocks), seen)])


def cross_r2(blocks: Blocks, predicted: Blocks) -> np.ndarray:
    return np.array([1 - ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
                     for x, y in zip(blocks, predicted)])


def oracle_cross(blocks: Blocks) -> Blocks:
    xs = tuple(torch.from_numpy(x) for x in blocks)
    hidden = [torch.arange(3) != m for m in range(3)]
    return [TRUTH.expected(xs, h[:, None].expand(3, len(xs[0])))[m].numpy()
            for m, h in enumerate(hidden)]


def test_likelihood_latent_and_prediction_against_the_dense_covariance() -> None:
    model, blocks = arbitrary(), holed(drawn(60, 1), 2)
    mean, covariance = dense(model)
    w, edges = np.vstack(model.loadings), np.cumsum((0, *SIZES))
    z, zz = model.latent(blocks)
    predicted, at = model.predict(blocks), np.split(np.arange(sum(SIZES)), edges[1:-1])
    np.testing.assert_allclose(model.log_likelihood(blocks), dense_log_likelihood(model, blocks))
    for i, x in enumerate(np.hstack(blocks)):
        s = ~np.isnan(x)
        gain = np.linalg.solve(covariance[np.ix_(s, s)], w[s]).T
        np.testing.assert_allclose(z[i], gain @ (x - mean)[s], atol=1e-10)
        np.testing.assert_allclose(zz[i], np.eye(2) - gain @ w[s], atol=1e-10)
        to_all = np.linalg.solve(covariance[np.ix_(s, s)], covariance[s]).T
        expected = mean + to_all @ (x - mean)[s]
        for m, cells in enumerate(at):
            if not s[cells].any():
                np.testing.assert_allclose(predicted[m][i], expected[cells], atol=1e-10)


def test_residual_is_each_cell_given_all_others() -> None:
    model, blocks = arbitrary(), holed(drawn(45, 3), 4)
    mean, covariance = dense(model)
    x, z = np.hstack(blocks), np.hstack(model.residual_z(blocks))
    np.testing.assert_array_equal(np.isnan(x), np.isnan(z))
    for i, j in zip(*np.nonzero(~np.isnan(x))):
        others = ~np.isnan(x[i])
        others[j] = False
        gain = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, j])
        expected = mean[j] + gain @ (x[i] - mean)[others]
        sd = np.sqrt(covariance[j, j] - gain @ covariance[others, j])
        assert z[i, j] == pytest.approx((x[i, j] - expected) / sd, abs=1e-9)


def test_factor_model_says_what_factor_analysis_says() -> None:
    blocks = holed(drawn(300, 5), 6)
    model = FactorModel.fit(blocks, 2)
    side_by_side = np.hstack(blocks) - np.concatenate(model.offsets)
    factors = factor_analysis.FactorAnalysis(2).fit(side_by_side)
    assert model.log_likelihood(blocks).mean() == pytest.approx(
        factors.log_likelihood(side_by_side))
    np.testing.assert_allclose(np.hstack(model.residual_z(blocks)),
                               factors.conditional_residual(side_by_side))


def test_complete_factor_analysis_is_sklearns() -> None:
    train, test = drawn(800, 7), drawn(500, 8)
    theirs = decomposition.FactorAnalysis(2, tol=1e-10, max_iter=5000, svd_method="lapack")
    theirs.fit(np.hstack(train))
    for ours in (FactorModel.fit(train, 2),
                 ProbabilisticCCA.fit_at(train, 2, shrinkage=1.0).improved(train, tolerance=1e-9)):
        for blocks in (train, test):
            assert ours.log_likelihood(blocks).mean() == pytest.approx(
                theirs.score(np.hstack(blocks)), abs=1e-3)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("draw", [drawn, own_noise])
def test_every_iteration_raises_the_likelihood(draw: Callable[[int, int], Blocks],
                                               shrinkage: float) -> None:
    blocks = holed(draw(250, 9), 10, cells=20)
    start = replace(arbitrary(), shrinkage=shrinkage,
                    noise=tuple(probabilistic_cca.shrunk(v, shrinkage) for v in arbitrary().noise))
    model = start.improved(blocks, tolerance=1e-4)
    history = np.array((*model.history, model.log_likelihood(blocks).mean()))
    assert len(history) > 10 and (np.diff(history) > 0).all()


def test_em_with_missing_cells_ends_where_the_gradient_is_zero() -> None:
    blocks, rng = holed(own_noise(150, 12), 13), np.random.default_rng(14)
    model = ProbabilisticCCA.start(blocks, 1, shrinkage=0.0).improved(
        blocks, tolerance=1e-9, n_iterations=2000)

    def slope(model: Any) -> float:
        """Along a random direction of all parameters."""
        def change(xs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
            steps = [rng.normal(size=x.shape) for x in xs]
            return [d + d.T if d.shape[0] == d.shape[-1] else d for d in steps]

        fields = ("offsets", "loadings", "noise")
        steps = {f: change(getattr(model, f)) for f in fields}
        value = [dense_log_likelihood(replace(model, **{
            f: tuple(x + h * d for x, d in zip(getattr(model, f), steps[f])) for f in fields}),
            blocks).mean() for h in (1e-4, -1e-4)]
        return (value[0] - value[1]) / 2e-4

    at_start = [slope(ProbabilisticCCA.start(blocks, 1, shrinkage=0.0)) for _ in range(4)]
    assert np.abs(at_start).max() > 0.1
    assert max(abs(slope(model)) for _ in range(8)) < 2e-3


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "holed"])
@pytest.mark.parametrize("rival", [FactorModel, ProbabilisticCCA])
def test_a_known_model_is_recovered(rival: Any, holes: bool) -> None:
    train, test = drawn(5000, 15), drawn(4000, 16)
    model = rival.fit(holed(train, 17) if holes else train, 2)
    exact = TRUTH.log_prob(tuple(torch.from_numpy(x) for x in test), torch.ones(3, 4000).bool())
    loss = exact.mean().item() - model.log_likelihood(test).mean()
    assert -0.005 < loss < 0.04  # half a nat per parameter (60 to 90) and 5000 subjects, and more
    best = cross_r2(test, oracle_cross(test))
    found = cross_r2(test, linear_models.predict_from_others(model, test))
    assert best.min() > 0.3
    np.testing.assert_allclose(found, best, atol=0.005)


def two_blocks() -> tuple[Blocks, np.ndarray, Blocks, Blocks]:
    """Blocks, canonical correlations, covariances S_mm, and directions U_m, by an SVD."""
    x = [b - b.mean(0) for b in drawn(700, 18)[1:]]
    s = [b.T @ b / len(b) for b in x]
    roots = [np.linalg.cholesky(c) for c in s]
    cross = np.linalg.solve(roots[0], x[0].T @ x[1] / 700) @ np.linalg.inv(roots[1]).T
    left, rho, right = np.linalg.svd(cross)
    return x, rho, s, [np.linalg.solve(roots[0].T, left), np.linalg.solve(roots[1].T, right.T)]


def test_two_complete_blocks_have_bach_and_jordans_maximum() -> None:
    x, rho, s, u = two_blocks()
    best = -0.5 * (sum(SIZES[1:]) * (1 + np.log(2 * np.pi)) + np.log(1 - rho[:2] ** 2).sum()
                   + sum(np.linalg.slogdet(c)[1] for c in s))
    closed = [v[:, :2] * np.sqrt(rho[:2]) for v in u]
    fitted = ProbabilisticCCA.fit_at(x, 2, shrinkage=0.0)
    two = replace(arbitrary(), **{f: getattr(arbitrary(), f)[1:] for f in
                                  ("offsets", "loadings", "noise")})
    elsewhere = two.improved(x, tolerance=1e-10, n_iterations=5000)
    for model in (fitted, elsewhere):  # the maximum fixes W_1 W_2', not W_1 W_1'
        assert model.log_likelihood(x).mean() == pytest.approx(best, abs=1e-6)
        np.testing.assert_allclose(model.loadings[0] @ model.loadings[1].T,
                                   s[0] @ closed[0] @ closed[1].T @ s[1], atol=2e-3)
    for m in range(2):
        np.testing.assert_allclose(fitted.loadings[m] @ fitted.loadings[m].T,
                                   s[m] @ closed[m] @ closed[m].T @ s[m], atol=1e-9)


def test_posterior_means_span_the_canonical_directions() -> None:
    x, rho, _, u = two_blocks()
    model = ProbabilisticCCA.fit_at(x, 2, shrinkage=0.0)
    theirs = cross_decomposition.CCA(2, max_iter=5000, tol=1e-12).fit(*x).transform(*x)
    means = []
    for m, variates in enumerate(theirs):
        alone = [b if i == m else np.full_like(b, np.nan) for i, b in enumerate(x)]
        means.append(model.latent(alone)[0])
        both = np.linalg.svd(np.linalg.qr(means[m])[0].T @ np.linalg.qr(variates)[0])[1]
        np.testing.assert_allclose(both, 1, atol=1e-6)  # cosines of the principal angles
        np.testing.assert_allclose(
            np.linalg.svd(np.linalg.qr(means[m])[0].T @ np.linalg.qr(x[m] @ u[m][:, :2])[0])[1],
            1, atol=1e-9)
    between = np.linalg.svd(np.linalg.qr(means[0])[0].T @ np.linalg.qr(means[1])[0])[1]
    np.testing.assert_allclose(between, rho[:2], atol=1e-9)
    np.testing.assert_allclose([np.corrcoef(a, b)[0, 1] for a, b in zip(*(t.T for t in theirs))],
                               rho[:2], atol=1e-6)


def test_shrinkage_follows_the_noise_of_the_data() -> None:
    own, none = own_noise(600, 19), drawn(150, 20)
    low = ProbabilisticCCA.fit(own, 1)
    assert low.shrinkage <= 0.1 < ProbabilisticCCA.fit(none, 2).shrinkage
    test = own_noise(1000, 21)
    lead = low.log_likelihood(test) - FactorModel.fit(own, 1).log_likelihood(test)
    assert lead.mean() > 0.5


def test_more_features_than_subjects() -> None:
    rng, maps = np.random.default_rng(22), np.random.default_rng(23)
    w = [maps.normal(size=(2, p)) for p in (60, 50)]
    train, test = ([z @ v + rng.normal(size=(len(z), v.shape[1])) for v in w]
                   for z in (rng.normal(size=(35, 2)), rng.normal(size=(200, 2))))
    with pytest.raises(ValueError, match="block 0 has 60 features in 35 subjects.*shrinkage"):
        ProbabilisticCCA.fit_at(train, 2, shrinkage=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ProbabilisticCCA.fit(train, 2)
    assert (cross_r2(test, linear_models.predict_from_others(model, test)) > 0.4).all()


def test_prediction_from_others_does_not_look() -> None:
    model, blocks = arbitrary(), drawn(20, 24)
    before = linear_models.predict_from_others(model, blocks)
    blocks[1] += 5
    after = linear_models.predict_from_others(model, blocks)
    np.testing.assert_array_equal(before[1], after[1])
    assert not np.allclose(before[0], after[0])


def test_what_is_refused_and_warned_of() -> None:
    blocks = drawn(50, 25)
    with pytest.raises(ValueError, match="one block has no canonical correlations"):
        ProbabilisticCCA.fit(blocks[:1], 1)
    with pytest.warns(UserWarning, match="EM stopped after 3 iterations"):
        ProbabilisticCCA.fit_at(blocks, 2, shrinkage=0.5, n_iterations=3)


def test_doctests() -> None:
    assert doctest.testmod(probabilistic_cca).failed == 0

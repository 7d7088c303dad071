"""z and p are what they say, for people whom nothing was fitted to.

Outside witnesses: scipy's t and F laws by simulation, refits without one person (brute force),
the literal ridge equation and NumPy least squares for the baseline. No witness: the tail
shapes, which are checked by calibration on fresh draws.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from normfuse import calibration
from normfuse.baseline import LinearBaseline
from normfuse.calibration import HeldOut, Prior, ResidualLaw, TailShape
from normfuse.calibration_check import check_calibration, share_row
from normfuse.covariates import CovariateEncoder
from normfuse.errors import CalibrationError, CohortError
from normfuse.latent_law import DistanceShape, LatentLaw
from normfuse.pattern_law import N_FOLDS, FeatureLaw, Frame, PatternLaw
from normfuse.testing import tiny_deviations


@pytest.mark.parametrize("n", [6, 24, 100])
def test_t_corrected_z_is_standard_normal_at_every_n(n):
    rng = np.random.default_rng(n)
    cells = 40_000
    calibration = 1.7 + 0.4 * rng.normal(size=(n, cells))
    z = ResidualLaw.fit(calibration).z(1.7 + 0.4 * rng.normal(size=(1, cells)))[0]
    naive = (1.7 + 0.4 * rng.normal(size=cells) - calibration.mean(0)) / calibration.std(0, ddof=1)
    for level in (0.05, 0.01):
        error = np.sqrt(level * (1 - level) / cells)
        assert (2 * stats.norm.sf(np.abs(z)) < level).mean() == pytest.approx(level, abs=4 * error)
    if n < 50:
        assert (np.abs(naive) > 1.96).mean() > 0.06  # what the t law repairs
    assert stats.kstest(z, "norm").pvalue > 1e-3


def test_left_out_z_equals_a_refit_without_the_person():
    u = np.random.default_rng(1).normal(0.3, 1.4, size=(12, 4))
    u[2, 1] = np.nan
    law = ResidualLaw.fit(u)
    for i in range(len(u)):
        refit = ResidualLaw.fit(np.delete(u, i, axis=0))
        np.testing.assert_allclose(law.z_left_out(u)[i], refit.z(u[i:i + 1])[0], rtol=1e-9)


def test_extreme_residuals_keep_their_order_and_stay_finite():
    law = ResidualLaw(np.array([400]), np.array([0.0]), np.array([1.0]), Prior.none(1))
    z = law.z(np.array([[-1e6], [-60.0], [30.0], [35.0]])).ravel()
    assert np.isfinite(z).all() and z[0] <= z[1] < 0 < z[2] < z[3]


def test_too_few_calibration_values_give_nan_for_that_feature_only():
    u = np.random.default_rng(2).normal(size=(9, 3))
    u[:5, 1] = np.nan
    z = ResidualLaw.fit(u).z(np.ones((2, 3)))
    assert np.isnan(z[:, 1]).all() and np.isfinite(z[:, [0, 2]]).all()


@pytest.mark.parametrize("n, p", [(20, 3), (60, 10), (150, 10)])
def test_distance_p_is_uniform_for_normal_latents(n, p):
    rng = np.random.default_rng(n + p)
    mixing = rng.normal(size=(p, p))
    found = np.concatenate([
        LatentLaw.fit(rng.normal(size=(n, p)) @ mixing).test(
            rng.normal(size=(40, p)) @ mixing, DistanceShape())[1] for _ in range(200)])
    for level in (0.05, 0.01, 0.001):
        error = np.sqrt(level / 8000)
        # people of one draw share a covariance: twice the binomial error is allowed for that
        assert (found < level).mean() == pytest.approx(level, abs=6 * error)


def test_left_out_distance_equals_a_refit_without_the_person():
    h = np.random.default_rng(3).normal(size=(25, 4)) @ np.diag([1, 3, 0.1, 1e-4])
    law = LatentLaw.fit(h)
    distance, p = law.test_left_out(h, DistanceShape())
    for i in (0, 7, 24):
        alone = LatentLaw.fit(np.delete(h, i, axis=0)).test(h[i:i + 1], DistanceShape())
        np.testing.assert_allclose([distance[i], p[i]], np.ravel(alone), rtol=1e-7)


def test_distance_is_invariant_to_affine_maps():
    rng = np.random.default_rng(4)
    h, new, a = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), rng.normal(size=(4, 4))
    one = LatentLaw.fit(h).test(new, DistanceShape())
    two = LatentLaw.fit(h @ a + 3).test(new @ a + 3, DistanceShape())
    np.testing.assert_allclose(one, two, rtol=1e-7)


def test_heavy_tailed_latents_need_the_shape():
    """Multivariate t with 6 degrees of freedom: Hotelling's law is far off, the fitted one not."""
    rng = np.random.default_rng(5)

    def people(n):
        return rng.normal(size=(n, 6)) / np.sqrt(rng.chisquare(6, size=(n, 1)) / 6)

    plain, shaped = [], []
    for _ in range(60):
        h, new = people(80), people(200)
        law = LatentLaw.fit(h)
        plain.append((law.test(new, DistanceShape())[1] < 0.05).mean())
        shaped.append((law.test(new, law.shape(h))[1] < 0.05).mean())
    assert np.mean(plain) > 0.09
    assert 0.035 < np.mean(shaped) < 0.065


def test_normal_latents_keep_their_calibration_under_the_shape():
    rng = np.random.default_rng(6)
    found = []
    for _ in range(60):
        h = rng.normal(size=(80, 6))
        law = LatentLaw.fit(h)
        found.append((law.test(rng.normal(size=(200, 6)), law.shape(h))[1] < 0.05).mean())
    assert 0.035 < np.mean(found) < 0.06


def test_tail_shape_calibrates_fresh_heavy_and_skewed_values():
    rng = np.random.default_rng(7)

    def draw(n):
        return np.sinh(1.25 * np.arcsinh(rng.normal(size=(n, 30))) + 0.15)

    shape, fresh = TailShape.fit(draw(80)), draw(4000)
    for sign in (1, -1):
        assert (sign * shape(fresh) > 1.96).mean() == pytest.approx(0.025, abs=0.006)
    assert (np.abs(fresh) > 2.576).mean() > 0.03
    assert (np.abs(shape(fresh)) > 2.576).mean() == pytest.approx(0.01, abs=0.004)
    grid = np.linspace(-40, 40, 2001)
    assert (np.diff(shape(grid)) > 0).all()


@pytest.mark.parametrize("n, width", [(30, 1), (60, 1), (60, 5), (60, 80)])
def test_tail_shape_does_no_harm_to_normal_residuals(n, width):
    """Few independent values must not invent tails, nor blow up a true deviation."""
    rng = np.random.default_rng(n + width)
    seen, four = [], []
    for _ in range(60):
        u = rng.normal(size=(n, width))
        law = ResidualLaw.fit(u)
        shape = TailShape.fit(law.z_left_out(u))
        seen.append((np.abs(shape(law.z(rng.normal(size=(400, width))))) > 2.576).mean())
        four.append(shape(np.array([4.0]))[0])
    assert np.mean(seen) == pytest.approx(0.01, abs=0.0035)
    assert 3.4 < np.quantile(four, 0.05) and np.quantile(four, 0.95) < 4.7


def test_tail_shape_without_data_is_the_identity():
    z = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(TailShape()(z), z, atol=1e-12)
    assert TailShape.fit(np.full((9, 3), np.nan)) == TailShape()


def test_singular_latents_are_judged_in_the_dimensions_they_have():
    rng = np.random.default_rng(11)
    found = []
    for _ in range(40):
        mixing = rng.normal(size=(2, 5))
        law = LatentLaw.fit(rng.normal(size=(40, 2)) @ mixing)
        found.append(law.test(rng.normal(size=(100, 2)) @ mixing, DistanceShape())[1])
    assert law.rank == 2
    assert (np.concatenate(found) < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_calibration_people_are_scored_by_shapes_that_did_not_see_them():
    rng = np.random.default_rng(8)
    u, h = rng.standard_t(4, size=(90, 7)), rng.normal(size=(90, 3))
    folds = rng.integers(N_FOLDS, size=90)
    columns = {"a": slice(0, 3), "b": slice(3, 7)}
    whole = PatternLaw.fit({"focal": FeatureLaw.fit(u, folds, columns)},
                           np.stack([h / 3, 2 * h / 3]), folds, Frame.none(2, 3))
    law = whole.features["focal"]
    mine = folds == 2
    z = ResidualLaw.fit(u, columns).z_left_out(u)
    spoilt = z.copy()
    spoilt[mine] *= 9
    again = [TailShape.fit(v[~mine][:, :3]) for v in (z, spoilt)]
    assert law.tails["a"][3] == again[0] == again[1]
    assert law.tails["a"][0] != law.tails["a"][3]
    found = law.z(u, folds, columns)
    np.testing.assert_allclose(found[mine][:, :3], law.tails["a"][3](z[mine][:, :3]))
    assert whole.distance(h, folds)[0, 3] == 89


def subjects(n, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"age": rng.uniform(20, 80, n), "sex": rng.choice(["F", "M"], n),
                         "site": rng.choice(["a", "b", "c"], n, p=[0.6, 0.35, 0.05])},
                        index=[f"s{i}" for i in range(n)])


KINDS = {"age": "continuous", "sex": "categorical", "site": "site"}


def test_roles_are_stratified_and_by_seed():
    people = subjects(200)
    roles = HeldOut(0.25, 0.15).roles(people, KINDS, n_latent=5, seed=3)
    counts = pd.crosstab(people["site"] + people["sex"], roles)
    expected = counts.sum(axis=1).to_numpy()[:, None] * np.array([0.25, 0.15, 0.6])
    assert (np.abs(counts[["calibration", "early_stop", "training"]] - expected) < 1.6).all().all()
    again = HeldOut(0.25, 0.15).roles(people, KINDS, n_latent=5, seed=3)
    other = HeldOut(0.25, 0.15).roles(people, KINDS, n_latent=5, seed=4)
    assert roles.equals(again) and not roles.equals(other)


def test_a_site_of_one_person_is_trained_on():
    people = subjects(80)
    people.iloc[5, 2] = "lonely"
    for seed in range(12):
        assert HeldOut().roles(people, KINDS, n_latent=3, seed=seed).iloc[5] == "training"


def test_too_few_people_or_odd_shares_are_refused():
    with pytest.raises(CalibrationError, match="24 reference subjects are too few.*or ask for"):
        HeldOut().roles(subjects(24), KINDS, n_latent=10, seed=0)
    with pytest.raises(CalibrationError, match="together below 1"):
        HeldOut(0.7, 0.4)


def test_baseline_is_the_literal_ridge_and_close_to_least_squares():
    rng = np.random.default_rng(9)
    people = subjects(400, 9)
    design = CovariateEncoder.fit(people, {"age": "continuous"}).encode(people)
    signal = np.column_stack([np.sin(people["age"] / 15), 0.02 * people["age"]])
    values = signal + 0.05 * rng.normal(size=(400, 2))
    values[rng.random((400, 2)) < 0.1] = np.nan
    found = LinearBaseline.fit(pd.DataFrame(values, columns=["a", "b"]), design)
    for j in range(2):
        seen = ~np.isnan(values[:, j])
        x = design[seen] - design[seen].mean(0)
        slopes = np.linalg.solve(x.T @ x + found.penalty * np.eye(x.shape[1]),
                                 x.T @ (values[seen, j] - values[seen, j].mean()))
        np.testing.assert_allclose(found.coefficients[1:, j], slopes, rtol=1e-6, atol=1e-9)
        basis = np.column_stack([np.ones(seen.sum()), x])
        fitted = basis @ np.linalg.lstsq(basis, values[seen, j])[0]
        assert np.abs(found.expected(design)[seen, j] - fitted).mean() < 0.005
        assert found.scale[j] == pytest.approx(0.05, rel=0.1)


def test_covariates_know_only_the_reference():
    people = subjects(60)
    encoder = CovariateEncoder.fit(people, KINDS)
    design = encoder.encode(people)
    np.testing.assert_allclose(design.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(design.std(0), 1)
    new = people.iloc[:3].copy()
    np.testing.assert_array_equal(encoder.encode(new), design[:3])
    new.loc["s1", "site"] = "z"
    with pytest.raises(CohortError, match=r"site 'z' of 1 subjects \(s1\) was not in the"):
        encoder.encode(new)
    old = people.iloc[:2].assign(age=[95.0, 50.0])
    with pytest.warns(UserWarning, match="age of 1 of 2 subjects lies outside.*s0"):
        encoder.encode(old)
    with pytest.raises(CohortError, match="sex is 'F' for all 60 reference subjects"):
        CovariateEncoder.fit(people.assign(sex="F"), KINDS)


def test_splines_go_on_straight_beyond_the_reference():
    people = subjects(60)
    encoder = CovariateEncoder.fit(people, {"age": "continuous"})
    with pytest.warns(UserWarning, match="extrapolated"):
        far = encoder.encode(pd.DataFrame({"age": [90.0, 100.0, 110.0]}))
    np.testing.assert_allclose(far[2] - far[1], far[1] - far[0], atol=1e-9)


def test_calibration_rows_say_what_was_seen():
    rows, quantiles = check_calibration(tiny_deviations())
    first = rows[0]
    assert (first["quantity"], first["nominal"], first["n_subjects"]) == ("z t1", 0.05, 2)
    assert first["share"] == 0.25 and first["n_values"] == 4
    assert set(quantiles) == {"t1", "pet", "all"}
    wilson = share_row("p", 0.05, np.array([[1.0]] * 3 + [[0.0]] * 17), 20)
    expected = stats.binomtest(3, 20).proportion_ci(method="wilson")
    assert (wilson["low"], wilson["high"]) == pytest.approx(tuple(expected))


class TestPrior:
    """Location and scale of a feature, drawn towards those of the others."""

    COLUMNS = {"a": slice(0, 300)}

    def test_alike_features_are_drawn_together(self):
        u = 0.2 + 1.3 * np.random.default_rng(0).normal(size=(30, 300))
        law = ResidualLaw.fit(u, self.COLUMNS)
        assert (law.prior.freedom > 150).all() and (law.prior.count > 150).all()
        assert law.prior.variance[0] == pytest.approx(1.69, rel=0.05)
        assert law.prior.mean[0] == pytest.approx(0.2, abs=0.05)

    def test_unlike_features_stand_by_themselves(self):
        rng = np.random.default_rng(0)
        u = rng.normal(size=300) + np.exp(0.7 * rng.normal(size=300)) * rng.normal(size=(200, 300))
        law = ResidualLaw.fit(u, self.COLUMNS)
        assert law.prior.freedom.max() < 10 and law.prior.count.max() < 5

    def test_few_independent_values_claim_little(self):
        rng = np.random.default_rng(0)
        u = rng.normal(size=(30, 1)) + 0.01 * rng.normal(size=(30, 300))
        law = ResidualLaw.fit(u, self.COLUMNS)
        assert law.prior.freedom.max() < 60 and law.prior.count.max() < 60

    @pytest.mark.parametrize("spread", [0.0, 0.3])
    def test_new_people_are_normal(self, spread):
        rng = np.random.default_rng(1)
        place, scale = spread * rng.normal(size=300), np.exp(spread * rng.normal(size=300))
        z = [ResidualLaw.fit(place + scale * rng.normal(size=(15, 300)), self.COLUMNS).z(
            place + scale * rng.normal(size=(20, 300))) for _ in range(10)]
        assert np.std(z) == pytest.approx(1, abs=0.02)
        assert (np.abs(z) > 1.96).mean() == pytest.approx(0.05, abs=0.004)
        assert (np.abs(z) > 2.5758).mean() == pytest.approx(0.01, abs=0.002)

    def test_left_out_is_a_law_without_that_person(self):
        u = np.random.default_rng(2).normal(size=(25, 300))
        law = ResidualLaw.fit(u, self.COLUMNS)
        alone = ResidualLaw.fit(np.delete(u, 4, axis=0))
        np.testing.assert_allclose(law.z_left_out(u)[4],
                                   replace(alone, prior=law.prior).z(u[[4]])[0], atol=1e-9)


class TestConformal:
    def law(self, n, seed=0):
        u = np.random.default_rng(seed).standard_t(2, size=(n, 40)) ** 3
        return u, FeatureLaw.fit(u, np.zeros(n, int), {"a": slice(0, 40)})

    def test_valid_whatever_the_law(self):
        found = []
        for seed in range(40):
            _, law = self.law(49, seed)
            new = np.random.default_rng(1000 + seed).standard_t(2, size=(20, 40)) ** 3
            found.append(law.conformal(new, np.zeros(20, bool)))
        p = np.array(found)
        assert p.min() == pytest.approx(2 / 50)
        for level in (0.04, 0.2, 0.4, 0.6):  # multiples of 2 / (n + 1): exact
            assert (p <= level + 1e-9).mean() == pytest.approx(level, rel=0.05)

    def test_the_smallest_is_said(self):
        for n, tells in ((20, False), (38, False), (39, True), (49, True)):
            u, law = self.law(n)
            least = law.conformal(np.full((1, 40), 1e9), np.zeros(1, bool)).min()
            assert law.smallest == pytest.approx(least) and (least <= 0.05 + 1e-12) == tells
        assert np.isnan(replace(law, ranked=None).smallest)

    def test_calibration_people_are_ranked_among_the_others(self):
        u, law = self.law(50)
        p = law.conformal(u, np.ones(50, bool))
        assert p.min() == pytest.approx(2 / 50)
        alone = FeatureLaw.fit(np.delete(u, 3, axis=0), np.zeros(49, int), {"a": slice(0, 40)})
        np.testing.assert_allclose(p[3], alone.conformal(u[[3]], np.zeros(1, bool))[0])

    def test_what_was_not_measured_has_none(self):
        u, law = self.law(50)
        u[0, 0] = np.nan
        assert np.isnan(law.conformal(u, np.zeros(50, bool))[0, 0])

    @pytest.mark.parametrize("d", [10, pytest.param(90, marks=pytest.mark.slow)])
    def test_distances_of_normal_positions(self, d):
        """P(p < .05) and P(p < .001) of new people, over many calibration groups."""
        rng, found, ranks = np.random.default_rng(3), [], []
        for _ in range(40):
            law = PatternLaw.fit({}, rng.normal(size=(1, 400, d)), rng.integers(5, size=400),
                                 Frame.none(1, d))
            table = law.distance(rng.normal(size=(2500, d)), np.full(2500, -1))
            found.append([(table[:, 1] < level).mean() for level in (0.05, 0.001)])
            ranks.append((table[:, 2] < 0.05).mean())
        mean, error = np.mean(found, 0), np.std(found, 0) / np.sqrt(40)
        assert abs(mean[0] - 0.05) < max(3 * error[0], 0.006)  # careful: tails may be heavy
        assert abs(mean[1] - 0.001) < max(3 * error[1], 0.0005)
        assert np.mean(ranks) == pytest.approx(0.05, abs=0.005)


def test_very_many_t_values_are_interpolated_to_eight_digits():
    rng = np.random.default_rng(0)
    t = np.sinh(rng.uniform(-6, 6, size=(50, 5000)))
    freedom = np.broadcast_to(np.where(np.arange(5000) % 3 == 0, 7.0, 130.0), t.shape)
    assert t.size > calibration._MANY
    exact = np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), freedom).clip(1e-300))
    np.testing.assert_allclose(calibration.t_to_normal(t, freedom), exact, atol=1e-8)
    np.testing.assert_allclose(calibration.t_to_normal(t[:, :9], freedom[:, :9]), exact[:, :9],
                               atol=1e-12)

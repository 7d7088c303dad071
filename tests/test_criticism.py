"""How good a model is said to be, against scipy, scikit-learn and statsmodels.

Witnesses: scikit-learn's scores, statsmodels' OLS influence, BH and proportions, SciPy's tests,
each on tables taken from the model. Densities have no witness; that of one value is integrated.
"""
from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import (balanced_accuracy_score, explained_variance_score, mean_squared_error,
                             r2_score)
from statsmodels.api import OLS, add_constant
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

import normfuse as nf
from normfuse import z_checks
from normfuse.baseline import LinearBaseline
from normfuse.deviations import ROLE
from normfuse.errors import CohortError, ModelFileError, OutputExistsError
from normfuse.testing import tiny_cohort, tiny_deviations

PLAN = nf.TrainingPlan(max_epochs=6, warmup=2, progress=False)


@pytest.fixture(scope="module")
def cohorts():
    """People of one population: 140 to learn from, 60 that no model has seen."""
    everybody = tiny_cohort(240, seed=2).reference_subjects()
    return everybody.select(everybody.ids[:140]), everybody.select(everybody.ids[140:])


@pytest.fixture(scope="module")
def model(cohorts):
    return nf.NormativeModel(n_latent=2, plan=PLAN, calibration=nf.HeldOut(), seed=1
                             ).fit(cohorts[0])


@pytest.fixture(scope="module")
def scored(model, cohorts):
    return model.deviations(cohorts[1], kind="covariates")


@pytest.fixture(scope="module")
def found(model, cohorts):
    return nf.evaluate(model, cohorts[1], kind="covariates")


def made_up(z, *, sites=("a", "b", "c"), seed=0):
    """Deviations with these z, people of random age, sex and site."""
    n, width = z.shape
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"p{k}" for k in rng.permutation(n)], name="participant_id")
    columns = pd.MultiIndex.from_product([["t1"], [f"r{j}" for j in range(width)]],
                                         names=["modality", "feature"])
    table = pd.DataFrame(z, ids, columns)
    who = pd.DataFrame({"age": rng.uniform(20, 80, n), "sex": rng.choice(["F", "M"], n),
                        "site": rng.choice(list(sites), n), ROLE: "new"}, ids)
    base = tiny_deviations()
    covariates = {"age": {"kind": "continuous"}, "sex": {"kind": "categorical"},
                  "site": {"kind": "site"}}
    return replace(base, z=table, observed=table, expected=table, latent=table, distance=table,
                   subjects=who, attribution=None,
                   reference=replace(base.reference, covariates=covariates))


class TestAgainstOtherPackages:
    def test_accuracy_and_shape_of_every_feature(self, found, scored):
        for name, row in found.features.iterrows():
            y, guess, z = (t[name].dropna() for t in
                           (scored.observed, scored.expected, scored.z))
            np.testing.assert_allclose(row[["n", "EXPV", "SMSE", "Rho", "W", "skew", "kurtosis"]]
                                       .astype(float), [
                len(y), explained_variance_score(y, guess),
                mean_squared_error(y, guess) / np.var(y), stats.spearmanr(y, guess)[0],
                stats.shapiro(z)[0], pd.Series(stats.skew(z)).item(), stats.kurtosis(z)])
            np.testing.assert_allclose(1 - row["SMSE"], r2_score(y, guess))
            np.testing.assert_allclose(row[["mean", "sd", "beyond_1.96"]].astype(float), [
                np.mean(z), np.std(z, ddof=1), np.mean(np.abs(z) > 1.96)])

    def test_mace_is_the_mean_distance_of_a_calibration_curve(self, found, scored):
        for name, row in found.features.iterrows():
            p = np.sort(stats.norm.cdf(scored.z[name].dropna()))
            ecdf = stats.ecdf(p).cdf.evaluate(np.arange(1, 100) / 100)
            assert row["MACE"] == pytest.approx(np.abs(ecdf - np.arange(1, 100) / 100).mean())

    def test_the_floor_is_what_a_perfect_model_has(self):
        rng = np.random.default_rng(0)
        for n in (40, 300):
            z = pd.Series(rng.normal(size=n))
            some = [z_checks.of_feature(z, z, pd.Series(rng.normal(size=n)))["MACE"]
                    for _ in range(400)]
            assert z_checks.mace_floor(n) == pytest.approx(np.mean(some), rel=0.06)

    def test_density_of_a_value_integrates_to_one(self, model, cohorts):
        person = cohorts[1].select(cohorts[1].ids[:1])
        feature = person.features["t1"].columns[0]
        center, unit = (getattr(model.fitted.preparation.regressions["t1"], name)[0]
                        for name in ("center", "unit"))
        grid, total = np.linspace(center - 9 * unit, center + 9 * unit, 61), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for y in grid:
                block = person.features["t1"].assign(**{feature: y})
                changed = nf.Cohort(person.subjects, {**person.features, "t1": block},
                                    person.modalities, person.covariates, person.reference)
                total.append(model.fitted.log_density(changed, model.kind_called("covariates"),
                                                      model.inference).iloc[0, 0])
        assert np.trapezoid(np.exp(total), grid) == pytest.approx(1, abs=0.01)

    def test_the_rival_is_least_squares_on_what_the_model_was_fitted_to(self, found, model,
                                                                        cohorts):
        learned, new = cohorts
        preparation = model.fitted.preparation
        for name, m in ((m.name, m) for m in preparation.modalities):
            rival = LinearBaseline.fit(learned.features[name][list(m.features)],
                                       preparation.encoded(learned.subjects))
            guess = rival.expected(preparation.encoded(new.subjects))
            for j, feature in enumerate(m.features):
                y = new.features[name][feature].to_numpy()
                seen = ~np.isnan(y)
                row = found.features.loc[(name, feature)]
                z = (y - guess[:, j])[seen] / rival.scale[j]
                y0 = learned.features[name][feature]
                gain = stats.norm.logpdf(y[seen], guess[seen, j], rival.scale[j]) \
                    - stats.norm.logpdf(y[seen], y0.mean(), y0.std(ddof=0))
                assert row["EXPV_spline"] == pytest.approx(
                    explained_variance_score(y[seen], guess[seen, j]))
                assert row["kurtosis_spline"] == pytest.approx(stats.kurtosis(z))
                assert row["MSLL_spline"] == pytest.approx(-gain.mean(), abs=0.03)

    def test_the_rival_judges_people_of_the_fit_as_if_it_had_not_seen_them(self):
        rng = np.random.default_rng(4)
        x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
        rival = LinearBaseline.fit(pd.DataFrame(y), x)
        rows = np.hstack([np.ones((30, 1)), x])
        weights = np.diag([0, *3 * [rival.penalty]])
        for k in (0, 17):
            others = np.arange(30) != k
            beta = np.linalg.solve(rows[others].T @ rows[others] + weights,
                                   rows[others].T @ y[others])
            np.testing.assert_allclose(rival.left_out(y, x)[k], rows[k] @ beta)
        plain = replace(rival, inverse=np.linalg.inv(rows.T @ rows), coefficients=np.linalg.lstsq(
            rows, y, rcond=None)[0])
        influence = OLS(y[:, 0], add_constant(x)).fit().get_influence()
        np.testing.assert_allclose(y[:, 0] - plain.left_out(y, x)[:, 0],
                                   influence.resid_press)

    def test_leftover_age_sex_and_site(self, found, scored):
        who = scored.subjects
        for name, column in (("sex", "sex"), ("site", "site")):
            p = [anova_lm(ols("z ~ C(g)", pd.DataFrame(
                {"z": z, "g": who[column].astype(str)}).dropna()).fit())["PR(>F)"].iloc[0]
                for _, z in scored.z.items()]
            q = multipletests(p, method="fdr_bh")[1]
            row = found.leftover.loc[name]
            assert row["smallest_q"] == pytest.approx(q.min())
            assert row["n_features"] == (q < 0.05).sum()
        p = [stats.spearmanr(z, who["age"], nan_policy="omit").pvalue
             for _, z in scored.z.items()]
        assert found.leftover.loc["age", "smallest_q"] == pytest.approx(
            multipletests(p, method="fdr_bh")[1].min())
        assert found.leftover.loc["site", "chance"] == pytest.approx(1 / 3)

    def test_guesses_stay_below_the_end_of_chance(self):
        rng = np.random.default_rng(5)
        labels = pd.Series(["a"] * 30 + ["b"] * 50 + ["c"] * 20)
        z = pd.DataFrame(rng.normal(size=(100, 4)))
        row = z_checks._told_apart(z, labels)
        guesses = [balanced_accuracy_score(labels, rng.choice(["a", "b", "c"], 100))
                   for _ in range(3000)]
        assert row["chance_high"] == pytest.approx(np.quantile(guesses, 0.975), abs=0.012)

    def test_sites(self, found, scored):
        for site, rows in scored.z.groupby(scored.subjects["site"]):
            row = found.sites.loc[site]
            assert row["n"] == len(rows)
            assert row["mean"] == pytest.approx(np.nanmean(np.nanmean(rows, axis=0)))
            assert row["sd"] == pytest.approx(np.nanmean(np.nanstd(rows, axis=0, ddof=1)))


class TestShares:
    def test_they_are_counted_over_measured_cells(self):
        z = pd.DataFrame([[-3.0, 0.1, np.nan], [np.nan, np.nan, np.nan], [-2.0, 2.4, 1.0]])
        table = z_checks.outer_centiles(z)
        assert table.loc[0.5, "share"] == 1 / 5 and table.loc[2.5, "share"] == 2 / 5
        assert table.loc[97.5, "share"] == 1 / 5 and table.loc[99.5, "share"] == 0
        assert table["n"].eq(2).all()
        assert z_checks.coverage(z).loc[0.95, "share"] == 2 / 5

    def test_one_value_a_person_gives_wilsons_interval(self):
        z = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 1)))
        row = z_checks.coverage(z).loc[0.8]
        wanted = stats.binomtest(int((z.abs() < stats.norm.ppf(0.9)).sum().item()),
                                 400).proportion_ci(method="wilson")
        np.testing.assert_allclose(row[["low", "high"]].astype(float), wanted, atol=0.002)

    def test_copies_of_a_feature_are_no_more_people(self):
        z = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 1)))
        once, often = (z_checks.outer_centiles(t) for t in (z, pd.concat([z] * 50, axis=1)))
        np.testing.assert_allclose(once[["low", "high"]], often[["low", "high"]])

    @pytest.mark.parametrize("rho", [0.0, 0.3])
    def test_intervals_hold_the_truth_as_often_as_they_say(self, rho):
        rng, held = np.random.default_rng(1), []
        for _ in range(300):
            z = np.sqrt(rho) * rng.normal(size=(50, 1)) \
                + np.sqrt(1 - rho) * rng.normal(size=(50, 30))
            table = z_checks.outer_centiles(pd.DataFrame(z))
            held.append(table["nominal"].between(table["low"], table["high"]))
        assert np.mean(held) > 0.92 and (np.mean(held, axis=0) > 0.87).all()

    def test_nothing_beyond_still_has_an_interval(self):
        row = z_checks.pooled_share(pd.DataFrame(np.zeros((30, 4))),
                                    pd.DataFrame(np.zeros((30, 4), bool)))
        assert row["share"] == row["low"] == 0
        assert row["high"] == pytest.approx(stats.binomtest(0, 30).proportion_ci(
            method="wilson").high)


class TestMiscalibration:
    """z that are known to be wrong, one way at a time."""

    Z = np.random.default_rng(8).normal(size=(300, 12))

    def flags(self, z, spoil=lambda d: d):
        d = spoil(made_up(z))
        table = pd.DataFrame([z_checks.of_feature(y, 0 * y, y) for _, y in d.z.items()])
        wide = table.assign(MSLL=0.0, **{f"{n}_spline": 0.0 for n in [*table, "MSLL"]})
        found = nf.Evaluation(wide, z_checks.coverage(d.z), z_checks.outer_centiles(d.z),
                              z_checks.leftover(d), z_checks.by_site(d), z_checks.mace_floor(300),
                              "covariates", {"new": 300})
        return found, " ".join(found.missed())

    def test_normal_z_are_not_flagged(self):
        found, words = self.flags(self.Z)
        assert not words and "nothing off" in found.summary()
        assert found.means["MACE"] == pytest.approx(found.floor, rel=0.3)

    def test_a_model_behind_the_spline_regression_is_told_so(self):
        found, _ = self.flags(self.Z)
        worse = found.features.assign(EXPV=0.30, EXPV_spline=0.32, MSLL=-0.10, MSLL_spline=-0.16)
        worse.loc[worse.index[:3], "EXPV"] = 0.33
        said = replace(found, features=worse).summary()
        assert "nothing off" not in said and "every interval holds" in said
        assert "behind the spline regression, which knows covariates only: EXPV 0.307 against " \
            "0.320 (lower in 9 of 12 features); MSLL -0.100 against -0.160 (higher in 12" in said
        better = found.features.assign(EXPV=0.3002, EXPV_spline=0.3005, MSLL=-0.2, MSLL_spline=0.0)
        assert not replace(found, features=better).behind()  # as three digits print it

    def test_z_that_are_too_large(self):
        _, words = self.flags(1.2 * self.Z)
        assert "of z inside the central 95 %" in words and "above the 97.5 % centile" in words

    def test_one_heavy_tail_that_coverage_alone_would_average_away(self):
        gamma = (stats.gamma.ppf(stats.norm.cdf(self.Z), 6) - 6) / np.sqrt(6)
        found, words = self.flags(gamma)
        assert found.coverage.loc[0.95, "share"] == pytest.approx(0.95, abs=0.01)
        assert "above the 99.5 % centile" in words and "below the 2.5 % centile" in words

    def test_a_covariate_that_was_not_taken_off(self):
        def aged(d):
            z = d.z.copy()
            z["t1", "r3"] += 0.03 * (d.subjects["age"] - 50)
            z["t1", "r5"] += 1.0 * (d.subjects["site"] == "b")
            return replace(d, z=z)

        found, words = self.flags(self.Z, aged)
        assert found.leftover.loc["age", "n_features"] == 1
        assert "age in 1 of 12 features" in words and "site told from z" in words
        assert "sex" not in words
        assert found.sites.loc["b", "mean"] > found.sites.loc["a", "mean"] + 0.05


class TestWhoIsEvaluated:
    def test_by_default_the_calibration_people(self, model):
        found = nf.evaluate(model)
        controls = model._controls("focal")
        assert "note: calibration people were judged by each other" in found.summary()
        assert found.kind == "focal" and set(found.people) == {"calibration"}
        assert found.people["calibration"] == len(controls)
        y, guess = (getattr(controls, t)["t1", "t1_region0"] for t in ("observed", "expected"))
        assert found.features.loc[("t1", "t1_region0"), "EXPV"] == pytest.approx(
            explained_variance_score(y, guess))

    def test_the_same_people_named_give_the_same(self, model, cohorts):
        with pytest.warns(UserWarning, match="were used to train this model"):
            named = nf.evaluate(model, cohorts[0], kind="covariates")
        left = nf.evaluate(model, kind="covariates")
        pd.testing.assert_frame_equal(named.features, left.features)
        assert named.people == left.people

    def test_the_rivals_scores_of_calibration_people_are_not_flattered(self, model, cohorts):
        found = nf.evaluate(model, kind="covariates")
        preparation = model.fitted.preparation
        people = model._controls("covariates")
        fitted = preparation.rivals["t1"].expected(preparation.encoded(people.subjects))
        y = people.observed["t1"].to_numpy()
        seen = 1 - np.nanvar(y - fitted, axis=0) / np.nanvar(y, axis=0)
        assert (found.features.loc["t1", "EXPV_spline"].to_numpy() < seen).all()

    def test_a_model_from_a_file_needs_people(self, model, cohorts, found, tmp_path):
        loaded = nf.NormativeModel.load(model.save(tmp_path / "model"))
        with pytest.raises(CohortError, match="was read from a file, which holds nobody's"):
            nf.evaluate(loaded)
        again = nf.evaluate(loaded, cohorts[1], kind="covariates")
        pd.testing.assert_frame_equal(again.features, found.features)

    @pytest.mark.filterwarnings("ignore:.*used to train")
    def test_refusals(self, model, cohorts):
        learned, new = cohorts
        with pytest.raises(CohortError, match="9 people are left to evaluate with; bring 10"):
            nf.evaluate(model, new.select(new.ids[:9]))
        everybody = tiny_cohort(240, seed=2)
        with pytest.raises(CohortError, match=r"30 of 240 .*do not answer .*healthy people"):
            nf.evaluate(model, everybody)
        with pytest.raises(CohortError, match="not calibrated for deviations of kind 'local'"):
            nf.evaluate(model, new, kind="local")

    @pytest.mark.slow
    def test_cross_fitted_people_are_judged_by_their_own_fits(self, cohorts):
        turns = nf.NormativeModel(n_latent=2, plan=PLAN, calibration=nf.CrossFit(3), seed=1
                                  ).fit(cohorts[0])
        found = nf.evaluate(turns, kind="covariates")
        assert found.people == {"out_of_fold": len(cohorts[0])}
        controls = turns.deviations(cohorts[0], kind="covariates")
        y, guess = (getattr(controls, t)["t1", "t1_region0"] for t in ("observed", "expected"))
        assert found.features.loc[("t1", "t1_region0"), "EXPV"] == pytest.approx(
            explained_variance_score(y, guess))
        assert "judged by each other" in found.summary()


class TestKeeping:
    def test_a_folder_read_again_is_the_same(self, found, tmp_path):
        again = nf.Evaluation.read(found.save(tmp_path / "evaluation"))
        for name in ("features", "coverage", "outer", "leftover", "sites"):
            pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name),
                                          check_dtype=False)
        assert (again.kind, again.floor, again.people) == (found.kind, found.floor, found.people)
        assert again.summary() == found.summary()
        with pytest.raises(OutputExistsError):
            found.save(tmp_path / "evaluation")

    def test_names_stay_as_they_were(self, found, tmp_path):
        odd = replace(found, sites=found.sites.rename(index={"north": "01", "south": "NA"}))
        again = nf.Evaluation.read(odd.save(tmp_path / "evaluation"))
        assert {"01", "NA"} <= set(again.sites.index)

    def test_one_file(self, found, tmp_path):
        table = pd.read_csv(found.to_csv(tmp_path / "features.csv"), index_col=[0, 1])
        np.testing.assert_allclose(table["EXPV"], found.features["EXPV"])

    def test_without_covariates(self, tmp_path):
        d = made_up(np.random.default_rng(0).normal(size=(40, 3)))
        d = replace(d, reference=replace(d.reference, covariates={}))
        assert z_checks.leftover(d).empty and z_checks.by_site(d).empty

    def test_something_else_is_refused(self, tmp_path):
        with pytest.raises(ModelFileError, match="is not a folder that `normfuse evaluate`"):
            nf.Evaluation.read(tmp_path)

    def test_it_shows_itself(self, found):
        html = found._repr_html_()
        assert "EXPV" in html and "97.5" in html and "spline" in html and "site" in html
        assert repr(found).startswith("<Evaluation: deviations of kind covariates, 15 features")
        table = found.beside_rival
        assert table.loc["EXPV", "spline"] == found.features["EXPV_spline"].mean()
        assert {"SMSE", "Rho", "MSLL", "MACE", "W", "skew", "kurtosis"} <= set(table.index)

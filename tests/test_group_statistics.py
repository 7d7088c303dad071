"""Tests of groups beyond least squares: HC3, Welch, Cliff's delta, largest t, omnibus, one side.

Witnesses: statsmodels (HC3, Wald and Welch's F, partial F), SciPy, the dominance matrix written
out, nilearn's permuted_ols, pingouin where it is installed, and the tractometry of 24 patients
with ALS. The rate of false findings is measured by benchmarks/null_cohorts.py. Without a witness:
which people change places within which site.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.nonparametric import rank_compare_2indep
from statsmodels.stats.oneway import anova_oneway
from test_groups import ALS, deviations, deviations_of  # noqa: F401  a fixture

from normfuse.analyses import GroupComparison, MaxT, compare_groups
from normfuse.analyses.cliff import cliffs_delta
from normfuse.analyses.terms import Question, shuffled
from normfuse.analyses.shuffles import Shuffles
from normfuse.errors import ComparisonError

ADJUST = ["age", "sex", "site"]


def als() -> tuple[pd.DataFrame, pd.DataFrame]:
    if not ALS.exists():
        pytest.skip(f"no real data at {ALS}")
    table = pd.read_csv(ALS, dtype={"subjectID": str}).set_index("subjectID")
    names = [c for c in table if c[:3] in ("FA_", "MD_", "RD_", "AD_")]
    columns = pd.MultiIndex.from_tuples([(c[:2], c[3:]) for c in names],
                                        names=["modality", "feature"])
    return table[["age", "sex", "diagnosis"]], table[names].set_axis(columns, axis=1)


def frame(deviations, column, values):  # noqa: F811
    return deviations.subjects.assign(y=values[column]).dropna()


def test_hc3_equals_statsmodels(deviations):  # noqa: F811
    found = compare_groups(deviations, "dx", adjust=ADJUST, baseline="CN", test="hc3").table
    for (contrast, *column), row in found.iterrows():
        for prefix, values in (("", deviations.z), ("raw_", deviations.observed)):
            data = frame(deviations, tuple(column), values)
            data = data[data["dx"].isin(contrast.split(" - "))]
            data["case"] = (data["dx"] != "CN").astype(float)
            fit = smf.ols("y ~ case + age + sex + site", data).fit(cov_type="HC3", use_t=True)
            np.testing.assert_allclose(
                row[[f"{prefix}t", f"{prefix}p", f"{prefix}df"]].astype(float),
                [fit.tvalues["case"], fit.pvalues["case"], fit.df_resid], rtol=1e-8)


def test_welch_equals_scipy_and_knows_no_covariates(deviations):  # noqa: F811
    found = compare_groups(deviations, "dx", baseline="CN", test="welch", alternative="less")
    assert found.adjust == () and found.test == "Welch, without covariates, less"
    for (contrast, *column), row in found.table.iterrows():
        a, b = (deviations.z[tuple(column)][deviations.subjects["dx"] == level].dropna()
                for level in contrast.split(" - "))
        test = stats.ttest_ind(a, b, equal_var=False, alternative="less")
        np.testing.assert_allclose(row[["t", "df", "p"]].astype(float),
                                   [test.statistic, test.df, test.pvalue], rtol=1e-8)
    with pytest.raises(ComparisonError, match="knows no covariates"):
        compare_groups(deviations, "dx", test="welch", adjust=["age"])


@pytest.mark.parametrize("test", ["ols", "hc3", "welch"])
def test_omnibus_equals_statsmodels(deviations, test):  # noqa: F811
    adjust = () if test == "welch" else ADJUST
    found = compare_groups(deviations, "dx", adjust=adjust, test=test)
    for column, row in found.omnibus.iterrows():
        data = frame(deviations, column, deviations.z)
        if test == "welch":
            other = anova_oneway(data["y"], data["dx"], use_var="unequal")
            expected = [other.statistic, other.pvalue, other.df_denom]
        else:
            fit = smf.ols("y ~ C(dx) + age + sex + site", data).fit(
                **({"cov_type": "HC3", "use_t": True} if test == "hc3" else {}))
            wald = fit.f_test("C(dx)[T.CN] = 0, C(dx)[T.MCI] = 0")
            expected = [np.squeeze(wald.fvalue), wald.pvalue, wald.df_denom]
        np.testing.assert_allclose(row[["f", "p", "df2"]].astype(float), expected, rtol=1e-7)
        assert row["n"] == len(data) and row["df1"] == 2
    assert "any group, t1" in found.summary()
    two = compare_groups(deviations.select("dx != 'MCI'"), "dx", adjust=adjust, test=test)
    assert two.omnibus is None


def test_one_side_is_half_of_two(deviations):  # noqa: F811
    both, less, greater = (compare_groups(deviations, "dx", adjust=ADJUST, alternative=side).table
                           for side in ("two-sided", "less", "greater"))
    below = both["t"] < 0
    np.testing.assert_allclose(less["p"][below], both["p"][below] / 2, rtol=1e-9)
    np.testing.assert_allclose(less["p"] + greater["p"], 1, rtol=1e-9)
    with pytest.raises(ComparisonError, match="alternative is one of"):
        compare_groups(deviations, "dx", alternative="lower")


def test_cliffs_delta_by_its_definition():
    rng = np.random.default_rng(2)
    for n1, n0, shift in ((9, 14, 0.0), (7, 5, 1.5), (30, 21, -0.8)):
        a, b = (rng.normal(size=n1) + shift).round(1), rng.normal(size=n0).round(1)
        d = np.sign(a[:, None] - b)
        delta, low, high = cliffs_delta(a, b)
        assert delta == pytest.approx(d.mean(), abs=1e-12)
        of_case, of_base = (((d.mean(k) - d.mean()) ** 2).sum() for k in (1, 0))
        s2 = (n0**2 * of_case + n1**2 * of_base - ((d - d.mean()) ** 2).sum()) / (
            n1 * n0 * (n1 - 1) * (n0 - 1))
        t = stats.t.ppf(0.975, rank_compare_2indep(a, b).df)
        half = t * np.sqrt(s2) * np.sqrt((1 - delta**2) ** 2 + t**2 * s2)
        ends = [(delta - delta**3 + sign * half) / (1 - delta**2 + t**2 * s2) for sign in (-1, 1)]
        assert [low, high] == pytest.approx(np.clip(ends, -1, 1), abs=1e-12)
        assert delta == pytest.approx(2 * stats.mannwhitneyu(a, b).statistic / (n1 * n0) - 1)


def test_interval_of_delta_covers_in_95_of_100_and_survives_separation():
    rng = np.random.default_rng(0)
    truth = 2 * stats.norm.cdf(0.7 / np.sqrt(2)) - 1
    ends = np.array([cliffs_delta(rng.normal(size=20) + 0.7, rng.normal(size=25))
                     for _ in range(1500)])
    covered = (ends[:, 1] <= truth) & (truth <= ends[:, 2])
    assert 0.93 < covered.mean() < 0.97  # sd of 1500 draws: .006
    assert cliffs_delta(np.arange(10.0), np.arange(20.0, 26)) == pytest.approx(
        (-1, -1, -(6 - 1.96**2) / (6 + 1.96**2)), abs=1e-3)


def test_interval_of_delta_covers_with_3_people_beside_200():
    rng = np.random.default_rng(1)
    ends = np.array([cliffs_delta(rng.normal(size=3), rng.normal(size=200)) for _ in range(800)])
    covered = (ends[:, 1] <= 0) & (0 <= ends[:, 2])  # .82 with the t of 201 degrees of freedom
    assert 0.89 < covered.mean() < 0.97


def test_largest_t_agrees_with_nilearn():
    from nilearn.mass_univariate import permuted_ols

    rng = np.random.default_rng(5)
    case, age = (np.arange(40) < 18).astype(float), rng.normal(size=40)
    y = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 12)) + rng.normal(size=(40, 12))
    y[:, 4] += case
    question = Question(case, np.column_stack([np.ones(40), age]))
    null = shuffled(question, y, np.ones(12, bool), Shuffles(np.zeros(40, int), 3000, 0))
    t = question.fit(y, np.ones(12, bool))[0]["t"]
    p = np.array([(1 + (null.largest() >= abs(one)).sum()) / 3001 for one in t])
    other = permuted_ols(case[:, None], y, confounding_vars=age[:, None], n_perm=3000,
                         random_state=1)
    np.testing.assert_allclose(other["t"][0], t, rtol=1e-8)
    # two sets of 3000 draws: 4 sd of their difference
    limit = 4 * np.sqrt(2 * np.clip(p * (1 - p), 1e-3, None) / 3000)
    assert (np.abs(10 ** -other["logp_max_t"][0] - p) < limit).all()


@pytest.mark.parametrize("test", ["ols", "hc3", "welch"])
def test_shuffles_are_those_of_a_plain_loop(test):
    """With holes and sites: Freedman and Lane written out with statsmodels-like formulas."""
    rng = np.random.default_rng(8)
    n = 26
    case, site = (np.arange(n) % 3 == 0).astype(float), np.arange(n) % 2
    y = rng.normal(size=(n, 3))
    y[[3, 8, 9], 1] = np.nan
    design = np.ones((n, 1)) if test == "welch" else np.column_stack([np.ones(n), rng.normal(
        size=n), site])
    shuffles = Shuffles(site, 6, seed=3)
    null = shuffled(Question(case, design, test), y, np.ones(3, bool), shuffles)
    largest = np.zeros(6)
    order = shuffles.sequences(slice(0, 6))
    for k in range(6):
        for j in range(3):
            there = np.isfinite(y[:, j])
            number = np.cumsum(there) - 1
            places = number[shuffles.places[there[shuffles.places]]]
            comes = number[order[k][there[order[k]]]]
            x, c = case[there], design[there]
            rest = y[there, j] - c @ np.linalg.lstsq(c, y[there, j], rcond=None)[0]
            moved = np.empty_like(rest)
            moved[places] = rest[comes]
            if test == "welch":
                t = stats.ttest_ind(moved[x == 1], moved[x == 0], equal_var=False).statistic
            else:
                data = pd.DataFrame(c[:, 1:], columns=["a", "b"]).assign(x=x, y=moved)
                fit = smf.ols("y ~ x + a + b", data).fit(
                    **({"cov_type": "HC3"} if test == "hc3" else {}))
                t = fit.tvalues["x"]
            largest[k] = max(largest[k], abs(t))
    np.testing.assert_allclose(null.largest(), largest, rtol=1e-8)


def test_largest_t_of_groups_within_sites(deviations):  # noqa: F811
    found = compare_groups(deviations, "dx", adjust=["age"], correction=MaxT(199, seed=2))
    assert found.family == ("family-wise by the largest t, 199 permutations within site, seed 2, "
                            "over 30 tests (2 contrasts; t1 4, dti 5, pet 6 each), raw over 30")
    assert (found.table["q"] >= found.table["p"] - 0.02).all() and found.table["q"].min() >= 1/200
    # family-wise p fall as |t| grows, over all contrasts
    order = found.table.sort_values("t", key=abs)["q"]
    assert order.is_monotonic_decreasing
    with pytest.raises(ComparisonError, match="'scanner', which is not a column"):
        compare_groups(deviations, "dx", correction=MaxT(9, blocks="scanner"))
    alone = deviations.subjects.assign(place=deviations.subjects["dx"])
    with pytest.raises(ComparisonError, match="no place has people of both"):
        compare_groups(replace(deviations, subjects=alone), "dx", adjust=(),
                       correction=MaxT(9, blocks="place"))


def test_als_by_every_test_and_correction():
    people, raw = als()
    made = deviations_of(raw, people)
    hits = {}
    base = next(d for d in people["diagnosis"].unique() if d != "ALS")
    for name, options in {"bh": {}, "hc3": {"test": "hc3"}, "holm": {"correction": "holm"},
                          "max": {"correction": MaxT(1999, blocks=None)}}.items():
        table = compare_groups(made, "diagnosis", adjust=["age", "sex"], baseline=base,
                               **options).table
        hits[name] = table[table["raw_q"] < 0.05].index.droplevel(0)
        assert set(hits[name]) <= {(m, f"{side}_Corticospinal") for m in ("FA", "RD")
                                   for side in ("Left", "Right")}
    assert {name: len(found) for name, found in hits.items()} == {
        "bh": 4, "hc3": 4, "holm": 4, "max": 4}


def test_als_oracle_and_pingouin():
    people, raw = als()
    base = next(d for d in people["diagnosis"].unique() if d != "ALS")
    table = compare_groups(deviations_of(raw, people), "diagnosis", adjust=["age", "sex"],
                           baseline=base).table.xs(f"ALS - {base}")
    cst = [("FA", "Right_Corticospinal"), ("FA", "Left_Corticospinal"),
           ("RD", "Right_Corticospinal"), ("RD", "Left_Corticospinal")]
    np.testing.assert_allclose(table.loc[cst, "raw_t"], [-5.81, -5.29, 4.83, 3.81], atol=0.005)
    assert table["raw_q"].nsmallest(5).iloc[4] == pytest.approx(0.69, abs=0.005)
    pg = pytest.importorskip("pingouin")
    for column in cst:
        data = people.assign(y=raw[column]).dropna()
        a, b = (data["y"][data["diagnosis"] == level] for level in ("ALS", base))
        assert table.loc[column, "raw_g"] == pytest.approx(
            pg.compute_effsize(a, b, eftype="hedges"), rel=1e-8)
        assert table.loc[column, "raw_delta"] == pytest.approx(
            2 * pg.compute_effsize(a, b, eftype="CLES") - 1, rel=1e-8)
        data["male"] = (data["sex"] == data["sex"].iloc[0]).astype(float)
        other = pg.ancova(data, dv="y", between="diagnosis", covar=["age", "male"])
        assert table.loc[column, "raw_t"] ** 2 == pytest.approx(other["F"].iloc[0], rel=1e-8)
        assert table.loc[column, "raw_p"] == pytest.approx(other.iloc[0, list(other).index(
            next(c for c in other if c.startswith("p") and "unc" in c))], rel=1e-8)


def test_saved_with_omnibus_and_drawn(deviations, tmp_path):  # noqa: F811
    found = compare_groups(deviations, "dx", adjust=["age"], test="hc3")
    again = GroupComparison.read(found.save(tmp_path / "groups"))
    pd.testing.assert_frame_equal(again.omnibus, found.omnibus, check_exact=True)
    assert again.summary() == found.summary()
    assert "MCI" in found.plot(5, contrast="MCI - CN").get_xlabel()

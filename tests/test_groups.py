"""Group comparisons.

Witnesses: statsmodels OLS and multipletests, SciPy's t tests, the noncentral t by quadrature of
its definition, and the published-data oracle of 24 patients with ALS and 24 controls. Without a
witness: the wording of notes.
"""
from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import integrate, optimize, stats

from normfuse.analyses import GroupComparison, compare_groups
from normfuse.analyses.effects import noncentrality_interval
from normfuse.analyses.families import disagreement
from normfuse.deviations import ROLE, Deviations
from normfuse.errors import CohortError, ComparisonError, ModelFileError, OutputExistsError
from normfuse.testing.fixtures import tiny_reference

ALS = Path(__file__).parents[1] / "../shared/data/tables/als_tractometry/cohort_als.csv"
N = {"AD": 11, "CN": 17, "MCI": 7}


def deviations_of(raw: pd.DataFrame, subjects: pd.DataFrame, **changes) -> Deviations:
    """Deviations whose z is not a mere rescaling of what was observed."""
    rng = np.random.default_rng(9)
    z = (raw - raw.mean()) / raw.std() + 0.3 * rng.normal(size=raw.shape)
    far = pd.DataFrame({"distance": 1.0, "p": 0.5, "n_calibration": 20}, subjects.index)
    return replace(Deviations(z=z, observed=raw, expected=raw - z, latent=far[["p"]],
                              distance=far, subjects=subjects, reference=tiny_reference()),
                   **changes)


@pytest.fixture
def deviations() -> Deviations:
    rng = np.random.default_rng(3)
    n = sum(N.values())
    people = pd.DataFrame({
        "age": rng.normal(60, 9, n).round(1), "sex": rng.choice(["F", "M"], n, p=[0.6, 0.4]),
        "site": rng.choice(["north", "south", "west"], n),
        "dx": np.repeat(list(N), list(N.values()))}, index=[f"sub-{i:02d}" for i in range(n)])
    people.loc[people["dx"] == "AD", "age"] += 5
    columns = pd.MultiIndex.from_tuples(
        [(m, f"{m}_{j}") for m, k in (("t1", 4), ("dti", 5), ("pet", 6)) for j in range(k)],
        names=["modality", "feature"])
    raw = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 15)) + rng.normal(size=(n, 15))
    raw[:, 2] -= 1.5 * (people["dx"] == "AD")
    raw = pd.DataFrame(raw * np.geomspace(1e-3, 1e4, 15) + np.geomspace(0.5, 1e5, 15),
                       people.index, columns)
    raw.loc[people.sample(9, random_state=1).index, "pet"] = np.nan
    raw.iloc[[0, 20], 3] = np.nan
    order = rng.permutation(n)
    return deviations_of(raw.iloc[order], people.iloc[order])


@pytest.mark.parametrize("adjust", [(), ("age",), ("age", "sex", "site")])
def test_every_feature_equals_statsmodels(deviations, adjust):
    found = compare_groups(deviations, "dx", adjust=adjust, baseline="CN").table
    for (contrast, modality, feature), row in found.iterrows():
        case = contrast.split(" - ")[0]
        for prefix, values in (("", deviations.z), ("raw_", deviations.observed)):
            data = deviations.subjects.assign(y=values[modality, feature]).dropna()
            data = data[data["dx"].isin([case, "CN"])]
            data["case"] = (data["dx"] == case).astype(float)
            fit = smf.ols("y ~ " + " + ".join(["case", *adjust]), data).fit()
            ours = row[[f"{prefix}{k}" for k in ("adjusted_difference", "t", "p", "df")]]
            np.testing.assert_allclose(
                ours.astype(float),
                [fit.params["case"], fit.tvalues["case"], fit.pvalues["case"], fit.df_resid],
                rtol=1e-8)
            assert (row[f"{prefix}n_case"], row[f"{prefix}n_baseline"]) == (
                data["case"].sum(), (1 - data["case"]).sum())


def test_difference_and_interval_are_welch_and_p_without_covariates_is_student(deviations):
    found = compare_groups(deviations, "dx", adjust=(), baseline="MCI").table
    for prefix, values in (("", deviations.z), ("raw_", deviations.observed)):
        for (contrast, *column), row in found.iterrows():
            a, b = (values[tuple(column)][deviations.subjects["dx"] == level].dropna()
                    for level in contrast.split(" - "))
            welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
            np.testing.assert_allclose(
                row[[f"{prefix}difference", f"{prefix}ci_low", f"{prefix}ci_high"]].astype(float),
                [a.mean() - b.mean(), *welch], rtol=1e-9)
            student = stats.ttest_ind(a, b)
            assert row[f"{prefix}t"] == pytest.approx(student.statistic, rel=1e-9)
            assert row[f"{prefix}p"] == pytest.approx(student.pvalue, rel=1e-9)
            pooled = np.sqrt(((len(a) - 1) * a.var() + (len(b) - 1) * b.var())
                             / (len(a) + len(b) - 2))
            g = (1 - 3 / (4 * (len(a) + len(b)) - 9)) * (a.mean() - b.mean()) / pooled
            assert row[f"{prefix}g"] == pytest.approx(g, rel=1e-9)


def test_interval_of_g_puts_the_observed_t_at_the_quantiles_of_the_noncentral_t(deviations):
    for row in compare_groups(deviations, "dx").table.itertuples():
        root = np.sqrt(row.n_case * row.n_baseline / (row.n_case + row.n_baseline))
        j = 1 - 3 / (4 * (row.n_case + row.n_baseline) - 9)
        df = row.n_case + row.n_baseline - 2
        for end, level in ((row.g_low, 0.975), (row.g_high, 0.025)):
            assert stats.nct.cdf(row.g / j * root, df, end / j * root) == pytest.approx(level)


def test_interval_of_g_known_case():
    # g = .356 with 25 and 30 people: [-.17, .88]; the normal approximation gives [-.19, .90].
    root, j = np.sqrt(25 * 30 / 55), 1 - 3 / (4 * 55 - 9)
    low, high = noncentrality_interval(np.array([0.356 / j * root]), np.array([53]))
    assert (round(low[0] * j / root, 2), round(high[0] * j / root, 2)) == (-0.17, 0.88)


def _noncentral_t_cdf(t: float, df: int, delta: float) -> float:
    """P(T <= t) = E[Phi(t s - delta)], s^2 ~ chi2_df / df: the definition, by quadrature."""
    scale = stats.chi(df, scale=1 / np.sqrt(df))
    low, high = scale.ppf(1e-16), scale.isf(1e-16)
    middle = np.clip(delta / t, low, high) if t else low
    return sum(integrate.quad(lambda s: stats.norm.cdf(t * s - delta) * scale.pdf(s), *ends,
                              limit=400, epsabs=1e-12)[0]
               for ends in ((low, middle), (middle, high)))


@pytest.mark.parametrize("t, df", [(0.0, 3), (-0.4, 2), (2.1, 53), (-7.5, 19), (60.0, 40),
                                   (-250.0, 900)])
def test_interval_of_noncentrality_by_definition_even_far_out(t, df):
    low, high = (end[0] for end in noncentrality_interval(np.array([t]), np.array([df])))
    assert _noncentral_t_cdf(t, df, low) == pytest.approx(0.975, abs=1e-7)
    assert _noncentral_t_cdf(t, df, high) == pytest.approx(0.025, abs=1e-7)
    root = optimize.brentq(lambda d: stats.nct.cdf(t, df, d) - 0.975, low - 5, low + 3, xtol=1e-12)
    assert low == pytest.approx(root, abs=1e-8)


@pytest.mark.parametrize("correction", ["fdr_bh", "fdr_by", "holm"])
def test_q_is_over_the_whole_family_with_missing_p_left_out(deviations, correction):
    raw = deviations.observed.copy()
    raw["t1", "t1_1"] = 0.25
    z = deviations.z.copy()
    z["t1", "t1_1"] = 0.0
    found = compare_groups(replace(deviations, z=z, observed=raw), "dx", correction=correction)
    p = found.table["p"]
    assert p.isna().sum() == 2 and p.notna().sum() == 28 and "over 28 tests" in found.family
    q = sm.stats.multipletests(p.dropna(), method=correction)[1]
    np.testing.assert_allclose(found.table["q"].dropna(), q)
    if correction.startswith("fdr"):
        again = stats.false_discovery_control(p.dropna(), method=correction[4:])
        np.testing.assert_allclose(found.table["q"].dropna(), again)
    assert (found.table.loc[p.isna(), "reason"] == "no spread within the groups").all()
    assert set(found.significant(0.2).index) == set(p.index[found.table["q"] < 0.2])


@pytest.mark.skipif(not ALS.exists(), reason="the shared ALS table is not on this machine")
def test_als_tracts_reproduce_the_four_hits():
    table = pd.read_csv(ALS, index_col="subjectID")
    raw = table.loc[:, "FA_Callosum_Forceps_Major":]
    raw.columns = pd.MultiIndex.from_product([["dti"], raw.columns])
    people = table[["age", "sex", "diagnosis"]]
    made = deviations_of(raw, people, z=(raw - raw.mean()) / raw.std())
    found = compare_groups(made, "diagnosis", adjust=["age", "sex"], baseline="CTRL")
    for prefix in ("raw_", ""):  # standardising does not change t
        best = found.table.droplevel([0, 1]).sort_values(f"{prefix}p")
        assert (best[f"{prefix}q"] < 0.05).sum() == 4
        assert best.index[:4].tolist() == ["FA_Right_Corticospinal", "FA_Left_Corticospinal",
                                           "RD_Right_Corticospinal", "RD_Left_Corticospinal"]
        assert best[f"{prefix}t"].iloc[:4].round(2).tolist() == [-5.81, -5.29, 4.83, 3.81]
        assert best[f"{prefix}q"].iloc[:5].round(4).tolist()[2:4] == [0.0004, 0.0087]
        assert (best[f"{prefix}q"].iloc[:2].round(4) == 0.0001).all()
        assert best[f"{prefix}q"].iloc[4] == pytest.approx(0.69, abs=0.005)
    assert found.n == {"CTRL": 24, "ALS": 24} and len(found.table) == 80


def _blocks(shift: float, seed: int) -> Deviations:
    """300 independent blocks of 3 correlated features; age lies under all and under the group."""
    rng = np.random.default_rng(seed)
    n1, n0, blocks = 13, 29, 300
    age = np.r_[rng.normal(69, 7, n1), rng.normal(58, 9, n0)]
    people = pd.DataFrame({"age": age, "dx": ["AD"] * n1 + ["CN"] * n0},
                          index=[f"s{i}" for i in range(n1 + n0)])
    z = rng.normal(size=(n1 + n0, blocks, 3))
    z[..., 1] = 0.8 * z[..., 0] + 0.6 * z[..., 1]
    z = z.reshape(n1 + n0, -1) + 0.08 * (age[:, None] - 60)
    z[:n1] += shift
    z[rng.random(z.shape) < 0.04] = np.nan
    columns = pd.MultiIndex.from_product([["t1"], [f"r{j}" for j in range(3 * blocks)]])
    raw = pd.DataFrame(z, people.index, columns)
    return deviations_of(raw, people, z=raw)


@pytest.mark.parametrize("seed", [0, 1])
def test_p_is_uniform_without_a_difference(seed):
    made = _blocks(0.0, seed)
    p = compare_groups(made, "dx", adjust="age").table["p"]
    for feature in p.to_numpy().reshape(300, 3).T:  # one a block: 300 independent p
        assert stats.kstest(feature, "uniform").pvalue > 0.001
    unadjusted = compare_groups(made, "dx", adjust=()).table["p"]
    pd.testing.assert_series_equal(compare_groups(made, "dx").table["p"], p)  # the default
    assert (unadjusted < 0.05).mean() > 0.3  # age does confound here


def test_intervals_cover_the_truth_in_95_of_100():
    made = _blocks(0.9, 4)
    age = made.subjects["age"].to_numpy()[:, None]
    made = replace(made, z=made.z - 0.08 * (age - 60))
    table = compare_groups(made, "dx").table.iloc[::3]
    for low, high in (("ci_low", "ci_high"), ("g_low", "g_high")):
        share = ((table[low] < 0.9) & (0.9 < table[high])).mean()
        assert stats.binomtest(round(share * 300), 300, 0.95).pvalue > 0.001


def test_rows_are_aligned_by_subject_and_feature_never_by_position(deviations):
    rng = np.random.default_rng(8)
    rows, columns = rng.permutation(35), rng.permutation(15)
    mixed = replace(deviations, observed=deviations.observed.iloc[rows, columns],
                    subjects=deviations.subjects.iloc[rng.permutation(35)])
    one, two = (compare_groups(d, "dx", adjust=["age", "sex"]).table for d in (deviations, mixed))
    pd.testing.assert_frame_equal(one, two)


def test_people_the_model_was_trained_on_are_left_out_with_a_warning(deviations):
    roles = pd.Series("new", deviations.subjects.index)
    seen = deviations.subjects.index[deviations.subjects["dx"] == "CN"][:6]
    roles[seen[:4]], roles[seen[4:]] = "training", "early_stop"
    marked = replace(deviations, subjects=deviations.subjects.assign(**{ROLE: roles}))
    with pytest.warns(UserWarning, match="left out 6 people the model was trained on"):
        found = compare_groups(marked, "dx")
    honest = compare_groups(deviations.select(deviations.z.index.difference(seen)), "dx")
    pd.testing.assert_frame_equal(found.table.sort_index(), honest.table.sort_index())
    assert found.n["CN"] == 11 and any("6 people" in note for note in found.notes)


def test_held_out_controls_are_added_and_become_the_baseline(deviations):
    people = deviations.subjects
    controls = deviations.select("dx == 'MCI'")
    controls = replace(controls, subjects=controls.subjects.assign(**{ROLE: "calibration"}))
    patients = deviations.select("dx != 'MCI'")
    patients = replace(patients, subjects=patients.subjects.assign(**{ROLE: "new"}),
                       controls=controls)
    found = compare_groups(patients, "dx")
    assert found.baseline == "MCI" and list(found.n) == ["MCI", "AD", "CN"]
    assert any("7 of its people are calibration controls" in note for note in found.notes)
    assert found.notes[0] == "added 7 held-out controls of the reference"
    assert compare_groups(deviations, "dx").baseline == "CN"  # nobody is calibration: the largest
    assert "equal size" in compare_groups(deviations.select(
        [*people.index[people["dx"] == "AD"][:7], *people.index[people["dx"] == "MCI"]]),
        "dx").notes[0]


def test_missing_groups_are_left_out_and_counted(deviations):
    dx = deviations.subjects["dx"].astype(object)
    dx.iloc[[2, 9, 11]] = [None, np.nan, " "]
    found = compare_groups(replace(deviations, subjects=deviations.subjects.assign(dx=dx)), "dx")
    assert sum(found.n.values()) == 32
    assert found.notes[0].startswith("left out 3 people without a value of dx")


def test_numbered_groups_stay_whole_numbers_beside_a_hole(deviations):
    code = deviations.subjects["dx"].map({"CN": 0.0, "AD": 1.0, "MCI": np.nan})
    made = replace(deviations, subjects=deviations.subjects.assign(code=code))
    assert compare_groups(made, "code", baseline=0).n == {"0": 17, "1": 11}


@pytest.mark.parametrize("who, options, words", [
    ("dx == 'AD'", {}, r"all 11 people compared by dx are 'AD'.*model\.deviations\(cohort\)"),
    ("dx != 'CN'", {"baseline": "CN"}, "baseline 'CN' is not a value of dx; it has AD, MCI"),
    ("age > 0", {"adjust": ["educaton"]}, "cannot adjust for 'educaton'.* of age, sex, site"),
    ("age > 0", {"adjust": ["dx"]}, "cannot adjust for 'dx'"),
    ("age > 0", {"correction": "fdr"}, "correction is one of fdr_bh"),
])
def test_what_cannot_be_answered_is_refused_with_advice(deviations, who, options, words):
    with pytest.raises(ComparisonError, match=words):
        compare_groups(deviations.select(who), "dx", **options)


def test_refusals_name_the_people(deviations):
    with pytest.raises(ComparisonError, match="'diagnosis' is not a column.*age, sex, site, dx"):
        compare_groups(deviations, "diagnosis")
    lone = deviations.subjects.index[deviations.subjects["dx"] == "MCI"][:6]
    with pytest.raises(ComparisonError, match="MCI has one person only"):
        compare_groups(deviations.select(deviations.z.index.difference(lone)), "dx")
    for column in ("age", "site"):
        people = deviations.subjects.copy()
        people.loc[people.index[4], column] = None
        with pytest.raises(ComparisonError, match=f"{column} is missing for 1 of 35.*"
                                                  f"{people.index[4]}"):
            compare_groups(replace(deviations, subjects=people), "dx", adjust=[column])
    trained = deviations.subjects.assign(**{ROLE: "training"})
    with pytest.warns(UserWarning), pytest.raises(ComparisonError, match="nobody is left"):
        compare_groups(replace(deviations, subjects=trained), "dx")


def test_what_cannot_be_tested_stays_as_a_row_with_its_reason(deviations):
    people = deviations.subjects.assign(scanner=(deviations.subjects["dx"] == "AD").map(
        {True: "new", False: "old"}))
    z, raw = deviations.z.copy(), deviations.observed.copy()
    z.loc[people["dx"] == "AD", ("t1", "t1_0")] = np.nan
    z["dti", "dti_0"] = 2.0 * people["age"] - 7
    z.loc[people.index[people["dx"] == "AD"][3], ("dti", "dti_1")] = np.inf
    made = replace(deviations, z=z, observed=raw, subjects=people)
    table = compare_groups(made, "dx", adjust=["age"]).table.loc["AD - CN"]
    absent, exact = table.loc[("t1", "t1_0")], table.loc[("dti", "dti_0")]
    assert absent["reason"] == "measured in 0 and 17 people, needs 2 in each group"
    assert np.isnan(absent["g"]) and absent["raw_reason"] == ""
    assert exact["reason"].endswith("without residual")
    assert np.isnan(exact["t"]) and exact["g"] > 0
    assert table.loc[("dti", "dti_1"), ["n_case", "n_baseline"]].sum() == 27  # inf is not a number
    confounded = compare_groups(made, "dx", adjust=["scanner"])
    apart, together = (confounded.table.loc[f"{case} - CN"] for case in ("AD", "MCI"))
    assert (apart["raw_reason"] == "the covariates tell the groups apart completely").all()
    assert apart["raw_g"].notna().all() and apart["raw_p"].isna().all()
    assert together["raw_p"].notna().all()  # both on the old scanner
    assert "could not be tested" in confounded.notes[-1] and "0 of 0" in confounded.summary()


def test_as_many_covariates_as_people_is_said_not_computed(deviations):
    people = deviations.subjects
    few = [*people.index[people["dx"] == "AD"][:3], *people.index[people["dx"] == "CN"][:2]]
    rng = np.random.default_rng(2)
    made = deviations.select(few)
    made = replace(made, subjects=made.subjects.assign(**{c: rng.normal(size=5) for c in "abc"}))
    table = compare_groups(made, "dx", adjust=["a", "b", "c"]).table.loc["CN - AD"].loc["dti"]
    assert (table["reason"] == "5 people are too few for group and covariates").all()
    assert table["p"].isna().all() and table["g"].notna().all()


def test_a_numbered_site_that_the_reference_knows_stays_a_category(deviations):
    people = deviations.subjects.assign(site=deviations.subjects["site"].map(
        {"north": 1, "south": 2, "west": 3}))
    reference = replace(deviations.reference, covariates={"site": {"kind": "site", "levels": {}}})
    made = replace(deviations, subjects=people, reference=reference)
    one, two = (compare_groups(d, "dx", adjust=["site"]).table for d in (deviations, made))
    pd.testing.assert_frame_equal(one, two)
    mixed = people.assign(site=people["site"].astype(object).where(people["age"] > 60,
                                                                   people["site"].astype(str)))
    three = compare_groups(replace(made, subjects=mixed), "dx", adjust=["site"]).table
    pd.testing.assert_frame_equal(one, three)  # a site 1 and a site "1" are one site
    number = compare_groups(replace(deviations, subjects=people), "dx", adjust=["site"]).table
    assert not np.allclose(one["t"], number["t"])


def test_a_confounder_makes_z_and_raw_disagree_and_the_result_says_so():
    made = _blocks(0.0, 7)
    age = made.subjects["age"].to_numpy()[:, None]
    raw = made.z + 0.3 * (age - 60)
    found = compare_groups(replace(made, z=made.z - 0.08 * (age - 60), observed=raw), "dx",
                           adjust=())
    note = [text for text in found.notes if "disagree" in text]
    hits = int((found.table["raw_q"] < 0.05).sum())
    assert len(note) == 1 and hits > 1 and "age" in note[0]
    assert f"in {hits} of {len(found.table)} rows at q < 0.05: 0 in z alone, {hits} raw" in note[0]


@pytest.mark.parametrize("q, raw_q, said", [
    ([.01, .9, .9, .9], [.9, .9, .9, .9], None),  # one row
    ([.01, .01, .9, .9], [.9, .9, .9, .9], "in 2 of 4 rows at q < 0.05: 2 in z alone, 0 raw"),
    ([.01, .9, .9, .9], [.9, .01, .9, .9], "in 2 of 4 rows at q < 0.05: 1 in z alone, 1 raw"),
    ([.01] * 40, [.01] * 38 + [.06] * 2, None),  # 2 of 40 lie at the border
])
def test_a_row_at_the_border_is_no_disagreement(q, raw_q, said):
    table = pd.DataFrame({"q": q, "raw_q": raw_q, "p": 0.01})
    notes = disagreement(table)
    assert [said in note for note in notes] == ([] if said is None else [True])


def test_saved_and_read_again(deviations, tmp_path):
    dx = deviations.subjects["dx"].replace({"MCI": "NA"})
    z = deviations.z.copy()
    z["t1", "t1_1"] = 0.0
    made = replace(deviations, z=z, subjects=deviations.subjects.assign(dx=dx))
    found = compare_groups(made, "dx", adjust=["age"])
    again = GroupComparison.read(found.save(tmp_path / "groups"))
    pd.testing.assert_frame_equal(again.table, found.table, check_exact=True)
    assert again.summary() == found.summary() and again.n == found.n
    assert (again.adjust, again.notes) == (found.adjust, found.notes)
    assert again.kind == found.kind == made.reference.kind == "reconstruction"
    with pytest.raises(OutputExistsError):
        found.save(tmp_path / "groups")
    file = found.to_csv(tmp_path / "table.csv")
    assert len(pd.read_csv(file, keep_default_na=False)) == 30
    with pytest.raises(OutputExistsError):
        found.to_csv(file)
    (tmp_path / "groups" / "comparison.json").write_text("{}")
    with pytest.raises(ModelFileError, match="GroupComparison.save"):
        GroupComparison.read(tmp_path / "groups")


def test_text_and_html(deviations):
    dx = deviations.subjects["dx"].replace({"AD": "<script>"})
    found = compare_groups(replace(deviations, subjects=deviations.subjects.assign(dx=dx)), "dx")
    assert "17 CN" in found.summary() and "baseline CN" in found.summary()
    assert "deviations of kind reconstruction" in found.summary()
    assert "deviations of kind reconstruction" in found._repr_html_()
    assert "<script>" not in found._repr_html_() and "&lt;script&gt;" in found._repr_html_()
    empty = replace(found, table=found.table.iloc[:0])
    assert "GroupComparison" in repr(empty) and empty._repr_html_()
    assert "0 of 0" in replace(found, table=found.table.assign(p=np.nan, q=np.nan))._repr_html_()


def test_inputs_are_not_changed(deviations):
    before = (deviations.z.copy(), deviations.observed.copy(), deviations.subjects.copy())
    compare_groups(deviations, "dx", adjust=["age", "site"])
    for old, new in zip(before, (deviations.z, deviations.observed, deviations.subjects)):
        pd.testing.assert_frame_equal(old, new)


def test_unknown_people_are_refused(deviations):
    with pytest.raises(CohortError, match="not among these deviations"):
        deviations.select(["sub-99"])


def test_importing_the_analyses_brings_neither_torch_nor_the_statistics():
    code = ("import sys, normfuse.analyses; "
            "print([m for m in ('torch', 'pyro', 'statsmodels', 'nilearn', 'seaborn') "
            "if m in sys.modules]); from normfuse.analyses import compare_groups, write_maps; "
            "print([m for m in ('torch', 'pyro') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_a_covariate_of_the_model_is_no_group(deviations):
    with pytest.raises(ComparisonError, match="age is a covariate of the model.*Fit a model "
                                              "without age"):
        compare_groups(deviations, "age")

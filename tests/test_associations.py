"""Correlations with scores, overlap maps, extreme counts.

Witnesses: statsmodels (residuals of regressions, its Newcombe interval, multipletests), SciPy,
pingouin where it is installed, the published correlation of age with thickness and magnetisation
transfer (NSPN), and a plain loop over permutations. Nothing outside checks the wording.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep
from test_groups import deviations, deviations_of  # noqa: F401  a fixture
from typer.testing import CliRunner

from normfuse.analyses import MaxT, associations, compare_extremes, extreme_counts, overlap
from normfuse.cli import app
from normfuse.deviations import ROLE
from normfuse.errors import ComparisonError

NSPN = Path(__file__).parents[1] / "../shared/data/tables/nspn/cohort_nspn.csv"


@pytest.fixture
def scored(deviations):  # noqa: F811
    rng = np.random.default_rng(4)
    people = deviations.subjects
    mmse = (28 - 0.1 * people["age"] + deviations.z["t1", "t1_2"] + rng.normal(size=len(people))
            ).round()
    mmse.iloc[[2, 9]] = np.nan
    return replace(deviations, subjects=people.assign(mmse=mmse, updrs=rng.normal(
        size=len(people))))


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("adjust", [(), ("age", "sex", "site")])
def test_partial_correlations_are_those_of_residuals(scored, method, adjust):
    found = associations(scored, ["mmse", "updrs"], adjust=adjust, method=method).table
    for (score, *column), row in found.iterrows():
        for prefix, values in (("", scored.z), ("raw_", scored.observed)):
            data = scored.subjects.assign(y=values[tuple(column)]).dropna(subset=["y", score])
            design = pd.get_dummies(data[list(adjust)], drop_first=True, dtype=float) \
                if adjust else data[[]]
            both = pd.concat([data[["y", score]], design], axis=1)
            both = both.rank() if method == "spearman" else both
            both.columns = ["y", "s", *(f"c{i}" for i in range(design.shape[1]))]
            rest = [smf.ols(f"{name} ~ {' + '.join(['1', *both.columns[2:]])}", both).fit().resid
                    for name in ("y", "s")]
            r, df = np.corrcoef(*rest)[0, 1], len(data) - 2 - design.shape[1]
            p = 2 * stats.t.sf(abs(r) * np.sqrt(df / (1 - r**2)), df)
            ends = np.tanh(np.arctanh(r) + stats.norm.ppf([.025, .975]) / np.sqrt(df - 1))
            np.testing.assert_allclose(
                row[[f"{prefix}{k}" for k in ("r", "p", "df", "n", "r_low", "r_high")]].astype(
                    float), [r, p, df, len(data), *ends], rtol=1e-7)


def test_partial_correlations_are_pingouins(scored):
    pg = pytest.importorskip("pingouin")
    for method in ("pearson", "spearman"):
        found = associations(scored, "mmse", adjust=["age"], method=method).table
        for (_, *column), row in found.iterrows():
            data = scored.subjects.assign(y=scored.z[tuple(column)])[["y", "mmse", "age"]].dropna()
            other = pg.partial_corr(data, "y", "mmse", "age", method=method).iloc[0]
            p = other[next(c for c in other.index if c.startswith("p"))]
            assert (row["r"], row["p"]) == (pytest.approx(other["r"], rel=1e-8),
                                            pytest.approx(p, rel=1e-7))


def test_thickness_falls_and_transfer_rises_with_age_in_nspn():
    if not NSPN.exists():
        pytest.skip(f"no real data at {NSPN}")
    table = pd.read_csv(NSPN)
    table.index = [f"sub-{i:03d}" for i in range(len(table))]
    raw = pd.DataFrame({(m, "mean"): table[[c for c in table if c.startswith(f"{m}_")]].mean(
        axis=1) for m in ("CT", "MT")})
    raw.columns.names = ["modality", "feature"]
    made = deviations_of(raw, table[["age"]])
    made = replace(made, reference=replace(made.reference, covariates={}))
    found = associations(made, "age", method="pearson").table
    assert found["raw_r"].round(1).tolist() == [-0.4, 0.3] or found["raw_r"].tolist() == \
        pytest.approx([-0.40, 0.35], abs=0.01)


def test_q_is_over_scores_modalities_and_features(scored):
    found = associations(scored, ["mmse", "updrs"], adjust=["age"], correction="holm")
    np.testing.assert_allclose(found.table["q"], multipletests(found.table["p"], method="holm")[1])
    assert found.family == "Holm over 30 tests (2 scores; t1 4, dti 5, pet 6 each), raw over 30"
    assert found.n == {"mmse": 33, "updrs": 35}
    largest = associations(scored, ["mmse", "updrs"], adjust=["age"], correction=MaxT(199))
    assert largest.table["q"].min() >= 1 / 200
    assert largest.table.sort_values("t", key=abs)["q"].is_monotonic_decreasing


def test_scores_from_a_table_and_who_is_left_out(scored):
    roles = scored.subjects.assign(**{ROLE: "new"})
    roles.iloc[:3, -1] = "training"
    with pytest.warns(UserWarning, match="left out 3 people the model was trained on"):
        found = associations(replace(scored, subjects=roles), "mmse", adjust=())
    assert found.n["mmse"] == 31 and any("without any score" in note for note in found.notes)
    outside = scored.subjects[["mmse"]].sample(frac=1, random_state=1)
    outside.loc["stranger"] = 3.0
    pd.testing.assert_frame_equal(associations(scored, outside, adjust=()).table,
                                  associations(scored, "mmse", adjust=()).table)


@pytest.mark.parametrize("scores, options, words", [
    ("moca", {}, "'?moca'? is not"), ("sex", {"adjust": ()}, "not a number, as '[FM]'"),
    ("age", {}, "covariate of the model"), ("mmse", {"adjust": ["mmse"]}, "both a score"),
    ("mmse", {"method": "kendall"}, "method is one of"),
    (pd.DataFrame({"a": [1.0]}, ["nobody"]), {}, "none of the 1 ids")])
def test_what_cannot_be_answered_is_refused(scored, scores, options, words):
    with pytest.raises(ComparisonError, match=words):
        associations(scored, scores, **options)


def test_untestable_features_keep_their_rows(scored):
    z = scored.z.copy()
    z["t1", "t1_0"], z["dti", "dti_1"] = 0.0, np.nan
    found = associations(replace(scored, z=z), "mmse", adjust=["age"]).table
    assert found.loc[("mmse", "t1", "t1_0"), "reason"] == "the same in everyone"
    assert found.loc[("mmse", "dti", "dti_1"), "reason"] == "0 people have both, needs 4"
    assert found.loc["mmse"]["p"].notna().sum() == 13


def test_overlap_by_a_plain_loop(deviations):  # noqa: F811
    two = deviations.select("dx != 'MCI'")
    found = overlap(two, "dx", threshold=0.9, baseline="CN", shuffles=MaxT(400, blocks=None))
    case = (two.subjects["dx"] == "AD").to_numpy()
    far = (two.z.abs() > 0.9).astype(float).where(two.z.notna())
    rng = np.random.default_rng(0)
    for (_, *column), row in found.table.iterrows():
        y = far[tuple(column)].to_numpy()
        known = ~np.isnan(y)
        a, b = y[known & case], y[known & ~case]
        assert row["difference"] == pytest.approx(a.mean() - b.mean())
        np.testing.assert_allclose(
            row[["ci_low", "ci_high"]].astype(float), confint_proportions_2indep(
                a.sum(), len(a), b.sum(), len(b), method="newcomb", compare="diff"))
        drawn = np.array([rng.permutation(y[known]) for _ in range(4000)])
        who = case[known]
        gap = np.abs(drawn[:, who].mean(1) - drawn[:, ~who].mean(1))
        p = (gap >= abs(row["difference"]) - 1e-9).mean()
        assert row["p"] == pytest.approx(p, abs=4 * np.sqrt(.25 / 400) * 1.1)
    assert (found.table["p_fwe"] >= found.table["p"] - 1e-9).all()
    assert found.table["reason"].eq("").all() and "at p_fwe" in found.summary()


def test_overlap_where_nobody_or_only_patients_lie_beyond(deviations):  # noqa: F811
    two = deviations.select("dx != 'MCI'")
    z = two.z.copy()
    z["t1", "t1_0"] = 0.0
    z["t1", "t1_1"] = np.where(two.subjects["dx"] == "AD", -4.0, 0.0)
    found = overlap(replace(two, z=z), "dx", baseline="CN", shuffles=MaxT(99)).table.loc["AD - CN"]
    assert found.loc[("t1", "t1_0"), "reason"] == "nobody lies beyond, or everybody"
    assert found.loc[("t1", "t1_1"), ["p", "p_fwe"]].tolist() == [0.01, 0.01]


def test_extreme_counts_are_compare_extremes_with_more(deviations):  # noqa: F811
    found = extreme_counts(deviations, "dx", thresholds=[0.8, 1.2], directions="below",
                           baseline="CN")
    other = compare_extremes(deviations, "dx", threshold=0.8, direction="below", baseline="CN")
    ours = found.table.xs(("below", 0.8), level=("direction", "threshold"))
    np.testing.assert_allclose(ours[["auc", "auc_low", "auc_high", "p"]],
                               other.table[["auc", "auc_low", "auc_high", "p"]])
    assert ours["expected"].tolist()[:4] == pytest.approx(
        [w * stats.norm.sf(0.8) for w in (4, 5, 6, 15)])
    assert len(found.table) == 16 and len(found.people) == 35
    np.testing.assert_allclose(found.table["q"],
                               multipletests(found.table["p"], method="fdr_bh")[1])
    loose = extreme_counts(deviations, "dx", thresholds=0.8, directions="below", baseline="CN",
                           shuffles=MaxT(2000, blocks=None))
    for (contrast, modality), row in loose.table.droplevel(
            ["direction", "threshold"]).iterrows():
        counts = loose.people["below", 0.8, modality].dropna()
        levels = loose.levels[counts.index]
        rows = levels.isin(contrast.split(" - ")).to_numpy()
        ranks = stats.rankdata(counts[rows])
        case = levels[rows].to_numpy() == contrast.split(" - ")[0]
        other = stats.permutation_test(
            (ranks[case], ranks[~case]), lambda a, b: abs(a.mean() - b.mean()), n_resamples=2000,
            alternative="greater", vectorized=False, rng=1)
        assert row["p_permuted"] == pytest.approx(other.pvalue, abs=0.04)


def test_results_can_be_shown_and_kept(scored, tmp_path):
    for name, found in {"a": associations(scored, "mmse", adjust=["age"]),
                        "o": overlap(scored, "dx", threshold=0.9, shuffles=MaxT(50)),
                        "e": extreme_counts(scored, "dx", shuffles=MaxT(50))}.items():
        assert found.summary().splitlines()[0] in repr(found) and "<table" in found._repr_html_()
        assert found.plot().get_xlabel()
        folder = found.save(tmp_path / name)
        assert {"table.csv", "facts.json"} <= {file.name for file in folder.iterdir()}
        assert len(pd.read_csv(found.to_csv(tmp_path / f"{name}.csv"))) == len(found.table)


def test_verbs(scored, tmp_path):
    subjects = scored.subjects.assign(**{ROLE: "new"})
    replace(scored, subjects=subjects).save(tmp_path / "deviations")
    for words in (["associate", "--scores", "mmse,updrs", "--method", "pearson", "--adjust", "age",
                   "--correction", "max_t", "--permutations", "20", "--subjects", "age > 40"],
                  ["compare", "--group", "dx", "--test", "hc3", "--alternative", "less",
                   "--correction", "max_t", "--permutations", "20", "--adjust", "age"]):
        verb, *rest = words
        out = tmp_path / verb
        done = CliRunner().invoke(app, [verb, str(tmp_path / "deviations"), *rest, "--out",
                                        str(out)])
        assert done.exit_code == 0, done.output
        assert "largest t, 20 permutations" in done.output and (out / "table.csv").exists()


def test_healthy_people_of_the_reference_are_left_out_beside_others(scored):
    role = np.where(np.arange(len(scored)) % 3 == 0, "calibration", "new")
    mixed = replace(scored, subjects=scored.subjects.assign(**{ROLE: role}))
    found = associations(mixed, "mmse", adjust=["age"])
    others = scored.select(scored.subjects.index[role == "new"])
    assert found.n == associations(others, "mmse", adjust=["age"]).n
    assert any("healthy people of the reference who have a score" in note for note in found.notes)
    both = associations(mixed, "mmse", adjust=["age"], controls=True)
    assert both.n == associations(scored, "mmse", adjust=["age"]).n
    healthy = mixed.select(mixed.subjects.index[role == "calibration"])  # nobody to mix them with
    alone = associations(healthy, "mmse", adjust=["age"])
    assert alone.n["mmse"] == int(healthy.subjects["mmse"].notna().sum())


def test_too_few_permutations_for_a_q_are_said(scored):
    found = overlap(scored, "dx", threshold=0.9, shuffles=MaxT(50))
    assert any("q < 0.05 takes at least 12 of 30 tests at that p" in note for note in found.notes)
    more = overlap(scored, "dx", threshold=0.9, shuffles=MaxT(999)).notes
    assert not any("takes at least" in note for note in more)

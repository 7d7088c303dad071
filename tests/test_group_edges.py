"""Group statistics at their edges: few people, flat groups, uneven holes, sites of one person.

Witnesses: a permutation test by hand, uniform p under an exact null, and rates of false findings
in simulated cohorts without a difference. Without a witness: the wording of notes and errors.
"""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from test_groups import deviations_of

from normfuse.analyses import (MaxT, associations, compare_extremes, compare_groups,
                               extreme_counts, overlap, subtypes)
from normfuse.analyses.families import family
from normfuse.analyses.longitudinal import compare_visits
from normfuse.analyses.report_methods import methods
from normfuse.analyses.subtyping import StabilityPlan, beside_one_cloud
from normfuse.deviations import ROLE, Deviations
from normfuse.errors import ComparisonError

QUICK = StabilityPlan(n_subsamples=5, n_null=9)


def made(z, **columns) -> Deviations:
    """z of t1 and, the second half of the columns, pet; raw values are z."""
    z = np.asarray(z, float)
    width = z.shape[1]
    index = pd.Index([f"sub-{i:03d}" for i in range(len(z))])
    names = pd.MultiIndex.from_tuples(
        [("t1" if j < (width + 1) // 2 else "pet", f"r{j}") for j in range(width)],
        names=["modality", "feature"])
    frame = pd.DataFrame(z, index, names)
    return deviations_of(frame, pd.DataFrame(columns, index), z=frame)


def normal(n, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width))


HALVES = np.array(["AD", "CN"] * 20)


@pytest.mark.parametrize("alone", [1, 10])
def test_what_differs_between_sites_only_is_no_finding_of_overlap(alone):
    z = np.clip(normal(40, 4), -1, 1)
    z[-alone:, 0] = 3.0  # all of one site, and nobody else
    site = np.where(np.arange(40) < 40 - alone, "a", "b")
    found = overlap(made(z, dx=HALVES, site=site), "dx", baseline="CN",
                    shuffles=MaxT(50, blocks="site")).table.iloc[0]
    assert np.isnan(found[["t", "p", "p_fwe"]].astype(float)).all()
    assert found["reason"] == "the covariates explain it without residual"


def test_a_score_has_no_correlation_with_what_covariates_explain():
    site = np.repeat(["a", "b"], 20)
    z = normal(40, 4)
    z[:, 0] = np.where(site == "a", 1.25, -0.5)
    row = associations(made(z, site=site, score=normal(40, 1, 1)[:, 0]), "score",
                       adjust=["site"]).table.iloc[0]
    assert np.isnan(row["r"]) and row["reason"] == "the covariates explain it without residual"


@pytest.mark.parametrize("test, n", [("hc3", 1), ("welch", 2)])
def test_any_difference_of_groups_without_spread_is_not_tested(test, n):
    """HC3 can do with one group of three without spread, two are too many; weights of Welch not.
    """
    dx = np.repeat(["CN", "AD", "MCI"], [20, 10, 10])
    z = normal(40, 4)
    z[20:, 0], z[20:30, 1] = 0.0, 1.0
    found = compare_groups(made(z, dx=dx), "dx", adjust=(), test=test).omnibus
    assert found["p"].isna().tolist() == [k < n for k in range(4)]
    assert set(found["reason"][:n]) == {"a group has no spread, and so no error of its own"}


@pytest.mark.parametrize("test", ["hc3", "welch"])
def test_shuffles_may_leave_a_group_without_spread(test):
    rare = (normal(40, 4) > 1.4).astype(float)
    rare[:, 0] = np.arange(40) % 20 == 3
    dx = np.repeat(["CN", "AD", "MCI"], [20, 10, 10])
    found = compare_groups(made(rare, dx=dx), "dx", adjust=(), test=test,
                           correction=MaxT(30, blocks=None))
    assert found.table["q"].dropna().between(1 / 31, 1).all()


def test_a_family_says_how_many_of_which_contrast():
    z = normal(40, 6)
    dx = np.array(["AD", "CN", "MCI", "CN"] * 10)
    z[dx == "AD", 4:] = np.nan
    found = compare_groups(made(z, dx=dx), "dx", adjust=(), baseline="CN")
    assert "10 tests (2 contrasts; t1 6, pet 4)" in found.family
    whole = compare_groups(made(normal(40, 6), dx=dx), "dx", adjust=(), baseline="CN")
    assert "12 tests (2 contrasts; t1 3, pet 3 each)" in family(whole.table, "fdr_bh")


def test_largest_t_is_cited():
    found = compare_groups(made(normal(40, 4), dx=HALVES), "dx", adjust=(),
                           correction=MaxT(9, blocks=None))
    keys = {source.key for source in methods(found_reference(), [found]).sources}
    assert {"freedman1983", "winkler2014"} <= keys


def found_reference():
    return made(normal(2, 2), dx=["a", "b"]).reference


def test_notes_of_scores_do_not_speak_of_groups():
    z = normal(40, 10)
    people = made(z, score=z[:, :5].sum(axis=1))
    apart = associations(Deviations(**{**vars(people), "observed": people.z.iloc[:, ::-1].set_axis(
        people.z.columns, axis=1)}), "score", adjust=())
    note = [text for text in apart.notes if "disagree" in text]
    assert len(note) == 1 and "groups" not in note[0] and "age, sex or site" in note[0]


def test_scores_that_nobody_can_exchange_are_refused():
    people = made(normal(40, 4), score=normal(40, 1)[:, 0], site=[f"s{i}" for i in range(40)],
                  half=np.repeat(["a", "b"], 20), of_half=np.repeat([1.0, 2.0], 20))
    for score, blocks in (("score", "site"), ("of_half", "half")):
        with pytest.raises(ComparisonError, match="the same in everyone of each"):
            associations(people, score, adjust=(), correction=MaxT(9, blocks=blocks))


def test_counts_of_unevenly_measured_groups_carry_a_note():
    """Of 300 cohorts without a difference .65 had p < .05 where 30 people have 10 of 50 features.
    """
    z = normal(60, 40)
    z[:30, 4:] = np.nan
    uneven = extreme_counts(made(z, dx=np.repeat(["AD", "CN"], 30)), "dx", baseline="CN",
                            shuffles=MaxT(9, blocks=None))
    note = [text for text in uneven.notes if "coarser" in text]
    assert len(note) == 1 and "AD - CN, t1: 4 and 20 features" in note[0]
    z[30:, 4:] = np.nan
    z[0, :] = normal(1, 40)
    even = extreme_counts(made(z, dx=np.repeat(["AD", "CN"], 30)), "dx", baseline="CN",
                          shuffles=MaxT(9, blocks=None))
    assert not [text for text in even.notes if "coarser" in text]


@pytest.mark.parametrize("sizes, test, correction, said", [
    ((5, 60), "hc3", "fdr_bh", True), ((5, 60), "welch", "fdr_bh", True),
    ((5, 60), "hc3", MaxT(9, blocks=None), False), ((5, 60), "ols", "fdr_bh", False),
    ((15, 20), "hc3", "fdr_bh", False), ((30, 200), "hc3", "fdr_bh", False)])
def test_errors_of_a_small_group_carry_a_note(sizes, test, correction, said):
    """One false region or more in .19 of 100 cohorts of 10 and 200, hc3; .18 of 5 and 100, welch.
    """
    dx = np.repeat(["AD", "CN"], sizes)
    found = compare_groups(made(normal(sum(sizes), 4), dx=dx), "dx", adjust=(), test=test,
                           correction=correction)
    assert any("too small" in note and "MaxT" in note for note in found.notes) == said


def test_p_of_subtypes_is_uniform_if_people_are_one_more_cloud():
    rng = np.random.default_rng(0)
    p = np.array([beside_one_cloud(rng.normal(size=5), rng.normal(size=(19, 5)))
                  for _ in range(4000)])
    low = (p <= 0.05 + 1e-12).mean()  # .097 when clouds alone said what their mean and sd are
    assert low == pytest.approx(0.05, abs=0.012)
    assert (p <= 0.5 + 1e-12).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("metric", ["correlation", "euclidean"])
def test_identical_people_are_refused(metric):
    same = np.tile(normal(1, 40), (24, 1))
    with pytest.raises(ComparisonError, match="are all alike"):
        subtypes(made(same, dx=["a"] * 24), metric=metric, most=3, plan=QUICK)


def test_profiles_too_short_or_flat_to_correlate_are_named():
    with pytest.raises(ComparisonError, match="at least 3 features"):
        subtypes(made(normal(24, 4), dx=["a"] * 24), most=3, plan=QUICK)
    flat = normal(24, 8)
    flat[3] = 0.0
    with pytest.raises(ComparisonError, match="sub-003.*the same in all"):
        subtypes(made(flat, dx=["a"] * 24), most=3, plan=QUICK)


def test_people_of_the_training_judge_no_change():
    z = np.vstack([normal(30, 4), normal(30, 4, 1)])
    people = made(z, session=["1"] * 30 + ["2"] * 30, who=[*range(30)] * 2,
                  dx=(["CN"] * 20 + ["AD"] * 10) * 2,
                  **{ROLE: ["training"] * 8 + ["new"] * 22 + ["new"] * 30})
    with pytest.warns(UserWarning, match="left out 8 people the model was trained on"):
        found = compare_visits(people, ("1", "2"), controls="dx == 'CN'", person="who")
    assert (found.subjects["control"].sum(), len(found.z)) == (12, 22)
    with warnings.catch_warnings(action="error"):
        compare_visits(people.select(f"{ROLE} == 'new'"), ("1", "2"),
                       controls="dx == 'CN'", person="who")


def test_visits_of_people_without_a_name_are_no_pair():
    who = [f"p{k}" for k in range(10)]
    people = made(normal(20, 4), session=["1"] * 10 + ["2"] * 10, dx="CN",
                  who=[*who[:-1], None, *who[:-2], None, who[-1]])
    with pytest.raises(ComparisonError, match="who is missing for 2 rows"):
        compare_visits(people, ("1", "2"), controls="dx == 'CN'", person="who")


def test_cross_fitted_controls_beside_new_patients_carry_a_note():
    """Of 500 null cohorts .14 had p < .05 in counts where z of one group had sd .97 and not 1, as
    those of new people by covariates after two fits of 60 controls.
    """
    z, dx = normal(40, 4), np.repeat(["AD", "CN"], 20)
    for role, said in (("out_of_fold", True), ("calibration", False), ("new", False)):
        people = made(z, dx=dx, **{ROLE: ["new"] * 20 + [role] * 20})
        for found in (extreme_counts(people, "dx", shuffles=MaxT(5, blocks=None)),
                      compare_extremes(people, "dx"),
                      overlap(people, "dx", threshold=1.0, shuffles=MaxT(5, blocks=None))):
            assert any("cross_fit" in note for note in found.notes) == said


def test_what_cannot_be_asked_is_refused():
    people = made(normal(40, 6), dx=HALVES, session=["1", "2"] * 20, who=np.repeat(range(20), 2))
    twice = pd.DataFrame({"s": [1.0, 2, 3]}, ["sub-000", "sub-000", "sub-001"])
    columns = pd.DataFrame(normal(40, 2), people.z.index, ["s", "s"])
    asked = (("correction is one of", lambda: overlap(people, "dx", correction="bonf")),
             ("more than one row", lambda: associations(people, twice, adjust=())),
             ("more than one column", lambda: associations(people, columns, adjust=())),
             ("n_null is", lambda: StabilityPlan(n_null=0)),
             ("n_subsamples is", lambda: StabilityPlan(n_subsamples=0)),
             ("share and level", lambda: StabilityPlan(share=1.5)),
             ("two different visits", lambda: compare_visits(
                 people, ("1", 1), controls="all", person="who")))
    for words, ask in asked:
        with pytest.raises(ComparisonError, match=words):
            ask()
    changes = compare_visits(people, ("1", "2"), controls="dx == 'CN'", person="who")
    with pytest.raises(ComparisonError, match="correction is one of"):
        changes.group_table("bonf")
    assert len(extreme_counts(people, "dx", thresholds=np.int64(2), directions="both").table) == 3

"""Values that cannot be what they seem are said aloud, at fit and at scoring.

No outside witness: the thresholds are ours; the tests say what passes and what does not.
"""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse.covariate_checks import implausible, warn_of_covariates
from normfuse.errors import CohortError
from normfuse.fingerprints import warn_of_twins
from normfuse.testing import tiny_cohort
from normfuse.value_checks import warn_of_reference_values


def changed(value=None, *, rows=1, column="dti_region2", age=None):
    cohort = tiny_cohort(160, seed=2).reference_subjects()
    people, blocks = cohort.subjects, {m: cohort.features[m] for m in cohort.features}
    if value is not None:
        measured = blocks["dti"].index[blocks["dti"][column].notna()][:rows]
        blocks["dti"].loc[measured, column] = value
    if age is not None:
        people.iloc[3, people.columns.get_loc("age")] = age
    return nf.Cohort(people, blocks, cohort.modalities, cohort.covariates, cohort.reference)


def test_an_ordinary_reference_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_reference_values(changed())


@pytest.mark.parametrize("cohort, words", [
    (changed(-999.0), "dti: 1 reference values lie beyond 30 robust.*-999 in dti_region2 of sub-"),
    (changed(0.0), "dti: 1 reference values are exactly 0 in features that hardly ever are"),
    (changed(0.0, rows=90), "in dti_region2 more than 30% of the reference share one value"),
])
def test_what_cannot_be_is_named(cohort, words):
    with pytest.warns(UserWarning, match=words):
        warn_of_reference_values(cohort)


def ages(*values, name="age"):
    return pd.Series(np.concatenate([np.atleast_1d(v) for v in values]).astype(float), name=name)


STUDENTS = np.random.default_rng(0).integers(18, 26, 300)
ADULTS = np.random.default_rng(1).uniform(19, 82, 200).round(1)


@pytest.mark.parametrize("honest", [
    ages(STUDENTS, [61, 64, 70, 71, 75, 78, 82]), ages(STUDENTS, 70), ages(STUDENTS, 29),
    ages(ADULTS), ages(ADULTS, [8, 11, 16]), ages(np.linspace(6, 50, 76)),
    ages(np.geomspace(0.1, 18, 25), ADULTS), ages(12 * ADULTS), ages(365.25 * STUDENTS, 25_000),
    ages(np.random.default_rng(2).exponential(4, 300), 40, name="score"),
    ages(np.random.default_rng(3).normal(0, 1, 300), 6, name="income"),
    ages(np.random.default_rng(4).integers(8, 20, 90), 0, name="education"), ages([1] * 50, 7)])
def test_skewed_ages_are_ordinary(honest):
    assert not implausible(honest).any()


@pytest.mark.parametrize("honest, typo", [
    (ages(ADULTS), 250), (ages(ADULTS), 2.5), (ages(STUDENTS), 210), (ages(STUDENTS), 2.2),
    (ages(STUDENTS, [61, 70, 78]), 999), (ages(ADULTS), -999), (ages(ADULTS), -1),
    (ages(ADULTS), 0),
    (ages(np.linspace(6, 50, 76)), 310), (ages(ADULTS[:12]), -999),
    (ages(1.4e6 + 2e3 * ADULTS, name="tiv"), 0), (ages(1.4e6 + 2e3 * ADULTS, name="tiv"), 1.5e5),
    (ages(np.random.default_rng(3).normal(0, 1, 300), name="income"), -999)])
def test_typing_errors_and_codes_are_found(honest, typo):
    both = ages(honest, typo, name=honest.name)
    assert both[implausible(both)].tolist() == [typo]


def test_a_suspicious_age_is_named_with_its_owner():
    cohort = changed(age=2.5)
    with pytest.warns(UserWarning, match=rf"age: 2.5 of {cohort.ids[3]} cannot well be, beside "
                                         r"the 2\d.* to 79.* of the other 139 reference people"):
        warn_of_covariates(cohort.subjects, cohort.covariates)


def test_a_person_under_two_ids_is_named():
    cohort = tiny_cohort(160, seed=2).reference_subjects()
    people, blocks = cohort.subjects, {m: cohort.features[m] for m in cohort.features}
    measured = blocks["pet"].index[blocks["pet"].notna().all(axis=1)]
    for block in blocks.values():
        block.loc[measured[7]] = block.loc[measured[2]]
    blocks["pet"].loc[measured[9]] = blocks["pet"].loc[measured[4]]
    twice = nf.Cohort(people, blocks, cohort.modalities, cohort.covariates, cohort.reference)
    first, second = (" = ".join(i for i in cohort.ids if i in measured[pair])
                     for pair in ([2, 7], [4, 9]))
    with pytest.warns(UserWarning, match="2 of 140 reference people are there") as w:
        warn_of_twins(twice)
    assert len(w) == 1 and first in str(w[0].message) and second in str(w[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_twins(cohort)


def test_a_fit_says_all_of_it():
    cohort = changed(age=250.0)
    people, blocks = cohort.subjects, {m: cohort.features[m] for m in cohort.features}
    people.iloc[:4, people.columns.get_loc("site")] = "tiny"
    people.iloc[4:9, people.columns.get_loc("site")] = "small"
    for block in blocks.values():
        block.iloc[20] = block.iloc[21]
    odd = nf.Cohort(people, blocks, cohort.modalities, cohort.covariates, cohort.reference)
    plan = nf.TrainingPlan(max_epochs=2, warmup=1)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model = nf.NormativeModel(n_latent=2, plan=plan, calibration=nf.HeldOut()).fit(odd)
    said = [str(w.message) for w in found]
    thin = [text for text in said if "too few to know the offset" in text]
    assert len(thin) == 1 and "site small (n = 5), site tiny (n = 4): " in thin[0]
    assert sum("250 of " in text for text in said) == 1
    assert sum("there more than once" in text for text in said) == 1
    assert any("site tiny (n = 4)" in note for note in model.fitted.reference.notes)


def test_a_code_at_scoring_is_named():
    cohort = tiny_cohort(120, seed=3)
    controls, patients = cohort.split("diagnosis == 'CN'")
    model = nf.NormativeModel(n_latent=2, plan=nf.TrainingPlan(max_epochs=6, warmup=2),
                              calibration=nf.HeldOut())
    model.fit(controls)
    t1 = patients.features["t1"]
    t1.iloc[1, 2] = -999.0
    spoilt = nf.Cohort(patients.subjects, {**patients.features, "t1": t1}, patients.modalities,
                       patients.covariates)
    who = patients.ids[1]
    with pytest.warns(UserWarning, match=f"t1: 1 values lie beyond 30.* sd in t1_region2 of "
                                         f"{who}.*leave those cells empty"):
        model.deviations(spoilt)


@pytest.mark.parametrize("column", ["age", "index", "Unnamed: 0"])
def test_columns_that_are_no_regions_are_refused(column):
    cohort = tiny_cohort()
    t1 = cohort.features["t1"].assign(**{column: np.arange(len(cohort), dtype=float)})
    with pytest.raises(CohortError, match=f"that are no regions: {column}; leave them out"):
        nf.Cohort.from_frames(cohort.subjects, {"t1": t1}, covariates=cohort.covariates,
                              drop_incomplete=True)


def test_everybody_may_be_healthy():
    people = pd.DataFrame({"age": [30.0, 40.0]}, index=["a", "b"])
    t1 = pd.DataFrame({"insula": [6.0, 6.1]}, index=["a", "b"])
    cohort = nf.Cohort.from_frames(people, {"t1": t1}, covariates={"age": "continuous"},
                                   reference="all")
    assert len(cohort.reference_subjects()) == 2

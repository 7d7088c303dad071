"""Values that cannot be what they seem are said aloud, at fit and at scoring.

No outside witness: the thresholds are ours; the tests say what passes and what does not.
"""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse.errors import CohortError
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
    (changed(age=-999.0), "covariate age: 1 reference people are more than 10 robust.*-999"),
])
def test_what_cannot_be_is_named(cohort, words):
    with pytest.warns(UserWarning, match=words):
        warn_of_reference_values(cohort)


def test_a_code_at_scoring_is_named():
    cohort = tiny_cohort(120, seed=3)
    controls, patients = cohort.split("diagnosis == 'CN'")
    model = nf.NormativeModel(n_latent=2, plan=nf.TrainingPlan(max_epochs=6, warmup=2))
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

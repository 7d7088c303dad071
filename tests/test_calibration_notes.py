"""Scans unlike all others among those who say what is normal are named."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_cross_fit import KINDS, PLAN, healthy

import normfuse as nf
from normfuse.errors import CohortError


def with_people(cohort: nf.Cohort, subjects: pd.DataFrame, blocks: dict) -> nf.Cohort:
    return nf.Cohort.from_frames(subjects, blocks, covariates=KINDS)


def fitted(cohort: nf.Cohort) -> nf.NormativeModel:
    return nf.NormativeModel(n_latent=2, plan=PLAN, calibration=nf.CrossFit(2)).fit(cohort)


def test_a_broken_scan_is_named():
    people = healthy()
    blocks = {name: block.copy() for name, block in people.features.items()}
    rng = np.random.default_rng(3)
    blocks["t1"].iloc[7] += 9 * rng.normal(size=blocks["t1"].shape[1])
    notes = fitted(with_people(people, people.subjects, blocks)).fitted.reference.notes
    said = [note for note in notes if "look at these scans" in note]
    # what is expected of the other modality rests on the broken one
    assert said[0].startswith("t1 of p0-7 deviates")
    assert all(" of p0-7 deviates" in note for note in said)


def test_nobody_is_named_among_ordinary_people():
    notes = fitted(healthy()).fitted.reference.notes
    assert not any("look at these scans" in note for note in notes)


def test_a_category_of_one_person_is_refused_before_any_training():
    people = healthy()
    subjects = people.subjects.copy()
    subjects.loc["p0-20", "sex"] = "female"
    with pytest.raises(CohortError, match=r"sex 'female' occurs in 1 reference people only "
                                          r"\(p0-20\).*another spelling"):
        fitted(with_people(people, subjects, dict(people.features)))

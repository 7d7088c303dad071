"""Whom a normative model must not learn from."""
from __future__ import annotations

import pandas as pd

from .cohort import Cohort
from .errors import CohortError, listed
from .fingerprints import person_of
from .imputed import refuse_imputed


def refuse_others_than_reference(controls: Cohort) -> None:
    """Healthy people by the cohort's own word, one visit each, nothing of theirs imputed.

    Raises
    ------
    CohortError

    Examples
    --------
    >>> from normfuse.testing import tiny_cohort
    >>> refuse_others_than_reference(tiny_cohort().reference_subjects())
    """
    refuse_imputed(controls)
    _only_reference(controls)
    _one_visit_each(controls)


def _one_visit_each(controls: Cohort) -> None:
    people = pd.Series([person_of(i) for i in controls.ids], index=controls.ids)
    again = people[people.duplicated()]
    if len(again):
        raise CohortError(f"{again.nunique()} reference people have more than one visit "
                          f"({listed(again.unique())}): visits of one person in training and in "
                          "calibration would make z too small. Keep one visit a person to fit; "
                          "any number can be scored")


def _only_reference(controls: Cohort) -> None:
    if controls.reference is None:
        return
    healthy = controls.reference_subjects()
    others = controls.ids.difference(healthy.ids)
    if len(others):
        raise CohortError(f"{len(others)} of {len(controls)} subjects ({listed(others)}) do not "
                          f"answer the cohort's reference query {controls.reference!r}; a model "
                          "must not learn from them: fit(cohort.reference_subjects())")

"""Who of a cohort a verb is about."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CohortError

if TYPE_CHECKING:
    from ..cohort import Cohort


def healthy(cohort: Path, query: str | None) -> Cohort:
    """The reference people of a cohort that answer the query, if there is one."""
    from ..cohort import Cohort

    people = Cohort.read(cohort).reference_subjects()
    return people if query is None else chosen(people, query)


def chosen(cohort: Cohort, query: str) -> Cohort:
    """Those who answer the query; refuses if that is nobody, with the values there are."""
    from ..cohort_checks import values_of

    found = cohort.select(query)
    if not len(found):
        raise CohortError(f"{query!r} selects nobody of {len(cohort)} subjects; "
                          f"{values_of(cohort.subjects, query)}")
    return found

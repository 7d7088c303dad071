"""Who can honestly be compared: people nobody trained on, their groups, and their covariates."""
from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import pandas as pd

from normfuse.deviations import JUDGES, OUT_OF_FOLD, ROLE, SEEN_ROLES, Deviations
from normfuse.errors import ComparisonError, listed

from .effects import Array
from .regional import RegionalDeviations

Scores: TypeAlias = Deviations | RegionalDeviations
SameScores = TypeVar("SameScores", bound=Scores)  # what goes in comes out


def known_covariates(deviations: Scores) -> Mapping[str, Any]:
    """The model's own covariates: name -> ``{"kind": …}``."""
    return getattr(getattr(deviations, "reference", None), "covariates", {})


def covariate_names(deviations: Scores, adjust: Iterable[str] | None) -> tuple[str, ...]:
    """What to adjust for: by default the model's covariates that the subjects table has.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> covariate_names(tiny_deviations(), None), covariate_names(tiny_deviations(), "sex")
    (('age',), ('sex',))
    """
    if adjust is None:
        return tuple(n for n in known_covariates(deviations) if n in deviations.subjects)
    return (adjust,) if isinstance(adjust, str) else tuple(adjust)


def site_column(deviations: Scores) -> str | None:
    """The covariate that the reference knows as the site, if people still have it."""
    sites = [name for name, fact in known_covariates(deviations).items()
             if fact.get("kind") == "site" and name in deviations.subjects]
    return sites[0] if sites else None


def honest_people(deviations: SameScores, group: str
                  ) -> tuple[SameScores, pd.Series, tuple[str, ...]]:
    """Everyone with a group on whom the model was not trained, their groups, and notes.

    Raises ComparisonError if ``group`` is not a column of ``subjects``, or nobody is left.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_deviations
    >>> patients = tiny_deviations().select(["sub-b"])
    >>> _, levels, notes = honest_people(
    ...     replace(patients, controls=tiny_deviations().select(["sub-a"])), "diagnosis")
    >>> levels.to_dict(), notes
    ({'sub-b': 'AD', 'sub-a': 'CN'}, ('added 1 held-out controls of the reference',))
    """
    everyone = deviations.with_controls()
    kept, levels, notes = honest_subjects(everyone.subjects, group)
    added = len(everyone) - len(deviations)
    said = (f"added {added} held-out controls of the reference",) if added else ()
    return cast(SameScores, everyone.select(kept)), levels, (*said, *notes)


def honest_subjects(subjects: pd.DataFrame, group: str
                    ) -> tuple[pd.Index, pd.Series, tuple[str, ...]]:
    """Who has a group and was not trained on, their groups, and notes on who is left out.

    Raises ComparisonError if ``group`` is not a column, or nobody is left.

    Examples
    --------
    >>> people = pd.DataFrame({"dx": ["AD", None, "CN"]}, index=["s1", "s2", "s3"])
    >>> kept, _, notes = honest_subjects(people, "dx")
    >>> list(kept), notes
    (['s1', 's3'], ('left out 1 people without a value of dx (s2)',))
    """
    if group not in subjects.columns:
        raise ComparisonError(f"group {group!r} is not a column of the subjects table; it has "
                              f"{listed(subjects.columns, 12)}")
    seen, notes = trained_on(subjects, stacklevel=5)
    levels = _as_levels(subjects[group])
    lacking = subjects.index[levels.isna() & ~seen]
    if len(lacking):
        notes.append(f"left out {len(lacking)} people without a value of {group} "
                     f"({listed(lacking)})")
    kept = subjects.index[~seen & levels.notna()]
    if kept.empty:
        raise ComparisonError(f"nobody is left to compare by {group}: " + "; ".join(notes))
    return kept, levels[kept].astype(str), tuple(notes)


def trained_on(subjects: pd.DataFrame, stacklevel: int = 4) -> tuple[pd.Series, list[str]]:
    """Whom the model was trained on, and a note about them, which is also a warning."""
    role = subjects[ROLE] if ROLE in subjects else pd.Series("", subjects.index)
    seen = role.isin(SEEN_ROLES)
    if not seen.any():
        return seen, []
    note = (f"left out {int(seen.sum())} people the model was trained on "
            f"({listed(subjects.index[seen])}): their deviations are too small")
    warnings.warn(note, stacklevel=stacklevel)
    return seen, [note]


def unlike_scored(subjects: pd.DataFrame) -> tuple[str, ...]:
    """A note if controls of a cross-fitted reference stand beside people its whole model scored.

    That model knows a little more than those of the folds, and its z are a little smaller.

    Examples
    --------
    >>> len(unlike_scored(pd.DataFrame({ROLE: ["new", "out_of_fold"]})))
    1
    """
    roles = subjects[ROLE] if ROLE in subjects else pd.Series("", subjects.index)
    folds = roles == OUT_OF_FOLD
    return () if not folds.any() or folds.all() else (
        f"{int(folds.sum())} controls were scored by models of a part of the reference, the "
        "others by one of all of it, whose z are a little smaller: fewer extreme deviations of "
        "theirs may come of that; nf.cross_fit scores everybody alike",)


def group_sizes(subjects: pd.DataFrame, levels: pd.Series, baseline: object
                ) -> tuple[dict[str, int], str]:
    """People per group, the baseline first, and why that is the baseline.

    Raises ComparisonError for one group only, a group of one, or an unknown baseline.

    Examples
    --------
    >>> levels = pd.Series(["MCI", "CN", "AD", "CN", "AD", "MCI", "CN"])
    >>> group_sizes(levels.to_frame(), levels, None)
    ({'CN': 3, 'AD': 2, 'MCI': 2}, 'baseline CN: the largest group')
    """
    sizes = {str(level): int(n) for level, n in levels.value_counts().items()}
    if len(sizes) == 1:
        raise ComparisonError(
            f"all {len(levels)} people compared by {levels.name} are {levels.iloc[0]!r}, and a "
            "comparison needs a second group; score the controls too: model.deviations(cohort) "
            "on the whole cohort, from which the people the model was fitted on are left out")
    small = sorted(level for level in sizes if sizes[level] < 2)
    if small:
        raise ComparisonError(
            f"{levels.name} {listed(small)} has one person only "
            f"({listed(levels.index[levels.isin(small)])}), and a group needs 2 at least; merge "
            "it with another group, or leave it out with deviations.select()")
    held = levels[subjects[ROLE].isin(JUDGES)] if ROLE in subjects else levels[:0]
    largest = sorted(level for level in sizes if sizes[level] == max(sizes.values()))
    base, why = largest[0], "the largest group" if len(largest) == 1 else (
        f"the first of {len(largest)} groups of equal size; name another with baseline=")
    if baseline is not None:
        base, why = str(baseline), "asked for"
    elif len(held):
        base = str(held.value_counts().index[0])
        why = f"{(held == base).sum()} of its people are calibration controls"
    if base not in sizes:
        raise ComparisonError(f"baseline {base!r} is not a value of {levels.name}; it has "
                              f"{listed(sorted(sizes), 12)}")
    ordered = (base, *sorted(set(sizes) - {base}))
    return {level: sizes[level] for level in ordered}, f"baseline {base}: {why}"


def covariate_columns(subjects: pd.DataFrame, adjust: tuple[str, ...], group: str,
                      known: Mapping[str, Any]) -> Array:
    """Columns of the covariates, (n_subjects, n_columns): numbers, and one-hot categories.

    The first is the constant; ``known`` says which covariates are numbers: ``{"age": {"kind":
    "continuous"}}``. Raises ComparisonError for an unknown column or a missing value.
    """
    kinds = {name: fact.get("kind") for name, fact in known.items()}
    columns: list[Array] = [np.ones(len(subjects))]
    for name in adjust:
        if name == group or name not in subjects.columns:
            raise ComparisonError(f"cannot adjust for {name!r}: it must be a column other than "
                                  f"{group} of {listed(subjects.columns, 12)}")
        values = subjects[name]
        number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if kinds.get(name) == "continuous" or (name not in kinds and number):
            values = pd.to_numeric(values, errors="coerce").astype("float64")
            values = values.where(np.isfinite(values))
            columns.append((values - values.mean()).to_numpy())
        else:
            values = _as_levels(values)
            columns.extend(pd.get_dummies(values, drop_first=True, dtype=float).to_numpy().T)
        if values.isna().any():
            raise ComparisonError(
                f"{name} is missing for {int(values.isna().sum())} of {len(subjects)} compared "
                f"people ({listed(values.index[values.isna()])}); fill it in, leave them out with "
                f"deviations.select(), or do not adjust for {name}")
    return np.column_stack(columns)


def _as_levels(column: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(column) and np.all(np.mod(column.dropna(), 1) == 0):
        column = column.astype("Int64")  # group 1.0 is the group 1, read beside an empty cell
    words = column.astype("string").str.strip()
    return words.mask(words == "")

"""What a cohort's tables must satisfy; each check names the culprit and says what to do."""
from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from .errors import CohortError, listed

COVARIATE_KINDS = ("continuous", "categorical", "site")
MISSING_WORDS = ("", "n/a", "na", "nan", "null", "none")


def with_text_ids(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The table with its index as text; refuses empty and repeated ids."""
    index = table.index
    if pd.api.types.is_float_dtype(index) and np.all(np.mod(index[index.notna()], 1) == 0):
        index = index.astype("Int64")  # 10356.0 is the id 10356, read beside an empty cell
    empty = index.isna() | index.astype(str).str.strip().str.lower().isin(MISSING_WORDS)
    if empty.any():
        rows = np.flatnonzero(empty) + 1
        raise CohortError(f"{where} has no id in row {listed(rows)}; every row needs a subject id")
    ids = index.astype(str).str.strip()
    if ids.has_duplicates:
        twice = ids[ids.duplicated()].unique()
        raise CohortError(f"{where} has more than one row for {listed(twice)}; keep one row a "
                          "subject (for repeated visits make an id such as sub-01_ses-2; the "
                          "reference may have one visit a person only)")
    return table.set_axis(ids.rename("participant_id"), axis=0)


def numeric_block(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The modality's table as float64 with text ids; refuses text and infinite cells."""
    block = with_text_ids(frame, f"modality {name}")
    block = block.set_axis(block.columns.astype(str), axis=1)
    if block.columns.has_duplicates:
        twice = block.columns[block.columns.duplicated()].unique()
        raise CohortError(f"modality {name} names a feature twice: {listed(twice)}")
    text = [c for c in block if not pd.api.types.is_numeric_dtype(block[c])
            or pd.api.types.is_bool_dtype(block[c])]
    numbers = {str(c): _as_numbers(name, block[c]) for c in text}
    block = block.assign(**numbers).astype("float64") if numbers else block.astype("float64")
    infinite = np.isinf(block.to_numpy())
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise CohortError(f"modality {name}: subject {block.index[row]} has an infinite value in "
                          f"{block.columns[column]} ({int(infinite.sum())} such cells); "
                          "leave a failed region empty")
    return block


def _as_numbers(name: str, column: pd.Series) -> pd.Series:
    words = column.astype("string").str.strip()
    words = words.mask(words.str.lower().isin(MISSING_WORDS))
    numbers = pd.to_numeric(words, errors="coerce").astype("float64")
    bad = numbers.isna() & words.notna()
    if bad.any():
        who = column.index[bad.to_numpy()][0]
        hint = " (write decimals with a point)" if "," in str(words[who]) else ""
        raise CohortError(f"modality {name}: subject {who}, feature {column.name} holds "
                          f"{str(column[who])!r}, which is not a number{hint}; leave the cell "
                          "empty or write n/a if the region failed")
    return numbers


def known_covariates(subjects: pd.DataFrame, covariates: Mapping[str, str]) -> dict[str, str]:
    """The covariates as a dict, each a column of a kind we know."""
    for name, kind in covariates.items():
        if name not in subjects.columns:
            raise CohortError(f"covariate {name!r} is not a column of the subjects table; "
                              f"it has {listed(subjects.columns, 12)}")
        if kind not in COVARIATE_KINDS:
            raise CohortError(f"covariate {name} is said to be {kind!r}; "
                              f"it must be one of {', '.join(COVARIATE_KINDS)}")
    sites = [name for name, kind in covariates.items() if kind == "site"]
    if len(sites) > 1:
        raise CohortError(f"only one covariate can be the site; these are: {listed(sites)}")
    return dict(covariates)


def only_known_people(name: str, ids: pd.Index, subjects: pd.DataFrame) -> None:
    """Nobody is measured who is not in the subjects table."""
    strangers = ids.difference(subjects.index)
    if len(strangers):
        raise CohortError(f"modality {name} has {len(strangers)} of {len(ids)} subjects that "
                          f"are not in the subjects table ({listed(strangers)}); add them to it, "
                          "or check that the ids are written alike (sub-01 is not 01)")


def only_features(name: str, columns: pd.Index, covariates: Mapping[str, str]) -> None:
    """No covariate and no row number among the features: they would be modelled as regions."""
    strange = [c for c in columns
               if c in covariates or c == "index" or str(c).startswith("Unnamed: ")]
    if strange:
        raise CohortError(f"modality {name} has columns that are no regions: {listed(strange)}; "
                          f"leave them out, with exclude = {strange} under [modalities.{name}]")


def complete_people(subjects: pd.DataFrame, present: pd.DataFrame,
                    covariates: Mapping[str, str], drop: bool) -> pd.DataFrame:
    """Everyone has every covariate and at least one modality; others refused or dropped."""
    subjects = subjects.copy()
    lacking = pd.Series(False, index=subjects.index)
    for name, kind in covariates.items():
        column = _typed(subjects[name], kind)
        subjects[name] = column
        missing = column.isna()
        if missing.any() and not drop:
            raise CohortError(f"{name} is missing for {int(missing.sum())} of {len(subjects)} "
                              f"subjects ({listed(subjects.index[missing])}); fill it in, or "
                              "leave them out with drop_incomplete=True (drop_incomplete = true "
                              "under [subjects])")
        lacking |= missing
    nothing = ~present.any(axis=1)
    if nothing.any() and not drop:
        raise CohortError(f"{int(nothing.sum())} of {len(subjects)} subjects have no modality at "
                          f"all ({listed(subjects.index[nothing])}); there is nothing to score: "
                          "remove them, or leave them out with drop_incomplete=True "
                          "(drop_incomplete = true under [subjects])")
    out = lacking | nothing
    if out.any():
        warnings.warn(f"left out {int(out.sum())} of {len(subjects)} subjects without covariates "
                      f"or scans: {listed(subjects.index[out])}", stacklevel=3)
    return subjects[~out]


def _typed(column: pd.Series, kind: str) -> pd.Series:
    words = column.astype("string").str.strip()
    words = words.mask(words.str.lower().isin(MISSING_WORDS))
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        words = column.astype("Int64").astype("string")  # site 2.0 is site 2, beside an empty cell
    if kind != "continuous":
        return words.astype(object).where(words.notna(), None)
    numbers = pd.to_numeric(words, errors="coerce").astype("float64")
    bad = (numbers.isna() & words.notna()) | np.isinf(numbers)
    if bad.any():
        who = column.index[bad.to_numpy()][0]
        raise CohortError(f"covariate {column.name}: subject {who} has {str(column[who])!r}, "
                          "which is not a finite number; correct it, or call the covariate "
                          "categorical")
    return numbers


def numbers_if_all(words: pd.Series) -> pd.Series:
    """A column of text as numbers if every cell is one; codes such as 007 stay text.

    Examples
    --------
    >>> numbers_if_all(pd.Series(["29", "30.5", None])).tolist()
    [29.0, 30.5, nan]
    >>> numbers_if_all(pd.Series(["007", "12"])).tolist()
    ['007', '12']
    """
    numbers = pd.to_numeric(words, errors="coerce")
    code = words.astype("string").str.contains(r"^0\d|[^\d.eE+-]", na=False)
    return words if (numbers.isna() & words.notna()).any() or code.any() else numbers


def values_of(subjects: pd.DataFrame, query: str) -> str:
    """The values that occur in the columns a query names, for an error message."""
    named = [c for c in subjects.columns if str(c) in query]
    values = {c: map(repr, subjects[c].dropna().unique().tolist()) for c in named}
    return "; ".join(f"{c} holds {listed(sorted(found))}" for c, found in values.items())

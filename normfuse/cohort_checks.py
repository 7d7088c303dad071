"""What a cohort's tables must satisfy; each check names the culprit and says what to do."""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .errors import CohortError, listed, perhaps
from .problems import Problems
from .stored import StoredTable

COVARIATE_KINDS = ("continuous", "categorical", "site")
MISSING_WORDS = ("", "n/a", "na", "nan", "null", "none")


def refuse_others(cohort: Any) -> None:
    """What is no cohort: a table alone does not say which of its columns are whose.

    >>> refuse_others(pd.DataFrame())
    Traceback (most recent call last):
    TypeError: expected a Cohort, as Cohort.read("cohort.toml") or Cohort.from_frames(…); got ...
    """
    if not all(hasattr(cohort, name) for name in ("subjects", "features", "modalities")):
        raise TypeError("expected a Cohort, as Cohort.read(\"cohort.toml\") or "
                        f"Cohort.from_frames(…); got {type(cohort).__name__}")


def refuse_swapped(subjects: Any, frames: Any) -> None:
    """Tables in other places than where they belong."""
    if not isinstance(subjects, pd.DataFrame) or not isinstance(frames, Mapping):
        raise TypeError("expected a DataFrame of subjects, then the modalities' tables as "
                        '{"t1": table, …}; got '
                        f"{type(subjects).__name__} and {type(frames).__name__}")


def with_text_ids(table: pd.DataFrame, where: str, problems: Problems | None = None
                  ) -> pd.DataFrame:
    """The table with its index as text; refuses empty and repeated ids.

    With ``problems`` they are kept there, and the table goes on without those rows.
    """
    kept = Problems() if problems is None else problems
    index = table.index
    if pd.api.types.is_float_dtype(index) and np.all(np.mod(index[index.notna()], 1) == 0):
        index = index.astype("Int64")  # 10356.0 is the id 10356, read beside an empty cell
    empty = index.isna() | index.astype(str).str.strip().str.lower().isin(MISSING_WORDS)
    if empty.any():
        rows = np.flatnonzero(empty) + 1
        kept.add(f"{where} has no id in row {listed(rows)}; every row needs a subject id")
    ids = index.astype(str).str.strip()
    twice = ids.duplicated() & ~empty
    if twice.any():
        kept.add(f"{where} has more than one row for {listed(ids[twice].unique())}; keep one row "
                 "a subject (of repeated visits choose one, as session = \"first\" under "
                 "[subjects], or make an id such as sub-01_ses-2; the reference may have one "
                 "visit a person only)")
    if problems is None:
        kept.settle()
    return table.set_axis(ids.rename("participant_id"), axis=0).loc[~(empty | twice)]


def checked_block(name: str, frame: pd.DataFrame, subjects: pd.DataFrame,
                  covariates: Mapping[str, str]) -> pd.DataFrame:
    """A modality's table as numbers; refuses with everything that is wrong with it."""
    problems = Problems()
    block = with_text_ids(frame, f"modality {name}", problems)
    block = block.set_axis(block.columns.astype(str), axis=1)
    with problems.caught():
        only_known_people(name, block.index, subjects)
    with problems.caught():
        only_features(name, block.columns, covariates)
    strange = not_regions(block.columns, covariates)
    with problems.caught():
        rest = numeric_block(name, block.drop(columns=strange))
    problems.settle()
    return rest


def numeric_block(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The modality's table as float64; refuses text and infinite cells."""
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise CohortError(f"modality {name} names a feature twice: {listed(twice)}")
    text = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])
            or pd.api.types.is_bool_dtype(frame[c])]
    numbers = {str(c): _as_numbers(frame[c]) for c in text}
    _refuse_text(name, frame[text], numbers)
    block = frame.assign(**numbers).astype("float64") if numbers else frame.astype("float64")
    infinite = np.isinf(block.to_numpy())
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise CohortError(f"modality {name}: subject {block.index[row]} has an infinite value in "
                          f"{block.columns[column]} ({int(infinite.sum())} such cells); "
                          "leave a failed region empty")
    return block


def without_missing_words(column: pd.Series) -> pd.Series:
    """Cells as stripped text, n/a and its like missing."""
    words = column.astype("string").str.strip()
    return words.mask(words.str.lower().isin(MISSING_WORDS))


def _as_numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(without_missing_words(column), errors="coerce").astype("float64")


def _refuse_text(name: str, cells: pd.DataFrame, numbers: Mapping[str, pd.Series]) -> None:
    bad = [(c, numbers[str(c)].isna() & without_missing_words(cells[c]).notna()) for c in cells]
    culprits = [(who, c, str(cells[c].loc[who])) for c, cell in bad
                for who in cells.index[cell.to_numpy()]]
    if not culprits:
        return
    who, feature, word = culprits[0]
    also = listed((f"{w!r} in {c} of {i}" for i, c, w in culprits[1:]), 4)
    hint = " (write decimals with a point, or say decimal = \",\" or thousands = \",\" of the " \
        "whole table)" if any("," in w for *_, w in culprits) else ""
    raise CohortError(f"modality {name}: subject {who}, feature {feature} holds {word!r}, "
                      f"which is not a number{hint}{f'; nor are {also}' if also else ''}; leave "
                      "the cell empty or write n/a if the region failed, and a column that is no "
                      "region out by exclude = [\"…\"]")


def known_covariates(subjects: pd.DataFrame, covariates: Mapping[str, str],
                     problems: Problems) -> dict[str, str]:
    """The covariates that are columns of a kind we know; what is wrong with others is kept."""
    known = {}
    for name, kind in covariates.items():
        if kind not in COVARIATE_KINDS:
            problems.add(f"covariate {name} is said to be {kind!r}; "
                         f"it must be one of {', '.join(COVARIATE_KINDS)}")
        if name not in subjects.columns:
            problems.add(f"covariate {name!r} is not a column of the subjects table; "
                         f"it has {listed(subjects.columns, 12)}"
                         f"{perhaps([name], map(str, subjects.columns))}")
        elif kind in COVARIATE_KINDS:
            known[name] = kind
    sites = [name for name, kind in covariates.items() if kind == "site"]
    if len(sites) > 1:
        problems.add(f"only one covariate can be the site; these are: {listed(sites)}")
    return known


def only_known_people(name: str, ids: pd.Index, subjects: pd.DataFrame) -> None:
    """Nobody is measured who is not in the subjects table."""
    strangers = ids.difference(subjects.index)
    if len(strangers):
        alike = {i.lstrip("0"): i for i in subjects.index if i.isdecimal()}
        lost = [f"{i} may be {alike[i]}, its zeros lost" for i in strangers if i in alike]
        raise CohortError(f"modality {name} has {len(strangers)} of {len(ids)} subjects that "
                          f"are not in the subjects table ({listed(strangers)}); add them to it, "
                          "or check that the ids are written alike (sub-01 is not 01"
                          f"{'; ' if lost else ''}{listed(lost, 1)})")


def not_regions(columns: pd.Index, covariates: Mapping[str, str]) -> list[str]:
    """Covariates and row numbers among the columns: they would be modelled as regions."""
    return [c for c in columns
            if c in covariates or c == "index" or str(c).startswith("Unnamed: ")]


def only_features(name: str, columns: pd.Index, covariates: Mapping[str, str]) -> None:
    """No covariate and no row number among the features."""
    strange = not_regions(columns, covariates)
    if strange:
        raise CohortError(f"modality {name} has columns that are no regions: {listed(strange)}; "
                          f"leave them out, with exclude = {strange} under [modalities.{name}]")


def complete_people(subjects: pd.DataFrame, present: pd.DataFrame,
                    covariates: Mapping[str, str], drop: bool) -> pd.DataFrame:
    """Everyone has every covariate and at least one modality; others refused or dropped."""
    subjects, problems = subjects.copy(), Problems()
    lacking = pd.Series(False, index=subjects.index)
    for name, kind in covariates.items():
        words = without_missing_words(subjects[name])
        with problems.caught():
            lacking |= _missing(words, drop)
        with problems.caught():
            subjects[name] = _typed(subjects[name], kind)
    nothing = ~present.any(axis=1)
    if nothing.any() and not drop:
        problems.add(f"{int(nothing.sum())} of {len(subjects)} subjects have no modality at "
                     f"all ({listed(subjects.index[nothing])}); there is nothing to score: "
                     "remove them, or leave them out with drop_incomplete=True "
                     "(drop_incomplete = true under [subjects])")
    problems.settle()
    out = lacking | nothing
    if out.any():
        warnings.warn(f"left out {int(out.sum())} of {len(subjects)} subjects without covariates "
                      f"or scans: {listed(subjects.index[out])}", stacklevel=3)
    return subjects[~out]


def _missing(column: pd.Series, drop: bool) -> pd.Series:
    missing = column.isna()
    if missing.any() and not drop:
        raise CohortError(f"{column.name} is missing for {int(missing.sum())} of {len(column)} "
                          f"subjects ({listed(column.index[missing])}); fill it in, or "
                          "leave them out with drop_incomplete=True (drop_incomplete = true "
                          "under [subjects])")
    return missing


def _typed(column: pd.Series, kind: str) -> pd.Series:
    words = without_missing_words(column)
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        words = column.astype("Int64").astype("string")  # site 2.0 is site 2, beside an empty cell
    if kind != "continuous":
        return words.astype(object).where(words.notna(), None)
    numbers = pd.to_numeric(words, errors="coerce").astype("float64")
    bad = (numbers.isna() & words.notna()) | np.isinf(numbers)
    if bad.any():
        who = column.index[bad.to_numpy()][0]
        others = [f"{column[i]!r} of {i}" for i in column.index[bad.to_numpy()][1:]]
        more = f" (and {listed(others, 4)})" if others else ""
        # BIDS recommends 89+ for privacy
        hint = " by its number" if str(column[who]).strip().endswith("+") else ""
        raise CohortError(f"covariate {column.name}: subject {who} has {str(column[who])!r}"
                          f"{more}, which is not a finite number; correct it{hint}, or call the "
                          "covariate categorical")
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
    return "; ".join(f"{c} holds {listed(found)}" if (found := sorted(words)) else
                     f"{c} is empty for everybody: which column says who is healthy?"
                     for c, words in values.items())


def checked_table(name: str, frame: pd.DataFrame | StoredTable, subjects: pd.DataFrame,
                  covariates: Mapping[str, str]) -> pd.DataFrame | StoredTable:
    """The modality's table on the subjects' index."""
    if isinstance(frame, StoredTable):
        only_known_people(name, frame.index, subjects)
        only_features(name, frame.columns, covariates)
        return frame.reindexed(subjects.index)
    return checked_block(name, frame, subjects, covariates).reindex(subjects.index)


def there(block: pd.DataFrame | StoredTable, ids: pd.Index) -> pd.Series:
    """Who has something measured; of a table that was refused, who has a row."""
    if isinstance(block, StoredTable):
        return block.reindexed(ids).present
    if block.index is ids or block.index.equals(ids):
        return block.notna().any(axis=1)
    return pd.Series(ids.isin(block.index.astype(str).str.strip()), ids)

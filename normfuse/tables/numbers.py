"""Numbers as people write them: 2,53 and 1.234,5 beside 2.53; never guessed where both can be."""
from __future__ import annotations

import re
import warnings
from pathlib import Path

import pandas as pd

from ..cohort_checks import MISSING_WORDS
from ..errors import CohortError
from .dialect import Dialect

_NUMBER = r"[+-]?(?:\d+(?:[.,' _\u00a0\u202f]\d{3})*|\d*)(?:[.,]\d*)?(?:[eE][+-]?\d+)?"
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")  # 1,234: a thousand, or a little over one
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_GERMAN = re.compile(r"[+-]?\d{1,3}(?:[. \u00a0\u202f']\d{3})+,\d+")
_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")


def with_points(table: pd.DataFrame, path: Path, dialect: Dialect, skip: str | None = None
                ) -> pd.DataFrame:
    """The same text cells with decimal points, and without marks between thousands.

    A table is taken to have decimal commas if numbers in it have commas that can be nothing else
    (``2,5``, ``0,123``, ``1234,567``) and none has a point; that is said in a warning. Where
    some have points, nothing is changed: no number has a comma then.

    Parameters
    ----------
    table : DataFrame of str
    path : Path
        For messages.
    dialect : Dialect
        Its ``decimal`` and ``thousands`` are believed.
    skip : str, optional
        The column of ids, which are no numbers.

    Raises
    ------
    CohortError
        If every comma may stand before thousands (``1,234``), or a number has a point after
        all.

    Examples
    --------
    >>> table = pd.DataFrame({"id": ["1,5"], "insula": ["2,531"], "cuneus": ["n/a"]})
    >>> with_points(table, Path("t1.csv"), Dialect(decimal=","), skip="id").iloc[0].tolist()
    ['1,5', '2.531', 'n/a']
    """
    columns = [i for i, name in enumerate(table.columns) if name != skip]
    said = dialect.decimal or dialect.thousands
    if not said and not any(table.iloc[:, i].str.contains(",", regex=False).any()
                            for i in columns):
        return table
    numeric = [i for i in columns if _mostly_numbers(table.iloc[:, i])]
    if said:
        return _rewritten(table, numeric, path, dialect)
    cells = pd.concat([table.iloc[:, i] for i in numeric]) if numeric else pd.Series(dtype=str)
    cells = cells[cells.str.contains("[,.]", na=False)].str.strip()
    commas = cells[cells.str.contains(",")]
    if commas.empty:
        return table
    grouped = commas[[bool(_GROUPED.fullmatch(c)) for c in commas]]
    sure = commas[[bool(_GERMAN.fullmatch(c) or (_COMMA.fullmatch(c)
                                                 and not _GROUPED.fullmatch(c)))
                   for c in commas]]
    points = cells[[bool(_POINT.fullmatch(c)) for c in cells]]
    if len(grouped) == len(commas) and points.empty and len(sure) == 0:
        raise CohortError(f"{path} has numbers such as {commas.iloc[0]}, which may be a little "
                          f"over {commas.iloc[0].split(',')[0]} or a thousand times that: say "
                          "decimal = \",\" or thousands = \",\"")
    several = [c for c in grouped if c.count(",") > 1]
    if len(sure) + len(grouped) < len(commas) or len(points) or several:
        return table  # both are in use: cells with commas will be refused by name
    warnings.warn(f"{path} has decimal commas, as {sure.iloc[0]}: its numbers were read so. Say "
                  "decimal = \",\" to be told no more", stacklevel=4)
    return _rewritten(table, numeric, path, Dialect(decimal=","))


def without_codes(table: pd.DataFrame, codes: tuple[str | int | float, ...],
                  skip: str | None = None) -> pd.DataFrame:
    """Cells that hold a code of what is missing become empty; numbers are compared as numbers.

    Examples
    --------
    >>> table = pd.DataFrame({"id": ["-999", "2"], "a": ["-999.0", "2.5"], "b": [-999.0, 1.5]})
    >>> without_codes(table, (-999,), "id").fillna("").values.tolist()
    [['-999', '', ''], ['2', '2.5', 1.5]]
    """
    words = {str(code).strip() for code in codes}
    numbers = [float(code) for code in codes if not isinstance(code, str)]
    table = table.copy()
    for i, name in enumerate(table.columns):
        if name == skip:
            continue
        cells = table.iloc[:, i]
        coded = cells.astype("string").str.strip().isin(words) \
            | pd.to_numeric(cells, errors="coerce").isin(numbers)
        if coded.any():
            empty = None if pd.api.types.is_numeric_dtype(cells) else ""
            table.isetitem(i, cells.mask(coded.fillna(False).astype(bool), empty).array)
    return table


def _mostly_numbers(column: pd.Series) -> bool:
    words = column.astype("string").str.strip()
    words = words[~words.str.lower().isin(MISSING_WORDS)]
    # one #N/A must not make text of all the others: it will be refused by its name
    return bool(len(words)) and bool(words.str.fullmatch(_NUMBER).mean() > 0.5)


def _rewritten(table: pd.DataFrame, numeric: list[int], path: Path, dialect: Dialect
               ) -> pd.DataFrame:
    table, comma = table.copy(), dialect.decimal == ","
    thousands = dialect.thousands or ("." if comma else None)
    for i in numeric:
        words = table.iloc[:, i].str.strip()
        if thousands:
            mark = r"[ \u00a0\u202f]" if thousands == " " else re.escape(thousands)
            words = words.str.replace(rf"(?<=\d){mark}(?=\d{{3}}(?!\d))", "", regex=True)
        if comma:
            pointed = words[words.str.fullmatch(_POINT)]
            if len(pointed):
                raise CohortError(f"{path} should have decimal commas, but {table.columns[i]} "
                                  f"holds {pointed.iloc[0]}; write all numbers alike")
            words = words.str.replace(",", ".")
        table.isetitem(i, words.array)
    return table

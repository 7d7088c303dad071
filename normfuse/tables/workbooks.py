"""Excel workbooks and Parquet files as cells; the packages that read them are extras."""
from __future__ import annotations

import warnings
from datetime import date, time
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import CohortError, NormfuseError, listed, perhaps
from ..inputs import ordinary, refuse_cells, refuse_size, refuse_zip_bomb
from .dialect import Dialect


def read_excel(path: Path, dialect: Dialect) -> pd.DataFrame:
    """One sheet of an ``.xlsx`` workbook as text cells, as they were when it was saved.

    Raises
    ------
    CohortError
        If openpyxl is not installed, the sheet is not there or has to be named, or formulas were
        never computed.
    """
    try:
        import openpyxl
    except ImportError as problem:
        raise CohortError(f"{path}: Excel files are read by openpyxl, which is not installed; "
                          "run: pip install 'normfuse[excel]', or save the table as CSV") \
            from problem
    refuse_zip_bomb(path)
    try:
        with warnings.catch_warnings():  # of extensions that hold no cells
            warnings.simplefilter("ignore")
            cells = _sheet(path, openpyxl.load_workbook(path, data_only=True), dialect.sheet)
            asked = _sheet(path, openpyxl.load_workbook(path), dialect.sheet)
    except (NormfuseError, OSError):
        raise
    except Exception as problem:  # openpyxl raises what zipfile and XML parsers raise
        raise CohortError(f"{path} is not a readable .xlsx workbook: {problem}") from problem
    empty = [row[column].coordinate for row, old in zip(asked, cells) for column in range(len(row))
             if row[column].data_type == "f" and old[column].value is None]
    if empty:
        raise CohortError(f"{path} has formulas that were never computed ({listed(empty)}); open "
                          "and save it in Excel, or save the table as CSV")
    rows = [[_cell(cell.value) for cell in row] for row in cells]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise CohortError(f"{path} is empty; its first row must name the columns")
    width = max(i + 1 for row in rows for i, word in enumerate(row) if word)
    return pd.DataFrame([row[:width] for row in rows[1:]], columns=rows[0][:width], dtype=str)


def _sheet(path: Path, book: Any, name: str | None) -> list[Any]:
    names = [sheet.title for sheet in book.worksheets]
    if name is None and len(names) > 1:
        raise CohortError(f"{path} has {len(names)} sheets ({listed(names, 12)}); choose one with "
                          f"sheet = \"{names[0]}\"")
    if name is not None and name not in names:
        raise CohortError(f"{path} has no sheet {name!r}{perhaps([name], names)}; it has "
                          f"{listed(names, 12)}")
    sheet = book[name or names[0]]
    refuse_cells(sheet.max_row, sheet.max_column)  # one cell far away makes all before it
    return list(sheet.iter_rows())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2 ** 53:
        return str(int(value))  # Excel has no whole numbers: the id 7 is kept as 7.0
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value)


def read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file: numbers as numbers, all else as text; a named index becomes a column.

    Raises
    ------
    CohortError
        If pyarrow is not installed, or the file is no Parquet file.
    """
    try:
        import pyarrow.parquet
    except ImportError as problem:
        raise CohortError(f"{path}: Parquet files are read by pyarrow, which is not installed; "
                          "run: pip install 'normfuse[parquet]', or save the table as CSV") \
            from problem
    try:
        file = pyarrow.parquet.ParquetFile(ordinary(path))
        known = file.metadata
        refuse_cells(known.num_rows, known.num_columns)
        refuse_size(sum(known.row_group(k).total_byte_size for k in range(known.num_row_groups)))
        found = file.read().to_pandas()
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, ValueError, OSError, KeyError, TypeError) as problem:
        raise CohortError(f"{path} is not a readable Parquet file: {problem}") from problem
    # what pandas keeps beside the columns
    if not isinstance(found.index, pd.RangeIndex) or found.index.name:
        found = found.rename_axis(index=found.index.name or "participant_id").reset_index()
    return found.assign(**{c: found[c].astype(object).where(found[c].notna(), "").astype(str)
                           for c in found if not pd.api.types.is_numeric_dtype(found[c])
                           or pd.api.types.is_bool_dtype(found[c])})

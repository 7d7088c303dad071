"""One table, whatever its format: text, Excel or Parquet."""
from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..errors import CohortError, listed
from .dialect import Dialect
from .numbers import with_points, without_codes
from .text import read_text
from .workbooks import read_excel, read_parquet

_OTHERS = {".xls": "save it as .xlsx", ".xlsm": "save it as .xlsx", ".ods": "save it as .xlsx",
           ".rds": "write it from R as CSV", ".rdata": "write it from R as CSV",
           ".sav": "save it from SPSS as CSV", ".mat": "write it from MATLAB as CSV",
           ".feather": "write it as Parquet", ".pkl": "write it as Parquet or CSV"}


def read_table(path: str | Path, dialect: Dialect = Dialect(), *, id_column: str | None = None
               ) -> pd.DataFrame:
    """A table as cells: text, or the numbers of a Parquet file.

    Parameters
    ----------
    path : path
        ``.xlsx`` is read as Excel, ``.parquet`` as Parquet, all else as delimited text whose
        separator is the one its first line uses most.
    dialect : Dialect
        What the file does not show by itself.
    id_column : str, optional
        Never taken for numbers. Without it ``participant_id``, else the first column.

    Raises
    ------
    CohortError
        If the file is missing or cannot be read without guessing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place, "t1.csv")
    ...     _ = file.write_text("id;insula\\n007;2.53\\n")
    ...     read_table(file).iloc[0].tolist()
    ['007', '2.53']
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in _OTHERS:
        raise CohortError(f"{path}: tables ending in {kind} cannot be read; {_OTHERS[kind]}")
    if dialect.sheet is not None and kind != ".xlsx":
        raise CohortError(f"{path} is no Excel workbook and has no sheet {dialect.sheet!r}")
    try:
        table = read_excel(path, dialect) if kind == ".xlsx" else \
            read_parquet(path) if kind == ".parquet" else read_text(path, dialect)
    except FileNotFoundError as problem:
        raise CohortError(f"there is no table {path}; paths in cohort.toml are relative to "
                          "the file's own folder") from problem
    except OSError as problem:
        raise CohortError(f"{path} is not a readable table: {problem}") from problem
    except MemoryError as problem:
        raise CohortError(f"{path} takes more memory than there is") from problem
    table = _named(path, table)
    if id_column is None:
        id_column = "participant_id" if "participant_id" in table else str(table.columns[0])
    if kind != ".parquet":
        table = with_points(table, path, dialect, id_column)
    return without_codes(table, dialect.missing, id_column) if dialect.missing else table


def _named(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Column names as stripped text, none twice; columns without name or cells are dropped."""
    names = [str(name).strip() for name in table.columns]
    blank = {i for i, name in enumerate(names) if not name and i
             and table.iloc[:, i].astype(str).str.strip().eq("").all()}  # a separator at the end
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:  # pandas would call the second one "name.1"
        raise CohortError(f"{path} names a column twice: {listed(twice)}; rename or drop one of "
                          "each")
    names = [name or f"Unnamed: {i}" for i, name in enumerate(names)]
    return table.set_axis(names, axis=1).iloc[:, [i for i in range(len(names)) if i not in blank]]

"""Delimited text as cells: which encoding and separator a file has, and what is unclear."""
from __future__ import annotations

import codecs
import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from ..errors import CohortError
from ..inputs import read_bytes, refuse_cells
from .dialect import Dialect

SEPARATORS = "\t,;|"
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"),
          (codecs.BOM_UTF16_BE, "utf-16"))
_LOOKED_AT = 200  # lines that decide between two separators


def read_text(path: Path, dialect: Dialect) -> pd.DataFrame:
    """A delimited text file as text cells, names of columns as they stand.

    Raises
    ------
    CohortError
        If the file is empty, in an encoding that cannot be known, or its columns cannot be told
        apart; says which key of ``cohort.toml`` would.
    """
    text, said = _decoded(path, dialect.encoding), dialect.separator
    if text[:4].lower() == "sep=":  # a line that Excel writes and hides
        first, _, text = text.partition("\n")
        said = said or first.strip()[4:]
    lines = [line for line in text.splitlines()[:_LOOKED_AT] if line.strip()]
    if not lines or not text.split("\n", 1)[0].strip():
        raise CohortError(f"{path} is empty; its first line must name the columns")
    separator = said or _separator(path, lines)
    # short rows are filled up: a long first line and many short ones would take all memory
    refuse_cells(text.rstrip("\n").count("\n") + 1, lines[0].count(separator) + 1)
    try:
        with warnings.catch_warnings():  # of a row with more cells than the header: a shifted row
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(io.StringIO(text), sep=r"\s+" if separator == " " else separator,
                                dtype=str, keep_default_na=False, index_col=False, header=None)
    except pd.errors.ParserWarning as problem:
        raise _shifted(path) from problem
    except pd.errors.ParserError as problem:
        if "Expected" in str(problem):
            raise _shifted(path) from problem
        raise CohortError(f"{path} is not a readable text table: {problem}") from problem
    named = table.iloc[1:].reset_index(drop=True).fillna("")
    return named.set_axis(table.iloc[0].fillna("").astype(str).tolist(), axis=1)


def _shifted(path: Path) -> CohortError:
    return CohortError(f"{path} has a row with more cells than its first line has names; quote "
                       "cells that hold the separator")


def _decoded(path: Path, encoding: str | None) -> str:
    content = read_bytes(path)
    mark = next((name for start, name in _MARKS if content.startswith(start)), None)
    try:
        text = content.decode(mark or encoding or "utf-8")
    except UnicodeDecodeError as problem:
        if b"\0" in content:
            raise CohortError(_nul(path)) from problem
        raise CohortError(_wrong_encoding(path, content, problem, encoding)) from problem
    if "\0" in text:
        raise CohortError(_nul(path))
    return text


def _nul(path: Path) -> str:
    return (f"{path} is not a readable text table: it holds NUL characters. If it is UTF-16 "
            "without a mark, say encoding = \"utf-16-le\"; if it is a workbook, give it its "
            "ending .xlsx")


def _wrong_encoding(path: Path, content: bytes, problem: UnicodeDecodeError,
                    encoding: str | None) -> str:
    line = content.count(b"\n", 0, problem.start) + 1
    if encoding:
        return f"{path} is not {encoding}: line {line} has a byte that it does not know"
    start = max(0, content.rfind(b"\n", 0, problem.start) + 1, problem.start - 12)
    seen = content[start:problem.start + 6].split(b"\n")[0].decode("latin-1").strip()
    return (f"{path} is not a readable text table in UTF-8. Line {line} would read {seen!r} in "
            "Latin-1, as Excel on Windows writes it: if that is right, say encoding = "
            "\"latin-1\"; else save the table as UTF-8")


def _separator(path: Path, lines: list[str]) -> str:
    """The one that the header uses most; refuses if two do and the rows fit both."""
    widths = {s: _width(lines[0], s) for s in SEPARATORS}
    most = max(widths.values())
    likely = [s for s in SEPARATORS if widths[s] == most]
    if most == 1:
        words = lines[0].split()
        if len(words) > 1 and all(len(line.split()) == len(words) for line in lines):
            raise CohortError(f"{path} has one column, or columns with spaces between them: say "
                              "separator = \" \", or write them with tabs or commas")
        return "\t"
    if len(likely) > 1:
        likely = [s for s in likely if all(_width(line, s) == most for line in lines)] or likely
    if len(likely) > 1:
        raise CohortError(f"{path} has as many columns with "
                          f"{' as with '.join(map(repr, likely))} between them; say separator = "
                          f"\"{likely[0]}\"")
    return likely[0]


def _width(line: str, separator: str) -> int:
    return len(next(csv.reader([line], delimiter=separator)))

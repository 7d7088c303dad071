"""Reading files that others wrote: ordinary files only, and no more of them than fits in memory.

A file may be a device without end, a pipe that nobody writes to, or a few kilobytes that unpack
to terabytes. Each is refused before it is read, by an ``OSError`` that readers turn into an error
that says whose file it is.

The limit is :data:`LIMIT_GB` a file, unpacked; set the environment variable ``NORMFUSE_LIMIT_GB``
to another number where more is right.
"""
from __future__ import annotations

import gzip
import json
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LIMIT_GB = 2.0
"""Of one file, unpacked: 50,000 people with 4,000 regions are one gigabyte of text."""

LIMIT_NAME = "NORMFUSE_LIMIT_GB"

CELL_BYTES = 8
"""Least memory that a cell of a table takes, also an empty one."""

TEXT_BYTES = 20
"""Of a number as normfuse writes it, to the last bit."""

BLOCK = 2 ** 20

WORKBOOK_SHARE = 10
"""openpyxl keeps some fifty bytes for a byte of a workbook's XML; so much less is read of it."""


class UnfitFileError(OSError):
    """A file that is no ordinary one, or too large to be read."""


def limit_bytes() -> int:
    """How many bytes of one file may be read.

    Examples
    --------
    >>> limit_bytes() == int(float(os.environ.get("NORMFUSE_LIMIT_GB", 2)) * 1e9)
    True
    """
    said = os.environ.get(LIMIT_NAME, "")
    try:
        return int(float(said or LIMIT_GB) * 1e9)
    except (ValueError, OverflowError) as problem:
        raise UnfitFileError(f"the environment variable {LIMIT_NAME} must be a number of "
                             f"gigabytes; it is {said!r}") from problem


def ordinary(path: str | Path) -> Path:
    """The path of a file that can be read to its end.

    Raises
    ------
    OSError
        If it is not there, or a folder, a device or a pipe.

    Examples
    --------
    >>> ordinary("/dev/zero")
    Traceback (most recent call last):
    normfuse.inputs.UnfitFileError: it is no ordinary file but a folder, a device or a pipe
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except ValueError as problem:  # a NUL in its name
        raise UnfitFileError(f"no file can have that name: {problem}") from problem
    if not stat.S_ISREG(mode):
        raise UnfitFileError("it is no ordinary file but a folder, a device or a pipe")
    return path


def refuse_size(n_bytes: float, what: str = "it", *, share: int = 1) -> None:
    """Refuse more bytes than may be read.

    Parameters
    ----------
    n_bytes : float
    what : str
        For the message.
    share : int
        Only one part in so many of the limit is allowed.

    Raises
    ------
    OSError
        If they are too many.

    Examples
    --------
    >>> refuse_size(1e6)
    >>> refuse_size(1e15, "the image")
    Traceback (most recent call last):
    normfuse.inputs.UnfitFileError: the image would take 1e+06 GB of memory, more than 2 GB; if \
that is right, set the environment variable NORMFUSE_LIMIT_GB to a larger number
    """
    limit = limit_bytes() / share
    if n_bytes > limit:
        raise UnfitFileError(f"{what} would take {n_bytes / 1e9:.3g} GB of memory, more than "
                             f"{limit / 1e9:.3g} GB; {_raise_it()}")


def refuse_cells(n_rows: int, n_columns: int) -> None:
    """Refuse a table too large for memory, however few of its cells are written down.

    Examples
    --------
    >>> refuse_cells(50_000, 4_000)
    """
    refuse_size(n_rows * n_columns * CELL_BYTES, f"a table of {n_rows} rows and {n_columns} "
                "columns")


def _raise_it() -> str:
    return f"if that is right, set the environment variable {LIMIT_NAME} to a larger number"


def read_bytes(path: str | Path) -> bytes:
    """A file's content, unpacked if its name ends in ``.gz``.

    Raises
    ------
    OSError
        If it is no ordinary file, too large, or no whole gzip file.
    """
    path = ordinary(path)
    refuse_size(path.stat().st_size)
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    try:
        _refuse_gzip_bomb(path)
        return gzip.decompress(path.read_bytes())
    except UnfitFileError:
        raise
    except (EOFError, zlib.error, OSError) as problem:
        raise UnfitFileError(f"it is not a readable gzip file: {problem}") from problem


def _refuse_gzip_bomb(path: Path) -> None:
    """Unpacks it once to nowhere: what it says of its size is worth nothing."""
    limit, size = limit_bytes(), 0
    with gzip.open(path) as unpacked:
        while block := unpacked.read(BLOCK):
            size += len(block)
            if size > limit:
                raise UnfitFileError(f"it unpacks to more than {limit / 1e9:.3g} GB; "
                                     + _raise_it())


def read_text(path: str | Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """A text file's content; ``OSError`` or ``ValueError`` if it cannot be read."""
    return read_bytes(path).decode(encoding, errors)


def read_json(path: str | Path) -> Any:
    """What a JSON file says; ``OSError`` or ``ValueError`` if it cannot be understood.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place, "facts.json")
    ...     _ = file.write_text('{"n": 3}')
    ...     read_json(file)
    {'n': 3}
    """
    try:
        return json.loads(read_text(path))
    except RecursionError as problem:
        raise ValueError("it is nested too deeply") from problem


def read_object(path: str | Path) -> dict[str, Any]:
    """The same of a file that must hold one JSON object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"it should hold one object of JSON; it holds a {type(found).__name__}")
    return found


def read_csv(path: str | Path, **options: Any) -> pd.DataFrame:
    """A CSV file that normfuse wrote; options as of :func:`pandas.read_csv`.

    ``OSError`` or ``ValueError`` if it cannot be understood.
    """
    import pandas as pd

    path = ordinary(path)
    refuse_size(path.stat().st_size / TEXT_BYTES * CELL_BYTES)
    with path.open("rb") as opened:
        n_columns = opened.readline().count(b",") + 1
        n_rows = sum(block.count(b"\n") for block in iter(lambda: opened.read(BLOCK), b""))
    refuse_cells(n_rows, n_columns)
    try:
        return pd.read_csv(path, **options)
    except (IndexError, TypeError, KeyError, OverflowError, AttributeError) as problem:
        raise ValueError(f"{path.name} is not a table as it was written: {problem}") from problem


def refuse_zip_bomb(path: str | Path) -> None:
    """Refuse a workbook that unpacks to more than openpyxl can hold.

    ``zipfile`` reads no more of a member than its entry says.
    """
    try:
        with zipfile.ZipFile(ordinary(path)) as packed:
            size = sum(member.file_size for member in packed.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as problem:
        raise UnfitFileError(f"it is not a readable workbook: {problem}") from problem
    refuse_size(size, "what it unpacks to", share=WORKBOOK_SHARE)

"""Rows that were read from images, kept on disk under what they were made of.

A pool is a folder for one kind of image and one set of settings::

    fa-1b2c3d4e5f607182/
        values/          zarr array, float32: one row an image, as many as will ever come
        ledger.jsonl     one line an image: digest of the file, its row, a seal, what was seen
        files.json       digests by path, size and time, so that unchanged files are not hashed
        lock

A row counts only when its line is in the ledger, which is written after the row, and only while
its values have the check sum of that line. So an interrupted reading goes on where it stopped, and
a damaged row is read again.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import CohortError
from ..outputs import new_file
from ..stored import COLUMNS, ROWS, StoredTable, opened_array
from .checks import Facts
from .findings import Problem
from .one_image import Reading

CAPACITY = 2 ** 24
"""Rows of the array. Chunks that nobody wrote take no place, so it never has to grow."""

SETTLED_NS = 2 * 10 ** 9
"""A file that changed less than this before it was hashed may change again in the same tick."""

NOTE = "normfuse keeps here what it read of images. It can be deleted while nothing runs.\n"


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: the file it came from, where its values are, what was seen."""

    digest: str
    row: int
    seal: int
    facts: Facts
    problems: tuple[Problem, ...]

    def to_line(self) -> str:
        """JSON in one line."""
        problems = [[p.what, p.detail, p.refuses] for p in self.problems]
        return json.dumps({"digest": self.digest, "row": self.row, "seal": self.seal,
                           "facts": self.facts.to_dict(), "problems": problems}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """The inverse of :meth:`to_line`."""
        found = json.loads(line)
        return cls(found["digest"], int(found["row"]), int(found["seal"]),
                   Facts.from_dict(found["facts"]),
                   tuple(Problem(*one) for one in found["problems"]))


class Pool:
    """The rows of images that were read with one set of settings.

    Parameters
    ----------
    folder : Path
        Made when it is first written to.
    features : sequence of str
        Of a row.
    """

    def __init__(self, folder: Path, features: Sequence[str]) -> None:
        self.folder, self.features = folder, pd.Index(features)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the folder; waits for another process that reads the same images.

        Raises
        ------
        CohortError
            If the folder cannot be made or written.
        """
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            note = self.folder.parent / "README.txt"
            if not note.exists():
                note.write_text(NOTE, encoding="utf-8")
            lock = FileLock(self.folder / "lock")
            try:
                lock.acquire(timeout=1)
            except Timeout:
                warnings.warn(f"another process is reading images into {self.folder}; waiting",
                              stacklevel=3)
                lock.acquire()
        except OSError as problem:
            raise CohortError(f"images cannot be kept in {self.folder}: {problem}. Name a folder "
                              "that can be written, with cache=… (cache = \"…\" under [images] in "
                              "cohort.toml) or in NORMFUSE_CACHE") from problem
        try:
            yield
        finally:
            lock.release()

    def entries(self) -> dict[str, Entry]:
        """The ledger by digest; a line that was not finished counts for nothing."""
        return {entry.digest: entry for entry in self._lines()}

    def sound(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """Those entries whose values are on disk as they were written; reads them all once."""
        kept: dict[str, Entry] = {}
        stored = sorted(entries.values(), key=lambda e: e.row)
        if not stored or (array := self._array("r")) is None:
            return kept
        for chunk in sorted({e.row // ROWS for e in stored}):
            ours = [e for e in stored if e.row // ROWS == chunk]
            try:
                values = np.asarray(array[chunk * ROWS:ours[-1].row + 1])
            except Exception:  # a truncated chunk; whatever is wrong, the images are read again
                continue
            kept |= {e.digest: e for e in ours if _seal(values[e.row % ROWS]) == e.seal}
        return kept

    def add(self, seen: Sequence[tuple[str, Reading]], rows: np.ndarray, *,
            after_damage: bool = False) -> None:
        """Keep what was read: digests with what was seen, and their values; first the values.

        Files that gave no values are not kept: they are looked at again every time.
        """
        if not len(rows):
            return
        start = 1 + max((e.row for e in self._lines()), default=-1)
        if after_damage:  # a chunk that cannot be read cannot be written in part either
            start = -(-start // ROWS) * ROWS
        self._writable()[start:start + len(rows)] = rows
        self._append("".join(
            Entry(digest, start + n, _seal(row), one.facts, one.problems).to_line()
            for n, ((digest, one), row) in enumerate(zip(seen, rows, strict=True)) if one.facts))

    def table(self, entries: Mapping[str, Entry]) -> StoredTable:
        """The rows of these entries, by subject id."""
        return StoredTable(self._array("r"), pd.Index(list(entries)),
                           np.array([e.row for e in entries.values()]), self.features)

    def digests(self, paths: Sequence[Path], threads: int = 1,
                tick: Callable[[], Any] = lambda: None) -> list[str]:
        """SHA-256 of each file's content; of a file that did not change, from ``files.json``."""
        known = self._known_files()

        def stamped(path: Path) -> tuple[str, list[Any], bool]:
            where, state = str(path.resolve()), path.stat()
            stamp = [state.st_size, state.st_mtime_ns]
            old = known.get(where, [])
            quiet = time.time_ns() - state.st_mtime_ns > SETTLED_NS
            return where, old if old[:2] == stamp else [*stamp, _digest(path)], quiet

        found = []
        with ThreadPoolExecutor(threads) as crowd:
            for one in crowd.map(stamped, paths):
                found.append(one)
                tick()
        now = {where: file for where, file, quiet in found if quiet}
        if any(known.get(where) != file for where, file in now.items()):
            with new_file(self.folder / "files.json", overwrite=True) as target:
                target.write_text(json.dumps({**known, **now}), encoding="utf-8")
        return [file[2] for _, file, _ in found]

    def _known_files(self) -> dict[str, list[Any]]:
        try:
            return json.loads((self.folder / "files.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _lines(self) -> list[Entry]:
        try:
            text = (self.folder / "ledger.jsonl").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        entries = []
        for line in text.splitlines():
            try:
                entries.append(Entry.from_line(line))
            except (ValueError, KeyError, TypeError):  # cut off in the middle, or damaged
                continue
        return entries

    def _append(self, lines: str) -> None:
        with (self.folder / "ledger.jsonl").open("a+b") as ledger:
            if ledger.tell():
                ledger.seek(-1, os.SEEK_END)
                if ledger.read(1) != b"\n":  # the last writer was killed within a line
                    lines = "\n" + lines
            ledger.write(lines.encode())

    def _array(self, mode: str) -> Any:
        try:
            array = opened_array(self.folder / "values", mode)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return array if array.shape == (CAPACITY, len(self.features)) else None

    def _writable(self) -> Any:
        import zarr

        array = self._array("r+")
        if array is None:
            shutil.rmtree(self.folder / "values", ignore_errors=True)
            array = zarr.create_array(
                str(self.folder / "values"), shape=(CAPACITY, len(self.features)),
                chunks=(ROWS, min(COLUMNS, len(self.features))), dtype="float32",
                # a chunk of NaN alone must not look like one that was lost
                fill_value=np.nan, compressors=None, config={"write_empty_chunks": True})
        return array


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values, dtype=np.float32).data)

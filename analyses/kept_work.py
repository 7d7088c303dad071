"""Pieces of a long computation, kept in a folder so that an end by force costs one piece only."""
from __future__ import annotations

import json
import os
import platform
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from normfuse.errors import BegunWorkError, ModelFileError, listed
from normfuse.inputs import read_object

from .effects import Array

_SETTINGS = "work.json"
_UNFINISHED = ".part"
# What NumPy says of a file that is torn, or not there.
_DAMAGED = (OSError, ValueError, EOFError, KeyError, OverflowError, MemoryError,
            NotImplementedError, zipfile.BadZipFile, zlib.error)


class KeptWork:
    """A folder of finished pieces, and what they were computed with.

    A piece takes its name only when all of it is written: what is there is whole. Before that its
    name says which process writes it, as several may work in one folder; what one left that was
    cut off goes when the work is taken up. May travel to another process that sees the folder.

    Parameters
    ----------
    folder : path
        New, empty, or from an earlier run with the same settings.
    settings : dict
        JSON-ready: all that decides the result apart from the data.

    Raises
    ------
    BegunWorkError
        If the folder was begun with other settings, or they cannot be read.
    ModelFileError
        If it holds other things.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     KeptWork(folder, {"seed": 1}).save("first", t=np.array([2.5]))
    ...     again = KeptWork(folder, {"seed": 1})
    ...     print(again.load("first"), again.load("second"))
    {'t': array([2.5])} None
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder).absolute()  # another process may stand elsewhere
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / _SETTINGS
        there = sorted(name for name in os.listdir(self.folder) if not name.endswith(_UNFINISHED))
        if there and not note.exists():
            raise ModelFileError(f"{folder} holds {listed(there)} and is no folder of begun work; "
                                 "choose a new one")
        if there:
            self._check(self._begun(note), settings)
            self.finish()
        else:
            with self.writing(_SETTINGS) as work:
                work.write_text(json.dumps(dict(settings), indent=1), encoding="utf-8")

    def _begun(self, note: Path) -> dict[str, Any]:
        try:
            return read_object(note)
        except (OSError, ValueError) as problem:
            raise BegunWorkError(
                f"{note} is damaged ({problem}), so nobody knows with what settings the work "
                "there was begun; remove that folder, or choose another") from problem

    def _check(self, begun: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(dict(settings)))
        differ = sorted(name for name in {*begun, *now} if begun.get(name) != now.get(name))
        if differ:
            said = "; ".join(f"{name}: was {_short(begun.get(name))}, is {_short(now.get(name))}"
                             for name in differ)
            raise BegunWorkError(f"{self.folder} was begun with other settings ({said}); choose "
                                 "another folder for this computation, or remove it")

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path that takes its name when the block succeeds."""
        unfinished = self.folder / f".{name}.{platform.node()}-{os.getpid()}{_UNFINISHED}"
        yield unfinished
        with open(unfinished, "rb") as written:
            os.fsync(written.fileno())  # else a power cut may leave the name without the content
        os.replace(unfinished, self.folder / name)

    def save(self, name: str, **arrays: Array) -> None:
        """Keep a piece."""
        with self.writing(f"{name}.npz") as work, open(work, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def load(self, name: str) -> dict[str, Array] | None:
        """A piece, None if it is not there."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as found:
                return {key: found[key] for key in found.files}
        except _DAMAGED:
            return None  # a disk that lost power may have kept a name and not all of the content

    def holds(self, name: str, shape: tuple[int, ...], dtype: Any) -> bool:
        """Whether an array of this shape lies there whole, as a file of its own."""
        try:
            found = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except _DAMAGED:
            return False
        return found.shape == shape and found.dtype == dtype

    def piece(self, name: str) -> dict[str, Array]:
        """A piece that was computed; refuses if it is gone."""
        found = self.load(name)
        if found is None:
            raise BegunWorkError(f"{name} was computed, but is not in {self.folder} or is "
                                 "damaged; begin again in a folder that all machines share")
        return found

    def must_be_seen(self) -> None:
        """Refuses on a machine that does not see the folder."""
        if not (self.folder / _SETTINGS).exists():
            raise BegunWorkError(f"{platform.node()} does not see {self.folder}; begin the work "
                                 "in a folder that all machines share, with resume=…")

    def finish(self) -> None:
        """Remove what an earlier run left unfinished."""
        for path in self.folder.glob(f".*{_UNFINISHED}"):
            path.unlink(missing_ok=True)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:57] + "…"

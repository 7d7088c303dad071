"""Pieces of a long computation, kept in a folder so that an end by force costs one piece only."""
from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from normfuse.errors import ComparisonError, ModelFileError, listed

from .effects import Array

_SETTINGS = "work.json"
_UNFINISHED = ".part"


class KeptWork:
    """A folder of finished pieces, and what they were computed with.

    A piece takes its name only when all of it is written: what is there is whole. Fixed names
    before that, so that nothing piles up however often the work is cut off.

    Parameters
    ----------
    folder : path
        New, empty, or from an earlier run with the same settings.
    settings : dict
        JSON-ready: all that decides the result apart from the data.

    Raises
    ------
    ComparisonError
        If the folder was begun with other settings.
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
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / _SETTINGS
        there = sorted(name for name in os.listdir(self.folder) if not name.endswith(_UNFINISHED))
        if there and not note.exists():
            raise ModelFileError(f"{folder} holds {listed(there)} and is no folder of begun work; "
                                 "choose a new one")
        if there:
            self._check(json.loads(note.read_text(encoding="utf-8")), settings)
        else:
            with self.writing(_SETTINGS) as work:
                work.write_text(json.dumps(dict(settings), indent=1), encoding="utf-8")

    def _check(self, begun: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(dict(settings)))
        differ = sorted(name for name in {*begun, *now} if begun.get(name) != now.get(name))
        if differ:
            said = "; ".join(f"{name}: was {_short(begun.get(name))}, is {_short(now.get(name))}"
                             for name in differ)
            raise ComparisonError(f"{self.folder} was begun with other settings ({said}); choose "
                                  "another folder for this computation, or remove it")

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path that takes its name when the block succeeds."""
        unfinished = self.folder / f".{name}{_UNFINISHED}"
        yield unfinished
        os.replace(unfinished, self.folder / name)

    def save(self, name: str, **arrays: Array) -> None:
        """Keep a piece."""
        with self.writing(f"{name}.npz") as work, open(work, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def load(self, name: str) -> dict[str, Array] | None:
        """A piece, None if it is not there."""
        try:
            with np.load(self.folder / f"{name}.npz") as found:
                return {key: found[key] for key in found.files}
        except (FileNotFoundError, ValueError, zipfile.BadZipFile):
            return None  # a disk that lost power may have kept a name and not all of the content

    def finish(self) -> None:
        """Remove what an earlier run left unfinished."""
        for path in self.folder.glob(f".*{_UNFINISHED}"):
            path.unlink()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:57] + "…"

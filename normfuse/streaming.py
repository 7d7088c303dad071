"""Scoring more people than fit in memory: some at a time, onto disk, to be taken up if stopped."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .cohort import Cohort
from .deviation_files import (NARROW, read_narrow, read_wide, write_reference, write_table)
from .deviation_files import is_ours
from .deviation_files import read as read_deviations
from .deviations import MAPS, Deviations, Reference
from .errors import OutputExistsError
from .fitted import Fitted
from .inference import Inference
from .kinds import Kind
from .inputs import read_json
from .outputs import beside, refuse_existing, take_name
from .runners import Runner, one_after_the_other
from .stored import ROWS, StoredTable
from .training import in_notebook

MOST_ROWS, PIECE_VALUES = 8, 2 ** 17
"""Rows of chunks in a piece at most, and values that a piece of more than one row holds."""

_DONE, _RESULT = "done", "result"
"""Beside the result: marks of finished pieces, which a crash must leave until it has its name."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """Deviations of any of a cohort's people by a fitted model; can travel to another process."""

    fitted: Fitted
    cohort: Cohort
    kind: Kind
    inference: Inference
    reference: Reference

    def __call__(self, ids: Sequence[str]) -> Deviations:
        found = self.fitted.score(self.cohort.select(ids), self.kind, self.inference)
        return found.changed(reference=self.reference)

    @property
    def identity(self) -> str:
        """The same for the same model, settings and people."""
        what = f"{self.reference.to_dict()}|{self.kind!r}|{self.inference!r}"
        digest = hashlib.sha256(what.encode() + self.cohort.subjects.to_csv().encode())
        for name, block in self.cohort.features.as_is().items():
            digest.update(name.encode())
            pieces = (values for _, values in block.by_people(people_at_once(self))) \
                if isinstance(block, StoredTable) else [block.to_numpy()]
            for values in pieces:
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def score_to(folder: Path, cohort: Cohort, score: Scorer, *, overwrite: bool = False,
             run: Runner = one_after_the_other, progress: bool | None = None) -> Deviations:
    """Score everybody, some people at a time, into a folder for :meth:`Deviations.read`.

    Every piece is marked once all of it is written, and the folder takes its name when the last
    piece is done: after a crash the same call goes on where it stopped, and gives what it would
    have given. A row of zarr chunks belongs to one piece, so that pieces may be written by
    different processes.

    Parameters
    ----------
    score : Scorer
        Its ``identity`` says whether what lies there may be taken up.
    run : Runner
    progress : bool, optional
        Show a bar; by default where somebody looks.

    Raises
    ------
    OutputExistsError
        The folder is there, or holds the unfinished work of another scoring.
    """
    refuse_existing(folder, overwrite)
    work = folder.with_name(f".{folder.name}.unfinished")
    refuse_existing(work, overwrite=True)  # clears away what was killed as it began
    if folder.exists() and not (folder / "reference.json").exists():
        raise OutputExistsError(f"{folder} was not written by scoring (it holds no "
                                "reference.json) and will not be replaced; choose another name")
    refuse_existing(folder, overwrite, is_ours)
    _begin(work, cohort, score)
    task = _Piece(work.absolute(), list(cohort.ids), score)
    pieces = range(-(-len(cohort) // task.people))
    todo = [k for k in pieces if not (work / _DONE / f"{k}").exists()]
    for _ in _shown(run(task, todo), task.people, len(pieces), len(pieces) - len(todo), progress):
        pass
    return _finish(work, folder, len(pieces), score.reference)


def people_at_once(score: Scorer) -> int:
    """Of a piece: whole rows of chunks, more of them where features are few, as every piece costs
    some time by itself."""
    width = sum(m.n_features for m in score.fitted.preparation.modalities)
    return ROWS * max(1, min(MOST_ROWS, PIECE_VALUES // (ROWS * width)))


class _Piece:
    """Scores one piece and writes it; a class, so that it can travel to another process."""

    def __init__(self, work: Path, ids: list[str], score: Scorer) -> None:
        self.work, self.ids, self.score = work, ids, score
        self.people = people_at_once(score)

    def __call__(self, k: int) -> int:
        first = k * self.people
        found = self.score(self.ids[first:first + self.people])
        for name in MAPS:
            for m, block in found.blocks(name).items():
                StoredTable.open(self.work / _RESULT / name / m, "r+").write(
                    first, block.to_numpy())
        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            for name in (*NARROW, "attribution"):
                table = getattr(found, name)
                if table is not None:
                    write_table(table, name, Path(temporary))
            done = self.work / _DONE / f"{k}"
            if not done.exists():  # another process may have been faster
                os.rename(temporary, done)
                os.mkdir(temporary)  # for the context to remove
        return k


def _begin(work: Path, cohort: Cohort, score: Scorer) -> None:
    plan = {"identity": score.identity, "people": people_at_once(score)}
    if work.exists() and not (work / _RESULT).exists():
        shutil.rmtree(work)  # its result has its name already
    if work.exists():
        if not (work / "plan.json").exists() or \
                _planned(work / "plan.json") != plan:
            raise OutputExistsError(f"{work} holds the unfinished work of another scoring; remove "
                                    "it, or choose another folder")
        return
    with beside(work) as temporary:
        new = temporary / "new"
        for name in MAPS:
            for m in score.fitted.preparation.modalities:
                StoredTable.create(new / _RESULT / name / m.name, cohort.ids, m.features)
        (new / _DONE).mkdir()
        (new / "plan.json").write_text(json.dumps(plan))
        os.rename(new, work)


def _planned(file: Path) -> Any:
    """What a folder of unfinished work was begun for; None if its note is damaged."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return None


def _finish(work: Path, folder: Path, n_pieces: int, reference: Reference) -> Deviations:
    """One table of all pieces' small ones; then the folder gets its name."""
    parts, result = [work / _DONE / f"{k}" for k in range(n_pieces)], work / _RESULT
    for name in (*NARROW, "attribution"):
        if (parts[0] / f"{name}.csv").exists():
            _join(parts, name, result)
    write_reference(reference, result)
    take_name(result, folder, is_ours)
    shutil.rmtree(work)
    return read_deviations(folder)


def _join(parts: Sequence[Path], name: str, result: Path) -> None:
    """All pieces' lines under one header, as they are: no table of everybody is made."""
    with tempfile.TemporaryDirectory() as temporary:
        write_table(_read(parts[0], name).iloc[:0], name, Path(temporary))
        header = (Path(temporary) / f"{name}.csv").read_bytes()
    with (result / f"{name}.csv").open("wb") as joined:
        joined.write(header)
        for part in parts:
            joined.write((part / f"{name}.csv").read_bytes()[len(header):])


def _read(part: Path, name: str) -> pd.DataFrame:
    if name == "attribution":
        return read_wide(part, name)
    if name == "subjects":  # as text: what is read later must be what was written
        return pd.read_csv(part / "subjects.csv", dtype=str, keep_default_na=False
                           ).set_index("participant_id")
    return read_narrow(part, name)


def _shown(done: Iterable[int], people: int, total: int, before: int, progress: bool | None
           ) -> Iterable[Any]:
    from tqdm.auto import tqdm

    shown = sys.stderr.isatty() or in_notebook() if progress is None else progress
    return tqdm(done, total=total, initial=before, desc="scoring", unit=f" x {people} people",
                leave=False, disable=not shown)

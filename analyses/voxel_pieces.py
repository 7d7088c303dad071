"""Pieces of a comparison of voxels, which any process may compute and keep on disk."""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from normfuse.errors import BegunWorkError

from .effects import Array
from .kept_work import KeptWork
from .shuffles import Shuffles
from .voxel_ols import OlsModel
from .voxel_sums import FIXED
from .voxel_table import VoxelTable, tiles
from .voxel_welch import WelchModel

Model: TypeAlias = OlsModel | WelchModel

PIECES = 2
"""Of pieces kept on disk; goes up when other numbers come to stand in them."""

_TOGETHER = 16  # shuffled maps read back at once


@dataclass(eq=False)
class Stretches:
    """Statistics of one stretch of voxels after the other, and the shuffles' extremes in them.

    Parameters
    ----------
    people : VoxelTable
    model : OlsModel or WelchModel
    shuffles : Shuffles or None
    work : KeptWork
        Where pieces are kept; those that are there are not computed again.
    checks : bool
        Whether an older piece must be of the same values.
    keeps_maps : bool
        Whether all shuffled maps are wanted, not their extremes alone.
    """

    people: VoxelTable
    model: Model
    shuffles: Shuffles | None
    work: KeptWork
    checks: bool
    keeps_maps: bool

    @cached_property
    def all(self) -> list[slice]:
        """The stretches; a piece is numbered by its place here."""
        return self.people.stretches()

    @cached_property
    def _room(self) -> Array:
        return self.people.room()

    def __call__(self, k: int) -> int:
        self.work.must_be_seen()
        at, name = self.all[k], _name(self.all[k])
        y = self.people.read(at, self._room)
        mark, piece = np.array(mark_of(y) if self.checks else ""), self.work.load(name)
        if piece is not None and piece["mark"] != mark:
            raise BegunWorkError(
                f"{self.work.folder} was begun with other values of voxels {at.start} to "
                f"{at.stop}; choose another folder for this computation, or remove it")
        shape = (0 if self.shuffles is None else self.shuffles.n, at.stop - at.start)
        if piece is None or (self.keeps_maps
                             and not self.work.holds(f"{name}-null.npy", shape, np.float32)):
            self.work.save(name, mark=mark, **self._computed(y, name))
        return k

    def maps(self) -> dict[str, Array]:
        """Of all voxels, and ``highest`` and ``lowest`` by shuffle, once all pieces are done."""
        pieces = [self.work.piece(_name(at)) for at in self.all]
        found = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]
                 if name not in ("mark", "highest", "lowest")}
        if self.shuffles is not None:
            found["highest"] = np.max([piece["highest"] for piece in pieces], axis=0)
            found["lowest"] = np.min([piece["lowest"] for piece in pieces], axis=0)
        return found

    def _computed(self, y: Array, name: str) -> dict[str, Array]:
        parts, n = [], 0 if self.shuffles is None else self.shuffles.n
        highest, lowest = np.full(n, -np.inf), np.full(n, np.inf)
        with self._null_maps(name, (n, y.shape[1])) as kept:
            for at in tiles(y.shape[1]):
                tile = y[:, at]
                found = self.model.statistics(tile)
                parts.append(found)
                if self.shuffles is None:
                    continue
                self._take_out_the_fixed(tile, found, self.shuffles)
                for drawn, some, t in self.model.shuffled(tile, ~np.isnan(found["t"]),
                                                          self.shuffles):
                    highest[drawn] = np.maximum(highest[drawn], t.max(axis=1))
                    lowest[drawn] = np.minimum(lowest[drawn], t.min(axis=1))
                    if kept is not None:
                        kept[drawn, at.start + some] = t
        made = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return {**made, "highest": highest, "lowest": lowest} if n else made

    def _take_out_the_fixed(self, tile: Array, found: dict[str, Array], shuffles: Shuffles
                            ) -> None:
        """What no shuffle changes would be the largest t of every map."""
        case = self.model.case > 0
        some = np.flatnonzero(found["n_case"] + found["n_baseline"] < len(case))
        some = some[~np.isnan(found["t"][some])]
        fixed = some[~shuffles.mixed(case, np.isfinite(tile[:, some]))]
        found["reason"][fixed] = FIXED
        for name in ("t", "df", "adjusted_difference"):
            found[name][fixed] = np.nan

    @contextmanager
    def _null_maps(self, name: str, shape: tuple[int, int]) -> Iterator[Array | None]:
        """On disk, a row a shuffle; None if nobody needs them."""
        if not self.keeps_maps:
            yield None
            return
        with self.work.writing(f"{name}-null.npy") as path:
            kept = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            yield kept
            kept.flush()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_room"}


@dataclass(frozen=True, eq=False)
class OfEachMap:
    """A number of every shuffled map, some maps at a time, once all stretches are done."""

    function: Callable[[Array], float]
    n: int
    stretches: list[slice]
    work: KeptWork

    @property
    def pieces(self) -> range:
        return range(-(-self.n // _TOGETHER))

    def __call__(self, k: int) -> int:
        self.work.must_be_seen()
        if self.work.load(self._name(k)) is None:
            at = slice(k * _TOGETHER, min((k + 1) * _TOGETHER, self.n))
            maps = np.hstack([np.load(self.work.folder / f"{_name(s)}-null.npy", mmap_mode="r",
                                      allow_pickle=False)[at]
                              for s in self.stretches])
            self.work.save(self._name(k), found=np.array([self.function(one) for one in maps]))
        return k

    def found(self) -> Array:
        """Shape (n,), once all pieces are done."""
        return np.concatenate([self.work.piece(self._name(k))["found"] for k in self.pieces])

    def _name(self, k: int) -> str:
        return f"maps-{k * _TOGETHER:09d}"


def _name(voxels: slice) -> str:
    return f"voxels-{voxels.start:09d}"


def mark_of(values: Array) -> str:
    """The same for the same bytes."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()

"""People's voxels: values read a stretch at a time, whose they are, and where in the brain."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from normfuse.cards import Card, some
from normfuse.errors import CohortError, ComparisonError, SpaceMismatchError, listed
from normfuse.space import Space
from normfuse.stored import COLUMNS, StoredTable

from .deviation_maps import beyond
from .effects import Array

if TYPE_CHECKING:
    from normfuse.deviations import Deviations

TILE = 4096
"""Voxels computed together. Tiles begin at its multiples however many voxels are read at once:
so the last bit of a result does not depend on the memory at hand."""

READ_VALUES = 2 ** 27
"""Values in memory at once, 512 MiB of float32; only more than 8,192 people reach it."""

_ROWS = 1024  # read at a time: what zarr needs beside the result stays small


@dataclass(frozen=True)
class Beyond:
    """1 where z lies beyond a threshold, 0 where it does not, NaN where nothing was measured.

    Examples
    --------
    >>> Beyond(1.96, "below")(np.array([[-2.5, 2.5, np.nan]]))
    array([[ 1.,  0., nan]], dtype=float32)
    """

    threshold: float
    direction: str

    def __post_init__(self) -> None:
        beyond(pd.DataFrame([0.0]), self.threshold, self.direction)  # refuses what it cannot do

    def __call__(self, z: Array) -> Array:
        far = {"both": np.abs(z) > self.threshold, "below": z < -self.threshold,
               "above": z > self.threshold}[self.direction]
        return np.where(np.isnan(z), np.float32(np.nan), far.astype(np.float32))


@dataclass(frozen=True, eq=False)
class VoxelTable:
    """One value a person and voxel, on disk or in memory.

    Parameters
    ----------
    values : StoredTable, DataFrame or ndarray, shape (n_subjects, n_voxels)
        NaN where nothing was measured. Of a table with names the columns are the space's voxels
        and people are found by id; of a bare array rows are those of ``subjects``. Read as
        float32.
    subjects : DataFrame
        Index: ids. People without values are left out, with a note.
    space : Space
        Where the voxels are.
    covariates : dict
        Name -> ``{"kind": "continuous" | …}``: what a comparison adjusts for if not told
        otherwise.
    coded : Beyond, optional
        What becomes of the values as they are read.
    notes : tuple of str
        Who of ``subjects`` was left out is added.
    modality, kind : str
        Whose values these are, and of which kind of deviation; for the words of a result.

    Raises
    ------
    SpaceMismatchError
        If the columns are not the voxels of the space.
    CohortError
        If an id is there twice, or nobody is in both.

    Examples
    --------
    >>> space = Space(np.ones((1, 2, 3), bool), np.eye(4), "MNI152NLin2009aSym")
    >>> people = pd.DataFrame({"dx": ["AD", "CN"]}, index=["s1", "s2"])
    >>> VoxelTable(np.arange(12.0).reshape(2, 6), people, space)
    <VoxelTable of 2 people, 6 voxels of MNI152NLin2009aSym>
    """

    values: StoredTable | pd.DataFrame | Array
    subjects: pd.DataFrame
    space: Space
    covariates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    coded: Beyond | None = None
    notes: tuple[str, ...] = ()
    modality: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        values, subjects = self.values, self.subjects
        if not isinstance(values, (StoredTable, pd.DataFrame)):
            values = pd.DataFrame(np.asarray(values))
            if values.shape[0] != len(subjects):
                raise CohortError(f"an array has a row for each of the {len(subjects)} people of "
                                  f"subjects; got {values.shape[0]} rows")
            values.index = subjects.index
            if values.shape[1] == self.space.n_voxels:
                values.columns = pd.Index(self.space.features)
        self._check_voxels(values.columns)
        for what, index in (("values", values.index), ("subjects", subjects.index)):
            if index.has_duplicates:
                raise CohortError(f"{what} list somebody twice: "
                                  f"{listed(index[index.duplicated()].unique())}")
        given = values.index
        both = given.intersection(subjects.index, sort=False)
        if isinstance(values, StoredTable):
            at = values.rows[values.index.get_indexer(both)]
            # as they lie on disk: stretches are read at once
            both = both[at >= 0][np.argsort(at[at >= 0], kind="stable")]
            values = values.select(both)
        else:
            values = values.loc[both]
        if not len(both):
            raise CohortError(f"nobody is in both: subjects has {listed(subjects.index, 3)}; "
                              f"there are values of {listed(given, 3)}")
        lacking = subjects.index.difference(both)
        if len(lacking):
            note = f"left out {len(lacking)} people without values ({listed(lacking)})"
            object.__setattr__(self, "notes", (*self.notes, note))
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "subjects", subjects.loc[both])

    def _check_voxels(self, columns: pd.Index) -> None:
        if not np.array_equal(columns.astype(str), np.array(self.space.features)):
            raise SpaceMismatchError(
                f"{len(columns)} columns ({listed(columns, 3)}) are not the {self.space.n_voxels} "
                f"voxels of {self.space.name} ({listed(self.space.features, 3)}); name and order "
                "them as space.features does")

    @classmethod
    def of(cls, deviations: Deviations, modality: str) -> VoxelTable:
        """z of one modality, the reference's held-out controls with it.

        Stays on disk if it lies there and no controls are kept in memory (as after ``read``).

        Raises
        ------
        ComparisonError
            If the modality is unknown or is not one of voxels.

        Examples
        --------
        >>> from normfuse.testing import tiny_voxel_deviations
        >>> VoxelTable.of(tiny_voxel_deviations(3, 12), "t1")
        <VoxelTable of 15 people, 2828 voxels of MNI152NLin6Asym>
        """
        facts = deviations.reference.modalities
        if modality not in facts or modality not in deviations.modalities:
            raise ComparisonError(f"there is no modality {modality!r}; there is "
                                  f"{listed(deviations.modalities)}")
        if "space" not in facts[modality]:
            raise ComparisonError(f"{modality} has no voxels: nothing says where its features "
                                  "are; compare_groups compares it feature by feature")
        space = Space.from_dict(facts[modality]["space"])
        whose: dict[str, Any] = {"modality": modality, "kind": deviations.reference.kind}
        covariates = deviations.reference.covariates
        values, subjects = deviations.blocks().as_is()[modality], deviations.subjects
        if isinstance(values, StoredTable) and deviations.controls is None:
            return cls(values.select(measured(values)), subjects, space, covariates, **whose)
        parts = [deviations.blocks()[modality]]
        if deviations.controls is not None:
            theirs = deviations.controls.subjects
            new = theirs.index.difference(subjects.index, sort=False)
            parts.append(deviations.controls.blocks()[modality].loc[new])
            subjects = pd.concat([subjects, theirs.loc[new]])
        return cls(pd.concat(parts).dropna(how="all"), subjects, space, covariates, **whose)

    def __len__(self) -> int:
        return len(self.subjects)

    def select(self, ids: Sequence[str] | pd.Index) -> VoxelTable:
        """These people, in the order of this table.

        Raises CohortError if somebody is not in it.
        """
        unknown = pd.Index(ids).difference(self.subjects.index)
        if len(unknown):
            raise CohortError(f"not in this table: {listed(unknown)}")
        kept = self.subjects.index[self.subjects.index.isin(ids)]  # in the order they are read
        chosen = copy(self)  # checked already
        values = self.values
        for name, part in (("subjects", self.subjects.loc[kept]), (
                "values", values.select(kept) if isinstance(values, StoredTable)
                else values.loc[kept])):  # type: ignore[union-attr]
            object.__setattr__(chosen, name, part)
        return chosen

    def beyond(self, threshold: float, direction: str = "both") -> VoxelTable:
        """Whether each value lies beyond a threshold; nothing is read yet."""
        return replace(self, coded=Beyond(threshold, direction))

    @property
    def width(self) -> int:
        """Voxels to read at once: as on disk, fewer if there are very many people."""
        width = COLUMNS
        while width > TILE and width * len(self) > READ_VALUES:
            width //= 2
        return width

    def stretches(self) -> list[slice]:
        """All voxels, some at a time."""
        width, n = self.width, self.space.n_voxels
        return [slice(start, min(start + width, n)) for start in range(0, n, width)]

    def room(self) -> Array:
        """Memory for a stretch of everybody's voxels, to be used again and again.

        To be given new pages takes as long as to read them.
        """
        return np.empty(len(self) * min(self.width, self.space.n_voxels), dtype=np.float32)

    def read(self, voxels: slice, room: Array) -> Array:
        """Some voxels of everybody, float32, in the order of ``subjects``; lies in ``room``.

        Examples
        --------
        >>> space = Space(np.ones((1, 2, 3), bool), np.eye(4), "MNI152NLin2009aSym")
        >>> people = pd.DataFrame({"dx": ["AD", "CN"]}, index=["s1", "s2"])
        >>> table = VoxelTable(np.arange(12.0).reshape(2, 6), people, space)
        >>> table.width >= 6, table.select(["s2"]).read(slice(1, 3), table.room()).tolist()
        (True, [[7.0, 8.0]])
        """
        wide = voxels.stop - voxels.start
        found = room[:len(self) * wide].reshape(len(self), wide)
        for start in range(0, len(self), _ROWS):
            at = slice(start, min(start + _ROWS, len(self)))
            if isinstance(self.values, StoredTable):
                part = self.values.values(people=at, features=voxels)
            else:
                part = self.values.iloc[at, voxels].to_numpy()  # type: ignore[union-attr]
            found[at] = part if self.coded is None else self.coded(part)
        return found

    def __repr__(self) -> str:
        return (f"<VoxelTable of {len(self)} people, {self.space.n_voxels} voxels of "
                f"{self.space.name}>")

    def _repr_html_(self) -> str:
        return Card("VoxelTable", f"of {len(self)} people", {
            "voxels": repr(self.space).strip("<>"),
            "columns of the subjects": some(self.subjects.columns)}).html()


def measured(table: StoredTable) -> pd.Index:
    """Who has a value in any voxel.

    Reads the first voxels of everybody, and the others of those alone who have none in these.
    """
    asked = np.flatnonzero(table.rows >= 0)
    found = np.zeros(len(table), bool)
    for start in range(0, table.shape[1], COLUMNS):
        at = slice(start, min(start + COLUMNS, table.shape[1]))
        for asking in (asked[k:k + _ROWS] for k in range(0, len(asked), _ROWS)):
            part = table.select(table.index[asking]).values(features=at)
            found[asking] = ~np.isnan(part).all(axis=1)
        asked = asked[~found[asked]]
        if not len(asked):
            break
    return table.index[found]


def tiles(n: int) -> Iterator[slice]:
    """Stretches of ``TILE`` voxels within what was read."""
    for start in range(0, n, TILE):
        yield slice(start, min(start + TILE, n))

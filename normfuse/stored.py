"""Tables that lie on disk and are read a piece at a time: people down, voxels across."""
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .cards import Card
from .errors import CohortError, ModelFileError, listed
from .inputs import read_json, refuse_size

ROWS, COLUMNS = 64, 16_384
"""Of a chunk on disk: 4 MiB of float32. People are scored some at a time, voxels tested some at a
time; both read only what they need."""

BLOCK_VALUES = 2 ** 26
"""Values in memory at once when a table is gone through, 256 MiB of float32."""


class StoredTable:
    """One modality's values of many people, float32, in a zarr array.

    Lazy: selecting people only notes who they are. :meth:`frame` reads.

    Parameters
    ----------
    array : zarr.Array, shape (n_stored, n_features)
    index : Index of str
        The people of this table, in its order.
    rows : ndarray of int
        Where in the array each of them is; -1: nowhere, a row of NaN.
    columns : Index of str
        Features.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = StoredTable.create(Path(folder, "t1"), ["s1", "s2", "s3"], ["a", "b"])
    ...     table.write(0, np.array([[1, 2], [3, 4], [5, 6]]))
    ...     StoredTable.open(Path(folder, "t1")).select(["s3", "s1"]).frame().to_numpy()
    array([[5., 6.],
           [1., 2.]], dtype=float32)
    """

    def __init__(self, array: Any, index: pd.Index, rows: np.ndarray, columns: pd.Index) -> None:
        self.array, self.rows, self.columns = array, rows, columns
        self.index = index.rename("participant_id")

    @classmethod
    def create(cls, path: str | Path, index: Iterable[str], columns: Iterable[str],
               attributes: dict[str, Any] | None = None) -> StoredTable:
        """A new table full of NaN; the folder must not exist yet."""
        import zarr

        ids, names = pd.Index([str(i) for i in index]), pd.Index([str(c) for c in columns])
        # uncompressed: noise in float32 shrinks by a tenth and takes three times as long
        array = zarr.create_array(str(path), shape=(len(ids), len(names)), dtype="float32",
                                  chunks=(min(ROWS, max(1, len(ids))), min(COLUMNS, len(names))),
                                  fill_value=np.nan, compressors=None,
                                  attributes=dict(attributes or {}))
        # beside the array, not among its attributes: zarr writes those anew with every change
        (Path(path) / "people.json").write_text(json.dumps(list(ids)), encoding="utf-8")
        (Path(path) / "features.json").write_text(json.dumps(list(names)), encoding="utf-8")
        return cls(array, ids, np.arange(len(ids)), names)

    @classmethod
    def open(cls, path: str | Path, mode: str = "r") -> StoredTable:
        """A table that :meth:`create` made; ``mode`` is ``"r"`` or ``"r+"``.

        Raises
        ------
        ModelFileError
            If the folder is no such table.
        """
        try:
            # absolute, as another process that reads it may stand elsewhere
            array = opened_array(Path(path).absolute(), mode)
            ids = read_json(Path(path) / "people.json")
            names = read_json(Path(path) / "features.json")
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ModelFileError(f"{path} is not a stored table: {problem}") from problem
        if not isinstance(ids, list) or not isinstance(names, list):
            raise ModelFileError(f"{path} is not a stored table: its people and features must be "
                                 "lists")
        if array.shape != (len(ids), len(names)):
            raise ModelFileError(f"{path}: the array has shape {array.shape}, but {len(ids)} "
                                 f"people and {len(names)} features are listed")
        return cls(array, pd.Index(map(str, ids)), np.arange(len(ids)), pd.Index(map(str, names)))

    @property
    def attributes(self) -> dict[str, Any]:
        """What was noted when it was made."""
        return dict(self.array.attrs)

    @property
    def shape(self) -> tuple[int, int]:
        """(people, features)"""
        return len(self.index), len(self.columns)

    def __len__(self) -> int:
        return len(self.index)

    def select(self, ids: Sequence[str] | pd.Index) -> StoredTable:
        """These people, in this order; nothing is read."""
        at = self.index.get_indexer(pd.Index(ids))
        if (at < 0).any():
            unknown = pd.Index(ids)[at < 0]
            raise CohortError(f"not in this table: {listed(unknown)}")
        return StoredTable(self.array, self.index[at], self.rows[at], self.columns)

    def reindexed(self, ids: Sequence[str] | pd.Index) -> StoredTable:
        """These people, in this order; NaN for those who are not in it."""
        ids = pd.Index(ids)
        at = self.index.get_indexer(ids)
        return StoredTable(self.array, ids, np.where(at < 0, -1, self.rows[at]), self.columns)

    @property
    def present(self) -> pd.Series:
        """Who is in it."""
        return pd.Series(self.rows >= 0, self.index)

    def values(self, people: slice = slice(None), features: slice = slice(None)) -> np.ndarray:
        """A piece of it, float32, by position."""
        rows = self.rows[people]
        if len(rows) and rows[0] >= 0 and (np.diff(rows) > 0).all():  # as on disk: no copy needed
            return self._read(rows, features)
        found = np.full((len(rows), len(self.columns[features])), np.nan, dtype=np.float32)
        if (rows >= 0).any():
            found[rows >= 0] = self._read(rows[rows >= 0], features)
        return found

    def _read(self, rows: np.ndarray, features: slice) -> np.ndarray:
        ordered = np.unique(rows)
        try:
            if len(ordered) == ordered[-1] - ordered[0] + 1:  # one stretch: no gather needed
                found = np.asarray(self.array[int(ordered[0]):int(ordered[-1]) + 1, features])
            else:
                found = np.asarray(self.array.oindex[ordered, features])
        except (ValueError, ArithmeticError, TypeError) as problem:
            raise ModelFileError(f"{self.array.store_path} is damaged, its values cannot be read: "
                                 f"{problem}") from problem
        same = np.array_equal(ordered, rows)
        return found if same else found[np.searchsorted(ordered, rows)]

    def frame(self) -> pd.DataFrame:
        """All of it in memory, float32."""
        return pd.DataFrame(self.values(), self.index, self.columns)

    def write(self, start: int, values: np.ndarray) -> None:
        """Put these people's values from the position ``start`` on; all features."""
        self.array[start:start + len(values)] = np.asarray(values, dtype=np.float32)

    def by_people(self, n: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Some people at a time, all their features."""
        n = n or max(1, BLOCK_VALUES // max(1, self.shape[1]) // ROWS * ROWS)
        for start in range(0, len(self), n):
            at = slice(start, min(start + n, len(self)))
            yield at, self.values(people=at)

    def by_features(self, n: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Some features at a time, of all people."""
        n = n or max(1, BLOCK_VALUES // max(1, len(self)))
        n = max(n // COLUMNS * COLUMNS, min(n, COLUMNS))
        for start in range(0, self.shape[1], n):
            at = slice(start, min(start + n, self.shape[1]))
            yield at, self.values(features=at)

    def __repr__(self) -> str:
        return f"<StoredTable of {self.shape[0]} people, {self.shape[1]} features>"

    def _repr_html_(self) -> str:
        return Card("StoredTable", f"of {self.shape[0]} people and {self.shape[1]} features, on "
                    "disk", {"held": f"{4 * self.array.size / 2 ** 20:.0f} MiB of float32"}).html()


def opened_array(path: Path, mode: str) -> Any:
    """A zarr array as normfuse writes it: float32, chunks of some megabytes, nothing to unpack.

    Others are refused unread: a chunk may be said to have any size, and zarr has filters that
    unpickle.

    Raises
    ------
    OSError, ValueError
        If it is no such array.
    """
    import zarr
    from zarr.errors import BaseZarrError

    try:
        array = zarr.open_array(str(path), mode=mode)
    except (BaseZarrError, AttributeError, IndexError, OverflowError, NotImplementedError,
            RecursionError) as problem:
        raise ValueError(f"it cannot be understood: {problem}") from problem
    if array.dtype != np.float32 or array.metadata.zarr_format != 3 or array.filters \
            or array.compressors or len(array.shape) != 2:
        raise ValueError(f"it should be a zarr array of format 3, of two dimensions, float32 and "
                         f"not compressed; it is {array.dtype} of shape {array.shape}")
    if len(array.chunks) != 2 or not all(n > 0 for n in array.chunks):
        raise ValueError(f"its chunks should have two sides; they have {array.chunks}")
    refuse_size(float(np.prod(array.chunks, dtype=float)) * array.dtype.itemsize, "a chunk")
    return array

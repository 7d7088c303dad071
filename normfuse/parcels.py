"""Regions of voxels: which voxel belongs to which, and one value a region from many voxels."""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .cards import Shown
from .errors import AtlasError, SpaceMismatchError

if TYPE_CHECKING:
    import pandas as pd
    from nibabel.nifti1 import Nifti1Image

    from .atlas import Atlas
    from .space import Space
    from .stored import StoredTable

BLOCK_VALUES = 2 ** 23
"""Voxel values averaged at once; a few arrays of 64 MiB each, whatever the number of people."""


@dataclass(frozen=True, eq=False)
class Parcels:
    """An atlas's regions among the voxels of a space.

    Parameters
    ----------
    space : Space
    regions : DataFrame, index label number, column ``name``
        Every region of the atlas, in its order.
    labels : ndarray of int, shape (n_voxels,)
        Label of each voxel; 0 outside every region.

    Examples
    --------
    >>> import pandas as pd
    >>> from normfuse.space import Space
    >>> space = Space(np.ones((1, 2, 3), bool), np.eye(4), "MNI152NLin2009aSym")
    >>> parcels = Parcels(space, pd.DataFrame({"name": ["A", "B", "C"]}, index=[300, 7, 2]),
    ...                   np.array([0, 2, 300, 2, 0, 2]))
    >>> parcels.n_voxels.to_dict()
    {'A': 1, 'B': 0, 'C': 3}
    >>> WeightedMean().of(np.array([[9.0, 1, 5, 2, 9, 3]]), parcels).tolist()
    [[5.0, nan, 2.0]]
    """

    space: Space
    regions: pd.DataFrame
    labels: np.ndarray

    @classmethod
    def of(cls, atlas: Atlas, space: Space, *, least: int = 1) -> Parcels:
        """Voxels looked up in the atlas: see :meth:`normfuse.Atlas.on`, which warns and raises."""
        return cls(space, atlas.regions, atlas.on(space, least=least))

    @cached_property
    def n_voxels(self) -> pd.Series:
        """Of each region, by name; 0 if none."""
        import pandas as pd

        counts = np.bincount(self._row[self._row >= 0], minlength=len(self.regions))
        return pd.Series(counts, pd.Index(self.regions["name"], name="region"), name="n_voxels")

    @cached_property
    def _row(self) -> np.ndarray:
        """Row of each voxel's region; -1 for none. By number: 0 is no row of the table."""
        import pandas as pd

        return self.regions.index.get_indexer(pd.Index(self.labels))

    @cached_property
    def order(self) -> np.ndarray:
        """Positions of the voxels that have a region, those of a region side by side."""
        order = np.argsort(self._row, kind="stable")
        return order[np.searchsorted(self._row[order], 0):]

    @cached_property
    def found(self) -> np.ndarray:
        """Rows of the regions that have voxels, in the order of :attr:`order`."""
        return np.flatnonzero(self.n_voxels.to_numpy())

    @cached_property
    def starts(self) -> np.ndarray:
        """Where in :attr:`order` each of those begins."""
        counts = self.n_voxels.to_numpy()[self.found]
        return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp)


@dataclass(frozen=True, eq=False)
class RegionMean(Shown, ABC):
    """One value a region from the values of its voxels.

    Parameters
    ----------
    coverage : float
        A person's value is NaN if less than this share of a region was measured: a mean of a
        corner is none of the region.
    """

    coverage: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.coverage <= 1:
            raise AtlasError(f"coverage is a share between 0 and 1; got {self.coverage}")

    def of(self, values: np.ndarray, parcels: Parcels) -> np.ndarray:
        """Means of regions, shape (n_people, n_regions), float64; NaN for regions without voxels.

        Parameters
        ----------
        values : ndarray, shape (n_people, n_voxels)
            NaN where nothing was measured.
        parcels : Parcels
            With as many voxels.
        """
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[1] != parcels.space.n_voxels:
            raise SpaceMismatchError(f"values must be people by the {parcels.space.n_voxels} "
                                     f"voxels of {parcels.space!r}; got shape {values.shape}")
        made = np.full((len(values), len(parcels.regions)), np.nan)
        step = max(1, BLOCK_VALUES // values.shape[1])
        for start in range(0, len(values), step):
            inside = values[start:start + step, parcels.order].astype(np.float64)
            made[start:start + step, parcels.found] = self._mean(inside, parcels)
        return made

    @abstractmethod
    def _mean(self, inside: np.ndarray, parcels: Parcels) -> np.ndarray:
        """Of the values in ``parcels.order``, for the regions in ``parcels.found``."""


@dataclass(frozen=True, eq=False)
class WeightedMean(RegionMean):
    r"""The mean over a region's measured voxels.

    .. math:: \bar y_r = p + \frac{\sum_{v \in r} w_v (y_v - p)}{\sum_{v \in r} w_v}

    with any p; here a voxel of the region, so that the mean of equal values is that value to the
    last digit, and large offsets cost no digits.

    Parameters
    ----------
    weights : Nifti1Image or ndarray of shape (n_voxels,), optional
        :math:`w_v \ge 0`, such as a grey-matter probability; an image on the grid of the voxels.
        All 1 by default.

    Examples
    --------
    >>> WeightedMean(np.array([1.0, 3.0])).weights.tolist()
    [1.0, 3.0]
    """

    weights: Nifti1Image | np.ndarray | None = None

    def _mean(self, inside: np.ndarray, parcels: Parcels) -> np.ndarray:
        weights = self._weights(parcels)[parcels.order]
        made = np.empty((len(inside), len(parcels.found)))
        for i, (part, w) in enumerate(zip(np.split(inside, parcels.starts[1:], axis=1),
                                          np.split(weights, parcels.starts[1:]))):
            made[:, i] = self._weighted(part, w)
        return made

    def _weighted(self, part: np.ndarray, weights: np.ndarray) -> np.ndarray:
        pivot = np.nan_to_num(part[:, :1])
        away = part - pivot
        measured = ~np.isnan(away)
        total = (measured * weights).sum(axis=1)
        # sums of rows, not a matrix product: its rounding depends on how many people there are
        summed = (np.where(measured, away, 0.0) * weights).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = pivot[:, 0] + summed / total
        return np.where((total > 0) & (total >= self.coverage * weights.sum()), mean, np.nan)

    def _weights(self, parcels: Parcels) -> np.ndarray:
        if self.weights is None:
            return np.ones(parcels.space.n_voxels)
        given = (self.weights if isinstance(self.weights, np.ndarray)
                 else parcels.space.values(self.weights))
        weights = given.astype(np.float64)
        if weights.shape != (parcels.space.n_voxels,) or not (weights >= 0).all():
            raise SpaceMismatchError(
                f"weights are one number of 0 or more for each of the {parcels.space.n_voxels} "
                f"voxels; got shape {weights.shape}, {int((~(weights >= 0)).sum())} below 0 or "
                "NaN")
        return weights

    def __repr__(self) -> str:
        weights = "" if self.weights is None else "weights=…, "
        return f"WeightedMean({weights}coverage={self.coverage:g})"


@dataclass(frozen=True, eq=False)
class RobustMean(RegionMean):
    """The mean without the lowest and highest voxels of each person's region.

    Of n measured voxels the floor(trim n) lowest and as many highest are left out: a vessel, an
    edge or a few voxels that were registered into fluid do not move it.

    Parameters
    ----------
    trim : float
        Share left out at each end, below .5; 0 is the mean.

    References
    ----------
    Wilcox (2012), Introduction to Robust Estimation, ch. 3 (trimmed mean); SciPy's ``trim_mean``
    is the same for a region without missing voxels.

    Examples
    --------
    >>> RobustMean(0.2)
    RobustMean(coverage=0.5, trim=0.2)
    """

    trim: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.trim < 0.5:
            raise AtlasError(f"trim is a share from 0 to below .5; got {self.trim}")

    def _mean(self, inside: np.ndarray, parcels: Parcels) -> np.ndarray:
        made = np.empty((len(inside), len(parcels.found)))
        for i, part in enumerate(np.split(inside, parcels.starts[1:], axis=1)):
            made[:, i] = self._trimmed(part)
        return made

    def _trimmed(self, part: np.ndarray) -> np.ndarray:
        ordered = np.sort(part, axis=1)  # NaN last
        n = (~np.isnan(ordered)).sum(axis=1, keepdims=True)
        # as SciPy's, except that .1 * 30 must not be 2.999…
        cut = np.floor(self.trim * n + 1e-9).astype(int)
        place = np.arange(part.shape[1])
        kept = (place >= cut) & (place < n - cut)
        pivot = np.where(n > 0, ordered[:, :1], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.where(kept, ordered - pivot, 0.0).sum(axis=1) / kept.sum(axis=1)
        mean = pivot[:, 0] + away
        return np.where((n[:, 0] > 0) & (n[:, 0] >= self.coverage * part.shape[1]), mean, np.nan)


def region_table(table: StoredTable | pd.DataFrame, parcels: Parcels, *,
                 how: RegionMean = WeightedMean()) -> pd.DataFrame:
    """A table of voxels as a table of regions, people by people: never all voxels at once.

    Parameters
    ----------
    table : StoredTable or DataFrame
        Columns are the voxels of ``parcels.space``, by name (``"12,40,7"``), in any order.
    parcels : Parcels
    how : RegionMean

    Returns
    -------
    DataFrame, shape (n_people, n_regions), columns the regions' names

    Raises
    ------
    SpaceMismatchError
        If a voxel of the space is not among the columns.

    Examples
    --------
    >>> import pandas as pd
    >>> from normfuse.space import Space
    >>> space = Space(np.ones((1, 1, 3), bool), np.eye(4), "MNI152NLin2009aSym")
    >>> parcels = Parcels(space, pd.DataFrame({"name": ["A"]}, index=[300]),
    ...                   np.array([300, 0, 300]))
    >>> voxels = pd.DataFrame([[1.0, 9, 2]], ["sub-1"], ["0,0,2", "0,0,1", "0,0,0"])
    >>> region_table(voxels, parcels).to_dict()
    {'A': {'sub-1': 1.5}}
    """
    import pandas as pd

    at = table.columns.get_indexer(pd.Index(parcels.space.features))
    if (at < 0).any():
        raise SpaceMismatchError(f"{int((at < 0).sum())} of the {parcels.space.n_voxels} voxels "
                                 f"of {parcels.space!r} are not among the table's columns")
    straight = len(at) == table.shape[1] and (at == np.arange(len(at))).all()
    rows = ([(slice(None), table.to_numpy())] if isinstance(table, pd.DataFrame)
            else table.by_people())
    made = [how.of(values if straight else values[:, at], parcels) for _, values in rows]
    names = pd.Index(parcels.regions["name"], name="region")
    return pd.DataFrame(np.concatenate(made), table.index, names)

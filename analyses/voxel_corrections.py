"""What becomes of p when a brain of voxels is tested: false discovery, or family-wise by shuffles.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import stats

from normfuse.cards import Shown
from normfuse.errors import ComparisonError

from .clusters import Box, Clusters, tfce
from .effects import Array, corrected
from .equivalents import Heights

_TIE = 1e-5  # of a sum over voxels: as far as single precision may put one and the same apart


@dataclass(frozen=True, eq=False)
class _LargestCluster:
    """Of a map; a class, so that it can travel to another process."""

    threshold: float
    box: Box
    two_sided: bool
    of: str

    def __call__(self, t: Array) -> float:
        found = Clusters.of(t, np.full(len(t), self.threshold), self.box, two_sided=self.two_sided)
        return float(getattr(found, self.of).max(initial=0))


@dataclass(frozen=True, eq=False)
class _LargestTfce:
    """The same of threshold-free enhancement."""

    box: Box
    two_sided: bool

    def __call__(self, t: Array) -> float:
        return float(np.abs(tfce(t, self.box, two_sided=self.two_sided)).max(initial=0))


@dataclass(frozen=True, eq=False)
class Null:
    """What shuffles found, and what is held against it.

    Attributes
    ----------
    highest, lowest : ndarray, shape (n_permutations,)
        The largest and smallest t of each shuffled map.
    each : callable
        ``each(function)`` -> one value of each shuffled map of t, (n_permutations,). The function
        may be sent to other processes.
    heights : Heights
        Of the data. All t are of the same degrees of freedom, or equivalent to such.
    """

    highest: Array
    lowest: Array
    each: Callable[[Callable[[Array], float]], Array]
    heights: Heights


@dataclass(frozen=True, eq=False)
class Corrected:
    """Maps that a correction adds, the null it drew, and notes."""

    maps: dict[str, Array]
    null: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenjaminiHochberg(Shown):
    """The share of false discoveries among the voxels called different, by their p: ``q``.

    References
    ----------
    Benjamini & Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x.

    Examples
    --------
    >>> BenjaminiHochberg().correct({"p": np.array([0.01, 0.5, np.nan, 0.02])}).maps["q"].tolist()
    [0.030000000000000002, 0.5, nan, 0.030000000000000002]
    """

    def correct(self, maps: dict[str, Array]) -> Corrected:
        """q of every voxel that was tested."""
        return Corrected({"q": corrected(pd.Series(maps["p"]), "fdr_bh").to_numpy()})

    def __str__(self) -> str:
        return "Benjamini-Hochberg over voxels"


@dataclass(frozen=True)
class Shuffled(Shown):
    """Family-wise error by shuffling people; see its kinds.

    Parameters
    ----------
    n_permutations : int
        The smallest p is 1 / (n_permutations + 1).
    blocks : str or None
        Column of ``subjects`` within which people may change places: those of one site are
        exchangeable where those of two are not. None: everybody with everybody.
    seed : int
    """

    n_permutations: int = 1000
    blocks: str | None = "site"
    seed: int = 0
    keeps_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, least in (("n_permutations", 1), ("seed", 0)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, Integral) or given < least:
                raise ComparisonError(f"{name} is a whole number, {least} at least; got {given!r}")

    def correct_by(self, null: Null, box: Box, two_sided: bool) -> Corrected:
        """``p_fwe`` of every voxel that was tested."""
        raise NotImplementedError

    def _shuffles(self) -> str:
        within = f"within {self.blocks}" if self.blocks else "of everybody"
        return f"{self.n_permutations} permutations {within}, seed {self.seed}"


@dataclass(frozen=True)
class MaxT(Shuffled):
    r"""Is a voxel's t larger than the largest t of the brain when the groups mean nothing?

    .. math:: p = \frac{1 + \#\{k : \max_v |t^{(k)}_v| \ge |t|\}}{1 + n}

    By Freedman and Lane where there are covariates. t of a voxel that was measured in fewer people
    reaches further by chance; it counts as the t of everybody's degrees of freedom that is as
    improbable, so that a few such voxels do not decide for the whole brain.

    References
    ----------
    Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060.

    Examples
    --------
    >>> print(MaxT(999))
    family-wise by the largest t, 999 permutations within site, seed 0
    """

    def correct_by(self, null: Null, box: Box, two_sided: bool) -> Corrected:
        """p_fwe of every voxel."""
        seen, least = null.heights.seen, null.heights.least
        if two_sided:
            drawn, least = np.maximum(null.highest, -null.lowest), np.abs(least)
        else:  # below zero, too, a tie must not be lost
            drawn, least = null.highest, np.where(seen < 0, 2 * seen - least, least)
        return Corrected({"p_fwe": rank_p(least, drawn)}, pd.DataFrame({"largest t": drawn}))

    def __str__(self) -> str:
        return f"family-wise by the largest t, {self._shuffles()}"


@dataclass(frozen=True)
class Clustered(Shuffled):
    """Family-wise error of clusters; see its kinds.

    One threshold for all voxels and shuffles: where degrees of freedom differ, t is the equivalent
    of everybody's.

    Parameters
    ----------
    forming_p : float
        Voxels with a smaller uncorrected p form clusters.
    """

    forming_p: float = 0.001
    keeps_maps: ClassVar[bool] = True
    of: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.forming_p < 0.5:
            raise ComparisonError(f"forming_p lies between 0 and 0.5; got {self.forming_p}")

    def correct_by(self, null: Null, box: Box, two_sided: bool) -> Corrected:
        """``cluster`` numbers, and in ``p_fwe`` the p of a voxel's cluster; 1 outside of any."""
        untested = np.isnan(null.heights.seen)
        t, least = np.nan_to_num(null.heights.seen), np.nan_to_num(null.heights.least)
        height = float(stats.t.isf(self.forming_p / (2 if two_sided else 1), null.heights.df))
        drawn = null.each(_LargestCluster(height, box, two_sided, self.of))
        found = Clusters.of(t, np.full(len(t), height), box, two_sided=two_sided)
        size = np.append(0.0, getattr(found, self.of))
        beyond = np.maximum(np.abs(least) - height, 0)
        at_least = size if self.of == "extent" else np.bincount(found.label, beyond, len(size))
        p = np.append(1.0, rank_p(at_least[1:], drawn))[found.label]
        return Corrected({"cluster": found.label.astype(float),
                          f"cluster_{self.of}": size[found.label],
                          "p_fwe": np.where(untested, np.nan, p)},
                         pd.DataFrame({f"largest cluster {self.of}": drawn}))

    def __str__(self) -> str:
        return (f"family-wise by cluster {self.of} (voxels of p < {self.forming_p:g}), "
                f"{self._shuffles()}")


@dataclass(frozen=True)
class ClusterExtent(Clustered):
    """Is a cluster larger than the largest when the groups mean nothing? In voxels.

    Examples
    --------
    >>> print(ClusterExtent(999, forming_p=0.001))
    family-wise by cluster extent (voxels of p < 0.001), 999 permutations within site, seed 0
    """

    of: ClassVar[str] = "extent"


@dataclass(frozen=True)
class ClusterMass(Clustered):
    """Is a cluster heavier than the heaviest when the groups mean nothing? In t x voxels.

    Examples
    --------
    >>> print(ClusterMass(999))
    family-wise by cluster mass (voxels of p < 0.001), 999 permutations within site, seed 0
    """

    of: ClassVar[str] = "mass"


@dataclass(frozen=True)
class Tfce(Shuffled):
    """Threshold-free cluster enhancement against its largest when the groups mean nothing.

    See :func:`~normfuse.analyses.clusters.tfce` for the formula, and mind its time: about 0.7 s
    CPU a permutation at 2 mm.

    Examples
    --------
    >>> print(Tfce(99))
    family-wise by threshold-free cluster enhancement, 99 permutations within site, seed 0
    """

    keeps_maps: ClassVar[bool] = True

    def correct_by(self, null: Null, box: Box, two_sided: bool) -> Corrected:
        """``tfce`` and ``p_fwe`` of every voxel."""
        drawn = null.each(_LargestTfce(box, two_sided))
        untested = np.isnan(null.heights.seen)
        seen, least = (np.where(untested, np.nan,
                                tfce(np.nan_to_num(t), box, two_sided=two_sided))
                       for t in (null.heights.seen, null.heights.least))
        return Corrected({"tfce": seen, "p_fwe": rank_p(np.abs(least), drawn)},
                         pd.DataFrame({"largest tfce": drawn}))

    def __str__(self) -> str:
        return f"family-wise by threshold-free cluster enhancement, {self._shuffles()}"


def rank_p(seen: Array, drawn: Array) -> Array:
    """(1 + number of draws that reach what was seen) / (1 + draws); NaN stays.

    Examples
    --------
    >>> rank_p(np.array([3.0, 0.5, np.nan]), np.array([1.0, 2.0, 4.0])).tolist()
    [0.5, 1.0, nan]
    """
    reach = np.sort(np.where(drawn > 0, 1 + _TIE, 1 - _TIE) * drawn)
    p = (1 + len(drawn) - np.searchsorted(reach, seen, side="left")) / (1 + len(drawn))
    return np.where(np.isnan(seen), np.nan, p)

"""Clusters of voxels in maps of t: their extent, mass, and threshold-free enhancement."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from normfuse.space import Space

from .effects import Array

_HEIGHTS = 100  # of nilearn, if it is not given their distance


@dataclass(frozen=True, eq=False)
class Box:
    """The part of a grid that holds a mask, with a margin of one voxel.

    Examples
    --------
    >>> mask = np.zeros((9, 9, 9), bool); mask[4, 5, 2:4] = True
    >>> box = Box.around(Space(mask, np.eye(4), "MNI152NLin2009aSym"))
    >>> box.mask.shape, box.volume(np.array([1.5, 2.5])).sum()
    ((3, 3, 4), np.float64(4.0))
    """

    mask: Array

    @classmethod
    def around(cls, space: Space) -> Box:
        """The voxels of a space."""
        low, high = space.indices.min(axis=0), space.indices.max(axis=0)
        inside = space.mask[tuple(slice(a, b + 1) for a, b in zip(low, high))]
        return cls(np.pad(inside, 1))

    def volume(self, values: Array) -> Array:
        """Values of the voxels as a volume, 0 around them."""
        made = np.zeros(self.mask.shape, dtype=values.dtype)
        made[self.mask] = values
        return made


@dataclass(frozen=True, eq=False)
class Clusters:
    r"""Voxels beyond a threshold that touch with a face, each sign by itself.

    .. math:: \text{mass} = \sum_{v \in C} (|t_v| - u_v)

    Attributes
    ----------
    label : ndarray of int, shape (n_voxels,)
        Number of a voxel's cluster, from 1; 0: in none.
    extent : ndarray of int, shape (n_clusters,)
        Voxels.
    mass : ndarray, shape (n_clusters,)
        As above, in units of t.

    Examples
    --------
    >>> box = Box(np.pad(np.ones((1, 1, 6), bool), 1))
    >>> found = Clusters.of(np.array([2.5, 3.0, -4, 0, 1, 2.25]), np.full(6, 2.0), box)
    >>> found.label.tolist(), found.extent.tolist(), found.mass.tolist()
    ([1, 1, 3, 0, 0, 2], [2, 1, 1], [1.5, 0.25, 2.0])
    """

    label: Array
    extent: Array
    mass: Array

    @classmethod
    def of(cls, t: Array, threshold: Array, box: Box, *, two_sided: bool = True) -> Clusters:
        """Of a map; ``threshold`` is the u of each voxel, (n_voxels,)."""
        labels, n = np.zeros(len(t), dtype=np.int64), 0
        for sign in (1, -1) if two_sided else (1,):
            marked, more = ndimage.label(box.volume(sign * t > threshold))
            inside = marked[box.mask].astype(np.int64)
            labels += np.where(inside > 0, inside + n, 0)
            n += more
        beyond = np.where(labels > 0, np.abs(t) - threshold, 0)
        return cls(labels, np.bincount(labels, minlength=n + 1)[1:],
                   np.bincount(labels, weights=beyond, minlength=n + 1)[1:])


def tfce(t: Array, box: Box, *, two_sided: bool = True) -> Array:
    r"""Threshold-free cluster enhancement of one map of t, with its sign.

    .. math:: \mathrm{TFCE}(v) = \int_0^{|t_v|} e_h(v)^{1/2}\, h^2\, dh

    with e the extent of v's cluster above h, as a sum over 100 heights up to the largest t of the
    map. nilearn's and FSL's sum lacks the factor dh, so that a strong effect anywhere makes all
    others smaller; ours can be compared between maps. About 0.7 s CPU a map of 235,000 voxels.

    References
    ----------
    Smith & Nichols (2009), doi:10.1016/j.neuroimage.2008.03.061.

    Examples
    --------
    >>> box = Box(np.pad(np.ones((1, 1, 3), bool), 1))
    >>> tfce(np.array([1.0, 2.0, -2.0]), box).round(2).tolist()
    [0.49, 2.85, -2.71]
    """
    # The public permuted_ols computes it for its own shuffles alone, and these know no blocks.
    from nilearn.mass_univariate._utils import calculate_tfce

    volume = box.volume(t.astype(np.float64))[..., None]
    faces = ndimage.generate_binary_structure(3, 1)
    step = float((np.abs(volume) if two_sided else volume).max()) / _HEIGHTS
    return step * calculate_tfce(volume, faces, two_sided_test=two_sided)[..., 0][box.mask]

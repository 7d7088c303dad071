"""An image's values at the voxels of a space: smoothed first, then interpolated by affine."""
from __future__ import annotations

import numpy as np

from ..space import GRID_TOLERANCE, Space

FWHM_IN_SD = float(np.sqrt(8 * np.log(2)))
"""Full width at half maximum of a Gaussian with standard deviation 1."""

ENOUGH = 0.5
"""Share of what a voxel is averaged from that must have been measured; below it is missing."""


def sampled(data: np.ndarray, affine: np.ndarray, space: Space,
            fwhm: float = 0.0) -> np.ndarray:
    r"""Smooth an image and read it at the voxel centres of a space.

    .. math:: y(v) = \frac{\sum_u k(v - u)\,w_u x_u}{\sum_u k(v - u)\,w_u}

    with a Gaussian kernel :math:`k` followed by linear interpolation, and :math:`w = 0` where the
    image is NaN or ends. So what is missing takes no part, in the place of spreading as NaN or
    counting as 0. Where less than half of the kernel's weight was measured, the result is NaN.

    Parameters
    ----------
    data : ndarray, shape (i, j, k)
        Not changed.
    affine : ndarray, shape (4, 4)
        Of the image, to mm.
    space : Space
    fwhm : float, mm
        Full width at half maximum of the kernel; 0: no smoothing. Along the image's own axes, as
        in nilearn, so that a sheared grid gets a slightly sheared kernel.

    Returns
    -------
    ndarray of float32, shape (space.n_voxels,)

    Notes
    -----
    Inside an image without NaN this is ``nilearn.image.smooth_img`` and then
    ``resample_img(interpolation="linear")``. At the rim of the field of view nilearn continues
    with 0; we do not.

    Examples
    --------
    >>> space = Space(np.ones((1, 1, 2), bool), np.diag([1.0, 1, 2, 1]), "toy")
    >>> line = np.tile([8.0, 9, np.nan, 11, 12], (9, 9, 1))
    >>> affine = np.eye(4); affine[:2, 3] = -4
    >>> sampled(line, affine, space).tolist()
    [8.0, nan]
    >>> print(sampled(line, affine, space, fwhm=2).round(2))
    [ 8.34 10.  ]
    """
    data = np.asarray(data, dtype=np.float32)
    whole = bool(np.isfinite(data).all())
    sd = fwhm / FWHM_IN_SD / np.linalg.norm(affine[:3, :3], axis=0)
    if whole:
        weighted, along = _smoothed(data, sd), _measured_along(data.shape, sd)
    else:
        measured = np.isfinite(data)
        weighted = _smoothed(np.where(measured, data, np.float32(0)), sd)
        weight = _smoothed(measured.astype(np.float32), sd)
    if space.shape == data.shape and np.abs(space.affine - affine).max() < GRID_TOLERANCE:
        found = weighted[space.mask]
        share = _product(along, space.indices.T) if whole else weight[space.mask]
        return _divided(found, share)
    at, within = _indices(affine, space, data.shape)
    share = _product(along, at) if whole else _interpolated(weight, at)
    return _divided(_interpolated(weighted, at), np.where(within, share, 0))


def _smoothed(data: np.ndarray, sd: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(data, sd, mode="constant") if sd.any() else data


def _measured_along(shape: tuple[int, ...], sd: np.ndarray) -> list[np.ndarray]:
    """Weight of the kernel inside the field of view; it is a product of one factor an axis."""
    from scipy.ndimage import gaussian_filter1d

    return [gaussian_filter1d(np.ones(n), s, mode="constant") if s else np.ones(n)
            for n, s in zip(shape, sd)]


def _product(along: list[np.ndarray], at: np.ndarray) -> np.ndarray:
    parts = [np.interp(i, np.arange(len(line)), line) for line, i in zip(along, at)]
    return parts[0] * parts[1] * parts[2]


def _indices(affine: np.ndarray, space: Space,
             shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where in the image the space's voxels are, shape (3, n_voxels), and whether they are."""
    back = np.linalg.inv(affine)
    at = back[:3, :3] @ space.coordinates().T + back[:3, 3:]
    last = np.array(shape)[:, None] - 1
    # a voxel reaches half its width beyond its centre
    within = ((at > -0.5 - GRID_TOLERANCE) & (at < last + 0.5 + GRID_TOLERANCE)).all(axis=0)
    return np.clip(at, 0, last), within


def _interpolated(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    return map_coordinates(data, at, order=1, mode="nearest")


def _divided(total: np.ndarray, share: np.ndarray) -> np.ndarray:
    enough = share >= ENOUGH - 1e-4  # a voxel at the rim has exactly half its kernel inside
    found = np.full(total.shape, np.nan, dtype=np.float32)
    np.divide(total, share, out=found, where=enough, casting="same_kind")
    return found

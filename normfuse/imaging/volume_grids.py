"""Volumes as nibabel has them and as SimpleITK has them, and at other resolutions."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError
from ..volumes.header import read_volume, unreadable
from ..volumes.points import background
from ..volumes.sampling import FWHM_IN_SD
from .extra import need

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

LPS = np.diag([-1.0, -1.0, 1.0])
"""ITK's millimetres go to the left and to the back, nibabel's to the right and to the front."""

SHEAR = 1e-3
"""Largest cosine between two axes of a grid that rounding explains."""

FEWEST_SLICES = 4

FAINT = 0.03
"""Of the brightest: no signal."""

MOST_LABELS = 32
"""Classes of a segmentation; scans have more values."""

CUT = 0.1
"""Share of the largest slice of brain from which a last slice shows that the brain goes on."""


def volume(image: Any, whose: str) -> Nifti1Image:
    """One volume of finite numbers, NaN as 0, of an image or its file; ``whose`` is for messages.

    Raises
    ------
    ImageError
        For what is no single volume, has a sheared or singular grid, too few slices or no signal.

    Examples
    --------
    >>> import nibabel as nib
    >>> volume(nib.Nifti1Image(np.ones((8, 8, 1)), np.eye(4)), "the fixed image")
    Traceback (most recent call last):
    normfuse.errors.ImageError: the fixed image: has 1 slice ...
    """
    import nibabel as nib

    if isinstance(image, str | Path):
        image = read_volume(image)
    if not hasattr(image, "affine") or not hasattr(image, "dataobj"):
        raise ImageError(f"{whose}: expected an image that nibabel reads, or its path; got "
                         f"{type(image).__name__}. Numbers alone do not say where voxels are: "
                         "nibabel.Nifti1Image(values, affine)")
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        raise ImageError(f"{whose}: expected one volume of three dimensions; got shape {shape}. "
                         "Choose or average the volumes first")
    if min(shape[:3]) < FEWEST_SLICES:
        raise ImageError(f"{whose}: has {min(shape[:3])} slice"
                         f"{'s' * (min(shape[:3]) > 1)} along one side ({shape}); where slices "
                         "lie in space cannot be found from so few: give the whole volume")
    axes = np.asarray(image.affine, dtype=float)[:3, :3]
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(axes)) < 1e-6:
        raise ImageError(f"{whose}: its header's transform to mm is singular or not finite, or "
                         "not of mm (voxels of thousandths are of metres)")
    unit = axes / np.linalg.norm(axes, axis=0)
    lean = np.abs(unit.T @ unit - np.eye(3)).max()
    if lean > SHEAR:
        raise ImageError(f"{whose}: its grid is sheared (axes are not at right angles, cosine "
                         f"{lean:.3f}); resample it to a plain grid first, as nilearn's "
                         "resample_img does with a diagonal target_affine")
    try:
        values = np.asanyarray(image.dataobj, dtype=np.float32).reshape(shape[:3])
    except Exception as problem:  # nibabel, gzip and zlib each have errors of their own
        found = unreadable(problem)
        raise ImageError(f"{whose}: {found.what} {found.detail}") from problem
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    if np.ptp(values) == 0:
        raise ImageError(f"{whose}: no signal, one and the same value everywhere")
    return nib.Nifti1Image(values, image.affine)


def to_itk(image: Nifti1Image) -> Any:
    """As SimpleITK's float32 image of the same place.

    Examples
    --------
    >>> import nibabel as nib
    >>> affine = np.array([[0, -2.0, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    >>> there = to_itk(nib.Nifti1Image(np.arange(60.0).reshape(3, 4, 5), affine))
    >>> there.TransformIndexToPhysicalPoint((1, 2, 3))       # RAS is (1, 7, 16)
    (-1.0, -7.0, 16.0)
    >>> int(there[1, 2, 3]), np.allclose(from_itk(there).affine, affine)
    (33, True)
    """
    need("SimpleITK", "registration")
    import SimpleITK as sitk

    affine = np.asarray(image.affine, dtype=float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    found = sitk.GetImageFromArray(np.asanyarray(image.dataobj, dtype=np.float32).T)
    found.SetSpacing(spacing.tolist())
    found.SetOrigin((LPS @ affine[:3, 3]).tolist())
    found.SetDirection(_orthonormal(LPS @ affine[:3, :3] / spacing).ravel().tolist())
    return found


def _orthonormal(directions: np.ndarray) -> np.ndarray:
    """The nearest matrix with perpendicular columns: headers are rounded."""
    u, _, v = np.linalg.svd(directions)
    return np.asarray(u @ v)


def from_itk(image: Any) -> Nifti1Image:
    """The inverse of :func:`to_itk`."""
    import nibabel as nib
    import SimpleITK as sitk

    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = LPS @ image.GetOrigin()
    return nib.Nifti1Image(sitk.GetArrayFromImage(image).T.copy(), affine)


def in_steps_of(image: Nifti1Image, mm: float) -> Nifti1Image:
    """Along the image's own axes (the nearest to right, front and up), voxels ``mm`` long.

    Smoothed before it becomes coarser: FWHM of the new voxels, less what the old ones have. Beyond
    the field of view the last voxels go on: where an image is cut it does not fade.

    Examples
    --------
    >>> import nibabel as nib
    >>> fine = nib.Nifti1Image(np.ones((12, 12, 6), np.float32), np.diag([-1, 1, 2, 1.0]))
    >>> in_steps_of(fine, 4).shape, float(in_steps_of(fine, 4).affine[0, 0])
    ((3, 3, 3), 4.0)
    """
    import nibabel as nib
    from nibabel.processing import resample_from_to
    from scipy.ndimage import gaussian_filter

    image = nib.as_closest_canonical(image)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    values = np.asanyarray(image.dataobj, dtype=np.float32)
    if np.abs(spacing - mm).max() < 1e-3:
        return nib.Nifti1Image(values, image.affine)
    wanted = np.sqrt(np.maximum(mm ** 2 - spacing ** 2, 0)) / FWHM_IN_SD / spacing
    smooth = nib.Nifti1Image(gaussian_filter(values, wanted, mode="nearest"), image.affine)
    shape = np.maximum(1, np.ceil(np.array(values.shape) * spacing / mm - 1e-6)).astype(int)
    affine = image.affine.copy()
    affine[:3, :3] *= mm / spacing
    # the field of view begins at the rim of the first voxel, not at its centre
    affine[:3, 3] = image.affine[:3] @ [*(0.5 * (mm / spacing - 1)), 1]
    return resample_from_to(smooth, (tuple(shape), affine), order=1, mode="nearest")


def signal(image: Nifti1Image, mm: float) -> Nifti1Image:
    """Where an image is not background, in steps of ``mm``.

    Templates have values of 1e-40 around the brain, resampled images a seam: what counts is
    beyond a share of the brightest.
    """
    import nibabel as nib

    there = brain_of(image).astype(np.float32)
    found = in_steps_of(nib.Nifti1Image(there, image.affine), mm)
    return nib.Nifti1Image((np.asanyarray(found.dataobj) > 0.5).astype(np.float32), found.affine)


def is_labels(image: Nifti1Image) -> bool:
    """Whether an image holds numbers of classes: whole ones, few of them.

    >>> import nibabel as nib
    >>> values = np.arange(60).reshape(3, 4, 5)
    >>> [is_labels(nib.Nifti1Image(v.astype(np.float32), np.eye(4))) for v in (values % 4, values)]
    [True, False]
    """
    found = np.unique(np.asanyarray(image.dataobj))
    return bool(len(found) <= MOST_LABELS and np.all(found == np.rint(found)))


def brain_of(image: Nifti1Image) -> np.ndarray:
    """Where an image is not background, on its own grid, bool; holes in it are brain.

    >>> from normfuse.testing import tiny_head
    >>> head = tiny_head()
    >>> bool(brain_of(head)[np.asanyarray(head.dataobj) > 0.1].all())
    True
    """
    from scipy.ndimage import binary_fill_holes

    values = np.asanyarray(image.dataobj)
    above = np.abs(values - background(values))
    there = above > FAINT * np.percentile(above[above > 0], 99)
    return np.asarray(binary_fill_holes(there))  # ventricles are dark, and brain


def cut_sides(brain: np.ndarray) -> np.ndarray:
    """At which ends of a field of view the brain goes on beyond it: bool, shape (3, 2).

    Parameters
    ----------
    brain : ndarray of bool, shape (i, j, k)

    Examples
    --------
    >>> brain = np.zeros((6, 6, 6), bool)
    >>> brain[1:5, 1:5, 3:] = True          # up to the last slice
    >>> cut_sides(brain).tolist()
    [[False, False], [False, False], [False, True]]
    """
    found = np.zeros((3, 2), dtype=bool)
    for axis in range(3):
        slices = brain.sum(tuple(a for a in range(3) if a != axis))
        found[axis] = slices[[0, -1]] > CUT * max(slices.max(), 1)
    return found


def brain_in_steps_of(image: Nifti1Image, mm: float) -> tuple[Nifti1Image, np.ndarray]:
    """:func:`in_steps_of` of the brain alone: what is outside takes no part, and is 0 after it;
    and where the brain is, bool."""
    import nibabel as nib

    there = brain_of(image)
    values = np.where(there, np.asanyarray(image.dataobj), 0).astype(np.float32)
    total, share = (in_steps_of(nib.Nifti1Image(part, image.affine), mm)
                    for part in (values, there.astype(np.float32)))
    weight = np.asanyarray(share.dataobj)
    inside = weight > 0.5
    found = np.where(inside, np.asanyarray(total.dataobj) / np.where(inside, weight, 1), 0)
    return nib.Nifti1Image(found.astype(np.float32), total.affine), inside

"""Scans of one person, or a person and a template, brought into one frame."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..image_files import load_image
from .extra import need
from .likeness import Likeness, MutualInformation
from .registration_kinds import Deformable, RegistrationKind, Rigid
from .registration_quality import RegistrationQuality, judged
from .registration_search import RIM_MM, Linear, Search, near_starts
from .transform import SpatialTransform
from .volume_grids import LPS, signal, volume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

SAME_MM = 4.0
"""Half a coarse voxel: ends of searches that are nearer are one."""

BRAIN_MM = 60.0
"""Of a brain's radius: how far from its middle ends are compared."""


@dataclass(frozen=True, eq=False)
class Registration:
    """What a registration found.

    Attributes
    ----------
    transform : SpatialTransform
        From the fixed image to the moving one.
    image : Nifti1Image
        The moving image on the fixed one's grid.
    quality : RegistrationQuality
        Whether to believe it: ``quality.ok``, ``quality.problems``.
    """

    transform: SpatialTransform
    image: Nifti1Image
    quality: RegistrationQuality

    def __repr__(self) -> str:
        return f"<Registration, {self.quality}>"


def register(moving: Nifti1Image | str | Path, fixed: Nifti1Image | str | Path,
             kind: RegistrationKind = Rigid(), by: Likeness = MutualInformation(), *,
             seed: int = 0) -> Registration:
    """Find where a moving image lies in the frame of a fixed one.

    Centres are laid on one another, coarse searches start from the header's orientation and from
    turns about each axis, and the best is refined at ever finer resolutions. Then turns by 180
    degrees and swapped sides are tried: if one of them fits better, the header is wrong, and
    ``quality`` says so.

    Parameters
    ----------
    moving, fixed : Nifti1Image or path
        Volumes in any spaces, preferably of brains without skull, background 0.
    kind : RegistrationKind
        :class:`Rigid` for scans of one person, :class:`Affine` or :class:`Deformable` for a
        template.
    by : Likeness
        What is compared: :class:`MutualInformation`, or :class:`LearnedLikeness` of
        representations.
    seed : int
        Of the voxels that are looked at; the result is the same for the same seed.

    Returns
    -------
    Registration
        Also of images that could not be registered; then ``quality.ok`` is False. Look at it.

    Raises
    ------
    ImageError
        No single volume, no signal, a single slice, a sheared or singular grid.
    NormfuseError
        Without SimpleITK.

    Examples
    --------
    >>> from normfuse.testing import tiny_head
    >>> fixed = tiny_head()
    >>> there = SpatialTransform.linear(np.array([[1, 0, 0, 6], [0, 1, 0, -4], [0, 0, 1, 5.0],
    ...                                           [0, 0, 0, 1]]))
    >>> moving = there.resample(fixed, fixed)
    >>> found = register(moving, fixed, by=MutualInformation(resolution=4))
    >>> bool(np.abs(there.then(found.transform).matrix - np.eye(4)).max() < 1)
    True
    """
    need("SimpleITK", "registration")
    moving, fixed = (volume(_read(image), whose) for image, whose in
                     ((moving, "the moving image"), (fixed, "the fixed image")))
    with _one_thread():
        return _registered(moving, fixed, kind, by, seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads differ in their last digits from run to run."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _registered(moving: Nifti1Image, fixed: Nifti1Image, kind: RegistrationKind, by: Likeness,
                seed: int) -> Registration:
    outlines = signal(moving, by.resolution), signal(fixed, by.resolution)
    searches = [prepared(moving, fixed, outlines, one, seed) for one in by.parts()]
    search = searches[-1]
    coarse, (matrix, offset) = _start(searches)
    transform: Any = None
    value, parts = np.inf, []
    for stage in kind.stages():
        if isinstance(stage, Deformable):
            value, bend = search.bent(stage, transform)
            parts = [bend, transform]
        else:
            value, transform = search.refined(stage, matrix, offset)
            matrix, offset = linear_of(transform, search.centre)
            parts = [transform]
    found = SpatialTransform(parts)
    return Registration(found, found.resample(moving, fixed),
                        judged(search, found, value, coarse, outlines))


def _start(searches: list[Search]) -> tuple[float, Linear]:
    """Where the refinement begins, with the last search's coarse metric there.

    Coarse metrics at 8 mm do not tell good from bad where only a slab is seen: ends that differ
    are refined before they are compared.
    """
    search = searches[-1]
    ends = [search.best(near_starts())]
    for other in searches[:-1]:
        _, (matrix, offset) = other.best(near_starts())
        end = search.coarse(matrix, offset)
        if np.isfinite(end[0]) and all(_apart(end[1], old[1]) > SAME_MM for old in ends):
            ends.append(end)
    if len(ends) == 1:
        return ends[0]
    return min(ends, key=lambda end: search.refined(Rigid(), *end[1])[0])


def _apart(one: Linear, two: Linear) -> float:
    """Of two linear transforms, the mean distance at points of a brain around the centre, mm."""
    turned = BRAIN_MM * (one[0] - two[0])
    return float(np.linalg.norm([one[1] - two[1], *turned.T, *-turned.T], axis=1).mean())


def linear_of(transform: Any, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and t of A (x - c) + c + t."""
    moved = np.array(transform.TransformPoint(centre.tolist()))
    return np.reshape(transform.GetMatrix(), (3, 3)), moved - centre


def prepared(moving: Nifti1Image, fixed: Nifti1Image, outlines: tuple[Nifti1Image, Nifti1Image],
             by: Likeness, seed: int) -> Search:
    """Images as they are compared, the fixed one's mask, and both middles."""
    seen_moving, seen_fixed = by.images(moving, fixed)
    end, start = map(_middle, outlines)
    return Search(seen_moving, seen_fixed, _with_rim(outlines[1]), start, end - start, by, seed)


def _middle(brain: Nifti1Image) -> np.ndarray:
    where = np.argwhere(np.asanyarray(brain.dataobj) > 0).mean(0)
    return np.asarray(LPS @ (brain.affine @ [*where, 1])[:3])


def _with_rim(brain: Nifti1Image) -> Nifti1Image:
    import nibabel as nib
    from scipy.ndimage import distance_transform_edt

    mm = np.linalg.norm(brain.affine[:3, :3], axis=0)
    away = distance_transform_edt(np.asanyarray(brain.dataobj) == 0, sampling=mm)
    return nib.Nifti1Image((away <= RIM_MM).astype(np.float32), brain.affine)


def _read(image: Any) -> Any:
    return load_image(image) if isinstance(image, str | Path) else image

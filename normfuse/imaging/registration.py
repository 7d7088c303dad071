"""Scans of one person, or a person and a template, brought into one frame."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .extra import need
from .likeness import Likeness, MutualInformation
from .registration_kinds import RegistrationKind, Rigid
from .registration_quality import RegistrationQuality, judged
from .registration_search import RIM_MM, Search, Start, linear_of, wide_starts
from .transform import SpatialTransform
from .volume_grids import LPS, signal, volume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image


@dataclass(frozen=True, eq=False)
class Registration:
    """What a registration found.

    Attributes
    ----------
    transform : SpatialTransform
        From the fixed image to the moving one.
    image : Nifti1Image
        The moving image on the fixed one's grid, NaN as 0.
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
             starts: Sequence[Start] | None = None, seed: int = 0) -> Registration:
    """Find where a moving image lies in the frame of a fixed one.

    Centres are laid on one another, coarse searches start from the header's orientation and from
    turns about each axis, ends that differ are refined and compared, and the best is refined at
    the finest resolution. Then turns by 180 degrees and swapped sides are tried: if one of them
    fits better, the header is wrong, and ``quality`` says so; it also says if another place fits
    nearly as well.

    Parameters
    ----------
    moving, fixed : Nifti1Image or path
        Volumes in any spaces, preferably of brains without skull, background 0.
    kind : RegistrationKind
        :class:`Rigid` for scans of one person, :class:`Affine` or :class:`Deformable` for a
        template.
    by : Likeness
        What is compared: :class:`MutualInformation`, :class:`LearnedLikeness` of
        representations, or :class:`Then` of both.
    starts : sequence of Start, optional
        How the moving image may be turned against its header; by default
        :func:`~normfuse.imaging.registration_search.wide_starts`. Where all heads lie as their
        headers say, :func:`~normfuse.imaging.registration_search.near_starts` are enough, and
        take four fifths of the time.
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
    TypeError
        A kind, likeness or start that is none.
    ValueError
        An empty sequence of starts.
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
    _refuse_others(kind, by, starts)
    starts = wide_starts() if starts is None else list(starts)
    moving, fixed = (volume(image, whose) for image, whose in
                     ((moving, "the moving image"), (fixed, "the fixed image")))
    with _one_thread():
        return _registered(moving, fixed, kind, by, starts, seed)


def _refuse_others(kind: Any, by: Any, starts: Any) -> None:
    if not isinstance(kind, RegistrationKind):
        raise TypeError(f"kind is Rigid(), Affine() or Deformable(); got {kind!r}")
    if not isinstance(by, Likeness):
        raise TypeError("by is a likeness, as MutualInformation() or LearnedLikeness("
                        f"representations, \"T2w\", \"T1w\"); got {by!r}")
    if starts is None:
        return
    if isinstance(starts, str) or not isinstance(starts, Sequence) or not all(
            isinstance(start, Start) for start in starts):
        raise TypeError(f"starts is a sequence of Start, as near_starts(); got {starts!r}")
    if not starts:
        raise ValueError("starts is a sequence of one Start at least, as near_starts(); got none")


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
                starts: Sequence[Start], seed: int) -> Registration:
    outlines = signal(moving, by.resolution), signal(fixed, by.resolution)
    searches = [prepared(moving, fixed, outlines, one, seed) for one in by.parts()]
    search, first = searches[-1], searches[:-1]
    stages: tuple[Any, ...] = kind.stages()
    linear, *bends = stages
    # what others found is refined by their own metric before it is handed over: from coarse ends
    # the last metric lost its way again
    others = [linear_of(other.refined(linear, other.placed(starts, linear)[0])[1], other.centre)
              for other in first]
    begin, rival = search.placed(starts, linear, others)
    value, transform = search.refined(linear, begin)
    end, parts = linear_of(transform, search.centre), [transform]
    for stage in bends:
        value, bend = search.bent(stage, transform)
        parts = [bend, transform]
    found = SpatialTransform(parts)
    return Registration(found, found.resample(moving, fixed),
                        judged(search, found, value, linear, end, rival, outlines))


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

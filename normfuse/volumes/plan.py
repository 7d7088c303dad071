"""How the images of a modality become a table: which voxels, how smooth, what must be there."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CohortError, SpaceMismatchError
from ..image_files import load_image
from ..space import Space
from .sampling import sampled

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from .intensity import Scaling

MNI = "MNI152NLin2009aSym"
"""TemplateFlow's name of the template that nilearn ships (ICBM 152 2009a, symmetric)."""

TISSUES = ("brain", "grey_matter", "white_matter")
GREY_ENOUGH, WHITE_ENOUGH = 0.2, 0.5
"""Mean tissue probability from which a voxel belongs to the mask. A fifth is the usual border of
voxel-based morphometry; white matter must be the larger part of its voxel, since FA of the cortex
is mostly noise."""

TEMPLATE_MM, TEMPLATE_CORNER = (197, 233, 189), (-98.0, -134.0, -72.0)
"""Sides of the template and centre of its first voxel, mm; nilearn's grids start there."""

RESOLUTION = 4.0  # mm
SMOOTHING = 2.0
"""Default FWHM in voxels of the target grid: it leaves 3 % of the amplitude of the finest wave
that the grid can hold (two voxels long); finer ones would come back as coarse ones."""

COVERAGE = 0.9
"""Least share of the MNI brain with signal. Images in MNI space had .97 to .99, images 15 to 28 %
too small .70."""

VERSION = 1
"""Of the way from a file to a row; part of the key under which rows are kept."""

# Words in a modality's name -> its mask, when none is asked for.
_GREY_NAMES = ("t1", "gm", "grey", "gray", "vbm")
_WHITE_NAMES = ("fa", "dti", "wm", "white", "tbss")


@dataclass(frozen=True)
class VolumePlan:
    r"""Settings with which images are read.

    Parameters
    ----------
    mask : str, Path or Space
        ``"brain"``, ``"grey_matter"`` or ``"white_matter"`` of the ICBM 152 2009a template that
        nilearn ships; the path of a mask image in MNI space; or a space of one's own.
    resolution : float, mm, optional
        Voxel size. Default: 4 for the template's masks; a mask image keeps its own grid, and is
        put on the template's grid (a voxel belongs to it if half of it does) if a number is given.
    smoothing : float, mm, optional
        FWHM of the Gaussian that images are smoothed with before they are resampled; default:
        twice the voxel size. Sampling every :math:`r` mm holds waves of length :math:`2r` and
        more; the kernel multiplies these by

        .. math:: \exp\left(-\frac{(\pi F / 2r)^2}{4 \ln 2}\right) = 0.03 \quad (F = 2r).

    extent : str, optional
        Where every image must have signal: ``"brain"``, ``"grey_matter"`` or ``"white_matter"``
        (of the template, at 4 mm). Default: grey matter for the grey-matter mask, since density
        maps are 0 elsewhere, else the whole brain. Images masked to white matter need
        ``extent="white_matter"``, which sees a wrong size less well.
    zeros_missing : bool
        Whether background (exact zeros) inside the mask is a missing value. By default it is a
        value, as in a density map whose tissue is gone; for images cut by a mask of their own
        (PET, FA) ask for True, or the cut counts as a deviation.
    min_coverage : float, 0 to 1
        Least share of the extent with signal; images below are refused.
    scaling : Scaling, optional
        What each image is divided by, such as
        :class:`~normfuse.volumes.intensity.WhiteMatterMode` for images without a unit (T1w, T2w,
        FLAIR). Default: nothing, as is right for densities, FA, SUVR.

    Examples
    --------
    >>> plan = VolumePlan("white_matter", resolution=8)
    >>> plan.space, plan.fwhm
    (<Space MNI152NLin2009aSym: 1032 voxels of 26 x 30 x 25, 8 x 8 x 8 mm>, 16.0)
    """

    mask: str | Path | Space = "brain"
    resolution: float | None = None
    smoothing: float | None = None
    extent: str | None = None
    zeros_missing: bool = False
    min_coverage: float = COVERAGE
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("resolution", 0.5, 30), ("smoothing", 0, 50),
                                ("min_coverage", 0, 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float))
                                          and low <= value <= high):
                raise CohortError(f"{name} must be a number from {low} to {high}"
                                  f"{'' if name == 'min_coverage' else ' mm'}; got {value!r}")
        if self.extent not in (None, *TISSUES):
            raise CohortError(f"extent must be one of {', '.join(TISSUES)}; got {self.extent!r}")
        if isinstance(self.scaling, str):
            raise CohortError("scaling must be an object such as WhiteMatterMode() of "
                              f"normfuse.volumes, or None; got {self.scaling!r}")
        if isinstance(self.mask, Space) and self.resolution is not None:
            raise CohortError("a mask that is a Space has its resolution; give only one of the "
                              "two")

    @classmethod
    def for_modality(cls, name: str, **settings: object) -> VolumePlan:
        """The plan with the mask that goes with the name, unless one is given.

        Grey matter for names such as ``t1`` and ``gm``, white matter for ``fa`` and ``dti``, the
        brain for all others.

        >>> [VolumePlan.for_modality(n).mask for n in ("t1", "dti_fa", "pet", "family")]
        ['grey_matter', 'white_matter', 'brain', 'brain']
        """
        if settings.get("mask") is None:
            words = name.lower().replace("-", "_").split("_")
            settings["mask"] = ("grey_matter" if any(w in _GREY_NAMES for w in words) else
                                "white_matter" if any(w in _WHITE_NAMES for w in words) else
                                "brain")
        return cls(**settings)  # type: ignore[arg-type]

    @cached_property
    def space(self) -> Space:
        """The voxels that are read.

        Raises
        ------
        CohortError
            If the mask is neither a known word nor a readable image of one volume.
        """
        if isinstance(self.mask, Space):
            return self.mask
        if self.mask in TISSUES:
            return template_space(str(self.mask), float(self.resolution or RESOLUTION))
        return _space_of_file(Path(self.mask), self.resolution)

    @property
    def fwhm(self) -> float:
        """Smoothing in mm."""
        if self.smoothing is not None:
            return float(self.smoothing)
        return SMOOTHING * max(self.space.voxel_size)

    @property
    def filled(self) -> str:
        """The tissue that every image must fill."""
        return self.extent or ("grey_matter" if self.mask == "grey_matter" else "brain")

    @cached_property
    def key(self) -> str:
        """The same for settings that give the same rows, whatever the least coverage."""
        text = f"{VERSION}|{self.space.fingerprint}|{self.fwhm:.6g}|{self.filled}|" \
               f"{self.zeros_missing}{'' if self.scaling is None else f'|{self.scaling}'}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=24)
def template_space(tissue: str, resolution: float) -> Space:
    """A mask of the template, on the grid that nilearn gives it at that resolution (mm).

    The brain is nilearn's own mask. Grey and white matter are the parts of it where the mean
    probability of the tissue over a voxel is at least ``GREY_ENOUGH`` or ``WHITE_ENOUGH``.
    (nilearn's masks of these two close gaps of two *voxels*: at 4 mm its grey matter is nearly the
    whole brain.)

    Raises
    ------
    CohortError
        For another tissue.
    """
    from nilearn.datasets import load_mni152_brain_mask

    if tissue not in TISSUES:
        raise CohortError(f"there is no mask {tissue!r}; choose one of {', '.join(TISSUES)}")
    if resolution == int(resolution):
        brain = Space.of(load_mni152_brain_mask(resolution=int(resolution)), MNI)
    else:  # nilearn takes whole mm only
        brain = _at(Space.of(load_mni152_brain_mask(resolution=1), MNI), resolution)
    if tissue == "brain":
        return brain
    dense = tissue_probability(tissue, brain) >= \
        (GREY_ENOUGH if tissue == "grey_matter" else WHITE_ENOUGH)
    mask = np.zeros(brain.shape, dtype=bool)
    mask[brain.mask] = dense
    return Space(mask, brain.affine, MNI)


def tissue_probability(tissue: str, space: Space) -> np.ndarray:
    """The template's share of a tissue, 0 to 1, averaged over a voxel's width; (n_voxels,).

    Examples
    --------
    >>> space = template_space("grey_matter", 8)
    >>> tissue_probability("grey_matter", space).min() > 0.1
    np.True_
    """
    template = _template(tissue)
    return sampled(np.asanyarray(template.dataobj), template.affine, space,
                   fwhm=max(space.voxel_size))


@lru_cache(maxsize=2)
def _template(tissue: str) -> Nifti1Image:
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    load = load_mni152_gm_template if tissue == "grey_matter" else load_mni152_wm_template
    return load(resolution=1)


def _space_of_file(path: Path, resolution: float | None) -> Space:
    try:
        img: Any = load_image(path)
        data = np.asanyarray(img.dataobj)
    except Exception as problem:  # nibabel has a dozen ways to say so
        raise CohortError(f"the mask {path} cannot be read: {problem}; give a NIfTI image or one "
                          f"of {', '.join(TISSUES)}") from problem
    try:
        own = Space(data.reshape(data.shape[:3]) != 0, img.affine, MNI)
    except (ValueError, SpaceMismatchError) as problem:
        raise CohortError(f"the mask {path} has shape {data.shape}; it must be one volume that is "
                          f"not 0 in the mask ({problem})") from problem
    if resolution is None:
        return own
    try:
        return _at(own, float(resolution))
    except SpaceMismatchError as problem:
        raise CohortError(f"the mask {path} has no voxel left at {resolution:g} mm on the MNI "
                          "grid; is it in MNI space?") from problem


def _at(space: Space, resolution: float) -> Space:
    """The same mask on the template's grid at that resolution: voxels half of which are in it."""
    shape = tuple(int(np.ceil(n / resolution)) for n in TEMPLATE_MM)
    affine = np.diag([resolution] * 3 + [1.0])
    affine[:3, 3] = TEMPLATE_CORNER
    everywhere = Space(np.ones(shape, dtype=bool), affine, MNI)
    share = sampled(space.mask, space.affine, everywhere, fwhm=resolution)
    return Space((share >= 0.5).reshape(shape), affine, MNI)

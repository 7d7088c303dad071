"""What a registration makes as large as it can: how alike two images are."""
from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import listed
from ..fusion import Choice
from .volume_grids import cut_sides, in_steps_of

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from .representations import ContrastiveRepresentations

AROUND_MM = 60.0
"""Empty space that is added around representations of a moving image."""


class Likeness(Choice):
    """What images are compared by."""

    resolution: float
    """Voxels of the images that are compared, mm."""

    least: float
    """Minus the metric below which images have hardly anything in common. One person's contrasts
    reached .6 to 1 nats, DTI and a T1-weighted template .3."""

    def parts(self) -> tuple[Likeness, ...]:
        """One after the other; the last one decides."""
        return (self,)

    @abstractmethod
    def images(self, moving: Nifti1Image, fixed: Nifti1Image) -> tuple[Nifti1Image, Nifti1Image]:
        """What is compared in the place of the images, at ``resolution``."""

    @abstractmethod
    def set(self, method: Any) -> None:
        """Give SimpleITK's ImageRegistrationMethod its metric, the smaller the more alike."""


@dataclass(frozen=True, repr=False)
class MutualInformation(Likeness):
    r"""How much one image's values tell of the other's, in nats: needs no training.

    .. math:: I = \sum_{ab} p(a, b) \log \frac{p(a, b)}{p(a) p(b)}

    p from a histogram with B-spline windows. Mattes et al. (2003), doi 10.1109/TMI.2003.809072.

    Parameters
    ----------
    bins : int
        Of each image's values.
    resolution : float, mm
    """

    bins: int = 32
    resolution: float = 2.0
    least = 0.1

    def images(self, moving: Nifti1Image, fixed: Nifti1Image) -> tuple[Nifti1Image, Nifti1Image]:
        return in_steps_of(moving, self.resolution), in_steps_of(fixed, self.resolution)

    def set(self, method: Any) -> None:
        method.SetMetricAsMattesMutualInformation(self.bins)


def _surrounded(image: Nifti1Image) -> Nifti1Image:
    """With empty space on the sides where the brain ends before the image does.

    ITK counts nothing that leaves the moving image. Where the image ends first nobody knows what
    is beyond, and nothing is to be counted; else it is known that there is no brain.
    """
    import nibabel as nib

    values = np.asanyarray(image.dataobj)
    mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    wide = np.where(cut_sides(values != 0), 0, np.round(AROUND_MM / mm)[:, None]).astype(int)
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ wide[:, 0]
    return nib.Nifti1Image(np.pad(values, wide), affine)


class LearnedLikeness(Likeness):
    """Correlation of learned representations.

    Mean squares, as in the literature, are small too where the whole of one brain is compared with
    a point of the other; and scale and level of a representation need not be the same in images
    unlike those that were learned from.

    Parameters
    ----------
    representations : ContrastiveRepresentations
        Fitted to volumes.
    moving, fixed : str
        Which modality each image is; two may be the same.
    """

    least = 0.1

    def __init__(self, representations: ContrastiveRepresentations, moving: str, fixed: str
                 ) -> None:
        if not hasattr(representations, "represent"):
            raise TypeError("representations are fitted ContrastiveRepresentations, or those of "
                            "ContrastiveRepresentations.load(folder); got "
                            f"{representations!r}")
        known = representations.fitted.net.names
        for name in (moving, fixed):
            if name not in known:
                raise ValueError(f"these representations know {listed(known)}; got {name!r}")
        self.representations, self.moving, self.fixed = representations, moving, fixed
        self.resolution = representations.fitted.resolution

    def images(self, moving: Nifti1Image, fixed: Nifti1Image) -> tuple[Nifti1Image, Nifti1Image]:
        seen = self.representations.represent(moving, self.moving)
        return _surrounded(seen), self.representations.represent(fixed, self.fixed)

    def set(self, method: Any) -> None:
        method.SetMetricAsCorrelation()


class Then(Likeness):
    """Both likenesses look for a start, and the second decides and refines.

    Each searches coarsely on its own. Where the ends differ, the second is refined from both, and
    the better of the two is kept *by the second's metric*: so the first can help where the
    second's search loses its way, and can mislead it only where the second likes a wrong place
    better than the right one.

    Parameters
    ----------
    first, last : Likeness

    Examples
    --------
    >>> twice = Then(MutualInformation(resolution=6), MutualInformation(resolution=4))
    >>> twice.resolution, twice.parts()
    (4, (MutualInformation(resolution=6), MutualInformation(resolution=4)))
    >>> Then("mi", MutualInformation())
    Traceback (most recent call last):
    TypeError: first and last are likenesses, as MutualInformation(); got 'mi'
    """

    def __init__(self, first: Likeness, last: Likeness) -> None:
        for one in (first, last):
            if not isinstance(one, Likeness):
                raise TypeError("first and last are likenesses, as MutualInformation(); got "
                                f"{one!r}")
        self.first, self.last = first, last
        self.resolution, self.least = last.resolution, last.least

    def parts(self) -> tuple[Likeness, ...]:
        return (*self.first.parts(), *self.last.parts())

    def images(self, moving: Nifti1Image, fixed: Nifti1Image) -> tuple[Nifti1Image, Nifti1Image]:
        return self.last.images(moving, fixed)

    def set(self, method: Any) -> None:
        self.last.set(method)

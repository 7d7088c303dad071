"""What a registration makes as large as it can: how alike two images are."""
from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..fusion import Choice
from .volume_grids import in_steps_of

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from .representations import ContrastiveRepresentations

AROUND_MM = 60.0
"""Empty space that is added around representations of a moving image."""

CUT = 0.1
"""Share of the largest slice of brain from which a last slice shows that the brain goes on."""


class Likeness(Choice):
    """What images are compared by."""

    resolution: float
    """Voxels of the images that are compared, mm."""

    least: float
    """Minus the metric below which images have hardly anything in common. One person's contrasts
    reached .6 to 1 nats, DTI and a T1-weighted template .3."""

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
    wide = []
    for axis in range(3):
        brain = (values != 0).sum(tuple(a for a in range(3) if a != axis))
        wide.append([0 if brain[end] > CUT * brain.max() else round(AROUND_MM / mm[axis])
                     for end in (0, -1)])
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [before for before, _ in wide]
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
        self.representations, self.moving, self.fixed = representations, moving, fixed
        self.resolution = representations.fitted.resolution

    def images(self, moving: Nifti1Image, fixed: Nifti1Image) -> tuple[Nifti1Image, Nifti1Image]:
        seen = self.representations.represent(moving, self.moving)
        return _surrounded(seen), self.representations.represent(fixed, self.fixed)

    def set(self, method: Any) -> None:
        method.SetMetricAsCorrelation()

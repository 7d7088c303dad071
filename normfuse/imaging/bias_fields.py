"""Smooth fields that multiply an image, as coils make them, taken out before comparing."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError
from .extra import need
from .likeness import Likeness
from .volume_grids import from_itk, in_steps_of, signal, to_itk

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

FIELD_MM = 8.0
"""Voxels that a field is estimated from: it varies over centimetres."""

ITERATIONS = (50, 50, 50, 50)
"""At each number of control points, which doubles."""

SETTLED, DECONVOLVED = 1e-6, 0.3
"""Change at which iterations end, and FWHM of what histograms are sharpened by. With SimpleITK's
own, .001 and .15, they ended too soon: of a field whose logarithm had an sd of .67, .62 was left;
so .19 to .24."""

LEAST = 0.5
"""Share of the brain that has to have values above 0."""


def without_bias_field(image: Nifti1Image) -> Nifti1Image:
    """An image divided by the field that N4 finds in its brain.

    Parameters
    ----------
    image : Nifti1Image
        A brain without skull, background 0; values above 0.

    Raises
    ------
    ImageError
        Where half of the brain is not above 0.

    References
    ----------
    Tustison et al. (2010), N4ITK, doi 10.1109/TMI.2010.2046908; SimpleITK's.

    Examples
    --------
    >>> from normfuse.testing import tiny_head
    >>> import nibabel as nib
    >>> head = tiny_head()
    >>> there = np.asanyarray(head.dataobj) > 0
    >>> slope = np.linspace(0.5, 2, head.shape[0])[:, None, None]
    >>> shaded = nib.Nifti1Image((np.asanyarray(head.dataobj) * slope).astype(np.float32),
    ...                          head.affine)
    >>> def apart(one, other):
    ...     return np.std(np.log(np.asanyarray(one.dataobj) / np.asanyarray(other.dataobj))[there])
    >>> bool(apart(shaded, head) > 0.2)
    True
    >>> bool(apart(without_bias_field(shaded), without_bias_field(head)) < 0.02)
    True
    """
    need("SimpleITK", "registration")
    import nibabel as nib
    import SimpleITK as sitk

    coarse = in_steps_of(image, FIELD_MM)
    brain = signal(image, FIELD_MM)
    positive = np.asanyarray(brain.dataobj) * (np.asanyarray(coarse.dataobj) > 0)
    share = positive.sum() / max(np.asanyarray(brain.dataobj).sum(), 1)
    if share < LEAST:
        raise ImageError("a field that multiplies an image is found where values are above 0; "
                         f"here {share:.0%} of the brain are: compare this image "
                         "without BiasCorrected")
    mask = sitk.Cast(to_itk(nib.Nifti1Image(positive, brain.affine)) > 0, sitk.sitkUInt8)
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(list(ITERATIONS))
    method.SetConvergenceThreshold(SETTLED)
    method.SetBiasFieldFullWidthAtHalfMaximum(DECONVOLVED)
    method.SetNumberOfThreads(1)
    method.Execute(to_itk(coarse), mask)
    fine = to_itk(image)
    field = from_itk(sitk.Exp(sitk.Cast(method.GetLogBiasFieldAsImage(fine), sitk.sitkFloat32)))
    values = np.asanyarray(image.dataobj, dtype=np.float32) / np.asanyarray(field.dataobj)
    return nib.Nifti1Image(values, image.affine)


class BiasCorrected(Likeness):
    """Images are compared without their bias fields; what is resampled keeps them.

    Where fields are strong (7 tesla, surface coils) and nothing has taken them out before. Costs
    seconds an image.

    Parameters
    ----------
    by : Likeness

    Examples
    --------
    >>> from normfuse.imaging.likeness import MutualInformation
    >>> BiasCorrected(MutualInformation())
    BiasCorrected(by=MutualInformation())
    >>> BiasCorrected("N4")
    Traceback (most recent call last):
    TypeError: by is a likeness, as MutualInformation(); got 'N4'
    """

    def __init__(self, by: Likeness) -> None:
        if not isinstance(by, Likeness):
            raise TypeError(f"by is a likeness, as MutualInformation(); got {by!r}")
        self.by, self.resolution, self.least = by, by.resolution, by.least

    def parts(self) -> tuple[Likeness, ...]:
        return tuple(BiasCorrected(one) for one in self.by.parts())

    def images(self, moving: Nifti1Image, fixed: Nifti1Image) -> tuple[Nifti1Image, Nifti1Image]:
        return self.by.images(without_bias_field(moving), without_bias_field(fixed))

    def set(self, method: Any) -> None:
        self.by.set(method)

"""Label images as they come on disk, made into what an atlas needs: one whole number a voxel."""
from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import AtlasError
from .image_files import load_image

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

_SPACE = re.compile(r"MNI152NLin(?:6|2009[abc])(?:Asym|Sym)|MNIColin27|MNI305|MNIInfant")
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
"""Exchanges left and right of an affine: x to -x."""


def read_labels(path: Path, *, unmirror: bool = False) -> Nifti1Image:
    """The labels image in a file, its numbers int32.

    Many atlases hold whole numbers as floats; those are taken. ``unmirror`` turns the header's x
    around, for atlases known to be stored with left and right exchanged.

    Raises
    ------
    AtlasError
        If there is no such file, it is not a volume, holds fractions or numbers below 0, or its
        header does not say where it lies.
    """
    import nibabel as nib

    if not path.is_file():
        raise AtlasError(f"there is no file {path}; give the path of a labels image (NIfTI), or "
                         "the name of an atlas")
    try:
        img: Any = load_image(path)
    except Exception as problem:  # nibabel, gzip and the system each have errors of their own
        raise AtlasError(f"{path} cannot be read as an image: {problem}") from problem
    if isinstance(img, nib.Cifti2Image | nib.GiftiImage):
        raise AtlasError(f"{path} is an atlas of the surface; a volume is needed, as voxels are")
    header = img.header
    if isinstance(header, nib.Nifti1Header) and not (header["sform_code"] or header["qform_code"]):
        raise AtlasError(f"{path}: the header has neither sform nor qform, so where the "
                         "labels lie is unknown; set its affine (nib.Nifti1Image(data, affine)) "
                         "and save it")
    return as_labels(img, str(path), unmirror=unmirror)


def as_labels(img: Nifti1Image, whose: str, *, unmirror: bool = False) -> Nifti1Image:
    """An image in memory with its numbers as int32; see :func:`read_labels`.

    Examples
    --------
    >>> import nibabel as nib
    >>> img = nib.Nifti1Image(np.array([[[0, 2.0, 300]]]), np.diag([2.0, 2, 2, 1]))
    >>> made = as_labels(img, "toy", unmirror=True)
    >>> made.dataobj.dtype.name, made.affine[0, 0].item()
    ('int32', -2.0)
    """
    import nibabel as nib

    values = np.asanyarray(img.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise AtlasError(f"{whose} has shape {values.shape}: overlapping or probabilistic maps "
                         "are not labels; take its maximum-probability version")
    if values.dtype.fields or not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise AtlasError(f"{whose} holds values that are no whole numbers (or colours): "
                         "probabilities are not labels, and labels are resampled with "
                         "interpolation='nearest' only")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2 ** 31:
        raise AtlasError(f"{whose} holds labels from {low} to {high}; expected 0 to 2147483647. "
                         "Labels above 127 that were stored as int8 come out negative")
    if not high:
        raise AtlasError(f"{whose} holds no label, only 0")
    affine = MIRROR @ img.affine if unmirror else img.affine
    made = nib.Nifti1Image(values.astype(np.int32), affine)
    made.set_sform(affine, code=2)
    made.set_qform(affine, code=2)
    return made


def space_in_name(path: Path) -> str | None:
    """TemplateFlow's name of a space, if it is part of the file's name.

    >>> space_in_name(Path("tpl-MNI152NLin2009cAsym_res-01_atlas-Schaefer2018_dseg.nii.gz"))
    'MNI152NLin2009cAsym'
    """
    found = _SPACE.search(path.name)
    return found[0] if found else None

"""Whether a file is one volume whose header says where it is, judged without its data."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError
from ..image_files import load_image
from .findings import Problem

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

APART_MM = 1.0
"""How far the header's two transforms may put one voxel apart. Rounding moves it by hundredths."""

MNI_CODES = (3, 4)
"""NIfTI's codes for "Talairach" and "MNI 152"."""

GONE = Problem("the file is not there", "", True)


def opened(path: Path) -> tuple[Nifti1Image | None, list[Problem]]:
    """The image with its data unread, and what its header has against it.

    Refused: what is no single-file NIfTI, four dimensions (one volume stored with a fourth
    dimension of 1 is one volume), transforms that are absent, singular or contradict each other.

    Examples
    --------
    >>> opened(Path("nowhere.nii.gz"))[1]
    [Problem(what='the file is not there', detail='', refuses=True)]
    """
    if path.is_dir():
        return None, [Problem("expected a file; this is a folder", "", True)]
    if not path.is_file():
        return None, [GONE]
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None, [Problem("expected a .nii or .nii.gz file; convert it, as nibabel's "
                              "nib-convert does", "", True)]
    try:
        img: Any = load_image(path)
        return img, _shape(img) or _transforms(img)
    except Exception as problem:  # nibabel, gzip and the system each have errors of their own
        return None, [unreadable(problem)]


def read_volume(path: str | Path) -> Nifti1Image:
    """The image with its values in memory, float32, of three dimensions.

    Raises
    ------
    ImageError
        What :func:`opened` refuses, and what is cut off or damaged behind the header.

    Examples
    --------
    >>> read_volume("nowhere.nii.gz")
    Traceback (most recent call last):
    normfuse.errors.ImageError: nowhere.nii.gz: the file is not there
    """
    import nibabel as nib

    img, problems = opened(Path(path))
    refused = [p for p in problems if p.refuses]
    if img is not None and not refused:
        try:
            values = img.get_fdata(dtype=np.float32).reshape(img.shape[:3])
            return nib.Nifti1Image(values, img.affine)
        except Exception as problem:  # nibabel, gzip and zlib each have errors of their own
            refused = [unreadable(problem)]
    raise ImageError(f"{path}: " + "; ".join(f"{p.what} {p.detail}".strip() for p in refused))


def unreadable(problem: BaseException) -> Problem:
    """The problem of a file that nibabel, gzip or the system cannot read."""
    said = (str(problem).splitlines() or [""])[0][:200] or type(problem).__name__
    return Problem("the file cannot be read as NIfTI: damaged, or cut off while copied?", said,
                   True)


def _shape(img: Nifti1Image) -> list[Problem]:
    shape = tuple(int(n) for n in img.shape)
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        return [Problem("expected one volume of three dimensions; choose or average the volumes "
                        "first", f"shape {shape}", True)]
    kind = img.header.get_data_dtype()
    if kind.fields is not None or np.issubdtype(kind, np.complexfloating):
        return [Problem("expected one number a voxel, no colours or complex numbers", str(kind),
                        True)]
    return []


def _transforms(img: Nifti1Image) -> list[Problem]:
    header = img.header
    codes = int(header["qform_code"]), int(header["sform_code"])
    if codes == (0, 0):
        return [Problem("the header has neither qform nor sform, so nobody can say which side is "
                        "left; write the image again with its affine", "", True)]
    if not np.isfinite(img.affine).all() or abs(np.linalg.det(img.affine[:3, :3])) < 1e-6:
        return [Problem("the header's transform to mm is singular or not finite", "", True)]
    if 0 in codes:
        return []
    qform, sform = header.get_qform(), header.get_sform()
    if np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0:
        return [Problem("mirrored: qform puts left where sform puts right; find out which is true "
                        "and set both", "", True)]
    apart = _farthest(np.asarray(img.shape[:3]), qform - sform)
    if apart <= APART_MM:
        return []
    said = f"up to {apart:.1f} mm apart, codes {codes[0]} and {codes[1]}"
    if codes[1] in MNI_CODES and codes[0] not in MNI_CODES:  # scanner and template: two spaces
        return [Problem("qform and sform disagree; the sform, which says MNI, is used", said,
                        False)]
    return [Problem("qform and sform disagree; find out which is true and set both", said, True)]


def _farthest(shape: np.ndarray, difference: np.ndarray) -> float:
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    return float(np.linalg.norm(difference[:3, :3] @ corners + difference[:3, 3:], axis=0).max())

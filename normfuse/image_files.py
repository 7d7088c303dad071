"""Opening an image that others made: its header alone, judged before its voxels are read.

A header of 348 bytes may promise 10^13 voxels, or a note of gigabytes before the first of them;
the few kilobytes of a ``.nii.gz`` may unpack to as many.
"""
from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from .inputs import UnfitFileError, ordinary, refuse_size

LONGEST_NOTES = 2 ** 26
"""Bytes of a NIfTI header's extensions; programs write kilobytes."""

_OFFSETS = {348: (108, "f"), 540: (168, "q")}
"""Size of the header of NIfTI 1 and 2 -> where, and in which format, it says where voxels begin"""


def load_image(path: str | Path) -> Any:
    """The image with its voxels unread.

    Raises
    ------
    OSError
        If it is no ordinary file, or its voxels would take more memory than
        :func:`normfuse.inputs.limit_bytes`.
    Exception
        Whatever nibabel says of a file that it does not understand.

    Examples
    --------
    >>> import tempfile
    >>> import nibabel as nib
    >>> with tempfile.TemporaryDirectory() as place:
    ...     nib.save(nib.Nifti1Image(np.zeros((2, 3, 4)), np.eye(4)), Path(place, "t1.nii.gz"))
    ...     load_image(Path(place, "t1.nii.gz")).shape
    (2, 3, 4)
    """
    import nibabel as nib

    path = ordinary(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _refuse_long_notes(path)
    img: Any = nib.load(path)
    shape = getattr(img, "shape", None)
    if shape is not None:
        size = np.prod(np.abs(np.array(shape, dtype=float)))
        refuse_size(size * max(4, img.get_data_dtype().itemsize), f"an image of shape {shape}")
    return img


def _refuse_long_notes(path: Path) -> None:
    """Extensions between header and voxels whose sizes are not what they can be: nibabel would
    read whatever the file unpacks to."""
    opened = gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
    with opened as stream:
        start = stream.read(4)
        order = next((o for o in "<>" if len(start) == 4
                      and struct.unpack(o + "i", start)[0] in _OFFSETS), None)
        if order is None:
            return  # nibabel will say what it is not
        size = struct.unpack(order + "i", start)[0]
        header = start + stream.read(size)  # with the four bytes that say whether notes follow
        place, kind = _OFFSETS[size]
        if len(header) < size + 4 or not header[size]:
            return
        end = struct.unpack_from(order + kind, header, place)[0]
        at = size + 4
        if not at <= end <= LONGEST_NOTES:
            raise UnfitFileError(f"its voxels are said to begin at byte {end:g}")
        while end - at >= 16:
            told = stream.read(8)
            length = struct.unpack(order + "2i", told)[0] if len(told) == 8 else 0
            if not 8 <= length <= end - at:
                raise UnfitFileError(f"an extension of its header is said to have {length} bytes")
            at += length
            stream.seek(at)

"""Built atlases kept on this machine: found again only if whole, unedited and of today's rule."""
from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import OutputExistsError
from .outputs import new_file

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image


def cached_labels(name: str, made_of: tuple[bytes, ...],
                  build: Callable[[], Nifti1Image]) -> Nifti1Image:
    """The labels image from the cache if it is sound, else built and put there.

    The file's name carries a digest of all that the image is made of, so another source or rule
    never meets an old file; the header carries a digest of the content, so a damaged or edited
    file is built again.

    Parameters
    ----------
    name : str
        First part of the file's name.
    made_of : tuple of bytes
        Everything that decides the result: the rule's version and the source files.
    build : callable
        Makes the image, int16, shape (i, j, k).

    Examples
    --------
    >>> import nibabel as nib, tempfile
    >>> from unittest.mock import patch
    >>> toy = lambda: nib.Nifti1Image(np.arange(24, dtype="int16").reshape(2, 3, 4), np.eye(4))
    >>> with (tempfile.TemporaryDirectory() as place,
    ...       patch.dict(os.environ, NORMFUSE_CACHE=place)):
    ...     print(cached_labels("toy", (b"rule 1",), toy).shape, len(os.listdir(place)))
    (2, 3, 4) 1
    """
    key = _digest(*made_of)
    file = cache_folder() / f"{name}-{key[:16]}.nii.gz"
    image = _read(file, key)
    if image is None:
        image = build()
        _write(image, file, key)
    return image


def cache_folder() -> Path:
    """Where built atlases are kept: ``$NORMFUSE_CACHE``, else the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("NORMFUSE_CACHE") or user_cache_dir("normfuse"))


def _digest(*parts: bytes) -> str:
    # A digest of digests: ("ab", "c") and ("a", "bc") must not meet.
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _seal(image: Nifti1Image, key: str) -> bytes:
    labels = np.ascontiguousarray(image.dataobj, dtype="<i2")
    affine = image.affine.astype("<f4")  # NIfTI keeps float32
    return _digest(key.encode(), str(labels.shape).encode(), labels.tobytes(),
                   affine.tobytes()).encode()


def _read(file: Path, key: str) -> Nifti1Image | None:
    import nibabel as nib

    if not file.is_file():
        return None
    try:
        stored = nib.Nifti1Image.from_filename(file)
        # In memory from here on: the file may be replaced while the atlas is in use.
        image = nib.Nifti1Image(np.asanyarray(stored.dataobj), stored.affine, stored.header)
        sound = image.header["descrip"].item() == _seal(image, key)
    except Exception:  # whatever is wrong with a cached file, the answer is to build it again
        return None
    return image if sound else None


def _write(image: Nifti1Image, file: Path, key: str) -> None:
    image.header["descrip"] = _seal(image, key)
    try:
        with new_file(file, overwrite=True) as unfinished:
            image.to_filename(unfinished)
    except (OSError, OutputExistsError) as problem:  # a file where its folder should be
        warnings.warn(f"the atlas could not be cached as {file} ({problem}); it will be built "
                      "again next time. Point NORMFUSE_CACHE at a writable folder", stacklevel=4)

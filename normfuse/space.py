"""Where voxels are: a brain mask, its grid, and the order its voxels have in a table."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .cards import Card, short
from .errors import SpaceMismatchError

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

GRID_TOLERANCE = 1e-3
"""mm by which two affines may differ and still be the same grid: headers hold single precision."""


@dataclass(frozen=True, eq=False)
class Space:
    """The voxels of a mask on one grid, in C order: what makes a table of an image.

    Parameters
    ----------
    mask : ndarray of bool, shape (i, j, k)
    affine : ndarray, shape (4, 4)
        From voxel indices to mm, x to the right.
    name : str
        Template space in TemplateFlow's words, such as ``"MNI152NLin2009aSym"``.

    Raises
    ------
    SpaceMismatchError
        If the mask is not a 3-D grid, holds no voxel, or the affine is singular.

    Examples
    --------
    >>> mask = np.zeros((2, 2, 3), bool); mask[0, 1, 2] = mask[1, 0, 0] = True
    >>> space = Space(mask, np.diag([4.0, 4, 4, 1]), "MNI152NLin2009aSym")
    >>> space.features, space.voxel_size
    (('0,1,2', '1,0,0'), (4.0, 4.0, 4.0))
    >>> space.img([1.5, -2.0]).dataobj[1, 0, 0]
    np.float32(-2.0)
    >>> space.values(space.img([1.5, -2.0])).tolist()
    [1.5, -2.0]
    """

    mask: np.ndarray
    affine: np.ndarray
    name: str

    def __post_init__(self) -> None:
        mask = np.array(self.mask, dtype=bool)  # a copy that nobody else can change
        affine = np.array(self.affine, dtype=np.float64)
        if mask.ndim != 3 or not mask.any():
            raise SpaceMismatchError("a space needs a 3-D mask with at least one voxel; got shape "
                                     f"{mask.shape} with {int(mask.sum())} voxels")
        if affine.shape != (4, 4) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise SpaceMismatchError("a space needs a 4 x 4 affine that can be inverted; got "
                                     f"{affine.tolist()}")
        for name, value in (("mask", mask), ("affine", affine)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, mask_img: Nifti1Image, name: str) -> Space:
        """The non-zero voxels of a mask image."""
        return cls(np.asanyarray(mask_img.dataobj) != 0, mask_img.affine, name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return self.mask.shape

    @cached_property
    def n_voxels(self) -> int:
        """In the mask."""
        return int(self.mask.sum())

    @property
    def voxel_size(self) -> tuple[float, ...]:
        """mm along each axis of the grid."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0).round(6))

    @cached_property
    def indices(self) -> np.ndarray:
        """Grid index of each voxel, int, shape (n_voxels, 3)."""
        return np.argwhere(self.mask)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The voxels' names: their grid index, as ``"12,40,7"``."""
        return tuple(f"{i},{j},{k}" for i, j, k in self.indices.tolist())

    def coordinates(self) -> np.ndarray:
        """Centre of each voxel in mm, shape (n_voxels, 3)."""
        return self.indices @ self.affine[:3, :3].T + self.affine[:3, 3]

    def is_grid_of(self, img: Nifti1Image) -> bool:
        """Whether the image lies on this very grid."""
        return tuple(img.shape[:3]) == self.shape and bool(
            np.abs(img.affine - self.affine).max() < GRID_TOLERANCE)

    def values(self, img: Nifti1Image) -> np.ndarray:
        """The image's values in the mask, float32, shape (n_voxels,).

        Raises
        ------
        SpaceMismatchError
            If the image lies on another grid; nothing is resampled here.
        """
        if not self.is_grid_of(img) or len(img.shape) != 3:
            raise SpaceMismatchError(
                f"the image has shape {tuple(img.shape)} and affine {img.affine.round(3).tolist()}"
                f"; expected {self.shape} and {self.affine.round(3).tolist()}. Resample it first, "
                "as nilearn.image.resample_img does")
        return np.asanyarray(img.dataobj)[self.mask].astype(np.float32)

    def img(self, values: Any, background: float = 0.0) -> Nifti1Image:
        """An image of one value a voxel, float32; ``background`` outside the mask."""
        import nibabel as nib

        values = np.asarray(values)
        if values.shape != (self.n_voxels,):
            raise SpaceMismatchError(f"{self.n_voxels} values are needed, one a voxel of the mask;"
                                     f" got shape {values.shape}")
        data = np.full(self.shape, background, dtype=np.float32)
        data[self.mask] = values
        made = nib.Nifti1Image(data, self.affine)
        self.set_transforms(made)
        return made

    def set_transforms(self, img: Nifti1Image) -> None:
        """Both transforms of the header lead to this space: MNI's, if its name says so.

        Examples
        --------
        >>> import nibabel as nib
        >>> space = Space(np.ones((2, 3, 4), bool), np.diag([2.0, 2, 2, 1]), "MNI152NLin6Asym")
        >>> image = nib.Nifti1Image(np.zeros((2, 3, 4)), np.eye(4))
        >>> space.set_transforms(image)
        >>> int(image.header["sform_code"]), image.affine[0, 0].item()
        (4, 2.0)
        """
        code = 4 if self.name.startswith("MNI") else 2  # NIfTI's "MNI 152" and "aligned"
        img.set_sform(self.affine, code=code)
        img.set_qform(self.affine, code=code)

    def mask_img(self) -> Nifti1Image:
        """The mask as an image of 0 and 1."""
        import nibabel as nib

        return nib.Nifti1Image(self.mask.astype(np.uint8), self.affine)

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same mask on the same grid."""
        text = f"{self.shape}|{self.affine.round(3).tolist()}|"
        return hashlib.sha256(text.encode() + np.packbits(self.mask).tobytes()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the mask as packed bits in hexadecimal digits."""
        return {"name": self.name, "shape": list(self.shape), "affine": self.affine.tolist(),
                "mask": np.packbits(self.mask).tobytes().hex()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Space:
        """The inverse of :meth:`to_dict`.

        Examples
        --------
        >>> space = Space(np.eye(3, dtype=bool)[None], np.diag([2.0, 2, 2, 1]), "MNI152NLin6Asym")
        >>> Space.from_dict(space.to_dict()) == space
        True
        """
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(found["mask"]), dtype=np.uint8))
        shape = tuple(found["shape"])
        return cls(bits[:int(np.prod(shape))].reshape(shape), np.array(found["affine"]),
                   found["name"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        sides = " x ".join(map(str, self.shape))
        return (f"<Space {short(self.name)}: {self.n_voxels} voxels of {sides}, "
                f"{' x '.join(f'{v:g}' for v in self.voxel_size)} mm>")

    def _repr_html_(self) -> str:
        return Card("Space", self.name, {
            "voxels": f"{self.n_voxels} in the mask, of {' x '.join(map(str, self.shape))}",
            "voxel size": f"{' x '.join(f'{v:g}' for v in self.voxel_size)} mm"}).html()

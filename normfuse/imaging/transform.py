"""Where each point of one image is in another: applied, composed, inverted, stored."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelFileError
from ..inputs import ordinary
from ..outputs import new_file
from ..volumes.header import read_volume
from .extra import need
from .volume_grids import LPS, from_itk, to_itk

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

INTERPOLATIONS = {"linear": "sitkLinear", "nearest": "sitkNearestNeighbor",
                  "spline": "sitkBSpline"}
FIELD_MM = 4.0
"""Steps of the displacement fields that inverses of deformations are stored as."""

SUFFIXES = (".tfm", ".h5", ".txt", ".hdf5")


class SpatialTransform:
    r"""T: a point of the fixed image, in mm, -> the same place in the moving image.

    So the moving image in the fixed one's frame is :math:`m(T(x))`. Points are nibabel's: mm to
    the right, front and up. Kept as ITK has it, and read by ANTs, 3D Slicer and SimpleITK.

    Parameters
    ----------
    parts : sequence of SimpleITK.Transform
        The first is applied first.

    Examples
    --------
    >>> import SimpleITK as sitk
    >>> shift = SpatialTransform([sitk.TranslationTransform(3, (-2.0, 0, 5))])
    >>> shift.points([[0, 0, 0]]).tolist()
    [[2.0, 0.0, 5.0]]
    >>> shift.then(shift.inverse()).matrix.tolist() == np.eye(4).tolist()
    True
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        need("SimpleITK", "registration")
        self._parts = tuple(piece for part in parts for piece in _flat(part))

    @classmethod
    def identity(cls) -> SpatialTransform:
        """Everything stays."""
        return cls([])

    @classmethod
    def linear(cls, matrix: np.ndarray) -> SpatialTransform:
        """From a 4 x 4 matrix of mm.

        >>> SpatialTransform.linear(np.diag([2.0, 1, 1, 1])).points([[1, 1, 1]]).tolist()
        [[2.0, 1.0, 1.0]]
        """
        import SimpleITK as sitk

        matrix = np.asarray(matrix, dtype=float)
        if matrix.shape != (4, 4) or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise ValueError("a linear transform is an invertible 4 x 4 matrix; got "
                             f"{matrix.tolist()}")
        found = sitk.AffineTransform(3)
        found.SetMatrix((LPS @ matrix[:3, :3] @ LPS).ravel().tolist())
        found.SetTranslation((LPS @ matrix[:3, 3]).tolist())
        return cls([found])

    def __repr__(self) -> str:
        if self.matrix is None:
            return f"<SpatialTransform of {len(self._parts)} parts, deforming>"
        turned = np.linalg.det(self.matrix[:3, :3])
        return f"<SpatialTransform, linear, {turned:.3g} times the volume>"

    @property
    def itk(self) -> Any:
        """As one SimpleITK transform, of ITK's mm (to the left, back and up)."""
        import SimpleITK as sitk

        return sitk.CompositeTransform(list(self._parts[::-1])) if self._parts else \
            sitk.AffineTransform(3)

    def points(self, xyz: Any) -> np.ndarray:
        """Where points go, mm, shape (n, 3)."""
        there = self.itk
        return np.array([LPS @ there.TransformPoint((LPS @ p).tolist())
                         for p in np.asarray(xyz, dtype=float).reshape(-1, 3)]).reshape(-1, 3)

    @property
    def matrix(self) -> np.ndarray | None:
        """4 x 4, mm; None if something is bent."""
        if not all(part.IsLinear() for part in self._parts):
            return None
        corners = self.points(np.vstack([np.zeros(3), np.eye(3)]))
        found = np.eye(4)
        found[:3, 3] = corners[0]
        found[:3, :3] = (corners[1:] - corners[0]).T
        return found

    def then(self, other: SpatialTransform) -> SpatialTransform:
        """x -> other(self(x)).

        With self from a template to T1w and other from T1w to PET: from the template to PET.
        """
        return SpatialTransform([*self._parts, *other._parts])

    def inverse(self) -> SpatialTransform:
        """From the moving image to the fixed one; of deformations by fixed-point iteration."""
        return SpatialTransform([_inverse(part) for part in self._parts[::-1]])

    def resample(self, image: Nifti1Image | str | Path, like: Nifti1Image | str | Path, *,
                 interpolation: str = "linear") -> Nifti1Image:
        """The moving image in the fixed one's frame; 0 outside its field of view, NaN stays NaN.

        Parameters
        ----------
        image, like : Nifti1Image or path
            Moving image; the grid to write on.
        interpolation : str
            ``"linear"``, ``"nearest"`` (labels) or ``"spline"`` (cubic).
        """
        import SimpleITK as sitk

        if interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is one of {', '.join(INTERPOLATIONS)}; got "
                             f"{interpolation!r}")
        image, like = (read_volume(one) if isinstance(one, str | Path) else one
                       for one in (image, like))
        done = sitk.Resample(to_itk(image), to_itk(like), self.itk,
                             getattr(sitk, INTERPOLATIONS[interpolation]), 0.0)
        return from_itk(done)

    def jacobian(self, like: Nifti1Image) -> np.ndarray:
        """Determinants of the derivative at the voxels of a grid: 1 keeps volumes, 0 and less
        folds. By central differences of neighbouring voxels."""
        import SimpleITK as sitk

        if self.matrix is not None:
            return np.full(like.shape[:3], np.linalg.det(self.matrix[:3, :3]))
        grid = to_itk(like)
        field = sitk.TransformToDisplacementField(
            self.itk, sitk.sitkVectorFloat64, grid.GetSize(), grid.GetOrigin(), grid.GetSpacing(),
            grid.GetDirection())
        # ITK's own filter takes differences along the grid's axes for those along mm's
        step = np.reshape(grid.GetDirection(), (3, 3)) * grid.GetSpacing()
        along = np.gradient(sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3), axis=(0, 1, 2),
                            edge_order=2)
        return np.asarray(np.linalg.det(np.eye(3) + np.stack(along, axis=-1)
                                        @ np.linalg.inv(step)))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write as ITK does: ``.tfm`` (text) or ``.h5``, which deformations need."""
        import SimpleITK as sitk

        path = Path(path)
        if path.suffix not in SUFFIXES:
            raise ValueError(f"transforms are written as {', '.join(SUFFIXES[:2])}; got {path}")
        with new_file(path, overwrite=overwrite) as temporary:
            named = temporary.with_name(temporary.name + path.suffix)  # ITK goes by the suffix
            sitk.WriteTransform(self.itk, str(named))
            named.replace(temporary)
        return path

    @classmethod
    def load(cls, path: str | Path) -> SpatialTransform:
        """Read ITK's ``.tfm``, ``.txt``, ``.h5`` or ``.mat``.

        Raises
        ------
        ModelFileError
            If it is none, or not there.
        """
        need("SimpleITK", "registration")
        import SimpleITK as sitk

        if not Path(path).exists():
            raise ModelFileError(f"{path}: the file is not there")
        try:
            return cls([sitk.ReadTransform(str(ordinary(Path(path))))])
        except (RuntimeError, OSError) as problem:
            raise ModelFileError(f"{path} is no transform that ITK reads, or was damaged: give "
                                 ".tfm, .txt, .mat or .h5 as ANTs, 3D Slicer and SimpleITK write "
                                 "them") from problem


def _flat(part: Any) -> list[Any]:
    """The parts of a composite, the first applied first, as their own kinds."""
    if "CompositeTransform" not in part.GetName():
        return [part.Downcast()]
    import SimpleITK as sitk

    whole = sitk.CompositeTransform(part)
    nth = [whole.GetNthTransform(k) for k in range(whole.GetNumberOfTransforms())]
    return [piece for one in nth[::-1] for piece in _flat(one)]


def _inverse(part: Any) -> Any:
    import SimpleITK as sitk

    if part.IsLinear() or isinstance(part, sitk.Similarity3DTransform):
        return part.GetInverse()
    origin, spacing, size, direction = _domain(part)
    field = sitk.TransformToDisplacementField(part, sitk.sitkVectorFloat64, size, origin, spacing,
                                              direction)
    return sitk.DisplacementFieldTransform(sitk.InvertDisplacementField(
        field, maximumNumberOfIterations=60, maxErrorToleranceThreshold=0.05,
        meanErrorToleranceThreshold=0.005, enforceBoundaryCondition=True))


def _domain(part: Any) -> tuple[Any, Any, Any, Any]:
    """Grid of a deformation's domain, in steps that a field is stored in."""
    import SimpleITK as sitk

    if isinstance(part, sitk.BSplineTransform):
        long = np.array(part.GetTransformDomainPhysicalDimensions())
        size = np.maximum(2, np.ceil(long / FIELD_MM).astype(int) + 1)
        return (part.GetTransformDomainOrigin(), (long / (size - 1)).tolist(), size.tolist(),
                part.GetTransformDomainDirection())
    field = part.GetDisplacementField()
    return field.GetOrigin(), field.GetSpacing(), field.GetSize(), field.GetDirection()

"""Motions that were applied and have to be found again, and by how far they were missed."""
from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from normfuse.imaging.likeness import MutualInformation
from normfuse.imaging.transform import SpatialTransform

COARSE, ROUGH = MutualInformation(resolution=4), MutualInformation(resolution=6)


def motion(degrees=(12.0, -8.0, 15.0), mm=(8.0, -6.0, 10.0), size=1.0) -> SpatialTransform:
    matrix = np.eye(4)
    matrix[:3, :3] = size * Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    centre = np.array([0.0, -18, 10])
    matrix[:3, 3] = centre + mm - matrix[:3, :3] @ centre
    return SpatialTransform.linear(matrix)


def bent(size: float = 4.0) -> SpatialTransform:
    import SimpleITK as sitk

    spline = sitk.BSplineTransform(3, 3)
    spline.SetTransformDomainOrigin((-96, -96, -72))
    spline.SetTransformDomainPhysicalDimensions((192, 228, 190))
    spline.SetTransformDomainMeshSize((4, 4, 4))
    rng = np.random.default_rng(0)
    spline.SetParameters((size * rng.standard_normal(len(spline.GetParameters()))).tolist())
    return SpatialTransform([spline])


def points(image: nib.Nifti1Image, n: int = 200) -> np.ndarray:
    where = np.argwhere(np.asanyarray(image.dataobj) > 0)
    where = where[np.random.default_rng(0).choice(len(where), n, replace=False)]
    return where @ image.affine[:3, :3].T + image.affine[:3, 3]


def error_mm(true: SpatialTransform, found: SpatialTransform, fixed: nib.Nifti1Image) -> float:
    where = points(fixed)
    return float(np.linalg.norm(true.points(found.points(where)) - where, axis=1).mean())

"""Small images for the tests of volumes: real anatomy on grids as they occur in the wild."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np

from normfuse.space import Space
from normfuse.volumes.plan import template_space, tissue_probability

RAS = np.array([[5.0, 0, 0, -96], [0, 6, 0, -132], [0, 0, 5, -70], [0, 0, 0, 1]])
SHAPE = (40, 38, 38)  # covers the brain; unequal sides and voxels


def oblique(degrees: float = 11.0) -> np.ndarray:
    """Turned about x and z around the middle of the head; no axis stays where it was."""
    a = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:3, :3] = (np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
                    @ np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]))
    middle = np.array([0.0, -18, 22])
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    return turn @ RAS


def brain(affine: np.ndarray = RAS, seed: int = 0) -> np.ndarray:
    """Grey matter brighter than white, with noise; 0 outside the brain; float32."""
    level, inside = _anatomy(affine.tobytes())
    noise = np.random.default_rng(seed).normal(0, 0.05, SHAPE)
    return ((level + noise) * inside).astype(np.float32)


@lru_cache(maxsize=4)
def _anatomy(affine_bytes: bytes) -> tuple[np.ndarray, np.ndarray]:
    affine, shape = np.frombuffer(affine_bytes).reshape(4, 4), SHAPE
    everywhere = Space(np.ones(shape, bool), affine, "test")
    parts = [tissue_probability(t, everywhere).reshape(shape)
             for t in ("grey_matter", "white_matter")]
    mask = template_space("brain", 2.0)
    index = np.rint((everywhere.coordinates() - mask.affine[:3, 3]) / 2).astype(int)
    within = ((index >= 0) & (index < mask.shape)).all(1)
    inside = np.zeros(len(index), bool)
    inside[within] = mask.mask[tuple(index[within].T)]
    level = 0.3 + 0.8 * np.nan_to_num(parts[0]) + 0.4 * np.nan_to_num(parts[1])
    return level, inside.reshape(shape)


def save(path: Path, data: np.ndarray, affine: np.ndarray = RAS, *, qform: int = 2,
         sform: int = 2, slope: float | None = None) -> Path:
    """With the codes of the header's transforms; a code of 0 leaves that transform out."""
    img = nib.Nifti1Image(data, None)
    sizes = *np.linalg.norm(affine[:3, :3], axis=0), 1, 1
    img.header.set_zooms(sizes[:data.ndim])
    img.header.set_qform(affine if qform else None, code=qform)
    img.header.set_sform(affine if sform else None, code=sform)
    img = nib.Nifti1Image(data, None, img.header)
    if slope is not None:
        img.header.set_slope_inter(slope, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    img.to_filename(path)
    return path

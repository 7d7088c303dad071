"""Simulated brain scans of healthy people (T1w, T1c, T2w, FLAIR), for lack of real ones.

Tissue maps of the template that nilearn ships (grey, white, and what is left as fluid), deformed
for each person; one level a tissue and contrast with variation between people; smooth residual
patterns, bias field, noise, a wandering edge of the brain. Written as the real files are:
skull-stripped, int16 = 1000 x intensity / 99.5th percentile. There is no age and no sex in them.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates, zoom

CONTRASTS = ("T1w", "T1c", "T2w", "FLAIR")
SURE = 0.9  # share of a tissue in voxels that its level is taken from
TOP = 99.5  # percentile that becomes 1000

# Chosen by what looks like a scan, and the brain's edge so that images cover about as much of the
# MNI brain as real ones do; none by how well lesions or the tumour were found.
WARPS = ((40.0, 2.5), (16.0, 1.5))
"""FWHM and sd (mm) of displacements, along each axis: the real scans were moved to the template
by 12 parameters only, so that gyri and ventricles are millimetres from where it has them."""
GREY_SD, FLUID_SD = 0.08, 0.25
"""Between people, of a tissue's level as a share of it: scanners and protocols differ."""
PATTERNS = ((30.0, 0.03), (8.0, 0.03))  # FWHM mm, sd as a share of the level
BIAS = (90.0, 0.05)  # FWHM mm, sd of the logarithm
BLUR = 1.0  # mm, sd, of the image beyond the partial volumes of the maps
NOISE = 0.03  # of the white matter's level
EDGE = (24.0, 0.15)  # FWHM mm of the border's wander, sd as a share of the blurred mask


@dataclass(frozen=True)
class Anatomy:
    """Shares of tissue, 0 to 1, each of shape (i, j, k), and where the grid is."""

    grey: np.ndarray
    white: np.ndarray
    brain: np.ndarray
    affine: np.ndarray

    @classmethod
    def of_template(cls, mm: int = 2) -> Anatomy:
        """ICBM 152 2009a; the real files have 2 mm."""
        from nilearn.datasets import (load_mni152_brain_mask, load_mni152_gm_template,
                                      load_mni152_wm_template)

        grey, white, brain = (load(resolution=mm) for load in (
            load_mni152_gm_template, load_mni152_wm_template, load_mni152_brain_mask))
        grey_, white_, brain_ = (np.asarray(i.get_fdata(), np.float32)
                                 for i in (grey, white, brain))
        return cls(np.clip(grey_, 0, 1), np.clip(white_, 0, 1), brain_, brain.affine)

    @property
    def mm(self) -> float:
        """Side of a voxel."""
        return float(self.affine[0, 0])

    def field(self, fwhm: float, rng: np.random.Generator) -> np.ndarray:
        """A smooth Gaussian field of mean 0 and sd 1, drawn on a grid of a third of its width."""
        shape = self.brain.shape
        step = max(fwhm / self.mm / 3, 1.0)
        small = [int(np.ceil(n / step)) + 1 for n in shape]
        rough = gaussian_filter(rng.standard_normal(small, dtype=np.float32),
                                fwhm / self.mm / step / 2.355, mode="wrap")
        rough /= rough.std()
        return zoom(rough, np.array(shape) / small, order=1, grid_mode=True, mode="nearest")

    @property
    def fluid(self) -> np.ndarray:
        """What is neither grey nor white."""
        return np.clip(self.brain - self.grey - self.white, 0, 1)


def tissue_levels(scans: dict[str, dict[str, np.ndarray]], lesions: dict[str, np.ndarray],
                  anatomy: Anatomy) -> pd.DataFrame:
    """Levels of grey matter and fluid, white matter being 1; index: contrast.

    Medians of people's own normal-appearing tissue (6 mm from any lesion), averaged over people.

    Parameters
    ----------
    scans : dict
        Person -> contrast -> image on the template's 2 mm grid.
    lesions : dict
        Person -> mask.
    """
    rows = {}
    for contrast in CONTRASTS:
        found = []
        for who, images in scans.items():
            sound = ~binary_dilation(lesions[who] > 0, iterations=3) & (images[contrast] > 0)
            white, grey, fluid = (float(np.median(images[contrast][sound & (share > SURE)]))
                                  for share in (anatomy.white, anatomy.grey, anatomy.fluid))
            found.append((grey / white, fluid / white))
        rows[contrast] = np.mean(found, axis=0)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["grey", "fluid"])


def write_person(stem: str, folder: Path, levels: pd.DataFrame, anatomy: Anatomy,
                 rng: np.random.Generator) -> None:
    """One healthy person's four files, ``<stem>_<contrast>.nii.gz``."""
    import nibabel as nib

    shape = anatomy.brain.shape
    at = np.indices(shape, dtype=np.float32)
    for axis in at:
        for fwhm, sd in WARPS:
            axis += sd / anatomy.mm * anatomy.field(fwhm, rng)
    grey, white, brain = (map_coordinates(share, at, order=1, mode="constant")
                          for share in (anatomy.grey, anatomy.white, anatomy.brain))
    inside = gaussian_filter(brain, 3 / anatomy.mm) > 0.35 + EDGE[1] * anatomy.field(EDGE[0], rng)
    fluid = np.clip(1 - grey - white, 0, 1)
    for contrast in CONTRASTS:
        of_grey, of_fluid = levels.loc[contrast] * np.exp(
            (GREY_SD, FLUID_SD) * rng.standard_normal(2))
        image = of_grey * grey + white + of_fluid * fluid
        for fwhm, sd in PATTERNS:
            image *= 1 + sd * anatomy.field(fwhm, rng)
        image *= np.exp(BIAS[1] * anatomy.field(BIAS[0], rng))
        image = gaussian_filter(image, BLUR / anatomy.mm)
        image += NOISE * rng.standard_normal(shape, dtype=np.float32)
        image = np.where(inside, np.maximum(image, 0.01), 0)
        image *= 1000 / np.percentile(image[inside], TOP)
        nib.save(nib.Nifti1Image(image.astype(np.int16), anatomy.affine),
                 folder / f"{stem}_{contrast}.nii.gz")

"""What a synthesiser says of people's scans: expected values and how sure it is."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..cards import Card
from ..cohort import Cohort
from ..errors import CohortError, listed
from ..modality import Modality
from ..outputs import new_folder
from ..space import Space
from .extra import need
from .images import PLANES

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image


WINDOW = 11  # pixels, of SSIM


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Synthesised scans of some people.

    Attributes
    ----------
    space : Space
    mean : dict of DataFrame, shape (n_people, n_voxels)
        Modality -> expected value in its unit, of the people for whom it was synthesised.
    sd : dict of DataFrame of the same shape
        How far the person's own scan would be from it, one standard deviation: calibrated on
        people whom training did not see, measured with the same modalities.
    given : DataFrame of bool, shape (n_people, n_modalities)
        What each person's scans were synthesised from.
    modalities : tuple of Modality
        The synthesised ones.
    notes : tuple of str
    """

    space: Space
    mean: Mapping[str, pd.DataFrame]
    sd: Mapping[str, pd.DataFrame]
    given: pd.DataFrame
    modalities: tuple[Modality, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.given)

    def img(self, subject: str, modality: str, what: str = "mean") -> Nifti1Image:
        """An image of somebody's expected values or of their ``"sd"``."""
        tables = {"mean": self.mean, "sd": self.sd}
        if what not in tables:
            raise ValueError(f"what is \"mean\" or \"sd\"; got {what!r}")
        table = self._of(modality, tables[what])
        if subject not in table.index:
            raise CohortError(f"{modality} of {subject!r} was not synthesised; it was of "
                              f"{listed(table.index)}")
        return self.space.img(table.loc[subject].to_numpy())

    def standardised(self, cohort: Cohort, modality: str) -> pd.DataFrame:
        """(measured - expected) / sd in every voxel of those of whom it was measured.

        mean 0 and sd 1 in people like those of the calibration: what is far from 0 in somebody
        is not what their other scans foretell.
        """
        measured, expected, sd = self._beside(cohort, modality)
        return (measured - expected) / sd

    def errors(self, cohort: Cohort, plane: str = "axial", minimum: int = 100) -> pd.DataFrame:
        """How well measured scans were foretold: one row a person and modality.

        Columns: ``mae`` (in the modality's unit), ``psnr`` (dB) and ``ssim``, the last two means
        over the slices with ``minimum`` voxels of brain or more, with the range (largest minus
        smallest value) of each measured slice; ``z_sd``, the sd of :meth:`standardised`; and
        ``rank_correlation`` of absolute error and sd over voxels. SSIM is MONAI's (Gaussian
        window of 11 pixels, sd 1.5), its map averaged inside the brain; outside both images are 0.
        """
        from scipy.stats import spearmanr

        need("monai", "the structural similarity of errors(…)")
        rows = []
        for m in self.modalities:
            measured, expected, sd = self._beside(cohort, m.name)
            for subject in measured.index:
                x, mu, s = (t.loc[subject].to_numpy(np.float64) for t in (measured, expected, sd))
                seen = ~np.isnan(x)
                error = np.where(seen, x - mu, 0.0)
                real, made, inside = self._slices((np.where(seen, x, 0.0), np.where(seen, mu, 0.0),
                                                   seen), plane, minimum)
                rows.append({
                    "subject": subject, "modality": m.name,
                    "given": "+".join(self.given.columns[self.given.loc[subject]]),
                    "mae": float(np.abs(error[seen]).mean()),
                    "psnr": float(_psnr(real, made, inside).mean()),
                    "ssim": float(_ssim(real, made, inside).mean()),
                    "z_sd": float((error[seen] / s[seen]).std()),
                    "rank_correlation": float(spearmanr(np.abs(error[seen]), s[seen])[0])
                    if np.ptp(s[seen]) else np.nan})
        return pd.DataFrame(rows)

    def write(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """``{subject}_{modality}_synthesised.nii.gz`` and ``…_sd.nii.gz`` for everybody."""
        folder = Path(folder)
        with new_folder(folder, overwrite=overwrite) as work:
            for m in self.modalities:
                for subject in self.mean[m.name].index:
                    for what, name in (("mean", "synthesised"), ("sd", "sd")):
                        self.img(subject, m.name, what).to_filename(
                            work / f"{subject}_{m.name}_{name}.nii.gz")
        return folder

    def _slices(self, values: Sequence[np.ndarray], plane: str, minimum: int
                ) -> list[np.ndarray]:
        """Images of the slices with so many voxels or more, (n_slices, *sides) each."""
        found = []
        for table in values:
            volume = np.zeros(self.space.shape)
            volume[self.space.mask] = table
            found.append(np.moveaxis(volume, PLANES[plane], 0))
        return [v[found[-1].sum((1, 2)) >= minimum] for v in found]

    def _beside(self, cohort: Cohort, modality: str
                ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        expected, sd = self._of(modality, self.mean), self._of(modality, self.sd)
        there = cohort.ids[cohort.present[modality].to_numpy()]
        both = expected.index.intersection(there)
        return cohort.select(list(both)).features[modality], expected.loc[both], sd.loc[both]

    def _of(self, modality: str, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        if modality not in tables:
            raise CohortError(f"{modality!r} was not synthesised; {listed(tables)} were")
        return tables[modality]

    def __repr__(self) -> str:
        return (f"<Synthesis of {listed(self.mean)} for {len(self)} people on {self.space!r}>")

    def _repr_html_(self) -> str:
        table = pd.DataFrame({"people": {m: len(t) for m, t in self.mean.items()},
                              "median sd": {m: float(np.median(t)) for m, t in self.sd.items()}})
        return Card("Synthesis", f"of {len(self)} people", {"space": repr(self.space)},
                    {"synthesised": table.rename_axis("modality")}).html()


def _psnr(real: np.ndarray, made: np.ndarray, inside: np.ndarray) -> np.ndarray:
    squares = ((real - made) ** 2).sum((1, 2)) / inside.sum((1, 2))
    return np.asarray(10 * np.log10(np.ptp(real, axis=(1, 2)) ** 2 / squares))


def _ssim(real: np.ndarray, made: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean of the map of local similarities over the brain; both in units of the range."""
    import torch
    from monai.metrics.regression import compute_ssim_and_cs

    reach = np.ptp(real, axis=(1, 2))[:, None, None]
    margin = WINDOW // 2
    y_pred, y = (torch.from_numpy(np.pad(v / reach, ((0, 0), (margin,) * 2, (margin,) * 2)))
                 [:, None] for v in (made, real))
    similar, _ = compute_ssim_and_cs(y_pred, y, spatial_dims=2, kernel_size=(WINDOW,) * 2,
                                     kernel_sigma=(1.5, 1.5), data_range=1.0)
    return np.asarray((similar[:, 0].numpy() * inside).sum((1, 2)) / inside.sum((1, 2)))

"""Does a lesion change the z elsewhere? Real patients scored with it and without it.

The glioma and the two people with multiple sclerosis of `real_images.py`, beside simulated healthy
people: one model of voxels of all four contrasts. Each patient is scored as they are, without the
voxels that the lesion touches (`cohort.masked`), and with a margin as wide as the smoothing's FWHM
besides. z are then compared in voxels beyond that margin, the same ones in all three: root mean
square, share beyond 1.96, correlation with and mean absolute difference from z of the whole brain;
and the latent distance's p. Prints JSON.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from real_images import DATA, KINDS, MASKS, write_study

import normfuse as nf
from normfuse.analyses import by_lesion
from normfuse.lesions import lesion_distances
from normfuse.segmentations import Segmentations


def segmentations() -> Segmentations:
    """Everybody's lesions on the files' own 2 mm; the tumour's parts count as one."""
    space = nf.volumes.template_space("brain", 2.0)
    names = {"lesion": 1, "other part": 2}
    return Segmentations.read({who: DATA / f"{file}.nii.gz" for who, file in MASKS.items()},
                              space, names)


def compared(arms: dict[str, nf.Deviations], away: pd.DataFrame, margin: float
             ) -> list[dict[str, Any]]:
    """One row a patient, contrast and arm, of voxels beyond the margin."""
    rows = []
    whole = arms["whole"]
    for who in away.index:
        for contrast in whole.modalities:
            far = (away.loc[who] > margin).to_numpy()
            first = whole.z.loc[who, contrast].to_numpy()
            for arm, found in arms.items():
                z = found.z.loc[who, contrast].to_numpy()
                seen = far & np.isfinite(z) & np.isfinite(first)
                rows.append({
                    "who": who, "contrast": contrast, "arm": arm, "n_voxels": int(seen.sum()),
                    "rms": float(np.sqrt((z[seen] ** 2).mean())),
                    "beyond 1.96": float((np.abs(z[seen]) > 1.96).mean()),
                    "r with whole": float(np.corrcoef(z[seen], first[seen])[0, 1]),
                    "mean |difference|": float(np.abs(z[seen] - first[seen]).mean())})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100, help="simulated healthy people")
    parser.add_argument("--resolution", type=float, default=6, help="mm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where images and the z of all arms stay")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    margin, ill = 2 * asked.resolution, segmentations()
    with tempfile.TemporaryDirectory() as place:
        folder = asked.keep or Path(place)
        cohort = nf.Cohort.read(write_study(folder, asked.people, asked.resolution, asked.seed,
                                            mm=4))
        model = nf.NormativeModel(seed=asked.seed, calibration=nf.HeldOut(),
                                  plan=nf.TrainingPlan(max_epochs=150, progress=False)).fit(
                                      cohort.reference_subjects())
        patients = cohort.select(list(ill.ids))
        away = lesion_distances(ill, cohort.modalities[0].space)
        arms = {"whole": patients, "lesion left out": patients.masked(ill),
                "and a margin": patients.masked(ill, margin=margin)}
        for kind in KINDS:
            found = {arm: model.deviations(people, kind=kind) for arm, people in arms.items()}
            table = pd.DataFrame(compared(found, away, margin)).round(3)
            distance = pd.DataFrame({arm: d.distance["p"] for arm, d in found.items()})
            parts = by_lesion(found["whole"], ill, rim=margin).round(2)
            print(json.dumps({"kind": kind, "ml": ill.volumes().sum(axis=1).round(1).to_dict(),
                              "margin_mm": margin, "elsewhere": table.to_dict("records"),
                              "p of the latent distance": distance.round(4).to_dict(),
                              "by lesion, whole": parts.reset_index().to_dict("records")},
                             indent=1), flush=True)
            if asked.keep:
                for arm, d in found.items():
                    d.save(asked.keep / f"{kind} {arm}", overwrite=True)


if __name__ == "__main__":
    main()

"""What imputation finds and what it cannot: PET lesions with PET absent, imputed, present.

Simulated images (`nf.simulate_volumes`) on one grid and mask, every scan of everybody. Half of the
healthy people teach the normative model (covariates only) and the image synthesiser, with PET
missing in some of them; the others and the patients are judged. Of these PET is

* present: its own z;
* imputed: hidden, foretold from t1 and dti by the image synthesiser ("by images") or by the
  normative model's own latents and covariates ("by latents"), z by `deviations.imputed`; and one
  draw of that z (`deviations.imputed.draw`);
* absent: nothing of PET; in its place the root mean square z of t1 and dti at the same voxel.

Also the plain z of the synthesised value, as if it had been measured: what must not be done.
Area under the ROC curve (AUC) of |z| for voxels inside planted PET lesions, per patient with one,
mean and 95 % interval over patients. The same for lesions that only PET shows: each patient's
PET effect added to the PET z of a healthy test person, whose other scans know nothing of it.
Share of |z| > 1.96 in healthy test people, mean and 95 % interval over people.
Prints JSON a seed.
"""
from __future__ import annotations

import argparse
import json
import re
import resource
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.imaging.learning import image_plan
from normfuse.imaging.synthesis import ImageSynthesiser
from normfuse.kinds import Covariates, LeaveModalityOut
from normfuse.networks.pyramid import Pyramid

PET = "pet"


def study(folder: Path, people: tuple[int, int], seed: int) -> tuple[nf.Cohort, Any]:
    """All scans of everybody, voxels of 8 mm of the whole brain; and the truth."""
    truth = nf.simulate_volumes(folder, *people, resolution=8, seed=seed, missing=0)
    text = truth.cohort_file.read_text()
    truth.cohort_file.write_text(re.sub(r'mask = ".*"', 'mask = "brain"', text))
    return nf.Cohort.read(truth.cohort_file), truth


def some_without(cohort: nf.Cohort, name: str, share: float, seed: int) -> nf.Cohort:
    """A modality hidden in a share of the people."""
    who = np.random.default_rng(seed).random(len(cohort)) < share
    hidden, kept = cohort.select(cohort.ids[who]), cohort.select(cohort.ids[~who])
    return kept.join(hidden.without(name)).select(cohort.ids)


def auc(size: np.ndarray, effect: np.ndarray) -> float:
    """Of |z|, for the voxels where a planted PET deviation is half its peak or more."""
    far = np.abs(effect)
    return float(roc_auc_score(far >= far.max() / 2, np.nan_to_num(np.abs(size))))


def only_pet(z: pd.DataFrame, effects: list[np.ndarray], shown: bool) -> list[float]:
    """The same in healthy people to whom the effects are given, one each."""
    return [auc(row + effect * shown, effect) for row, effect in zip(z.to_numpy(), effects)]


def interval(values: list[float] | np.ndarray) -> dict[str, float]:
    """Mean, 95 % interval by Student's t, and n."""
    v = np.asarray(values, dtype=float)
    half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v)) if len(v) > 1 \
        else float("nan")
    return {"mean": round(float(v.mean()), 4), "low": round(float(v.mean() - half), 4),
            "high": round(float(v.mean() + half), 4), "n": len(v)}


def ways(model: nf.NormativeModel, synthesiser: ImageSynthesiser, people: nf.Cohort
         ) -> dict[str, pd.DataFrame]:
    """z of PET by every way, and the size of what the other scans show."""
    own = model.deviations(people).z
    filled = synthesiser.impute(people.without(PET))
    imputed = model.deviations(filled)
    by_latents = model.deviations(model.impute(people.without(PET))).imputed
    naive = nf.Cohort(people.subjects, dict(filled.features), filled.modalities,
                      filled.covariates)
    others = np.sqrt((own["t1"].fillna(0) ** 2 + own["dti"].fillna(0) ** 2) / 2)
    return {"present": own[PET], "imputed by images": imputed.imputed.z[PET],
            "a draw, by images": imputed.imputed.draw()[PET],
            "imputed by latents": by_latents.z[PET], "a draw, by latents": by_latents.draw()[PET],
            "absent": others,
            "imputed by images, sd ignored": model.deviations(naive).z[PET],
            "sd of z, images": imputed.imputed.sd[PET], "sd of z, latents": by_latents.sd[PET]}


def one_seed(folder: Path, people: tuple[int, int], epochs: int, seed: int) -> dict[str, Any]:
    """All figures of one simulated study."""
    cohort, truth = study(folder, people, seed)
    healthy, patients = cohort.split("diagnosis == 'CN'")
    teachers = healthy.select(healthy.ids[::2])
    judged = healthy.select(healthy.ids[1::2])
    taught = some_without(teachers, PET, 0.3, seed)
    model = nf.NormativeModel(n_latent=6, kinds=(Covariates(), LeaveModalityOut()), seed=seed,
                              calibration=nf.HeldOut(),
                              plan=nf.TrainingPlan(max_epochs=40, warmup=10,
                                                   progress=False)).fit(taught)
    synthesiser = ImageSynthesiser(sizes=Pyramid((16, 32, 48), (4, 8, 16)), seed=seed,
                                   plan=image_plan_of(epochs)).fit(taught)
    well, ill = (ways(model, synthesiser, c) for c in (judged, patients))
    lesions = truth.lesions
    with_pet = [w for w in patients.ids if ((lesions["participant_id"] == w)
                                            & (lesions["modality"] == PET)).any()]
    effects = [truth.effect(who, PET) for who in with_pet]
    made = synthesiser.synthesise(judged, [PET])
    error = made.standardised(judged, PET).to_numpy()
    x, x_hat = judged.features[PET].to_numpy(), made.mean[PET].to_numpy()
    pairs = (well["present"].to_numpy(), well["imputed by images, sd ignored"].to_numpy())
    names = [n for n in well if not n.startswith("sd of z")]
    return {
        "seed": seed, "epochs": len(synthesiser.fitted.history),
        "auc": {n: interval([auc(ill[n].loc[who].to_numpy(), effect)
                             for who, effect in zip(with_pet, effects)]) for n in names},
        "auc, only PET shows it": {n: interval(only_pet(well[n], effects, n == "present"))
                                   for n in names},
        "healthy beyond 1.96": {n: interval((well[n].abs() > 1.96).mean(axis=1))
                                for n in names if n != "absent"},
        "sd of z in health": {n: round(float(np.nanstd(well[n])), 3)
                              for n in names if n != "absent"},
        "median sd of z": {n: round(float(np.nanmedian(well[n])), 3) for n in well
                           if n not in names},
        "slope of imputed on own z": round(float(np.polyfit(*(p.ravel() for p in pairs), 1)[0]),
                                           3),
        "synthesis z_sd": round(float(error.std()), 3),
        "synthesis error, share of sd between people": round(float(
            np.sqrt(((x - x_hat) ** 2).mean(0) / x.var(0)).mean()), 3)}


def image_plan_of(epochs: int) -> nf.TrainingPlan:
    """As by default, but so long."""
    from dataclasses import replace

    return replace(image_plan(), max_epochs=epochs, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, nargs=2, default=(160, 30))
    parser.add_argument("--epochs", type=int, default=30, help="of the synthesiser")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    asked = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as place:
            found = one_seed(Path(place) / "study", tuple(asked.people), asked.epochs, seed)
        used = resource.getrusage(resource.RUSAGE_SELF)
        found["cpu_seconds_so_far"] = round(used.ru_utime + used.ru_stime)
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()

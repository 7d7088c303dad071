"""Lesions as voxel-wise deviations of a normative model: do pre-trained convolutions help it?

    OMP_NUM_THREADS=1 python benchmarks/images/pretraining_voxels.py [SEED ...]
    python benchmarks/images/pretraining_voxels.py --table

Five simulations of T1w, T2w and FLAIR at 8 mm. A ``NormativeModel`` of 150 healthy people without
convolutions, with fresh ones, or with encoders that began where ``pretrain`` ended (40 other
people, half with lesions; reconstruction, within people, both). Judged on 12 people with tumours,
with all contrasts and with each alone, by the area under the ROC curve of lesions' voxels by |z|,
each person and contrast on its own; and on 40 other healthy people (log p a voxel; share of |z|
beyond 1.96, nominal .05). Refined posteriors forget their encoders, amortised ones do not: both.
Rows of a seed are paired: the same people, seeds and networks.
"""
from __future__ import annotations

import argparse
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.imaging.pretraining import Topology, pretrain
from normfuse.inference import Amortised, Refined
from normfuse.networks.conv import Convolutional
from normfuse.pretrained import PretrainedEncoders
from normfuse.training import TrainingPlan

OUT = Path("out/pretraining")
MEASURED = Path(__file__).with_suffix(".csv")
CONTRASTS = ("T1w", "T2w", "FLAIR")
BEND = Convolutional(channels=(8, 16))
ARMS = {"linear": None, "scratch": None, "reconstruction": Topology(intra=0, inter=0),
        "intra": Topology(inter=0), "intra + inter": Topology()}
INFERENCES = {"amortised": Amortised(), "refined": Refined()}
KEY = ["inference", "seed", "arm"]


def simulated(n: int, lesions: Any, seed: int) -> Any:
    return nf.simulate_images(n, contrasts=CONTRASTS, lesions=lesions, resolution=8, seed=seed)


def encoders(arm: str, seed: int) -> PretrainedEncoders | None:
    if ARMS[arm] is None:
        return None
    pool = simulated(40, {"tumour": 0.25, "sclerosis": 0.25}, 1000 + seed).cohort()
    return pretrain(pool, objective=ARMS[arm], networks=BEND, seed=seed, plan=TrainingPlan(
        max_epochs=40, patience=40, warmup=0, learning_rate=1e-3, batch_size=8, final_rate=0.05,
        clip=5.0, validation_draws=1))


def one(arm: str, inference: str, seed: int) -> dict[str, Any]:
    learn, judge = (simulated(n, None, k + seed).cohort() for n, k in ((150, 5000), (40, 7000)))
    ill = simulated(12, "tumour", 6000 + seed)
    patients = ill.cohort()
    where = ill.segmentations().select(list(map(str, patients.ids))).labels > 0
    start = time.process_time()
    model = nf.NormativeModel(
        model=nf.OneLatent(n_latent=8, voxels=None if arm == "linear" else BEND), seed=seed,
        calibration=nf.HeldOut(), inference=INFERENCES[inference], encoders=encoders(arm, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(learn)
        z = model.deviations(judge).z
        row = {"inference": inference, "seed": seed, "arm": arm,
               "kept": any("bend the decoders" in note for note in model.fitted.reference.notes),
               "log p": float(model.log_likelihood(judge)["per_feature"].mean()),
               "beyond": float((z.abs() > 1.96).to_numpy()[z.notna().to_numpy()].mean())}
        for given in (CONTRASTS, *((c,) for c in CONTRASTS)):
            row["+".join(given)] = area(model, patients, where, given)
    return {**row, "cpu_s": time.process_time() - start}


def area(model: nf.NormativeModel, people: nf.Cohort, where: np.ndarray,
         given: tuple[str, ...]) -> float:
    some = people.without(*(m.name for m in people.modalities if m.name not in given))
    z = model.deviations(some).z.abs()
    found = []
    for name in given:
        block = z[name].loc[some.ids].to_numpy()
        found += [roc_auc_score(w, row) for w, row in zip(where, block) if w.any()]
    return float(np.mean(found))


def run(seeds: list[int]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / f"voxels_{'_'.join(map(str, seeds))}.csv"
    done = set() if not file.exists() else set(
        pd.read_csv(file)[KEY].itertuples(index=False, name=None))
    for inference, seed, arm in product(INFERENCES, seeds, ARMS):
        if (inference, seed, arm) not in done:
            row = one(arm, inference, seed)
            pd.DataFrame([row]).to_csv(file, mode="a", header=not file.exists(), index=False)
            print(*(f"{v:.4f}" if isinstance(v, float) else v for v in row.values()), flush=True)


def table() -> None:
    """Means, and paired differences from scratch with their standard errors over simulations."""
    found = pd.concat(pd.read_csv(file) for file in sorted(OUT.glob("voxels_*.csv")))
    found.round(4).to_csv(MEASURED, index=False)
    measures = ["log p", "beyond", "+".join(CONTRASTS), *CONTRASTS]
    for name, some in found.groupby("inference"):
        wide = some.pivot(index="seed", columns="arm", values=measures)
        print(name, f"({len(wide)} simulations)")
        rows = {}
        for measure in measures:
            scratch = wide[measure]["scratch"]
            rows[measure] = {"scratch": f"{scratch.mean():.4f}", **{
                arm: f"{(gap := wide[measure][arm] - scratch).mean():+.4f} "
                     f"(SE {gap.std() / len(gap) ** 0.5:.4f})"
                for arm in ARMS if arm != "scratch"}}
        print(pd.DataFrame(rows).T.to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int, default=list(range(5)), metavar="SEED")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table() if asked.table else run(asked.seeds)


if __name__ == "__main__":
    main()

"""Does it help to draw the modalities' posteriors together in training (``Alignment``)?

Simulated cohorts: a default model (Wasserstein barycenter, 10 latent dimensions) learns from 300
healthy people, without an alignment and with one (KL to one modality's posterior, to the prior, to
the barycenter, to a barycenter with learned weights), with several weights. On 300 other healthy
people, and 120 patients with planted deviations, by `Refined` and by `Amortised` posteriors:

* ``apart``  mean squared W2 of the modalities' own posteriors to their barycenter: what is drawn
* ``cross R2``  share of PET's residual variance that T1 and DTI of the same person explain
* ``cross log p``  log p(PET | T1, DTI) per feature, nats
* ``log p``  of everything measured, per feature
* ``AUC``  |z| of planted cells among the cells of the same patients

Prints a Markdown table: means over seeds, and leads over no alignment of the same seed with their
standard errors, bold where the 95 % interval of t leaves out 0; ``--json`` everything.
"""
from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.fusion import (Alignment, Learned, ModalityAnchor, PriorAnchor, SquaredWasserstein,
                             WassersteinBarycenter)
from normfuse.inference import Amortised, Inference, Refined
from normfuse.models import OneLatent

ANCHORS = {"one modality (T1)": ModalityAnchor(0), "the prior": PriorAnchor(),
           "barycenter": WassersteinBarycenter(),
           "barycenter, learned weights": WassersteinBarycenter(weights=Learned())}
WEIGHTS = (0.1, 1.0, 10.0)
MEASURES = ("apart", "cross R2", "cross log p", "log p", "AUC")


def settings() -> dict[str, Alignment | None]:
    """Name -> alignment."""
    return {"none": None, **{f"{name}, {weight:g}": Alignment(anchor, weight=weight)
                             for name, anchor in ANCHORS.items() for weight in WEIGHTS}}


def apart(model: nf.NormativeModel, people: nf.Cohort) -> float:
    """How far modalities' posteriors lie from their barycenter, in people with several."""
    batch = model.fitted.preparation.batch(model.fitted.preparation.aligned(people))
    measure = Alignment(WassersteinBarycenter(), SquaredWasserstein())
    with torch.no_grad():
        found = measure(model.fitted.vae.experts(batch), batch.present)
    return float(found[batch.present.sum(0) > 1].mean())


def crossed(model: nf.NormativeModel, people: nf.Cohort) -> tuple[float, float]:
    """R2 of PET from T1 and DTI, and log p(PET | T1, DTI) per feature."""
    people = people.select(people.ids[people.present.all(axis=1).to_numpy()])
    known, alone = (model.deviations(people, kind=kind)
                    for kind in ("leave_modality_out", "covariates"))
    unit = alone.observed["pet"].std()
    left, total = (((d.observed - d.expected)["pet"] / unit).to_numpy() for d in (known, alone))
    every, others = model.log_likelihood(people), model.log_likelihood(people.without("pet"))
    gained = (every - others)[["log_likelihood", "n_measured"]].sum()
    scale = np.log(people.features["pet"].std()).mean()  # in units of sd, as all features are
    return (float(1 - np.nansum(np.square(left)) / np.nansum(np.square(total))),
            gained["log_likelihood"] / gained["n_measured"] + scale)


def probable(model: nf.NormativeModel, people: nf.Cohort) -> float:
    """log p of a feature in units of its sd."""
    found = model.log_likelihood(people)
    scales = sum(np.log(block.std()).sum() * people.present[name].sum()
                 for name, block in people.features.items())
    return (found["log_likelihood"].sum() + scales) / found["n_measured"].sum()


def detected(model: nf.NormativeModel, patients: nf.Cohort, planted: pd.DataFrame) -> float:
    """AUC of |z|, focal deviations."""
    z = model.deviations(patients).z
    seen, truth = z.notna().to_numpy(), planted.loc[z.index, z.columns].to_numpy()
    return roc_auc_score(truth[seen], z.abs().to_numpy()[seen])


def one(seed: int, name: str, alignment: Alignment | None, inference: Inference
        ) -> dict[str, object]:
    simulated = nf.simulate_cohort(600, 120, seed=seed)
    controls, patients = simulated.cohort.split("diagnosis == 'CN'")
    order = np.random.default_rng(seed).permutation(len(controls))
    learners, others = (controls.select(controls.ids[np.sort(rows)]) for rows in
                        (order[:300], order[300:]))
    model = nf.NormativeModel(model=OneLatent(n_latent=10, alignment=alignment), seed=seed,
                              inference=inference, plan=nf.TrainingPlan(progress=False))
    model.fit(learners)
    r2, log_p = crossed(model, others)
    return {"seed": seed, "alignment": name, "inference": type(inference).__name__,
            "apart": apart(model, others), "cross R2": r2, "cross log p": log_p,
            "log p": probable(model, others),
            "AUC": detected(model, patients, simulated.truth.planted)}


def table(rows: pd.DataFrame) -> str:
    """Means, and paired leads over no alignment."""
    lines = [f"| {' | '.join(('anchor, weight', *MEASURES))} |", "| --- |" + " ---: |" * 5]
    for inference, part in rows.groupby("inference", sort=False):
        wide = part.pivot(index="seed", columns="alignment", values=list(MEASURES))
        none = wide.xs("none", level=1, axis=1)
        means = " | ".join(f"{none[m].mean():.3f}" for m in MEASURES)
        lines.append(f"| **{inference.lower()}**, none | {means} |")
        for name in part["alignment"].unique()[1:]:
            lead = wide.xs(name, level=1, axis=1) - none
            mean, error = lead.mean(), lead.std(ddof=1) / len(lead) ** 0.5
            cells = [f"{mean[m]:+.4f} ± {error[m]:.4f}" for m in MEASURES]
            beyond = stats.t.ppf(0.975, len(lead) - 1)  # 4.3 standard errors with three seeds
            cells = [f"**{cell}**" if abs(mean[m]) > beyond * error[m] else cell
                     for m, cell in zip(MEASURES, cells)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    start = time.process_time()
    rows = pd.DataFrame([one(seed, name, alignment, inference)
                         for inference in (Refined(), Amortised())
                         for name, alignment in settings().items()
                         for seed in range(arguments.first_seed,
                                           arguments.first_seed + arguments.seeds)])
    if arguments.json:
        print(json.dumps({"cpu_seconds": time.process_time() - start, "n_learners": 300,
                          "n_held_out": 300, "n_patients": 120,
                          "rows": rows.to_dict("records")}, indent=1))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()

"""Change between visits in healthy people: the calibrated z of a change, and the naive one.

Simulated: 300 people fit a model of 60 regions in two modalities; 60 longitudinal controls and 200
healthy people are measured twice, two years apart, with much of what is theirs at the first visit
there at the second. The share of |z| beyond 1.96 (nominal .05) of (a) compare_visits, which learns
how much controls change; (b) z2 - z1 taken as standard normal; (c) (z2 - z1) / sqrt(2), as if
visits were independent. With a 95 % interval over people. Prints JSON.
"""
from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

import normfuse as nf
from normfuse.analyses import compare_visits
from normfuse.calibration_check import share_row

KINDS = {"age": "continuous", "sex": "categorical"}


def people(n: int, seed: int, name: str) -> nf.Cohort:
    """Two visits of healthy people; 70 % of the variance of a region stays theirs."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(99)
    loadings = world.normal(size=(4, 60)) / 3
    slope = world.normal(-0.02, 0.01, 60)
    age, sex = rng.uniform(50, 80, n), rng.choice(["F", "M"], n)
    own = rng.normal(size=(n, 4)) @ loadings + rng.normal(size=(n, 60)) * 0.6
    rows, blocks = [], []
    for visit in (1, 2):
        years = age + 2 * (visit - 1)
        blocks.append(slope * (years[:, None] - 65) + own + 0.5 * rng.normal(size=(n, 60)))
        rows.append(pd.DataFrame({"person": [f"{name}{k}" for k in range(n)], "visit": visit,
                                  "age": years, "sex": sex},
                                 index=[f"{name}{k}_ses-{visit}" for k in range(n)]))
    subjects, values = pd.concat(rows), np.vstack(blocks)
    frames = {m: pd.DataFrame(values[:, at], subjects.index, [f"r{k}" for k in range(30)])
              for m, at in (("t1", slice(0, 30)), ("dti", slice(30, 60)))}
    return nf.Cohort.from_frames(subjects, frames, covariates=KINDS)


def shares(seed: int) -> dict[str, dict[str, float]]:
    """By each way of looking at a change."""
    reference = people(300, 3 * seed, "r").select("visit == 1")
    model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False)).fit(reference)
    found = model.deviations(people(260, 3 * seed + 1, "h"), kind="covariates")
    controls = [f"h{k}" for k in range(60)]
    labelled = found.subjects.assign(longitudinal_control=found.subjects["person"].isin(controls))
    changes = compare_visits(replace(found, subjects=labelled), ("1", "2"), visit="visit",
                             controls="longitudinal_control == True", person="person")
    healthy = ~changes.subjects["control"]
    naive = changes.change[healthy].to_numpy()
    ways = {"compare_visits": changes.z[healthy].to_numpy(), "z2 - z1": naive,
            "(z2 - z1) / sqrt 2": naive / np.sqrt(2)}
    return {name: share_row(name, 0.05, (np.abs(z) > 1.96).astype(float), z.size)
            for name, z in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    found = [shares(seed) for seed in range(arguments.seeds)]
    means = {way: round(float(np.mean([f[way]["share"] for f in found])), 4) for way in found[0]}
    print(json.dumps({"people": 200, "seeds": arguments.seeds, "mean": means,
                      "by_seed": found}, indent=1))


if __name__ == "__main__":
    main()

"""Are held-out healthy people normal? Every real table, several splits, every kind of deviation.

Fits on 70 % of the people of each table, scores the other 30 %, and prints as JSON how often |z|
exceeds 1.96 (nominal .0500) and 2.58 (.0099), pooled over splits with a 95 % t interval over the
held-out people's own shares, how often the latent distance's p falls below .05 and .01, and CPU
seconds.
"""
from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
import torch
from real_tables import TABLES
from scipy import stats
from sklearn.model_selection import train_test_split

import normfuse as nf

LEVELS = {"beyond_1.96": 1.96, "beyond_2.58": 2.5758}


def one_split(cohort: nf.Cohort, seed: int) -> pd.DataFrame:
    """One row a held-out person and kind: shares beyond, p of the distance."""
    columns = [n for n, kind in cohort.covariates.items() if kind != "continuous"]
    strata = cohort.subjects[columns].astype(str).agg("|".join, axis=1)
    strata = strata.where(strata.map(strata.value_counts()) >= 4, "few")
    learners, held_out = train_test_split(cohort.ids, test_size=0.3, random_state=seed,
                                          stratify=strata)
    start = time.process_time()
    model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False)
                              ).fit(cohort.select(learners))
    rows = []
    for kind in model.kinds:
        found = model.deviations(cohort.select(held_out), kind=kind, skip_uncalibrated=True)
        z = found.z.abs()
        shares = {name: z.gt(level).where(z.notna()).mean(axis=1)
                  for name, level in LEVELS.items()}
        rows.append(pd.DataFrame({"kind": kind.name, **shares, "p": found.distance["p"]}))
    return pd.concat(rows).assign(seed=seed, seconds=time.process_time() - start,
                                  n_latent=model.fitted.vae.n_dimensions)


def summary(people: pd.DataFrame) -> dict[str, object]:
    """Pooled over splits; a person in several splits counts once for the interval."""
    found: dict[str, object] = {}
    for name in LEVELS:
        own = people.groupby(people.index)[name].mean()
        half = stats.t.isf(0.025, len(own) - 1) * own.std() / np.sqrt(len(own))
        mean = people[name].mean()
        found[name] = [round(float(v), 4) for v in (mean, mean - half, mean + half)]
    for level in (0.05, 0.01):
        found[f"distance_p<{level}"] = round(float((people["p"] < level).mean()), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    report = {}
    for name in arguments.tables:
        cohort = TABLES[name]()
        people = pd.concat([one_split(cohort, seed) for seed in range(arguments.seeds)])
        report[name] = {
            "n": len(cohort), "features": sum(m.n_features for m in cohort.modalities),
            "latent": int(people["n_latent"].iloc[0]), "splits": arguments.seeds,
            "cpu_seconds_a_split": round(float(people["seconds"].mean()), 1),
            **{kind: summary(part) for kind, part in people.groupby("kind", sort=False)}}
        print(json.dumps({name: report[name]}), flush=True)


if __name__ == "__main__":
    main()

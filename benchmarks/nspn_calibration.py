"""Calibration on real healthy people: NSPN, thickness and magnetisation transfer.

Fits on 70 % of 297 people, scores the other 30 %, ten times over, and prints as JSON how often
|z| exceeds 1.96 and 2.58, the mean and sd of z, and how often the latent distance's p-value falls
below .05 and .01. Nominal: .05 (exactly .0500 and .0099) and .05 and .01.

Intervals: a t interval over the held-out subjects' own shares (the regions of one brain are not
independent), averaged over splits; and for the pooled value, over the splits.
"""
from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import normfuse as nf

DATA = Path(__file__).parents[1] / ".." / "shared" / "data" / "tables" / "nspn"


def read_nspn(folder: Path = DATA) -> nf.Cohort:
    """The NSPN table as a cohort of two modalities."""
    table = pd.read_csv(folder / "cohort_nspn.csv", dtype={"nspn_id": str}).set_index("nspn_id")
    frames = {}
    for name, prefix in (("thickness", "CT_"), ("mt", "MT_")):
        block = table[[c for c in table if c.startswith(prefix)]]
        frames[name] = block.loc[:, block.std() > 1e-9]
    return nf.Cohort.from_frames(
        table[["age", "sex", "site"]], frames, units={"thickness": "mm", "mt": "MT"},
        covariates={"age": "continuous", "sex": "categorical", "site": "site"})


def one_split(cohort: nf.Cohort, seed: int, **options: object) -> dict[str, float]:
    """Fit on 70 %, score the rest."""
    from sklearn.model_selection import train_test_split

    strata = cohort.subjects["site"] + cohort.subjects["sex"]
    fit_ids, test_ids = train_test_split(cohort.ids, test_size=0.3, random_state=seed,
                                         stratify=strata)
    start = time.process_time()
    model = nf.NormativeModel(seed=seed, **options).fit(cohort.select(fit_ids))
    found = model.deviations(cohort.select(test_ids))
    z = found.z
    return {"beyond_1.96": float((z.abs() > 1.96).mean(axis=None)),
            "beyond_2.58": float((z.abs() > 2.5758).mean(axis=None)),
            "below_-1.96": float((z < -1.96).mean(axis=None)),
            "mean": float(z.mean(axis=None)), "sd": float(z.stack([0, 1]).std()),
            "distance_.05": float((found.distance["p"] < 0.05).mean()),
            "distance_.01": float((found.distance["p"] < 0.01).mean()),
            "n_test": len(z), "epochs": len(model.history),
            "cpu_seconds": time.process_time() - start}


def summary(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean over splits with a 95 % t interval over splits."""
    found = {}
    for name in rows.columns:
        values = rows[name].to_numpy(float)
        half = stats.t.isf(0.025, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        found[name] = {"mean": values.mean(), "low": values.mean() - half,
                       "high": values.mean() + half}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--latent", type=int, default=10)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    cohort = read_nspn()
    rows = pd.DataFrame([one_split(cohort, seed, n_latent=arguments.latent)
                         for seed in range(arguments.splits)])
    print(json.dumps({"n": len(cohort), "splits": arguments.splits,
                      "summary": summary(rows), "per_split": rows.to_dict("records")}, indent=1))


if __name__ == "__main__":
    main()

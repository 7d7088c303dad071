"""How often are subtypes found where there is one cloud, and where there are two or three?

Simulated patients: 120 regions of 2 modalities from 8 factors and noise, every sixth patient
without the second modality. Of k types each is lower by ``--effect`` sd in 30 regions of its own
(severity varies by 30 %). ``one cloud, severity trails off``: one type whose severity is
log-normal, which is no Gaussian, and has no types either.
"""
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from normfuse.analyses import StabilityPlan, subtypes
from normfuse.analyses.clusterings import adjusted_rand
from normfuse.deviations import Deviations
from normfuse.testing import tiny_deviations

N, WIDTH, FACTORS = 60, 120, 8


def patients(rng: np.random.Generator, k: int, effect: float, trailing: bool = False
             ) -> tuple[Deviations, np.ndarray]:
    """z of patients, and everybody's type."""
    loadings = rng.normal(size=(FACTORS, WIDTH))
    z = 0.8 * rng.normal(size=(N, FACTORS)) @ loadings / np.sqrt(FACTORS)
    z += 0.6 * rng.normal(size=(N, WIDTH))
    kind = rng.integers(0, k, N)
    severity = np.exp(0.5 * rng.normal(size=N)) if trailing else 1 + 0.3 * rng.normal(size=N)
    for c in range(k):
        z[kind == c, 30 * c:30 * (c + 1)] -= effect * severity[kind == c, None]
    columns = pd.MultiIndex.from_tuples([("t1" if j < 70 else "pet", f"r{j}")
                                         for j in range(WIDTH)], names=["modality", "feature"])
    table = pd.DataFrame(z, [f"s{i}" for i in range(N)], columns)
    table.iloc[rng.permutation(N)[:N // 6], 70:] = np.nan
    none = dict.fromkeys(("observed", "expected", "latent", "distance", "attribution"), table[[]])
    return replace(tiny_deviations(), z=table, subjects=pd.DataFrame({"dx": "AD"}, table.index),
                   **none), kind


def measure(cohorts: int, k: int, effect: float, metric: str, trailing: bool) -> dict[str, Any]:
    """How often p < .05, how many, and how right."""
    found, agreed = [], []
    for seed in range(cohorts):
        deviations, kind = patients(np.random.default_rng([seed, k]), k, effect, trailing)
        one = subtypes(deviations, metric=metric, plan=StabilityPlan(n_subsamples=10, n_null=39))
        found.append(one.n_clusters)
        agreed.append(adjusted_rand(kind, one.table["subtype"].to_numpy() - 1))
    hits = int((np.array(found) > 1).sum())
    low, high = proportion_confint(hits, cohorts, method="wilson")
    return {"types": k, "effect": effect, "trailing": trailing, "metric": metric,
            "cohorts": cohorts, "found": [round(x, 3) for x in (hits / cohorts, low, high)],
            "numbers": np.bincount(found, minlength=7)[1:].tolist(),
            "adjusted_rand": round(float(np.mean(agreed)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=100)
    parser.add_argument("--effect", type=float, default=1.5)
    chosen = parser.parse_args()
    for k, effect, trailing in ((1, 0.0, False), (1, chosen.effect, True),
                                (2, chosen.effect, False), (3, chosen.effect, False)):
        for metric in ("correlation", "euclidean"):
            n = chosen.cohorts if k == 1 and not trailing else chosen.cohorts // 4
            print(json.dumps(measure(n, k, effect, metric, trailing)), flush=True)


if __name__ == "__main__":
    main()

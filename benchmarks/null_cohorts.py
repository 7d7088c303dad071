"""Error rates of every correction when groups do not differ, and power when some regions do.

What is simulated: 30 patients and 40 controls at 3 sites, 2 modalities of 50 regions; z of a brain
from 6 factors and noise (half the variance is shared, as in cortical thickness), that is, the z of
a perfect normative model. Raw values are z times the region's sd plus what age, sex and site do to
it. Patients are 4 years older on average and come more from the first site. No model is fitted:
what a fitted one adds is measured by ``planted_in_real_people.py``.

``null``: no region differs; planted: 10 of 100 regions are lower by ``--effect`` sd in patients.
Family-wise error: the share of cohorts with any false region, with Wilson's 95 % interval. False
discovery rate: the mean share of false regions among those called, with the normal law's. Every
correction is of :func:`compare_groups` on z; beside it the same on raw values, adjusted, and plain
t tests of raw values without adjustment.
"""
from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from normfuse.analyses import MaxT, compare_groups
from normfuse.analyses.effects import corrected
from normfuse.deviations import Deviations, Reference

N, REGIONS, FACTORS, PLANTED = (40, 30), (50, 50), 6, 10
WORDS = {"BH": "fdr_bh", "BY": "fdr_by", "Holm": "holm"}


def cohort(rng: np.random.Generator, effect: float, groups: int) -> tuple[Deviations, np.ndarray]:
    """One cohort, and in which regions patients differ."""
    sizes = (N[0], *(N[1],) * (groups - 1))
    dx = np.repeat(["CN", "AD", "MCI"][:groups], sizes)
    n, width = len(dx), sum(REGIONS)
    age = rng.normal(65, 8, n) + 4 * (dx != "CN")
    sex = rng.choice(["F", "M"], n)
    site = np.array([rng.choice(3, p=(.5, .3, .2) if d != "CN" else (.3, .4, .3)) for d in dx])
    loadings = rng.normal(size=(FACTORS, width))
    loadings *= np.sqrt(0.5) / np.linalg.norm(loadings, axis=0)
    z = rng.normal(size=(n, FACTORS)) @ loadings + np.sqrt(0.5) * rng.normal(size=(n, width))
    truth = np.zeros(width, bool)
    truth[rng.permutation(width)[:PLANTED]] = effect > 0
    z[np.ix_(dx == "AD", truth)] -= effect
    scale, slope = rng.uniform(0.1, 0.4, width), rng.normal(-0.03, 0.02, width)
    raw = 3 + scale * (z + slope * (age[:, None] - 65) + 0.3 * (sex == "M")[:, None]
                       + rng.normal(scale=0.5, size=(3, width))[site])
    columns = pd.MultiIndex.from_tuples([(m, f"{m}_{j}") for m, k in zip(("t1", "dti"), REGIONS)
                                         for j in range(k)], names=["modality", "feature"])
    index = pd.Index([f"sub-{i}" for i in range(n)])
    people = pd.DataFrame({"age": age, "sex": sex, "site": [f"s{k}" for k in site], "dx": dx},
                          index)
    known = {"age": {"kind": "continuous"}, "sex": {"kind": "categorical"},
             "site": {"kind": "site"}}
    reference = Reference("covariates", "none", 0, 0, {}, known, {})
    frame = pd.DataFrame(raw, index, columns)
    return Deviations(pd.DataFrame(z, index, columns), frame, frame, people[[]], people[[]],
                      people, reference), truth


def called(deviations: Deviations, permutations: int, test: str) -> dict[str, pd.Series]:
    """Which rows each way calls different at .05."""
    found = compare_groups(deviations, "dx", baseline="CN", test=test,
                           correction=MaxT(permutations, blocks="site")).table
    ways = {f"z, {name}": corrected(found["p"], word) for name, word in WORDS.items()}
    ways["z, max-T"] = found["q"]
    ways["raw adjusted, BH"] = corrected(found["raw_p"], "fdr_bh")
    plain = []
    for contrast, *column in found.index:
        case = contrast.split(" - ")[0]
        values = deviations.observed[tuple(column)]
        plain.append(stats.ttest_ind(values[deviations.subjects["dx"] == case],
                                     values[deviations.subjects["dx"] == "CN"]).pvalue)
    p = pd.Series(plain, found.index)
    ways |= {"plain t of raw, BH": corrected(p, "fdr_bh"), "plain t of raw, Holm":
             corrected(p, "holm"), "plain t of raw, uncorrected": p}
    return {name: q < 0.05 for name, q in ways.items()}


def rates(cohorts: int, effect: float, permutations: int, groups: int = 2, test: str = "ols",
          seed: int = 0) -> dict[str, Any]:
    """Family-wise error, false discovery rate and power of each way."""
    rows: dict[str, list[tuple[int, int, int]]] = {}
    start = time.perf_counter()
    for k in range(cohorts):
        deviations, truth = cohort(np.random.default_rng([seed, k]), effect, groups)
        for name, hit in called(deviations, permutations, test).items():
            real = np.tile(truth, groups - 1)
            real[len(truth):] = False  # only AD has what is planted, and AD comes first
            hits = hit.to_numpy()
            rows.setdefault(name, []).append((int((hits & ~real).sum()), int(hits.sum()),
                                              int((hits & real).sum())))
    return {"cohorts": cohorts, "effect": effect, "permutations": permutations, "groups": groups,
            "test": test, "seconds": round(time.perf_counter() - start),
            "ways": {name: _rate(np.array(counts), effect > 0) for name, counts in rows.items()}}


def _rate(counts: np.ndarray, planted: bool) -> dict[str, Any]:
    false, all_, true = counts.T
    wrong = int((false > 0).sum())
    low, high = proportion_confint(wrong, len(counts), method="wilson")
    share = false / np.maximum(all_, 1)
    half = 1.96 * share.std(ddof=1) / np.sqrt(len(share))
    found = {"family_wise": [round(x, 3) for x in (wrong / len(counts), low, high)],
             "false_discovery": [round(x, 3) for x in (share.mean(), share.mean() - half,
                                                       share.mean() + half)]}
    return {**found, "power": round(float(true.mean()) / PLANTED, 3)} if planted else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=500)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--effect", type=float, default=0.9, help="sd, in the planted regions")
    chosen = parser.parse_args()
    for effect, groups, test in ((0.0, 2, "ols"), (chosen.effect, 2, "ols"), (0.0, 3, "ols"),
                                 (0.0, 2, "hc3")):
        cohorts = chosen.cohorts if test == "ols" and groups == 2 else chosen.cohorts // 2
        print(json.dumps(rates(cohorts, effect, chosen.permutations, groups, test), indent=1),
              flush=True)


if __name__ == "__main__":
    main()

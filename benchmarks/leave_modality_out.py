"""Predicting one modality from the other in real people: NSPN, thickness and MT.

Fits on 80 %; explained variance (EXPV, mean over features) of what covariates leave of the other
20 % by `leave_modality_out`, beside five-fold ridge regression of one modality's residuals on the
other's (OLS residuals within the whole table, as the published comparison had it; penalty by
generalised cross-validation within the fold). Leak test: the same held-out people, each with
another person's scan of the predicting modality: nothing can then be explained.
Prints JSON with every seed.
"""
from __future__ import annotations

import argparse
import json
import warnings

import numpy as np
import pandas as pd
import torch
from real_tables import nspn
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict, train_test_split

import normfuse as nf


def explained(left: np.ndarray, total: np.ndarray) -> float:
    """1 - Var(left) / Var(total), mean over features."""
    return float(np.mean(1 - left.var(0) / total.var(0)))


def by_ridge(cohort: nf.Cohort, seed: int) -> dict[str, float]:
    """Five-fold ridge on residuals of age, sex and site."""
    subjects = cohort.subjects
    design = np.column_stack([subjects["age"], pd.get_dummies(subjects[["sex", "site"]])])
    r = {name: block.to_numpy() - LinearRegression().fit(design, block).predict(design)
         for name, block in cohort.features.items()}
    r = {name: values / values.std(0) for name, values in r.items()}
    found = {}
    for source, target in (("thickness", "mt"), ("mt", "thickness")):
        guess = cross_val_predict(RidgeCV(np.logspace(1, 6, 11)), r[source], r[target],
                                  cv=KFold(5, shuffle=True, random_state=seed))
        found[f"{source} -> {target}"] = explained(r[target] - guess, r[target])
    return found


def by_normfuse(model: nf.NormativeModel, held_out: nf.Cohort) -> dict[str, float]:
    """EXPV of the residuals that the kind `covariates` leaves."""
    found = {}
    conditional, marginal = (model.deviations(held_out, kind=kind)
                             for kind in ("leave_modality_out", "covariates"))
    for source, target in (("thickness", "mt"), ("mt", "thickness")):
        left, total = ((d.observed - d.expected)[target].to_numpy()
                       for d in (conditional, marginal))
        found[f"{source} -> {target}"] = explained(left, total)
    return found


def shuffled(cohort: nf.Cohort, seed: int) -> nf.Cohort:
    """Thickness of one person beside the magnetisation transfer of another of the same site."""
    rng = np.random.default_rng(seed)
    order = np.arange(len(cohort))
    for rows in cohort.subjects.groupby("site").indices.values():
        turned = rng.permutation(rows)
        order[turned] = np.roll(turned, 1)
    blocks = dict(cohort.features)
    block = blocks["mt"]
    blocks["mt"] = pd.DataFrame(block.to_numpy()[order], block.index, block.columns)
    people = cohort.subjects.rename(index=lambda i: f"shuffled-{i}")
    return nf.Cohort.from_frames(people, {name: b.set_axis(people.index) for name, b
                                          in blocks.items()}, covariates=cohort.covariates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    cohort, rows = nspn(), []
    strata = cohort.subjects["site"] + cohort.subjects["sex"]
    for seed in range(arguments.seeds):
        learners, rest = train_test_split(cohort.ids, test_size=0.2, random_state=seed,
                                          stratify=strata)
        model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False)
                                  ).fit(cohort.select(learners))
        held_out = cohort.select(rest)
        rows.append({"normfuse": by_normfuse(model, held_out), "ridge": by_ridge(cohort, seed),
                     "shuffled": by_normfuse(model, shuffled(held_out, seed))})
    means = {name: pd.DataFrame([row[name] for row in rows]).mean().round(4).to_dict()
             for name in rows[0]}
    print(json.dumps({"n": len(cohort), "mean": means, "seeds": rows}, indent=1))


if __name__ == "__main__":
    main()

"""Predicting one modality from the other in real people: NSPN, thickness and MT.

Five folds: explained variance (EXPV, mean and median over features) of what covariates leave of
people whom neither training nor calibration saw, by `leave_modality_out`; beside ridge regression
of one modality's residuals on the other's in the same folds (OLS residuals within the whole
table; penalty by leave-one-out cross-validation within the fold). Ridge learns from all people
outside the fold, normfuse keeps 30 % of them for calibration: so a third figure is ridge without
as many. Leak test: the same held-out people, each with another person's scan of the predicting
modality: nothing can then be explained. Prints JSON with every seed.
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
from sklearn.model_selection import KFold

import normfuse as nf


Pairs = dict[str, tuple[np.ndarray, ...]]
DIRECTIONS = (("thickness", "mt"), ("mt", "thickness"))


def explained(left: np.ndarray, total: np.ndarray) -> dict[str, float]:
    """1 - Var(left) / Var(total)."""
    each = 1 - left.var(0) / total.var(0)
    return {"mean": float(each.mean()), "median": float(np.median(each))}


def residuals(cohort: nf.Cohort) -> dict[str, np.ndarray]:
    """What OLS of age, sex and site leaves within the whole table, sd 1."""
    subjects = cohort.subjects
    design = np.column_stack([subjects["age"], pd.get_dummies(subjects[["sex", "site"]])])
    r = {name: block.to_numpy() - LinearRegression().fit(design, block).predict(design)
         for name, block in cohort.features.items()}
    return {name: values / values.std(0) for name, values in r.items()}


def by_ridge(r: dict[str, np.ndarray], learners: np.ndarray, rest: np.ndarray) -> Pairs:
    """(left, total) of each direction."""
    found = {}
    for source, target in DIRECTIONS:
        ridge = RidgeCV(np.logspace(1, 6, 11)).fit(r[source][learners], r[target][learners])
        found[target] = r[target][rest] - ridge.predict(r[source][rest]), r[target][rest]
    return found


def by_normfuse(model: nf.NormativeModel, held_out: nf.Cohort) -> Pairs:
    """(left by `leave_modality_out`, left by `covariates`) of each direction."""
    conditional, marginal = (model.deviations(held_out, kind=kind)
                             for kind in ("leave_modality_out", "covariates"))
    return {target: tuple((d.observed - d.expected)[target].to_numpy()
                          for d in (conditional, marginal)) for _, target in DIRECTIONS}


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


def one_seed(cohort: nf.Cohort, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """EXPV over all people, each predicted by the fold that did not see them."""
    r, rng = residuals(cohort), np.random.default_rng(seed)
    pairs: dict[str, list[Pairs]] = {}
    for learners, rest in KFold(5, shuffle=True, random_state=seed).split(cohort.ids):
        model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False)
                                  ).fit(cohort.select(cohort.ids[learners]))
        held_out = cohort.select(cohort.ids[rest])
        fewer = rng.permutation(learners)[:round(0.7 * len(learners))]
        for name, found in {"normfuse": by_normfuse(model, held_out),
                            "shuffled": by_normfuse(model, shuffled(held_out, seed)),
                            "ridge": by_ridge(r, learners, rest),
                            "ridge on 70 %": by_ridge(r, fewer, rest)}.items():
            pairs.setdefault(name, []).append(found)
    return {name: {f"{source} -> {target}": explained(*(np.vstack(side) for side in
                                                        zip(*(f[target] for f in found))))
                   for source, target in DIRECTIONS} for name, found in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    cohort = nspn()
    rows = [one_seed(cohort, seed) for seed in range(arguments.seeds)]
    means = {name: {direction: pd.DataFrame([row[name][direction] for row in rows]).mean().round(4)
                    .to_dict() for direction in rows[0][name]} for name in rows[0]}
    print(json.dumps({"n": len(cohort), "mean over seeds": means, "seeds": rows}, indent=1))


if __name__ == "__main__":
    main()

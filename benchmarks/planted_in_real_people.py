"""Planted deviations in real held-out healthy people: four kinds of deviation and linear rivals.

FCON1000 (148 thickness regions) and NSPN (thickness and magnetisation transfer). 60 % of the
people of each site and sex train, 20 % calibrate, 20 % are held out; normfuse learns from the
first two. In each held-out person, either 5 random regions of each modality are lowered by 1 or
1.5 residual sd ("scattered"), or 60 contiguous ones (of each modality) by .5 or .75 ("spread").
AUC over all cells of telling planted from untouched regions by -z; |z| > 1.96 in the people as
they are (nominal .05).

Rivals get OLS-spline residuals, calibrated by location and scale: each region alone (marginal),
Ledoit-Wolf's covariance, factor analysis of all modalities side by side with the number of factors
that makes the calibration people most probable. Their z of a region given all the others.
Prints JSON: means over seeds, and differences normfuse minus factor analysis with standard errors
over seeds.
"""
from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
import torch
from real_tables import fcon1000, nspn
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import FactorAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import SplineTransformer

import normfuse as nf

CONDITIONS = {"scattered 1": ("scattered", 1.0), "scattered 1.5": ("scattered", 1.5),
              "spread .5": ("spread", 0.5), "spread .75": ("spread", 0.75)}
RANKS = (2, 5, 10, 20, 40)


def thickness_only(cohort: nf.Cohort) -> nf.Cohort:
    """Without the other modalities."""
    return nf.Cohort.from_frames(cohort.subjects, {"thickness": cohort.features["thickness"]},
                                 covariates=cohort.covariates)


def split(subjects: pd.DataFrame, seed: int) -> pd.Series:
    """train, calib or test: 60, 20, 20 % of each site and sex; cells below five people train."""
    rng = np.random.default_rng(seed)
    found = pd.Series("train", index=subjects.index)
    for _, cell in subjects.groupby(["site", "sex"]):
        ids = rng.permutation(cell.index)
        n = round(0.2 * len(ids)) if len(ids) >= 5 else 0
        found[ids[:n]], found[ids[n:2 * n]] = "test", "calib"
    return found


class LinearRivals:
    """OLS-spline residuals and precision matrices of them."""

    def __init__(self, training: nf.Cohort, calibration: nf.Cohort) -> None:
        self.spline = SplineTransformer(n_knots=5, degree=3, knots="quantile",
                                        extrapolation="linear")
        self.spline.fit(training.subjects[["age"]])
        self.sites = sorted(training.subjects["site"].unique())
        y = _wide(training)
        self.ridge = Ridge(1.0).fit(self._design(training.subjects), y)
        self.scale = (y - self.ridge.predict(self._design(training.subjects))).std(0)
        learners, judges = self.residuals(training), self.residuals(calibration)
        factors = max((FactorAnalysis(k, max_iter=300, random_state=0).fit(learners)
                       for k in RANKS), key=lambda f: f.score(judges))
        self.rank = factors.n_components
        self.precisions = {"marginal": np.eye(y.shape[1]),
                           "ledoit_wolf": LedoitWolf().fit(learners).precision_,
                           "factor_analysis": factors.get_precision()}
        raw = {name: _conditional(judges, p) for name, p in self.precisions.items()}
        self.laws = {name: (r.mean(0), r.std(0, ddof=1)) for name, r in raw.items()}

    def _design(self, subjects: pd.DataFrame) -> np.ndarray:
        sites = [(subjects["site"] == s).to_numpy(float) for s in self.sites]
        sex = (subjects["sex"] == sorted(subjects["sex"].unique())[0]).to_numpy(float)
        return np.column_stack([self.spline.transform(subjects[["age"]]), sex, *sites])

    def residuals(self, cohort: nf.Cohort) -> np.ndarray:
        """Over the sd of the training people's."""
        return (_wide(cohort) - self.ridge.predict(self._design(cohort.subjects))) / self.scale

    def z(self, cohort: nf.Cohort) -> dict[str, np.ndarray]:
        """Calibrated z by rival."""
        r = self.residuals(cohort)
        return {name: (_conditional(r, p) - self.laws[name][0]) / self.laws[name][1]
                for name, p in self.precisions.items()}


def _conditional(r: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """z of each column given all the others."""
    return r @ precision / np.sqrt(np.diag(precision))


def _wide(cohort: nf.Cohort) -> np.ndarray:
    return np.hstack([b.to_numpy() for b in cohort.features.values()])


def planted(cohort: nf.Cohort, scale: np.ndarray, pattern: str, size: float, seed: int
            ) -> tuple[nf.Cohort, np.ndarray]:
    """The cohort with deviations, and where."""
    rng, blocks, marks, start = np.random.default_rng(seed), {}, [], 0
    for name, block in cohort.features.items():
        n, width = block.shape
        mark = np.zeros((n, width), bool)
        for row in mark:
            row[rng.choice(width, 5, replace=False) if pattern == "scattered" else
                (np.arange(60) + rng.integers(width)) % width] = True
        blocks[name] = block - size * mark * scale[start:start + width]
        marks.append(mark)
        start += width
    made = nf.Cohort.from_frames(cohort.subjects, blocks, covariates=cohort.covariates)
    return made, np.hstack(marks)


def one_seed(cohort: nf.Cohort, seed: int) -> pd.DataFrame:
    """Every measure (rows) of every method (columns)."""
    roles = split(cohort.subjects, seed)
    parts = {r: cohort.select(cohort.ids[(roles == r).to_numpy()])
             for r in ("train", "calib", "test")}
    rivals = LinearRivals(parts["train"], parts["calib"])
    start = time.process_time()
    model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False)).fit(
        cohort.select(cohort.ids[(roles != "test").to_numpy()]))
    seconds = time.process_time() - start

    def scores(people: nf.Cohort) -> dict[str, np.ndarray]:
        return {**rivals.z(people), **{kind.name: model.deviations(people, kind=kind).z.to_numpy()
                                       for kind in model.kinds}}

    rows = {"untouched beyond 1.96": {name: (np.abs(z) > 1.96).mean()
                                      for name, z in scores(parts["test"]).items()}}
    for name, (pattern, size) in CONDITIONS.items():
        people, mark = planted(parts["test"], rivals.scale, pattern, size, seed)
        rows[name] = {method: roc_auc_score(mark.ravel(), -z.ravel())
                      for method, z in scores(people).items()}
    return pd.DataFrame(rows).T.assign(seed=seed, rank=rivals.rank, seconds=seconds,
                                       latent=model.fitted.vae.n_dimensions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["fcon1000", "nspn"])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    for name in arguments.tables:
        cohort = thickness_only(fcon1000()) if name == "fcon1000" else nspn()
        found = pd.concat([one_seed(cohort, seed) for seed in range(arguments.seeds)])
        means = found.groupby(level=0, sort=False).mean()
        lead = found["focal"] - found["factor_analysis"]
        print(json.dumps({name: {
            "n": len(cohort), "seeds": arguments.seeds,
            "mean": means.round(4).to_dict("index"),
            "focal_minus_factor_analysis": {
                row: [round(float(lead[row].mean()), 4),
                      round(float(lead[row].std() / np.sqrt(arguments.seeds)), 4)]
                for row in CONDITIONS}}}), flush=True)


if __name__ == "__main__":
    main()

"""What all models of against_vae_peers.py are given, and how all are judged."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.calibration import HeldOut, ResidualLaw

from .linear import LeastSquares
from .measures import beyond
from .tables import Table, make_split

COVARIATES = {"age": "continuous", "sex": "categorical", "site": "site"}
PLANTED = 5
GROUPS = ("training", "early_stop", "calibration", "test", "planted")

Predictor = Callable[[str], np.ndarray]
"""Group of people -> what is expected of their standardised residuals, (n, n_features)."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One split of one table.

    Attributes
    ----------
    fit, test, planted : Cohort
        In the features' units; ``planted`` are the test people with some features lowered.
    residuals : dict of array
        Group -> standardised residuals of OLS-spline, (n, n_features), NaN where not measured;
        people of the fit each judged by the others.
    where : array of bool
        What was lowered, (n_test, n_features).
    expected, scale : array
        Of OLS-spline, for the test people: residual = (y - expected) / scale.
    """

    fit: nf.Cohort
    test: nf.Cohort
    planted: nf.Cohort
    residuals: dict[str, np.ndarray]
    where: np.ndarray
    expected: np.ndarray
    scale: np.ndarray

    @property
    def slices(self) -> dict[str, slice]:
        """Where each modality's features are."""
        ends = np.cumsum([m.n_features for m in self.fit.modalities]).tolist()
        return {m.name: slice(end - m.n_features, end)
                for m, end in zip(self.fit.modalities, ends)}

    def blocks(self, group: str) -> list[np.ndarray]:
        """A group's residuals, one array a modality."""
        return [self.residuals[group][:, at] for at in self.slices.values()]


def make(table: Table, seed: int) -> Problem:
    """Split, adjust for covariates, and lower 5 features of each modality of each test person."""
    split = make_split(table.subjects, seed)
    fit, test = (_cohort(table, table.subjects.index[rows])
                 for rows in (split != "test", split == "test"))
    ols = LeastSquares.fit(fit.subjects, _values(fit), spline=True)
    roles = HeldOut().roles(fit.subjects, fit.covariates, n_latent=2, seed=seed).to_numpy()
    u = ols.residuals(fit.subjects, _values(fit), left_out=True)
    residuals = {role: u[roles == role] for role in GROUPS[:3]}
    residuals["test"] = ols.residuals(test.subjects, _values(test), left_out=False)
    where = _drawn(test, np.random.default_rng(seed))
    residuals["planted"] = residuals["test"] - where
    lowered = table.values.loc[test.ids] - where * ols.scale
    planted = _cohort(Table(table.subjects.loc[test.ids], {
        name: lowered[block.columns] for name, block in table.blocks.items()}), test.ids)
    return Problem(fit, test, planted, residuals, where, ols.expected(test.subjects), ols.scale)


def judged(problem: Problem, predictor: Predictor) -> dict[str, float]:
    """Measures of a model that predicts residuals; location and scale of what it leaves, feature
    by feature, come from the calibration people (normfuse's own t law)."""
    left = {g: problem.residuals[g] - predictor(g) for g in ("calibration", "test", "planted")}
    law = ResidualLaw.fit(left["calibration"])
    return measures(problem, left["test"], law.z(left["test"]), law.z(left["planted"]))


def measures(problem: Problem, left: np.ndarray, z: np.ndarray, z_planted: np.ndarray
             ) -> dict[str, float]:
    """Of z of the test people and of the same with planted deviations.

    ``left`` is what the prediction leaves of the test people's residuals. ``EXPV M`` is the share
    that is explained of what covariates leave, ``EXPV_raw M`` of the whole variance of the
    feature; ``AUC M`` is of |z|, planted cells against the others.
    """
    whole = problem.residuals["test"] + problem.expected / problem.scale
    found = {**beyond(z), "sd": float(np.nanmean(np.nanstd(z, axis=0, ddof=1)))}
    for name, at in problem.slices.items():
        variance = np.nanvar(left[:, at], axis=0)
        for label, y in (("EXPV", problem.residuals["test"]), ("EXPV_raw", whole)):
            found[f"{label} {name}"] = float(np.mean(1 - variance / np.nanvar(y[:, at], axis=0)))
        size, truth = np.abs(z_planted[:, at]).ravel(), problem.where[:, at].ravel()
        seen = ~np.isnan(size)
        found[f"AUC {name}"] = float(roc_auc_score(truth[seen], size[seen]))
    return found


def _drawn(cohort: nf.Cohort, rng: np.random.Generator) -> np.ndarray:
    drawn = []
    for m in cohort.modalities:
        order = rng.random((len(cohort), m.n_features)).argsort(axis=1).argsort(axis=1)
        drawn.append(order < PLANTED)
    return np.hstack(drawn)


def _values(cohort: nf.Cohort) -> np.ndarray:
    return np.hstack([block.to_numpy(float) for block in cohort.features.values()])


def _cohort(table: Table, ids: pd.Index) -> nf.Cohort:
    return nf.Cohort.from_frames(table.subjects.loc[ids], {
        name: block.loc[ids] for name, block in table.blocks.items()}, covariates=COVARIATES)

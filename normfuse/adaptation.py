"""Teaching a fitted model a new site."""
from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from .cohort import Cohort
from .errors import CohortError, listed
from .imputed import refuse_imputed
from .preparation import Preparation
from .regression import PooledRegression
from .regression.new_site import add_site

FEWEST, ENOUGH = 10, 50


def adapted(preparation: Preparation, controls: Cohort) -> tuple[Preparation, tuple[str, ...]]:
    """The preparation with these people's sites, and a note on each."""
    refuse_imputed(controls)
    controls = preparation.aligned(controls)
    site, labels = _site_of(preparation, controls)
    preparation.encoder.encode(controls.subjects, sites={site: labels.unique()})
    notes = []
    for label, people in controls.subjects.groupby(labels, sort=True):
        _refuse_few(site, str(label), len(people))
        regressions, left = {}, []
        for name, regression in preparation.regressions.items():
            values = controls.features[name].loc[people.index].to_numpy()
            regressions[name] = add_site(regression, site, str(label), values, people)
            left.append(_precision_left(regressions[name], values, people))
        preparation = replace(preparation, regressions=regressions)
        notes.append(f"{site} {label} was added with {len(people)} healthy people; "
                     f"{np.nanmean(np.hstack(left)):.0%} of the precision that z there would have "
                     "if the effects of covariates were known is left")
    return preparation, tuple(notes)


def _site_of(preparation: Preparation, controls: Cohort) -> tuple[str, pd.Series]:
    """The site covariate, and everybody's site; refuses what is known already."""
    sites = [name for name, kind in preparation.encoder.kinds.items() if kind == "site"]
    if len(sites) != 1:
        raise CohortError(f"the model has {len(sites)} covariates of kind site; to adapt it, it "
                          "must have one")
    labels = controls.subjects[sites[0]].astype(str)
    known = next(iter(preparation.regressions.values())).columns.known(sites[0])
    again = sorted(set(labels) & set(known))
    if again:
        raise CohortError(f"the model knows {sites[0]} {listed(again)} already; "
                          + _way_out(again, preparation.encoder.levels[sites[0]]))
    return sites[0], labels


def _way_out(again: list[str], reference: list[str]) -> str:
    """What to do with sites that the reference had, or that an earlier adaptation brought."""
    added = [label for label in again if label not in reference]
    if not added:
        return "score its people as they are, or name the new scanner otherwise"
    return (f"{listed(added)} was added by an earlier adapt, and a site is learned at once from "
            "all of its people: adapt the original model again, with everybody of that site, the "
            "earlier people and the new ones")


def _precision_left(regression: PooledRegression, values: np.ndarray, people: pd.DataFrame
                    ) -> np.ndarray:
    """1 / (1 + variance of u from what is not known of the effects), of every feature there."""
    variance = regression.residuals(values, people).variance
    return np.nanmean(1 / (1 + variance), axis=0)


def _refuse_few(site: str, label: str, n: int) -> None:
    if n < FEWEST:
        raise CohortError(f"{site} {label!r} has {n} healthy subjects; {FEWEST} at least are "
                          "needed to learn its offsets, and 50 for its scale. Bring more, or "
                          "score its people with unseen_site='pooled' (--unseen-site pooled)")
    if n < ENOUGH:
        warnings.warn(f"{site} {label!r} was learned from {n} people; below {ENOUGH} its scale is "
                      "largely that of other sites", stacklevel=4)

"""z of modalities that were imputed: what the person's own scan would have shown, averaged."""
from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from .blocks import Blocks
from .cohort import Cohort
from .cohort_checks import refuse_others
from .errors import CohortError
from .fitted import Fitted
from .imputed import counted
from .imputed_deviations import ImputedDeviations
from .kinds import Covariates, Kind
from .pattern_law import FeatureLaw
from .stored import ROWS

_NODES, _WEIGHTS = (-(3 ** 0.5), 0.0, 3 ** 0.5), (1 / 6, 2 / 3, 1 / 6)
"""Gauss and Hermite's three points: moments of z are exact where z is a parabola of the value."""


def scorable(cohort: Cohort, kind: Kind, to: str | Path | None) -> Cohort:
    """What was measured of these people.

    Imputed cells are a function of the person's other scans. Beside what covariates say they can
    be judged; beside what those same scans say (every other kind) two predictions of one thing
    would be compared, and nothing learned of the person.

    Raises
    ------
    CohortError
        Imputed cells that would have to be written piece by piece.

    Warns
    -----
    UserWarning
        Imputed cells that this kind leaves out.
    """
    refuse_others(cohort)
    if cohort.imputation is None:
        return cohort
    counts = counted(cohort.imputation.counts)
    if not isinstance(kind, Covariates):
        warnings.warn(f"{counts} were imputed and get no z of kind {kind.name}: what the other "
                      "scans foretell cannot be judged by those scans. kind=\"covariates\" gives "
                      "them one, kept apart in deviations.imputed", stacklevel=3)
    elif to is not None:
        raise CohortError(f"{counts} were imputed; z of imputed cells are not written piece by "
                          "piece. Write cohort.observed(), and score who was imputed without to=")
    return cohort.observed()


def scored_imputed(fitted: Fitted, cohort: Cohort, scored: pd.Index, kind: Kind
                   ) -> ImputedDeviations | None:
    """z of the imputed cells of those who were scored; None if there are none, or another kind.

    See :class:`~normfuse.imputed_deviations.ImputedDeviations` for the formula.
    """
    if cohort.imputation is None or not isinstance(kind, Covariates):
        return None
    cohort = cohort.select(scored)
    if cohort.imputation is None:
        return None
    z: dict[str, pd.DataFrame] = {}
    sd: dict[str, pd.DataFrame] = {}
    for m, widths in cohort.imputation.sd.items():
        parts = [_moments(model, people, m, widths.loc[widths.index.isin(people.ids)])
                 for model, people in fitted.each(cohort)
                 if widths.index.isin(people.ids).any()]
        mean, spread = (pd.concat(tables).loc[widths.index] for tables in zip(*parts))
        z[m], sd[m] = mean / np.sqrt(1 + spread ** 2), spread
    return ImputedDeviations(Blocks(z), Blocks(sd), cohort.imputation.by)


def _moments(fitted: Fitted, cohort: Cohort, name: str, widths: pd.DataFrame
             ) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and sd of g(x), x ~ N(imputed, sd^2), of these people."""
    preparation = fitted.preparation
    features = next(list(m.features) for m in preparation.modalities if m.name == name)
    law = _law(fitted, name)
    mean = pd.DataFrame(np.nan, widths.index, features)
    spread = mean.copy()
    for start in range(0, len(widths), ROWS):
        ids = widths.index[start:start + ROWS]
        people = cohort.select(list(ids))
        values = people.features[name][features].to_numpy(float)
        width = widths.loc[ids, features].to_numpy(float)
        subjects = people.subjects
        found = np.stack([_z(fitted, law, name, values + node * width, subjects)
                          for node in _NODES])
        weights = np.array(_WEIGHTS)[:, None, None]
        middle = (weights * found).sum(0)
        mean.loc[ids] = middle
        spread.loc[ids] = np.sqrt((weights * (found - middle) ** 2).sum(0))
    return mean, spread


def _law(fitted: Fitted, name: str) -> FeatureLaw:
    """What is normal of this modality: it depends on no other, so of everybody who has it."""
    names = [m.name for m in fitted.preparation.modalities]
    alone = tuple(n == name for n in names)
    having = sorted((p for p in fitted.laws if p[names.index(name)]), key=sum)
    if not having:
        raise CohortError(f"too few calibration people have {name} to judge an imputed one; fit "
                          f"with more, or score cohort.without({name!r})")
    return fitted.laws[alone if alone in fitted.laws else having[0]].features[Covariates.name]


def _z(fitted: Fitted, law: FeatureLaw, name: str, values: np.ndarray, subjects: pd.DataFrame
       ) -> np.ndarray:
    """g of values of one modality, shape (n_subjects, n_features)."""
    found = fitted.preparation.regressions[name].residuals(values, subjects)
    at = fitted.preparation.slices[name]
    z = law.residual.of(at).z(found.u / np.sqrt(1 + found.variance))
    return law.tails[name][0](z)

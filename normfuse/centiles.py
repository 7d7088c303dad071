"""Normal ranges: the values below which a given share of healthy people like these lies."""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from .errors import CohortError, listed, perhaps
from .fitted import Fitted
from .kinds import Covariates
from .scoring import Pattern

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_GRID = np.linspace(-8, 8, 321)
"""Of u, between which the calibrated z is interpolated."""


def centiles(fitted: Fitted, feature: str, modality: str | None, shares: Sequence[float],
             measured: Sequence[str] | None, given: dict[str, Any]) -> pd.DataFrame:
    """What :meth:`NormativeModel.centiles` returns."""
    modality = _modality_of(fitted, feature, modality)
    pattern = _pattern(fitted, modality, measured)
    people = _people(fitted, given)
    regression = fitted.preparation.regressions[modality]
    names = next(m for m in fitted.preparation.modalities if m.name == modality).features
    column = names.index(feature)
    u = torch.as_tensor(np.repeat(_GRID[:, None], len(people), 1))[..., None]
    y = regression.of_feature(column).from_normal(u, people)[..., 0]
    flat = pd.concat([people] * len(_GRID))
    found = regression.of_feature(column).residuals(y.reshape(-1, 1), flat)
    z = _calibrated(fitted, pattern, modality, column, found.z[:, 0]).reshape(y.shape)
    wanted = stats.norm.ppf(shares)
    table = np.array([np.interp(wanted, z[:, k], y[:, k]) for k in range(len(people))])
    index = pd.MultiIndex.from_frame(people) if people.shape[1] > 1 \
        else pd.Index(people.iloc[:, 0])
    result = pd.DataFrame(table, index, pd.Index(list(shares), name="centile"))
    result.attrs["measured"] = [m.name for m, there
                                in zip(fitted.preparation.modalities, pattern) if there]
    return result


def _pattern(fitted: Fitted, modality: str, measured: Sequence[str] | None) -> Pattern:
    """The modalities of the people that the curves are for, this feature's among them."""
    names = [m.name for m in fitted.preparation.modalities]
    wanted = {modality} if measured is None else {measured} if isinstance(measured, str) \
        else set(measured)
    if not {modality} <= wanted <= set(names):
        raise CohortError(f"measured={sorted(wanted)} was asked for; it names {modality!r}, whose "
                          f"centiles these are, and others of {listed(names)}")
    pattern = tuple(name in wanted for name in names)
    if pattern not in fitted.laws:
        raise CohortError(f"too few calibration people were measured with "
                          f"{' + '.join(n for n in names if n in wanted)} to calibrate centiles; "
                          "name other modalities in measured=")
    return pattern


def _calibrated(fitted: Fitted, pattern: Pattern, modality: str, column: int, u: np.ndarray
                ) -> np.ndarray:
    """z of residuals of one feature, by the law of the people who have those modalities."""
    law, at = fitted.laws[pattern].features[Covariates.name], fitted.preparation.slices[modality]
    wide = np.full((len(u), at.stop), np.nan)
    wide[:, at.start + column] = u
    wide = np.pad(wide, ((0, 0), (0, len(law.residual.mean) - at.stop)), constant_values=np.nan)
    return law.z(wide, np.full(len(u), -1), fitted.preparation.slices)[:, at.start + column]


def _modality_of(fitted: Fitted, feature: str, modality: str | None) -> str:
    having = [m.name for m in fitted.preparation.modalities if feature in m.features]
    if modality is None and len(having) > 1:
        raise CohortError(f"{feature!r} is a feature of {listed(having)}; say which modality")
    if not having or modality not in (None, *having):
        known = [f for m in fitted.preparation.modalities for f in m.features
                 if modality in (None, m.name)]
        raise CohortError(f"the model knows no feature {feature!r}"
                          + (f" of modality {modality!r}" if modality else "")
                          + perhaps([feature], known))
    return modality or having[0]


def _people(fitted: Fitted, given: dict[str, Any]) -> pd.DataFrame:
    """One row for every combination of the covariates asked for; sites may be left open."""
    kinds = fitted.preparation.encoder.kinds
    unknown = [name for name in given if name not in kinds]
    if unknown:
        raise CohortError(f"{listed(unknown)} are no covariates of the model; it has "
                          f"{listed(kinds)}")
    lacking = [name for name, kind in kinds.items() if name not in given and kind != "site"]
    if lacking:
        raise CohortError(f"centiles depend on {listed(lacking)}: give a value, or several")
    columns = {name: _asked(fitted, name, given[name]) if name in given
               else np.array(["(average)"]) for name in kinds}
    return pd.DataFrame(list(product(*columns.values())), columns=list(columns))


def _asked(fitted: Fitted, name: str, values: Any) -> np.ndarray:
    """The values of one argument, as the model knows them; warns where it knows nobody."""
    encoder, asked = fitted.preparation.encoder, np.atleast_1d(np.asarray(values))
    if encoder.kinds[name] != "continuous":
        columns = next(iter(fitted.preparation.regressions.values())).columns
        site = encoder.kinds[name] == "site"
        known = columns.known(name) if site else encoder.levels[name]
        strange = [str(value) for value in asked if str(value) not in known]
        if strange:
            more = (f"; leave {name} out for the average one, or teach the model that one by "
                    "model.adapt(controls)") if site else ""
            raise CohortError(f"{name}={listed(map(repr, strange))} was asked for; the model "
                              f"knows {listed(map(repr, known), 12)}{perhaps(strange, known)}"
                              f"{more}")
        return asked
    try:
        numbers = asked.astype(float)
    except ValueError:
        numbers = np.full(len(asked), np.nan)
    if not np.isfinite(numbers).all():
        raise CohortError(f"{name}={values!r} was asked for; {name} is a finite number, or "
                          "several")
    low, high = encoder.knots[name][0], encoder.knots[name][-1]
    outside = numbers[(numbers < low) | (numbers > high)]
    if len(outside):
        warnings.warn(f"{name}={listed(f'{value:g}' for value in outside)} lies outside the "
                      f"training people's {low:g} to {high:g}: those centiles are extrapolated",
                      stacklevel=5)
    return numbers

"""What a check says of people and values, before a model is fitted."""
from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from .cohort import Cohort
from .covariate_checks import OLDEST, warn_of_covariates, warn_of_thin_sites
from .errors import listed
from .problems import Problems
from .tables.described import Described
from .tables.sessions import PERSON
from .value_checks import far_out, refuse_empty_features, warn_of_reference_values

LEAST = 12
"""Reference people without whom nothing is fitted: 2 latent dimensions, cross-fitted."""

UNMISTAKABLE = 4
"""Equal values that two people do not share by chance."""


def refuse_unfit(controls: Cohort, images: Collection[str], problems: Problems) -> None:
    """Keep what `normfuse fit` would refuse of the reference."""
    if len(controls) < LEAST:
        problems.add(f"{len(controls)} reference people are too few; {LEAST} are the least that a "
                     "model can be fitted to, and 150 for tails one would act on")
    for m in controls.modalities:
        block = controls.features[m.name]
        if m.name in images:
            continue
        if block.notna().any(axis=None):
            with problems.caught():
                _without_noise(block, m.name)
        else:
            problems.add(f"modality {m.name} was measured in none of {len(controls)} reference "
                         "people; nothing can be learned of it")
    for name, kind in controls.covariates.items():
        values = controls.subjects[name].dropna()
        if kind != "site" and values.nunique() < 2 and len(values):
            problems.add(f"covariate {name} is {values.iloc[0]!r} for all {len(values)} reference "
                         "subjects; it can explain nothing: leave it out of the covariates")


def warn_of_undescribed_levels(cohort: Cohort, described: Mapping[str, Described]) -> None:
    """Warn of categories that BIDS' ``participants.json`` does not list."""
    for name, what in described.items():
        if name not in cohort.subjects or cohort.covariates.get(name) == "continuous":
            continue
        found = sorted({f"{level:g}" if isinstance(level, float) else str(level)
                        for level in cohort.subjects[name].dropna()})
        if strange := what.unknown(found):
            warnings.warn(f"{name} holds {listed(map(repr, strange))}, which participants.json "
                          f"does not list; it lists {listed(map(repr, what.levels), 12)}",
                          stacklevel=2)


def _without_noise(block: pd.DataFrame, name: str) -> None:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns nobody was measured in
        refuse_empty_features(block, name)


def warn_of_values(cohort: Cohort, controls: Cohort, images: Collection[str]) -> None:
    """Warn of codes, failed regions, and people who are twice there."""
    tables = [m.name for m in cohort.modalities if m.name not in images]
    if not tables:
        return
    measured = _only(controls, tables)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warn_of_reference_values(measured)
    others = cohort.ids.difference(controls.ids)
    for name in tables:
        block, healthy = cohort.features[name], controls.features[name]
        if not healthy.notna().any(axis=None):
            continue
        spread = 1.4826 * (healthy - healthy.median()).abs().median()
        bad = far_out(block.loc[others], healthy.median(), spread)
        _say(bad, block, f"modality {name}: {{n}} values of people who are no reference lie far "
             "beyond all that is healthy; codes for missing values or failed regions?")
        below = (block < 0) & (healthy.quantile(.05) > 0)
        below &= ~far_out(block, healthy.median(), spread)  # those were said already
        _say(below, block, f"modality {name}: {{n}} values are negative in features that hardly "
             "ever are; codes for missing values?")
        _twins(name, block)


def _only(cohort: Cohort, names: list[str]) -> Cohort:
    blocks = {name: cohort.features[name].dropna(axis=1, how="all") for name in names}
    kept = [n for n in names if blocks[n].shape[1]]
    return Cohort(cohort.subjects, {n: blocks[n] for n in kept},
                  tuple(cohort.modality(n) for n in kept), cohort.covariates)


def _say(bad: pd.DataFrame, block: pd.DataFrame, what: str) -> None:
    rows, columns = np.nonzero(bad.to_numpy())
    if len(rows):
        values = block.loc[bad.index].to_numpy()
        cells = [f"{values[r, c]:g} in {bad.columns[int(c)]} of {bad.index[int(r)]}"
                 for r, c in zip(rows, columns)]
        warnings.warn(f"{what.format(n=len(rows))} ({listed(cells)})", stacklevel=3)


def _twins(name: str, block: pd.DataFrame) -> None:
    enough = block[block.notna().sum(axis=1) >= UNMISTAKABLE]
    same = enough[enough.duplicated(keep=False)]
    if len(same):
        groups = same.groupby(list(same.columns), dropna=False, sort=False).groups.values()
        warnings.warn(f"modality {name}: the very same values are those of "
                      f"{listed(' and '.join(map(str, ids)) for ids in groups)}; is somebody "
                      "there twice?", stacklevel=3)


def warn_of_people(cohort: Cohort, controls: Cohort | None) -> None:
    """Warn of ids, levels, ages and sites that look wrong."""
    _warn_of_ids(cohort)
    kinds = cohort.covariates
    for name, kind in kinds.items():
        column = cohort.subjects[name]
        if kind == "continuous":
            if name.lower() in ("age", "age_years") or name.lower().startswith("age_at"):
                _warn_of_ages(column)
        else:
            words = pd.Series(column.dropna().astype(str).unique())
            plain = words.str.casefold().str.replace(r"\W", "", regex=True)
            for _, same in words.groupby(plain):
                if len(same) > 1:
                    warnings.warn(f"covariate {name}: {listed(map(repr, sorted(same)))} are "
                                  "different levels; are they one?", stacklevel=2)
    if controls is None:
        return
    again = controls.subjects.get(PERSON, pd.Series(dtype=str)).duplicated()
    if again.any():  # all visits may well be scored
        warnings.warn(f"{int(again.sum())} reference rows are further visits of people who are "
                      "there already: score them, but fit with one visit a person, as `normfuse "
                      "fit --session first`", stacklevel=2)
    typed = controls.subjects.dropna(subset=list(kinds))
    if len(typed):
        warn_of_covariates(typed, dict(kinds))
        warn_of_thin_sites(typed, dict(kinds))
    _warn_of_extrapolation(cohort, controls)


def _warn_of_ids(cohort: Cohort) -> None:
    ids = cohort.ids if PERSON not in cohort.subjects else pd.Index(
        cohort.subjects[PERSON].astype(str).unique())
    plain = pd.Series(ids, ids).str.lower().str.removeprefix("sub-")
    plain = plain.str.replace(r"\W|_", "", regex=True).str.lstrip("0")
    alike = [" and ".join(same) for _, same in plain.groupby(plain).groups.items()
             if len(same) > 1]
    if alike:
        warnings.warn(f"ids that hardly differ: {listed(alike)}; is that one person?",
                      stacklevel=3)


def _warn_of_ages(ages: pd.Series) -> None:
    bad = ages[(ages < 0) | (ages > OLDEST)]
    if len(bad):
        warnings.warn(f"covariate {ages.name}: {listed(f'{a:g} of {i}' for i, a in bad.items())} "
                      "is no age in years; a code, months or days?", stacklevel=3)


def _warn_of_extrapolation(cohort: Cohort, controls: Cohort) -> None:
    others = cohort.subjects.loc[cohort.ids.difference(controls.ids)]
    for name, kind in cohort.covariates.items():
        known = controls.subjects[name].dropna()
        values = others[name].dropna()
        if kind == "continuous" and len(known):
            out = values[(values < known.min()) | (values > known.max())]
            if len(out):
                warnings.warn(f"{name} of {len(out)} people lies outside the {known.min():g} to "
                              f"{known.max():g} of the reference ({listed(out.index)}): what is "
                              "usual there is extrapolated", stacklevel=3)
        elif kind != "continuous":
            new = values[~values.astype(str).isin(known.astype(str))]
            if len(new):
                levels = listed(sorted(new.astype(str).unique()))
                warnings.warn(f"{name} {levels} has no reference person: {len(new)} people there "
                              f"cannot be scored ({listed(new.index)}) before `normfuse adapt`"
                              if kind == "site" else
                              f"{name} {levels} has no reference person: {len(new)} people cannot "
                              f"be scored ({listed(new.index)})", stacklevel=3)

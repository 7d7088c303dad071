"""Covariates of the reference that cannot be what they seem, and sites of hardly anybody."""
from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd

from .errors import listed

THIN = 10
"""Reference people of a site below which its offset is a guess. With 5, 10 % of the z of healthy
people there lay beyond 1.96; with 10, 8 %."""

OLDEST = 120
OUTER = 0.05
"""Share of the people, at either end, who may be typing errors: they do not say what is usual."""

WIDTHS, FACTOR, SPAN = 10, 2.5, 10
"""A value is suspicious this many widths of the bulk beyond everybody nearer to it; or if it is so
many times smaller or larger than all those and right with its decimal point elsewhere, where the
bulk spans less than a power of ten. Students and a few pensioners are neither."""


def warn_of_covariates(subjects: pd.DataFrame, kinds: dict[str, str]) -> None:
    """Say which values of continuous covariates look like typing errors or codes.

    Warns
    -----
    UserWarning
        One a covariate, with the values and whose they are.
    """
    for name, kind in kinds.items():
        bad = implausible(subjects[name]) if kind == "continuous" else pd.Series(dtype=bool)
        if bad.any():
            column = subjects[name]
            low, high = column[~bad].min(), column[~bad].max()
            culprits = [f"{value:g} of {who}" for who, value in column[bad].items()]
            warnings.warn(f"covariate {name}: {listed(culprits)} cannot well be, beside the "
                          f"{low:g} to {high:g} of the other {int((~bad).sum())} reference "
                          "people; if that is a typing error or a code for a missing value, "
                          "correct it, or leave that person out", stacklevel=3)


def warn_of_thin_sites(subjects: pd.DataFrame, kinds: dict[str, str]) -> None:
    """Name the sites with fewer than ``THIN`` reference people.

    Warns
    -----
    UserWarning
        One for all of them, with n.
    """
    thin = []
    for name in (name for name, kind in kinds.items() if kind == "site"):
        counts = subjects[name].astype(str).value_counts().sort_index()
        thin += [f"{name} {level} (n = {n})" for level, n in counts.items() if n < THIN]
    if thin:
        warnings.warn(f"fewer than {THIN} reference people have {listed(thin, 12)}: too few to "
                      "know the offset, so that z and p of people there are too extreme. Bring "
                      "more healthy people, give scanners that are alike one name, or leave them "
                      "out", stacklevel=3)


def implausible(values: pd.Series) -> pd.Series:
    """Which values of a continuous covariate do not go with the others, however skewed these are.

    Examples
    --------
    >>> students = [18.0, 19, 19, 20, 20, 20, 21, 21, 22, 22, 23, 24, 25]
    >>> implausible(pd.Series([*students, 68, 71], name="age")).any()
    np.False_
    >>> adults = [20.0, 22, 25, 31, 33, 40, 44, 52, 58, 61, 66, 70, 74]
    >>> ages = pd.Series([*adults, 2.5], name="age")
    >>> ages[implausible(ages)].tolist()
    [2.5]
    """
    v = values.to_numpy(float)
    outer = max(1, int(OUTER * len(v)))
    bulk = np.sort(v)[outer:-outer]
    if len(bulk) < 2 or bulk[0] == bulk[-1]:
        return pd.Series(False, values.index)
    years = bool(re.search(r"(^|[^a-z])age([^a-z]|$)", str(values.name).lower())) \
        and 0 <= np.median(v) <= OLDEST
    bad = _decimal_slip(v, bulk) | _below_all(v, bulk, years)
    if years:  # pensioners among students are no error, however far from them
        bad |= (v < 0) | (v > OLDEST)
    else:
        bad |= _beyond_gap(v, bulk, WIDTHS * (bulk[-1] - bulk[0]))
    few = bad.sum() <= outer  # more are no slips: the unit is another, or the law has two tops
    return pd.Series(bad & few, values.index)


def _beyond_gap(v: np.ndarray, bulk: np.ndarray, gap: float) -> np.ndarray:
    """Those on the far side of the first gap so wide, going outwards from the bulk."""
    bad = np.zeros(len(v), bool)
    for sign, edge in ((1, bulk[-1]), (-1, -bulk[0])):
        out = np.sort(np.append(sign * v[sign * v > edge], edge))
        wide = np.flatnonzero(np.diff(out) > gap)
        if len(wide):
            bad |= sign * v > out[wide[0]]
    return bad


def _decimal_slip(v: np.ndarray, bulk: np.ndarray) -> np.ndarray:
    """250 and 2.5 among adults, of whom nobody is near it but many are near 25."""
    if bulk[0] <= 0 or bulk[-1] >= SPAN * bulk[0]:
        return np.zeros(len(v), bool)
    positive = np.where(v > 0, v, bulk[0])
    alone = _beyond_gap(np.log(positive), np.log(bulk), np.log(FACTOR))
    least, most = v[~alone & (v > 0)].min(), v[~alone & (v > 0)].max()
    moved = np.where(v < bulk[0], 10 * v, v / 10)
    return alone & (moved >= least) & (moved <= most)


def _below_all(v: np.ndarray, bulk: np.ndarray, years: bool) -> np.ndarray:
    """-1 where all are positive, and 0 where nobody comes near it."""
    low, high = bulk[0], bulk[-1]
    if low <= 0 or high >= SPAN * low:
        return np.zeros(len(v), bool)
    return (v < 0) | ((v == 0) & (years or low > high - low))

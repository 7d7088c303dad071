"""The numbers of a contrast: differences, Hedges' g, the linear model, and corrected p-values."""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from normfuse.errors import ComparisonError

from .cliff import cliffs_delta
from .linear_terms import Array
from .terms import Question, p_of_t

CORRECTIONS = {"fdr_bh": "Benjamini-Hochberg", "fdr_by": "Benjamini-Yekutieli", "holm": "Holm"}
_STATISTICS = ("difference", "ci_low", "ci_high", "g", "g_low", "g_high", "delta", "delta_low",
               "delta_high", "adjusted_difference", "t", "df", "p", "q", "n_case", "n_baseline")


def compare_features(values: pd.DataFrame, case: Array, design: Array, test: str = "ols",
                     alternative: str = "two-sided") -> pd.DataFrame:
    """One contrast: a row a feature; q is filled in when every contrast is there.

    Parameters
    ----------
    values : DataFrame, shape (n_subjects, n_features)
        NaN where nothing was measured.
    case : bool array, shape (n_subjects,)
        Who belongs to the case group; the others are the baseline.
    design : array, shape (n_subjects, n_columns)
        The covariates with their constant.
    test, alternative : str
        See :data:`~normfuse.analyses.terms.TESTS` and :func:`~normfuse.analyses.terms.p_of_t`.

    Examples
    --------
    >>> values = pd.DataFrame({"insula": [1.0, 3.0, 5.0, 7.0], "cuneus": 2.0})
    >>> case = np.array([False, False, True, True])
    >>> found = compare_features(values, case, np.ones((4, 1)))
    >>> found.loc["insula", ["difference", "t"]].astype(float).round(2).tolist()
    [4.0, 2.83]
    >>> found.loc["cuneus", "reason"]
    'no spread within the groups'
    """
    y = values.to_numpy(dtype="float64")
    known = np.isfinite(y)
    y = np.where(known, y, np.nan)
    n1, n0 = known[case].sum(axis=0), known[~case].sum(axis=0)
    enough = (n1 >= 2) & (n0 >= 2)
    spread = enough & (_varies(y[case]) | _varies(y[~case]))
    reason = np.where(spread, "", "no spread within the groups").astype(object)
    reason[~enough] = [f"measured in {a} and {b} people, needs 2 in each group"
                       for a, b in zip(n1[~enough], n0[~enough])]
    found = {name: np.full(y.shape[1], np.nan) for name in _STATISTICS}
    found.update(n_case=n1, n_baseline=n0)
    for name, numbers in _differences(y[case][:, spread], y[~case][:, spread]).items():
        found[name][spread] = numbers
    for column in np.flatnonzero(spread):
        here = known[:, column]
        found["delta"][column], found["delta_low"][column], found["delta_high"][column] = (
            cliffs_delta(y[here & case, column], y[here & ~case, column]))
    fitted, problem = Question(case, design, test).fit(y, spread)
    reason[spread] = problem[spread]
    found.update(fitted)
    found["p"] = p_of_t(found["t"], found["df"], alternative)
    return pd.DataFrame({**found, "reason": reason.astype(str)}, index=values.columns)


def _varies(y: Array) -> Array:
    """Which columns hold two different numbers, NaN aside."""
    return np.fmax.reduce(y, axis=0) > np.fmin.reduce(y, axis=0)


def _differences(case: Array, base: Array) -> dict[str, Array]:
    """Difference of means with Welch's 95 % interval, Hedges' g with the noncentral t's."""
    n1, n0 = (np.isfinite(part).sum(axis=0) for part in (case, base))
    difference = np.nanmean(case, axis=0) - np.nanmean(base, axis=0)
    v1, v0 = np.nanvar(case, axis=0, ddof=1), np.nanvar(base, axis=0, ddof=1)
    error = v1 / n1 + v0 / n0
    welch = error**2 / ((v1 / n1) ** 2 / (n1 - 1) + (v0 / n0) ** 2 / (n0 - 1))
    half = stats.t.ppf(0.975, welch) * np.sqrt(error)
    df = n1 + n0 - 2
    d = difference / np.sqrt(((n1 - 1) * v1 + (n0 - 1) * v0) / df)
    root = np.sqrt(n1 * n0 / (n1 + n0))
    j = 1 - 3 / (4 * (n1 + n0) - 9)
    low, high = noncentrality_interval(d * root, df)
    return {"difference": difference, "ci_low": difference - half, "ci_high": difference + half,
            "g": j * d, "g_low": j * low / root, "g_high": j * high / root}


def noncentrality_interval(t: Array, df: Array) -> tuple[Array, Array]:
    r"""The 95 % interval of a noncentrality: :math:`F_{\nu,\delta}(|t|) = .975` and .025.

    By bisection, all features at once. NaN where the noncentral t cannot be evaluated (\|t\| of
    many thousands).

    Examples
    --------
    >>> [ends.round(3).tolist() for ends in noncentrality_interval(np.array([0.0]), np.array([9]))]
    [[-1.96], [1.96]]
    """
    size = np.abs(t)
    reach = 12 * np.sqrt(1 + size**2 / (2 * df))  # in sd of t: far beyond both ends
    ends: list[Array] = []
    for level in (0.975, 0.025):
        low, high = size - reach, size + reach
        for _ in range(60):  # the width halves each time: 60 reach the last bit
            middle = (low + high) / 2
            above = stats.nct.cdf(size, df, middle) > level
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        solved = np.abs(stats.nct.cdf(size, df, low) - level) < 1e-6
        ends.append(np.where(solved, low, np.nan))
    return np.where(t < 0, -ends[1], ends[0]), np.where(t < 0, -ends[0], ends[1])


def corrected(p: pd.Series, correction: str) -> pd.Series:
    """q of every p that is there: one NaN would turn all of them into NaN.

    Examples
    --------
    >>> corrected(pd.Series([0.01, np.nan, 0.02, 0.5]), "holm").tolist()
    [0.03, nan, 0.04, 0.5]
    """
    if correction not in CORRECTIONS:
        raise ComparisonError(f"correction is one of {', '.join(CORRECTIONS)}; got {correction!r}")
    known = p.dropna()
    q = multipletests(known, method=correction)[1] if len(known) else known
    return pd.Series(q, index=known.index, dtype="float64").reindex(p.index)

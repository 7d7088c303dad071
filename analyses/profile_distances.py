"""How unlike two people's deviations are, with whatever both were measured with."""
from __future__ import annotations

import numpy as np
import pandas as pd

from normfuse.errors import ComparisonError, listed

from .linear_terms import Array

METRICS = ("correlation", "euclidean")
FEWEST_FEATURES = {"correlation": 3, "euclidean": 1}
"""In common: two points always correlate by 1."""
_FLAT = 1e-12  # of the sum of squares: rounding


def profile_dissimilarity(z: pd.DataFrame, metric: str = "correlation") -> pd.DataFrame:
    r"""Dissimilarity of every two people's profiles of z.

    .. math:: d_{ij} = \frac{1}{M_{ij}} \sum_m (1 - r_{ij}^{(m)}) \quad\text{or}\quad
              \sqrt{\frac{1}{M_{ij}} \sum_m \overline{(z_{ir} - z_{jr})^2}^{(m)}}

    over the :math:`M_{ij}` modalities that both people have, within each over the features that
    both have: a modality of many regions has no more say than one of few. The correlation looks
    at where a person deviates, whatever how much; the Euclidean distance at both.

    Parameters
    ----------
    z : DataFrame, shape (n_people, n_features), columns (modality, feature)
        NaN where nothing was measured.
    metric : {"correlation", "euclidean"}

    Returns
    -------
    DataFrame, shape (n_people, n_people)
        0 to 2, or in sd of the reference.

    Raises
    ------
    ComparisonError
        An unknown metric, people without anything in common, or z that are the same in all
        features and correlate with nothing.

    Examples
    --------
    >>> z = pd.DataFrame([[0.0, 3, 0], [1, 4, 0], [3, np.nan, 2]], list("abc"),
    ...                  pd.MultiIndex.from_tuples([("t1", "x"), ("t1", "y"), ("pet", "x")]))
    >>> profile_dissimilarity(z, "euclidean").round(2).loc["a"].tolist()
    [0.0, 0.71, 2.55]
    """
    if metric not in METRICS:
        raise ComparisonError(f"metric is one of {', '.join(METRICS)}; got {metric!r}")
    modality = z.columns.get_level_values(0)
    total, count = np.zeros((len(z), len(z))), np.zeros((len(z), len(z)))
    for name in modality.unique():
        part = _within(z.loc[:, modality == name].to_numpy(dtype=float), metric)
        known = np.isfinite(part)
        total[known] += part[known]
        count += known
    bare = np.flatnonzero((count == 0).any(axis=1))
    if len(bare):
        raise _nothing_common(z, count, metric, z.index[bare])
    found = total / count
    found = np.sqrt(found) if metric == "euclidean" else found
    np.fill_diagonal(found, 0)
    return pd.DataFrame((found + found.T) / 2, z.index, z.index)


def _within(z: Array, metric: str) -> Array:
    """Of one modality: mean squared difference, or 1 - r; NaN where too little is common."""
    seen = np.isfinite(z)
    value, known = np.where(seen, z, 0), seen.astype(float)
    n = known @ known.T
    n[n < FEWEST_FEATURES[metric]] = np.nan
    first, square, product = value @ known.T, value**2 @ known.T, value @ value.T
    if metric == "euclidean":
        return np.clip((square + square.T - 2 * product) / n, 0, None)
    spread = square - first**2 / n
    spread[spread <= _FLAT * square] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (product - first * first.T / n) / np.sqrt(spread * spread.T)
    return 1 - np.clip(r, -1, 1)


def _nothing_common(z: pd.DataFrame, count: Array, metric: str, who: pd.Index) -> ComparisonError:
    """Why two people cannot be compared."""
    flat = np.diag(count) == 0
    if flat.all():
        return ComparisonError(f"a {metric} needs at least {FEWEST_FEATURES[metric]} features of "
                               "a modality that differ within people; nobody has them. Choose "
                               "another metric, as 'euclidean'")
    if flat.any():
        return ComparisonError(f"z of {listed(z.index[flat])} is the same in all features of each "
                               "modality, or there are too few, and correlates with nothing; "
                               "leave them out with deviations.select()")
    i, j = np.argwhere(count == 0)[0]
    return ComparisonError(f"{z.index[i]} and {z.index[j]} share no modality with at least "
                           f"{FEWEST_FEATURES[metric]} features (and so do some others: "
                           f"{listed(who)}), so that nothing says how unlike they are; choose "
                           "people who share one, with deviations.select()")

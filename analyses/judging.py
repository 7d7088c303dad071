"""Values of people beside those of a few healthy ones, by Student's law."""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

MIN_JUDGES = 5
"""Fewer healthy people than this and z is NaN: their sd would be a guess. As in calibration."""


def judged(means: pd.DataFrame, judges: pd.DataFrame) -> pd.DataFrame:
    r"""z of people's values beside those of judges; of a judge, beside the others'.

    .. math:: z = \Phi^{-1}\left(T_{n-1}\left(
              \frac{m - \bar m}{s \sqrt{1 + 1/n}}\right)\right)

    Standard normal for people from the judges' normal law, at every n.

    Examples
    --------
    >>> judges = pd.DataFrame({"insula": [1.0, 2, 3, 4, 5, 6]}, index=list("abcdef"))
    >>> new = pd.DataFrame({"insula": [3.5, 9.0]}, index=["x", "y"])
    >>> judged(new, judges)["insula"].round(3).tolist()
    [0.0, 2.037]
    """
    own = judges.reindex(means.index).to_numpy(dtype=np.float64)
    values = judges.to_numpy(dtype=np.float64)
    n = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, np.nansum(values, axis=0) / n, np.nan)
        squares = np.nansum((values - mean) ** 2, axis=0)
        # leave out the judge's own value, if they are one
        is_judge = ~np.isnan(own)
        others = n - is_judge
        centre = np.where(is_judge, (n * mean - own) / others, mean)
        left = np.where(is_judge, squares - (own - mean) ** 2 * n / others, squares)
        sd = np.sqrt(np.clip(left, 0, None) / (others - 1))
        t = (means.to_numpy(dtype=np.float64) - centre) / (sd * np.sqrt(1 + 1 / others))
        enough = (others >= MIN_JUDGES) & (sd > 1e-9)
        # upper tails only: 1 - cdf loses every digit where deviations are interesting
        tail = stats.t.sf(np.abs(t), np.where(enough, others - 1, 1)).clip(1e-300)
    return pd.DataFrame(np.where(enough, np.sign(t) * stats.norm.isf(tail), np.nan), means.index,
                        means.columns)

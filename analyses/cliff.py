"""Cliff's delta: how much more often a case lies above a control than below."""
from __future__ import annotations

import numpy as np
from scipy import stats

from .linear_terms import Array


def cliffs_delta(case: Array, base: Array) -> tuple[float, float, float]:
    r"""Cliff's delta and its 95 % interval, which does not leave -1 to 1.

    .. math:: \delta = P(x > y) - P(x < y) = 2\,\mathrm{AUC} - 1, \quad
              \frac{\delta - \delta^3 \pm t s \sqrt{(1 - \delta^2)^2 + t^2 s^2}}
              {1 - \delta^2 + t^2 s^2}

    for a case x and a control y, with Cliff's unbiased variance :math:`s^2` of delta. t is of
    Student's law on Brunner and Munzel's degrees of freedom: with :math:`n_1 + n_0 - 2` the
    interval of 3 people beside 200 covers delta in .82 of cases, with these in .93. Where the
    groups do not overlap s is 0; then the inner end is :math:`(n - 1.96^2) / (n + 1.96^2)`, n the
    smaller group.

    Parameters
    ----------
    case, base : ndarray, shape (n_1,), (n_0,)
        At least two numbers each, in any unit: only their order counts.

    References
    ----------
    Cliff (1993), doi:10.1037/0033-2909.114.3.494; for the interval Feng & Cliff (2004), J. Mod.
    Appl. Stat. Methods 3(2), 322-332; degrees of freedom: Brunner & Munzel (2000),
    doi:10.1002/(SICI)1521-4036(200001)42:1<17::AID-BIMJ17>3.0.CO;2-U.

    Examples
    --------
    >>> [round(x, 3) for x in cliffs_delta(np.array([1.0, 4, 6]), np.array([2.0, 3, 4, 0]))]
    [0.417, -0.744, 0.951]
    """
    n1, n0 = len(case), len(base)
    below, upto = (np.searchsorted(np.sort(base), case, side) for side in ("left", "right"))
    of_case = (below + upto - n0) / n0
    ordered = np.sort(case)
    less, most = (np.searchsorted(ordered, base, side) for side in ("left", "right"))
    of_base = (n1 - less - most) / n1 + 0.0
    delta = float(of_case.mean())
    pairs, ties = n1 * n0, int((upto - below).sum())
    between = (n0**2 * ((of_case - delta) ** 2).sum() + n1**2 * ((of_base - delta) ** 2).sum()
               - (pairs - ties - pairs * delta**2))
    # sampling can bring the unbiased variance below what any two laws allow
    least = (1 - delta**2) / (pairs - 1)
    s2 = max(between / (pairs * (n1 - 1) * (n0 - 1)), least)
    if abs(delta) == 1:
        n, z2 = min(n1, n0), stats.norm.ppf(0.975) ** 2
        ends = sorted((delta, delta * (n - z2) / (n + z2)))
        return delta, ends[0], ends[1]
    parts = of_case.var(ddof=1) / n1, of_base.var(ddof=1) / n0
    df = sum(parts) ** 2 / (parts[0] ** 2 / (n1 - 1) + parts[1] ** 2 / (n0 - 1))
    t2s2 = stats.t.ppf(0.975, df) ** 2 * s2
    half = np.sqrt(t2s2 * ((1 - delta**2) ** 2 + t2s2))
    low, high = ((delta - delta**3 + sign * half) / (1 - delta**2 + t2s2) for sign in (-1, 1))
    return delta, float(max(low, -1)), float(min(high, 1))

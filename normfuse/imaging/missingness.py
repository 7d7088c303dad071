"""Who has which contrast: at random, each person by themselves, and nobody without any."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import brentq

from ..errors import CohortError, listed

Missing = float | Mapping[str, float] | Mapping[tuple[str, ...], float]


def shares_missing(missing: Missing, contrasts: Sequence[str]) -> np.ndarray | None:
    """The share of people who lack each contrast, or None if patterns were given.

    Raises
    ------
    CohortError
        For shares outside [0, 1], unknown contrasts, or so much missing that somebody must be left
        with nothing.
    """
    if not isinstance(missing, Mapping):
        found = dict.fromkeys(contrasts, missing)
    elif any(isinstance(key, tuple) for key in missing):
        return None
    else:
        found = {str(key): value for key, value in missing.items()}
    unknown = [key for key in found if key not in contrasts]
    if unknown:
        raise CohortError(f"missing names {listed(unknown)}; the contrasts are "
                          f"{listed(contrasts, 9)}")
    _check(found)
    shares = np.array([float(found.get(name, 0.0)) for name in contrasts])
    if (1 - shares).sum() < 1 - 1e-9:
        raise CohortError(
            f"with {listed(f'{n} missing in {s:.0%}' for n, s in zip(contrasts, shares))} some "
            "people would have no image at all; shares missing may add up to at most "
            f"{len(contrasts) - 1}, one less than there are contrasts")
    return shares


def patterns_of(missing: Missing, contrasts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """What people have who have not everything, bool (n_patterns, n_contrasts), and their shares.

    Raises
    ------
    CohortError
        For patterns without or with unknown contrasts, or shares that add up to more than 1.
    """
    given = dict(missing) if isinstance(missing, Mapping) else {}
    for pattern in given:
        unknown = [n for n in pattern if n not in contrasts] if isinstance(pattern, tuple) else \
            [pattern]
        if unknown or not pattern:
            raise CohortError(f"a pattern is a tuple of contrasts that people have, some of "
                              f"{listed(contrasts, 9)}; got {pattern!r}")
    _check({"+".join(pattern): share for pattern, share in given.items()})
    shares = np.array([float(share) for share in given.values()])
    if shares.sum() > 1 + 1e-9:
        raise CohortError(f"shares of patterns add up to {shares.sum():g}; at most 1 is possible, "
                          "and who is left has everything")
    return np.array([[n in pattern for n in contrasts] for pattern in given]), shares


def present_at_random(shares: np.ndarray, luck: np.ndarray, rescue: np.ndarray) -> np.ndarray:
    r"""Which contrasts people have, bool (n_people, n_contrasts).

    Contrasts are lacking independently with probability :math:`p_c = s_c + \lambda (1 - s_c)`; who
    would lack all is given one, contrast c with probability proportional to :math:`1 - s_c`. With
    :math:`\lambda = \prod_c p_c / \sum_c (1 - s_c)` the share lacking c is :math:`s_c` exactly.

    Parameters
    ----------
    shares : ndarray, shape (n_contrasts,)
        The shares :math:`s`.
    luck : ndarray, shape (n_people, n_contrasts)
        Uniform on [0, 1).
    rescue : ndarray, shape (n_people,)
        Uniform, too.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> there = present_at_random(np.array([0.6, 0.2]), rng.random((100_000, 2)),
    ...                           rng.random(100_000))
    >>> there.any(1).all(), (1 - there.mean(0)).round(2)
    (np.True_, array([0.6, 0.2]))
    """
    kept = 1 - shares

    def excess(by: float) -> float:
        return float(np.prod(shares + by * kept) / kept.sum() - by)

    by = brentq(excess, 0, 1) if excess(0) * excess(1) < 0 else float(excess(0) > 0)
    there = luck >= shares + by * kept
    nothing = ~there.any(axis=1)
    given = np.searchsorted(np.cumsum(kept) / kept.sum(), rescue[nothing], side="right")
    there[np.flatnonzero(nothing), np.minimum(given, len(shares) - 1)] = True
    return there


def present_by_pattern(patterns: np.ndarray, shares: np.ndarray, luck: np.ndarray, n: int
                       ) -> np.ndarray:
    """The same for patterns; who has none of them has all ``n`` contrasts."""
    which = np.searchsorted(np.cumsum(shares), luck, side="right")
    return np.vstack([patterns.reshape(-1, n), np.ones((1, n), dtype=bool)])[which]


def _check(shares: Mapping[str, object]) -> None:
    bad = {name: share for name, share in shares.items()
           if isinstance(share, bool) or not isinstance(share, (int, float, np.number))
           or not 0 <= float(share) <= 1}
    if bad:
        raise CohortError("shares are numbers from 0 to 1; got "
                          f"{listed(f'{share!r} for {name}' for name, share in bad.items())}")

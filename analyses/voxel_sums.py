"""What two groups are like in every voxel: means, spread, Hedges' g, and why there may be no t."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from .effects import Array

REASONS = ("", "measured in fewer than 2 people of a group", "no spread within the groups",
           "the covariates tell the groups apart completely",
           "too few people for group and covariates",
           "group and covariates explain it without residual",
           "nobody there can change places")
"""Why a voxel has no t; its ``reason`` is a position in here."""

COLUMNS = ("difference", "adjusted_difference", "g", "t", "df", "mean_case", "mean_baseline",
           "n_case", "n_baseline", "reason")
"""What a model says of every voxel, float64."""

FEW, FLAT, CONFOUNDED, CROWDED, EXACT, FIXED = 1, 2, 3, 4, 5, 6
ROUNDING = float(np.finfo(np.float32).eps)
"""Of the values: what they hold beyond it is nothing."""

TINY = 1e-30
"""Keeps a quotient finite in single precision where a column is zero throughout."""

CANCELLED = 0.02
"""What is left below this share of a sum in single precision is computed anew in double."""

_ROWS = 128  # people summed in single precision before the sum is carried on in double


def sums_of(y: Array, rows: Array, *, squared: bool = False) -> tuple[Array, Array, Array]:
    """A value near each column's mean; rows @ (y - it); and the sum of squares of y - it.

    Products in single precision, people carried on in double. A column with a hole is NaN.
    """
    sums, squares = np.zeros((len(rows), y.shape[1])), np.zeros(y.shape[1])
    room = np.empty((min(_ROWS, len(y)), y.shape[1]), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        shift = np.array(y[:_ROWS]).mean(axis=0)
        for start in range(0, len(y), _ROWS):
            part = y[start:start + _ROWS]
            part = np.subtract(part, shift, out=room[:len(part)])
            squares += np.einsum("ij,ij->j", part, part)
            if squared:
                part *= part
            sums += rows[:, start:start + _ROWS] @ part
    return shift.astype(np.float64), sums, squares


def squares_of(y: Array) -> Array:
    """Sum of squares of each column, people carried on in double; as float32."""
    found = np.zeros(y.shape[1])
    for start in range(0, len(y), _ROWS):
        part = y[start:start + _ROWS]
        found += np.einsum("ij,ij->j", part, part)
    return found.astype(np.float32)


class Room:
    """Memory for all people in a tile, used again and again.

    To be given new pages takes longer than the sums that fill them.
    """

    def __init__(self, n: int) -> None:
        self._n, self._values = n, np.empty(0, dtype=np.float32)

    def take_in(self, y: Array, places: Array, shift: Array, squares: Array,
                fitted: tuple[Array, Array] | None = None) -> Array:
        """y less its shift and what is fitted, columns of about unit length, people in places.

        ``fitted``: a basis, (n, k), and the sums y has along it, (k, n_columns). What is returned
        is overwritten by the next call.
        """
        wide = y.shape[1]
        if len(self._values) < self._n * wide:
            self._values = np.empty(self._n * wide, dtype=np.float32)
        found = self._values[:self._n * wide].reshape(self._n, wide)
        near = shift.astype(np.float32)
        scale = np.zeros(wide, dtype=np.float32)
        np.divide(1, np.sqrt(squares), out=scale, where=squares > 0, casting="same_kind")
        for start in range(0, self._n, _ROWS):
            at = places[start:start + _ROWS]
            part = y[at]
            part -= near
            if fitted is not None:
                part -= fitted[0][at] @ fitted[1].astype(np.float32)
            part *= scale
            found[start:start + len(at)] = part
        return found


def means_of(shift: Array, n1: float, n0: float, s1: Array, s0: Array) -> dict[str, Array]:
    return {"mean_case": s1 / n1 + shift, "mean_baseline": s0 / n0 + shift,
            "difference": s1 / n1 - s0 / n0, "n_case": np.full(len(shift), float(n1)),
            "n_baseline": np.full(len(shift), float(n0))}


def moments(values: Array, case: Array) -> dict[str, Array]:
    """Means, their difference, g and n of complete columns."""
    one, other = values[case == 1], values[case == 0]
    wide = values.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [part.sum(axis=0) / len(part) if len(part) else np.full(wide, np.nan)
                 for part in (one, other)]
    n1, n0 = np.full(wide, float(len(one))), np.full(wide, float(len(other)))
    within = ((one - means[0])**2).sum(axis=0) + ((other - means[1])**2).sum(axis=0)
    enough = min(len(one), len(other)) >= 2
    g = hedges(means[0] - means[1], np.where(varies(values, case), within, 0), n1, n0)
    return {"mean_case": means[0], "mean_baseline": means[1], "difference": means[0] - means[1],
            "n_case": n1, "n_baseline": n0, "g": g if enough else np.full(wide, np.nan)}


def hedges(difference: Array, within: Array, n1: Array, n0: Array) -> Array:
    """Hedges' g; ``within`` is the sum of squares about the groups' own means."""
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(np.where(within > 0, within, np.nan) / (n1 + n0 - 2))
    return (1 - 3 / (4 * (n1 + n0) - 9)) * difference / sd


def varies(values: Array, case: Array) -> Array:
    """Whether a column holds two different numbers in one group."""
    return np.logical_or.reduce([part.max(axis=0) > part.min(axis=0)
                                 for part in (values[case == 1], values[case == 0]) if len(part)])


def patterns(y: Array, columns: Array) -> Iterator[tuple[Array, Array]]:
    """Columns that were measured in the same people, and who these are."""
    if not len(columns):
        return
    known = np.isfinite(y[:, columns])
    packed = np.ascontiguousarray(np.packbits(known, axis=0).T)
    _, first, member = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    for k, at in enumerate(first):
        yield columns[member.ravel() == k], known[:, at]


def p_values(t: Array, df: Array, two_sided: bool) -> Array:
    """Of t, by Student's law; one-sided: P(T > t)."""
    return 2 * stats.t.sf(np.abs(t), df) if two_sided else stats.t.sf(t, df)

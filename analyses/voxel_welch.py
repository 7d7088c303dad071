"""Welch's t of two groups in every voxel, of the data and of shuffled people."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from normfuse.cards import Shown
from normfuse.errors import ComparisonError

from .effects import Array
from .equivalents import TIE, Heights, equivalent_t
from .shuffles import Shuffles
from .voxel_sums import (CANCELLED, FEW, FLAT, REASONS, ROUNDING, TINY, Room, hedges, means_of,
                         moments, patterns, squares_of, sums_of, varies)

_ROWS = 1024  # people whose squares are in memory at once


@dataclass(frozen=True)
class WelchT(Shown):
    r"""Welch's t, for groups of unequal spread; it knows no covariates.

    .. math:: t = \frac{\bar y_1 - \bar y_0}{\sqrt{s_1^2 / n_1 + s_0^2 / n_0}}

    with the degrees of freedom of Welch & Satterthwaite. They change with every shuffle of people,
    so that permutations compare the t of n - 2 degrees that is as improbable.

    Parameters
    ----------
    two_sided : bool
        As in :class:`OlsT`.

    Examples
    --------
    >>> case, design = np.array([True] * 3 + [False] * 4), np.ones((7, 1))
    >>> y = np.array([[2.0, 1], [3, 0], [2.5, 2], [1, 1], [0, 2], [0.5, 0], [1, 1]])
    >>> WelchT().model(case, design).statistics(y)["t"].round(2).tolist()
    [5.0, 0.0]
    """

    two_sided: bool = True

    def model(self, case: Array, design: Array, *, shares: bool = False) -> WelchModel:
        """Of these people; a design of more than the constant is refused.

        Shares are values like others: where neither group varies there is no t.
        """
        if design.shape[1] > 1:
            raise ComparisonError("Welch's t adjusts for nothing: give adjust=(), or OlsT() to "
                                  "adjust")
        return WelchModel(case.astype(np.float64))

    def __str__(self) -> str:
        return "Welch's t"


@dataclass(frozen=True, eq=False)
class WelchModel:
    """See :class:`WelchT`."""

    case: Array

    def __post_init__(self) -> None:
        if min(self.case.sum(), (1 - self.case).sum()) < 2:
            raise ComparisonError(f"nothing can be tested: {REASONS[FEW]}")

    @cached_property
    def _room(self) -> Room:
        return Room(len(self.case))

    def statistics(self, y: Array) -> dict[str, Array]:
        """All ``COLUMNS`` of some voxels; y float32, (n, n_voxels), NaN where not measured."""
        rows = np.stack([self.case, 1 - self.case]).astype(np.float32)
        shift, sums, squares = sums_of(y, rows)
        inside = sums_of(y, rows, squared=True)[1] if np.isfinite(squares).any() else sums
        n1, n0 = self.case.sum(), (1 - self.case).sum()
        spread = [q - s**2 / n for q, s, n in zip(inside, sums, (n1, n0))]
        found = means_of(shift, n1, n0, *sums)
        within = spread[0] + spread[1]
        found["g"] = hedges(found["difference"], within, found["n_case"], found["n_baseline"])
        found.update(_welch(found["difference"], n1, n0, spread[0] / (n1 - 1),
                            spread[1] / (n0 - 1)))
        flat = squares == 0
        sure = (spread[0] > CANCELLED * inside[0]) & (spread[1] > CANCELLED * inside[1])
        for chosen, present in patterns(y, np.flatnonzero(~flat & ~sure)):
            values, case = y[np.ix_(present, chosen)].astype(np.float64), self.case[present]
            found["reason"][chosen] = FLAT
            for name, numbers in moments(values, case).items():
                found[name][chosen] = numbers
            for name in ("t", "df", "adjusted_difference"):
                found[name][chosen] = np.nan
            if min(case.sum(), (1 - case).sum()) < 2:
                found["reason"][chosen] = FEW
                continue
            varied = varies(values, case)
            one, other = values[case == 1][:, varied], values[case == 0][:, varied]
            again = _welch(one.mean(axis=0) - other.mean(axis=0), len(one), len(other),
                           one.var(axis=0, ddof=1), other.var(axis=0, ddof=1))
            for name, numbers in again.items():
                found[name][chosen[varied]] = numbers
        for name in ("t", "df", "g", "adjusted_difference"):
            found[name][flat] = np.nan
        found["reason"][flat] = FLAT
        return found

    @property
    def df(self) -> float:
        """The most there can be: n - 2."""
        return len(self.case) - 2.0

    def heights(self, maps: dict[str, Array]) -> Heights:
        """Of t as :meth:`statistics` gives it, as high as shuffles that change nothing."""
        t, df, n1, n0 = (maps[name] for name in ("t", "df", "n_case", "n_baseline"))
        # what rounding may add to the squared error, as a share of it
        doubt = TIE * (1 + t * t * (n1**2 + n0**2) / ((n1 + n0) * n1 * n0))
        least = np.abs(t) / np.sqrt(1 + doubt) - TIE * np.sqrt(n1 + n0)
        fewest = np.minimum(n1, n0) - 1
        return Heights.of(t, df, least, np.maximum(fewest, df * (1 - 2 * doubt)), self.df)

    def design_rows(self, shuffles: Shuffles) -> int:
        """Rows of the shuffled design for each shuffle."""
        return 1

    def shuffled(self, y: Array, tested: Array, shuffles: Shuffles
                 ) -> Iterator[tuple[slice, Array, Array]]:
        """Some shuffles, some of the ``tested`` voxels, and t of these: float32, by shuffle.

        As the equivalent of n - 2 degrees of freedom, each t from its own.
        """
        shift, _, squares = sums_of(y, self.case[None].astype(np.float32))
        whole = tested & np.isfinite(squares)
        case = self.case.astype(np.float32)
        batches = list(shuffles.batches(self.design_rows(shuffles)))
        if whole.any():
            with np.errstate(invalid="ignore"):
                rest = self._room.take_in(y, shuffles.places, shift, squares)
            sums = rest.sum(axis=0, dtype=np.float64).astype(np.float32), squares_of(rest)
            for drawn in batches:
                t = equivalent_t(*_shuffled_t(case[shuffles.sequences(drawn)], rest, *sums),
                                 self.df)
                yield drawn, np.flatnonzero(whole), t[:, whole]
        for chosen, present in patterns(y, np.flatnonzero(tested & ~whole)):
            among = shuffles.among(present)
            some = y[np.ix_(present, chosen)][among.places].astype(np.float64)
            some -= some.mean(axis=0)
            some /= np.sqrt((some**2).sum(axis=0))
            rest = some.astype(np.float32)
            sums = rest.sum(axis=0, dtype=np.float64).astype(np.float32), squares_of(rest)
            for drawn in batches:
                t = equivalent_t(*_shuffled_t(case[among.sequences(drawn)], rest, *sums), self.df)
                yield drawn, chosen, t


def _shuffled_t(design: Array, y: Array, total: Array, squares: Array) -> tuple[Array, Array]:
    """t and its degrees of freedom, of every row of a design of 0 and 1.

    y near zero mean, with its sums and squares.
    """
    n1 = np.float32(design[0].sum())
    n0 = np.float32(len(y)) - n1
    s1, q1 = design @ y, np.zeros((len(design), y.shape[1]), dtype=np.float32)
    for start in range(0, len(y), _ROWS):
        part = y[start:start + _ROWS]
        q1 += design[:, start:start + _ROWS] @ (part * part)
    s0, q0 = total - s1, squares - q1
    v1, v0 = (q1 - s1**2 / n1) / (n1 - 1), (q0 - s0**2 / n0) / (n0 - 1)
    # within blocks a shuffle may leave both groups without spread
    e1, e0 = np.maximum(v1, 0) / n1, np.maximum(v0, 0) / n0
    error = np.maximum(e1 + e0, ROUNDING * squares / len(y)**2 + TINY)
    parts = e1 * e1 / (n1 - 1) + e0 * e0 / (n0 - 1)
    df = np.divide((e1 + e0)**2, parts, out=np.full_like(parts, min(n1, n0) - 1),
                   where=parts > TINY)
    return (s1 / n1 - s0 / n0) / np.sqrt(error), df


def _welch(difference: Array, n1: float, n0: float, v1: Array, v0: Array) -> dict[str, Array]:
    with np.errstate(invalid="ignore", divide="ignore"):
        e1, e0 = v1 / n1, v0 / n0
        df = (e1 + e0)**2 / (e1**2 / (n1 - 1) + e0**2 / (n0 - 1))
        return {"t": difference / np.sqrt(e1 + e0), "df": df, "adjusted_difference": difference,
                "reason": np.zeros(len(difference))}

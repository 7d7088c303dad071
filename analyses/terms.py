"""What is asked of every feature, by which test: of the data, and of people who change places."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import stats

from .linear_terms import Array, LinearTerm
from .welch_terms import WelchTerm

if TYPE_CHECKING:
    from .shuffles import Shuffles

TESTS = {"ols": "ordinary least squares", "hc3": "least squares with HC3 errors",
         "welch": "Welch, without covariates"}
ALTERNATIVES = ("two-sided", "greater", "less")
Term: TypeAlias = LinearTerm | WelchTerm
_BATCH = 2_000_000  # numbers of shuffled people at a time: 16 MB
FARTHEST = 1e6  # a statistic without residual is infinite up to rounding: all such are ties
_TIE = 1e-9  # of a statistic: the same people in another order sum to another last bit


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of every feature.

    Parameters
    ----------
    tested : ndarray, shape (n_people,) or (n_people, r)
        Who is a case, a score, or the dummies of several groups.
    design : ndarray, shape (n_people, n_columns)
        Covariates with their constant.
    test : {"ols", "hc3", "welch"}
        See :data:`TESTS`.
    ranked : bool
        Of ranks, among the people who have the feature: values, score and covariates.
    """

    tested: Array
    design: Array
    test: str = "ols"
    ranked: bool = False

    def pieces(self, y: Array, chosen: Array) -> Iterator[tuple[Array, Array, Term, Array]]:
        """People, chosen features, model and values for each pattern of missing people.

        People with the same holes share one projection, so each pattern is solved once.
        """
        patterns, member = np.unique(np.isfinite(y), axis=1, return_inverse=True)
        for k, rows in enumerate(patterns.T):
            columns = np.flatnonzero((member.ravel() == k) & chosen)
            if len(columns):
                tested, design, values = (part[rows] for part in (
                    np.asarray(self.tested, float).reshape(len(rows), -1), self.design,
                    y[:, columns]))
                if self.ranked:
                    tested, design, values = (stats.rankdata(part, axis=0)
                                              for part in (tested, design, values))
                    design = np.column_stack([np.ones(len(design)), design])
                term = (WelchTerm(tested) if self.test == "welch"
                        else LinearTerm(tested, design, self.test == "hc3"))
                yield rows, columns, term, values

    def fit(self, y: Array, chosen: Array) -> tuple[dict[str, Array], Array]:
        """Statistics of the chosen features, NaN of the others, and reasons."""
        found: dict[str, Array] = {}
        reason = np.full(y.shape[1], "", dtype=object)
        for _, columns, term, values in self.pieces(y, chosen):
            problem = term.problem()
            if problem:
                reason[columns] = problem
                continue
            fitted, reason[columns] = term.fit(values)
            for name, numbers in fitted.items():
                found.setdefault(name, np.full(y.shape[1], np.nan))[columns] = numbers
        return found, reason


@dataclass(frozen=True, eq=False)
class TableNull:
    """What shuffles of people found in a table of features.

    Attributes
    ----------
    highest, lowest : ndarray, shape (n_shuffles,)
        The largest and smallest statistic over the features.
    above, below, beyond : ndarray, shape (n_features,)
        In how many shuffles a feature's own statistic was as high, as low, as far from 0.
    n : int
        Shuffles.
    """

    highest: Array
    lowest: Array
    above: Array
    below: Array
    beyond: Array
    n: int

    def p(self, alternative: str = "two-sided") -> Array:
        """Of each feature alone: (1 + shuffles as extreme) / (1 + shuffles)."""
        count = {"two-sided": self.beyond, "greater": self.above, "less": self.below}[alternative]
        return (1 + count) / (1 + self.n)

    def largest(self, alternative: str = "two-sided") -> Array:
        """Of each shuffle, in the direction that counts."""
        if alternative == "two-sided":
            return np.maximum(self.highest, -self.lowest)
        return self.highest if alternative == "greater" else -self.lowest


def shuffled(question: Question, y: Array, chosen: Array, shuffles: Shuffles) -> TableNull:
    """The same statistic when residuals of people change places (Freedman and Lane).

    Parameters
    ----------
    y : ndarray, shape (n_people, n_features)
    chosen : bool ndarray, shape (n_features,)
        Features that could be tested.

    References
    ----------
    Winkler et al. (2014), doi:10.1016/j.neuroimage.2014.01.060.
    """
    high, low = np.full(shuffles.n, -np.inf), np.full(shuffles.n, np.inf)
    above, below, beyond = (np.full(y.shape[1], np.nan) for _ in range(3))
    for rows, columns, term, values in question.pieces(y, chosen):
        rest, among = term.residuals(values), shuffles.among(rows)
        number, seen = np.cumsum(rows) - 1, _cut(term, rest)
        slack = _TIE * np.maximum(np.abs(seen), 1)  # no difference at all is a tie, too
        counts = np.zeros((3, len(columns)))
        step = max(1, _BATCH // rest.size)
        for start in range(0, shuffles.n, step):
            at = slice(start, min(start + step, shuffles.n))
            moved = np.empty((at.stop - start, *rest.shape))
            moved[:, among.places] = rest[number[among.sequences(at)]]
            t = _cut(term, term.residuals(moved))
            high[at], low[at] = (np.fmax(high[at], np.fmax.reduce(t, axis=1)),
                                 np.fmin(low[at], np.fmin.reduce(t, axis=1)))
            counts += [(t >= seen - slack).sum(axis=0), (t <= seen + slack).sum(axis=0),
                       (np.abs(t) >= np.abs(seen) - slack).sum(axis=0)]
        above[columns], below[columns], beyond[columns] = counts
    return TableNull(high, low, above, below, beyond, shuffles.n)


def _cut(term: Term, rest: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return term.statistic(rest).clip(-FARTHEST, FARTHEST)


def p_of_t(t: Array, df: Array, alternative: str) -> Array:
    """p of t, of two sides or of one: ``greater`` means that the case group lies above.

    Examples
    --------
    >>> p_of_t(np.array([-2.0]), np.array([30]), "less").round(4).tolist()
    [0.0273]
    """
    if alternative == "two-sided":
        return 2 * stats.t.sf(np.abs(t), df)
    return stats.t.sf(t if alternative == "greater" else -t, df)

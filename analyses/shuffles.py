"""Who takes whose place: permutations of people within blocks, the same however they are used."""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from normfuse.errors import ComparisonError

from .effects import Array

_WIDE = 512  # rows of a product: enough for its full speed
_SAME = 1e-9  # of a cosine: rounding leaves 1e-15


@dataclass(frozen=True, eq=False)
class Shuffles:
    """Permutations of people who may change places only within their block.

    The k-th depends on the seed, k and the blocks alone. Memory: 2 bytes a person and shuffle
    (4 above 65,536 people).

    Parameters
    ----------
    blocks : ndarray of int, shape (n_people,)
    n : int
        How many shuffles.
    seed : int

    Examples
    --------
    >>> made = Shuffles(np.array([0, 1, 0, 1, 1]), 3, seed=0)
    >>> made.places.tolist(), made.sequences(slice(0, 2)).tolist()
    ([0, 2, 1, 3, 4], [[2, 0, 3, 1, 4], [2, 0, 4, 1, 3]])
    >>> made.among(np.array([True, True, False, True, False])).sequences(slice(0, 2)).tolist()
    [[0, 3, 1], [0, 1, 3]]
    """

    blocks: Array
    n: int
    seed: int

    @cached_property
    def places(self) -> Array:
        """People, one block after the other."""
        return np.argsort(self.blocks, kind="stable")

    @cached_property
    def _drawn(self) -> Array:
        drawn = np.empty((self.n, len(self.blocks)),
                         np.uint16 if len(self.blocks) <= 2 ** 16 else np.uint32)
        for k in range(self.n):
            key = np.random.default_rng([self.seed, k]).random(len(self.blocks))
            drawn[k] = np.argsort(self.blocks + key, kind="stable")
        return drawn

    def sequences(self, at: slice) -> Array:
        """Who comes to the places, (some shuffles, n_people)."""
        return self._drawn[at]

    def among(self, present: Array) -> Shuffles | Fewer:
        """The same shuffles of some people only, the others skipped."""
        return self if present.all() else Fewer(self, present)

    def batches(self, rows: int) -> Iterator[slice]:
        """Some shuffles at a time, each of which needs ``rows`` rows of a product."""
        size = max(1, _WIDE // rows)
        for start in range(0, self.n, size):
            yield slice(start, min(start + size, self.n))

    def distinct(self, case: Array) -> float:
        """log10 of the number of different ways to deal out the groups within the blocks."""
        found = 0.0
        for block in np.unique(self.blocks):
            inside = case[self.blocks == block]
            n, k = len(inside), int(inside.sum())
            found += math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        return found / math.log(10)

    def check(self, case: Array, name: str | None) -> tuple[str, ...]:
        """A note if there are few; raises ComparisonError if nobody can change places."""
        ways = self.distinct(case)
        if ways < 1e-6:
            raise ComparisonError(
                f"no {name} has people of both groups, so nobody can change places within one; "
                "give blocks=None if people of all of them are exchangeable")
        if ways < math.log10(self.n):
            return (f"groups can be dealt out in {10 ** ways:.0f} ways only: the {self.n} "
                    "shuffles repeat themselves",)
        return ()


@dataclass(frozen=True, eq=False)
class Fewer:
    """Shuffles of some of the people."""

    all: Shuffles
    present: Array

    @property
    def places(self) -> Array:
        """Of those present, counted among themselves."""
        at = self.all.places[self.present[self.all.places]]
        return (np.cumsum(self.present) - 1)[at]

    def sequences(self, at: slice) -> Array:
        """As those of all, by the numbers they have among all."""
        drawn = self.all.sequences(at)
        return drawn[self.present[drawn]].reshape(len(drawn), -1)


def changing_within(basis: Array, blocks: Array) -> Array:
    """The part of a space that differs within blocks, as orthonormal columns.

    What is constant in every block, as a site or the intercept, no shuffle within blocks changes.

    Examples
    --------
    >>> sites = np.array([0, 0, 1, 1])
    >>> changing_within(np.linalg.qr(np.array([[1, 0, 3], [1, 0, 4], [1, 1, 5], [1, 1, 9.]]))[0],
    ...                 sites).shape
    (4, 1)
    """
    codes, member = np.unique(blocks, return_inverse=True)
    indicator = (member[:, None] == np.arange(len(codes))) / np.sqrt(np.bincount(member))
    seen = indicator.T @ basis
    squares, turn = np.linalg.eigh(seen.T @ seen)  # of the cosines to what blocks can tell apart
    return basis @ turn[:, squares < 1 - _SAME]

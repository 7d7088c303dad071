"""Who takes whose place: permutations of people within blocks, the same however they are used."""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

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
    deals : ndarray of bool, shape (n, n_people), optional
        Which of the ``places`` get people of the case group, for every shuffle; by chance if not
        given. Who of a group gets which place is left to chance.
    case : ndarray of bool, shape (n_people,), optional
        Who these people are.

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
    deals: Array | None = None
    case: Array | None = None

    @classmethod
    def dealing(cls, blocks: Array, n: int, seed: int, case: Array, name: str | None,
                with_covariates: bool) -> tuple[Shuffles, tuple[str, ...]]:
        """Shuffles to compare two groups, and a note if there are few different ones.

        Where groups alone change places, and n shuffles suffice for every other way to deal them
        out, each is taken once.

        Parameters
        ----------
        case : ndarray of bool
            Who is of the case group.
        name : str or None
            Of the blocks, for messages.
        with_covariates : bool
            Whether something besides the group changes within blocks: then people of one group
            are not alike, and every order of them counts.

        Raises
        ------
        ComparisonError
            If nobody can change places.
        """
        made = cls(blocks, n, seed)
        ways = made.distinct(case)
        if ways == 1:
            raise ComparisonError(
                f"no {name} has people of both groups, so nobody can change places within one; "
                "give blocks=None if people of all of them are exchangeable")
        if with_covariates:
            orders = made.orders()
            return made, () if orders >= n else (
                f"people can change places in {orders} ways only: the {n} shuffles repeat "
                "themselves",)
        if ways > n + 1:
            return made, ()
        deals = np.array(list(made._others(case)))
        return cls(blocks, ways - 1, seed, deals, case), (
            f"groups can be dealt out in {ways} ways only: each was taken once, and no p is below "
            f"1/{ways}",)

    def _others(self, case: Array) -> Iterator[Array]:
        """Every way to deal out the groups but the one that was seen."""
        there = case[self.places]
        stretches: list[range] = []
        for size in np.unique(self.blocks, return_counts=True)[1]:
            start = sum(len(one) for one in stretches)
            stretches.append(range(start, start + int(size)))
        ways = [list(combinations(at, int(there[at.start:at.stop].sum()))) for at in stretches]
        for chosen in product(*ways):
            deal = np.zeros(len(case), bool)
            deal[[place for block in chosen for place in block]] = True
            if not np.array_equal(deal, there):
                yield deal

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
            order = np.argsort(self.blocks + key, kind="stable")
            if self.deals is not None and self.case is not None:
                of_case = self.case[order]
                drawn[k, self.deals[k]], drawn[k, ~self.deals[k]] = order[of_case], order[~of_case]
            else:
                drawn[k] = order
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

    def distinct(self, case: Array) -> int:
        """How many ways there are to deal out the groups within the blocks."""
        there = [case[self.blocks == block] for block in np.unique(self.blocks)]
        return math.prod(math.comb(len(inside), int(inside.sum())) for inside in there)

    def orders(self) -> int:
        """How many orders of all people within the blocks there are."""
        sizes = np.unique(self.blocks, return_counts=True)[1]
        return math.prod(math.factorial(int(n)) for n in sizes)

    def mixed(self, case: Array, present: Array) -> Array:
        """Whether people of both groups share a block, of each column of ``present``, bool."""
        found = np.zeros(present.shape[1], bool)
        for block in np.unique(self.blocks):
            inside = self.blocks == block
            found |= present[inside & case].any(axis=0) & present[inside & ~case].any(axis=0)
        return found


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

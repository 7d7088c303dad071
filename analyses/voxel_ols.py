"""t of a group in a linear model of every voxel, of the data and of shuffled people."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from normfuse.cards import Shown
from normfuse.errors import ComparisonError

from .effects import Array
from .equivalents import TIE, Heights, equivalent_t
from .shuffles import Shuffles, changing_within
from .voxel_sums import (CANCELLED, CONFOUNDED, CROWDED, EXACT, FEW, FLAT, REASONS, ROUNDING,
                         TINY, Room, hedges, means_of, moments, patterns, squares_of, sums_of,
                         varies)

_COLLINEAR = 1e-10  # of a squared length: far above the rounding of float64, below any measure


@dataclass(frozen=True, eq=False)
class Projection:
    r"""The people of a voxel: group and covariates, the covariates projected out of the group.

    .. math:: t = \frac{x_r^\top y}{\hat\sigma\,\lVert x_r \rVert}, \qquad
              x_r = (I - QQ^\top) x, \quad
              \hat\sigma^2 = \frac{\lVert (I - QQ^\top) y \rVert^2
                             - (x_r^\top y)^2 / \lVert x_r \rVert^2}{n - k - 1}

    Parameters
    ----------
    case : ndarray of 0 and 1, shape (n,)
        x: who is of the case group.
    basis : ndarray, shape (n, k)
        Q: an orthonormal basis of the covariates with their constant.
    """

    case: Array
    basis: Array

    @classmethod
    def of(cls, case: Array, design: Array) -> Projection:
        """Covariates as columns of any scale, some perhaps redundant, (n, columns)."""
        lengths = np.linalg.norm(design, axis=0)
        left, singular, _ = np.linalg.svd(design[:, lengths > 0] / lengths[lengths > 0],
                                          full_matrices=False)
        return cls(case.astype(np.float64), left[:, singular > _COLLINEAR**0.5 * singular[0]])

    def among(self, present: Array) -> Projection:
        """Of these people only: a site nobody is left of loses its column."""
        part = self.basis[present]
        size, turn = np.linalg.eigh(part.T @ part)
        kept = size > _COLLINEAR
        return Projection(self.case[present], part @ (turn[:, kept] / np.sqrt(size[kept])))

    @cached_property
    def left(self) -> Array:
        """x_r"""
        return self.case - self.basis @ (self.basis.T @ self.case)

    @cached_property
    def information(self) -> float:
        """x_r'x_r"""
        return float(self.left @ self.left)

    @property
    def df(self) -> int:
        """n - k - 1"""
        return len(self.case) - self.basis.shape[1] - 1

    @cached_property
    def reason(self) -> int:
        """Why nothing can be tested with these people; 0 if it can."""
        n1 = int(self.case.sum())
        if min(n1, len(self.case) - n1) < 2:
            return FEW
        if self.df < 1:
            return CROWDED
        return CONFOUNDED if self.information < _COLLINEAR * n1 else 0

    def residuals(self, y: Array) -> tuple[Array, Array]:
        """(I - QQ')y of unit length, and that length; zeros where nothing is left."""
        y = y - y.mean(axis=0)
        basis = self.basis.astype(y.dtype)
        rest = y - basis @ (basis.T @ y)
        length = np.sqrt(np.einsum("ij,ij->j", rest, rest, dtype=np.float64))
        scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
        return rest * scale.astype(y.dtype), length

    def floor(self, shares: bool) -> float:
        """The share of squares that is left at least; see :class:`OlsModel`."""
        return 1 / len(self.case) if shares else ROUNDING

    def fit(self, y: Array, shares: bool = False) -> dict[str, Array]:
        """t of complete columns, in double precision."""
        rest, length = self.residuals(y)
        along = self.left @ rest / np.sqrt(self.information)
        unexplained = np.clip(1 - along**2, 0, None)
        # One subtraction more is exact even where hardly anything is left.
        small = unexplained < CANCELLED
        if small.any():
            unit = self.left / np.sqrt(self.information)
            off = rest[:, small] - np.outer(unit, along[small])
            unexplained[small] = np.einsum("ij,ij->j", off, off)
        if shares:
            unexplained = np.maximum(unexplained, self.floor(shares))
        exact = unexplained * length**2 <= ROUNDING**2 * np.einsum("ij,ij->j", y, y)
        t = along * np.sqrt(self.df / np.where(exact, np.nan, unexplained))
        return {"t": t, "df": np.where(exact, np.nan, self.df),
                "adjusted_difference": along * length / np.sqrt(self.information),
                "reason": np.where(exact, EXACT, 0)}


@dataclass(frozen=True)
class OlsT(Shown):
    """t of the group in a linear model with the covariates, by ordinary least squares.

    Parameters
    ----------
    two_sided : bool
        False: only a case group that lies *above* the baseline counts; turn the contrast round
        for the other side.

    Examples
    --------
    >>> case, design = np.array([True] * 3 + [False] * 4), np.ones((7, 1))
    >>> y = np.array([[2.0, 1], [3, 0], [2.5, 2], [1, 1], [0, 2], [0.5, 0], [1, 1]])
    >>> OlsT().model(case, design).statistics(y)["t"].round(2).tolist()
    [5.04, 0.0]
    """

    two_sided: bool = True

    def model(self, case: Array, design: Array, *, shares: bool = False) -> OlsModel:
        """Of these people: ``case`` bool, (n,); ``design`` (n, columns), the constant first."""
        return OlsModel(Projection.of(case, design), shares)

    def __str__(self) -> str:
        return "OLS t"


@dataclass(frozen=True, eq=False)
class OlsModel:
    """See :class:`OlsT`.

    ``shares``: values are 0 and 1. All of one group and none of the other is then no fault of the
    data but the largest difference there is. A residual of 1/n of the squares keeps its t finite:
    less than a single person the other way would leave.
    """

    people: Projection
    shares: bool = False

    def __post_init__(self) -> None:
        if self.people.reason:
            raise ComparisonError(f"nothing can be tested: {REASONS[self.people.reason]}")

    @property
    def case(self) -> Array:
        """Who is of the case group, 0 and 1."""
        return self.people.case

    @cached_property
    def _rows(self) -> Array:
        """Q and x as rows, float32."""
        return np.ascontiguousarray(np.column_stack([self.people.basis, self.people.case]).T,
                                    dtype=np.float32)

    @cached_property
    def _room(self) -> Room:
        return Room(len(self.people.case))

    def statistics(self, y: Array) -> dict[str, Array]:
        """All ``COLUMNS`` of some voxels; y float32, (n, n_voxels), NaN where not measured."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found, flat, again = self._in_single(y)
        if again.any():
            self._by_pattern(y, np.flatnonzero(again), found)
        for name in ("t", "df", "g", "adjusted_difference"):
            found[name][flat] = np.nan
        found["reason"][flat] = FLAT
        return found

    def _in_single(self, y: Array) -> tuple[dict[str, Array], Array, Array]:
        """The same by sums in single precision; where nothing varies; where that is too little."""
        people = self.people
        n, n1 = len(people.case), people.case.sum()
        shift, sums, squares = sums_of(y, self._rows)
        inside, s1 = sums[:-1], sums[-1]
        total = people.basis.sum(axis=0) @ inside  # the constant lies in the span of Q
        along = s1 - (people.basis.T @ people.case) @ inside
        beta = along / people.information
        unadjusted = squares - (inside**2).sum(axis=0)
        residual = unadjusted - beta * along
        if self.shares:
            residual = np.maximum(residual, people.floor(True) * unadjusted)
        found = {"t": beta * np.sqrt(people.information * people.df / np.abs(residual)),
                 "df": np.full(y.shape[1], float(people.df)), "adjusted_difference": beta,
                 "reason": np.zeros(y.shape[1])}
        found.update(means_of(shift, n1, n - n1, s1, total - s1))
        within = squares - s1**2 / n1 - (total - s1)**2 / (n - n1)
        found["g"] = hedges(found["difference"], within, found["n_case"], found["n_baseline"])
        flat = squares == 0
        sure = (residual > CANCELLED * squares) & (within > CANCELLED * squares)
        return found, flat, ~flat & ~sure

    def _by_pattern(self, y: Array, columns: Array, found: dict[str, Array]) -> None:
        """In double precision, people with the same holes sharing one projection."""
        people = self.people
        for chosen, present in patterns(y, columns):
            values = y[np.ix_(present, chosen)].astype(np.float64)
            for name, numbers in moments(values, people.case[present]).items():
                found[name][chosen] = numbers
            part = people.among(present)
            for name in ("t", "df", "adjusted_difference"):
                found[name][chosen] = np.nan
            found["reason"][chosen] = part.reason
            if part.reason:
                continue
            found["reason"][chosen] = FLAT
            varied = np.ptp(values, axis=0) > 0 if self.shares else varies(values, part.case)
            for name, numbers in part.fit(values[:, varied], self.shares).items():
                found[name][chosen[varied]] = numbers

    def heights(self, maps: dict[str, Array]) -> Heights:
        """Of t as :meth:`statistics` gives it, as high as shuffles that change nothing."""
        t, df = maps["t"], maps["df"]
        r = np.maximum(np.abs(t) / np.sqrt(df + t * t) - TIE, 0)
        return Heights.of(t, df, r * np.sqrt(df / (1 - r * r)), df, self.people.df)

    def design_rows(self, shuffles: Shuffles) -> int:
        """Rows of the shuffled design for each shuffle."""
        return 1 + changing_within(self.people.basis, shuffles.blocks).shape[1]

    def shuffled(self, y: Array, tested: Array, shuffles: Shuffles
                 ) -> Iterator[tuple[slice, Array, Array]]:
        r"""Some shuffles, some of the ``tested`` voxels, and t of these: float32, by shuffle.

        Freedman and Lane: what the covariates leave of y is dealt out anew within the blocks,
        and the whole model fitted to it. That is the t of the unshuffled rest with group *and*
        covariates shuffled, of which only the rows that a shuffle changes need a product:

        .. math:: r = (P^\top x_r / \lVert x_r \rVert)^\top e, \quad a = (P^\top Q_*)^\top e, \quad
                  t = r \sqrt{\frac{n - k - 1}{1 - a^\top a - r^2}}, \quad \lVert e \rVert = 1

        with :math:`Q_*` the covariates that differ within a block. People who were not measured
        in a voxel take no part in its shuffles; its t is given as the equivalent of everybody's
        degrees of freedom.
        """
        basis = self._rows[:-1]
        shift, inside, squares = sums_of(y, basis)
        whole = tested & np.isfinite(squares)
        batches = list(shuffles.batches(self.design_rows(shuffles)))
        if whole.any():
            with np.errstate(invalid="ignore"):
                rest = self._room.take_in(y, shuffles.places, shift, squares,
                                          (basis.T, inside))
            part = _Part.of(self.people, np.ones(len(y), bool), shuffles, rest, self.shares)
            for drawn in batches:
                yield drawn, np.flatnonzero(whole), part.t(shuffles, drawn)[:, whole]
        for chosen, present in patterns(y, np.flatnonzero(tested & ~whole)):
            some = self.people.among(present)
            rest = some.residuals(y[np.ix_(present, chosen)].astype(np.float64))[0]
            at = shuffles.among(present).places
            part = _Part.of(some, present, shuffles, rest[at].astype(np.float32), self.shares)
            for drawn in batches:
                yield drawn, chosen, equivalent_t(part.t(shuffles, drawn), some.df,
                                                  self.people.df)


@dataclass(frozen=True, eq=False)
class _Part:
    """Voxels that were measured in the same people, ready to be shuffled."""

    present: Array
    df: int
    spread: Array  # what is shuffled: the group and covariates as rows, 0 of who is absent
    rest: Array  # what the covariates leave of the values, in the order of the places
    squares: Array  # its length
    floor: float  # share of it that is left at least

    @classmethod
    def of(cls, people: Projection, present: Array, shuffles: Shuffles, rest: Array,
           shares: bool) -> _Part:
        rows = np.column_stack([people.left / np.sqrt(people.information),
                                changing_within(people.basis, shuffles.blocks[present])])
        spread = np.zeros((rows.shape[1], len(present)), dtype=np.float32)
        spread[:, present] = rows.T
        return cls(present, people.df, spread, rest, squares_of(rest), people.floor(shares))

    def t(self, shuffles: Shuffles, drawn: slice) -> Array:
        design = self.spread[:, shuffles.among(self.present).sequences(drawn)]
        product = (design.reshape(-1, len(self.rest)) @ self.rest).reshape(
            len(self.spread), -1, self.rest.shape[1])
        left = self.squares - np.einsum("ipv,ipv->pv", product, product)
        np.maximum(left, self.floor * self.squares + TINY, out=left)
        return product[0] * np.sqrt(np.float32(self.df) / left)

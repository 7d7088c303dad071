"""What a linear model tests: a group or a score beside covariates, by one variance or by HC3."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

# Rounding leaves about 1e-30 of a sum of squares that is zero in theory, 1e-16 of a projection
# that is: both bounds lie far above the rounding and far below anything measured.
NO_RESIDUAL = 1e-20
COLLINEAR = 1e-10

EXPLAINED = "group and covariates explain it without residual"
BY_COVARIATES = "the covariates explain it without residual"
FLAT_GROUP = "a group has no spread, and so no error of its own"


@dataclass(frozen=True, eq=False)
class LinearTerm:
    r"""Columns X beside covariates C in a linear model of every feature.

    .. math:: X_r = (I - QQ^\top) X, \quad \hat\beta = (X_r^\top X_r)^{-1} X_r^\top y, \quad
              F = \hat\beta^\top V^{-1} \hat\beta / r, \quad
              V = \sigma^2 (X_r^\top X_r)^{-1} \ \text{or}\
              A\,\mathrm{diag}\!\left(\frac{e_i^2}{(1 - h_i)^2}\right) A^\top

    with Q an orthonormal basis of C, A = (X_r' X_r)^-1 X_r', e the residuals and h the leverage
    in the whole model; the second V is HC3, for groups of unequal spread. With one column (r = 1)
    the statistic is t, with its sign.

    Parameters
    ----------
    tested : ndarray, shape (n_people, r)
        X: who is a case, a score, or the dummies of several groups.
    design : ndarray, shape (n_people, n_columns)
        C with the constant; columns of any scale, some perhaps redundant.
    robust : bool
        HC3 in the place of one variance for all.

    References
    ----------
    MacKinnon & White (1985), doi:10.1016/0304-4076(85)90158-7.

    Examples
    --------
    >>> term = LinearTerm(np.array([[0.0], [0], [1], [1]]), np.ones((4, 1)))
    >>> found, _ = term.fit(np.array([[1.0], [3], [5], [7]]))
    >>> found["adjusted_difference"].tolist(), found["t"].round(2).tolist()
    ([4.0], [2.83])
    """

    tested: Array
    design: Array
    robust: bool = False

    @cached_property
    def basis(self) -> Array:
        """Q, (n, rank of C)."""
        norms = np.linalg.norm(self.design, axis=0)
        basis, singular, _ = np.linalg.svd(self.design[:, norms > 0] / norms[norms > 0],
                                           full_matrices=False)
        return basis[:, singular > COLLINEAR * singular[0]]

    @cached_property
    def left(self) -> Array:
        """X_r, (n, r)."""
        centred = self.tested - self.tested.mean(axis=0)
        return centred - self.basis @ (self.basis.T @ centred)

    @property
    def df(self) -> int:
        """n - rank of C - r."""
        return len(self.tested) - self.basis.shape[1] - self.tested.shape[1]

    @cached_property
    def _hat(self) -> tuple[Array, Array]:
        """A, (r, n), and 1 / (1 - h), 0 of those whom the covariates alone explain."""
        along = np.linalg.qr(self.left)[0]
        free = 1 - (self.basis**2).sum(axis=1) - (along**2).sum(axis=1)
        weight = np.divide(1, free, out=np.zeros_like(free), where=free > COLLINEAR)
        return np.linalg.pinv(self.left), weight

    def problem(self) -> str:
        """Why nothing can be tested with these people; empty if it can."""
        lengths = ((self.tested - self.tested.mean(axis=0)) ** 2).sum(axis=0)
        if not (lengths > 0).all():
            return "the same in everyone who was measured"
        r = np.abs(np.diag(np.linalg.qr(self.left)[1]))
        if (r**2 < COLLINEAR * lengths).any():
            return "the covariates tell the groups apart completely"
        if self.df < 1:
            return f"{len(self.tested)} people are too few for group and covariates"
        alone = (self._hat[1] == 0) & ((self.left**2).sum(axis=1) > COLLINEAR * lengths.max())
        if self.robust and alone.any():
            return "one person alone decides the fit: HC3 has no error for it"
        return ""

    def residuals(self, y: Array) -> Array:
        """(I - QQ')y, shape (…, n, n_features)."""
        y = y - y.mean(axis=-2, keepdims=True)
        return y - self.basis @ (self.basis.T @ y)

    def statistic(self, rest: Array) -> Array:
        """t, or F of several columns, of residuals (…, n, n_features)."""
        hat, weight = self._hat
        beta = hat @ rest
        error = rest - self.left @ beta
        k = self.tested.shape[1]
        if not self.robust:
            variance = (error**2).sum(axis=-2) / self.df
            explained = ((self.left @ beta) ** 2).sum(axis=-2)
            if k > 1:
                return explained / k / variance
            return beta[..., 0, :] / np.sqrt(variance * (hat[0] ** 2).sum())
        squares = (error * weight[:, None]) ** 2
        if k == 1:
            return beta[..., 0, :] / np.sqrt(hat[0] ** 2 @ squares)
        covariance = np.einsum("ri,si,...if->...frs", hat, hat, squares)
        sizes = np.linalg.eigvalsh(covariance)
        flat = sizes[..., 0] <= COLLINEAR * sizes[..., -1]  # groups without spread
        beta = np.moveaxis(beta, -2, -1)[..., None]
        solved = np.linalg.solve(np.where(flat[..., None, None], np.eye(k), covariance), beta)
        return np.where(flat, np.inf, (beta * solved).sum(axis=(-2, -1)) / k)

    def fit(self, y: Array) -> tuple[dict[str, Array], Array]:
        """Statistic, df and effect of complete columns; and why there is none."""
        rest = self.residuals(y)
        beta = self._hat[0] @ rest
        least = NO_RESIDUAL * ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        alone = (rest**2).sum(axis=0) <= least
        exact = ((rest - self.left @ beta) ** 2).sum(axis=0) <= least
        statistic = np.full(y.shape[1], np.nan)
        statistic[~exact] = self.statistic(rest[:, ~exact])
        flat = np.isinf(statistic)
        problem = np.select([alone, exact, flat], [BY_COVARIATES, EXPLAINED, FLAT_GROUP], "")
        statistic[flat] = np.nan
        df = np.where(problem == "", float(self.df), np.nan)
        if self.tested.shape[1] > 1:
            df1 = np.where(problem == "", self.tested.shape[1], np.nan)
            return {"f": statistic, "df1": df1, "df2": df}, problem
        # what covariates explain leaves rounding, whose sign means nothing
        return {"adjusted_difference": np.where(alone, np.nan, beta[0]), "t": statistic,
                "df": df}, problem

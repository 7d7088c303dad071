"""Means of groups of unequal spread: Welch's t and his analysis of variance."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .linear_terms import EXPLAINED, FLAT_GROUP, NO_RESIDUAL, Array


@dataclass(frozen=True, eq=False)
class WelchTerm:
    r"""Means of groups that may differ in spread, without covariates.

    .. math:: F = \frac{\sum_k w_k (\bar y_k - \tilde y)^2 / (K - 1)}
              {1 + \frac{2 (K - 2)}{K^2 - 1} \Lambda}, \quad w_k = n_k / s_k^2, \quad
              \Lambda = \sum_k \frac{(1 - w_k / \sum w)^2}{n_k - 1}

    on K - 1 and :math:`(K^2 - 1) / 3\Lambda` degrees of freedom; for two groups Welch's t.

    Parameters
    ----------
    tested : ndarray of 0 and 1, shape (n_people, K - 1)
        Dummies of the groups but the baseline.

    References
    ----------
    Welch (1951), doi:10.1093/biomet/38.3-4.330.

    Examples
    --------
    >>> found, _ = WelchTerm(np.array([[0.0], [0], [1], [1]])).fit(
    ...     np.array([[1.0], [3], [5], [9]]))
    >>> found["t"].round(3).tolist(), found["df"].round(3).tolist()
    ([2.236], [1.471])
    """

    tested: Array

    @property
    def _members(self) -> Array:
        """(K, n), the baseline first."""
        return np.vstack([1 - self.tested.sum(axis=1), self.tested.T])

    def problem(self) -> str:
        """Why nothing can be tested with these people; empty if it can."""
        few = self._members.sum(axis=1).min() < 2
        return "Welch's test needs 2 people in each group" if few else ""

    def residuals(self, y: Array) -> Array:
        """y without its mean."""
        return y - y.mean(axis=-2, keepdims=True)

    def _moments(self, y: Array) -> tuple[Array, Array, Array]:
        """n (K, 1), means and variances of means (…, K, n_features)."""
        members = self._members
        n = members.sum(axis=1)[:, None]
        mean = members @ y / n
        rest = y - members.T @ mean
        return n, mean, members @ rest**2 / (n - 1) / n

    def _f(self, y: Array) -> tuple[Array, Array]:
        n, mean, error = self._moments(y)
        k, weight = len(n), 1 / error
        share = weight / weight.sum(axis=-2, keepdims=True)
        centre = (share * mean).sum(axis=-2, keepdims=True)
        spread = ((1 - share) ** 2 / (n - 1)).sum(axis=-2)
        above = (weight * (mean - centre) ** 2).sum(axis=-2) / (k - 1)
        return (above / (1 + 2 * (k - 2) / (k**2 - 1) * spread),
                (k**2 - 1) / (3 * spread))

    def statistic(self, rest: Array) -> Array:
        """t of two groups, or F."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.tested.shape[1] > 1:
                return self._f(rest)[0]
            _, mean, error = self._moments(rest)
            return (mean[..., 1, :] - mean[..., 0, :]) / np.sqrt(error.sum(axis=-2))

    def fit(self, y: Array) -> tuple[dict[str, Array], Array]:
        """Statistic, df and effect of complete columns; and why there is none."""
        n, mean, error = self._moments(y)
        flat = error * n * (n - 1) <= NO_RESIDUAL * ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        if self.tested.shape[1] > 1:
            exact = flat.any(axis=0)
            f, df = (np.full(y.shape[1], np.nan) for _ in range(2))
            f[~exact], df[~exact] = self._f(y[:, ~exact])
            return {"f": f, "df1": np.where(exact, np.nan, len(n) - 1),
                    "df2": df}, np.where(exact, FLAT_GROUP, "")
        exact = flat.all(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = error.sum(axis=0) ** 2 / (error**2 / (n - 1)).sum(axis=0)
            t = (mean[1] - mean[0]) / np.sqrt(error.sum(axis=0))
        return {"adjusted_difference": mean[1] - mean[0], "t": np.where(exact, np.nan, t),
                "df": np.where(exact, np.nan, df)}, np.where(exact, EXPLAINED, "")

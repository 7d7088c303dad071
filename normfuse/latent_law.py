"""How far a latent position is from healthy people's, and how rare that is."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from .calibration import Prior, ResidualLaw

MIN_SHAPE_N = 30
"""With fewer calibration people a distance has Hotelling's law: they say nothing of its tail."""

_TINY = 1e-8
"""Eigenvalues of the latent correlation below this, relative to the largest, are rounding."""


_NODES = np.linspace(-4, 4, 13)[:, None]
"""Of log c, in sd of its posterior around where it is highest."""

_BEYOND_NORMAL = np.linspace(0, 1, 10)[None, :] ** 1.5
GRID = (_NODES.shape[0], _BEYOND_NORMAL.shape[1])
_PRIOR_LOG_C, _PRIOR_INVERSE_NU = 0.3, 0.1
"""Prior sd of log c and prior scale of 1/nu above its normal value: weak, but enough that 30
people cannot claim absurd tails."""


@dataclass(frozen=True, eq=False)
class DistanceShape:
    """The law of a distance when latent positions have tails of unknown weight.

    f = D^2 n (n - p) / (p (n - 1)(n + 1)) ~ c F(p, nu). Normal positions have c = 1 and
    nu = n - p (Hotelling); positions with heavy tails, as of a multivariate t, a smaller nu. With
    Hotelling's law 9 % of healthy people fell below p = .05 on a real cohort. What c and nu are is
    known only from a few dozen people, so the p-value is averaged over their posterior:

    p(f) = sum over a grid of (c, nu) of  w(c, nu) P(c F(p, nu) > f),
    w proportional to prior(c, nu) times the likelihood of calibration people's left-out f.

    It errs on the careful side when people are few.

    Attributes
    ----------
    log_c, weights : ndarray, shape (13, 10), or None
        The grid, finer the more people there are, and its weights, summing to 1; None is
        Hotelling's law.
    """

    log_c: np.ndarray | None = None
    weights: np.ndarray | None = None

    @classmethod
    def fit(cls, f: np.ndarray, p: int, nu_normal: float) -> DistanceShape:
        """From left-out f of calibration people, who number p + nu_normal + 1 in all."""
        if nu_normal <= 3:  # no room for tails heavier than that
            return cls()
        inverse_nu = _inverse_nu(nu_normal)

        def log_posterior(log_c: np.ndarray) -> np.ndarray:
            return (stats.f.logpdf(f[:, None, None] / np.exp(log_c), p, 1 / inverse_nu).sum(0)
                    - len(f) * log_c - 0.5 * (log_c / _PRIOR_LOG_C) ** 2
                    - (inverse_nu - 1 / nu_normal) / _PRIOR_INVERSE_NU)

        sd = np.sqrt(2 * (1 / p + inverse_nu) / len(f))
        log_c = _highest(log_posterior, inverse_nu.shape) + sd * _NODES
        log_weight = log_posterior(log_c)
        # columns are denser near the normal law: weigh each node by the width it stands for
        weights = np.exp(log_weight - log_weight.max()) * np.gradient(inverse_nu[0]) * sd
        return cls(log_c, weights / weights.sum())

    def p_value(self, f: np.ndarray, p: int, nu_normal: float) -> np.ndarray:
        """Upper tail, averaged over the grid."""
        if self.log_c is None or self.weights is None:
            return stats.f.sf(f, p, nu_normal)
        tails = stats.f.sf(f[:, None, None] / np.exp(self.log_c), p, 1 / _inverse_nu(nu_normal))
        return (self.weights * tails).sum((1, 2))


def _highest(function: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Where each element's log-concave function of log c is highest, by golden sections."""
    low, high, golden = np.full(shape, -3.0), np.full(shape, 3.0), (np.sqrt(5) - 1) / 2
    for _ in range(30):
        one, two = high - golden * (high - low), low + golden * (high - low)
        left = function(one) > function(two)
        low, high = np.where(left, low, one), np.where(left, two, high)
    return (low + high) / 2


def _inverse_nu(nu_normal: float) -> np.ndarray:
    return 1 / nu_normal + _BEYOND_NORMAL * (0.5 - 1 / nu_normal)


@dataclass(frozen=True, eq=False)
class LatentLaw:
    """Mean and covariance of calibration people's latent positions.

    D^2 = (h - m)' S^-1 (h - m), with the law of :class:`DistanceShape`; chi-square with p degrees
    of freedom would hold only for n far above 50 p.

    Attributes
    ----------
    n : int
    mean : ndarray, shape (p,)
    covariance : ndarray, shape (p, p)

    References
    ----------
    Hotelling (1931), Ann. Math. Stat. 2(3), doi 10.1214/aoms/1177732979.

    Examples
    --------
    >>> h = np.random.default_rng(0).normal(size=(40, 3))
    >>> distance, p = LatentLaw.fit(h).test(np.zeros((1, 3)), DistanceShape())
    >>> bool(p[0] > 0.9)
    True
    """

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def fit(cls, h: np.ndarray) -> LatentLaw:
        """From calibration positions, shape (n_calibration, p)."""
        return cls(len(h), h.mean(axis=0), np.atleast_2d(np.cov(h, rowvar=False, ddof=1)))

    @property
    def usable(self) -> bool:
        """Enough people for the F law, one of them left out."""
        return self.n >= len(self.mean) + 3

    def test(self, h: np.ndarray, shape: DistanceShape) -> tuple[np.ndarray, np.ndarray]:
        """Distance D and its p-value for new people."""
        squared = self._squared(h)
        f = self._to_f(squared, self.n)
        return np.sqrt(squared), shape.p_value(f, self.rank, self.n - self.rank)

    def test_left_out(self, h: np.ndarray, shape: DistanceShape) -> tuple[np.ndarray, np.ndarray]:
        """The same for calibration people, each against the others only."""
        squared = self._squared_left_out(h)
        f = self._to_f(squared, self.n - 1)
        return np.sqrt(squared), shape.p_value(f, self.rank, self.n - 1 - self.rank)

    def f(self, h: np.ndarray, *, left_out: bool = False) -> np.ndarray:
        """The F statistic of each position's distance."""
        squared = self._squared_left_out(h) if left_out else self._squared(h)
        return self._to_f(squared, self.n - left_out)

    def shape(self, h: np.ndarray) -> DistanceShape:
        """The shape of the distance's law, from some or all of the calibration people."""
        return DistanceShape.fit(self.f(h, left_out=True), self.rank, self.n - 1 - self.rank)

    def z(self, h: np.ndarray, *, left_out: bool = False) -> np.ndarray:
        """Per-dimension z, by the t law of :class:`~normfuse.calibration.ResidualLaw`."""
        law = ResidualLaw(np.full(len(self.mean), self.n), self.mean,
                          np.sqrt(np.diag(self.covariance)), Prior.none(len(self.mean)))
        return law.z_left_out(h) if left_out else law.z(h)

    @cached_property
    def _whitener(self) -> np.ndarray:
        """Maps centred positions to uncorrelated ones of unit variance, shape (p, rank)."""
        # scaled to unit variances first: latents that the model does not use are tiny
        scale = np.sqrt(np.diag(self.covariance))
        scale = np.where(scale > 0, scale, 1.0)
        values, vectors = np.linalg.eigh(self.covariance / np.outer(scale, scale))
        kept = values > _TINY * values.max()
        return vectors[:, kept] / np.sqrt(values[kept]) / scale[:, None]

    @property
    def rank(self) -> int:
        """Dimensions in which calibration people differ: the p of the F law."""
        return self._whitener.shape[1]

    def _squared(self, h: np.ndarray) -> np.ndarray:
        return (((h - self.mean) @ self._whitener) ** 2).sum(axis=1)

    def _squared_left_out(self, h: np.ndarray) -> np.ndarray:
        """Closed form: removing one person is a rank-one change of S."""
        n = self.n
        a = self._squared(h) / (n - 1)
        return (n / (n - 1)) ** 2 * (n - 2) * a / np.clip(1 - n / (n - 1) * a, 1e-12, None)

    def _to_f(self, squared: np.ndarray, n: int) -> np.ndarray:
        p = max(self.rank, 1)
        return squared * n * (n - p) / (p * (n - 1) * (n + 1))

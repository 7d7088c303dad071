"""How far a latent position is from healthy people's, and how rare that is."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from .calibration import MIN_SHAPE_N, ResidualLaw


@dataclass(frozen=True)
class DistanceShape:
    """Scale c and denominator degrees of freedom nu of a distance's F law.

    D^2 n (n - p) / (p (n - 1)(n + 1)) ~ c F(p, nu). Normal latent positions have c = 1 and
    nu = n - p (Hotelling). Positions with heavy tails, as of a multivariate t, have a smaller nu:
    with Hotelling's law 9 % of healthy people fall below p = .05 on a real cohort.
    """

    log_c: float = 0.0
    nu: float = np.inf

    @classmethod
    def fit(cls, f: np.ndarray, p: int, nu_normal: float) -> DistanceShape:
        """By maximum likelihood from calibration people's left-out F values.

        Below ``MIN_SHAPE_N`` people it is Hotelling's law.
        """
        if len(f) < MIN_SHAPE_N:
            return cls()

        def cost(theta: np.ndarray) -> float:
            nu = 2 + (nu_normal - 2) / (1 + np.exp(theta[1]))
            return -float(stats.f.logpdf(f / np.exp(theta[0]), p, nu).sum() - len(f) * theta[0])

        best = optimize.minimize(cost, [0.0, -1.0], method="Nelder-Mead",
                                 bounds=[(-1.5, 1.5), (-8, 8)]).x
        return cls(float(best[0]), float(2 + (nu_normal - 2) / (1 + np.exp(best[1]))))

    def p_value(self, f: np.ndarray, p: int, nu_normal: float) -> np.ndarray:
        """Upper tail of c F(p, min(nu, n - p))."""
        return stats.f.sf(f / np.exp(self.log_c), p, min(self.nu, nu_normal))


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
        return np.sqrt(squared), shape.p_value(f, len(self.mean), self.n - len(self.mean))

    def test_left_out(self, h: np.ndarray, shape: DistanceShape) -> tuple[np.ndarray, np.ndarray]:
        """The same for calibration people, each against the others only."""
        squared = self._squared_left_out(h)
        f = self._to_f(squared, self.n - 1)
        return np.sqrt(squared), shape.p_value(f, len(self.mean), self.n - 1 - len(self.mean))

    def shape(self, h: np.ndarray) -> DistanceShape:
        """The shape of the distance's law, from some or all of the calibration people."""
        f = self._to_f(self._squared_left_out(h), self.n - 1)
        return DistanceShape.fit(f, len(self.mean), self.n - 1 - len(self.mean))

    def z(self, h: np.ndarray, *, left_out: bool = False) -> np.ndarray:
        """Per-dimension z, by the t law of :class:`~normfuse.calibration.ResidualLaw`."""
        law = ResidualLaw(np.full(len(self.mean), self.n), self.mean,
                          np.sqrt(np.diag(self.covariance)))
        return law.z_left_out(h) if left_out else law.z(h)

    def _squared(self, h: np.ndarray) -> np.ndarray:
        # scaled to unit variances first: latents that the model does not use are tiny
        scale = np.sqrt(np.diag(self.covariance))
        scale = np.where(scale > 0, scale, 1.0)
        correlation = self.covariance / np.outer(scale, scale)
        centred = (h - self.mean) / scale
        return np.einsum("ij,ij->i", centred, np.linalg.solve(correlation, centred.T).T)

    def _squared_left_out(self, h: np.ndarray) -> np.ndarray:
        """Closed form: removing one person is a rank-one change of S."""
        n = self.n
        a = self._squared(h) / (n - 1)
        return (n / (n - 1)) ** 2 * (n - 2) * a / np.clip(1 - n / (n - 1) * a, 1e-12, None)

    def _to_f(self, squared: np.ndarray, n: int) -> np.ndarray:
        p = len(self.mean)
        return squared * n * (n - p) / (p * (n - 1) * (n + 1))

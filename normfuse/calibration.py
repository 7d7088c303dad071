"""From residuals to z and p: calibration on healthy people whom training never saw."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from .errors import CalibrationError

MIN_FEATURE_N = 5
"""Fewer calibration values than this and a feature's z is NaN: its sd would be a guess."""


@dataclass(frozen=True)
class HeldOut:
    """Split the reference by subject into training, early-stopping and calibration people.

    Parameters
    ----------
    calibration : float
        Share kept for calibration. They shape neither weights nor stopping time.
    early_stop : float
        Share that says when to stop training.

    Examples
    --------
    >>> people = pd.DataFrame({"site": ["a", "b"] * 20})
    >>> HeldOut().roles(people, {"site": "site"}, n_latent=2, seed=0).value_counts().to_dict()
    {'training': 24, 'calibration': 10, 'early_stop': 6}
    """

    calibration: float = 0.25
    early_stop: float = 0.15

    def __post_init__(self) -> None:
        if not (0 < self.calibration < 1 and 0 < self.early_stop < 1
                and self.calibration + self.early_stop < 1):
            raise CalibrationError("calibration and early_stop are shares of the reference, both "
                                   f"positive and together below 1; got {self.calibration} and "
                                   f"{self.early_stop}")

    def roles(self, subjects: pd.DataFrame, kinds: Mapping[str, str], *, n_latent: int,
              seed: int) -> pd.Series:
        """``training``, ``early_stop`` or ``calibration`` for each subject.

        Stratified by every categorical covariate and the site: within each stratum, in random
        order, the shares are dealt out evenly. A level that would have nobody in training gets all
        its people moved there, since its offset could not be learned otherwise.

        Raises
        ------
        CalibrationError
            When the calibration people would be too few.
        """
        groups = [name for name, kind in kinds.items() if kind != "continuous"]
        rng = np.random.default_rng(seed)
        strata = subjects[groups].astype(str).agg("|".join, axis=1) if groups \
            else pd.Series("", index=subjects.index)
        order = np.lexsort((rng.permutation(len(subjects)), strata.to_numpy()))
        roles = pd.Series("training", index=subjects.index)
        # dealing by cumulative share keeps every stratum's shares within one person
        position = (np.arange(len(order)) + 0.5 + rng.uniform()) * self.calibration
        chosen = np.floor(position) > np.floor(position - self.calibration)
        rest = order[~chosen]
        share = self.early_stop / (1 - self.calibration)
        position = (np.arange(len(rest)) + 0.5 + rng.uniform()) * share
        roles.iloc[order[chosen]] = "calibration"
        roles.iloc[rest[np.floor(position) > np.floor(position - share)]] = "early_stop"
        for name in groups:
            levels = subjects[name].astype(str)
            trained = set(levels[roles == "training"])
            roles[~levels.isin(trained)] = "training"
        self._enough(roles, n_latent)
        return roles

    def _enough(self, roles: pd.Series, n_latent: int) -> None:
        n = roles.value_counts().reindex(["training", "early_stop", "calibration"], fill_value=0)
        needed = max(MIN_FEATURE_N, n_latent + 3)
        if n["calibration"] < needed or n["early_stop"] < 2 or n["training"] < 8:
            least = int(np.ceil(needed / self.calibration))
            raise CalibrationError(
                f"{len(roles)} reference subjects are too few: they give {n['training']} for "
                f"training, {n['early_stop']} for early stopping and {n['calibration']} for "
                f"calibration, where {n_latent} latent dimensions need at least {needed}. Bring "
                f"about {least} healthy subjects, or lower n_latent")


@dataclass(frozen=True, eq=False)
class ResidualLaw:
    """Location and scale of standardised residuals u = (y - yhat) / s in calibration people.

    b = mean(u), k^2 = sum (u - b)^2 / (n - 1); a new person's (u - b) / (k sqrt(1 + 1/n)) has
    Student's t law with n - 1 degrees of freedom, so

    z = Phi^-1( T_{n-1}( (u - b) / (k sqrt(1 + 1/n)) ) )

    is standard normal at every n (for normal residuals), where (u - b) / k has too heavy tails.

    Attributes
    ----------
    n, mean, sd : ndarray, shape (n_features,)
    """

    n: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def fit(cls, u: np.ndarray) -> ResidualLaw:
        """From calibration residuals, shape (n_calibration, n_features); NaN are left out."""
        seen = ~np.isnan(u)
        n = seen.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(seen, u, 0).sum(axis=0) / n
            sd = np.sqrt((np.where(seen, u - mean, 0) ** 2).sum(axis=0) / (n - 1))
        return cls(n, mean, sd)

    def z(self, u: np.ndarray) -> np.ndarray:
        """z of new people's residuals, shape (n_subjects, n_features)."""
        return _t_to_normal(u, self.n, self.mean, self.sd)

    def z_left_out(self, u: np.ndarray) -> np.ndarray:
        """z of the calibration people themselves, each against the others only."""
        n = self.n - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (self.n * self.mean - u) / n
            squares = (self.n - 1) * self.sd ** 2 - (u - self.mean) ** 2 * self.n / n
            sd = np.sqrt(np.clip(squares, 0, None) / (n - 1))
        return _t_to_normal(u, n, mean, sd)


def _t_to_normal(u: np.ndarray, n: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    n = np.broadcast_to(n, u.shape)
    enough = n >= MIN_FEATURE_N
    with np.errstate(invalid="ignore", divide="ignore"):
        t = (u - mean) / (sd * np.sqrt(1 + 1 / n))
        # upper tails only: 1 - cdf loses every digit where deviations are interesting
        tail = stats.t.sf(np.abs(t), np.where(enough, n - 1, 1)).clip(1e-300)
    return np.where(enough, np.sign(t) * stats.norm.isf(tail), np.nan)


@dataclass(frozen=True, eq=False)
class LatentLaw:
    """Mean and covariance of calibration people's latent positions, and the law of a distance.

    D^2 = (h - m)' S^-1 (h - m). For a new person, D^2 n (n - p) / (p (n - 1)(n + 1)) ~ F(p, n - p);
    chi-square with p degrees of freedom holds only for n far above 50 p.

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
    >>> distance, p = LatentLaw.fit(h).test(np.zeros((1, 3)))
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

    def test(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance D and its p-value for new people."""
        return self._law(self._squared(h), self.n)

    def test_left_out(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for calibration people, each against the others only (closed form)."""
        n = self.n
        a = self._squared(h) / (n - 1)
        grown = (n / (n - 1)) ** 2 * (n - 2) * a / np.clip(1 - n / (n - 1) * a, 1e-12, None)
        return self._law(grown, n - 1)

    def z(self, h: np.ndarray, *, left_out: bool = False) -> np.ndarray:
        """Per-dimension z, by the t law of :class:`ResidualLaw`."""
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

    def _law(self, squared: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        p = len(self.mean)
        if n <= p:
            return np.sqrt(squared), np.full(len(squared), np.nan)
        f = squared * n * (n - p) / (p * (n - 1) * (n + 1))
        return np.sqrt(squared), stats.f.sf(f, p, n - p)

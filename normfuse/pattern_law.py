"""What is normal for people measured with the same modalities."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .calibration import ResidualLaw, TailShape
from .latent_law import MIN_SHAPE_N, DistanceShape, LatentLaw

_ROUNDING = 1e-9
"""A calibration person scored again must find themselves among the ranked."""

MOST_RANKED = 20_000
"""Features whose calibration residuals are kept for p-values by rank: 100 people take 16 MB then,
for every kind of deviation and set of modalities."""

MOST_FOR_SHAPE = 4000
"""Features of a modality that its tail shape is learned from."""

N_FOLDS = 5
"""Shapes are fitted on all calibration people, and once more without each fifth of them: a
calibration person is scored by shapes that did not see them."""


@dataclass(frozen=True, eq=False)
class FeatureLaw:
    """From standardised residuals of one kind to z.

    Attributes
    ----------
    residual : ResidualLaw
    tails : dict of list of TailShape
        Modality -> shape from everyone, then from everyone but fold 0, 1, …
    ranked : ndarray, shape (n_calibration, n_features), or None
        Residuals, each column sorted by itself, NaN last; None with more than ``MOST_RANKED``
        features.
    """

    residual: ResidualLaw
    tails: Mapping[str, Sequence[TailShape]]
    ranked: np.ndarray | None = None

    @classmethod
    def fit(cls, u: np.ndarray, folds: np.ndarray, columns: Mapping[str, slice]) -> FeatureLaw:
        """From calibration residuals, their folds, and each modality's columns."""
        residual, tails = ResidualLaw.fit(u, columns), {}
        for name, at in columns.items():
            few = _thinned(at)
            z = residual.of(few).z_left_out(u[:, few])
            tails[name] = [TailShape.fit(z[some]) for some in _others(folds)]
        return cls(residual, tails, np.sort(u, axis=0) if u.shape[1] <= MOST_RANKED else None)

    def conformal(self, u: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Two-sided p by rank among calibration residuals; ``own`` marks calibration people.

        p = 2 min(1 + #{u_i <= u}, 1 + #{u_i >= u}) / (n + 1), at most 1: whatever the law of
        residuals, P(p <= alpha) <= alpha for a person exchangeable with the n others. A
        calibration person is ranked among the other n - 1.
        """
        found = np.full(u.shape, np.nan)
        if self.ranked is None:
            return found
        for k in range(u.shape[1]):
            seen = self.ranked[: self.residual.n[k], k]
            below = np.searchsorted(seen, u[:, k] + _ROUNDING, side="right")
            above = len(seen) - np.searchsorted(seen, u[:, k] - _ROUNDING, side="left")
            others = len(seen) - own
            tail = np.minimum(below, above) + 1 - own  # oneself is among them
            found[:, k] = np.minimum(1.0, 2 * tail / np.maximum(others + 1, 1))
        return np.where(np.isnan(u) | (self.residual.n < 1), np.nan, found)

    @property
    def smallest(self) -> float:
        """2 / (n + 1), of the feature of most people: no :meth:`conformal` p is below it."""
        return float("nan") if self.ranked is None else 2 / (float(np.max(self.residual.n)) + 1)

    def z(self, u: np.ndarray, folds: np.ndarray, columns: Mapping[str, slice]) -> np.ndarray:
        """z of residuals; ``folds`` is -1 for new people, else the calibration person's fold."""
        own, z = folds >= 0, np.empty(u.shape)
        z[own], z[~own] = self.residual.z_left_out(u[own]), self.residual.z(u[~own])
        for k in np.unique(folds):
            rows = folds == k
            for name, at in columns.items():
                z[rows, at] = self.tails[name][k + 1](z[rows, at])
        return z


@dataclass(frozen=True, eq=False)
class Frame:
    """Coordinates in which latent positions of different models mean the same.

    Latents of two fits may be turned and scaled differently. In the frame of each, the people it
    learned from have mean 0 and covariance I, so that people it did not see can be pooled.

    Attributes
    ----------
    parts : ndarray, shape (n_modalities, n_latent)
        Mean part of each modality; their sum is the mean.
    root : ndarray, shape (n_latent, n_latent)
        Symmetric inverse root of the covariance.
    """

    parts: np.ndarray
    root: np.ndarray

    @classmethod
    def none(cls, n_modalities: int, n_latent: int) -> Frame:
        """Positions as they are."""
        return cls(np.zeros((n_modalities, n_latent)), np.eye(n_latent))

    @classmethod
    def of(cls, parts: np.ndarray) -> Frame:
        """From parts (n_modalities, n_subjects, n_latent) of the people a model learned from."""
        positions = parts.sum(0)
        values, vectors = np.linalg.eigh(np.cov(positions.T).reshape(2 * positions.shape[1:]))
        # a latent in which nobody differs stays as it is
        stretch = np.where(values > 1e-6 * values.max(initial=1e-300), values, 1.0) ** -0.5
        return cls(parts.mean(1), (vectors * stretch) @ vectors.T)

    def __call__(self, parts: np.ndarray) -> np.ndarray:
        """Parts in these coordinates; positions are their sum."""
        return (parts - self.parts[:, None]) @ self.root


@dataclass(frozen=True, eq=False)
class PatternLaw:
    """Calibration for subjects measured with exactly one set of modalities.

    Made from every calibration subject who has at least these modalities, with the others hidden:
    a fused posterior from two modalities is not distributed like one from three, so a person is
    compared with people measured alike.

    Attributes
    ----------
    features : dict of FeatureLaw
        Kind of deviation -> its law.
    latent : LatentLaw
    distances : list of DistanceShape
        From everyone, then from everyone but fold 0, 1, …
    ranked : ndarray, shape (n_calibration,)
        The distances of calibration people, each from the others, as F statistics, sorted.
    parts : ndarray, shape (n_modalities, n_latent)
        Mean part of each modality in the latent position.
    frame : Frame
        Of the model that scores; all latent quantities are in it.
    """

    features: Mapping[str, FeatureLaw]
    latent: LatentLaw
    distances: Sequence[DistanceShape]
    ranked: np.ndarray
    parts: np.ndarray
    frame: Frame

    @classmethod
    def fit(cls, features: Mapping[str, FeatureLaw], parts: np.ndarray, folds: np.ndarray,
            frame: Frame) -> PatternLaw:
        """From the laws of every kind, and calibration people's parts of latent positions in their
        frames with their folds; ``frame`` is that of the model to score with."""
        h = parts.sum(0)
        latent = LatentLaw.fit(h)
        # decided once: the folds must go through what new people go through
        shaped = latent.usable and len(h) >= MIN_SHAPE_N
        distances = [latent.shape(h[some]) if shaped else DistanceShape()
                     for some in _others(folds)]
        return cls(dict(features), latent, distances, np.sort(latent.f(h, left_out=True)),
                   parts.mean(1), frame)

    def latent_z(self, h: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """Per-dimension z of latent positions."""
        own = (folds >= 0)[:, None]
        return np.where(own, self.latent.z(h, left_out=True), self.latent.z(h))

    def attribution(self, h: np.ndarray, parts: np.ndarray, latent_z: np.ndarray) -> np.ndarray:
        """Each modality's share of latent z, shape (n_modalities, n_subjects, n_latent).

        The deviation h - mean is the sum over modalities of part - mean part, and z is a function
        of it that is 0 at 0: every part is stretched by z / (h - mean), so the shares sum to z.
        Where z is NaN (a latent in which nobody measured alike differs) so are the shares.
        """
        away = h - self.latent.mean
        stretch = latent_z / np.where(np.abs(away) < 1e-9, np.inf, away)
        return stretch * (parts - self.parts[:, None])

    def distance(self, h: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """Latent distance, its p-value, that by rank, and the number of people it is judged by.

        By rank: (1 + #{f_i >= f}) / (n + 1), over the calibration people's own f.
        """
        found = np.empty((len(h), 4))
        for k in np.unique(folds):
            rows, shape = folds == k, self.distances[k + 1]
            test = self.latent.test if k < 0 else self.latent.test_left_out
            found[rows, :2] = np.column_stack(test(h[rows], shape))
        own = folds >= 0
        f = np.where(own, self.latent.f(h, left_out=True), self.latent.f(h))
        above = len(self.ranked) - np.searchsorted(self.ranked, f * (1 - _ROUNDING), side="left")
        found[:, 2] = (above + 1 - own) / (len(self.ranked) - own + 1)
        found[:, 3] = self.latent.n - own
        return found


def _thinned(at: slice) -> slice:
    """Some of very many features, evenly: neighbouring voxels tell of the same tail."""
    return slice(at.start, at.stop, -(-(at.stop - at.start) // MOST_FOR_SHAPE))


def _others(folds: np.ndarray) -> list[np.ndarray]:
    """Everyone, then everyone but each fold."""
    return [np.ones(len(folds), bool), *(folds != k for k in range(N_FOLDS))]

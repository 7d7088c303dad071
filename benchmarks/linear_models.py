"""Linear rivals under one interface: blocks in, exact Gaussian answers out, any cells missing.

``blocks`` is always a list of float arrays (n_subjects, n_features_m), one a modality, rows
aligned, NaN where nothing was measured; a modality a subject has not is a row of NaN. Every rival
is z ~ N(0, I), x_m = W_m z + c_m + e_m, e_m ~ N(0, Psi_m), and they differ in what Psi_m may be
and in how it is learned.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from factor_analysis import FactorAnalysis

Blocks = Sequence[np.ndarray]


@dataclass(frozen=True)
class Group:
    """Subjects (``rows``) who share their measured cells (positions in each block)."""

    rows: np.ndarray
    cells: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Part:
    """One block of a group: Psi^-1, Psi^-1 W and log |Psi| over its measured cells."""

    block: int
    cells: np.ndarray
    residual: np.ndarray
    inverse: np.ndarray
    scaled: np.ndarray
    logdet: float


@dataclass(frozen=True)
class Solved:
    """A group's posterior N(mean, covariance) of z; the covariance is the same for all of it."""

    rows: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    parts: tuple[Part, ...]

    def log_likelihood(self) -> np.ndarray:
        """log p of each subject's measured cells, shape (n_rows,)."""
        total = -np.linalg.slogdet(self.covariance)[1] * np.ones(len(self.rows))
        for part in self.parts:
            smooth = part.residual @ part.inverse - self.mean @ part.scaled.T
            total += (part.residual * smooth).sum(1)
            total += part.logdet + len(part.cells) * np.log(2 * np.pi)
        return -0.5 * total


def groups(blocks: Blocks) -> list[Group]:
    """The subjects by pattern of measured cells."""
    patterns, code = np.unique(~np.isnan(np.hstack(blocks)), axis=0, return_inverse=True)
    edges = np.cumsum([x.shape[1] for x in blocks])[:-1]
    rows = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    return [Group(r, tuple(np.flatnonzero(cells) for cells in np.split(pattern, edges)))
            for r, pattern in zip(rows, patterns)]


@dataclass(frozen=True, eq=False)
class LinearModel(ABC):
    """x_m = W_m z + c_m + e_m with z ~ N(0, I), e_m ~ N(0, Psi_m); fitted once, then frozen.

    With o a subject's measured cells, S_o the block diagonal of the Psi_m over them:
    Cov[z | x_o] = (I + W_o' S_o^-1 W_o)^-1 = C, E[z | x_o] = C W_o' S_o^-1 (x_o - c_o). Work is
    done once a pattern of measured cells, so it grows with the number of distinct patterns.

    Attributes
    ----------
    offsets : tuple of array, shape (n_features_m,)
    loadings : tuple of array, shape (n_features_m, n_latent)
    noise : tuple of array, shape (n_features_m, n_features_m)
        Psi_m, covariances.
    """

    offsets: tuple[np.ndarray, ...]
    loadings: tuple[np.ndarray, ...]
    noise: tuple[np.ndarray, ...]

    @classmethod
    @abstractmethod
    def fit(cls, blocks: Blocks, n_latent: int) -> Self:
        """Maximum likelihood by EM, with the rival's own choice of regularisation."""

    @property
    def n_latent(self) -> int:
        return self.loadings[0].shape[1]

    def solve(self, blocks: Blocks, layout: Sequence[Group] | None = None) -> Iterator[Solved]:
        """Each group's posterior; ``layout`` saves looking for the groups again."""
        known: dict[tuple[int, bytes], tuple[np.ndarray, np.ndarray, float]] = {}
        for group in groups(blocks) if layout is None else layout:
            parts = []
            for m, cells in enumerate(group.cells):
                key = m, cells.tobytes()
                if key not in known:
                    noise = self.noise[m][np.ix_(cells, cells)]
                    inverse = np.linalg.inv(noise)
                    known[key] = (inverse, inverse @ self.loadings[m][cells],
                                  np.linalg.slogdet(noise)[1])
                residual = blocks[m][np.ix_(group.rows, cells)] - self.offsets[m][cells]
                parts.append(Part(m, cells, residual, *known[key]))
            covariance = np.linalg.inv(np.eye(self.n_latent) + sum(
                self.loadings[p.block][p.cells].T @ p.scaled for p in parts))
            mean = sum(p.residual @ p.scaled for p in parts) @ covariance
            yield Solved(group.rows, mean, covariance, tuple(parts))

    def latent(self, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n, k) and covariance (n, k, k) of z given each subject's measured cells."""
        n, k = len(blocks[0]), self.n_latent
        mean, covariance = np.empty((n, k)), np.empty((n, k, k))
        for solved in self.solve(blocks):
            mean[solved.rows], covariance[solved.rows] = solved.mean, solved.covariance
        return mean, covariance

    def log_likelihood(self, blocks: Blocks) -> np.ndarray:
        """Log density of the measured cells of each subject, shape (n,), nats."""
        found = np.empty(len(blocks[0]))
        for solved in self.solve(blocks):
            found[solved.rows] = solved.log_likelihood()
        return found

    def predict(self, blocks: Blocks) -> list[np.ndarray]:
        """W_m E[z | measured cells] + c_m, shape (n, n_features_m) each, no NaN.

        E[x_m | measured cells] where the modality is absent; where it was measured, the shared
        part of it. A cell missing from a measured modality gets the shared part too, without what
        its neighbours' noise would add.
        """
        mean = np.empty((len(blocks[0]), self.n_latent))
        for solved in self.solve(blocks):
            mean[solved.rows] = solved.mean
        return [mean @ w.T + c for w, c in zip(self.loadings, self.offsets)]

    def residual_z(self, blocks: Blocks) -> list[np.ndarray]:
        """(x_j - E[x_j | all other cells]) / sd[x_j | all other cells], exactly; NaN kept.

        With P the inverse covariance of a subject's measured cells: (P (x - c))_j / sqrt(P_jj).
        """
        found = [np.full(x.shape, np.nan) for x in blocks]
        for solved in self.solve(blocks):
            for p in solved.parts:
                px = p.residual @ p.inverse - solved.mean @ p.scaled.T
                pjj = p.inverse.diagonal() - np.einsum(
                    "jk,kl,jl->j", p.scaled, solved.covariance, p.scaled)
                found[p.block][np.ix_(solved.rows, p.cells)] = px / np.sqrt(pjj)
        return found


@dataclass(frozen=True, eq=False)
class FactorModel(LinearModel):
    """Factor analysis of all blocks side by side: Psi_m is diagonal.

    Whatever correlates, inside a modality or between two, must go through z.
    """

    @classmethod
    def fit(cls, blocks: Blocks, n_latent: int) -> Self:
        """:class:`FactorAnalysis` about the means of the measured cells."""
        offsets = tuple(np.nanmean(x, axis=0) for x in blocks)
        factors = FactorAnalysis(n_latent).fit(
            np.hstack([x - c for x, c in zip(blocks, offsets)]))
        edges = np.cumsum([len(c) for c in offsets])[:-1]
        return cls(offsets, tuple(np.split(factors.loadings, edges)),
                   tuple(np.diag(v) for v in np.split(factors.noise, edges)))


def predict_from_others(model: LinearModel, blocks: Blocks) -> list[np.ndarray]:
    """Cross-modal prediction: E[x_m | every modality but m], shape (n, n_features_m) each."""
    return [model.predict([np.full_like(x, np.nan) if i == m else x
                           for i, x in enumerate(blocks)])[m] for m in range(len(blocks))]

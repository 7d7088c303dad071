"""The linear rival: Gaussian factor analysis with missing cells, fitted by EM, scored exactly."""
from __future__ import annotations

import numpy as np


class FactorAnalysis:
    """x = W f + e, f ~ N(0, I), e ~ N(0, diag psi); NaN are missing.

    Rubin and Thayer (1982), doi 10.1007/BF02293851, with missing cells left out of every sum.
    """

    def __init__(self, n_factors: int, n_iterations: int = 200) -> None:
        self.n_factors, self.n_iterations = n_factors, n_iterations

    def fit(self, x: np.ndarray) -> FactorAnalysis:
        """EM on (n_subjects, n_features), already centred."""
        seen = ~np.isnan(x)
        filled = np.where(seen, x, 0.0)
        u, s, vt = np.linalg.svd(filled, full_matrices=False)
        k = self.n_factors
        self.loadings = (vt[:k] * s[:k, None] / np.sqrt(len(x))).T
        variance = (filled ** 2).sum(0) / seen.sum(0)
        self.noise = np.clip(variance - (self.loadings ** 2).sum(1), 0.1 * variance, None)
        for _ in range(self.n_iterations):
            mean, covariance = self.posterior(x)
            second = covariance + mean[:, :, None] * mean[:, None, :]
            gram = np.einsum("nj,nkl->jkl", seen.astype(float), second, optimize=True)
            cross = filled.T @ mean
            self.loadings = np.linalg.solve(gram + 1e-9 * np.eye(k), cross[..., None])[..., 0]
            square = (filled ** 2).sum(0) - (self.loadings * cross).sum(1)
            self.noise = np.clip(square / seen.sum(0), 1e-3 * variance, None)
        return self

    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n, k) and covariance (n, k, k) of the factors given the measured cells."""
        seen = ~np.isnan(x)
        scaled = self.loadings / self.noise[:, None]
        outer = np.einsum("jk,jl->jkl", scaled, self.loadings)
        k = self.n_factors
        precision = np.eye(k) + (seen.astype(float) @ outer.reshape(len(outer), -1)).reshape(
            -1, k, k)
        covariance = np.linalg.inv(precision)
        mean = np.einsum("nkl,nl->nk", covariance, np.where(seen, x, 0.0) @ scaled)
        return mean, covariance

    def log_likelihood(self, x: np.ndarray) -> float:
        """Mean log density of the measured cells per subject."""
        seen = ~np.isnan(x)
        mean, covariance = self.posterior(x)
        filled = np.where(seen, x, 0.0)
        quadratic = (filled ** 2 / self.noise).sum(1) - np.einsum(
            "nk,nk->n", filled @ (self.loadings / self.noise[:, None]), mean)
        logdet = seen @ np.log(self.noise) - np.linalg.slogdet(covariance)[1]
        return float(-0.5 * (quadratic + logdet + seen.sum(1) * np.log(2 * np.pi)).mean())

    def conditional_residual(self, x: np.ndarray) -> np.ndarray:
        """(x_j - E[x_j | all other cells]) / sd[x_j | all other cells], exactly; NaN kept.

        With P = inv(S) over a subject's measured cells this is (P x)_j / sqrt(P_jj).
        """
        seen = ~np.isnan(x)
        mean, covariance = self.posterior(x)
        scaled = self.loadings / self.noise[:, None]
        px = (np.where(seen, x, 0.0) - mean @ self.loadings.T) / self.noise
        pjj = 1 / self.noise - np.einsum("jk,nkl,jl->nj", scaled, covariance, scaled,
                                         optimize=True)
        return np.where(seen, px / np.sqrt(np.clip(pjj, 1e-12, None)), np.nan)


def choose_rank(training: np.ndarray, held_out: np.ndarray, ranks: tuple[int, ...]) -> int:
    """The number of factors with the best held-out likelihood."""
    return max(ranks, key=lambda k: FactorAnalysis(k, 60).fit(training).log_likelihood(held_out))

"""The other linear rival: probabilistic CCA of two or more blocks, fitted by EM on any cells."""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from linear_models import Blocks, Group, LinearModel, Part, Solved, groups

SHRINKAGES = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 0.9, 1.0)


@dataclass(frozen=True, eq=False)
class ProbabilisticCCA(LinearModel):
    """x_m = W_m z + c_m + e_m with a full covariance Psi_m of each block's noise.

    What correlates only inside a modality goes to Psi_m; z keeps what modalities share. With two
    complete blocks and no shrinkage the maximum is known (Bach and Jordan 2005, theorem 2):
    W_m = S_mm U_m P^(1/2), Psi_m = S_mm - W_m W_m', U_m and P the canonical directions and
    correlations. Likelihood fixes W_1 W_2' there, not how each variance divides into W_m W_m' and
    Psi_m (their M_1 M_2' = P); EM stays at the symmetric answer, where it starts. More blocks have
    no closed form. Missing cells and modalities are integrated out exactly; c_m is learned too.

    Where we differ: the M-step's noise covariance A becomes Psi = (1 - s) A + s diag(A), since a
    block may have more features than subjects. s = 0 is their model, s = 1 is factor analysis.
    :meth:`fit` chooses s by the likelihood of every fifth subject, held out, then refits on all.
    For s of 0 and 1 every iteration raises the likelihood; between, the diagonal moves with the
    fit, so that is no theorem.

    Attributes
    ----------
    shrinkage : float
        s, the same for all blocks.
    history : tuple of float
        Mean log-likelihood per subject before each iteration, nats.

    References
    ----------
    Bach and Jordan (2005), A probabilistic interpretation of canonical correlation analysis,
    TR 688, Department of Statistics, University of California, Berkeley. The expanded step that
    frees the covariance of z: Liu, Rubin and Wu (1998), Biometrika 85(4),
    doi 10.1093/biomet/85.4.755.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(60, 1))
    >>> blocks = [z * [1.0, 2.0] + rng.normal(size=(60, 2)), z * [1.0, 0.0, -1.0] + rng.normal(
    ...     size=(60, 3))]
    >>> blocks[1][:9] = np.nan
    >>> model = ProbabilisticCCA.fit(blocks, 1)
    >>> mean, covariance = model.latent(blocks)
    >>> mean.shape, bool((covariance[:9] > covariance[9]).all()), model.predict(blocks)[1].shape
    ((60, 1), True, (60, 3))
    """

    shrinkage: float = 0.0
    history: tuple[float, ...] = ()

    @classmethod
    def fit(cls, blocks: Blocks, n_latent: int) -> Self:
        """EM at the shrinkage with the best held-out likelihood."""
        held_out = np.arange(len(blocks[0])) % 5 == 0
        best = choose_shrinkage([x[~held_out] for x in blocks], [x[held_out] for x in blocks],
                                n_latent)
        return cls.fit_at(blocks, n_latent, shrinkage=best)

    @classmethod
    def fit_at(cls, blocks: Blocks, n_latent: int, *, shrinkage: float,
               n_iterations: int = 500) -> Self:
        """EM at a given shrinkage."""
        return cls.start(blocks, n_latent, shrinkage=shrinkage).improved(
            blocks, n_iterations=n_iterations)

    @classmethod
    def start(cls, blocks: Blocks, n_latent: int, *, shrinkage: float) -> Self:
        """Principal components of the whitened blocks (MAXVAR generalised CCA).

        For two complete blocks without shrinkage this is already the maximum.
        """
        if len(blocks) < 2:
            raise ValueError("one block has no canonical correlations: give two or more, or use "
                             "FactorModel")
        offsets = tuple(np.nanmean(x, axis=0) for x in blocks)
        filled = [np.where(np.isnan(x), 0.0, x - c) for x, c in zip(blocks, offsets)]
        having = [int((~np.isnan(x)).any(axis=1).sum()) for x in blocks]
        for m, (n, c) in enumerate(zip(having, offsets)):
            if shrinkage == 0 and n <= len(c):
                raise ValueError(f"block {m} has {len(c)} features in {n} subjects, so its noise "
                                 "covariance would be singular: give a shrinkage above 0")
        roots = [np.linalg.cholesky(shrunk(x.T @ x / n, shrinkage))
                 for x, n in zip(filled, having)]
        white = np.hstack([np.linalg.solve(r, x.T).T for r, x in zip(roots, filled)])
        values, vectors = np.linalg.eigh(white.T @ white / len(white))
        values, vectors = values[:-n_latent - 1:-1], vectors[:, :-n_latent - 1:-1]
        # A direction that starts at 0 stays there: 0 is a stationary point of EM.
        scale = np.sqrt(np.clip(values - 1, 0.05, None) * len(blocks) / (len(blocks) - 1))
        parts = np.split(vectors * scale, np.cumsum([len(c) for c in offsets])[:-1])
        noise = [shrunk(r @ _positive(np.eye(len(w)) - w @ w.T) @ r.T, shrinkage)
                 for r, w in zip(roots, parts)]
        return cls(offsets, tuple(r @ w for r, w in zip(roots, parts)), tuple(noise), shrinkage)

    def improved(self, blocks: Blocks, *, n_iterations: int = 500, tolerance: float = 1e-4
                 ) -> Self:
        """EM from here until an iteration gains less than ``tolerance`` nats per subject."""
        model, history, layout = self, list(self.history), groups(blocks)
        for _ in range(n_iterations):
            model, value = model._step(blocks, layout)
            history.append(value)
            if len(history) > 1 and abs(history[-1] - history[-2]) < tolerance:
                break
        else:
            warnings.warn(f"EM stopped after {n_iterations} iterations, the last of which gained "
                          f"{np.diff(history)[-1:]} nats per subject", stacklevel=2)
        return replace(model, history=tuple(history))

    def _step(self, blocks: Blocks, layout: Sequence[Group]) -> tuple[Self, float]:
        """One iteration, and the mean log-likelihood before it."""
        sums = [_Sums(len(c), self.n_latent) for c in self.offsets]
        second, total = np.zeros((self.n_latent, self.n_latent)), 0.0
        for solved in self.solve(blocks, layout):
            total += float(solved.log_likelihood().sum())
            second += solved.mean.T @ solved.mean + len(solved.rows) * solved.covariance
            for part in solved.parts:
                if len(part.cells):
                    sums[part.block].add(solved, part, self)
        # z's own covariance is freed and then given to the loadings, which saves most iterations.
        expand = np.linalg.cholesky(second / len(blocks[0]))
        fitted = [s.maximise() for s in sums]
        return replace(
            self, offsets=tuple(c + f[0] for c, f in zip(self.offsets, fitted)),
            loadings=tuple(f[1] @ expand for f in fitted),
            noise=tuple(shrunk(f[2], self.shrinkage) for f in fitted)), total / len(blocks[0])


class _Sums:
    """Expected second moments of (x_m - c_m) and (z, 1) over the subjects who have block m."""

    def __init__(self, n_features: int, n_latent: int) -> None:
        self.n = 0
        self.xx = np.zeros((n_features, n_features))
        self.xz = np.zeros((n_features, n_latent + 1))
        self.zz = np.zeros((n_latent + 1, n_latent + 1))

    def add(self, solved: Solved, part: Part, model: LinearModel) -> None:
        """A missing cell u is E[x_u | x_o, z] = W_u z + G (x_o - W_o z), G = Psi_uo Psi_oo^-1."""
        w, noise, o = model.loadings[part.block], model.noise[part.block], part.cells
        u = np.setdiff1d(np.arange(len(w)), o)
        gain = noise[np.ix_(u, o)] @ part.inverse
        slope = np.zeros_like(w)  # of x on z once the measured cells are known: 0 for those
        slope[u] = w[u] - gain @ w[o]
        x = solved.mean @ slope.T
        x[:, o] = part.residual
        x[:, u] += part.residual @ gain.T
        n, z = len(x), np.column_stack([solved.mean, np.ones(len(x))])
        spread = slope @ solved.covariance
        self.n += n
        self.xx += x.T @ x + n * spread @ slope.T
        self.xx[np.ix_(u, u)] += n * (noise[np.ix_(u, u)] - gain @ noise[np.ix_(o, u)])
        self.xz += x.T @ z
        self.xz[:, :-1] += n * spread
        self.zz += z.T @ z
        self.zz[:-1, :-1] += n * solved.covariance

    def maximise(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Change of the offsets, loadings, and noise covariance before shrinkage."""
        slopes = np.linalg.solve(self.zz, self.xz.T).T
        noise = (self.xx - slopes @ self.xz.T) / self.n
        return slopes[:, -1], slopes[:, :-1], (noise + noise.T) / 2


def shrunk(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """(1 - s) A + s diag(A): variances kept, correlations times 1 - s."""
    return (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))


def choose_shrinkage(training: Blocks, held_out: Blocks, n_latent: int,
                     shrinkages: tuple[float, ...] = SHRINKAGES) -> float:
    """The shrinkage with the best held-out likelihood after at most 60 iterations."""
    def score(shrinkage: float) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # 60 iterations rank them well enough
            model = ProbabilisticCCA.fit_at(training, n_latent, shrinkage=shrinkage,
                                            n_iterations=60)
        return float(model.log_likelihood(held_out).mean())

    return max(shrinkages, key=score)


def _positive(matrix: np.ndarray) -> np.ndarray:
    """The nearest symmetric matrix whose eigenvalues are at least 0.01."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.clip(values, 0.01, None)) @ vectors.T

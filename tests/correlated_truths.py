"""Linear truths whose noise correlates inside a modality, by dense Gaussian algebra, for tests."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from normfuse.fusion import WassersteinBarycenter
from normfuse.models import Batch, MultimodalVAE, OneLatent
from normfuse.testing.linear_gaussian import LinearGaussian

WIDTHS = (4, 5, 6)


@dataclass(frozen=True, eq=False)
class CorrelatedTruth:
    """A linear truth of which only loadings, offsets and sds are used, and correlations."""

    base: LinearGaussian
    correlations: tuple[Tensor, ...]

    @classmethod
    def random(cls, widths=WIDTHS, n_latent=2, seed=0, strength=1.0) -> CorrelatedTruth:
        """``strength`` is the variance of two private factors beside a noise of 1; 0: diagonal."""
        g = torch.Generator().manual_seed(seed)
        found = []
        for width in widths:
            own = torch.randn(width, 2, generator=g, dtype=torch.float64)
            covariance = strength * own @ own.T + torch.eye(width).double()
            sd = covariance.diagonal().sqrt()
            found.append(covariance / (sd[:, None] * sd))
        return cls(LinearGaussian.random(widths, n_latent, seed), tuple(found))

    @property
    def noise(self) -> list[Tensor]:
        return [s[:, None] * r * s for s, r in zip(self.base.sds, self.correlations)]

    @property
    def loadings(self) -> Tensor:
        return torch.cat(self.base.loadings)

    @property
    def offset(self) -> Tensor:
        return torch.cat(self.base.offsets)

    @property
    def covariance(self) -> Tensor:
        """Of all features side by side."""
        return self.loadings @ self.loadings.T + torch.block_diag(*self.noise)

    def people(self, n: int, seed: int = 0, holes: float = 0.0, absent: float = 0.0) -> Batch:
        """Draws; cells and modalities are missing at random, but never all of a modality's cells
        without it, nor all modalities."""
        g = torch.Generator().manual_seed(seed + 1000)
        normal = MultivariateNormal(self.offset, self.covariance)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            x = normal.sample((n,)).split([len(s) for s in self.base.sds], -1)
        present = torch.rand(len(x), n, generator=g) >= absent
        present[0] |= ~present.any(0)
        cells = [(torch.rand(b.shape, generator=g) >= holes) for b in x]
        for c, there in zip(cells, present):
            c[:, 0] |= ~c.any(1)
            c &= there[:, None]
        kept = tuple(torch.where(c, b, 0.0) for b, c in zip(x, cells))
        whole = tuple(None if c.all() else c for c in cells)
        return Batch(kept, whole, present, torch.randn(n, 1, generator=g, dtype=torch.float64))

    def model(self, fusion=WassersteinBarycenter()) -> MultimodalVAE:
        """The truth's decoders and noise, and a covariate without effect; encoders as they come.
        """
        torch.manual_seed(4)
        names = {f"m{k + 1}": len(s) for k, s in enumerate(self.base.sds)}
        recipe = OneLatent(n_latent=self.base.n_latent, hidden=(), hide=0, hide_cells=0, dropout=0)
        vae = recipe.build(names, 1, fusion).double().eval().requires_grad_(False)
        for m, decoder in enumerate(vae.decoders):
            offset = self.base.offsets[m][:, None]
            decoder.set_affine(torch.cat([self.base.loadings[m], 0 * offset, offset], 1))
            vae.noise[m].set(self.base.sds[m].clone(), self.correlations[m])
        return vae

    def log_prob(self, batch: Batch) -> Tensor:
        """Of each person's measured cells."""
        found = torch.zeros(len(batch)).double()
        for i, x, o in each(batch):
            found[i] = MultivariateNormal(self.offset[o], self.covariance[o][:, o]).log_prob(x[o])
        return found

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """E[z | x_o] and Cov[z | x_o] from the joint covariance of x_o and z."""
        means, covariances = [], []
        for _, x, o in each(batch):
            gain = torch.linalg.solve(self.covariance[o][:, o], self.loadings[o]).T
            means.append(gain @ (x - self.offset)[o])
            covariances.append(torch.eye(self.base.n_latent).double() - gain @ self.loadings[o])
        return torch.stack(means), torch.stack(covariances)

    def others(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and variance of each measured cell given all others of the person; else NaN."""
        mean = torch.full((len(batch), len(self.offset)), torch.nan).double()
        variance = mean.clone()
        for i, x, o in each(batch):
            for j in o.tolist():
                rest = o[o != j]
                gain = torch.linalg.solve(self.covariance[rest][:, rest], self.covariance[rest, j])
                mean[i, j] = self.offset[j] + gain @ (x - self.offset)[rest]
                variance[i, j] = self.covariance[j, j] - gain @ self.covariance[rest, j]
        return mean, variance


def mask(batch: Batch) -> Tensor:
    """Which cells of all features side by side were measured."""
    return torch.cat([torch.ones_like(x, dtype=torch.bool) if m is None else m
                      for x, m in zip(batch.x, batch.measured)], 1)


def each(batch: Batch) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Number, features and positions of measured features of each person."""
    for i, (x, known) in enumerate(zip(torch.cat(batch.x, 1), mask(batch))):
        yield i, x, torch.nonzero(known).ravel()

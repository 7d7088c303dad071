"""What a maximisation step needs to know of people: sums of expected second moments."""
from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .models import Batch, Noise
from .models.noise import NOISE_FLOOR
from .networks import BentDecoder, MlpDecoder


class Sums(ABC):
    """Of one modality, at the present parameters of its decoder and noise.

    The decoder is mu(z, c) = W y + f(z, c), y = [z, c, 1]; f stays as it is, unless it is to be
    left out (``straighten``). F is the number of inputs y, p that of features.

    Parameters
    ----------
    m : int
        The modality's position in a batch.
    """

    def __init__(self, m: int, decoder: MlpDecoder, noise: Noise, straighten: bool) -> None:
        self.m, self.decoder, self.noise = m, decoder, noise
        self.straighten = straighten
        self.affine = decoder.affine()

    gram: Tensor

    @abstractmethod
    def add(self, part: Batch, z: Tensor, weights: Tensor) -> None:
        """Some people, by the points (n_points, n_subjects, n_latent) of their posteriors."""

    @abstractmethod
    def solve(self, ridge: Tensor) -> None:
        """Set W and the noise; ``ridge`` (F,) is added to the diagonal of the sum of y y'."""

    def inputs(self, z: Tensor, design: Tensor) -> Tensor:
        """y, shape (n_points, n_subjects, F)."""
        y = self.decoder.inputs(z, design)
        return torch.cat([y, torch.ones_like(y[..., :1])], -1)[..., -self.affine.shape[1]:]

    def bent(self, z: Tensor, design: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """f, shape (n_points, n_subjects, p) or, at the mean of the points, (n_subjects, p); or 0.
        """
        if self.straighten or self.decoder.is_straight:
            return z.new_zeros(())
        if isinstance(self.decoder, BentDecoder):
            # thousands of voxels leave little doubt about z, and every point costs an image
            return self.decoder.bend((weights[..., None] * z).sum(0), design)
        return self.decoder(z, design) - y @ self.affine.mT


class FeatureSums(Sums):
    """For features that are independent given z: each is learned from those it was measured in.

    w <- (sum_i E[y y'] + ridge)^-1 sum_i E[y (x_j - f_j)],   s_j^2 <- mean_i E[(x_j - mu_j)^2]
    """

    def __init__(self, m: int, decoder: MlpDecoder, noise: Noise, straighten: bool) -> None:
        super().__init__(m, decoder, noise, straighten)
        p, f = self.affine.shape
        zeros = self.affine.new_zeros
        self.gram, self.cross = zeros(1, f, f), zeros(p, f)
        self.squares, self.count = zeros(p), zeros(1)

    def add(self, part: Batch, z: Tensor, weights: Tensor) -> None:
        rows = part.whole(self.m)
        if rows is not None:
            part, z, weights = part.take(rows), z[:, rows], weights[:, rows]
        y = self.inputs(z, part.design)
        left = part.x[self.m] - self.bent(z, part.design, y, weights)
        measured = part.measured[self.m] if rows is None else None
        seen = left.new_ones(len(part), 1)  # one sum serves all features if all were measured
        if measured is not None:
            left, seen = torch.where(measured, left, 0.0), measured.to(left.dtype)
        gram = torch.einsum("sn,snf,sng->nfg", weights, y, y)
        self.gram = self.gram + torch.einsum("np,nfg->pfg", seen, gram)
        self.cross += _cross(weights, left, y)
        self.squares += _rows(weights, left).square().sum(0)
        self.count = self.count + seen.sum(0)

    def solve(self, ridge: Tensor) -> None:
        w = torch.linalg.solve(self.gram + torch.diag(ridge), self.cross[..., None])[..., 0]
        explained = 2 * (w * self.cross).sum(-1) - torch.einsum(
            "pf,pfg,pg->p", w, self.gram.expand(len(w), -1, -1), w)
        self.decoder.set_affine(w)
        variance = (self.squares - explained) / self.count.clamp_min(1)
        self.noise.set(variance.clamp_min(NOISE_FLOOR ** 2).sqrt())


class JointSums(Sums):
    """For features that correlate given z: a missing cell u enters by what the others say of it.

    W <- sum_i E[(x - f) y'] (sum_i E[y y'] + ridge)^-1,   S <- mean_i E[(x - mu) (x - mu)'],

    over people who have the modality, E also over x_u given z and the measured cells. The ridge
    is the prior W ~ MN(0, Psi, ridge^-1), under which Psi cancels from the step for W: so many
    more people without an effect, whose noise correlates as everybody's. S then gives the sds and,
    shrunk, the correlations.

    Parameters
    ----------
    shrinkage : float
        a of R = (1 - a) C + a I, C the correlation matrix of S.
    """

    def __init__(self, m: int, decoder: MlpDecoder, noise: Noise, straighten: bool,
                 shrinkage: float) -> None:
        super().__init__(m, decoder, noise, straighten)
        p, f = self.affine.shape
        zeros = self.affine.new_zeros
        self.gram, self.cross, self.second = zeros(f, f), zeros(p, f), zeros(p, p)
        self.count, self.shrinkage = 0, shrinkage

    def add(self, part: Batch, z: Tensor, weights: Tensor) -> None:
        rows = torch.nonzero(part.present[self.m]).ravel()
        part, z, weights = part.take(rows), z[:, rows], weights[:, rows]
        y = self.inputs(z, part.design)
        x, measured = part.x[self.m], part.measured[self.m]
        if measured is not None:
            among, mean = self.noise.among(measured), self.decoder(z, part.design)
            x = mean + among.fill(x - mean)
            self.second += among.left_open()
        left = x - self.bent(z, part.design, y, weights)
        self.gram += _cross(weights, y, y)
        self.cross += _cross(weights, left, y)
        even = _rows(weights, left)
        self.second += even.mT @ even
        self.count += len(part)

    def covariance(self, w: Tensor) -> Tensor:
        """S at these W, shape (p, p)."""
        shared = w @ self.cross.mT
        found = (self.second - shared - shared.mT + w @ self.gram @ w.mT) / max(1, self.count)
        return (found + found.mT) / 2

    def solve(self, ridge: Tensor) -> None:
        w = torch.linalg.solve(self.gram + torch.diag(ridge), self.cross.mT).mT
        self.decoder.set_affine(w)
        self.noise.set_shrunk(self.covariance(w), self.shrinkage)


def _rows(weights: Tensor, block: Tensor) -> Tensor:
    """Rows whose sum of outer products is the expected one: (n_subjects or n_points * n_subjects,
    width) of a block that may be the same at all points, (n_subjects, width)."""
    return block if block.dim() == 2 else (weights.sqrt()[..., None] * block).flatten(0, 1)


def _cross(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """sum_i E[left right'], shape (left's width, right's width)."""
    if left.dim() == 2:
        return left.mT @ torch.einsum("sn,snf->nf", weights, right)
    return _rows(weights, left).mT @ _rows(weights, right)

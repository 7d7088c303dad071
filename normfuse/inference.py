"""Where a subject lies in latent space: the fused posterior as it is, or refined by the decoders.

Encoders are trained for all subjects and all subsets of modalities at once, and a diagonal fused
posterior cannot hold the correlations of the true one. Both cost accuracy that the decoders have.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from .fusion import Choice
from .models import Batch, Vae


class Inference(Choice, ABC):
    """How a posterior is found at scoring time; training always uses the fused posterior."""

    def quick(self) -> Inference:
        """A cheaper form of the same, for use inside an iteration."""
        return self

    @abstractmethod
    def posterior(self, vae: Vae, batch: Batch) -> Distribution:
        """q(e | x_S, c) in standard coordinates, batch shape (n_subjects,), event (n_dim,)."""


@dataclass(frozen=True, repr=False)
class Amortised(Inference):
    """The aggregator's posterior itself."""

    def posterior(self, vae: Vae, batch: Batch) -> Distribution:
        return vae.posterior(batch)


@dataclass(frozen=True, repr=False)
class Refined(Inference):
    """From the fused mean, a few Gauss-Newton steps to the most probable z; Laplace covariance.

    minimise  1/2 |z|^2 + 1/2 sum_j (x_j - mu_j(z))^2 / s_j^2  over the measured cells j;
    q(z) = N(z*, (I + J' diag(s^-2) J)^-1),  J = d mu / d z,

    z in standard coordinates, where the prior is N(0, I) at all levels.

    With linear decoders one step gives the exact posterior of a factor-analysis model, whatever
    the fusion; with others the fused posterior says in which basin to look.

    Parameters
    ----------
    steps : int

    References
    ----------
    Kim et al. (2018), ICML, arXiv 1802.02550 (semi-amortised inference); Tierney and Kadane
    (1986), doi 10.1080/01621459.1986.10478240 (Laplace).
    """

    steps: int = 6

    def quick(self) -> Refined:
        return Refined(min(self.steps, 2))

    def posterior(self, vae: Vae, batch: Batch) -> Distribution:
        z = vae.posterior(batch).mean
        for _ in range(self.steps):
            gradient, precision = _newton_terms(vae, batch, z)
            step = torch.linalg.solve(precision, gradient)
            z = _damped(vae, batch, z, step)
        return MultivariateNormal(z, precision_matrix=_newton_terms(vae, batch, z)[1],
                                  validate_args=False)


_ROUNDING = 1e-12
_STEP = 1e-5


def _newton_terms(vae: Vae, batch: Batch, z: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the gradient (n, L) and the Gauss-Newton Hessian (n, L, L) of the energy."""
    n_latent = z.shape[-1]

    def slope(axis: Tensor) -> Any:
        return torch.func.jvp(lambda at: _residuals(vae, batch, at), (z,), (axis.expand_as(z),))

    # all directions at once, forward mode: there are far fewer latents than features
    axes = torch.eye(n_latent, dtype=z.dtype)
    if vae.forward_mode:
        residuals, slopes = torch.func.vmap(slope)(axes)
        residual, jacobian = residuals[0], slopes.movedim(0, -1)
    else:  # a level's prior is found by iteration: central differences, good to 1e-9
        residual = _residuals(vae, batch, z)
        jacobian = torch.stack([_residuals(vae, batch, z + _STEP * axis)
                                - _residuals(vae, batch, z - _STEP * axis)
                                for axis in axes], -1) / (2 * _STEP)
    gradient = -(jacobian * residual[..., None]).sum(1) - z
    return gradient, jacobian.mT @ jacobian + torch.eye(n_latent, dtype=z.dtype)


def _residuals(vae: Vae, batch: Batch, z: Tensor) -> Tensor:
    """(x - mu(z)) / s of every feature, 0 where nothing was measured."""
    parts = []
    for x, mean, sd, measured in zip(batch.x, vae.decode(z, batch.design), vae.noise_sd,
                                     batch.measured):
        u = (x - mean) / sd
        parts.append(u if measured is None else torch.where(measured, u, torch.zeros_like(u)))
    return torch.cat(parts, -1)


def _damped(vae: Vae, batch: Batch, z: Tensor, step: Tensor) -> Tensor:
    """The longest of 1, 1/2, 1/4, 1/8 of each subject's step that raises no energy, or none."""
    # near the optimum a good step changes the energy by rounding only; taking it all the same
    # makes the end point independent of the batch
    best, chosen = _energy(vae, batch, z) * (1 + _ROUNDING), z
    undecided = torch.ones(len(z), dtype=torch.bool)
    for length in (1.0, 0.5, 0.25, 0.125):
        tried = z + length * step
        lower = undecided & (_energy(vae, batch, tried) <= best)
        chosen = torch.where(lower[:, None], tried, chosen)
        undecided = undecided & ~lower
        if not undecided.any():
            break
    return chosen


def _energy(vae: Vae, batch: Batch, z: Tensor) -> Tensor:
    return 0.5 * (_residuals(vae, batch, z).square().sum(-1) + z.square().sum(-1))

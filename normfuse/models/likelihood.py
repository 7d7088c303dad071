"""How features scatter around what the decoder expects."""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro.distributions import TorchDistribution

from .noise import Noise


class MeasuredNormal(TorchDistribution):
    """x ~ N(mean, Psi), of which each person's measured cells o are looked at.

    log p(x_o) = -(x_o - mean_o)' Psi_oo^-1 (x_o - mean_o) / 2 - log |2 pi Psi_oo| / 2

    Cells that were not measured have no term. The squared residuals of the last ``log_prob`` are
    kept (``squares``), since the noise sd's closed-form update needs just them; gradients go to
    ``mean`` only.

    Parameters
    ----------
    mean : Tensor, shape (n_subjects, n_features)
    noise : Noise
        Psi. Constant: it takes no gradient.
    measured : bool Tensor, shape (n_subjects, n_features), or None if all were

    Examples
    --------
    >>> noise = Noise(2)
    >>> noise.set(torch.tensor([1.0, 2.0]))
    >>> p = MeasuredNormal(torch.zeros(1, 2), noise, None)
    >>> literal = torch.distributions.Normal(0, torch.tensor([1.0, 2.0]))
    >>> x = torch.tensor([[0.5, -1.0]])
    >>> torch.allclose(p.log_prob(x), literal.log_prob(x).sum(-1))
    True
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(self, mean: Tensor, noise: Noise, measured: Tensor | None) -> None:
        self.loc, self.noise, self.measured = mean, noise, measured
        self.squares = mean.new_zeros(())
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...],
               _instance: Any = None) -> MeasuredNormal:
        """The same distribution if that is its batch shape (Pyro's plates ask)."""
        if torch.Size(batch_shape) == self.batch_shape:
            return self
        shape = torch.Size(batch_shape) + self.event_shape
        return MeasuredNormal(self.loc.expand(shape), self.noise, self.measured)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.noise.sd.square().expand_as(self.loc)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()
               ) -> Tensor:
        shape = torch.Size(sample_shape) + self.loc.shape
        return (self.loc + self.noise.sample(shape)).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        away = value - self.loc
        if self.measured is not None:
            away = torch.where(self.measured, away, 0.0)  # not away * 0: NaN may stand there
        squares = away.square()
        self.squares = squares.detach()
        seen = self.noise.among(self.measured)
        # `whiten` would give the same, by more operations in every step of training
        quadratic = seen.whiten(away).square().sum(-1) if self.noise.is_correlated \
            else squares @ self.noise.sd.square().reciprocal()
        count = len(self.noise.sd) if self.measured is None else self.measured.to(away).sum(-1)
        return -0.5 * (quadratic + seen.log_det + count * math.log(2 * math.pi))

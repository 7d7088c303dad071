"""How features scatter around what the decoder expects."""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro.distributions import TorchDistribution


class MeasuredNormal(TorchDistribution):
    """x_j ~ N(mean_j, sd_j^2) independently, over the features that were measured.

    log p(x) = sum over measured j of  -(x_j - mean_j)^2 / (2 sd_j^2) - log sd_j - log(2 pi) / 2

    Cells that were not measured have no term. The squared residuals of the last ``log_prob`` are
    kept (``squares``), since the noise sd's closed-form update needs just them; gradients go to
    ``mean`` only.

    Parameters
    ----------
    mean : Tensor, shape (n_subjects, n_features)
    sd : Tensor, shape (n_features,)
        Constant: it takes no gradient.
    measured : bool Tensor, shape (n_subjects, n_features), or None if all were

    Examples
    --------
    >>> p = MeasuredNormal(torch.zeros(1, 2), torch.tensor([1.0, 2.0]), None)
    >>> literal = torch.distributions.Normal(0, torch.tensor([1.0, 2.0]))
    >>> x = torch.tensor([[0.5, -1.0]])
    >>> torch.allclose(p.log_prob(x), literal.log_prob(x).sum(-1))
    True
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(self, mean: Tensor, sd: Tensor, measured: Tensor | None) -> None:
        self.loc, self.sd, self.measured = mean, sd, measured
        self.squares = mean.new_zeros(())
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...],
               _instance: Any = None) -> MeasuredNormal:
        """The same distribution if that is its batch shape (Pyro's plates ask)."""
        if torch.Size(batch_shape) == self.batch_shape:
            return self
        shape = torch.Size(batch_shape) + self.event_shape
        return MeasuredNormal(self.loc.expand(shape), self.sd, self.measured)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.sd.square().expand_as(self.loc)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()
               ) -> Tensor:
        shape = torch.Size(sample_shape) + self.loc.shape
        return (self.loc + self.sd * torch.randn(shape, dtype=self.loc.dtype)).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        away = value - self.loc
        constant = -self.sd.log() - 0.5 * math.log(2 * math.pi)
        if self.measured is None:
            normaliser = constant.sum()
        else:
            away = torch.where(self.measured, away, 0.0)  # not away * 0: NaN may stand there
            normaliser = self.measured.to(constant) @ constant
        squares = away.square()
        self.squares = squares.detach()
        return normaliser - squares @ (0.5 / self.sd.square())

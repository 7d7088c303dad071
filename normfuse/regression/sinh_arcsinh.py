"""The sinh-arcsinh law: location, scale, skewness and tail weight, in closed form throughout."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
FARTHEST = 300.0
"""cosh overflows float64 beyond 700, and cosh(2a) with it; a person this far out (u of
10^130) is a mistake, not an observation."""


class SinhArcsinh(TorchDistribution):
    """y = loc + scale sinh((arcsinh(u) + skew) / tail) with u ~ N(0, 1).

    The other way round, with e = (y - loc) / scale,

    u = sinh(tail arcsinh(e) - skew),
    log p(y) = log N(u; 0, 1) + log cosh(tail arcsinh(e) - skew) + log tail
               - log(1 + e^2) / 2 - log scale.

    skew = 0 and tail = 1 is the normal law; skew > 0 has a long right tail, tail < 1 heavy tails.

    Parameters
    ----------
    loc, log_scale, skew, log_tail : Tensor
        They broadcast; loc in the unit of y.

    References
    ----------
    Jones and Pewsey (2009), Biometrika 96(4), doi 10.1093/biomet/asp053.

    Examples
    --------
    >>> zero = torch.zeros(())
    >>> law = SinhArcsinh(zero + 2.0, zero, zero, zero)
    >>> normal = torch.distributions.Normal(2.0, 1.0)
    >>> bool(torch.isclose(law.log_prob(zero), normal.log_prob(zero)))
    True
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real,
                       "skew": constraints.real, "log_tail": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor, skew: Tensor, log_tail: Tensor,
                 validate_args: bool | None = None) -> None:
        self.loc, self.log_scale, self.skew, self.log_tail = torch.broadcast_tensors(
            loc, log_scale, skew, log_tail)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @classmethod
    def stacked(cls, parameters: Tensor) -> SinhArcsinh:
        """From loc, log scale, skew and log tail along the last axis; nothing is checked."""
        loc, log_scale, skew, log_tail = parameters.unbind(-1)
        return cls(loc, log_scale, skew, log_tail, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SinhArcsinh:
        """The same law over a larger batch."""
        loc, log_scale, skew, log_tail = (t.expand(batch_shape) for t in self.parameters)
        return SinhArcsinh(loc, log_scale, skew, log_tail, validate_args=False)

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """loc, log scale, skew and log tail."""
        return self.loc, self.log_scale, self.skew, self.log_tail

    def to_normal(self, value: Tensor) -> Tensor:
        """u of y."""
        return torch.sinh(self._angle(self._standard(value)))

    def from_normal(self, u: Tensor) -> Tensor:
        """y of u: with u = Phi^-1(q), the quantile of y."""
        bent = torch.sinh((torch.arcsinh(u) + self.skew) * torch.exp(-self.log_tail))
        return self.loc + self.log_scale.exp() * bent

    def log_slope(self, value: Tensor) -> Tensor:
        """log du/dy, which turns densities of u into densities of y."""
        e = self._standard(value)
        return (_log_cosh(self._angle(e)) + self.log_tail - 0.5 * torch.log1p(e * e)
                - self.log_scale)

    def log_prob(self, value: Tensor) -> Tensor:
        u = self.to_normal(value)
        return -0.5 * u * u - _LOG_ROOT_TWO_PI + self.log_slope(value)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self.from_normal(torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device))

    def _standard(self, value: Tensor) -> Tensor:
        return (value - self.loc) * torch.exp(-self.log_scale)

    def _angle(self, e: Tensor) -> Tensor:
        bent = self.log_tail.exp() * torch.arcsinh(e) - self.skew
        return bent.clamp(-FARTHEST, FARTHEST)


@dataclass(frozen=True, eq=False)
class SecondOrder:
    """log p(y) with its first and second derivatives by (loc, log scale, skew, log tail).

    Attributes
    ----------
    log_prob : Tensor, shape (n, p)
    gradient : tuple of 4 Tensor
    hessian : dict of Tensor
        Keys (a, b), 0 <= a <= b < 4.
    """

    log_prob: Tensor
    gradient: tuple[Tensor, Tensor, Tensor, Tensor]
    hessian: dict[tuple[int, int], Tensor]


def second_order(law: SinhArcsinh, value: Tensor) -> SecondOrder:
    """By hand: autograd needs ten passes for what a page of algebra gives in one.

    With a = tail arcsinh(e) - skew, f(a) = -sinh^2(a)/2 + log cosh a, h(e) = -log(1 + e^2)/2:
    log p = f(a(e)) + h(e) - log scale + log tail + constant.
    """
    per_scale, tail = torch.exp(-law.log_scale), law.log_tail.exp()
    e = law._standard(value)
    shrink = 1 / (1 + e * e)
    bent = tail * torch.arcsinh(e)
    a = (bent - law.skew).clamp(-FARTHEST, FARTHEST)
    tanh, double = torch.tanh(a), torch.cosh(2 * a)
    f1 = tanh - 0.5 * torch.sinh(2 * a)
    f2 = 1 - tanh * tanh - double
    slope = tail * shrink.sqrt()  # da/de
    by_e = f1 * slope - e * shrink
    by_ee = f2 * slope ** 2 - f1 * slope * e * shrink + (e * e - 1) * shrink ** 2
    by_e_tail = f2 * bent * slope + f1 * slope
    log_prob = (-(double - 1) / 4 + _log_cosh(a) + 0.5 * torch.log(shrink) - law.log_scale
                + law.log_tail - _LOG_ROOT_TWO_PI)
    hessian = {(0, 0): by_ee * per_scale ** 2, (0, 1): (by_ee * e + by_e) * per_scale,
               (0, 2): f2 * slope * per_scale, (0, 3): -by_e_tail * per_scale,
               (1, 1): e * by_e + e * e * by_ee, (1, 2): e * f2 * slope, (1, 3): -e * by_e_tail,
               (2, 2): f2, (2, 3): -f2 * bent, (3, 3): f2 * bent ** 2 + f1 * bent}
    gradient = (-by_e * per_scale, -e * by_e - 1, -f1, f1 * bent + 1)
    return SecondOrder(log_prob, gradient, hessian)


def _log_cosh(a: Tensor) -> Tensor:
    size = a.abs()
    return size + torch.log1p(torch.exp(-2 * size)) - math.log(2)

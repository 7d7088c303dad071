"""The forward Kullback-Leibler barycenter among Gaussians."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from .aggregator import Aggregator, diagonal_only
from .choice import of_type
from .experts import everyone, gaussian, is_full, moments
from .missing import Drop, Missing
from .weights import Uniform, Weights, weighted


class MomentMatchingBarycenter(Aggregator):
    """The one Gaussian nearest to the mixture of the experts: ``argmin_q sum_m w_m KL(q_m || q)``
    over Gaussians q.

    mu = sum_m w_m mu_m,  sigma^2 = sum_m w_m (sigma_m^2 + (mu_m - mu)^2)  over what is present.

    It has mean and variance of :class:`MixtureOfExperts`, and is as wide as the experts disagree:
    never sharper than the weighted mean of their variances.

    Parameters
    ----------
    weights : Weights
    missing : Missing

    References
    ----------
    Bishop (2006), Pattern Recognition and Machine Learning, section 10.7 (moment matching).

    Examples
    --------
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[0.5]]]))
    >>> q = MomentMatchingBarycenter()(experts, torch.tensor([[True], [True]]))
    >>> q.mean.item(), q.variance.item()
    (1.0, 1.625)
    """

    def __init__(self, *, weights: Weights = Uniform(), missing: Missing = Drop()) -> None:
        super().__init__()
        self.weights, self.missing = of_type(weights, Weights), of_type(missing, Missing)

    def forward(self, experts: Distribution, present: Tensor,
                priors: Distribution | None = None) -> Distribution:
        if is_full(experts):
            raise diagonal_only(self)
        experts, present = self.missing.fill(experts, present, priors)
        loc, scale, weight = weighted(experts, present, self.weights)
        total = weight.sum(0)
        nothing = total == 0
        mean = (weight * loc).sum(0) / torch.where(nothing, 1.0, total)
        # the deviations first, then their squares: E[x^2] - E[x]^2 would cancel
        within = (weight * (scale.square() + (loc - mean).square())).sum(0)
        variance = within / torch.where(nothing, 1.0, total)
        if bool(nothing.any()):
            mu, sd = (0.0, 1.0) if priors is None else moments(self.prior(priors))
            mean = torch.where(nothing, mu, mean)
            variance = torch.where(nothing, sd * sd, variance)
        return gaussian(mean, variance.sqrt(), len(experts.event_shape), check=False)

    def prior(self, priors: Distribution) -> Distribution:
        return self(priors, everyone(priors))

"""The one seam where modalities meet: ``aggregator(experts, present) -> Distribution``."""
from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .choice import Choice, of_type
from .experts import everyone, full, gaussian, is_full, moments, moved
from .missing import Drop, Missing
from .weights import Uniform, Weights, weighted


class Aggregator(Choice, nn.Module, ABC):
    """Fuses the modalities' posteriors of each subject into one.

    ``aggregator(experts, present)`` takes

    * ``experts`` : Independent Normal, batch shape (n_modalities, n_subjects), any event shape; or
      MultivariateNormal, event shape (n_latent,), where the class says so
    * ``present`` : bool Tensor, shape (n_modalities, n_subjects)
    * ``priors`` : each modality's own prior, like ``experts``; N(0, I) if not given

    and returns a distribution of batch shape (n_subjects,) and the same event shape. An absent
    slot may hold anything, NaN included: it changes neither the result nor any gradient. A subject
    with nothing present gets ``prior(priors)``. Subjects never mix.

    To add one, subclass and run :class:`normfuse.testing.AggregatorCase` over it.
    """

    spans_subsets = False
    """True if the posterior is itself a mixture over subsets of the modalities, so that training
    need not hide modalities at random to make every subset work."""

    missing: Missing = Drop()
    weights: Weights

    @property
    def closed_form(self) -> bool:
        """Whether :meth:`prior` of diagonal Gaussians needs no iteration."""
        return True

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    @abstractmethod
    def forward(self, experts: Distribution, present: Tensor,
                priors: Distribution | None = None) -> Distribution:
        """The fused posterior."""

    @abstractmethod
    def prior(self, priors: Distribution) -> Distribution:
        """The modalities' priors fused: the posterior of somebody nothing is known of."""

    def owned(self) -> Tensor | None:
        """Which latent dimensions a modality has to do with, shape (n_modalities, n_latent);
        None: every modality with every dimension."""
        return None

    def n_weights(self, n_modalities: int) -> int:
        """How many experts share the weights."""
        return n_modalities

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        """A copy with its parameters (if it has any) made for these numbers."""
        new = copy.deepcopy(self)
        for name, part in self.named_children():
            n = self.n_weights(n_modalities) if name == "weights" else n_modalities
            setattr(new, name, part.sized(n, n_latent))  # type: ignore[operator]
        return new

    def at_rest(self, priors: Distribution) -> Tensor:
        """Where experts that say nothing new lie, (n_modalities, n_subjects, *event)."""
        return self.missing.reference(priors, self.prior(priors))

    def contributions(self, experts: Distribution, present: Tensor,
                      priors: Distribution | None = None) -> Tensor:
        """Each modality's part in the shift of the posterior mean from the prior mean.

        The mean of every barycenter here is affine in the experts' means, so part m is the shift
        when all experts but m say nothing new; the parts add up to the whole shift exactly.

        Returns
        -------
        Tensor, shape (n_modalities, n_subjects, *event); 0 where a modality is absent
        """
        rest = torch.zeros_like(experts.mean) if priors is None else self.at_rest(priors)
        nothing_new = self(moved(experts, rest), present, priors).mean
        parts = []
        for m in range(len(present)):
            only = rest.clone()
            only[m] = experts.mean[m]
            shift = self(moved(experts, only), present, priors).mean - nothing_new
            there = present[m].reshape(-1, *(1 for _ in shift.shape[1:]))
            parts.append(torch.where(there, shift, torch.zeros_like(shift)))
        return torch.stack(parts)


class CoordinateBarycenter(Aggregator, ABC):
    """A barycenter that is a weighted mean in coordinates of its own.

    Each divergence D has coordinates (a, b) of a Gaussian in which
    ``argmin_q sum_m w_m D(q, q_m)`` is a mean: natural parameters for KL(q || q_m), mean and
    standard deviation for the 2-Wasserstein distance. So every subset of modalities is one row of
    a 0/1 matrix times the same table of coordinates.

    Attributes
    ----------
    normalised : bool
        The weights are scaled to sum to 1 (a barycenter), or all are 1 (a product).
    prior_expert : bool
        The prior is one more expert. If not, it speaks only where nothing is present.
    """

    normalised = True
    prior_expert = False

    def __init__(self, weights: Weights = Uniform(), missing: Missing = Drop()) -> None:
        super().__init__()
        self.weights, self.missing = of_type(weights, Weights), of_type(missing, Missing)

    def forward(self, experts: Distribution, present: Tensor,
                priors: Distribution | None = None) -> Distribution:
        experts, present = self.missing.fill(experts, present, priors)
        prior = None if priors is None else self.prior(priors)
        if is_full(experts):
            return full(*self.full(experts, present, prior), check=False)
        first, second, weight = self.terms(experts, present)
        loc, scale = self.from_sums(first.sum(0), second.sum(0), weight.sum(0), prior)
        if prior is not None:  # exactly the prior, not up to the rounding of its coordinates
            somebody = present.any(0).reshape(-1, *(1 for _ in loc.shape[1:]))
            loc, scale = (torch.where(somebody, q, p)
                          for q, p in zip((loc, scale), moments(prior)))
        return gaussian(loc, scale, len(experts.event_shape), check=False)

    def prior(self, priors: Distribution) -> Distribution:
        there = everyone(priors)
        if is_full(priors):
            return full(*self.full(priors, there, None), check=False)
        first, second, weight = (term.sum(0) for term in self.terms(priors, there))
        return gaussian(*self.at(first / weight, second / weight), len(priors.event_shape),
                        check=False)

    def terms(self, experts: Distribution, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted coordinates a and b and the weight of each expert and subject.

        The first two have shape (n_modalities, n_subjects, *event); the weight broadcasts with
        them and is 0 where a modality is absent.
        """
        loc, scale, weight = weighted(experts, present, self.weights)
        first, second = self.coordinates(loc, scale)
        return weight * first, weight * second, weight

    def from_sums(self, first: Tensor, second: Tensor, weight: Tensor,
                  prior: Distribution | None) -> tuple[Tensor, Tensor]:
        """Loc and scale from summed coordinates and weights; ``prior`` None is N(0, 1)."""
        origin, unit = (first.new_zeros(()), first.new_ones(())) if prior is None \
            else moments(prior)
        a, b = self.coordinates(origin, unit)
        times = 1.0 if self.prior_expert else (weight == 0).to(second.dtype)
        first, second = first + times * a, second + times * b
        if self.normalised:
            total = weight + times
            first, second = first / total, second / total
        return self.at(first, second)

    @abstractmethod
    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The two coordinates of Gaussians."""

    @abstractmethod
    def at(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Loc and scale of the Gaussians with these coordinates."""

    def full(self, experts: Distribution, present: Tensor, prior: Distribution | None
             ) -> tuple[Tensor, Tensor]:
        """Loc and Cholesky factor for experts with full covariances."""
        raise diagonal_only(self)


def diagonal_only(aggregator: Aggregator) -> TypeError:
    """What to say to full covariances."""
    return TypeError(f"{type(aggregator).__name__} fuses diagonal Gaussians only; "
                     "WassersteinBarycenter, GeneralizedWassersteinBarycenter, "
                     "ProductOfExperts and mixtures of them take full covariances")

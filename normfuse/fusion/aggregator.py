"""The one seam where modalities meet: ``aggregator(experts, present) -> Distribution``."""
from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor, nn
from torch.distributions import Distribution

from .experts import gaussian, slots


class Aggregator(nn.Module, ABC):
    """Fuses the modalities' posteriors of each subject into one.

    ``aggregator(experts, present)`` takes

    * ``experts`` : Independent Normal, batch shape (n_modalities, n_subjects), any event shape
    * ``present`` : bool Tensor, shape (n_modalities, n_subjects)

    and returns a distribution of batch shape (n_subjects,) and the same event shape. An absent
    slot may hold anything, NaN included: it changes neither the result nor any gradient. A subject
    with nothing present gets the prior N(0, I). Subjects never mix.

    To add one, subclass and run :class:`normfuse.testing.AggregatorCase` over it.
    """

    spans_subsets = False
    """True if the posterior is itself a mixture over subsets of the modalities, so that training
    need not hide modalities at random to make every subset work."""

    @abstractmethod
    def forward(self, experts: Distribution, present: Tensor) -> Distribution:
        """The fused posterior."""

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        """A copy with its parameters (if it has any) made for these numbers."""
        return copy.deepcopy(self)

    def options(self) -> dict[str, Any]:
        """Constructor arguments, JSON-ready or aggregators; what ``save`` writes."""
        return {}

    def __repr__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.options().items())
        return f"{type(self).__name__}({inner})"


class CoordinateBarycenter(Aggregator, ABC):
    """A barycenter that is a weighted mean in coordinates of its own.

    Each divergence D has coordinates (a, b) of a Gaussian in which
    ``argmin_q sum_m w_m D(q, q_m)`` is a sum: natural parameters for KL(q || q_m), mean and
    standard deviation for the 2-Wasserstein distance. So every subset of modalities is one row of
    a 0/1 matrix times the same table of coordinates.
    """

    def forward(self, experts: Distribution, present: Tensor) -> Distribution:
        sums = (term.sum(0) for term in self.terms(experts, present))
        return gaussian(*self.from_sums(*sums), len(experts.event_shape))

    def terms(self, experts: Distribution, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted coordinates a and b and the weight of each expert and subject.

        The first two have shape (n_modalities, n_subjects, *event); the weight broadcasts with
        them and is 0 where a modality is absent.
        """
        loc, scale, keep = slots(experts, present)
        weight = keep * self.weights(loc).to(loc.dtype)
        first, second = self.coordinates(loc, scale)
        return weight * first, weight * second, weight

    def weights(self, loc: Tensor) -> Tensor:
        """Weights that broadcast with (n_modalities, n_subjects, *event); 1 unless learned."""
        return loc.new_ones(())

    @abstractmethod
    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The two coordinates of each expert."""

    @abstractmethod
    def from_sums(self, first: Tensor, second: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Loc and scale from the summed coordinates and weights."""

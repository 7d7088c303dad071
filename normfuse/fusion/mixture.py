"""Mixtures: the forward Kullback-Leibler barycenter, and mixtures over subsets of modalities."""
from __future__ import annotations

from itertools import product
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from pyro.distributions import TorchDistribution

from .aggregator import Aggregator, CoordinateBarycenter
from .experts import gaussian, slots


class SubsetPosterior(TorchDistribution):
    """A mixture of Gaussians whose weights are each subject's own.

    Parameters
    ----------
    components : Independent Normal, batch shape (n_components, n_subjects)
    weights : Tensor, shape (n_components, n_subjects)
        Columns sum to 1; a component with weight 0 does not exist for that subject.

    Sampling picks one component per subject at random (never by the subject's row) and is
    differentiable in the chosen component's loc and scale; the weights are constants.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.real, 1)
    has_rsample = True

    def __init__(self, components: Independent, weights: Tensor) -> None:
        self.components, self.weights = components, weights
        super().__init__(components.batch_shape[1:], components.event_shape, validate_args=False)

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...],
               _instance: Any = None) -> SubsetPosterior:
        """The same distribution; only its own batch shape is possible (Pyro's plates ask)."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"batch shape {tuple(batch_shape)} is not {tuple(self.batch_shape)}")
        return self

    def _spread(self, per_component: Tensor) -> Tensor:
        return per_component.reshape(per_component.shape + (1,) * len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return (self._spread(self.weights) * self.components.mean).sum(0)

    @property
    def variance(self) -> Tensor:
        second = self.components.variance + self.components.mean ** 2
        return (self._spread(self.weights) * second).sum(0) - self.mean ** 2

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()
                ) -> Tensor:
        size = torch.Size(sample_shape)
        draws = max(1, size.numel())
        chosen = torch.multinomial(self.weights.T, draws, replacement=True)  # (subjects, draws)
        columns = torch.arange(chosen.shape[0])[:, None]
        base = self.components.base_dist
        loc, scale = base.loc[chosen, columns], base.scale[chosen, columns]
        values = (loc + scale * torch.randn_like(loc)).transpose(0, 1)
        return values.reshape(size + self.batch_shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Exact log density of the mixture."""
        axis = -1 - len(self.batch_shape + self.event_shape)
        each = self.components.log_prob(value.unsqueeze(axis))
        return torch.logsumexp(each + self.weights.log(), dim=-1 - len(self.batch_shape))


class MixtureOfExperts(Aggregator):
    """The forward-KL barycenter: ``argmin_q sum_m w_m KL(q_m || q) = sum_m w_m q_m``.

    Uniform weights over the present modalities. Covers every expert's mass, so it is never sharper
    than the sharpest expert.

    References
    ----------
    Shi et al. (2019), NeurIPS, arXiv 1911.03393.

    Examples
    --------
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[0.5]]]))
    >>> q = MixtureOfExperts()(experts, torch.tensor([[True], [True]]))
    >>> q.mean.item(), q.variance.item()     # mean of second moments less squared mean
    (1.0, 1.625)
    """

    spans_subsets = True

    def forward(self, experts: Distribution, present: Tensor) -> Distribution:
        loc, scale, keep = slots(experts, present)
        nobody = ~present.any(0)
        weights = present.to(loc.dtype)
        weights = torch.where(nobody, torch.ones_like(weights), weights)
        # an absent slot is already N(0, 1) here: with nothing present every component is the prior
        return SubsetPosterior(gaussian(loc, scale, len(experts.event_shape)),
                               weights / weights.sum(0))


class SubsetMixture(Aggregator):
    """A uniform mixture of an inner barycenter over every non-empty subset of what is present.

    q = 1 / (2^|S| - 1) sum_{A subset of S, A not empty} inner(A). With a product of experts inside
    this is MoPoE, with a Wasserstein barycenter MWB; singletons alone would be
    :class:`MixtureOfExperts`. It stays a mixture: averaging subset barycenters by the Wasserstein
    rule would give back the plain barycenter.

    Parameters
    ----------
    inner : CoordinateBarycenter

    References
    ----------
    Sutter et al. (2021), ICLR, arXiv 2105.02470; Qiu et al. (2025), AAAI, arXiv 2412.20487. Unlike
    released code, no subject's subset depends on its row in the batch.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> experts = gaussian(torch.randn(3, 4, 2), torch.rand(3, 4, 2))
    >>> q = SubsetMixture(WassersteinBarycenter())(experts, torch.ones(3, 4, dtype=torch.bool))
    >>> q.components.batch_shape
    torch.Size([7, 4])
    """

    spans_subsets = True

    def __init__(self, inner: CoordinateBarycenter) -> None:
        super().__init__()
        if not isinstance(inner, CoordinateBarycenter):
            raise TypeError("SubsetMixture needs a barycenter with one Gaussian per subset, such "
                            f"as ProductOfExperts(); got {inner!r}")
        self.inner = inner

    def options(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        return type(self)(self.inner.sized(n_modalities, n_latent))

    def forward(self, experts: Distribution, present: Tensor) -> Distribution:
        terms = self.inner.terms(experts, present)
        subsets = subset_table(len(present)).to(terms[0])
        # every subset of every subject at once: a 0/1 matrix times the table of coordinates
        sums = (torch.tensordot(subsets, term, 1) for term in terms)
        components = gaussian(*self.inner.from_sums(*sums), len(experts.event_shape))
        absent = (~present).to(subsets)
        legal = (subsets @ absent == 0).to(subsets)  # a subset that asks for an absent one is none
        legal = torch.where(present.any(0), legal, torch.ones_like(legal))
        return SubsetPosterior(components, legal / legal.sum(0))


def subset_table(n_modalities: int) -> Tensor:
    """Every non-empty subset as a 0/1 row, shape (2^M - 1, M)."""
    return torch.tensor(list(product([0.0, 1.0], repeat=n_modalities))[1:])

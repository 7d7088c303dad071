"""Mixtures: the forward Kullback-Leibler barycenter, and mixtures over subsets of modalities."""
from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyro.distributions import TorchDistribution

from .aggregator import Aggregator, CoordinateBarycenter
from .choice import of_type
from .experts import gaussian, is_full, moments, rebuilt
from .missing import Drop
from .wasserstein import WassersteinBarycenter
from .weights import Uniform, Weights


class SubsetPosterior(TorchDistribution):
    """A mixture of Gaussians whose weights are each subject's own.

    Parameters
    ----------
    components : Independent Normal or MultivariateNormal, batch shape (n_components, n_subjects)
    weights : Tensor, shape (n_components, n_subjects)
        Columns sum to 1; a component with weight 0 does not exist for that subject.

    Sampling picks one component per subject at random (never by the subject's row) and is
    differentiable in the chosen component's loc and scale, not in the weights: learned weights
    need an objective that visits every component.

    Examples
    --------
    >>> components = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.ones(2, 1, 1))
    >>> q = SubsetPosterior(components, torch.tensor([[0.25], [0.75]]))
    >>> q.mean.item(), q.variance.item()
    (1.5, 1.75)
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.real, 1)
    has_rsample = True

    def __init__(self, components: Distribution, weights: Tensor) -> None:
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
        away = self.components.mean - self.mean
        return (self._spread(self.weights) * (self.components.variance + away ** 2)).sum(0)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size()
                ) -> Tensor:
        size = torch.Size(sample_shape)
        draws = max(1, size.numel())
        chosen = torch.multinomial(self.weights.detach().T, draws, replacement=True)
        # chosen is (subjects, draws)
        columns = torch.arange(chosen.shape[0], device=chosen.device)[:, None]
        loc, scale = (t[chosen, columns] for t in moments(self.components))
        values = rebuilt(self.components, loc, scale).rsample().transpose(0, 1)
        return values.reshape(size + self.batch_shape + self.event_shape)

    def rsample_stratified(self, draws: int) -> tuple[Tensor, Tensor]:
        """The same number of draws from every component, and their weights.

        Less noisy than drawing components at random, and differentiable in the weights too:
        sum over all of weight * f(value) estimates E_q[f] without bias.

        Returns
        -------
        values : Tensor, shape (n_components * draws, n_subjects, *event)
        weights : Tensor, shape (n_components * draws, n_subjects); each column sums to 1
        """
        values = self.components.rsample((draws,)).transpose(0, 1).flatten(0, 1)
        return values, (self.weights / draws).repeat_interleave(draws, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Exact log density of the mixture."""
        axis = -1 - len(self.batch_shape + self.event_shape)
        each = self.components.log_prob(value.unsqueeze(axis))
        return torch.logsumexp(each + log_weights(self.weights), dim=-1 - len(self.batch_shape))


def log_weights(weights: Tensor) -> Tensor:
    """log w, -inf where w is 0, and there without a gradient (which would be NaN)."""
    there = weights > 0
    return torch.where(there, torch.where(there, weights, 1.0).log(), -torch.inf)


class Mixture(Aggregator, ABC):
    """A mixture of an inner barycenter over some subsets of what is present."""

    spans_subsets = True

    def __init__(self, inner: Aggregator, weights: Weights) -> None:
        super().__init__()
        self.inner, self.weights = of_type(inner, Aggregator), of_type(weights, Weights)

    @abstractmethod
    def table(self, n_modalities: int) -> Tensor:
        """The subsets as 0/1 rows, shape (n_components, n_modalities)."""

    def n_weights(self, n_modalities: int) -> int:
        return len(self.table(n_modalities))

    def owned(self) -> Tensor | None:
        return self.inner.owned()

    def prior(self, priors: Distribution) -> Distribution:
        """The inner barycenter of the priors: one Gaussian, so that a KL to it has a bound."""
        return self.inner.prior(priors)

    def at_rest(self, priors: Distribution) -> Tensor:
        return self.inner.at_rest(priors)

    def chances(self, present: Tensor) -> Tensor:
        """Weight of each subset for each subject, shape (n_components, n_subjects).

        A subset that asks for an absent modality has none. With nothing present, all are alike:
        every one of them is the prior.
        """
        subsets = self.table(len(present)).to(present.device)
        given = self.weights()
        if given is not None and given.dim() > 1:
            raise TypeError("a component of a mixture has one weight for all its dimensions; got "
                            f"{self.weights!r}")
        weight = torch.ones_like(subsets[:, 0]) if given is None else given
        weight = weight.double()  # so that float64 models get float64 weights
        legal = subsets @ (~present).to(subsets) == 0
        legal = legal | ~present.any(0)
        chances = legal * weight[:, None]
        return chances / chances.sum(0)

    def forward(self, experts: Distribution, present: Tensor,
                priors: Distribution | None = None) -> Distribution:
        chances = self.chances(present).to(experts.mean.dtype)
        subsets = self.table(len(present)).to(present.device)
        if priors is None and isinstance(self.inner, CoordinateBarycenter) \
                and isinstance(self.inner.missing, Drop) and not is_full(experts):
            terms = self.inner.terms(experts, present)
            # every subset of every subject at once: a 0/1 matrix times the table of coordinates
            first, second, weight = (torch.tensordot(subsets.to(t), t, 1) for t in terms)
            components = gaussian(*self.inner.from_sums(first, second, weight, None),
                                  len(experts.event_shape), check=False)
            return SubsetPosterior(components, chances)
        n_subjects = present.shape[1]
        some = (subsets.bool().T[:, :, None] & present[:, None]).flatten(1)
        fused = self.inner(_repeated(experts, len(subsets)), some,
                           None if priors is None else _repeated(priors, len(subsets)))
        loc, scale = (t.unflatten(0, (len(subsets), n_subjects)) for t in moments(fused))
        return SubsetPosterior(rebuilt(fused, loc, scale), chances)


def _repeated(experts: Distribution, times: int) -> Distribution:
    """Experts (n_modalities, times * n_subjects): all subjects, again and again."""
    loc, scale = (t.unsqueeze(1).expand(len(t), times, *t.shape[1:]).flatten(1, 2)
                  for t in moments(experts))
    return rebuilt(experts, loc, scale)


class MixtureOfExperts(Mixture):
    """The forward-KL barycenter: ``argmin_q sum_m w_m KL(q_m || q) = sum_m w_m q_m``.

    The weights are renormalised over the present modalities. Covers every expert's mass, so it is
    never sharper than the sharpest expert.

    Parameters
    ----------
    weights : Weights
        One for each modality.

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

    def __init__(self, *, weights: Weights = Uniform()) -> None:
        super().__init__(WassersteinBarycenter(), weights)

    def table(self, n_modalities: int) -> Tensor:
        return torch.eye(n_modalities)


class SubsetMixture(Mixture):
    """A mixture of an inner barycenter over every non-empty subset of what is present.

    q = sum over non-empty A of w_A inner(A), w_A = 1 / (2^|S| - 1) over A within S. With a product
    of experts inside this is MoPoE, with a Wasserstein barycenter MWB; singletons alone would be
    :class:`MixtureOfExperts`. It stays a mixture: averaging subset barycenters by the Wasserstein
    rule would give back the plain barycenter.

    Parameters
    ----------
    inner : Aggregator
        A barycenter with one Gaussian per subset. What is outside a subset counts as absent: with
        ``missing=SubstitutePrior()`` inside, every component but that of all modalities is shrunk
        towards the prior, also of people who have them all.
    weights : Weights
        One for each of the 2^M - 1 subsets, in the order of :func:`subset_table`.

    References
    ----------
    Sutter et al. (2021), ICLR, arXiv 2105.02470; Qiu et al. (2025), AAAI, arXiv 2412.20487. Unlike
    released code, no subject's subset depends on its row in the batch.

    Examples
    --------
    >>> experts = gaussian(torch.randn(3, 4, 2), torch.rand(3, 4, 2))
    >>> q = SubsetMixture(WassersteinBarycenter())(experts, torch.ones(3, 4, dtype=torch.bool))
    >>> q.components.batch_shape
    torch.Size([7, 4])
    """

    def __init__(self, inner: Aggregator, *, weights: Weights = Uniform()) -> None:
        if not isinstance(inner, Aggregator) or inner.spans_subsets:
            raise TypeError("SubsetMixture needs a barycenter with one Gaussian per subset, such "
                            f"as ProductOfExperts(); got {inner!r}")
        super().__init__(inner, weights)

    def table(self, n_modalities: int) -> Tensor:
        return subset_table(n_modalities)


def subset_table(n_modalities: int) -> Tensor:
    """Every non-empty subset as a 0/1 row, shape (2^M - 1, M).

    Examples
    --------
    >>> subset_table(2)
    tensor([[0., 1.],
            [1., 0.],
            [1., 1.]])
    """
    return torch.tensor(list(product([0.0, 1.0], repeat=n_modalities))[1:])

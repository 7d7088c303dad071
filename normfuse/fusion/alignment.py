"""How far the modalities' posteriors lie from an anchor, as a term of a model's loss."""
from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .aggregator import Aggregator
from .choice import Choice, of_type
from .divergences import gaussian_kl, wasserstein2
from .experts import gaussian, is_full, rebuilt, slots


class Divergence(Choice, nn.Module, ABC):
    """D(q, anchor) of Gaussians, row by row."""

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    @abstractmethod
    def forward(self, q: Distribution, anchor: Distribution) -> Tensor:
        """Nonnegative; 0 where both are equal."""


class KullbackLeibler(Divergence):
    """KL(q || anchor)."""

    def forward(self, q: Distribution, anchor: Distribution) -> Tensor:
        return gaussian_kl(q, anchor)


class SquaredWasserstein(Divergence):
    """W2(q, anchor)^2."""

    def forward(self, q: Distribution, anchor: Distribution) -> Tensor:
        return wasserstein2(q, anchor)


class Anchor(Choice, nn.Module, ABC):
    """What posteriors are drawn towards, if it is no barycenter of them."""

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    @abstractmethod
    def forward(self, experts: Distribution, present: Tensor) -> tuple[Distribution, Tensor]:
        """Each subject's anchor, and who has one, (n_subjects,)."""


class ModalityAnchor(Anchor):
    """The posterior of one modality; who lacks it is drawn nowhere.

    Parameters
    ----------
    position : int
        In the order of the modalities.
    """

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position

    def forward(self, experts: Distribution, present: Tensor) -> tuple[Distribution, Tensor]:
        if not 0 <= self.position < len(present):
            raise ValueError(f"there is no modality at position {self.position} among "
                             f"{len(present)}")
        loc, scale, _ = slots(experts, present)
        return rebuilt(experts, loc[self.position], scale[self.position]), present[self.position]


class PriorAnchor(Anchor):
    """N(0, I)."""

    def forward(self, experts: Distribution, present: Tensor) -> tuple[Distribution, Tensor]:
        if is_full(experts):
            raise TypeError("an alignment is of diagonal Gaussians")
        origin = torch.zeros_like(experts.mean[0])
        return (gaussian(origin, torch.ones_like(origin), len(experts.event_shape), check=False),
                present.any(0))


class Alignment(Choice, nn.Module):
    r"""sum_m w_m D(q_m, anchor) over a subject's present modalities, w_m equal and summing to 1.

    A barycentric objective: with D = KL the anchor that makes it least is the mixture of the
    experts,

    .. math:: \sum_m w_m KL(q_m \| P) = \sum_m w_m KL(q_m \| \bar q) + KL(\bar q \| P), \quad
              \bar q = \sum_m w_m q_m,

    and among Gaussians :class:`MomentMatchingBarycenter`. Somebody with one modality has nothing
    to align with a barycenter, and adds 0. Absent slots may hold anything. A model weighs the term
    (``weight``, times its own warm-up) and shows it only the latent dimensions that all
    modalities share: drawn together, private ones would lose what they are for.

    Parameters
    ----------
    anchor : Aggregator or Anchor
        A barycenter of the present posteriors (``MomentMatchingBarycenter(weights=Learned())`` is
        a learned mixture), :class:`ModalityAnchor` or :class:`PriorAnchor`.
    divergence : Divergence
    weight : float
        Of the term in a loss.

    References
    ----------
    After the latent alignment of MedMAP (its released code uses mean squared errors between
    features, which is this with unit variances, W2 and the mean as anchor). Unlike it, modalities
    count alike in training and prediction, and what is absent is not filled in.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.ones(2, 1, 1))
    >>> align = Alignment(WassersteinBarycenter(), SquaredWasserstein())
    >>> align(experts, torch.tensor([[True], [True]])), align(experts, torch.tensor([[True],
    ...                                                                              [False]]))
    (tensor([1.]), tensor([0.]))
    """

    def __init__(self, anchor: Aggregator | Anchor, divergence: Divergence = KullbackLeibler(), *,
                 weight: float = 0.1) -> None:
        super().__init__()
        if not isinstance(anchor, Aggregator | Anchor) or getattr(anchor, "spans_subsets", False):
            raise TypeError("an anchor is a barycenter with one Gaussian, ModalityAnchor(…) or "
                            f"PriorAnchor(); got {anchor!r}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight is a number from 0 on; got {weight!r}")
        self.anchor, self.divergence = anchor, of_type(divergence, Divergence)
        self.weight = weight

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        """A copy whose anchor has parameters (if any) for these numbers."""
        new = copy.deepcopy(self)
        if isinstance(self.anchor, Aggregator):
            new.anchor = self.anchor.sized(n_modalities, n_latent)
        return new

    def forward(self, experts: Distribution, present: Tensor,
                priors: Distribution | None = None) -> Tensor:
        """Of each subject, shape (n_subjects,)."""
        if isinstance(self.anchor, Aggregator):
            anchor, has_one = self.anchor(experts, present, priors), present.any(0)
        else:
            anchor, has_one = self.anchor(experts, present)
        loc, scale, _ = slots(experts, present)
        each = self.divergence(rebuilt(experts, loc, scale), anchor.expand(present.shape))
        each = torch.where(present & has_one, each, 0.0)
        return each.sum(0) / present.sum(0).clamp(min=1)

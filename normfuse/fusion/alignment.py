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
from .experts import full, gaussian, is_full, lower_factor, moments, rebuilt, slots
from .generalized import GeneralizedWassersteinBarycenter
from .missing import Drop
from .weights import Learned, Uniform, Weights


class Divergence(Choice, nn.Module, ABC):
    """D(q, anchor) of Gaussians, row by row.

    Examples
    --------
    >>> sorted(kind.__name__ for kind in Divergence.__subclasses__())
    ['KullbackLeibler', 'SquaredWasserstein']
    """

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    @abstractmethod
    def forward(self, q: Distribution, anchor: Distribution) -> Tensor:
        """Nonnegative, of the batch shape; 0 where both are equal."""


class KullbackLeibler(Divergence):
    """KL(q || anchor), in nats.

    Examples
    --------
    >>> q, anchor = (gaussian(torch.full((1, 1), m), torch.ones(1, 1)) for m in (2.0, 0.0))
    >>> KullbackLeibler()(q, anchor)   # (2 - 0)^2 / 2
    tensor([2.])
    """

    def forward(self, q: Distribution, anchor: Distribution) -> Tensor:
        return gaussian_kl(q, anchor)


class SquaredWasserstein(Divergence):
    """W2(q, anchor)^2, in squared units of the latents.

    Examples
    --------
    >>> q, anchor = (gaussian(torch.full((1, 1), m), torch.ones(1, 1)) for m in (2.0, 0.0))
    >>> SquaredWasserstein()(q, anchor)   # (2 - 0)^2
    tensor([4.])
    """

    def forward(self, q: Distribution, anchor: Distribution) -> Tensor:
        return wasserstein2(q, anchor)


class Anchor(Choice, nn.Module, ABC):
    """What posteriors are drawn towards, if it is no barycenter of them.

    Examples
    --------
    >>> sorted(kind.__name__ for kind in Anchor.__subclasses__())
    ['ModalityAnchor', 'PriorAnchor']
    """

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        """A copy made for these numbers."""
        return copy.deepcopy(self)

    @abstractmethod
    def forward(self, experts: Distribution, present: Tensor) -> tuple[Distribution, Tensor]:
        """Each subject's anchor, and who has one, bool, (n_subjects,).

        ``experts`` are N(0, I) where a modality is absent.
        """


class ModalityAnchor(Anchor):
    """The posterior of one modality; who lacks it is drawn nowhere.

    Gradients reach that modality too: it and the others meet.

    Parameters
    ----------
    position : int
        In the order of the modalities, from 0.

    Examples
    --------
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.ones(2, 1, 1))
    >>> anchor, has_one = ModalityAnchor(1)(experts, torch.tensor([[True], [True]]))
    >>> anchor.mean, has_one
    (tensor([[2.]]), tensor([True]))
    """

    def __init__(self, position: int) -> None:
        super().__init__()
        if not isinstance(position, int) or isinstance(position, bool) or position < 0:
            raise ValueError(f"position is a whole number from 0 on; got {position!r}")
        self.position = position

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        self._check(n_modalities)
        return super().sized(n_modalities, n_latent)

    def forward(self, experts: Distribution, present: Tensor) -> tuple[Distribution, Tensor]:
        self._check(len(present))
        loc, scale = moments(experts)
        return rebuilt(experts, loc[self.position], scale[self.position]), present[self.position]

    def _check(self, n_modalities: int) -> None:
        if self.position >= n_modalities:
            raise ValueError(f"there is no modality at position {self.position} among "
                             f"{n_modalities}; the first is at 0")


class PriorAnchor(Anchor):
    """N(0, I), the prior of a latent vector.

    Below the top of a ladder, whose levels are aligned in the standard coordinates of their
    prior, that is the level's prior.

    Examples
    --------
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.ones(2, 1, 1))
    >>> anchor, _ = PriorAnchor()(experts, torch.tensor([[True], [True]]))
    >>> anchor.mean, anchor.stddev
    (tensor([[0.]]), tensor([[1.]]))
    """

    def forward(self, experts: Distribution, present: Tensor) -> tuple[Distribution, Tensor]:
        origin = torch.zeros_like(moments(experts)[0][0])
        unit = torch.ones_like(origin)
        prior = full(origin, torch.diag_embed(unit), check=False) if is_full(experts) \
            else gaussian(origin, unit, len(experts.event_shape), check=False)
        return prior, present.any(0)


class Alignment(Choice, nn.Module):
    r"""sum_m w_m D(q_m, anchor) over what a subject was measured with, where the w_m sum to 1.

    A barycentric objective: with D = KL the anchor that makes it least is the mixture of the
    experts,

    .. math:: \sum_m w_m KL(q_m \| P) = \sum_m w_m KL(q_m \| \bar q) + KL(\bar q \| P), \quad
              \bar q = \sum_m w_m q_m,

    and among Gaussians :class:`MomentMatchingBarycenter`; with D = W2^2 it is
    :class:`WassersteinBarycenter`. Somebody with one modality has nothing to align with a
    barycenter, and adds 0. Absent slots may hold anything, and nothing is put there. A model adds
    ``weight`` times its warm-up times the mean over subjects to its loss, and shows the term only
    the latent dimensions that all modalities share: drawn together, private ones would lose what
    they are for.

    Parameters
    ----------
    anchor : Aggregator or Anchor
        A barycenter of the present posteriors, :class:`ModalityAnchor` or :class:`PriorAnchor`.
        Experts with full covariances need one that takes them.
    divergence : Divergence
    weights : Weights
        w_m, renormalised over what is present; not learned, as all would go to the modality
        nearest the anchor.
    weight : float
        Of the term in a loss; 0 switches it off.

    Notes
    -----
    ``WassersteinBarycenter(weights=Learned())`` is a learned mixture as anchor. Under the
    divergence whose barycenter it is (above), the anchor's best weights are the w_m themselves:
    with equal w_m they start there and stay equal. They learn under the other divergence.

    Raises
    ------
    TypeError
        The anchor is a mixture, a product or a generalized barycenter, or fills in what is absent:
        equal posteriors or a single one would not be at 0 from it.

    References
    ----------
    After the latent alignment of MedMAP (Liu et al. 2024, arXiv 2408.09465). Its released code
    takes mean squared errors between features: this with unit variances, W2 and the mean as
    anchor, times a constant. Unlike it, modalities count alike in training and prediction, what is
    absent is not filled in, and a normal anchor has the KL, under which no variance collapses.

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
                 weights: Weights = Uniform(), weight: float = 0.1) -> None:
        super().__init__()
        if isinstance(of_type(weights, Weights), Learned):
            raise TypeError("weights are Uniform() or Given(…): learned, all would go to the "
                            "modality nearest the anchor. Learn those of the anchor, as in "
                            "WassersteinBarycenter(weights=Learned())")
        if isinstance(weight, bool) or not isinstance(weight, int | float) \
                or not 0 <= weight < float("inf"):
            raise ValueError(f"weight is a number from 0 on; got {weight!r}")
        self.anchor, self.divergence = _checked(anchor), of_type(divergence, Divergence)
        self.weights, self.weight = weights, float(weight)
        self.register_buffer("shared", None, persistent=False)

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    def sized(self, n_modalities: int, n_latent: int, owned: Tensor | None = None) -> Self:
        """A copy made for these numbers, which looks at the dimensions that all modalities own.

        ``owned`` is what the model's fusion says (:meth:`Aggregator.owned`).
        """
        new = copy.deepcopy(self)
        if owned is not None:
            new.shared = owned.all(0).nonzero().ravel()
            n_latent = len(new.shared)
        new.weights = self.weights.sized(n_modalities, 1)
        new.anchor = self.anchor.sized(n_modalities, n_latent)
        return new

    def forward(self, experts: Distribution, present: Tensor) -> Tensor:
        """Of each subject, shape (n_subjects,), without ``weight``."""
        loc, scale, _ = slots(experts, present)
        q = self._shared(rebuilt(experts, loc, scale))
        if isinstance(self.anchor, Aggregator):
            anchor, drawn = self.anchor(q, present), present.sum(0) > 1
        else:
            anchor, drawn = self.anchor(q, present)
        each = torch.where(present & drawn, self.divergence(q, anchor.expand(present.shape)), 0.0)
        return (self._shares(present).to(each) * each).sum(0)

    def _shared(self, q: Distribution) -> Distribution:
        """The marginal of the shared dimensions."""
        if self.shared is None:
            return q
        loc, scale = (t.index_select(2, self.get_buffer("shared")) for t in moments(q))
        return full(loc, lower_factor(scale @ scale.mT), check=False) if is_full(q) \
            else rebuilt(q, loc, scale)

    def _shares(self, present: Tensor) -> Tensor:
        """w_m of each subject, shape (n_modalities, n_subjects)."""
        table = self.weights()
        if table is None:
            table = torch.ones_like(present[:, 0], dtype=torch.float64)
        elif len(table) != len(present):
            raise ValueError(f"there are {len(table)} weights for {len(present)} modalities")
        each = present * table[:, None]
        return each / torch.where(present.any(0), each.sum(0), 1.0)


def _checked(anchor: Aggregator | Anchor) -> Aggregator | Anchor:
    """Refuse what has no law that alignment rests on: one posterior is its own anchor."""
    if isinstance(anchor, Anchor):
        return anchor
    if not isinstance(anchor, Aggregator) or anchor.spans_subsets:
        raise TypeError("an anchor is a barycenter with one Gaussian, ModalityAnchor(…) or "
                        f"PriorAnchor(); got {anchor!r}")
    if not getattr(anchor, "normalised", True):
        raise TypeError(f"{anchor!r} is sharper than its experts and never meets them; take "
                        "GeneralizedProductOfExperts() as anchor")
    if isinstance(anchor, GeneralizedWassersteinBarycenter):
        raise TypeError("only what all modalities share is aligned, and there a generalized "
                        "barycenter is WassersteinBarycenter(): take that as anchor")
    if not isinstance(anchor.missing, Drop):
        raise TypeError(f"an anchor is of what is present; leave {anchor.missing!r} to the fusion")
    return anchor

"""What stands in for a modality that was not measured."""
from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Distribution

from .choice import Choice
from .experts import is_full, moments, rebuilt, slots


class Missing(Choice, ABC):
    """A policy for absent modalities."""

    @abstractmethod
    def fill(self, experts: Distribution, present: Tensor, priors: Distribution | None
             ) -> tuple[Distribution, Tensor]:
        """Experts and ``present`` as the barycenter shall see them."""

    @abstractmethod
    def reference(self, priors: Distribution, prior: Distribution) -> Tensor:
        """Where an expert that says nothing new lies, shape (n_modalities, n_subjects, *event)."""


class Drop(Missing):
    """Leave the absent out and renormalise the weights of the others.

    Nothing pulls the posterior towards the prior when few modalities are there.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> WassersteinBarycenter(missing=Drop())
    WassersteinBarycenter()
    """

    def fill(self, experts: Distribution, present: Tensor, priors: Distribution | None
             ) -> tuple[Distribution, Tensor]:
        return experts, present

    def reference(self, priors: Distribution, prior: Distribution) -> Tensor:
        return prior.mean.expand_as(priors.mean)


class SubstitutePrior(Missing):
    """Put the modality's own prior where the modality is absent; all weights stay as they are.

    The posterior is then shrunk towards the prior by the weight of what is missing, and its shift
    from the prior is additive over what is present: for Wasserstein barycenters
    mu_q - mu_p = sum over present m of w_m (mu_m - mu_p,m), and likewise for the sds.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter, gaussian
    >>> two = gaussian(torch.tensor([[[3.0]], [[9.9]]]), torch.tensor([[[0.2]], [[9.9]]]))
    >>> present = torch.tensor([[True], [False]])  # the second is absent, whatever stands there
    >>> q = WassersteinBarycenter(missing=SubstitutePrior())(two, present)
    >>> round(q.mean.item(), 3), round(q.stddev.item(), 3)  # half way to N(0, 1)
    (1.5, 0.6)
    """

    def fill(self, experts: Distribution, present: Tensor, priors: Distribution | None
             ) -> tuple[Distribution, Tensor]:
        loc, scale, keep = slots(experts, present)  # absent slots are N(0, I) now
        if priors is not None:
            there = keep[..., None] if is_full(experts) else keep
            loc = torch.where(keep, loc, priors.mean)
            scale = torch.where(there, scale, moments(priors)[1])
        return rebuilt(experts, loc, scale), torch.ones_like(present)

    def reference(self, priors: Distribution, prior: Distribution) -> Tensor:
        return priors.mean

"""Divergences between posteriors: closed forms, registered with torch, and bounds for mixtures."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (Distribution, Independent, MultivariateNormal, Normal,
                                 kl_divergence, register_kl)

from pyro.distributions.util import sum_rightmost

from .bures import bures_distance2
from .experts import cholesky_factor, is_full, moments
from .mixture import SubsetPosterior


@register_kl(MultivariateNormal, Independent)
@register_kl(Independent, MultivariateNormal)
def _kl_full_diagonal(q: Any, p: Any) -> Tensor:
    """KL(N(m, L L') || N(a, R R')) = 1/2 (|R^-1 L|^2 + |R^-1 (m - a)|^2 - d) + log|R| - log|L|."""
    mine, low = moments(q)[0], cholesky_factor(q)
    theirs, unit = moments(p)[0], cholesky_factor(p)
    away = (mine - theirs)[..., None]
    if is_full(p):
        low_seen = torch.linalg.solve_triangular(unit, low, upper=False)
        away = torch.linalg.solve_triangular(unit, away, upper=False)
    else:  # a diagonal prior needs no solving
        sd = moments(p)[1][..., None]
        low_seen, away = low / sd, away / sd
    squares = low_seen.square().sum((-2, -1)) + away.square().sum((-2, -1))
    volume = low_seen.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (squares - mine.shape[-1]) - volume


@register_kl(SubsetPosterior, Distribution)
def _no_kl_of_mixtures(q: Any, p: Any) -> Tensor:
    raise NotImplementedError("the KL of a mixture has no closed form; component_kl(q, p) bounds "
                              "it from above, mixture_kl_bracket(q, p) from both sides")


def component_kl(q: Distribution, p: Distribution) -> Tensor:
    """sum_k w_k KL(q_k || p) >= KL(q || p), per subject; for a Gaussian q the KL itself.

    With it in the place of the KL an ELBO is still a lower bound of log p(x).

    References
    ----------
    Sutter et al. (2021), arXiv 2105.02470, lemma 1.

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> q = gaussian(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    >>> component_kl(q, gaussian(torch.zeros(1, 1), torch.ones(1, 1)))
    tensor([0.5000])
    """
    if isinstance(q, SubsetPosterior):
        each = gaussian_kl(q.components, p.expand(q.components.batch_shape))
        return (q.weights * each).sum(0)
    return gaussian_kl(q, p)


def mixture_kl_bracket(q: SubsetPosterior, p: Distribution) -> tuple[Tensor, Tensor]:
    """sum_k w_k KL(q_k || p) - H(w) <= KL(q || p) <= sum_k w_k KL(q_k || p), per subject.

    H(w) = -sum_k w_k log w_k: what knowing the component could tell at most.

    Examples
    --------
    >>> from normfuse.fusion import SubsetPosterior, gaussian
    >>> components = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.ones(2, 1, 1))
    >>> q = SubsetPosterior(components, torch.tensor([[0.5], [0.5]]))
    >>> p = gaussian(torch.zeros(1, 1), torch.ones(1, 1))
    >>> [round(end.item(), 3) for end in mixture_kl_bracket(q, p)]
    [0.307, 1.0]
    """
    above = component_kl(q, p)
    there = torch.where(q.weights > 0, q.weights, 1.0)  # entr(1) = 0; at 0 its slope is infinite
    return above - torch.special.entr(there).sum(0), above


def gaussian_kl(q: Distribution, p: Distribution) -> Tensor:
    """KL between Gaussians; literal for diagonal ones, where torch's own takes twice as long.

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> q = gaussian(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    >>> gaussian_kl(q, gaussian(torch.zeros(1, 1), torch.ones(1, 1)))
    tensor([0.5000])
    """
    mine, prior = getattr(q, "base_dist", q), getattr(p, "base_dist", p)
    if not (isinstance(mine, Normal) and isinstance(prior, Normal)):
        return kl_divergence(q, p)
    var, away = prior.scale.square(), mine.loc - prior.loc
    each = 0.5 * ((mine.scale.square() + away.square()) / var - 1) \
        - (mine.scale / prior.scale).log()
    return sum_rightmost(each, len(q.event_shape))


def wasserstein2(q: Distribution, p: Distribution) -> Tensor:
    """Squared 2-Wasserstein distance between Gaussians.

    |m - a|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2;  |m - a|^2 + |s - t|^2 for diagonal ones.

    References
    ----------
    Dowson and Landau (1982), J. Multivar. Anal. 12(3), doi 10.1016/0047-259X(82)90077-X.

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> q = gaussian(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    >>> wasserstein2(q, gaussian(torch.tensor([[0.0]]), torch.tensor([[5.0]])))
    tensor([25.])
    """
    away = sum_rightmost((moments(q)[0] - moments(p)[0]).square(), len(q.event_shape))
    if is_full(q) or is_full(p):
        low, other = cholesky_factor(q), cholesky_factor(p)
        return away + bures_distance2(low @ low.mT, other @ other.mT)
    apart = (moments(q)[1] - moments(p)[1]).square()
    return away + sum_rightmost(apart, len(q.event_shape))

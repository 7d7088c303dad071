"""Experts: the per-modality posteriors as one distribution with a leading modality axis."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

import pyro.distributions as dist


def gaussian(loc: Tensor, scale: Tensor, event_dim: int = 1) -> dist.Independent:
    """A diagonal Gaussian whose last ``event_dim`` axes are one event; ``scale`` is an sd."""
    return dist.Normal(loc, scale, validate_args=False).to_event(event_dim)


def stack(posteriors: Sequence[Distribution]) -> dist.Independent:
    """Unimodal posteriors, each (n_subjects,) by event, as experts (n_modalities, n_subjects).

    Examples
    --------
    >>> two = stack([gaussian(torch.zeros(5, 3), torch.ones(5, 3)) for _ in range(2)])
    >>> two.batch_shape, two.event_shape
    (torch.Size([2, 5]), torch.Size([3]))
    """
    bases = [_normal(q) for q in posteriors]
    return gaussian(torch.stack([q.loc for q in bases]), torch.stack([q.scale for q in bases]),
                    len(posteriors[0].event_shape))


def slots(experts: Distribution, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loc and scale with absent slots made harmless, and ``present`` shaped to multiply them.

    ``torch.where`` before any arithmetic: 0 * NaN is NaN, and so is its gradient.
    """
    base = _normal(experts)
    if present.shape != experts.batch_shape:
        raise ValueError(f"present has shape {tuple(present.shape)}; the experts' batch shape is "
                         f"{tuple(experts.batch_shape)} (n_modalities, n_subjects)")
    keep = present.reshape(present.shape + (1,) * len(experts.event_shape))
    loc, scale = base.loc, base.scale
    if not bool(present.all()):
        loc = torch.where(keep, loc, torch.zeros_like(loc))
        scale = torch.where(keep, scale, torch.ones_like(scale))
    return loc, scale, keep


def _normal(q: Distribution) -> torch.distributions.Normal:
    base = getattr(q, "base_dist", q)
    if not isinstance(base, torch.distributions.Normal):
        raise TypeError(f"experts must be diagonal Gaussians; got {type(base).__name__}")
    return base


def sigma_points(q: Distribution) -> tuple[Tensor, Tensor]:
    """Points and weights that carry the exact mean and covariance of a latent posterior.

    For N(mu, C C') in L dimensions these are mu +- sqrt(L) times a column of C, all weighted
    1/(2L): integrals of functions up to cubic are exact, and nothing is random, so that a
    subject's score never depends on a draw. A mixture gives the points of each component, times
    its weight.

    Parameters
    ----------
    q : Distribution, batch shape (n_subjects,), event shape (n_latent,)

    Returns
    -------
    points : Tensor, shape (n_points, n_subjects, n_latent)
    weights : Tensor, shape (n_points, n_subjects); each column sums to 1

    References
    ----------
    Julier and Uhlmann (2004), Proc. IEEE 92(3), doi 10.1109/JPROC.2003.823141; no centre point.

    Examples
    --------
    >>> q = gaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]]))
    >>> points, weights = sigma_points(q)
    >>> (weights[..., None] * points).sum(0)
    tensor([[ 1., -2.]])
    """
    from .mixture import SubsetPosterior

    if isinstance(q, SubsetPosterior):
        points, weights = sigma_points(q.components)
        weights = weights * q.weights
        return points.flatten(0, 1), weights.flatten(0, 1)
    n_latent = q.event_shape[-1]
    if isinstance(q, torch.distributions.MultivariateNormal):
        spread = n_latent ** 0.5 * q.scale_tril.movedim(-1, 0)
    else:
        spread = n_latent ** 0.5 * torch.diag_embed(_normal(q).scale).movedim(-1, 0)
    points = torch.cat([q.mean + spread, q.mean - spread])
    return points, points.new_full(points.shape[:-1], 1 / (2 * n_latent))

"""Experts: the per-modality posteriors as one distribution with a leading modality axis."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

import pyro.distributions as dist


def gaussian(loc: Tensor, scale: Tensor, event_dim: int = 1, *, check: bool = True
             ) -> dist.Independent:
    """A diagonal Gaussian whose last ``event_dim`` axes are one event; ``scale`` is an sd.

    ``check`` refuses negative sds (NaN may stand in the slot of an absent modality).

    Examples
    --------
    >>> gaussian(torch.zeros(5, 3), torch.ones(5, 3)).log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """
    if check and bool((scale < 0).any()):
        raise ValueError(f"scale is an sd, not negative; got {float(scale.min()):.4g}")
    return dist.Normal(loc, scale, validate_args=False).to_event(event_dim)


def full(loc: Tensor, scale_tril: Tensor, *, check: bool = True) -> dist.MultivariateNormal:
    """A Gaussian with any covariance, given by its lower Cholesky factor.

    ``check`` refuses what is no such factor, as a covariance matrix would be.

    Examples
    --------
    >>> full(torch.zeros(5, 2), torch.eye(2).expand(5, 2, 2)).event_shape
    torch.Size([2])
    """
    if check and (bool((torch.triu(scale_tril, 1).abs() > 0).any())
                  or bool((scale_tril.diagonal(dim1=-2, dim2=-1) < 0).any())):
        raise ValueError("scale_tril is a lower Cholesky factor (zeros above the diagonal, none "
                         "below 0 on it); of a covariance, give torch.linalg.cholesky(covariance)")
    return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)


def lower_factor(covariance: Tensor) -> Tensor:
    """Cholesky factor; a matrix that rounding made singular is first lifted by that rounding.

    Float32 holds condition numbers up to 1e7; beyond, training would stop with an error.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not bool(failed.any()):
        return factor
    lift = 8 * torch.finfo(covariance.dtype).eps * covariance.diagonal(dim1=-2, dim2=-1).amax(-1)
    return torch.linalg.cholesky(covariance + torch.diag_embed(
        torch.where(failed > 0, lift, 0.0)[..., None].expand(covariance.shape[:-1])))


def is_full(q: Distribution) -> bool:
    """Whether these Gaussians have full covariance matrices."""
    return isinstance(q, torch.distributions.MultivariateNormal)


def moments(q: Distribution) -> tuple[Tensor, Tensor]:
    """Loc and scale of Gaussians: the sds of diagonal ones, the Cholesky factors of full ones."""
    if isinstance(q, torch.distributions.MultivariateNormal):
        return q.loc, q.scale_tril
    base = getattr(q, "base_dist", q)
    if not isinstance(base, torch.distributions.Normal):
        raise TypeError(f"experts must be Gaussians; got {type(base).__name__}")
    if not base.loc.is_floating_point():
        raise TypeError(f"experts must have floating-point parameters; got {base.loc.dtype}")
    return base.loc, base.scale


def cholesky_factor(q: Distribution) -> Tensor:
    """Lower Cholesky factors of the covariances, of diagonal Gaussians too."""
    scale = moments(q)[1]
    return scale if is_full(q) else torch.diag_embed(scale)


def rebuilt(like: Distribution, loc: Tensor, scale: Tensor) -> Distribution:
    """Gaussians of the same kind with another loc and scale."""
    return full(loc, scale, check=False) if is_full(like) \
        else gaussian(loc, scale, len(like.event_shape), check=False)


def moved(q: Distribution, loc: Tensor) -> Distribution:
    """The same Gaussians elsewhere."""
    return rebuilt(q, loc, moments(q)[1])


def stack(posteriors: Sequence[Distribution]) -> Distribution:
    """Unimodal posteriors, each (n_subjects,) by event, as experts (n_modalities, n_subjects).

    Examples
    --------
    >>> two = stack([gaussian(torch.zeros(5, 3), torch.ones(5, 3)) for _ in range(2)])
    >>> two.batch_shape, two.event_shape
    (torch.Size([2, 5]), torch.Size([3]))
    """
    if len({(is_full(q), q.batch_shape, q.event_shape) for q in posteriors}) > 1:
        raise ValueError("posteriors to stack are all diagonal or all full, of the same shapes; "
                         f"got {[type(q).__name__ for q in posteriors]} of shapes "
                         f"{[tuple(q.batch_shape + q.event_shape) for q in posteriors]}")
    locs, scales = zip(*map(moments, posteriors))
    return rebuilt(posteriors[0], torch.stack(locs), torch.stack(scales))


def everyone(experts: Distribution) -> Tensor:
    """``present`` where nothing is absent, beside the experts' numbers."""
    return torch.ones(experts.batch_shape, dtype=torch.bool, device=moments(experts)[0].device)


def slots(experts: Distribution, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loc and scale with N(0, I) in absent slots, and ``present`` shaped to multiply loc.

    ``torch.where`` before any arithmetic: 0 * NaN is NaN, and so is its gradient.
    """
    loc, scale = moments(experts)
    if not isinstance(present, Tensor) or present.dtype != torch.bool:
        raise TypeError(f"present is a boolean torch.Tensor; got {type(present).__name__} of "
                        f"{getattr(present, 'dtype', 'no dtype')}")
    if present.shape != experts.batch_shape:
        raise ValueError(f"present has shape {tuple(present.shape)}; the experts' batch shape is "
                         f"{tuple(experts.batch_shape)} (n_modalities, n_subjects)")
    keep = present.reshape(present.shape + (1,) * len(experts.event_shape))
    if not bool(present.all()):
        loc = torch.where(keep, loc, torch.zeros_like(loc))
        if is_full(experts):
            unit = torch.eye(loc.shape[-1], dtype=scale.dtype, device=scale.device)
            scale = torch.where(keep[..., None], scale, unit)
        else:
            scale = torch.where(keep, scale, torch.ones_like(scale))
    return loc, scale, keep


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
        spread = n_latent ** 0.5 * torch.diag_embed(moments(q)[1]).movedim(-1, 0)
    points = torch.cat([q.mean + spread, q.mean - spread])
    return points, points.new_full(points.shape[:-1], 1 / (2 * n_latent))

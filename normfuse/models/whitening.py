"""Between latents and standard coordinates, in which a given Gaussian prior is N(0, I)."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..fusion.experts import is_full, moments


def coloured(prior: Distribution, e: Tensor) -> Tensor:
    """z = loc + scale e."""
    loc, scale = moments(prior)
    return loc + ((scale @ e[..., None])[..., 0] if is_full(prior) else scale * e)


def whitened(prior: Distribution, z: Tensor) -> Tensor:
    """e = scale^-1 (z - loc).

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> prior = gaussian(torch.tensor([1.0]), torch.tensor([2.0]))
    >>> whitened(prior, coloured(prior, torch.tensor([0.25])))
    tensor([0.2500])
    """
    loc, scale = moments(prior)
    if not is_full(prior):
        return (z - loc) / scale
    return torch.linalg.solve_triangular(scale, (z - loc)[..., None], upper=False)[..., 0]


def whitened_cov(prior: Distribution, q: Distribution, *, factor: bool = False) -> Tensor:
    """Covariance of q in the prior's standard coordinates, or a lower Cholesky factor of it."""
    extent, scale = moments(prior)[1], moments(q)[1]
    if not is_full(prior) and not is_full(q):
        within = torch.diag_embed(scale / extent)
    else:
        extent = extent if is_full(prior) else torch.diag_embed(extent)
        scale = scale if is_full(q) else torch.diag_embed(scale)
        within = torch.linalg.solve_triangular(extent, scale, upper=False)  # lower by lower
    return within if factor else within @ within.mT

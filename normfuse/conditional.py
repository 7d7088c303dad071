"""What is expected of each feature of a person, given all else that was measured in them."""
from __future__ import annotations

import torch
from torch import Tensor

from .inference import Energy, Refined
from .models import Batch, Vae


def leave_one_out(vae: Vae, batch: Batch, inference: Refined = Refined()
                  ) -> tuple[Tensor, Tensor]:
    """Mean and variance of p(x_j | x_o without j, c), for every measured cell j.

    At the mode z* of the refined posterior, with mu made linear there (slopes J, noise Psi_oo),
    measured cells are Gaussian together with the precision matrix

    P = Psi^-1 - W C W',   W = Psi^-1 J,   C = (I + J' Psi^-1 J)^-1,

    and P (x - E x) = Psi^-1 (x - mu(z*)) = a, so that

    E[x_j | others] = x_j - a_j / P_jj,   var[x_j | others] = 1 / P_jj.

    Exact with linear decoders, without finding anybody's z anew for each feature. With others, z*
    has seen x_j too, and mu is as if straight from there to where z would lie without it.

    Parameters
    ----------
    vae : Vae
    batch : Batch
        float64. Everybody's result depends on themselves alone.
    inference : Refined, optional

    Returns
    -------
    mean, variance : Tensor, shape (n_subjects, n_features)
        Of the standardised features of all modalities side by side; NaN where nothing was
        measured. A person's only measured feature gets its mean and variance in the population.

    References
    ----------
    Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, equation 5.12, after
    Sundararajan and Keerthi (2001), Neural Computation 13(5), doi 10.1162/08997660151134343.

    Examples
    --------
    Three measurements of one thing, each with noise of sd 1; the others of the first are (2, 4):

    >>> from normfuse.fusion import ProductOfExperts
    >>> from normfuse.models import OneLatent
    >>> vae = OneLatent(n_latent=1, hidden=()).build({"m": 3}, 0, ProductOfExperts()).double()
    >>> vae = vae.eval().requires_grad_(False)
    >>> vae.decoders[0].set_affine(torch.tensor([[1.0, 0.0]] * 3).double())
    >>> x = torch.tensor([[0.0, 2.0, 4.0]]).double()
    >>> everybody = torch.ones(1, 1, dtype=torch.bool)
    >>> mean, variance = leave_one_out(vae, Batch((x,), (None,), everybody, x[:, :0]))
    >>> round(mean[0, 0].item(), 6), round(variance[0, 0].item(), 6)  # (0 + 2 + 4) / 3, 1 + 1 / 3
    (2.0, 1.333333)
    """
    means, variances = [], []
    with torch.no_grad():
        for rows in torch.arange(len(batch)).split(vae.people_at_once):
            mean, variance = _of_some(vae, batch.take(rows), inference)
            means.append(mean)
            variances.append(variance)
    return torch.cat(means), torch.cat(variances)


def _of_some(vae: Vae, part: Batch, inference: Refined) -> tuple[Tensor, Tensor]:
    energy, z = Energy(vae, part), inference.posterior(vae, part).mean
    precision = energy.newton(z)[1]
    if bool((precision == precision[:1]).all()):
        precision = precision[:1]  # alike for everybody
    spread = torch.linalg.inv(precision)
    means, variances = [], []
    for m, (residual, slopes) in enumerate(zip(*energy.linearised(z))):
        noise, measured, rows = energy.noise[m], part.measured[m], part.whole(m)
        if rows is not None and not len(rows):
            means.append(torch.full_like(residual, torch.nan))
            variances.append(means[-1])
            continue
        if rows is not None and len(rows) == len(part):
            noise = vae.noise[m].among(None)
        scaled = noise.weigh(slopes)
        precision = noise.precision_diagonal \
            - torch.einsum("knp,nkl,lnp->np", scaled, spread, scaled)
        mean = part.x[m] - noise.weigh(residual) / precision
        variance = (1 / precision).expand_as(mean)
        if measured is not None:
            mean, variance = (torch.where(measured, t, torch.nan) for t in (mean, variance))
        means.append(mean)
        variances.append(variance)
    return torch.cat(means, -1), torch.cat(variances, -1)

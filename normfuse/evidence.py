"""How probable subjects are under a model: log p(x | covariates) by importance sampling."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from .fusion import SubsetPosterior
from .fusion.experts import is_full, moments, rebuilt
from .fusion.mixture import log_weights
from .inference import Inference
from .models import Batch, Vae
from .models.likelihood import MeasuredNormal


def log_likelihood(vae: Vae, batch: Batch, inference: Inference, draws: int = 100, *,
                   seed: int = 0) -> Tensor:
    """log p(x_S | c) of each subject, in nats of the standardised features.

    log 1/K sum_k p(x_S, e_k) / q(e_k),  e_k ~ q(e | x_S, c):  on average a lower bound that rises
    with K to log p. From a mixture as many draws are taken from every component, weighted, and q
    is the mixture's density; drawing all from one component would not bound anything. The same
    standard normal draws serve every subject, so that a subject's value depends on nobody else.

    Parameters
    ----------
    draws : int
        At least so many; a mixture rounds up to a multiple of its components.

    Returns
    -------
    Tensor, shape (n_subjects,)

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), ICLR, arXiv 1509.00519.
    """
    if not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws is a whole number above 0; got {draws!r}")
    generator = torch.Generator().manual_seed(seed)
    if inference.is_exact(vae):
        draws = 1  # p(x, e) / q(e) is p(x) wherever e lies
    noise = torch.randn(draws, vae.n_dimensions, generator=generator, dtype=torch.float64)
    found = []
    with torch.no_grad():
        for rows in torch.arange(len(batch)).split(max(1, vae.points_at_once // draws)):
            part = batch.take(rows)
            q = inference.posterior(vae, part)
            e, share = _drawn(q, noise.to(part.design.dtype))
            log_p = -0.5 * (e.square() + _LOG_2_PI).sum(-1) - q.log_prob(e) + log_weights(share)
            for k, mean in enumerate(vae.decode(e, part.design)):
                scatter = MeasuredNormal(mean, vae.noise[k], part.measured[k])
                log_p = log_p + scatter.log_prob(part.x[k])
            found.append(torch.logsumexp(log_p, 0))
    return torch.cat(found)


_LOG_2_PI = float(torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64)))


def _drawn(q: Distribution, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n_draws, n_subjects, n_dim) made of the same noise for all, and their weights."""
    if isinstance(q, SubsetPosterior):
        each = -(-len(noise) // len(q.weights))
        pieces = [_drawn(rebuilt(q.components, *(t[k] for t in moments(q.components))),
                         noise[(torch.arange(each) + k * each) % len(noise)])
                  for k in range(len(q.weights))]
        share = (q.weights / each).repeat_interleave(each, 0)
        return torch.cat([values for values, _ in pieces]), share
    loc, scale = moments(q)
    away = torch.einsum("nij,kj->kni", scale, noise) if is_full(q) else scale * noise[:, None]
    share = noise.new_full((len(noise), len(loc)), 1 / len(noise))
    return loc + away, share

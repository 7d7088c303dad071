"""One feature from all others: predictive laws with a feature taken out of the posterior."""
from __future__ import annotations

import torch
from torch import Tensor

from .inference import Inference
from .models import Batch, Vae


def leave_one_out(vae: Vae, batch: Batch, inference: Inference
                  ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """placeholder until merged"""
    q = inference.posterior(vae, batch)
    z, C = q.mean, q.covariance_matrix
    J = torch.func.vmap(lambda a: torch.func.jvp(lambda at: torch.cat(vae.decode(at, batch.design), -1), (z,), (a.expand_as(z),)))(torch.eye(z.shape[-1], dtype=z.dtype))
    mu, jac = J[0][0], J[1].movedim(0, -1)
    s = torch.cat([p for p in vae.noise_sd])
    h = ((jac @ C) * jac).sum(-1) / s ** 2
    x = torch.cat(batch.x, -1)
    seen = torch.cat([torch.ones_like(x, dtype=torch.bool) if m is None else m for x, m in zip(batch.x, batch.measured)], -1)
    h = torch.where(seen, h, 0.0)
    resid = (x - mu) / (1 - h)
    mean = torch.where(seen, x - resid, mu)
    var = torch.where(seen, s ** 2 / (1 - h), s ** 2 + ((jac @ C) * jac).sum(-1))
    w = [b.shape[1] for b in batch.x]
    return mean.split(w, -1), var.sqrt().split(w, -1)

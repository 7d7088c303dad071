"""What image methods minimise, besides the KL of their latents and an alignment."""
from __future__ import annotations

import math

import torch
from torch import Tensor


def laplace_nll(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    r"""-log p(x) = |x - loc| / b + log 2b, in nats; b = exp(log_scale), sd = sqrt(2) b.

    Examples
    --------
    >>> from scipy.stats import laplace
    >>> x = torch.tensor(1.5)
    >>> torch.isclose(laplace_nll(x, torch.tensor(0.5), torch.tensor(2.0).log()),
    ...               torch.tensor(-laplace.logpdf(1.5, 0.5, 2.0)).float()).item()
    True
    """
    return (x - loc).abs() * torch.exp(-log_scale) + log_scale + math.log(2)


def alignment_by_level(levels: list, fused: Tensor, align: torch.nn.Module) -> Tensor:
    """Sum over levels and pixels of each image's alignment, shape (n_images,)."""
    total = fused.new_zeros(fused.shape[1], dtype=levels[0].z.dtype)
    for level in levels:
        pixels = level.z[0, 0].numel()
        each = align(level.experts, fused.repeat_interleave(pixels, 1), level.priors)
        total = total + each.view(-1, pixels).sum(1)
    return total

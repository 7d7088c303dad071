"""What image methods minimise, besides the KL of their latents and an alignment."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn


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


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    r"""1 - 2 sum p_c y_c / (sum p_c + sum y_c), mean over classes; and mean -log p of the label.

    Over all pixels that are given, together. Only classes that some pixel has enter the first
    term: overlap with nothing is no aim, and what is found of the others counts in the second.
    Without any it is 0. Background has no Dice. MONAI's losses.

    Parameters
    ----------
    logits : Tensor, shape (n_pixels, n_classes)
    labels : int64 Tensor, shape (n_pixels,)

    Examples
    --------
    >>> sure = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]])
    >>> [round(t.item(), 3) for t in dice_cross_entropy(sure, torch.tensor([0, 1, 0]))]
    [0.333, 3.0]
    """
    from monai.losses.dice import DiceLoss

    each = DiceLoss(include_background=False, softmax=True, to_onehot_y=True, batch=True,
                    reduction="none")(logits.T[None], labels[None, None]).ravel()
    there = torch.bincount(labels, minlength=logits.shape[1])[1:] > 0
    dice = torch.where(there, each, 0.0).sum() / there.sum().clamp(min=1)
    return dice, nn.functional.cross_entropy(logits, labels)

"""How sure a segmenter may be: one number that makes its probabilities true."""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ..models.vae import hide_some
from .images import Images, Stack

MOST_IMAGES = 240
"""Slices, spread over people and places, by which it is found."""

LIMITS = (0.25, 4.0)
"""Few people say little; beyond these no number of theirs is believed."""


def probabilities(logits: Tensor, softness: float) -> Tensor:
    """Mean over draws of softmax(logits / softness), (draws, n, classes, …) -> (n, classes, …)."""
    return (logits / softness).softmax(2).mean(0)


def measured_softness(images: Stack, logits: Callable[[Images], Tensor], at_once: int) -> float:
    r"""The temperature that makes -log p of the labels least in people training did not see.

    .. math:: p_c = \frac{1}{D} \sum_d softmax(f_d / T)_c

    One for all combinations of modalities, each image with some of its own hidden at random.

    Parameters
    ----------
    images : Stack
        With labels.
    logits : callable
        Images -> (draws, n_images, n_classes, *sides).
    at_once : int

    References
    ----------
    Guo et al. (2017), ICML, arXiv 1706.04599; of the mean over draws instead of one output.
    """
    some, found, labels = images.thinned(MOST_IMAGES), [], []
    for rows in torch.arange(len(some)).split(at_once):
        batch = some.take(rows)
        if batch.labels is None:
            raise ValueError("images without labels calibrate no segmentation")
        said = logits(batch.only(hide_some(batch.present, 0.5)))
        found.append(said.movedim(2, -1)[:, batch.inside].cpu())
        labels.append(batch.labels[batch.inside].cpu())
    said, true = torch.cat(found, 1), torch.cat(labels)

    def loss(log_softness: float) -> float:
        p = (said / math.exp(log_softness)).softmax(-1).mean(0)
        return -float(p.gather(1, true[:, None]).clamp(min=1e-12).log().mean())

    best = minimize_scalar(loss, bounds=(math.log(LIMITS[0]), math.log(LIMITS[1])),
                           method="bounded", options={"xatol": 1e-2})
    return math.exp(float(best.x))

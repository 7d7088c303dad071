"""Convolutional networks of images, 2-D slices or 3-D volumes, that halve them step by step."""
from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..fusion import Choice

_LAYERS: dict[int, tuple[Any, Any]] = {2: (nn.Conv2d, nn.ConvTranspose2d),
                                       3: (nn.Conv3d, nn.ConvTranspose3d)}
_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True, repr=False)
class Convolutional(Choice):
    """Convolutions over the voxels of images, beside the linear paths of a model.

    mu_m(z, c) = W_m [z, c, 1] + f_m(z, c),  and in the encoders a_m(x, c) + g_m(x, c),  f and g
    convolutional. The linear paths are learned first, from scores along principal axes; f and g
    start at 0 and are trained on the voxels; f is kept only if people whom training did not see
    become more probable by it (:func:`normfuse.refit.refit`).

    Parameters
    ----------
    channels : tuple of int
        From the image inwards. Every step halves the grid, the first one (the stem) included:
        six to nine times cheaper than one at full resolution.
    epochs, patience : int
        At most, and without a better validation loss.
    batch_size : int
    learning_rate : float
    bf16 : bool
        Train in bfloat16 where torch says it is safe. Scoring is in float64 in any case.
    channels_last : bool
        Memory format for GPUs; on CPUs nothing was gained.

    Examples
    --------
    >>> Convolutional(channels=(8, 16)).halvings
    2
    """

    channels: tuple[int, ...] = (16, 32, 64)
    epochs: int = 60
    patience: int = 8
    batch_size: int = 16
    learning_rate: float = 1e-3
    bf16: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.channels, list | tuple) or not self.channels or \
                any(not _is_size(c) or c % 4 for c in self.channels):
            raise ValueError("channels is a tuple of whole numbers that 4 divides; got "
                             f"{self.channels!r}")
        object.__setattr__(self, "channels", tuple(self.channels))
        for name in ("epochs", "patience", "batch_size"):
            if not _is_size(getattr(self, name)):
                raise ValueError(f"{name} is a whole number above 0; got {getattr(self, name)!r}")

    @property
    def halvings(self) -> int:
        """How often a side is halved."""
        return len(self.channels)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class ConvEncoder(nn.Module):
    """Images -> vectors.

    Parameters
    ----------
    sides : sequence of int
        Of the images, two or three; each divisible by 2 ** halvings.
    n_images, n_extra : int
        Channels of an image, and numbers that come beside it (covariates).
    n_outputs : int
    networks : Convolutional

    Examples
    --------
    >>> encode = ConvEncoder((8, 8, 4), 1, 2, 6, Convolutional(channels=(4, 8)))
    >>> encode(torch.zeros(5, 1, 8, 8, 4), torch.zeros(5, 2)).shape
    torch.Size([5, 6])
    """

    def __init__(self, sides: Sequence[int], n_images: int, n_extra: int, n_outputs: int,
                 networks: Convolutional) -> None:
        super().__init__()
        _refuse_odd(sides, networks)
        conv, self.networks = _LAYERS[len(sides)][0], networks
        steps, width = [], n_images
        for wide in networks.channels:
            steps += [conv(width, wide, 4, 2, 1), nn.GroupNorm(4, wide), nn.SiLU()]
            width = wide
        self.steps = nn.Sequential(*steps)
        cells = width * prod(side >> networks.halvings for side in sides)
        self.last = nn.Linear(cells + n_extra, n_outputs)

    def forward(self, images: Tensor, extra: Tensor) -> Tensor:
        with _cheaply(self.networks, images, self.training):
            found = self.steps(_laid_out(images, self.networks)).flatten(1)
            return self.last(torch.cat([found, extra], -1)).to(images.dtype)


class ConvDecoder(nn.Module):
    """Vectors -> images.

    Parameters
    ----------
    n_inputs : int
    sides, n_images, networks
        As in :class:`ConvEncoder`.

    Examples
    --------
    >>> decode = ConvDecoder(3, (8, 8), 2, Convolutional(channels=(4, 8)))
    >>> decode(torch.zeros(5, 3)).shape
    torch.Size([5, 2, 8, 8])
    """

    def __init__(self, n_inputs: int, sides: Sequence[int], n_images: int,
                 networks: Convolutional) -> None:
        super().__init__()
        _refuse_odd(sides, networks)
        up, self.networks = _LAYERS[len(sides)][1], networks
        widths = networks.channels[::-1]
        core = (widths[0], *(side >> networks.halvings for side in sides))
        self.first = nn.Sequential(nn.Linear(n_inputs, prod(core)), nn.Unflatten(1, core),
                                   nn.SiLU())
        steps: list[nn.Module] = []
        for wide, narrow in zip(widths, widths[1:]):
            steps += [up(wide, narrow, 4, 2, 1), nn.GroupNorm(4, narrow), nn.SiLU()]
        self.steps = nn.Sequential(*steps)
        self.last: Any = up(widths[-1], n_images, 4, 2, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        with _cheaply(self.networks, inputs, self.training):
            core = _laid_out(self.first(inputs), self.networks)
            return self.last(self.steps(core)).to(inputs.dtype)


def _refuse_odd(sides: Sequence[int], networks: Convolutional) -> None:
    if len(sides) not in _LAYERS:
        raise ValueError(f"images have two or three sides; got {tuple(sides)}")
    if any(side % 2 ** networks.halvings for side in sides):
        raise ValueError(f"{networks.halvings} channels halve every side as often, and "
                         f"{tuple(sides)} cannot be: pad the images, or give fewer channels")


def _laid_out(images: Tensor, networks: Convolutional) -> Tensor:
    if not networks.channels_last:
        return images
    return images.contiguous(memory_format=_FORMATS[images.dim() - 2])


def _cheaply(networks: Convolutional, like: Tensor, training: bool) -> AbstractContextManager[Any]:
    """In bfloat16 if asked for; never while scoring, whose numbers must not depend on it."""
    if not networks.bf16 or not training:
        return nullcontext()
    return torch.autocast(like.device.type, torch.bfloat16)

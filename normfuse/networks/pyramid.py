"""Networks of whole images, 2-D or 3-D, at resolutions that halve step by step."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..fusion import Choice

LAYERS: dict[int, tuple[Any, Any]] = {2: (nn.Conv2d, nn.ConvTranspose2d),
                                      3: (nn.Conv3d, nn.ConvTranspose3d)}
GROUPS = 4


@dataclass(frozen=True, repr=False)
class Pyramid(Choice):
    """How large the networks of images are.

    Parameters
    ----------
    channels : tuple of int
        Of the features at each resolution, from the image inwards; each divisible by 4. The first
        is at the image's own resolution, the dearest of all; every further one halves it.
    latents : tuple of int
        Of the latent images at the same resolutions; 0 for none there. The innermost has some.

    Examples
    --------
    >>> Pyramid(channels=(8, 16, 32), latents=(0, 0, 8)).step
    4
    """

    channels: tuple[int, ...] = (8, 16, 32, 64)
    latents: tuple[int, ...] = (0, 8, 16, 16)

    def __post_init__(self) -> None:
        for name, least, divisor in (("channels", 1, GROUPS), ("latents", 0, 1)):
            given = getattr(self, name)
            if not isinstance(given, list | tuple) or not given or any(
                    not isinstance(c, int) or c < least or c % divisor for c in given):
                raise ValueError(f"{name} is a tuple of whole numbers from {least} on"
                                 f"{f' that {divisor} divides' * (divisor > 1)}; got {given!r}")
            object.__setattr__(self, name, tuple(given))
        if len(self.channels) != len(self.latents) or not self.latents[-1]:
            raise ValueError("channels and latents have a number for each resolution, and the last"
                             f" of latents is not 0; got {self.channels} and {self.latents}")

    @property
    def step(self) -> int:
        """What the sides of an image are multiples of."""
        return 2 ** (len(self.channels) - 1)


class Residual(nn.Module):
    """x + f(x), two convolutions that start as nothing.

    Examples
    --------
    >>> x = torch.randn(2, 8, 6, 6)
    >>> torch.equal(Residual(8, 2)(x), x)
    True
    """

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        conv = LAYERS[dimensions][0]
        self.steps = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), conv(width, width, 3, padding=1),
            nn.GroupNorm(GROUPS, width), nn.SiLU(), conv(width, width, 3, padding=1))
        last: Any = self.steps[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.steps(x)


class Looking(nn.Module):
    """An image -> features at every resolution, the finest first.

    Examples
    --------
    >>> look = Looking(2, Pyramid(channels=(4, 8), latents=(4, 4)))
    >>> [tuple(f.shape) for f in look(torch.zeros(3, 1, 16, 12))]
    [(3, 4, 16, 12), (3, 8, 8, 6)]
    """

    def __init__(self, dimensions: int, sizes: Pyramid, n_images: int = 1) -> None:
        super().__init__()
        conv = LAYERS[dimensions][0]
        widths = sizes.channels
        self.steps = nn.ModuleList([nn.Sequential(conv(n_images, widths[0], 3, padding=1),
                                                  nn.SiLU())])
        self.steps.extend(nn.Sequential(conv(narrow, wide, 4, 2, 1), Residual(wide, dimensions))
                          for narrow, wide in zip(widths, widths[1:]))

    def forward(self, image: Tensor) -> list[Tensor]:
        found = []
        for step in self.steps:
            image = step(image)
            found.append(image)
        return found


class Widening(nn.Module):
    """From one resolution to the next finer one.

    Examples
    --------
    >>> Widening(16, 8, 2)(torch.zeros(3, 16, 4, 3)).shape
    torch.Size([3, 8, 8, 6])
    """

    def __init__(self, wide: int, narrow: int, dimensions: int, refined: bool = True) -> None:
        super().__init__()
        self.up = LAYERS[dimensions][1](wide, narrow, 4, 2, 1)
        self.refine = Residual(narrow, dimensions) if refined else nn.Sequential(
            nn.SiLU(), LAYERS[dimensions][0](narrow, narrow, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.refine(self.up(x))


class Painting(nn.Module):
    """The finest features -> an image of some channels.

    Examples
    --------
    >>> Painting(2, Pyramid(channels=(8,), latents=(4,)), 2)(torch.zeros(3, 8, 8, 6)).shape
    torch.Size([3, 2, 8, 6])
    """

    def __init__(self, dimensions: int, sizes: Pyramid, n_outputs: int, normalised: bool = False
                 ) -> None:
        super().__init__()
        width = sizes.channels[0]
        self.steps = nn.Sequential(bend(width, normalised),
                                   LAYERS[dimensions][0](width, n_outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x)


def bend(width: int, normalised: bool) -> nn.Module:
    """The nonlinearity, after a normalisation over each image if asked for."""
    return nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU()) if normalised else nn.SiLU()


def refuse_sides(sides: Sequence[int], sizes: Pyramid) -> None:
    """Raise ValueError for an image that cannot be halved so often."""
    if len(sides) not in LAYERS or any(side % sizes.step for side in sides):
        raise ValueError(f"images have two or three sides that {sizes.step} divides; got "
                         f"{tuple(sides)}")


def soft_clamped(x: Tensor, limit: float = 10.0) -> Tensor:
    """limit tanh(x / limit): what is exponentiated stays finite, with a gradient.

    Examples
    --------
    >>> soft_clamped(torch.tensor([0.1, 1e6])).tolist()
    [0.09999..., 10.0]
    """
    return limit * torch.tanh(x / limit)

"""Networks of voxels: their values as images, and convolutions beside linear paths."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .conv import ConvDecoder, ConvEncoder, Convolutional
from .wide import WideDecoder, WideEncoder

AT_ONCE = 16
"""People whose images are worked on together where no gradient is wanted."""


class Grid(nn.Module):
    """The smallest box around the voxels of a mask whose sides can be halved so often.

    Parameters
    ----------
    mask : bool Tensor, shape (i, j) or (i, j, k)
    halvings : int

    Examples
    --------
    >>> mask = torch.zeros(9, 9, dtype=torch.bool)
    >>> mask[2:7, 4:6] = True
    >>> grid = Grid(mask, 2)
    >>> grid.sides, grid.image(torch.ones(1, 10)).sum().item()
    ((8, 4), 10.0)
    """

    def __init__(self, mask: Tensor, halvings: int) -> None:
        super().__init__()
        where = torch.nonzero(mask)
        low, high = where.amin(0), where.amax(0)
        step = 2 ** halvings
        self.sides = tuple(-(-int(side) // step) * step for side in high - low + 1)
        at = torch.zeros(len(where), dtype=torch.long)
        for side, place in zip(self.sides, (where - low).T):
            at = at * side + place
        self.register_buffer("at", at, persistent=False)  # the mask tells it
        self.at: Tensor

    def image(self, values: Tensor) -> Tensor:
        """(n, n_voxels) -> (n, 1, *sides), 0 outside the mask."""
        image = values.new_zeros(len(values), torch.Size(self.sides).numel())
        return image.index_copy(1, self.at, values).view(-1, 1, *self.sides)

    def values(self, image: Tensor) -> Tensor:
        """The inverse."""
        return image.flatten(1).index_select(1, self.at)


class BentEncoder(WideEncoder):
    """An encoder of scores along principal axes, plus convolutions over the image.

    Parameters
    ----------
    straight : WideEncoder
    grid : Grid
    n_design : int
    networks : Convolutional

    Examples
    --------
    >>> from normfuse.networks import MlpEncoder
    >>> grid = Grid(torch.ones(4, 4, 4, dtype=torch.bool), 1)
    >>> straight = WideEncoder(MlpEncoder(2, 1, 3, hidden=(4,)), torch.ones(2, 64))
    >>> encoder = BentEncoder(straight, grid, 1, Convolutional(channels=(4,)))
    >>> encoder(torch.zeros(5, 64), torch.zeros(5, 1)).mean.shape
    torch.Size([5, 3])
    """

    def __init__(self, straight: WideEncoder, grid: Grid, n_design: int,
                 networks: Convolutional) -> None:
        super().__init__(straight.encoder, straight.down)
        self.grid = grid
        self.conv = ConvEncoder(grid.sides, 1, n_design, sum(straight.encoder.sizes), networks)
        nn.init.zeros_(self.conv.last.weight)
        nn.init.zeros_(self.conv.last.bias)

    def forward(self, x: Tensor, design: Tensor) -> Distribution:
        pieces = [len(x)] if torch.is_grad_enabled() else AT_ONCE
        bends = torch.cat([self.conv(self.grid.image(some), c)
                           for some, c in zip(x.split(pieces), design.split(pieces))])
        straight = self.encoder.numbers(x @ self.down.mT, design)
        return self.encoder.law(*(a + b for a, b in zip(straight,
                                                        bends.split(self.encoder.sizes, -1))))


class BentDecoder(WideDecoder):
    """mean = W [z, c] + b + f(z, c), f convolutional.

    Parameters
    ----------
    straight : WideDecoder
    grid : Grid
    n_design : int
    networks : Convolutional

    Examples
    --------
    >>> grid = Grid(torch.ones(4, 4, 4, dtype=torch.bool), 1)
    >>> straight = WideDecoder(2, torch.zeros(64, 4))
    >>> decoder = BentDecoder(straight, grid, 1, Convolutional(channels=(4,)))
    >>> decoder(torch.zeros(5, 2), torch.zeros(5, 1)).shape
    torch.Size([5, 64])
    """

    def __init__(self, straight: WideDecoder, grid: Grid, n_design: int,
                 networks: Convolutional) -> None:
        super().__init__(straight.n_latent, straight.affine())
        self.grid = grid
        self.conv = ConvDecoder(self.n_latent + n_design, grid.sides, 1, networks)
        nn.init.zeros_(self.conv.last.weight)

    @property
    def is_straight(self) -> bool:
        return not bool(self.conv.last.weight.any())

    def straighten(self) -> None:
        """Leave f out."""
        self.conv.last.weight.data = torch.zeros_like(self.conv.last.weight)

    def bend(self, z: Tensor, design: Tensor) -> Tensor:
        """f, shape (..., n_subjects, n_voxels)."""
        inputs = self.inputs(z, design)
        rows = inputs.flatten(0, -2)
        pieces = rows.split([len(rows)] if torch.is_grad_enabled() else AT_ONCE)
        found = torch.cat([self.grid.values(self.conv(some)) for some in pieces])
        return found.view(*inputs.shape[:-1], found.shape[-1])

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        straight = super().forward(z, design)
        if self.is_straight and not self.training:
            return straight
        return straight + self.bend(z, design)

"""Networks for blocks of very many features: voxels, of which there are more than people."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .mlp import MlpDecoder, MlpEncoder, with_design

MOST_AXES = 64
"""Principal axes kept of a wide block."""


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """The directions in which some people differ most.

    Attributes
    ----------
    down : Tensor, shape (n_axes, n_features)
        x @ down' are their scores, of mean square 1 in these people.
    up : Tensor, shape (n_axes, n_features)
        scores @ up is x as far as the axes hold it.

    Examples
    --------
    >>> x = torch.tensor([[3.0, 4.0, 0.0], [-3.0, -4.0, 0.0], [0.0, 0.0, 1.0]])
    >>> axes = PrincipalAxes.of(x, 2)
    >>> bool(torch.allclose(x @ axes.down.mT @ axes.up, x, atol=1e-6))
    True
    """

    down: Tensor
    up: Tensor

    @classmethod
    def of(cls, x: Tensor, n_axes: int = MOST_AXES) -> PrincipalAxes:
        """Of people (n_people, n_features), far fewer than features; at most half as many axes as
        people, since the last ones are noise of these people only."""
        gram = x @ x.mT
        values, vectors = torch.linalg.eigh(gram)
        usable = int((values > 1e-9 * values[-1]).sum())
        n = max(1, min(n_axes, (len(x) + 1) // 2, usable))
        values, vectors = values[-n:].flip(0), vectors[:, -n:].flip(1)
        unit = vectors.mT @ x / values.sqrt()[:, None]
        sd = (values / len(x)).sqrt()[:, None]
        return cls(unit / sd, unit * sd)


class WideEncoder(nn.Module):
    """An encoder whose first layer is of low rank: it reads the scores along principal axes.

    Parameters
    ----------
    encoder : MlpEncoder
        Of the scores.
    down : Tensor, shape (n_axes, n_features)

    Examples
    --------
    >>> encoder = WideEncoder(MlpEncoder(2, 1, 3, hidden=(4,)), torch.ones(2, 1000))
    >>> encoder(torch.zeros(5, 1000), torch.zeros(5, 1)).mean.shape
    torch.Size([5, 3])
    """

    def __init__(self, encoder: MlpEncoder, down: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("down", down)
        self.down: Tensor

    def forward(self, x: Tensor, design: Tensor) -> Distribution:
        return self.encoder(x @ self.down.mT, design)


class WideDecoder(nn.Module):
    """mean = W [z, c] + b: a decoder of voxels is linear.

    A perceptron costs more than all else at every evaluation of so many features.

    Parameters
    ----------
    n_latent : int
    linear : Tensor, shape (n_features, n_latent + n_design + 1)
        [W, b].

    Examples
    --------
    >>> WideDecoder(2, torch.zeros(1000, 4))(torch.zeros(5, 2), torch.zeros(5, 1)).shape
    torch.Size([5, 1000])
    """

    def __init__(self, n_latent: int, linear: Tensor) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.register_buffer("linear", linear)
        self.linear: Tensor

    @classmethod
    def of(cls, narrow: MlpDecoder, up: Tensor) -> WideDecoder:
        """From a decoder to scores, whose linear path becomes W and b, and ``up``, shape (n_axes,
        n_features), from scores to features."""
        return cls(narrow.n_latent, up.mT @ narrow.affine())

    @property
    def is_straight(self) -> bool:
        """Whether the decoder is linear in z and c."""
        return True

    def inputs(self, z: Tensor, design: Tensor) -> Tensor:
        """[z, c] as W reads it."""
        return with_design(z, design)

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        return self.inputs(z, design) @ self.linear[:, :-1].mT + self.linear[:, -1]

    def affine(self) -> Tensor:
        """[W, b], shape (n_features, n_latent + n_design + 1)."""
        return self.linear

    def set_affine(self, values: Tensor) -> None:
        """Set what :meth:`affine` gives."""
        self.linear = values.contiguous()

    def straighten(self) -> None:
        """It is straight."""

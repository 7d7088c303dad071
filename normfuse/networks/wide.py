"""Networks for blocks of very many features: voxels, of which there are more than people."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .mlp import MlpDecoder, MlpEncoder

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
    """

    def __init__(self, encoder: MlpEncoder, down: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("down", down)
        self.down: Tensor

    def forward(self, x: Tensor, design: Tensor) -> Distribution:
        return self.encoder(x @ self.down.mT, design)


class WideDecoder(nn.Module):
    """mean = W [z, c, 1] + f(z, c) U: a linear path to every feature, and what bends, of low rank.

    Parameters
    ----------
    narrow : MlpDecoder
        To the scores; its linear path moves into W, its perceptron is f.
    up : Tensor, shape (n_axes, n_features)
        U.
    """

    def __init__(self, narrow: MlpDecoder, up: Tensor) -> None:
        super().__init__()
        self.narrow, self.n_latent = narrow, narrow.n_latent
        affine = narrow.affine()
        narrow.set_affine(torch.zeros_like(affine))
        self.register_buffer("up", up)
        self.register_buffer("linear", up.mT @ affine)
        self.up: Tensor
        self.linear: Tensor

    def inputs(self, z: Tensor, design: Tensor) -> Tensor:
        """[z, c] as the layers read it."""
        return self.narrow.inputs(z, design)

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        y = self.inputs(z, design)[..., :self.linear.shape[1] - 1]
        mean = y @ self.linear[:, :-1].mT + self.linear[:, -1]
        return mean if self.is_straight else mean + self.narrow(z, design) @ self.up

    def affine(self) -> Tensor:
        """[W, b], shape (n_features, n_latent + n_design + 1)."""
        return self.linear

    def set_affine(self, values: Tensor) -> None:
        """Set what :meth:`affine` gives."""
        self.linear = values.contiguous()

    @property
    def net(self) -> nn.Sequential:
        """The perceptron."""
        return self.narrow.net

    @property
    def is_straight(self) -> bool:
        """Whether the decoder is linear in z and c."""
        return self.narrow.is_straight

    def straighten(self) -> None:
        """Leave the perceptron out."""
        self.narrow.straighten()

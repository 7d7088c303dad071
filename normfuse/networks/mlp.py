"""Multilayer perceptrons between feature vectors and latent vectors."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..fusion import full, gaussian

SCALE_FLOOR = 1e-3
"""Smallest posterior sd. Latents have prior sd 1, so a thousandth of it is certainty; below it the
gradient of a square root of variance grows without bound."""

FULL_FLOOR = 1e-2
"""The same for full covariances, whose condition number float32 must hold."""

UNIT = 0.5413
"""softplus of it is 1: priors start with sd 1."""


def mlp(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with SiLU between them; the last one is bare.

    Examples
    --------
    >>> [type(layer).__name__ for layer in mlp([3, 8, 2])]
    ['Linear', 'SiLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for wide, narrow in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(wide, narrow), nn.SiLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def with_design(z: Tensor, design: Tensor) -> Tensor:
    """[z, c]: the same covariates beside each of several draws."""
    if not design.shape[-1]:
        return z
    return torch.cat([z, design.expand(*z.shape[:-1], design.shape[-1])], -1)


class MlpEncoder(nn.Module):
    """Features and covariates of one modality -> Gaussian over the latent variables.

    loc = A [x, c] + f(x, c), sd = softplus(...) + floor. The linear path A makes the best linear
    encoder reachable from the first step; f starts small and bends it where that pays.

    Parameters
    ----------
    n_features, n_design, n_latent : int
    hidden : sequence of int
        Widths of the hidden layers; empty for a linear encoder.
    dropout : float
    full_covariance : bool
        Give the lower Cholesky factor of a covariance matrix instead of sds.

    Examples
    --------
    >>> q = MlpEncoder(6, 2, 3, hidden=(8,))(torch.zeros(5, 6), torch.zeros(5, 2))
    >>> q.batch_shape, q.event_shape
    (torch.Size([5]), torch.Size([3]))
    """

    def __init__(self, n_features: int, n_design: int, n_latent: int,
                 hidden: Sequence[int], dropout: float = 0.0, *, skip: bool = True,
                 full_covariance: bool = False) -> None:
        super().__init__()
        width = n_features + n_design
        below = n_latent * (n_latent - 1) // 2 if full_covariance else 0
        self.sizes = [n_latent, n_latent, below]
        self.net = mlp([width, *hidden, sum(self.sizes)], dropout)
        self.skip = nn.Linear(width, n_latent, bias=False) if skip and hidden else None
        self.full_covariance = full_covariance

    def forward(self, x: Tensor, design: Tensor) -> Distribution:
        return self.law(*self.numbers(x, design))

    def numbers(self, x: Tensor, design: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`law` makes Gaussians of."""
        inputs = torch.cat([x, design], -1) if design.shape[-1] else x
        loc, raw, below = self.net(inputs).split(self.sizes, -1)
        return loc if self.skip is None else loc + self.skip(inputs), raw, below

    def law(self, loc: Tensor, raw: Tensor, below: Tensor) -> Distribution:
        """Gaussians of these means, sds before softplus and entries below a diagonal."""
        if not self.full_covariance:
            return gaussian(loc, nn.functional.softplus(raw) + SCALE_FLOOR, check=False)
        rows, columns = torch.tril_indices(loc.shape[-1], loc.shape[-1], -1)
        lower = torch.diag_embed(torch.ones_like(raw))
        lower[..., rows, columns] = below
        # rows of unit length are a correlation matrix's; so an sd is one, whatever is correlated
        lower = lower / lower.norm(dim=-1, keepdim=True)
        return full(loc, (nn.functional.softplus(raw) + FULL_FLOOR)[..., None] * lower,
                    check=False)


class MlpDecoder(nn.Module):
    """Latent variables and covariates -> expected features of one modality.

    mean = W [z, c] + f(z, c).

    Parameters
    ----------
    n_latent, n_design, n_features : int
    hidden : sequence of int
        Widths of the hidden layers, from the latent side; empty for a linear decoder.

    Examples
    --------
    >>> MlpDecoder(2, 1, 5, hidden=(8,))(torch.zeros(7, 2), torch.zeros(7, 1)).shape
    torch.Size([7, 5])
    """

    def __init__(self, n_latent: int, n_design: int, n_features: int,
                 hidden: Sequence[int], dropout: float = 0.0, *, skip: bool = True) -> None:
        super().__init__()
        width, self.n_latent = n_latent + n_design, n_latent
        self.net = mlp([width, *hidden, n_features], dropout)
        self.skip = nn.Linear(width, n_features, bias=False) if skip and hidden else None

    def inputs(self, z: Tensor, design: Tensor) -> Tensor:
        """[z, c] as the layers read it."""
        return with_design(z, design)

    def forward(self, z: Tensor, design: Tensor) -> Tensor:
        z = self.inputs(z, design)
        mean = self.net(z)
        return mean if self.skip is None else mean + self.skip(z)

    def along(self, z: Tensor, design: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """The mean, and how it changes along directions of z, in evaluation mode.

        What forward-mode differentiation gives; of networks this small nearly all of its time goes
        to keeping track.

        Parameters
        ----------
        z : Tensor, shape (n_subjects, n_latent)
        design : Tensor, shape (n_subjects, n_design)
        directions : Tensor, shape (n_directions, n_subjects or 1, n_latent)

        Returns
        -------
        mean : Tensor, shape (n_subjects, n_features)
        slopes : Tensor, shape (n_directions, n_subjects, n_features)
        """
        z = self.inputs(z, design)
        at, slopes = z, directions
        for layer in self.net:
            if isinstance(layer, nn.Linear):  # the covariates, beside z in the first, stay
                slopes = slopes @ layer.weight[:, :slopes.shape[-1]].mT
            elif isinstance(layer, nn.SiLU):
                gate = at.sigmoid()
                slopes = slopes * (gate * (1 + at * (1 - gate)))
            at = layer(at)
        if self.skip is not None:
            at = at + self.skip(z)
            slopes = slopes + directions @ self.skip.weight[:, :self.n_latent].mT
        return at, slopes.expand(-1, len(at), -1)

    def affine(self) -> Tensor:
        """[W, b] of the linear path, shape (n_features, n_latent + n_design + 1).

        Without a linear path, only what the last layer adds is there: W = 0.
        """
        last: Any = self.net[-1]
        if self.skip is not None:
            return torch.cat([self.skip.weight, last.bias[:, None]], -1)
        if len(self.net) == 1:
            return torch.cat([last.weight, last.bias[:, None]], -1)
        return last.bias[:, None]

    @property
    def is_straight(self) -> bool:
        """Whether the decoder is linear in z and c."""
        last: Any = self.net[-1]
        return len(self.net) == 1 or not bool(last.weight.any())

    def straighten(self) -> None:
        """Leave the perceptron out, its last bias excepted."""
        last: Any = self.net[-1]
        if len(self.net) > 1:
            last.weight.data = torch.zeros_like(last.weight)

    def set_affine(self, values: Tensor) -> None:
        """Set what :meth:`affine` gives."""
        last: Any = self.net[-1]
        last.bias.data = values[:, -1].contiguous()
        if values.shape[1] > 1:
            linear: Any = self.skip or last
            linear.weight.data = values[:, :-1].contiguous()


class TopDown(nn.Module):
    """Latents of the levels above -> what every modality expects of the level below them.

    Parameters
    ----------
    n_above, n_level, n_modalities : int
    hidden : sequence of int
        Widths of the hidden layers; empty for linear maps.

    Examples
    --------
    >>> priors, shift = TopDown(2, 4, 3, hidden=(8,))(torch.zeros(5, 2))
    >>> priors.batch_shape, shift.shape
    (torch.Size([3, 5]), torch.Size([3, 5, 4]))
    """

    def __init__(self, n_above: int, n_level: int, n_modalities: int, hidden: Sequence[int], *,
                 skip: bool = True) -> None:
        super().__init__()
        self.shape = (n_modalities, 3, n_level)
        n_outputs = 3 * n_modalities * n_level
        self.net = mlp([n_above, *hidden, n_outputs])
        self.skip = nn.Linear(n_above, n_outputs, bias=False) if skip and hidden else None

    def forward(self, above: Tensor) -> tuple[Distribution, Tensor]:
        """Each modality's prior, batch shape (n_modalities, n_subjects), and the shift that what
        is above brings to its posterior, shape (n_modalities, n_subjects, n_level)."""
        raw = self.net(above)
        if self.skip is not None:
            raw = raw + self.skip(above)
        loc, raw, shift = raw.unflatten(-1, self.shape).movedim(0, 2).unbind(1)
        return gaussian(loc, nn.functional.softplus(raw + UNIT) + SCALE_FLOOR, check=False), shift

"""What all generative models of this package share."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..networks import (BentDecoder, BentEncoder, Grid, MlpDecoder, PrincipalAxes, WideDecoder,
                        WideEncoder)
from .batch import Batch
from .likelihood import MeasuredNormal
from .measured_noise import MeasuredNoise
from .noise import NOISE_FLOOR, Noise
from .recipe import Recipe


MOST_PEOPLE, MOST_CELLS = 512, 2 ** 26
"""Worked on together: people, and numbers (half a gigabyte of float64)."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Several latent draws of each subject, differentiable, with all that bounds need.

    Attributes
    ----------
    z : Tensor, shape (n_draws, n_subjects, n_dimensions)
        In the coordinates that decoders read.
    share : Tensor, shape (n_draws, n_subjects)
        Weights of the draws; each column sums to 1.
    kl : Tensor, broadcasts with ``share``
        KL to the prior of what the draw was drawn from; levels below the top given those above.
    log_prior, log_q : Tensor, shape (n_draws, n_subjects)
        Log densities of z; of a mixture posterior the mixture's.
    alignment : Tensor or None, broadcasts with ``share``
        How far apart the modalities' posteriors are along the draw, times its weight.

    Examples
    --------
    >>> draws = Draws(torch.zeros(5, 4, 2), *(torch.full((5, 4), 0.2) for _ in range(4)))
    >>> draws.take(torch.tensor([[3, 0, 4, 1]])).z.shape
    torch.Size([1, 4, 2])
    """

    z: Tensor
    share: Tensor
    kl: Tensor
    log_prior: Tensor
    log_q: Tensor
    alignment: Tensor | None = None

    def take(self, rows: Tensor) -> Draws:
        """Some draws of each subject; ``rows`` (n_chosen, n_subjects). Without their alignment."""
        fields = (self.share, self.kl.expand_as(self.share), self.log_prior, self.log_q)
        z = self.z.gather(0, rows[..., None].expand(*rows.shape, self.z.shape[-1]))
        return Draws(z, *(t.gather(0, rows) for t in fields))


class Vae(nn.Module, ABC):
    """p(z), p(x_m | z, c) = N(mu_m(z, c), Psi_m), and q(z | x_S, c) by fusion.

    One encoder and one decoder per modality, conditioned on the covariates c; what a modality was
    not measured for has no likelihood term. Training fuses a random subset of each subject's
    modalities and reconstructs all of them, without which no modality can be predicted from the
    others. The noise sd s_m of each feature is set once an epoch to its closed-form optimum,
    s^2 = mean of (x - mu(z))^2, so it depends neither on a start value nor on a learning rate.
    While training Psi_m is diagonal; :mod:`normfuse.refit` may learn correlations
    (:class:`~normfuse.models.noise.Noise`).

    ``sums`` holds what ``end_epoch`` makes the noise of: sums over the people of an epoch so far.

    Latent positions outside training are in *standard* coordinates e, in which the prior is
    N(0, I): ``decode`` reads them, ``posterior`` and ``position`` speak of them.
    """

    def __init__(self, n_features: Mapping[str, int], n_design: int, recipe: Recipe) -> None:
        super().__init__()
        self.names = tuple(n_features)
        self.encoders: Any
        self.recipe, self.n_dimensions, self.n_design = recipe, recipe.n_dimensions, n_design
        self.decoders: Any = nn.ModuleList(
            MlpDecoder(self.n_dimensions, n_design, width, recipe.hidden[::-1], recipe.dropout,
                       skip=recipe.skip) for width in n_features.values())
        self.noise: Any = nn.ModuleList(Noise(width) for width in n_features.values())
        self.sums = [torch.zeros(2, width) for width in n_features.values()]
        self.alignments: Any = nn.ModuleList()

    def _align(self, fusions: Iterable[Any], widths: Sequence[int]) -> None:
        """An alignment for each latent level, of what all modalities share there."""
        wanted = self.recipe.alignment
        if wanted is not None:
            self.alignments.extend(wanted.sized(len(self.names), width, fuse.owned())
                                   for fuse, width in zip(fusions, widths))

    def widen(self, axes: Sequence[PrincipalAxes | None]) -> None:
        """From scores along principal axes to the features themselves, where there are axes.

        A model of scores (n_axes of them as its features) becomes one of all features that
        expects what the scores did, with independent noise of sd 1 that is still to be learned.
        """
        for m, found in enumerate(axes):
            if found is not None:
                self.encoders[m] = WideEncoder(self.encoders[m], found.down)
                self.decoders[m] = WideDecoder.of(self.decoders[m], found.up)
                self.noise[m] = Noise(found.up.shape[1]).to(found.up.dtype)
                self.sums[m] = torch.zeros(2, found.up.shape[1])

    def convolve(self, masks: Sequence[Tensor | None]) -> None:
        """Add the recipe's convolutions to modalities of images, where there are masks.

        To a model after :meth:`widen`; it expects what it did until they are trained.
        """
        networks = self.recipe.voxels
        for m, mask in enumerate(masks):
            if mask is not None and networks is not None:
                grid = Grid(mask, networks.halvings)
                self.encoders[m] = BentEncoder(self.encoders[m], grid, self.n_design, networks)
                self.decoders[m] = BentDecoder(self.decoders[m], grid, self.n_design, networks)

    def for_training(self) -> None:
        """In single precision, but for what a fusion was given: it stays as exact as it came."""
        for name, part in self.named_children():
            if name in ("fusion", "fusions", "mixture", "alignments"):
                for parameter in part.parameters():
                    parameter.data = parameter.data.float()
            else:
                part.float()

    @property
    def bends_images(self) -> bool:
        """Whether convolutions decode images: no evaluation of them is cheap."""
        return any(isinstance(d, BentDecoder) and not d.is_straight for d in self.decoders)

    @property
    def people_at_once(self) -> int:
        """How many people's expectations fit in memory, at as many points as a posterior has."""
        return max(1, min(MOST_PEOPLE, self.points_at_once // (2 * self.n_dimensions + 1)))

    @property
    def points_at_once(self) -> int:
        """At how many latent positions expectations fit in memory."""
        return max(1, MOST_CELLS // sum(len(sd) for sd in self.noise_sd))

    @abstractmethod
    def model(self, batch: Batch, fused: Tensor) -> None:
        """The generative model, in Pyro."""

    @abstractmethod
    def guide(self, batch: Batch, fused: Tensor) -> None:
        """The approximate posterior given the modalities where ``fused``, in Pyro."""

    @abstractmethod
    def draws(self, batch: Batch, fused: Tensor, n_draws: int) -> Draws:
        """At least so many draws from the posterior; as many from each component of a mixture."""

    @abstractmethod
    def posterior(self, batch: Batch, fused: Tensor | None = None) -> Distribution:
        """q(e | x_S, c) from the present modalities or from those in ``fused``.

        Batch shape (n_subjects,), event shape (n_dimensions,); Gaussian or a mixture of Gaussians.
        """

    @abstractmethod
    def position(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The fused posterior's mean e, and each modality's part in it.

        Returns
        -------
        position : Tensor, shape (n_subjects, n_dimensions)
        parts : Tensor, shape (n_modalities, n_subjects, n_dimensions)
            Sums to ``position`` over modalities; 0 where a modality is absent.
        """

    @abstractmethod
    def from_standard(self, standard: Tensor) -> Tensor:
        """z, as training draws it, of standard coordinates, (..., n_subjects, n_dimensions)."""

    @property
    def forward_mode(self) -> bool:
        """Whether :meth:`decode` can be differentiated in forward mode."""
        return True

    @abstractmethod
    def owned(self) -> Tensor | None:
        """Which of the dimensions of z each modality's decoder reads; None: all."""

    @property
    def noise_sd(self) -> list[nn.Parameter]:
        """Of every modality, shape (n_features_m,)."""
        return [noise.sd for noise in self.noise]

    def noise_among(self, batch: Batch) -> list[MeasuredNoise]:
        """The noise of every modality in the cells that these people were measured in."""
        return [noise.among(measured) for noise, measured in zip(self.noise, batch.measured)]

    @property
    def is_affine(self) -> bool:
        """Whether expected features are affine in standard coordinates, alike for everybody."""
        return False

    def decode(self, standard: Tensor, design: Tensor) -> list[Tensor]:
        """Expected features of every modality, shape (..., n_subjects, n_features_m)."""
        return self.decoded(self.from_standard(standard), design)

    def decoded(self, z: Tensor, design: Tensor) -> list[Tensor]:
        """The same at latents z."""
        return [decode(part, design) for decode, part in zip(self.decoders, self._read(z))]

    def along(self, standard: Tensor, axes: Tensor, design: Tensor
              ) -> tuple[list[Tensor], list[Tensor]]:
        """Expected features, and their derivatives along axes of standard coordinates.

        Forward mode: there are far fewer latents than features.

        Parameters
        ----------
        standard : Tensor, shape (n_subjects, n_dimensions)
        axes : Tensor, shape (n_axes, n_dimensions)
        design : Tensor, shape (n_subjects, n_design)

        Returns
        -------
        means : list of Tensor, shape (n_subjects, n_features_m)
        slopes : list of Tensor, shape (n_axes, n_subjects, n_features_m)
        """
        z, turned = self._from_standard_along(standard, axes)
        means, slopes = [], []
        for decode, part, moved in zip(self.decoders, self._read(z), self._read(turned)):
            mean, slope = decode.along(part, design, moved) if isinstance(decode, MlpDecoder) \
                else differentiated(lambda at: decode(at, design), part, moved)
            means.append(mean)
            slopes.append(slope)
        return means, slopes

    def _from_standard_along(self, standard: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
        """z, and its derivatives along axes, shape (n_axes, n_subjects or 1, n_dimensions)."""
        return differentiated(self.from_standard, standard, axes[:, None])

    def decoded_by(self, m: int, standard: Tensor, design: Tensor) -> Tensor:
        """Expected features of one modality."""
        return self.decoders[m](self.read_by_decoders(standard)[m], design)

    def read_by_decoders(self, standard: Tensor) -> list[Tensor]:
        """What each decoder reads of these latents."""
        return self._read(self.from_standard(standard))

    def _read(self, z: Tensor) -> list[Tensor]:
        owned = self.owned()
        return [z if owned is None else z * owned[m] for m in range(len(self.names))]

    @abstractmethod
    def fused_in_training(self, present: Tensor, *, one_component: bool) -> Tensor:
        """The modalities that one training step fuses for each subject.

        ``one_component``: of a mixture over whole hierarchies, draw one subset of them.
        """

    def loss(self, batch: Batch, warmup: float = 1.0) -> dict[str, Tensor]:
        """Named terms whose sum is minimised; ``warmup`` in [0, 1] scales the KL."""
        terms, squares = self.recipe.bound.terms(self, batch, warmup)
        if self.training:
            self._remember(batch, squares)
        return terms

    def scatters(self, z: Tensor, batch: Batch) -> dict[str, MeasuredNormal]:
        """p(x_m | z) of every modality."""
        means = self.decoded(z, batch.design)
        return {name: MeasuredNormal(mean, self.noise[k], batch.measured[k])
                for k, (name, mean) in enumerate(zip(self.names, means))}

    def inputs(self, batch: Batch) -> list[Tensor]:
        """What the encoders read."""
        xs = [_filled(x, m) for x, m in zip(batch.x, batch.measured)]
        if self.training and self.recipe.hide_cells:
            xs = [nn.functional.dropout(x, self.recipe.hide_cells) for x in xs]
        return xs

    def _remember(self, batch: Batch, squares: Mapping[str, Tensor]) -> None:
        for k, name in enumerate(self.names):
            measured = batch.measured[k]
            self.sums[k][0] += squares[name]
            self.sums[k][1] += len(batch) if measured is None else measured.sum(0)

    def end_epoch(self) -> None:
        """Set the noise to its optimum for the epoch that ends."""
        for sd, squares in zip(self.noise_sd, self.sums):
            total, count = squares
            seen = count > 0
            sd.data[seen] = (total[seen] / count[seen]).sqrt().clamp_min(NOISE_FLOOR).to(sd.dtype)
            squares.zero_()


def differentiated(act: Callable[[Tensor], Tensor], at: Tensor, directions: Tensor
                   ) -> tuple[Tensor, Tensor]:
    """What ``act`` makes of a block, and its derivatives along each of the directions.

    Examples
    --------
    >>> differentiated(torch.square, torch.tensor([[3.0]]), torch.tensor([[[1.0]], [[2.0]]]))
    (tensor([[9.]]), tensor([[[ 6.]],
    <BLANKLINE>
            [[12.]]]))
    """
    def slope(direction: Tensor) -> Any:
        return torch.func.jvp(act, (at,), (direction.expand_as(at),))

    values, slopes = torch.func.vmap(slope)(directions)
    return values[0], slopes


def _filled(x: Tensor, measured: Tensor | None) -> Tensor:
    """Cells that were not measured are 0; the others stand in for them, as under dropout.

    Without that, a latent position would shrink towards 0 with every failed region. Whatever such
    a cell holds is not read: 0 * NaN would be NaN, and so would the encoder's gradient.
    """
    if measured is None:
        return x
    count = measured.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(measured, x, 0.0) * (measured.shape[-1] / count).to(x.dtype)


def hide_some(present: Tensor, probability: float) -> Tensor:
    """Hide each present modality with this probability, but never all of a subject's.

    Examples
    --------
    >>> present = torch.tensor([[True, True], [True, False]])
    >>> hide_some(present, 0.9).any(0)
    tensor([True, True])
    """
    kept = present & (torch.rand(present.shape, device=present.device) >= probability)
    return torch.where(kept.any(0), kept, present)

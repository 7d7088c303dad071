"""Latent images at several resolutions, each fused from the modalities that are there."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..fusion import Aggregator, Alignment, Mixture, component_kl, gaussian
from ..fusion.experts import moments
from ..networks.pyramid import LAYERS, Looking, Pyramid, Residual, Widening, bend, soft_clamped
from .vae import hide_some

SHIFTS, LOG_RATIO = 0.1, -2.0
"""Where experts start: sd of the weights that make their shifts, log of posterior by prior sd."""


WIDEST = 2.0
"""Largest log of a prior's sd, and of an expert's by its prior's. With a small KL weight little
else keeps sds from growing: a draw a thousand wide undoes what a hundred steps have learned."""


@dataclass(frozen=True, eq=False)
class Fused:
    """One resolution of some images: what was drawn, and from what.

    Attributes
    ----------
    z : Tensor, shape (n_images, n_latent, *sides)
    kl : Tensor, shape (n_images,)
        KL(q || p) of this level given the draws above, in nats, summed over the image.
    experts, priors : Distribution
        Every pixel a row: batch shapes (n_modalities, n_images * n_pixels).
    prior, posterior : Distribution
        What they are fused to: the same without the first.
    apart : Tensor, shape (n_images,), or None
        The alignment of the experts, if asked for, times its weight, summed over the image.
    """

    z: Tensor
    kl: Tensor
    experts: Distribution
    priors: Distribution
    prior: Distribution
    posterior: Distribution
    apart: Tensor | None = None


class ImageLadder(nn.Module):
    r"""z = (z_L, …, z_1), images of latent vectors, the innermost and coarsest first.

    At every pixel of every level, with h the features computed from the levels above,

    .. math:: p_{lm}(z_l | z_{>l}) = N(a_{lm}(h), b_{lm}(h)^2), \quad
              q_{lm} = N(a_{lm} + b_{lm} d_l(h, x_m), (b_{lm} r_l(h, x_m))^2)

    and prior and posterior are the aggregator's, as in :class:`~normfuse.models.LadderVAE`: what
    is absent is left out, or stands there as its prior, as ``fusion.missing`` says; where nothing
    is known q = p and the KL is 0. d and r are the same networks for all modalities; the encoders
    that give x_m are each modality's own. A mixture over subsets is one over whole ladders: one
    subset for all pixels of all levels of an image.

    Parameters
    ----------
    n_modalities, dimensions : int
        2 or 3 dimensions.
    fusion : Aggregator
    sizes : Pyramid
    shared_prior : bool
        One prior for all modalities in the place of one for each.
    alignment : Alignment, optional
        Of each level's experts, in standard coordinates of its prior.
    normalised : bool
        Experts look at features whose mean and sd over an image were taken out: for labels, which
        do not depend on them. Who is to give intensities back needs them.

    References
    ----------
    Dorent et al. (2025), arXiv 2410.19378: image ladders, products with the conditional prior.
    Precisions add here, as in the article; in the released code reciprocals of sds do.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> ladder = ImageLadder(2, 2, WassersteinBarycenter(), Pyramid((4, 8), (2, 4)))
    >>> there = torch.tensor([[True, False, True], [True, True, False]])
    >>> seen = ladder.look(torch.randn(2, 3, 16, 12), there)
    >>> state, levels = ladder.climb(seen, there)
    >>> state.shape, [tuple(level.z.shape) for level in levels]
    (torch.Size([3, 4, 16, 12]), [(3, 4, 8, 6), (3, 2, 16, 12)])
    """

    def __init__(self, n_modalities: int, dimensions: int, fusion: Aggregator, sizes: Pyramid,
                 shared_prior: bool = False, alignment: Alignment | None = None,
                 normalised: bool = False) -> None:
        super().__init__()
        self.n_modalities, self.sizes, self.dimensions = n_modalities, sizes, dimensions
        self.shared_prior = shared_prior
        self.encoders = nn.ModuleList(Looking(dimensions, sizes) for _ in range(n_modalities))
        widths, latents = sizes.channels[::-1], sizes.latents[::-1]
        conv = LAYERS[dimensions][0]
        self.start = nn.Parameter(torch.zeros(widths[0], *(1,) * dimensions))
        inner = fusion.inner if isinstance(fusion, Mixture) else fusion
        self.mixture = fusion.sized(n_modalities, sum(latents)) \
            if isinstance(fusion, Mixture) else None
        self.fusions = nn.ModuleList(inner.sized(n_modalities, c) if c else nn.Identity()
                                     for c in latents)
        self.alignments = nn.ModuleList(
            nn.Identity() if alignment is None or not c else
            alignment.sized(n_modalities, c, cast(Aggregator, fuse).owned())
            for fuse, c in zip(self.fusions, latents))
        self.aligns = alignment is not None
        n_priors = 1 if shared_prior else n_modalities
        self.priors = nn.ModuleList(
            _nothing_yet(conv(width, 2 * c * n_priors, 1)) if c and k else nn.Identity()
            for k, (width, c) in enumerate(zip(widths, latents)))
        # at the image's own resolution a step costs four times that of all others: little is done
        reach = [3] * (len(widths) - 1) + [1]
        self.experts = nn.ModuleList(
            _Expert(width, c, wide, dimensions, normalised) if c else nn.Identity()
            for width, c, wide in zip(widths, latents, reach))
        self.told = nn.ModuleList(nn.Sequential(
            conv(c, width, 3, padding=1),
            Residual(width, dimensions) if wide > 1 else nn.Identity())
            if c else nn.Identity() for width, c, wide in zip(widths, latents, reach))
        self.widen = nn.ModuleList(Widening(wide, narrow, dimensions, beyond > 1)
                                   for wide, narrow, beyond in zip(widths, widths[1:], reach[1:]))

    def look(self, images: Tensor, present: Tensor) -> list[Tensor]:
        """Features (n_modalities, n_images, channels, *sides) at each level, the coarsest first.

        Absent images are not looked at: their features are 0, whatever stands in ``images``.
        """
        found: list[list[Tensor]] = [[] for _ in self.sizes.channels]
        for m, encode in enumerate(self.encoders):
            rows = torch.nonzero(present[m]).ravel()
            seen = encode(images[m].index_select(0, rows).unsqueeze(1)) if len(rows) else None
            for k, level in enumerate(found):
                shape = (images.shape[1], self.sizes.channels[k],
                         *(side >> k for side in images.shape[2:]))
                empty = images.new_zeros(shape)
                level.append(empty if seen is None else empty.index_copy(0, rows, seen[k]))
        return [torch.stack(level) for level in found[::-1]]

    def climb(self, seen: Sequence[Tensor], fused: Tensor, temperature: float = 1.0,
              aligned: Tensor | None = None) -> tuple[Tensor, list[Fused]]:
        """Draw from the coarsest level to the finest: the finest features, and every level.

        Parameters
        ----------
        seen : sequence of Tensor
            From :meth:`look`.
        fused : bool Tensor, shape (n_modalities, n_images)
            Which of the images that were looked at are fused.
        temperature : float
            Multiplies the sd of draws; 0 takes means.
        aligned : bool Tensor like ``fused``, optional
            Which of the images that were looked at are drawn together; by default nothing is.
        """
        n_images, sides = seen[0].shape[1], seen[0].shape[3:]
        h = self.start.expand(n_images, -1, *sides).contiguous()
        levels = []
        for k, features in enumerate(seen):
            if k:
                h = self.widen[k - 1](h)
            if self.sizes.latents[-1 - k]:
                level = self.level(k, h, features, fused, temperature)
                if aligned is not None and self.aligns:
                    level = replace(level, apart=self._apart(k, h, features, aligned))
                h = h + self.told[k](level.z)
                levels.append(level)
        return h, levels

    def level(self, k: int, h: Tensor, features: Tensor, fused: Tensor, temperature: float
              ) -> Fused:
        """Level k from the coarsest, given the features of those above."""
        fuse: Any = self.fusions[k]
        n_images, sides = h.shape[0], h.shape[2:]
        experts, priors = self._experts(k, h, features, fused)
        pixels = sides.numel()
        posterior = fuse(experts, fused.repeat_interleave(pixels, 1), priors)
        prior = fuse.prior(priors)
        loc, scale = moments(posterior)
        z = loc if temperature == 0 else loc + temperature * scale * torch.randn_like(loc)
        kl = component_kl(posterior, prior).unflatten(0, (n_images, pixels)).sum(1)
        # contiguous: GroupNorm's gradient of a few channels in another layout crashes (torch 2.13)
        z = z.unflatten(0, (n_images, *sides)).movedim(-1, 1).contiguous()
        return Fused(z, kl, experts, priors, prior, posterior)

    def _apart(self, k: int, h: Tensor, features: Tensor, aligned: Tensor) -> Tensor:
        """Of each image. What is drawn above is given, or private dimensions there would move to
        suit this level; in coordinates of z a small prior would make any distance small."""
        align, fuse = (cast(Any, parts[k]) for parts in (self.alignments, self.fusions))
        experts, priors = self._experts(k, h.detach(), features, aligned)
        origin, unit = moments(fuse.prior(priors))
        loc, scale = moments(experts)
        pixels = h.shape[2:].numel()
        each = align(gaussian((loc - origin) / unit, scale / unit, check=False),
                     aligned.repeat_interleave(pixels, 1))
        return align.weight * each.view(-1, pixels).sum(1)

    def _experts(self, k: int, h: Tensor, features: Tensor, fused: Tensor
                 ) -> tuple[Distribution, Distribution]:
        """Posteriors of the modalities that are fused, and priors of all, every pixel a row."""
        priors = self._priors(k, h)
        origin, unit = moments(priors)
        rows = torch.nonzero(fused.ravel()).ravel()
        said = soft_clamped(self.experts[k](h, features.flatten(0, 1), rows))
        everyone = said.new_zeros(fused.numel(), *said.shape[1:]).index_copy(0, rows, said)
        shift, log_ratio = (_by_pixel(t, self.n_modalities)
                            for t in everyone.chunk(2, 1))
        scale = unit * _bounded(log_ratio).exp()
        return gaussian(origin + unit * shift, scale, check=False), priors

    def _priors(self, k: int, h: Tensor) -> Distribution:
        """Each modality's own, every pixel a row; N(0, I) at the coarsest level."""
        n_pixels, c = h.shape[0] * h.shape[2:].numel(), self.sizes.latents[-1 - k]
        if k == 0:
            origin = h.new_zeros(self.n_modalities, n_pixels, c)
            return gaussian(origin, torch.ones_like(origin), check=False)
        said = soft_clamped(self.priors[k](h))
        said = said.unflatten(1, (-1, 2 * c)).movedim(1, 0)
        loc, log_scale = (_by_pixel(t.flatten(0, 1), len(said)) for t in said.chunk(2, 2))
        every = (self.n_modalities, n_pixels, c)
        return gaussian(loc.expand(every), _bounded(log_scale).exp().expand(every), check=False)

    def fused_in_training(self, present: Tensor, hide: float) -> Tensor:
        """Which modalities a training step sees: a subset by chance, drawn for each image.

        By the weights of a mixture; else each modality is hidden with probability ``hide``.
        """
        if self.mixture is None:
            return hide_some(present, hide)
        drawn = torch.multinomial(self.mixture.chances(present).T, 1)[:, 0]
        return self.mixture.table(len(present)).to(present.device).bool()[drawn].T & present


class _Expert(nn.Module):
    """[h, x_m] -> shifts and log ratios of sd of a level, of any modality.

    The first convolution is one of h, once an image, plus one of every x_m.
    """

    def __init__(self, width: int, n_latent: int, side: int, dimensions: int, normalised: bool
                 ) -> None:
        super().__init__()
        conv = LAYERS[dimensions][0]
        self.of_h, self.of_x = (nn.Sequential(
            bend(width, normalised), conv(width, width, side, padding=side // 2, bias=k == 0))
            for k in range(2))
        self.rest = nn.Sequential(bend(width, normalised),
                                  _nearly_sure(conv(width, 2 * n_latent, 1)))

    def forward(self, h: Tensor, features: Tensor, rows: Tensor) -> Tensor:
        """Of ``rows`` of the features, (n_modalities * n_images, …); h has one row an image."""
        seen = self.of_x(features.index_select(0, rows))
        return self.rest(seen + self.of_h(h).index_select(0, rows % len(h)))


def _bounded(log_scale: Tensor) -> Tensor:
    """Smoothly at most WIDEST; the same far below."""
    return WIDEST - nn.functional.softplus(WIDEST - log_scale)


def _by_pixel(images: Tensor, n_modalities: int) -> Tensor:
    """(n_modalities * n_images, c, *sides) -> (n_modalities, n_images * n_pixels, c)."""
    return images.movedim(1, -1).reshape(n_modalities, -1, images.shape[1])


def _nothing_yet(conv: nn.Module) -> nn.Module:
    """A layer that starts at 0: priors are N(0, I)."""
    for weight in conv.parameters():
        nn.init.zeros_(weight)
    return conv


def _nearly_sure(conv: Any) -> nn.Module:
    """A layer of shifts and log ratios of sd that starts with small shifts and narrow posteriors.

    Starting as the prior, networks would first have to learn through draws as wide as it.
    """
    half = len(conv.bias) // 2
    with torch.no_grad():
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        nn.init.normal_(conv.weight[:half], std=SHIFTS)
        conv.bias[half:] = LOG_RATIO
    return conv

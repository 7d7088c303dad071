"""The network of a synthesiser: latent images of every contrast, and all contrasts from them."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..fusion import Aggregator, Alignment
from ..models.image_ladder import Fused, ImageLadder
from ..networks.pyramid import Painting, Pyramid, soft_clamped
from .adversarial import Adversaries
from .images import Images
from .objectives import laplace_nll

LOG_SCALE = 5.0
"""A pixel's scale stays within exp(-5) and exp(5) sd of its modality."""


class SynthesisNet(nn.Module):
    r"""p(z) of an image ladder, p(x_m | z) = Laplace(mu_m(z_1), b_m(z_1)) at every pixel.

    One step draws a subset of each image's modalities (by the weights of a mixture, else each
    is hidden with probability ``hide``), infers z from it and reconstructs *all* that was
    measured, which is what lets the subset foretell the others:

    .. math:: loss = - E_q log p(x | z) + \beta \sum_l KL(q_l \| p_l)

    per voxel and modality, in nats.

    Parameters
    ----------
    names : sequence of str
    dimensions : int
    fusion : Aggregator
    sizes : Pyramid
    shared_prior : bool
    hide : float
    kl_weight : float
        beta.
    alignment : Alignment, optional
    adversaries : Adversaries, optional
        Judge what is synthesised once the warm-up is over, in training only: validation is of
        the likelihood and the KL.
    """

    def __init__(self, names: tuple[str, ...], dimensions: int, fusion: Aggregator,
                 sizes: Pyramid, *, shared_prior: bool = False, hide: float = 0.5,
                 kl_weight: float = 1.0, alignment: Alignment | None = None,
                 adversaries: Adversaries | None = None) -> None:
        super().__init__()
        self.names, self.hide, self.kl_weight = names, hide, kl_weight
        self.ladder = ImageLadder(len(names), dimensions, fusion, sizes, shared_prior, alignment)
        self.painting = Painting(dimensions, sizes, 2 * len(names))
        self.adversaries = adversaries

    def loss(self, batch: Images, warmup: float = 1.0) -> dict[str, Tensor]:
        """Terms by name, in nats a voxel of a modality."""
        fused = self.ladder.fused_in_training(batch.present, self.hide)
        aligned = batch.present if self.ladder.aligns else None  # also what this step hides
        seen = self.ladder.look(batch.values, fused if aligned is None else aligned)
        h, levels = self.ladder.climb(seen, fused, aligned=aligned)
        loc, log_scale = self.decoded(h)
        nll = torch.where(batch.known & _wide(batch.present, loc),
                          laplace_nll(batch.values, loc, log_scale), 0.0)
        cells = nll.numel()
        terms = {name: nll[m].sum() / cells for m, name in enumerate(self.names)}
        for k, level in enumerate(levels):
            terms[f"kl z{len(levels) - k}"] = self.kl_weight * warmup * level.kl.sum() / cells
        apart = [level.apart.sum() for level in levels if level.apart is not None]
        if apart:
            terms["alignment"] = warmup * torch.stack(apart).sum() / cells
        if self.adversaries is not None and self.training and warmup == 1:
            made = torch.where(batch.inside, loc, 0.0)
            terms |= self.adversaries.terms(made, batch.values, batch.present)
        return terms

    def decoded(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """loc and log scale, (n_modalities, n_images, *sides) each."""
        loc, log_scale = self.painting(h).movedim(1, 0).chunk(2)
        return loc, soft_clamped(log_scale, LOG_SCALE)

    def drawn(self, batch: Images, temperature: float) -> tuple[Tensor, Tensor, list[Fused]]:
        """One draw of z from what is present: loc and log scale of all modalities."""
        seen = self.ladder.look(batch.values, batch.present)
        h, levels = self.ladder.climb(seen, batch.present, temperature)
        return (*self.decoded(h), levels)

    @torch.no_grad()
    def predicted(self, batch: Images, temperature: float, draws: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of every modality given those present.

        The variance is that of the Laplace law plus that of its place over draws of z.
        """
        locs, variance = [], torch.zeros((), device=batch.values.device)
        for _ in range(draws if temperature else 1):
            loc, log_scale, _ = self.drawn(batch, temperature)
            locs.append(loc)
            variance = variance + 2 * torch.exp(2 * log_scale)
        stacked = torch.stack(locs)
        return stacked.mean(0), variance / len(locs) + stacked.var(0, unbiased=False)


def _wide(present: Tensor, images: Tensor) -> Tensor:
    return present.view(*present.shape, *(1,) * (images.dim() - 2))

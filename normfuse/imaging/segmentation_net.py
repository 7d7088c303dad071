"""The network of a segmenter: latent images of what is there, and each voxel's class from them."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..fusion import Aggregator, Alignment
from ..models.image_ladder import ImageLadder
from ..networks.pyramid import Painting, Pyramid
from .images import Images
from .objectives import dice_cross_entropy


class SegmentationNet(nn.Module):
    r"""p(z) of an image ladder, p(c | z) = softmax(f(z))_c at every pixel.

    One step hides some of each image's modalities (each with probability ``hide``, or a subset by
    the weights of a mixture), infers z from the others and labels the image:

    .. math:: loss = Dice(p, c) - \log p(c | z) + \beta \sum_l KL(q_l \| p_l)

    Dice over the brain of the whole batch and means over its pixels; the KL too is per pixel.

    Parameters
    ----------
    names : sequence of str
        Of modalities.
    dimensions : int
    fusion : Aggregator
    sizes : Pyramid
    n_classes : int
        Background included, which is class 0.
    hide : float
    kl_weight : float
        beta.
    alignment : Alignment, optional
    """

    def __init__(self, names: tuple[str, ...], dimensions: int, fusion: Aggregator,
                 sizes: Pyramid, n_classes: int, *, hide: float = 0.5, kl_weight: float = 1e-4,
                 alignment: Alignment | None = None) -> None:
        super().__init__()
        self.names, self.n_classes = names, n_classes
        self.hide, self.kl_weight = hide, kl_weight
        self.ladder = ImageLadder(len(names), dimensions, fusion, sizes, alignment=alignment,
                                  normalised=True)
        self.painting = Painting(dimensions, sizes, n_classes, normalised=True)

    def loss(self, batch: Images, warmup: float = 1.0) -> dict[str, Tensor]:
        """Terms by name; ``batch.labels`` are classes."""
        if batch.labels is None:
            raise ValueError("images without labels teach no segmentation")
        fused = self.ladder.fused_in_training(batch.present, self.hide)
        aligned = batch.present if self.ladder.aligns else None  # also what this step hides
        seen = self.ladder.look(batch.values, fused if aligned is None else aligned)
        h, levels = self.ladder.climb(seen, fused, aligned=aligned)
        inside = batch.inside
        dice, entropy = dice_cross_entropy(self.painting(h).movedim(1, -1)[inside],
                                           batch.labels[inside])
        terms, pixels = {"dice": dice, "cross entropy": entropy}, inside.sum()
        for k, level in enumerate(levels):
            terms[f"kl z{len(levels) - k}"] = self.kl_weight * warmup * level.kl.sum() / pixels
        apart = [level.apart.sum() for level in levels if level.apart is not None]
        if apart:
            terms["alignment"] = warmup * torch.stack(apart).sum() / pixels
        return terms

    @torch.no_grad()
    def logits(self, batch: Images, temperature: float, draws: int) -> Tensor:
        """Of each draw of z given what is present, (draws, n_images, n_classes, *sides)."""
        seen = self.ladder.look(batch.values, batch.present)
        return torch.stack([self.painting(self.ladder.climb(seen, batch.present, temperature)[0])
                            for _ in range(draws if temperature else 1)])

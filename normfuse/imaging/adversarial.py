"""An adversarial term: synthesised patches that a network cannot tell from measured ones."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..fusion import Choice
from ..networks.pyramid import LAYERS


@dataclass(frozen=True, repr=False)
class PatchAdversary(Choice):
    """Asks for an adversarial term beside the likelihood (off unless it is given).

    A discriminator for each modality judges overlapping patches; least squares in the place of
    log odds. It joins when the plan's ``warmup`` is over: make that most of the training. Sharper
    pictures are no better estimates, and errors grow a little: use it where pictures are looked
    at, not where they are measured.

    Parameters
    ----------
    weight : float
        Of the term for the synthesiser.
    width : int
        Channels of the first layer.
    layers : int
        Halvings of the image; a patch is then about 3 x 2^layers pixels wide.
    reserve : int
        Measured images of each modality kept for steps in whose batch nobody has it.

    References
    ----------
    Isola et al. (2017), arXiv 1611.07004 (patches); Mao et al. (2017), arXiv 1611.04076 (least
    squares); weight and reserve after Dorent et al. (2025), arXiv 2410.19378.

    Examples
    --------
    >>> PatchAdversary(weight=0.05)
    PatchAdversary(weight=0.05)
    """

    weight: float = 0.025
    width: int = 32
    layers: int = 3
    reserve: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight is a number above 0; got {self.weight!r}")
        for name in ("width", "layers", "reserve"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is a whole number above 0; got {getattr(self, name)!r}")


class Adversaries(nn.Module):
    """A discriminator of patches for each modality, and its reserve of measured images."""

    def __init__(self, choice: PatchAdversary, n_modalities: int, sides: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = choice.weight
        self.judges = nn.ModuleList(_judge(len(sides), choice) for _ in range(n_modalities))
        self.register_buffer("kept", torch.zeros(n_modalities, choice.reserve, *sides))
        self.register_buffer("count", torch.zeros(n_modalities, dtype=torch.long))

    def terms(self, made: Tensor, measured: Tensor, present: Tensor) -> dict[str, Tensor]:
        """What the synthesiser minimises, and what the judges do.

        Both in one sum: in the first the judges' weights stand still, in the second the images.
        """
        fools, tells = [], []
        for m, judge in enumerate(self.judges):
            real = self._real(m, measured[m][present[m]])
            if not len(real):
                continue
            still = {name: p.detach() for name, p in judge.named_parameters()}
            fake = made[m].unsqueeze(1)
            fools.append(((functional_call(judge, still, (fake,)) - 1) ** 2).mean())
            tells.append((judge(fake.detach()) ** 2).mean() / 2
                         + ((judge(real.unsqueeze(1)) - 1) ** 2).mean() / 2)
        if not fools:
            return {}
        return {"adversary": self.weight * torch.stack(fools).mean(),
                "judge": torch.stack(tells).mean()}

    def _real(self, m: int, there: Tensor) -> Tensor:
        """Those of the batch, else of the reserve, which is kept up to date."""
        kept, counts = self.get_buffer("kept")[m], self.get_buffer("count")
        count = int(counts[m])
        for image in there.detach():
            kept[count % len(kept)] = image
            count += 1
        counts[m] = count
        return there if len(there) else kept[:min(count, len(kept))].clone()


def _judge(dimensions: int, choice: PatchAdversary) -> nn.Module:
    conv = LAYERS[dimensions][0]
    widths = [1, *(choice.width * 2**k for k in range(choice.layers))]
    steps: list[nn.Module] = []
    for narrow, wide in zip(widths, widths[1:]):
        steps += [conv(narrow, wide, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*steps, conv(widths[-1], 1, 3, padding=1))

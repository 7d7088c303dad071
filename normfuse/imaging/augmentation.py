"""More people to learn from: copies of those there are, moved, bent and shaded by TorchIO."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..fusion import Choice
from ..space import Space
from .extra import need
from .images import Stack, Units


@dataclass(frozen=True, repr=False)
class Augmentation(Choice):
    """Altered copies of everybody who trains, made once before training by TorchIO.

    All scans and labels of a person move together; shading and contrast of each scan change on
    their own. Nobody who stops training or calibrates is copied. An epoch takes ``copies`` + 1
    times as long: lower the plan's ``max_epochs``.

    Parameters
    ----------
    copies : int
        Of each person.
    flip : float
        Probability of swapping left and right.
    degrees, shift, scale : float
        Largest rotation, shift in mm and relative change of size along and about each axis.
    bias : float
        Largest coefficient of the polynomial of third order whose exponential is the bias field.
    gamma : float
        Largest \\|log\\| of the exponent of intensities.

    References
    ----------
    Pérez-García et al. (2021), TorchIO, doi 10.1016/j.cmpb.2021.106236.

    Examples
    --------
    >>> Augmentation(copies=1, flip=0.0)
    Augmentation(copies=1, flip=0.0)
    """

    copies: int = 2
    flip: float = 0.5
    degrees: float = 8.0
    shift: float = 4.0
    scale: float = 0.08
    bias: float = 0.3
    gamma: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.copies, int) or self.copies < 1:
            raise ValueError(f"copies is a whole number from 1 on; got {self.copies!r}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a probability; got {self.flip!r}")
        for name in ("degrees", "shift", "scale", "bias", "gamma"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is not negative; got {getattr(self, name)!r}")

    def added_to(self, stack: Stack, units: Units, seed: int, progress: bool | None = False
                 ) -> Stack:
        """The images, and after them those of the copies."""
        need("torchio", "augmentation")
        n = len(stack.tables[0])
        copied = list(range(n)) * self.copies
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transform = self._transform()
            made = [_altered(transform, stack, units, p)
                    for p in tqdm(copied, "augmenting", leave=False,
                                  disable=None if progress is None else not progress)]
        copies = [torch.stack(rows) for rows in zip(*(images for images, _ in made))]
        labels = None if stack.labels is None else torch.cat(
            [stack.labels, torch.stack([row for _, row in made if row is not None])])
        times = range(self.copies + 1)
        return replace(stack, tables=tuple(map(torch.cat, zip(stack.tables, copies))),
                       labels=labels, slices=stack.slices.repeat(len(times)),
                       people=torch.cat([stack.people + n * k for k in times]))

    def _transform(self) -> Any:
        import torchio as tio

        return tio.Compose([
            tio.RandomFlip(axes=("LR",), flip_probability=self.flip),  # type: ignore[arg-type]
            tio.RandomAffine(scales=self.scale, degrees=self.degrees, translation=self.shift,
                             default_pad_value=0),
            tio.RandomBiasField(coefficients=self.bias),
            tio.RandomGamma(log_gamma=self.gamma)])


def _altered(transform: Any, stack: Stack, units: Units, person: int
             ) -> tuple[list[Tensor], Tensor | None]:
    """One copy of somebody: standardised rows of each modality, and of labels."""
    import torchio as tio

    space = stack.frame.space
    there = [k for k in range(len(stack.tables)) if bool(stack.present[k, person])]
    images: dict[str, Any] = {}
    for k in there:
        raw = stack.tables[k][person] * units.sd[k] + units.mean[k]
        images[f"scan{k}"] = tio.ScalarImage(tensor=_volume(raw.nan_to_num(0.0), space),
                                             affine=space.affine)
        images[f"known{k}"] = tio.LabelMap(
            tensor=_volume((~raw.isnan()).to(torch.uint8), space), affine=space.affine)
    if stack.labels is not None:
        images["labels"] = tio.LabelMap(tensor=_volume(stack.labels[person], space),
                                        affine=space.affine)
    if there:
        images = transform(tio.Subject(images))
    mask = torch.tensor(space.mask)
    rows = [torch.full_like(t[person], torch.nan) for t in stack.tables]
    for k in there:
        known = images[f"known{k}"].data[0][mask] > 0
        values = (images[f"scan{k}"].data[0][mask].float() - units.mean[k]) / units.sd[k]
        rows[k] = torch.where(known, values, torch.nan)
    return rows, None if stack.labels is None else \
        images["labels"].data[0][mask].to(stack.labels.dtype)


def _volume(row: Tensor, space: Space) -> Tensor:
    volume = row.new_zeros(1, *space.shape)
    volume[0, torch.tensor(space.mask)] = row
    return volume

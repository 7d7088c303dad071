"""Cohorts of voxels as images that networks take: whole volumes, or their slices."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import CohortError, SpaceMismatchError
from ..space import Space

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True, eq=False)
class Images:
    """Images of some people, or slices of them.

    Attributes
    ----------
    values : Tensor, shape (n_modalities, n_images, *sides)
        0 where nothing was measured.
    known : bool Tensor of the same shape
        What was measured: inside the brain, of a scan that is there.
    present : bool Tensor, shape (n_modalities, n_images)
    labels : uint8 Tensor, shape (n_images, *sides), or None
    """

    values: Tensor
    known: Tensor
    present: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return self.present.shape[1]

    def take(self, rows: Tensor) -> Images:
        """The images at these positions."""
        return Images(self.values.index_select(1, rows), self.known.index_select(1, rows),
                      self.present.index_select(1, rows),
                      None if self.labels is None else self.labels.index_select(0, rows))

    def only(self, kept: Tensor) -> Images:
        """With the modalities where ``kept``, (n_modalities,) or (n_modalities, n_images)."""
        present = self.present & (kept[:, None] if kept.dim() == 1 else kept)
        return replace(self, present=present)

    @classmethod
    def together(cls, parts: Sequence[Images]) -> Images:
        """One after the other."""
        labels = [part.labels for part in parts if part.labels is not None]
        return cls(torch.cat([p.values for p in parts], 1), torch.cat([p.known for p in parts], 1),
                   torch.cat([p.present for p in parts], 1),
                   torch.cat(labels) if len(labels) == len(parts) else None)


@dataclass(frozen=True, eq=False)
class Frame:
    """The box around a brain in which images are worked on, whole or slice by slice.

    Parameters
    ----------
    space : Space
    step : int
        What the sides of an image are multiples of.
    plane : str or None
        Slices ``"axial"``, ``"coronal"`` or ``"sagittal"``; None: whole volumes.

    Examples
    --------
    >>> mask = np.zeros((9, 9, 5), bool)
    >>> mask[2:7, 4:6, 1:3] = True
    >>> frame = Frame(Space(mask, np.eye(4), "MNI152NLin2009aSym"), 4, "axial")
    >>> frame.sides, frame.n_slices
    ((8, 4), 2)
    >>> images = frame.images(torch.arange(20.0)[None])
    >>> images.shape, torch.equal(frame.table(images), torch.arange(20.0)[None])
    (torch.Size([2, 8, 4]), True)
    """

    space: Space
    step: int
    plane: str | None = None
    box: tuple[int, ...] = field(init=False)
    at: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.plane is not None and self.plane not in PLANES:
            raise ValueError(f"plane is one of {', '.join(PLANES)} or None; got {self.plane!r}")
        where = np.argwhere(self.space.mask)
        low, high = where.min(0), where.max(0)
        sliced = None if self.plane is None else PLANES[self.plane]
        box = tuple(int(side) if axis == sliced else -(-int(side) // self.step) * self.step
                    for axis, side in enumerate(high - low + 1))
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "at", torch.from_numpy(
            np.ravel_multi_index(tuple((where - low).T), box)))

    @property
    def sides(self) -> tuple[int, ...]:
        """Of an image."""
        sliced = None if self.plane is None else PLANES[self.plane]
        return tuple(side for axis, side in enumerate(self.box) if axis != sliced)

    @property
    def n_slices(self) -> int:
        """Images of a volume."""
        return 1 if self.plane is None else self.box[PLANES[self.plane]]

    def images(self, table: Tensor) -> Tensor:
        """(n, n_voxels) -> (n * n_slices, *sides), 0 outside the brain."""
        volume = table.new_zeros(len(table), int(np.prod(self.box)))
        volume = volume.index_copy(1, self.at, table).view(len(table), *self.box)
        if self.plane is None:
            return volume
        return volume.movedim(1 + PLANES[self.plane], 1).flatten(0, 1)

    def table(self, images: Tensor) -> Tensor:
        """The inverse, (n, n_voxels)."""
        if self.plane is not None:
            images = images.unflatten(0, (-1, self.n_slices)).movedim(1, 1 + PLANES[self.plane])
        return images.flatten(1).index_select(1, self.at)


@dataclass(frozen=True)
class Units:
    """What turns a modality's values into the network's, and back.

    Parameters
    ----------
    mean, sd : tuple of float
        Of each modality's voxels, over the people of training.
    """

    mean: tuple[float, ...]
    sd: tuple[float, ...]

    @classmethod
    def of(cls, cohort: Cohort) -> Units:
        """From the people who have each modality."""
        found = []
        for m in cohort.modalities:
            there = cohort.present[m.name]
            values = cohort.select(cohort.ids[there]).features[m.name].to_numpy(np.float64)
            found.append((float(np.nanmean(values)), float(np.nanstd(values))))
            if not found[-1][1] > 0:
                raise CohortError(f"modality {m.name} has the same value in every voxel of "
                                  "everybody; there is nothing to learn from it")
        return cls(*map(tuple, zip(*found)))  # type: ignore[arg-type]


def one_space(cohort: Cohort) -> Space:
    """Where the voxels of all modalities are.

    Raises
    ------
    CohortError
        For modalities that are no voxels.
    SpaceMismatchError
        For modalities on different grids or masks.
    """
    first, *_ = cohort.modalities
    found: list[Space] = []
    for name, other in ((m.name, m.space) for m in cohort.modalities):
        if other is None:
            raise CohortError(f"modality {name} is a table of regions; images are needed: give "
                              "images = \"…\" in cohort.toml")
        found.append(other)
        if other != found[0]:
            raise SpaceMismatchError(
                f"modality {name} is on {other!r}, {first.name} on {found[0]!r}; read all with the same "
                "mask and resolution: mask = \"brain\" under every [modalities.…] in cohort.toml")
    return found[0]


def as_images(cohort: Cohort, frame: Frame, units: Units, chosen: Sequence[int] | None = None
              ) -> Images:
    """People's images, standardised; of slices only the ``chosen``."""
    values, known = [], []
    for m, mean, sd in zip(cohort.modalities, units.mean, units.sd):
        table = torch.from_numpy(cohort.features[m.name].to_numpy(np.float32))
        measured = ~torch.isnan(table)
        images = frame.images(torch.where(measured, (table - mean) / sd, 0.0))
        there = frame.images(measured.to(torch.uint8)).bool()
        if chosen is not None:
            keep = torch.tensor(list(chosen))
            images, there = (t.unflatten(0, (-1, frame.n_slices)).index_select(1, keep)
                             .flatten(0, 1) for t in (images, there))
        values.append(images)
        known.append(there)
    per_person = frame.n_slices if chosen is None else len(chosen)
    present = torch.from_numpy(cohort.present.to_numpy().T.copy()).repeat_interleave(per_person, 1)
    return Images(torch.stack(values), torch.stack(known), present)

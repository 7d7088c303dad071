"""Cohorts of voxels as images that networks take: whole volumes, or their slices."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..cohort import Cohort
from ..cohort_checks import refuse_others
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
    labels : int64 Tensor, shape (n_images, *sides), or None
        0 healthy.
    inside : bool Tensor, shape (n_images, *sides)
        The brain.
    """

    values: Tensor
    known: Tensor
    present: Tensor
    inside: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return self.present.shape[1]

    def take(self, rows: Tensor) -> Images:
        """The images at these positions."""
        rows = rows.to(self.present.device)
        return Images(self.values.index_select(1, rows), self.known.index_select(1, rows),
                      self.present.index_select(1, rows), self.inside.index_select(0, rows),
                      None if self.labels is None else self.labels.index_select(0, rows))

    def only(self, kept: Tensor) -> Images:
        """With the modalities where ``kept``, (n_modalities,) or (n_modalities, n_images)."""
        return replace(self, present=self.present & (kept[:, None] if kept.dim() == 1 else kept))


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
    >>> people, slices = torch.tensor([0, 0]), torch.tensor([0, 1])
    >>> images = frame.images(torch.arange(1.0, 21.0)[None], people, slices)
    >>> images.shape, torch.equal(frame.table(images), torch.arange(1.0, 21.0)[None])
    (torch.Size([2, 8, 4]), True)
    """

    space: Space
    step: int
    plane: str | None = None
    box: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.plane is not None and self.plane not in PLANES:
            raise ValueError(f"plane is one of {', '.join(PLANES)} or None; got {self.plane!r}")
        extent = np.ptp(self.space.indices, axis=0) + 1
        object.__setattr__(self, "box", tuple(
            int(side) if axis == self._sliced else -(-int(side) // self.step) * self.step
            for axis, side in enumerate(extent)))

    def told(self) -> str:
        """As ``axial slices of 2 mm``."""
        mm = " x ".join(dict.fromkeys(f"{side:g}" for side in np.round(self.space.voxel_size, 2)))
        return f"{f'{self.plane} slices' if self.plane else 'volumes'} of {mm} mm"

    @property
    def _sliced(self) -> int | None:
        return None if self.plane is None else PLANES[self.plane]

    @property
    def sides(self) -> tuple[int, ...]:
        """Of an image."""
        return tuple(side for axis, side in enumerate(self.box) if axis != self._sliced)

    @property
    def dimensions(self) -> int:
        """Of an image."""
        return len(self.sides)

    @property
    def n_slices(self) -> int:
        """Images of a volume."""
        return 1 if self._sliced is None else self.box[self._sliced]

    @cached_property
    def _slot(self) -> Tensor:
        """Where each voxel stands among all pixels of a person's images."""
        where = self.space.indices - self.space.indices.min(0)
        order = [a for a in range(3) if a != self._sliced]
        if self._sliced is not None:
            order = [self._sliced, *order]
        return torch.from_numpy(np.ravel_multi_index(
            tuple(where[:, a] for a in order), tuple(self.box[a] for a in order)))

    @cached_property
    def slice_of(self) -> Tensor:
        """The slice in which each voxel is, int64, shape (n_voxels,)."""
        return self._slot // int(np.prod(self.sides))

    @cached_property
    def _voxel(self) -> Tensor:
        """The voxel of each pixel, (n_slices, n_pixels); that after the last where there is
        none."""
        found = torch.full((self.n_slices * int(np.prod(self.sides)),), self.space.n_voxels)
        found[self._slot] = torch.arange(self.space.n_voxels)
        return found.view(self.n_slices, -1)

    def images(self, table: Tensor, people: Tensor, slices: Tensor) -> Tensor:
        """(n, n_voxels + ) -> (len(people), *sides): these slices, 0 outside the brain."""
        voxel = self._voxel[slices]
        inside = voxel < self.space.n_voxels
        found = table[people[:, None], torch.where(inside, voxel, 0)]
        return torch.where(inside, found, torch.zeros((), dtype=table.dtype)).view(-1, *self.sides)

    def table(self, images: Tensor) -> Tensor:
        """All slices of some people, in order, (n * n_slices, *sides) -> (n, n_voxels)."""
        return images.reshape(-1, self._voxel.numel()).index_select(1, self._slot)

    @cached_property
    def busy(self) -> tuple[int, ...]:
        """Slices of which the brain fills at least a twentieth: the others teach little."""
        share = (self._voxel < self.space.n_voxels).double().mean(1)
        return tuple(torch.nonzero(share >= min(0.05, float(share.max()))).ravel().tolist())


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
            there = cohort.ids[cohort.present[m.name].to_numpy()]
            if not len(there):
                raise CohortError(f"none of the {len(cohort)} people to learn from has modality "
                                  f"{m.name}; leave it out of the cohort, or give people who "
                                  "have it")
            values = cohort.select(there).features[m.name].to_numpy(np.float64)
            found.append((float(np.nanmean(values)), float(np.nanstd(values))))
            if not found[-1][1] > 0:
                raise CohortError(f"modality {m.name} has the same value in every voxel of "
                                  "everybody; there is nothing to learn from it")
        return cls(*map(tuple, zip(*found)))

    def anew(self, cohort: Cohort) -> Units:
        """Of these people; of what none of them has, as before."""
        there = cohort.present.any()
        kept = tuple(m for m in cohort.modalities if there[m.name])
        found = Units.of(Cohort(cohort.subjects, {m.name: cohort.features.as_is()[m.name]
                                                  for m in kept}, kept, cohort.covariates))
        own = dict(zip((m.name for m in kept), zip(found.mean, found.sd)))
        both = [own.get(m.name, old) for m, old in zip(cohort.modalities,
                                                       zip(self.mean, self.sd))]
        return Units(*map(tuple, zip(*both)))


@dataclass(frozen=True, eq=False)
class Stack:
    """Images that are cut from people's voxels when they are asked for.

    Attributes
    ----------
    frame : Frame
    tables : tuple of Tensor, float32, shape (n_people, n_voxels) each
        Standardised; nan where nothing was measured.
    people, slices : int64 Tensor, shape (n_images,)
    labels : uint8 Tensor, shape (n_people, n_voxels), or None
    device : str
        Where images go.
    """

    frame: Frame
    tables: tuple[Tensor, ...]
    people: Tensor
    slices: Tensor
    labels: Tensor | None = None
    device: str = "cpu"

    @property
    def at_once(self) -> int:
        """Images in memory together where no gradient is wanted."""
        return 32 if self.frame.dimensions == 2 else 1

    @classmethod
    def of(cls, cohort: Cohort, frame: Frame, units: Units, labels: Tensor | None = None,
           slices: Sequence[int] | None = None, device: str = "cpu") -> Stack:
        """Everybody's slices, or of everybody only some."""
        tables = tuple(
            (torch.tensor(cohort.features[m.name].to_numpy(np.float32)) - mean) / sd
            for m, mean, sd in zip(cohort.modalities, units.mean, units.sd))
        chosen = torch.tensor(list(range(frame.n_slices) if slices is None else slices))
        return cls(frame, tables, torch.arange(len(cohort)).repeat_interleave(len(chosen)),
                   chosen.repeat(len(cohort)), labels, device)

    def __len__(self) -> int:
        return len(self.people)

    def take(self, rows: Tensor) -> Images:
        """The images at these positions."""
        people, slices = self.people[rows], self.slices[rows]
        raw = torch.stack([self.frame.images(t, people, slices) for t in self.tables])
        whole = torch.ones(1, 1, dtype=torch.bool).expand(1, self.frame.space.n_voxels)
        inside = self.frame.images(whole, torch.zeros_like(people), slices)
        known = inside & ~torch.isnan(raw)
        labels = None if self.labels is None else \
            self.frame.images(self.labels, people, slices).long().to(self.device)
        there = self.present[:, people]
        return Images(torch.where(known, raw, 0.0).to(self.device), known.to(self.device),
                      there.to(self.device), inside.to(self.device), labels)

    @cached_property
    def present(self) -> Tensor:
        """Who has anything of which modality, bool, (n_modalities, n_people)."""
        return torch.stack([~torch.isnan(table).all(1) for table in self.tables])

    def of_somebody(self) -> Stack:
        """Without the images of people of whom nothing was measured."""
        return self._at(self.present.any(0)[self.people])

    def instructive(self) -> Stack:
        """The images with a label, and at most as many of those without, spread evenly.

        A lesion fills few slices: all slices would mostly teach what has none. If nobody has a
        label, all stay.
        """
        if self.labels is None or self.frame.n_slices == 1:
            return self
        n, slice_of = self.frame.n_slices, self.frame.slice_of
        marked = torch.stack([torch.bincount(slice_of[row > 0], minlength=n)
                              for row in self.labels])
        has = marked[self.people, self.slices] > 0
        if not has.any():
            return self
        rest = torch.nonzero(~has).ravel()
        some = torch.linspace(0, len(rest) - 1, min(int(has.sum()), len(rest))).round().long()
        return self._at(torch.cat([torch.nonzero(has).ravel(), rest[some]]).sort().values)

    def thinned(self, most: int) -> Stack:
        """So many of the images at most, spread evenly over people and slices."""
        rows = torch.linspace(0, len(self) - 1, min(most, len(self))).round().long()
        return self._at(rows)

    def _at(self, rows: Tensor) -> Stack:
        return replace(self, people=self.people[rows], slices=self.slices[rows])


def one_space(cohort: Cohort) -> Space:
    """Where the voxels of all modalities are.

    Raises
    ------
    CohortError
        For modalities that are no voxels.
    SpaceMismatchError
        For modalities on different grids or masks.
    """
    refuse_others(cohort)
    first, *_ = cohort.modalities
    found: list[Space] = []
    for name, other in ((m.name, m.space) for m in cohort.modalities):
        if other is None:
            raise CohortError(f"modality {name} is a table of regions; images are needed: give "
                              "images = \"…\" in cohort.toml")
        found.append(other)
        if other != found[0]:
            raise SpaceMismatchError(
                f"modality {name} is on {other!r}, {first.name} on {found[0]!r}; read all with "
                "the same mask and resolution: mask = \"brain\" under every [modalities.…] in "
                "cohort.toml")
    return found[0]

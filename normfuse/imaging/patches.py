"""Patches of one place in two modalities, turned and dimmed at random, to learn from."""
from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..cohort import Cohort
from ..errors import CohortError
from .images import Frame, Stack

TURN, SCALE = 30.0, 0.1
"""Largest angle, degrees, and change of size of a patch: what registrations start from."""

SIBLINGS, NEAR = 4, 3.0
"""Patches that are taken from one neighbourhood, and the sd of their distance from its middle,
voxels. Places far apart are told from one another by the brain's outline alone; only what is
shifted a little and has to be told apart teaches detail."""

DEEP = 0.8
"""Share of a patch that is brain: else its outline alone would tell places apart."""

LIMITS = (-3.0, 5.0)
"""Of standardised values: fluid in a T2w is far brighter than all else."""

FIELD_KNOTS = 3
"""Random values along each side of a patch between which a field of intensity is interpolated."""

CURVE_KNOTS = 9
"""Values between LIMITS at which a random curve of contrast is given."""

NOISE = 0.4
"""Largest sd of noise that is added, as a share of the shading."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Patches of N places.

    Attributes
    ----------
    images : Tensor, shape (2, N, 1, *sides)
        The first and the second modality of each place, standardised; 0 outside the brain.
    which : int64 Tensor, shape (2, N)
        Their positions among the modalities.
    """

    images: Tensor
    which: Tensor


@dataclass(frozen=True, eq=False)
class Patches:
    """Places of people's images, drawn anew each time.

    Attributes
    ----------
    stack : Stack
        Of people with two modalities at least.
    side : int
        Of a patch, pixels.
    per_image : int
        Patches of an image that make up an epoch.
    shading : float
        sd of a smooth field that is added to each modality, of the logarithms of what its
        contrast is multiplied by and raised to, and of a curve that is added to its values; with
        it come noise and thick slices. 0: images as they are.
    at_once : int
        Patches contrasted together where no gradient is wanted.
    """

    stack: Stack
    side: int
    per_image: int
    shading: float
    at_once: int

    def __len__(self) -> int:
        return len(self.stack) * self.per_image

    def take(self, rows: Tensor) -> Pairs:
        """Pairs of patches, one of each of these rows; random numbers are torch's."""
        n, stack = len(rows), self.stack
        few = rows[::SIBLINGS] % len(stack)
        images = stack.take(few)
        which = torch.multinomial(images.present.cpu().double().T, 2).T  # two different ones
        device = images.values.device
        chosen = images.values[which.to(device), torch.arange(len(few), device=device)]
        grid = self._grid(stack.slices[few], chosen.shape[2:]).to(chosen)
        brain = images.inside.to(chosen).expand_as(chosen)
        both = torch.cat([chosen, brain])[:, :, None].flatten(0, 1)
        found = nn.functional.grid_sample(both, grid.repeat(4, *(1,) * (grid.dim() - 1)),
                                          align_corners=True)
        values, seen = found.unflatten(2, (SIBLINGS, -1)).movedim(2, 1).flatten(0, 1).chunk(2)
        patches = (self._shaded(values) * seen).unflatten(0, (2, -1))
        return Pairs(patches[:, :n], which.repeat_interleave(SIBLINGS, 1)[:, :n])

    def _grid(self, slices: Tensor, sides: torch.Size) -> Tensor:
        """Where to look, -1 to 1 and the last axis first as torch has it: siblings behind one
        another along the first side, (n, SIBLINGS * side, *sides, dimensions)."""
        d, n = len(sides), len(slices)
        places = [self._deep[int(k)] for k in slices]
        middle = torch.stack([deep[int(torch.randint(len(deep), ()))] for deep in places])
        middle = middle[:, None] + NEAR * torch.randn(n, SIBLINGS, d)
        along = torch.arange(self.side) - (self.side - 1) / 2
        offsets = torch.stack(torch.meshgrid(*[along] * d, indexing="ij"), -1)
        turned = torch.einsum("nij,...j->n...i", _turns(n, d), offsets)
        where = middle.view(n, SIBLINGS, *(1,) * d, d) + turned[:, None]
        last = torch.tensor(sides, dtype=torch.float32) - 1
        return (2 * where.flatten(1, 2) / last.clamp_min(1) - 1).flip(-1)

    @cached_property
    def _deep(self) -> dict[int, Tensor]:
        """Of each slice, or of the volume, where a patch holds hardly anything but brain."""
        frame = self.stack.frame
        pool: Any = nn.functional.avg_pool2d if frame.dimensions == 2 else nn.functional.avg_pool3d
        found = {}
        whole = torch.ones(1, frame.space.n_voxels)
        for k in self.stack.slices.unique():
            inside = frame.images(whole, torch.zeros(1, dtype=torch.int64), k[None])
            share = pool(inside[:, None], self.side + 1 - self.side % 2, 1, self.side // 2)[0, 0]
            found[int(k)] = torch.nonzero(share >= min(DEEP, float(share.max()))).float()
        return found

    def _shaded(self, patches: Tensor) -> Tensor:
        """As another coil, echo time, noise and thickness of slices would show them."""
        if not self.shading:
            return patches
        n, d = len(patches), patches.dim() - 2
        knots = self.shading * torch.randn(n, 1, *(FIELD_KNOTS,) * d)
        field = nn.functional.interpolate(knots, patches.shape[2:], align_corners=True,
                                          mode="bilinear" if d == 2 else "trilinear")
        stretch, power = (self.shading * torch.randn(2, n, *(1,) * (d + 1))).exp().to(patches)
        seen = _curved(patches, self.shading)
        seen = stretch * seen.sign() * seen.abs() ** power + field.to(patches)
        noise = NOISE * self.shading * torch.rand(n, *(1,) * (d + 1)) * torch.randn(seen.shape)
        return _thick(seen + noise.to(patches))


def _curved(values: Tensor, sd: float) -> Tensor:
    """Each row's values moved by a piecewise linear curve of its own: so grey matter, white matter
    and fluid change their distances and even their order, as they do from one sequence of a name
    to another's."""
    low, high = LIMITS
    curves = sd * torch.randn(len(values), CURVE_KNOTS).to(values)
    at = (values.flatten(1).clamp(low, high) - low) * ((CURVE_KNOTS - 1) / (high - low))
    knot = at.long().clamp_max(CURVE_KNOTS - 2)
    before, after = curves.gather(1, knot), curves.gather(1, knot + 1)
    return values + (before + (at - knot) * (after - before)).view_as(values)


def _thick(patches: Tensor) -> Tensor:
    """Averaged by a random share with the neighbours along an axis of their own."""
    n, d = len(patches), patches.dim() - 2
    share = (torch.rand(n) / 3).view(n, *(1,) * (d + 1)).to(patches)
    axis = torch.randint(d, (n,))
    blurred = patches.clone()
    for k in range(d):
        rows = torch.nonzero(axis == k).ravel().to(patches.device)
        some, last = patches[rows], patches.shape[k + 2] - 1
        along = torch.arange(last + 1, device=patches.device)
        beside = (some.index_select(k + 2, (along - 1).clamp_min(0))
                  + some.index_select(k + 2, (along + 1).clamp_max(last)))
        blurred[rows] = (1 - 2 * share[rows]) * some + share[rows] * beside
    return blurred


def _turns(n: int, d: int) -> Tensor:
    """Rotations by up to TURN degrees about any axis, times changes of size, (n, d, d)."""
    angle = math.radians(TURN) * (2 * torch.rand(n) - 1)
    size = (1 + SCALE * (2 * torch.rand(n) - 1))[:, None, None]
    if d == 2:
        c, s = angle.cos(), angle.sin()
        return size * torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    axis = nn.functional.normalize(torch.randn(n, 3), dim=1)
    cross = torch.zeros(n, 3, 3)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[:, i, j], cross[:, j, i] = -axis[:, k], axis[:, k]
    return size * torch.linalg.matrix_exp(angle[:, None, None] * cross)


def standardised(values: np.ndarray) -> np.ndarray:
    """(x - median) / interquartile range of what is not 0, row by row, between -3 and 5; 0 stays.

    Images have no unit, and scanners differ in contrast.

    >>> standardised(np.array([[0.0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]])).tolist()
    [[0.0, -1.0, -0.5, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    there = np.where((values != 0) & np.isfinite(values), values, np.nan)
    known = np.isfinite(there).any(1)
    found = np.zeros(values.shape, dtype=np.float32)
    if not known.any():
        return found
    low, middle, high = np.nanpercentile(there[known], (25, 50, 75), axis=1)[..., None]
    scaled = (there[known] - middle) / np.maximum(high - low, 1e-8)
    found[known] = np.nan_to_num(np.clip(scaled, *LIMITS))
    return found


def stack_of(cohort: Cohort, frame: Frame, device: str) -> Stack:
    """Images of everybody with two modalities at least, standardised.

    Raises
    ------
    CohortError
        If nobody has two.
    """
    both = cohort.present.sum(axis=1) >= 2
    if not both.any():
        raise CohortError(f"none of these {len(cohort)} people has two modalities; what two show "
                          "of one place is what is learned from")
    cohort = cohort.select(cohort.ids[both.to_numpy()])
    tables = tuple(_table(cohort, m.name)
                   for m in cohort.modalities)
    slices = torch.tensor(frame.busy)
    return Stack(frame, tables, torch.arange(len(cohort)).repeat_interleave(len(slices)),
                 slices.repeat(len(cohort)), None, device)


def _table(cohort: Cohort, name: str) -> Tensor:
    """Who lacks the modality has NaN everywhere."""
    values = cohort.features[name].to_numpy(np.float32)
    found = torch.from_numpy(standardised(values))
    found[torch.from_numpy(~np.isfinite(values).any(1))] = torch.nan
    return found

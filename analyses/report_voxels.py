"""The parts of the report that show voxels: groups on slices of the brain, and people."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from normfuse.cards import Card, some
from normfuse.deviations import Deviations
from normfuse.errors import CohortError, ComparisonError, ModelFileError
from normfuse.inputs import read_object
from normfuse.modality import refuse_unsafe_name
from normfuse.space import Space

from .effects import Array
from .group_comparison import ALPHA
from .pictures import Picture, brain_picture
from .voxel_comparison import VoxelComparison
from .voxel_regions import voxel_spaces
from .wording import minus

PEAKS = 5  # of a modality in the table
INDEX = "modalities.json"
"""Beside the folders of the modalities: which were compared, in their order, and which not."""


@dataclass(frozen=True, eq=False)
class VoxelFindings:
    """What a report of regions may show of the voxels that they are means of.

    Attributes
    ----------
    groups : dict of VoxelComparison
        By modality.
    deviations : Deviations or None
        Of voxels: maps of the most deviant people.
    refused : dict of str
        Modalities that could not be compared, and why.
    """

    groups: Mapping[str, VoxelComparison] = field(default_factory=dict)
    deviations: Deviations | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        scored = "no maps of people" if self.deviations is None else repr(self.deviations)
        return f"<VoxelFindings: {some(self.groups)} compared; {scored}>"

    def _repr_html_(self) -> str:
        return Card("VoxelFindings", "for a report", {
            "compared": some(f"{name}: {found!r}" for name, found in self.groups.items()),
            "maps of people": repr(self.deviations).strip("<>") if self.deviations else "none"},
            notes=[f"{name} was not compared: {why}" for name, why in self.refused.items()]
        ).html()

    @classmethod
    def read(cls, groups: str | Path | None, deviations: str | Path | None) -> VoxelFindings:
        """From what ``normfuse compare-voxels`` and ``normfuse score`` wrote."""
        scored = None if deviations is None else Deviations.read(deviations)
        if scored is not None and not voxel_spaces(scored):
            raise ComparisonError(f"no modality of {deviations} has voxels to show")
        if groups is None:
            return cls(deviations=scored)
        try:
            found = read_object(Path(groups) / INDEX)
            names = [refuse_unsafe_name(name) for name in found["compared"]]
            refused = {str(name): str(why) for name, why in found["refused"].items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError,
                CohortError) as problem:
            raise ModelFileError(f"{groups} is not a folder that `normfuse compare-voxels` wrote: "
                                 f"{problem}") from problem
        return cls({m: VoxelComparison.read(Path(groups) / m) for m in names}, scored, refused)

    def person(self, subject: str, limit: float) -> list[Picture]:
        """z-maps of one person; none if their voxels are not at hand."""
        return [brain_picture(_img(space, values), f"{m}, voxel by voxel", limit, "deviation, z",
                              _marks(space, _significant(values)))
                for m, space, values in self._of(subject)]

    def maps_of(self, subject: str) -> list[tuple[str, Any]]:
        """The same as (modality, image)."""
        return [(f"{m}, voxel by voxel", _img(space, values))
                for m, space, values in self._of(subject)]

    def _of(self, subject: str) -> list[tuple[str, Space, Array]]:
        if self.deviations is None or subject not in self.deviations.subjects.index:
            return []
        z = self.deviations.select([subject]).blocks()
        found = [(m, space, z[m].to_numpy(float)[0])
                 for m, space in voxel_spaces(self.deviations).items()]
        return [(m, space, values) for m, space, values in found if np.isfinite(values).any()]

    def notes(self) -> list[str]:
        """Of the comparisons; those of one modality with its name."""
        of = {m: comparison.notes for m, comparison in self.groups.items()}
        shared = [note for note in next(iter(of.values()), ())
                  if all(note in notes for notes in of.values())]
        refused = [f"{m} was not compared: {why}" for m, why in self.refused.items()]
        return refused + shared + [f"{m}: {note}" for m, notes in of.items() for note in notes
                                   if note not in shared]

    def contrast_maps(self) -> tuple[list[tuple[str, Any]], float]:
        """t of each modality as an image, and where their colours end."""
        return [(m, _img(c.space, c.maps["t"])) for m, c in self.groups.items()], self._limit()

    def contrasts(self) -> list[dict[str, Any]]:
        """Of each modality: words, a picture of t, and the strongest peaks."""
        limit = self._limit()
        return [_facts(m, comparison, limit) for m, comparison in self.groups.items()]

    def _limit(self) -> float:
        largest = [np.nanmax(np.abs(c.maps["t"])) for c in self.groups.values()
                   if np.isfinite(c.maps["t"]).any()]
        return float(np.ceil(max(largest, default=1.0)))


def _facts(modality: str, comparison: VoxelComparison, limit: float) -> dict[str, Any]:
    t, name = comparison.maps["t"], f"{comparison.case} - {comparison.baseline}"
    who, strongest, correction = comparison.summary().splitlines()[:3]
    marked = comparison.significant()
    drawn = brain_picture(_img(comparison.space, t), f"{modality}: {minus(name)}", limit, "t",
                          _marks(comparison.space, marked))
    return {"modality": modality, "who": minus(who), "strongest": minus(strongest),
            "correction": correction.partition(": ")[2],
            "case": comparison.case, "baseline": comparison.baseline, "picture": drawn,
            "n_hits": int(marked.sum()), "corrected": comparison.corrected,
            "peaks": comparison.table.head(PEAKS).to_dict("records")}


def _significant(z: Array) -> Array:
    """Benjamini-Hochberg over the voxels of one map."""
    found = np.zeros(len(z), bool)
    seen = np.isfinite(z)
    p = 2 * stats.norm.sf(np.abs(z[seen]))
    found[seen] = stats.false_discovery_control(p) < ALPHA
    return found


def _marks(space: Space, marked: Array) -> Any:
    return space.img(marked.astype(np.float32)) if marked.any() else None


def _img(space: Space, values: Array) -> Any:
    """NaN outside the mask, where nothing is known."""
    img = space.img(values)
    data = np.where(space.mask, np.asarray(img.dataobj), np.nan).astype(np.float32)
    return type(img)(data, img.affine)

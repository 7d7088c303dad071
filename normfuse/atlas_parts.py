"""Image and table of an atlas brought together, by label number, before they are checked."""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atlas_checks import similar
from .errors import AtlasError, listed
from .fetched_atlases import SOURCES, fetch, is_probabilistic
from .label_images import as_labels, read_labels, space_in_name
from .label_tables import image_stem, numbered, read_label_table, table_beside

if TYPE_CHECKING:
    import pandas as pd
    from nibabel.nifti1 import Nifti1Image

UNKNOWN_SPACE = "unknown, taken for MNI"


@dataclass(frozen=True, eq=False)
class AtlasParts:
    """What :class:`normfuse.Atlas` is made of, under its names."""

    name: str
    labels_img: Nifti1Image
    regions: pd.DataFrame
    space: str
    licence: str
    citation: str
    notes: tuple[str, ...]


def from_file(path: Path, table: str | Path | pd.DataFrame | None, space: str | None,
              unmirror: bool) -> AtlasParts:
    """Of an image and the table given or found beside it."""
    labels_img = read_labels(path, unmirror=unmirror)
    notes = ["left and right of the header were exchanged, as asked"] if unmirror else []
    if table is None and (table := table_beside(path)) is not None:
        notes.append(f"names from {table}")
    if table is None:
        numbers = np.unique(labels_img.dataobj)
        named = numbered(numbers[numbers > 0].tolist())
        warnings.warn(f"{path.name} has no table beside it: its {len(named)} regions are called "
                      "by their numbers, and whether left is left cannot be checked. Give "
                      "load_atlas(path, table=…)", stacklevel=3)
    else:
        named = read_label_table(table)
    if space is None and (space := space_in_name(path)) is not None:
        notes.append(f"space {space} by its file name")
    return _assembled(image_stem(path), labels_img, named, space, "see where it came from", "",
                      notes)


def fetched(name: str, embedded: list[str]) -> AtlasParts:
    """Of an atlas that nilearn fetches; ``embedded`` are the other names that exist."""
    if (whose := is_probabilistic(name)) is not None:
        raise AtlasError(f"{name} ({whose}) is an atlas of overlapping maps, in which a voxel "
                         "belongs to several regions; labels are needed, such as schaefer_400")
    if name not in SOURCES:
        alike = similar(name, [*embedded, *SOURCES])
        hint = f"did you mean {listed(alike)}? " if alike else ""
        raise AtlasError(f"there is no atlas {name!r}; {hint}the known ones are "
                         f"{listed([*embedded, *SOURCES], 30)}, or the path of an image")
    img, table, space, citation = fetch(name)
    return _assembled(name, as_labels(img, name), read_label_table(table), space,
                      "see its authors' terms", citation, ["fetched by nilearn"])


def _assembled(name: str, labels_img: Nifti1Image, named: pd.DataFrame, space: str | None,
               licence: str, citation: str, notes: list[str]) -> AtlasParts:
    """Image and table joined by number; rows without a voxel are noted and left out."""
    numbers, voxels = np.unique(labels_img.dataobj, return_counts=True)
    count_of = dict(zip(numbers.tolist(), voxels.tolist()))
    unnamed = sorted(set(count_of) - {0} - set(named.index))
    if unnamed:
        raise AtlasError(f"atlas {name}: the table has no name for label {listed(unnamed, 9)}, "
                         f"which the image holds; it names {listed(named.index, 4)}. Is it the "
                         "table of this image? Add the rows, or set those voxels to 0")
    absent = named.index.difference(list(count_of))
    if len(absent):
        notes = [*notes, f"{len(absent)} regions of the table have no voxel in the image: "
                         f"{listed(named.loc[absent, 'name'])}"]
    if not space:
        notes = [*notes, "nobody said in which space it lies: it is taken for MNI"]
    if not named["hemisphere"].isin(["left", "right"]).any():
        notes = [*notes, "no name tells a side: whether left is left was not checked"]
    regions = named.loc[[number for number in count_of if number]]
    size = abs(np.linalg.det(labels_img.affine[:3, :3])) / 1000
    regions = regions.assign(volume_ml=[count_of[n] * size for n in regions.index])
    return AtlasParts(name, labels_img, regions, space or UNKNOWN_SPACE, licence, citation,
                      tuple(notes))

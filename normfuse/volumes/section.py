"""The modalities of a ``cohort.toml`` whose features are voxels of images.

.. code-block:: toml

    [images]                              # optional
    cache = "normfuse_cache"              # what was read; relative to the file, this by default
    threads = 2                           # images read at a time
    drop_failed = false                   # true: leave out images that cannot be used

    [modalities.fa]
    images = "derivatives/{id}/{id}_FA.nii.gz"   # {id} or any column of the subjects table
    mask = "white_matter"                 # or "grey_matter", "brain", or the path of a mask
    resolution = 4                        # mm
    smoothing = 8                         # FWHM, mm; default: twice the resolution
    extent = "brain"                      # where every image must have signal
    zeros = "values"                      # or "missing": background inside the mask
    min_coverage = 0.9                    # least share of the extent with signal
    scaling = "none"                      # or "white_matter", "brain_mean": divided by, per image
    unit = "FA"

The cache lies beside ``cohort.toml`` unless ``cache`` or ``NORMFUSE_CACHE`` says otherwise: it
holds values of single people, which should not leave the folder of their study unasked.
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..blocks import Block
from ..errors import CohortError
from ..space import Space
from .findings import settle
from .intensity import SCALINGS
from .pattern import find_files
from .plan import TISSUES, VolumePlan
from .reading import ImageSet

MODALITY_KEYS = {"images", "mask", "resolution", "smoothing", "extent", "zeros", "min_coverage",
                 "scaling", "unit", "likelihood"}
IMAGES_KEYS = {"cache", "threads", "drop_failed"}
CACHE = "normfuse_cache"


@dataclass(frozen=True)
class Images:
    """What was read: tables and their spaces by modality."""

    tables: dict[str, Block]
    spaces: dict[str, Space]


def read_sections(sections: Mapping[str, Mapping[str, Any]], people: pd.DataFrame, folder: Path,
                  settings: Mapping[str, Any]) -> Images:
    """Read the images of all modalities that have some; faults of all are said at once.

    Parameters
    ----------
    sections : dict
        Modality -> its section, with the keys above.
    people : DataFrame
        Text cells, index: id.
    folder : Path
        Of the ``cohort.toml``.
    settings : dict
        The section ``[images]``.

    Raises
    ------
    CohortError
        If a section or pattern cannot be understood, or fits nobody.
    ImageError
        If images cannot be used, unless ``drop_failed`` is set.
    """
    every, drop = _image_sets(sections, people, folder, settings)
    n = sum(len(images.paths) for images in every)
    seen = [finding for images in every for finding in images.look()]
    if not drop:  # say what headers show before hours of reading
        settle(seen, n_images=n)
    tables: dict[str, Block] = {}
    findings = []
    for images in every:
        table, found = images.read()
        findings += found
        if table is not None:
            tables[images.name] = table
    settle(findings, drop_failed=drop, n_images=n, gone=[i.name for i in every
                                                         if i.name not in tables])
    return Images(tables, {images.name: images.plan.space for images in every})


def look_at_sections(sections: Mapping[str, Mapping[str, Any]], people: pd.DataFrame,
                     folder: Path, settings: Mapping[str, Any]) -> tuple[Images, dict[str, int]]:
    """Find the images and look at their headers; as :func:`read_sections`, but reads no voxels
    and leaves no cache.

    Returns
    -------
    Images whose tables hold a 1 for everybody who has one, and the number of voxels a modality
    """
    every, drop = _image_sets(sections, people, folder, settings)
    seen = [finding for images in every for finding in images.headers()]
    settle(seen, drop_failed=drop, n_images=sum(len(images.paths) for images in every))
    bad = {(f.modality, f.subject) for f in seen if f.problem.refuses}
    tables: dict[str, Block] = {
        images.name: pd.DataFrame({"image": 1.0}, pd.Index([who for who in images.paths
                                                            if (images.name, who) not in bad]))
        for images in every}
    return Images(tables, {}), {images.name: images.plan.space.n_voxels for images in every}


def _image_sets(sections: Mapping[str, Mapping[str, Any]], people: pd.DataFrame, folder: Path,
                settings: Mapping[str, Any]) -> tuple[list[ImageSet], bool]:
    """The images of every modality, and whether those that fail are left out."""
    threads, drop = settings.get("threads"), settings.get("drop_failed", False)
    if threads is not None and (type(threads) is not int or threads < 1):
        raise CohortError(f"threads under [images] must be a whole number from 1; got {threads!r}")
    if type(drop) is not bool:
        raise CohortError(f"drop_failed under [images] must be true or false; got {drop!r}")
    cache = _cache(folder, settings.get("cache"))
    plans = {name: _plan(name, section, folder) for name, section in sections.items()}
    files = {name: find_files(name, _pattern(name, section), people, folder)
             for name, section in sections.items()}
    return [ImageSet(name, files[name], plan, cache, threads)
            for name, plan in plans.items()], drop


def _cache(folder: Path, named: Any) -> Path:
    if named is not None and not isinstance(named, str):
        raise CohortError(f"cache under [images] must be a path; got {named!r}")
    if named is None and os.environ.get("NORMFUSE_CACHE"):
        return Path(os.environ["NORMFUSE_CACHE"]) / "volumes"
    return folder / (named or CACHE)


def _pattern(name: str, section: Mapping[str, Any]) -> str:
    if not isinstance(section["images"], str):
        raise CohortError(f"modality {name}: images must be a path with {{id}} in it; got "
                          f"{section['images']!r}")
    return section["images"]


def _plan(name: str, section: Mapping[str, Any], folder: Path) -> VolumePlan:
    mask, zeros = section.get("mask"), section.get("zeros", "values")
    if mask is not None and not isinstance(mask, str):
        raise CohortError(f"modality {name}: mask must be {', '.join(TISSUES)} or a path; got "
                          f"{mask!r}")
    if zeros not in ("values", "missing"):
        raise CohortError(f"modality {name}: zeros must be \"values\" or \"missing\"; got "
                          f"{zeros!r}")
    scaling = section.get("scaling", "none")
    if scaling not in ("none", *SCALINGS):
        raise CohortError(f"modality {name}: scaling must be one of none, {', '.join(SCALINGS)}; "
                          f"got {scaling!r}")
    numbers = {key: section[key] for key in ("resolution", "smoothing", "extent", "min_coverage")
               if key in section}
    try:
        plan = VolumePlan.for_modality(
            name, mask=mask if mask is None or mask in TISSUES else folder / mask,
            zeros_missing=zeros == "missing", scaling=SCALINGS.get(scaling), **numbers)
        plan.space  # a mask that cannot be read should fail before images are looked for
    except CohortError as problem:
        raise CohortError(f"modality {name}: {problem}") from problem
    return plan

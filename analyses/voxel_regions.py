"""Regions of voxels: means of a person's voxels, judged by the same means of healthy people."""
from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from normfuse.calibration_check import check_calibration
from normfuse.deviations import JUDGES, MAPS, ROLE
from normfuse.errors import AtlasError, SpaceMismatchError, listed
from normfuse.parcels import Parcels, region_table
from normfuse.space import Space

from .judging import MIN_JUDGES, judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nibabel.nifti1 import Nifti1Image
    from normfuse.atlas import Atlas
    from normfuse.deviations import Deviations, Reference
    from normfuse.parcels import RegionMean


OF, REGIONS = "of", "regions"
"""In a row of the calibration: whose z it is about."""


@dataclass(frozen=True, eq=False)
class VoxelRegions:
    """One modality's voxels as regions.

    Attributes
    ----------
    people, controls : dict of DataFrame
        ``z``, ``observed`` and ``expected`` of the people and of the controls in memory (empty if
        there are none).
    mean_z : DataFrame
        Plain means of everybody's z.
    n_voxels : Series
        Of each region.
    n_judges : int
        Controls whose means z was judged by.
    """

    people: dict[str, pd.DataFrame]
    controls: dict[str, pd.DataFrame]
    mean_z: pd.DataFrame
    n_voxels: pd.Series
    n_judges: int


def voxel_spaces(deviations: Deviations) -> dict[str, Space]:
    """Where the voxels of each modality are; modalities of regions are left out.

    Raises
    ------
    SpaceMismatchError
        If a modality's features are not the voxels of the space that its reference names.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> voxel_spaces(tiny_deviations())
    {}
    """
    of_each = {name: deviations.space(name) for name in deviations.modalities}
    found = {name: space for name, space in of_each.items() if space is not None}
    blocks = deviations.blocks().as_is()  # those on disk stay there
    for name, space in found.items():
        features = blocks[name].columns
        if set(features) != set(space.features):
            raise SpaceMismatchError(
                f"{name} has {len(features)} features ({listed(features, 2)}) that are not the "
                f"voxels of {space!r}, in which the model's reference puts them; give the "
                "deviations as the model made them")
    return found


def regions_of_voxels(deviations: Deviations, modality: str, space: Space, atlas: Atlas, *,
                      how: RegionMean, least: int = 1) -> VoxelRegions:
    """Means of one modality's voxels, and z of them by the controls; see ``parcellate``."""
    parcels = Parcels.of(atlas, space, least=least)
    people = _means(deviations, modality, parcels, how)
    controls = {} if deviations.controls is None else _means(deviations.controls, modality,
                                                             parcels, how)
    mean_z = people["z"]
    if controls:
        judges = controls["z"]
        mean_z = pd.concat([mean_z, judges.loc[judges.index.difference(mean_z.index)]])
    else:
        role = deviations.subjects.get(ROLE, pd.Series("", deviations.subjects.index))
        judges = mean_z[role.reindex(mean_z.index).isin(JUDGES)]
    judges = judges.dropna(how="all")
    if len(judges) < MIN_JUDGES:
        warnings.warn(
            f"{modality}: {len(judges)} held-out controls are at hand, and {MIN_JUDGES} are "
            "needed to say how far regional means of healthy people spread: z of regions is NaN; "
            "mean_z holds the means, which are not standard normal. Score the reference's healthy "
            "people along with the others, or parcellate while the model that was fitted is in "
            "memory",
            stacklevel=4)
    for tables in filter(None, (people, controls)):
        tables["z"] = judged(tables["z"], judges)
    return VoxelRegions(people, controls, mean_z, parcels.n_voxels, len(judges))


def _means(deviations: Deviations, modality: str, parcels: Parcels, how: RegionMean
           ) -> dict[str, pd.DataFrame]:
    return {name: region_table(deviations.blocks(name).as_is()[modality], parcels, how=how)
            for name in MAPS}


def with_regions(kept: Deviations, made: Mapping[str, VoxelRegions], order: Sequence[str],
                 atlas: str, how: str) -> Deviations:
    """Deviations that hold the named features already, and now these modalities' regions."""
    facts, notes = dict(kept.reference.modalities), list(kept.reference.notes)
    for name, found in made.items():
        known = {key: value for key, value in facts[name].items() if key != "space"}
        facts[name] = {**known, "n_features": len(found.n_voxels), "atlas": atlas}
        notes.append(f"{name}: regions of atlas {atlas} are means of voxels by {how}; " + (
            f"z of them is judged by {found.n_judges} held-out controls"
            if found.n_judges >= MIN_JUDGES
            else "z of them is unknown, as no held-out controls were at hand"))
    reference = replace(kept.reference, modalities=facts, notes=tuple(notes))

    def joined(part: Deviations, whose: str) -> Deviations:
        tables = {}
        for table in MAPS:
            named: pd.DataFrame = getattr(part, table)
            pieces = {name: named[name] for name in named.columns.get_level_values(0).unique()}
            pieces |= {name: getattr(found, whose)[table] for name, found in made.items()}
            tables[table] = pd.concat({name: pieces[name] for name in order if name in pieces},
                                      axis=1, names=["modality", "feature"])
        return part.changed(**tables, conformal=None, reference=reference)

    controls = None if kept.controls is None else joined(kept.controls, "controls")
    regional = joined(kept, "people").changed(controls=controls)
    reference = replace(reference, **_calibration(regional))
    return regional.changed(reference=reference, controls=None if controls is None
                            else controls.changed(reference=reference))


def _calibration(regional: Deviations) -> dict[str, Any]:
    """How often healthy people's regions exceed a threshold; what voxels do says nothing of it."""
    subjects = regional.subjects
    role = subjects[ROLE] if ROLE in subjects else pd.Series("", subjects.index)
    judges = regional.controls or regional.select(subjects.index[role.isin(JUDGES)])
    kept = [row for row in regional.reference.calibration
            if not str(row["quantity"]).startswith("z ")]
    if not len(judges) or not judges.z.notna().to_numpy().any():
        return {"calibration": kept, "quantiles": {}}
    rows, quantiles = check_calibration(judges)
    return {"calibration": [{**row, OF: REGIONS} for row in rows
                            if str(row["quantity"]).startswith("z ")] + kept,
            "quantiles": quantiles}


def calibrates_voxels(reference: Reference) -> bool:
    """Whether these are regions whose reference still holds the calibration of their voxels.

    An older normfuse wrote such folders.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> calibrates_voxels(tiny_deviations().reference)
    False
    """
    averaged = any("atlas" in facts for facts in reference.modalities.values())
    return averaged and any(str(row["quantity"]).startswith("z ") and row.get(OF) != REGIONS
                            for row in reference.calibration)


def unparcellate(values: Mapping[str, float] | pd.Series, atlas: Atlas,
                 where: Space | Nifti1Image | None = None, *, background: float = np.nan
                 ) -> Nifti1Image:
    """A map that holds each region's value in all of its voxels, on any grid.

    The inverse of averaging: means of its voxels are the values again, to the last digit, for
    every region that has voxels.

    Parameters
    ----------
    values : Mapping or Series of float
        Region name -> value, in any unit; regions may be left out. float64 stays so.
    atlas : Atlas
    where : Space or image, optional
        A space's voxels, or the whole grid of an image (taken to lie in the atlas's space); the
        atlas's own grid by default.
    background : float
        Of every voxel without a value. NaN by default: 0 is a possible deviation.

    Returns
    -------
    Nifti1Image of float32 or float64

    Raises
    ------
    AtlasError
        For an unknown name, or if no region has a voxel there. A warning names regions without.
    SpaceMismatchError
        If atlas and voxels are said to lie in different spaces.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> atlas, affine = load_atlas("dk"), np.diag([4.0, 4, 4, 1])
    >>> affine[:3, 3] = (-72, -108, -72)
    >>> space = Space(np.ones((37, 46, 40), bool), affine, atlas.space)
    >>> made = unparcellate({"Left-Hippocampus": -2.5}, atlas, space)
    >>> int(np.isfinite(made.dataobj).sum()), float(np.nanmax(made.dataobj))
    (96, -2.5)
    """
    import nibabel as nib

    series = pd.Series(values)
    single = series.dtype == np.float32
    value_of = np.append(series.to_numpy(np.float32 if single else np.float64), background)
    if series.index.has_duplicates:
        twice = series.index[series.index.duplicated()].unique()
        raise AtlasError(f"more than one value for {listed(twice)}; each region needs one")
    numbers = pd.Index(atlas.region_numbers(series.index))
    whole = atlas.labels_img if where is None else where
    if not isinstance(whole, Space):
        whole = Space(np.ones(whole.shape[:3], dtype=bool), whole.affine, atlas.space)
    labels = atlas.labels.ravel() if where is None else atlas.on(whole)
    data = np.full(whole.shape, background, dtype=np.float32 if single else np.float64)
    data[whole.mask] = value_of[numbers.get_indexer(pd.Index(labels))]  # -1: the background
    made = nib.Nifti1Image(data, whole.affine)
    code = 4 if whole.name.startswith("MNI") else 2  # MNI152, or aligned to something else
    made.set_sform(whole.affine, code=code)
    made.set_qform(whole.affine, code=code)
    return made

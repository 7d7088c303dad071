"""Verbs about deviations of voxels: maps of people, groups voxel by voxel, regions."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BegunWorkError, CohortError, ComparisonError, listed
from .advice import as_options
from .application import free_place
from .choices import (Adjust, DeviationsFolder, NewFolder, Only, Overwrite, Scheduler, Statistic,
                      Workers, names, runner)
from .made import Made
from .verbs import verb

if TYPE_CHECKING:
    from normfuse.analyses import VoxelComparison

    from ..deviations import Deviations


@verb("""
normfuse maps deviations/ --out maps/
normfuse maps deviations/ --out maps/ --subjects "diagnosis == 'AD'"
""")
def maps(deviations: DeviationsFolder, out: NewFolder, subjects: Only = None,
         overwrite: Overwrite = False) -> Made:
    """Write z-maps of voxels as NIfTI: one file a person and modality, named as BIDS derivatives.
    """
    free_place(out, overwrite, "dataset_description.json")
    from normfuse.analyses import write_voxel_maps

    from ..deviations import Deviations

    found = Deviations.read(deviations)
    if subjects is not None:
        found = found.select(subjects)
    written = write_voxel_maps(found, out, overwrite=overwrite)
    return Made("maps", out, f"maps: {out}\n{len(written)} files of {len(found)} people",
                {"files": len(written), "people": len(found)}, found.reference.notes)


@verb("""
normfuse regions deviations/ --out regions/
# an atlas that nilearn fetches; any labels image with its table
normfuse regions deviations/ --atlas schaefer_100 --out regions/
normfuse regions deviations/ --atlas labels.nii.gz --table labels.tsv \\
    --out regions/
""")
def regions(deviations: DeviationsFolder, out: NewFolder,
            atlas: Annotated[str, typer.Option(
                help="A name, or a labels image with its table beside it.")] = "dk",
            table: Annotated[Path | None, typer.Option(
                help="The table of a labels image, if it does not lie beside it under its name: "
                "TSV, CSV, BIDS, FreeSurfer, Workbench, ITK-SNAP or XML.")] = None,
            overwrite: Overwrite = False) -> Made:
    """Average voxels over the regions of an atlas; `compare` and `report` take the result.

    z of a region is judged by the held-out controls among the people scored.
    """
    from ..deviation_files import is_ours

    free_place(out, overwrite, "reference.json", is_ours)
    from normfuse.analyses import parcellate

    from ..atlas import load_atlas
    from ..deviations import Deviations

    found = parcellate(Deviations.read(deviations), load_atlas(atlas, table))
    found.deviations.save(out, overwrite=overwrite)
    z = found.deviations.z
    return Made("regions", out, f"regions: {out}\n{found!r}",
                {"people": len(z), "regions": z.shape[1]}, found.deviations.reference.notes)


@verb("""
normfuse compare-voxels deviations/ --group diagnosis --contrast AD,CN \\
    --out groups/
# clusters by mass, on four processes
normfuse compare-voxels deviations/ --group diagnosis --by mass --workers 4 \\
    --out groups/
""", name="compare-voxels")
def compare_voxels(deviations: DeviationsFolder, out: NewFolder,
                   group: Annotated[str, typer.Option(help="Column of the subjects table.")],
                   adjust: Adjust = None,
                   contrast: Annotated[str | None, typer.Option(
                       metavar="CASE,BASELINE", help="Needed for more than two groups.")] = None,
                   permutations: Annotated[int, typer.Option(
                       min=0, help="Of people within sites, for p-values corrected by the largest "
                       "value; 0: Benjamini-Hochberg.")] = 1000,
                   by: Annotated[Statistic, typer.Option(
                       help="Whose largest value: of a voxel's t, of a cluster's extent or mass "
                       "(voxels of p < .001), or threshold-free enhancement, which is slow. "
                       "What spreads over many voxels shows in clusters first.")] = Statistic.t,
                   modalities: Annotated[str | None, typer.Option(
                       metavar="NAMES", help="Only these, as t1,pet.")] = None,
                   blocks: Annotated[str | None, typer.Option(
                       metavar="NAME", help="Column within which people change places, or none. "
                       "By default the model's site.")] = None,
                   seed: Annotated[int, typer.Option(min=0, help="Of permutations.")] = 0,
                   scheduler: Scheduler = None, workers: Workers = 1,
                   overwrite: Overwrite = False) -> Made:
    """Compare two groups in every voxel: t, Hedges' g and corrected p as NIfTI, peaks as a table.

    One folder a modality; one that cannot be compared is named, and the others are. If it stops
    half-way, the same command goes on where it stopped.
    """
    free_place(out, overwrite, "modalities.json", _is_comparison)
    from normfuse import analyses
    from normfuse.analyses.report_voxels import INDEX

    from ..deviations import Deviations
    from ..outputs import new_folder

    found = Deviations.read(deviations)
    shuffled = {Statistic.t: analyses.MaxT, Statistic.extent: analyses.ClusterExtent,
                Statistic.mass: analyses.ClusterMass, Statistic.tfce: analyses.Tfce}[by]
    correction = shuffled(permutations, blocks=_blocks(found, blocks), seed=seed) \
        if permutations else analyses.BenjaminiHochberg()
    pair = None if contrast is None else tuple(part.strip() for part in contrast.split(","))
    if pair is not None and len(pair) != 2:
        raise typer.BadParameter(f"two values with a comma between, as AD,CN; got {contrast!r}")
    kept = out.with_name(f".{out.name}.unfinished")

    def compared(m: str) -> VoxelComparison:
        return analyses.compare_voxels(
            analyses.VoxelTable.of(found, m), group, adjust=names(adjust), contrast=pair,
            correction=correction, resume=kept / m, run=runner(scheduler, workers))

    with new_folder(out, overwrite=overwrite, ours=_is_comparison) as work:
        made, refused = _each(_of_voxels(found, deviations, names(modalities)), compared, work)
        (work / INDEX).write_text(json.dumps({"compared": made, "refused": refused}, indent=1))
    shutil.rmtree(kept, ignore_errors=True)
    return Made("groups", out, f"groups: {out}", {"compared": len(made), "refused": len(refused)},
                result={"compared": made, "refused": refused})


def _is_comparison(path: Path) -> bool:
    return path.name == "modalities.json" or (path / "comparison.json").is_file()


def _each(modalities: list[str], compared: Callable[[str], VoxelComparison], work: Path
          ) -> tuple[list[str], dict[str, str]]:
    """Compare and save; names of those that were, and why the others were not."""
    made, refused = [], {}
    for m in modalities:
        try:
            found = compared(m)
        except BegunWorkError as problem:  # of the command, not of the modality
            raise BegunWorkError(as_options(problem)) from problem
        except (CohortError, ComparisonError) as problem:
            refused[m] = as_options(problem)
            continue
        found.save(work / m)
        made.append(m)
        typer.echo(f"{m}: {as_options(found.summary())}")
    if not made:
        whys = set(refused.values())
        raise ComparisonError(whys.pop() if len(whys) == 1 else "; ".join(
            f"{m}: {why}" for m, why in refused.items()))
    for m, why in refused.items():
        typer.secho(f"{m} was not compared: {why}", fg="yellow", err=True)
    return made, refused


def _of_voxels(found: Deviations, folder: Path, asked: list[str] | None) -> list[str]:
    """Which modalities to compare."""
    from normfuse.analyses.voxel_regions import voxel_spaces

    there = list(voxel_spaces(found))
    if not there:
        raise ComparisonError(f"no modality of {folder} has voxels; `normfuse compare` "
                              "compares regions")
    if asked is None:
        return there
    unknown = [m for m in asked if m not in there]
    if unknown or not asked:
        raise ComparisonError(f"no modality {listed(unknown) or 'named'} of {folder} has voxels; "
                              f"there is {listed(there, 12)}")
    return list(dict.fromkeys(asked))


def _blocks(found: Deviations, asked: str | None) -> str | None:
    """The column within which people change places."""
    if asked is not None:
        return None if asked == "none" else asked
    sites = [n for n, fact in found.reference.covariates.items() if fact.get("kind") == "site"]
    if len(sites) > 1:
        raise ComparisonError(f"the model knows {listed(sites)} as sites; say within which people "
                              f"change places, as --blocks {sites[0]}, or --blocks none")
    return sites[0] if sites else None

"""Verbs about deviations of voxels: maps of people, groups voxel by voxel, regions."""
from __future__ import annotations

import json
import shutil
from typing import Annotated

import typer

from .application import app, free_place
from .choices import (Adjust, DeviationsFolder, NewFolder, Only, Overwrite, Scheduler, Statistic,
                      Workers, names, runner)


@app.command()
def maps(deviations: DeviationsFolder, out: NewFolder, subjects: Only = None,
         overwrite: Overwrite = False) -> None:
    """Write z-maps of voxels as NIfTI: one file a person and modality, named as BIDS derivatives.

    Example: `normfuse maps deviations/ --out maps/ --subjects "diagnosis == 'AD'"`
    """
    free_place(out, overwrite, "dataset_description.json")
    from normfuse.analyses import write_voxel_maps

    from ..deviations import Deviations

    found = Deviations.read(deviations)
    if subjects is not None:
        found = found.select(subjects)
    written = write_voxel_maps(found, out, overwrite=overwrite)
    typer.echo(f"maps: {out}\n{len(written)} files of {len(found)} people")


@app.command()
def regions(deviations: DeviationsFolder, out: NewFolder,
            atlas: Annotated[str, typer.Option(
                help="A name, or a labels image with its table beside it.")] = "dk",
            overwrite: Overwrite = False) -> None:
    """Average voxels over the regions of an atlas; `compare` and `report` take the result.

    z of a region is judged by the held-out controls among the people scored.

    Example: `normfuse regions deviations/ --atlas dk --out regions/`
    """
    free_place(out, overwrite, "reference.json")
    from normfuse.analyses import parcellate

    from ..deviations import Deviations

    found = parcellate(Deviations.read(deviations), atlas)
    found.deviations.save(out, overwrite=overwrite)
    typer.echo(f"regions: {out}\n{found!r}")


@app.command(name="compare-voxels")
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
                   seed: Annotated[int, typer.Option(min=0, help="Of permutations.")] = 0,
                   scheduler: Scheduler = None, workers: Workers = 1,
                   overwrite: Overwrite = False) -> None:
    """Compare two groups in every voxel: t, Hedges' g and corrected p as NIfTI, peaks as a table.

    One folder a modality. If it stops half-way, the same command goes on where it stopped.

    Example: `normfuse compare-voxels deviations/ --group diagnosis --contrast AD,CN --out groups/`
    """
    free_place(out, overwrite, "modalities.json")
    from normfuse import analyses
    from normfuse.analyses.report_voxels import INDEX
    from normfuse.analyses.voxel_regions import voxel_spaces

    from ..deviations import Deviations
    from ..errors import ComparisonError
    from ..outputs import new_folder

    found = Deviations.read(deviations)
    sites = [n for n, fact in found.reference.covariates.items() if fact.get("kind") == "site"]
    shuffled = {Statistic.t: analyses.MaxT, Statistic.extent: analyses.ClusterExtent,
                Statistic.mass: analyses.ClusterMass, Statistic.tfce: analyses.Tfce}[by]
    correction = shuffled(permutations, blocks=sites[0] if sites else None, seed=seed) \
        if permutations else analyses.BenjaminiHochberg()
    pair = None if contrast is None else tuple(part.strip() for part in contrast.split(","))
    if pair is not None and len(pair) != 2:
        raise typer.BadParameter(f"two values with a comma between, as AD,CN; got {contrast!r}")
    kept = out.with_name(f".{out.name}.unfinished")
    modalities = list(voxel_spaces(found))
    if not modalities:
        raise ComparisonError(f"no modality of {deviations} has voxels; `normfuse compare` "
                              "compares regions")
    with new_folder(out, overwrite=overwrite) as work:
        for m in modalities:
            made = analyses.compare_voxels(
                analyses.VoxelTable.of(found, m), group, adjust=names(adjust), contrast=pair,
                correction=correction, resume=kept / m, run=runner(scheduler, workers))
            made.save(work / m)
            typer.echo(f"{m}: {made.summary()}")
        (work / INDEX).write_text(json.dumps(modalities))
    shutil.rmtree(kept, ignore_errors=True)
    typer.echo(f"groups: {out}")

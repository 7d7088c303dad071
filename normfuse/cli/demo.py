"""The verb that shows all others on a simulated cohort."""
from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .application import app, free_place
from .choices import NewFolder, Overwrite
from .made import Made
from .verbs import verb

QUICK = {"people": (150, 30), "options": "--epochs 60 --latent 5"}
FULL = {"people": (600, 120), "options": ""}
QUICK_VOXELS = {"people": (150, 20), "options": "--epochs 40 --latent 5", "resolution": 8,
                "permutations": 50}
VOXELS = {"people": (200, 30), "options": "", "resolution": 4, "permutations": 1000}


@verb("""
normfuse demo --out out/
# of images: z-maps, groups voxel by voxel, regions
normfuse demo --voxels --out out/
# does it all work here? a minute
normfuse demo --quick --out out/
""")
def demo(out: NewFolder,
         voxels: Annotated[bool, typer.Option(
             "--voxels", help="A cohort of NIfTI images instead of a table of regions.")] = False,
         quick: Annotated[bool, typer.Option(
             "--quick", help="Few people and epochs: a check that all works, no result.")] = False,
         seed: Annotated[int, typer.Option(min=0, help="Of people and model.")] = 0,
         overwrite: Overwrite = False) -> Made:
    """Simulate a cohort and run everything on it; prints the commands it runs."""
    free_place(out, overwrite, "cohort/cohort.toml")
    lines = _voxels(out, seed, QUICK_VOXELS if quick else VOXELS) if voxels else \
        _regions(out, seed, QUICK if quick else FULL)
    commands = []
    for line in lines:
        commands.append(f"normfuse {line.strip()}")
        typer.secho(f"\n$ {commands[-1]}", bold=True)
        if code := app(shlex.split(line), standalone_mode=False):
            raise typer.Exit(code)
    return Made("demo", out, f"\ndemo: {out}\nopen {out / 'report.html'}",
                {"commands": len(commands)}, result={"commands": commands})


def _regions(out: Path, seed: int, size: dict[str, Any]) -> Iterator[str]:
    """Simulates, then gives the commands."""
    from ..simulate import simulate_cohort, write_cohort

    n_reference, n_patients = size["people"]
    typer.secho(f"# simulate_cohort({n_reference}, {n_patients}, seed={seed}) -> {out / 'cohort'}",
                bold=True)
    simulated = simulate_cohort(n_reference, n_patients, seed=seed)
    _clear(out)
    file = write_cohort(simulated.cohort, out / "cohort")
    at = _places(out)
    yield f"fit {shlex.quote(str(file))} --out {at['model']} --seed {seed} {size['options']}"
    yield f"score {at['model']} {shlex.quote(str(file))} --out {at['deviations']}"
    yield (f"compare {at['deviations']} --group diagnosis --adjust age,sex --baseline CN "
           f"--out {at['groups']}")
    yield f"report {at['deviations']} --groups {at['groups']} --out {at['report.html']}"


def _voxels(out: Path, seed: int, size: dict[str, Any]) -> Iterator[str]:
    """The same from images."""
    from ..simulated_volumes import simulate_volumes

    n_reference, n_patients = size["people"]
    typer.secho(f"# simulate_volumes({str(out / 'cohort')!r}, {n_reference}, {n_patients}, "
                f"resolution={size['resolution']}, seed={seed})", bold=True)
    _clear(out)
    file = simulate_volumes(out / "cohort", n_reference, n_patients, seed=seed,
                            resolution=size["resolution"]).cohort_file
    yield from voxel_commands(out, file, seed, size)


def voxel_commands(out: Path, file: Path, seed: int, size: dict[str, Any]) -> Iterator[str]:
    """Maps of people, groups voxel by voxel and by clusters, and regions for the report."""
    at = _places(out)
    yield f"fit {shlex.quote(str(file))} --out {at['model']} --seed {seed} {size['options']}"
    yield f"score {at['model']} {shlex.quote(str(file))} --out {at['deviations']}"
    yield (f"maps {at['deviations']} --subjects \"group == 'patient'\" --out {at['maps']}")
    yield (f"compare-voxels {at['deviations']} --group group --adjust age,sex --contrast "
           f"patient,control --permutations {size['permutations']} --out {at['voxel_groups']}")
    yield (f"compare-voxels {at['deviations']} --group group --adjust age,sex --contrast "
           f"patient,control --permutations {size['permutations']} --by mass "
           f"--out {at['voxel_clusters']}")
    yield f"regions {at['deviations']} --atlas dk --out {at['regions']}"
    yield (f"compare {at['regions']} --group group --adjust age,sex --baseline control "
           f"--out {at['groups']}")
    yield (f"report {at['regions']} --groups {at['groups']} --voxel-groups "
           f"{at['voxel_clusters']} --voxels {at['deviations']} --out {at['report.html']}")


def _places(out: Path) -> dict[str, str]:
    return {name: shlex.quote(str(out / name)) for name in (
        "model", "deviations", "groups", "maps", "voxel_groups",
        "voxel_clusters", "regions", "report.html")}


def _clear(out: Path) -> None:
    if out.exists():
        shutil.rmtree(out)

"""The verb that shows all others on a simulated cohort."""
from __future__ import annotations

import shlex
import shutil
from typing import Annotated, Any

import typer

from .application import app, free_place
from .choices import NewFolder, Overwrite

QUICK = {"people": (150, 30), "options": "--epochs 60 --latent 5"}
FULL = {"people": (600, 120), "options": ""}


@app.command()
def demo(out: NewFolder,
         quick: Annotated[bool, typer.Option(
             "--quick", help="Few people and epochs: a check that all works, no result.")] = False,
         seed: Annotated[int, typer.Option(min=0, help="Of people and model.")] = 0,
         overwrite: Overwrite = False) -> None:
    """Simulate a cohort and run everything on it; prints the commands it runs.

    Example: `normfuse demo --out out/`
    """
    from ..simulate import simulate_cohort, write_cohort

    free_place(out, overwrite, "cohort/cohort.toml")
    size: dict[str, Any] = QUICK if quick else FULL
    n_reference, n_patients = size["people"]
    typer.secho(f"# simulate_cohort({n_reference}, {n_patients}, seed={seed}) -> {out / 'cohort'}",
                bold=True)
    simulated = simulate_cohort(n_reference, n_patients, seed=seed)
    if out.exists():
        shutil.rmtree(out)
    file = write_cohort(simulated.cohort, out / "cohort")
    where = {name: shlex.quote(str(out / name))
             for name in ("model", "deviations", "groups", "report.html")}
    toml = shlex.quote(str(file))
    for line in (f"fit {toml} --out {where['model']} --seed {seed} {size['options']}",
                 f"score {where['model']} {toml} --out {where['deviations']}",
                 f"compare {where['deviations']} --group diagnosis --adjust age,sex "
                 f"--baseline CN --out {where['groups']}",
                 f"report {where['deviations']} --groups {where['groups']} "
                 f"--out {where['report.html']}"):
        typer.secho(f"\n$ normfuse {line.strip()}", bold=True)
        if code := app(shlex.split(line), standalone_mode=False):
            raise typer.Exit(code)

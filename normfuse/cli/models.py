"""Verbs about a model: learn it, teach it a site, say how good it is."""
from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from .application import app, free_place
from .choices import (WHEN, CohortFile, Fusion, KindChoice, ModelFolder, NewFolder, Only,
                      Overwrite, Session, SiteChoice, aggregator, sizes)
from .people import healthy

if TYPE_CHECKING:
    from ..deviations import Reference


@app.command(help="Learn from the cohort's healthy (reference) people.\n\n"
             "Example: `normfuse fit cohort.toml --out model/ --fusion mopoe`\n\n"
             "How modalities are fused:\n\n"
             + "\n".join(f"* **{name}**: {when}" for name, when in WHEN.items()))
def fit(cohort: CohortFile, out: NewFolder,
        fusion: Annotated[Fusion, typer.Option(help="See above.")] = Fusion.wasserstein,
        latent: Annotated[int | None, typer.Option(
            min=1, help="Latent dimensions; by default one per ten people, 16 at most.")] = None,
        levels: Annotated[str | None, typer.Option(
            metavar="SIZES", help="Several latent levels instead, from the features inwards, as "
            "16,6.")] = None,
        convolutions: Annotated[bool, typer.Option(
            "--convolutions", help="Of images: train convolutions too, and keep them if people "
            "whom training did not see become more probable. Takes minutes at 8 mm, hours at 4 mm."
            )] = False,
        seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
        epochs: Annotated[int | None, typer.Option(
            min=1, help="Most epochs; training stops early by itself.")] = None,
        parts: Annotated[int, typer.Option(
            min=1, help="Pieces of each batch, for several processes: `torchrun --nproc-per-node "
            "2 -m normfuse fit …` has 2 at least, and is repeated by one process with as many."
            )] = 1,
        session: Session = None,
        overwrite: Overwrite = False) -> None:
    """Learn from the cohort's reference people and save the model."""
    free_place(out, overwrite, "model.json")
    from ..cohort import Cohort
    from ..models import Convolutional, Ladder, OneLatent
    from ..normative import NormativeModel
    from ..processes import processes
    from ..training import TrainingPlan

    controls = Cohort.read(cohort, session=session).reference_subjects()
    plan = TrainingPlan(parts=parts)
    if epochs is not None:  # the KL warm-up must end before the training does
        plan = replace(plan, max_epochs=epochs, warmup=min(plan.warmup, epochs // 4))
    voxels = Convolutional() if convolutions else None
    recipe = OneLatent(voxels=voxels) if levels is None else \
        Ladder(levels=sizes(levels, latent), voxels=voxels)
    model = NormativeModel(aggregator(fusion), model=recipe, n_latent=latent, plan=plan,
                           seed=seed)
    kept = out.with_name(f".{out.name}.unfinished")
    model.fit(controls, keep=kept).save(out, overwrite=overwrite)
    if not processes().is_first:
        return
    shutil.rmtree(kept, ignore_errors=True)
    typer.echo(f"model: {out}\n{_account(model.fitted.reference)}")


@app.command()
def adapt(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
          overwrite: Overwrite = False) -> None:
    """Teach a model a new site from some of its healthy (reference) people: 10, better 50.

    Writes a new model; z at the sites it knew stay as they are. People it was taught by are no
    longer new to it: score others.

    Example: `normfuse adapt model/ new_site.toml --out adapted/ --subjects "site == 'north'"`
    """
    free_place(out, overwrite, "model.json")
    from ..normative import NormativeModel

    before = NormativeModel.load(model)
    after = before.adapt(healthy(cohort, subjects))
    after.save(out, overwrite=overwrite)
    added = after.fitted.reference.notes[len(before.fitted.reference.notes):]
    typer.echo("\n".join([f"model: {out}", *added]))


@app.command()
def evaluate(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
             kind: KindChoice = None, unseen_site: SiteChoice = None,
             overwrite: Overwrite = False) -> None:
    """Say how good a model is on healthy (reference) people it was not trained on, 10 at least.

    Accuracy, calibration, outer centiles and what z still knows of age, sex and site, as CSV
    tables, beside a spline regression of the same people.

    Example: `normfuse evaluate model/ held_out.toml --out evaluation/ --kind covariates`
    """
    free_place(out, overwrite, "evaluation.json")
    from ..criticism import evaluate as evaluated
    from ..normative import NormativeModel

    found = evaluated(NormativeModel.load(model), healthy(cohort, subjects), kind=kind,
                      unseen_site=unseen_site)
    found.save(out, overwrite=overwrite)
    typer.echo(f"evaluation: {out}\n{found.summary()}")


def _account(reference: Reference) -> str:
    """What was learned, and what the held-out controls say of it, in a few lines."""
    roles = ", ".join(f"{n} {role.replace('_', ' ')}" for role, n in reference.n_subjects.items())
    lines = [f"{reference.fusion}, {reference.model}; people: {roles}; "
             f"{len(reference.history)} epochs"]
    for row in reference.calibration:
        if row["quantity"] in ("z all", "latent distance"):
            beyond = f"p < {row['nominal']:g}"
            lines.append(f"held-out controls, {row['quantity']}: {row['share']:.1%} at {beyond} "
                         f"[{row['low']:.1%}, {row['high']:.1%}], expected {row['nominal']:.0%}")
    return "\n".join([*lines, *(f"note: {note}" for note in reference.notes)])

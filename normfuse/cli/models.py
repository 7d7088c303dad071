"""Verbs about a model: learn it, teach it a site, say how good it is."""
from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from .application import free_place, named
from .choices import (WHEN, Calibration, CalibrationChoice, CohortFile, Fusion, KindChoice,
                      ModelFolder, NewFolder, Only, Overwrite, Session, SiteChoice, aggregator,
                      calibration_of, sizes)
from .made import Made
from .people import healthy
from .verbs import verb

if TYPE_CHECKING:
    from ..deviations import Reference


QUICK_EPOCHS = 60
QUICK = ("a quick fit, for trying whether all works: at most {n} epochs, and calibration on 30 % "
         "held out however few people there are. Fit again without --quick before you use a z")

_is_model = named("model.json", "weights.safetensors")
_is_evaluation = named("evaluation.json", *(f"{name}.csv" for name in (
    "features", "coverage", "outer", "leftover", "sites")))


@verb("""
normfuse fit cohort.toml --out model/
# another fusion, fewer latent dimensions
normfuse fit cohort.toml --out model/ --fusion mopoe --latent 8
# does it all work? a minute or less
normfuse fit cohort.toml --out trial/ --quick
# exactly as before
normfuse fit --config model/command.json --out again/
""", help="Learn from the cohort's healthy (reference) people and save the model.\n\n"
      "If it stops half-way, the same command goes on.\n\nHow modalities are fused:\n\n"
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
        calibration: CalibrationChoice = None,
        quick: Annotated[bool, typer.Option(
            "--quick", help=f"For trying: at most {QUICK_EPOCHS} epochs, nobody cross-fitted. No "
            "result.")] = False,
        session: Session = None,
        overwrite: Overwrite = False) -> Made | None:
    """Learn from the cohort's reference people and save the model."""
    free_place(out, overwrite, "model.json", _is_model)
    from ..cohort import Cohort
    from ..models import Convolutional, Ladder, OneLatent
    from ..normative import NormativeModel
    from ..processes import processes
    from ..training import TrainingPlan

    controls = Cohort.read(cohort, session=session).reference_subjects()
    plan = TrainingPlan(parts=parts)
    if quick:
        epochs, calibration = epochs or QUICK_EPOCHS, calibration or Calibration.held_out
        warnings.warn(QUICK.format(n=epochs), stacklevel=2)
    if epochs is not None:  # the KL warm-up must end before the training does
        plan = replace(plan, max_epochs=epochs, warmup=min(plan.warmup, epochs // 4))
    voxels = Convolutional() if convolutions else None
    recipe = OneLatent(voxels=voxels) if levels is None else \
        Ladder(levels=sizes(levels, latent), voxels=voxels)
    model = NormativeModel(aggregator(fusion), model=recipe, n_latent=latent, plan=plan,
                           seed=seed, calibration=calibration_of(calibration))
    kept = out.with_name(f".{out.name}.unfinished")
    model.fit(controls, keep=kept).save(out, overwrite=overwrite)
    if not processes().is_first:
        return None
    shutil.rmtree(kept, ignore_errors=True)
    found = model.fitted.reference
    return Made("model", out, f"model: {out}\n{_account(found)}",
                {**found.n_subjects, "epochs": len(found.history), "latent": found.n_latent},
                found.notes, {"fusion": found.fusion, "model": found.model,
                              "calibration": [dict(row) for row in found.calibration]})


@verb("""
normfuse adapt model/ new_site.toml --subjects "site == 'north'" \\
    --out adapted/
# then score others of that site
normfuse score adapted/ new_site.toml --out deviations/
""")
def adapt(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
          overwrite: Overwrite = False) -> Made:
    """Teach a model a new site from some of its healthy (reference) people: 10, better 50.

    Writes a new model; z at the sites it knew stay as they are. People it was taught by are no
    longer new to it: score others.
    """
    free_place(out, overwrite, "model.json", _is_model)
    from ..normative import NormativeModel

    before = NormativeModel.load(model)
    people = healthy(cohort, subjects)
    after = before.adapt(people)
    after.save(out, overwrite=overwrite)
    added = after.fitted.reference.notes[len(before.fitted.reference.notes):]
    return Made("model", out, "\n".join([f"model: {out}", *added]), {"learned_from": len(people)},
                tuple(added))


@verb("""
normfuse evaluate model/ held_out.toml --out evaluation/
# beside published normative models, which know age, sex and site
normfuse evaluate model/ held_out.toml --out evaluation/ --kind covariates
""")
def evaluate(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
             kind: KindChoice = None, unseen_site: SiteChoice = None,
             overwrite: Overwrite = False) -> Made:
    """Say how good a model is on healthy (reference) people it was not trained on, 10 at least.

    Accuracy, calibration, outer centiles and what z still knows of age, sex and site, as CSV
    tables, beside a spline regression of the same people.
    """
    free_place(out, overwrite, "evaluation.json", _is_evaluation)
    from ..criticism import evaluate as evaluated
    from ..normative import NormativeModel

    found = evaluated(NormativeModel.load(model), healthy(cohort, subjects), kind=kind,
                      unseen_site=unseen_site)
    found.save(out, overwrite=overwrite)
    means = found.means[["EXPV", "MSLL", "MACE", "EXPV_spline", "MSLL_spline"]]
    return Made("evaluation", out, f"evaluation: {out}\n{found.summary()}",
                {**found.people, "features": len(found.features)}, found.notes,
                {"kind": found.kind, "means": {k: float(v) for k, v in means.items()},
                 "missed": found.missed(), "behind": found.behind()})


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

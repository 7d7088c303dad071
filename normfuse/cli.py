"""The command line: seven verbs, each thin over the library's own.

Everything heavy is imported inside the verbs, so that ``normfuse --help`` answers at once.
"""
from __future__ import annotations

import shlex
import shutil
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from . import __version__
from .errors import CohortError, NormfuseError, OutputExistsError, listed
from .outputs import refuse_existing

if TYPE_CHECKING:
    import pandas as pd

    from .atlas import Atlas
    from .cohort import Cohort
    from .deviations import Deviations, Reference
    from .fusion import Aggregator

Fusion = StrEnum("Fusion", ["wasserstein", "gwb", "poe", "gpoe", "moment", "moe", "mopoe",
                            "mwb"])

Deviation = StrEnum("Deviation", ["focal", "leave_modality_out", "covariates",
                                  "reconstruction"])
UnseenSite = StrEnum("UnseenSite", ["pooled"])

AGAINST = {
    Deviation.focal: "against the rest of the person's own brain; where it departs from itself",
    Deviation.leave_modality_out: "against the person's other modalities; what one scan shows and "
                                  "the others do not",
    Deviation.covariates: "against what is usual at that age, sex and site; spread changes, and "
                          "comparison with published normative models",
    Deviation.reconstruction: "against a reconstruction that has seen the value; patterns outside "
                              "anything healthy",
}

WHEN = {
    Fusion.wasserstein: "means and sds average; no modality can outvote the others. The default",
    Fusion.gwb: "the same for what is shared, beside a private part of each; modalities that each "
                "see much of their own",
    Fusion.poe: "precisions add; the sharpest, if every modality's confidence can be trusted",
    Fusion.gpoe: "precisions average with learned weights; modalities that know unequally much",
    Fusion.moment: "one Gaussian as wide as the modalities disagree; disagreement means doubt",
    Fusion.moe: "one modality at a time; when most people have a single one",
    Fusion.mopoe: "products of all subsets, mixed; people with many different sets of scans",
    Fusion.mwb: "Wasserstein barycenters of all subsets, mixed; the same, nobody outvoted",
}

QUICK = {"people": (150, 30), "options": "--epochs 60 --latent 5"}
FULL = {"people": (600, 120), "options": ""}

CohortFile = Annotated[Path, typer.Argument(
    metavar="COHORT.TOML", help="Names the tables, covariates, modalities and who is healthy.")]
ModelFolder = Annotated[Path, typer.Argument(
    metavar="MODEL", help="A folder that `normfuse fit` or `normfuse adapt` wrote.")]
KindChoice = Annotated[Deviation | None, typer.Option(
    help="What a value is compared with; by default the first of the model's, focal.")]
Only = Annotated[str | None, typer.Option(
    metavar="QUERY", help="Only these people, as \"diagnosis == 'AD'\".")]
DeviationsFolder = Annotated[Path, typer.Argument(
    metavar="DEVIATIONS", help="A folder that `normfuse score` wrote.")]
NewFolder = Annotated[Path, typer.Option(help="A new folder for the result.")]
Overwrite = Annotated[bool, typer.Option(
    "--overwrite", help="Replace what an earlier run of normfuse left there.")]


class Verbs(TyperGroup):
    """A deliberate refusal is one line and exit code 2; the unexpected keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            try:
                return super().invoke(ctx)
            except NormfuseError as problem:
                typer.secho(f"error: {_one_line(problem)}", fg="red", err=True)
                raise typer.Exit(2) from None


app = typer.Typer(cls=Verbs, no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False, rich_markup_mode="markdown",
                  context_settings={"help_option_names": ["-h", "--help"]})


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"normfuse {__version__}")
        raise typer.Exit


@app.callback()
def main(version: Annotated[bool, typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Print the version.")] = False
         ) -> None:
    """How far is each person from what healthy brains look like at that age, sex and site?

    Learns from healthy people with any set of modalities, then scores anybody: a z per feature
    and modality, and one distance per person, calibrated on healthy people held out.

    Start with `normfuse demo --out out/`; each verb has its own `--help`.
    """


@app.command()
def demo(out: NewFolder,
         quick: Annotated[bool, typer.Option(
             "--quick", help="Few people and epochs: a check that all works, no result.")] = False,
         seed: Annotated[int, typer.Option(min=0, help="Of people and model.")] = 0,
         overwrite: Overwrite = False) -> None:
    """Simulate a cohort and run everything on it; prints the commands it runs.

    Example: `normfuse demo --out out/`
    """
    from .simulate import simulate_cohort, write_cohort

    _free(out, overwrite, "cohort/cohort.toml")
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
        seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
        epochs: Annotated[int | None, typer.Option(
            min=1, help="Most epochs; training stops early by itself.")] = None,
        overwrite: Overwrite = False) -> None:
    """Learn from the cohort's reference people and save the model."""
    _free(out, overwrite, "model.json")
    from .cohort import Cohort
    from .models import Ladder
    from .normative import NormativeModel
    from .training import TrainingPlan

    controls = Cohort.read(cohort).reference_subjects()
    plan = TrainingPlan()
    if epochs is not None:  # the KL warm-up must end before the training does
        plan = TrainingPlan(max_epochs=epochs, warmup=min(plan.warmup, epochs // 4))
    recipe = None if levels is None else Ladder(levels=_sizes(levels, latent))
    model = NormativeModel(_aggregator(fusion), model=recipe, n_latent=latent, plan=plan,
                           seed=seed)
    model.fit(controls).save(out, overwrite=overwrite)
    typer.echo(f"model: {out}\n{_account(model.fitted.reference)}")


@app.command()
def adapt(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
          overwrite: Overwrite = False) -> None:
    """Teach a model a new site from some of its healthy (reference) people: 10, better 50.

    Writes a new model; z at the sites it knew stay as they are. People it was taught by are no
    longer new to it: score others.

    Example: `normfuse adapt model/ new_site.toml --out adapted/ --subjects "site == 'north'"`
    """
    _free(out, overwrite, "model.json")
    from .normative import NormativeModel

    before = NormativeModel.load(model)
    after = before.adapt(_healthy(cohort, subjects))
    after.save(out, overwrite=overwrite)
    added = after.fitted.reference.notes[len(before.fitted.reference.notes):]
    typer.echo("\n".join([f"model: {out}", *added]))


@app.command(help="Score people: z per feature, latent distance and p-value per person, as CSV "
             "tables.\n\nAny set of modalities will do. Held-out controls are scored each against "
             "the others.\n\nExample: `normfuse score model/ cohort.toml --out deviations/ "
             "--subjects \"age > 60\"`\n\nKinds of deviation:\n\n"
             + "\n".join(f"* **{name}**: {what}" for name, what in AGAINST.items()))
def score(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
          kind: KindChoice = None,
          unseen_site: Annotated[UnseenSite | None, typer.Option(
              help="Score people of a site that the model does not know as people of any site; "
              "else they are refused. `normfuse adapt` is better.")] = None,
          include_seen: Annotated[bool, typer.Option(
              "--include-seen", help="Also the people the model was trained on, whose z is too "
              "small; else they are left out.")] = False,
          skip_uncalibrated: Annotated[bool, typer.Option(
              "--skip-uncalibrated", help="Leave out people with a set of scans that too few "
              "held-out controls have, instead of stopping.")] = False,
          overwrite: Overwrite = False) -> None:
    """Score people and save their deviations."""
    _free(out, overwrite, "reference.json")
    from .cohort import Cohort
    from .normative import NormativeModel

    fitted, people = NormativeModel.load(model), Cohort.read(cohort)
    if subjects is not None:
        people = _chosen(people, subjects)
    found = fitted.deviations(people, kind=kind, unseen_site=unseen_site,
                              include_seen=include_seen, skip_uncalibrated=skip_uncalibrated)
    found.save(out, overwrite=overwrite)
    typer.echo(f"deviations: {out}\n{_tally(found)}")


@app.command()
def evaluate(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
             kind: KindChoice = None, overwrite: Overwrite = False) -> None:
    """Say how good a model is on healthy (reference) people it was not trained on, 10 at least.

    Accuracy, calibration, outer centiles and what z still knows of age, sex and site, as CSV
    tables, beside a spline regression of the same people.

    Example: `normfuse evaluate model/ held_out.toml --out evaluation/ --kind covariates`
    """
    _free(out, overwrite, "evaluation.json")
    from .criticism import evaluate as evaluated
    from .normative import NormativeModel

    found = evaluated(NormativeModel.load(model), _healthy(cohort, subjects), kind=kind)
    found.save(out, overwrite=overwrite)
    typer.echo(f"evaluation: {out}\n{found.summary()}")


@app.command()
def compare(deviations: DeviationsFolder, out: NewFolder,
            group: Annotated[str, typer.Option(help="Column of the subjects table.")],
            adjust: Annotated[str | None, typer.Option(
                metavar="NAMES", help="Covariates of the linear model, as age,sex; or none. By "
                "default all that the model knows.")] = None,
            baseline: Annotated[str | None, typer.Option(
                help="The group all others are held against; else the controls'.")] = None,
            overwrite: Overwrite = False) -> None:
    """Compare groups in every feature: effect, interval, p, q and n, in z and in raw values.

    Example: `normfuse compare deviations/ --group diagnosis --adjust age,sex --out groups/`
    """
    _free(out, overwrite, "comparison.json")
    from normfuse.analyses import compare_groups

    from .deviations import Deviations

    names = None if adjust is None else [
        name.strip() for name in adjust.split(",") if name.strip() not in ("", "none")]
    found = compare_groups(Deviations.read(deviations), group, adjust=names, baseline=baseline)
    found.save(out, overwrite=overwrite)
    typer.echo(f"groups: {out}\n{found.summary()}")


@app.command()
def report(deviations: DeviationsFolder,
           out: Annotated[Path, typer.Option(help="A new HTML file.")],
           groups: Annotated[Path | None, typer.Option(
               help="A folder that `normfuse compare` wrote.")] = None,
           evaluation: Annotated[Path | None, typer.Option(
               help="A folder that `normfuse evaluate` wrote, of the same kind.")] = None,
           atlas: Annotated[str, typer.Option(
               help="Paints the features that are its regions; left out if none is. A name, "
                    "or a labels image with its table beside it.")] = "dk",
           overwrite: Overwrite = False) -> None:
    """Write one self-contained HTML page: calibration, top regions, brain maps, groups, people.

    Example: `normfuse report deviations/ --groups groups/ --out report.html`
    """
    _free(out, overwrite, None)
    from normfuse.analyses import GroupComparison, write_report

    from .deviations import Deviations
    from .evaluation import Evaluation

    found = Deviations.read(deviations)
    write_report(found, out, atlas=_atlas_of(found, atlas), overwrite=overwrite,
                 comparison=None if groups is None else GroupComparison.read(groups),
                 evaluation=None if evaluation is None else Evaluation.read(evaluation))
    typer.echo(f"report: {out}")


def _healthy(cohort: Path, query: str | None) -> Cohort:
    """The reference people of a cohort that answer the query, if there is one."""
    from .cohort import Cohort

    people = Cohort.read(cohort).reference_subjects()
    return people if query is None else _chosen(people, query)


def _chosen(cohort: Cohort, query: str) -> Cohort:
    from .cohort_checks import values_of

    chosen = cohort.select(query)
    if not len(chosen):
        raise CohortError(f"{query!r} selects nobody of {len(cohort)} subjects; "
                          f"{values_of(cohort.subjects, query)}")
    return chosen


def _free(out: Path, overwrite: bool, mark: str | None) -> None:
    """Before any work: nothing is there, or only what normfuse itself wrote and may replace."""
    refuse_existing(out, overwrite)
    ours = not out.is_dir() if mark is None else (out / mark).exists()
    if out.exists() and not ours:
        raise OutputExistsError(f"{out} was not written by this command"
                                f"{f' (it holds no {mark})' if mark else ' (it is a folder)'} and "
                                "will not be replaced; choose another name")


def _sizes(levels: str, latent: int | None) -> tuple[int, ...]:
    """Latent sizes from the command line."""
    words = [word.strip() for word in levels.split(",")]
    if latent is not None:
        raise CohortError("give --latent for one latent vector, or --levels for several levels")
    if not all(word.isdecimal() and int(word) for word in words):
        raise CohortError(f"--levels is a list of whole numbers such as 16,6; got {levels!r}")
    return tuple(map(int, words))


def _aggregator(name: Fusion) -> Aggregator:
    from . import fusion as f

    made: dict[Fusion, Aggregator] = {
        Fusion.wasserstein: f.WassersteinBarycenter(), Fusion.poe: f.ProductOfExperts(),
        Fusion.gwb: f.GeneralizedWassersteinBarycenter(),
        Fusion.moment: f.MomentMatchingBarycenter(),
        Fusion.gpoe: f.GeneralizedProductOfExperts(), Fusion.moe: f.MixtureOfExperts(),
        Fusion.mopoe: f.SubsetMixture(f.ProductOfExperts()),
        Fusion.mwb: f.SubsetMixture(f.WassersteinBarycenter())}
    return made[name]


def _atlas_of(deviations: Deviations, name: str) -> Atlas:
    """The atlas; says so if no feature is a region of it, as then there are no brain maps."""
    from .atlas import load_atlas

    atlas = load_atlas(name)
    features = deviations.z.columns.get_level_values(1)
    voxels = any("space" in facts for facts in deviations.reference.modalities.values())
    if not voxels and not features.isin(atlas.regions["name"]).any():
        warnings.warn(f"the report has no brain maps: none of the {len(features)} features "
                      f"({listed(features.unique(), 2)}) is a region of atlas {name}, which are "
                      f"called as {listed(_examples(atlas.regions['name']), 3)}",
                      stacklevel=2)
    return atlas


def _examples(names: pd.Series) -> list[str]:
    """Up to three from all over the atlas, not three of a kind."""
    places = dict.fromkeys(len(names) * part // 8 for part in (2, 4, 0))
    return [str(names.iloc[place]) for place in places]


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


def _tally(deviations: Deviations) -> str:
    from .deviations import ROLE

    roles = deviations.subjects[ROLE].value_counts()
    who = ", ".join(f"{n} {str(role).replace('_', ' ')}" for role, n in roles.items())
    far = (deviations.distance["p"] < 0.05).sum()
    return (f"{len(deviations)} people ({who}), {deviations.z.shape[1]} features of "
            f"{listed(deviations.modalities, 9)}; {far} with a latent distance of p < 0.05\n"
            f"kind {deviations.reference.kind}: {deviations.reference.meaning}")


def _note(message: Warning | str, category: type[Warning], filename: str, lineno: int,
          file: TextIO | None = None, line: str | None = None) -> None:
    typer.secho(f"note: {_one_line(message)}", fg="yellow", err=True)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


if __name__ == "__main__":
    app()

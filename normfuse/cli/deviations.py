"""Verbs about people: score them, compare groups, correlate with scores, write the report."""
from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import listed
from .application import app, free_place
from .choices import (AGAINST, Adjust, Alternative, AlternativeChoice, CohortFile, Correction,
                      CorrectionChoice, DeviationsFolder, KindChoice, Method, ModelFolder,
                      NewFolder, Only, Overwrite, Permutations, Scheduler, Seed, Session,
                      SiteChoice, TestChoice, Workers, correction_of, names, runner)
from .people import chosen

if TYPE_CHECKING:
    import pandas as pd

    from ..atlas import Atlas
    from ..deviations import Deviations


@app.command(help="Score people: z per feature, latent distance and p-value per person, as CSV "
             "tables; of voxels as zarr arrays, piece by piece: if it stops half-way, the same "
             "command goes on.\n\nAny set of modalities will do. Held-out controls are scored "
             "each against the others.\n\nExample: `normfuse score model/ cohort.toml --out "
             "deviations/ --subjects \"age > 60\"`\n\nKinds of deviation:\n\n"
             + "\n".join(f"* **{name}**: {what}" for name, what in AGAINST.items()))
def score(model: ModelFolder, cohort: CohortFile, out: NewFolder, subjects: Only = None,
          kind: KindChoice = None,
          unseen_site: SiteChoice = None,
          include_seen: Annotated[bool, typer.Option(
              "--include-seen", help="Also the people the model was trained on, whose z is too "
              "small; else they are left out.")] = False,
          skip_uncalibrated: Annotated[bool, typer.Option(
              "--skip-uncalibrated", help="Leave out people with a set of scans that too few "
              "held-out controls have, instead of stopping.")] = False,
          session: Session = None,
          scheduler: Scheduler = None, workers: Workers = 1,
          overwrite: Overwrite = False) -> None:
    """Score people and save their deviations."""
    free_place(out, overwrite, "reference.json")
    from ..cohort import Cohort
    from ..normative import NormativeModel

    fitted, people = NormativeModel.load(model), Cohort.read(cohort, session=session)
    if subjects is not None:
        people = chosen(people, subjects)
    voxels = any(m.space for m in people.modalities)  # too many to hold those of all people
    found = fitted.deviations(people, kind=kind, unseen_site=unseen_site,
                              include_seen=include_seen, skip_uncalibrated=skip_uncalibrated,
                              to=out if voxels else None, overwrite=overwrite,
                              run=runner(scheduler, workers))
    if not voxels:
        found.save(out, overwrite=overwrite)
    typer.echo(f"deviations: {out}\n{_tally(found)}")


@app.command()
def compare(deviations: DeviationsFolder, out: NewFolder,
            group: Annotated[str, typer.Option(help="Column of the subjects table.")],
            adjust: Adjust = None,
            baseline: Annotated[str | None, typer.Option(
                help="The group all others are held against; else the controls'.")] = None,
            test: Annotated[TestChoice, typer.Option(
                help="One variance for all; errors for groups that differ in spread (HC3); or "
                "Welch's t, which knows no covariates.")] = TestChoice.ols,
            correction: CorrectionChoice = Correction.fdr_bh,
            alternative: AlternativeChoice = Alternative.two_sided,
            permutations: Permutations = 5000, seed: Seed = 0,
            overwrite: Overwrite = False) -> None:
    """Compare groups in every feature: effect, interval, p, q and n, in z and in raw values.

    Example: `normfuse compare deviations/ --group diagnosis --adjust age,sex --out groups/`
    """
    free_place(out, overwrite, "comparison.json")
    from normfuse.analyses import compare_groups

    from ..deviations import Deviations

    people = Deviations.read(deviations)
    found = compare_groups(people, group, adjust=names(adjust), baseline=baseline, test=str(test),
                           correction=correction_of(correction, people, permutations, seed),
                           alternative=str(alternative))
    found.save(out, overwrite=overwrite)
    typer.echo(f"groups: {out}\n{found.summary()}")


@app.command()
def associate(deviations: DeviationsFolder, out: NewFolder,
              scores: Annotated[str, typer.Option(
                  metavar="NAMES", help="Numeric columns of the subjects table, as mmse,updrs.")],
              adjust: Adjust = None, subjects: Only = None,
              method: Annotated[Method, typer.Option(help="Of ranks, or of values.")]
              = Method.spearman,
              correction: CorrectionChoice = Correction.fdr_bh,
              alternative: AlternativeChoice = Alternative.two_sided,
              permutations: Permutations = 5000, seed: Seed = 0,
              overwrite: Overwrite = False) -> None:
    """Correlate every feature with clinical scores, given covariates: r, interval, p, q and n.

    Example: `normfuse associate deviations/ --scores mmse --subjects "diagnosis == 'AD'" --out
    scores/`
    """
    free_place(out, overwrite, "facts.json")
    from normfuse.analyses import associations

    from ..deviations import Deviations

    people = Deviations.read(deviations)
    people = people if subjects is None else people.select(subjects)
    found = associations(people, names(scores) or [], adjust=names(adjust), method=str(method),
                         correction=correction_of(correction, people, permutations, seed),
                         alternative=str(alternative))
    found.save(out, overwrite=overwrite)
    typer.echo(f"associations: {out}\n{found.summary()}")


@app.command()
def report(deviations: DeviationsFolder,
           out: Annotated[Path, typer.Option(help="A new HTML file.")],
           groups: Annotated[Path | None, typer.Option(
               help="A folder that `normfuse compare` wrote.")] = None,
           evaluation: Annotated[Path | None, typer.Option(
               help="A folder that `normfuse evaluate` wrote, of the same kind.")] = None,
           voxel_groups: Annotated[Path | None, typer.Option(
               help="A folder that `normfuse compare-voxels` wrote.")] = None,
           voxels: Annotated[Path | None, typer.Option(
               help="The deviations of voxels that the regions were made of: maps of people.")
               ] = None,
           atlas: Annotated[str, typer.Option(
               help="Paints the features that are its regions; left out if none is. A name, "
                    "or a labels image with its table beside it.")] = "dk",
           scores: Annotated[Path | None, typer.Option(
               help="A folder that `normfuse associate` wrote.")] = None,
           group: Annotated[str | None, typer.Option(
               help="Column of the subjects table by which extreme deviations are told apart; "
                    "else that of --groups.")] = None,
           subjects: Annotated[Path | None, typer.Option(
               help="A new folder for a page a person, and an index of them.")] = None,
           with_ids: Annotated[bool, typer.Option(
               "--with-ids", help="Call people by their ids; else they are numbered, and no id "
               "is in any file.")] = False,
           overwrite: Overwrite = False) -> None:
    """Write one self-contained HTML page: calibration, groups, maps, tables, people, methods.

    Example: `normfuse report deviations/ --groups groups/ --out report.html --subjects people/`
    """
    free_place(out, overwrite, None)
    if subjects is not None:
        free_place(subjects, overwrite, "index.html")
    from normfuse.analyses import Associations, GroupComparison, Report, VoxelFindings

    from ..deviations import Deviations
    from ..evaluation import Evaluation

    found = Deviations.read(deviations)
    results = [kind.read(folder) for kind, folder in ((GroupComparison, groups),
                                                      (Associations, scores)) if folder]
    made = Report(found, results, _atlas_of(found, atlas),
                  None if evaluation is None else Evaluation.read(evaluation),
                  VoxelFindings.read(voxel_groups, voxels), group, with_ids=with_ids)
    if subjects is not None:
        typer.echo(f"people: {made.write_subjects(subjects, overwrite=overwrite)}")
    made.write(out, overwrite=overwrite)
    typer.echo(f"report: {out}")


def _atlas_of(deviations: Deviations, name: str) -> Atlas:
    """The atlas; says so if no feature is a region of it, as then there are no brain maps."""
    from ..atlas import load_atlas

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


def _tally(deviations: Deviations) -> str:
    from ..deviations import ROLE

    roles = deviations.subjects[ROLE].value_counts()
    who = ", ".join(f"{n} {str(role).replace('_', ' ')}" for role, n in roles.items())
    far = (deviations.distance["p"] < 0.05).sum()
    width = sum(block.shape[1] for block in deviations.blocks().as_is().values())
    return (f"{len(deviations)} people ({who}), {width} features of "
            f"{listed(deviations.modalities, 9)}; {far} with a latent distance of p < 0.05\n"
            f"kind {deviations.reference.kind}: {deviations.reference.meaning}")

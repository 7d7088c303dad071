"""Verbs about people: score them, compare groups, correlate with scores, write the report."""
from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputExistsError, listed
from ..outputs import new_file
from .application import free_place, named
from .choices import (AGAINST, Adjust, Alternative, AlternativeChoice, CohortFile, Correction,
                      CorrectionChoice, DeviationsFolder, KindChoice, Method, ModelFolder,
                      NewFolder, Only, Overwrite, Permutations, Scheduler, Seed, Session,
                      SiteChoice, TestChoice, Workers, correction_of, names, runner)
from .made import Made
from .people import chosen
from .verbs import verb

if TYPE_CHECKING:
    import pandas as pd

    from ..atlas import Atlas
    from ..deviations import Deviations


_is_comparison = named("comparison.json", "table.csv", "omnibus.csv")
_is_associations = named("facts.json", "table.csv")


@verb("""
normfuse score model/ cohort.toml --out deviations/
# only some, against what is usual at their age, sex and site
normfuse score model/ cohort.toml --subjects "age > 60" --kind covariates \\\n    --out old/
# voxels, on four processes
normfuse score model/ images.toml --out deviations/ --workers 4
""", help="Score people: z per feature, latent distance and p-value per person, as CSV tables; of "
      "voxels as zarr arrays, piece by piece: if it stops half-way, the same command goes on."
      "\n\nAny set of modalities will do. Held-out controls are scored each against the others."
      "\n\nKinds of deviation:\n\n"
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
          overwrite: Overwrite = False) -> Made:
    """Score people and save their deviations."""
    from ..deviation_files import is_ours

    free_place(out, overwrite, "reference.json", is_ours)
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
    return Made("deviations", out, f"deviations: {out}\n{_tally(found)}", _counts(found),
                found.reference.notes, {"kind": found.reference.kind,
                                        "modalities": list(found.modalities)})


@verb("""
normfuse compare deviations/ --group diagnosis --out groups/
# adjusted for age and sex only, family-wise by the largest t
normfuse compare deviations/ --group diagnosis --adjust age,sex \\
    --correction max_t --out groups/
""")
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
            overwrite: Overwrite = False) -> Made:
    """Compare groups in every feature: effect, interval, p, q and n, in z and in raw values."""
    free_place(out, overwrite, "comparison.json", _is_comparison)
    from normfuse.analyses import compare_groups

    from ..deviations import Deviations

    people = Deviations.read(deviations)
    found = compare_groups(people, group, adjust=names(adjust), baseline=baseline, test=str(test),
                           correction=correction_of(correction, people, permutations, seed),
                           alternative=str(alternative))
    found.save(out, overwrite=overwrite)
    return Made("groups", out, f"groups: {out}\n{found.summary()}", _of_table(found.table),
                result={"summary": found.summary().splitlines()})


@verb("""
normfuse associate deviations/ --scores mmse --out scores/
# in patients only, several scores, given age
normfuse associate deviations/ --scores mmse,updrs --adjust age \\
    --subjects "diagnosis == 'AD'" --out scores/
""")
def associate(deviations: DeviationsFolder, out: NewFolder,
              scores: Annotated[str, typer.Option(
                  metavar="NAMES", help="Numeric columns of the subjects table, as mmse,updrs.")],
              adjust: Adjust = None, subjects: Only = None,
              method: Annotated[Method, typer.Option(help="Of ranks, or of values.")]
              = Method.spearman,
              correction: CorrectionChoice = Correction.fdr_bh,
              alternative: AlternativeChoice = Alternative.two_sided,
              controls: Annotated[bool, typer.Option(
                  "--controls", help="Keep healthy people of the reference who have a score; they "
                  "are left out beside others, for groups must not pass for a score.")] = False,
              permutations: Permutations = 5000, seed: Seed = 0,
              overwrite: Overwrite = False) -> Made:
    """Correlate every feature with clinical scores, given covariates: r, interval, p, q and n."""
    free_place(out, overwrite, "facts.json", _is_associations)
    from normfuse.analyses import associations

    from ..deviations import Deviations

    people = Deviations.read(deviations)
    people = people if subjects is None else people.select(subjects)
    found = associations(people, names(scores) or [], adjust=names(adjust), method=str(method),
                         correction=correction_of(correction, people, permutations, seed),
                         alternative=str(alternative), controls=controls)
    found.save(out, overwrite=overwrite)
    return Made("associations", out, f"associations: {out}\n{found.summary()}",
                _of_table(found.table), result={"summary": found.summary().splitlines()})


@verb("""
normfuse report deviations/ --groups groups/ --out report.html
# with how good the model is, and another atlas
normfuse report deviations/ --evaluation evaluation/ --atlas schaefer_100 \\
    --out report.html
# a page for each patient, too, and who is who
normfuse report deviations/ --out report.html --pages people/ \\
    --subjects "diagnosis == 'AD'" --key key.csv
# of voxels: regions, clusters between groups, maps of people
normfuse report regions/ --voxel-groups groups/ --voxels deviations/ \\
    --out report.html
""")
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
           pages: Annotated[Path | None, typer.Option(
               help="A new folder for a page a person, and an index of them.")] = None,
           subjects: Annotated[str | None, typer.Option(
               metavar="QUERY", help="Whom --pages are of, as \"participant_id == 'sub-07'\"; "
               "else of everybody.")] = None,
           key: Annotated[Path | None, typer.Option(
               help="A new CSV file that says who is person 1, 2 …: keep it apart.")] = None,
           with_ids: Annotated[bool, typer.Option(
               "--with-ids", help="Call people by their ids; else they are numbered, and no id "
               "is in any file.")] = False,
           overwrite: Overwrite = False) -> Made:
    """Write one self-contained HTML page: calibration, groups, maps, tables, people, methods."""
    from normfuse.analyses.report import is_page

    free_place(out, overwrite, None)
    if out.exists() and not is_page(out):
        raise OutputExistsError(f"{out} is no report of normfuse and will not be replaced; choose "
                                "another name")
    if pages is not None:
        free_place(pages, overwrite, "index.html", is_page)
    if key is not None:
        free_place(key, overwrite, None)
    from normfuse.analyses import Associations, GroupComparison, Report, VoxelFindings

    from ..deviations import Deviations
    from ..evaluation import Evaluation

    found = Deviations.read(deviations)
    results = [kind.read(folder) for kind, folder in ((GroupComparison, groups),
                                                      (Associations, scores)) if folder]
    made = Report(found, results, _atlas_of(found, atlas),
                  None if evaluation is None else Evaluation.read(evaluation),
                  VoxelFindings.read(voxel_groups, voxels), group, with_ids=with_ids)
    text = f"report: {out}"
    if pages is not None:
        whom = None if subjects is None else found.select(subjects).subjects.index
        text += f"\npeople: {made.write_subjects(pages, ids=whom, overwrite=overwrite)}"
    made.write(out, overwrite=overwrite)
    if key is not None:
        with new_file(key, overwrite=overwrite) as work:
            made.key().to_csv(work)
        text += f"\nkey: {key}"
    return Made("report", out, text, {"people": len(found)}, found.reference.notes)


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


def _of_table(table: pd.DataFrame) -> dict[str, int]:
    return {"rows": len(table), "tested": int(table["p"].notna().sum()),
            "q<.05": int((table["q"] < 0.05).sum())}


def _counts(deviations: Deviations) -> dict[str, int]:
    from ..deviations import ROLE

    width = sum(block.shape[1] for block in deviations.blocks().as_is().values())
    roles = {str(role): int(n) for role, n in deviations.subjects[ROLE].value_counts().items()}
    return {"people": len(deviations), **roles, "features": width,
            "distance_p<.05": int((deviations.distance["p"] < 0.05).sum())}


def _tally(deviations: Deviations) -> str:
    from ..deviations import ROLE

    roles = deviations.subjects[ROLE].value_counts()
    who = ", ".join(f"{n} {str(role).replace('_', ' ')}" for role, n in roles.items())
    far = (deviations.distance["p"] < 0.05).sum()
    width = sum(block.shape[1] for block in deviations.blocks().as_is().values())
    return (f"{len(deviations)} people ({who}), {width} features of "
            f"{listed(deviations.modalities, 9)}; {far} with a latent distance of p < 0.05\n"
            f"kind {deviations.reference.kind}: {deviations.reference.meaning}")

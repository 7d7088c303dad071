"""One self-contained HTML page: who was scored, how far to trust it, and what was found.

This module gathers the numbers, rows and pictures; ``templates/report.html.j2`` has the words, and
``report_people`` the part on single people.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from normfuse import __version__
from normfuse.deviations import ROLE, SEEN_ROLES, Deviations, Reference
from normfuse.errors import AtlasError, ComparisonError, listed
from normfuse.outputs import new_file

from . import figures, wording
from .deviation_maps import group_map
from .drawing import EXTREME
from .group_comparison import ALPHA
from .groups import honest_people
from .pictures import TOP, WIDTH, Picture, brain_picture, picture
from .ranks import compare_distances, compare_extremes
from .regional import RegionalDeviations, parcellate
from .report_evaluation import evaluation_facts
from .report_people import Z_LIMIT, people_facts, persons
from .report_voxels import VoxelFindings

if TYPE_CHECKING:
    from normfuse.atlas import Atlas
    from normfuse.evaluation import Evaluation

    from .group_comparison import GroupComparison

ROWS = 30  # of a table in which nothing is significant
MOST_ROWS = 300  # of a table of significant regions: a page of thousands helps nobody
WHO = "normfuse_people"  # column that stands in for a group when there is no comparison
_ROLES = {"calibration": "held-out controls", "out_of_fold": "cross-fitted controls"}


def write_report(deviations: Deviations, path: str | Path, *,
                 comparison: GroupComparison | None = None, atlas: Atlas | None = None,
                 evaluation: Evaluation | None = None, voxels: VoxelFindings | None = None,
                 n_subjects: int = 3, overwrite: bool = False) -> Path:
    """Write what a reader needs to judge these deviations to one HTML file.

    The file needs no network, no script and no other file, and it prints. It shows ids and
    covariates of the most deviant people: guard it like the data.

    Parameters
    ----------
    deviations : Deviations
        The scored people. The held-out controls it keeps are added to the pictures of groups;
        people the model was trained on are counted, and left out of everything else.
    path : path
        A new ``.html`` file.
    comparison : GroupComparison, optional
        From :func:`~normfuse.analyses.compare_groups`. Without it, scored people are shown beside
        the held-out controls, and nothing is tested.
    atlas : Atlas, optional
        For brain maps of the features that are its regions.
    evaluation : Evaluation, optional
        From :func:`normfuse.evaluate`, of the same kind: adds how accurate and calibrated the
        model is.
    voxels : VoxelFindings, optional
        Where the regions are means of voxels: groups and the most deviant people voxel by voxel.
    n_subjects : int
        How many of the most deviant people get a part of their own; 0 for none. They are chosen
        by the smaller of two p: of their latent distance, and the smallest Benjamini-Hochberg p
        over their own features.
    overwrite : bool
        Replace the file if it is there.

    Raises
    ------
    OutputExistsError
        If the file is there and ``overwrite`` is not asked for.
    ComparisonError
        If ``comparison`` holds no effect sizes, or compares a column the subjects do not have, or
        ``comparison`` or ``evaluation`` is of another kind of deviation.

    Examples
    --------
    >>> import tempfile
    >>> from normfuse.testing import tiny_deviations
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = write_report(tiny_deviations(), Path(folder, "report.html"))
    ...     "2 people were scored" in report.read_text(encoding="utf-8")
    True
    """
    if comparison is not None and "g" not in comparison.table:
        raise ComparisonError("a report shows effect sizes and needs a comparison made by "
                              "compare_groups; extreme counts and distances it compares itself")
    _one_kind("comparison", comparison, deviations.reference.kind, "compare these deviations")
    _one_kind("evaluation", evaluation, deviations.reference.kind, "evaluate that kind")
    if voxels is not None and voxels.deviations is not None:
        _one_kind("map of voxels", voxels.deviations.reference, deviations.reference.kind,
                  "give the voxels that the regions were made of")
    with new_file(Path(path), overwrite=overwrite) as work:
        work.write_text(_render(deviations, comparison, evaluation, atlas,
                                voxels or VoxelFindings(), n_subjects),
                        encoding="utf-8")
    return Path(path)


def _one_kind(what: str, found: GroupComparison | Evaluation | Reference | None, kind: str,
              advice: str) -> None:
    """Numbers of two kinds of deviation answer two questions; a page may not mix them."""
    if found is not None and found.kind not in ("", kind):  # files of old do not say
        raise ComparisonError(f"the {what} is of deviations of kind {found.kind!r}, the people "
                              f"were scored with kind {kind!r}; {advice}, or leave the {what} out")


def _render(deviations: Deviations, comparison: GroupComparison | None,
            evaluation: Evaluation | None, atlas: Atlas | None, voxels: VoxelFindings,
            n_subjects: int) -> str:
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                       lstrip_blocks=True)
    page.filters.update(p=wording.p_value, number=wording.number, percent=wording.percent,
                        effect=wording.effect, minus=wording.minus, word=wording.word,
                        region=wording.region_label)
    template = files("normfuse.analyses") / "templates" / "report.html.j2"
    people = _unseen(deviations)
    regional, no_maps = _regional(people, atlas)
    return page.from_string(template.read_text(encoding="utf-8")).render(
        reference=deviations.reference, modalities=deviations.modalities, atlas=atlas,
        version=__version__, written=f"{datetime.now(UTC):%Y-%m-%d %H:%M}", no_maps=no_maps,
        comparison=comparison, voxels=voxels.contrasts(),
        voxel_notes=voxels.notes(), top=TOP, z_limit=Z_LIMIT, **people_facts(deviations, people),
        **_reference_facts(deviations.reference), **_spread(people, comparison),
        evaluation=None if evaluation is None else evaluation_facts(evaluation),
        contrasts=[] if comparison is None else [
            _contrast(comparison, name, None if regional is None else atlas)
            for name in comparison.table.index.get_level_values("contrast").unique()],
        **persons(people, n_subjects, regional, atlas,
                  () if comparison is None else (comparison.group,), voxels))


def _unseen(deviations: Deviations) -> Deviations:
    """Without the people the model was trained on, and with a column that says who is who."""
    subjects = deviations.subjects
    role = subjects[ROLE] if ROLE in subjects else pd.Series("new", subjects.index)
    marked = subjects.assign(**{ROLE: role, WHO: role.map(_ROLES).fillna("scored people")})
    controls = None if deviations.controls is None else _unseen(deviations.controls)
    return deviations.changed(subjects=marked, controls=controls).select(
        subjects.index[~role.isin(SEEN_ROLES)])


def _regional(people: Deviations, atlas: Atlas | None) -> tuple[RegionalDeviations | None, str]:
    """The deviations in the atlas's regions if there are any, and what no map will show."""
    if atlas is None:
        return None, "There are no brain maps, because no atlas was given."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the page says it
            regional = parcellate(people, atlas)
    except AtlasError as problem:
        return None, f"There are no brain maps: {problem}."
    left_out = listed(f"{modality} {feature}" for modality, feature in regional.unmatched)
    return regional, left_out and f"No region of atlas {atlas.name}, so on no map: {left_out}."


def _reference_facts(reference: Reference) -> dict[str, Any]:
    """Training and calibration: rows and pictures; None where the reference kept nothing."""
    shares = pd.DataFrame(reference.calibration)
    if len(shares):
        shares["off"] = (shares["low"] > shares["nominal"]) | (shares["high"] < shares["nominal"])
        n_rows = shares["quantity"].nunique()
    return {
        "n_reference": sum(reference.n_subjects.values()), "shares": shares.to_dict("records"),
        "training": picture(lambda ax: figures.plot_training(reference, ax=ax),
                            (WIDTH, 3.0)) if reference.history else None,
        "calibration": picture(lambda ax: figures.plot_calibration(reference, ax=ax),
                               (WIDTH, 1 + 0.42 * n_rows)) if len(shares) else None,
        "qq": picture(lambda ax: figures.plot_qq(reference, ax=ax),
                      (4.8, 4.6)) if reference.quantiles else None}


def _contrast(comparison: GroupComparison, name: str, atlas: Atlas | None) -> dict[str, Any]:
    """One contrast: its strongest regions as a picture, its table, its maps."""
    table = comparison.table.xs(name, level="contrast").reset_index().sort_values("p")
    tested = table.dropna(subset=["p"])
    hits = tested[tested["q"] < ALPHA]
    drawn = min(TOP, int(tested["g"].notna().sum()))
    limit = max(0.5, float(np.ceil(10 * table["g"].abs().max()) / 10)) if drawn else 1.0
    return {
        "name": name, "strongest": tested.head(1).to_dict("records"),
        "n_tested": len(tested), "n_hits": len(hits),
        "untested": table.loc[table["p"].isna(), "reason"].value_counts().to_dict(),
        "hits": {m: n for m in comparison.table.index.get_level_values("modality").unique()
                 if (n := int((hits["modality"] == m).sum()))},
        "rows": (hits.head(MOST_ROWS) if len(hits) else tested.head(ROWS)).to_dict("records"),
        "forest": picture(
            lambda ax: figures.plot_group_effects(comparison, TOP, contrast=name, ax=ax),
            (WIDTH, 0.8 + 0.25 * drawn)) if drawn else None,
        "maps": [] if atlas is None else _group_maps(comparison, name, atlas, limit)}


def _group_maps(comparison: GroupComparison, contrast: str, atlas: Atlas, limit: float
                ) -> list[Picture]:
    table = comparison.table
    in_atlas = table.index.get_level_values("feature").isin(atlas.regions["name"])
    of_contrast = table.index.get_level_values("contrast") == contrast
    known = table[in_atlas & of_contrast & table["g"].notna()]
    painted = replace(comparison, table=known)
    return [brain_picture(group_map(painted, modality, atlas, contrast=contrast),
                          f"{modality}: {wording.minus(contrast)}", limit, "Hedges' g")
            for modality in known.index.get_level_values("modality").unique()]


def _spread(people: Deviations, comparison: GroupComparison | None) -> dict[str, Any]:
    """Extreme counts and latent distances of each group: pictures, rows, and rank tests."""
    group = WHO if comparison is None else comparison.group
    if not len(people.with_controls()):
        return {"extremes": None, "distances": None, "spread": [], "ranks": []}
    everyone, of, _ = honest_people(people, group)
    if comparison is not None:
        of = of[of.isin(comparison.n)]
        everyone = everyone.select(of.index)
    n_levels = of.nunique()
    tests = [] if comparison is None else [
        compare(everyone, group, baseline=comparison.baseline)
        for compare in (compare_extremes, compare_distances)]
    return {
        "extremes": picture(lambda ax: figures.plot_extremes(everyone, group, ax=ax),
                            (WIDTH, 1 + 0.36 * n_levels * len(people.modalities))),
        "distances": picture(lambda ax: figures.plot_distances(everyone, group, ax=ax),
                             (WIDTH, 0.9 + 0.5 * n_levels)),
        "spread": _group_rows(everyone, of, of.unique() if comparison is None
                              else comparison.n),
        "ranks": [row for test in tests for row in test.table.reset_index().to_dict("records")],
        "ranks_families": [test.family for test in tests],
        "ranks_notes": list(dict.fromkeys(note for test in tests for note in test.notes))}


def _group_rows(everyone: Deviations, of: pd.Series, levels: Iterable[str]
                ) -> list[dict[str, Any]]:
    """One row a group and modality, and one for the distance: n, quartiles, expected by chance."""
    counts = everyone.extreme(EXTREME)
    rows = []
    for level in levels:
        who = of.index[of == level]
        for name in everyone.modalities:
            low, middle, high = counts.loc[who, name].quantile([.25, .5, .75])
            rows.append({"group": level, "what": f"extreme deviations, {name}",
                         "n": int(counts.loc[who, name].notna().sum()), "median": middle,
                         "low": low, "high": high, "chance": .05 * everyone.z[name].shape[1]})
        distance = everyone.distance.loc[who, "distance"]
        low, middle, high = distance.quantile([.25, .5, .75])
        rows.append({"group": level, "what": "latent distance", "n": int(distance.notna().sum()),
                     "median": middle, "low": low, "high": high, "chance": np.nan})
    return rows

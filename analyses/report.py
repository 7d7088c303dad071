"""One self-contained HTML page: who was scored, how far to trust it, and what was found.

This module computes the numbers, rows and pictures; ``templates/report.html.j2`` has the words.
"""
from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from normfuse import __version__
from normfuse.deviations import ROLE, SEEN_ROLES, Deviations, Reference
from normfuse.errors import AtlasError, ComparisonError, listed
from normfuse.outputs import new_file

from . import figures
from .deviation_maps import compare_distances, compare_extremes, group_map, subject_map
from .groups import honest_people
from .regional import RegionalDeviations, parcellate

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from normfuse.atlas import Atlas

    from .groups import GroupComparison

WIDTH = 7.9  # inches; at 96 px an inch a figure fills the column of text
Z_LIMIT = 4.0  # one scale for everybody's maps: two pages can be held side by side
TOP = 20  # regions in a figure
ROWS = 30  # of a table in which nothing is significant
MOST_ROWS = 300  # of a table of significant regions: a page of thousands helps nobody
WHO = "normfuse_people"  # column that stands in for a group when there is no comparison
_ROLES = {"calibration": "held-out controls"}
_LOOK = {"font.size": 9.5, "axes.labelsize": 9.5, "axes.titlesize": 10, "axes.linewidth": 0.8,
         "figure.dpi": 150, "savefig.dpi": 150}


@dataclass(frozen=True)
class Picture:
    """An embedded PNG: its data, and its size in CSS px."""

    source: str
    width: int
    height: int


def write_report(deviations: Deviations, path: str | Path, *,
                 comparison: GroupComparison | None = None, atlas: Atlas | None = None,
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
    n_subjects : int
        How many of the most deviant people get a page; 0 for none.
    overwrite : bool
        Replace the file if it is there.

    Raises
    ------
    OutputExistsError
        If the file is there and ``overwrite`` is not asked for.
    ComparisonError
        If ``comparison`` holds no effect sizes, or compares a column the subjects do not have.

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
    with new_file(Path(path), overwrite=overwrite) as work:
        work.write_text(_render(deviations, comparison, atlas, n_subjects), encoding="utf-8")
    return Path(path)


def _render(deviations: Deviations, comparison: GroupComparison | None, atlas: Atlas | None,
            n_subjects: int) -> str:
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                       lstrip_blocks=True)
    page.filters.update(p=_p, number=_number, percent=_percent, effect=_effect, minus=_minus,
                        word=_word, region=figures.region_label)
    template = files("normfuse.analyses") / "templates" / "report.html.j2"
    people = _unseen(deviations)
    regional, no_maps = _regional(people, atlas)
    return page.from_string(template.read_text(encoding="utf-8")).render(
        reference=deviations.reference, modalities=deviations.modalities, atlas=atlas,
        version=__version__, written=f"{datetime.now(UTC):%Y-%m-%d %H:%M}", no_maps=no_maps,
        comparison=comparison, top=TOP, z_limit=Z_LIMIT, **_people_facts(deviations, people),
        **_reference_facts(deviations.reference), **_spread(people, comparison),
        contrasts=[] if comparison is None else [
            _contrast(comparison, name, None if regional is None else atlas)
            for name in comparison.table.index.get_level_values("contrast").unique()],
        persons=[_person(people, subject, regional, atlas,
                         () if comparison is None else (comparison.group,))
                 for subject in _farthest(people).index[:max(n_subjects, 0)]])


def _unseen(deviations: Deviations) -> Deviations:
    """Without the people the model was trained on, and with a column that says who is who."""
    subjects = deviations.subjects
    role = subjects[ROLE] if ROLE in subjects else pd.Series("new", subjects.index)
    marked = subjects.assign(**{ROLE: role, WHO: role.map(_ROLES).fillna("scored people")})
    controls = None if deviations.controls is None else _unseen(deviations.controls)
    return replace(deviations, subjects=marked, controls=controls).select(
        subjects.index[~role.isin(SEEN_ROLES)])


def _farthest(people: Deviations) -> pd.DataFrame:
    known = people.distance.dropna(subset=["distance"])
    return known.sort_values(["p", "distance"], ascending=[True, False])


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


def _people_facts(deviations: Deviations, people: Deviations) -> dict[str, Any]:
    """Who was scored: numbers for the summary, and rows and a picture of what was measured."""
    measured = people.z.notna().T.groupby(level=0).any().T
    p = people.distance["p"].dropna()
    combinations = len(measured.drop_duplicates())
    return {
        "n_scored": len(deviations), "n_seen": len(deviations) - len(people),
        "n_features": deviations.z.shape[1], "n_distance": len(p), "n_far": int((p < .05).sum()),
        "n_measured": measured.sum().to_dict(), "outside": _outside(people),
        "missingness": _picture(lambda ax: figures.plot_missingness(people, ax=ax),
                                (5.8, 0.8 + 0.32 * combinations)) if len(people) else None}


def _outside(people: Deviations) -> list[str]:
    """Who lies beyond the reference's range, or has a level it lacks: a phrase a covariate."""
    phrases = []
    for name, facts in people.reference.covariates.items():
        values = people.subjects[name].dropna() if name in people.subjects else pd.Series()
        if "range" in facts:
            out = ~pd.to_numeric(values, errors="coerce").between(*facts["range"])
        else:
            out = ~values.astype(str).isin([str(level) for level in facts.get("levels", values)])
        if out.any():
            phrases.append(f"{name} of {int(out.sum())} people ({listed(values.index[out], 3)})")
    return phrases


def _reference_facts(reference: Reference) -> dict[str, Any]:
    """Training and calibration: rows and pictures; None where the reference kept nothing."""
    shares = pd.DataFrame(reference.calibration)
    if len(shares):
        shares["off"] = (shares["low"] > shares["nominal"]) | (shares["high"] < shares["nominal"])
        n_rows = shares["quantity"].nunique()
    return {
        "n_reference": sum(reference.n_subjects.values()), "shares": shares.to_dict("records"),
        "training": _picture(lambda ax: figures.plot_training(reference, ax=ax),
                             (WIDTH, 3.0)) if reference.history else None,
        "calibration": _picture(lambda ax: figures.plot_calibration(reference, ax=ax),
                                (WIDTH, 1 + 0.42 * n_rows)) if len(shares) else None,
        "qq": _picture(lambda ax: figures.plot_qq(reference, ax=ax),
                       (4.8, 4.6)) if reference.quantiles else None}


def _contrast(comparison: GroupComparison, name: str, atlas: Atlas | None) -> dict[str, Any]:
    """One contrast: its strongest regions as a picture, its table, its maps."""
    table = comparison.table.xs(name, level="contrast").reset_index().sort_values("p")
    tested = table.dropna(subset=["p"])
    hits = tested[tested["q"] < figures.SIGNIFICANT]
    drawn = min(TOP, int(tested["g"].notna().sum()))
    limit = max(0.5, float(np.ceil(10 * table["g"].abs().max()) / 10)) if drawn else 1.0
    return {
        "name": name, "strongest": tested.head(1).to_dict("records"),
        "n_tested": len(tested), "n_hits": len(hits),
        "untested": table.loc[table["p"].isna(), "reason"].value_counts().to_dict(),
        "hits": {m: n for m in comparison.table.index.get_level_values("modality").unique()
                 if (n := int((hits["modality"] == m).sum()))},
        "rows": (hits.head(MOST_ROWS) if len(hits) else tested.head(ROWS)).to_dict("records"),
        "forest": _picture(
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
    return [_map(group_map(painted, modality, atlas, contrast=contrast),
                 f"{modality}: {_minus(contrast)}", limit, "Hedges' g")
            for modality in known.index.get_level_values("modality").unique()]


def _spread(people: Deviations, comparison: GroupComparison | None) -> dict[str, Any]:
    """Extreme counts and latent distances of each group: pictures, rows, and rank tests."""
    group = WHO if comparison is None else comparison.group
    if not len(people.with_controls()):
        return {"extremes": None, "distances": None, "spread": [], "ranks": []}
    of = honest_people(people, group)[1]
    if comparison is not None:
        of = of[of.isin(comparison.n)]
    everyone = people.with_controls().select(of.index)
    n_levels = of.nunique()
    tests = [] if comparison is None else [
        compare(everyone, group, baseline=comparison.baseline)
        for compare in (compare_extremes, compare_distances)]
    return {
        "extremes": _picture(lambda ax: figures.plot_extremes(everyone, group, ax=ax),
                             (WIDTH, 1 + 0.36 * n_levels * len(people.modalities))),
        "distances": _picture(lambda ax: figures.plot_distances(everyone, group, ax=ax),
                              (WIDTH, 0.9 + 0.5 * n_levels)),
        "spread": _group_rows(everyone, of, of.unique() if comparison is None
                              else comparison.n),
        "ranks": [row for test in tests for row in test.table.reset_index().to_dict("records")],
        "ranks_families": [test.family for test in tests],
        "ranks_notes": list(dict.fromkeys(note for test in tests for note in test.notes))}


def _group_rows(everyone: Deviations, of: pd.Series, levels: Iterable[str]
                ) -> list[dict[str, Any]]:
    """One row a group and modality, and one for the distance: n, quartiles, expected by chance."""
    counts = everyone.extreme(figures.EXTREME)
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


def _person(people: Deviations, subject: str, regional: RegionalDeviations | None,
            atlas: Atlas | None, groups: tuple[str, ...]) -> dict[str, Any]:
    """One person: what is known of them, how far out they lie, their regions and maps."""
    row, z = people.subjects.loc[subject], people.z.loc[subject].dropna()
    shown = dict.fromkeys((*people.reference.covariates, *groups))
    q = stats.false_discovery_control(2 * stats.norm.sf(np.abs(z))) if len(z) else np.array([])
    measured = _measured(people.z.loc[[subject]])
    maps = [] if regional is None or atlas is None else [
        _map(subject_map(regional, subject, name, atlas), name, Z_LIMIT, "deviation, z")
        for name in regional.modalities if name in _measured(regional.z.loc[[subject]])]
    counts = people.select([subject]).extreme(figures.EXTREME).iloc[0]
    return {
        "id": subject, "facts": {name: row[name] for name in shown if name in row},
        "calibration": row[ROLE] == "calibration", "distance": people.distance.loc[subject],
        "n_values": len(z), "n_hits": int((q < figures.SIGNIFICANT).sum()),
        "counts": [(name, int(counts[name]), int(z[name].size)) for name in measured],
        "absent": [name for name in people.modalities if name not in measured], "maps": maps,
        "regions": _picture(lambda ax: figures.plot_subject(people, subject, TOP, ax=ax),
                            (WIDTH, 0.8 + 0.25 * min(TOP, len(z)))) if len(z) else None}


def _measured(z: pd.DataFrame) -> list[str]:
    known = z.columns[z.notna().any()]
    return [str(name) for name in known.get_level_values(0).unique()]


def _map(img: Nifti1Image, title: str, limit: float, unit: str) -> Picture:
    return _picture(lambda ax: figures.plot_brain(img, title, limit=limit, unit=unit, ax=ax),
                    (WIDTH, 1.85), (0.005, 0, 0.92, 0.87))


def _picture(draw: Callable[[Axes], object], size: tuple[float, float],
             box: tuple[float, float, float, float] | None = None) -> Picture:
    """Draw on a figure of our own, in the default look whatever the user's settings are.

    Parameters
    ----------
    size : (width, height), inches
    box : (left, bottom, width, height), share of the figure
        Where the axis goes; by default the layout finds room for it and its labels.
    """
    with style.context(["default", _LOOK]):
        figure = Figure(figsize=size, layout=None if box else "constrained")
        draw(figure.add_axes(box) if box else figure.add_subplot())
        png = io.BytesIO()
        figure.savefig(png, format="png")
    return Picture("data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
                   round(96 * size[0]), round(96 * size[1]))


def _number(value: Any, digits: int = 2) -> str:
    """A number with a true minus sign, a dash where there is none.

    >>> _number(-1.256), _number(-0.001), _number(None)
    ('−1.26', '0.00', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # no minus before 0


def _p(value: Any, equals: str = "") -> str:
    """A p-value as one prints it, after ``equals`` in a sentence.

    >>> _p(0.0341), _p(0.0341, "= "), _p(0.00002, "= "), _p(float("nan"))
    ('.034', '= .034', '< .001', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    return "< .001" if value < .001 else f"{equals}{f'{value:.3f}'.removeprefix('0')}"


def _word(value: Any) -> str:
    """A cell of somebody's table: 71.0 is 71, and a missing value a dash."""
    if pd.isna(value):
        return "–"
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _percent(share: Any) -> str:
    return "–" if share is None or not np.isfinite(share) else f"{100 * share:.1f} %"


def _effect(row: Mapping[str, Any], name: str = "g") -> str:
    return f"{_number(row[name])} [{_number(row[f'{name}_low'])}, {_number(row[f'{name}_high'])}]"


def _minus(contrast: str) -> str:
    return contrast.replace(" - ", " − ")

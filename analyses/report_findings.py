"""Parts of a report on scores, overlap, extreme counts and subtypes: words, tables, pictures."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from normfuse.errors import ComparisonError

from .association_table import Associations
from .brain_viewer import viewer
from .data_tables import DataTable, Shown
from .extremes import SIGNS, ExtremeCounts
from .figures_subtypes import plot_consensus, plot_profiles, plot_stability
from .overlap_maps import OverlapMaps
from .pictures import TOP, WIDTH, Picture, picture
from .report_contents import Contents
from .results import Found
from .subtype_table import Subtypes
from .wording import minus, region_label

_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def finding_facts(contents: Contents, result: Found, key: str) -> dict[str, Any]:
    """One result: its title, summary without notes, notes, pictures, tables, maps."""
    title, make = next(parts for kind, parts in SHOWN.items() if isinstance(result, kind))
    notes = tuple(getattr(result, "notes", ()))
    summary = [_MINUS.sub("−", minus(line)) for line in result.summary().splitlines()
               if not line.startswith("note: ")]
    return {"key": key, "title": title, "summary": summary, "notes": notes,
            **make(contents, result, key)}


def _drawn(plot: Callable[..., object], rows: int, **given: Any) -> list[Picture]:
    """A picture, or none if nothing could be tested."""
    try:
        return [_sized(plot, (WIDTH, 0.9 + 0.26 * rows), **given)]
    except ComparisonError:
        return []


def _sized(plot: Callable[..., object], size: tuple[float, float], *of: Any, **given: Any
           ) -> Picture:
    def draw(ax: Axes) -> object:
        return plot(*of, **given, ax=ax)

    return picture(draw, size)


def _labelled(frame: pd.DataFrame) -> dict[str, Any]:
    return {"said": {"feature": [region_label(f) for f in frame["feature"]]},
            "modality": "modality", "q": "q"}


def _associations(contents: Contents, found: Associations, key: str) -> dict[str, Any]:
    frame = found.table.reset_index().sort_values("p").reset_index(drop=True)
    table = DataTable(
        f"{key}-table", frame, (
            Shown("region", ("feature",)), Shown("modality", ("modality",)),
            Shown("score", ("score",)), Shown("n", ("n",)),
            Shown("r [95 %]", ("r", "r_low", "r_high"), "interval"), Shown("p", ("p",), "p"),
            Shown("q", ("q",), "p")),
        f"Correlations of all features with {', '.join(found.scores)}, smallest p first.",
        **_labelled(frame))
    drawn = min(TOP, int(found.table["p"].notna().sum()))
    return {"tables": [table], "pictures": [
        (f"Strongest correlations with {score}", made) for score in found.scores
        for made in _drawn(found.plot, drawn, n=TOP, score=score)],
        "viewers": _painted(contents, found.table["r"], "score", key, 0.5, "r")}


def _overlap(contents: Contents, found: OverlapMaps, key: str) -> dict[str, Any]:
    frame = found.table.reset_index().sort_values("p").reset_index(drop=True)
    table = DataTable(
        f"{key}-table", frame, (
            Shown("region", ("feature",)), Shown("modality", ("modality",)),
            Shown("contrast", ("contrast",)), Shown("n", ("n_case", "n_baseline"), "pair"),
            Shown("share", ("share_case",), "percent"),
            Shown("baseline", ("share_baseline",), "percent"),
            Shown("difference [95 %]", ("difference", "ci_low", "ci_high"), "interval"),
            Shown("p", ("p",), "p"), Shown("q", ("q",), "p"),
            Shown("p_fwe", ("p_fwe",), "p")),
        f"Share of people with {found.what}, and the difference from {found.baseline}.",
        **_labelled(frame))
    names = found.table.index.get_level_values("contrast").unique()
    return {"tables": [table], "pictures": [
        (f"Overlap: {minus(name)}", made) for name in names
        for made in _drawn(found.plot, min(TOP, len(frame)), n=TOP, contrast=name)],
        "viewers": _painted(contents, found.table["difference"], "contrast", key, 0.5,
                            "difference of shares")}


def _extremes(contents: Contents, found: ExtremeCounts, key: str) -> dict[str, Any]:
    frame = found.table.reset_index()
    signs = [SIGNS[way].format(limit)
             for way, limit in zip(frame["direction"], frame["threshold"])]
    table = DataTable(
        f"{key}-table", frame, (
            Shown("contrast", ("contrast",)), Shown("deviations", ("direction",)),
            Shown("modality", ("modality",)), Shown("n", ("n_case", "n_baseline"), "pair"),
            Shown("mean", ("case_mean",), "number", 1),
            Shown("baseline", ("baseline_mean",), "number", 1),
            Shown("by chance", ("expected",), "number", 1),
            Shown("AUC [95 %]", ("auc", "auc_low", "auc_high"), "interval"),
            Shown("p", ("p",), "p"), Shown("q", ("q",), "p"),
            Shown("permuted p", ("p_permuted",), "p")),
        "Extreme deviations per person; by chance: of somebody measured completely. AUC above .5: "
        "the first group has more.", said={"direction": signs}, modality="modality", q="q")
    rows = len(found.n) * found.people.columns.get_level_values("modality").nunique()
    return {"tables": [table], "viewers": [], "pictures": [
        ("Extreme deviations per person", made)
        for made in _drawn(found.plot, 1 + 2 * rows)]}


def _subtypes(contents: Contents, found: Subtypes, key: str) -> dict[str, Any]:
    people = found.table.rename_axis("person").reset_index()
    numbers = found.stability.reset_index()
    tables = [
        DataTable(f"{key}-stability", numbers, (
            Shown("clusters", ("n_clusters",)),
            Shown("silhouette", ("silhouette",), "number"),
            Shown("of one cloud [95 %]", ("silhouette_null", "silhouette_low", "silhouette_high"),
                  "interval"),
            Shown("stability", ("stability",), "number"),
            Shown("of one cloud [95 %]", ("stability_null", "stability_low", "stability_high"),
                  "interval"),
            Shown("p", ("p",), "p")),
                  "How far each number of clusters stands out from one cloud without subtypes."),
        DataTable(f"{key}-people", people, (
            Shown("person", ("person",)), Shown("subtype", ("subtype",)),
            Shown("candidate", ("candidate",)), Shown("consensus", ("consensus",), "number"),
            Shown("silhouette", ("silhouette",), "number")),
                  "Who belongs where, and how surely.")]
    sizes = ((plot_stability, "Stability of the clusters", (WIDTH, 3.4)),
             (plot_consensus, "Who falls together with whom", (5.6, 4.6)),
             (plot_profiles, "Mean z of the subtypes", (WIDTH, 1 + 0.28 * TOP)))
    return {"tables": tables, "viewers": [], "pictures": [
        (what, _sized(draw, size, found)) for draw, what, size in sizes]}


def _painted(contents: Contents, values: pd.Series, level: str, key: str, limit: float, unit: str
             ) -> list[dict[str, Any]]:
    """A viewer of every score or contrast and modality, if the features are regions."""
    maps = list(_maps(contents, values, level))
    made = viewer(key, maps, limit)
    return [] if made is None else [{"viewer": made, "unit": unit, "limit": limit}]


def _maps(contents: Contents, values: pd.Series, level: str) -> Iterator[tuple[str, Any]]:
    atlas, (regional, _) = contents.atlas, contents.regional
    if atlas is None or regional is None:
        return
    known = values[values.index.get_level_values("feature").isin(atlas.regions["name"])].dropna()
    for key, part in known.groupby(level=[level, "modality"], sort=False):
        name, modality = map(str, key)  # type: ignore[arg-type]
        yield f"{minus(name)}, {modality}", atlas.paint(part.droplevel([level, "modality"]))


SHOWN: dict[type[Found], tuple[str, Callable[..., dict[str, Any]]]] = {
    Associations: ("Clinical scores", _associations),
    OverlapMaps: ("Overlap of extreme deviations", _overlap),
    ExtremeCounts: ("Extreme deviations per person", _extremes),
    Subtypes: ("Subtypes", _subtypes)}
"""Which results a report shows, what it calls each, and how it gathers its parts."""

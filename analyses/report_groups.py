"""The groups of a report: effects with tables and maps, extreme counts and latent distances."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from normfuse.deviations import Deviations

from . import figures, wording
from .brain_viewer import viewer
from .comparable import honest_people
from .data_tables import DataTable, Shown
from .deviation_maps import group_map
from .drawing import EXTREME
from .group_comparison import ALPHA, GroupComparison
from .pictures import TOP, WIDTH, brain_picture, picture
from .ranks import compare_distances, compare_extremes
from .report_contents import WHO, Contents


def comparison_facts(contents: Contents, comparison: GroupComparison, key: str) -> dict[str, Any]:
    """One comparison: its own words, and a part a contrast."""
    names = comparison.table.index.get_level_values("contrast").unique()
    regional, _ = contents.regional
    return {"key": key, "result": comparison,
            "contrasts": [_contrast(contents, comparison, name, f"{key}-{k}", regional is not None)
                          for k, name in enumerate(names, 1)]}


def _contrast(contents: Contents, comparison: GroupComparison, name: str, key: str, mapped: bool
              ) -> dict[str, Any]:
    """One contrast: its strongest regions as a picture, its table, its maps."""
    table = comparison.table.xs(name, level="contrast").reset_index().sort_values("p")
    tested = table.dropna(subset=["p"])
    hits = tested[tested["q"] < ALPHA]
    drawn = min(TOP, int(tested["g"].notna().sum()))
    limit = max(0.5, float(np.ceil(10 * table["g"].abs().max()) / 10)) if drawn else 1.0
    maps = _maps(contents, comparison, name) if mapped else []
    return {
        "key": key, "name": name, "strongest": tested.head(1).to_dict("records"),
        "n_tested": len(tested), "n_hits": len(hits),
        "untested": table.loc[table["p"].isna(), "reason"].value_counts().to_dict(),
        "hits": {m: n for m in comparison.table.index.get_level_values("modality").unique()
                 if (n := int((hits["modality"] == m).sum()))},
        "table": effects_table(table, f"{key}-table"),
        "forest": picture(
            lambda ax: figures.plot_group_effects(comparison, TOP, contrast=name, ax=ax),
            (WIDTH, 0.8 + 0.25 * drawn)) if drawn else None,
        "maps": [brain_picture(img, f"{m}: {wording.minus(name)}", limit, "Hedges' g")
                 for m, img in maps],
        "viewer": viewer(key, maps, limit), "limit": limit}


def effects_table(table: pd.DataFrame, key: str) -> DataTable:
    """Every feature of one contrast, tested or not, smallest p first."""
    return DataTable(
        key, table.reset_index(drop=True), (
            Shown("region", ("feature",)), Shown("modality", ("modality",)),
            Shown("n", ("n_case", "n_baseline"), "pair"),
            Shown("g [95 %]", ("g", "g_low", "g_high"), "interval"), Shown("p", ("p",), "p"),
            Shown("q", ("q",), "p"),
            Shown("raw g [95 %]", ("raw_g", "raw_g_low", "raw_g_high"), "interval"),
            Shown("raw p", ("raw_p",), "p"), Shown("raw q", ("raw_q",), "p")),
        f"All {len(table)} features, smallest p first; the CSV has every column of the "
        "comparison.", said={"feature": [wording.region_label(f) for f in table["feature"]]},
        modality="modality", q="q")


def _maps(contents: Contents, comparison: GroupComparison, contrast: str) -> list[tuple[str, Any]]:
    atlas, table = contents.atlas, comparison.table
    if atlas is None:
        return []
    in_atlas = table.index.get_level_values("feature").isin(atlas.regions["name"])
    of_contrast = table.index.get_level_values("contrast") == contrast
    known = table[in_atlas & of_contrast & table["g"].notna()]
    painted = replace(comparison, table=known)
    return [(str(modality), group_map(painted, modality, atlas, contrast=contrast))
            for modality in known.index.get_level_values("modality").unique()]


def spread(contents: Contents) -> dict[str, Any]:
    """Extreme counts and latent distances of each group: pictures, rows, and rank tests."""
    people = contents.people
    comparison = next((c for c in contents.comparisons if c.group == contents.group), None)
    group = contents.group or WHO
    told: dict[str, Any] = {"group": "" if group == WHO else group, "extremes": None,
                            "distances": None, "spread": [], "ranks": []}
    if not len(people.with_controls()):
        return told
    everyone, of, _ = honest_people(people, group)
    if comparison is not None:
        of = of[of.isin(list(comparison.n))]
        everyone = everyone.select(of.index)
    n_levels = of.nunique()
    tests = [] if comparison is None else [
        compare(everyone, group, baseline=comparison.baseline)
        for compare in (compare_extremes, compare_distances)]
    return {
        **told,
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
    """One row a group and modality, and one for the distance: n, quartiles, expected by chance.

    What chance gives is counted over the features measured in each person: an atlas has regions
    that no scan reached.
    """
    counts = everyone.extreme(EXTREME)
    measured = everyone.z.notna().T.groupby(level=0, sort=False).sum().T
    rows = []
    for level in levels:
        who = of.index[of == level]
        for name in everyone.modalities:
            low, middle, high = counts.loc[who, name].quantile([.25, .5, .75])
            width = measured.loc[who, name]
            rows.append({"group": level, "what": f"extreme deviations, {name}",
                         "n": int(counts.loc[who, name].notna().sum()), "median": middle,
                         "low": low, "high": high,
                         "chance": 2 * stats.norm.sf(EXTREME) * width[width > 0].mean()})
        distance = everyone.distance.loc[who, "distance"]
        low, middle, high = distance.quantile([.25, .5, .75])
        rows.append({"group": level, "what": "latent distance", "n": int(distance.notna().sum()),
                     "median": middle, "low": low, "high": high, "chance": np.nan})
    return rows

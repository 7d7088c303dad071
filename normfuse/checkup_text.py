"""A checkup in words, in numbers for programs, and as a row of bars."""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from .checkup import Checkup
from .cohort import Cohort
from .errors import NormfuseError, listed
from .tables.described import Described

_BAR = 24
_LEVELS = 12
_GROUPS = ("diagnosis", "group", "dx", "status")


def in_numbers(checkup: Checkup) -> dict[str, Any]:
    """What a checkup found, JSON-ready; counts are of people.

    Examples
    --------
    >>> from pathlib import Path
    >>> in_numbers(Checkup(Path("cohort.toml"), ("there is no file cohort.toml",)))["fine"]
    False
    """
    found: dict[str, Any] = {
        "file": str(checkup.file), "fine": checkup.fine, "problems": list(checkup.problems),
        "suspicious": list(checkup.suspicious), "notes": list(checkup.notes)}
    cohort = checkup.cohort
    if cohort is None:
        return found
    healthy = _healthy(cohort)
    found["subjects"] = {"n": len(cohort), "reference": int(healthy.sum()),
                         "query": cohort.reference, "groups": _groups(cohort)}
    described = checkup.described
    found["covariates"] = {
        name: {**_covariate(cohort.subjects[name], kind, healthy),
               **({"unit": described[name].unit} if name in described else {})}
        for name, kind in cohort.covariates.items()}
    found["meanings"] = {name: what.levels for name, what in described.items() if what.levels}
    if not cohort.modalities:
        return found
    present = cohort.present
    found["modalities"] = {
        m.name: {"unit": m.unit, "features": checkup.images.get(m.name, m.n_features),
                 "images": m.name in checkup.images, "n": int(present[m.name].sum()),
                 "reference": int(present.loc[healthy, m.name].sum()),
                 **({} if m.name in checkup.images else _holes(cohort.features[m.name]))}
        for m in cohort.modalities}
    found["patterns"] = [{"modalities": names, "n": n, "reference": k}
                         for names, n, k in _patterns(present, healthy)]
    return found


def in_words(checkup: Checkup) -> str:
    """What a checkup found, for people: what was understood, then what is wrong."""
    found = in_numbers(checkup)
    lines: list[str] = [f"{checkup.file}: nothing could be read"]
    if "subjects" in found:
        lines = [*_people_lines(found, checkup.described), "", "covariates",
                 *_covariate_lines(found["covariates"], checkup.described)]
    if "modalities" in found:
        lines += ["", "modalities", *_modality_lines(found["modalities"]),
                  "", "who has what", *_pattern_lines(found["patterns"])]
    for title, texts in (("notes", checkup.notes), ("suspicious", checkup.suspicious),
                         ("problems", checkup.problems)):
        if texts:
            lines += ["", f"{title} ({len(texts)})",
                      *(f"  {i}. {' '.join(text.split())}" for i, text in enumerate(texts, 1))]
    verdict = "fine: nothing would be refused" if checkup.fine else \
        f"not fine: {len(checkup.problems)} problem{'s' * (len(checkup.problems) > 1)}"
    if checkup.fine and checkup.suspicious:
        verdict += f", but look at what is suspicious ({len(checkup.suspicious)})"
    return "\n".join([*lines, "", verdict])


def _healthy(cohort: Cohort) -> pd.Series:
    try:
        ids = cohort.reference_subjects().ids
    except NormfuseError:
        ids = cohort.ids[:0]
    return pd.Series(cohort.ids.isin(ids), cohort.ids)


def _groups(cohort: Cohort) -> dict[str, dict[str, int]]:
    """Counts of the columns that the reference query names, else of a column of groups."""
    words = re.findall(r"\w+", cohort.reference or "")
    text = [c for c in cohort.subjects.columns if cohort.covariates.get(str(c)) != "continuous"
            and cohort.subjects[str(c)].nunique() <= _LEVELS]
    named = [c for c in text if c in words] or [c for c in text if str(c).lower() in _GROUPS][:1]
    return {str(c): _counts(cohort.subjects[str(c)]) for c in named}


def _counts(column: pd.Series) -> dict[str, int]:
    counts = column.dropna().astype(str).value_counts().sort_index()
    return {str(level): int(n) for level, n in counts.items()}


def _covariate(column: pd.Series, kind: str, healthy: pd.Series) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": kind, "missing": int(column.isna().sum())}
    if kind != "continuous":
        return {**found, "levels": _counts(column), "reference": _counts(column[healthy])}
    values, normal = column.dropna(), column[healthy].dropna()
    if len(values):
        found |= {"range": [float(values.min()), float(values.max())],
                  "median": float(values.median())}
    if len(normal):
        found["reference"] = [float(normal.min()), float(normal.max())]
    return found


def _holes(block: pd.DataFrame) -> dict[str, Any]:
    """Missing cells of the people who were measured."""
    measured = block[block.notna().any(axis=1)]
    if measured.empty:
        return {"missing_cells": 0.0, "worst": {}}
    share = measured.isna().mean().sort_values(ascending=False, kind="stable")
    return {"missing_cells": float(measured.isna().to_numpy().mean()),
            "worst": {str(f): float(s) for f, s in share[share > 0].head(3).items()}}


def _patterns(present: pd.DataFrame, healthy: pd.Series) -> list[tuple[list[str], int, int]]:
    """Each set of modalities that somebody has, with how many people, the most frequent first."""
    have = [tuple(str(m) for m in present if row[str(m)]) for _, row in present.iterrows()]
    table = pd.DataFrame({"have": have, "healthy": healthy.to_numpy()})
    counts = table.groupby("have", sort=False)["healthy"].agg(["size", "sum"])
    counts = counts.sort_values("size", ascending=False, kind="stable")
    return [(list(names), int(n), int(k)) for names, n, k in counts.itertuples()]


def _people_lines(found: dict[str, Any], described: Mapping[str, Described]) -> list[str]:
    who = found["subjects"]
    query = f" ({who['query']})" if who["query"] else ", as the file does not say who is healthy"
    lines = [f"{found['file']}: {who['n']} people, {who['reference']} of them reference{query}"]
    return lines + [f"  {name}: {_levels(counts, described.get(name))}"
                    for name, counts in who["groups"].items()]


def _levels(counts: dict[str, int], described: Described | None) -> str:
    said = described or Described()
    return listed([f"{said.in_words(level)} {n}" for level, n in counts.items()], _LEVELS)


def _covariate_lines(covariates: dict[str, Any], described: Mapping[str, Described]) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for name, found in covariates.items():
        if "range" in found:
            low, high = found["range"]
            unit = f" {found['unit']}" if found.get("unit") else ""
            what = f"{low:g} to {high:g}{unit}, median {found['median']:g}"
            if "reference" in found:
                what += f" (reference {found['reference'][0]:g} to {found['reference'][1]:g})"
        else:
            what = _levels(found.get("levels", {}), described.get(name))
        missing = f"; missing for {found['missing']}" if found["missing"] else ""
        rows.append((name, found["kind"], what + missing))
    return _aligned(rows) or ["  none"]


def _modality_lines(modalities: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for name, found in modalities.items():
        what = f"{found['n']} people ({found['reference']} reference)"
        if found["images"]:
            what += "; images found, their voxels not read"
        elif found["missing_cells"]:
            worst = listed(f"{feature} {share:.0%}" for feature, share in found["worst"].items())
            what += f"; {found['missing_cells']:.1%} of their cells missing, most in {worst}"
        features = f"{found['features']} {'voxels' if found['images'] else 'features'}"
        rows.append((name, found["unit"] or "no unit", features, what))
    return _aligned(rows)


def _pattern_lines(patterns: list[dict[str, Any]]) -> list[str]:
    most = max((found["n"] for found in patterns), default=0)
    return _aligned([(" + ".join(found["modalities"]) or "nothing",
                      "#" * max(1, round(_BAR * found["n"] / most)),
                      f"{found['n']} ({found['reference']} reference)") for found in patterns])


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in rows]

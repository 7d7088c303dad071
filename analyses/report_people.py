"""The people of a report: who was scored and measured, who deviates most, and a part on each."""
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from normfuse.deviations import JUDGES, ROLE, Deviations
from normfuse.errors import listed

from . import figures
from .attribution import modality_shares
from .brain_viewer import viewer
from .data_tables import DataTable, Shown
from .deviation_maps import subject_map
from .drawing import EXTREME
from .effects import corrected
from .figures_people import measured
from .group_comparison import ALPHA
from .pictures import TOP, WIDTH, brain_picture, picture
from .report_contents import SCORED, WHO, Contents
from .wording import centile_words, region_label

TOP_LATENT = 10  # latent dimensions in a figure
Z_LIMIT = 4.0  # one scale for everybody's maps: two pages can be held side by side
_CHANCE = 2 * float(stats.norm.sf(EXTREME))


def people_facts(contents: Contents) -> dict[str, Any]:
    """Who was scored: numbers for the summary, and rows and a picture of what was measured."""
    people = contents.people
    have, p = measured(people.z), people.distance["p"].dropna()
    return {
        "n_scored": len(contents.deviations), "n_people": len(people),
        "n_seen": len(contents.deviations) - len(people),
        "n_features": people.z.shape[1], "n_distance": len(p), "n_far": int((p < ALPHA).sum()),
        "n_measured": have.sum().to_dict(), "outside": _outside(people),
        "within": _within(contents),
        "missingness": picture(
            lambda ax: figures.plot_missingness(people, ax=ax),
            (5.8, 0.8 + 0.32 * len(have.drop_duplicates()))) if len(people) else None}


def _within(contents: Contents) -> list[tuple[str, int, int]]:
    """Healthy people kept aside and all others: how many have any feature at q < .05, of whom."""
    who = contents.people.subjects[WHO].reindex(contents.order.index)
    least = contents.order["feature"]
    return [(str(kind), int((least[who == kind] < ALPHA).sum()), int(least[who == kind].count()))
            for kind in sorted(who.unique(), key=lambda kind: kind == SCORED)]


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


def people_table(contents: Contents, files: dict[str, str] | None = None) -> DataTable:
    """A row a person, the most deviant first; with ``files``, each leads to its page.

    Columns ``person``, covariates and groups, ``distance``, ``p``, ``p_conformal``, ``feature_p``
    (smallest Benjamini-Hochberg p over the person's own features), and of each modality how many
    features lie beyond 1.96 (``extreme_…``) and how many were measured (``measured_…``).
    """
    who = contents.ranked if files is None else list(files)
    people = contents.people.select(who)
    counts = people.extreme(EXTREME)
    width = people.z.notna().T.groupby(level=0, sort=False).sum().T
    known = [n for n in dict.fromkeys((*people.reference.covariates, *contents.groups))
             if n in people.subjects]
    frame = pd.DataFrame({"person": who}, index=who)
    if files is not None:
        frame["page"] = list(files.values())
    frame = frame.join(people.subjects[known].rename(columns=lambda n: _free(n, frame)))
    p = [n for n in ("distance", "p", "p_conformal") if n in people.distance]
    frame = frame.join(people.distance[p].rename(columns={"p": "distance_p"}))
    frame["feature_p"] = contents.order["feature"].reindex(who)
    for m in people.modalities:
        frame[f"extreme_{m}"], frame[f"measured_{m}"] = counts[m], width[m]
    head = Shown("person", ("person", "page"), "link") if files else Shown("person", ("person",))
    shown = [head, *(Shown(n, (_free(n, frame[["person"]]),)) for n in known),
             Shown("latent distance", ("distance",), "number"), Shown("p", ("distance_p",), "p"),
             *([Shown("p by rank", ("p_conformal",), "p")] if "p_conformal" in frame else []),
             Shown("smallest q of a feature", ("feature_p",), "p"),
             *(Shown(f"{m} beyond {EXTREME}", (f"extreme_{m}",)) for m in people.modalities)]
    return DataTable("people-table", frame.reset_index(drop=True), tuple(shown),
                     "Each name leads to that person's page; the most deviant come first." if files
                     else "Everybody scored whom the model was not trained on, the most deviant "
                     "first.")


def _free(name: str, taken: pd.DataFrame) -> str:
    """A covariate may be called as a column of ours."""
    ours = {*taken.columns, "page", "distance", "distance_p", "p_conformal", "feature_p"}
    return f"{name} (covariate)" if name in ours or name.startswith(("extreme_", "measured_")) \
        else name


def persons(contents: Contents) -> dict[str, Any]:
    """The most deviant people, and how many they were chosen from."""
    order = contents.order
    by = (order["latent"] == order["p"]).map({True: "latent distance", False: "strongest feature"})
    chosen = order.index[:max(contents.n_subjects, 0)]
    return {"n_ranked": len(order), "has_attribution": contents.people.attribution is not None,
            "persons": [{"by": by[who], **person(contents, who, f"p{k}")}
                        for k, who in enumerate(chosen, 1)]}


def person(contents: Contents, subject: str, key: str) -> dict[str, Any]:
    """One person: what is known of them, how far out they lie, their regions and maps."""
    people = contents.people
    row, z = people.subjects.loc[subject], people.z.loc[[subject]].iloc[0].dropna()
    shown = dict.fromkeys((*people.reference.covariates, *contents.groups))
    q = corrected(people.p.loc[[subject]].iloc[0], "fdr_bh").dropna()
    have = _modalities_of(people.z, subject)
    counts = people.select([subject]).extreme(EXTREME).iloc[0]
    strongest = int(z.abs().to_numpy().argmax()) if len(z) else -1
    return {
        "id": subject, "key": key,
        "facts": {name: row[name] for name in shown if name in row},
        "calibration": row[ROLE] in JUDGES, "distance": people.distance.loc[subject],
        "p_rank": people.distance.get("p_conformal", pd.Series(dtype=float)).get(subject, np.nan),
        "n_values": len(z), "n_hits": int((q < ALPHA).sum()),
        "strongest": None if z.empty else (*z.index[strongest], q.min()),
        # of the other kinds a centile is one of what the rest of the brain leaves: no plain words
        "centile": centile_words(100 * stats.norm.cdf(z.iloc[strongest]))
        if len(z) and people.reference.kind == "covariates" else None,
        "counts": [(name, int(counts[name]), int(z[name].size), _CHANCE * z[name].size)
                   for name in have],
        "absent": [name for name in people.modalities if name not in have],
        "table": None if z.empty else features_table(people, subject, f"{key}-features"),
        "regions": None if z.empty else picture(
            lambda ax: figures.plot_subject(people, subject, TOP, ax=ax),
            (WIDTH, 0.8 + 0.25 * min(TOP, len(z)))),
        **_maps(contents, subject, key), **_attribution(people, subject)}


def features_table(people: Deviations, subject: str, key: str) -> DataTable:
    """Every feature measured in one person, the largest deviation first."""
    one = people.select([subject])
    z = one.z.iloc[0].dropna()
    columns = z.index
    frame = pd.DataFrame({
        "modality": columns.get_level_values(0), "feature": columns.get_level_values(1),
        **{name: getattr(one, name)[columns].iloc[0].to_numpy()
           for name in ("observed", "expected", "z")},
        "centile": 100 * stats.norm.cdf(z), "p": 2 * stats.norm.sf(np.abs(z))})
    frame["q"] = corrected(pd.Series(frame["p"]), "fdr_bh").to_numpy()
    if one.conformal is not None:
        frame["p_rank"] = one.conformal.reindex(columns=columns).iloc[0].to_numpy()
    frame = frame.iloc[np.argsort(-z.abs().to_numpy(), kind="stable")].reset_index(drop=True)
    ranks = [Shown("p by rank", ("p_rank",), "p")] if "p_rank" in frame else []
    return DataTable(
        key, frame, (Shown("region", ("feature",)), Shown("modality", ("modality",)),
                     Shown("observed", ("observed",), "value"),
                     Shown("expected", ("expected",), "value"), Shown("z", ("z",), "number"),
                     Shown("p", ("p",), "p"), Shown("q", ("q",), "p"), *ranks),
        "Every feature measured, the farthest from expectation first. q: Benjamini-Hochberg over "
        "this person's features.",
        said={"feature": [region_label(f) for f in frame["feature"]]}, modality="modality", q="q")


def _maps(contents: Contents, subject: str, key: str) -> dict[str, Any]:
    """Pictures for paper, and the same to walk through."""
    regional, _ = contents.regional
    named: list[tuple[str, Any]] = []
    if regional is not None and contents.atlas is not None:
        named = [(m, subject_map(regional, subject, m, contents.atlas))
                 for m in _modalities_of(regional.z, subject)]
    voxels = contents.voxels.person(subject, Z_LIMIT)
    return {"voxels": voxels,
            "maps": [] if voxels else [brain_picture(img, name, Z_LIMIT, "deviation, z")
                                       for name, img in named],
            "viewer": viewer(key, contents.voxels.maps_of(subject) or named, Z_LIMIT)}


def _attribution(people: Deviations, subject: str) -> dict[str, Any]:
    """What each modality carries of one person's latent z, most first, and the picture."""
    none: dict[str, Any] = {"attribution": None, "carried": [], "squares": None}
    if people.attribution is None:
        return none
    one = people.select([subject])
    z, shares = one.latent.iloc[0].dropna(), modality_shares(one).iloc[0].dropna()
    if shares.empty:
        return none
    return {"carried": list(shares.sort_values(ascending=False, kind="stable").items()),
            "squares": (float((z ** 2).sum()), len(z)),
            "attribution": picture(
                lambda ax: figures.plot_attribution(people, subject, n=TOP_LATENT, ax=ax),
                (6.2, 1 + 0.26 * min(TOP_LATENT, len(z))))}


def _modalities_of(z: pd.DataFrame, subject: str) -> list[str]:
    have = measured(z.loc[[subject]])
    return have.columns[have.iloc[0]].tolist()

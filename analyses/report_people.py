"""The people of a report: who was scored and measured, who deviates most, and a part on each."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from normfuse.deviations import JUDGES, ROLE, Deviations
from normfuse.errors import listed

from . import figures
from .attribution import modality_shares
from .deviation_maps import subject_map
from .drawing import EXTREME
from .effects import corrected
from .figures_people import measured
from .group_comparison import ALPHA
from .pictures import TOP, WIDTH, brain_picture, picture
from .wording import centile_words

if TYPE_CHECKING:
    from normfuse.atlas import Atlas

    from .regional import RegionalDeviations
    from .report_voxels import VoxelFindings

TOP_LATENT = 10  # latent dimensions in a figure
Z_LIMIT = 4.0  # one scale for everybody's maps: two pages can be held side by side


def people_facts(deviations: Deviations, people: Deviations) -> dict[str, Any]:
    """Who was scored: numbers for the summary, and rows and a picture of what was measured."""
    have, p = measured(people.z), people.distance["p"].dropna()
    return {
        "n_scored": len(deviations), "n_seen": len(deviations) - len(people),
        "n_features": deviations.z.shape[1], "n_distance": len(p), "n_far": int((p < ALPHA).sum()),
        "n_measured": have.sum().to_dict(), "outside": _outside(people),
        "missingness": picture(
            lambda ax: figures.plot_missingness(people, ax=ax),
            (5.8, 0.8 + 0.32 * len(have.drop_duplicates()))) if len(people) else None}


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


def most_deviant(people: Deviations) -> pd.DataFrame:
    r"""Everyone of whom something is known, the most deviant first.

    .. math:: p_i = \min\Bigl(p_i^{\text{latent}},\; \min_k \frac{m_i\, p_{i(k)}}{k}\Bigr)

    for the p of the latent distance, which sees what the whole brain shares, and the smallest
    Benjamini-Hochberg p of the :math:`m_i` features measured in that person, which sees a
    deviation in one place. It orders people and tests nothing: it is corrected neither for the
    two looks nor for the number of people.

    Returns
    -------
    DataFrame, a row a person
        ``latent`` and ``feature`` (the two p-values, NaN where there is none), and ``p``, the
        smaller. Among equals, the largest \|z\| and then the largest distance come first.

    References
    ----------
    Benjamini & Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x; the smallest of their
    adjusted p is that of Simes (1986), doi:10.1093/biomet/73.3.751.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> most_deviant(tiny_deviations()).round(3).T.to_dict("list")
    {'sub-b': [0.31, 0.037, 0.037], 'sub-a': [0.93, 0.689, 0.689]}
    """
    p = np.sort(people.p.to_numpy(dtype="float64"), axis=1)  # NaN go last
    m = np.isfinite(p).sum(axis=1, keepdims=True)
    found = pd.DataFrame({"latent": people.distance["p"],
                          "feature": np.fmin.reduce(p * m / np.arange(1, p.shape[1] + 1), axis=1),
                          "farthest": people.z.abs().max(axis=1),
                          "distance": people.distance["distance"]}, people.z.index)
    found.insert(2, "p", found[["latent", "feature"]].min(axis=1))
    ordered = found.dropna(subset="p").sort_values(["p", "farthest", "distance"],
                                                   ascending=[True, False, False])
    return ordered[["latent", "feature", "p"]]


def persons(people: Deviations, n: int, regional: RegionalDeviations | None, atlas: Atlas | None,
            groups: tuple[str, ...], voxels: VoxelFindings) -> dict[str, Any]:
    """The n most deviant people, and how many they were chosen from."""
    order = most_deviant(people)
    by = (order["latent"] == order["p"]).map({True: "latent distance", False: "strongest feature"})
    return {"n_ranked": len(order), "has_attribution": people.attribution is not None,
            "persons": [{"by": why, **_person(people, subject, regional, atlas, groups),
                         "voxels": voxels.person(subject, Z_LIMIT)}
                        for subject, why in zip(order.index[:max(n, 0)], by)]}


def _person(people: Deviations, subject: str, regional: RegionalDeviations | None,
            atlas: Atlas | None, groups: tuple[str, ...]) -> dict[str, Any]:
    """One person: what is known of them, how far out they lie, their regions and maps."""
    row, z = people.subjects.loc[subject], people.z.loc[[subject]].iloc[0].dropna()
    shown = dict.fromkeys((*people.reference.covariates, *groups))
    q = corrected(people.p.loc[[subject]].iloc[0], "fdr_bh").dropna()
    have = _modalities_of(people.z, subject)
    counts = people.select([subject]).extreme(EXTREME).iloc[0]
    strongest = int(z.abs().to_numpy().argmax()) if len(z) else -1
    return {
        "id": subject, "facts": {name: row[name] for name in shown if name in row},
        "calibration": row[ROLE] in JUDGES, "distance": people.distance.loc[subject],
        "n_values": len(z), "n_hits": int((q < ALPHA).sum()),
        "strongest": None if z.empty else (*z.index[strongest], q.min()),
        # of the other kinds a centile is one of what the rest of the brain leaves: no plain words
        "centile": centile_words(100 * stats.norm.cdf(z.iloc[strongest]))
        if len(z) and people.reference.kind == "covariates" else None,
        "counts": [(name, int(counts[name]), int(z[name].size)) for name in have],
        "absent": [name for name in people.modalities if name not in have],
        "maps": [] if regional is None or atlas is None else [
            brain_picture(subject_map(regional, subject, name, atlas), name, Z_LIMIT,
                          "deviation, z") for name in _modalities_of(regional.z, subject)],
        "regions": None if z.empty else picture(
            lambda ax: figures.plot_subject(people, subject, TOP, ax=ax),
            (WIDTH, 0.8 + 0.25 * min(TOP, len(z)))),
        **_attribution(people, subject)}


def _attribution(people: Deviations, subject: str) -> dict[str, Any]:
    """What each modality carries of one person's latent z, most first, and the picture."""
    none: dict[str, Any] = {"attribution": None, "carried": [], "squares": None}
    if people.attribution is None:
        return none
    person = people.select([subject])
    z, shares = person.latent.iloc[0].dropna(), modality_shares(person).iloc[0].dropna()
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

"""Cards of what a session is made of: a cohort, a model, its reference and the deviations."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .cards import COLUMNS, Card, some

if TYPE_CHECKING:
    from .cohort import Cohort
    from .deviations import Deviations, Reference
    from .normative import NormativeModel

MOST_VALUES = 20_000_000
"""Of z that are counted for a card: more would keep a notebook waiting, or fill its memory."""

NOMINAL = 0.05


def cohort_card(cohort: Cohort) -> Card:
    """Of a :class:`~normfuse.Cohort`."""
    present, modalities = cohort.present, cohort.modalities
    table = pd.DataFrame(
        [[m.n_features, m.unit or "–", int(present[m.name].sum()),
          f"{present[m.name].mean():.0%}" if len(cohort) else "–"] for m in modalities],
        pd.Index([m.name for m in modalities], name="modality"),
        ["features", "unit", "people", "share"])
    complete = int(present.all(axis=1).sum())
    facts = {"measured with everything": f"{complete} of {len(cohort)} people",
             "covariates": some(f"{name} ({kind})" for name, kind in cohort.covariates.items()),
             "reference": cohort.reference or "(who is healthy was not said)"}
    if cohort.imputation is not None:
        table = table.assign(imputed=cohort.imputed.sum().reindex(table.index))
        facts["imputed by"] = cohort.imputation.by or "(was not said)"
    return Card("Cohort", f"of {len(cohort)} people", facts, {"": table})


def reference_facts(reference: Reference) -> dict[str, object]:
    """Whom a model learned from, and how, as rows of a card."""
    people = reference.n_subjects
    return {"reference": f"{sum(people.values())} healthy people ("
            + ", ".join(f"{n} {role.replace('_', ' ')}" for role, n in people.items()) + ")",
            "given": some(reference.covariates), "fusion": reference.fusion,
            "networks": reference.model, "latent dimensions": reference.n_latent,
            "seed": reference.seed, "made": reference.created}


def kind_words(reference: Reference) -> str:
    """Which deviation, and what it means."""
    return f"{reference.kind}: {reference.meaning}" if reference.meaning else reference.kind


def calibration_line(reference: Reference, quantity: str = "z all") -> str:
    """How often held-out healthy people exceed 1.96, in words; empty if nothing was noted."""
    for row in reference.calibration:
        if row["quantity"] == quantity and row["nominal"] == NOMINAL:
            return (f"{row['share']:.1%} [{row['low']:.1%}, {row['high']:.1%}] of the z of "
                    f"{row['n_subjects']} held-out healthy people lie beyond 1.96; 5 % should")
    return ""


def reference_card(reference: Reference) -> Card:
    """Of a :class:`~normfuse.deviations.Reference`."""
    return Card("Reference", f"of z of kind {kind_words(reference)}",
                {**reference_facts(reference), "calibration": calibration_line(reference)},
                {"": _modalities(reference)}, reference.notes)


def model_card(model: NormativeModel, reference: Reference | None) -> Card:
    """Of a :class:`~normfuse.NormativeModel`, fitted or not."""
    kinds = ", ".join(kind.name for kind in model.kinds)
    if reference is None:
        return Card("NormativeModel", "not fitted yet: fit(cohort.reference_subjects())",
                    {"fusion": repr(model.fusion), "networks": repr(model.model),
                     "deviations": kinds, "training": repr(model.plan), "seed": model.seed})
    return Card("NormativeModel", f"fitted on {sum(reference.n_subjects.values())} people",
                {**reference_facts(reference), "deviations": kinds,
                 f"calibration ({reference.kind})": calibration_line(reference)},
                {"": _modalities(reference)}, reference.notes)


def deviations_card(deviations: Deviations) -> Card:
    """Of :class:`~normfuse.Deviations`; what lies on disk is not read for it."""
    reference = deviations.reference
    table = _modalities(reference).reindex(deviations.modalities)
    width = sum(block.shape[1] for block in deviations.blocks().as_is().values())
    if not deviations.is_stored and len(deviations) * width <= MOST_VALUES:
        table = table.assign(**_beyond(deviations))
    p = deviations.distance.get("p", pd.Series(dtype=float)).dropna()
    facts: dict[str, object] = {
        "latent distance": f"p < .05 in {int((p < NOMINAL).sum())} of {len(p)} people; in "
                           f"{NOMINAL * len(p):.0f} if all were healthy" if len(p) else "",
        **reference_facts(reference), "calibration": calibration_line(reference)}
    held = 0 if deviations.controls is None else len(deviations.controls)
    facts["held-out controls"] = f"{held} in memory, in .controls" if held else ""
    if deviations.imputed is not None:
        people = some(f"{m} of {n} people" for m, n in deviations.imputed.counts.items())
        facts["imputed"] = people + (", among z" if deviations.imputed.included
                                     else ", apart in .imputed")
    return Card("Deviations", f"of {len(deviations)} people; {kind_words(reference)}", facts,
                {"": table}, reference.notes)


def _modalities(reference: Reference) -> pd.DataFrame:
    """One row a modality; many of them are cut before anything is counted."""
    rows: dict[str, Any] = dict(list(reference.modalities.items())[:COLUMNS])
    return pd.DataFrame([[m.get("n_features"), m.get("unit") or "–", m.get("n_present")]
                         for m in rows.values()], pd.Index(list(rows), name="modality"),
                        ["features", "unit", "reference people"])


def _beyond(deviations: Deviations) -> dict[str, list[str]]:
    """Of whom each modality is known, and the share of those z beyond 1.96."""
    people, shares = [], []
    for block in deviations.blocks().as_is().values():
        z = np.asarray(block, dtype=float)
        known = np.isfinite(z)
        people.append(f"{int(known.any(axis=1).sum())}")
        shares.append(f"{(np.abs(z[known]) > 1.96).mean():.1%}" if known.any() else "–")
    return {"people": people, "beyond |z| 1.96": shares}

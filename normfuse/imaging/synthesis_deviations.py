"""How far scans are from what the person's other scans foretell, as deviations."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import pandas as pd

from ..cohort import Cohort
from ..deviations import ROLE, Deviations, Reference
from ..errors import CohortError, listed
from ..fingerprints import known_roles
from ..versions import versions
from .learning import aligned, refuse_unknown

if TYPE_CHECKING:
    from .synthesis import ImageSynthesiser

KIND = "synthesis"
MEANING = ("how far a voxel lies from what the person's other scans foretell of it, whatever the "
           "person's age, sex and site")
USE = "for what one contrast shows and the others do not"
NOTES = (
    "from an image synthesiser, which knows no covariates: a difference of age or site that one "
    "contrast shows and the others do not is a deviation",
    "z has mean square 1 over all voxels of the people it was calibrated on; whether p of single "
    "voxels holds was not checked, and errors are modelled by a law with heavier tails than the "
    "normal one: compare groups, or patients with healthy people scored alike")


def synthesis_deviations(synthesiser: ImageSynthesiser, cohort: Cohort,
                         targets: Sequence[str] | None = None) -> Deviations:
    """See :meth:`ImageSynthesiser.deviations`."""
    f = synthesiser.fitted
    cohort = aligned(cohort, f.modalities)
    refuse_unknown("targets", targets, f.net.names)
    z, observed, expected = {}, {}, {}
    for m in (m for m in f.modalities if targets is None or m.name in targets):
        others = cohort.present.drop(columns=m.name).any(axis=1)
        who = cohort.ids[(cohort.present[m.name] & others).to_numpy()]
        if not len(who):
            continue
        people = cohort.select(list(who))
        made = synthesiser.synthesise(people, [m.name])
        z[m.name] = made.standardised(people, m.name).reindex(cohort.ids)
        observed[m.name] = people.features[m.name].reindex(cohort.ids)
        expected[m.name] = made.mean[m.name].reindex(cohort.ids)
    if not z:
        raise CohortError("nobody has both a scan to judge and another one to foretell it from: "
                          f"{listed(cohort.ids)} have one modality each; two are needed")
    return _as_deviations(synthesiser, cohort, *(
        pd.concat(t, axis=1, names=["modality", "feature"]) for t in (z, observed, expected)))


def _as_deviations(synthesiser: ImageSynthesiser, cohort: Cohort, z: pd.DataFrame,
                   observed: pd.DataFrame, expected: pd.DataFrame) -> Deviations:
    f, nothing = synthesiser.fitted, pd.DataFrame(index=cohort.ids)
    judged = z.columns.get_level_values(0).unique()
    reference = Reference(
        kind=KIND, fusion=repr(synthesiser.fusion), n_latent=sum(synthesiser.sizes.latents),
        seed=synthesiser.seed, n_subjects=dict(f.n_people), covariates={},
        modalities={m.name: {"unit": m.unit, "n_features": m.n_features,
                             "n_present": int(z[m.name].notna().to_numpy().any(1).sum()),
                             "space": m.space.to_dict()}
                    for m in f.modalities if m.name in judged and m.space is not None},
        history=cast(list[dict[str, float]], f.history.to_dict("records")), versions=versions(),
        notes=NOTES, model=repr(synthesiser.sizes), meaning=MEANING, use=USE)
    return Deviations(
        z=z, observed=observed, expected=expected, latent=nothing,
        distance=nothing.reindex(columns=["distance", "p", "p_conformal", "n_calibration"]),
        subjects=cohort.subjects.assign(**{ROLE: known_roles(cohort, f.known)}),
        reference=reference)

"""Where a model comes from: counts, ranges and versions, none of them about one person."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from .cohort import Cohort
from .covariate_checks import THIN
from .deviations import Reference
from .errors import listed
from .models import Vae
from .networks import BentDecoder, WideDecoder
from .pattern_law import PatternLaw
from .pretrained import PretrainedEncoders
from .scoring import Pattern
from .training import History
from .versions import versions

if TYPE_CHECKING:
    from .normative import NormativeModel

LEVEL = 0.05
"""A p-value by rank that cannot be smaller tells nothing by the field's habits."""


def describe_fit(model: NormativeModel, vae: Vae, controls: Cohort, groups: Mapping[str, Cohort],
                 history: History, laws: Mapping[Pattern, PatternLaw],
                 encoders: PretrainedEncoders | None = None) -> dict[str, Reference]:
    """The provenance of each kind of deviation, before its calibration is checked."""
    from .covariates import CovariateEncoder

    encoder = CovariateEncoder.fit(controls.subjects, controls.covariates)
    present = controls.present
    names = [m.name for m in controls.modalities]
    seen = {tuple(row) for row in present.to_numpy().tolist()}
    lost = [" + ".join(n for n, there in zip(names, p) if there) for p in seen if p not in laws]
    notes = tuple(f"people measured with {combination} cannot be scored: too few calibration "
                  "people were" for combination in sorted(lost))
    if history.best_epoch == model.plan.max_epochs:
        notes += (f"training was still improving at its last epoch ({history.best_epoch}); raise "
                  "max_epochs",)
    if encoders is not None:
        notes += (encoders.told(),)
    if vae.bends_images:
        notes += ("convolutions bend the decoders of images: they made people whom training did "
                  "not see more probable",)
    elif any(isinstance(d, BentDecoder) for d in vae.decoders):
        notes += ("decoders are linear: convolutions made people whom training did not see less "
                  "probable",)
    elif any(isinstance(d, WideDecoder) for d in vae.decoders):
        notes += ("decoders are linear, as always with voxels: perceptrons were trained and left "
                  "out",)
    elif any(len(d.net) > 1 for d in vae.decoders) and all(d.is_straight for d in vae.decoders):
        notes += ("decoders are linear: perceptrons made people whom training did not see less "
                  "probable",)
    correlated = [name for name, noise in zip(vae.names, vae.noise) if noise.is_correlated]
    if correlated:
        notes += (f"the noise of {listed(correlated)} correlates between features: that made "
                  "people whom training did not see more probable",)
    thin = thin_levels(encoder.describe(controls.subjects), encoder.describe(
        groups.get("calibration", controls).subjects))
    if thin:
        notes += (f"{listed(thin, 8)}: too few reference people to know the offset; z and p of "
                  "people there are too extreme",)
    if "cross_fitted" in groups:
        notes += ("cross-fitted: every reference person was scored by a model that did not see "
                  "them; new people are scored by one fitted on all",)
    reference = Reference(
        kind="", fusion=repr(model.fusion), n_latent=vae.n_dimensions,
        seed=model.seed, n_subjects={role: len(group) for role, group in groups.items()},
        covariates=encoder.describe(controls.subjects),
        modalities={m.name: {"unit": m.unit, "n_features": m.n_features,
                             "n_present": int(present[m.name].sum()),
                             **({"space": m.space.to_dict()} if m.space else {})}
                    for m in controls.modalities},
        history=cast(list[dict[str, float]], history.table.to_dict("records")),
        best_epoch=history.best_epoch, versions=versions(), notes=notes,
        model=repr(vae.recipe), choices=_choices(model, vae),
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    return {kind.name: replace(reference, kind=kind.name, meaning=kind.meaning, use=kind.use,
                               notes=(*notes, *rank_notes(kind.name, laws, names)))
            for kind in model.kinds}


def _choices(model: NormativeModel, vae: Vae) -> dict[str, str]:
    """Beside fusion and networks."""
    alignment = vae.recipe.alignment
    return {"inference": repr(model.inference),
            **({} if alignment is None else {"alignment": repr(alignment),
                                             "alignment_weight": f"{alignment.weight:g}"})}


def rank_notes(kind: str, laws: Mapping[Pattern, PatternLaw], names: list[str]) -> tuple[str, ...]:
    """For which people no p-value by rank of this kind can be below .05, if there are any."""
    coarse = []
    for pattern, law in laws.items():
        smallest = law.features[kind].smallest
        if smallest > LEVEL:  # NaN, without ranks, is not
            there = " + ".join(name for name, has in zip(names, pattern) if has)
            coarse.append(f"{there} (never below {smallest:.2g})")
    return (f"p-values by rank (deviations.conformal) cannot fall below {LEVEL:g} in people "
            f"measured with {listed(coarse)}: fewer than {round(2 / LEVEL) - 1} calibration "
            "people were measured alike. Read z and p there",) if coarse else ()


def thin_levels(training: Mapping[str, Any], calibration: Mapping[str, Any]) -> list[str]:
    """Levels (sites, say) with fewer than 10 reference people or nobody to calibrate with."""
    return [f"{name} {level} (n = {n})" for name, found in training.items()
            for level, n in found.get("levels", {}).items()
            if n < THIN or not calibration[name].get("levels", {}).get(level, 0)]

"""A fitted model on disk: JSON for what is said, safetensors for numbers; never a pickle.

``model.json`` holds the recipe, covariate encoding, provenance, and hashes that recognise the
people of the fit (not their values). ``weights.safetensors`` holds networks, covariate effects
and calibration. Both are checked against SHA-256 sums when read.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .baseline import LinearBaseline
from .calibration import CrossFit, HeldOut, Prior, ResidualLaw, TailShape
from .choices import choice_from_dict, choice_to_dict
from .covariates import CovariateEncoder
from .deviations import Reference
from .errors import ModelFileError
from .fusion import Aggregator
from .modality import Modality
from .fitted import Fitted
from .latent_law import GRID, DistanceShape, LatentLaw
from .pattern_law import FeatureLaw, Frame, PatternLaw
from .preparation import Preparation
from .regression import EffectColumns, Effects, PooledRegression
from .signed import read_signed, write_signed
from .stages import rebuilt
from .training import TrainingPlan

if TYPE_CHECKING:
    from .normative import NormativeModel

FORMAT = 3
JSON_NAME = "model.json"


def write_model(model: NormativeModel, folder: Path, *, overwrite: bool) -> Path:
    """Write a fitted model to a new folder, all or nothing."""
    fitted = model.fitted
    preparation = fitted.preparation
    content = {
        "format": FORMAT, "fusion": choice_to_dict(model.fusion),
        "model": choice_to_dict(fitted.vae.recipe), "inference": choice_to_dict(model.inference),
        "plan": asdict(model.plan), "seed": model.seed,
        "calibration": _calibration_to_dict(model.calibration),
        "modalities": [m.to_dict() for m in preparation.modalities],
        **_fit_to_dict(fitted), "turns": [_fit_to_dict(turn) for turn in fitted.turns],
        "patterns": [_pattern_to_dict(p, law) for p, law in fitted.laws.items()],
        "kinds": [choice_to_dict(kind) for kind in model.kinds],
        "references": {kind: r.to_dict() for kind, r in fitted.references.items()}}
    return write_signed(folder, JSON_NAME, content, _tensors(fitted), overwrite=overwrite)


def read_model(folder: Path, fusion: Aggregator | None = None) -> NormativeModel:
    """Read a model; refuses one that is missing, truncated, edited or of another format."""
    from .normative import NormativeModel

    content, tensors = read_signed(folder, JSON_NAME, FORMAT,
                                   "NormativeModel.save or `normfuse fit`")
    if fusion is not None and choice_to_dict(fusion) != content.get("fusion"):
        raise ModelFileError(f"{folder} was fitted with {content.get('fusion')}; it cannot be "
                             f"read as {fusion!r}")
    try:
        model = NormativeModel(
            fusion or choice_from_dict(content["fusion"], folder),
            model=choice_from_dict(content["model"], folder),
            plan=TrainingPlan(**content["plan"]), calibration=_calibration(content["calibration"]),
            inference=choice_from_dict(content["inference"], folder), seed=content["seed"],
            kinds=tuple(choice_from_dict(k, folder) for k in content["kinds"]))
        laws = {tuple(bool(v) for v in p["present"]): _law(p, tensors, k)
                for k, p in enumerate(content["patterns"])}
        references = {kind: Reference.from_dict(r) for kind, r in content["references"].items()}
        fitted = _fit(model, content, tensors, laws, references)
        turns = tuple(_turn(model, {**content, **turn}, _below(f"turn.{k}.", tensors), fitted)
                      for k, turn in enumerate(content["turns"]))
        model._fitted = replace(fitted, turns=turns)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError
            ) as problem:
        raise ModelFileError(f"{folder} does not hold a complete normfuse model: {problem!r}; "
                             "save it again") from problem
    return model


def _fit_to_dict(fitted: Fitted) -> dict[str, Any]:
    """What is not in tensors of one fit, laws and references apart."""
    preparation = fitted.preparation
    return {"encoder": preparation.encoder.to_dict(),
            "penalties": {name: b.penalty for name, b in preparation.rivals.items()},
            "sites": {name: r.columns.sites for name, r in preparation.regressions.items()},
            "known": dict(fitted.known)}


def _fit(model: NormativeModel, content: Mapping[str, Any], tensors: Mapping[str, torch.Tensor],
         laws: Mapping[Any, PatternLaw], references: Mapping[str, Reference]) -> Fitted:
    preparation = _preparation(content, tensors)
    vae = rebuilt(model.model, model.fusion, preparation.modalities, preparation.n_design,
                  _below("vae.", tensors))
    return Fitted(preparation, vae, laws, content["known"], references)


def _turn(model: NormativeModel, content: Mapping[str, Any],
          tensors: Mapping[str, torch.Tensor], whole: Fitted) -> Fitted:
    laws = {p: replace(law, frame=_frame(_below(f"{k}.", tensors)))
            for k, (p, law) in enumerate(whole.laws.items())}
    turn = _fit(model, content, tensors, laws, whole.references)
    return replace(turn, preparation=replace(turn.preparation, pooled_sites=True))


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _tensors(fitted: Fitted) -> dict[str, torch.Tensor]:
    found = _fit_tensors(fitted)
    for k, law in enumerate(fitted.laws.values()):
        found |= {f"law.{k}.{name}": value for name, value in _law_tensors(law).items()}
    for k, turn in enumerate(fitted.turns):
        found |= {f"turn.{k}.{name}": value for name, value in _fit_tensors(turn).items()}
    return found


def _fit_tensors(fitted: Fitted) -> dict[str, torch.Tensor]:
    found = {f"vae.{k}": v.contiguous() for k, v in fitted.vae.state_dict().items()}
    arrays: dict[str, Any] = {}
    for name, regression in fitted.preparation.regressions.items():
        found |= {f"effects.{name}.{field}": getattr(regression.effects, field).contiguous()
                  for field in _EFFECTS}
        arrays[f"effects.{name}.center"] = regression.center
        arrays[f"effects.{name}.unit"] = regression.unit
        rival = fitted.preparation.rivals[name]
        arrays |= {f"rival.{name}.coefficients": rival.coefficients,
                   f"rival.{name}.scale": rival.scale,
                   f"rival.{name}.inverse": rival.inverse}
    for k, law in enumerate(fitted.laws.values()):
        arrays |= {f"{k}.frame.parts": law.frame.parts, f"{k}.frame.root": law.frame.root}
    return {**found, **_as_tensors(arrays)}


def _law_tensors(law: PatternLaw) -> dict[str, torch.Tensor]:
    arrays: dict[str, Any] = {
        "latent.n": np.array([law.latent.n]), "latent.mean": law.latent.mean,
        "latent.covariance": law.latent.covariance, "latent.shapes": _stacked(law.distances),
        "latent.ranked": law.ranked, "parts": law.parts}
    for kind, features in law.features.items():
        for field in _MOMENTS:
            arrays[f"{kind}.{field}"] = getattr(features.residual, field)
        for field in _PRIOR:
            arrays[f"{kind}.prior.{field}"] = getattr(features.residual.prior, field)
        if features.ranked is not None:
            arrays[f"{kind}.ranked"] = features.ranked
    return _as_tensors(arrays)


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {k: torch.tensor(np.ascontiguousarray(v)) for k, v in arrays.items()}


def _stacked(shapes: Sequence[DistanceShape]) -> np.ndarray:
    """Grids and weights of all shapes; Hotelling's law, which has none, as zeros."""
    nothing = np.zeros((2, *GRID))
    return np.stack([nothing if s.log_c is None or s.weights is None
                     else np.stack([s.log_c, s.weights]) for s in shapes])


_MOMENTS, _PRIOR = ("n", "mean", "sd"), ("count", "mean", "freedom", "variance")
_EFFECTS = ("mean", "covariance", "pooled", "spread")


def _preparation(content: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Preparation:
    modalities = tuple(Modality.from_dict(m) for m in content["modalities"])
    encoder, regressions = CovariateEncoder(**content["encoder"]), {}
    for m in modalities:
        columns = EffectColumns(encoder, {name: tuple(sites) for name, sites
                                          in content["sites"][m.name].items()})
        effects = Effects(columns.groups, *(tensors[f"effects.{m.name}.{field}"]
                                            for field in _EFFECTS))
        regressions[m.name] = PooledRegression(columns,
                                               tensors[f"effects.{m.name}.center"].numpy(),
                                               tensors[f"effects.{m.name}.unit"].numpy(), effects)
    rivals = {m.name: LinearBaseline(tensors[f"rival.{m.name}.coefficients"].numpy(),
                                     tensors[f"rival.{m.name}.scale"].numpy(),
                                     content["penalties"][m.name],
                                     tensors[f"rival.{m.name}.inverse"].numpy())
              for m in modalities}
    return Preparation(modalities, encoder, regressions, rivals)


def _pattern_to_dict(pattern: tuple[bool, ...], law: PatternLaw) -> dict[str, Any]:
    tails = {kind: {name: [list(asdict(s).values()) for s in shapes]
                    for name, shapes in features.tails.items()}
             for kind, features in law.features.items()}
    return {"present": list(pattern), "tails": tails}


def _law(spec: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], k: int) -> PatternLaw:
    arrays = {name: t.numpy() for name, t in _below(f"law.{k}.", tensors).items()}
    features = {}
    for kind, shapes in spec["tails"].items():
        prior = Prior(*(arrays[f"{kind}.prior.{field}"] for field in _PRIOR))
        n, mean, sd = (arrays[f"{kind}.{field}"] for field in _MOMENTS)
        residual = ResidualLaw(n, mean, sd, prior)
        features[kind] = FeatureLaw(residual, {name: [TailShape(*v) for v in found]
                                               for name, found in shapes.items()},
                                    arrays.get(f"{kind}.ranked"))
    latent = LatentLaw(int(arrays["latent.n"][0]), arrays["latent.mean"],
                       arrays["latent.covariance"])
    distances = [DistanceShape(*grid) if grid.any() else DistanceShape()
                 for grid in arrays["latent.shapes"]]
    return PatternLaw(features, latent, distances, arrays["latent.ranked"], arrays["parts"],
                      _frame(_below(f"{k}.", tensors)))


def _frame(tensors: Mapping[str, torch.Tensor]) -> Frame:
    return Frame(tensors["frame.parts"].numpy(), tensors["frame.root"].numpy())


def _calibration_to_dict(choice: HeldOut | CrossFit | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {"class": type(choice).__name__, "options": asdict(choice)}


def _calibration(spec: Mapping[str, Any] | None) -> HeldOut | CrossFit | None:
    if spec is None:
        return None
    known: dict[str, type[HeldOut] | type[CrossFit]] = {"HeldOut": HeldOut, "CrossFit": CrossFit}
    return known[spec["class"]](**spec["options"])

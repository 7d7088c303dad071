"""From healthy people to a fitted model: split, train, refit, calibrate."""
from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from .calibration import SPLIT, CrossFit, HeldOut, choose_calibration
from .cohort import Cohort
from .deviations import OUT_OF_FOLD, PRETRAINING
from .errors import CalibrationError, CohortError, listed
from .fingerprints import calibration_folds, roles_to_hashes
from .fitted import Fitted, fold_role
from .models import Batch, Recipe, Vae
from .preparation import Preparation
from .pretrained import PretrainedEncoders
from .provenance import describe_fit
from .scoring import Witness, calibrate, patterns
from .stages import Stages
from .training import History
from .value_checks import refuse_empty_features

if TYPE_CHECKING:
    from .normative import NormativeModel


def learn(model: NormativeModel, controls: Cohort, keep: Path | None = None
          ) -> tuple[Fitted, Cohort]:
    """Fit and calibrate as the model's options say; also who it was calibrated on.

    ``keep`` is a folder in which trainings write how far they are.
    """
    recipe = model.model.for_people(len(controls))
    choice = model.calibration or choose_calibration(len(controls))
    if isinstance(choice, CrossFit):
        return _in_turns(model, recipe, choice, controls, keep)
    return _held_out(model, recipe, choice, controls, keep)


@dataclass(frozen=True, eq=False)
class _Trained:
    """Before calibration."""

    preparation: Preparation
    vae: Vae
    history: History
    everybody: Batch
    roles: pd.Series
    encoders: PretrainedEncoders | None

    def part(self, *roles: str) -> Batch:
        """The people of these roles; made when asked for, as voxels take room."""
        rows = [np.flatnonzero(self.roles == role) for role in roles]
        return self.everybody.take(torch.as_tensor(np.concatenate(rows)))

    @property
    def learners(self) -> Batch:
        return self.part("training", "early_stop")


def _trained(model: NormativeModel, recipe: Recipe, people: Cohort, roles: pd.Series, seed: int,
             keep: Path | None = None) -> _Trained:
    """Covariate model of everybody, then networks of those in training."""
    for m in people.modalities:
        trainees = people.ids[(roles == "training").to_numpy()]
        refuse_empty_features(people.features[m.name].loc[trainees], m.name,
                              f"the {len(trainees)} people used for training",
                              voxels=m.space is not None)
    preparation = Preparation.fit(people)
    batch = preparation.batch(people, np.ones(len(people), bool))
    parts = {role: batch.take(torch.as_tensor(np.flatnonzero(roles == role)))
             for role in ("training", "early_stop")}
    encoders = _encoders(model, recipe, people.select(people.ids[(roles == "training").to_numpy()]
                                                      ), keep)
    vae, history = Stages(people.modalities, parts["training"], parts["early_stop"], model.plan,
                          model.inference, seed, keep, encoders).learn(recipe, model.fusion)
    return _Trained(preparation, vae, history, batch, roles, encoders)


def _encoders(model: NormativeModel, recipe: Recipe, trainees: Cohort, keep: Path | None
              ) -> PretrainedEncoders | None:
    """Given ones, or new ones of those who train and nobody else."""
    if model.encoders is None or isinstance(model.encoders, PretrainedEncoders):
        return model.encoders
    return model.encoders.with_networks(recipe.voxels or recipe).fit(
        trainees, keep=None if keep is None else keep.with_name(f"{keep.name}_encoders"))


def _refuse_seen(model: NormativeModel, judges: Cohort) -> None:
    """Who taught the encoders, even without a label, is no held-out person."""
    if not isinstance(model.encoders, PretrainedEncoders):
        return
    seen = model.encoders.has_seen(judges)
    if seen.any():
        raise CalibrationError(
            f"{int(seen.sum())} of the {len(judges)} people to calibrate with were seen when the "
            f"encoders were pre-trained ({listed(judges.ids[seen.to_numpy()])}): their z would be "
            "too small. Give encoders=Pretraining(…), which makes them from the people who train, "
            "or pre-train on people who are no reference people")


def _file(keep: Path | None, name: str) -> Path | None:
    return None if keep is None else keep / name


def _held_out(model: NormativeModel, recipe: Recipe, choice: HeldOut, controls: Cohort,
              keep: Path | None) -> tuple[Fitted, Cohort]:
    """One model, calibrated on people it did not train on."""
    roles = choice.roles(controls.subjects, controls.covariates, n_latent=recipe.n_dimensions,
                         seed=model.seed)
    groups = {role: controls.select(controls.ids[(roles == role).to_numpy()]) for role in SPLIT}
    _refuse_seen(model, groups["calibration"])
    trained = _trained(model, recipe, controls, roles, model.seed, _file(keep, "training"))
    witness = Witness(trained.vae, trained.part("calibration"))
    laws = calibrate([witness], {p: witness.frame(torch.tensor(p)) for p in _wanted(controls)},
                     model.inference, model.kinds, [calibration_folds(groups["calibration"].ids)],
                     trained.preparation.slices,
                     (trained.everybody, calibration_folds(controls.ids)))
    references = describe_fit(model, trained.vae, controls, groups, trained.history, laws,
                              trained.encoders)
    known = roles_to_hashes(trained.preparation.aligned(controls), roles)
    fitted = Fitted(trained.preparation, trained.vae, laws, _with_seen(trained.encoders, known),
                    references)
    return fitted, fitted.judgeable(groups["calibration"])


def _in_turns(model: NormativeModel, recipe: Recipe, choice: CrossFit, controls: Cohort,
              keep: Path | None) -> tuple[Fitted, Cohort]:
    """A model for every fold of people, fitted on the others, and one fitted on everybody."""
    choice.refuse_too_few(len(controls), recipe.n_dimensions)
    _refuse_seen(model, controls)
    fold = choice.deal(controls.subjects, controls.covariates, seed=model.seed)
    _refuse_lonely(controls, fold)
    found, out = [], []
    for k in range(choice.folds):
        others = controls.select(controls.ids[(fold != k).to_numpy()])
        roles = choice.learners(others.subjects, seed=model.seed + k)
        found.append(_trained(model, recipe, others, roles, model.seed + k,
                              _file(keep, f"fold_{k}")))
        out.append(controls.select(controls.ids[(fold == k).to_numpy()]))
    # a site all of whose people are in one fold is scored as any site by the model without them
    turns = [replace(t, preparation=replace(t.preparation, pooled_sites=True)) for t in found]
    roles = choice.learners(controls.subjects, seed=model.seed)
    whole = _trained(model, recipe, controls, roles, model.seed, _file(keep, "whole"))
    with warnings.catch_warnings():  # the oldest of a fold is older than all the others
        warnings.filterwarnings("ignore", ".* lies outside the training people's")
        witnesses = [Witness(t.vae, t.preparation.batch(t.preparation.aligned(people)), t.learners)
                     for t, people in zip(turns, out)]
    final = Witness(whole.vae, whole.learners, whole.learners)
    wanted = [torch.tensor(p) for p in _wanted(controls)]
    laws = calibrate(witnesses, {tuple(p.tolist()): final.frame(p) for p in wanted},
                     model.inference, model.kinds, [calibration_folds(p.ids) for p in out],
                     whole.preparation.slices)
    references = describe_fit(model, whole.vae, controls, {"cross_fitted": controls},
                              whole.history, laws, whole.encoders)
    known = roles_to_hashes(whole.preparation.aligned(controls), fold.map(fold_role))
    fitted = Fitted(whole.preparation, whole.vae, laws, _with_seen(whole.encoders, known),
                    references)
    by_fold = tuple(_turn(fitted, t, w, people) for t, w, people in zip(turns, witnesses, out))
    return replace(fitted, turns=by_fold), fitted.judgeable(controls)


def _with_seen(encoders: PretrainedEncoders | None, known: dict[str, str]) -> dict[str, str]:
    """Who taught the encoders was seen, but taught nothing else: no law is judged without them.
    The fit's own people are what they were."""
    return known if encoders is None else {**dict.fromkeys(encoders.known, PRETRAINING), **known}


def _refuse_lonely(controls: Cohort, fold: pd.Series) -> None:
    """A category all of whose people are in one fold is unknown to the model that judges them."""
    for name, kind in controls.covariates.items():
        if kind != "categorical":
            continue
        level = controls.subjects[name].astype(str)
        folds_of = fold.groupby(level).nunique()
        for lonely in folds_of.index[folds_of < 2]:
            who = level.index[level == lonely]
            raise CohortError(f"{name} {lonely!r} occurs in {len(who)} reference people only "
                              f"({listed(who)}): too few to learn its offset from others than "
                              "those it is judged for. Recode it if it is another spelling, or "
                              "leave these people out")


def _turn(fitted: Fitted, trained: _Trained, witness: Witness, people: Cohort) -> Fitted:
    """A fold's model with the laws of all, to score the people it did not see."""
    laws = {p: replace(law, frame=witness.frame(torch.tensor(p)))
            for p, law in fitted.laws.items()}
    roles = pd.Series(OUT_OF_FOLD, index=people.ids)
    return replace(fitted, preparation=trained.preparation, vae=trained.vae, laws=laws,
                   known=roles_to_hashes(trained.preparation.aligned(people), roles))


def _wanted(controls: Cohort) -> list[tuple[bool, ...]]:
    return patterns(torch.as_tensor(controls.present.to_numpy().T.copy()))

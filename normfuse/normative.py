"""The model a researcher owns: learns what healthy brains look like, and how far others are."""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .calibration import HeldOut
from .calibration_check import check_calibration
from .cohort import Cohort
from .deviations import ROLE, SEEN_ROLES, Deviations, Reference
from .errors import CalibrationError, CohortError, NotFittedError, TrainingError, listed
from .evidence import log_likelihood
from .fingerprints import calibration_folds, known_roles, person_of, roles_to_hashes
from .fusion import Aggregator, WassersteinBarycenter
from .fusion.choice import of_type
from .inference import Inference, Refined
from .models import OneLatent, Recipe, Vae
from .refit import refit
from .pattern_law import PatternLaw
from .preparation import Preparation
from .provenance import describe_fit
from .scoring import Pattern, by_pattern, calibrate, raw_scores, refuse_uncalibrated
from .training import History, TrainingPlan, fit
from .value_checks import (refuse_empty_features, warn_of_reference_values,
                           warn_of_scored_values)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Everything a fit leaves behind; what ``save`` writes."""

    preparation: Preparation
    vae: Vae
    laws: Mapping[Pattern, PatternLaw]
    known: Mapping[str, str]
    reference: Reference


class NormativeModel:
    """A multimodal normative model: what brains look like at a given age, sex and site.

    ``fit`` splits the reference by subject into people to train on, people who say when to stop,
    and people to calibrate with. ``deviations`` gives, for anybody measured with any subset of the
    modalities, a z per feature and a latent distance with its p-value, both calibrated on the last
    group, measured alike.

    Parameters
    ----------
    fusion : Aggregator
        How the modalities' posteriors become one; see :mod:`normfuse.fusion`.
    n_latent : int, optional
        Dimensions of the latent space; by default one per ten reference people, 16 at most.
    model : Recipe, optional
        Networks and latent levels: :class:`~normfuse.models.OneLatent` (default) or
        :class:`~normfuse.models.Ladder`.
    plan : TrainingPlan, optional
    calibration : HeldOut, optional
        How the reference is split.
    inference : Inference, optional
        How a person's posterior is found at scoring time: :class:`~normfuse.inference.Refined`
        (default) or :class:`~normfuse.inference.Amortised`.
    seed : int
        Of everything random.

    Examples
    --------
    >>> from normfuse.testing import tiny_cohort
    >>> controls, patients = tiny_cohort(120, seed=1).split("diagnosis == 'CN'")
    >>> model = NormativeModel(n_latent=2, plan=TrainingPlan(max_epochs=5, warmup=2))
    >>> deviations = model.fit(controls).deviations(patients)
    >>> deviations.z.shape, len(deviations.controls)
    ((15, 15), 32)
    """

    def __init__(self, fusion: Aggregator | None = None, *, n_latent: int | None = None,
                 model: Recipe | None = None, plan: TrainingPlan | None = None,
                 calibration: HeldOut | None = None, inference: Inference | None = None,
                 seed: int = 0) -> None:
        self.fusion = WassersteinBarycenter() if fusion is None else fusion
        if not isinstance(self.fusion, Aggregator):
            raise TypeError("fusion is an object such as WassersteinBarycenter(); "
                            f"got {self.fusion!r}")
        model = OneLatent() if model is None else model
        if not isinstance(model, Recipe):
            raise TypeError(f"model is a recipe such as Ladder(levels=(32, 10)); got {model!r}")
        model.check(self.fusion)
        self.model = model if n_latent is None else model.resized(n_latent)
        self.plan = plan or TrainingPlan()
        self.calibration = calibration or HeldOut()
        self.inference = Refined() if inference is None else of_type(inference, Inference)
        self.seed = seed
        self._fitted: Fitted | None = None
        self._controls: Deviations | None = None

    @property
    def fitted(self) -> Fitted:
        """The fit; refuses if there is none yet."""
        if self._fitted is None:
            raise NotFittedError("this model has not been fitted; call fit(controls) first, or "
                                 "NormativeModel.load(folder)")
        return self._fitted

    @property
    def history(self) -> pd.DataFrame:
        """Training and validation loss per epoch."""
        return pd.DataFrame(self.fitted.reference.history)

    def fit(self, controls: Cohort) -> NormativeModel:
        """Learn from healthy people.

        Parameters
        ----------
        controls : Cohort
            Reference people only; if the cohort names a reference query, all must answer it.

        Raises
        ------
        CohortError
            Somebody is not a reference subject, or a feature never varies.
        CalibrationError
            Too few people to calibrate with.
        TrainingError
            The loss became nan or infinite.
        """
        _only_reference(controls)
        _one_visit_each(controls)
        for m in controls.modalities:
            refuse_empty_features(controls.features[m.name], m.name)
        warn_of_reference_values(controls)
        recipe = self.model.for_people(len(controls))
        roles = self.calibration.roles(controls.subjects, controls.covariates,
                                       n_latent=recipe.n_dimensions, seed=self.seed)
        groups = {role: controls.select(controls.ids[(roles == role).to_numpy()])
                  for role in ("training", "early_stop", "calibration")}
        for m in controls.modalities:
            refuse_empty_features(groups["training"].features[m.name], m.name,
                                  f"the {len(groups['training'])} people used for training")
        preparation = Preparation.fit(groups["training"])
        with warnings.catch_warnings():  # a control just beyond the training ages is no news
            warnings.simplefilter("ignore", UserWarning)
            vae, history = self._train(recipe, preparation, groups["training"],
                                       groups["early_stop"])
            laws = calibrate(vae, self.inference,
                             preparation.batch(groups["calibration"], torch.float64),
                             calibration_folds(groups["calibration"].ids),
                             torch.as_tensor(controls.present.to_numpy().T.copy()),
                             preparation.slices)
            reference = describe_fit(self, vae, controls, groups, history, laws)
            known = roles_to_hashes(preparation.aligned(controls), roles)
            fitted = Fitted(preparation, vae, laws, known, reference)
            held_out = self._score(fitted, _judgeable(groups["calibration"], laws))
        calibration, quantiles = check_calibration(held_out)
        reference = replace(reference, calibration=calibration, quantiles=quantiles)
        self._fitted = replace(fitted, reference=reference)
        self._controls = replace(held_out, reference=reference)
        return self

    def _train(self, recipe: Recipe, preparation: Preparation, training: Cohort,
               early_stop: Cohort) -> tuple[Vae, History]:
        batch = preparation.batch(training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            vae = recipe.build({m.name: m.n_features for m in preparation.modalities},
                               batch.design.shape[1], self.fusion)
        history = fit(vae, batch, preparation.batch(early_stop), self.plan, seed=self.seed)
        if not history.best_epoch:
            raise TrainingError(f"{len(history.table)} epochs ended within the KL warm-up of "
                                f"{self.plan.warmup}; raise max_epochs or lower warmup")
        vae.double().requires_grad_(False)
        refit(vae, preparation.batch(training, torch.float64),
              preparation.batch(early_stop, torch.float64), self.inference)
        return vae, history

    def deviations(self, cohort: Cohort, *, include_seen: bool = False,
                   skip_uncalibrated: bool = False) -> Deviations:
        """How far each person is from what is expected of them.

        People the model was trained on are left out, with a warning: their z would be too small
        (score them with :func:`normfuse.cross_fit`). Its calibration people are scored each
        against the others. Everybody's result depends on themselves alone.

        Parameters
        ----------
        cohort : Cohort
            Any people with the model's covariates and features; columns in any order.
        include_seen : bool
            Keep the people the model was trained on, marked in ``subjects["normfuse_role"]``.

        skip_uncalibrated : bool
            Leave out, with a warning, people measured with a combination of modalities that too
            few calibration people were measured with, instead of refusing.

        Raises
        ------
        CohortError
            Features, covariates or sites that the model does not know.
        CalibrationError
            A combination of modalities that too few calibration people were measured with.
        """
        if skip_uncalibrated:
            cohort = self._calibrated(cohort)
        scored = self._score(self.fitted, cohort, include_seen)
        return replace(scored, controls=self._controls)

    def _calibrated(self, cohort: Cohort) -> Cohort:
        kept = _judgeable(self.fitted.preparation.aligned(cohort), self.fitted.laws)
        if len(kept) < len(cohort):
            out = cohort.ids.difference(kept.ids, sort=False)
            warnings.warn(f"{len(out)} of {len(cohort)} subjects ({listed(out)}) are left out: "
                          "too few calibration people were measured with the same modalities",
                          stacklevel=3)
        return kept

    def _score(self, f: Fitted, cohort: Cohort, include_seen: bool = True) -> Deviations:
        cohort = f.preparation.aligned(cohort)
        roles = known_roles(cohort, f.known)
        seen = roles.isin(SEEN_ROLES)
        if seen.any() and not include_seen:
            warnings.warn(f"{int(seen.sum())} of {len(cohort)} subjects were used to train this "
                          "model and are left out: their z would be too small. Score them with "
                          "normfuse.cross_fit, or keep them with include_seen=True "
                          "(--include-seen)", stacklevel=3)
            cohort, roles = cohort.select(cohort.ids[~seen.to_numpy()]), roles[~seen]
        if not len(cohort):
            raise CohortError("nobody is left to score")
        batch = f.preparation.batch(cohort, torch.float64)
        refuse_uncalibrated(batch, dict(f.laws), list(cohort.ids), list(cohort.features))
        warn_of_scored_values(list(cohort.features), cohort.ids, [x.numpy() for x in batch.x],
                              [m.features for m in f.preparation.modalities])
        z = np.full((len(cohort), len(f.preparation.columns)), np.nan)
        expected, latent = z.copy(), np.empty((len(cohort), f.vae.n_dimensions))
        distance = np.empty((len(cohort), 3))
        shares = np.empty((len(cohort.modalities), *latent.shape))
        folds = np.where(roles == "calibration", calibration_folds(cohort.ids), -1)
        for pattern, rows in by_pattern(batch):
            part, law, at = batch.take(rows), f.laws[pattern], rows.numpy()
            raw = raw_scores(f.vae, part, self.inference)
            z[at] = law.z(raw.residual, folds[at], f.preparation.slices)
            latent[at] = law.latent_z(raw.latent, folds[at])
            shares[:, at] = law.attribution(raw.latent, raw.parts, latent[at])
            distance[at] = law.distance(raw.latent, folds[at])
            expected[at] = f.preparation.in_units(raw.expected, part.design)
        return self._as_tables(f, cohort, roles, z, expected, latent, shares, distance)

    @staticmethod
    def _as_tables(f: Fitted, cohort: Cohort, roles: pd.Series, z: np.ndarray,
                   expected: np.ndarray, latent: np.ndarray, shares: np.ndarray,
                   distance: np.ndarray) -> Deviations:
        columns, ids = f.preparation.columns, cohort.ids
        observed = pd.DataFrame(np.hstack([b.to_numpy() for b in cohort.features.values()]),
                                ids, columns)
        law = pd.DataFrame(distance, ids, ["distance", "p", "n_calibration"])
        dimensions = [f"z{k + 1}" for k in range(latent.shape[1])]
        told = np.where(cohort.present.to_numpy().T[..., None], shares, np.nan)
        attribution = pd.DataFrame(np.hstack(list(told)), ids, pd.MultiIndex.from_product(
            [list(cohort.features), dimensions], names=["modality", "latent"]))
        return Deviations(
            z=pd.DataFrame(z, ids, columns), observed=observed,
            expected=pd.DataFrame(expected, ids, columns).where(observed.notna()),
            latent=pd.DataFrame(latent, ids, dimensions), attribution=attribution,
            distance=law.astype({"n_calibration": int}),
            subjects=cohort.subjects.assign(**{ROLE: roles}), reference=f.reference)

    def predict(self, cohort: Cohort) -> pd.DataFrame:
        """Expected features of every modality, measured or not, in the modality's unit.

        E[mu_m(z)] under q(z | what was measured, covariates): for a modality that was not
        measured, its prediction from the others.

        Returns
        -------
        DataFrame, shape (n_subjects, n_features), columns (modality, feature)
        """
        f = self.fitted
        cohort = f.preparation.aligned(cohort)
        batch = f.preparation.batch(cohort, torch.float64)
        raw = raw_scores(f.vae, batch, self.inference)
        expected = f.preparation.in_units(raw.expected, batch.design)
        return pd.DataFrame(expected, cohort.ids, f.preparation.columns)

    def log_likelihood(self, cohort: Cohort, *, draws: int = 100) -> pd.DataFrame:
        """How probable each person's measurements are: log p(x_S | covariates).

        By importance sampling from the posterior (:func:`normfuse.evidence.log_likelihood`): a
        lower bound on average, nearer the more draws. Of the densities of features in the
        modalities' units, so that models with different baselines can be compared. Compare models
        on people that none of them was trained on.

        Returns
        -------
        DataFrame, columns ``log_likelihood`` (nats), ``n_measured`` and ``per_feature``
        """
        f = self.fitted
        cohort = f.preparation.aligned(cohort)
        seen = known_roles(cohort, f.known).isin(SEEN_ROLES)
        if seen.any():
            warnings.warn(f"{int(seen.sum())} of {len(cohort)} subjects were used to train this "
                          "model: they are too probable under it", stacklevel=2)
        batch = f.preparation.batch(cohort, torch.float64)
        scales = np.hstack([f.preparation.baselines[m.name].scale for m in cohort.modalities])
        measured = np.hstack([b.notna().to_numpy() for b in cohort.features.values()])
        found = log_likelihood(f.vae, batch, self.inference, draws, seed=self.seed).numpy() \
            - measured @ np.log(scales)
        n = measured.sum(1)
        return pd.DataFrame({"log_likelihood": found, "n_measured": n,
                             "per_feature": found / np.where(n, n, 1)}, index=cohort.ids)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model to a new folder: ``model.json`` and ``weights.safetensors``."""
        from .model_file import write_model

        return write_model(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, *, fusion: Aggregator | None = None) -> NormativeModel:
        """Read what :meth:`save` wrote; ``fusion`` only for an aggregator of your own."""
        from .model_file import read_model

        return read_model(Path(folder), fusion)

    def __repr__(self) -> str:
        if self._fitted is None:
            return f"<NormativeModel {self.fusion!r}, {self.model!r}, not fitted>"
        people = sum(self._fitted.reference.n_subjects.values())
        return (f"<NormativeModel {self.fusion!r}, {self._fitted.vae.recipe!r}, "
                f"fitted on {people} people>")


def _judgeable(people: Cohort, laws: Mapping[Pattern, PatternLaw]) -> Cohort:
    """Those whose set of modalities enough calibration people were measured with."""
    if not laws:
        raise CalibrationError("no set of modalities was measured in enough calibration people; "
                               "bring more healthy people, or fewer latent dimensions")
    measured = people.present.to_numpy().tolist()
    return people.select([subject for subject, row in zip(people.ids, measured)
                          if tuple(row) in laws])


def _one_visit_each(controls: Cohort) -> None:
    people = pd.Series([person_of(i) for i in controls.ids], index=controls.ids)
    again = people[people.duplicated()]
    if len(again):
        raise CohortError(f"{again.nunique()} reference people have more than one visit "
                          f"({listed(again.unique())}): visits of one person in training and in "
                          "calibration would make z too small. Keep one visit a person to fit; "
                          "any number can be scored")


def _only_reference(controls: Cohort) -> None:
    if controls.reference is None:
        return
    healthy = controls.reference_subjects()
    others = controls.ids.difference(healthy.ids)
    if len(others):
        raise CohortError(f"{len(others)} of {len(controls)} subjects ({listed(others)}) do not "
                          f"answer the cohort's reference query {controls.reference!r}; a model "
                          "must not learn from them: fit(cohort.reference_subjects())")

"""What the study compares: our fusions, single and concatenated modalities, linear models."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from linear_models import FactorModel, LinearModel, predict_from_others
from people import People
from probabilistic_cca import ProbabilisticCCA
from scored import Scored
from settings import AMORTISED

import normfuse as nf
from normfuse.calibration import HeldOut
from normfuse.fingerprints import calibration_folds
from normfuse.fusion import (Aggregator, GeneralizedProductOfExperts,
                             GeneralizedWassersteinBarycenter, MixtureOfExperts, ProductOfExperts,
                             SubsetMixture, SubstitutePrior, WassersteinBarycenter)
from normfuse.inference import Amortised, Inference, Refined
from normfuse.models import Ladder, OneLatent
from normfuse.pattern_law import FeatureLaw, Frame, PatternLaw
from normfuse.preparation import Preparation
from normfuse.training import TrainingPlan

DRAWS = 100

Contender = Callable[[People, int, int, TrainingPlan], Scored]


@dataclass(frozen=True)
class Fused:
    """A NormativeModel with one of our fusions."""

    fusion: Aggregator
    ladder: bool = False
    inference: Inference = field(default_factory=Refined)

    def __call__(self, who: People, latent: int, seed: int, plan: TrainingPlan) -> Scored:
        # as many dimensions in all: decoders read every level
        recipe = Ladder(levels=(latent - latent // 3, latent // 3)) if self.ladder \
            else OneLatent(n_latent=latent)
        model = nf.NormativeModel(self.fusion, model=recipe, seed=seed, plan=plan,
                                  inference=self.inference)
        model.fit(who.reference)
        names = list(who.healthy.features)
        expected = model.predict(who.healthy)
        cross = {}
        for name in names if len(names) > 1 else []:
            others = _having(who.healthy, [n for n in names if n != name])
            cross[name] = model.predict(others.without(name))[name]
        found = _deviations(model, who)
        return Scored(model.log_likelihood(who.healthy, draws=DRAWS)["log_likelihood"],
                      found[0], found[1], {n: expected[n] for n in names}, cross)


def _deviations(model: nf.NormativeModel, who: People) -> tuple[pd.DataFrame, pd.Series]:
    """z and p of those healthy people and patients who can be calibrated."""
    parts = [model.deviations(c, kind="reconstruction", skip_uncalibrated=True)
             for c in (who.healthy, who.patients)]
    return pd.concat([d.z for d in parts]), pd.concat([d.distance["p"] for d in parts])


def _having(cohort: nf.Cohort, names: list[str]) -> nf.Cohort:
    """The people measured with at least one of these."""
    return cohort.select(cohort.ids[cohort.present[names].any(axis=1).to_numpy()])


def _only(cohort: nf.Cohort, name: str) -> nf.Cohort:
    """The people measured with this modality, and nothing else of them."""
    some = _having(cohort, [name])
    return nf.Cohort.from_frames(some.subjects, {name: some.features[name]},
                                 covariates=some.covariates)


def unimodal(who: People, latent: int, seed: int, plan: TrainingPlan) -> Scored:
    """One model per modality; the smallest of the distances' p-values times their number."""
    names = list(who.reference.features)
    single = {}
    for name in names:
        cut = People(*(_only(c, name) for c in (who.reference, who.healthy, who.patients)),
                     who.planted)
        single[name] = Fused(WassersteinBarycenter())(cut, latent, seed, plan)
    p = pd.DataFrame({name: s.p for name, s in single.items()})
    total = pd.concat([s.log_likelihood for s in single.values()], axis=1).sum(axis=1)
    return Scored(total.loc[who.healthy.ids], pd.concat([s.z for s in single.values()], axis=1),
                  np.minimum(1, p.min(axis=1) * p.notna().sum(axis=1)),
                  {name: s.joint[name] for name, s in single.items()})


def concatenated(who: People, latent: int, seed: int, plan: TrainingPlan) -> Scored:
    """One encoder for all features side by side, what is missing filled with zeros."""
    columns = {f"{m.name}|{f}": (m.name, f) for m in who.reference.modalities for f in m.features}
    glued = People(*(_glued(c) for c in (who.reference, who.healthy, who.patients)), who.planted)
    model = nf.NormativeModel(WassersteinBarycenter(), seed=seed, plan=plan,
                              model=OneLatent(n_latent=latent)).fit(glued.reference)

    def split(table: pd.DataFrame) -> pd.DataFrame:
        return table["brain"].set_axis(pd.MultiIndex.from_tuples(
            [columns[c] for c in table["brain"].columns]), axis=1)

    z, p = _deviations(model, glued)
    expected, cross = split(model.predict(glued.healthy)), {}
    names = list(who.healthy.features)
    for name in names:
        others = _having(who.healthy, [n for n in names if n != name])
        cross[name] = split(model.predict(_glued(others, hidden=name)))[name]
    return Scored(model.log_likelihood(glued.healthy, draws=DRAWS)["log_likelihood"], split(z), p,
                  {n: expected[n] for n in names}, cross)


def _glued(cohort: nf.Cohort, hidden: str = "") -> nf.Cohort:
    block = pd.concat([b * (np.nan if name == hidden else 1.0)
                       for name, b in cohort.features.items()], axis=1)
    block.columns = [f"{m.name}|{f}" for m in cohort.modalities for f in m.features]
    return nf.Cohort.from_frames(cohort.subjects, {"brain": block}, covariates=cohort.covariates)


@dataclass(frozen=True)
class Linear:
    """A linear model of the same residuals, calibrated by the same laws."""

    kind: type[LinearModel]

    def __call__(self, who: People, latent: int, seed: int, plan: TrainingPlan) -> Scored:
        split = HeldOut().roles(who.reference.subjects, who.reference.covariates,
                                n_latent=latent, seed=seed)
        groups = {role: who.reference.select(who.reference.ids[(split == role).to_numpy()])
                  for role in ("training", "early_stop", "calibration")}
        residuals = Residuals(Preparation.fit(who.reference))
        # nothing stops early here, so those people are learned from too
        learners = [np.vstack(pair) for pair in zip(
            residuals.blocks(groups["training"], of_fit=True),
            residuals.blocks(groups["early_stop"], of_fit=True))]
        model = self.kind.fit(learners, latent)
        new = [residuals.calibrated(model, groups["calibration"], c)
               for c in (who.healthy, who.patients)]
        blocks = residuals.blocks(who.healthy)
        total = pd.Series(model.log_likelihood(blocks)
                          + residuals.preparation.log_slopes(who.healthy), who.healthy.ids)
        return Scored(total, pd.concat([z for z, _ in new]), pd.concat([p for _, p in new]),
                      residuals.in_units(who.healthy, model.predict(blocks)),
                      residuals.in_units(who.healthy, predict_from_others(model, blocks)))


@dataclass(frozen=True, eq=False)
class Residuals:
    """What covariates leave, as normfuse's own models see it, and back."""

    preparation: Preparation

    def blocks(self, cohort: nf.Cohort, *, of_fit: bool = False) -> list[np.ndarray]:
        """One array a modality, NaN where nothing was measured."""
        found = self.preparation.residuals(cohort, np.full(len(cohort), of_fit))
        return [residuals.u for residuals in found.values()]

    def in_units(self, cohort: nf.Cohort, expected: list[np.ndarray]) -> dict[str, pd.DataFrame]:
        """Expectations in the modalities' units."""
        return {m.name: pd.DataFrame(
            self.preparation.regressions[m.name].from_normal(torch.as_tensor(block),
                                                             cohort.subjects),
            cohort.ids, list(m.features))
            for m, block in zip(self.preparation.modalities, expected)}

    def calibrated(self, model: LinearModel, calibration: nf.Cohort, new: nf.Cohort
                   ) -> tuple[pd.DataFrame, pd.Series]:
        """z and p of those people for whose modalities there are calibration people enough."""
        old, blocks = self.blocks(calibration, of_fit=True), self.blocks(new)
        z = np.full((len(new), len(self.preparation.columns)), np.nan)
        p = np.full(len(new), np.nan)
        present = new.present.to_numpy()
        for pattern in np.unique(present, axis=0):
            able = calibration.present.to_numpy()[:, pattern].all(axis=1)
            seen = [np.where(kept, b[able], np.nan) for kept, b in zip(pattern, old)]
            if able.sum() < 2:
                continue
            h = model.latent(seen)[0]
            folds = calibration_folds(calibration.ids)[able]
            linear = FeatureLaw.fit(np.hstack(model.residual_z(seen)), folds,
                                    self.preparation.slices)
            law = PatternLaw.fit({"linear": linear}, h[None], folds, Frame.none(1, h.shape[1]))
            if law.latent.usable:
                rows = np.flatnonzero((present == pattern).all(axis=1))
                mine, nobody = [b[rows] for b in blocks], np.full(len(rows), -1)
                z[rows] = law.features["linear"].z(np.hstack(model.residual_z(mine)), nobody,
                                                   self.preparation.slices)
                p[rows] = law.distance(model.latent(mine)[0], nobody)[:, 1]
        kept = ~np.isnan(p)
        return (pd.DataFrame(z[kept], new.ids[kept], self.preparation.columns),
                pd.Series(p[kept], new.ids[kept]))


FUSIONS: dict[str, Fused] = {
    "poe": Fused(ProductOfExperts()),
    "gpoe": Fused(GeneralizedProductOfExperts()),
    "moe": Fused(MixtureOfExperts()),
    "mopoe": Fused(SubsetMixture(ProductOfExperts())),
    "wb": Fused(WassersteinBarycenter()),
    "mwb": Fused(SubsetMixture(WassersteinBarycenter())),
    "gwb": Fused(GeneralizedWassersteinBarycenter()),
    "wb ladder": Fused(WassersteinBarycenter(), ladder=True),
    "gwb ladder": Fused(GeneralizedWassersteinBarycenter(missing=SubstitutePrior()), ladder=True),
}

CONTENDERS: dict[str, Contender] = {
    **FUSIONS,
    "concatenated": concatenated,
    "unimodal": unimodal,
    "factor analysis": Linear(FactorModel),
    "probabilistic cca": Linear(ProbabilisticCCA),
    **{name + AMORTISED: replace(fused, inference=Amortised()) for name, fused in FUSIONS.items()},
}


def contest(name: str, who: People, latent: int, seed: int, plan: TrainingPlan) -> Scored:
    """One contender on one setting."""
    return CONTENDERS[name](who, latent, seed, replace(plan, progress=False))


def quick(**options: Any) -> TrainingPlan:
    """A plan for checking that everything runs."""
    return TrainingPlan(max_epochs=6, warmup=2, **options)

"""What a fit leaves behind, and scoring people with it."""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from .calibration import SPLIT
from .cohort import Cohort
from .deviations import OUT_OF_FOLD, PRETRAINING, ROLE, SEEN_ROLES, Deviations, Reference
from .errors import CalibrationError, CohortError, listed
from .fingerprints import calibration_folds, known_roles
from .inference import Inference
from .kinds import Kind
from .models import Batch, Vae
from .pattern_law import PatternLaw
from .preparation import Preparation
from .scoring import Pattern, by_pattern, raw_scores, refuse_uncalibrated, residual
from .value_checks import warn_of_scored_values

_STEP = 1e-4
"""Of a central difference, in sd of a feature in the people of the fit."""


def fold_role(k: int) -> str:
    """What a cross-fitted model calls the people of a fold."""
    return f"fold {k}"


@dataclass(frozen=True, eq=False)
class Fitted:
    """Everything a fit leaves behind; what ``save`` writes.

    Attributes
    ----------
    known : dict of str
        Hashes of the people of the fit -> their role.
    references : dict of Reference
        Kind of deviation -> provenance and calibration check; the model's default kind first.
    turns : tuple of Fitted
        If the reference was cross-fitted, the model of each fold, which did not see its people:
        ``known`` says ``fold k`` of them.
    """

    preparation: Preparation
    vae: Vae
    laws: Mapping[Pattern, PatternLaw]
    known: Mapping[str, str]
    references: Mapping[str, Reference]
    turns: tuple[Fitted, ...] = ()

    @property
    def reference(self) -> Reference:
        """That of the default kind."""
        return next(iter(self.references.values()))

    def judgeable(self, cohort: Cohort) -> Cohort:
        """Those whose set of modalities enough calibration people were measured with."""
        if not self.laws:
            raise CalibrationError("no set of modalities was measured in enough calibration "
                                   "people; bring more healthy people, or fewer latent dimensions")
        measured = self.preparation.aligned(cohort).present.to_numpy().tolist()
        return cohort.select([subject for subject, row in zip(cohort.ids, measured)
                              if tuple(row) in self.laws])

    def seen(self, cohort: Cohort) -> pd.Series:
        """Who of an aligned cohort the model was trained on."""
        return known_roles(cohort, self.known).isin(SEEN_ROLES)

    def unseen(self, cohort: Cohort) -> Cohort:
        """Those whom the model was not trained on; warns of the others."""
        seen = self.seen(self.preparation.aligned(cohort))
        if seen.any():
            warnings.warn(f"{int(seen.sum())} of {len(cohort)} subjects were used to train this "
                          "model and are left out: their z would be too small. Score them with "
                          "normfuse.cross_fit, or keep them with include_seen=True "
                          "(--include-seen)", stacklevel=4)
        return cohort.select(cohort.ids[~seen.to_numpy()])

    def of_any_site(self, unseen_site: str | None) -> Fitted:
        """With ``"pooled"``, people of a site that it does not know are those of any site."""
        if unseen_site not in (None, "pooled"):
            raise ValueError(f"unseen_site is 'pooled' or None; got {unseen_site!r}")
        if unseen_site is None:
            return self
        return replace(self, preparation=replace(self.preparation, pooled_sites=True))

    def notes_on_sites(self, subjects: pd.DataFrame) -> tuple[str, ...]:
        """How many are of a site that it does not know, if any are."""
        strangers = self.preparation.of_unknown_sites(subjects)
        return (f"{strangers} people of sites that the model does not know were scored as people "
                "of any site; a whole site may look unusual",) if strangers else ()

    def each(self, cohort: Cohort) -> list[tuple[Fitted, Cohort]]:
        """These people by the model that may score them; of folds, one that did not see them."""
        if not self.turns:
            return [(self, cohort)]
        roles = known_roles(self.preparation.aligned(cohort), self.known)
        folds = {fold_role(k): turn for k, turn in enumerate(self.turns)}
        names = roles.where(roles.isin(list(folds)), "")
        return [(folds.get(name, self), cohort.select(cohort.ids[(names == name).to_numpy()]))
                for name in sorted(names.unique())]

    def batch(self, cohort: Cohort, roles: pd.Series) -> Batch:
        """An aligned cohort as tensors; people of the fit judged by what the others taught."""
        return self.preparation.batch(cohort, self.left_out(roles))

    @staticmethod
    def left_out(roles: pd.Series) -> np.ndarray:
        """Whom the covariate model learned from."""
        return (~roles.isin(["new", OUT_OF_FOLD, PRETRAINING])).to_numpy()

    @staticmethod
    def _folds(roles: pd.Series, kind: Kind | None = None) -> np.ndarray:
        """Of people whom the laws of a kind, or of distances, were learned from; else -1."""
        asked = SPLIT if kind is not None and kind.marginal else ("calibration",)
        inside = roles.isin([*asked, OUT_OF_FOLD])
        return np.where(inside, calibration_folds(roles.index), -1)

    def score(self, cohort: Cohort, kind: Kind, inference: Inference) -> Deviations:
        """Calibrated deviations of these people."""
        if not len(cohort):
            raise CohortError("nobody is left to score")
        parts = []
        for fitted, people in self.each(cohort):
            with warnings.catch_warnings():
                if fitted is not self:  # the oldest of a fold is older than all the others
                    warnings.filterwarnings("ignore", ".* lies outside the training people's")
                parts.append(fitted._scored(people, kind, inference))
        return Deviations.joined(parts, cohort.ids, self.references[kind.name])

    def _scored(self, cohort: Cohort, kind: Kind, inference: Inference) -> Deviations:
        """The same by this very model, one missingness pattern at a time."""
        preparation = self.preparation
        cohort = preparation.aligned(cohort)
        roles = known_roles(cohort, self.known)
        batch = self.batch(cohort, roles)
        refuse_uncalibrated(batch, dict(self.laws), list(cohort.ids), list(cohort.features))
        warn_of_scored_values(list(cohort.features), cohort.ids, [x.numpy() for x in batch.x],
                              [m.features for m in preparation.modalities])
        z = np.full((len(cohort), len(preparation.columns)), np.nan)
        expected, latent = z.copy(), np.empty((len(cohort), self.vae.n_dimensions))
        distance, conformal = np.empty((len(cohort), 4)), z.copy()
        shares = np.empty((len(cohort.modalities), *latent.shape))
        folds, own = self._folds(roles), self._folds(roles, kind)
        for pattern, rows in by_pattern(batch):
            part, law, at = batch.take(rows), self.laws[pattern], rows.numpy()
            raw = raw_scores(self.vae, part, inference, [kind])
            z[at] = law.features[kind.name].z(raw.residuals[kind.name], own[at],
                                              preparation.slices)
            conformal[at] = law.features[kind.name].conformal(raw.residuals[kind.name],
                                                              own[at] >= 0)
            parts = law.frame(raw.parts)
            position = parts.sum(0)
            latent[at] = law.latent_z(position, folds[at])
            shares[:, at] = law.attribution(position, parts, latent[at])
            distance[at] = law.distance(position, folds[at])
            found = raw.expected[kind.name]
            expected[at] = preparation.in_units(found.mean, found.sd, cohort.subjects.iloc[at])
        scored = self._as_tables(cohort, kind, roles, z, expected, latent, shares, distance)
        if np.isnan(conformal).all():
            return scored
        return scored.changed(conformal=pd.DataFrame(conformal, cohort.ids, scored.z.columns))

    def log_density(self, cohort: Cohort, kind: Kind, inference: Inference) -> pd.DataFrame:
        """log p(y_j | what this kind conditions on) of every measured feature, calibrated.

        log phi(z) + log dz/dy, the slope of the whole map from y to the calibrated z by a central
        difference, with the expectation held: density per unit of the modality.

        Returns
        -------
        DataFrame, shape (n_subjects, n_features)
        """
        return pd.concat([fitted._log_density(people, kind, inference)
                          for fitted, people in self.each(cohort)]).loc[cohort.ids]

    def _log_density(self, cohort: Cohort, kind: Kind, inference: Inference) -> pd.DataFrame:
        cohort = self.preparation.aligned(cohort)
        units = np.hstack([self.preparation.regressions[m.name].unit for m in cohort.modalities])
        roles = known_roles(cohort, self.known)
        batches = [self.batch(self._shifted(cohort, by), roles) for by in (_STEP, 0.0, -_STEP)]
        folds = self._folds(roles, kind)
        found = np.full((len(cohort), len(units)), np.nan)
        for pattern, rows in by_pattern(batches[1]):
            parts, law, at = [b.take(rows) for b in batches], self.laws[pattern], rows.numpy()
            with torch.no_grad():
                expected = kind.predicted(self.vae, parts[1], inference)
            above, z, below = (law.features[kind.name].z(
                residual(part, expected), folds[at], self.preparation.slices) for part in parts)
            slope = np.clip(above - below, 1e-300, None) / (2 * _STEP * units)
            found[at] = np.log(slope) - 0.5 * (z ** 2 + np.log(2 * np.pi))
        return pd.DataFrame(found, cohort.ids, self.preparation.columns)

    def _shifted(self, cohort: Cohort, by: float) -> Cohort:
        blocks = {name: block + by * self.preparation.regressions[name].unit
                  for name, block in cohort.features.items()}
        return Cohort(cohort.subjects, blocks, cohort.modalities, cohort.covariates,
                      cohort.reference)

    def _as_tables(self, cohort: Cohort, kind: Kind, roles: pd.Series, z: np.ndarray,
                   expected: np.ndarray, latent: np.ndarray, shares: np.ndarray,
                   distance: np.ndarray) -> Deviations:
        columns, ids = self.preparation.columns, cohort.ids
        observed = pd.DataFrame(np.hstack([b.to_numpy(float) for b in cohort.features.values()]),
                                ids, columns)
        law = pd.DataFrame(distance, ids, ["distance", "p", "p_conformal", "n_calibration"])
        dimensions = [f"z{k + 1}" for k in range(latent.shape[1])]
        told = np.where(cohort.present.to_numpy().T[..., None], shares, np.nan)
        attribution = pd.DataFrame(np.hstack(list(told)), ids, pd.MultiIndex.from_product(
            [list(cohort.features), dimensions], names=["modality", "latent"]))
        return Deviations(
            z=pd.DataFrame(z, ids, columns), observed=observed,
            expected=pd.DataFrame(expected, ids, columns).where(observed.notna()),
            latent=pd.DataFrame(latent, ids, dimensions), attribution=attribution,
            distance=law.astype({"n_calibration": int}),
            subjects=cohort.subjects.assign(**{ROLE: roles}),
            reference=self.references[kind.name])

    def calibrated_only(self, cohort: Cohort) -> Cohort:
        """Without those who cannot be judged; warns of them."""
        kept = self.judgeable(cohort)
        if len(kept) < len(cohort):
            out = cohort.ids.difference(kept.ids, sort=False)
            warnings.warn(f"{len(out)} of {len(cohort)} subjects ({listed(out)}) are left out: "
                          "too few calibration people were measured with the same modalities",
                          stacklevel=4)
        return kept

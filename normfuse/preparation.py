"""From a cohort's tables to a model's tensors, and back: the only place where the two meet."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .baseline import LinearBaseline
from .blocks import Block
from .cohort import Cohort
from .covariates import CovariateEncoder
from .errors import CohortError, SpaceMismatchError, listed, perhaps
from .modality import Modality
from .models import Batch
from .regression import PooledRegression, Residuals


@dataclass(frozen=True, eq=False)
class Preparation:
    """What turns subjects into model inputs: a covariate model of every modality.

    Learned from the whole reference; what a reference person taught is taken back for their own
    residuals. The generative model after it works on what covariates leave, standard normal
    residuals; covariates other than sites condition it once more.

    Attributes
    ----------
    modalities : tuple of Modality
        In the model's order; so are their features.
    encoder : CovariateEncoder
    regressions : dict of PooledRegression
    rivals : dict of LinearBaseline
        OLS on splines, fitted to the same people: what a simpler model would have said.
    pooled_sites : bool
        Whether people of a site that the model does not know are taken for people of any site.
    """

    modalities: tuple[Modality, ...]
    encoder: CovariateEncoder
    regressions: Mapping[str, PooledRegression]
    rivals: Mapping[str, LinearBaseline]
    pooled_sites: bool = False

    @classmethod
    def fit(cls, cohort: Cohort) -> Preparation:
        """Learn from healthy people."""
        encoder = CovariateEncoder.fit(cohort.subjects, cohort.covariates)
        regressions = {m.name: PooledRegression.fit(cohort.features[m.name].to_numpy(float),
                                                    cohort.subjects, encoder)
                       for m in cohort.modalities}
        design = encoder.encode(cohort.subjects)
        rivals = {m.name: LinearBaseline.fit(cohort.features[m.name].astype(float), design)
                  for m in cohort.modalities}
        return cls(cohort.modalities, encoder, regressions, rivals)

    @property
    def columns(self) -> pd.MultiIndex:
        """(modality, feature) of every feature, in the model's order."""
        pairs = [(m.name, f) for m in self.modalities for f in m.features]
        return pd.MultiIndex.from_tuples(pairs, names=["modality", "feature"])

    @property
    def slices(self) -> dict[str, slice]:
        """Where each modality's features are among all."""
        ends = np.cumsum([m.n_features for m in self.modalities]).tolist()
        return {m.name: slice(end - m.n_features, end) for m, end in zip(self.modalities, ends)}

    def aligned(self, cohort: Cohort) -> Cohort:
        """The cohort with the model's modalities and features, in the model's order.

        Of what was measured: here imputed cells become missing again, for every verb of a model.

        Raises
        ------
        CohortError
            For unknown modalities and for missing or extra features. A modality that the cohort
            does not have at all counts as not measured.
        """
        cohort, known = cohort.observed(), {m.name for m in self.modalities}
        strange = [m.name for m in cohort.modalities if m.name not in known]
        if strange:
            raise CohortError(f"the model knows no modality {listed(strange)}"
                              f"{perhaps(strange, known)}; it was fitted with "
                              f"{listed(sorted(known))}")
        have = {m.name: set(m.features) for m in cohort.modalities}
        blocks: dict[str, Block] = {}
        for m in self.modalities:
            if m.name not in have:
                blocks[m.name] = pd.DataFrame(np.nan, cohort.ids, list(m.features))
            elif cohort.modality(m.name).features == m.features:
                _same_space(m, cohort.modality(m.name))
                blocks[m.name] = cohort.features.as_is()[m.name]
            else:
                _same_space(m, cohort.modality(m.name))
                _same_features(m, have[m.name])
                blocks[m.name] = cohort.features[m.name][list(m.features)]
        return Cohort(cohort.subjects, blocks, self.modalities, self.encoder.kinds,
                      cohort.reference)

    def encoded(self, subjects: pd.DataFrame) -> np.ndarray:
        """Covariates as the encoder sees them; checks that their sites are known."""
        regression = next(iter(self.regressions.values()))
        sites = {name: None if self.pooled_sites else regression.columns.known(name)
                 for name in regression.columns.sites}
        return self.encoder.encode(subjects, sites=sites)

    def of_unknown_sites(self, subjects: pd.DataFrame) -> int:
        """How many come from a site whose offset was not learned."""
        columns = next(iter(self.regressions.values())).columns
        unknown = np.zeros(len(subjects), bool)
        for name in columns.sites:
            unknown |= ~subjects[name].astype(str).isin(columns.known(name)).to_numpy()
        return int(unknown.sum())

    def design(self, subjects: pd.DataFrame) -> np.ndarray:
        """What conditions the networks: encoded covariates without sites, (n, n_design).

        A site shifts and stretches features; the covariate model knows by how much, also of a site
        added later, which networks could not.
        """
        return self.encoded(subjects)[:, self._conditions]

    @property
    def n_design(self) -> int:
        """Columns of :meth:`design`."""
        return int(self._conditions.sum())

    @property
    def _conditions(self) -> np.ndarray:
        return self.encoder.columns_of("continuous", "categorical")

    def residuals(self, cohort: Cohort, left_out: np.ndarray | None = None
                  ) -> dict[str, Residuals]:
        """What covariates leave of an aligned cohort's features.

        ``left_out`` (bool, one a subject) marks reference people, judged by all the others.
        """
        return {m.name: self._residuals(m.name, cohort, left_out) for m in self.modalities}

    def _residuals(self, name: str, cohort: Cohort, left_out: np.ndarray | None) -> Residuals:
        # pandas lends its values read-only, of which torch warns
        left_out = None if left_out is None else np.array(left_out)
        return self.regressions[name].residuals(cohort.features[name].to_numpy(float),
                                                cohort.subjects, left_out)

    def batch(self, cohort: Cohort, left_out: np.ndarray | None = None) -> Batch:
        """An aligned cohort as tensors, float64; unmeasured cells are 0 and marked."""
        x, measured, variance = [], [], []
        design = self.design(cohort.subjects)
        for m in self.modalities:  # one at a time: slopes of voxels are as large as they are
            found = self._residuals(m.name, cohort, left_out)
            seen = ~np.isnan(found.u)
            x.append(torch.as_tensor(np.where(seen, found.u, 0.0)))
            variance.append(torch.as_tensor(np.where(seen, found.variance, 0.0)))
            measured.append(None if seen.all() else torch.as_tensor(seen))
        present = torch.as_tensor(cohort.present.to_numpy().T.copy())
        return Batch(tuple(x), tuple(measured), present, torch.as_tensor(design),
                     tuple(variance))

    def log_slopes(self, cohort: Cohort, left_out: np.ndarray | None = None) -> np.ndarray:
        """Sum of log du/dy over each person's measured features, y in the modalities' units."""
        return np.sum([np.nansum(found.log_slope, axis=1)
                       for found in self.residuals(cohort, left_out).values()], axis=0)

    def in_units(self, mean: Sequence[Tensor], sd: Sequence[Tensor], subjects: pd.DataFrame
                 ) -> np.ndarray:
        """E[y] in each modality's unit where u ~ N(mean, sd^2), shape (n_subjects, n_features)."""
        return np.hstack([self.regressions[m.name].expected(at, spread, subjects)
                          for m, at, spread in zip(self.modalities, mean, sd)])


def _same_space(expected: Modality, came: Modality) -> None:
    if expected.space is not None and came.space != expected.space:
        raise SpaceMismatchError(f"the voxels of modality {expected.name} are those of "
                                 f"{came.space!r}; the model was fitted with {expected.space!r}: "
                                 "read the images with the model's mask and resolution")


def _same_features(modality: Modality, have: set[str]) -> None:
    missing = [f for f in modality.features if f not in have]
    extra = sorted(have.difference(modality.features))
    if missing or extra:
        parts = ([f"lacks {listed(missing)}"] if missing else []) + \
                ([f"has {listed(extra)}, which the model does not know"] if extra else [])
        wanted = missing or modality.features
        raise CohortError(f"modality {modality.name} {' and '.join(parts)}"
                          f"{perhaps(extra, wanted)}; the model was fitted "
                          f"with {modality.n_features} features. Order does not matter, names do: "
                          "rename, drop_features, or add an empty column for a region that failed")

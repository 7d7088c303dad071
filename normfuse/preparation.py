"""From a cohort's tables to a model's tensors, and back: the only place where the two meet."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .baseline import LinearBaseline
from .cohort import Cohort
from .covariates import CovariateEncoder
from .errors import CohortError, listed
from .modality import Modality
from .models import Batch


@dataclass(frozen=True, eq=False)
class Preparation:
    """What turns subjects into model inputs: covariate encoding and per-modality baselines.

    Learned from training subjects only.

    Attributes
    ----------
    modalities : tuple of Modality
        In the model's order; so are their features.
    encoder : CovariateEncoder
    baselines : dict of LinearBaseline
    """

    modalities: tuple[Modality, ...]
    encoder: CovariateEncoder
    baselines: Mapping[str, LinearBaseline]

    @classmethod
    def fit(cls, cohort: Cohort) -> Preparation:
        """Learn from a cohort of training subjects."""
        encoder = CovariateEncoder.fit(cohort.subjects, cohort.covariates)
        design = encoder.encode(cohort.subjects)
        baselines = {m.name: LinearBaseline.fit(cohort.features[m.name], design)
                     for m in cohort.modalities}
        return cls(cohort.modalities, encoder, baselines)

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

        Raises
        ------
        CohortError
            For unknown modalities and for missing or extra features. A modality that the cohort
            does not have at all counts as not measured.
        """
        known = {m.name for m in self.modalities}
        strange = [m.name for m in cohort.modalities if m.name not in known]
        if strange:
            raise CohortError(f"the model knows no modality {listed(strange)}; it was fitted with "
                              f"{listed(sorted(known))}")
        have = {m.name: set(m.features) for m in cohort.modalities}
        blocks = {}
        for m in self.modalities:
            if m.name not in have:
                blocks[m.name] = pd.DataFrame(np.nan, cohort.ids, list(m.features))
                continue
            _same_features(m, have[m.name])
            blocks[m.name] = cohort.features[m.name][list(m.features)]
        return Cohort(cohort.subjects, blocks, self.modalities, self.encoder.kinds,
                      cohort.reference)

    def batch(self, cohort: Cohort, dtype: torch.dtype = torch.float32) -> Batch:
        """An aligned cohort as tensors; unmeasured cells are 0 and marked."""
        design = self.encoder.encode(cohort.subjects)
        x, measured = [], []
        for m in self.modalities:
            values = cohort.features[m.name].to_numpy()
            seen = ~np.isnan(values)
            standard = self.baselines[m.name].standardise(values, design)
            x.append(torch.as_tensor(np.where(seen, standard, 0.0), dtype=dtype))
            measured.append(None if seen.all() else torch.as_tensor(seen))
        present = torch.as_tensor(cohort.present.to_numpy().T.copy())
        return Batch(tuple(x), tuple(measured), present, torch.as_tensor(design, dtype=dtype))

    def in_units(self, standard: list[Tensor], design: Tensor) -> np.ndarray:
        """Standardised expectations of every modality, back in each modality's unit."""
        parts = [self.baselines[m.name].expected(design.numpy())
                 + self.baselines[m.name].scale * block.numpy()
                 for m, block in zip(self.modalities, standard)]
        return np.hstack(parts)


def _same_features(modality: Modality, have: set[str]) -> None:
    missing = [f for f in modality.features if f not in have]
    extra = sorted(have.difference(modality.features))
    if missing or extra:
        parts = ([f"lacks {listed(missing)}"] if missing else []) + \
                ([f"has {listed(extra)}, which the model does not know"] if extra else [])
        raise CohortError(f"modality {modality.name} {' and '.join(parts)}; the model was fitted "
                          f"with {modality.n_features} features. Order does not matter, names do: "
                          "rename, drop_features, or add an empty column for a region that failed")

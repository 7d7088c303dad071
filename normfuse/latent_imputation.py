"""Missing modalities from what the others say of a person's latents: imputation by the model."""
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from .cohort import Cohort
from .deviations import SEEN_ROLES
from .fingerprints import known_roles
from .fitted import Fitted
from .inference import Inference
from .kinds import LeaveModalityOut, Reconstruction


def imputed_by_latents(fitted: Fitted, cohort: Cohort, inference: Inference, by: str) -> Cohort:
    """See :meth:`normfuse.NormativeModel.impute`."""
    cohort = fitted.preparation.aligned(cohort)
    if cohort.present.all(axis=None):
        return cohort
    tables: dict[str, dict[str, list[pd.DataFrame]]] = {}
    for model, people in fitted.each(cohort):
        for name, pair in _expected(model, people, inference).items():
            for what, table in zip(("mean", "sd"), pair):
                tables.setdefault(what, {}).setdefault(name, []).append(table)
    joined: dict[str, Any] = {what: {name: pd.concat(parts) for name, parts in found.items()}
                              for what, found in tables.items()}
    taught = [person for person, role in fitted.known.items() if role in SEEN_ROLES]
    return cohort.with_imputed(joined["mean"], joined["sd"], by=by, learned_from=taught)


def _expected(fitted: Fitted, cohort: Cohort, inference: Inference
              ) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Mean and sd, in units, of the modalities that each lacks."""
    preparation, present = fitted.preparation, cohort.present
    batch = fitted.batch(cohort, known_roles(cohort, fitted.known))
    with torch.no_grad():
        found = Reconstruction().predicted(fitted.vae, batch, inference)
    tables = {}
    for k, m in enumerate(preparation.modalities):
        lacking = ~present[m.name].to_numpy()
        if not lacking.any():
            continue
        rows = torch.as_tensor(np.flatnonzero(lacking))
        subjects = cohort.subjects[lacking]
        mean = found.mean[k][rows]
        sd = found.sd[k].expand_as(found.mean[k])[rows] * torch.as_tensor(
            _widths(fitted, present[lacking], m.name))
        law = preparation.regressions[m.name]
        spread = law.from_normal(mean + sd, subjects) - law.from_normal(mean - sd, subjects)
        tables[m.name] = tuple(pd.DataFrame(values, subjects.index, list(m.features))
                               for values in (law.expected(mean, sd, subjects), spread / 2))
    return tables  # type: ignore[return-value]


def _widths(fitted: Fitted, present: pd.DataFrame, name: str) -> np.ndarray:
    """Root mean squares of standardised errors in calibration people whose modality was foretold
    from the same others; 1 where nobody can tell."""
    at = fitted.preparation.slices[name]
    found = np.ones((len(present), at.stop - at.start))
    for row, there in zip(found, present.to_numpy().tolist()):
        pattern = tuple(t or m == name for m, t in zip(present.columns, there))
        law = fitted.laws.get(pattern)
        if law is not None and LeaveModalityOut.name in law.features:
            known = law.features[LeaveModalityOut.name].residual.of(at)
            rms = np.sqrt(known.sd ** 2 + known.mean ** 2)
            row[:] = np.where(np.isfinite(rms) & (rms > 0), rms, 1.0)
    return found

"""Whether healthy people with an imputed modality look healthy."""
from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np
import pandas as pd

from .calibration_check import share_row
from .cohort import Cohort
from .errors import CohortError, listed
from .fingerprints import known_roles
from .kinds import Covariates
from .normative import NormativeModel

CUTS = {0.05: 1.9599640, 0.01: 2.5758293}


class Imputer(Protocol):
    """Anything that fills in missing modalities, such as
    :class:`~normfuse.imaging.synthesis.ImageSynthesiser`."""

    def impute(self, cohort: Cohort) -> Cohort: ...


def check_imputation(model: NormativeModel, imputer: Imputer, cohort: Cohort | None = None
                     ) -> pd.DataFrame:
    r"""Hide what healthy people have, impute it, and count how often its z is extreme.

    Each modality in turn is hidden from everybody who has it and another one. If the imputer
    neither exaggerates nor claims too much, z = E[g] / sqrt(1 + Var[g]) exceeds 1.96 in no more
    than 5 % of them; usually in far fewer, since an expectation varies less than people do.

    Parameters
    ----------
    model : NormativeModel
        With deviations of kind ``covariates``.
    imputer : Imputer
    cohort : Cohort, optional
        Healthy people that neither has learned from; by default those whom the model was
        calibrated with. Who taught the imputer is left out, with a warning: it foretells them
        too well.

    Returns
    -------
    DataFrame
        One row a modality and nominal level: ``modality``, ``nominal``, ``share`` beyond it, its
        95 % interval over people ``low``, ``high``, ``n_subjects``, ``n_values``, ``sd`` of z,
        ``median_sd`` of what is believed of z, and ``slope``, that of E[g] on the z of what was
        measured: above 1 the imputer exaggerates.

    Raises
    ------
    CohortError
        Fewer than three people are left.

    Examples
    --------
    >>> from normfuse.testing import tiny_cohort
    >>> from normfuse.training import TrainingPlan
    >>> class Mean:
    ...     def impute(self, cohort):
    ...         lacking = cohort.ids[~cohort.present["pet"]]
    ...         names = cohort.modality("pet").features
    ...         mean = pd.DataFrame(1.2, lacking, names) if len(lacking) else {}
    ...         return cohort.with_imputed({"pet": mean}, {"pet": 0 * mean + 0.06}, by="a mean")
    >>> model = NormativeModel(n_latent=2, plan=TrainingPlan(max_epochs=2, warmup=1),
    ...                        kinds=[Covariates()])
    >>> model = model.fit(tiny_cohort(180, seed=1).reference_subjects().drop_features("t1", []))
    >>> found = check_imputation(model, Mean())
    >>> found[["modality", "nominal"]].to_numpy().tolist(), bool((found["share"] < 0.02).all())
    ([['pet', 0.05], ['pet', 0.01]], True)
    """
    people = model._held_out if cohort is None else cohort.observed()
    if people is None:
        raise CohortError("this model was read from a file, which holds nobody's values: name "
                          "healthy people, check_imputation(model, imputer, people)")
    rows: list[dict[str, Any]] = []
    for m in people.modalities:
        present = people.present
        able = people.ids[(present[m.name] & (present.sum(axis=1) > 1)).to_numpy()]
        if not len(able):
            continue
        filled = imputer.impute(people.select(list(able)).without(m.name))
        if filled.imputation is None or m.name not in filled.imputation.sd:
            continue
        honest = _strangers(people.select(list(able)), filled)
        rows += _rows(model, people.select(honest), filled.select(honest), m.name)
    if not rows:
        raise CohortError("the imputer filled in nothing that these people have")
    return pd.DataFrame(rows)


def _strangers(people: Cohort, filled: Cohort) -> list[str]:
    """Those whom the imputer did not learn from; warns of the others."""
    taught = filled.imputation.learned_from if filled.imputation is not None else frozenset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        seen = known_roles(people, dict.fromkeys(taught, "training")).eq("training").to_numpy()
    if seen.any():
        warnings.warn(f"{int(seen.sum())} of {len(people)} people taught the imputer "
                      f"({listed(people.ids[seen])}) and are left out: it foretells them too well."
                      " Name people that neither has learned from", stacklevel=3)
    left = [str(i) for i in people.ids[~seen]]
    if len(left) < 3:
        raise CohortError(f"{len(left)} of {len(people)} healthy people are left who taught the "
                          "imputer nothing: three are the least, thirty are worth something. Keep "
                          "some from the imputer's fit, and name them")
    return left


def _rows(model: NormativeModel, people: Cohort, filled: Cohort, name: str
          ) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        own = model.deviations(people, kind=Covariates()).z
        imputed = model.deviations(filled, kind=Covariates()).imputed
    if imputed is None:
        raise CohortError(f"nobody with an imputed {name} could be scored")
    z, sd = imputed.z[name], imputed.sd[name]
    believed = (z * np.sqrt(1 + sd ** 2)).to_numpy().ravel()
    measured = own.loc[z.index, name].to_numpy().ravel()
    both = np.isfinite(believed) & np.isfinite(measured)
    slope = np.polyfit(measured[both], believed[both], 1)[0] if both.sum() > 2 else np.nan
    rows = []
    for nominal, cut in CUTS.items():
        row = share_row(name, nominal, np.where(z.isna(), np.nan, z.abs() > cut), z.shape[1])
        rows.append({"modality": row.pop("quantity"), **row, "sd": float(np.nanstd(z)),
                     "median_sd": float(np.nanmedian(sd)), "slope": float(slope)})
    return rows

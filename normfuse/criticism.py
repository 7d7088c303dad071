"""How good a normative model is, by the field's own measures, on healthy people it never saw."""
from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from . import z_checks
from .cohort import Cohort
from .deviations import ROLE, Deviations
from .errors import CohortError, listed
from .evaluation import RIVAL, Evaluation
from .fitted import Fitted
from .kinds import Kind
from .normative import NormativeModel

FEWEST = 10
"""People below whom no share or correlation says anything."""


def evaluate(model: NormativeModel, held_out: Cohort | None = None, *,
             kind: str | Kind | None = None, unseen_site: str | None = None) -> Evaluation:
    """Accuracy and calibration on healthy people whom the model never saw.

    Beside the model stands ordinary least squares on splines, fitted to the same people: it sees
    covariates only, and takes a site added by :meth:`NormativeModel.adapt` for the average one.

    Parameters
    ----------
    model : NormativeModel
        Fitted.
    held_out : Cohort, optional
        Healthy people; those the model was trained on are left out with a warning, and its
        calibration people are judged by what did not see them, the spline regression's too. By
        default the calibration people, which a model read from a file no longer has. As each of
        them is judged by the others, mean and sd of their z are near 0 and 1 by construction, and
        MACE lies below its floor: people new to the model test its calibration harder.
    kind : str or Kind, optional
        As in :meth:`NormativeModel.deviations`.
    unseen_site : {"pooled"}, optional
        Evaluate with people of a site that the model does not know too, as people of any site;
        the spline regression takes that site for the average one. Without it they are refused.

    Raises
    ------
    CohortError
        No people are named and the model has none, somebody is not healthy by the cohort's own
        reference query, their site is not known, or fewer than 10 people are left.

    References
    ----------
    Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, section 2.5 (MSLL,
    with mean and variance of the fit set); Rutherford et al. (2022), eLife 11:e72904.

    Examples
    --------
    >>> from normfuse.testing import tiny_cohort
    >>> from normfuse.training import TrainingPlan
    >>> model = NormativeModel(n_latent=2, plan=TrainingPlan(max_epochs=5, warmup=2))
    >>> found = evaluate(model.fit(tiny_cohort(180, seed=1).reference_subjects()))
    >>> len(found.features), found.outer.index.tolist()
    (15, [0.5, 1.0, 2.5, 5.0, 95.0, 97.5, 99.0, 99.5])
    """
    chosen, judge = model.kind_called(kind), model.fitted.of_any_site(unseen_site)
    pairs = judge.each(_witnesses(model) if held_out is None else _strangers(judge, held_out))
    n = sum(len(people) for _, people in pairs)
    if n < FEWEST:
        raise CohortError(f"{n} people are left to evaluate with; bring {FEWEST} healthy people "
                          "at least whom the model was not trained on")
    judged = _joined([_judged(fitted, people, chosen, model) for fitted, people in pairs])
    z = judged.found.z
    features = pd.DataFrame([_of_feature(judged, at) for at in range(z.shape[1])], z.columns)
    return Evaluation(
        features, z_checks.coverage(z), z_checks.outer_centiles(z),
        z_checks.leftover(judged.found), z_checks.by_site(judged.found),
        z_checks.mace_floor(int(z.notna().sum().median())), chosen.name,
        {str(role): int(n) for role, n in judged.found.subjects[ROLE].value_counts().items()},
        judge.notes_on_sites(judged.found.subjects))


@dataclass(frozen=True, eq=False)
class _Judged:
    """People scored by a model and by its rivals; arrays have shape (n_subjects, n_features).

    ``trivial`` is the log density of knowing mean and sd of the people of the fit only; ``spline``
    the expectation of least squares, ``scale`` its residual sd.
    """

    found: Deviations
    density: np.ndarray
    trivial: np.ndarray
    spline: np.ndarray
    scale: np.ndarray


def _witnesses(model: NormativeModel) -> Cohort:
    """The healthy people a model was calibrated on."""
    people = model._held_out
    if people is None:
        raise CohortError("this model was read from a file, which holds nobody's values: name "
                          "healthy people to evaluate it with, evaluate(model, held_out)")
    return people


def _strangers(fitted: Fitted, held_out: Cohort) -> Cohort:
    """Those who can be judged and were not trained on; refuses patients."""
    if held_out.reference is not None:
        others = held_out.ids.difference(held_out.reference_subjects().ids)
        if len(others):
            raise CohortError(f"{len(others)} of {len(held_out)} subjects ({listed(others)}) do "
                              f"not answer the cohort's reference query {held_out.reference!r}; "
                              "a normative model is evaluated on healthy people: "
                              "evaluate(model, cohort.reference_subjects())")
    return fitted.unseen(fitted.calibrated_only(held_out))


def _judged(fitted: Fitted, people: Cohort, kind: Kind, model: NormativeModel) -> _Judged:
    found = fitted.score(people, kind, model.inference)
    with warnings.catch_warnings():  # the same as those of scoring
        warnings.simplefilter("ignore", UserWarning)
        density = fitted.log_density(people, kind, model.inference).to_numpy()
        design = fitted.preparation.encoded(found.subjects)
    y, preparation = found.observed.to_numpy(), fitted.preparation
    center, unit, scale = (np.hstack(parts) for parts in zip(*(
        (r.center, r.unit, preparation.rivals[name].scale)
        for name, r in preparation.regressions.items())))
    # the spline regression learned from the whole reference, calibration people among it
    inside = found.subjects[ROLE].eq("calibration").to_numpy()[:, None]
    spline = np.hstack([np.where(
        inside, rival.left_out(y[:, preparation.slices[name]], design), rival.expected(design))
        for name, rival in preparation.rivals.items()])
    return _Judged(found, density, stats.norm.logpdf(y, center, unit), spline,
                   np.broadcast_to(scale, y.shape))


def _joined(parts: list[_Judged]) -> _Judged:
    """People judged by different fits as one table."""
    if len(parts) == 1:
        return parts[0]
    tables = [part.found.tables() for part in parts]
    stacked: dict[str, Any] = {name: pd.concat([each[name] for each in tables])
                               for name in tables[0]}
    found = Deviations(**stacked, reference=parts[0].found.reference)
    return _Judged(found, *(np.vstack([getattr(part, name) for part in parts])
                            for name in ("density", "trivial", "spline", "scale")))


def _of_feature(judged: _Judged, at: int) -> dict[str, float]:
    """One row of ``Evaluation.features``."""
    found = judged.found
    y, guess, z = (table.iloc[:, at] for table in (found.observed, found.expected, found.z))
    mine = z_checks.of_feature(y, guess, z)
    spline = pd.Series(judged.spline[:, at], y.index)
    scale = judged.scale[:, at]
    theirs = z_checks.of_feature(y, spline, (y - spline) / scale)
    seen = z.notna().to_numpy()
    trivial, density = judged.trivial[seen, at], judged.density[seen, at]
    if len(mine) > 1:
        mine |= {"MSLL": float((trivial - density).mean()), "log_density": float(density.mean())}
    if len(theirs) > 1:
        logs = stats.norm.logpdf(y[seen], spline[seen], scale[seen])
        theirs |= {"MSLL": float((trivial - logs).mean())}
    del theirs["n"]
    return mine | {f"{name}{RIVAL}": value for name, value in theirs.items()}

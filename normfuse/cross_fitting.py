"""Scoring healthy people honestly when there are none to spare."""
from __future__ import annotations

import copy
from dataclasses import replace

from .calibration import HeldOut, deal_folds
from .calibration_check import check_calibration
from .cohort import Cohort
from .deviations import Deviations
from .errors import CohortError
from .kinds import Kind
from .normative import NormativeModel


def cross_fit(model: NormativeModel, cohort: Cohort, *, folds: int = 5,
              kind: str | Kind | None = None) -> Deviations:
    """Deviations of everybody, reference included, by models that did not see them.

    The reference is cut into folds; for each fold a model is fitted on the other reference people
    and scores the fold. Everyone outside the reference is dealt to a fold too, so that every
    person is scored by exactly one model and, if healthy, patients and controls are exchangeable.

    Parameters
    ----------
    model : NormativeModel
        A recipe; it is not changed.
    cohort : Cohort
        With a reference query.
    folds : int
    kind : str or Kind, optional
        As in :meth:`NormativeModel.deviations`.

    Returns
    -------
    Deviations
        All people in the cohort's order; ``subjects["normfuse_fold"]`` says which model.

    Examples
    --------
    >>> from normfuse.testing import tiny_cohort
    >>> from normfuse.training import TrainingPlan
    >>> model = NormativeModel(n_latent=2, plan=TrainingPlan(max_epochs=2, warmup=1))
    >>> cohort = tiny_cohort(60)
    >>> found = cross_fit(model, cohort, folds=2)
    >>> found.z.index.equals(cohort.ids), sorted(found.subjects["normfuse_fold"].unique().tolist())
    (True, [0, 1])
    """
    reference = cohort.reference_subjects()
    if not isinstance(folds, int) or not 2 <= folds <= len(reference):
        raise CohortError(f"folds is a number from 2 to the {len(reference)} reference people; "
                          f"got {folds!r}")
    fold = deal_folds(cohort.subjects, cohort.covariates, folds, model.seed,
                      cohort.ids.isin(reference.ids))
    parts = []
    for k in range(folds):
        learners = reference.ids[(fold[reference.ids] != k).to_numpy()]
        recipe = copy.copy(model)
        recipe.seed, recipe.calibration = model.seed + k, model.calibration or HeldOut()
        recipe.fit(cohort.select(learners))
        parts.append(recipe.deviations(cohort.select(cohort.ids[(fold == k).to_numpy()]),
                                       kind=kind))
    note = (f"cross-fitted in {folds} folds: each person was scored by a model fitted on "
            f"{len(reference) - len(reference) // folds} or so of the {len(reference)} reference "
            "people, never on that person; latent dimensions differ between folds")
    # each reference person takes part in all models but one
    shares = {role: round(sum(p.reference.n_subjects[role] for p in parts) / (folds - 1))
              for role in parts[0].reference.n_subjects}
    whole = Deviations.joined(parts, cohort.ids, replace(parts[0].reference, notes=(note,),
                                                         n_subjects=shares))
    whole = replace(whole, subjects=whole.subjects.assign(normfuse_fold=fold))
    # what the controls of all folds show, not only the first fold's calibration people
    calibration, quantiles = check_calibration(whole.select(reference.ids))
    return replace(whole, reference=replace(whole.reference, calibration=calibration,
                                            quantiles=quantiles))

"""What image methods have in common: who is for what, and whom they can look at."""
from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from ..cohort import Cohort
from ..errors import CohortError, SpaceMismatchError, listed
from ..fingerprints import known_roles, person_of, roles_to_hashes
from ..imputed import refuse_imputed
from ..modality import Modality
from ..training import TrainingPlan
from .images import one_space

FEWEST = 8
"""People to learn from, so that somebody is left to stop by and to calibrate with."""

STOPPING, CALIBRATING = 0.1, 0.15
"""Shares of the people."""


@dataclass(frozen=True)
class Roles:
    """Who trains, who says when to stop, and with whom uncertainty is calibrated: ids."""

    training: list[str]
    early_stop: list[str]
    calibration: list[str]

    @property
    def counts(self) -> dict[str, int]:
        """How many are for what."""
        return {"training": len(self.training), "early_stop": len(self.early_stop),
                "calibration": len(self.calibration)}

    @classmethod
    def drawn(cls, cohort: Cohort, seed: int, telling: Collection[str] = ()) -> Roles:
        """By person, whatever their visits.

        Of those who are ``telling`` (people with a lesion, say), if there are three or more,
        somebody trains, somebody says when to stop and somebody calibrates.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> roles = Roles.drawn(tiny_cohort(40), seed=0)
        >>> len(roles.training), len(roles.early_stop), len(roles.calibration)
        (30, 4, 6)
        """
        refuse_imputed(cohort)
        people = sorted({person_of(i) for i in cohort.ids})
        if len(people) < FEWEST:
            raise CohortError(f"{len(people)} people are too few to learn from: {FEWEST} at least,"
                              " some of whom say when to stop and some with whom uncertainty is "
                              "calibrated. With fewer, fit to simulated people and tune(…)")
        order = np.random.default_rng(seed).permutation(people).tolist()
        n_stop, n_calibrating = (max(1, round(share * len(people)))
                                 for share in (STOPPING, CALIBRATING))
        groups = [order[:n_stop], order[n_stop:n_stop + n_calibrating],
                  order[n_stop + n_calibrating:]]
        _share_out(groups, {person_of(i) for i in telling})
        stopping, calibrating = map(set, groups[:2])
        ids = [str(i) for i in cohort.ids]
        return cls([i for i in ids if person_of(i) not in stopping | calibrating],
                   [i for i in ids if person_of(i) in stopping],
                   [i for i in ids if person_of(i) in calibrating])


def _share_out(groups: list[list[str]], telling: set[str]) -> None:
    """Swap people so that every group has somebody who is telling, if there are enough."""
    if len(telling) < len(groups):
        return
    for group in groups:
        if telling.isdisjoint(group):
            giver = next(g for g in groups if len(telling.intersection(g)) > 1)
            k = next(k for k, who in enumerate(giver) if who in telling)
            group[0], giver[k] = giver[k], group[0]


def image_plan() -> TrainingPlan:
    """What suits some thousand slices: a learning rate that falls, gradients cut short."""
    return TrainingPlan(max_epochs=30, patience=30, warmup=4, batch_size=16, final_rate=0.05,
                        clip=5.0, validation_draws=1)


def aligned(cohort: Cohort, modalities: Sequence[Modality]) -> Cohort:
    """With the modalities of a fit, in its order, whatever theirs is; who lacks one misses it, and
    what was imputed is missing.

    Raises
    ------
    CohortError
        For modalities that the fit did not have, or none of its.
    SpaceMismatchError
        For voxels of another space.
    """
    cohort = cohort.observed()
    space, there = one_space(cohort), {m.name for m in cohort.modalities}
    names, wanted = [m.name for m in modalities], modalities[0].space
    unknown = there.difference(names)
    if unknown:
        raise CohortError(f"the fit knows no modality {listed(sorted(unknown))}; it was made with "
                          f"{listed(names)}; leave others out of the cohort")
    if space != wanted:
        raise SpaceMismatchError(f"these images are on {space!r}, the fit was made with {wanted!r}"
                                 "; read them with the same mask and resolution")
    blocks = {m.name: cohort.features.as_is()[m.name] if m.name in there else
              pd.DataFrame(np.nan, cohort.ids, m.features) for m in modalities}
    return Cohort(cohort.subjects, blocks, tuple(modalities), cohort.covariates,
                  cohort.reference)


def refuse_unknown(what: str, asked: Sequence[str] | None, names: Sequence[str]) -> None:
    """Raise CohortError unless ``asked`` lists some of the modalities, or is None."""
    if asked is not None and (isinstance(asked, str) or set(asked).difference(names)):
        raise CohortError(f"{what} is a list of modalities among {listed(names)}; got {asked!r}")


def refuse_blind(cohort: Cohort, looked_at: Tensor) -> None:
    """Raise CohortError for people of whom nothing is to be looked at.

    ``looked_at`` is bool, of shape (n_modalities, n_people).
    """
    blind = cohort.ids[~looked_at.any(0).numpy()]
    if len(blind):
        raise CohortError(f"nothing is left to look at of {listed(blind)}: they have none of the "
                          "modalities that may be looked at; leave them out, or give others")


def warn_of_seen(cohort: Cohort, known: Mapping[str, str], what: str, stacklevel: int) -> None:
    """Warn of people with whom a fit was trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        seen = known_roles(cohort, known).isin(["training", "early_stop"])
    if seen.any():
        warnings.warn(f"{int(seen.sum())} of {len(cohort)} people were used to train this "
                      f"{what} or its encoders: {listed(cohort.ids[seen.to_numpy()])}; errors in "
                      "them may be too small", stacklevel=stacklevel + 1)


def hashes(cohort: Cohort, roles: Roles | None) -> dict[str, str]:
    """What recognises these people later, and what each was for; None: all trained."""
    each = pd.Series("training", index=cohort.ids)
    if roles is not None:
        each[roles.early_stop], each[roles.calibration] = "early_stop", "calibration"
    return roles_to_hashes(cohort, each)

"""How image methods learn: who is for what, and the loop."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cohort import Cohort
from ..errors import CohortError
from ..fingerprints import person_of
from ..imputed import refuse_imputed
from ..training import TrainingPlan

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

    @classmethod
    def drawn(cls, cohort: Cohort, seed: int) -> Roles:
        """By person, whatever their visits.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> roles = Roles.drawn(tiny_cohort(40), seed=0)
        >>> len(roles.training), len(roles.early_stop), len(roles.calibration)
        (30, 4, 6)
        """
        refuse_imputed(cohort.imputation)
        people = sorted({person_of(i) for i in cohort.ids})
        if len(people) < FEWEST:
            raise CohortError(f"{len(people)} people are too few to learn from: {FEWEST} at least,"
                              " some of whom say when to stop and some with whom uncertainty is "
                              "calibrated. With fewer, fit to simulated people and tune(…)")
        order = np.random.default_rng(seed).permutation(people).tolist()
        n_stop, n_calibrating = (max(1, round(share * len(people)))
                                 for share in (STOPPING, CALIBRATING))
        stopping = set(order[:n_stop])
        calibrating = set(order[n_stop:n_stop + n_calibrating])
        ids = [str(i) for i in cohort.ids]
        return cls([i for i in ids if person_of(i) not in stopping | calibrating],
                   [i for i in ids if person_of(i) in stopping],
                   [i for i in ids if person_of(i) in calibrating])


def image_plan() -> TrainingPlan:
    """What suits some thousand slices: a learning rate that falls, gradients cut short."""
    return TrainingPlan(max_epochs=30, patience=30, warmup=4, batch_size=16, final_rate=0.05,
                        clip=5.0, validation_draws=1)

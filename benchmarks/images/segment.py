"""Tumours from every subset of four contrasts, by our segmenter and by a U-Net; for study.py.

Both learn from the same simulated people, with modality dropout, and label the same others from
all 15 subsets. Dice of the regions of the BraTS challenge; where a person has no voxel of one and
none was found, there is none.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from rivals import UNetRival
from study import subsets

import normfuse as nf
from normfuse.imaging.images import one_space
from normfuse.imaging.labelled import of_labels, with_labels
from normfuse.segmentations import TUMOUR_GROUPS, Segmentations


class UNetSegmenter:
    """The rival, with ``fit`` and ``predict`` as ours."""

    def __init__(self, plan: nf.TrainingPlan, seed: int) -> None:
        self.rival = UNetRival(plan, seed)

    def fit(self, cohort: nf.Cohort, truth: Segmentations) -> UNetSegmenter:
        self.labels = of_labels(truth)
        cohort, classes = with_labels(cohort, truth, one_space(cohort), self.labels)
        self.rival.fit(cohort, classes, len(self.labels) + 1)
        return self

    def tune(self, cohort: nf.Cohort, truth: Segmentations, plan: nf.TrainingPlan
             ) -> UNetSegmenter:
        new = UNetSegmenter(plan, self.rival.seed)
        new.labels = self.labels
        cohort, classes = with_labels(cohort, truth, one_space(cohort), self.labels)
        new.rival = self.rival.tune(cohort, plan, classes)
        return new

    def predict(self, cohort: nf.Cohort, *, given: list[str]) -> Segmentations:
        numbers = np.array([0, *self.labels.values()], dtype=np.uint8)
        return Segmentations(tuple(map(str, cohort.ids)),
                             numbers[self.rival.labels(cohort, given)], one_space(cohort),
                             self.labels)


def judged(made: Callable[[], Any], cohort: nf.Cohort, truth: Segmentations
           ) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Dice of everybody, subset and region; and what it cost."""
    start = time.process_time()
    method = made()
    trained, rows, seconds = time.process_time() - start, [], 0.0
    for given in subsets(tuple(m.name for m in cohort.modalities)):
        start = time.process_time()
        found = method.predict(cohort, given=given)
        seconds += time.process_time() - start
        dice = found.dice(truth, TUMOUR_GROUPS).rename_axis("person").reset_index()
        rows.append(dice.assign(given="+".join(given), n_given=len(given)))
    net = method.rival.net if isinstance(method, UNetSegmenter) else method.fitted.net
    cost = {"training_cpu_s": trained, "cpu_s_a_volume": seconds / 15 / len(cohort),
            "parameters": sum(p.numel() for p in net.parameters())}
    return pd.concat(rows, ignore_index=True), cost

"""People's images and labels, matched: by id, by voxel and by the labels' names."""
from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import CohortError, SpaceMismatchError, listed
from ..segmentations import Segmentations
from ..space import Space


def of_labels(segmentations: Segmentations) -> dict[str, int]:
    """Names of the labels, by number; TypeError for what are no segmentations."""
    if not isinstance(segmentations, Segmentations):
        raise TypeError("segmentations are an object, as from nf.Segmentations.read(…); got "
                        f"{type(segmentations).__name__}")
    return dict(sorted(segmentations.names.items(), key=lambda item: item[1]))


def with_labels(cohort: Cohort, segmentations: Segmentations, space: Space,
                names: Mapping[str, int]) -> tuple[Cohort, Tensor]:
    """The people who have both, and the classes of their voxels, uint8, (n_people, n_voxels).

    Class 0 is background, class k the k-th of ``names`` by number. Labels are matched by name.

    Raises
    ------
    SpaceMismatchError
    CohortError
        For labels without a name there, or nobody with both.

    Warns
    -----
    UserWarning
        Who has one only.
    """
    if segmentations.space != space:
        raise SpaceMismatchError(
            f"the labels are on {segmentations.space!r}, the images on {space!r}; read the labels "
            "with the images' space: Segmentations.read(…, cohort.modalities[0].space, …)")
    unknown = set(segmentations.names).difference(names)
    if unknown:
        raise CohortError(f"the segmenter knows no label {listed(sorted(unknown))}; it was fitted "
                          f"to {listed(names)}")
    labelled = set(segmentations.ids)
    both = [str(i) for i in cohort.ids if i in labelled]
    if not both:
        raise CohortError(f"nobody of the cohort ({listed(cohort.ids)}) is among the people with "
                          f"labels ({listed(segmentations.ids)}); ids must be the same")
    idle = [i for i in segmentations.ids if i not in set(both)]
    if len(both) < len(cohort) or idle:
        without = [str(i) for i in cohort.ids if i not in labelled]
        told = [f"{len(who)} people have {what} and are left out ({listed(who)})"
                for who, what in ((without, "images but no labels"),
                                  (idle, "labels but no images")) if who]
        warnings.warn("; ".join(told) + "; healthy people need labels too: all background",
                      stacklevel=3)
    order = sorted(names, key=names.__getitem__)
    table = np.zeros(256, dtype=np.uint8)
    for name, number in segmentations.names.items():
        table[number] = 1 + order.index(name)
    return cohort.select(both), torch.from_numpy(table[segmentations.select(both).labels])


def refuse_untaught(classes: Tensor, cohort: Cohort, trainees: Sequence[str],
                    names: Mapping[str, int]) -> None:
    """Raise CohortError for labels that nobody who trains has."""
    rows = cohort.ids.get_indexer(pd.Index(trainees))
    count = np.bincount(classes[rows].numpy().ravel(), minlength=len(names) + 1)
    lacking = [name for name, n in zip(names, count[1:]) if not n]
    if lacking:
        raise CohortError(f"none of the {len(rows)} people who train has a voxel of "
                          f"{listed(lacking)}: nobody can learn it. Give more people who have it, "
                          "another seed, or labels without it")

"""Where the strongest voxels of an image lie."""
from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

_APART = 8.0  # mm between two peaks of one cluster that are both listed


def peaks_of(img: Nifti1Image) -> pd.DataFrame:
    """nilearn's table of an image that is 0 where nothing is, its clusters numbered by strength.
    """
    from nilearn.reporting import get_clusters_table

    values = np.abs(np.asarray(img.dataobj))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No clusters found")  # of the other sign
        found = get_clusters_table(img, 0.5 * float(values[values > 0].min()), two_sided=True,
                                   min_distance=_APART)
    # a main peak has a number, its further peaks letters behind it
    names = found["Cluster ID"].astype(str)
    cluster = names.str.fullmatch(r"\d+").cumsum()
    height = found["Peak Stat"].astype(float).abs()
    best = height.groupby(cluster).max().sort_values(ascending=False, kind="stable")
    rank = cluster.map({name: k for k, name in enumerate(best.index, 1)})
    found["Cluster ID"] = rank.astype(str) + names.str.replace(r"\d+", "", regex=True)
    return found.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)

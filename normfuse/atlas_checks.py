"""Whether a labels image and its region table speak of the same labels, and left is left."""
from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from .errors import AtlasError, listed

if TYPE_CHECKING:
    import pandas as pd

REGION_COLUMNS = ("name", "hemisphere", "tissue", "lobe", "volume_ml")


def centroids_of(labels: np.ndarray, affine: np.ndarray) -> dict[int, np.ndarray]:
    """World x, y, z of each label's centroid, mm."""
    voxels = np.nonzero(labels)
    numbers, member, counts = np.unique(labels[voxels], return_inverse=True, return_counts=True)
    if not len(numbers):
        return {}
    means = np.stack([np.bincount(member, weights=axis) / counts for axis in voxels], axis=1)
    return dict(zip(numbers.tolist(), means @ affine[:3, :3].T + affine[:3, 3]))


def check_table(name: str, regions: pd.DataFrame) -> None:
    """Raises AtlasError if columns lack, a number is below 1, or a number or name is repeated."""
    missing = [column for column in REGION_COLUMNS if column not in regions.columns]
    if missing:
        raise AtlasError(f"atlas {name}: the region table lacks {listed(missing)}; its columns "
                         f"must be {', '.join(REGION_COLUMNS)}")
    if not (regions.index.to_series() > 0).all():
        raise AtlasError(f"atlas {name}: label {regions.index.min()} is in the region table; "
                         "numbers must be 1 or more (0 is outside every region)")
    for what, values in (("label number", regions.index), ("name", regions["name"])):
        twice = values[values.duplicated()]
        if len(twice):
            raise AtlasError(f"atlas {name}: the {what} {listed(twice)} occurs twice in the "
                             "region table; each region needs its own")


def check_labels(name: str, labels: np.ndarray) -> None:
    """Raises AtlasError if the voxels hold anything but one whole number each."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise AtlasError(f"atlas {name}: labels must be whole numbers, not {labels.dtype}; "
                         "resample with interpolation='nearest' and save as int16 or int32")
    if labels.ndim != 3:
        raise AtlasError(f"atlas {name}: the labels image must have 3 axes, not {labels.ndim}; "
                         "overlapping or probabilistic maps are not labels")


def check_same_labels(name: str, in_image: set[int], in_table: set[int]) -> None:
    """Raises AtlasError if either knows a label that the other does not."""
    for where, extra in (("table", in_image - in_table), ("image", in_table - in_image)):
        if extra:
            raise AtlasError(f"atlas {name}: label {listed(sorted(extra))} is missing from the "
                             f"{where}; image and table must hold the same labels")


def check_sides(name: str, regions: pd.DataFrame, centroids: Mapping[int, np.ndarray]) -> None:
    """Raises AtlasError if a left region is centred at x > 0 or a right one at x < 0."""
    sign = regions["hemisphere"].map({"left": -1.0, "right": 1.0}).fillna(0.0)
    x = np.array([centroids[number][0] for number in regions.index])
    wrong = sign.to_numpy() * x < 0
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    # names are wrong one by one, headers all at once
    mirrored = wrong.sum() > 0.5 * (sign != 0).sum()
    advice = (
        "the header mirrors left and right. Get the atlas from another source, or, if you know "
        "that its names are right, load_atlas(…, unmirror=True); as a file: nib.Nifti1Image("
        "np.asanyarray(img.dataobj), np.diag([-1, 1, 1, 1]) @ img.affine)"
        if mirrored else "correct the hemisphere of those regions in the table")
    raise AtlasError(
        f"atlas {name}: {int(wrong.sum())} of {int((sign != 0).sum())} left or right regions "
        f"lie on the other side ({regions['name'].iloc[first]} is centred at "
        f"x = {x[first]:+.1f} mm; left must be below 0); {advice}")


def similar(name: str, known: list[str]) -> list[str]:
    """Up to four known names that somebody may have meant."""
    low = {k.lower(): k for k in known}
    inside = [k for lowered, k in low.items() if name.lower() in lowered] if name else []
    return (inside or [low[m] for m in get_close_matches(name.lower(), low, cutoff=0.5)])[:4]

"""z inside a segmented lesion, in a rim around it, and everywhere else."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from normfuse.errors import CohortError, listed
from normfuse.lesions import lesion_distances

if TYPE_CHECKING:
    from normfuse.deviations import Deviations
    from normfuse.segmentations import Segmentations

PARTS = ("inside", "rim", "outside")


def by_lesion(deviations: Deviations, segmentations: Segmentations, *,
              labels: str | Sequence[str] | None = None, rim: float = 10.0,
              threshold: float = 1.96) -> pd.DataFrame:
    r"""Each person's z by where their lesion is.

    Parameters
    ----------
    deviations : Deviations
        Of voxels. Of a masked cohort (``cohort.masked``) nothing is inside.
    segmentations : Segmentations
        Of these people; who has none is left out.
    labels : str or sequence of str, optional
        What counts as lesion; by default every label.
    rim : float, mm
        How far from the lesion a voxel is still of the rim. Images that were smoothed carry the
        lesion there.
    threshold : float
        \|z\| above it is extreme.

    Returns
    -------
    DataFrame, index (subject, modality, part)
        ``part`` is ``inside`` (voxels that the lesion touches), ``rim`` or ``outside``. Columns
        ``n_voxels`` with a z; ``mean``, ``sd`` and ``rms`` of z; ``extreme``, the share beyond
        the threshold (in healthy people .05 beyond 1.96, however far that share of one person
        varies: voxels are correlated).

    Raises
    ------
    CohortError
        Modalities that are no voxels, or nobody with a segmentation.

    Examples
    --------
    >>> from normfuse.segmentations import Segmentations
    >>> from normfuse.testing import tiny_voxel_deviations
    >>> found = tiny_voxel_deviations()
    >>> space = found.space("t1")
    >>> near = np.linalg.norm(space.coordinates() - (-30, 0, 10), axis=1) < 20
    >>> lesion = Segmentations(("new-03",), near[None], space, {"lesion": 1})
    >>> by_lesion(found, lesion)["n_voxels"].droplevel(["subject", "modality"]).to_dict()
    {'inside': 64, 'rim': 174, 'outside': 2590}
    """
    regional = [m for m in deviations.modalities if deviations.space(m) is None]
    if regional:
        raise CohortError(f"{listed(regional)} is a table of regions: what share of each is "
                          "lesion tells normfuse.lesions.lesion_shares(segmentations, atlas), and "
                          "cohort.masked(…, atlas=…) leaves such regions out")
    people = [i for i in deviations.subjects.index if i in set(segmentations.ids)]
    if not people:
        raise CohortError("none of these people has a segmentation; there are segmentations of "
                          f"{listed(segmentations.ids)}")
    rows = {}
    for m in deviations.modalities:
        space = deviations.space(m)
        away = lesion_distances(segmentations.select(people), space, labels) \
            if space is not None else pd.DataFrame()
        z = deviations.select(people).blocks()[m]
        for who in people:
            values, far = z.loc[who].to_numpy(float), away.loc[who].to_numpy()
            parts = (far <= 0, (far > 0) & (far <= rim), far > rim)
            for part, inside in zip(PARTS, parts):
                rows[who, m, part] = _summary(values[inside], threshold)
    return pd.DataFrame.from_dict(rows, orient="index").set_axis(
        pd.MultiIndex.from_tuples(list(rows), names=["subject", "modality", "part"]))


def _summary(values: np.ndarray, threshold: float) -> dict[str, float]:
    seen = values[~np.isnan(values)]
    if not len(seen):
        return {"n_voxels": 0, **dict.fromkeys(("mean", "sd", "rms", "extreme"), np.nan)}
    return {"n_voxels": len(seen), "mean": float(seen.mean()), "sd": float(seen.std()),
            "rms": float(np.sqrt((seen ** 2).mean())),
            "extreme": float((np.abs(seen) > threshold).mean())}

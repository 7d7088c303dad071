"""One file as one row of float32, with what was seen on the way."""
from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import Facts, look
from .findings import Problem
from .header import opened, unreadable
from .plan import VolumePlan
from .points import background
from .sampling import sampled

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image


@dataclass(frozen=True, eq=False)
class Reading:
    """What came of one file: its values, or why there are none.

    Attributes
    ----------
    values : ndarray of float32, shape (n_voxels,), or None
    facts : Facts or None
    problems : tuple of Problem
        Of its header and its data as such; :func:`normfuse.volumes.checks.judge` judges the facts.
    """

    values: np.ndarray | None
    facts: Facts | None
    problems: tuple[Problem, ...]


def read_image(path: Path, plan: VolumePlan) -> Reading:
    """Read, look at, smooth and sample one image; problems are returned, never raised.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    plan : VolumePlan

    Examples
    --------
    >>> import nibabel as nib, tempfile
    >>> plan = VolumePlan("brain", resolution=8)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place, "t1.nii.gz")
    ...     nib.save(plan.space.img(np.arange(plan.space.n_voxels) + 1), file)
    ...     found = read_image(file, plan)
    >>> found.values.shape, found.facts.coverage > 0.9, found.problems
    ((3666,), True, ())
    """
    img, problems = opened(path)
    if img is None or any(p.refuses for p in problems):
        return Reading(None, None, tuple(problems))
    try:
        data, raw = numbers(img)
    except Exception as problem:  # a truncated or damaged file fails in gzip, zlib or nibabel
        return Reading(None, None, (*problems, unreadable(problem)))
    facts = look(data, raw, img.affine, plan)
    if plan.zeros_missing:
        data = np.where(data == background(data), np.float32(np.nan), data)
    values = sampled(data, img.affine, plan.space, plan.fwhm)
    facts = replace(facts, gap=float(np.isnan(values).mean()))
    if plan.scaling is not None:  # means are linear: the same before and after smoothing
        values /= np.float32(facts.divisor)
    return Reading(values, facts, tuple(problems))


def numbers(img: Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """The image's values as float32 and as they are stored, both of shape (i, j, k).

    nibabel itself scales integers to float64, at twice the memory.
    """
    proxy: Any = img.dataobj
    raw = np.asanyarray(proxy.get_unscaled()).reshape(img.shape[:3])
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # too large for float32: found as infinite
        data = raw.astype(np.float32, copy=False)
        if proxy.slope != 1 or proxy.inter != 0:
            data = data * np.float32(proxy.slope)
            data += np.float32(proxy.inter)
    return data, raw

"""Whether an image is a brain in MNI space, and like the others of its cohort.

What is looked at is where the image has *signal* (:mod:`normfuse.volumes.points`).

What nobody can see here: an image whose data *and* header agree on the wrong side (the template is
symmetric, and a brain nearly is); a wrong space in images that have signal everywhere, such as
whole heads with noise around them; a wrong registration that keeps the outline.
"""
from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .findings import Problem
from .plan import VolumePlan
from .points import points, signal_at

SPILL, HEAD = 0.12, 0.9
"""Share of the shell with signal above which a brain is not where it should be, and above which
the image is rather a whole head."""

FEW_VALUES = 10  # distinct ones: a mask or labels
SATURATED = 1e-3  # share of brain voxels at the last number that the file's integers can hold
GAP = 0.05  # share of the mask that may lack measured values
UNLIKE = 0.05  # share of the usual brain that an image may lack
FEW = 0.2  # share of the cohort that may be odd
OTHER_UNIT = 5.0  # times the median level of the cohort
ENOUGH_TO_COMPARE = 5  # images


@dataclass(frozen=True)
class Facts:
    """What was seen of one image; small, so that it can be kept beside the values.

    Attributes
    ----------
    coverage : float
        Share of the plan's extent with signal.
    spill : float
        Share with signal of points 6 to 14 mm outside the brain.
    level : float
        Median of the signal in the extent, after scaling.
    distinct : int
        Different values there.
    saturated : float
        Share of them at the limit of the file's integers.
    infinite : int
        Voxels with infinite values, anywhere.
    gap : float
        Share of the mask without a value after smoothing.
    footprint : str
        Which points of the brain have signal, packed.
    divisor : float
        What the plan's scaling divided by, in the file's unit; NaN if it found nothing above 0.
    """

    coverage: float
    spill: float
    level: float
    distinct: int
    saturated: float
    infinite: int
    gap: float = 0.0
    footprint: str = field(default="", repr=False)
    divisor: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Facts:
        """The inverse of :meth:`to_dict`."""
        return cls(**found)

    @property
    def signal(self) -> np.ndarray:
        """Which points of the brain have signal; bool, shape (29398,)."""
        bits = np.frombuffer(zlib.decompress(base64.b85decode(self.footprint)), dtype=np.uint8)
        return np.unpackbits(bits)[:len(points("brain"))].astype(bool)


def prepare(plan: VolumePlan) -> None:
    """Make the points that are looked at, once, before threads ask for them."""
    for where in ("brain", "shell", "white_matter", plan.filled):
        points(where)


def look(data: np.ndarray, raw: np.ndarray, affine: np.ndarray, plan: VolumePlan) -> Facts:
    """Measure one image.

    Parameters
    ----------
    data, raw : ndarray, shape (i, j, k)
        Values in their unit, and as the file stores them.
    affine : ndarray, shape (4, 4)
    plan : VolumePlan
    """
    brain, _ = signal_at(data, affine, points("brain"))
    extent, seen = signal_at(data, affine, points(plan.filled))
    spill, _ = signal_at(data, affine, points("shell"))
    values = data[seen]
    divisor = 1.0 if plan.scaling is None else plan.scaling.divisor(data, affine)
    if not 0 < divisor < np.inf:
        divisor = float("nan")
    return Facts(
        coverage=float(extent.mean()), spill=float(spill.mean()),
        level=float(np.median(values)) / divisor if len(values) else 0.0,
        distinct=int(min(len(np.unique(values)), 1000)), saturated=_saturated(raw[seen], values),
        infinite=int(np.isinf(data).sum()),
        footprint=base64.b85encode(zlib.compress(np.packbits(brain).tobytes(), 9)).decode(),
        divisor=divisor)


def judge(facts: Facts, plan: VolumePlan) -> list[Problem]:
    """What is wrong with one image by itself."""
    found = []
    where = f"the MNI {plan.filled.replace('_', ' ')}"

    def say(what: str, detail: str, refuses: bool) -> None:
        found.append(Problem(what, detail, refuses))

    if facts.infinite:
        say("infinite values; put NaN where nothing was measured", f"{facts.infinite} voxels",
            True)
    if not facts.coverage:
        say(f"no signal in {where}: zero, NaN or one and the same value everywhere, or the image "
            "lies elsewhere", "", True)
        return found
    if facts.coverage < plan.min_coverage:
        say(f"not in MNI space, or cut: {where} should have signal in {plan.min_coverage:.0%} of "
            "its voxels. Register the image to MNI space; if it shows only part of the brain, ask "
            "for less min_coverage or another extent", f"{facts.coverage:.1%}", True)
    elif np.isnan(facts.divisor):
        say(f"nothing above 0 to scale by ({plan.scaling}); ask for no scaling if the image has a "
            "unit or negative values", "", True)
    elif SPILL < facts.spill < HEAD:
        say("signal 6 to 14 mm outside the MNI brain, as if the image were shifted, turned, too "
            "large or not skull-stripped", f"{facts.spill:.0%} of that space", False)
    if facts.distinct == 1:
        say("one value wherever there is signal: a mask, no measurement", f"{facts.level:g}", True)
    elif facts.distinct <= FEW_VALUES:
        say("hardly any different values: labels, no measurement?", f"{facts.distinct}", False)
    if facts.saturated > SATURATED:
        say("saturated: voxels hold the largest or smallest number that the file's integers can "
            "(a wrong scl_slope)", f"{facts.saturated:.1%} of the brain", False)
    if facts.gap > GAP:
        say("voxels of the mask without a value (NaN, cut, or outside the field of view); they "
            "count as missing", f"{facts.gap:.1%}", False)
    return found


def compare(facts: Sequence[Facts]) -> list[list[Problem]]:
    """What is odd about each image beside all others of its modality; the same order.

    Looked at: which part of the brain it lacks that most have (another mask), signal in the skull
    that most have not or have (stripped or not), a level far from the others' (another unit).
    """
    found: list[list[Problem]] = [[] for _ in facts]
    if len(facts) < ENOUGH_TO_COMPARE:
        return found
    count = np.zeros(len(points("brain")), dtype=int)
    for one in facts:
        count += one.signal
    usual = count > len(facts) / 2
    level = float(np.median([one.level for one in facts]))
    heads = np.mean([one.spill > HEAD for one in facts])
    for problems, one in zip(found, facts):
        lacks = 1 - one.signal[usual].mean() if usual.any() else 0.0
        if lacks > UNLIKE:
            problems.append(Problem(
                "masked or cut differently: no signal where most images of the modality have it",
                f"{lacks:.1%} of the brain", False))
        if heads < FEW and one.spill > HEAD:
            problems.append(Problem("not skull-stripped, unlike the others", "", False))
        if heads > 1 - FEW and one.spill < HEAD:
            problems.append(Problem("skull-stripped, unlike the others", "", False))
        if not level / OTHER_UNIT <= one.level <= level * OTHER_UNIT and level > 0:
            problems.append(Problem("another unit or scaling than the others?",
                                    f"median {one.level:.3g}, theirs {level:.3g}", False))
    return found


def _saturated(stored: np.ndarray, values: np.ndarray) -> float:
    if not np.issubdtype(stored.dtype, np.integer) or not len(stored):
        return 0.0
    limits = np.iinfo(stored.dtype)
    top = stored == limits.max
    # a probability of 1 or 100 % as the largest number of the file is how segmentations are stored
    if top.any() and np.abs(values[top][0] / np.array([1.0, 100.0]) - 1).min() < 0.01:
        top = np.zeros_like(top)
    low = stored == limits.min if limits.min < 0 else np.zeros_like(top)
    return float((top | low).mean())

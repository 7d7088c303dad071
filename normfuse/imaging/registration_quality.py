"""Whether to believe a registration."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .registration_search import Linear, Rival, Search, Start, wrong_starts
from .transform import SpatialTransform

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

LEAST_CONTAINED = 0.8
"""Share of the smaller brain inside the other below which they do not lie on one another."""

VOLUMES = (0.5, 2.0)
"""Median determinants of the Jacobian between which heads of adults differ."""

PLACES = (0.2, 5.0)
"""Determinants of single places between which brains differ. Between the occipital poles a person
with multiple sclerosis had 2.4 times the template's volume."""

BEYOND_CHANCE = 0.1
"""Share of the metric by which another orientation has to fit better. Of one person's T1w and T2w
the true orientation was .27 to .56 better than the mirrored one, and the mirrored one .25 to .49
better where the header was wrong; beside a symmetric template both were alike (.01)."""

UNDECIDED = 0.08
"""Share of the metric by which another place has to fit worse. Of 38 registrations of real people
that it was chosen on, those that had lost their way (17 mm or more) had a rival worse by .01 to
.06, one of them by .16; those that had not by .11 at least, mostly by more than .3, or none, and a
DTI that lay well on the template .09."""


@dataclass(frozen=True)
class RegistrationQuality:
    """What was seen of a registration's end.

    Attributes
    ----------
    overlap : float
        Dice of both brains' outlines; small too where one image shows only a part.
    contained : float
        Share of the smaller outline that lies in the other.
    metric : float
        What was made small, at the end: minus mutual information in nats, or minus the
        squared correlation of representations.
    jacobian : (float, float)
        Least and largest determinant in the fixed brain.
    header : str
        "" or how the moving image has to be turned or mirrored to fit better than as its header
        says.
    margin : float
        By how much of the metric, where negative the header's orientation fits best.
    rival : Rival
        The best end of the search more than 10 mm elsewhere: by which share of the metric it was
        worse, and how far away, mm; both infinite if there was none.
    problems : tuple of str
    """

    overlap: float
    contained: float
    metric: float
    jacobian: tuple[float, float]
    header: str
    margin: float
    rival: Rival
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing was found against it."""
        return not self.problems

    def __str__(self) -> str:
        return (f"{'ok' if self.ok else 'NOT OK: ' + '; '.join(self.problems)}; overlap "
                f"{self.overlap:.2f}, metric {self.metric:.3g}")


def judged(search: Search, transform: SpatialTransform, value: float, kind: Any, end: Linear,
           rival: Rival, outlines: tuple[Nifti1Image, Nifti1Image]) -> RegistrationQuality:
    """Of the transform found, with the metric at its end, the kind and end of its linear part and
    the best end elsewhere; ``outlines`` are those of the moving and the fixed brain, 0 or 1."""
    moving, fixed = outlines
    there = np.asanyarray(transform.resample(moving, fixed).dataobj) > 0.5
    brain = np.asanyarray(fixed.dataobj) > 0.5
    both = float((there & brain).sum())
    cell = abs(np.linalg.det(fixed.affine[:3, :3]) / np.linalg.det(moving.affine[:3, :3]))
    volumes = transform.jacobian(fixed)[brain]
    ends, usual = (float(volumes.min()), float(volumes.max())), float(np.median(volumes))
    # what left the fixed image's field of view counts as not overlapping
    whole = float(np.asanyarray(moving.dataobj).sum()) / cell / usual
    whole = max(whole, float(there.sum()))  # a bend's median is not what the whole changed by
    overlap = 2 * both / max(float(brain.sum()) + whole, 1)
    contained = both / max(min(float(brain.sum()), whole), 1)
    margin, header = _header(search, kind, end)
    return RegistrationQuality(float(overlap), float(contained), value, ends, header, margin,
                               rival, tuple(_problems(contained, value, search.likeness.least,
                                                      ends, usual, header, rival)))


def _header(search: Search, kind: Any, end: Linear) -> tuple[float, str]:
    """By how much of the metric another orientation than the header's fits better, and which.

    Coarse and rigid searches are deceived by bias fields and other sizes: what they suspect is
    confirmed a level finer, by the kind that was asked for.
    """
    starts = wrong_starts()
    coarse = search.coarse(*_turn_of(end))[0]
    others = [search.coarse(start.matrix(), search.shift) for start in starts]
    k = int(np.argmin([value for value, _ in others]))
    margin = _better(others[k][0], coarse)
    if margin > BEYOND_CHANCE:
        finer = [search.coarse(*one, kind, middle=True)[0] for one in (others[k][1], end)]
        margin = min(margin, _better(*finer))
    return margin, _named(starts[k]) if margin > BEYOND_CHANCE else ""


def _better(value: float, than: float) -> float:
    return float((than - value) / max(abs(than), 1e-12))


def _turn_of(linear: Linear) -> Linear:
    """The rigid part of a linear transform: coarse searches that are compared are rigid."""
    u, _, v = np.linalg.svd(linear[0])
    return u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v, linear[1]


def _problems(contained: float, value: float, least: float, ends: tuple[float, float],
              usual: float, header: str, rival: Rival) -> list[str]:
    found = []
    if not np.isfinite(value):
        found.append("the search left the images: they may show different things")
    elif -value < least:
        found.append("the images have hardly anything in common where they were laid on one "
                     f"another (metric {value:.2g}); is it another thing, or another's header?")
    if contained < LEAST_CONTAINED:
        found.append(f"the outlines overlap little: {contained:.0%} of the smaller one; where "
                     "fields are strong, BiasCorrected(…) (--correct-bias) may find the way")
    if ends[0] <= 0:
        found.append(f"the deformation folds (determinant {ends[0]:.2g}); take wider spacing")
    elif not VOLUMES[0] <= usual <= VOLUMES[1]:
        found.append(f"volumes change by {usual:.2f}: more than heads differ")
    elif ends[0] < PLACES[0] or ends[1] > PLACES[1]:
        found.append(f"places change their volume by {ends[0]:.2f} to {ends[1]:.2f}: more than "
                     "brains differ; take wider spacing")
    if rival.worse < UNDECIDED:
        found.append(f"another place {rival.mm:.0f} mm away fits nearly as well (metric worse by "
                     f"{rival.worse:.0%}): the search may have lost its way; try "
                     "BiasCorrected(…) (--correct-bias), or Then(…) of representations")
    if header:
        found.append(f"the moving image fits better {header}: look whether its header is true")
    return found


def _named(start: Start) -> str:
    axes = [axis for axis, angle in zip("xyz", start.turn) if angle]
    words = [f"turned by 180 degrees about {axes[0]}"] if axes else []
    return " and ".join([*words, *["mirrored left to right"] * start.mirrored])

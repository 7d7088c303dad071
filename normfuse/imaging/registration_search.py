"""The search for where an image lies: SimpleITK's, from coarse to fine, from several starts."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .likeness import Likeness
from .registration_kinds import Deformable, Rigid
from .volume_grids import in_steps_of, to_itk

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

COARSE_MM = 8.0
"""Voxels at which several starts are tried."""

COARSE_STEP_MM, COARSE_STEPS = 1.0, 150
"""Longest step of those searches, and how many. With steps of 4 mm they left good starts."""

KEPT = 3
"""Ends of coarse searches that are refined, beside the first's."""

SAME_MM = 4.0
"""Half a coarse voxel: ends of searches that are nearer are one."""

ELSEWHERE_MM = 10.0
"""Further away than this lies another place, and not the same one found less well."""

BRAIN_MM = 60.0
"""Of a brain's radius: how far from its middle ends are compared."""

RIM_MM = 6.0
"""How far beyond the fixed brain values are compared: its outline tells much."""

SAMPLED = 60_000
"""Voxels a metric is computed from, drawn once a level."""

Linear = tuple[np.ndarray, np.ndarray]
"""A and t of A (x - c) + c + t, c the middle of the fixed brain."""

TURNS = 25.0
"""Degrees that starts are apart from one another about each axis."""

WIDE = 60.0
"""Degrees of the starts beyond those."""


@dataclass(frozen=True)
class Start:
    """Where a search begins: turned about the centre, sides swapped or not."""

    turn: tuple[float, float, float]
    mirrored: bool = False

    def matrix(self) -> np.ndarray:
        """3 x 3."""
        from scipy.spatial.transform import Rotation

        turned = Rotation.from_euler("xyz", self.turn, degrees=True).as_matrix()
        return np.asarray(turned @ np.diag([-1.0 if self.mirrored else 1.0, 1, 1]))


def near_starts() -> list[Start]:
    """As the header says, and turned a little about each axis."""
    away = [sign * TURNS for sign in (-1, 1)]
    return [Start((0.0, 0.0, 0.0)), *(Start((a, 0.0, 0.0)) for a in away),
            *(Start((0.0, a, 0.0)) for a in away), *(Start((0.0, 0.0, a)) for a in away)]


def wide_starts() -> list[Start]:
    """:func:`near_starts`, and turned by 60 degrees either way about seven axes.

    >>> len(near_starts()), len(wide_starts())
    (7, 21)
    """
    from scipy.spatial.transform import Rotation

    axes = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, 1, -1), (1, -1, 1),
                     (-1, 1, 1)])
    turned = np.deg2rad(WIDE) * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    angles = Rotation.from_rotvec(np.vstack([turned, -turned])).as_euler("xyz", degrees=True)
    return near_starts() + [Start((float(x), float(y), float(z))) for x, y, z in angles]


def wrong_starts() -> list[Start]:
    """How images lie whose headers confuse axes' directions."""
    turns = ((0.0, 0.0, 0.0), (180.0, 0.0, 0.0), (0.0, 180.0, 0.0), (0.0, 0.0, 180.0))
    return [Start(turn, mirrored) for turn, mirrored in product(turns, (False, True))][1:]


class Rival(NamedTuple):
    """Another place that fits: worse by which share of the metric, and how far away, mm."""

    worse: float
    mm: float


NO_RIVAL = Rival(np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Search:
    """Two images that are compared, and by what.

    Parameters
    ----------
    moving, fixed : Nifti1Image
        From ``likeness.images``.
    mask : Nifti1Image
        Where the fixed image is compared, 0 or 1.
    centre, shift : ndarray of 3, ITK's mm
        Middle of the fixed brain, and from there to that of the moving one.
    likeness : Likeness
    seed : int
        Of the voxels that are looked at.
    """

    moving: Nifti1Image
    fixed: Nifti1Image
    mask: Nifti1Image
    centre: np.ndarray
    shift: np.ndarray
    likeness: Likeness
    seed: int = 0

    def placed(self, starts: Sequence[Start], kind: Any, others: Sequence[Linear] = ()
               ) -> tuple[Linear, Rival]:
        """Where the refinement begins, and the best end elsewhere.

        Coarse metrics do not tell good ends from bad ones under strong fields or of a slab: those
        of the first start and of the few best ones are refined at the middle resolution before
        they are compared, and so are ``others``, found elsewhere.
        """
        found = [self.coarse(start.matrix(), self.shift, kind) for start in starts]
        ranked = [found[0], *sorted(found[1:], key=lambda end: end[0])[:KEPT]]
        ends: list[Linear] = []
        for end in [*(linear for value, linear in ranked if np.isfinite(value)), *others]:
            if all(apart(end, known) > SAME_MM for known in ends):
                ends.append(end)
        transforms = [kind.after(*end, self.centre) for end in ends or [found[0][1]]]
        values = [self._improve(transform, self._middle) for transform in transforms]
        ends = [linear_of(transform, self.centre) for transform in transforms]
        best = int(np.argmin(values))
        least = values[best]
        rivals = [Rival((value - least) / max(abs(least), 1e-12), apart(end, ends[best]))
                  for value, end in zip(values, ends)]
        return ends[best], min([r for r in rivals if r.mm > ELSEWHERE_MM], default=NO_RIVAL)

    @cached_property
    def _images(self) -> tuple[Any, Any, Any]:
        """Fixed, moving and mask, SimpleITK's."""
        import SimpleITK as sitk

        fixed, moving, mask = map(to_itk, (self.fixed, self.moving, self.mask))
        return fixed, moving, sitk.Cast(mask > 0.5, sitk.sitkUInt8)

    @cached_property
    def _coarse_images(self) -> tuple[Any, Any]:
        mm = max(COARSE_MM, self.likeness.resolution)
        return to_itk(in_steps_of(self.fixed, mm)), to_itk(in_steps_of(self.moving, mm))

    def coarse(self, matrix: np.ndarray, offset: np.ndarray, kind: Any = Rigid(),
               middle: bool = False) -> tuple[float, Linear]:
        """A short search from A (x - c) + c + t, mirrored or not; metric and end."""
        import SimpleITK as sitk

        transform: Any = kind.after(np.eye(3), offset, self.centre)
        fixed_frame = sitk.AffineTransform(3)
        fixed_frame.SetCenter((self.centre + offset).tolist())
        fixed_frame.SetMatrix(matrix.ravel().tolist())
        # the start acts on the moving side: x -> S(R x)
        method = self._method([self._middle if middle else 0.0], fixed_frame)
        _descending(method, COARSE_STEPS, COARSE_STEP_MM)
        method.SetInitialTransform(transform, True)
        value = _executed(method, *(self._images[:2] if middle else self._coarse_images))
        turned = matrix @ np.reshape(transform.GetMatrix(), (3, 3))
        end = np.array(fixed_frame.TransformPoint(transform.TransformPoint(self.centre.tolist())))
        return value, (turned, end - self.centre)

    def refined(self, kind: Any, linear: Linear) -> tuple[float, Any]:
        """From where :meth:`placed` ended, at the finest resolution; metric and transform."""
        transform = kind.after(*linear, self.centre)
        return self._improve(transform, self.likeness.resolution), transform

    @property
    def _middle(self) -> float:
        """Between the coarse and the finest resolution, mm."""
        finest = self.likeness.resolution
        return 2 * finest if 2 * finest < COARSE_MM else finest

    def _improve(self, transform: Any, mm: float) -> float:
        """Descend in place; the metric reached."""
        method = self._method([mm])
        _descending(method, 150, self.likeness.resolution / 2)
        method.SetInitialTransform(transform, True)
        return _executed(method, *self._images[:2])

    def bent(self, kind: Deformable, before: Any) -> tuple[float, Any]:
        """A B-spline over the fixed image, to be followed by ``before``."""
        import SimpleITK as sitk

        fixed = self._images[0]
        sides = np.array(fixed.GetSize()) * fixed.GetSpacing()
        mesh = np.maximum(1, np.round(sides / kind.spacing)).astype(int).tolist()
        transform = sitk.BSplineTransformInitializer(fixed, mesh, order=3)
        finest = self.likeness.resolution
        method = self._method([max(4.0, finest)], before)
        method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-6,
                                    numberOfIterations=kind.iterations,
                                    maximumNumberOfCorrections=5)
        method.SetInitialTransform(transform, True)
        return _executed(method, *self._images[:2]), transform

    def _method(self, levels: list[float], moving_initial: Any = None) -> Any:
        """Levels are voxel sizes in mm; 0: the images as they are."""
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        self.likeness.set(method)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricFixedMask(self._images[2])
        method.SetNumberOfThreads(1)
        finest = self.likeness.resolution
        shrinks = [max(1, round(mm / finest)) for mm in levels]
        method.SetShrinkFactorsPerLevel(shrinks)
        method.SetSmoothingSigmasPerLevel([mm / 2 if s > 1 else 0.0
                                           for mm, s in zip(levels, shrinks)])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        if all(levels):
            voxels = float(np.prod(self.fixed.shape))
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentagePerLevel(
                [min(1.0, max(SAMPLED * s ** 3 / voxels, 1e-3)) for s in shrinks], self.seed + 1)
        if moving_initial is not None:
            method.SetMovingInitialTransform(moving_initial)
        return method


def _descending(method: Any, iterations: int, step: float) -> None:
    """Steps of so many mm at most, anywhere in the image: a step of so many units of the
    parameters, ITK's default, may be a turn by as many radians."""
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=iterations, relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8, estimateLearningRate=method.EachIteration,
        maximumStepSizeInPhysicalUnits=step)
    method.SetOptimizerScalesFromPhysicalShift()


def _executed(method: Any, fixed: Any, moving: Any) -> float:
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # ITK stops when images have left one another
        return float("inf")
    return float(method.GetMetricValue())


def apart(one: Linear, two: Linear) -> float:
    """Of two linear transforms, the mean distance at points of a brain around the centre, mm."""
    turned = BRAIN_MM * (one[0] - two[0])
    return float(np.linalg.norm([one[1] - two[1], *turned.T, *-turned.T], axis=1).mean())


def linear_of(transform: Any, centre: np.ndarray) -> Linear:
    """A and t of A (x - c) + c + t."""
    moved = np.array(transform.TransformPoint(centre.tolist()))
    return np.reshape(transform.GetMatrix(), (3, 3)), moved - centre

"""What a registration may do to an image."""
from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..fusion import Choice


class RegistrationKind(Choice):
    """How a registration may move an image."""

    @abstractmethod
    def stages(self) -> tuple[RegistrationKind, ...]:
        """A linear one, and what bends begins where that ended."""


@dataclass(frozen=True, repr=False)
class Rigid(RegistrationKind):
    """Turned and shifted: images of one person.

    >>> Rigid().stages()
    (Rigid(),)
    """

    def stages(self) -> tuple[RegistrationKind, ...]:
        return (self,)

    def after(self, matrix: np.ndarray, offset: np.ndarray, centre: np.ndarray) -> Any:
        """The transform A (x - c) + c + t, ready to be improved."""
        import SimpleITK as sitk

        found = sitk.Euler3DTransform()
        found.SetCenter(centre.tolist())
        found.SetMatrix(matrix.ravel().tolist(), 1e-6)
        found.SetTranslation(offset.tolist())
        return found


@dataclass(frozen=True, repr=False)
class Affine(RegistrationKind):
    """Also stretched and sheared: one person's head to a template, distorted images.

    >>> Affine().stages()
    (Affine(),)
    """

    def stages(self) -> tuple[RegistrationKind, ...]:
        return (self,)

    def after(self, matrix: np.ndarray, offset: np.ndarray, centre: np.ndarray) -> Any:
        """The transform A (x - c) + c + t, ready to be improved."""
        import SimpleITK as sitk

        found = sitk.AffineTransform(3)
        found.SetCenter(centre.tolist())
        found.SetMatrix(matrix.ravel().tolist())
        found.SetTranslation(offset.tolist())
        return found


@dataclass(frozen=True, repr=False)
class Deformable(RegistrationKind):
    """Also bent: a cubic B-spline over a grid of control points after the affine.

    Parameters
    ----------
    spacing : float, mm
        Between control points.
    iterations : int
        Of L-BFGS-B.

    Examples
    --------
    >>> Deformable(spacing=30).stages()
    (Affine(), Deformable(spacing=30))
    """

    spacing: float = 40.0
    iterations: int = 30

    def __post_init__(self) -> None:
        if not 10 <= self.spacing <= 200:
            raise ValueError("spacing is a distance of 10 to 200 mm between control points; got "
                             f"{self.spacing!r}")

    def stages(self) -> tuple[RegistrationKind, ...]:
        return (Affine(), self)

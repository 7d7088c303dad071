"""Scales of images without a unit: each image divided by something of its own brain."""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from .points import points, signal_at

ENOUGH = 500
"""Points with signal for a landmark to be found; the white matter has 9,084, the brain
29,398."""


class Scaling(ABC):
    r"""What an image is divided by, so that images of people can be compared.

    .. math:: y = x / d(x), \qquad d(a x) = a\, d(x) \quad (a > 0)

    A zero stays a zero, so background stays background. Found in the image as it is, before it is
    smoothed.
    """

    @abstractmethod
    def divisor(self, data: np.ndarray, affine: np.ndarray) -> float:
        """The image's landmark, in its own unit; NaN if it cannot be found.

        Parameters
        ----------
        data : ndarray, shape (i, j, k)
            In MNI space.
        affine : ndarray, shape (4, 4)
        """


@dataclass(frozen=True)
class WhiteMatterMode(Scaling):
    r"""Divide by the most frequent value of white matter: for T1w, T2w, FLAIR and the like.

    The mode of the values at the points of the template's white-matter mask (4 mm apart), by a
    Gaussian kernel density with Silverman's robust bandwidth
    :math:`0.9 \min(s, \mathrm{IQR}/1.34)\, n^{-1/5}`. A mode, and not a mean, since lesions and
    what the registration missed are then no part of it.

    References
    ----------
    Shinohara et al. 2014, doi:10.1016/j.nicl.2014.08.008 (WhiteStripe), who also subtract the
    mode and divide by the spread around it; we keep the zero, and ask nothing of the noise.

    Examples
    --------
    >>> from normfuse.volumes import template_space
    >>> white = template_space("white_matter", 4)
    >>> flair = np.where(white.mask, 620.0, 700.0)
    >>> flair[:, 36:] += 900 * white.mask[:, 36:]  # lesions
    >>> round(WhiteMatterMode().divisor(flair, white.affine))
    620
    """

    def divisor(self, data: np.ndarray, affine: np.ndarray) -> float:
        values = _values(data, affine, "white_matter")
        if len(values) < ENOUGH:
            return float("nan")
        quarter, half, three = np.percentile(values, (25, 50, 75))
        width = 0.9 * min(values.std(), (three - quarter) / 1.34) * len(values) ** -0.2
        if not width > 0:  # more than half of it is one and the same value
            return float(half)
        low, high = np.percentile(values, (1, 99))
        grid = np.linspace(low, high, 512)
        density = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(axis=1)
        return float(grid[density.argmax()])


@dataclass(frozen=True)
class BrainMean(Scaling):
    """Divide by the mean over the brain: relative uptake or perfusion ("proportional scaling").

    A change of the whole brain is lost, and a large focal one lowers or raises all the rest.

    Examples
    --------
    >>> from normfuse.volumes import template_space
    >>> brain = template_space("brain", 4)
    >>> BrainMean().divisor(np.where(brain.mask, 40.0, 0.0), brain.affine)
    40.0
    """

    def divisor(self, data: np.ndarray, affine: np.ndarray) -> float:
        values = _values(data, affine, "brain")
        return float(values.mean()) if len(values) >= ENOUGH else float("nan")


SCALINGS: dict[str, Scaling] = {"white_matter": WhiteMatterMode(), "brain_mean": BrainMean()}
"""By their names in ``cohort.toml``."""


def _values(data: np.ndarray, affine: np.ndarray, where: str) -> np.ndarray:
    seen, index = signal_at(data, affine, points(where))
    return np.asarray(data[index], dtype=np.float64)

"""A person's images in several contrasts: anatomy, physics, bias field, noise."""
from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ..space import Space
from ..volumes.sampling import FWHM_IN_SD
from .anatomy import YOUNG, Anatomy, Template, smooth
from .physics import SEQUENCES, TISSUES, Quantity, Tissue

BIAS, OWN_BIAS, BIAS_MM = 0.08, 0.04, 70.0
"""Of the receive field: sd of the logarithm of what all contrasts share and of what is one's own,
and smoothness. 95 % within .84 and 1.19; BrainWeb's "20 %" is .9 to 1.1, its "40 %" .8 to 1.2."""

TISSUE_SD, WATER_SD, WATER_MM = 0.03, 0.04, 25.0
"""sd of the logarithm of a person's T1, T2 and density of each tissue; and of how wet grey and
white matter are from place to place, which all contrasts show, each in its way."""

NOISE = {"FA": 0.03, "MD": 0.06, "PET": 0.06}
MR_NOISE = 0.025  # sd in each channel, as a share of white matter's signal
PET_MM = 6.0  # resolution of the PET scanner
LEAST = 1e-3  # an exact 0 would be background


@dataclass(frozen=True, eq=False)
class Scans:
    """One person's images and what is true of them.

    Attributes
    ----------
    values : dict of ndarray, float32, shape (n_voxels,)
        Contrast -> values. MR contrasts are in units of the image's mean in white matter.
    anatomy : Anatomy
    """

    values: dict[str, np.ndarray]
    anatomy: Anatomy

    def at(self, voxels: np.ndarray) -> Scans:
        """Of some voxels only."""
        return Scans({name: v[voxels] for name, v in self.values.items()},
                     self.anatomy.at(voxels))


class Scanner:
    """Images of people on one grid.

    Parameters
    ----------
    space : Space
    contrasts : sequence of str
        Of ``SEQUENCES``.

    Examples
    --------
    >>> from normfuse.volumes.plan import template_space
    >>> scanner = Scanner(template_space("brain", 8), ["T1w", "FLAIR"])
    >>> scans = scanner.scan(np.random.default_rng(0), lesion="sclerosis")
    >>> plaque = scans.anatomy.labels == 1
    >>> bool(scans.values["FLAIR"][plaque].mean() > 1.2)     # bright
    True
    """

    def __init__(self, space: Space, contrasts: Seq[str]) -> None:
        self.space, self.contrasts = space, tuple(contrasts)
        self.template = Template(space)

    def scan(self, rng: np.random.Generator, lesion: str | None = None, age: float = YOUNG,
             only: Seq[str] | None = None) -> Scans:
        """A new person; of the contrasts ``only`` some, which are the same with and without
        others."""
        body, chemistry, water, field, *own = rng.spawn(4 + len(SEQUENCES))
        anatomy = self.template.person(body, lesion, age)
        tissues = {name: TISSUES[name].jittered(chemistry, TISSUE_SD) for name in TISSUES}
        wet = {name: WATER_SD * smooth(self.space, WATER_MM, water)[self.space.mask]
               for name in ("grey", "white")}
        bias = BIAS * smooth(self.space, BIAS_MM, field)[self.space.mask]
        streams = dict(zip(SEQUENCES, own))
        return Scans({name: self._image(name, anatomy, tissues, wet, bias, streams[name])
                      for name in (self.contrasts if only is None else only)}, anatomy)

    def _image(self, name: str, anatomy: Anatomy, tissues: dict[str, Tissue],
               wet: dict[str, np.ndarray], bias: np.ndarray, rng: np.random.Generator
               ) -> np.ndarray:
        sequence = SEQUENCES[name].jittered(rng)
        signal = np.zeros(self.space.n_voxels, dtype=np.float32)
        for kind, share in anatomy.shares.items():
            full = sequence.signal(tissues[kind]) * share
            if kind in wet:  # signals are nearly exponential in how wet tissue is
                low, high = (sequence.signal(tissues[kind].wetter(by))
                             for by in (-WATER_SD, WATER_SD))
                full *= np.exp(np.log(high / low) / (2 * WATER_SD) * wet[kind])
            signal += full
        if isinstance(sequence, Quantity):
            if name == "PET":
                signal = self._blurred(signal)
            signal += NOISE[name] * rng.standard_normal(len(signal), dtype=np.float32)
            return np.maximum(signal, LEAST)
        own = bias + OWN_BIAS * smooth(self.space, BIAS_MM, rng)[self.space.mask]
        noise = MR_NOISE * sequence.signal(TISSUES["white"])
        signal = rician(signal * np.exp(own), noise, rng)
        white = anatomy.shares["white"]
        return signal / signal[white > min(0.9, np.quantile(white, 0.95))].mean()

    def _blurred(self, signal: np.ndarray) -> np.ndarray:
        """As the scanner does; what is outside the brain takes no part."""
        image = np.zeros(self.space.shape, dtype=np.float32)
        image[self.space.mask] = signal
        sd = PET_MM / FWHM_IN_SD / np.array(self.space.voxel_size)
        weight = gaussian_filter(self.space.mask.astype(np.float32), sd)
        return (gaussian_filter(image, sd) / np.maximum(weight, LEAST))[self.space.mask]


def rician(signal: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    r"""The magnitude :math:`|s + \epsilon_1 + i \epsilon_2|`, noise N(0, sd^2) in both channels.

    Gudbjartsson and Patz (1995), doi 10.1002/mrm.1910340618.

    Examples
    --------
    Where there is no signal, noise is not 0 on average:

    >>> air = rician(np.zeros(100_000), 1.0, np.random.default_rng(0))
    >>> bool(abs(air.mean() - np.sqrt(np.pi / 2)) < 0.01)
    True
    """
    real, imaginary = sd * rng.standard_normal((2, len(signal)), dtype=np.float32)
    return np.hypot(signal + real, imaginary)

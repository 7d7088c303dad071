"""Multi-contrast images of simulated people: anatomy, physics, lesions, noise, missing scans."""
from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ..space import Space
from ..volumes.sampling import FWHM_IN_SD
from .anatomy import Anatomy, Template, smooth
from .physics import SEQUENCES, TISSUES, Quantity, Tissue

BIAS, BIAS_MM = 0.08, 70.0
"""Of the receive field: sd of its logarithm, and its smoothness."""

TISSUE_SD, PLACE_SD, PLACE_MM = 0.03, 0.04, 25.0
"""sd of the logarithm of a person's T1, T2 and density of each tissue; and of their variation
from place to place, which all contrasts share through the tissues' signals."""

NOISE = {"FA": 0.03, "MD": 0.06, "PET": 0.06}
MR_NOISE = 0.025  # sd in each channel, as a share of white matter's signal
PET_MM = 6.0  # resolution of the PET scanner


@dataclass(frozen=True, eq=False)
class Scans:
    """One person's images and what is true of them.

    Attributes
    ----------
    values : dict of ndarray, float32, shape (n_voxels,)
        Contrast -> values. MR contrasts are in units of the person's mean in white matter.
    anatomy : Anatomy
    """

    values: dict[str, np.ndarray]
    anatomy: Anatomy


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

    def scan(self, rng: np.random.Generator, lesion: str | None = None) -> Scans:
        """A new person."""
        anatomy = self.template.person(rng, lesion)
        tissues = {name: _jittered(TISSUES[name], rng) for name in TISSUES}
        places = {name: np.exp(PLACE_SD * smooth(self.space, PLACE_MM, rng)[self.space.mask])
                  for name in ("grey", "white")}
        bias = BIAS * smooth(self.space, BIAS_MM, rng)[self.space.mask]
        # each contrast draws from a stream of its own: leaving one out changes no other
        streams = dict(zip(SEQUENCES, rng.spawn(len(SEQUENCES))))
        return Scans({name: self._image(name, anatomy, tissues, places, bias, streams[name])
                      for name in self.contrasts}, anatomy)

    def _image(self, name: str, anatomy: Anatomy, tissues: dict[str, Tissue],
               places: dict[str, np.ndarray], bias: np.ndarray, rng: np.random.Generator
               ) -> np.ndarray:
        sequence = SEQUENCES[name].jittered(rng)
        signal = np.zeros(self.space.n_voxels)
        for tissue, share in anatomy.shares.items():
            signal += share * sequence.signal(tissues[tissue]) * places.get(tissue, 1.0)
        white = sequence.signal(TISSUES["white"])
        if isinstance(sequence, Quantity):
            if name == "PET":
                signal = self._blurred(signal)
            signal += NOISE[name] * rng.standard_normal(len(signal))
            return np.maximum(signal, 1e-3).astype(np.float32)
        own = bias + 0.5 * BIAS * smooth(self.space, BIAS_MM, rng)[self.space.mask]
        real, imaginary = MR_NOISE * white * rng.standard_normal((2, len(signal)))
        signal = np.hypot(signal * np.exp(own) + real, imaginary)  # Rician
        inside = anatomy.shares["white"] > 0.9
        return (signal / signal[inside].mean()).astype(np.float32)

    def _blurred(self, signal: np.ndarray) -> np.ndarray:
        image = np.zeros(self.space.shape)
        image[self.space.mask] = signal
        sd = PET_MM / FWHM_IN_SD / np.array(self.space.voxel_size)
        weight = gaussian_filter(self.space.mask.astype(float), sd)[self.space.mask]
        return gaussian_filter(image, sd)[self.space.mask] / weight


def _jittered(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    t1, t2, density = np.exp(TISSUE_SD * rng.standard_normal(3)) * (tissue.t1, tissue.t2,
                                                                    tissue.density)
    fa, md, pet = np.exp(TISSUE_SD * rng.standard_normal(3)) * (tissue.fa, tissue.md, tissue.pet)
    return Tissue(t1, t2, density, tissue.uptake, fa, md, pet)

"""What a scanner measures of a mixture of tissues: the signal equations, and tissue constants."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Tissue:
    """What a voxel full of one tissue is like, at 1.5 T.

    Parameters
    ----------
    t1, t2 : float
        Relaxation times, ms.
    density : float
        Of protons, relative to water.
    uptake : float
        By how much contrast agent raises the relaxation rate 1/t1, per second.
    fa, md, pet : float
        Fractional anisotropy; mean diffusivity, 1e-3 mm2/s; tracer uptake, SUVR.

    Examples
    --------
    >>> wet = TISSUES["white"].wetter(0.1)
    >>> wet.t1 > TISSUES["white"].t1, wet.fa < TISSUES["white"].fa
    (True, True)
    """

    t1: float
    t2: float
    density: float
    uptake: float
    fa: float
    md: float
    pet: float

    def wetter(self, by: float) -> Tissue:
        """With more free water: all relaxes and diffuses by a factor exp(by) more slowly or
        freely, protons are denser, and less is anisotropic or takes tracer up."""
        more = float(np.exp(by))
        return Tissue(self.t1 * more, self.t2 * more, self.density * more**WATER_DENSITY,
                      self.uptake, self.fa / more, self.md * more, self.pet / more)

    def jittered(self, rng: np.random.Generator, sd: float) -> Tissue:
        """Another person's: every constant but uptake multiplied by exp(N(0, sd^2))."""
        t1, t2, density, fa, md, pet = np.exp(sd * rng.standard_normal(6))
        return Tissue(self.t1 * t1, self.t2 * t2, self.density * density, self.uptake,
                      self.fa * fa, self.md * md, self.pet * pet)


WATER_DENSITY = 1 / 3
"""By how much of its logarithm proton density follows relaxation times when tissue gets wetter."""

# T1, T2, density at 1.5 T elsewhere. BrainWeb (Collins et al. 1998): grey 833, 83, .86; white
# 500, 70, .77; fluid 2569, 329, 1; plaque 752, 237, .76. Stanisz et al. (2005): grey 1124, 95;
# white 884, 72. Textbooks: fluid 4200 to 4500, 2100 to 2300. Density .78, .65, .97 (Ernst et al.
# 1993). Uptake of white matter .032 and oedema .047 per second (Blystad et al. 2020, doi
# 10.1038/s41598-020-75105-6); the T1 of enhancing tumour falls by 838 ms (sd 210), of oedema by
# 123 (74), of healthy tissue by 32 (35) ("Quantitative T1 mapping indicates tumor infiltration
# beyond the enhancing part of glioblastomas", 2020). In these ranges, values are such that tissues
# are about as bright beside white matter as in three patients (tests/test_simulated_images.py).
# Lesions are otherwise made up, as is PET.
TISSUES: Mapping[str, Tissue] = {
    "grey": Tissue(950, 90, 0.82, 0.05, 0.14, 0.85, 1.20),
    "white": Tissue(600, 80, 0.70, 0.03, 0.44, 0.75, 0.94),
    "fluid": Tissue(4500, 2200, 1.00, 0.02, 0.08, 3.00, 0.50),
    "sclerosis": Tissue(1100, 115, 0.85, 0.10, 0.25, 1.05, 0.85),
    "oedema": Tissue(1300, 150, 0.88, 0.05, 0.20, 1.35, 0.80),
    "core": Tissue(2300, 320, 0.93, 0.08, 0.10, 1.90, 0.60),
    "enhancing": Tissue(1150, 130, 0.85, 2.50, 0.15, 1.10, 2.20)}


@dataclass(frozen=True)
class SpinEcho:
    r"""Spin echo: :math:`\rho (1 - e^{-TR/T_1}) e^{-TE/T_2}`.

    Parameters
    ----------
    tr, te : float
        Repetition and echo time, ms.
    contrast : bool
        After contrast agent: 1/T1 is raised by a tissue's uptake.

    Examples
    --------
    >>> t2w = SpinEcho(4500, 100)
    >>> t2w.signal(TISSUES["fluid"]) > t2w.signal(TISSUES["grey"]) > t2w.signal(TISSUES["white"])
    True
    """

    tr: float
    te: float
    contrast: bool = False

    def signal(self, tissue: Tissue) -> float:
        """Of a voxel full of it."""
        t1 = _t1(tissue, self.contrast)
        return float(tissue.density * (1 - np.exp(-self.tr / t1)) * np.exp(-self.te / tissue.t2))

    def jittered(self, rng: np.random.Generator, sd: float = 0.03) -> SpinEcho:
        """Another scanner's protocol: times multiplied by exp(N(0, sd^2))."""
        tr, te = np.exp(sd * rng.standard_normal(2)) * (self.tr, self.te)
        return replace(self, tr=float(tr), te=float(te))


@dataclass(frozen=True)
class InversionRecovery:
    r"""Inversion recovery, magnitude:
    :math:`\rho |1 - 2 e^{-TI/T_1} + e^{-TR/T_1}| e^{-TE/T_2}`.

    Parameters
    ----------
    tr, te, ti : float
        Repetition, echo and inversion time, ms.

    Examples
    --------
    Fluid is nulled, which is what FLAIR is for:

    >>> flair = InversionRecovery(9000, 120, 2540)
    >>> flair.signal(TISSUES["fluid"]) < 0.05 * flair.signal(TISSUES["grey"])
    True
    """

    tr: float
    te: float
    ti: float

    def signal(self, tissue: Tissue) -> float:
        """Of a voxel full of it."""
        recovered = 1 - 2 * np.exp(-self.ti / tissue.t1) + np.exp(-self.tr / tissue.t1)
        return float(tissue.density * abs(recovered) * np.exp(-self.te / tissue.t2))

    def jittered(self, rng: np.random.Generator, sd: float = 0.03) -> InversionRecovery:
        """Another scanner's protocol; the inversion time is tuned better than the others."""
        tr, te, ti = np.exp(np.array([sd, sd, sd / 6]) * rng.standard_normal(3)) \
            * (self.tr, self.te, self.ti)
        return replace(self, tr=float(tr), te=float(te), ti=float(ti))


@dataclass(frozen=True)
class Quantity:
    """A map of a quantity, the same on every scanner: ``fa``, ``md`` or ``pet`` of a tissue.

    Examples
    --------
    >>> Quantity("fa").signal(TISSUES["white"])
    0.44
    """

    name: str

    def signal(self, tissue: Tissue) -> float:
        """Of a voxel full of it."""
        return float(getattr(tissue, self.name))

    def jittered(self, rng: np.random.Generator) -> Quantity:
        """Itself."""
        return self


Sequence = SpinEcho | InversionRecovery | Quantity

SEQUENCES: Mapping[str, Sequence] = {
    "T1w": InversionRecovery(2300, 3, 1100), "T1c": SpinEcho(550, 12, contrast=True),
    "T2w": SpinEcho(4500, 100), "FLAIR": InversionRecovery(9000, 120, 2540),
    "FA": Quantity("fa"), "MD": Quantity("md"), "PET": Quantity("pet")}
"""Contrast -> how it is measured. A new one goes to the end: each has its own random stream."""

UNITS: Mapping[str, str] = {
    **dict.fromkeys(("T1w", "T1c", "T2w", "FLAIR"), "white matter = 1"),
    "FA": "FA", "MD": "1e-3 mm2/s", "PET": "SUVR"}


def _t1(tissue: Tissue, contrast: bool) -> float:
    return 1 / (1 / tissue.t1 + tissue.uptake / 1000) if contrast else tissue.t1

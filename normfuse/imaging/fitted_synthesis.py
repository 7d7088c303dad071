"""What a synthesiser has learned, and how its latents are drawn."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

import pandas as pd

from ..modality import Modality
from .images import Frame, Units
from .synthesis_net import SynthesisNet
from .widths import Widths


@dataclass(frozen=True, eq=False)
class FittedSynthesis:
    """What a synthesiser has learned.

    Attributes
    ----------
    frame : Frame
    units : Units
    modalities : tuple of Modality
    net : SynthesisNet
    widths : Widths
        What its sd is multiplied by, from people whom training did not see.
    known : dict of str
        Hashes of the people of the fit, and what they were for.
    history : DataFrame
    n_people : dict of int
        How many were for what in the fit.
    start : str
        How its encoders were pre-trained, if they were.
    """

    frame: Frame
    units: Units
    modalities: tuple[Modality, ...]
    net: SynthesisNet
    widths: Widths
    known: dict[str, str]
    history: pd.DataFrame
    n_people: Mapping[str, int]
    start: str = ""


@dataclass(frozen=True)
class Draw:
    """How latents are drawn for a prediction: at which temperature, how many, from which seed."""

    temperature: float
    n: int
    seed: int
    personal: bool = False

    def seed_of(self, person: str) -> int:
        """The same for everybody, or each person's own, so that draws of people are independent.

        Examples
        --------
        >>> Draw(1.0, 1, 7).seed_of("sub-01"), Draw(1.0, 1, 7, True).seed_of("sub-01") > 7
        (7, True)
        """
        # 32 bits: of more, generators on the CPU ignore the upper ones
        return crc32(f"{self.seed} {person}".encode()) if self.personal else self.seed

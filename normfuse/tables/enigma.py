"""Tables as ENIGMA's protocols write them, in the names of the atlas.

``CorticalMeasuresENIGMA_ThickAvg.csv`` and ``…_SurfAvg.csv`` call a region
``L_insula_thickavg``, ``LandRvolumes.csv`` (``SubcorticalMeasuresENIGMA_VolAvg.csv`` in the ENIGMA
Toolbox) calls the left hippocampus ``Lhippo``. Both are FreeSurfer's ``aparc`` and ``aseg``.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..desikan import GYRI
from .freesurfer_names import UNITS

ID = "SubjID"

_CORTEX = re.compile(r"([LR])_(\w+)_(thick|surf)avg")
_MEASURES = {"thick": "thickness", "surf": "area"}
_STRUCTURES = {"LatVent": "Lateral-Ventricle", "thal": "Thalamus-Proper", "caud": "Caudate",
               "put": "Putamen", "pal": "Pallidum", "hippo": "Hippocampus", "amyg": "Amygdala",
               "accumb": "Accumbens-area"}
_SIDES = {"L": "Left", "R": "Right"}
_WHOLE = ("LThickness", "RThickness", "LSurfArea", "RSurfArea", "ICV")


@dataclass(frozen=True)
class Enigma:
    """What is known of such a table.

    Attributes
    ----------
    names : dict of str
        Column -> the atlas's name of the region.
    aside : tuple of str
        Columns of the whole brain or hemisphere, which are no regions.
    unit : str

    Examples
    --------
    >>> Enigma.of(["L_insula_thickavg", "R_insula_thickavg", "LThickness", "ICV"])
    Enigma(names={'L_insula_thickavg': 'ctx-lh-insula', 'R_insula_thickavg': 'ctx-rh-insula'}, \
aside=('LThickness', 'ICV'), unit='mm')
    >>> Enigma.of(["Lthal", "Rhippo", "ICV"]).names["Rhippo"], Enigma.of(["Lthal", "age"])
    ('Right-Hippocampus', None)
    """

    names: dict[str, str]
    aside: tuple[str, ...]
    unit: str

    @classmethod
    def of(cls, columns: Iterable[str]) -> Enigma | None:
        """None unless all columns are ENIGMA's."""
        names, units, aside = {}, set(), []
        for column in columns:
            structure = _STRUCTURES.get(column[1:]) if column[:1] in _SIDES else None
            if (found := _CORTEX.fullmatch(column)) and found[2] in GYRI:
                names[column] = f"ctx-{found[1].lower()}h-{found[2]}"
                units.add(UNITS[_MEASURES[found[3]]])
            elif structure is not None:
                names[column] = f"{_SIDES[column[0]]}-{structure}"
                units.add(UNITS["volume"])
            elif column in _WHOLE:
                aside.append(column)
            else:
                return None
        if not names:
            return None
        return cls(names, tuple(aside), units.pop() if len(units) == 1 else "")

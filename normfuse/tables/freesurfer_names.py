"""FreeSurfer's names of regions and of measures of the whole brain, and the atlas's names.

``aparcstats2table`` calls a region ``lh_insula_thickness``; the embedded atlas ``dk``, as the
segmentation ``aparc+aseg``, calls it ``ctx-lh-insula``. They are the same region if the table was
made with the parcellation ``aparc``. Those of ``aparc.DKTatlas`` have the same names but other
borders, those of ``aparc.a2009s`` are others: they keep FreeSurfer's names.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from ..desikan import GYRI

UNITS = {"thickness": "mm", "area": "mm2", "volume": "mm3", "thicknessstd": "mm"}

_VOLUMES = re.compile(r"Measure:(\w+)")
_SURFACES = re.compile(r"(lh|rh)\.(.+)\.(\w+)")
_REGION = re.compile(r"(lh|rh)_(.+)_[A-Za-z]+")
_WHOLE = re.compile(r"(lh_|rh_)?(MeanThickness|WhiteSurfArea|PialSurfArea|SurfArea|NumVert)(_\w+)?"
                    r"|eTIV|ICV|(\w*Vol(NotVent)?(Surf|Vox)?)(-to-eTIV)?|(lh|rh)?SurfaceHoles")
_ETIV = {"EstimatedTotalIntraCranialVol", "IntraCranialVol", "ICV"}
_HARDLY_EVER = re.compile(r"5th-Ventricle|(Left-|Right-)?(non-)?WM-hypointensities|"
                          r"(Left|Right)-vessel")


@dataclass(frozen=True)
class Header:
    """What the first cell of a table of ``aparcstats2table`` or ``asegstats2table`` says.

    Examples
    --------
    >>> Header.of("lh.aparc.a2009s.thickness")
    Header(measure='thickness', parcellation='aparc.a2009s', side='lh')
    >>> Header.of("Measure:volume").side, Header.of("participant_id")
    ('', None)
    """

    measure: str
    parcellation: str = ""
    side: str = ""

    @classmethod
    def of(cls, cell: str) -> Header | None:
        """None if it is no such table."""
        if found := _VOLUMES.fullmatch(cell):
            return cls(found[1])
        if found := _SURFACES.fullmatch(cell):
            return cls(found[3], found[2], found[1])
        return None

    def named(self, columns: Iterable[str]) -> list[str]:
        """Columns as by default: ``--parcid-only`` leaves hemisphere and measure out."""
        return [plain_name(c) if is_whole(c) or not self.side or c.startswith(f"{self.side}_")
                else f"{self.side}_{c}_{self.measure}" for c in columns]


def plain_name(column: str) -> str:
    """The estimated intracranial volume under one name, whatever program wrote it.

    >>> plain_name("EstimatedTotalIntraCranialVol")
    'eTIV'
    """
    return "eTIV" if column in _ETIV else column


def is_whole(column: str) -> bool:
    """Whether it is of the whole brain or hemisphere, not of a region.

    >>> [is_whole(c) for c in ("lh_MeanThickness_thickness", "BrainSegVolNotVent", "lh_insula")]
    [True, True, False]
    """
    return bool(_WHOLE.fullmatch(column))


def left_out(columns: Iterable[str]) -> list[str]:
    """Columns that are no features unless they are asked for: of the whole, or mostly zero.

    >>> left_out(["Left-Caudate", "eTIV", "Left-WM-hypointensities"])
    ['eTIV', 'Left-WM-hypointensities']
    """
    return [c for c in columns if is_whole(c) or _HARDLY_EVER.fullmatch(c)]


def atlas_names(columns: Iterable[str], parcellation: str = "aparc") -> dict[str, str]:
    """The names in atlas ``dk`` of the columns that are its regions, if each has its own.

    Examples
    --------
    >>> atlas_names(["lh_insula_thickness", "Left-Thalamus", "Brain-Stem", "eTIV"])
    {'lh_insula_thickness': 'ctx-lh-insula', 'Left-Thalamus': 'Left-Thalamus-Proper'}
    >>> atlas_names(["lh_insula_thickness"], "aparc.DKTatlas")
    {}
    """
    names, every = {}, list(columns)
    for column in every:
        found = _REGION.fullmatch(column)
        if found and found[2] in GYRI and parcellation in ("", "aparc"):
            names[column] = f"ctx-{found[1]}-{found[2]}"
        elif column in ("Left-Thalamus", "Right-Thalamus"):  # so called since version 7
            names[column] = f"{column}-Proper"
    taken = [*names.values(), *every]
    twice = {name for name in names.values() if taken.count(name) > 1}
    return {old: new for old, new in names.items() if new not in twice}


def without_zeros(block: pd.DataFrame, header: Header) -> tuple[pd.DataFrame, int]:
    """Cortical zeros as missing, and how many: the table has 0 where a person lacks a region.

    >>> table = pd.DataFrame({"lh_insula_thickness": ["2.5", "0.0"]})
    >>> without_zeros(table, Header("thickness", "aparc", "lh"))[1]
    1
    """
    if not header.side:  # a segmented structure may have no volume
        return block, 0
    zero = block.apply(lambda column: pd.to_numeric(column, errors="coerce") == 0)
    return block.mask(zero, ""), int(zero.to_numpy().sum())

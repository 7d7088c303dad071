"""The ``stats`` folders of FreeSurfer's ``recon-all``, and of programs that write the same.

A file such as ``stats/lh.aparc.stats`` or ``stats/aseg.stats`` holds lines ``# Measure name,
short name, description, value, unit`` of the whole brain, a line ``# ColHeaders …``, and one row
a region.
"""
from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import CohortError, listed
from ..inputs import read_text
from ..problems import Problems
from .freesurfer_names import is_whole, plain_name

FREESURFER_KEYS = {"freesurfer", "stats"}
MEASURES = {"thickness": ("ThickAvg",), "area": ("SurfArea",), "volume": ("GrayVol", "Volume_mm3"),
            "thicknessstd": ("ThickStd",), "meancurv": ("MeanCurv",), "gauscurv": ("GausCurv",),
            "foldind": ("FoldInd",), "curvind": ("CurvInd",), "mean": ("normMean", "Mean"),
            "std": ("normStdDev", "StdDev")}
"""Word of ``aparcstats2table`` and ``asegstats2table`` -> headings in the files."""

_FILE = re.compile(r"[A-Za-z0-9][\w.+@-]{0,99}")

_OF_A_SIDE = {"MeanThickness": "thickness", "WhiteSurfArea": "area", "PialSurfArea": "area",
              "SurfArea": "area", "NumVert": "count"}


@dataclass(frozen=True)
class Statistics:
    """One kind of file and the measure that is read from it, as ``aparc.thickness``.

    Examples
    --------
    >>> Statistics.of("aparc.a2009s.area", "thickness").files
    ('lh.aparc.a2009s.stats', 'rh.aparc.a2009s.stats')
    """

    parcellation: str
    measure: str

    @classmethod
    def of(cls, words: Any, name: str) -> Statistics:
        """Understand a word of ``cohort.toml``.

        Raises
        ------
        CohortError
            If it is not a file's name, a point and a measure.
        """
        parcellation, _, measure = str(words).rpartition(".")
        if not isinstance(words, str) or not _FILE.fullmatch(parcellation) \
                or measure not in MEASURES:
            raise CohortError(f"modality {name}: stats must be a file and a measure, as "
                              "\"aparc.thickness\", \"aparc.a2009s.area\" or \"aseg.volume\"; got "
                              f"{words!r}. Measures are {listed(MEASURES, 12)}")
        return cls(parcellation, measure)

    @property
    def sides(self) -> tuple[str, ...]:
        """Hemispheres, each a file of its own; empty for segmented volumes."""
        return ("lh", "rh") if self.parcellation.startswith(("aparc", "BA")) else ("",)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files, in the order of ``sides``."""
        return tuple(f"{side}.{self.parcellation}.stats".lstrip(".") for side in self.sides)


def read_stats(path: Path, measure: str, side: str = "") -> dict[str, float]:
    """Regions and whole-brain measures of one file, named as ``aparcstats2table`` names them.

    Raises
    ------
    CohortError
        If the file is cut short, or has no such measure.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place, "lh.aparc.stats")
    ...     _ = file.write_text("# Measure Estimated, eTIV, Estimated, 1.5e6, mm^3\\n"
    ...                         "# ColHeaders StructName SurfArea ThickAvg\\ninsula 2100 2.91\\n")
    ...     read_stats(file, "thickness", "lh")
    {'eTIV': 1500000.0, 'lh_insula_thickness': 2.91}
    """
    found: dict[str, float] = {}
    headings: list[str] = []
    regions = 0
    try:
        for line in read_text(path, errors="replace").splitlines():
            if line.startswith("# Measure"):
                found |= _whole(line, side)
            elif line.startswith("# ColHeaders"):
                headings = line.split()[2:]
            elif line.strip() and not line.startswith("#"):
                found |= _region(line.split(), headings, measure, side)
                regions += 1
    except (ValueError, IndexError, OSError) as problem:
        raise CohortError(f"{path} cannot be understood ({problem}); is it cut short?") \
            from problem
    if not regions:
        raise CohortError(f"{path} has no regions; is it cut short?")
    return found


def _whole(line: str, side: str) -> dict[str, float]:
    parts = [part.strip() for part in line.removeprefix("# Measure").split(",")]
    name = plain_name(parts[1])
    if side and name in _OF_A_SIDE:
        name = f"{side}_{name}_{_OF_A_SIDE[name]}"
    return {name: float(parts[-2])} if is_whole(name) else {}


def _region(cells: list[str], headings: list[str], measure: str, side: str) -> dict[str, float]:
    heading = next((h for h in MEASURES[measure] if h in headings), None)
    if heading is None or "StructName" not in headings:
        raise ValueError(f"no column {' or '.join(MEASURES[measure])} among "
                         f"{listed(headings, 12)}")
    if len(cells) != len(headings):
        raise ValueError(f"{len(cells)} cells under {len(headings)} headings")
    region = cells[headings.index("StructName")]
    name = f"{side}_{region}_{measure}" if side else region
    return {name: float(cells[headings.index(heading)])}


def read_folders(name: str, folders: dict[str, Path], stats: Any) -> pd.DataFrame:
    """One row a person with any of the files, columns as ``aparcstats2table`` names them.

    Parameters
    ----------
    name : str
        Of the modality, for messages.
    folders : dict of Path
        By subject id: each holds ``stats``.
    stats : str or list of str
        Such as ``"aparc.thickness"``.

    Raises
    ------
    CohortError
        Naming every file that is there and cannot be understood, or if nobody has any.

    Warns
    -----
    UserWarning
        Of people whose folder lacks a file: their regions are missing.
    """
    wanted = [Statistics.of(words, name) for words in (stats if isinstance(stats, list)
                                                       else [stats])]
    if not wanted:
        raise CohortError(f"modality {name}: stats is an empty list; name a file and a measure, "
                          "as \"aparc.thickness\"")
    rows: dict[str, dict[str, float]] = {}
    problems, lacking = Problems(), []
    for who, folder in folders.items():
        for kind in wanted:
            for side, file in zip(kind.sides, kind.files):
                path = folder / "stats" / file
                if not path.is_file():
                    lacking.append(f"{file} of {who}")
                    continue
                with problems.caught():
                    rows.setdefault(who, {}).update(read_stats(path, kind.measure, side))
    problems.settle()
    if not rows:
        raise CohortError(f"modality {name}: none of {len(folders)} folders, such as "
                          f"{next(iter(folders.values()))}, has stats/{wanted[0].files[0]}")
    if lacking:
        warnings.warn(f"modality {name}: not there, so not measured: {listed(lacking)}; did "
                      "recon-all end?", stacklevel=4)
    return _one_thalamus(name, pd.DataFrame.from_dict(rows, orient="index").astype(np.float64))


def _one_thalamus(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """One column where versions of FreeSurfer have given a region two names."""
    for side in ("Left", "Right"):
        new, old = f"{side}-Thalamus", f"{side}-Thalamus-Proper"
        if {new, old}.issubset(table):
            n = int(table[old].notna().sum())
            if side == "Left":
                warnings.warn(f"modality {name}: {n} of {len(table)} people were processed by a "
                              "version before 7 of FreeSurfer, the others by a later one: volumes "
                              "differ between versions; process all with one, or make it a "
                              "covariate", stacklevel=5)
            table[new] = table[new].fillna(table[old])
            table = table.drop(columns=old)
    return table

"""What may be said of a table's file where it does not say so itself."""
from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CohortError

DIALECT_KEYS = {"sheet", "encoding", "separator", "decimal", "thousands", "missing"}


@dataclass(frozen=True)
class Dialect:
    """How a table is written; None: as the file itself shows.

    Attributes
    ----------
    sheet : str
        Of an Excel workbook; needed if there are several.
    encoding : str
        Of a text file, as ``"latin-1"``. UTF-8 and UTF-16 are recognised.
    separator : str
        Between the columns of a text file; ``" "`` is any white space.
    decimal, thousands : str
        Within numbers, as ``","`` and ``"."``.
    missing : tuple of str or number
        Codes of what was not measured, as -999; beside empty cells, ``n/a`` and the like.

    Examples
    --------
    >>> Dialect.of({"table": "t1.csv", "decimal": ","}, "[modalities.t1]").decimal
    ','
    """

    sheet: str | None = None
    encoding: str | None = None
    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    missing: tuple[str | int | float, ...] = ()

    @classmethod
    def of(cls, section: Mapping[str, Any], where: str) -> Dialect:
        """What a section of ``cohort.toml`` says.

        Raises
        ------
        CohortError
            For a value that is not text, an encoding nobody knows, or marks that are the same.
        """
        said = {key: section[key] for key in sorted(DIALECT_KEYS) if key in section}
        codes = said.pop("missing", [])
        if not isinstance(codes, list) or any(isinstance(code, bool) or not isinstance(
                code, (str, int, float)) for code in codes):
            raise CohortError(f"{where}: missing is a list of codes, as missing = [-999]; got "
                              f"{codes!r}")
        for key, value in said.items():
            if not isinstance(value, str) or not value:
                raise CohortError(f"{where}: {key} must be text in quotes; got {value!r}")
        if said.get("decimal", ".") not in (".", ","):
            raise CohortError(f"{where}: decimal must be \".\" or \",\"; got "
                              f"{said['decimal']!r}")
        if said.get("thousands", " ") not in (".", ",", " ", "'", "_"):
            raise CohortError(f"{where}: thousands must be one of . , ' _ or a space; got "
                              f"{said['thousands']!r}")
        if "thousands" in said and said["thousands"] == said.get("decimal", "."):
            raise CohortError(f"{where}: decimal and thousands are both {said['thousands']!r}; "
                              "say decimal = \",\" too if numbers are written 1.234,5")
        if len(said.get("separator", " ")) > 1:
            raise CohortError(f"{where}: separator must be one character, as \";\" or \" \"; got "
                              f"{said['separator']!r}")
        try:
            codecs.lookup(said.get("encoding", "utf-8"))
        except LookupError as problem:
            raise CohortError(f"{where}: encoding {said['encoding']!r} is unknown; write for "
                              "example \"utf-8\" or \"latin-1\"") from problem
        return cls(**said, missing=tuple(codes))

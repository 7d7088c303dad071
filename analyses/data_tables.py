"""Tables of a page that a reader can sort, filter, leaf through and take away as CSV.

The numbers lie in the page as JSON, every digit of them; ``templates/tables.js`` shows some rows
at a time. The first rows are also in the page itself, for printers and browsers without scripts.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from . import wording

PAGE = 25  # rows shown at a time
_UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}  # would end a script
_SHOWN: dict[str, Callable[..., str]] = {
    "text": lambda digits, value: wording.word(value),
    "number": lambda digits, value: wording.number(value, digits),
    "value": lambda digits, value: wording.measure(value),
    "percent": lambda digits, value: wording.percent(value),
    "p": lambda digits, value: wording.p_value(value),
    "link": lambda digits, text, to: wording.word(text),
    "interval": lambda digits, value, low, high:
        f"{wording.number(value, digits)} [{wording.number(low, digits)}, "
        f"{wording.number(high, digits)}]",
    "pair": lambda digits, one, other: f"{wording.word(one)} + {wording.word(other)}"}


@dataclass(frozen=True)
class Shown:
    """A column as one reads it, made of one or more columns of numbers.

    Parameters
    ----------
    title : str
    of : tuple of str
        ``interval`` takes value, low and high; ``pair`` two counts; ``link`` a text and a file.
    how : {"text", "number", "value", "percent", "p", "interval", "pair", "link"}
    digits : int

    Examples
    --------
    >>> Shown("g [95 %]", ("g", "g_low", "g_high"), "interval").cell(
    ...     {"g": -0.421, "g_low": -0.8, "g_high": 0.01})
    '−0.42 [−0.80, 0.01]'
    """

    title: str
    of: tuple[str, ...]
    how: str = "text"
    digits: int = 2

    def cell(self, row: Mapping[Any, Any]) -> str:
        """What stands in the page."""
        return _SHOWN[self.how](self.digits, *(row[name] for name in self.of))


@dataclass(frozen=True, eq=False)
class DataTable:
    """A table, and which of its columns a page shows.

    Parameters
    ----------
    key : str
        Of the element in the page; used once.
    frame : DataFrame
        All rows and columns, as they go into the CSV.
    shown : tuple of Shown
        The first one heads the rows.
    caption : str
    said : dict of list of str
        Column -> what the page says instead of its values.
    modality, q : str
        Columns to filter by, if there are such.

    Examples
    --------
    >>> frame = pd.DataFrame({"region": ["a", "</script>"], "g": [0.5, np.nan]})
    >>> table = DataTable("t", frame, (Shown("region", ("region",)), Shown("g", ("g",), "number")),
    ...                   "Two regions.")
    >>> table.rows()
    [['a', '0.50'], ['</script>', '–']]
    >>> print(table.data[-36:])
    ,"\\u003c/script\\u003e"],[0.5,null]]}
    """

    key: str
    frame: pd.DataFrame
    shown: tuple[Shown, ...]
    caption: str
    said: Mapping[str, list[str]] = field(default_factory=dict)
    modality: str = ""
    q: str = ""

    @property
    def titles(self) -> list[tuple[str, bool]]:
        """Heads of the columns, and whether they stand over numbers."""
        return [(s.title, s.how not in ("text", "link")
                 or pd.api.types.is_numeric_dtype(self.frame[s.of[0]])) for s in self.shown]

    @property
    def modalities(self) -> list[str]:
        """Names to choose among; none if there is one only."""
        names = list(dict.fromkeys(self.frame[self.modality])) if self.modality else []
        return names if len(names) > 1 else []

    def rows(self, n: int = PAGE) -> list[list[str]]:
        """The first rows, as one reads them."""
        frame = self.frame.head(n).assign(**{name: said[:n] for name, said in self.said.items()})
        return [[s.cell(row) for s in self.shown] for row in frame.to_dict("records")]

    @property
    def links(self) -> list[str]:
        """Where the first column of the first rows leads; empty if nowhere."""
        head = self.shown[0]
        return list(self.frame[head.of[1]].head(PAGE)) if head.how == "link" else []

    @property
    def data(self) -> str:
        """JSON that may stand inside ``<script>``: nothing in it can end that."""
        names = list(self.frame)
        extra = {f"\0{name}": values for name, values in self.said.items()}
        held = [_plain(self.frame[name]) for name in names] + list(extra.values())
        place = {name: k for k, name in enumerate((*names, *extra))}
        made = {"names": names, "page": PAGE,
                "shown": [{"how": s.how, "digits": s.digits, "of": [place[n] for n in s.of],
                           "said": place.get(f"\0{s.of[0]}")} for s in self.shown],
                "modality": place.get(self.modality), "q": place.get(self.q), "data": held}
        return json.dumps(made, allow_nan=False, ensure_ascii=False,
                          separators=(",", ":")).translate(_UNSAFE)


def _plain(column: pd.Series) -> list[Any]:
    """Numbers with every digit, an infinite one as a word (JSON has none); else text."""
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return [None if pd.isna(value) else str(value) for value in column]
    values = column.to_numpy(dtype=float, na_value=np.nan)
    whole = pd.api.types.is_integer_dtype(column)
    return [None if np.isnan(v) else ("inf" if v > 0 else "-inf") if np.isinf(v)
            else int(v) if whole else float(v) for v in values]

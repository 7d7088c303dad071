"""What a notebook shows of an object: a small card of HTML, escaped, bounded, on any ground.

No colour is set, so that a card reads on a dark page as on a light one; and nobody's id is on it.
"""
from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ROWS, COLUMNS = 10, 12
"""Of a table on a card; a notebook is no place to read more."""

TEXT, CELL, NAMES = 400, 60, 5
"""Characters of a line and of a cell, and names in a list."""

_LEFT = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;border:0;background:none"


def short(text: object, limit: int = CELL) -> str:
    """On one line, and shortened in the middle.

    Examples
    --------
    >>> short("superior\\nlongitudinal fasciculus", limit=20)
    'superior lon…ciculus'
    """
    # a name of a million characters would take long to split
    words = " ".join(str(text)[:20 * limit].split())
    return words if len(words) <= limit else f"{words[:limit - 8]}…{words[-7:]}"


def some(names: Iterable[object], limit: int = NAMES) -> str:
    """The first few names, each shortened, and how many there are.

    Examples
    --------
    >>> some(["insula", "cuneus", "precuneus"], limit=2)
    'insula, cuneus, … (3 in all)'
    """
    every = list(names)
    told = ", ".join(short(name, 30) for name in every[:limit])
    return told if len(every) <= limit else f"{told}, … ({len(every)} in all)"


def meaning(kind: type) -> str:
    """The first sentence of a class's docstring, without its marks.

    Examples
    --------
    >>> from normfuse.modality import Modality
    >>> meaning(Modality)
    'A block of features measured by one kind of scan.'
    """
    first = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", first).replace("``", "")


@dataclass(frozen=True)
class Card:
    """What is shown of an object.

    Parameters
    ----------
    title : str
        What it is, in bold.
    about : str
        The rest of the first line.
    facts : dict
        Name -> value, one a row.
    tables : dict of DataFrame
        Caption (or nothing) -> table, of which the first rows are shown.
    notes : iterable of str
        In small print; the first five.

    Examples
    --------
    >>> made = Card("Cohort", "of 3 people <b>", {"site": "A & B"}).html()
    >>> "of 3 people &lt;b&gt;" in made, "A &amp; B" in made
    (True, True)
    """

    title: str
    about: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    notes: Iterable[str] = ()

    def html(self) -> str:
        """The card; its length has a bound whatever the object holds."""
        rows = "".join(
            f'<tr><th scope="row" style="{_LEFT};font-weight:normal">{_text(name, CELL)}</th>'
            f'<td style="{_LEFT}">{_text(value)}</td></tr>' for name, value in
            list(self.facts.items())[:COLUMNS] if str(value))
        facts = f'<table style="border:0;margin:2px 0">{rows}</table>' if rows else ""
        tables = "".join(f"<div>{_text(caption)}</div>{_table(table)}"
                         for caption, table in self.tables.items())
        notes = list(self.notes)
        more = [f"… and {len(notes) - NAMES} more notes"] * (len(notes) > NAMES)
        small = "".join(f"<div><small>{_text(note)}</small></div>"
                        for note in [*notes[:NAMES], *more])
        return (f"<div><div><b>{_text(self.title, CELL)}</b> {_text(self.about)}</div>"
                f"{facts}{tables}{small}</div>")


class Shown:
    """A choice that a notebook shows by what it means and by the arguments it was made with."""

    def _repr_html_(self) -> str:
        return Card(type(self).__name__, meaning(type(self)), arguments(self)).html()


def arguments(choice: object) -> dict[str, str]:
    """What an object was made with, if it keeps that as attributes of the same name.

    Examples
    --------
    >>> from normfuse.training import TrainingPlan
    >>> arguments(TrainingPlan(patience=9))["patience"]
    '9'
    """
    names = [name for name, p in inspect.signature(type(choice)).parameters.items()
             if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {name: _brief(getattr(choice, name)) for name in names if hasattr(choice, name)}


def _brief(value: object) -> str:
    shape = getattr(value, "shape", None)  # an array's own text may fill pages, and takes long
    return repr(value) if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"


def _text(value: object, limit: int = TEXT) -> str:
    return escape(short(value, limit))


def _table(table: pd.DataFrame) -> str:
    shown = table.iloc[:ROWS, :COLUMNS]
    shown = shown.rename(index=_label, columns=_label).rename_axis(
        index=_label, columns=_label).map(lambda cell: short(cell) if isinstance(cell, str) else
                                          cell)
    html = shown.to_html(float_format="{:.3g}".format, border=0, na_rep="–")
    left = [f"{len(table)} rows"] * (len(table) > ROWS) \
        + [f"{table.shape[1]} columns"] * (table.shape[1] > COLUMNS)
    return html + (f"<div><small>of {' and '.join(left)}</small></div>" if left else "")


def _label(name: Any) -> Any:
    return short(name, 40) if isinstance(name, str) else name

"""What a page calls people: numbers in its own order, or their ids if that was asked for."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from normfuse.blocks import Blocks
from normfuse.deviations import ROLE, Deviations
from normfuse.stored import StoredTable

_LEAST = 3  # characters of an id that can be looked for in a sentence
_LISTS = (  # of people in a note, who may be known to nobody here
    (re.compile(r"(\bleft out \d+ .*?) \(.*\)", re.S), r"\1"),
    (re.compile(r"^(.+?) of .+ (deviates [\d.]+ times as much as most healthy people)", re.S),
     r"\1 of some people \2"))


@dataclass(frozen=True)
class Pseudonyms:
    """Ids of people, and what to call them.

    Examples
    --------
    >>> people = Pseudonyms.numbered(["sub-7", "sub-70"])
    >>> people["sub-70"], people.note("sub-70 is old; left out 2 people (sub-1, sub-7): young")
    ('person 2', 'person 2 is old; left out 2 people: young')
    """

    names: Mapping[str, str]

    @classmethod
    def numbered(cls, order: Iterable[str]) -> Pseudonyms:
        """Person 1, person 2, … in this order."""
        return cls({subject: f"person {k}" for k, subject in enumerate(order, 1)})

    def __getitem__(self, subject: str) -> str:
        return self.names[subject]

    def note(self, text: str) -> str:
        """A sentence quoted from elsewhere, without ids."""
        for pattern, rest in _LISTS:
            text = pattern.sub(rest, text)
        ids = sorted((s for s in self.names if len(s) >= _LEAST and not s.isdigit()), key=len,
                     reverse=True)
        for subject in ids:
            if subject in text:
                text = re.sub(rf"(?<![\w-]){re.escape(subject)}(?![\w-])", self.names[subject],
                              text)
        return text

    def notes(self, result: Any) -> Any:
        """A result with its notes told so."""
        return replace(result, notes=tuple(map(self.note, result.notes)))

    def deviations(self, deviations: Deviations, columns: Iterable[str]) -> Deviations:
        """The same people by their new names, and of the subjects table just these columns."""
        shown = [c for c in dict.fromkeys((*columns, ROLE)) if c in deviations.subjects]
        held: dict[str, Any] = {name: self._renamed(table)
                                for name, table in deviations.held().items()}
        held["subjects"] = held["subjects"][shown]
        controls, imputed = deviations.controls, deviations.imputed
        return deviations.changed(
            **held, imputed=imputed and imputed.renamed(self.names),
            reference=self.notes(deviations.reference),
            controls=None if controls is None else self.deviations(controls, columns))

    def _renamed(self, held: pd.DataFrame | Blocks) -> pd.DataFrame | Blocks:
        if isinstance(held, pd.DataFrame):
            return held.rename(index=dict(self.names))
        return Blocks({m: StoredTable(t.array, t.index.map(self.names), t.rows, t.columns)
                       if isinstance(t, StoredTable) else t.rename(index=dict(self.names))
                       for m, t in held.as_is().items()})

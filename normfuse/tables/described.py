"""What a BIDS ``participants.json`` says of the columns of ``participants.tsv``."""
from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..inputs import read_object


@dataclass(frozen=True)
class Described:
    """One column.

    Attributes
    ----------
    unit : str
    levels : dict of str
        Word -> what it means.

    Examples
    --------
    >>> sex = Described(levels={"F": "female", "M": "male"})
    >>> sex.in_words("F"), sex.in_words("X"), sex.unknown(["F", "X"])
    ('F (female)', 'X', ['X'])
    """

    unit: str = ""
    levels: dict[str, str] = field(default_factory=dict)

    def in_words(self, level: str) -> str:
        """The level, and what it means if that is said and is another word."""
        meaning = self.levels.get(level, "")
        return f"{level} ({meaning})" if meaning and meaning != level else level

    def unknown(self, found: list[str]) -> list[str]:
        """Levels that the description leaves out; none if it lists no levels."""
        return [level for level in found if self.levels and level not in self.levels]


def described(table: Path) -> dict[str, Described]:
    """The columns that the JSON file of the same name beside a table describes; none if there is
    no such file.

    Warns
    -----
    UserWarning
        If it cannot be understood.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = Path(place, "participants.json").write_text('{"age": {"Units": "years"}}')
    ...     described(Path(place, "participants.tsv"))
    {'age': Described(unit='years', levels={})}
    """
    file = table.with_suffix(".json")
    if not file.exists():
        return {}
    try:
        found = read_object(file)
    except (OSError, ValueError) as problem:
        warnings.warn(f"{file} cannot be understood ({problem}); units and levels of columns were "
                      "not taken from it", stacklevel=5)
        return {}
    return {name: _of(facts) for name, facts in found.items() if isinstance(facts, dict)}


def _of(facts: dict[str, Any]) -> Described:
    unit, levels = facts.get("Units"), facts.get("Levels")
    return Described(unit if isinstance(unit, str) else "",
                     {level: _meaning(said) for level, said in levels.items()}
                     if isinstance(levels, dict) else {})


def _meaning(said: Any) -> str:
    """BIDS has a text, since version 1.8 also an object with a ``Description``."""
    text = said.get("Description", "") if isinstance(said, dict) else said
    return text if isinstance(text, str) else ""

"""What a verb made: lines for people, one JSON object for programs."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__

SCHEMA = 1
"""Of the JSON object. It changes when a key goes or changes its meaning, not when one is added."""


@dataclass(frozen=True)
class Made:
    """The result of a verb.

    Attributes
    ----------
    what : str
        A noun, as "model".
    where : Path or None
        The folder or file; None if nothing was written.
    text : str
        What people read.
    counts : mapping of int
        People, features, files …
    notes : tuple of str
        What a reader of the result should know; part of ``text``.
    result : mapping
        More, which is the verb's own.
    exit_code : int
    errors : tuple of str
        Why that is not 0.
    """

    what: str
    where: Path | None
    text: str
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    errors: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Its part of the JSON object.

        >>> Made("model", Path("model"), "", {"reference": 120}).to_dict()["where"]
        'model'
        """
        return {"made": self.what, "where": None if self.where is None else self.where.as_posix(),
                "counts": {name: int(n) for name, n in self.counts.items()},
                "notes": list(self.notes), "result": dict(self.result)}


def answer(verb: str, made: Made | None, *, exit_code: int, warnings: list[str],
           errors: list[str], command: Path | None, seconds: float) -> dict[str, Any]:
    """The whole JSON object; every key is always there.

    >>> said = answer("fit", None, exit_code=1, warnings=[], errors=["no"], command=None,
    ...               seconds=0.2)
    >>> said["ok"], said["errors"], said["made"], said["counts"]
    (False, ['no'], None, {})
    """
    nothing: dict[str, Any] = {"made": None, "where": None, "counts": {}, "notes": [],
                               "result": {}}
    return {"schema": SCHEMA, "normfuse": __version__, "verb": verb, "ok": exit_code == 0,
            "exit_code": exit_code, **(nothing if made is None else made.to_dict()),
            "command": None if command is None else command.as_posix(), "warnings": warnings,
            "errors": errors, "seconds": round(seconds, 3)}

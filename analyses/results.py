"""What every result of an analysis can do: say itself, show itself, be written down."""
from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from normfuse.cards import Card, short
from normfuse.outputs import new_file, new_folder


class Found(ABC):
    """A frozen dataclass with a ``table``; see :class:`~normfuse.analyses.Associations`."""

    table: pd.DataFrame

    @abstractmethod
    def summary(self) -> str:
        """The result in a few lines of text."""

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the table to a new file."""
        with new_file(Path(path), overwrite=overwrite) as work:
            self.table.to_csv(work)
        return Path(path)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write every table as CSV, and the facts as ``facts.json``, to a new folder.

        Raises
        ------
        OutputExistsError
            If the folder is there and ``overwrite`` is not asked for.
        """
        parts = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        tables = {name: part for name, part in parts.items()
                  if isinstance(part, (pd.DataFrame, pd.Series))}
        facts = {name: _plain(part) for name, part in parts.items() if name not in tables}
        with new_folder(Path(folder), overwrite=overwrite) as work:
            for name, part in tables.items():
                part.to_csv(work / f"{name}.csv")
            (work / "facts.json").write_text(
                json.dumps({"summary": self.summary().splitlines(), **facts}, indent=1),
                encoding="utf-8")
        return Path(folder)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {short(self.summary().splitlines()[0], 300)}>"

    def _repr_html_(self) -> str:
        first, *more = self.summary().splitlines()
        return Card(type(self).__name__, first, {}, {"": self._shown()}, more).html()

    def _shown(self) -> pd.DataFrame:
        """What a card shows the first rows of."""
        return self.table.sort_values("p") if "p" in self.table else self.table


def _plain(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {str(name): _plain(value) for name, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [_plain(value) for value in part]
    return part if part is None or isinstance(part, (str, bool, int, float)) else str(part)

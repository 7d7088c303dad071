"""The features of a cohort by modality: tables in memory, or on disk until they are asked for."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from .stored import StoredTable

Block = pd.DataFrame | StoredTable


class Blocks(Mapping[str, pd.DataFrame]):
    """Tables by modality that nobody can change: each access gives a copy-on-write copy.

    Those on disk are read whole when they are accessed; :meth:`select` people first.

    Examples
    --------
    >>> blocks = Blocks({"t1": pd.DataFrame({"insula": [6.1, None]}, index=["s1", "s2"])})
    >>> blocks.select(["s2"])["t1"].index.tolist(), blocks.present()["t1"].tolist()
    (['s2'], [True, False])
    """

    def __init__(self, tables: Mapping[str, Block]) -> None:
        self._tables = {name: table.copy(deep=False) if isinstance(table, pd.DataFrame) else table
                        for name, table in tables.items()}

    def __getitem__(self, name: str) -> pd.DataFrame:
        table = self._tables[name]
        return table.frame() if isinstance(table, StoredTable) else table.copy(deep=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def as_is(self) -> dict[str, Block]:
        """The tables, those on disk unread."""
        return dict(self._tables)

    def select(self, ids: pd.Index | list[str]) -> Blocks:
        """These people, in this order."""
        return Blocks({name: table.select(ids) if isinstance(table, StoredTable)
                       else table.loc[ids] for name, table in self._tables.items()})

    def frame(self) -> pd.DataFrame:
        """All side by side in memory, columns (modality, feature)."""
        return pd.concat({name: self[name] for name in self}, axis=1,
                         names=["modality", "feature"])

    def present(self) -> pd.DataFrame:
        """Who has anything measured, by modality."""
        return pd.DataFrame({name: table.present if isinstance(table, StoredTable)
                             else table.notna().any(axis=1)
                             for name, table in self._tables.items()})


class Wide:
    """An attribute that is a table with columns (modality, feature), in memory or on disk.

    What lies on disk is read whole whenever it is asked for; select people first.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owned: Any, owner: type) -> Any:
        if owned is None:
            return self
        held = owned.__dict__[self.name]
        return held.frame() if isinstance(held, Blocks) else held

    def __set__(self, owned: Any, value: pd.DataFrame | Blocks | None) -> None:
        owned.__dict__[self.name] = value

"""One JSON and one Markdown table out of measured rows."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def mean_over_seeds(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row a model."""
    return rows.groupby("model", sort=False)[list(columns)].mean()


def markdown(table: pd.DataFrame) -> str:
    """Numbers at three decimals, seconds at one; empty where nothing was measured."""
    def cell(column: str, value: float) -> str:
        return "" if pd.isna(value) else f"{value:.{1 if 'seconds' in column else 3}f}"

    head = [str(table.index.name or "model"), *map(str, table.columns)]
    lines = [head, ["---"] + ["---:"] * len(table.columns)]
    lines += [[str(name), *(cell(c, row[c]) for c in table.columns)]
              for name, row in table.iterrows()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(folder: Path, name: str, data: str, text: str) -> str:
    """Write NAME.json and NAME.md; the text is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(data + "\n")
    (folder / f"{name}.md").write_text(text.rstrip() + "\n")
    return text.rstrip()

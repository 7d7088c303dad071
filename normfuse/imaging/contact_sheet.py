"""Sheets of small pictures on which a wrong registration is seen at a glance."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .volume_grids import brain_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from nibabel.nifti1 import Nifti1Image

ROWS = 8
"""Images on a sheet."""

CUTS = ((0, 0.44), (1, 0.5), (2, 0.4), (2, 0.6))
"""Axis and share of the template's extent along it."""

LINE, WRONG = "#56B4E9", "#D55E00"


def write_sheets(table: pd.DataFrame, target: Nifti1Image, folder: Path) -> list[Path]:
    """``contact_sheet_1.png`` and so on: every image with the outline of the template on it.

    Those that are not ok come first, with their problems in orange.
    """
    there = table[table["file"].notna()] if "file" in table else table.iloc[:0]
    there = there.sort_values("ok", kind="stable")
    written = []
    for k in range(0, len(there), ROWS):
        path = folder / f"contact_sheet_{k // ROWS + 1}.png"
        draw_sheet(there.iloc[k:k + ROWS], target, folder).savefig(path, dpi=90)
        written.append(path)
    return written


def draw_sheet(rows: pd.DataFrame, target: Nifti1Image, folder: Path) -> Figure:
    """A figure of these rows' images; columns are cuts."""
    import nibabel as nib
    from matplotlib.figure import Figure

    brain = brain_of(target).astype(float)
    figure = Figure(figsize=(7.2, 1.55 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(CUTS), squeeze=False)
    for line, (_, row) in zip(axes, rows.iterrows()):
        image: Any = nib.load(folder / row["file"])
        values = np.asanyarray(image.dataobj)
        top = np.percentile(values[values > 0], 99) if (values > 0).any() else 1.0
        for ax, (axis, share) in zip(line, CUTS):
            at = _position(brain, axis, share)
            ax.imshow(values.take(at, axis).T, origin="lower", cmap="gray", vmin=0, vmax=top)
            ax.contour(brain.take(at, axis).T, [0.5], colors=LINE, linewidths=0.8)
            ax.set_axis_off()
        said = f"{row['person']} {row['modality']}" + ("" if row["ok"] else f": {row['problems']}")
        line[0].set_title(said[:100], loc="left", fontsize=8,
                          color="black" if row["ok"] else WRONG)
    return figure


def _position(brain: np.ndarray, axis: int, share: float) -> int:
    along = np.flatnonzero(brain.any(tuple(a for a in range(3) if a != axis)))
    return int(along[0] + share * (along[-1] - along[0]))

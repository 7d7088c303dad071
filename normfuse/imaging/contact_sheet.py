"""Sheets of small pictures on which a wrong registration is seen at a glance."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .volume_grids import brain_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from nibabel.nifti1 import Nifti1Image

ROWS = 8
"""Images on a sheet."""

CUTS = ((0, 0.44), (1, 0.5), (2, 0.4), (2, 0.6))
"""Axis and share of the template's extent along it."""

WIDE = 7.2
"""Inches."""

LETTERS = 115
"""Of a line as long as a sheet is wide."""

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
    titles = [shorten(f"{row['person']} {row['modality']}" + (
        "" if row["ok"] else f": {row['problems']}"), 2) for _, row in rows.iterrows()]
    widths = [brain.take(0, axis).shape[0] for axis, _ in CUTS]
    pictures = WIDE / sum(widths) * max(brain.take(0, axis).shape[1] for axis, _ in CUTS)
    above = [0.1 + 0.15 * (1 + title.count("\n")) for title in titles]  # inches
    talls = [pictures + inches for inches in above]
    figure = Figure(figsize=(WIDE, sum(talls)))
    strips: Any = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=talls)
    colours = ["black" if ok else WRONG for ok in rows["ok"]]
    for strip, title, colour, inches, tall, file in zip(strips[:, 0], titles, colours, above,
                                                        talls, rows["file"]):
        image: Any = nib.load(folder / file)
        space = {"left": 0.005, "right": 0.995, "bottom": 0.01, "top": 1 - inches / tall,
                 "wspace": 0.02}
        _draw_cuts(strip.subplots(1, len(CUTS), width_ratios=widths, gridspec_kw=space),
                   np.asanyarray(image.dataobj), brain, _sides(target))
        strip.text(0.005, 1 - 0.06 / tall, title, va="top", fontsize=8,
                   color=colour)
    return figure


def _sides(target: Nifti1Image) -> str:
    """What is on the left and on the right of cuts from ear to ear; "" where a grid lies askew."""
    import nibabel as nib

    first = nib.aff2axcodes(target.affine)[0]
    return {"R": "LR", "L": "RL"}.get(str(first), "")


def _draw_cuts(axes: Sequence[Axes], values: np.ndarray, brain: np.ndarray, sides: str) -> None:
    top = np.percentile(values[values > 0], 99) if (values > 0).any() else 1.0
    for ax, (axis, share) in zip(axes, CUTS):
        at = _position(brain, axis, share)
        ax.imshow(values.take(at, axis).T, origin="lower", cmap="gray", vmin=0, vmax=top)
        ax.contour(brain.take(at, axis).T, [0.5], colors=LINE, linewidths=0.8)
        ax.set_axis_off()
        for side, across in zip(sides if axis else "", (0.02, 0.98)):
            ax.text(across, 0.03, side, transform=ax.transAxes, color="white", fontsize=7,
                    ha="left" if across < 0.5 else "right")


def shorten(text: str, lines: int) -> str:
    """Broken where it is wider than a sheet; the table of quality has what is left out.

    >>> print(shorten("sub-01 T1w: " + "outlines overlap little " * 12, 2)[-12:])
    outlines […]
    """
    return textwrap.fill(text, LETTERS, max_lines=lines, placeholder=" […]")


def _position(brain: np.ndarray, axis: int, share: float) -> int:
    along = np.flatnonzero(brain.any(tuple(a for a in range(3) if a != axis)))
    return int(along[0] + share * (along[-1] - along[0]))

"""A figure as an embedded image, in one look whatever the user's settings are."""
from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures_brain import plot_brain

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

WIDTH = 7.9  # inches; at 96 px an inch a figure fills the column of text
TOP = 20  # regions in a figure
_LOOK = {"font.size": 9.5, "axes.labelsize": 9.5, "axes.titlesize": 10, "axes.linewidth": 0.8,
         "figure.dpi": 150, "savefig.dpi": 150}


@dataclass(frozen=True)
class Picture:
    """An embedded PNG: its data, and its size in CSS px."""

    source: str
    width: int
    height: int


def picture(draw: Callable[[Axes], object], size: tuple[float, float],
            box: tuple[float, float, float, float] | None = None) -> Picture:
    """Draw on a figure of our own, in the default look whatever the user's settings are.

    Parameters
    ----------
    size : (width, height), inches
    box : (left, bottom, width, height), share of the figure
        Where the axis goes; by default the layout finds room for it and its labels.

    Examples
    --------
    >>> made = picture(lambda ax: ax.plot([1, 3, 2]), (5, 2.5))
    >>> made.width, made.height, made.source[:21]
    (480, 240, 'data:image/png;base64')
    """
    with style.context(["default", _LOOK]):
        figure = Figure(figsize=size, layout=None if box else "constrained")
        draw(figure.add_axes(box) if box else figure.add_subplot())
        png = io.BytesIO()
        figure.savefig(png, format="png")
    return Picture("data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
                   round(96 * size[0]), round(96 * size[1]))


def brain_picture(img: Nifti1Image, title: str, limit: float, unit: str,
                  outline: Nifti1Image | None = None) -> Picture:
    """A map in the width of the page; ``limit`` in ``unit`` ends the colour scale."""
    return picture(lambda ax: plot_brain(img, title, limit=limit, unit=unit, outline=outline,
                                         ax=ax),
                   (WIDTH, 1.85), (0.005, 0, 0.92, 0.87))

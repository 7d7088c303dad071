"""What every figure is drawn with: colours, marks, rows, legends and open frames."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .group_comparison import ALPHA
from .wording import plain

PALETTE = tuple(sns.color_palette("colorblind"))
MARKERS = "osD^vPX*"  # the shape repeats what the colour says
EXTREME = 1.96
SIGNIFICANT = ALPHA  # marks below it are filled
GREY = "0.45"


def axis_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The user's axis, or that of a new figure of ``(width, height)`` inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def modality_styles(modalities: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """Colour and marker of each modality."""
    return {name: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)])
            for i, name in enumerate(modalities)}


def modality_handles(styles: dict[str, tuple[Any, str]], shown: pd.Index) -> list[Line2D]:
    """Entries of a legend, for the modalities that are shown."""
    return [Line2D([], [], ls="", marker=marker, color=colour, label=plain(name, 30))
            for name, (colour, marker) in styles.items() if name in shown]


def person_strip(ax: Axes, values: pd.Series, y: float, colour: Any, height: float, *,
                 filled: np.ndarray | None = None) -> None:
    """Quartile box and one point a person, spread within the row so that ties can be told."""
    if not len(values):
        return
    # A fixed seed: the spread means nothing and the figure must not touch the user's random state.
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(values)) * height
    inside = [colour if fill else "white" for fill in
              (np.ones(len(values), bool) if filled is None else filled)]
    ax.boxplot([values], positions=[y], widths=0.85 * height, orientation="horizontal",
               showfliers=False, manage_ticks=False, boxprops={"color": "0.6"},
               whiskerprops={"color": "0.6"}, capprops={"color": "0.6"},
               medianprops={"color": "0.15", "lw": 2})
    ax.scatter(values, y + spread, s=16, facecolors=inside, edgecolors=[colour], lw=0.8,
               alpha=0.8, zorder=3)


def row_offset(i: int, n: int) -> float:
    """Where in a row of height .7 the i-th of n things goes."""
    return 0.7 * ((i + 0.5) / n - 0.5)


def name_rows(ax: Axes, labels: Sequence[str]) -> None:
    """One row a label, the first on top."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def legend_beside(ax: Axes, handles: Sequence[Artist] | None = None) -> Axes:
    """A legend that covers nothing, because it stands to the right of the axis."""
    ax.legend(**({} if handles is None else {"handles": handles}), frameon=False,
              loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return ax


def open_frame(ax: Axes) -> Axes:
    """Without the lines above and to the right."""
    sns.despine(ax=ax)
    return ax

"""Pictures of people: what was measured of them, and where one person deviates."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from normfuse.deviations import Deviations
from normfuse.errors import CohortError

from .drawing import (EXTREME, GREY, PALETTE, axis_or_new, legend_beside, modality_handles,
                      modality_styles, name_rows, open_frame)
from .wording import plain, region_label


def measured(z: pd.DataFrame) -> pd.DataFrame:
    """Of which modalities each person has a value, boolean, (n_subjects, n_modalities).

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> measured(tiny_deviations().z).loc["sub-a"].to_dict()
    {'t1': True, 'pet': False}
    """
    return z.notna().T.groupby(level=0, sort=False).any().T


def plot_missingness(deviations: Deviations, *, ax: Axes | None = None) -> Axes:
    """Which modalities people have together, and how many people each combination counts.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> [bar.get_width() for bar in plot_missingness(tiny_deviations()).patches]
    [np.int64(1), np.int64(1)]
    """
    have = measured(deviations.z)
    combination = have.apply(lambda row: " + ".join(plain(n, 24) for n in have if row[n])
                             or "nothing", axis=1)
    counts = combination.value_counts()
    ax = axis_or_new(ax, (6, 0.9 + 0.35 * len(counts)))
    bars = ax.barh(np.arange(len(counts)), counts, color=PALETTE[0], height=0.6)
    ax.bar_label(bars, padding=3)
    name_rows(ax, list(counts.index))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(0, 1.1 * counts.max())
    ax.set_xlabel("people")
    return open_frame(ax)


def plot_subject(deviations: Deviations, subject: str, n: int = 20, *,
                 ax: Axes | None = None) -> Axes:
    """The n features of one person that deviate most, over all modalities.

    Raises
    ------
    CohortError
        If the subject is unknown, or nothing was measured of them.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> ax = plot_subject(tiny_deviations(), "sub-b")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['insula', 'cuneus', 'insula']
    """
    z = deviations.select([subject]).z.iloc[0].dropna()
    if z.empty:
        raise CohortError(f"nothing was measured of {subject}; there is no deviation to draw")
    top = z.loc[z.abs().sort_values(ascending=False).index[:n]].sort_values()
    styles = modality_styles(deviations.modalities)
    ax = axis_or_new(ax, (7.5, 1 + 0.26 * len(top)))
    ax.axvline(0, color=GREY, lw=1)
    for threshold in (-EXTREME, EXTREME):
        ax.axvline(threshold, color=GREY, lw=1, ls="--")
    for y, (modality, value) in enumerate(zip(top.index.get_level_values(0), top)):
        colour, marker = styles[modality]
        ax.plot([0, value], [y, y], color=colour, lw=1.5)
        ax.plot(value, y, marker, color=colour, ms=6.5)
    reach = 1.1 * max(3.0, top.abs().max())
    ax.set_xlim(-reach, reach)
    name_rows(ax, [plain(region_label(feature)) for _, feature in top.index])
    ax.set_xlabel(f"deviation, z (dashed: ±{EXTREME})")
    return open_frame(legend_beside(ax, modality_handles(styles, top.index.get_level_values(0))))

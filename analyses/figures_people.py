"""Pictures of people: what was measured of them, where one person deviates, and by which scan."""
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from normfuse.cohort import Cohort
from normfuse.deviations import Deviations
from normfuse.errors import CohortError

from .attribution import attributed
from .drawing import (EXTREME, GREY, PALETTE, axis_or_new, legend_beside, modality_handles,
                      modality_styles, name_rows, open_frame)
from .wording import plain, region_label

# a mark that stands for no modality, with a white border on dark bars
_TOTAL: dict[str, Any] = {"marker": "|", "color": "black", "mew": 2.4, "ms": 15, "ls": "",
                          "path_effects": [withStroke(linewidth=5, foreground="white")]}


def measured(z: pd.DataFrame) -> pd.DataFrame:
    """Of which modalities each person has a value, boolean, (n_subjects, n_modalities).

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> measured(tiny_deviations().z).loc["sub-a"].to_dict()
    {'t1': True, 'pet': False}
    """
    return z.notna().T.groupby(level=0, sort=False).any().T


def plot_missingness(people: Deviations | Cohort, *, ax: Axes | None = None) -> Axes:
    """Which modalities people have together, and how many people each combination counts.

    Parameters
    ----------
    people : Deviations or Cohort
        Those of whom z are known, or who were measured.
    ax : Axes, optional

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> [bar.get_width() for bar in plot_missingness(tiny_deviations()).patches]
    [np.int64(1), np.int64(1)]
    """
    have = people.present if isinstance(people, Cohort) else measured(people.z)
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
    _lines_at_extremes(ax)
    for y, (modality, value) in enumerate(zip(top.index.get_level_values(0), top)):
        colour, marker = styles[modality]
        ax.plot([0, value], [y, y], color=colour, lw=1.5)
        ax.plot(value, y, marker, color=colour, ms=6.5)
    reach = 1.1 * max(3.0, top.abs().max())
    ax.set_xlim(-reach, reach)
    name_rows(ax, [plain(region_label(feature)) for _, feature in top.index])
    ax.set_xlabel(f"deviation, z (dashed: ±{EXTREME})")
    return open_frame(legend_beside(ax, modality_handles(styles, top.index.get_level_values(0))))


def plot_attribution(deviations: Deviations, subject: str, *, n: int = 10, ax: Axes | None = None
                     ) -> Axes:
    """What each modality adds to the n latent z of one person that deviate most.

    Shares above 0 are stacked to the right and those below 0 to the left; they add up to the z of
    that latent dimension, which is marked. Of single dimensions, not of the distance.

    Raises
    ------
    CohortError
        If the subject is unknown, has no latent z, or the deviations have no attribution.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> ax = plot_attribution(tiny_deviations(), "sub-b")
    >>> [round(float(bar.get_width()), 2) for bar in ax.patches]  # t1 in z1 and z2, pet likewise
    [1.2, -0.5, 0.3, 0.3]
    """
    person = deviations.select([subject])
    shares, z = attributed(person).iloc[0].dropna(), person.latent.iloc[0].dropna()
    if shares.empty:
        raise CohortError(f"{subject} has no latent z; there is nothing to attribute")
    top = z.loc[z.abs().sort_values(ascending=False, kind="stable").index[:n]]
    names = shares.index.unique(0)
    styles = modality_styles(dict.fromkeys((*deviations.modalities, *names)))
    ax = axis_or_new(ax, (6.5, 1.2 + 0.3 * len(top)))
    _lines_at_extremes(ax)
    reach = _stack(ax, [shares[name].reindex(top.index, fill_value=0) for name in names],
                   [styles[name][0] for name in names])
    ax.plot(top, range(len(top)), zorder=4, **_TOTAL)
    ax.set_xlim(-1.1 * max(3.0, reach), 1.1 * max(3.0, reach))
    name_rows(ax, [plain(dimension, 24) for dimension in top.index])
    ax.set_xlabel(f"share of the latent dimension's z (dashed: ±{EXTREME})")
    ax.set_title(f"{plain(subject, 30)}: latent z by modality", loc="left")
    handles = [Patch(color=styles[name][0], label=plain(name, 30)) for name in names]
    return open_frame(legend_beside(
        ax, [*handles, Line2D([], [], label="total z", **_TOTAL)]))


def _stack(ax: Axes, shares: list[pd.Series], colours: list[Any]) -> float:
    """A row of bars for each share, away from 0 on both sides; how far the longest row goes."""
    ends = np.zeros((2, len(shares[0])))  # below 0 and above
    for share, colour in zip(shares, colours):
        side = (share.to_numpy() > 0).astype(int)
        rows = np.arange(len(share))
        ax.barh(rows, share, left=ends[side, rows], height=0.62, color=colour, edgecolor="white",
                lw=0.8, zorder=2)
        ends[side, rows] += share
    return float(np.abs(ends).max())


def _lines_at_extremes(ax: Axes) -> None:
    ax.axvline(0, color=GREY, lw=1)
    for threshold in (-EXTREME, EXTREME):
        ax.axvline(threshold, color=GREY, lw=1, ls="--")

"""Pictures of extreme deviations: how many a person has, and how many people share one."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from normfuse.errors import ComparisonError, listed

from .drawing import (GREY, PALETTE, SIGNIFICANT, axis_or_new, legend_beside, name_rows,
                      open_frame, person_strip, row_offset)
from .extremes import SIGNS
from .wording import plain, region_label

if TYPE_CHECKING:
    from .extremes import ExtremeCounts
    from .overlap_maps import OverlapMaps


def plot_extreme_counts(found: ExtremeCounts, *, direction: str | None = None,
                        threshold: float | None = None, ax: Axes | None = None) -> Axes:
    """A point a person, per modality and group, with quartiles; dashed what is expected.

    Parameters
    ----------
    found : ExtremeCounts
    direction, threshold : optional
        One of those that were counted; the first by default.

    Raises
    ------
    ComparisonError
        If that was not counted.

    Examples
    --------
    >>> from normfuse.analyses import extreme_counts, MaxT
    >>> from normfuse.testing import tiny_scored
    >>> people = tiny_scored()
    >>> found = extreme_counts(people, "diagnosis", shuffles=MaxT(20))
    >>> ax = plot_extreme_counts(found, direction="below", threshold=1.96)
    >>> [label.get_text() for label in ax.get_yticklabels()], ax.get_xlabel()[:21]
    (['t1', 'dti', 'pet', 'total'], 'features with z < −1.')
    """
    counted = list(dict.fromkeys(key[:2] for key in found.people.columns))
    chosen = (direction or counted[0][0], threshold or counted[0][1])
    if chosen not in counted:
        raise ComparisonError(f"{chosen} was not counted; there are {listed(counted, 9)}")
    known = [key for key in found.people.columns if key[:2] == chosen]
    counts = found.people[known].droplevel([0, 1], axis=1)
    levels = list(found.n)
    ax = axis_or_new(ax, (7.5, 1.2 + 0.38 * len(levels) * counts.shape[1]))
    expected = found.table.xs(chosen, level=("direction", "threshold"))["expected"]
    expected = expected.groupby(level="modality").first()
    for i, name in enumerate(map(str, counts)):
        for j, level in enumerate(levels):
            values = counts[name][(found.levels == level).to_numpy()].dropna()
            person_strip(ax, values, i + row_offset(j, len(levels)), PALETTE[j % len(PALETTE)],
                         0.7 / len(levels))
        ax.plot([expected[name]] * 2, [i - 0.42, i + 0.42], color=GREY, lw=1.2, ls="--")
    name_rows(ax, [plain(name) for name in counts])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(left=min(-0.5, ax.get_xlim()[0]))
    sign = SIGNS[chosen[0]].format(chosen[1]).replace("-", "−")
    ax.set_xlabel(f"features with {sign} per person (dashed: expected on average)")
    handles = [Line2D([], [], ls="", marker="o", color=PALETTE[j % len(PALETTE)],
                      label=f"{plain(level, 30)} (n = {found.n[level]})")
               for j, level in enumerate(levels)]
    return open_frame(legend_beside(ax, handles))


def plot_overlap(found: OverlapMaps, n: int = 20, *, contrast: str | None = None,
                 ax: Axes | None = None) -> Axes:
    """Share of both groups in the n features where they differ most; filled where p_fwe < .05.

    Parameters
    ----------
    found : OverlapMaps
    n : int
        Features to draw, over all modalities, by p and then by difference.
    contrast : str, optional
        The first by default.

    Raises
    ------
    ComparisonError
        For an unknown contrast, or one in which nothing could be compared.

    Examples
    --------
    >>> from normfuse.analyses import MaxT, overlap
    >>> from normfuse.testing import tiny_scored
    >>> people = tiny_scored()
    >>> found = overlap(people, "diagnosis", threshold=1.0, shuffles=MaxT(20))
    >>> ax = plot_overlap(found, 3)
    >>> len(ax.get_yticklabels()), ax.get_xlabel()
    (3, 'share of people with |z| > 1')
    """
    known = found.table.index.get_level_values("contrast").unique()
    contrast = contrast or known[0]
    if contrast not in known:
        raise ComparisonError(f"there is no contrast {contrast!r}; there are {listed(known)}")
    table = found.table[found.table.index.get_level_values("contrast") == contrast]
    table = table.droplevel("contrast").dropna(subset=["p"])
    table = table.assign(size=-table["difference"].abs()).sort_values(["p", "size"]).head(n)
    if table.empty:
        raise ComparisonError(f"no region could be compared in {contrast}; see the column reason")
    table = table.sort_values("difference", ascending=False)
    case = contrast.removesuffix(f" - {found.baseline}")
    ax = axis_or_new(ax, (7.5, 1 + 0.26 * len(table)))
    rows = np.arange(len(table))
    ax.hlines(rows, table["share_baseline"], table["share_case"], color="0.75", lw=2, zorder=1)
    sure = (table["p_fwe"] < SIGNIFICANT).to_numpy()
    for name, colour, marker in (("share_baseline", PALETTE[0], "o"),
                                 ("share_case", PALETTE[1], "s")):
        ax.scatter(table[name], rows, s=42, marker=marker, edgecolors=[colour], zorder=3,
                   facecolors=[colour if fill else "white" for fill in sure], lw=1.5)
    several = table.index.get_level_values(0).nunique() > 1
    name_rows(ax, [plain(region_label(feature)) + (f" ({plain(modality, 12)})" * several)
                   for modality, feature in table.index])
    ax.set_xlim(left=-0.01)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel(f"share of people with {found.what.replace('-', '−')}")
    handles = [Line2D([], [], ls="", marker=marker, color=colour,
                      label=f"{plain(level, 24)} (n = {found.n[level]})")
               for level, colour, marker in ((found.baseline, PALETTE[0], "o"),
                                             (case, PALETTE[1], "s"))]
    handles += [Line2D([], [], ls="", marker="o", color=GREY, mfc=fill, label=label)
                for fill, label in ((GREY, "p_fwe < .05"), ("white", "p_fwe ≥ .05"))]
    return open_frame(legend_beside(ax, handles))

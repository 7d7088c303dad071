"""Forest plots: effects of regions with their intervals, of groups and of scores."""
from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normfuse.errors import ComparisonError, listed

from .drawing import (GREY, SIGNIFICANT, axis_or_new, legend_beside, modality_handles,
                      modality_styles, name_rows, open_frame)
from .wording import minus, plain, region_label

if TYPE_CHECKING:
    from .association_table import Associations
    from .group_comparison import GroupComparison


def plot_group_effects(comparison: GroupComparison, n: int = 20, *, contrast: str | None = None,
                       ax: Axes | None = None) -> Axes:
    """Forest plot of the n regions with the smallest p: Hedges' g and its 95 % interval.

    Parameters
    ----------
    comparison : GroupComparison
    n : int
        Regions to draw, over all modalities.
    contrast : str, optional
        One of the comparison's contrasts; the first by default.

    Raises
    ------
    ComparisonError
        For an unknown contrast, or one in which nothing could be compared.

    Examples
    --------
    >>> from normfuse.analyses import GroupComparison
    >>> row = pd.MultiIndex.from_tuples([("AD - CN", "t1", "ctx-lh-insula")],
    ...                                 names=["contrast", "modality", "feature"])
    >>> table = pd.DataFrame({"g": -0.9, "g_low": -1.5, "g_high": -0.3, "p": 0.01, "q": 0.01}, row)
    >>> comparison = GroupComparison(table, "diagnosis", "CN", (), "", {"CN": 30, "AD": 20})
    >>> [label.get_text() for label in plot_group_effects(comparison).get_yticklabels()]
    ['L insula']
    """
    if "g" not in comparison.table:
        raise ComparisonError("this comparison is of ranks and has no Hedges' g to draw; "
                              "extreme_counts(…).plot() draws counts")
    table, contrast = _one_of(comparison.table, "contrast", contrast)
    return _forest(table, "g", n, f"Hedges' g of z, {minus(plain(contrast))}, with 95 % interval",
                   contrast, ax)


def plot_associations(found: Associations, n: int = 20, *, score: str | None = None,
                      ax: Axes | None = None) -> Axes:
    """Forest plot of the n regions with the smallest p: correlations with a score, 95 % intervals.

    Parameters
    ----------
    found : Associations
    n : int
        Regions to draw, over all modalities.
    score : str, optional
        The first by default.

    Raises
    ------
    ComparisonError
        For an unknown score, or one that nothing could be tested of.

    Examples
    --------
    >>> from normfuse.analyses import Associations
    >>> row = pd.MultiIndex.from_tuples([("mmse", "t1", "ctx-lh-insula")],
    ...                                 names=["score", "modality", "feature"])
    >>> table = pd.DataFrame({"r": 0.4, "r_low": 0.1, "r_high": 0.6, "p": 0.01, "q": 0.01}, row)
    >>> found = Associations(table, ("mmse",), "spearman", (), "", {"mmse": 40})
    >>> plot_associations(found).get_xlabel()
    'Spearman correlation of z with mmse, with 95 % interval'
    """
    table, score = _one_of(found.table, "score", score)
    partial = "partial " if found.adjust else ""
    name = f"{partial}{found.method.title()} correlation of z with {plain(score, 30)}"
    return _forest(table, "r", n, f"{name}, with 95 % interval", score, ax)


def _one_of(table: pd.DataFrame, level: str, name: str | None) -> tuple[pd.DataFrame, str]:
    """The part of one contrast or score, by default the first."""
    known = table.index.get_level_values(level).unique()
    if name is None and len(known):
        name = known[0]
    if name not in known:
        raise ComparisonError(f"there is no {level} {name!r}; there are {listed(known)}")
    return table[table.index.get_level_values(level) == name].droplevel(level), str(name)


def _forest(table: pd.DataFrame, effect: str, n: int, label: str, what: str, ax: Axes | None
            ) -> Axes:
    styles = modality_styles(table.index.get_level_values("modality").unique())
    top = table.assign(size=-table[effect].abs()).dropna(subset=[effect, "p"])
    top = top.sort_values(["p", "size"]).head(n).sort_values(effect)
    if top.empty:
        raise ComparisonError(f"no region could be compared in {what}; see the column reason")
    ax = axis_or_new(ax, (7.5, 1 + 0.26 * len(top)))
    ax.axvline(0, color=GREY, lw=1)
    for y, (modality, row) in enumerate(zip(top.index.get_level_values("modality"),
                                            top.to_dict("records"))):
        colour, marker = styles[modality]
        ends = [[row[effect] - row[f"{effect}_low"]], [row[f"{effect}_high"] - row[effect]]]
        ax.errorbar(row[effect], y, xerr=ends, fmt=marker, color=colour, ms=6.5, lw=1.5, mew=1.4,
                    mfc=colour if row["q"] < SIGNIFICANT else "white")
    name_rows(ax, [plain(region_label(feature)) for _, feature in top.index])
    ax.set_xlabel(label)
    handles = modality_handles(styles, top.index.get_level_values("modality"))
    handles += [Line2D([], [], ls="", marker="o", color=GREY, mfc=fill, label=name)
                for fill, name in ((GREY, "q < .05"), ("white", "q ≥ .05"))]
    return open_frame(legend_beside(ax, handles))

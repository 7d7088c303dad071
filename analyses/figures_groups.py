"""Pictures of groups: effects with their intervals, extreme counts, latent distances."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from normfuse.deviations import JUDGES, ROLE, Deviations
from normfuse.errors import ComparisonError, listed

from .drawing import (EXTREME, GREY, PALETTE, SIGNIFICANT, axis_or_new, legend_beside,
                      modality_handles, modality_styles, name_rows, open_frame, person_strip,
                      row_offset)
from .groups import honest_people
from .wording import minus, plain, region_label

if TYPE_CHECKING:
    from .group_comparison import GroupComparison

_MAX_GROUPS = 12  # more levels are a score or an id, not a grouping


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
    known = comparison.table.index.get_level_values("contrast").unique()
    if contrast is None and len(known):
        contrast = known[0]
    if contrast not in known:
        raise ComparisonError(f"there is no contrast {contrast!r}; there are {listed(known)}")
    table = comparison.table.xs(contrast, level="contrast")
    styles = modality_styles(table.index.get_level_values("modality").unique())
    top = table.assign(size=-table["g"].abs()).dropna(subset=["g", "p"])
    top = top.sort_values(["p", "size"]).head(n).sort_values("g")
    if top.empty:
        raise ComparisonError(f"no region could be compared in {contrast}; see the column reason")
    ax = axis_or_new(ax, (7.5, 1 + 0.26 * len(top)))
    ax.axvline(0, color=GREY, lw=1)
    for y, (modality, row) in enumerate(zip(top.index.get_level_values("modality"),
                                            top.to_dict("records"))):
        colour, marker = styles[modality]
        ax.errorbar(row["g"], y, xerr=[[row["g"] - row["g_low"]], [row["g_high"] - row["g"]]],
                    fmt=marker, color=colour, ms=6.5, lw=1.5, mew=1.4,
                    mfc=colour if row["q"] < SIGNIFICANT else "white")
    name_rows(ax, [plain(region_label(feature)) for _, feature in top.index])
    ax.set_xlabel(f"Hedges' g of z, {minus(plain(contrast))}, with 95 % interval")
    handles = modality_handles(styles, top.index.get_level_values("modality"))
    handles += [Line2D([], [], ls="", marker="o", color=GREY, mfc=fill, label=label)
                for fill, label in ((GREY, "q < .05"), ("white", "q ≥ .05"))]
    return open_frame(legend_beside(ax, handles))


def plot_extremes(deviations: Deviations, group: str, *, ax: Axes | None = None) -> Axes:
    """How many features of each person lie beyond \\|z\\| 1.96, per modality and group.

    The held-out controls are added and people seen in training left out, as in
    :func:`~normfuse.analyses.compare_extremes`. Boxes show the quartiles; each point is a person,
    and whoever lacks the modality has none.

    Raises
    ------
    ComparisonError
        If ``group`` is no column of ``subjects``, or has more than 12 values.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> plot_extremes(tiny_deviations(), "diagnosis").get_xlabel()
    'features beyond |z| 1.96 per person (dashed: expected by chance)'
    """
    people, of, levels = _grouped(deviations, group)
    counts, names = people.extreme(EXTREME), people.modalities
    ax = axis_or_new(ax, (7, 1.2 + 0.38 * len(levels) * len(names)))
    for i, name in enumerate(names):
        for j, level in enumerate(levels):
            values = counts.loc[of == level, name].dropna()
            person_strip(ax, values, i + row_offset(j, len(levels)), PALETTE[j % len(PALETTE)],
                         0.7 / len(levels))
        chance = 2 * stats.norm.sf(EXTREME) * people.z[name].shape[1]
        ax.plot([chance, chance], [i - 0.42, i + 0.42], color=GREY, lw=1.2, ls="--")
    name_rows(ax, [plain(name) for name in names])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(left=min(-0.5, ax.get_xlim()[0]))
    ax.set_xlabel(f"features beyond |z| {EXTREME} per person (dashed: expected by chance)")
    return open_frame(legend_beside(ax, _group_handles(levels, of)))


def plot_distances(deviations: Deviations, group: str, *, ax: Axes | None = None) -> Axes:
    """Latent distance of each person, per group; filled where its p is below .05.

    People are chosen as in :func:`plot_extremes`, and the same errors are raised.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> ax = plot_distances(tiny_deviations(), "diagnosis")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['CN (n = 1)', 'AD (n = 1)']
    """
    people, of, levels = _grouped(deviations, group)
    table = people.distance.dropna(subset=["distance"])
    ax = axis_or_new(ax, (7, 1 + 0.5 * len(levels)))
    for j, level in enumerate(levels):
        rows = table[of[table.index] == level]
        person_strip(ax, rows["distance"], j, PALETTE[j % len(PALETTE)], 0.7,
                     filled=(rows["p"] < SIGNIFICANT).to_numpy())
    name_rows(ax, [plain(level) for level in levels])
    ax.set_xlabel("Mahalanobis distance in latent space (filled: p < .05)")
    return open_frame(legend_beside(ax, _group_handles(levels, of)))


def _grouped(deviations: Deviations, group: str) -> tuple[Deviations, pd.Series, list[str]]:
    """The people to draw, their groups, and the groups' order: the controls' own first."""
    people, of, _ = honest_people(deviations, group)
    held_out = of[people.subjects[ROLE].isin(JUDGES)] if ROLE in people.subjects else of[:0]
    levels = sorted(of.unique(), key=lambda level: (-(held_out == level).sum(), level))
    if len(levels) > _MAX_GROUPS:
        raise ComparisonError(f"{group!r} has {len(levels)} values among {len(of)} people; a "
                              f"figure has room for {_MAX_GROUPS}: choose a column of groups")
    return people, of, levels


def _group_handles(levels: Sequence[str], of: pd.Series) -> list[Line2D]:
    return [Line2D([], [], ls="", marker="o", color=PALETTE[i % len(PALETTE)],
                   label=f"{plain(level, 30)} (n = {int((of == level).sum())})")
            for i, level in enumerate(levels)]

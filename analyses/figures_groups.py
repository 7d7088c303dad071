"""Pictures of groups: extreme counts and latent distances of their people."""
from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from normfuse.deviations import JUDGES, ROLE, Deviations
from normfuse.errors import ComparisonError

from .drawing import (EXTREME, GREY, PALETTE, SIGNIFICANT, axis_or_new, legend_beside, name_rows,
                      open_frame, person_strip, row_offset)
from .groups import honest_people
from .wording import plain

MAX_GROUPS = 12  # more levels are a score or an id, not a grouping


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
    people, of, levels = grouped(deviations, group)
    counts, names = people.extreme(EXTREME), people.modalities
    measured = people.z.notna().T.groupby(level=0).sum().T
    ax = axis_or_new(ax, (7, 1.2 + 0.38 * len(levels) * len(names)))
    for i, name in enumerate(names):
        for j, level in enumerate(levels):
            values = counts.loc[of == level, name].dropna()
            person_strip(ax, values, i + row_offset(j, len(levels)), PALETTE[j % len(PALETTE)],
                         0.7 / len(levels))
        width = measured[name]  # of each person: some features may be nobody's
        chance = 2 * stats.norm.sf(EXTREME) * width[width > 0].mean()
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
    people, of, levels = grouped(deviations, group)
    table = people.distance.dropna(subset=["distance"])
    ax = axis_or_new(ax, (7, 1 + 0.5 * len(levels)))
    for j, level in enumerate(levels):
        rows = table[of[table.index] == level]
        person_strip(ax, rows["distance"], j, PALETTE[j % len(PALETTE)], 0.7,
                     filled=(rows["p"] < SIGNIFICANT).to_numpy())
    name_rows(ax, [plain(level) for level in levels])
    ax.set_xlabel("Mahalanobis distance in latent space (filled: p < .05)")
    return open_frame(legend_beside(ax, _group_handles(levels, of)))


def grouped(deviations: Deviations, group: str) -> tuple[Deviations, pd.Series, list[str]]:
    """The people to draw, their groups, and the groups' order: the controls' own first."""
    people, of, _ = honest_people(deviations, group)
    held_out = of[people.subjects[ROLE].isin(JUDGES)] if ROLE in people.subjects else of[:0]
    levels = sorted(of.unique(), key=lambda level: (-(held_out == level).sum(), level))
    if len(levels) > MAX_GROUPS:
        raise ComparisonError(f"{group!r} has {len(levels)} values among {len(of)} people; a "
                              f"figure has room for {MAX_GROUPS}: choose a column of groups")
    return people, of, levels


def _group_handles(levels: Sequence[str], of: pd.Series) -> list[Line2D]:
    return [Line2D([], [], ls="", marker="o", color=PALETTE[i % len(PALETTE)],
                   label=f"{plain(level, 30)} (n = {int((of == level).sum())})")
            for i, level in enumerate(levels)]

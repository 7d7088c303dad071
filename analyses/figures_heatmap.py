"""Everybody's z at once: people by regions."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from normfuse.errors import ComparisonError

from .comparable import Scores, honest_people
from .drawing import axis_or_new
from .figures_groups import MAX_GROUPS
from .profile_distances import profile_dissimilarity
from .regional import RegionalDeviations
from .wording import plain

LIMIT = 4.0  # z at the ends of the colours: noise is pale, and one broken scan bleaches nobody
MOST_FEATURES = 3000  # columns that a screen can show something of
ABSENT = "0.75"


@dataclass(frozen=True)
class _Block:
    """People who stand together."""

    name: str
    ids: list[str]


def plot_heatmap(deviations: Scores, group: str | None = None, *, clustered: bool = False,
                 limit: float = LIMIT, ax: Axes | None = None) -> Axes:
    """z of everybody in every region; grey where nothing was measured.

    A row is a person, a column a region, in the model's order within its modality. The people of
    a group stand together, the most deviant (by the mean of \\|z\\|) above. Look for **columns**,
    which are shared by patients; for **rows**, of one person, who may have had a bad scan; and at
    how pale the controls are. In healthy people one cell in twenty lies beyond 1.96.

    Parameters
    ----------
    deviations : Deviations or RegionalDeviations
        Not of voxels: parcellate those first.
    group : str, optional
        Column of ``subjects``; the held-out controls are added then, and people the model was
        trained on left out, as in :func:`~normfuse.analyses.compare_groups`.
    clustered : bool
        Order people by average linkage of how unlike their profiles are
        (:func:`~normfuse.analyses.profile_dissimilarity`, Euclidean) instead. Neighbours are
        alike; that there are clusters at all is not said (:func:`~normfuse.analyses.subtypes`).
    limit : float
        z at the ends of the colour scale; what lies beyond has the colour of the end.

    Raises
    ------
    ComparisonError
        Too many features or groups, or an unknown group.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> ax = plot_heatmap(tiny_deviations(), "diagnosis")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['AD (n = 1)', 'CN (n = 1)']
    >>> ax.images[0].get_array().tolist()  # the second person, a control, has no PET
    [[-2.5, 0.3, 2.1], [0.4, -0.9, None]]
    """
    z, blocks = _blocks(deviations, group, clustered)
    ax = axis_or_new(ax, (8, float(np.clip(1.2 + 0.03 * len(z), 2.5, 9))))
    shown = z.loc[[i for block in blocks for i in block.ids]].to_numpy(dtype=float)
    colours = plt.get_cmap("RdBu_r").with_extremes(bad=ABSENT)
    image = ax.imshow(np.ma.masked_invalid(shown), cmap=colours, vmin=-limit, vmax=limit,
                      aspect="auto", interpolation="nearest")
    _divide(ax, blocks, z.columns)
    beyond = bool((np.abs(shown[np.isfinite(shown)]) > limit).any())
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, extend="both" if beyond else "neither",
                             label="z (grey: not measured)")
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    return ax


def _blocks(deviations: Scores, group: str | None, clustered: bool
            ) -> tuple[pd.DataFrame, list[_Block]]:
    scores = deviations.deviations if isinstance(deviations, RegionalDeviations) else deviations
    width = sum(block.shape[1] for block in scores.blocks().as_is().values())
    if width > MOST_FEATURES:
        raise ComparisonError(f"a heat map has room for {MOST_FEATURES} features; there are "
                              f"{width}. Take parcellate(deviations, atlas) of voxels")
    if group is None:
        return deviations.z, [_Block("", _order(deviations.z, clustered))]
    people, of, _ = honest_people(deviations, group)
    levels = sorted(of.unique(), key=lambda level: -float(
        people.z.loc[of.index[of == level]].abs().mean().mean()))
    if len(levels) > MAX_GROUPS:
        raise ComparisonError(f"{group!r} has {len(levels)} values among {len(of)} people; a "
                              f"figure has room for {MAX_GROUPS}: choose a column of groups")
    return people.z, [_Block(level, _order(people.z.loc[of.index[of == level]], clustered))
                      for level in levels]


def _order(z: pd.DataFrame, clustered: bool) -> list[str]:
    severe = z.abs().mean(axis=1).sort_values(ascending=False, kind="stable").index
    if not clustered or len(z) < 3:
        return list(severe)
    unlike = squareform(profile_dissimilarity(z, "euclidean").to_numpy(), checks=False)
    tree = optimal_leaf_ordering(linkage(unlike, "average"), unlike)
    return list(z.index[leaves_list(tree)])


def _divide(ax: Axes, blocks: list[_Block], columns: pd.Index) -> None:
    """Lines between groups and modalities, each named once."""
    sizes = np.array([len(block.ids) for block in blocks])
    ends = np.cumsum(sizes)
    names = columns.get_level_values(0).to_numpy()
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="black", lw=1.5)
    for start in starts[1:]:
        ax.axvline(start - 0.5, color="black", lw=1.5)
    widths = np.diff(np.r_[starts, len(names)])
    ax.set_xticks(starts + widths / 2 - 0.5,
                  [f"{plain(names[start], 24)}\n{n} regions" for start, n in zip(starts, widths)])
    ax.set_yticks(ends - sizes / 2 - 0.5, [
        f"{plain(block.name, 24)} (n = {len(block.ids)})".removeprefix(" (").removesuffix(
            "" if block.name else ")") for block in blocks])
    ax.tick_params(length=0)

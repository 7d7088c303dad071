"""Pictures of subtypes: how stable, who belongs together, and where each deviates."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .drawing import GREY, MARKERS, PALETTE, axis_or_new, legend_beside, name_rows, open_frame
from .wording import plain, region_label

if TYPE_CHECKING:
    from .subtype_table import Subtypes


def plot_stability(found: Subtypes, *, ax: Axes | None = None) -> Axes:
    """Stability for each number of clusters, beside the band of one cloud without subtypes.

    Examples
    --------
    >>> from normfuse.analyses import StabilityPlan, subtypes
    >>> from normfuse.testing import tiny_scored
    >>> people = tiny_scored()
    >>> found = subtypes(people, most=2, plan=StabilityPlan(n_subsamples=5, n_null=19))
    >>> plot_stability(found).get_xlabel()
    'number of clusters'
    """
    ax = axis_or_new(ax, (7, 3.4))
    table = found.stability
    for name, colour, marker, said in (
            ("stability", PALETTE[0], "o", "stability (adjusted Rand index)"),
            ("silhouette", PALETTE[1], "s", "silhouette")):
        ax.fill_between(table.index, table[f"{name}_low"], table[f"{name}_high"], color=colour,
                        alpha=0.2, lw=0, label=f"{said.split(' (')[0]} of one cloud, 95 %")
        ax.plot(table.index, table[name], color=colour, marker=marker, label=said)
    at = table.index == found.n_candidate
    said = "subtypes" if found.n_clusters > 1 else "no more than chance"
    ax.plot(table.index[at], table["silhouette"][at], marker="o", ms=13, mfc="none", mec="0.2",
            mew=1.8, ls="", label=f"{said}: p = {found.p:.2g} over all")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(min(-0.02, table[["silhouette_low", "silhouette"]].to_numpy().min()), 1.02)
    ax.set_xlabel("number of clusters")
    ax.set_ylabel("of all people, −1 to 1")
    return open_frame(legend_beside(ax))


def plot_consensus(found: Subtypes, *, ax: Axes | None = None) -> Axes:
    """How often every two people fell together, the people ordered by candidate cluster.

    Examples
    --------
    >>> from normfuse.analyses import StabilityPlan, subtypes
    >>> from normfuse.testing import tiny_scored
    >>> people = tiny_scored()
    >>> found = subtypes(people, most=2, plan=StabilityPlan(n_subsamples=5, n_null=19))
    >>> plot_consensus(found).images[0].get_array().shape
    (40, 40)
    """
    ax = axis_or_new(ax, (5.6, 4.6))
    order = found.table.sort_values(["candidate", "consensus"], ascending=[True, False]).index
    shown = found.consensus.loc[order, order].to_numpy()
    image = ax.imshow(shown, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    sizes = found.table["candidate"].value_counts().sort_index()
    ends = np.cumsum(sizes.to_numpy())
    for end in ends[:-1] - 0.5:
        ax.axhline(end, color="white", lw=1.5)
        ax.axvline(end, color="white", lw=1.5)
    labels = [f"{k} (n = {n})" for k, n in sizes.items()]
    ax.set_yticks(ends - sizes.to_numpy() / 2 - 0.5, labels)
    ax.set_xticks([])
    ax.tick_params(length=0)
    said = "subtype" if found.n_clusters > 1 else "cluster (no subtypes beyond chance)"
    ax.set_ylabel(said)
    ax.set_xlabel("people, in the same order")
    ax.figure.colorbar(image, ax=ax, pad=0.02,
                       label="share of subsamples in which\nboth fell together")
    return ax


def plot_profiles(found: Subtypes, n: int = 20, *, ax: Axes | None = None) -> Axes:
    """Mean z of each subtype in the n features where they lie farthest apart, with 2 errors.

    Of one cluster alone the features that lie farthest from 0.

    Examples
    --------
    >>> from normfuse.analyses import StabilityPlan, subtypes
    >>> from normfuse.testing import tiny_scored
    >>> people = tiny_scored()
    >>> found = subtypes(people, most=2, plan=StabilityPlan(n_subsamples=5, n_null=19))
    >>> len(plot_profiles(found, 4).get_yticklabels())
    4
    """
    mean, sd, count = (pd.DataFrame(found.profiles[name]) for name in ("mean", "sd", "n"))
    apart = mean.max(axis=1) - mean.min(axis=1) if found.n_clusters > 1 else mean.abs().max(axis=1)
    chosen = apart.nlargest(n).index
    chosen = mean.loc[chosen].sort_values(list(mean.columns)).index
    ax = axis_or_new(ax, (7.5, 1 + 0.28 * len(chosen)))
    ax.axvline(0, color=GREY, lw=1)
    rows = np.arange(len(chosen))
    for j, k in enumerate(mean.columns):
        error = 2 * sd.loc[chosen, k] / np.sqrt(count.loc[chosen, k])
        place = rows + 0.4 * ((j + 0.5) / len(mean.columns) - 0.5)
        ax.errorbar(mean.loc[chosen, k], place, xerr=error, ls="", color=PALETTE[j % len(PALETTE)],
                    marker=MARKERS[j % len(MARKERS)], ms=5.5, lw=1.2,
                    label=f"subtype {k} (n = {int((found.table['subtype'] == k).sum())})"
                    if found.n_clusters > 1 else f"everybody (n = {len(found.table)})")
    several = len(set(chosen.get_level_values(0))) > 1
    name_rows(ax, [plain(region_label(feature)) + (f" ({plain(modality, 12)})" * several)
                   for modality, feature in chosen])
    ax.set_xlabel("mean z, with 2 standard errors (chosen to differ: no test)")
    return open_frame(legend_beside(ax))

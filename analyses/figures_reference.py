"""Pictures of a reference: how it was trained, and whether its z-scores are what they say."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from normfuse.deviations import Reference
from normfuse.errors import CalibrationError, TrainingError

from .drawing import (GREY, MARKERS, PALETTE, axis_or_new, legend_beside, modality_styles,
                      name_rows, open_frame, row_offset)
from .wording import plain


def plot_training(reference: Reference, *, ax: Axes | None = None) -> Axes:
    """Loss of each epoch on training and early-stopping people; the lowest validation is marked.

    Raises
    ------
    TrainingError
        If the reference keeps no history.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_deviations
    >>> history = [{"epoch": 1, "training": 9.5, "validation": 9.7},
    ...            {"epoch": 2, "training": 9.1, "validation": 9.8}]
    >>> ax = plot_training(replace(tiny_deviations().reference, history=history, best_epoch=1))
    >>> [line.get_label() for line in ax.lines if "kept" in line.get_label()]
    ['weights kept: epoch 1']
    """
    if not reference.history:
        raise TrainingError("this reference keeps no training history; there is nothing to draw")
    history = pd.DataFrame(reference.history)
    ax = axis_or_new(ax, (7, 3.2))
    ax.plot(history["epoch"], history["training"], color=PALETTE[0], label="training")
    if "validation" in history and history["validation"].notna().any():
        ax.plot(history["epoch"], history["validation"], color=PALETTE[1], label="validation")
        kept = history["epoch"] == reference.best_epoch
        best = history[kept].iloc[0] if kept.any() else \
            history.iloc[int(np.nanargmin(history["validation"]))]
        ax.axvline(best["epoch"], color=GREY, lw=1, ls=":")
        ax.plot(best["epoch"], best["validation"], "o", color=PALETTE[1], mec="white", ms=8,
                label=f"weights kept: epoch {best['epoch']:.0f}")
    # Losses fall a hundredfold in the first epochs; on their scale an overfit would be invisible.
    settled = history["epoch"] >= 0.05 * history["epoch"].max()
    losses = history.loc[settled].filter(["training", "validation"]).to_numpy()
    if np.isfinite(losses).any() and np.nanmin(losses) < np.nanmax(losses):
        low, high = np.nanmin(losses), np.nanmax(losses)
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set(xlabel="epoch", ylabel="loss (nats per person)")
    ax.legend(frameon=False)
    return open_frame(ax)


def plot_qq(reference: Reference, *, ax: Axes | None = None) -> Axes:
    r"""Quantiles of the held-out controls' z against those of the standard normal law.

    The band holds the k-th smallest of n independent values with 95 % probability at each k,
    :math:`\Phi^{-1}(\mathrm{Beta}^{-1}_{q}(k, n + 1 - k))`, for n **people**: regions of one brain
    are correlated, and n values would make the band far too narrow.

    Raises
    ------
    CalibrationError
        If the reference keeps no quantiles.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_deviations
    >>> quantiles = {"t1": {"theoretical": [-1.3, 0.0, 1.3], "observed": [-1.2, 0.1, 1.5]}}
    >>> ax = plot_qq(replace(tiny_deviations().reference, quantiles=quantiles))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['95 % band for 25 people', 't1']
    """
    if not reference.quantiles:
        raise CalibrationError("this reference keeps no quantiles of held-out controls; nothing "
                               "can be said about their calibration")
    ax = axis_or_new(ax, (4.6, 4.6))
    people = {str(row["quantity"]): int(row["n_subjects"]) for row in reference.calibration}
    names = [name for name in reference.quantiles if name in reference.modalities]
    n = min((people.get(f"z {name}", reference.n_calibration)
             for name in names), default=0)
    pairs = {name: np.array([reference.quantiles[name][which] for which in
                             ("theoretical", "observed")], float) for name in names}
    reach = 1.05 * max(3.0, *(float(np.nanmax(np.abs(pair))) for pair in pairs.values()))
    line = np.linspace(-reach, reach, 201)
    if n > 1:
        k = stats.norm.cdf(line) * (n + 1)
        low, high = (stats.norm.ppf(stats.beta.ppf(q, k, n + 1 - k)) for q in (0.025, 0.975))
        ax.fill_between(line, np.maximum(low, -2 * reach), np.minimum(high, 2 * reach),
                        color="0.9", lw=0, label=f"95 % band for {n} people")
    ax.plot(line, line, color=GREY, lw=1)
    for (name, (expected, observed)), (colour, marker) in zip(pairs.items(),
                                                              modality_styles(pairs).values()):
        ax.plot(expected, observed, marker, color=colour, ms=4, mew=0, label=plain(name))
    ax.set(xlabel="expected z (standard normal)", ylabel="z of held-out controls",
           xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.legend(frameon=False, loc="upper left")
    return open_frame(ax)


def plot_calibration(reference: Reference, *, ax: Axes | None = None) -> Axes:
    """Share of held-out controls' values beyond each nominal level, with its 95 % interval.

    Raises
    ------
    CalibrationError
        If the reference keeps no calibration rows.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_deviations
    >>> rows = [{"quantity": "z t1", "nominal": 0.05, "share": 0.06, "low": 0.04, "high": 0.08}]
    >>> ax = plot_calibration(replace(tiny_deviations().reference, calibration=rows))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['z t1']
    """
    if not reference.calibration:
        raise CalibrationError("this reference keeps no calibration rows; nothing can be said "
                               "about how often healthy people exceed a threshold")
    table = pd.DataFrame(reference.calibration)
    quantities, levels = table["quantity"].unique(), sorted(table["nominal"].unique())[::-1]
    ax = axis_or_new(ax, (7, 1.2 + 0.45 * len(quantities)))
    for i, (level, colour) in enumerate(zip(levels, PALETTE)):
        rows = table[table["nominal"] == level]
        y = [list(quantities).index(q) + row_offset(i, len(levels)) for q in rows["quantity"]]
        wings = np.array([rows["share"] - rows["low"], rows["high"] - rows["share"]], float)
        ax.axvline(level, color=colour, lw=1.2, ls="--")
        ax.errorbar(rows["share"], y, xerr=wings.clip(min=0), fmt=MARKERS[i], color=colour, ms=6,
                    capsize=2.5, lw=1.5, label=f"nominal {100 * level:g} %")
    name_rows(ax, [plain(q) for q in quantities])
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.set_xlim(left=0)
    ax.set_xlabel("share of held-out controls' values beyond the threshold")
    return open_frame(legend_beside(ax))

"""Calibration, accuracy and detection by number of healthy people a model is learned from.

    python docs/gallery/plot_how_many_controls.py --out figures/

Writes ``how_many_controls.png``, from what ``benchmarks/how_many_controls.py`` measured.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from gallery_style import GREY, MODALITIES, PALE, WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from scipy import stats

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "how_many_controls.csv"
SOURCES = {"simulated": "simulated cohort, 239 regions", "fcon1000": "FCON1000, 148 regions"}
LINES = {"focal": ("focal", MODALITIES["T1"], "o"),
         "covariates": ("covariates", MODALITIES["DTI"], "s")}
SPLINE = ("spline regression", GREY, "^")
TICKS = (30, 50, 100, 200, 400, 1000)


def summary() -> pd.DataFrame:
    """Mean and half a 95 % t interval over seeds: columns (measure, mean or half)."""
    table = pd.read_csv(MEASURED).drop(columns="seed")
    groups = table.groupby(["source", "kind", "n"])
    n = groups.size()
    half = groups.std().mul(stats.t.isf(0.025, n - 1) / np.sqrt(n), axis=0)
    return pd.concat({"mean": groups.mean(), "half": half}, axis=1).swaplevel(axis=1)


def draw_controls() -> Figure:
    """A row a source; calibration, accuracy given covariates, planted deviations."""
    found = summary()
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 5), sharex=True, layout="constrained")
    for (source, title), (share, gain, auc) in zip(SOURCES.items(), axes):
        for kind, style in LINES.items():
            _line(share, found.loc[source, kind]["beyond_1.96"], *style)
            _line(auc, found.loc[source, kind]["auc"], *style)
        rows = found.loc[source, "covariates"]
        _line(share, rows["beyond_1.96_spline"], *SPLINE)
        _line(gain, rows["MSLL"], *LINES["covariates"])
        _line(gain, rows["MSLL_spline"], *SPLINE)
        share.axhline(0.05, color=GREY, lw=0.8, ls=":")
        gain.axhline(0, color=GREY, lw=0.8, ls=":")
        share.set_title(title, loc="left", weight="bold")
        share.set_ylabel("healthy beyond |z| 1.96")
        gain.set_ylabel("MSLL (lower is better)")
        auc.set_ylabel("AUC of planted regions")
        for ax in (share, gain, auc):
            _dressed(ax)
    for ax in axes[1]:
        ax.set_xlabel("healthy people in the fit")
    axes[0, 0].legend()
    return figure


def _line(ax: Axes, rows: pd.DataFrame, label: str, colour: str, mark: str) -> None:
    ax.errorbar(rows.index, rows["mean"], rows["half"], fmt=mark, ls="-", color=colour, ms=4,
                lw=1.2, capsize=2, label=label)


def _dressed(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xticks(TICKS)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(color=PALE, lw=0.6)
    ax.tick_params(which="both", color=GREY)


FIGURES = {"how_many_controls": draw_controls}

if __name__ == "__main__":
    main(__doc__, FIGURES)

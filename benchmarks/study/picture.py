"""The study at a glance: paired leads over factor analysis, and what the latent size does."""
from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from contenders import CONTENDERS
from matplotlib.ticker import MaxNLocator
from settings import AMORTISED

PANELS = {"ll_per_feature": "log p per feature", "r2_cross": "cross-modal R2",
          "auc_cells": "AUC of planted cells"}
SHOWN = ("poe", "wb", "gwb", "gwb ladder", "unimodal", "factor analysis", "probabilistic cca")
BLUE, GREY, ORANGE = "#0072B2", "#999999", "#D55E00"  # Okabe-Ito


def draw(results: pd.DataFrame, bases: dict[str, dict], titles: dict[str, str], rival: str,
         folder: Path) -> None:
    """study_leads.png and study_latent.png in this folder."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = results[~results["contender"].str.endswith(AMORTISED)]
    some = {d: rows for d in bases if len(rows := results[results["data"] == d])}
    for name, panel, height in (("leads", _leads, 4.2), ("latent", _latent, 3.0)):
        figure, axes = plt.subplots(len(some), len(PANELS), squeeze=False,
                                    figsize=(10, height * len(some)), layout="constrained")
        for row, (data, rows) in zip(axes, some.items()):
            for ax, (measure, label) in zip(row, PANELS.items()):
                panel(ax, _at(rows, bases[data], free=name), measure, rival)
                ax.set_title(f"{titles[data].split(',')[0]}: {label}", fontsize=9)
        if name == "latent":
            axes[0, -1].legend(fontsize=7, frameon=False)
        figure.savefig(folder / f"study_{name}.png", dpi=110)
        plt.close(figure)


def _at(rows: pd.DataFrame, setting: dict, free: str) -> pd.DataFrame:
    for name, value in setting.items():
        if name != free:
            rows = rows[rows[name] == value]
    return rows


def _leads(ax, rows: pd.DataFrame, measure: str, rival: str) -> None:
    """Mean lead over the rival, paired within seeds, and two standard errors."""
    wide = rows.pivot(index="seed", columns="contender", values=measure)
    names = [n for n in CONTENDERS if n in wide and n != rival]
    lead = wide[names].sub(wide[rival], axis=0)
    mean, error = lead.mean(), 2 * lead.sem()
    for y, n in enumerate(names):
        clear = abs(mean[n]) > error[n]
        ax.errorbar(mean[n], y, xerr=error[n], fmt="o", ms=4,
                    color=GREY if not clear else BLUE if mean[n] > 0 else ORANGE)
    ax.axvline(0, color="k", lw=0.8)
    ax.set_yticks(np.arange(len(names)), names, fontsize=8)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel(f"lead over {rival}, ± 2 standard errors", fontsize=8)


def _latent(ax, rows: pd.DataFrame, measure: str, rival: str) -> None:
    """Mean over seeds as the number of latent dimensions varies."""
    import seaborn as sns

    for colour, name in zip(sns.color_palette("colorblind", len(SHOWN)), SHOWN):
        mine = rows[rows["contender"] == name].groupby("latent")[measure].mean().dropna()
        ax.plot(mine.index, mine, "o-", ms=3, label=name, color=colour)
    ax.set_xticks(sorted(rows["latent"].unique()))
    ax.set_xlabel("latent dimensions", fontsize=8)

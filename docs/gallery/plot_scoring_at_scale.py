"""Cost of scoring by number of people: CPU seconds and peak memory, tables and voxels.

    python docs/gallery/plot_scoring_at_scale.py --out figures/

Writes ``scoring_at_scale.png``, from what ``benchmarks/scoring_at_scale.py --keep`` measured.
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

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "scoring_at_scale.csv"
SORTS = {"score tables": ("232 regions", MODALITIES["T1"], "o"),
         "score voxels": ("29,398 voxels", MODALITIES["DTI"], "s")}


def measured() -> pd.DataFrame:
    """One row a cohort."""
    return pd.read_csv(MEASURED)


def slope(rows: pd.DataFrame) -> float:
    """Of log CPU seconds on log people between the two largest; 1: twice the people, twice the
    time. Small cohorts also pay for what is done once."""
    people, seconds = (np.log(rows[name].to_numpy()[-2:]) for name in ("people", "cpu_seconds"))
    return float((seconds[1] - seconds[0]) / (people[1] - people[0]))


def draw_scale() -> Figure:
    """Time on the left, memory on the right, people across."""
    table = measured()
    figure, (time, memory) = plt.subplots(1, 2, figsize=(WIDTH, 3.3), layout="constrained")
    for sort, (label, colour, mark) in SORTS.items():
        rows = table[table["what"] == sort]
        time.plot(rows["people"], rows["cpu_seconds"], mark, ls="-", color=colour,
                  label=f"{label}, last slope {slope(rows):.2f}")
        memory.plot(rows["people"], rows["peak_mib"], mark, ls="-", color=colour, label=label)
        memory.plot(rows["people"], rows["model_read_mib"], ls=":", color=colour,
                    label="the model read, nobody scored")
    for ax, name, unit in ((time, "Time", "CPU seconds"), (memory, "Memory", "peak, MiB")):
        _dressed(ax, name, unit)
    time.set_yscale("log")
    time.set_ylim(1, 500)
    time.yaxis.set_major_formatter("{x:g}")
    time.yaxis.set_minor_formatter(NullFormatter())
    memory.set_ylim(0, 1.55 * table.loc[table["what"].isin(SORTS), "peak_mib"].max())
    return figure


def _dressed(ax: Axes, name: str, unit: str) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_title(name, loc="left", weight="bold")
    ax.set(xlabel="people scored", ylabel=unit)
    ax.grid(color=PALE, lw=0.6)
    ax.tick_params(which="both", color=GREY)
    ax.legend(loc="upper left")


FIGURES = {"scoring_at_scale": draw_scale}

if __name__ == "__main__":
    main(__doc__, FIGURES)

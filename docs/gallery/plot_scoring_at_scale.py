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

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "scoring_at_scale.csv"
SORTS = {"score tables": ("232 regions of three modalities", MODALITIES["T1"], "o"),
         "score voxels": ("29,398 voxels", MODALITIES["DTI"], "s")}


def measured() -> pd.DataFrame:
    """One row a cohort."""
    return pd.read_csv(MEASURED)


def slope(rows: pd.DataFrame) -> float:
    """Of log CPU seconds on log people, by least squares; 1: twice the people, twice the time."""
    return float(np.polyfit(np.log(rows["people"]), np.log(rows["cpu_seconds"]), 1)[0])


def draw_scale() -> Figure:
    """Time on the left, memory on the right, people across."""
    table = measured()
    figure, (time, memory) = plt.subplots(1, 2, figsize=(WIDTH, 3.3), layout="constrained")
    for sort, (label, colour, mark) in SORTS.items():
        rows = table[table["what"] == sort]
        time.plot(rows["people"], rows["cpu_seconds"], mark, ls="-", color=colour,
                  label=f"{label}: slope {slope(rows):.2f}")
        memory.plot(rows["people"], rows["peak_mib"], mark, ls="-", color=colour, label=label)
        memory.plot(rows["people"], rows["model_read_mib"], ls=":", color=colour,
                    label="the model read, nobody scored")
    for ax, name, unit in ((time, "Time", "CPU seconds"), (memory, "Memory", "peak, MiB")):
        _dressed(ax, name, unit)
    time.set_yscale("log")
    memory.set_ylim(0, 1.45 * table.loc[table["what"].isin(SORTS), "peak_mib"].max())
    return figure


def _dressed(ax: Axes, name: str, unit: str) -> None:
    ax.set_xscale("log")
    ax.set_title(name, loc="left", weight="bold")
    ax.set(xlabel="people scored", ylabel=unit)
    ax.grid(color=PALE, lw=0.6)
    ax.tick_params(which="both", color=GREY)
    ax.legend(loc="upper left")


FIGURES = {"scoring_at_scale": draw_scale}

if __name__ == "__main__":
    main(__doc__, FIGURES)

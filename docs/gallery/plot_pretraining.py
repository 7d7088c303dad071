"""What starting from pre-trained encoders changed: segmentation, classification, detection.

    python docs/gallery/plot_pretraining.py --out figures/

Writes ``pretraining.png``, from what ``benchmarks/images/pretraining.py`` measured.
"""
from __future__ import annotations

from pathlib import Path

import pandas as pd
from gallery_style import FORWARD, GREY, REVERSE, TRANSPORT, WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy import stats

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "images" / "pretraining.csv"
ARMS = {"reconstruction": GREY, "intra": REVERSE, "intra + inter": FORWARD,
        "principal components": TRANSPORT}
WORDS = {"reconstruction": "reconstruction only", "intra": "and within people",
         "intra + inter": "and between people", "principal components": "principal components"}
PANELS = {"segmentation": "Dice of tumours", "classification": "AUC, tumour or not",
          "detection": "AUC of tumours' voxels"}


def differences() -> pd.DataFrame:
    """Mean over seeds of value less that of fresh encoders, and half a 95 % t interval."""
    wide = pd.read_csv(MEASURED).pivot(index=["task", "given", "seed"], columns="arm",
                                       values="value")
    apart = wide.drop(columns="scratch").sub(wide["scratch"], axis=0).stack()
    groups = apart.groupby(["task", "given", "arm"], sort=False)
    n = groups.size()
    half = groups.std() * stats.t.isf(0.025, n - 1) / n ** 0.5
    return pd.DataFrame({"mean": groups.mean(), "half": half})


def draw_pretraining() -> Figure:
    """A panel a task, a row a case, a colour an objective."""
    found = differences()
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.4), layout="constrained",
                                width_ratios=(1.1, 0.8, 1.1))
    for ax, (task, title) in zip(axes, PANELS.items()):
        some = found[found.index.get_level_values("task").str.startswith(task)]
        rows = list(dict.fromkeys((t, g) for t, g, _ in some.index))
        rows.sort(key=lambda row: (_labelled(row[0]), row))
        for k, row in enumerate(rows):
            for j, (arm, colour) in enumerate(ARMS.items()):
                if (*row, arm) in some.index:
                    at = some.loc[(*row, arm)]
                    ax.errorbar(at["mean"], k + 0.18 * (j - 1.5), xerr=at["half"], fmt="o", ms=4,
                                lw=1.2, color=colour, label=WORDS[arm] if k == 0 else None)
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
        ax.set_yticks(range(len(rows)), [_said(*row) for row in rows])
        ax.invert_yaxis()
        ax.set_title(title, loc="left", weight="bold")
        ax.set_xlabel("difference from fresh encoders")
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _labelled(task: str) -> int:
    return next((int(word) for word in task.split() if word.isdigit()), 0)


def _said(task: str, given: str) -> str:
    what = {"all": "all given", "one": "one given"}.get(given, f"from {given.replace('+', ', ')}")
    if task.startswith("segmentation"):
        return f"{_labelled(task)} labelled,\n{what}"
    if task.startswith("detection"):
        return f"{task.removeprefix('detection in ')}\n{what}"
    return what.replace("one given", "T1w given")


FIGURES = {"pretraining": draw_pretraining}

if __name__ == "__main__":
    main(__doc__, FIGURES)

"""How far registrations ended from the truth, by condition and method.

    python docs/gallery/plot_registration.py --out figures/

Writes ``registration.png``, from what ``benchmarks/images/registration.py`` measured.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from gallery_style import FORWARD, GREY, INK, REVERSE, TRANSPORT, WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

MEASURED = Path(__file__).resolve().parents[2] / "benchmarks" / "images" / "registration.csv"
METHODS = {"mattes": ("SimpleITK, one start", GREY, "-"),
           "mi": ("mutual information, 7 starts", REVERSE, "-"),
           "mi n4": ("mutual information, without bias fields", REVERSE, "--"),
           "mi wide": ("mutual information, 21 starts", REVERSE, ":"),
           "learned": ("representations", FORWARD, "-"),
           "then": ("representations, then mutual information", TRANSPORT, "-")}
CONDITIONS = ("plain", "bias", "strong bias", "slab", "turned far")
LEAST, MOST = 0.2, 100.0  # mm


def draw_registration() -> Figure:
    """A panel a condition: share of trials (up) that ended within so many mm (across)."""
    trials = pd.read_csv(MEASURED)
    figure, axes = plt.subplots(1, len(CONDITIONS), figsize=(WIDTH, 2.9), layout="constrained",
                                sharey=True)
    for ax, condition in zip(axes, CONDITIONS):
        for method, (label, colour, line) in METHODS.items():
            errors = trials["error_mm"][(trials["condition"] == condition)
                                        & (trials["method"] == method)]
            if len(errors):
                at = np.r_[LEAST, np.sort(errors.clip(LEAST, MOST)), MOST]
                share = np.r_[0, np.arange(len(errors)) + 1, len(errors)] / len(errors)
                ax.step(at, share, where="post", color=colour, ls=line, lw=1.6, label=label)
        ax.axvline(2, color=INK, lw=0.8, ls=":")
        ax.set_xscale("log")
        ax.set_xticks([0.5, 2, 10, 50], ["0.5", "2", "10", "50"], minor=False)
        ax.set_xlim(LEAST, MOST)
        ax.set_xlabel("error, mm")
        ax.set_title(condition, loc="left", weight="bold")
    axes[0].set_ylabel("share of trials")
    known = {label: handle for ax in axes for handle, label in zip(
        *ax.get_legend_handles_labels())}
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=3)
    return figure


FIGURES = {"registration": draw_registration}

if __name__ == "__main__":
    main(__doc__, FIGURES)

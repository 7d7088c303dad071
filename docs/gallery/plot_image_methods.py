"""One simulated person: FLAIR foretold from other scans, and lesions found in what is there.

    python docs/gallery/plot_image_methods.py --out figures/

Writes ``synthesis.png`` and ``segmentation.png``. What they show was made by
``benchmarks/images/example.py`` (minutes) and lies in ``image_methods.npz``.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
from gallery_style import WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

FILE = Path(__file__).with_name("image_methods.npz")
ALL = "T1w+T1c+T2w+FLAIR"
COLOURS = {"core": "#D55E00", "oedema": "#56B4E9", "enhancing": "#F0E442"}
LABELS = ListedColormap(["0.9", *COLOURS.values()])


def shown(ax: Axes, values: np.ndarray, title: str, **look: object) -> None:
    drawn = ax.imshow(values[6:-6, 5:-5].astype(float), origin="lower", interpolation="nearest",
                      **look)  # type: ignore[arg-type]
    ax.set_title(title)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if look["cmap"] not in ("gray", LABELS):
        ax.figure.colorbar(drawn, ax=ax, shrink=0.75, pad=0.02)


def draw_synthesis() -> Figure:
    """What was looked at, what was expected, how sure that is, and how far the truth is off."""
    kept = np.load(FILE)
    figure, axes = plt.subplots(2, 5, figsize=(WIDTH, 3.7), layout="constrained")
    top = float(np.nanquantile(kept["scan FLAIR"].astype(float), 0.997))
    sure = float(np.nanquantile(kept["sd T1w"].astype(float), 0.995))
    for row, given in zip(axes, ("T1w", "T1w+T1c+T2w")):
        shown(row[0], kept["scan T1w" if given == "T1w" else "scan T2w"],
              "T1w" if given == "T1w" else "T2w", cmap="gray", vmin=0)
        shown(row[1], kept["scan FLAIR"], "FLAIR, measured", cmap="gray", vmin=0, vmax=top)
        shown(row[2], kept[f"mean {given}"], "expected from\n" + given.replace("+", " + "),
              cmap="gray", vmin=0, vmax=top)
        shown(row[3], kept[f"sd {given}"], "sd", cmap="magma", vmin=0, vmax=sure)
        shown(row[4], kept[f"z {given}"], "(measured -\nexpected) / sd", cmap="RdBu_r", vmin=-5,
              vmax=5)
    return figure


def draw_segmentation() -> Figure:
    """The truth, and what is found in one scan or all, above how unsure that is."""
    kept = np.load(FILE)
    figure, axes = plt.subplots(2, 4, figsize=(WIDTH, 4.4), layout="constrained")
    shown(axes[0, 0], kept["label truth"], "truth", cmap=LABELS, vmin=-0.5, vmax=3.5)
    shown(axes[1, 0], kept["scan FLAIR"], "FLAIR", cmap="gray", vmin=0)
    for (above, below), given in zip(axes.T[1:], ("T1w", "FLAIR", ALL)):
        title = "all four" if given == ALL else f"{given} alone"
        shown(above, kept[f"label {given}"], f"from {title}", cmap=LABELS, vmin=-0.5, vmax=3.5)
        shown(below, kept[f"entropy {given}"], "entropy", cmap="magma", vmin=0, vmax=1)
    figure.legend(handles=[Patch(color=c, label=n) for n, c in COLOURS.items()], ncols=3,
                  loc="outside lower left", frameon=False)
    return figure


FIGURES = {"synthesis": draw_synthesis, "segmentation": draw_segmentation}

if __name__ == "__main__":
    main(__doc__, FIGURES)

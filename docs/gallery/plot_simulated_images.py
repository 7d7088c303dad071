"""Simulated people in seven contrasts, with the truth of their lesions.

    python docs/gallery/plot_simulated_images.py --out figures/

Writes ``simulated_images.png``.
"""
from __future__ import annotations

import numpy as np
from gallery_style import WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import normfuse as nf

SIZE, SEED = 3, 10  # mm; pictures of noise at 2 mm are large files
BRIGHTEST = {"T1w": 1.4, "T1c": 2.0, "T2w": 3.2, "FLAIR": 2.1, "FA": 0.6, "MD": 3.0, "PET": 1.8}
COLOURS = {"core": "#D55E00", "oedema": "#56B4E9", "enhancing": "#F0E442", "lesion": "#009E73"}
PEOPLE = {"tumour": "tumour", "sclerosis": "plaques", "healthy": "healthy"}


def draw_simulated_images() -> Figure:
    """One axial slice of each person, where most of the rim or of plaques is."""
    made = nf.simulate_images(3, contrasts=tuple(BRIGHTEST), lesions={"tumour": 1, "sclerosis": 1},
                              resolution=SIZE, seed=SEED)
    truth = made.segmentations()
    figure, axes = plt.subplots(3, len(BRIGHTEST) + 1, figsize=(WIDTH, 4.3))
    for row, (scans, labels) in enumerate(zip(made, truth.labels)):
        heights = made.space.indices[:, 2]
        shown = np.isin(labels, [made.names["enhancing"], made.names["lesion"]])
        most = np.bincount(heights[shown]).argmax() if shown.any() else 30
        maps = {**scans.values, "truth": labels.astype(float)}
        for ax, (name, values) in zip(axes[row], maps.items()):
            image = np.asarray(made.space.img(values, np.nan).dataobj)[7:-7, 8:-8, most].T
            look = {"cmap": "gray", "vmin": 0, "vmax": BRIGHTEST[name]} if name in BRIGHTEST else \
                {"cmap": ListedColormap(["0.9", *COLOURS.values()]), "vmin": -0.5, "vmax": 4.5}
            ax.imshow(image, origin="lower", interpolation="nearest", **look)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if row == 0:
                ax.set_title(name)
        age = made.subjects["age"].iloc[row]
        axes[row, 0].set_ylabel(f"{PEOPLE[made.subjects['diagnosis'].iloc[row]]}, {age:.0f} y")
    figure.subplots_adjust(0.03, 0.07, 1, 0.95, 0.02, 0.02)
    figure.legend(handles=[Patch(color=c, label=n) for n, c in COLOURS.items()], ncols=4,
                  loc="lower right", frameon=False)
    return figure


FIGURES = {"simulated_images": draw_simulated_images}

if __name__ == "__main__":
    main(__doc__, FIGURES)

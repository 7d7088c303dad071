"""Pictures of labels on a person's image."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .space import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2")
"""Okabe and Ito (2008), those that show on grey."""

SLICES = 6
HEALTHY = (-20.0, 60.0)  # mm, from where to where slices are shown if there is no label


def plot_labels(labels: np.ndarray, space: Space, names: Mapping[str, int],
                background: Any = None, ax: Axes | None = None) -> Axes:
    """Axial slices through labels; see :meth:`normfuse.Segmentations.plot`."""
    from matplotlib import pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    from nilearn.plotting import plot_anat

    if ax is None:
        ax = plt.figure(figsize=(9, 2.2)).add_axes((0, 0, 1, 0.84))
    img = background if background is None or hasattr(background, "affine") else \
        space.img(background)
    there = {name: number for name, number in names.items() if (labels == number).any()}
    colours = {name: COLOURS[n % len(COLOURS)] for n, name in enumerate(names)}
    display = plot_anat(**({} if img is None else {"anat_img": img}), axes=ax, display_mode="z",
                        cut_coords=_slices(labels, space), colorbar=False, annotate=False,
                        **_window(img))
    for name, number in there.items():
        display.add_overlay(space.img(labels == number), threshold=0.5, vmin=0, vmax=1,
                            cmap=ListedColormap([colours[name]]), transparency=0.6)
    display.annotate(size=9)
    if there:
        ax.legend(handles=[Patch(color=colours[name], label=name) for name in there],
                  loc="lower left", bbox_to_anchor=(0, 1), ncols=len(there), frameon=False)
    return ax


def _slices(labels: np.ndarray, space: Space) -> list[float]:
    """Heights in mm: where labels are, with as many labelled voxels between any two."""
    heights = space.coordinates()[labels > 0, 2]
    chosen = np.quantile(heights, np.linspace(0.05, 0.95, SLICES)) if len(heights) else \
        np.linspace(*HEALTHY, SLICES)
    return [float(z) for z in np.unique(chosen.round())]


def _window(img: Any) -> dict[str, float]:
    """Black to white from the darkest to nearly the brightest voxel."""
    if img is None:
        return {}
    values = np.asarray(img.dataobj)
    return {"vmin": 0.0, "vmax": float(np.quantile(values[values > 0], 0.995))}

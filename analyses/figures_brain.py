"""Pictures of a map in the brain."""
from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .wording import plain

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

AXIAL_CUTS = (-26, -14, 0, 16, 34, 52)  # mm; the same slices on every map can be compared
_PAINTED = 1e-5  # far below any colour step, above what nilearn takes for background


def plot_brain(img: Nifti1Image, title: str = "", *, limit: float | None = None,
               unit: str = "z", outline: Nifti1Image | None = None, ax: Axes | None = None
               ) -> Axes:
    """Axial slices of a map over the MNI152 template, left on the left.

    Parameters
    ----------
    img : Nifti1Image
        In ``unit``; NaN where there is no value (the template shows through).
    title : str
    limit : float, optional
        The colour scale runs from -limit to limit; the largest absolute value by default.
    unit : str
        What the colour bar counts.
    outline : image, optional
        Above 0 in what gets a black line around it, as what is significant.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> image = load_atlas("dk").paint({"Left-Hippocampus": -2.4, "ctx-rh-insula": 1.1})
    >>> plot_brain(image, "one person", limit=4).get_title("left")
    'one person'
    """
    from nilearn.image import new_img_like  # slow to import, and only maps need it
    from nilearn.plotting import plot_stat_map

    values = np.asarray(img.dataobj, dtype=np.float32)
    known = np.isfinite(values)
    if limit is None:
        limit = float(np.abs(values[known]).max(initial=0)) or 1.0
    if not known.all():
        # nilearn leaves out what lies below 1e-6: a region exactly as expected must be painted.
        values = np.where(known & (np.abs(values) < _PAINTED), _PAINTED, values)
    if ax is None:
        ax = plt.figure(figsize=(10, 2.3)).add_axes((0.01, 0, 0.91, 0.85))
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), "RdBu_r")
    bar = ax.figure.colorbar(scale, ax=ax, fraction=0.015, pad=0.01, shrink=0.7, label=unit)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    display = plot_stat_map(
        new_img_like(img, np.where(known, values, 0)), axes=ax, display_mode="z", colorbar=False,
        cut_coords=AXIAL_CUTS, vmin=-limit, vmax=limit, cmap="RdBu_r", dim=0, black_bg=False,
        resampling_interpolation="nearest", annotate=False)
    if outline is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No contour levels")  # of a slice that has none
            display.add_contours(outline, levels=[0.5], colors="black", linewidths=0.9)
    display.annotate(size=9)
    ax.set_title(plain(title), loc="left")
    return ax


def plot_glass(img: Nifti1Image, title: str = "", *, limit: float | None = None,
               unit: str = "z", ax: Axes | None = None) -> Axes:
    """A map seen through the brain from the side, the back and above: its largest value a line.

    Parameters
    ----------
    img : Nifti1Image
        In ``unit``; NaN and 0 are left out.
    title, limit, unit
        As in :func:`plot_brain`.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> image = load_atlas("dk").paint({"Left-Hippocampus": -2.4, "ctx-rh-insula": 1.1})
    >>> plot_glass(image, "one person", limit=4).get_title("left")
    'one person'
    """
    from nilearn.image import new_img_like
    from nilearn.plotting import plot_glass_brain

    values = np.nan_to_num(np.asarray(img.dataobj, dtype=np.float32))
    if limit is None:
        limit = float(np.abs(values).max(initial=0)) or 1.0
    if ax is None:
        ax = plt.figure(figsize=(8, 3)).add_axes((0.01, 0, 0.9, 0.88))
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), "RdBu_r")
    bar = ax.figure.colorbar(scale, ax=ax, fraction=0.02, pad=0.01, shrink=0.7, label=unit)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    plot_glass_brain(new_img_like(img, values), axes=ax, display_mode="ortho", colorbar=False,
                     vmin=-limit, vmax=limit, cmap="RdBu_r", plot_abs=False, symmetric_cbar=True,
                     black_bg=False, threshold=_PAINTED * limit)
    ax.set_title(plain(title), loc="left")
    return ax

"""The picture of `real_images.py`: FLAIR, z of its voxels, the tumour's border, the regions."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from real_images import GLIOMA, MASKS, load, ranking

KIND, WAY, CONTRAST = "covariates", "mean z of voxels, judged", "FLAIR"
LIMIT = 8.0  # of the colours of z
SHORT = {"ctx-rh-": "right ", "ctx-lh-": "left ", "wm-rh-": "right WM ", "wm-lh-": "left WM ",
         "Right-": "right ", "Left-": "left "}
CUTS = ("axial", "coronal", "sagittal")


def draw(found: dict) -> Figure:
    """Three cuts through the tumour's middle, FLAIR above and z below; beside them the regions."""
    space = found["cohort"].modality(CONTRAST).space
    z = found["tables"]["voxels", KIND, f"{GLIOMA} alone"][CONTRAST].to_numpy()
    volume = np.full(space.shape, np.nan)
    volume[space.mask] = z
    scan, tumour = load(f"glioma_mni2mm/{GLIOMA}_{CONTRAST}"), load(MASKS[GLIOMA]) > 0
    corner, fine = space.affine[:3, 3], 2.0
    middle = corner + fine * np.argwhere(tumour).mean(axis=0)  # both grids begin at one corner
    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1.2, 2.4))
    for column, cut in enumerate(CUTS):
        for row in range(2):
            ax = figure.add_subplot(grid[row, column])
            _slice(ax, scan, cut, middle, corner, fine, cmap="gray", vmin=0, vmax=1000)
            if row:
                shown = _slice(ax, volume, cut, middle, corner, space.voxel_size[0],
                               cmap="RdBu_r", vmin=-LIMIT, vmax=LIMIT)
            _outline(ax, tumour, cut, middle, corner, fine)
            if not row:
                ax.set_title(f"{cut}, {'zyx'[column]} = {middle[2 - column]:.0f} mm", fontsize=9)
            elif column == 1:
                figure.colorbar(shown, ax=ax, orientation="horizontal", shrink=0.9,
                                label="z of voxels (FLAIR)", pad=0.02)
    _bars(figure.add_subplot(grid[:, 3]), found)
    return figure


def _plane(data: np.ndarray, cut: str, middle: np.ndarray, corner: np.ndarray,
           mm: float) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A slice with rows upwards, and its borders in mm."""
    axis = 2 - CUTS.index(cut)
    at = int(round((middle[axis] - corner[axis]) / mm))
    a, b = (k for k in range(3) if k != axis)
    low, high = corner - mm / 2, corner - mm / 2 + mm * np.array(data.shape)
    return data.take(at, axis).T, (low[a], high[a], low[b], high[b])


def _slice(ax: Axes, data: np.ndarray, cut: str, middle: np.ndarray, corner: np.ndarray,
           mm: float, **colours: object):
    plane, extent = _plane(data, cut, middle, corner, mm)
    ax.set_axis_off()
    return ax.imshow(plane, origin="lower", extent=extent, interpolation="nearest", **colours)


def _outline(ax: Axes, mask: np.ndarray, cut: str, middle: np.ndarray, corner: np.ndarray,
             mm: float) -> None:
    plane, extent = _plane(mask.astype(float), cut, middle, corner, mm)
    ax.contour(plane, [0.5], colors="gold", linewidths=1.4, extent=extent, origin="lower")
    ax.set(xlim=(-98, 98) if cut == "sagittal" else (-80, 80), ylim=(-72, 92))
    if cut == "axial":
        ax.set(ylim=(-112, 80))
    elif cut == "sagittal":
        ax.set(xlim=(-112, 80))


def _bars(ax: Axes, found: dict) -> None:
    """The 15 regions that deviate most; the darker, the more of it is tumour."""
    table = found["tables"][WAY, KIND, f"{GLIOMA} alone"]
    top: pd.DataFrame = ranking(table, found["truth"][GLIOMA][0], CONTRAST)[::-1]
    share, colours = top["tumour"].fillna(0), plt.get_cmap("YlOrBr")
    scale = Normalize(0, 1)
    ax.barh(range(len(top)), top[CONTRAST], color=colours(scale(share)), edgecolor="0.3",
            linewidth=0.6)
    for place, (z, part) in enumerate(zip(top[CONTRAST], share)):
        ax.annotate(f"{part:.0%}", (z, place), (3 if z >= 0 else -3, 0),
                    textcoords="offset points", va="center",
                    ha="left" if z >= 0 else "right", fontsize=8)
    ax.set_yticks(range(len(top)), [_short(name) for name in top.index], fontsize=8)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.margins(x=0.12)
    ax.set(xlabel="z of the region (FLAIR)")
    ax.set_title("regions that deviate most; share that is tumour", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    for long, short in SHORT.items():
        name = name.replace(long, short)
    return name

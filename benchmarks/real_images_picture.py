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
LIMIT = 9.0  # of the colours of z
SHORT = {"ctx-rh-": "right cortex, ", "ctx-lh-": "left cortex, ", "wm-rh-": "right white matter, ",
         "wm-lh-": "left white matter, ", "Right-": "right ", "Left-": "left ",
         "UnsegmentedWhiteMatter": "deep white matter", "superiorfrontal": "superior frontal",
         "caudalmiddlefrontal": "caudal middle frontal", "posteriorcingulate":
         "posterior cingulate", "caudalanteriorcingulate": "caudal anterior cingulate",
         "-Proper": "", "-area": "", "frontalpole": "frontal pole", "-Ventricle": " ventricle"}
CUTS = ("axial", "coronal", "sagittal")
WINDOW = {"x": (-96, 96), "y": (-114, 78), "z": (-84, 108)}  # mm, all of one length


def draw(found: dict) -> Figure:
    """Three cuts through the tumour's middle, FLAIR above and z below; beside them the regions."""
    space = found["cohort"].modality(CONTRAST).space
    volume = space.img(found["tables"]["voxels", KIND, f"{GLIOMA} alone"][CONTRAST].to_numpy())
    z = np.where(space.mask, np.asarray(volume.dataobj), np.nan)
    scan, tumour = load(f"glioma_mni2mm/{GLIOMA}_{CONTRAST}"), load(MASKS[GLIOMA]) > 0
    corner, fine = space.affine[:3, 3], 2.0
    middle = corner + fine * np.argwhere(tumour).mean(axis=0)  # both grids begin at one corner
    figure = plt.figure(figsize=(11, 4.4))
    for column, cut in enumerate(CUTS):
        above, below = (figure.add_axes((0.005 + 0.168 * column, y, 0.165, 0.4125))
                        for y in (0.525, 0.1))
        _slice(above, scan, cut, middle, corner, fine, cmap="gray", vmin=0, vmax=1000)
        _slice(below, scan, cut, middle, corner, fine, cmap="gray", vmin=0, vmax=1000)
        shown = _slice(below, z, cut, middle, corner, space.voxel_size[0], cmap="RdBu_r",
                       vmin=-LIMIT, vmax=LIMIT)
        for ax in (above, below):
            _outline(ax, tumour, cut, middle, corner, fine)
        above.set_title(f"{cut}, {'zyx'[column]} = {middle[2 - column]:.0f} mm", fontsize=9)
    bar = figure.colorbar(shown, cax=figure.add_axes((0.17, 0.07, 0.17, 0.018)),
                          orientation="horizontal", ticks=(-8, -4, 0, 4, 8))
    bar.ax.tick_params(labelsize=8, length=2, pad=1)
    figure.text(0.345, 0.062, "z of voxels, FLAIR", fontsize=9)
    _bars(figure.add_axes((0.73, 0.12, 0.26, 0.8)), found)
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
    across, up = (k for k in "xyz" if k != "zyx"[CUTS.index(cut)])
    ax.set(facecolor="black", xticks=[], yticks=[])
    shown = ax.imshow(plane, origin="lower", extent=extent, interpolation="nearest", **colours)
    ax.set(xlim=WINDOW[across], ylim=WINDOW[up])
    if across == "x":
        for side, at, where in (("L", 0.02, "left"), ("R", 0.98, "right")):
            ax.text(at, 0.02, side, color="white", transform=ax.transAxes, ha=where, fontsize=8)
    return shown


def _outline(ax: Axes, mask: np.ndarray, cut: str, middle: np.ndarray, corner: np.ndarray,
             mm: float) -> None:
    plane, extent = _plane(mask.astype(float), cut, middle, corner, mm)
    ax.contour(plane, [0.5], colors="gold", linewidths=1.4, extent=extent, origin="lower")


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
    ax.tick_params(axis="x", labelsize=8)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.margins(x=0.15)
    ax.set(xlabel="z of the region (FLAIR)")
    ax.set_title("the 15 regions that deviate most, and how much of each is tumour",
                 fontsize=9, loc="right")
    ax.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    for long, short in SHORT.items():
        name = name.replace(long, short)
    return name

"""Pictures of a map on the cortical surface."""
from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import distance_transform_edt

from .effects import Array
from .wording import plain

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
MESH = "fsaverage5"  # 10,242 vertices a hemisphere; the only one that nilearn brings along
REACH = 4.0  # mm; by so much do the ribbons of an atlas and of the average surface miss each other
_RIM = 0.14  # of a panel, which its brain may overlap: a 3-D box leaves wide margins


def common_limit(*imgs: Nifti1Image, least: float = 0.0) -> float:
    """The largest absolute value of several maps: one colour scale for the panels of a figure.

    Parameters
    ----------
    *imgs : Nifti1Image
        NaN is passed over.
    least : float
        Never less than this, so that a map of noise looks pale.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> paint = load_atlas("dk").paint
    >>> common_limit(paint({"Left-Hippocampus": -2.5}), paint({"ctx-rh-insula": 1.0}))
    2.5
    """
    largest = [np.nanmax(np.abs(np.asarray(img.dataobj)), initial=0) for img in imgs]
    return float(max([*largest, least])) or 1.0


def plot_surface(img: Nifti1Image, title: str = "", *, limit: float | None = None,
                 unit: str = "z", views: Iterable[tuple[str, str]] = VIEWS,
                 ax: Axes | None = None) -> Axes:
    """A map on the inflated cortex: both hemispheres from outside and from the middle.

    Each vertex of fsaverage5 (which comes with nilearn) shows the mean of the map between the
    white surface and the pial one under it, values reaching 4 mm beyond where they are. **What
    lies below the cortex is not shown**: white matter and the deep nuclei need
    :func:`plot_brain`. The surface is an average's, and an MNI volume meets it to a few
    millimetres only: it shows a map, and locates nothing.

    Parameters
    ----------
    img : Nifti1Image
        In MNI space, in ``unit``; NaN where there is no value (the grey surface shows through).
    title, limit, unit
        As in :func:`plot_brain`.
    views : iterable of (hemisphere, view)
        Panels from left to right: ``"left"`` or ``"right"``, and ``"lateral"``, ``"medial"``,
        ``"dorsal"``, ``"ventral"``, ``"anterior"`` or ``"posterior"``.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> image = load_atlas("dk").paint({"ctx-lh-insula": -2.4, "ctx-rh-cuneus": 1.1})
    >>> ax = plot_surface(image, "one person", limit=4, views=[("left", "lateral")])
    >>> ax.get_title("left")
    'one person'
    """
    from nilearn.datasets import load_fsaverage, load_fsaverage_data  # slow to import
    from nilearn.plotting import plot_surf_stat_map

    if limit is None:
        limit = common_limit(img)
    panels = list(views)
    if ax is None:
        ax = plt.figure(figsize=(2.5 * len(panels) + 0.8, 2.3)).add_axes((0.01, 0, 0.9, 0.84))
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), "RdBu_r")
    bar = ax.figure.colorbar(scale, ax=ax, fraction=0.015, pad=0.01, shrink=0.7, label=unit)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    inflated = load_fsaverage(MESH)["inflated"].parts
    folds = load_fsaverage_data(MESH, data_type="sulcal").data.parts
    values = {side: cortical(img, side) for side, _ in panels}
    for i, (side, view) in enumerate(panels):
        room = ax.inset_axes(((i - _RIM) / len(panels), -0.13, (1 + 2 * _RIM) / len(panels), 1.3),
                             projection="3d")
        room.set_facecolor("none")
        plot_surf_stat_map(inflated[side], values[side], hemi=side, view=view, axes=room,
                           bg_map=folds[side], cmap="RdBu_r", vmin=-limit, vmax=limit,
                           colorbar=False, threshold=None, bg_on_data=False)
        room.set_title("")
        ax.text((i + 0.5) / len(panels), 0, f"{side[0].upper()} {view}", ha="center", va="bottom",
                fontsize="small", transform=ax.transAxes)
    ax.set_axis_off()
    ax.set_title(plain(title), loc="left", y=1)  # else it would move above the panels' own room
    return ax


def cortical(img: Nifti1Image, side: str) -> Array:
    """A map at the vertices of one hemisphere of fsaverage5, NaN where it has no value.

    Parameters
    ----------
    side : {"left", "right"}

    Returns
    -------
    ndarray, shape (10242,)

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> values = cortical(load_atlas("dk").paint({"ctx-lh-insula": -2.4}), "left")
    >>> values.shape, float(np.nanmin(values).round(3)), bool(np.isfinite(values).mean() < .1)
    ((10242,), -2.4, True)
    """
    from nilearn.datasets import load_fsaverage, load_fsaverage_data
    from nilearn.image import new_img_like
    from nilearn.surface import vol_to_surf

    mesh = load_fsaverage(MESH)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")  # a vertex without a value
        values = vol_to_surf(new_img_like(img, _reaching(img)), mesh["pial"].parts[side],
                             inner_mesh=mesh["white_matter"].parts[side])
    # between the hemispheres there is no cortex, and deep nuclei would show through
    thick = load_fsaverage_data(MESH, data_type="thickness").data.parts[side]
    return np.where(thick > 0, values, np.nan)


def _reaching(img: Nifti1Image) -> Array:
    """The values, and up to ``REACH`` beyond them the nearest one."""
    values = np.asarray(img.dataobj, dtype=np.float64)
    sizes = np.linalg.norm(img.affine[:3, :3], axis=0)
    far, nearest = distance_transform_edt(~np.isfinite(values), sampling=sizes,
                                          return_indices=True)
    return np.where(far <= REACH, values[tuple(nearest)], np.nan)

"""Where people lie in latent space, beside where healthy people do."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from scipy import stats

from normfuse.deviations import JUDGES, ROLE, Deviations
from normfuse.errors import ComparisonError, listed

from .drawing import GREY, MARKERS, PALETTE, axis_or_new, legend_beside, open_frame
from .effects import Array
from .figures_groups import grouped
from .wording import plain

MASS = 0.95
FEWEST = 10  # held-out controls, for a covariance worth drawing


def plot_latent(deviations: Deviations, group: str, *, dimensions: Sequence[str] | None = None,
                principal: bool = False, ax: Axes | None = None) -> Axes:
    r"""People in two dimensions of the latent space, a colour a group.

    Within the solid circle, of radius :math:`\sqrt{\chi^2_2(.95)} = 2.45`, 95 % of healthy people
    lie if the dimensions are independent, :math:`N(0, I)`. The dashed ellipse holds as much of a
    normal law with the held-out controls' own mean and covariance, if there are ten of them. It
    leaves the circle where dimensions are correlated in healthy people, as they usually are:
    then believe the ellipse.

    **It shows two of many dimensions**: people inside may lie far out in another, and the latent
    distance (:func:`plot_distances`) takes all of them.

    Parameters
    ----------
    deviations, group
        As in :func:`plot_distances`; the same errors are raised.
    dimensions : two names, optional
        Columns of ``deviations.latent``; the first two by default.
    principal : bool
        In the place of two dimensions, the two directions in which the people shown deviate
        most, once the latent space is made white by the held-out controls' mean and covariance:
        there every direction is standard normal in healthy people, and the distance from 0 is the
        part of the Mahalanobis distance that lies in the plane. These directions are **chosen to
        show much**, and no test; and people who did not make the space white scatter a little
        wider than those who did, healthy ones, too.

    Raises
    ------
    ComparisonError
        Dimensions that are not there, or fewer than two; too few held-out controls to make the
        space white: ten more than it has dimensions.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> ax = plot_latent(tiny_deviations(), "diagnosis")
    >>> [points.get_offsets().tolist() for points in ax.collections]
    [[[0.1, 0.4]], [[1.5, -0.2]]]
    """
    people, of, levels = grouped(deviations, group)
    latent = people.latent.dropna()
    judges = people.subjects.loc[latent.index, ROLE].isin(JUDGES).to_numpy() \
        if ROLE in people.subjects else np.zeros(len(latent), bool)
    at, names = _principal(latent, judges) if principal else _chosen(latent, dimensions)
    ax = axis_or_new(ax, (6.6, 4.6))
    radius = float(np.sqrt(stats.chi2.ppf(MASS, 2)))
    ax.add_patch(Ellipse((0, 0), 2 * radius, 2 * radius, fill=False, ec=GREY, lw=1.3, zorder=1))
    handles = [Line2D([], [], color=GREY, lw=1.3, label="95 % of N(0, I)")]
    if judges.sum() >= FEWEST and not principal:
        _ellipse(ax, at[judges].to_numpy(), radius)
        handles.append(Line2D([], [], color=GREY, lw=1.3, ls="--",
                              label=f"95 % as {int(judges.sum())} held-out\ncontrols vary"))
    for i, level in enumerate(levels):
        rows = at[(of[at.index] == level).to_numpy()]
        ax.scatter(rows.iloc[:, 0], rows.iloc[:, 1], s=22, color=[PALETTE[i % len(PALETTE)]],
                   marker=MARKERS[i % len(MARKERS)], alpha=0.75, lw=0, zorder=3)
        handles.append(Line2D([], [], ls="", marker=MARKERS[i % len(MARKERS)],
                              color=PALETTE[i % len(PALETTE)],
                              label=f"{plain(level, 30)} (n = {len(rows)})"))
    reach = 1.08 * max(radius, np.abs(at.to_numpy()).max(initial=0))
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel=names[0],
           ylabel=names[1])
    return open_frame(legend_beside(ax, handles))


def _chosen(latent: pd.DataFrame, dimensions: Sequence[str] | None
            ) -> tuple[pd.DataFrame, list[str]]:
    names = list(latent.columns[:2]) if dimensions is None else list(dimensions)
    unknown = [name for name in names if name not in latent]
    if unknown or len(names) != 2:
        raise ComparisonError(f"a plane has two latent dimensions, of {listed(latent.columns, 20)}"
                              f"; got {listed(names)}")
    return latent[names], [f"{plain(name, 30)} (z)" for name in names]


def _principal(latent: pd.DataFrame, judges: Array) -> tuple[pd.DataFrame, list[str]]:
    """By orthonormal directions from the controls' mean, which is not the people's own."""
    n, width = int(judges.sum()), latent.shape[1]
    if width < 2 or n < width + FEWEST:
        raise ComparisonError(f"two directions of a white latent space need two dimensions and "
                              f"{width + FEWEST} held-out controls; there are {width} and {n}. "
                              "Take two dimensions=, or people with their controls")
    healthy = latent.to_numpy(dtype=float)[judges]
    root = np.linalg.cholesky(np.cov(healthy.T))
    white = np.linalg.solve(root, (latent.to_numpy(dtype=float) - healthy.mean(axis=0)).T).T
    _, size, towards = np.linalg.svd(white, full_matrices=False)
    shares = size**2 / (size**2).sum()
    towards *= np.sign(towards[np.arange(len(towards)), np.abs(towards).argmax(axis=1)])[:, None]
    return (pd.DataFrame(white @ towards[:2].T, latent.index),
            [f"direction {k + 1} (z; {shares[k]:.0%} of all squares)" for k in range(2)])


def _ellipse(ax: Axes, points: Array, radius: float) -> None:
    values, vectors = np.linalg.eigh(np.cov(points.T))
    width, height = 2 * radius * np.sqrt(values.clip(min=0))
    turn = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
    ax.add_patch(Ellipse(tuple(points.mean(axis=0)), width, height, angle=turn, fill=False,
                         ec=GREY, lw=1.3, ls="--", zorder=1))

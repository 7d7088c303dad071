"""Shared and private latent dimensions: what is averaged, what is left alone, what is missing.

    python docs/gallery/plot_fusion_blocks.py --out figures/

Writes ``fusion_blocks.png``.
"""
from __future__ import annotations

import numpy as np
import torch
from gallery_style import (INK, MODALITIES, RADIUS, TRANSPORT, WIDTH, density, draw_ellipse,
                           headline, main, normal, present)
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

from normfuse.fusion import (Drop, GeneralizedWassersteinBarycenter, Missing, SharedPrivate,
                             SubstitutePrior, full)

S, U_T1, U_PET = 0, 1, 2  # z = (s, u_T1, u_PET)
OWN = {"T1": U_T1, "PET": U_PET}


def two_views() -> Distribution:
    """T1 speaks of (s, u_T1), PET of (s, u_PET); what they say of the rest is never read."""
    t1 = expert(U_T1, (-1.0, 1.1), (0.9, 0.55), 0.8)
    pet = expert(U_PET, (1.5, -0.9), (0.5, 0.8), -0.75)
    return full(torch.stack([t1[0], pet[0]])[:, None], torch.stack([t1[1], pet[1]])[:, None])


def expert(own: int, means: tuple[float, float], sds: tuple[float, float], correlation: float
           ) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor in z of a Gaussian of (s, u_own)."""
    mean, covariance = np.zeros(3), np.eye(3)
    across = correlation * sds[0] * sds[1]
    mean[[S, own]] = means
    covariance[np.ix_([S, own], [S, own])] = [[sds[0] ** 2, across], [across, sds[1] ** 2]]
    return torch.from_numpy(mean), torch.from_numpy(np.linalg.cholesky(covariance))


def fused(missing: Missing, *there: bool) -> Distribution:
    """One shared dimension and a private one of each modality."""
    fusion = GeneralizedWassersteinBarycenter(SharedPrivate(private=1), missing=missing)
    return fusion.sized(2, 3)(two_views(), present(*there))


def draw_blocks() -> Figure:
    """Columns: both scans; PET missing, twice. Rows: s; the plane T1 sees; the plane PET sees."""
    figure, axes = plt.subplots(3, 3, figsize=(WIDTH, 6.5), sharex=True, sharey="row",
                                layout="constrained", height_ratios=[0.68, 1, 1])
    cases = (("T1 and PET", "s averaged, u left alone", Drop(), (True, True)),
             ("PET missing, Drop", "s from T1 alone, $u_{PET}$ unknown", Drop(), (True, False)),
             ("PET missing, SubstitutePrior", "s drawn halfway to the prior", SubstitutePrior(),
              (True, False)))
    for column, (name, below, missing, there) in zip(axes.T, cases):
        q = fused(missing, *there)
        headline(column[0], name, below, TRANSPORT)
        draw_shared(column[0], q, there)
        for ax, modality, here in zip(column[1:], OWN, there):
            draw_plane(ax, q, modality, here)
        column[2].set_xlabel("shared, s")
    for ax, x, y, name in ((axes[0, 0], -2.6, 0.36, "T1"), (axes[0, 0], 2.05, 0.6, "PET"),
                           (axes[0, 0], -1.2, 0.64, "fused"), (axes[0, 1], 1.1, 0.29, "prior")):
        colour = MODALITIES.get(name, INK if name == "prior" else TRANSPORT)
        ax.text(x, y, name, color=colour, weight="bold")
    axes[0, 0].set_ylabel("density of s")
    axes[1, 0].set_ylabel("T1's own, $u_{T1}$")
    axes[2, 0].set_ylabel("PET's own, $u_{PET}$")
    return figure


def draw_shared(ax: Axes, q: Distribution, there: tuple[bool, ...]) -> None:
    """What each scan says of s, the prior, and the fused marginal."""
    grid = np.linspace(-3.5, 3.5, 701)
    ax.plot(grid, density(normal(0.0, 1.0), grid), color=INK, lw=1, ls=(0, (1, 1.5)))
    experts = two_views()
    for m, (modality, here) in enumerate(zip(OWN, there)):
        if here:
            loc, sd = experts.mean[m, 0, S].item(), experts.stddev[m, 0, S].item()
            ax.plot(grid, density(normal(loc, sd), grid), color=MODALITIES[modality], lw=1.6)
    marginal = density(normal(q.mean[0, S].item(), q.stddev[0, S].item()), grid)
    ax.fill_between(grid, marginal, color=TRANSPORT, alpha=0.25, lw=0)
    ax.plot(grid, marginal, color=TRANSPORT, lw=1.8)
    ax.set(yticks=[], ylim=(0, 0.92))
    ax.spines["left"].set_visible(False)


def draw_plane(ax: Axes, q: Distribution, modality: str, here: bool) -> None:
    """The projection on (s, u_m): prior dotted, the expert in its colour, the posterior green."""
    axes = [S, OWN[modality]]
    pick = np.ix_(axes, axes)
    draw_ellipse(ax, np.zeros(2), np.eye(2), ec=INK, lw=1, ls=(0, (1, 1.5)))
    mean, covariance = q.mean[0].numpy(), q.covariance_matrix[0].numpy()
    draw_ellipse(ax, mean[axes], covariance[pick], fill=True, fc=TRANSPORT, lw=0, alpha=0.25)
    draw_ellipse(ax, mean[axes], covariance[pick], ec=TRANSPORT, lw=2)
    reach = RADIUS * covariance[axes[1], axes[1]] ** 0.5  # as far as the ellipse goes
    for edge in (mean[axes[1]] - reach, mean[axes[1]] + reach):
        ax.axhline(edge, color=TRANSPORT, lw=0.7, ls=(0, (4, 3)), zorder=0)
    if here:
        m = list(OWN).index(modality)
        experts = two_views()
        expert_covariance = experts.covariance_matrix[m, 0].numpy()
        draw_ellipse(ax, experts.mean[m, 0].numpy()[axes], expert_covariance[pick],
                     ec=MODALITIES[modality], lw=1.6)
    ax.set(aspect="equal", xlim=(-3.5, 3.5), ylim=(-2.8, 2.8))


FIGURES = {"fusion_blocks": draw_blocks}

if __name__ == "__main__":
    main(__doc__, FIGURES)

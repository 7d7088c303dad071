"""Two latent dimensions, full covariances: ellipses fused, and two Gaussians interpolated.

    python docs/gallery/plot_fusion_ellipses.py --out figures/

Writes ``fusion_ellipses.png`` and ``fusion_interpolation.png``.
"""
from __future__ import annotations

import numpy as np
import torch
from gallery_style import (FORWARD, GREY, PALE, REVERSE, TRANSPORT, WIDTH, draw_ellipse, headline,
                           main, mean_covariance, present, turned)
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch.distributions import Distribution

from normfuse.fusion import (Aggregator, Given, MixtureOfExperts, ProductOfExperts,
                             WassersteinBarycenter, full)

LONG, SHORT = 1.5, 0.35  # sds of every expert below along its axes
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)


def tilted(means: list[tuple[float, float]], covariances: list[torch.Tensor]) -> Distribution:
    """Two-dimensional experts with full covariances, batch shape (n_modalities, 1)."""
    factors = torch.linalg.cholesky(torch.stack(covariances))
    return full(torch.tensor(means, dtype=torch.float64)[:, None], factors[:, None])


def two_crossed() -> Distribution:
    """Two experts at right angles, each sure of what the other leaves open."""
    return tilted([(-0.9, 0.0), (0.9, 0.0)],
                  [turned((LONG, SHORT), 45), turned((LONG, SHORT), -45)])


def three_tilted() -> Distribution:
    """Three experts, 30 degrees apart, that disagree."""
    return tilted([(-1.8, 0.6), (0.2, -1.0), (1.6, 1.1)],
                  [turned((LONG, SHORT), degrees) for degrees in (75, 45, 15)])


def two_to_interpolate() -> Distribution:
    return tilted([(-2.0, 0.0), (2.0, 0.0)], [turned((1.3, 0.35), 65), turned((0.9, 0.45), -40)])


def everyone(experts: Distribution) -> torch.Tensor:
    return present(*[True] * len(experts.mean))


def area(covariance: np.ndarray) -> float:
    """Of an ellipse, relative to an expert's."""
    return float(np.sqrt(np.linalg.det(covariance)) / (LONG * SHORT))


def draw_ellipses() -> Figure:
    """Two crossed experts above, three below; a column for each geometry."""
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.75), sharex=True, sharey="row",
                                layout="constrained", height_ratios=[5.2, 7.1])
    columns: list[tuple[str, str, Aggregator, str]] = [
        ("PoE", "precision matrices add", ProductOfExperts(prior_expert=False), REVERSE),
        ("WB", "means average, shapes by transport", WassersteinBarycenter(), TRANSPORT),
        ("MoE, moments matched", "the mixture's mean and covariance", MixtureOfExperts(),
         FORWARD)]
    for row, experts in zip(axes, (two_crossed(), three_tilted())):
        for ax, (_, _, fusion, colour) in zip(row, columns):
            draw_fused(ax, experts, fusion, colour)
    for ax, (name, below, _, colour) in zip(axes[0], columns):
        headline(ax, name, below, colour)
    axes[0, 0].set_ylim(-2.9, 2.3)
    axes[1, 0].set_ylim(-3.6, 3.5)
    for ax in axes[1]:
        ax.set_xlabel("$z_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$z_2$")
    return figure


def draw_fused(ax: Axes, experts: Distribution, fusion: Aggregator, colour: str) -> None:
    for mean, factor in zip(experts.mean[:, 0].numpy(), experts.scale_tril[:, 0].numpy()):
        draw_ellipse(ax, mean, factor @ factor.T, fill=True, fc=PALE, ec=GREY, lw=0.9, alpha=0.75)
    mean, covariance = mean_covariance(fusion(experts, everyone(experts)))
    draw_ellipse(ax, mean, covariance, fill=True, fc=colour, alpha=0.25, lw=0, zorder=3)
    draw_ellipse(ax, mean, covariance, ec=colour, lw=2.0, zorder=4)
    ax.text(0.98, 0.03, f"area × {area(covariance):.2f}", transform=ax.transAxes, ha="right",
            color=colour)
    ax.set(aspect="equal", xlim=(-3.7, 4.5), yticks=range(-2, 4, 2))


def interpolated(kind: type, t: float) -> Distribution:
    """Fused with weights 1 - t and t. Given weights are positive: at the ends one is absent."""
    weights = Given([1 - t, t]) if 0 < t < 1 else Given([1, 1])
    return kind(weights=weights)(two_to_interpolate(), present(t < 1, t > 0))


def draw_interpolation() -> Figure:
    """Columns t = 0 to 1: mass that is moved, above; mass that is faded out and in, below."""
    figure, axes = plt.subplots(2, len(STEPS), figsize=(WIDTH, 3.1), sharex=True, sharey=True,
                                layout="constrained")
    rows = ((WassersteinBarycenter, "Displaced: WB", TRANSPORT),
            (MixtureOfExperts, "Mixed: MoE", FORWARD))
    for row, (kind, name, colour) in zip(axes, rows):
        for ax, t in zip(row, STEPS):
            draw_step(ax, interpolated(kind, t), colour)
        row[0].set_ylabel(name, color=colour, weight="bold", fontsize=10.5)
    for ax, t in zip(axes[0], STEPS):
        ax.set_title(f"t = {t:g}", loc="center")
    return figure


def draw_step(ax: Axes, q: Distribution, colour: str) -> None:
    experts = two_to_interpolate()
    x, y = np.meshgrid(np.linspace(-4.3, 4.3, 216), np.linspace(-3.6, 3.6, 181))
    points = torch.from_numpy(np.stack([x, y], -1).reshape(-1, 1, 2))
    values = q.log_prob(points).exp()[:, 0].reshape(x.shape).numpy()
    tints = LinearSegmentedColormap.from_list("", ["white", colour])
    top = 1 / (2 * np.pi * 0.9 * 0.45)  # of the sharper expert: one scale for all panels
    ax.contourf(x, y, values, levels=top * np.array([0.02, 0.08, 0.2, 0.4, 0.7, 1.2]),
                cmap=tints, vmin=-0.1 * top, vmax=top)
    for mean, factor in zip(experts.mean[:, 0].numpy(), experts.scale_tril[:, 0].numpy()):
        draw_ellipse(ax, mean, factor @ factor.T, centre=False, ec=GREY, lw=0.8, ls=(0, (3, 2)))
    ax.set(aspect="equal", xticks=[], yticks=[], xlim=(-4.3, 4.3), ylim=(-3.6, 3.6))
    ax.spines[:].set_visible(False)


FIGURES = {"fusion_ellipses": draw_ellipses, "fusion_interpolation": draw_interpolation}

if __name__ == "__main__":
    main(__doc__, FIGURES)

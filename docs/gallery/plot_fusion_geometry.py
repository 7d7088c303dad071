"""One latent dimension: where each fusion puts its mass, and what an absent modality does.

    python docs/gallery/plot_fusion_geometry.py --out figures/

Writes ``fusion_two_experts.png``, ``fusion_over_confident.png`` and ``fusion_absent.png``.
"""
from __future__ import annotations

import numpy as np
from gallery_style import (FORWARD, GREY, INK, MODALITIES, PALE, REVERSE, TRANSPORT, WIDTH,
                           density, headline, main, mean_sd, normal, one_subject, present)
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.distributions import Distribution

from normfuse.fusion import (Aggregator, Drop, GeneralizedProductOfExperts, Missing,
                             MixtureOfExperts, MomentMatchingBarycenter, ProductOfExperts,
                             SubsetMixture, SubsetPosterior, SubstitutePrior, Uniform,
                             WassersteinBarycenter)

# short name, what it is, colour of its divergence
FUSIONS: dict[str, tuple[Aggregator, str, str]] = {
    "PoE, prior expert": (ProductOfExperts(), "precisions add, the prior's too", REVERSE),
    "PoE": (ProductOfExperts(prior_expert=False), "precisions add", REVERSE),
    "gPoE": (GeneralizedProductOfExperts(weights=Uniform()), "precisions average", REVERSE),
    "Moment matching": (MomentMatchingBarycenter(), "the Gaussian nearest to MoE", FORWARD),
    "MoE": (MixtureOfExperts(), "densities average", FORWARD),
    "WB": (WassersteinBarycenter(), "means and sds average", TRANSPORT),
    "MoPoE": (SubsetMixture(ProductOfExperts(prior_expert=False)), "mixture of PoE over subsets",
              REVERSE),
    "MWB": (SubsetMixture(WassersteinBarycenter()), "mixture of WB over subsets", TRANSPORT),
}


def two_experts() -> Distribution:
    """Two modalities that disagree: N(-1, .6^2) and N(1.5, 1.1^2)."""
    return one_subject([-1.0, 1.5], [0.6, 1.1])


def over_confident(sd: float = 0.05) -> Distribution:
    """Two experts N(0, 1) and a third at 5, wrong and sure of it."""
    return one_subject([0.0, 0.0, 5.0], [1.0, 1.0, sd])


def three_scans() -> Distribution:
    """T1, DTI and PET of somebody who deviates from the prior N(0, 1)."""
    return one_subject([2.4, 3.4, 1.0], [0.6, 0.5, 0.8])


def each_expert(experts: Distribution) -> list[Distribution]:
    """Every expert by itself, batch shape (1,)."""
    return [normal(loc, sd) for loc, sd in
            zip(experts.mean[:, 0, 0].tolist(), experts.stddev[:, 0, 0].tolist())]


def draw_two_experts() -> Figure:
    """Small multiples: the experts in grey, what a fusion makes of them in colour."""
    experts = two_experts()
    figure, axes = plt.subplots(3, 3, figsize=(WIDTH, 6.6), sharex=True, sharey=True,
                                layout="constrained")
    grid = np.linspace(-3.6, 5.0, 861)
    for ax in axes.flat:
        for expert in each_expert(experts):
            ax.fill_between(grid, density(expert, grid), color=PALE, lw=0)
            ax.plot(grid, density(expert, grid), color="0.65", lw=0.9)
        ax.set(yticks=[], ylim=(-0.13, 0.92), xlim=(-3.6, 5.0))
        ax.spines["left"].set_visible(False)
    label_experts(axes.flat[0], grid)
    for ax, (name, (fusion, meaning, colour)) in zip(axes.flat[1:], FUSIONS.items()):
        headline(ax, name, meaning, colour)
        draw_density(ax, fusion(experts, present(True, True)), grid, colour)
    for ax in axes[-1]:
        ax.set_xlabel("one latent dimension, z")
    return figure


def label_experts(ax: Axes, grid: np.ndarray) -> None:
    headline(ax, "Two experts", "what each scan says by itself", INK)
    ax.text(-1.0, 0.70, "mean −1\nsd 0.6", ha="center", color=GREY)
    ax.text(2.55, 0.27, "mean 1.5\nsd 1.1", color=GREY)
    ax.plot(grid, density(normal(0.0, 1.0), grid), color=INK, lw=1.1, ls=(0, (1, 1.5)))
    ax.text(0.0, 0.425, "prior N(0, 1)", ha="left", color=INK, fontsize=8)


def draw_density(ax: Axes, q: Distribution, grid: np.ndarray, colour: str) -> None:
    """A density, the components of a mixture dotted, and a bar from mean - sd to mean + sd."""
    values = density(q, grid)
    ax.fill_between(grid, values, color=colour, alpha=0.22, lw=0)
    ax.plot(grid, values, color=colour, lw=1.8)
    if isinstance(q, SubsetPosterior):
        base = q.components.base_dist
        for loc, sd, weight in zip(base.loc[:, 0, 0], base.scale[:, 0, 0], q.weights[:, 0]):
            part = normal(loc.item(), sd.item())
            ax.plot(grid, weight.item() * density(part, grid), color=colour, lw=0.9, ls=":")
    mean, sd = mean_sd(q)
    ax.plot([mean - sd, mean + sd], [-0.065] * 2, color=colour, lw=2.2, solid_capstyle="butt")
    ax.plot(mean, -0.065, "o", ms=5, mfc="white", mec=colour, mew=1.6)
    text = f"mean {mean:.2f}\nsd {sd:.2f}".replace("-", "−")
    ax.text(0.99, 0.97, text, transform=ax.transAxes, ha="right", va="top", color=colour)


def intervals(q: Distribution, mass: float) -> list[tuple[float, float]]:
    """The shortest set of intervals that holds this share of a density (highest density)."""
    grid = np.linspace(-8.0, 10.0, 36001)
    values = density(q, grid)
    order = np.argsort(values)[::-1]
    enough = int(np.searchsorted(np.cumsum(values[order]), mass * values.sum())) + 1
    inside = np.zeros(len(grid) + 2, dtype=int)
    inside[1 + order[:enough]] = 1
    edges = np.flatnonzero(np.diff(inside))
    return [(grid[a], grid[b - 1]) for a, b in edges.reshape(-1, 2)]


def draw_over_confident() -> Figure:
    """Left: where the mass is. Right: how the answer depends on the wrong expert's sd."""
    figure, (ax, beside) = plt.subplots(1, 2, figsize=(WIDTH, 4.3), layout="constrained",
                                        width_ratios=[1.75, 1])
    experts = over_confident()
    rows = [(f"expert {i + 1}", q, GREY) for i, q in enumerate(each_expert(experts))]
    rows += [(name, fusion(experts, present(True, True, True)), colour)
             for name, (fusion, _, colour) in FUSIONS.items()]
    for y, (_, q, colour) in enumerate(rows):
        draw_interval(ax, y, q, colour)
    ax.axhline(2.5, color="0.8", lw=0.8)
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-3.5, 9.0), xlabel="one latent dimension, z",
           xticks=range(-3, 7))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    for x, text in ((7.3, "mean"), (8.5, "sd")):
        ax.text(x, -0.75, text, ha="center", va="bottom", weight="bold")
    ax.set_title("Half of the mass (thick), 95 % (thin), mean (▲)", loc="left", pad=18)
    draw_sweep(beside)
    return figure


def draw_interval(ax: Axes, y: float, q: Distribution, colour: str) -> None:
    for mass, width in ((0.95, 2), (0.5, 7)):
        for low, high in intervals(q, mass):
            ax.plot([low, high], [y, y], color=colour, lw=width, solid_capstyle="butt")
    mean, sd = mean_sd(q)
    ax.plot(mean, y + 0.36, "^", ms=5, color=colour, mew=0)
    for x, value in ((7.3, mean), (8.5, sd)):
        ax.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour)


def draw_sweep(ax: Axes) -> None:
    """The fused mean against the sd that expert 3 claims."""
    sds = np.geomspace(0.03, 10.0, 120)
    for name, colour, dashes in (("PoE, prior expert", REVERSE, (0, (4, 1.5))),
                                 ("PoE", REVERSE, "-"), ("MoPoE", REVERSE, (0, (1, 1))),
                                 ("WB", TRANSPORT, "-"), ("MoE", FORWARD, (0, (4, 4)))):
        means = [FUSIONS[name][0](over_confident(sd), present(True, True, True)).mean.item()
                 for sd in sds]
        ax.plot(sds, means, color=colour, ls=dashes, lw=1.8)
    ax.axvline(0.05, color="0.8", lw=0.8, zorder=0)
    for x, y, text, colour in ((0.46, 4.5, "PoE, gPoE (solid),\nprior expert (dashed)", REVERSE),
                               (0.06, 2.95, "MoPoE", REVERSE), (0.06, 1.73, "WB, MWB", TRANSPORT),
                               (0.06, 1.16, "MoE, moment\nmatching", FORWARD)):
        ax.text(x, y, text, color=colour, fontsize=8.5)
    ax.set(xscale="log", xlabel="sd that expert 3 claims", ylim=(-0.2, 5.6))
    ax.set_xticks([0.05, 0.2, 1, 5], ["0.05", "0.2", "1", "5"])
    ax.set_title("Fused mean", loc="left", pad=18)


def draw_absent() -> Figure:
    """Three, two, one and no scan of one person: Drop above, SubstitutePrior below."""
    figure, axes = plt.subplots(2, 4, figsize=(WIDTH, 4.9), sharex=True, sharey=True,
                                layout="constrained")
    policies: dict[str, Missing] = {"Drop": Drop(), "SubstitutePrior": SubstitutePrior()}
    for row, (name, policy) in zip(axes, policies.items()):
        for ax, there in zip(row, ((1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 0))):
            draw_case(ax, WassersteinBarycenter(missing=policy), tuple(map(bool, there)))
        row[0].set_ylabel(name, weight="bold", color=TRANSPORT, fontsize=10.5)
    name_curves(axes[0, 0])
    titles = ("T1, DTI and PET", "T1 and DTI", "T1 alone", "nothing measured")
    for ax, title in zip(axes[0], titles):
        ax.set_title(title, loc="left")
    for ax in axes[1]:
        ax.set_xlabel("z")
    return figure


def name_curves(ax: Axes) -> None:
    for x, y, name, side in ((1.85, 0.62, "T1", "right"), (3.75, 0.78, "DTI", "left"),
                             (0.75, 0.52, "PET", "right"), (-1.0, 0.29, "prior", "right")):
        ax.text(x, y, name, color=MODALITIES.get(name, INK), weight="bold", ha=side)


def draw_case(ax: Axes, fusion: Aggregator, there: tuple[bool, ...]) -> None:
    """Present experts as lines, the prior dotted, the posterior filled, parts laid end to end."""
    experts, grid = three_scans(), np.linspace(-2.8, 5.2, 801)
    q = fusion(experts, present(*there))
    prior = normal(0.0, 1.0)
    ax.plot(grid, density(prior, grid), color=INK, lw=0.9, ls=(0, (1, 1.5)))
    for here, colour, expert in zip(there, MODALITIES.values(), each_expert(experts)):
        if here:
            ax.plot(grid, density(expert, grid), color=colour, lw=1.4)
    ax.fill_between(grid, density(q, grid), color=TRANSPORT, alpha=0.3, lw=0)
    ax.plot(grid, density(q, grid), color=TRANSPORT, lw=1.8)
    parts = fusion.contributions(experts, present(*there))[:, 0, 0].tolist()
    starts = np.cumsum([0.0, *parts[:-1]])
    ax.barh([-0.12] * 3, parts, left=starts, height=0.09, color=list(MODALITIES.values()),
            ec="white", lw=0.8)
    ax.text(0, -0.2, " + ".join(f"{part:.2f}" for part in parts if part), va="top", fontsize=8)
    mean, sd = mean_sd(q)
    ax.plot([mean, mean], [-0.165, density(q, np.array([mean]))[0]], color=TRANSPORT, lw=0.9)
    ax.text(0.02, 0.97, f"mean {mean:.2f}\nsd {sd:.2f}", transform=ax.transAxes, va="top",
            color=TRANSPORT)
    ax.set(yticks=[], ylim=(-0.32, 1.0), xlim=(-2.8, 5.2), xticks=[-2, 0, 2, 4])
    ax.spines["left"].set_visible(False)


FIGURES = {"fusion_two_experts": draw_two_experts,
           "fusion_over_confident": draw_over_confident,
           "fusion_absent": draw_absent}

if __name__ == "__main__":
    main(__doc__, FIGURES)

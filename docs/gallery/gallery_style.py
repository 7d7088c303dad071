"""What the scripts of this gallery share: colours, experts to fuse, marks, and ``--out``."""
from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from PIL import Image
from torch import Tensor
from torch.distributions import Distribution

from normfuse.fusion import gaussian, sigma_points

# Okabe and Ito (2008): told apart with every common colour vision. Three for the divergences ...
REVERSE, FORWARD, TRANSPORT = "#0072B2", "#D55E00", "#009E73"
# ... and three for modalities.
MODALITIES = {"T1": "#56B4E9", "DTI": "#E69F00", "PET": "#CC79A7"}
INK, GREY, PALE = "0.15", "0.45", "0.85"

RADIUS = np.sqrt(-2 * np.log(1 - 0.8))  # sds at which an ellipse holds 80 % of the mass
WIDTH = 8.0  # inches; 800 px on a page are then 100 px an inch, and 8 points 11 px
STYLE = {"font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9, "legend.fontsize": 8.5,
         "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.spines.top": False,
         "axes.spines.right": False, "axes.edgecolor": GREY, "xtick.color": GREY,
         "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
         "text.color": INK, "axes.labelcolor": INK, "legend.frameon": False,
         "mathtext.fontset": "dejavusans", "figure.constrained_layout.w_pad": 0.08,
         "figure.constrained_layout.h_pad": 0.08}


def one_subject(locs: Sequence[float], sds: Sequence[float]) -> Distribution:
    """One-dimensional experts of one subject, batch shape (n_modalities, 1)."""
    return gaussian(torch.tensor(locs, dtype=torch.float64).reshape(-1, 1, 1),
                    torch.tensor(sds, dtype=torch.float64).reshape(-1, 1, 1))


def normal(loc: float, sd: float) -> Distribution:
    """One Gaussian of one subject, batch shape (1,): an expert by itself, or the prior."""
    return gaussian(torch.tensor([[loc]], dtype=torch.float64),
                    torch.tensor([[sd]], dtype=torch.float64))


def present(*flags: bool) -> Tensor:
    """Which modalities this one subject has, shape (n_modalities, 1)."""
    return torch.tensor(flags).reshape(-1, 1)


def density(q: Distribution, grid: np.ndarray) -> np.ndarray:
    """Density of a one-dimensional posterior of one subject on a grid."""
    points = torch.from_numpy(np.asarray(grid, dtype=np.float64)).reshape(-1, 1, 1)
    return q.log_prob(points).exp()[:, 0].detach().numpy()


def mean_sd(q: Distribution) -> tuple[float, float]:
    """Of a one-dimensional posterior of one subject."""
    return q.mean.item(), q.variance.item() ** 0.5


def mean_covariance(q: Distribution) -> tuple[np.ndarray, np.ndarray]:
    """Of one subject's posterior, mixtures included: sigma points carry both exactly."""
    points, weights = (t[:, 0].detach().numpy() for t in sigma_points(q))
    away = points - q.mean[0].detach().numpy()
    return q.mean[0].detach().numpy(), (away * weights[:, None]).T @ away


def turned(sds: tuple[float, float], degrees: float) -> Tensor:
    """The covariance of an ellipse with these half axes, the first turned by so many degrees."""
    angle = np.radians(degrees)
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return torch.from_numpy(axes @ np.diag(np.square(sds)) @ axes.T)


def draw_ellipse(ax: Axes, mean: np.ndarray, covariance: np.ndarray, centre: bool = True,
                 **look: object) -> Ellipse:
    """The ellipse that holds 80 % of a two-dimensional Gaussian's mass, and its centre."""
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * RADIUS * np.sqrt(values)
    turn = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    patch = Ellipse(tuple(mean), width, height, angle=turn, **({"fill": False} | look))
    ax.add_patch(patch)
    if centre:
        ax.plot(*mean, "o", ms=3, color=patch.get_edgecolor(), zorder=patch.get_zorder() + 0.1)
    return patch


def headline(ax: Axes, title: str, below: str, colour: str) -> None:
    """A bold title in the family's colour with a plain line under it."""
    ax.set_title(title, loc="left", pad=17, weight="bold", color=colour)
    ax.text(0, 1.035, below, transform=ax.transAxes, fontsize=8, color=INK, va="bottom")


def save(figure: Figure, path: Path) -> Path:
    """A PNG of 256 colours, 1280 px wide: half the bytes, and no difference to the eye.

    With 64, the dark ends of a map's colours, rare as they are, turned grey.
    """
    memory = io.BytesIO()
    figure.savefig(memory, dpi=160, format="png")
    plt.close(figure)
    picture = Image.open(memory).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def main(description: str, figures: Mapping[str, Callable[[], Figure]],
         arguments: Sequence[str] | None = None) -> list[Path]:
    """Draw every figure of a script into ``--out``."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the PNG files")
    folder = parser.parse_args(arguments).out
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        written = [save(draw(), folder / f"{name}.png") for name, draw in figures.items()]
    for path in written:
        print(path)
    return written

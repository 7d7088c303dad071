"""What representations know of places, drawn on a plane."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import CohortError, listed
from .contrastive import effective_rank
from .images import Frame, one_space
from .patches import Pairs, Patches, stack_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .representations import ContrastiveRepresentations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by the colour-blind; of modalities."""


MOST = 500
"""Places; 400 take 18 s, and time grows faster than their number."""


def plot_embedding(representations: ContrastiveRepresentations, cohort: Cohort, *,
                   n_places: int = 48, seed: int = 0) -> Figure:
    r"""Places as two modalities show them, laid on a plane by metric multidimensional scaling.

    Distances in the plane are as near as they can be to those between representations, once of
    the output (averaged to 4 voxels a side), once of the innermost features. A line joins the two
    views of a place: what was learned shows as short lines between spread points. Points on a
    line or in a few heaps are a collapse.

    Parameters
    ----------
    representations : ContrastiveRepresentations
        Fitted.
    cohort : Cohort
        Images that it may look at, on a grid and mask of their own; preferably of people whom the
        fit did not see.
    n_places : int
        Points are twice as many.
    seed : int
        Of the places and of the scaling.

    Returns
    -------
    Figure
        Titles have the effective rank of the points shown, which are 2 n_places at most.

    Raises
    ------
    ValueError
        Fewer than four places.
    CohortError
        Other modalities than the fit's, or nobody with two.

    References
    ----------
    Borg and Groenen (2005), Modern Multidimensional Scaling; scikit-learn's.

    Examples
    --------
    >>> from normfuse.imaging.representations import ContrastiveRepresentations
    >>> from normfuse.testing import tiny_images
    >>> from normfuse.training import TrainingPlan
    >>> brief = TrainingPlan(max_epochs=1, warmup=0, batch_size=8, validation_draws=1)
    >>> people = tiny_images()
    >>> model = ContrastiveRepresentations((4, 8), patch=4, plan=brief).fit(people)
    >>> figure = plot_embedding(model, people, n_places=12)
    >>> [ax.get_title(loc="left").split(",")[0] for ax in figure.axes]
    ['output', 'bottleneck']
    """
    from matplotlib.figure import Figure

    if not 4 <= n_places <= MOST:
        raise ValueError(f"a plane of points needs four places at least, and of more than {MOST} "
                         f"it takes minutes; got n_places={n_places}")
    batch, views = _seen(representations, cohort, n_places, seed)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for ax, (name, rows) in zip(figure.subplots(1, 2), views.items()):
        at = _on_a_plane(rows, seed).reshape(2, n_places, 2)
        ax.plot(*at.transpose(2, 0, 1), color="0.75", lw=0.7, zorder=1)
        for m, modality in enumerate(representations.fitted.net.names):
            where = batch.which.numpy() == m
            ax.scatter(*at[where].T, s=14, color=COLOURS[m % len(COLOURS)], label=modality)
        ax.set_title(f"{name}, effective rank {effective_rank(rows):.1f}", loc="left")
        ax.set_aspect("equal", "datalim")
        ax.set_axis_off()
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@torch.no_grad()
def _seen(representations: ContrastiveRepresentations, cohort: Cohort, n_places: int, seed: int
          ) -> tuple[Pairs, dict[str, Tensor]]:
    """The places, and both representations of their first and then of their second views."""
    r, net = representations, representations.fitted.net
    names = tuple(m.name for m in cohort.modalities)
    if names != net.names:
        raise CohortError(f"the representations are of {listed(net.names)}, in this order; the "
                          f"cohort has {listed(names)}")
    patches = Patches(stack_of(cohort, Frame(one_space(cohort), 1, r.plane), r.device), r.patch,
                      1, 0.0, n_places)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batch = patches.take(torch.randint(len(patches), (n_places,)))
    net.eval()
    out, inner = net.see(batch)
    return batch, {"output": net.pooled(out.flatten(0, 1)).cpu(),
                   "bottleneck": inner.flatten(0, 1).cpu()}


def _on_a_plane(rows: Tensor, seed: int) -> np.ndarray:
    from sklearn.manifold import MDS

    scaling = MDS(2, n_init=4, init="random", random_state=seed, normalized_stress=False)
    return np.asarray(scaling.fit_transform(rows.double().numpy()))

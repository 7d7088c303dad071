"""One set of regional values on three grids: what is left of an atlas when voxels get large.

    python docs/gallery/plot_atlases.py --out figures/

Writes ``atlases.png``.
"""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from gallery_style import WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from nilearn.datasets import load_mni152_brain_mask

import normfuse as nf
from normfuse.analyses import unparcellate
from normfuse.analyses.figures import plot_brain

SIZES = (2, 4, 8)  # mm
LOBES = {"temporal": -2.5, "cingulate": -1.5, "insula": -1.0, "parietal": 0.8, "occipital": 2.0}


def made_up(atlas: nf.Atlas) -> pd.Series:
    """A value for each region: by its lobe, the left side further from 0."""
    facts = atlas.regions.set_index("name")
    values = facts["lobe"].map(LOBES).fillna(0.3).astype(float)
    return values * facts["hemisphere"].map({"left": 1.0, "right": 0.6}).fillna(0.3)


def draw_atlases() -> Figure:
    """A row a grid."""
    atlas = nf.load_atlas("dk")
    figure = plt.figure(figsize=(WIDTH, 5.4))
    for row, size in enumerate(SIZES):
        space = nf.Space.of(load_mni152_brain_mask(resolution=size), atlas.space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the title says how many are left
            kept = np.unique(atlas.on(space))
            image = unparcellate(made_up(atlas), atlas, space)
        plot_brain(image, f"{size} mm: {space.n_voxels:,} voxels, {len(kept[kept > 0])} of "
                          f"{len(atlas.regions)} regions", limit=3,
                   ax=figure.add_axes((0.01, 0.68 - 0.33 * row, 0.9, 0.26)))
    return figure


FIGURES = {"atlases": draw_atlases}

if __name__ == "__main__":
    main(__doc__, FIGURES)

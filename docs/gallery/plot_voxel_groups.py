"""What each correction finds of a planted group difference.

    python docs/gallery/plot_voxel_groups.py --out figures/

Writes ``voxel_groups.png``.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
from gallery_style import WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from nilearn.datasets import load_mni152_brain_mask
from scipy.ndimage import gaussian_filter

import normfuse as nf
from normfuse.analyses import (BenjaminiHochberg, ClusterExtent, MaxT, Tfce, VoxelTable,
                               compare_voxels)
from normfuse.analyses.figures import plot_brain

SIZE = 6  # mm
N_PATIENTS, N_CONTROLS = 40, 60
FWHM, EFFECT = 12.0, 1.6  # mm; sd at the centre of a lesion
LESIONS = {(-34.0, -24.0, -12.0): 22.0, (30.0, 20.0, 20.0): 34.0}  # centre -> FWHM, mm
SHARE = 0.8  # of patients have each


def people() -> tuple[VoxelTable, np.ndarray]:
    """Smooth z of everybody, and the mean effect in patients."""
    rng = np.random.default_rng(4)
    space = nf.Space.of(load_mni152_brain_mask(resolution=SIZE), "MNI152NLin2009aSym")
    n, sd = N_PATIENTS + N_CONTROLS, FWHM / SIZE / 2.3548
    fields = [gaussian_filter(rng.normal(size=space.shape), sd)[space.mask] for _ in range(n)]
    z = np.array(fields) / np.std(fields)
    at, truth = space.coordinates(), np.zeros(space.n_voxels)
    for center, fwhm in LESIONS.items():
        blob = EFFECT * np.exp(-4 * np.log(2) * ((at - center) ** 2).sum(1) / fwhm ** 2)
        has = rng.random(N_PATIENTS) < SHARE
        z[:N_PATIENTS][has] -= blob
        truth -= SHARE * blob
    subjects = pd.DataFrame({"group": ["patient"] * N_PATIENTS + ["control"] * N_CONTROLS},
                            index=[f"sub-{i:03d}" for i in range(n)])
    return VoxelTable(z.astype(np.float32), subjects, space), truth


def draw_voxel_groups() -> Figure:
    """What was planted, and t of the same people, outlined where a correction calls it different.
    """
    table, truth = people()
    ways = {"q < .05, Benjamini-Hochberg": BenjaminiHochberg(),
            "p < .05, largest t": MaxT(500, blocks=None),
            "p < .05, extent of clusters": ClusterExtent(500, blocks=None),
            "p < .05, TFCE": Tfce(500, blocks=None)}
    figure = plt.figure(figsize=(WIDTH, 8.6))
    places = [(0.01, 0.81 - 0.2 * row, 0.9, 0.16) for row in range(5)]
    planted, nothing = truth < -0.3, truth > -0.02  # sd
    shown = table.space.img(np.where(nothing, np.nan, truth))
    plot_brain(shown, "what was planted: mean shift of patients", limit=1.5, unit="sd",
               outline=table.space.img(planted.astype(np.float32)),
               ax=figure.add_axes(places[0]))
    for place, (said, way) in zip(places[1:], ways.items()):
        found = compare_voxels(table, "group", adjust=(), contrast=("patient", "control"),
                               correction=way)
        called = found.significant()
        hit, false = called[planted].mean(), int(called[nothing].sum())
        plot_brain(found.img("t"), f"{said}: {hit:.0%} found, {false} false",
                   limit=8, unit="t", outline=table.space.img(called.astype(np.float32)),
                   ax=figure.add_axes(place))
    return figure


FIGURES = {"voxel_groups": draw_voxel_groups}

if __name__ == "__main__":
    main(__doc__, FIGURES)

"""Everybody's z at once, how often healthy people are extreme, one person by lobe, the cortex.

    python docs/gallery/plot_people.py --out figures/

Writes ``people.png`` and ``cortex.png``.
"""
from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
from gallery_style import WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import normfuse as nf
from normfuse.analyses import compare_groups, figures, group_map, parcellate
from normfuse.deviations import ROLE
from normfuse.testing import tiny_deviations

N_CONTROLS, N_PATIENTS = 90, 60


@cache
def people() -> nf.Deviations:
    """Simulated people whose z are known without a model: from the truth they were made of."""
    made = nf.simulate_cohort(N_CONTROLS, N_PATIENTS, seed=2)
    frames = {m.name: made.cohort.features[m.name] for m in made.cohort.modalities}
    z = (pd.concat(frames, axis=1) - made.truth.expected) / made.truth.residual_sd
    subjects = made.cohort.subjects
    subjects[ROLE] = np.where(subjects["diagnosis"] == "CN", "calibration", "new")
    empty = subjects[[]]
    return replace(tiny_deviations(), z=z, observed=pd.concat(frames, axis=1),
                   expected=made.truth.expected, latent=empty, distance=empty,
                   attribution=None, subjects=subjects,
                   reference=replace(tiny_deviations().reference, kind="covariates"))


def draw_people() -> Figure:
    """Heat map, reliability and radar."""
    figure = plt.figure(figsize=(WIDTH, 9.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[5, 4])
    figures.plot_heatmap(people(), "diagnosis", ax=above.subplots())
    left, right = below.subfigures(1, 2, width_ratios=[6, 5])
    figures.plot_reliability(people(), ax=left.subplots())
    regional = parcellate(people(), "dk")
    severe = people().z["t1"].mean(axis=1).idxmin()
    figures.plot_radar(regional, severe, "t1",
                       ax=right.subplots(subplot_kw={"projection": "polar"}))
    return figure


def draw_cortex() -> Figure:
    """The same difference in two modalities, on one scale."""
    atlas = nf.load_atlas("dk")
    found = compare_groups(parcellate(people(), atlas), "diagnosis", baseline="CN", adjust=())
    maps = {name: group_map(found, name, atlas, contrast="AD - CN") for name in ("t1", "pet")}
    limit = figures.common_limit(*maps.values())
    figure = plt.figure(figsize=(WIDTH, 3.6))
    for row, (name, img) in enumerate(maps.items()):
        ax = figure.add_axes((0.01, 0.52 - 0.5 * row, 0.9, 0.4))
        figures.plot_surface(img, f"{name}, AD − CN", limit=limit, unit="Hedges' g", ax=ax)
    return figure


FIGURES = {"people": draw_people, "cortex": draw_cortex}

if __name__ == "__main__":
    main(__doc__, FIGURES)

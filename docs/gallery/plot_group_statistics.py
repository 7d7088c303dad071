"""Groups, scores and subtypes of one simulated cohort of regional z.

    python docs/gallery/plot_group_statistics.py --out figures/

Writes ``group_statistics.png`` and ``subtypes.png``.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from gallery_style import WIDTH, main
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import normfuse as nf
from normfuse.analyses import (MaxT, StabilityPlan, Subtypes, associations, compare_groups,
                               extreme_counts, overlap, subtypes)
from normfuse.analyses.figures import plot_profiles
from normfuse.testing import tiny_deviations

REGIONS = ("hippocampus", "entorhinal", "amygdala", "precuneus", "cuneus", "lingual", "insula",
           "fusiform", "thalamus", "putamen", "caudate", "pallidum")
TYPES = {"temporal": slice(0, 3), "posterior": slice(3, 6)}
N_PATIENTS, N_CONTROLS, EFFECT = 60, 70, 2.0  # sd, where a type is affected


def cohort() -> nf.Deviations:
    """Two kinds of patients, each affected on both sides in T1 and PET, and controls."""
    rng = np.random.default_rng(3)
    names = [f"{side}-{region.capitalize()}" for side in ("Left", "Right") for region in REGIONS]
    n, width = N_PATIENTS + N_CONTROLS, len(names)
    columns = pd.MultiIndex.from_product([["t1", "pet"], names], names=["modality", "feature"])
    shared = 0.35 * rng.normal(size=(n, 3)) @ rng.normal(size=(3, 2 * width))
    z = shared + np.sqrt(1 - 0.35**2 * 3) * rng.normal(size=(n, 2 * width))
    severity = np.clip(rng.normal(1, 0.3, N_PATIENTS), 0.2, None)
    for i in range(N_PATIENTS):
        where = np.zeros(len(REGIONS))
        where[TYPES["temporal" if i % 2 else "posterior"]] = 1
        z[i] += severity[i] * EFFECT * np.concatenate([-np.tile(where, 2), np.tile(where, 2) * .6])
    index = pd.Index([f"sub-{i:03d}" for i in rng.permutation(n)])
    table = pd.DataFrame(z, index, columns)
    table.iloc[rng.permutation(n)[:20], width:] = np.nan  # no PET
    people = pd.DataFrame({"diagnosis": ["AD"] * N_PATIENTS + ["CN"] * N_CONTROLS}, index)
    people["mmse"] = np.nan
    people.iloc[:N_PATIENTS, 1] = (26 - 4 * severity + rng.normal(size=N_PATIENTS)).round()
    reference = tiny_deviations().reference
    return replace(tiny_deviations(), z=table, observed=table, expected=table, subjects=people,
                   latent=people[[]], distance=people[[]], attribution=None,
                   reference=replace(reference, kind="covariates", covariates={}))


def draw_group_statistics() -> Figure:
    """Effects, overlap, counts and correlations, each result's own picture."""
    people = cohort()
    figure, axes = plt.subplots(4, 1, figsize=(WIDTH, 13.5), layout="constrained",
                                gridspec_kw={"height_ratios": [10, 10, 6, 10]})
    found = compare_groups(people, "diagnosis", baseline="CN", test="hc3",
                           correction=MaxT(500, blocks=None))
    found.plot(12, ax=axes[0]).set_title("compare_groups: how far apart are the means?")
    shared = overlap(people, "diagnosis", baseline="CN", shuffles=MaxT(500, blocks=None))
    shared.plot(12, ax=axes[1]).set_title("overlap: how many people deviate in the same place?")
    extreme_counts(people, "diagnosis", baseline="CN").plot(ax=axes[2]).set_title(
        "extreme_counts: how many places has one person?")
    scores = associations(people.select("diagnosis == 'AD'"), "mmse")
    scores.plot(12, ax=axes[3]).set_title("associations: what goes with a score, among patients?")
    return figure


def found_subtypes() -> Subtypes:
    """Among the patients."""
    return subtypes(cohort(), "diagnosis == 'AD'", most=5,
                    plan=StabilityPlan(n_subsamples=30, n_null=39))


def draw_subtypes() -> Figure:
    """Stability, consensus, profiles."""
    found = found_subtypes()
    figure, axes = plt.subplots(3, 1, figsize=(WIDTH, 11), layout="constrained",
                                gridspec_kw={"height_ratios": [5, 6, 8]})
    for what, ax in zip(("stability", "consensus"), axes):
        found.plot(what, ax=ax)
    plot_profiles(found, 16, ax=axes[2])
    return figure


FIGURES = {"group_statistics": draw_group_statistics, "subtypes": draw_subtypes}

if __name__ == "__main__":
    main(__doc__, FIGURES)

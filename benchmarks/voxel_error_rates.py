"""How often corrections of voxels are wrong, and what they find: by simulation.

Each figure is a share of runs. Runs whose groups differ in nothing should have a significant
voxel in 5 % (where p has few values, in the share of the largest that is below 5 %).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from normfuse.analyses import (ClusterExtent, ClusterMass, MaxT, OlsT, Tfce, VoxelComparison,
                               VoxelTable, WelchT, compare_voxels, overlap_voxels)
from normfuse.space import Space

SHAPE = (12, 10, 8)
PERMUTATIONS = 59  # p has steps of 1/60, so that 2/60 is the largest below .05


def smooth(rng: np.random.Generator, n: int, sd: float = 1.0) -> np.ndarray:
    """Noise of unit sd, (n, voxels)."""
    made = np.array([ndimage.gaussian_filter(one, sd).ravel()
                     for one in rng.normal(size=(n, *SHAPE))])
    return made / made.std()


def table(values: np.ndarray, n1: int) -> VoxelTable:
    """The first ``n1`` people are cases."""
    n = len(values)
    people = pd.DataFrame({"dx": ["AD"] * n1 + ["CN"] * (n - n1)}, [f"s{i}" for i in range(n)])
    return VoxelTable(values, people, where())


def where() -> Space:
    return Space(np.ones(SHAPE, bool), np.diag([2.0, 2, 2, 1]), "MNI152NLin2009aSym")


def ball(at: tuple[int, int, int], radius: float) -> np.ndarray:
    return ((where().indices - at)**2).sum(axis=1) < radius**2


def holed(rng: np.random.Generator, y: np.ndarray, n1: int, left: int) -> np.ndarray:
    """One face of the grid was measured in ``left`` people of each group, never the same."""
    y = y.copy()
    for voxel in np.flatnonzero(where().indices[:, 0] == SHAPE[0] - 1):
        y[np.r_[rng.permutation(n1)[left:], n1 + rng.permutation(len(y) - n1)[left:]],
          voxel] = np.nan
    return y


def compared(values: np.ndarray, n1: int, correction: Any, test: Any = OlsT()
             ) -> VoxelComparison:
    return compare_voxels(table(values, n1), "dx", adjust=(), contrast=("AD", "CN"), test=test,
                          correction=correction)


def share(runs: int, one: Callable[[np.random.Generator, int], float]) -> float:
    """Mean of a function of a random generator and the number of the run."""
    return round(float(np.mean([one(np.random.default_rng([7, run]), run)
                                for run in range(runs)])), 3)


def family_wise(runs: int) -> dict[str, float]:
    """Share of runs with anything significant, where groups differ in nothing."""
    report = {}
    for n1, n0 in ((5, 40), (10, 40)):
        for way in (ClusterExtent, ClusterMass, MaxT):
            report[f"Welch, {way.__name__}, {n1} and {n0} people"] = share(
                runs, lambda rng, k: compared(smooth(rng, n1 + n0), n1, way(
                    PERMUTATIONS, None, seed=k), WelchT()).significant().any())
    for way in (MaxT, ClusterMass):
        report[f"OLS, {way.__name__}, 30 and 30 people, a face of 3 and 3"] = share(
            runs, lambda rng, k: compared(holed(rng, smooth(rng, 60), 30, 3), 30, way(
                PERMUTATIONS, None, seed=k)).significant().any())
    report["OLS, Tfce, 20 and 20 people"] = share(
        runs // 4, lambda rng, k: compared(smooth(rng, 40), 20, Tfce(
            PERMUTATIONS, None, seed=k)).significant().any())
    report["OLS, MaxT, 4 and 4 people, of 70 deals"] = share(
        runs, lambda rng, k: compared(smooth(rng, 8), 4, MaxT(
            199, None, seed=k)).significant().any())
    report["overlap, MaxT, 8 and 30 people"] = share(
        runs, lambda rng, k: overlap_voxels(
            table(smooth(rng, 38), 8), "dx", contrast=("AD", "CN"), threshold=1.5,
            correction=MaxT(PERMUTATIONS, None, seed=k)).significant().any())
    return report


def found(runs: int) -> dict[str, float]:
    """Share of the voxels of an effect that are called significant."""
    report = {}
    weak, strong = ball((3, 5, 4), 2.5), ball((9, 5, 4), 2)
    for effect in (0, 3, 6):
        def one(rng: np.random.Generator, k: int) -> float:
            y = smooth(rng, 40, 0.8)
            y[:20] += 0.85 * weak + effect * strong
            return compared(y, 20, Tfce(PERMUTATIONS, None, seed=k)).significant()[weak].mean()

        report[f"Tfce: effect of .85 sd, another of {effect} sd elsewhere"] = share(
            max(4, runs // 25), one)
    for left in (30, 3):
        def other(rng: np.random.Generator, k: int) -> float:
            y = smooth(rng, 60, 0.5)
            y[:30] += 1.2 * weak
            return compared(holed(rng, y, 30, left), 30, MaxT(
                PERMUTATIONS, None, seed=k)).significant()[weak].mean()

        report[f"MaxT: effect of 1.2 sd, 30 and 30 people, a face of {left} and {left}"] = share(
            max(4, runs // 25), other)
    return report


def error_rates(runs: int) -> dict[str, Any]:
    """All of it."""
    return {"runs": runs, "family-wise error": family_wise(runs), "found": found(runs)}

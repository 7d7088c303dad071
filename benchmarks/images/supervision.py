"""Does teaching the bottleneck help registration? Nine supervisions and none.

    python benchmarks/images/supervision.py            fits that are not there yet, 90 CPU-s each
    python benchmarks/images/supervision.py --table

Small representations (16 simulated people with tumours at 4 mm, T1w, T2w and FLAIR; 40 epochs)
are fitted with every way of supervising the bottleneck (both at once, by turns, the bottleneck
first) and every critic (mean square, absolute difference, cosine), and without, 3 seeds each
(the rows that are kept: also of ``--seeds 3 4 --only none Alternating``). The output's
critic is the mean square throughout, and people, motions and patches are the same for all. Each
fit is judged

* by rigid registrations of 6 pairs of simulated people that no fit saw and, if they are there, of
  6 pairs of real people: turns by 10 to 30 degrees, shifts by up to 20 mm; error: mean distance
  over the brain, success: below 2 mm;
* by the effective rank of output (averaged to 4 x 4 x 4) and bottleneck, from 512 patches of 8
  people that no fit saw.

Published: none is best for registration, and supervision may collapse dimensions of the
bottleneck; weights and schedules of that work are not known.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from registration import PAIRS, REAL, SHARED, motion, scan

import normfuse as nf
from normfuse.imaging.contrastive import AbsoluteDifference, Cosine, MeanSquare
from normfuse.imaging.images import Frame, one_space
from normfuse.imaging.likeness import LearnedLikeness
from normfuse.imaging.patches import Patches, stack_of
from normfuse.imaging.registration import register
from normfuse.imaging.registration_search import near_starts
from normfuse.imaging.representations import ContrastiveRepresentations, contrast_plan
from normfuse.imaging.supervision import Alternating, BottleneckFirst, Summed, Supervision
from normfuse.imaging.transform import SpatialTransform

FILE = Path("out/registration/supervision.csv")
MM, PATCH, SEEDS = 4, 12, range(3)
CONTRASTS = ("T1w", "T2w", "FLAIR")
PLAN = replace(contrast_plan(), max_epochs=40, patience=40, progress=False)
VARIANTS: dict[str, Supervision | None] = {"none": None} | {
    f"{way.__name__}, {type(critic).__name__}": way(critic)
    for way in (Summed, Alternating, BottleneckFirst)
    for critic in (MeanSquare(), AbsoluteDifference(), Cosine())}


def people(n: int, seed: int) -> nf.Cohort:
    return nf.simulate_images(n, contrasts=CONTRASTS, lesions="tumour", resolution=MM,
                              seed=seed).cohort()


@cache
def learners() -> nf.Cohort:
    return people(16, 0)


@cache
def judges() -> nf.Cohort:
    return people(8, 9000)


Trial = tuple[str, str, str, nib.Nifti1Image, nib.Nifti1Image, SpatialTransform, np.ndarray]


@cache
def trials() -> tuple[Trial, ...]:
    """Whether simulated or real, both modalities, fixed, moving, truth, points."""
    space = judges().modalities[0].space
    found = []
    for k in range(6):
        a, b = PAIRS[k % 3]
        pair = [space.img(judges().features[c].to_numpy()[k]) for c in (a, b)]
        found.append(_moved("simulated", a, b, *pair, k))
    for k, who in enumerate(REAL if SHARED.exists() else ()):
        for j in range(2):
            a, b = PAIRS[(k + j) % 3]
            found.append(_moved("real", a, b, scan(who, a), scan(who, b), 100 + 10 * k + j))
    return tuple(found)


def _moved(kind: str, a: str, b: str, fixed: nib.Nifti1Image, still: nib.Nifti1Image, k: int
           ) -> Trial:
    rng = np.random.default_rng(k)
    inside = np.argwhere(np.asanyarray(fixed.dataobj) > 0)
    some = inside[rng.choice(len(inside), 300, replace=False)]
    points = some @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    true = motion(rng, points.mean(0), (10, 30), size=0)
    return kind, a, b, fixed, true.resample(still, still), true, points


def judged(variant: str, seed: int) -> list[dict[str, Any]]:
    start = time.process_time()
    model = ContrastiveRepresentations(patch=PATCH, plan=PLAN, supervision=VARIANTS[variant],
                                       seed=seed).fit(learners())
    spent = time.process_time() - start
    patches = Patches(stack_of(judges(), Frame(one_space(judges()), 1, None), "cpu"), PATCH, 32,
                      0.0, PLAN.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        seen = model.fitted.net.watch(patches)
    rows = []
    for kind, a, b, fixed, moving, true, points in trials():
        found = register(moving, fixed, by=LearnedLikeness(model, b, a), starts=near_starts())
        apart = true.points(found.transform.points(points)) - points
        rows.append({"variant": variant, "seed": seed, "people": kind, "pair": f"{a}-{b}",
                     "error_mm": float(np.linalg.norm(apart, axis=1).mean()),
                     "output": seen["rank of output"], "bottleneck": seen["rank of bottleneck"],
                     "contrast": float(model.fitted.history["contrast"].min()),
                     "fit_s": spent, "all_s": time.process_time() - start})
    return rows


def run(seeds: Collection[int], only: Collection[str]) -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    done = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame(columns=["variant", "seed"])
    known = set(zip(done["variant"], done["seed"]))
    for seed in seeds:
        for variant in VARIANTS:
            if variant.startswith(tuple(only)) and (variant, seed) not in known:
                pd.DataFrame(judged(variant, seed)).to_csv(
                    FILE, mode="a", header=not FILE.exists(), index=False)


def table() -> None:
    """Of each variant, means and, in brackets, sds over seeds."""
    rows = pd.read_csv(FILE)
    rows["success"] = rows["error_mm"] < 2
    fits = rows.groupby(["variant", "seed"])
    columns = {f"{name}, {kind}": some.groupby(["variant", "seed"])[value].agg(how)
               for kind, some in rows.groupby("people")
               for name, value, how in (("success", "success", "mean"),
                                        ("median mm", "error_mm", "median"))}
    columns |= {name: fits[name].first() for name in ("output", "bottleneck", "contrast", "fit_s")}
    by = pd.DataFrame(columns).groupby("variant")
    mean, sd, n = by.mean(), by.std(), by.size()
    shown = mean.round(2).astype(str) + " (" + sd.round(2).astype(str) + ")"
    shown.insert(0, "seeds", n)
    print(shown.reindex([v for v in VARIANTS if v in shown.index]).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", nargs="+", default=[""], metavar="BEGINNING",
                        help="variants whose names begin so, as none Alternating")
    asked = parser.parse_args()
    if not asked.table:
        run(asked.seeds, asked.only)
    table()

"""How far registrations end from the truth: mutual information beside learned representations.

    python benchmarks/images/registration.py --train      two seeds' representations, 650 CPU-s
    python benchmarks/images/registration.py              trials that are not there yet, 30 CPU-s
    python benchmarks/images/registration.py --table

Two scans of one person that lie on one another; the moving one is turned by up to 30 degrees about
any axis, shifted by up to 20 mm and resized by .9 to 1.1 (uniform, seeded), and affinely
registered back. Error: mean over 300 points of the brain of the distance to where they belong.
People: three real ones (two with multiple sclerosis, one with a glioma; 2 mm; needs
../shared/data/images), and simulated ones that the representations have not seen, every other one
with a tumour (2 mm). Conditions:

* plain;
* bias: smooth fields multiply either image, 95 % within .55 and 1.8 (sd of the log .3, 40 mm);
* strong bias: the same with sd .8, 95 % within .2 and 4.9;
* slab: the moving image shows the middle 70 mm only;
* turned far: by 45 to 75 degrees.

Methods, all by SimpleITK, affine, the brain's outline as mask, centres of mass as start:

* ``mattes``: mutual information as its examples have it, one start, steps in parameters' units;
* ``mi``: ``register(…, by=MutualInformation())``: 7 starts, steps in mm;
* ``learned``: ``register(…, by=LearnedLikeness(…))``, representations of --train (3 mm, 40
  simulated people), the other seed's in every other block;
* ``mi n4`` (of strong bias): ``BiasCorrected(MutualInformation())``;
* with --more: ``then``: ``Then(LearnedLikeness(…), MutualInformation())``; ``learned n4`` (of
  strong bias); ``mi wide`` (of what is turned far or under strong bias; ``register``'s own 21
  starts in the place of 7); ``mi wide n4``. In the rows that are kept these are of a part of the
  trials, drawn by chance: ``mi wide`` of 22 others too, ``mi wide n4`` of eight a condition.

A block has a trial of every condition and pair of the three real people and a simulated one, 60,
with motions of their own and in random order.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Collection
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

import normfuse as nf
from normfuse.imaging.bias_fields import BiasCorrected
from normfuse.imaging.likeness import LearnedLikeness, Likeness, MutualInformation, Then
from normfuse.imaging.registration import register
from normfuse.imaging.registration_kinds import Affine
from normfuse.imaging.registration_search import near_starts, wide_starts
from normfuse.imaging.representations import ContrastiveRepresentations
from normfuse.imaging.transform import SpatialTransform
from normfuse.imaging.volume_grids import to_itk

OUT = Path("out/registration")
SHARED = Path("../shared/data/images")
REAL = {"ms07": "ms_mni2mm/openms07", "ms19": "ms_mni2mm/openms19",
        "glioma": "glioma_mni2mm/tcgadu7294"}
PAIRS = (("T1w", "T2w"), ("T1w", "FLAIR"), ("T2w", "FLAIR"))
CONDITIONS = ("plain", "bias", "strong bias", "slab", "turned far")
TRIAL = ("who", "pair", "condition", "method")
SEEDS = 2
CONTRASTS = ("T1w", "T1c", "T2w", "FLAIR")
MM, SIZE = 20.0, 0.1
DEGREES, FAR = (0.0, 30.0), (45.0, 75.0)


@cache
def scan(who: str, contrast: str) -> nib.Nifti1Image:
    if who in REAL:
        return nib.load(SHARED / f"{REAL[who]}_{contrast}.nii.gz")
    return simulated(int(who.removeprefix("sim")))[contrast]


@cache
def simulated(k: int) -> dict[str, nib.Nifti1Image]:
    cohort = nf.simulate_images(1, contrasts=CONTRASTS[:1] + CONTRASTS[2:], resolution=2,
                                lesions=None if k % 2 else "tumour", seed=5000 + k).cohort()
    return {m.name: m.space.img(cohort.features[m.name].to_numpy()[0])
            for m in cohort.modalities}


def motion(rng: np.random.Generator, centre: np.ndarray, degrees: tuple[float, float] = DEGREES,
           size: float = SIZE) -> SpatialTransform:
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    share = rng.uniform(-1, 1)
    angle = np.sign(share) * (degrees[0] + abs(share) * (degrees[1] - degrees[0]))
    turned = Rotation.from_rotvec(axis * np.deg2rad(angle)).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = turned * rng.uniform(1 - size, 1 + size)
    matrix[:3, 3] = centre + way * MM * rng.uniform() - matrix[:3, :3] @ centre
    return SpatialTransform.linear(matrix)


def shaded(image: nib.Nifti1Image, rng: np.random.Generator, sd: float = 0.3) -> nib.Nifti1Image:
    field = gaussian_filter(rng.standard_normal(image.shape), 40 / 2.355 / 2)
    return nib.Nifti1Image(np.asanyarray(image.dataobj)
                           * np.exp(sd * field / field.std()).astype(np.float32), image.affine)


def slab(image: nib.Nifti1Image, mm: float = 70.0) -> nib.Nifti1Image:
    values = np.asanyarray(image.dataobj)
    height = np.arange(values.shape[2]) * image.affine[2, 2] + image.affine[2, 3]
    middle = np.average(height, weights=(values > 0).sum((0, 1)))
    kept = np.abs(height - middle) <= mm / 2
    return nib.Nifti1Image(values[:, :, kept], image.affine @ _along_z(np.argmax(kept)))


def _along_z(slices: float) -> np.ndarray:
    found = np.eye(4)
    found[2, 3] = slices
    return found


def spoilt(condition: str, fixed: nib.Nifti1Image, moving: nib.Nifti1Image,
           rng: np.random.Generator) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Both images as a condition has them."""
    sd = {"bias": 0.3, "strong bias": 0.8}.get(condition)
    if sd:
        fixed, moving = shaded(fixed, rng, sd), shaded(moving, rng, sd)
    return fixed, slab(moving) if condition == "slab" else moving


def mattes(moving: nib.Nifti1Image, fixed: nib.Nifti1Image) -> SpatialTransform:
    import SimpleITK as sitk

    f, m = to_itk(fixed), to_itk(moving)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([0.8, 0.4, 0.2], 7)
    method.SetMetricFixedMask(sitk.BinaryDilate(f > 0, [2, 2, 2]))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 200, 0.6, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetNumberOfThreads(1)
    start = sitk.CenteredTransformInitializer(
        f > 0, m > 0, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS)
    method.SetInitialTransform(start, True)
    method.Execute(f, m)
    return SpatialTransform([start])


def trial(who: str, pair: tuple[str, str], condition: str, k: int, methods: Collection[str]
          ) -> list[dict[str, Any]]:
    """One motion, these methods."""
    first, second = pair
    fixed, still = scan(who, first), scan(who, second)
    rng = np.random.default_rng([k, *map(ord, who + first + second)])
    inside = np.argwhere(np.asanyarray(fixed.dataobj) > 0)
    some = inside[rng.choice(len(inside), 300, replace=False)]
    points = some @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    true = motion(rng, points.mean(0), FAR if condition == "turned far" else DEGREES)
    fixed, moving = spoilt(condition, fixed, true.resample(still, still), rng)
    rows = []
    for method in methods:
        start, ok = time.process_time(), None
        try:
            if method == "mattes":
                found = mattes(moving, fixed)
            else:
                done = register(moving, fixed, Affine(), likeness(method, first, second, k),
                                starts=wide_starts() if "wide" in method else near_starts())
                found, ok = done.transform, done.quality.ok
            apart = true.points(found.points(points)) - points
            error = float(np.linalg.norm(apart, axis=1).mean())
        except RuntimeError:  # ITK gives up
            error = np.inf
        rows.append({"who": who, "pair": "-".join(pair), "condition": condition, "k": k,
                     "method": method, "error_mm": error, "ok": ok,
                     "cpu_s": time.process_time() - start})
    return rows


def likeness(method: str, fixed: str, moving: str, k: int) -> Likeness:
    by = LearnedLikeness(learned(k), moving, fixed)
    return {"mi": MutualInformation(), "mi wide": MutualInformation(),
            "mi n4": BiasCorrected(MutualInformation()), "learned": by,
            "mi wide n4": BiasCorrected(MutualInformation()),
            "learned n4": BiasCorrected(by), "then": Then(by, MutualInformation())}[method]


@cache
def learned(k: int) -> ContrastiveRepresentations:
    return ContrastiveRepresentations.load(OUT / f"representations_{k % SEEDS}")


def train() -> None:
    people = nf.simulate_images(40, contrasts=CONTRASTS, lesions="tumour", resolution=3, seed=0)
    for seed in range(SEEDS):
        start = time.process_time()
        model = ContrastiveRepresentations(seed=seed).fit(people.cohort())
        print(model, f"{time.process_time() - start:.0f} CPU-s")
        print(model.fitted.history.iloc[[0, -1]].T.round(3).to_string())
        model.save(OUT / f"representations_{seed}", overwrite=True)


def run(block: int, more: bool) -> None:
    """The trials of a block that are not there yet, in random order."""
    file = OUT / f"trials_{block}.csv"
    done = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=TRIAL)
    known = set(done[list(TRIAL)].itertuples(index=False, name=None))
    real = tuple(REAL) if SHARED.exists() else ()
    trials = list(product((*real, f"sim{block}"), PAIRS, CONDITIONS))
    for n in np.random.default_rng(block).permutation(len(trials)):
        who, pair, condition = trials[n]
        missing = [m for m in methods(condition, more)
                   if (who, "-".join(pair), condition, m) not in known]
        if missing:
            rows = pd.DataFrame(trial(who, pair, condition, block, missing))
            rows.to_csv(file, mode="a", header=not file.exists(), index=False)


def methods(condition: str, more: bool) -> list[str]:
    found = ["mattes", "mi", "learned", *["mi n4"] * (condition == "strong bias")]
    if more:
        found += ["then", "mi wide n4", *{"strong bias": ["learned n4", "mi wide"],
                                          "turned far": ["mi wide"]}.get(condition, [])]
    return found


def table() -> None:
    """Median and 95th centile of the error, share below 2 mm with its Wilson interval, CPU-s."""
    from statsmodels.stats.proportion import proportion_confint

    trials = pd.concat(pd.read_csv(file) for file in sorted(OUT.glob("trials_*.csv")))
    tumour = (trials["who"] == "glioma") | ~trials["who"].isin(REAL) & (trials["k"] % 2 == 0)
    groups = {"all": trials, "real": trials[trials["who"].isin(REAL)],
              "simulated": trials[~trials["who"].isin(REAL)], "with a tumour": trials[tumour]}
    trials = pd.concat(some.assign(people=name) for name, some in groups.items())
    rows = []
    for key, some in trials.groupby(["people", "condition", "method"], sort=False):
        good = int((some["error_mm"] < 2).sum())
        low, high = proportion_confint(good, len(some), method="wilson")
        missed = some[(some["error_mm"] >= 2) & some["ok"].notna()]
        rows.append({**dict(zip(("people", "condition", "method"), key)), "n": len(some),
                     "median mm": some["error_mm"].median(),
                     "95th mm": some["error_mm"].quantile(0.95), "< 2 mm": good / len(some),
                     "low": low, "high": high, "CPU-s": some["cpu_s"].median(),
                     "failures said": (f"{int((missed['ok'].astype(str) == 'False').sum())} of "
                                       f"{len(missed)}"),
                     "false alarms": int(((some["error_mm"] < 2)
                                          & (some["ok"].astype(str) == "False")).sum())})
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--blocks", type=int, nargs="+", default=range(4), metavar="BLOCK",
                        help="of 60 trials; each may run in a process of its own")
    parser.add_argument("--more", action="store_true", help="with the methods in brackets")
    asked = parser.parse_args()
    if asked.train:
        train()
    elif asked.table:
        table()
    else:
        for block in asked.blocks:
            run(block, asked.more)


if __name__ == "__main__":
    main()

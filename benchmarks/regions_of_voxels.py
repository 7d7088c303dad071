"""z of regions made of voxels, in healthy people nobody has seen: three ways to come by them.

Simulated smooth images (12 x 10 x 8 voxels, 12 regions, noise of 2 voxels sd plus white noise)
whose spread doubles and more from age 20 to 80; 200 people to fit, 600 new ones. Of each region:
the plain mean of voxels' z; that mean judged by the held-out controls (as `parcellate` does); the
mean residual (observed - expected, in units) judged in the same way. Share of |z| beyond 1.96
(nominal .05) and sd, of all, of those below 35 and above 65. Then every voxel of one region is
lowered by one sd of its age in the new people: mean z of that region, and the share beyond -1.96.
Means over seeds. Prints JSON.
"""
from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

import normfuse as nf
from normfuse.analyses import RegionalDeviations, parcellate
from normfuse.analyses.voxel_regions import judged
from normfuse.atlas import Atlas
from normfuse.space import Space

SHAPE = (12, 10, 8)


def regions() -> tuple[Atlas, Space]:
    """Twelve boxes."""
    import nibabel as nib

    labels = np.zeros(SHAPE, dtype=np.int32)
    for number, (i, j, k) in enumerate(np.ndindex(3, 2, 2), start=1):
        labels[4 * i:4 * i + 4, 5 * j:5 * j + 5, 4 * k:4 * k + 4] = number
    table = pd.DataFrame({"name": [f"box {n}" for n in range(1, 13)], "hemisphere": "midline",
                          "tissue": "box", "lobe": "box", "volume_ml": 0.64}, range(1, 13))
    affine = np.diag([2.0, 2, 2, 1])
    made = Atlas("boxes", nib.Nifti1Image(labels, affine), table, "MNI152NLin6Asym", "CC0", "")
    return made, Space(np.ones(SHAPE, bool), affine, "MNI152NLin6Asym")


def people(n: int, space: Space, rng: np.random.Generator, prefix: str) -> nf.Cohort:
    """Healthy people; level falls with age, spread grows with it."""
    age = rng.uniform(20, 80, n)
    noise = np.stack([gaussian_filter(rng.normal(size=SHAPE), 2) for _ in range(n)])
    noise = noise / noise.std() + 0.5 * rng.normal(size=noise.shape)
    values = 50 - 0.1 * age[:, None] + noise.reshape(n, -1) * spread(age)
    ids = [f"{prefix}{i}" for i in range(n)]
    return cohort(pd.DataFrame({"age": age, "sex": rng.choice(["F", "M"], n)}, ids),
                  pd.DataFrame(values, ids, space.features))


def spread(age: np.ndarray) -> np.ndarray:
    """Of the noise, by age; a column."""
    return np.asarray(1 + (age[:, None] - 20) / 40)


def cohort(subjects: pd.DataFrame, voxels: pd.DataFrame) -> nf.Cohort:
    """One modality of voxels."""
    return nf.Cohort.from_frames(subjects, {"t1": voxels}, reference="age > 0",
                                 covariates={"age": "continuous", "sex": "categorical"},
                                 units={"t1": "au"})


def lowered(healthy: nf.Cohort, atlas: Atlas) -> nf.Cohort:
    """The same people, the whole of region 1 lower by one sd."""
    voxels = healthy.features["t1"].copy()
    sd = np.sqrt(1.25) * spread(healthy.subjects["age"].to_numpy())
    voxels -= sd * (atlas.labels.ravel() == 1)
    return cohort(healthy.subjects, voxels)


def regional_of(model: nf.NormativeModel, who: nf.Cohort, kind: str, atlas: Atlas, space: Space
                ) -> RegionalDeviations:
    """Scored and parcellated; the reference is told that the features are voxels."""
    found = model.deviations(who, kind=kind)
    facts = found.reference.modalities
    reference = replace(found.reference, modalities={
        **facts, "t1": {**facts["t1"], "space": space.to_dict()}})
    return parcellate(replace(found, reference=reference), atlas)


def one(seed: int, kind: str) -> dict[str, dict[str, float]]:
    """Shares and sds of one simulated study."""
    rng, (atlas, space) = np.random.default_rng(seed), regions()
    plan = nf.TrainingPlan(progress=False, max_epochs=20, warmup=2)
    model = nf.NormativeModel(n_latent=4, plan=plan, seed=seed).fit(people(200, space, rng, "ref"))
    new = people(600, space, rng, "new")
    regional = regional_of(model, new, kind, atlas, space)
    controls = regional.controls
    ways = {"plain mean of z": regional.mean_z, "mean of z, judged": regional.z,
            "mean residual, judged": judged(regional.observed - regional.expected,
                                            controls.observed - controls.expected)}
    age = regional.subjects["age"]
    groups = {"all": age > 0, "below 35": age < 35, "above 65": age > 65}
    low = regional_of(model, lowered(new, atlas), kind, atlas, space).z["t1", "box 1"]
    return {**{f"{way}, {group}": {
        "beyond_1.96": float((z[who].abs() > 1.96).to_numpy().mean()),
        "sd": float(z[who].std().mean())}
        for way, z in ways.items() for group, who in groups.items()},
        "region lowered by 1 sd": {"mean": float(low.mean()),
                                   "below_-1.96": float((low < -1.96).mean())}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for kind in ("covariates", "focal"):
        found = [one(seed, kind) for seed in range(asked.seeds)]
        print(json.dumps({"kind": kind, **{
            way: {what: round(float(np.mean([f[way][what] for f in found])), 3)
                  for what in found[0][way]} for way in found[0]}}, indent=1))


if __name__ == "__main__":
    main()

"""z of regions made of voxels, in healthy people nobody has seen: three ways to come by them.

Simulated smooth images (12 x 10 x 8 voxels, 12 regions, noise of 2 voxels sd plus white noise)
whose spread doubles and more from age 20 to 80; 200 people to fit, 600 new ones. Of each region:
the plain mean of voxels' z; that mean judged by the held-out controls (as `parcellate` does); the
mean residual (observed - expected, in units) judged in the same way. Share of |z| beyond 1.96
(nominal .05) and sd, of all, of those below 35 and above 65. Means over seeds. Prints JSON.
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
from normfuse.analyses import parcellate
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
    values = 50 - 0.1 * age[:, None] + noise.reshape(n, -1) * (1 + (age[:, None] - 20) / 40)
    ids = [f"{prefix}{i}" for i in range(n)]
    return nf.Cohort.from_frames(
        pd.DataFrame({"age": age, "sex": rng.choice(["F", "M"], n)}, ids),
        {"t1": pd.DataFrame(values, ids, space.features)}, reference="age > 0",
        covariates={"age": "continuous", "sex": "categorical"}, units={"t1": "au"})


def one(seed: int, kind: str) -> dict[str, dict[str, float]]:
    """Shares and sds of one simulated study."""
    rng, (atlas, space) = np.random.default_rng(seed), regions()
    plan = nf.TrainingPlan(progress=False, max_epochs=20, warmup=2)
    model = nf.NormativeModel(n_latent=4, plan=plan, seed=seed).fit(people(200, space, rng, "ref"))
    found = model.deviations(people(600, space, rng, "new"), kind=kind)
    facts = {**found.reference.modalities, "t1": {**found.reference.modalities["t1"],
                                                  "space": space.to_dict()}}
    reference = replace(found.reference, modalities=facts)
    found = replace(found, reference=reference,
                    controls=replace(found.controls, reference=reference))
    regional = parcellate(found, atlas)
    controls = regional.controls
    ways = {"plain mean of z": regional.mean_z, "mean of z, judged": regional.z,
            "mean residual, judged": judged(regional.observed - regional.expected,
                                            controls.observed - controls.expected)}
    age = found.subjects["age"]
    groups = {"all": age > 0, "below 35": age < 35, "above 65": age > 65}
    return {f"{way}, {group}": {
        "beyond_1.96": float((z[who].abs() > 1.96).to_numpy().mean()),
        "sd": float(z[who].std().mean())}
        for way, z in ways.items() for group, who in groups.items()}


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

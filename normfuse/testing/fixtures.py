"""Small cohorts and deviations with unequal sides, for tests and docstrings."""
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..cohort import Cohort
from ..deviations import ROLE, Deviations, Reference
from ..errors import CohortError
from ..space import Space

if TYPE_CHECKING:
    from ..segmentations import Segmentations


_CONTRASTS = (("T1w", 1.0), ("T2w", -0.8), ("FLAIR", 0.5))
"""Of tiny_images(), and the slope of each on the tissue."""


def tiny_cohort(n: int = 40, *, seed: int = 0) -> Cohort:
    """Three modalities of 4, 5 and 6 features, three sites, shuffled ids, holes everywhere.

    The last eighth of the subjects are patients (``AD``); the reference query is
    ``diagnosis == 'CN'``.

    Examples
    --------
    >>> tiny_cohort().present.mean().round(2).tolist()
    [1.0, 0.8, 0.65]
    """
    rng = np.random.default_rng(seed)
    ids = [f"sub-{i:03d}" for i in rng.permutation(n)]
    subjects = pd.DataFrame({
        "age": rng.uniform(20, 80, n).round(1), "sex": rng.choice(["F", "M"], n),
        "site": rng.choice(["north", "south", "west"], n),
        "diagnosis": np.where(np.arange(n) < n - n // 8, "CN", "AD")}, index=ids)
    shared = rng.normal(size=(n, 2))
    frames = {}
    for name, width, share, level in (("t1", 4, 1.0, 9.0), ("dti", 5, 0.8, 0.4),
                                      ("pet", 6, 0.65, 1.2)):
        values = shared @ rng.normal(size=(2, width)) + 0.7 * rng.normal(size=(n, width))
        values -= 0.01 * (subjects[["age"]].to_numpy() - 50)
        frame = pd.DataFrame(level * (1 + 0.05 * values), index=ids,
                             columns=[f"{name}_region{j}" for j in range(width)])
        frame.iloc[3, 1] = np.nan
        frames[name] = frame.iloc[rng.permutation(n)[:round(share * n)]]
    return Cohort.from_frames(subjects, frames, reference="diagnosis == 'CN'",
                              covariates={"age": "continuous", "sex": "categorical",
                                          "site": "site"},
                              units={"t1": "mm3", "dti": "FA", "pet": "SUVR"})


def tiny_reference() -> Reference:
    """A reference made up for documentation."""
    return Reference(kind="reconstruction", fusion="WassersteinBarycenter()", n_latent=2, seed=0,
                     n_subjects={"training": 60, "early_stop": 15, "calibration": 25},
                     covariates={"age": {"kind": "continuous", "range": [20.0, 80.0]}},
                     modalities={"t1": {"unit": "mm3", "n_features": 2, "n_present": 100},
                                 "pet": {"unit": "SUVR", "n_features": 1, "n_present": 70}})


def tiny_deviations() -> Deviations:
    """Two people, two features of t1 and one of pet, made up; the second has no PET.

    Examples
    --------
    >>> tiny_deviations().z.shape
    (2, 3)
    """
    index = pd.Index(["sub-b", "sub-a"], name="participant_id")
    columns = pd.MultiIndex.from_tuples([("t1", "insula"), ("t1", "cuneus"), ("pet", "insula")],
                                        names=["modality", "feature"])
    z = pd.DataFrame([[-2.5, 0.3, 2.1], [0.4, -0.9, np.nan]], index, columns)
    shares = [[1.2, -0.5, 0.3, 0.3], [0.1, 0.4, np.nan, np.nan]]
    parts = pd.MultiIndex.from_product([["t1", "pet"], ["z1", "z2"]], names=["modality", "latent"])
    expected = pd.DataFrame([[6.0, 2.0, 1.1], [6.2, 2.1, np.nan]], index, columns)
    return Deviations(
        z=z, observed=expected + 0.1 * z, expected=expected,
        latent=pd.DataFrame([[1.5, -0.2], [0.1, 0.4]], index, columns=["z1", "z2"]),
        attribution=pd.DataFrame(shares, index, parts),
        distance=pd.DataFrame({"distance": [1.6, 0.4], "p": [0.31, 0.93],
                               "n_calibration": [18, 25]}, index),
        subjects=pd.DataFrame({"age": [71.0, 64.0], "sex": ["F", "M"], "diagnosis": ["AD", "CN"],
                               ROLE: ["new", "calibration"]}, index),
        reference=tiny_reference())


def tiny_scored(n: int = 40) -> Deviations:
    """People of :func:`tiny_cohort` whose z are their values, standardised; nothing but z.

    Examples
    --------
    >>> tiny_scored().z.shape, tiny_scored().subjects["diagnosis"].value_counts().to_dict()
    ((40, 15), {'CN': 35, 'AD': 5})
    """
    cohort = tiny_cohort(n)
    z = pd.concat(cohort.features, axis=1).apply(lambda y: (y - y.mean()) / y.std())
    return Deviations(z=z, observed=z[[]], expected=z[[]], latent=z[[]], distance=z[[]],
                      attribution=z[[]], subjects=cohort.subjects, reference=tiny_reference())


def tiny_voxel_deviations(n: int = 6, n_controls: int = 40, *, seed: int = 0) -> Deviations:
    """Patients and controls as smooth random images, modality ``t1``, 8 mm, MNI152NLin6Asym.

    Nothing is wrong with the patients either.

    Examples
    --------
    >>> tiny_voxel_deviations()
    <Deviations of 6 subjects, 2828 features of t1; reference n = 100, WassersteinBarycenter()>
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    affine = np.diag([8.0, 8, 8, 1])
    affine[:3, 3] = (-72, -108, -64)
    shape = (19, 23, 19)
    away = np.indices(shape).reshape(3, -1).T * 8 + affine[:3, 3] - (0, -18, 8)
    space = Space(((away / (64, 82, 66)) ** 2).sum(axis=1).reshape(shape) < 1, affine,
                  "MNI152NLin6Asym")
    columns = pd.MultiIndex.from_product([["t1"], space.features], names=["modality", "feature"])
    reference = tiny_reference()
    modalities = {"t1": {"unit": "au", "n_features": space.n_voxels, "n_present": 100,
                         "space": space.to_dict()}}

    def drawn(role: str, group: str, count: int) -> Deviations:
        index = pd.Index([f"{role}-{i:02d}" for i in range(count)], name="participant_id")
        images = np.stack([gaussian_filter(rng.normal(size=shape), 1) for _ in range(count)])
        z = pd.DataFrame(images[:, space.mask] / images.std(), index, columns)
        expected = pd.DataFrame(100.0, index, columns)
        far = pd.DataFrame({"distance": 1.0, "p": 0.5, "n_calibration": n_controls}, index)
        subjects = pd.DataFrame({"diagnosis": group, ROLE: role}, index)
        return Deviations(z=z, observed=expected + 10 * z, expected=expected,
                          latent=far[["p"]].rename(columns={"p": "latent 1"}), distance=far,
                          subjects=subjects, reference=replace(reference, modalities=modalities))

    return replace(drawn("new", "AD", n), controls=drawn("calibration", "CN", n_controls))


def tiny_images(n: int = 12, *, seed: int = 0) -> Cohort:
    """Three contrasts of one tissue map on 12 x 10 x 6 voxels, each missing in some people.

    T2w falls and FLAIR rises with what T1w shows, so that each foretells the others.

    Examples
    --------
    >>> people = tiny_images()
    >>> people.present.mean().round(2).tolist(), people.modalities[0].n_features
    ([0.92, 0.83, 0.83], 304)
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    sides = (12, 10, 6)
    away = (np.indices(sides).reshape(3, -1).T / (np.array(sides) - 1) - 0.5) * 2
    space = Space((away**2).sum(1).reshape(sides) < 1.1, np.diag([4.0, 4, 4, 1]), "tiny")
    tissue = np.stack([gaussian_filter(rng.standard_normal(sides), 1.5)[space.mask]
                       for _ in range(n)]) * 8
    ids = pd.Index([f"sub-{i:02d}" for i in range(n)])
    frames = {}
    for k, (name, slope) in enumerate(_CONTRASTS):
        noise = 0.2 * rng.standard_normal(tissue.shape)
        values = 3 + k + slope * tissue + noise
        missing = [] if n < 4 else ([1], [2, 3], [0, 2])[k]
        frames[name] = pd.DataFrame(values, ids, space.features).drop(ids[missing])
    people = pd.DataFrame({"age": rng.uniform(20, 80, n).round(1)}, ids)
    return Cohort.from_frames(people, frames, covariates={"age": "continuous"},
                              spaces=dict.fromkeys(frames, space))


def tiny_head(contrast: str = "T1w", *, seed: int = 0, resolution: float = 4.0) -> Any:
    """A simulated brain as a NIfTI image in MNI space; the same person for the same seed.

    Examples
    --------
    >>> tiny_head().shape, tiny_head("T2w").shape
    ((50, 59, 48), (50, 59, 48))
    """
    from ..imaging.simulated import Scanner
    from ..volumes.plan import template_space

    space = template_space("brain", resolution)
    scans = Scanner(space, [contrast]).scan(np.random.default_rng(seed))
    return space.img(scans.values[contrast])


def tiny_segmentations(cohort: Cohort | None = None) -> Segmentations:
    """Where the tissue of :func:`tiny_images` is bright, from what each person has of it.

    Labels ``bright`` (1) and ``brightest`` (4).

    Examples
    --------
    >>> truth = tiny_segmentations()
    >>> truth.names, [int((truth.labels == n).sum()) for n in (0, 1, 4)]
    ({'bright': 1, 'brightest': 4}, [2632, 615, 401])
    """
    from ..segmentations import Segmentations

    cohort = tiny_images() if cohort is None else cohort
    tissue = np.nanmean([(cohort.features[name].to_numpy() - 3 - k) / slope for k, (name, slope)
                         in enumerate(_CONTRASTS)], 0)
    space = cohort.modalities[0].space
    if space is None:
        raise CohortError("tiny_segmentations() is of the people of tiny_images()")
    labels = np.digitize(tissue, [0.6, 1.1])
    return Segmentations(tuple(map(str, cohort.ids)), np.array([0, 1, 4], np.uint8)[labels],
                         space, {"bright": 1, "brightest": 4})

"""Cohorts of images with known truth, on real anatomy: a folder of NIfTI files as a study has it.

Three modalities on the ICBM 152 2009a template that nilearn ships: grey-matter density (``t1``),
fractional anisotropy (``dti``) and amyloid-like uptake (``pet``, SUVR). Levels, ageing and
variation are made up, as in :mod:`normfuse.population`.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .cards import Card, short
from .errors import CohortError, listed
from .outputs import new_folder
from .population import (KINSHIP, N_PRIVATE, N_SHARED, OLDEST, RANGES, SHARE_PRIVATE, SHARE_SHARED,
                         SITE_SD, SITES, YOUNGEST)
from .simulate import COVARIATES, REFERENCE, draw_people
from .space import Space
from .volumes.plan import template_space, tissue_probability
from .volumes.sampling import FWHM_IN_SD

SUFFIX = {"t1": "GM", "dti": "FA", "pet": "SUVR"}
UNITS = {"t1": "density", "dti": "FA", "pet": "SUVR"}
MASKS = {"t1": "grey_matter", "dti": "white_matter", "pet": "brain"}
SIGNS = {"t1": -1.0, "dti": -1.0, "pet": 1.0}

# Mean of a voxel that is all grey matter, all white matter, all neither; roughly the template's
# own FA, and uptake as in O-15 PET scaled to a grey matter of 1.2.
LEVELS = {"t1": (0.95, 0.04, 0.02), "dti": (0.14, 0.44, 0.10), "pet": (1.20, 0.94, 0.50)}

NOISE_MM, FACTOR_MM, NORM_MM = 8.0, 40.0, 30.0
"""FWHM of what is a voxel's own, of a factor's pattern, and of regional norms."""

EFFECT = (1.5, 2.0)  # peak of a lesion, in healthy residual SD
LESION_MM = (20.0, 28.0)  # its FWHM, which is also the diameter of its truth mask
HOTSPOT = (-34.0, -24.0, -12.0)  # mm: left medial temporal lobe, grey beside white matter
STRAY_MM = 3.0  # SD of a lesion's centre around the hotspot, along each axis
AT_HOTSPOT, SECOND, SHOWN = 0.9, 0.5, 0.9
"""Probability that the first lesion is at the hotspot, that there is a second one (anywhere), and
that a modality shows a lesion."""

_SHAPE = ["x", "y", "z", "diameter", "effect"]


@dataclass(frozen=True, eq=False)
class SimulatedVolumes:
    """A folder of images, and what was planted in them.

    Attributes
    ----------
    cohort_file : Path
        The ``cohort.toml``, which :meth:`normfuse.Cohort.read` reads.
    lesions : DataFrame
        One row a lesion and modality: ``participant_id``, ``modality``, centre ``x``, ``y``, ``z``
        (mm), ``diameter`` (mm, where the effect is half its peak) and ``effect`` (signed peak, in
        healthy residual SD). People who were not scanned are in it, too.
    space : Space
        The brain, on the grid of all files.
    """

    cohort_file: Path
    lesions: pd.DataFrame
    space: Space

    def __repr__(self) -> str:
        return (f"<SimulatedVolumes in {short(self.cohort_file.parent, 80)}: {self.space!r}, "
                f"{len(self.lesions)} lesions planted>")

    def _repr_html_(self) -> str:
        return Card("SimulatedVolumes", str(self.cohort_file), {
            "voxels": repr(self.space).strip("<>"),
            "lesions": f"{len(self.lesions)} planted, each counted once a modality, in "
                       f"{self.lesions['participant_id'].nunique()} people"}).html()

    def effect(self, subject: str, modality: str) -> np.ndarray:
        """The planted deviation in healthy residual SD, float32, shape (space.n_voxels,)."""
        mine = self.lesions[(self.lesions["participant_id"] == subject)
                            & (self.lesions["modality"] == modality)]
        return _planted(mine, self.space)


def simulate_volumes(folder: str | Path, n_reference: int = 200, n_patients: int = 30, *,
                     modalities: Sequence[str] = ("t1", "dti", "pet"), resolution: float = 4,
                     seed: int = 0, missing: float = 0.3) -> SimulatedVolumes:
    r"""Write images of healthy people, and of patients with planted lesions.

    At voxel :math:`v` of person :math:`i`

    .. math:: x_i(v) = E_i(v) + \sigma(v)\left(\tfrac12 \lambda(v) \cdot f_i + \tfrac12 \kappa(v)
              \cdot g_i + \sqrt{\tfrac12}\,\epsilon_i(v) + \delta_i(v)\right)

    where :math:`E` depends on the tissue, age, sex and site; the three factors :math:`f` are
    shared by all modalities, two :math:`g` belong to each; all patterns and the noise
    :math:`\epsilon` are smooth Gaussian fields of variance 1. So healthy residuals have SD
    :math:`\sigma`, a quarter of whose variance other modalities can tell. A lesion :math:`\delta`
    is a Gaussian blob; nine of ten patients have theirs in the left medial temporal lobe.

    Parameters
    ----------
    folder : path
        A new folder. It receives ``participants.tsv``, ``cohort.toml``, one folder a person under
        ``derivatives`` and, under ``truth``: lesion masks of every patient, the share of patients
        with a lesion at a voxel, healthy SD, lesions and factor scores as tables.
    n_reference, n_patients : int
        People with diagnosis ``CN``; people with ``MCI`` or ``AD`` (half each, with the same kind
        of lesions here), whose ``group`` is ``patient``.
    modalities : sequence of str
        Of ``t1``, ``dti``, ``pet``. Leaving some out does not change the others.
    resolution : float, mm
    seed : int
        Decides everything; a person depends on the seed and their number alone.
    missing : float, 0 to below 1
        Share of people without PET, completely at random; half that share lacks DTI.

    Raises
    ------
    CohortError
        For an unknown modality, fewer than ten reference people, or a share outside [0, 1).
    OutputExistsError
        If the folder is there already.

    Examples
    --------
    >>> import tempfile
    >>> from normfuse import Cohort
    >>> with tempfile.TemporaryDirectory() as place:
    ...     made = simulate_volumes(Path(place, "study"), 12, 3, resolution=8, seed=1)
    ...     cohort = Cohort.read(made.cohort_file)
    >>> cohort.modality("t1").space
    <Space MNI152NLin2009aSym: 3297 voxels of 26 x 30 x 25, 8 x 8 x 8 mm>
    >>> cohort.present.sum().to_dict()
    {'t1': 15, 'dti': 12, 'pet': 11}
    """
    _check(n_reference, n_patients, modalities, missing)
    space = template_space("brain", float(resolution))
    crowd, norms = (np.random.default_rng(_seed(seed, n)) for n in (0, 1))
    people = draw_people(n_reference, n_patients, crowd)
    people["group"] = np.where(people["diagnosis"] == "CN", "control", "patient")
    scanned = _scanned(people, missing, np.random.default_rng(_seed(seed, 2)))
    makers = _makers(space, norms)
    ill = people.index[people["diagnosis"] != "CN"]
    lesions = pd.concat([_no_lesions(), *(
        _draw_lesions(s, space, np.random.default_rng(_seed(seed, 3, _number(s)))) for s in ill)],
        ignore_index=True)
    lesions = lesions[lesions["modality"].isin(list(modalities))].reset_index(drop=True)
    made = SimulatedVolumes(Path(folder) / "cohort.toml", lesions, space)
    with new_folder(Path(folder)) as work:
        people.to_csv(work / "participants.tsv", sep="\t", index_label="participant_id")
        (work / "cohort.toml").write_text(_toml(modalities, resolution), encoding="utf-8")
        (work / "dataset_description.json").write_text(json.dumps({
            "Name": "normfuse simulation", "BIDSVersion": "1.9.0", "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "normfuse.simulate_volumes", "seed": seed}]}))
        _write_people(work, people, scanned, {m: makers[m] for m in modalities}, made, seed)
        _write_truth(work / "truth", {m: makers[m] for m in modalities}, made, ill)
    return made


@dataclass(frozen=True, eq=False)
class _Maker:
    """One modality in health; every array has the brain's voxels last."""

    space: Space
    modality: str
    level: np.ndarray
    sd: np.ndarray
    slopes: np.ndarray  # (3, n): linear and quadratic in age, men minus women; share of the level
    sites: np.ndarray  # (n_sites, n), SD
    shared: np.ndarray  # (N_SHARED, n), rows weighted so that squares sum to SHARE_SHARED
    private: np.ndarray

    def values(self, person: Mapping[str, Any], factors: np.ndarray, effect: np.ndarray,
               rng: np.random.Generator) -> np.ndarray:
        t = (person["age"] - YOUNGEST) / (OLDEST - YOUNGEST)
        change = np.array([t, t**2, person["sex"] == "M"], dtype=np.float32) @ self.slopes
        noise = _fields(self.space, 1, NOISE_MM, rng)[0] * np.sqrt(1 - SHARE_SHARED
                                                                   - SHARE_PRIVATE)
        private = rng.standard_normal(N_PRIVATE).astype(np.float32) @ self.private
        z = (self.sites[SITES.index(person["site"])] + factors @ self.shared + private + noise
             + effect)
        # an exact 0 would be background, and densities are not negative
        return np.maximum(self.level * (1 + change) + self.sd * z, 1e-3).astype(np.float32)


def _makers(space: Space, rng: np.random.Generator) -> dict[str, _Maker]:
    """All three modalities, always, so that each is the same whichever are asked for."""
    from scipy.special import ndtr

    grey, white = (np.clip(tissue_probability(t, space), 0, 1)
                   for t in ("grey_matter", "white_matter"))
    rest = np.clip(1 - grey - white, 0, 1)
    common = _fields(space, N_SHARED, FACTOR_MM, rng)
    makers = {}
    for modality, levels in LEVELS.items():
        level = levels[0] * grey + levels[1] * white + levels[2] * rest
        between = {part: low + (high - low) * ndtr(_fields(space, 1, NORM_MM, rng)[0])
                   for part, (low, high) in RANGES[modality].items()}
        sites = SITE_SD * (_fields(space, len(SITES), NORM_MM, rng)
                           + rng.standard_normal((len(SITES), 1))) / np.sqrt(2)
        shared = np.sqrt(KINSHIP) * common + np.sqrt(1 - KINSHIP) * _fields(
            space, N_SHARED, FACTOR_MM, rng)
        private = _fields(space, N_PRIVATE, FACTOR_MM, rng)
        makers[modality] = _Maker(
            space, modality, level, between["sd"] * level,
            np.stack([between[p] for p in ("linear", "quadratic", "male")]).astype(np.float32),
            sites.astype(np.float32), _weighted(shared, SHARE_SHARED),
            _weighted(private, SHARE_PRIVATE))
    return makers


def _weighted(patterns: np.ndarray, share: float) -> np.ndarray:
    return (np.sqrt(share) * patterns / np.linalg.norm(patterns, axis=0)).astype(np.float32)


def _fields(space: Space, n: int, fwhm: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth Gaussian fields of mean 0 and variance 1 at the brain's voxels, shape (n, n_voxels).

    The grid is closed to a torus, so that the variance is the same at its rim.
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    sd = fwhm / FWHM_IN_SD / np.array(space.voxel_size)
    norm = 1.0
    for length, s in zip(space.shape, sd):
        point = np.zeros(length)
        point[length // 2] = 1
        norm *= float(np.sqrt((gaussian_filter1d(point, s, mode="wrap") ** 2).sum()))
    found = np.empty((n, space.n_voxels), dtype=np.float32)
    for row in found:
        noise = rng.standard_normal(space.shape, dtype=np.float32)
        row[:] = gaussian_filter(noise, sd, mode="wrap")[space.mask] / norm
    return found


def _draw_lesions(subject: str, space: Space, rng: np.random.Generator) -> pd.DataFrame:
    centres = space.coordinates()
    rows = []
    for n in range(1 + (rng.random() < SECOND)):
        anywhere = centres[rng.integers(len(centres))]
        here = np.array(HOTSPOT) + STRAY_MM * rng.standard_normal(3)
        x, y, z = here if n == 0 and rng.random() < AT_HOTSPOT else anywhere
        diameter, size = rng.uniform(*LESION_MM), rng.uniform(*EFFECT)
        shown = rng.random(len(SIGNS)) < SHOWN
        shown[rng.integers(len(SIGNS))] = True  # a lesion that nobody shows is none
        rows += [{"participant_id": subject, "modality": m, "x": x, "y": y, "z": z,
                  "diameter": diameter, "effect": sign * size}
                 for (m, sign), seen in zip(SIGNS.items(), shown) if seen]
    return pd.DataFrame(rows).round(2)


def _no_lesions() -> pd.DataFrame:
    kinds = {"participant_id": "str", "modality": "str", **dict.fromkeys(_SHAPE, "float64")}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def _planted(lesions: pd.DataFrame, space: Space) -> np.ndarray:
    """Blobs do not add up: where two meet, the larger deviation holds."""
    effect = np.zeros(space.n_voxels, dtype=np.float32)
    centres = space.coordinates()
    for x, y, z, diameter, size in lesions[_SHAPE].to_numpy(dtype=float):
        squares = ((centres - (x, y, z)) ** 2).sum(axis=1)
        blob = size * np.exp(-squares / (2 * (diameter / FWHM_IN_SD) ** 2))
        effect = np.where(np.abs(blob) > np.abs(effect), blob, effect).astype(np.float32)
    return effect


def _lesion_mask(lesions: pd.DataFrame, space: Space) -> np.ndarray:
    """Voxels within half a diameter of a lesion's centre: its effect is at least half the peak."""
    centres = space.coordinates()
    within = np.zeros(space.n_voxels, dtype=bool)
    for x, y, z, diameter, _ in lesions[_SHAPE].to_numpy(dtype=float):
        within |= ((centres - (x, y, z)) ** 2).sum(axis=1) <= (diameter / 2) ** 2
    return within


def _write_people(work: Path, people: pd.DataFrame, scanned: pd.DataFrame,
                  makers: Mapping[str, _Maker], made: SimulatedVolumes, seed: int) -> None:
    import nibabel as nib
    from tqdm.auto import tqdm

    scores = {}
    for subject, row in tqdm(people.iterrows(), total=len(people), desc="simulating",
                             unit="person", leave=False, disable=None):
        who, number = str(subject), _number(str(subject))
        factors = np.random.default_rng(_seed(seed, 4, number)).standard_normal(N_SHARED)
        scores[who] = factors
        place = work / "derivatives" / who
        place.mkdir(parents=True)
        for n, (name, maker) in enumerate(makers.items()):
            if scanned.loc[who, name]:
                rng = np.random.default_rng(_seed(seed, 5, number, list(LEVELS).index(name)))
                values = maker.values(dict(row), factors.astype(np.float32),
                                      made.effect(who, name), rng)
                nib.save(made.space.img(values), place / f"{who}_{SUFFIX[name]}.nii.gz")
    (work / "truth").mkdir()
    pd.DataFrame.from_dict(scores, orient="index", columns=[
        f"shared-{k + 1}" for k in range(N_SHARED)]).to_csv(
            work / "truth" / "factors.tsv", sep="\t", index_label="participant_id",
            float_format="%.5f")


def _write_truth(truth: Path, makers: Mapping[str, _Maker], made: SimulatedVolumes,
                 ill: pd.Index) -> None:
    import nibabel as nib

    made.lesions.to_csv(truth / "lesions.tsv", sep="\t", index=False)
    for name, maker in makers.items():
        nib.save(made.space.img(maker.sd), truth / f"{name}_sd.nii.gz")
        share = np.zeros(made.space.n_voxels)
        for subject in ill:
            mine = made.lesions[(made.lesions["participant_id"] == subject)
                                & (made.lesions["modality"] == name)]
            within = _lesion_mask(mine, made.space)
            share += within / len(ill)
            mask = made.space.img(within)
            mask.set_data_dtype(np.uint8)
            nib.save(mask, truth / f"{subject}_{name}_lesion.nii.gz")
        nib.save(made.space.img(share), truth / f"{name}_share.nii.gz")


def _check(n_reference: int, n_patients: int, modalities: Sequence[str], missing: float) -> None:
    unknown = [m for m in modalities if m not in LEVELS]
    if unknown or not modalities:
        raise CohortError(f"modalities must be some of {listed(LEVELS)}; got "
                          f"{listed(unknown) or 'none'}")
    if n_reference < 10 or n_patients < 0:
        raise CohortError("simulated images need at least 10 reference people and 0 patients; got "
                          f"{n_reference} and {n_patients}")
    if not 0 <= missing < 1:
        raise CohortError(f"missing is a share from 0 to below 1; got {missing}")


def _scanned(people: pd.DataFrame, missing: float, rng: np.random.Generator) -> pd.DataFrame:
    lacking = {"t1": 0.0, "dti": missing / 2, "pet": missing}
    drawn = pd.DataFrame({m: rng.random(len(people)) >= share for m, share in lacking.items()},
                         index=people.index)
    return drawn


def _seed(seed: int, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=key)


def _number(subject: str) -> int:
    return int(subject.rsplit("-", 1)[-1])


def _toml(modalities: Sequence[str], resolution: float) -> str:
    lines = ["[subjects]", 'table = "participants.tsv"', "", "[covariates]",
             *(f'{name} = "{kind}"' for name, kind in COVARIATES.items()), "", "[reference]",
             f'query = "{REFERENCE}"']
    for m in modalities:
        lines += ["", f"[modalities.{m}]",
                  f'images = "derivatives/{{id}}/{{id}}_{SUFFIX[m]}.nii.gz"',
                  f'mask = "{MASKS[m]}"', f"resolution = {resolution:g}",
                  "smoothing = 0  # simulated on this very grid, and smooth already",
                  f'unit = "{UNITS[m]}"']
    return "\n".join(lines) + "\n"

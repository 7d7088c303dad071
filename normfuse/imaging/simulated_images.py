"""Many simulated people in several contrasts: drawn when asked for, one at a time."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..cards import Card, some
from ..cohort import Cohort
from ..errors import CohortError, listed, perhaps
from ..modality import Modality
from ..outputs import file_stem, new_folder
from ..segmentations import Segmentations, labels_img, write_names
from ..space import Space
from ..volumes.plan import TISSUES as MASKS
from ..volumes.plan import template_space
from .anatomy import LABELS
from .missingness import (Missing, patterns_of, present_at_random, present_by_pattern,
                          shares_missing)
from .physics import SEQUENCES, UNITS

if TYPE_CHECKING:
    from tqdm import tqdm

    from .simulated import Scanner, Scans

AGES = (20.0, 80.0)
HEALTHY = "healthy"
REFERENCE = f"diagnosis == '{HEALTHY}'"
COVARIATES = {"age": "continuous", "sex": "categorical"}
RESOLUTIONS = (1.0, 10.0)  # mm: finer than the template is nothing, coarser no tissue is left

Lesions = str | Mapping[str, float] | None

_SPREAD = (np.sqrt(5) - 1) / 2  # of its multiples, every run is evenly spread over [0, 1)


@dataclass(frozen=True, eq=False)
class SimulatedImages:
    """People's images that are simulated when they are asked for; see :func:`simulate_images`.

    Iterating gives each person's :class:`~normfuse.imaging.simulated.Scans`, in order.

    Attributes
    ----------
    subjects : DataFrame
        ``age`` (years), ``sex`` and ``diagnosis`` (``"healthy"`` or the kind of lesion), by id.
    present : DataFrame of bool, shape (n_subjects, n_contrasts)
        Who has which contrast.
    space : Space
        Where the voxels are.
    seed : int
    """

    subjects: pd.DataFrame
    present: pd.DataFrame
    space: Space
    mask: str
    seed: int

    @property
    def ids(self) -> pd.Index:
        """Of people, in order."""
        return self.subjects.index

    @property
    def contrasts(self) -> tuple[str, ...]:
        """In the order that was asked for."""
        return tuple(self.present.columns)

    @cached_property
    def names(self) -> dict[str, int]:
        """Names of labels and their numbers, of the kinds of lesions that occur.

        A tumour's are 1 to 3 and a plaque's is 1; if there are both, a plaque's is 4.
        """
        made: dict[str, int] = {}
        for kind in self._first_number:
            made |= {name: number + self._first_number[kind]
                     for name, number in LABELS[kind].items()}
        return made

    @cached_property
    def _first_number(self) -> dict[str, int]:
        """What is added to the numbers of each kind."""
        there = [kind for kind in LABELS if (self.subjects["diagnosis"] == kind).any()]
        return {kind: sum(len(LABELS[k]) for k in there[:n]) for n, kind in enumerate(there)}

    @cached_property
    def _scanner(self) -> Scanner:
        from .simulated import Scanner

        return Scanner(template_space("brain", self.space.voxel_size[0]), self.contrasts)

    @cached_property
    def _inside(self) -> np.ndarray:
        """Which voxels of the brain are in the mask."""
        return np.flatnonzero(self.space.mask[self._scanner.space.mask])

    def __len__(self) -> int:
        return len(self.subjects)

    def __iter__(self) -> Iterator[Scans]:
        return (self.scan(n) for n in range(len(self)))

    def scan(self, who: str | int) -> Scans:
        """One person's images and anatomy, by id or position.

        Only what was scanned is among the values. What the others would have shown is in the same
        simulation with ``missing=0``.
        """
        return self._brain(self._position(who)).at(self._inside)

    def _brain(self, n: int) -> Scans:
        """One person's images of the whole brain, whatever the mask."""
        age = float(self.subjects["age"].iloc[n])
        return self._scanner.scan(self._rng(n), self._lesion(n), age,
                                  [c for c in self.contrasts if self.present[c].iloc[n]])

    def cohort(self) -> Cohort:
        """Everybody's voxels in memory, as an ordinary cohort whose reference is the healthy.

        4 bytes a voxel, contrast and person: 50 people with four contrasts at 2 mm are .2 GB.
        """
        blocks = {c: np.full((len(self), self.space.n_voxels), np.nan, dtype=np.float32)
                  for c in self.contrasts}
        for n in self._bar():
            for c, values in self.scan(n).values.items():
                blocks[c][n] = values
        voxels = pd.Index(self.space.features)
        modalities = tuple(Modality(c, self.space.features, UNITS[c], space=self.space)
                           for c in self.contrasts)
        # not from_frames, which would look at each of 200,000 columns for what is not in it
        return Cohort(self.subjects, {c: pd.DataFrame(block, self.ids, voxels, copy=False)
                                      for c, block in blocks.items()},
                      modalities, COVARIATES, REFERENCE)

    def segmentations(self) -> Segmentations:
        """Everybody's true lesions; no image is made for it.

        Raises
        ------
        CohortError
            If nobody has a lesion.
        """
        if not self.names:
            raise CohortError("nobody has a lesion; ask for some: simulate_images(…, "
                              "lesions=\"tumour\")")
        labels = np.zeros((len(self), self.space.n_voxels), dtype=np.uint8)
        template = self._scanner.template
        for n, row in enumerate(labels):
            if (kind := self._lesion(n)) is not None:
                body = self._rng(n).spawn(1)[0]  # as Scanner.scan does
                row[:] = self._numbered(n, template.person(
                    body, kind, float(self.subjects["age"].iloc[n])).labels[self._inside])
        return Segmentations(tuple(self.ids), labels, self.space, self.names)

    def write(self, folder: str | Path) -> Path:
        """Write a study: NIfTI images, one person at a time, and what describes them.

        ``participants.tsv``, ``cohort.toml``, and under ``derivatives/<id>`` one image a contrast,
        float32, and ``<id>_dseg.nii.gz``, the true labels, if there are lesions; their names are
        in ``derivatives/dseg.tsv``. Images are of the whole brain whatever the mask, which
        ``cohort.toml`` says. The same simulation gives the same bytes.

        Parameters
        ----------
        folder : path
            A new folder.

        Returns
        -------
        Path
            Of the ``cohort.toml``, which :meth:`normfuse.Cohort.read` reads.

        Raises
        ------
        OutputExistsError
            If the folder is there already.
        CohortError
            For ids that cannot be file names.
        """
        stems = [file_stem(str(who)) for who in self.ids]
        with new_folder(Path(folder)) as work:
            self.subjects.to_csv(work / "participants.tsv", sep="\t",
                                 index_label="participant_id")
            (work / "cohort.toml").write_text(self._toml(), encoding="utf-8")
            (work / "dataset_description.json").write_text(json.dumps({
                "Name": "normfuse simulation", "BIDSVersion": "1.9.0",
                "DatasetType": "derivative", "GeneratedBy": [
                    {"Name": "normfuse.simulate_images", "seed": self.seed}]}))
            (work / "derivatives").mkdir()
            if self.names:
                write_names(self.names, work / "derivatives" / "dseg.tsv")
            for n in self._bar():
                self._write_person(work / "derivatives", n, stems[n])
        return Path(folder) / "cohort.toml"

    def _write_person(self, derivatives: Path, n: int, stem: str) -> None:
        import nibabel as nib

        place, brain, scans = derivatives / stem, self._scanner.space, self._brain(n)
        place.mkdir()
        for contrast, values in scans.values.items():
            nib.save(brain.img(values), place / f"{stem}_{contrast}.nii.gz")
        if self.names:
            labels = self._numbered(n, scans.anatomy.labels)
            nib.save(labels_img(brain, labels), place / f"{stem}_dseg.nii.gz")

    def _toml(self) -> str:
        lines = ["[subjects]", 'table = "participants.tsv"', "", "[covariates]",
                 *(f'{name} = "{kind}"' for name, kind in COVARIATES.items()), "", "[reference]",
                 f'query = "{REFERENCE}"']
        for c in self.contrasts:
            if self.present[c].any():
                lines += ["", f"[modalities.{c}]",
                          f'images = "derivatives/{{id}}/{{id}}_{c}.nii.gz"',
                          f'mask = "{self.mask}"',
                          f"resolution = {self.space.voxel_size[0]:g}",
                          "smoothing = 0  # simulated on this very grid", f'unit = "{UNITS[c]}"']
        return "\n".join(lines) + "\n"

    def _lesion(self, n: int) -> str | None:
        kind = str(self.subjects["diagnosis"].iloc[n])
        return None if kind == HEALTHY else kind

    def _numbered(self, n: int, labels: np.ndarray) -> np.ndarray:
        """A person's labels with the numbers of ``names``."""
        kind = self._lesion(n)
        more = 0 if kind is None else self._first_number[kind]
        return np.where(labels > 0, labels + more, 0).astype(np.uint8)

    def _position(self, who: str | int) -> int:
        if isinstance(who, str):
            if who not in self.ids:
                raise CohortError(f"there is no {who!r} among the simulated people"
                                  f"{perhaps([who], self.ids)}; they are {listed(self.ids)}")
            return list(self.ids).index(who)
        if not -len(self) <= who < len(self):
            raise CohortError(f"there are {len(self)} people, at positions 0 to {len(self) - 1}; "
                              f"got {who}")
        return int(who) % len(self)

    def _rng(self, n: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(1, n)))

    def _bar(self) -> tqdm[int]:
        """Positions of all people."""
        from tqdm.auto import tqdm

        return tqdm(range(len(self)), desc="simulating", unit="person", leave=False, disable=None)

    def __repr__(self) -> str:
        return (f"<SimulatedImages of {len(self)} people: {some(self.contrasts)}; "
                f"{self.space.n_voxels} voxels>")

    def _repr_html_(self) -> str:
        kinds = self.subjects["diagnosis"].value_counts()
        table = pd.DataFrame({"people": self.present.sum(), "unit": [UNITS[c] for c
                                                                     in self.contrasts]})
        return Card("SimulatedImages", f"of {len(self)} people, seed {self.seed}", {
            "voxels": repr(self.space).strip("<>"),
            "people": some(f"{n} {kind}" for kind, n in kinds.items()),
            "labels": some(f"{name} {n}" for name, n in self.names.items())},
            {"": table.rename_axis("contrast")}).html()


def simulate_images(n_subjects: int, *, contrasts: Sequence[str] = ("T1w", "T1c", "T2w", "FLAIR"),
                    lesions: Lesions = None, resolution: float = 2.0, mask: str = "brain",
                    missing: Missing = 0.0, seed: int = 0, ids: Sequence[str] | None = None
                    ) -> SimulatedImages:
    r"""People with real anatomy and made-up scans in several contrasts, with or without lesions.

    A person's tissues are those of the ICBM 152 template under a smooth random deformation;
    ventricles widen with age. Spin echoes and inversion recovery give MR contrasts,

    .. math:: \rho (1 - e^{-TR/T_1}) e^{-TE/T_2}, \qquad
              \rho |1 - 2 e^{-TI/T_1} + e^{-TR/T_1}| e^{-TE/T_2},

    from each tissue's T1, T2 and density of protons, which differ from person to person and, as
    if tissue were more or less wet, from place to place. A smooth bias field and Rician noise are
    added; FA, MD and PET are mixtures of tissues' values with Gaussian noise. Nothing is computed
    before it is asked for, and one person is in memory at a time.

    Parameters
    ----------
    n_subjects : int
    contrasts : sequence of str
        Of T1w, T1c (after contrast agent), T2w, FLAIR, in units of the image's mean in white
        matter; FA; MD, 1e-3 mm2/s; PET, SUVR.
    lesions : str or dict, optional
        ``"tumour"`` (core, oedema, enhancing rim) or ``"sclerosis"`` (plaques in white matter) for
        everybody, or kind -> a share (float) or number (int) of people. Shares are spread evenly
        over the people; numbers are taken from the first on.
    resolution : float, mm
    mask : str
        ``"brain"``, ``"grey_matter"`` or ``"white_matter"``.
    missing : float or dict
        Share of people who lack each contrast, completely at random; contrast -> its share; or
        patterns, as ``{("T1w", "FLAIR"): 0.3, ("T1w",): 0.1}``: 30 % have these two only, 10 %
        have T1w alone, the others everything. Nobody is left without an image.
    seed : int
        A person's images depend on it and their position alone: not on how many others there are,
        on the contrasts, masks or missing images that are asked for; and but for the lesion (and
        for what white matter is on average) not on having one. Another resolution gives the same
        anatomy with other noise; a plaque may then be elsewhere.
    ids : sequence of str, optional
        Default: ``sub-0001`` and so on.

    Returns
    -------
    SimulatedImages

    Raises
    ------
    CohortError
        For unknown contrasts, kinds of lesions or masks, shares that are none or cannot be,
        repeated ids.

    Notes
    -----
    Age and sex are columns of the cohort; nothing depends on sex, and on age only the ventricles.
    There are no sites: every person's protocol differs a little. What the signal leaves out: fat,
    vessels, motion, artefacts of echo planar imaging, tumours that push.

    Examples
    --------
    >>> made = simulate_images(6, contrasts=("T1w", "FLAIR"), lesions={"tumour": 0.5},
    ...                        resolution=8, missing={"FLAIR": 0.4})
    >>> made
    <SimulatedImages of 6 people: T1w, FLAIR; 3666 voxels>
    >>> scans = made.scan("sub-0002")
    >>> scans.values["T1w"].shape, sorted(scans.anatomy.shares)[:3]
    ((3666,), ['core', 'enhancing', 'fluid'])
    >>> made.cohort().present["FLAIR"].tolist() == made.present["FLAIR"].tolist()
    True
    >>> made.segmentations().names
    {'core': 1, 'oedema': 2, 'enhancing': 3}
    """
    contrasts = _checked_contrasts(contrasts)
    if isinstance(n_subjects, bool) or not isinstance(n_subjects, (int, np.integer)) \
            or n_subjects < 1:
        raise CohortError(f"n_subjects is a whole number from 1; got {n_subjects!r}")
    if mask not in MASKS:
        raise CohortError(f"mask is one of {', '.join(MASKS)}; got {mask!r}")
    if not RESOLUTIONS[0] <= resolution <= RESOLUTIONS[1]:
        raise CohortError(f"resolution is from {RESOLUTIONS[0]:g} to {RESOLUTIONS[1]:g} mm; got "
                          f"{resolution}")
    index = _index(n_subjects, ids)
    luck = np.stack([np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, n))).random(
        4 + len(SEQUENCES)) for n in range(n_subjects)])
    subjects = pd.DataFrame({"age": (AGES[0] + (AGES[1] - AGES[0]) * luck[:, 0]).round(1),
                             "sex": np.where(luck[:, 1] < 0.5, "F", "M"),
                             "diagnosis": _diagnoses(lesions, n_subjects, seed)}, index
                            ).astype({"sex": object})  # as Cohort.read has it
    present = _present(missing, contrasts, luck[:, 2:])
    return SimulatedImages(subjects, pd.DataFrame(present, index, list(contrasts)),
                           template_space(mask, float(resolution)), mask, seed)


def _present(missing: Missing, contrasts: Sequence[str], luck: np.ndarray) -> np.ndarray:
    shares = shares_missing(missing, contrasts)
    if shares is None:
        return present_by_pattern(*patterns_of(missing, contrasts), luck[:, 0], len(contrasts))
    own = [2 + list(SEQUENCES).index(c) for c in contrasts]
    return present_at_random(shares, luck[:, own], luck[:, 1])


def _diagnoses(lesions: Lesions, n: int, seed: int) -> np.ndarray:
    """Kind of lesion of each person."""
    wanted: dict[str, Any] = {} if lesions is None else {lesions: 1.0} \
        if isinstance(lesions, str) else dict(lesions)
    unknown = [kind for kind in wanted if kind not in LABELS]
    if unknown:
        raise CohortError(f"lesions are of kind {' or '.join(LABELS)}; got {listed(unknown)}")
    counted = {isinstance(v, (int, np.integer)) for v in wanted.values()} == {True}
    limit = n if counted else 1
    if any(isinstance(v, bool) or isinstance(v, (int, np.integer)) != counted
           or not 0 <= v <= limit for v in wanted.values()) \
            or sum(wanted.values()) > limit + 1e-9:
        raise CohortError("lesions are given as shares (0.5) that add up to 1 at most, or as "
                          f"numbers of people (10) that add up to {n} at most; got {wanted}")
    edges = np.cumsum(list(wanted.values()))
    at = np.arange(n) if counted else \
        (np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,))).random()
         + _SPREAD * np.arange(n)) % 1
    return np.array([*wanted, HEALTHY], dtype=object)[np.searchsorted(edges, at, side="right")]


def _checked_contrasts(contrasts: Sequence[str]) -> tuple[str, ...]:
    given = (contrasts,) if isinstance(contrasts, str) else tuple(contrasts)
    unknown = [c for c in given if c not in SEQUENCES]
    if unknown or not given or len(set(given)) < len(given):
        raise CohortError(f"contrasts are some of {listed(SEQUENCES, 9)}, each once; got "
                          f"{listed(given) or 'none'}{perhaps(unknown, SEQUENCES)}")
    return given


def _index(n: int, ids: Sequence[str] | None) -> pd.Index:
    given = [f"sub-{i + 1:04d}" for i in range(n)] if ids is None else [str(i) for i in ids]
    if len(given) != n or len(set(given)) < n:
        raise CohortError(f"{n} different ids are needed; got {len(given)}, of which "
                          f"{len(set(given))} differ")
    return pd.Index(given, name="participant_id")

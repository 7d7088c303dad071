"""Everybody's scans brought into the frame of a template, with a sheet to look at."""
from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import CohortError, ImageError, ModelFileError, listed, perhaps
from ..outputs import new_file, refuse_existing, take_name
from ..volumes.header import read_volume
from ..volumes.plan import MNI
from .bias_fields import BiasCorrected
from .likeness import LearnedLikeness, Likeness, MutualInformation
from .registration import Registration, register
from .registration_kinds import Affine, RegistrationKind, Rigid
from .registration_search import Start
from .registration_work import BEGUN, DONE, QUALITY, begin, is_ours, noted, stamps
from .transform import SpatialTransform
from .volume_grids import brain_of, in_steps_of, is_labels

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from tqdm import tqdm

    from .representations import ContrastiveRepresentations

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def mni_template(resolution: float = 2.0) -> Nifti1Image:
    """The brain of the ICBM 152 2009a template, T1-weighted, that nilearn ships.

    Examples
    --------
    >>> mni_template(8).shape
    (26, 30, 25)
    """
    from nilearn.datasets import load_mni152_template

    if resolution == int(resolution):
        return load_mni152_template(resolution=int(resolution))
    return in_steps_of(load_mni152_template(resolution=1), resolution)


@dataclass(frozen=True)
class RegistrationPlan:
    """How people's scans get into one frame.

    The ``anchor`` of each person goes to the template as ``kind`` says; every other modality goes
    rigidly to the anchor, and both steps are applied as one. Who lacks the anchor has each
    modality registered to the template itself.

    Parameters
    ----------
    anchor : str
        The modality that looks most like the template.
    kind : RegistrationKind
    by : Likeness or ContrastiveRepresentations
        Representations compare each image with whatever it goes to; the template is taken for an
        image of the anchor's modality.
    carried : dict of str
        Modality -> the one whose way it goes, as ``{"FA": "b0"}``: maps of one acquisition, or
        masks drawn on one. Few whole numbers are labels, which are not interpolated.
    resolution : float, mm
        Of what is written.
    correct_bias : bool
        Compare images without their bias fields, see
        :class:`~normfuse.imaging.bias_fields.BiasCorrected`; what is written keeps them.
    starts : tuple of Start, optional
        How images may be turned against their headers, see
        :func:`~normfuse.imaging.registration.register`.
    seed : int

    Examples
    --------
    >>> RegistrationPlan(carried={"FA": "b0"}).way("FA"), RegistrationPlan().way("T2w")
    ('b0', 'T2w')
    """

    anchor: str = "T1w"
    kind: RegistrationKind = Affine()
    by: Likeness | ContrastiveRepresentations = MutualInformation()
    carried: Mapping[str, str] = field(default_factory=dict)
    resolution: float = 2.0
    correct_bias: bool = False
    starts: tuple[Start, ...] | None = None
    seed: int = 0

    def way(self, modality: str) -> str:
        """The modality whose transform this one gets."""
        return self.carried.get(modality, modality)

    def likeness(self, moving: str, fixed: str) -> Likeness:
        """What images of two modalities are compared by."""
        by = self.by if isinstance(self.by, Likeness) else LearnedLikeness(self.by, moving, fixed)
        return BiasCorrected(by) if self.correct_bias else by


def register_people(images: Mapping[str, Mapping[str, str | Path]], out: str | Path,
                    plan: RegistrationPlan = RegistrationPlan(), *,
                    template: Nifti1Image | None = None, progress: bool | None = None,
                    overwrite: bool = False) -> pd.DataFrame:
    """Register every person's scans to a template, and write them with what was found.

    In ``out``: ``<person>/<person>_space-<template>_<modality>.nii.gz``, the transforms beside
    them, ``quality.tsv`` and ``contact_sheet_1.png``, … A run that was stopped goes on where it
    was; files that cannot be registered are named in the table, and cost nobody else anything.

    Parameters
    ----------
    images : dict of dict
        Person -> modality -> file; of brains without skull.
    out : path
        A new folder.
    plan : RegistrationPlan
    template : Nifti1Image, optional
        By default :func:`mni_template` at the plan's resolution.
    progress : bool, optional
        None: a bar in a terminal or a notebook.
    overwrite : bool
        Replace a folder that this function wrote.

    Returns
    -------
    DataFrame
        One row a person and modality: ``ok``, overlap, metric, problems, and ``shown``, the share
        of the template's brain where the image shows something. Look at the sheet too.

    Raises
    ------
    CohortError
        Nobody, or names that are no file names.
    ImageError
        If no image at all could be registered.
    BegunWorkError
        Work begun with other settings.
    """
    from tqdm.auto import tqdm

    from .contact_sheet import write_sheets

    out = Path(out)
    _refuse_names(images, plan)
    refuse_existing(out, overwrite, is_ours)
    work = out.with_name(f".{out.name}.unfinished")
    space, target = (MNI, mni_template(plan.resolution)) if template is None else (
        "template", template)
    begin(work, plan, images, target)
    rows: list[dict[str, Any]] = []
    with tqdm(total=sum(map(len, images.values())), desc="registering", unit="image", leave=False,
              disable=None if progress is None else not progress) as bar:
        for who, files in images.items():
            note, before = work / who / "quality.json", bar.n
            if not note.exists() or noted(note).get("files") != stamps(files):
                _person(who, files, target, space, plan, work / who, bar)
            bar.update(before + len(files) - bar.n)
            rows += noted(note)["rows"]
    table = pd.DataFrame(rows)
    if "file" not in table:
        rmtree(work)
        raise ImageError(f"none of {len(table)} images could be registered: "
                         f"{listed(table['problems'].unique(), 3)}")
    table.to_csv(work / QUALITY, sep="\t", index=False)
    write_sheets(table, target, work)
    for note in work.glob("*/quality.json"):
        note.unlink()
    (work / BEGUN).rename(work / DONE)
    take_name(work, out, is_ours)
    return table


def _refuse_names(images: Mapping[str, Mapping[str, Any]], plan: RegistrationPlan) -> None:
    if not images or not any(images.values()):
        raise CohortError("nobody has an image to register; give {person: {modality: file}}")
    odd = [name for name in {*images, *(m for each in images.values() for m in each)}
           if not _SAFE.fullmatch(str(name))]
    if odd:
        raise CohortError(f"{listed(sorted(map(str, odd)))} cannot be part of a file's name; "
                          "persons and modalities are written with letters, digits, . + -. In a "
                          "pattern the rest of a name is written out, as in "
                          "'{id}_{modality}_brain.nii.gz'")
    there = {m for each in images.values() for m in each}
    for modality, other in plan.carried.items():
        if modality == plan.anchor or other in plan.carried:
            raise CohortError(f"{modality} cannot go where {other} goes: " + (
                "the anchor goes to the template" if modality == plan.anchor else
                f"{other} is carried itself; name what both go with"))
        if modality in there and other not in there:
            raise CohortError(f"{modality} is to go where {other} goes, which nobody has; the "
                              f"modalities are {listed(sorted(there))}")
    if plan.anchor not in there:
        _without_anchor(plan, sorted(there))
    if not isinstance(plan.by, Likeness):
        known = plan.by.fitted.net.names
        unknown = {plan.way(m) for m in there}.union([plan.anchor]).difference(known)
        if unknown:
            raise CohortError(f"the representations know {listed(known)}, and not "
                              f"{listed(sorted(unknown))}; leave by= out to compare by mutual "
                              "information")


def _without_anchor(plan: RegistrationPlan, there: list[str]) -> None:
    said = f"nobody has {plan.anchor}{perhaps([plan.anchor], there)}; the modalities are " \
           f"{listed(there)}"
    if plan.anchor != RegistrationPlan.anchor:
        raise CohortError(f"{said}. The anchor is the one that goes to the template")
    if len(there) > 1:
        warnings.warn(f"{said}. Each is registered to the template by itself; where one looks "
                      "like it, name that as the anchor, and the others go by way of it",
                      stacklevel=4)


def _person(who: str, files: Mapping[str, Any], target: Nifti1Image, space: str,
            plan: RegistrationPlan, folder: Path, bar: tqdm[Any]) -> None:
    """Write everything of a person; ``quality.json`` last."""
    import nibabel as nib

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():  # of files that were replaced since
        old.unlink()
    before = stamps(files)
    rows, ways, brain = [], _Ways(files, target, plan), brain_of(target)
    for modality in sorted(files, key=lambda m: m != plan.anchor):
        row: dict[str, Any] = {"person": who, "modality": modality}
        bar.set_postfix_str(f"{who} {modality}")
        try:
            image = read_volume(files[modality])
            transform, found = ways.of(modality)
            done = transform.resample(
                image, target, interpolation="nearest" if is_labels(image) else "linear")
        except (ImageError, ModelFileError, OSError) as problem:
            rows.append({**row, "ok": False, "problems": str(problem)})
            continue
        finally:
            bar.update()
        name = f"{who}_space-{space}_{modality}.nii.gz"
        nib.save(done, folder / name)
        shown = float(brain_of(done)[brain].mean())
        transform.save(folder / f"{who}_from-{space}_to-{modality}_xfm.h5", overwrite=True)
        rows.append({**row, "ok": all(r.quality.ok for r in found), "problems": "; ".join(
            p for r in found for p in r.quality.problems), "overlap": found[-1].quality.overlap,
            "metric": found[-1].quality.metric, "shown": shown, "file": f"{who}/{name}"})
    with new_file(folder / "quality.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps({"files": before, "rows": rows}), encoding="utf-8")


class _Ways:
    """From the template to each of a person's images, found when asked for."""

    def __init__(self, files: Mapping[str, Any], target: Nifti1Image, plan: RegistrationPlan
                 ) -> None:
        self.files, self.target, self.plan = files, target, plan
        self._known: dict[str, tuple[SpatialTransform, Sequence[Registration]]] = {}

    def of(self, modality: str) -> tuple[SpatialTransform, Sequence[Registration]]:
        """The transform, and the registrations it is made of."""
        led = self.plan.way(modality)
        if led not in self.files:
            raise ImageError(f"{modality} goes where {led} goes, and there is no {led}")
        if led not in self._known:
            self._known[led] = self._found(led)
        return self._known[led]

    def _found(self, modality: str) -> tuple[SpatialTransform, Sequence[Registration]]:
        plan, image = self.plan, read_volume(self.files[modality])
        if modality == plan.anchor or plan.anchor not in self.files:
            by = plan.likeness(modality, plan.anchor)
            one = register(image, self.target, plan.kind, by, starts=plan.starts, seed=plan.seed)
            return one.transform, [one]
        try:
            first, before = self.of(plan.anchor)
        except (ImageError, ModelFileError) as problem:
            raise ImageError(f"goes with {plan.anchor}, which cannot be used ({problem}); without "
                             "that file it would go to the template itself") from problem
        one = register(image, read_volume(self.files[plan.anchor]), Rigid(),
                       plan.likeness(modality, plan.anchor), starts=plan.starts, seed=plan.seed)
        return first.then(one.transform), [*before, one]

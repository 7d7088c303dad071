"""What of a folder's registrations is done, with which settings, of which files."""
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from ..errors import BegunWorkError
from ..inputs import read_object
from ..outputs import new_file
from .likeness import Likeness

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from .registered_people import RegistrationPlan

QUALITY, BEGUN, DONE = "quality.tsv", "begun.json", "registration.json"
_WRITTEN = re.compile(r".+_(space-.+\.nii\.gz|from-.+_to-.+_xfm\.h5)")
_SHEET = re.compile(r"contact_sheet_\d+\.png")


def is_ours(path: Path) -> bool:
    """Whether an older run of this may have written it: a person's folder with nothing else in
    it, a table or a sheet."""
    if path.is_dir():
        return all(_WRITTEN.fullmatch(p.name) and p.name.startswith(f"{path.name}_")
                   for p in path.iterdir())
    return path.name in {QUALITY, DONE} or bool(_SHEET.fullmatch(path.name))


def begin(work: Path, plan: RegistrationPlan, images: Mapping[str, Mapping[str, Any]],
          target: Nifti1Image) -> None:
    """Note what is asked for, or find that it was begun, with other people perhaps."""
    settings = {"plan": {name: repr(value) for name, value in vars(plan).items()},
                "weights": weights_of(plan.by),
                "grid": [list(target.shape), target.affine.tolist()]}
    note = work / BEGUN
    if note.exists():
        if read_object(note) != settings:
            raise BegunWorkError(f"{work} holds work begun with other settings; remove it, or "
                                 "choose another name for the result")
        for person in work.iterdir():
            if person.is_dir() and person.name not in images:
                rmtree(person)
        return
    work.mkdir(parents=True, exist_ok=True)
    with new_file(note) as temporary:
        temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def weights_of(by: Any) -> list[str]:
    """Check sums of the representations that a likeness uses: their repr is that of others too."""
    from safetensors.torch import save

    if isinstance(by, Likeness):
        return [found for part in vars(by).values() for found in weights_of(part)]
    if not hasattr(by, "represent"):
        return []
    weights = by.fitted.net.state_dict().items()
    return [hashlib.sha256(save({name: t.detach().cpu().contiguous() for name, t in weights}))
            .hexdigest()]


def noted(note: Path) -> Any:
    return json.loads(note.read_text(encoding="utf-8"))


def stamps(files: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Paths, sizes and times of files: one that was replaced since is registered again."""
    found: dict[str, list[Any]] = {}
    for modality, path in files.items():
        there = Path(path)
        found[modality] = [str(path)] if not there.exists() else [
            str(path), there.stat().st_size, there.stat().st_mtime_ns]
    return found

"""Folders of something fitted: JSON for what is said, safetensors for numbers, both signed.

Never a pickle. Both files are checked against SHA-256 sums when they are read.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import ModelFileError
from .inputs import ordinary, read_json
from .outputs import new_folder

WEIGHTS_NAME = "weights.safetensors"


def write_signed(folder: Path, name: str, content: Mapping[str, Any],
                 tensors: Mapping[str, torch.Tensor], *, overwrite: bool) -> Path:
    """Write ``name`` (JSON) and the weights to a new folder, all or nothing."""
    from safetensors.torch import save_file

    with new_folder(folder, overwrite=overwrite) as work:
        save_file(dict(tensors), work / WEIGHTS_NAME)
        content = {**content, "weights_sha256": _sum_of(work / WEIGHTS_NAME)}
        signed = {**content, "sha256": digest(content)}
        (work / name).write_text(json.dumps(signed, indent=1), encoding="utf-8")
    return folder


def read_signed(folder: Path, name: str, version: int, written_by: str
                ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What :func:`write_signed` wrote; refuses what is missing, truncated, edited or older."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights = folder / WEIGHTS_NAME
    try:
        content = read_json(folder / name)
        found_sum = _sum_of(ordinary(weights))
    except FileNotFoundError as problem:
        raise ModelFileError(f"{folder} is not a saved model: {problem.filename} is not there; "
                             f"give the folder that {written_by} wrote") from problem
    except (OSError, ValueError) as problem:
        raise ModelFileError(f"{folder / name} cannot be read ({problem}); it was truncated "
                             "or edited: save the model again") from problem
    if not isinstance(content, dict) or content.get("format") != version:
        found = content.get("format") if isinstance(content, dict) else None
        raise ModelFileError(f"{folder / name} has format {found!r}; this version of "
                             f"normfuse reads format {version}")
    if content.pop("sha256", None) != digest(content):
        raise ModelFileError(f"{folder / name} was changed after it was saved: its check sum "
                             "does not fit. Scores from it would not be what its provenance says; "
                             "save the model again")
    if found_sum != content.get("weights_sha256"):
        raise ModelFileError(f"{weights} ({weights.stat().st_size} bytes) was truncated or "
                             f"changed: its check sum is not the one in {name}; copy the whole "
                             "folder again")
    try:
        return content, load_file(weights)
    except SafetensorError as problem:
        raise ModelFileError(f"{weights} cannot be read: {problem}") from problem


def digest(content: Mapping[str, Any]) -> str:
    """Of what a JSON file says, its own sum apart."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _sum_of(file: Path) -> str:
    with file.open("rb") as opened:  # some at a time: a model of voxels has a gigabyte
        return hashlib.file_digest(opened, "sha256").hexdigest()

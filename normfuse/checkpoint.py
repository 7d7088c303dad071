"""What a training has reached, on disk, so that a crash costs seconds and not hours."""
from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ModelFileError
from .inputs import ordinary
from .outputs import new_file

SECONDS = 10.0
"""Between two writings, so that they cost little however short an epoch is."""


class Checkpoint:
    """A file that a training writes now and then and takes up when it starts again.

    Holds weights, the optimiser's state, the random state and the position, so that a training
    taken up ends with the same bits as one that was not stopped. Written under another name and
    renamed: a kill in between leaves the old file.

    Parameters
    ----------
    path : Path
    seconds : float
        Least time between two writings.
    """

    def __init__(self, path: Path, seconds: float = SECONDS) -> None:
        self.path, self.seconds = path, seconds
        self._written = time.monotonic()

    def load(self, identity: str) -> dict[str, Any] | None:
        """What was written last; None if nothing was, or by a training of something else."""
        if not self.path.exists():
            return None
        try:  # weights_only: tensors and plain values, no code
            found = torch.load(ordinary(self.path), weights_only=True)
            return found if found["identity"] == identity else None
        except Exception as problem:  # torch, pickle, zipfile and the system each have their own
            raise ModelFileError(f"{self.path}, which says how far a training is, is damaged "
                                 f"({type(problem).__name__}); remove it to train from the "
                                 "beginning") from problem

    def save(self, identity: str, state: dict[str, Any], *, last: bool = False) -> None:
        """Write, unless the last time was just now and this is not the ``last``."""
        if not last and time.monotonic() - self._written < self.seconds:
            return
        with new_file(self.path, overwrite=True) as temporary:
            torch.save({**state, "identity": identity}, temporary)
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
        self._written = time.monotonic()


def fingerprint(*parts: object) -> str:
    """The same for equal settings (by their repr) and tensors (by their bytes)."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.detach().cpu().contiguous().numpy().tobytes()
                      if isinstance(part, Tensor) else repr(part).encode())
    return digest.hexdigest()

"""What is wrong with the images of a cohort, said once and by name."""
from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError, listed

LINES = 12
"""Per fault in a message, then names. ``ImageError.findings`` holds them all."""


@dataclass(frozen=True)
class Problem:
    """Something about one image.

    Attributes
    ----------
    what : str
        The fault and what to do, in the same words for every image that has it.
    detail : str
        What was found in this one.
    refuses : bool
        Whether the image cannot be used.

    Examples
    --------
    >>> Problem("saturated", "3 % of the brain", refuses=False).detail
    '3 % of the brain'
    """

    what: str
    detail: str
    refuses: bool


@dataclass(frozen=True)
class Finding:
    """A problem and whose it is.

    Examples
    --------
    >>> gone = Problem("the file is not there", "", refuses=True)
    >>> Finding("sub-07", "fa", Path("7.nii"), gone).problem.refuses
    True
    """

    subject: str
    modality: str
    file: Path
    problem: Problem

    def __str__(self) -> str:
        found = f": {self.problem.detail}" if self.problem.detail else ""
        return f"{self.modality} of {self.subject}{found} ({self.file})"


def settle(findings: Iterable[Finding], *, drop_failed: bool = False, n_images: int = 0,
           gone: Sequence[str] = ()) -> None:
    """Raise for images that cannot be used, warn of those that are suspicious; once for all.

    Parameters
    ----------
    findings : iterable of Finding
    drop_failed : bool
        Warn of images that cannot be used, too: they are left out.
    n_images : int
        How many were looked at.
    gone : sequence of str
        Modalities none of whose images can be used; they are never left out unasked.

    Raises
    ------
    ImageError
        With one line a fault, if any image is refused and ``drop_failed`` is not set, or a
        modality has none left.

    Warns
    -----
    UserWarning
        One for all that is left out, one for all that is suspicious.

    Examples
    --------
    >>> flat = Problem("expected three dimensions; choose a volume", "shape (4, 5, 6, 2)", True)
    >>> settle([Finding("sub-07", "fa", Path("7.nii"), flat)], n_images=9)
    Traceback (most recent call last):
    normfuse.errors.ImageError: 1 of 9 images cannot be used:
    * expected three dimensions; choose a volume
        fa of sub-07: shape (4, 5, 6, 2) (7.nii)
    Repair or remove them, or leave them out with drop_failed=True (drop_failed = true under \
[images] in cohort.toml)
    """
    every = list(findings)
    refused = [f for f in every if f.problem.refuses]
    out = {(f.modality, f.subject) for f in refused}
    flagged = [f for f in every if (f.modality, f.subject) not in out]
    n = len(out)
    if refused and (gone or not drop_failed):
        remedy = "leave them out with drop_failed=True (drop_failed = true under [images] in " \
                 "cohort.toml)"
        if gone:
            remedy = f"go without {listed(gone)}, of which no image is left"
        raise ImageError(f"{n} of {n_images} images cannot be used:\n{_lines(refused)}\nRepair or "
                         f"remove them, or {remedy}", refused)
    if refused:
        warnings.warn(f"left out {n} of {n_images} images:\n{_lines(refused)}", stacklevel=3)
    if flagged:
        n = len({(f.modality, f.subject) for f in flagged})
        warnings.warn(f"{n} of {n_images} images are used but look wrong:\n{_lines(flagged)}",
                      stacklevel=3)


def _lines(findings: Sequence[Finding]) -> str:
    by_fault: dict[str, list[Finding]] = {}
    for finding in findings:
        by_fault.setdefault(finding.problem.what, []).append(finding)
    lines = []
    for what, found in by_fault.items():
        lines += [f"* {what}", *(f"    {f}" for f in found[:LINES])]
        if len(found) > LINES:
            rest = [f"{f.modality} of {f.subject}" for f in found[LINES:]]
            lines.append(f"    and {listed(rest, LINES)}")
    return "\n".join(lines)

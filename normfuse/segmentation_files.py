"""Label images on disk as rows of labels: of the same voxels, stored in whatever order."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ImageError, SpaceMismatchError, listed
from .space import Space
from .volumes.findings import Finding, Problem
from .volumes.header import opened, unreadable

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

OFF_VOXEL = 0.02
"""Part of a voxel by which an image may be off the grid: headers hold single precision."""

LINES = 12  # of people, in a message


def read_label_images(paths: Mapping[str, Path], space: Space, names: Mapping[str, int]
                      ) -> tuple[np.ndarray, tuple[str, ...]]:
    """Everybody's labels at the voxels of a space, and notes on what was left out.

    An image may be turned, mirrored (with its header) or cropped; its voxels must be those of the
    space. Beyond its field of view there is no label.

    Parameters
    ----------
    paths : dict of Path, by id
    space : Space
    names : dict of int
        Name of a label -> its number.

    Returns
    -------
    labels : ndarray of uint8, shape (len(paths), space.n_voxels)
    notes : tuple of str

    Raises
    ------
    SpaceMismatchError
        If voxels lie elsewhere or have another size; labels are never interpolated.
    ImageError
        For files that are absent, damaged or no volume, values that are no whole numbers or have
        no name; all of them at once.
    """
    labels = np.zeros((len(paths), space.n_voxels), dtype=np.uint8)
    outside = np.zeros((len(paths), 2), dtype=int)
    elsewhere: list[Finding] = []
    findings: list[Finding] = []
    notes = []
    for row, (who, path) in enumerate(paths.items()):
        def say(problem: Problem, who: str = who, path: Path = path) -> None:
            findings.append(Finding(who, "segmentation", path, problem))

        img, problems = opened(path)
        notes += [f"{p.what} ({p.detail})" for p in problems if not p.refuses]
        data = _whole_numbers(img, problems, names, say)
        if img is None or data is None:
            continue
        taken = _taken(data, img.affine, space)
        if taken is None:
            elsewhere.append(Finding(who, "segmentation", path,
                                     _elsewhere(data.shape, img.affine, space)))
            continue
        labels[row] = taken
        outside[row] = np.count_nonzero(data) - np.count_nonzero(taken), np.count_nonzero(data)
    _refuse(ImageError, findings, len(paths))
    _refuse(SpaceMismatchError, elsewhere, len(paths))
    return labels, (*dict.fromkeys(notes), *_left_out(outside))


def read_uncertainty(paths: Mapping[str, Path], space: Space) -> np.ndarray | None:
    """What :meth:`Segmentations.write` put beside ``…_dseg.nii.gz`` as ``…_uncertainty.nii.gz``.

    None unless everybody has one. Raises ImageError for one that is damaged or on other voxels.
    """
    beside = {who: path.with_name(path.name.replace("_dseg.", "_uncertainty."))
              for who, path in paths.items()}
    if any(beside[who] == path or not beside[who].exists() for who, path in paths.items()):
        return None
    found = np.zeros((len(paths), space.n_voxels), dtype=np.float32)
    findings: list[Finding] = []
    for row, (who, path) in enumerate(beside.items()):
        img, problems = opened(path)
        problems = [p for p in problems if p.refuses]
        if img is not None and not problems:
            try:
                data = np.asanyarray(img.dataobj, dtype=np.float32).reshape(img.shape[:3])
            except Exception as problem:  # nibabel, gzip and zlib each have errors of their own
                problems = [unreadable(problem)]
            else:
                values = _taken(data, img.affine, space)
                problems = [] if values is not None else [
                    _elsewhere(data.shape, img.affine, space)]
                found[row] = 0 if values is None else values
        findings += [Finding(who, "uncertainty", path, p) for p in problems]
    _refuse(ImageError, findings, len(paths))
    return found


def _whole_numbers(img: Nifti1Image | None, problems: list[Problem], names: Mapping[str, int],
                   say: Callable[[Problem], None]) -> np.ndarray | None:
    """The image's values as uint8, if each of them is 0 or has a name."""
    refused = [p for p in problems if p.refuses]
    for problem in refused:
        say(problem)
    if img is None or refused:
        return None
    try:
        values = np.asanyarray(img.dataobj).reshape(img.shape[:3])
    except Exception as problem:  # nibabel, gzip and zlib each have errors of their own
        say(unreadable(problem))
        return None
    found, counts = np.unique(values, return_counts=True)
    broken = ~np.isfinite(found) | (found != np.rint(found))
    if broken.any():
        some = listed(f"{v:g}" for v in found[broken][:LINES])
        say(Problem("values that are no whole numbers: a probability map, or labels that were "
                    "interpolated? Threshold it, as p > 0.5, or resample labels with "
                    "interpolation=\"nearest\"", f"{counts[broken].sum()} voxels, such as {some}",
                    True))
        return None
    nameless = ~np.isin(found, [0, *names.values()])
    if nameless.any():
        said = listed((f"{v:g} in {n} voxels" for v, n in zip(found[nameless], counts[nameless])),
                      LINES)
        say(Problem(_wanted(names, found[found != 0], found[nameless]), said, True))
        return None
    return values.astype(np.uint8)


def _wanted(names: Mapping[str, int], found: np.ndarray, nameless: np.ndarray) -> str:
    told = ", ".join(f"{name} {number}" for name, number in names.items())
    if len(names) == 1:
        (name, number), = names.items()
        more = f"give names={{{name!r}: {found[0]:g}}}" if len(found) == 1 \
            else "is this an image of several labels? Name them all"
        return f"expected a binary mask, 0 and {number} ({name}), and found other values: {more}"
    old = "; until 2023 the enhancing part of tumours was 4" \
        if nameless.tolist() == [4] and 3 in names.values() else ""
    return f"values without a name (0 is background, {told}): say what they are in names{old}"


def _taken(data: np.ndarray, affine: np.ndarray, space: Space) -> np.ndarray | None:
    """Its values at the voxels of the space, or None if voxels do not fall on voxels."""
    into = np.linalg.inv(affine) @ space.affine
    turn, shift = np.rint(into[:3, :3]), np.rint(into[:3, 3])
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in space.shape])).reshape(3, -1)
    off = (into[:3, :3] - turn) @ corners + (into[:3, 3] - shift)[:, None]
    one_each = (np.abs(turn).sum(0) == 1).all() and (np.abs(turn).sum(1) == 1).all()
    if not one_each or np.abs(off).max() > OFF_VOXEL:
        return None
    at = (space.indices @ turn.T + shift).astype(int)
    within = ((at >= 0) & (at < data.shape)).all(axis=1)
    found = np.zeros(space.n_voxels, dtype=data.dtype)
    found[within] = data[tuple(at[within].T)]
    return found


def _elsewhere(shape: tuple[int, ...], affine: np.ndarray, space: Space) -> Problem:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    same = np.allclose(np.sort(sizes), np.sort(space.voxel_size), atol=1e-2)
    cause = "its voxels lie between those of the space" if same else "its voxels have another size"
    return Problem(
        f"{cause}, and labels are never interpolated unasked; expected "
        f"{_grid(space.shape, space.affine)}. Take a space of the image's resolution, or resample "
        "it, as nilearn.image.resample_img(…, interpolation=\"nearest\") does",
        _grid(shape, affine), True)


def _grid(shape: Iterable[int], affine: np.ndarray) -> str:
    sizes = " x ".join(f"{v:.3g}" for v in np.linalg.norm(affine[:3, :3], axis=0))
    first = ", ".join(f"{v:.4g}" for v in affine[:3, 3])
    return f"{' x '.join(map(str, shape))} voxels of {sizes} mm, the first at ({first}) mm"


def _refuse(kind: type[Exception], findings: list[Finding], n: int) -> None:
    if not findings:
        return
    by_fault: dict[str, list[Finding]] = {}
    for finding in findings:
        by_fault.setdefault(finding.problem.what, []).append(finding)
    lines = [f"{len(findings)} of {n} segmentations cannot be used:"]
    for what, found in by_fault.items():
        lines += [f"* {what}", *(f"    {f.subject}{f.problem.detail and f': {f.problem.detail}'} "
                                 f"({f.file})" for f in found[:LINES])]
        if len(found) > LINES:
            lines.append(f"    and {listed((f.subject for f in found[LINES:]), LINES)}")
    text = "\n".join(lines)
    raise ImageError(text, findings) if kind is ImageError else kind(text)


def _left_out(outside: np.ndarray) -> list[str]:
    """A note on labelled voxels that the space does not have; of nobody by name."""
    lost, all_ = outside.T
    if not lost.any():
        return []
    most = (lost / np.maximum(all_, 1)).max()
    return [f"{lost.sum()} labelled voxels of {np.count_nonzero(lost)} people lie outside the "
            f"space's mask and were left out: {lost.sum() / all_.sum():.1%} of all, at most "
            f"{most:.0%} of one person's"]

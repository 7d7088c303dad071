"""Images of many people as one table on disk; what was read before is not read again."""
from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ..atlas_cache import cache_folder
from ..errors import CohortError
from ..stored import ROWS, StoredTable
from .checks import compare, judge, prepare
from .findings import Finding, Problem, settle
from .header import GONE, opened
from .one_image import Reading, read_image
from .plan import VolumePlan
from .pool import Entry, Pool

if TYPE_CHECKING:
    from tqdm import tqdm

_Job = TypeVar("_Job")
_Done = TypeVar("_Done")


class ImageSet:
    """The images of one modality, one a subject.

    Parameters
    ----------
    name : str
        Of the modality.
    paths : dict
        Subject id -> file.
    plan : VolumePlan
    cache : path
        Folder that keeps what was read.
    threads : int, optional
        Images read at a time; default: the number of cores, four at most.

    Raises
    ------
    CohortError
        If there is no image, or two people have the same file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     paths = {"sub-1": Path(place, "1.nii.gz")}
    ...     images = ImageSet("fa", paths, VolumePlan("brain", 10), place)
    ...     print(images.look()[0].problem.what)
    the file is not there
    """

    def __init__(self, name: str, paths: Mapping[str, str | Path], plan: VolumePlan,
                 cache: str | Path, threads: int | None = None) -> None:
        if not paths:
            raise CohortError(f"modality {name} has no image; give at least one")
        self.name, self.plan = name, plan
        self.paths = {str(subject): Path(path) for subject, path in paths.items()}
        self.threads = threads or min(4, os.cpu_count() or 1)
        owners: dict[Path, str] = {}
        for subject, path in self.paths.items():
            other = owners.setdefault(path.resolve(), subject)
            if other != subject:
                raise CohortError(f"modality {name}: {other} and {subject} have the same file "
                                  f"{path}; every person needs one of their own")
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
        self.pool = Pool(Path(cache) / f"{stem}-{plan.key}", plan.space.features)
        self._digests: dict[str, str] = {}

    def look(self) -> list[Finding]:
        """What the headers of files that were not read before have against them; fast."""
        there = {s: p for s, p in self.paths.items() if p.is_file()}
        with self.pool.locked(), _bar(len(there), f"checking {self.name}") as bar:
            known = self.pool.entries()
            self._digests = dict(zip(there, self.pool.digests(
                list(there.values()), self.threads, bar.update)))
        new = [s for s in self.paths if self._digests.get(s) not in known]
        return [Finding(subject, self.name, self.paths[subject], problem) for subject in new
                for problem in opened(self.paths[subject])[1] if problem.refuses]

    def headers(self) -> list[Finding]:
        """What every header has against it, whether its voxels were read before or not."""
        return [Finding(subject, self.name, path, problem) for subject, path in self.paths.items()
                for problem in opened(path)[1] if problem.refuses]

    def read(self) -> tuple[StoredTable | None, list[Finding]]:
        """The table of all images that can be used, if any can; what is wrong with any of them.

        Raises
        ------
        CohortError
            If the cache cannot be written.
        """
        if not self._digests:
            self.look()
        with self.pool.locked():
            wanted = set(self._digests.values())
            noted = {d: e for d, e in self.pool.entries().items() if d in wanted}
            known = self.pool.sound(noted)
            todo = {d: self.paths[s] for s, d in self._digests.items() if d not in known}
            failed = self._read_files(todo, after_damage=len(known) < len(noted))
            entries = self.pool.entries()
        read = {s: entries[d] for s, d in self._digests.items() if d not in failed}
        findings = self._findings(read, failed)
        refused = {f.subject for f in findings if f.problem.refuses}
        usable = {s: e for s, e in read.items() if s not in refused}
        return self.pool.table(usable) if usable else None, findings

    def _read_files(self, todo: Mapping[str, Path],
                    after_damage: bool) -> dict[str, tuple[Problem, ...]]:
        """Put the files' values into the pool; the problems of those that gave none."""
        failed: dict[str, tuple[Problem, ...]] = {}
        seen: list[tuple[str, Reading]] = []
        block = np.empty((min(ROWS, len(todo)), self.plan.space.n_voxels), dtype=np.float32)
        prepare(self.plan)  # or every thread would
        done = _in_order(lambda path: read_image(path, self.plan), todo.values(), self.threads)
        with _bar(len(todo), f"reading {self.name}") as bar:
            try:
                for one, digest in zip(done, todo):
                    bar.update()
                    if one.values is None:
                        failed[digest] = one.problems
                        continue
                    block[len(seen)] = one.values
                    seen.append((digest, replace(one, values=None)))
                    if len(seen) == len(block):
                        whole, seen = seen, []
                        self.pool.add(whole, block, after_damage=after_damage)
                        after_damage = False
            finally:  # what is read stays read, also when somebody stops us
                self.pool.add(seen, block[:len(seen)], after_damage=after_damage)
        return failed

    def _findings(self, read: Mapping[str, Entry],
                  failed: Mapping[str, tuple[Problem, ...]]) -> list[Finding]:
        problems = {s: list(failed.get(self._digests.get(s, ""), (GONE,))) for s in self.paths}
        for subject, entry in read.items():
            problems[subject] = [*entry.problems, *judge(entry.facts, self.plan)]
        good = {s: e.facts for s, e in read.items() if not any(p.refuses for p in problems[s])}
        for subject, more in zip(good, compare(list(good.values()))):
            problems[subject] += more
        first: dict[str, str] = {}
        for subject, digest in self._digests.items():
            if first.setdefault(digest, subject) != subject:
                problems[subject].append(Problem(
                    "the file is, byte for byte, that of another person: whose is it?",
                    f"as {first[digest]}", False))
        return [Finding(subject, self.name, self.paths[subject], problem)
                for subject, found in problems.items() for problem in found]


def read_images(paths: Mapping[str, str | Path], plan: VolumePlan | None = None, *,
                name: str = "images", cache: str | Path | None = None,
                threads: int | None = None, drop_failed: bool = False) -> StoredTable:
    """Read one image a person into a table of voxels on disk.

    Files that were read before with the same settings, under any name, are not read again.

    Parameters
    ----------
    paths : dict
        Subject id -> ``.nii`` or ``.nii.gz`` file in MNI space, one volume each.
    plan : VolumePlan, optional
        Voxels, smoothing and what an image must cover; default: the brain at 4 mm, FWHM 8 mm.
        Give its ``space`` to ``Cohort.from_frames(…, spaces={name: plan.space})``.
    name : str
        Of the modality, for messages and for the cache.
    cache : path, optional
        Folder that keeps the table; default: ``$NORMFUSE_CACHE``, else the user's cache folder.
        It holds the images' values, which may be personal data.
    threads : int, optional
        Images read at a time, each in memory once as float32; default: the number of cores, four
        at most.
    drop_failed : bool
        Leave out, with a warning that names them, images that cannot be used.

    Returns
    -------
    StoredTable, shape (n_images, plan.space.n_voxels)

    Raises
    ------
    ImageError
        For images that are no single volume in MNI space with a signal; all of them at once.
    CohortError
        If no path was given, two are the same, or the cache cannot be written.

    Examples
    --------
    >>> import nibabel as nib, numpy as np, tempfile
    >>> plan = VolumePlan("grey_matter", resolution=8)
    >>> rng = np.random.default_rng(0)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     files = {f"sub-{i}": Path(place, f"{i}.nii.gz") for i in (3, 1)}
    ...     for file in files.values():
    ...         nib.save(plan.space.img(rng.gamma(9, size=plan.space.n_voxels)), file)
    ...     table = read_images(files, plan, cache=place)
    ...     print(table, table.frame().index.tolist())
    <StoredTable of 2 people, 3297 features> ['sub-3', 'sub-1']
    """
    images = ImageSet(name, paths, plan or VolumePlan(),
                      cache if cache is not None else cache_folder() / "volumes", threads)
    if not drop_failed:  # say what headers show before hours of reading
        settle(images.look(), n_images=len(images.paths))
    table, findings = images.read()
    settle(findings, drop_failed=drop_failed, n_images=len(images.paths),
           gone=() if table is not None else (name,))
    return cast(StoredTable, table)  # without any, settle has raised


def _in_order(work: Callable[[_Job], _Done], jobs: Iterable[_Job],
              threads: int) -> Iterator[_Done]:
    """Results in the order of the jobs; only a few are under way or waiting at a time."""
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(threads) as crowd:
        try:
            for job in jobs:
                waiting.append(crowd.submit(work, job))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _bar(total: int, what: str) -> tqdm[Any]:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=what, unit="image", leave=False, disable=None)

"""Writing to disk so that nothing is lost and nothing half-written stays."""
from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import CohortError, OutputExistsError, listed

COMMAND = "command.json"
"""How a folder was made: the command line adds it to what it wrote, and replaces it with that."""

_OLD = "old"
Ours = Callable[[Path], bool]
"""Whether something in an older folder is a result that may be replaced."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=@-]*")


@contextmanager
def new_folder(folder: Path, *, overwrite: bool = False, ours: Ours | None = None
               ) -> Iterator[Path]:
    """A working folder that takes its real name only when the block succeeds.

    With ``overwrite`` an older folder is replaced, but only if it holds nothing that the new one
    does not: a wrong path must not cost anybody their data. What ``ours`` recognises as an older
    result of the same kind (tables where there are arrays now, maps of people who are not among
    the new) may go; anything else is refused before any work.

    Raises
    ------
    OutputExistsError
        If ``folder`` is there and may not be replaced; nothing is touched.
    """
    refuse_existing(folder, overwrite, ours)
    with beside(folder) as temporary:
        work = temporary / "new"
        work.mkdir()
        yield work
        take_name(work, folder, ours)


def take_name(work: Path, folder: Path, ours: Ours | None = None) -> None:
    """Give a finished folder its name, in the place of an older one that holds nothing else.

    Raises
    ------
    OutputExistsError
        If an older folder holds something that the new one does not; both stay as they are.
    """
    if not folder.exists():
        os.replace(work, folder)
        return
    there = set(os.listdir(work))
    _refuse_strangers(folder, lambda old: old.name in there or ours is not None and ours(old))
    with beside(folder) as temporary:
        os.replace(folder, temporary / _OLD)  # removed with the temporary folder
        os.replace(work, folder)


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name only when the block succeeds."""
    refuse_existing(path, overwrite)
    with beside(path) as temporary:
        work = temporary / path.name
        yield work
        os.replace(work, path)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary folder next to ``path``. Its name says which process made it: a later one
    removes what a killed one has left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{_ours(path)}{os.getpid()}-", dir=path.parent
                                     ) as temporary:
        yield Path(temporary)


def _ours(path: Path) -> str:
    return f".{path.name}-{zlib.crc32(platform.node().encode()):08x}-"


def _clear_away(path: Path) -> None:
    """What processes of this machine that are no more left beside ``path``.

    One that died in the middle of :func:`take_name` left the older folder without its name, which
    it is given back.
    """
    for left in path.parent.glob(glob.escape(_ours(path)) + "*"):
        pid = left.name.removeprefix(_ours(path)).split("-")[0]
        if not pid.isdigit() or _is_alive(int(pid)):
            continue
        if (left / _OLD).exists() and not path.exists():
            os.replace(left / _OLD, path)
        shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def refuse_existing(path: Path, overwrite: bool, ours: Ours | None = None) -> None:
    """Stop before any work is done if the output is there, and holds what is not ``ours``."""
    above = next((p for p in path.parents if p.exists()), path.parent)
    if above.is_file():
        raise OutputExistsError(f"{path} cannot be written: {above} is a file; choose another "
                                "name")
    _clear_away(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} is already there; choose another name, or ask for it to "
                                "be replaced with overwrite=True (--overwrite)")
    if path.exists() and overwrite and path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise OutputExistsError(f"{path} holds the current folder and will not be replaced")
    if path.exists() and ours is not None:
        _refuse_strangers(path, ours)


def _refuse_strangers(old: Path, ours: Ours) -> None:
    if not old.is_dir():
        raise OutputExistsError(f"{old} is a file and will not be replaced by a folder")
    strange = sorted(p.name for p in old.iterdir() if p.name != COMMAND and not ours(p))
    if strange:
        raise OutputExistsError(f"{old} also holds {listed(strange)}, which would be lost; it was "
                                "not replaced: choose another name, or remove it yourself")


def file_stem(subject: str) -> str:
    """The subject's id as part of a file name; refuses ids that could leave the folder.

    >>> file_stem("sub-01_ses-2")
    'sub-01_ses-2'
    """
    if not _SAFE_NAME.fullmatch(subject) or ".." in subject or len(subject) > 150:
        raise CohortError(f"subject id {subject!r} cannot be used as a file name: it must begin "
                          "with a letter or digit and hold only letters, digits and . _ + = @ -, "
                          "without '..'; rename the subject before writing files per subject")
    return subject

"""``command.json``: what was typed, with every default, and from which files; to run it again."""
from __future__ import annotations

import hashlib
import json
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import typer

from ..errors import listed
from ..outputs import COMMAND, new_file
from ..versions import versions

OWN = frozenset({"as_json", "verbose", "overwrite", "config", "context"})
"""Options about how a command speaks, or whether it may replace: no part of what it computes."""

_MADE = frozenset({"out", "pages", "key"})
"""Options that name what a verb writes, where they are paths."""

_OF_CONTEXT = "normfuse.command"


def place(where: Path) -> Path:
    """Inside a folder; beside a file.

    >>> place(Path("report.html")).name
    'report.command.json'
    """
    return where / COMMAND if where.is_dir() else where.with_name(f"{where.stem}.{COMMAND}")


def write(verb: str, options: Mapping[str, Any], where: Path, inputs: Mapping[str, str]) -> Path:
    """Write it where the result is."""
    content = {"verb": verb, "options": plain(options), "versions": versions(),
               "inputs": dict(inputs),
               "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}
    with new_file(place(where), overwrite=True) as work:
        work.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return place(where)


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON knows them, without those of :data:`OWN`.

    >>> plain({"out": Path("model"), "seed": 0, "as_json": True, "carry": ["FA=b0"]})
    {'out': 'model', 'seed': 0, 'carry': ['FA=b0']}
    """
    return {name: _plain(value) for name, value in options.items() if name not in OWN}


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.as_posix() if isinstance(value, Path) else str(value)


def digests(options: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every input, by path.

    Of a cohort file also of the tables it names (not of its images); of a folder one sum of the
    files that lie in it (not deeper: arrays of voxels are described by the tables beside them).
    """
    given = [path for name, path in options.items()
             if isinstance(path, Path) and name not in _MADE]
    found = {}
    for path in given:
        for each in (path, *_tables_of(path)):
            if each.is_file():
                found[each.as_posix()] = _sum(each)
        if path.is_dir():
            parts = [f"{p.name} {_sum(p)}" for p in sorted(path.iterdir())
                     if p.is_file() and p.name != COMMAND]
            found[path.as_posix()] = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return found


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tables_of(path: Path) -> Iterator[Path]:
    if path.suffix != ".toml" or not path.is_file():
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # reading the cohort says what is wrong
    for section in (content, *content.values(), *_values(content.get("modalities"))):
        for key in ("table", "tables"):
            named = section.get(key) if isinstance(section, dict) else None
            for name in named if isinstance(named, list) else [named]:
                if isinstance(name, str):
                    yield path.parent / name


def _values(section: object) -> list[object]:
    return list(section.values()) if isinstance(section, dict) else []


def take_options(context: typer.Context, file: Path | None) -> Path | None:
    """The options of a ``command.json`` become defaults; what is typed beside it counts."""
    if file is None:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        verb, options = content["verb"], dict(content["options"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise typer.BadParameter(f"{file} is not a {COMMAND} that normfuse wrote: {problem}"
                                 ) from problem
    if verb != context.info_name:
        raise typer.BadParameter(f"{file} is of `normfuse {verb}`")
    known = {param.name for param in context.command.params} - OWN
    if unknown := sorted(set(options) - known):
        raise typer.BadParameter(f"{file} has options that this version does not know: "
                                 f"{listed(unknown)}")
    context.default_map = {name: value for name, value in options.items() if value is not None}
    context.meta[_OF_CONTEXT] = content
    return file


def note_changes(context: typer.Context, options: Mapping[str, Any]) -> None:
    """Say what is not as it was when the file was written, as the result may then differ."""
    before = context.meta.get(_OF_CONTEXT)
    if before is None:
        return
    now = digests(options)
    was = before.get("inputs") or {}
    changed = [path for path, digest in now.items() if was.get(path, digest) != digest]
    if changed:
        warnings.warn(f"not the same as when {COMMAND} was written: {listed(changed)}",
                      stacklevel=2)
    then = before.get("versions") or {}
    other = [f"{name} {then[name]}, now {version}" for name, version in versions().items()
             if then.get(name, version) != version]
    if other:
        warnings.warn(f"versions differ from those of {COMMAND}: {listed(other)}", stacklevel=2)

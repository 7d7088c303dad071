"""What a ``cohort.toml`` may say; misspelt sections and keys are refused by name."""
from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import CohortError, listed, perhaps
from .inputs import read_text
from .modality import Modality
from .problems import Problems
from .tables.features import FOLDER_KEYS, TABLE_KEYS
from .tables.subjects import SUBJECT_KEYS
from .volumes.section import IMAGES_KEYS, MODALITY_KEYS

_SECTIONS = {"subjects": SUBJECT_KEYS, "reference": {"query"}, "images": IMAGES_KEYS}
_EXAMPLES = {"covariates": 'age = "continuous"', "reference": "query = \"diagnosis == 'CN'\"",
             "images": "drop_failed = true"}
_KINDS = {"table": TABLE_KEYS, "images": MODALITY_KEYS, "freesurfer": FOLDER_KEYS}


def read_spec(path: Path) -> dict[str, Any]:
    """The sections of a ``cohort.toml``.

    Raises
    ------
    CohortError
        If it is no TOML file, or with everything that is wrong with its sections and keys.
    """
    try:
        spec = tomllib.loads(read_text(path, "utf-8-sig"))
    except FileNotFoundError as problem:
        raise CohortError(f"there is no file {path}") from problem
    except RecursionError as problem:
        raise CohortError(f"{path} is not a valid TOML file: it is nested too deeply") from problem
    except (ValueError, OSError) as problem:  # also a whole number of thousands of digits
        raise CohortError(f"{path} is not a valid TOML file: {problem}") from problem
    if any("\0" in text for text in _texts(spec)):
        raise CohortError(f"{path} holds a NUL character in a text; no path or name can")
    problems = Problems()
    for needed in ("subjects", "modalities"):
        if not isinstance(spec.get(needed), dict) or not spec[needed]:
            example = "modalities.t1" if needed == "modalities" else needed
            problems.add(f"{path} needs a [{example}] section")
    _stray_keys(path, "the file", spec, {*_SECTIONS, "covariates", "modalities"}, problems)
    for name, example in _EXAMPLES.items():
        if not isinstance(spec.get(name, {}), dict):
            problems.add(f"{path}: {name} must be a section, [{name}], with a line such as "
                         f"{example}; got {spec[name]!r}")
    problems.settle()
    for name, keys in _SECTIONS.items():
        _stray_keys(path, f"[{name}]", spec.get(name, {}), keys, problems)
    with problems.caught():
        if not isinstance(spec["subjects"].get("table"), str):
            raise CohortError(f"[subjects] of {path} needs table = \"…\"")
    for name, key in (("reference", "query"), ("subjects", "id"), ("subjects", "session"),
                      ("subjects", "session_column")):
        if not isinstance(found := spec.get(name, {}).get(key, ""), str):
            problems.add(f"{path}: {key} under [{name}] must be text in quotes; got {found!r:.80}")
    for name, section in spec["modalities"].items():
        with problems.caught():
            _check_modality(path, name, section)
    problems.settle()
    return spec


def _texts(value: Any) -> Iterator[str]:
    """Every key and text in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _check_modality(path: Path, name: str, section: Any) -> None:
    where = f"[modalities.{name}]"
    if not isinstance(section, dict):
        raise CohortError(f"{path}: {where} must be a section with a table, images or freesurfer")
    kinds = [kind for kind in _KINDS if kind in section]
    if len(kinds) > 1:
        raise CohortError(f"{path}: {where} has both a {kinds[0]} and {kinds[1]}; give one")
    problems = Problems()
    with problems.caught():
        Modality(name, ("any",))  # which refuses names that have a meaning, or lead elsewhere
    _stray_keys(path, where, section, _KINDS[kinds[0]] if kinds else
                TABLE_KEYS | {"images", "freesurfer"}, problems)
    problems.settle()
    if not kinds:
        raise CohortError(f"{where} of {path} needs table = \"…\"")
    tables = section.get("table", "")
    if not (isinstance(tables, str) or isinstance(tables, list) and tables
            and all(isinstance(t, str) for t in tables)):
        raise CohortError(f"{where} of {path} needs table = \"…\", or a list of tables")
    if section.get("names", "atlas") not in ("atlas", "file"):
        raise CohortError(f"{path}: {where}: names must be \"atlas\" or \"file\"; got "
                          f"{section['names']!r}")
    if section.get("likelihood", "normal") != "normal":
        raise CohortError(f"{path}: modality {name} asks for likelihood "
                          f"{section['likelihood']!r}; only 'normal' is available")


def _stray_keys(path: Path, where: str, section: Mapping[str, Any], known: set[str],
                problems: Problems) -> None:
    stray = sorted(set(section) - known)
    if stray:
        problems.add(f"{path}: {where} has unknown {listed(stray)}"
                     f"{perhaps(stray, sorted(known))}; it may have {listed(sorted(known), 12)}")

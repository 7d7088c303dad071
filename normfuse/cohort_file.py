"""Reading a cohort from ``cohort.toml`` and the tables it names.

.. code-block:: toml

    [subjects]
    table = "participants.tsv"        # relative to this file; TSV, CSV, ; or | are recognised
    id = "participant_id"             # default: participant_id, else the first column
    drop_incomplete = false           # true: leave out people without covariates or scans

    [covariates]
    age = "continuous"
    sex = "categorical"
    site = "site"

    [reference]
    query = "diagnosis == 'CN'"

    [modalities.t1]
    table = "t1.csv"
    prefix = "CT_"                    # or features = ["…", "…"]; default: every other column
    exclude = ["CT_lh_unknown"]
    unit = "mm"
    likelihood = "normal"

A modality may have one image a person in the place of a table; :mod:`normfuse.volumes.section`
lists its keys.
"""
from __future__ import annotations

import csv
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .cohort import Cohort
from .cohort_checks import MISSING_WORDS, numbers_if_all, with_text_ids
from .errors import CohortError, listed
from .stored import StoredTable
from .volumes.section import IMAGES_KEYS, MODALITY_KEYS, Images, read_sections

_SEPARATORS = "\t,;|"
_SECTIONS = {"subjects": {"table", "id", "drop_incomplete"}, "reference": {"query"},
             "images": IMAGES_KEYS}
_MODALITY_KEYS = {"table", "id", "features", "prefix", "exclude", "unit", "likelihood"}


def read_table(path: Path) -> pd.DataFrame:
    """A delimited text file as text cells; the separator is the one its header uses most.

    Raises
    ------
    CohortError
        If the file is missing, empty, or not text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
        if not header.strip():
            raise CohortError(f"{path} is empty; its first line must name the columns")
        separator = max(_SEPARATORS, key=lambda s: len(next(csv.reader([header], delimiter=s))))
        _no_name_twice(path, next(csv.reader([header], delimiter=separator)))
        with warnings.catch_warnings():  # of a row with more cells than the header: a shifted row
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False,
                                encoding="utf-8-sig", index_col=False)
    except FileNotFoundError as problem:
        raise CohortError(f"there is no table {path}; paths in cohort.toml are relative to "
                          "the file's own folder") from problem
    except pd.errors.ParserWarning as problem:
        raise CohortError(f"{path} has a row with more cells than its first line has names; quote "
                          "cells that hold the separator") from problem
    except (UnicodeDecodeError, pd.errors.ParserError, OSError) as problem:
        raise CohortError(f"{path} is not a readable text table: {problem}") from problem
    table.columns = table.columns.str.strip()
    return table


def _no_name_twice(path: Path, names: list[str]) -> None:
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:  # pandas would call the second one "name.1"
        raise CohortError(f"{path} names a column twice: {listed(twice)}; rename or drop one of "
                          "each")


def read_cohort(path: Path) -> Cohort:
    """The cohort that a ``cohort.toml`` describes; see the module's text for its keys."""
    spec = _read_toml(path)
    folder = path.parent
    tables: dict[Path, pd.DataFrame] = {}

    def indexed(section: Mapping[str, Any], name: str, default_id: str | None) -> pd.DataFrame:
        file = folder / _text(section, "table", f"[{name}] of {path}")
        if file not in tables:
            tables[file] = read_table(file)
        return _by_id(tables[file], section.get("id", default_id), file)

    people = indexed(spec["subjects"], "subjects", None)
    id_column = str(people.index.name)
    images = _read_images(spec, people, folder)
    frames: dict[str, pd.DataFrame | StoredTable] = {}
    units = {}
    measured: set[str] = set()
    for name, section in spec["modalities"].items():
        units[name] = str(section.get("unit", ""))
        if name in images.tables:
            frames[name] = images.tables[name]
            continue
        block = indexed(section, f"modalities.{name}", id_column)
        same_file = section["table"] == spec["subjects"]["table"]
        frames[name] = _feature_columns(name, block, section, people if same_file else None)
        if same_file:
            measured.update(str(column) for column in frames[name].columns)
    covariates = spec.get("covariates", {})
    people = people.drop(columns=sorted(measured.difference(covariates)))
    return Cohort.from_frames(
        _with_numbers(people, covariates), frames, covariates=covariates, units=units,
        spaces=images.spaces, reference=spec.get("reference", {}).get("query"),
        drop_incomplete=bool(spec["subjects"].get("drop_incomplete", False)))


def _read_images(spec: Mapping[str, Any], people: pd.DataFrame, folder: Path) -> Images:
    sections = {name: s for name, s in spec["modalities"].items() if "images" in s}
    if not sections:
        return Images({}, {})
    return read_sections(sections, with_text_ids(people, "the subjects table"), folder,
                         spec.get("images", {}))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        spec = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise CohortError(f"there is no file {path}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as problem:
        raise CohortError(f"{path} is not a valid TOML file: {problem}") from problem
    for needed in ("subjects", "modalities"):
        if not isinstance(spec.get(needed), dict) or not spec[needed]:
            example = "modalities.t1" if needed == "modalities" else needed
            raise CohortError(f"{path} needs a [{example}] section")
    _no_stray_keys(path, "the file", spec,
                   {"subjects", "covariates", "reference", "modalities", "images"})
    for name, example in (("covariates", 'age = "continuous"'),
                          ("reference", "query = \"diagnosis == 'CN'\""),
                          ("images", "drop_failed = true")):
        if not isinstance(spec.get(name, {}), dict):
            raise CohortError(f"{path}: {name} must be a section, [{name}], with a line such as "
                              f"{example}; got {spec[name]!r}")
    for name, keys in _SECTIONS.items():
        _no_stray_keys(path, f"[{name}]", spec.get(name, {}), keys)
    for name, section in spec["modalities"].items():
        if not isinstance(section, dict):
            raise CohortError(f"{path}: [modalities.{name}] must be a section with a table or "
                              "images")
        if "images" in section and "table" in section:
            raise CohortError(f"{path}: [modalities.{name}] has both a table and images; give one")
        _no_stray_keys(path, f"[modalities.{name}]", section,
                       MODALITY_KEYS if "images" in section else _MODALITY_KEYS | {"images"})
        if section.get("likelihood", "normal") != "normal":
            raise CohortError(f"{path}: modality {name} asks for likelihood "
                              f"{section['likelihood']!r}; only 'normal' is available")
    return spec


def _no_stray_keys(path: Path, where: str, section: Mapping[str, Any], known: set[str]) -> None:
    stray = set(section) - known
    if stray:
        raise CohortError(f"{path}: {where} has unknown {listed(sorted(stray))}; "
                          f"it may have {listed(sorted(known), 12)}")


def _text(section: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(section.get(key), str):
        raise CohortError(f"{where} needs {key} = \"…\"")
    return section[key]


def _by_id(table: pd.DataFrame, id_column: str | None, file: Path) -> pd.DataFrame:
    if id_column is None:
        id_column = "participant_id" if "participant_id" in table else str(table.columns[0])
    if id_column not in table:
        raise CohortError(f"{file} has no id column {id_column!r}; it has "
                          f"{listed(table.columns, 8)}. Name it with id = \"…\"")
    return table.set_index(id_column)


def _feature_columns(name: str, block: pd.DataFrame, section: Mapping[str, Any],
                     subjects: pd.DataFrame | None) -> pd.DataFrame:
    if "features" in section and "prefix" in section:
        raise CohortError(f"modality {name}: give features or a prefix, not both")
    if "features" in section:
        wanted = _columns(name, block, section, "features")
    elif "prefix" in section:
        wanted = [str(c) for c in block if str(c).startswith(str(section["prefix"]))]
        if not wanted:
            raise CohortError(f"modality {name}: no column of {section['table']} starts with "
                              f"{section['prefix']!r}")
    elif subjects is not None:
        raise CohortError(f"modality {name} shares its table with the subjects: say which columns "
                          "are its features, by features = [\"…\"] or prefix = \"…\"")
    else:
        wanted = [str(c) for c in block]
    excluded = _columns(name, block, section, "exclude") if "exclude" in section else []
    return block[[c for c in wanted if c not in excluded]]


def _columns(name: str, block: pd.DataFrame, section: Mapping[str, Any], key: str) -> list[str]:
    if not isinstance(section[key], list):
        raise CohortError(f"modality {name}: {key} must be a list, as {key} = [\"…\", \"…\"]; got "
                          f"{section[key]!r}")
    names = [str(f) for f in section[key]]
    unknown = [f for f in names if f not in block]
    if unknown:
        raise CohortError(f"modality {name}: {key} names {listed(unknown)}, which is no column of "
                          f"{section['table']}")
    return names


def _with_numbers(people: pd.DataFrame, covariates: Mapping[str, str]) -> pd.DataFrame:
    """Columns that are no covariates as numbers if all their cells are, so that they compare.

    Codes such as 007 stay text, and n/a becomes a missing value in both.
    """
    typed = {}
    for column in people.columns.difference(list(covariates)):
        words = people[column].str.strip()
        typed[column] = numbers_if_all(words.mask(words.str.lower().isin(MISSING_WORDS)))
    return people.assign(**typed)

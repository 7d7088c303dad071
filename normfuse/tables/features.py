"""A modality's table: read, made wide, its rows given to people and its columns to features."""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import CohortError, listed
from ..volumes.pattern import find_files
from .dialect import DIALECT_KEYS, Dialect
from .enigma import ID, Enigma
from .freesurfer import FREESURFER_KEYS, Statistics, read_folders
from .freesurfer_names import UNITS, Header, atlas_names, is_whole, left_out, without_zeros
from .ids import matched, of_visits, plain_ids, prefixed
from .long import pivoted
from .reading import read_table
from .subjects import People, by_id

_CHOICE = {"features", "prefix", "exclude", "include", "names", "unit", "likelihood"}
TABLE_KEYS = {"table", "id", "id_prefix", "long", "session_column"} | _CHOICE | DIALECT_KEYS
FOLDER_KEYS = FREESURFER_KEYS | _CHOICE


@dataclass(frozen=True, eq=False)
class Source:
    """A table before features are chosen.

    Attributes
    ----------
    table : DataFrame
        Index: subject id.
    where : str
        What it was read from, for messages.
    renamed : dict of str
        Columns that are regions of the atlas -> its names.
    aside : tuple of str
        Columns that are no features unless they are asked for.
    unit : str
        If the file says so.
    """

    table: pd.DataFrame
    where: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    unit: str = ""


def read_source(name: str, section: Mapping[str, Any], people: People | None, folder: Path
                ) -> Source:
    """The tables or FreeSurfer folders of one modality, rows by subject id.

    Parameters
    ----------
    name : str
    section : dict
        Of ``cohort.toml``.
    people : People or None
        None if they could not be read: ids then stay as they are.
    folder : Path
        Of the ``cohort.toml``.

    Raises
    ------
    CohortError
        If they cannot be read, or not without guessing.
    """
    if "freesurfer" in section:
        return _of_folders(name, section, people, folder)
    files = section["table"] if isinstance(section["table"], list) else [section["table"]]
    parts = [_one_table(name, section, people, folder / file) for file in files]
    whole = [c for part in parts for c in part.table if is_whole(str(c))]
    seen: set[str] = set()
    tables = []
    for part in parts:
        again = seen.intersection(part.table)
        if again.difference(whole):
            raise CohortError(f"modality {name}: {listed(sorted(again.difference(whole)))} is in "
                              "more than one of its tables; a feature can be in one")
        tables.append(part.table.drop(columns=sorted(again)))
        seen.update(map(str, part.table))
    table = tables[0]
    if len(tables) > 1:
        _no_row_twice(name, tables, files)
        table = pd.concat(tables, axis=1).rename_axis(str(tables[0].index.name))
    return Source(table, listed(files), {k: v for part in parts for k, v in part.renamed.items()},
                  tuple(dict.fromkeys(c for part in parts for c in part.aside)), parts[0].unit)


def _no_row_twice(name: str, tables: list[pd.DataFrame], files: list[str]) -> None:
    for table, file in zip(tables, files):
        if table.index.has_duplicates:
            raise CohortError(f"modality {name}: {file} has more than one row for "
                              f"{listed(table.index[table.index.duplicated()].unique())}")


def _one_table(name: str, section: Mapping[str, Any], people: People | None, file: Path) -> Source:
    where = f"[modalities.{name}]"
    read = read_table(file, Dialect.of(section, where), id_column=section.get("id"))
    header = Header.of(str(read.columns[0]))
    id_column = section.get("id")
    if id_column is None and header is not None:
        id_column = str(read.columns[0])
    enigma = None
    if id_column is None and ID in read and section.get("names") != "file":
        enigma = Enigma.of(str(column) for column in read if column != ID)
        id_column = ID if enigma else None
    if id_column is None and people is not None and (
            people.id_column in read or "participant_id" not in read):
        id_column = people.id_column
    table = by_id(read, id_column, file)
    if "id_prefix" in section:
        table.index = prefixed(table.index, section["id_prefix"], where)
    if header is not None and people is not None \
            and people.table.index.intersection(table.columns).size:
        raise CohortError(f"modality {name}: {file} has people in its columns; write it without "
                          "--transpose")
    if people is not None:
        table = _rows(table, section, people, file)
    if "long" in section:
        table = pivoted(name, table, section["long"])
    if enigma is not None:
        return Source(table, file.name, enigma.names, enigma.aside, enigma.unit)
    if header is None or section.get("names") == "file":
        renamed = atlas_names(map(str, table)) if section.get("names") == "atlas" else {}
        return Source(table, file.name, renamed)
    table = table.set_axis(header.named(map(str, table.columns)), axis=1)
    table, n_zero = without_zeros(table, header)
    if n_zero:
        warnings.warn(f"modality {name}: {n_zero} zeros in {file.name} are regions that "
                      "aparcstats2table did not find; they were taken as missing", stacklevel=5)
    return Source(table, file.name, atlas_names(map(str, table), header.parcellation),
                  tuple(left_out(map(str, table))), UNITS.get(header.measure, ""))


def _rows(table: pd.DataFrame, section: Mapping[str, Any], people: People, file: Path
          ) -> pd.DataFrame:
    """Rows by subject id, of the visits chosen if there is a choice."""
    column = section.get("session_column", "session_id")
    if "session_column" in section and column not in table:
        raise CohortError(f"{file} has no column {column!r}; it has {listed(table.columns, 8)}")
    if not people.visits:
        return matched(table, people.table.index, file.name)
    persons = pd.Index(sorted(people.persons))
    table = matched(of_visits(table, people.visits, people.persons, file.name),
                    people.table.index.union(persons), file.name)
    if column not in table:  # of people who have the session chosen; others are not in the cohort
        one = all(who == person for who, (person, _) in people.visits.items())
        return table[~table.index.isin(persons.difference(people.table.index))] if one else table
    session = plain_ids(pd.Index(table[column]))
    session = session.map(lambda s: s if s.startswith("ses-") else f"ses-{s}")
    who = {visit: subject for subject, visit in people.visits.items()}
    at = [who.get(visit) or ("" if visit[0] in people.persons else visit[0])
          for visit in zip(table.index, session)]  # strangers stay, to be refused by name
    kept = table.set_axis(pd.Index(at, name=table.index.name), axis=0).drop(columns=column)
    return kept[kept.index != ""]


def _of_folders(name: str, section: Mapping[str, Any], people: People | None, folder: Path
                ) -> Source:
    if people is None:
        raise CohortError(f"modality {name}: its folders cannot be looked for without people")
    if not isinstance(section["freesurfer"], str) or "stats" not in section:
        raise CohortError(f"modality {name}: freesurfer is a folder with {{id}} in it, beside "
                          "stats = \"aparc.thickness\", for instance")
    unique = people.table[~people.table.index.duplicated()]
    folders = find_files(name, people.pattern(section["freesurfer"]), unique, folder)
    table = read_folders(name, folders, section["stats"])
    wanted = section["stats"] if isinstance(section["stats"], list) else [section["stats"]]
    kinds = [Statistics.of(words, name) for words in wanted]
    units = {UNITS.get(kind.measure, "") for kind in kinds}
    by_file = section.get("names") == "file"
    cortical = {kind.parcellation for kind in kinds if kind.sides != ("",)} - {"aparc"}
    made_with = "other" if cortical else "aparc"
    renamed = {} if by_file else atlas_names(map(str, table), made_with)
    return Source(table, section["freesurfer"], renamed, tuple(left_out(map(str, table))),
                  units.pop() if len(units) == 1 else "")


def chosen_features(name: str, source: Source, section: Mapping[str, Any],
                    covariates: Mapping[str, Any], shared: bool) -> pd.DataFrame:
    """The columns that are features, under the names they will have.

    Parameters
    ----------
    shared : bool
        The table is that of the subjects, too, so that features must be named.

    Raises
    ------
    CohortError
        If a column that is named is not there, or nothing is left.
    """
    block = source.table
    if "features" in section and "prefix" in section:
        raise CohortError(f"modality {name}: give features or a prefix, not both")
    if "features" in section:
        wanted = _columns(name, source, section, "features")
    elif "prefix" in section:
        wanted = [str(c) for c in block if str(c).startswith(str(section["prefix"]))]
        if not wanted:
            raise CohortError(f"modality {name}: no column of {source.where} starts with "
                              f"{section['prefix']!r}")
    elif shared:
        raise CohortError(f"modality {name} shares its table with the subjects: say which columns "
                          "are its features, by features = [\"…\"] or prefix = \"…\"")
    else:
        asked = _columns(name, source, section, "include") if "include" in section else []
        wanted = [str(c) for c in block
                  if c in asked or c not in source.aside]
    excluded = _columns(name, source, section, "exclude") if "exclude" in section else []
    if source.aside:  # covariates that a FreeSurfer table brings along are no regions
        excluded += [c for c in covariates if c in source.aside]
    kept = block[[c for c in wanted if c not in excluded]]
    return kept.rename(columns=dict(source.renamed))


def _columns(name: str, source: Source, section: Mapping[str, Any], key: str) -> list[str]:
    """The columns that a list names, by their own names or the atlas's."""
    if not isinstance(section[key], list):
        raise CohortError(f"modality {name}: {key} must be a list, as {key} = [\"…\", \"…\"]; got "
                          f"{section[key]!r}")
    own = {new: old for old, new in source.renamed.items()}
    names = [f if f in source.table else own.get(f, f) for f in map(str, section[key])]
    unknown = [f for f in names if f not in source.table]
    if unknown:
        raise CohortError(f"modality {name}: {key} names {listed(unknown)}, which is no column of "
                          f"{source.where}")
    return names

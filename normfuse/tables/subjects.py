"""The subjects table of a ``cohort.toml``: one row a person, or a visit, cells as text."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..cohort_checks import numbers_if_all, without_missing_words
from ..errors import CohortError, listed, perhaps
from .described import Described, described
from .dialect import DIALECT_KEYS, Dialect
from .ids import plain_ids, prefixed
from .reading import read_table
from .sessions import PERSON, SESSION, chosen, read_sessions, with_visits

SUBJECT_KEYS = {"table", "id", "id_prefix", "drop_incomplete", "sessions", "session",
                "session_column"} | DIALECT_KEYS


@dataclass(frozen=True, eq=False)
class People:
    """Who is in the cohort.

    Attributes
    ----------
    table : DataFrame of str
        Index: subject id.
    id_column : str
        What the index was called in its file.
    visits : dict
        Subject id -> (person, session); empty if sessions were not chosen.
    persons : frozenset of str
        Everybody in the subjects table, those without the session chosen, too.
    described : dict
        Column -> what ``participants.json`` says of it.
    """

    table: pd.DataFrame
    id_column: str
    visits: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    persons: frozenset[str] = frozenset()
    described: Mapping[str, Described] = field(default_factory=dict)

    def pattern(self, pattern: str) -> str:
        """A pattern of files in which ``{id}`` is the person, whatever a visit is called."""
        return pattern.replace("{id}", f"{{{PERSON}}}") if self.visits else pattern


def by_id(table: pd.DataFrame, id_column: str | None, file: Path) -> pd.DataFrame:
    """The table on its id column; by default ``participant_id``, else the first."""
    if id_column is None:
        id_column = "participant_id" if "participant_id" in table else str(table.columns[0])
    if id_column not in table:
        raise CohortError(f"{file} has no id column {id_column!r}"
                          f"{perhaps([id_column], map(str, table.columns))}; it has "
                          f"{listed(table.columns, 8)}. Name it with id = \"…\"")
    rest = table.drop(columns=id_column)
    return rest.set_axis(plain_ids(pd.Index(table[id_column])).rename(id_column), axis=0)


def read_people(section: Mapping[str, Any], folder: Path, session: str | None = None) -> People:
    """What the section ``[subjects]`` describes.

    Parameters
    ----------
    section : dict
    folder : Path
        Of the ``cohort.toml``.
    session : str, optional
        In place of what the section says.

    Raises
    ------
    CohortError
        If a table cannot be read, or nobody has that session.
    """
    file, dialect = folder / section["table"], Dialect.of(section, "[subjects]")
    people = as_text(by_id(read_table(file, dialect, id_column=section.get("id")),
                           section.get("id"), file))
    if "id_prefix" in section:
        people.index = prefixed(people.index, section["id_prefix"], "[subjects]")
    id_column = str(people.index.name)
    session = session or section.get("session")
    if session is None:
        if "sessions" in section:
            raise CohortError("[subjects] names sessions but not which of them: say session = "
                              "\"first\", \"last\", \"all\" or the name of one, as \"ses-01\"")
        return People(people, id_column, described=described(file))
    persons = frozenset(people.index)
    people = _at(section, people, folder, dialect, str(session))
    visits = {str(who): (person, name if name.startswith("ses-") else f"ses-{name}")
              for who, person, name in zip(people.index, people[PERSON], people[SESSION])}
    return People(people, id_column, visits, persons, described(file))


def _at(section: Mapping[str, Any], people: pd.DataFrame, folder: Path, dialect: Dialect,
        session: str) -> pd.DataFrame:
    """The subjects at the session chosen."""
    if "sessions" in section:
        # a sessions.tsv beside a workbook is no workbook; what it shows itself is enough
        visits = read_sessions(str(section["sessions"]), people.index, folder, Dialect())
        return with_visits(people, as_text(chosen(visits, session)), every=session == "all")
    column = section.get("session_column", "session_id")
    if column not in people:
        raise CohortError(f"session = {session!r} needs a table of visits: name it, as sessions = "
                          "\"sessions.tsv\" or \"{id}/{id}_sessions.tsv\" under [subjects], or "
                          "say which column of the subjects table is the session, as "
                          "session_column = \"visit\"")
    visits = people.rename(columns={column: SESSION}).rename_axis(PERSON).reset_index()
    again = visits[visits.duplicated([PERSON, SESSION])]
    if len(again):
        raise CohortError(f"the subjects table has a visit twice: "
                          f"{listed(again[PERSON] + ' ' + again[SESSION])}; keep one row each")
    nobody = pd.DataFrame(index=people.index.unique())
    return with_visits(nobody, chosen(visits, session), every=session == "all")


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """All cells as text; whole numbers without a fraction, missing ones empty."""
    text = {}
    for column in table.columns[[pd.api.types.is_numeric_dtype(t) for t in table.dtypes]]:
        text[column] = pd.Series(plain_ids(pd.Index(table[column])), table.index)
    return table.assign(**text)


def with_numbers(people: pd.DataFrame, covariates: Mapping[str, Any]) -> pd.DataFrame:
    """Columns that are no covariates as numbers if all their cells are, so that they compare.

    Codes such as 007 stay text, and n/a becomes a missing value in both.
    """
    typed = {column: numbers_if_all(without_missing_words(people[column]).astype("str"))
             for column in people.columns.difference([*covariates, PERSON, SESSION])}
    return people.assign(**typed)

"""BIDS sessions: which visit of each person, and what is known of that visit.

``sessions.tsv`` is one table of all people with ``participant_id`` and ``session_id``, or one file
a person, ``sub-01/sub-01_sessions.tsv`` with ``session_id``.
"""
from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from ..errors import CohortError, listed
from .dialect import Dialect
from .ids import matched, plain_ids
from .reading import read_table

SESSION, PERSON = "session", "person"
"""Columns of the subjects table: the visit, and whose it is. ``compare_visits`` looks for them."""


def read_sessions(pattern: str, people: pd.Index, folder: Path, dialect: Dialect) -> pd.DataFrame:
    """All visits, one row each, in order of the file: columns ``person``, ``session`` and others.

    Parameters
    ----------
    pattern : str
        One file, or one a person with ``{id}`` in it; people without one have no visit.
    people : Index of str
        Ids of the subjects table.
    folder : Path
        Of the ``cohort.toml``.
    dialect : Dialect

    Raises
    ------
    CohortError
        If there is no file, no ``session_id``, or a visit is there twice.
    """
    if "{id}" in pattern:
        files = {who: folder / pattern.replace("{id}", who) for who in people}
        there = {who: path for who, path in files.items() if path.is_file()}
        if not there:
            raise CohortError(f"sessions = {pattern!r} fits none of {len(people)} people; the "
                              f"first should be {next(iter(files.values()), pattern)}")
        parts = {who: read_table(path, dialect, id_column="session_id")
                 for who, path in there.items()}
        for who, part in parts.items():
            _needs(part, "session_id", there[who])
        visits = pd.concat(parts, names=[PERSON]).reset_index(PERSON).reset_index(drop=True)
        visits = visits.drop(columns="participant_id", errors="ignore").fillna("")
    else:
        table = read_table(folder / pattern, dialect)
        _needs(table, "session_id", folder / pattern)
        _needs(table, "participant_id", folder / pattern)
        table = table.set_index(plain_ids(pd.Index(table["participant_id"])))
        visits = matched(table, people, pattern).drop(columns="participant_id")
        visits = visits.rename_axis(PERSON).reset_index()
    visits = visits.rename(columns={"session_id": SESSION})
    visits[SESSION] = plain_ids(pd.Index(visits[SESSION]))
    again = visits[visits.duplicated([PERSON, SESSION])]
    if len(again):
        twice = [f"{row[SESSION]} of {row[PERSON]}" for _, row in again.iterrows()]
        raise CohortError(f"{pattern} has a visit twice: {listed(twice)}; keep one row each")
    return visits


def _needs(table: pd.DataFrame, column: str, file: Path) -> None:
    if column not in table:
        raise CohortError(f"{file} has no column {column}; it has {listed(table.columns, 8)}")


def chosen(visits: pd.DataFrame, session: str) -> pd.DataFrame:
    """The visits that are meant: ``"first"``, ``"last"``, ``"all"`` or the name of one.

    A person's visits are in order of ``acq_time`` if all of that person's have one, else of the
    file.

    Raises
    ------
    CohortError
        If nobody has that session.

    Examples
    --------
    >>> visits = pd.DataFrame({"person": ["s1", "s1"], "session": ["ses-2", "ses-1"],
    ...                        "acq_time": ["2021-05-01T10:00:00", "2019-05-01T10:00:00"]})
    >>> chosen(visits, "first")["session"].tolist(), chosen(visits, "ses-2")["session"].tolist()
    (['ses-1'], ['ses-2'])
    """
    if session == "all":
        return visits
    if session in ("first", "last"):
        ordered = visits
        if "acq_time" in visits:
            when = pd.to_datetime(visits["acq_time"], errors="coerce", format="ISO8601", utc=True)
            dated = when.notna().groupby(visits[PERSON]).transform("all")
            order = when.where(dated).groupby(visits[PERSON]).rank(method="first")
            ordered = visits.assign(_order=order).sort_values([PERSON, "_order"], kind="stable")
            ordered = ordered.drop(columns="_order")
        return ordered.drop_duplicates(PERSON, keep=session)  # type: ignore[call-overload]
    named = {session, f"ses-{session}"}
    found = visits[visits[SESSION].isin(named)]
    if found.empty:
        raise CohortError(f"nobody has session {session!r}; there are "
                          f"{listed(visits[SESSION].unique(), 12)}. Or say \"first\", \"last\" or "
                          "\"all\"")
    return found


def with_visits(people: pd.DataFrame, visits: pd.DataFrame, *, every: bool) -> pd.DataFrame:
    """The subjects table with one row a visit, columns of both; those of the visit win.

    Parameters
    ----------
    people : DataFrame
        Index: id.
    visits : DataFrame
        Of :func:`chosen`.
    every : bool
        All visits: ids become ``sub-01_ses-2``, by which the visits of one person are known.

    Raises
    ------
    CohortError
        If a visit is of somebody who is not in the subjects table.
    """
    strangers = pd.Index(visits[PERSON].unique()).difference(people.index)
    if len(strangers):
        raise CohortError(f"there are sessions of {listed(strangers)}, who are not in the "
                          "subjects table")
    none = people.index.difference(pd.Index(visits[PERSON]))
    if len(none):
        warnings.warn(f"left out {len(none)} of {len(people)} subjects without the session "
                      f"chosen: {listed(none)}", stacklevel=4)
    own = visits.set_index(PERSON, drop=False)
    own = own.loc[[i for i in people.index if i in own.index]]
    both = [c for c in own if c in people and c not in (PERSON, SESSION)]
    rows = people.drop(columns=[c for c in own if c in people]).loc[own.index]
    joined = pd.concat([rows.reset_index(drop=True), own.reset_index(drop=True)], axis=1)
    for column in both:  # of a visit that says nothing, what is known of the person
        words = joined[column].astype(str).str.strip().str.lower()
        known = people[column].loc[own.index].to_numpy()
        joined[column] = joined[column].where(~words.isin(["", "n/a"]), known)
    ids = [f"{person}_{name if name.startswith('ses-') else f'ses-{name}'}" if every else person
           for person, name in zip(joined[PERSON], joined[SESSION])]
    return joined.set_axis(pd.Index(ids, name=people.index.name), axis=0)

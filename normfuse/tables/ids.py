"""Whose rows these are, where a table writes ids otherwise than the subjects table does."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping

import pandas as pd

from ..errors import CohortError, listed

_WAYS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("with sub- before them", lambda i: f"sub-{i}"),
    ("without their sub-", lambda i: i.removeprefix("sub-")),
    ("by the last part of their path", lambda i: i.rstrip("/").rpartition("/")[2]),
    ("without .0 at their end", lambda i: i.removesuffix(".0")))


def plain_ids(index: pd.Index) -> pd.Index:
    """Ids as stripped text; numbers without a fraction are whole.

    >>> plain_ids(pd.Index([7.0, 12.0])).tolist(), plain_ids(pd.Index([" 007 "])).tolist()
    (['7', '12'], ['007'])
    """
    if pd.api.types.is_float_dtype(index) and (index.dropna() % 1 == 0).all():
        index = index.astype("Int64")
    return index.where(index.notna(), "").astype(str).str.strip()


def prefixed(index: pd.Index, prefix: object, where: str) -> pd.Index:
    """Ids with a prefix before those that lack it.

    Raises
    ------
    CohortError
        If the prefix is not text.
    """
    if not isinstance(prefix, str):
        raise CohortError(f"{where}: id_prefix must be text, as \"sub-\"; got {prefix!r}")
    return index.map(lambda i: i if i.startswith(prefix) or not i else prefix + i)


def matched(table: pd.DataFrame, people: pd.Index, where: str) -> pd.DataFrame:
    """The table with its ids written as those of ``people``, if there is one way to read them.

    Only if no id fits as it stands, and exactly one way of writing them makes them fit; then a
    warning says which.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as notes:
    ...     warnings.simplefilter("always")
    ...     table = pd.DataFrame({"insula": [2.5]}, index=["01"])
    ...     matched(table, pd.Index(["sub-01", "sub-02"]), "t1.csv").index.tolist()
    ...     print(notes[0].message)
    ['sub-01']
    t1.csv writes other ids than the subjects table; they were taken with sub- before them (01 is \
sub-01; 1 of 1 fit)
    """
    ids = table.index
    if ids.isin(people).any() or not len(ids):
        return table
    found = {}
    for how, rewrite in _WAYS:
        other = ids.map(rewrite)
        # two ids that become one would be two people taken for one
        if other.isin(people).any() and other.nunique() == ids.nunique():
            found[how] = other
    if len(found) != 1:
        return table
    (how, other), = found.items()
    first = int(other.isin(people).argmax())
    warnings.warn(f"{where} writes other ids than the subjects table; they were taken {how} "
                  f"({ids[first]} is {other[first]}; {int(other.isin(people).sum())} of "
                  f"{len(ids)} fit)", stacklevel=4)
    return table.set_axis(other.rename(ids.name), axis=0)


def of_visits(table: pd.DataFrame, visits: Mapping[str, tuple[str, str]],
              persons: Collection[str], where: str) -> pd.DataFrame:
    """The rows whose id is a person and session, as ``sub-01_ses-2``, of the visits chosen.

    Parameters
    ----------
    table : DataFrame
        Index: id.
    visits : dict
        Subject id of the cohort -> (person, session).
    persons : collection of str
        Everybody who is known; others stay, to be refused by name.
    where : str
        For messages.
    """
    wanted = {f"{person}_{session}": who for who, (person, session) in visits.items()}
    ids = table.index
    if not ids.isin(list(wanted)).any() or ids.isin(list(persons)).any():
        return table
    other = [i for i in ids if i not in wanted and i.partition("_ses-")[0] in persons]
    if other:
        warnings.warn(f"{where}: {len(other)} rows of visits that were not chosen were left out "
                      f"({listed(other, 3)})", stacklevel=4)
    kept = table[~ids.isin(other)]
    return kept.set_axis(kept.index.map(lambda i: wanted.get(i, i)).rename(ids.name), axis=0)

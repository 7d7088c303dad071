"""Long tables, one row a person and feature, turned into one row a person."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..cohort_checks import MISSING_WORDS
from ..errors import CohortError, listed, perhaps
from ..inputs import UnfitFileError, refuse_cells

LONG_KEYS = {"feature", "value"}


def pivoted(name: str, table: pd.DataFrame, long: Any) -> pd.DataFrame:
    """One row a person, one column a feature, in the order in which these come.

    Parameters
    ----------
    name : str
        Of the modality, for messages.
    table : DataFrame
        Index: id, many rows each.
    long : dict
        ``feature``: the column, or columns, that name the feature; several are joined by ``_``.
        ``value``: the column that holds what was measured.

    Raises
    ------
    CohortError
        If the keys or columns are others, a feature has no name, or a person has two values of
        one feature.

    Examples
    --------
    >>> table = pd.DataFrame({"side": ["lh", "rh", "lh"], "region": "insula",
    ...                       "mm": [2.5, 2.6, 2.4]}, index=["s1", "s1", "s2"])
    >>> pivoted("t1", table, {"feature": ["side", "region"], "value": "mm"}).loc["s1"].to_dict()
    {'lh_insula': 2.5, 'rh_insula': 2.6}
    """
    parts, value = _columns(name, table, long)
    words = table[parts].astype(str).apply(lambda column: column.str.strip())
    nameless = words.apply(lambda column: column.str.lower().isin(MISSING_WORDS)).any(axis=1)
    if nameless.any():
        raise CohortError(f"modality {name}: {int(nameless.sum())} rows name no feature, the "
                          f"first of {table.index[nameless.to_numpy()][0]}; fill in "
                          f"{listed(parts)}")
    features = words.agg("_".join, axis=1)
    ids = pd.Series(table.index.astype(str).str.strip(), features.index)
    keys = pd.MultiIndex.from_arrays([ids, features])
    if keys.has_duplicates:
        again = keys[keys.duplicated()].unique()
        raise CohortError(f"modality {name} has more than one value for "
                          f"{listed(f'{feature} of {who}' for who, feature in again)}; keep one "
                          "(of repeated visits, choose one: session under [subjects])")
    try:  # a row a person, each with a region of its own, becomes a square
        refuse_cells(ids.nunique(), features.nunique())
    except UnfitFileError as problem:
        raise CohortError(f"modality {name}: {problem}; does {listed(parts)} name regions?") \
            from problem
    wide = pd.Series(table[value].to_numpy(), keys).unstack()
    wide = wide.loc[ids.unique(), features.unique()]
    return wide.rename_axis(index=table.index.name, columns=None)


def _columns(name: str, table: pd.DataFrame, long: Any) -> tuple[list[str], str]:
    example = "long = { feature = \"region\", value = \"thickness\" }"
    if not isinstance(long, Mapping) or set(long) != LONG_KEYS:
        raise CohortError(f"modality {name}: a long table is described as {example}; got {long!r}")
    parts = long["feature"] if isinstance(long["feature"], list) else [long["feature"]]
    wanted = [*parts, long["value"]]
    if not parts or not all(isinstance(column, str) for column in wanted):
        raise CohortError(f"modality {name}: feature and value name columns, as {example}; got "
                          f"{long!r}")
    unknown = [column for column in wanted if column not in table]
    if unknown:
        raise CohortError(f"modality {name}: {listed(unknown)} is no column of the long table"
                          f"{perhaps(unknown, map(str, table.columns))}; it has "
                          f"{listed(table.columns, 12)}")
    return parts, long["value"]

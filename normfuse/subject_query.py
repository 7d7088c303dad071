"""Choosing subjects by a question such as ``diagnosis == 'CN' and age > 50``.

Questions come from files (``cohort.toml``) and command lines, and pandas would run any expression
it is given, method calls included. So only comparisons of columns with constants are let through.
"""
from __future__ import annotations

import ast
import re

import pandas as pd

from .errors import CohortError, listed

_ALLOWED = (ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert,
            ast.USub, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In,
            ast.NotIn, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.BinOp,
            ast.BitAnd, ast.BitOr)


def matching(subjects: pd.DataFrame, query: str) -> pd.Series:
    """Which subjects answer the question: a boolean Series on the table's index.

    Column names with spaces go in backticks. A missing value matches no comparison but ``!=``.

    Raises
    ------
    CohortError
        If the query is not a comparison of columns with constants, or names an unknown column.

    Examples
    --------
    >>> people = pd.DataFrame({"diagnosis": ["CN", "AD"], "age": [70, 71]}, index=["a", "b"])
    >>> matching(people, "diagnosis == 'CN' and age < 75").tolist()
    [True, False]
    """
    if not isinstance(query, str):
        raise CohortError(f"a query is text such as \"diagnosis == 'CN'\"; got {query!r}")
    for name in _column_names(query):
        if name not in subjects.columns:
            raise CohortError(f"the query {query!r} names {name!r}, which is not a column of the "
                              f"subjects table; it has {listed(subjects.columns, 12)}")
    try:
        answer = subjects.query(query, engine="python")
    except Exception as problem:  # pandas raises many types for one thing: a query it cannot run
        raise CohortError(f"the query {query!r} cannot be answered: {problem}") from problem
    return pd.Series(subjects.index.isin(answer.index), index=subjects.index)


def _column_names(query: str) -> list[str]:
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        key = f"backtick_{len(quoted)}"
        quoted[key] = match.group(1)
        return key

    try:
        tree = ast.parse(re.sub(r"`([^`]+)`", stand_in, query).strip(), mode="eval")
    except (SyntaxError, ValueError) as problem:
        raise CohortError(f"the query {query!r} is not an expression such as "
                          "\"diagnosis == 'CN' and age > 50\"") from problem
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise CohortError(
                f"the query {query!r} holds {type(node).__name__}; only comparisons of columns "
                "with constants, joined by and / or / not, are allowed")
    if not any(isinstance(node, ast.Compare) for node in ast.walk(tree)):
        raise CohortError(f"the query {query!r} compares nothing; write for example "
                          "\"diagnosis == 'CN'\"")
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return [quoted.get(name, name) for name in names]

"""Choosing subjects by a question such as ``diagnosis == 'CN' and age > 50``.

Questions come from files (``cohort.toml``) and command lines, and pandas would run any expression
it is given, method calls included. So the question is parsed here into comparisons of columns with
constants, and only those are ever evaluated.
"""
from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from .errors import CohortError, listed

EVERYBODY = ("all", "everybody")
"""Queries that select everyone: a cohort of healthy people only."""

_LONGEST = 2000
_QUOTED_OR_BACKTICK = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`([^`\n]+)`")
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda column, values: column.isin(values),
    ast.NotIn: lambda column, values: ~column.isin(values)}


def matching(subjects: pd.DataFrame, query: str) -> pd.Series:
    """Which subjects answer the question: a boolean Series on the table's index.

    Comparisons (``== != < <= > >= in``, ``not in``) of a column with a constant or a list of them,
    joined by ``and``, ``or``, ``not`` and parentheses; column names with spaces go in backticks. A
    missing value matches no comparison but ``!=`` and ``not in``. ``participant_id`` is the id;
    the query ``all`` (or ``everybody``) selects everyone.

    Raises
    ------
    CohortError
        If the query is anything else, or names an unknown column.

    Examples
    --------
    >>> people = pd.DataFrame({"diagnosis": ["CN", "AD"], "age": [70, 71]}, index=["a", "b"])
    >>> matching(people, "diagnosis == 'CN' and 60 < age < 75").tolist()
    [True, False]
    """
    if isinstance(query, str) and query.strip().lower() in EVERYBODY:
        return pd.Series(True, index=subjects.index)
    if not isinstance(query, str) or len(query) > _LONGEST:
        raise CohortError("a query is text such as \"diagnosis == 'CN'\", at most "
                          f"{_LONGEST} characters long; got {str(query)[:60]!r}")
    columns: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group(0)  # a quoted constant, which may hold backticks
        columns[f"_column_{len(columns)}"] = match.group(1)
        return f"_column_{len(columns) - 1}"

    try:
        tree = ast.parse(_QUOTED_OR_BACKTICK.sub(stand_in, query).strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as problem:
        raise CohortError(f"the query {query!r} is not an expression such as "
                          "\"diagnosis == 'CN' and age > 50\"") from problem
    if not isinstance(tree.body, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp)):
        raise CohortError(f"the query {query!r} compares nothing; write for example "
                          "\"diagnosis == 'CN'\"")
    try:
        return _Question(subjects, columns, query).answer(tree.body)
    except RecursionError as problem:
        raise CohortError(f"the query {query[:60]!r}… is nested too deeply") from problem


class _Question:
    def __init__(self, subjects: pd.DataFrame, columns: Mapping[str, str], query: str) -> None:
        self.subjects, self.columns, self.query = subjects, columns, query

    def answer(self, node: ast.AST) -> pd.Series:
        if isinstance(node, ast.BoolOp):
            parts = [self.answer(part) for part in node.values]
            return self._joined(parts, operator.and_ if isinstance(node.op, ast.And)
                                else operator.or_)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            parts = [self.answer(node.left), self.answer(node.right)]
            return self._joined(parts, operator.and_ if isinstance(node.op, ast.BitAnd)
                                else operator.or_)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
            return ~self.answer(node.operand)
        if isinstance(node, ast.Compare):
            sides = [self._value(side) for side in (node.left, *node.comparators)]
            return self._joined([self._compared(left, op, right) for left, op, right
                                 in zip(sides, node.ops, sides[1:])], operator.and_)
        raise self._refusal(node)

    @staticmethod
    def _joined(parts: list[pd.Series], how: Callable[[Any, Any], Any]) -> pd.Series:
        whole = parts[0]
        for part in parts[1:]:
            whole = how(whole, part)
        return whole

    def _compared(self, left: Any, op: ast.cmpop, right: Any) -> pd.Series:
        if type(op) not in _COMPARISONS:
            raise self._refusal(op)
        if isinstance(op, (ast.In, ast.NotIn)) != isinstance(right, list) \
                or not any(isinstance(side, pd.Series) for side in (left, right)):
            raise CohortError(f"the query {self.query!r} must compare columns with constants, as "
                              "in \"age > 50\" or \"site in ['a', 'b']\"")
        try:
            found = _COMPARISONS[type(op)](left, right)
        except TypeError as problem:
            raise CohortError(f"the query {self.query!r} cannot be answered, it compares text "
                              f"with a number: {problem}") from problem
        return found.fillna(False).astype(bool)

    def _value(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name):
            name = self.columns.get(node.id, node.id)
            if name == self.subjects.index.name:
                return self.subjects.index.to_series()
            if name not in self.subjects.columns:
                raise CohortError(f"the query {self.query!r} names {name!r}, which is not a "
                                  "column of the subjects table; it has "
                                  f"{listed(self.subjects.columns, 12)}")
            return self.subjects[name]
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool)):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._constant(item) for item in node.elts]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) \
                and isinstance(node.operand, ast.Constant) \
                and isinstance(node.operand.value, (int, float)):
            return -node.operand.value
        raise self._refusal(node)

    def _constant(self, node: ast.AST) -> Any:
        value = self._value(node)
        if isinstance(value, (pd.Series, list)):
            raise self._refusal(node)
        return value

    def _refusal(self, node: ast.AST) -> CohortError:
        return CohortError(f"the query {self.query!r} holds {type(node).__name__}; only "
                           "comparisons of columns with constants, joined by and / or / not, are "
                           "allowed")

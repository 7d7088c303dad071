"""Every public name has an example that runs: its own, or, of a method, one that calls it.

The examples themselves are run as doctests (``--doctest-modules``).
"""
from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

MODULES = ("normfuse", "normfuse.analyses", "normfuse.analyses.figures", "normfuse.fusion",
           "normfuse.inference", "normfuse.kinds", "normfuse.models", "normfuse.networks",
           "normfuse.regression", "normfuse.testing", "normfuse.volumes")
USED = MODULES[:3]
"""Whose classes people hold in their hands: of these the methods need an example, too."""
WITHOUT = ("normfuse.analyses.report_voxels.",)
"""What the report is made of: nobody is meant to call it by hand."""
SHORT = 2  # statements of a method too plain to need an example


def public(module: str) -> Iterator[tuple[str, Any]]:
    """Classes and functions that a module names as its own, or defines if it names none."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, value in vars(found).items() if not name.startswith("_")
        and getattr(value, "__module__", "") == module]
    for name in names:
        value = getattr(found, name)
        # what is abstract is shown by its members
        if inspect.isfunction(value) or inspect.isclass(value) and not inspect.isabstract(value):
            yield name, value


@cache
def examples(docstring: str | None) -> str:
    """What a docstring runs."""
    return "".join(e.source for e in doctest.DocTestParser().get_examples(docstring or ""))


@cache
def examples_beside(module: str) -> str:
    """What all docstrings of a module run."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return "".join(examples(ast.get_docstring(node)) for node in ast.walk(tree)
                   if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))


def methods(owner: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class itself, those that are not plain."""
    for name, value in vars(owner).items():
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or \
            getattr(value, "func", None) or value
        if name.startswith("_") or not inspect.isfunction(function) \
                or function.__module__ != owner.__module__ \
                or getattr(function, "__isabstractmethod__", False) \
                or any(name in vars(base) for base in owner.__mro__[1:]):
            continue
        (made,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        statements = sum(isinstance(node, ast.stmt) for node in ast.walk(made)) - 1
        if statements - bool(ast.get_docstring(made)) > SHORT:
            yield name, function


def names() -> dict[str, bool]:
    """Every public name, and whether it has an example."""
    found = {}
    for module in MODULES:
        for name, value in public(module):
            full = f"{value.__module__}.{name}"
            if not full.startswith("normfuse") or full.startswith(WITHOUT):
                continue
            found[full] = bool(examples(inspect.getdoc(value))) and value.__doc__ is not None
            if inspect.isclass(value) and module in USED:
                beside = examples_beside(value.__module__)
                for part, function in methods(value):
                    found[f"{full}.{part}"] = bool(examples(function.__doc__)) or \
                        re.search(rf"\.{part}\b", beside) is not None
    return found


def test_every_public_name_has_an_example():
    every = names()
    assert len(every) > 180
    assert [name for name, has in every.items() if not has] == []


@pytest.mark.parametrize("docstring, ran", [(">>> 1 + 1\n2", "1 + 1\n"), ("none", ""), (None, "")])
def test_examples_are_found(docstring, ran):
    assert examples(docstring) == ran

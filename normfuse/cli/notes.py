"""Warnings as notes on stderr: each once, in the form that it was written in."""
from __future__ import annotations

import os
import warnings
from types import TracebackType
from typing import ClassVar

import typer


class Notes:
    """While it is open, warnings are printed and collected in ``texts``, each text once.

    A command inside another (the demo's) does not print again what that has printed.
    """

    _open: ClassVar[list[Notes]] = []

    def __init__(self, verbose: bool = False) -> None:
        self.verbose = verbose
        self.texts: list[str] = []

    def __enter__(self) -> Notes:
        self._as_ever = warnings.catch_warnings()
        self._as_ever.__enter__()
        warnings.showwarning = self._show
        # Python says a text once a place in the code; here it is the text that counts. What the
        # user ignores (PYTHONWARNINGS) stays ignored.
        warnings.simplefilter("always", UserWarning, append=True)
        self._open.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._open.pop()
        if self._open:
            around = self._open[-1].texts
            around += [text for text in self.texts if text not in around]
        self._as_ever.__exit__(kind, error, trace)

    def _show(self, message: Warning | str, category: type[Warning], filename: str, lineno: int,
              file: object = None, line: str | None = None) -> None:
        text = as_written(message)
        known = any(text in notes.texts for notes in self._open)
        if text not in self.texts:
            self.texts.append(text)
        # of processes that torchrun started one notes
        if not known and os.environ.get("RANK", "0") == "0":
            source = f" [{category.__name__}, {filename}:{lineno}]" if self.verbose else ""
            typer.secho(indented(f"note: {text}{source}"), fg="yellow", err=True)


def as_written(text: object) -> str:
    r"""Lines stay lines, without what a terminal would take for a command.

    >>> as_written("2 images look wrong:\n  * flat\x1b[31m  \n")
    '2 images look wrong:\n  * flat[31m'
    """
    lines = ("".join(c for c in line if c.isprintable()).rstrip()
             for line in str(text).splitlines())
    return "\n".join(line for line in lines if line)


def indented(text: str) -> str:
    r"""Further lines of a message stand below its first.

    >>> indented("note: two\n* one")
    'note: two\n      * one'
    """
    return text.replace("\n", "\n      ")

"""What all verbs have in common: --json, --config, notes, refusals, Ctrl-C, and command.json."""
from __future__ import annotations

import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import NormfuseError
from . import command_file
from .advice import as_options
from .application import INTERRUPTED, REFUSED, app
from .made import Made, answer
from .notes import Notes, as_written, indented

_COMMON = {
    "as_json": (Annotated[bool, typer.Option(
        "--json", help="Print one JSON object, for programs; all else goes to stderr.")], False),
    "verbose": (Annotated[bool, typer.Option(
        "--verbose", "-v", help="Say where notes come from, what refusals rest on, and what it "
        "cost.")], False),
    "config": (Annotated[Path | None, typer.Option(
        "--config", metavar="FILE", is_eager=True, callback=command_file.take_options,
        help="A command.json that an earlier run left: its options, unless given here.")], None),
    "context": (typer.Context, inspect.Parameter.empty)}
"""Parameters that every verb gets: their type, and default."""


def verb(examples: str, *, name: str | None = None, help: str | None = None
         ) -> Callable[[Callable[..., Made | None]], Callable[..., None]]:
    """Make a function a verb of the program; it returns what it made.

    ``examples`` are shell lines, shown by ``--help``; the rest of the help is ``help`` or the
    function's docstring.
    """
    def register(function: Callable[..., Made | None]) -> Callable[..., None]:
        called = name or function.__name__
        lines = examples.strip()
        text = f"{help or inspect.getdoc(function)}\n\n**Examples**\n\n```\n{lines}\n```\n"
        whole = _with_common(function, called)
        app.command(called, help=text)(whole)
        return whole

    return register


def _with_common(function: Callable[..., Made | None], called: str) -> Callable[..., None]:
    @wraps(function)
    def whole(*, as_json: bool = False, verbose: bool = False, config: Path | None = None,
              context: typer.Context, **options: Any) -> None:
        code = _Run(called, as_json, verbose, context, options)(function)
        if code:
            raise typer.Exit(code)

    hints = {**get_type_hints(function, include_extras=True),
             **{key: hint for key, (hint, _) in _COMMON.items()}}
    own = inspect.signature(function).parameters.values()
    common = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default)
              for key, (_, default) in _COMMON.items()]
    order = sorted([*own, *common], key=lambda p: p.default is not inspect.Parameter.empty)
    whole.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in order])
    whole.__annotations__ = hints
    return whole


class _Run:
    """One command, from its options to its exit code."""

    def __init__(self, called: str, as_json: bool, verbose: bool, context: typer.Context,
                 options: Mapping[str, Any]) -> None:
        self.called, self.as_json, self.verbose = called, as_json, verbose
        self.context, self.options = context, options
        self.out: Path | None = options.get("out")
        self.errors: list[str] = []
        self.command: Path | None = None

    def __call__(self, function: Callable[..., Made | None]) -> int:
        start = time.monotonic()
        with ExitStack() as stack:
            notes = stack.enter_context(Notes(self.verbose))
            if self.as_json:  # whatever is printed on the way must not get between
                stack.enter_context(redirect_stdout(sys.stderr))
            made, code = self._done(function)
        seconds = time.monotonic() - start
        if self.verbose and code != INTERRUPTED:
            typer.secho(f"{self.called}: {seconds:.1f} s{_peak()}", fg="bright_black", err=True)
        if self.as_json and os.environ.get("RANK", "0") == "0":
            said = answer(self.called, made, exit_code=code, warnings=notes.texts,
                          errors=self.errors, command=self.command, seconds=seconds)
            typer.echo(json.dumps(said, indent=1, ensure_ascii=False))
        return code

    def _done(self, function: Callable[..., Made | None]) -> tuple[Made | None, int]:
        try:
            command_file.note_changes(self.context, self.options)
            # before the work, which may replace or extend what it reads
            inputs = command_file.digests(self.options)
            made = function(**self.options)
            if made is None:  # another of several processes speaks
                return None, 0
            if made.where is not None and made.where.exists():
                self.command = command_file.write(self.called, self.options, made.where, inputs)
            typer.echo(made.text)
            self.errors = list(made.errors)
            return made, made.exit_code
        except NormfuseError as problem:
            return None, self._refused(problem)
        except KeyboardInterrupt:
            return None, self._interrupted()
        except EOFError as problem:  # click takes it for Ctrl-D, and says "Aborted." alone
            raise RuntimeError("a file ended too soon") from problem

    def _refused(self, problem: NormfuseError) -> int:
        if self.verbose:
            traceback.print_exc()
        self.errors = [as_written(as_options(text))
                       for text in getattr(problem, "problems", ()) or (problem,)]
        for text in self.errors:
            typer.secho(indented(f"error: {text}"), fg="red", err=True)
        return REFUSED

    def _interrupted(self) -> int:
        kept = None if self.out is None else self.out.with_name(f".{self.out.name}.unfinished")
        said = "stopped; nothing was written, and nothing is kept" if kept is None or \
            not kept.exists() else (f"stopped; what was done so far is kept in {kept}: the same "
                                    "command goes on there, and removes it at its end")
        self.errors = [said]
        typer.secho(f"\n{said}", fg="yellow", err=True)
        return INTERRUPTED


def _peak() -> str:
    """Memory at its highest, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin"
                                                                else 1)
    return f", at most {kib / 1024:,.0f} MiB"

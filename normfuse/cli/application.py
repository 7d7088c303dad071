"""The program that the verbs belong to: how it greets, notes and refuses."""
from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import NormfuseError, OutputExistsError
from ..outputs import refuse_existing


class Verbs(TyperGroup):
    """A deliberate refusal is a line a problem and exit code 2.

    The unexpected keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            try:
                return super().invoke(ctx)
            except NormfuseError as problem:
                for text in getattr(problem, "problems", ()) or (problem,):
                    typer.secho(f"error: {_one_line(text)}", fg="red", err=True)
                raise typer.Exit(2) from None


app = typer.Typer(cls=Verbs, no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False, rich_markup_mode="markdown",
                  context_settings={"help_option_names": ["-h", "--help"]})


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"normfuse {__version__}")
        raise typer.Exit


@app.callback()
def main(version: Annotated[bool, typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Print the version.")] = False
         ) -> None:
    """How far is each person from what healthy brains look like at that age, sex and site?

    Learns from healthy people with any set of modalities, then scores anybody: a z per feature
    and modality, and one distance per person, calibrated on healthy people held out.

    Start with `normfuse demo --out out/`; each verb has its own `--help`.
    """


def free_place(out: Path, overwrite: bool, mark: str | None) -> None:
    """Before any work: nothing is there, or only what normfuse itself wrote and may replace."""
    refuse_existing(out, overwrite)
    ours = not out.is_dir() if mark is None else (out / mark).exists()
    if out.exists() and not ours:
        raise OutputExistsError(f"{out} was not written by this command"
                                f"{f' (it holds no {mark})' if mark else ' (it is a folder)'} and "
                                "will not be replaced; choose another name")


def _note(message: Warning | str, category: type[Warning], filename: str, lineno: int,
          file: TextIO | None = None, line: str | None = None) -> None:
    if os.environ.get("RANK", "0") == "0":  # of processes that torchrun started one notes
        typer.secho(f"note: {_one_line(message)}", fg="yellow", err=True)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())

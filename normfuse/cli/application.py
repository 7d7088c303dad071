"""The program that the verbs belong to, and where a verb may write."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..errors import OutputExistsError
from ..outputs import refuse_existing

FINE, REFUSED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; 130 is the shell's for Ctrl-C."""

EXIT_CODES = f"""Exit codes: {FINE} all is done; {REFUSED} refused, every reason is a line on
stderr (of `check`: something would be refused); {USAGE} an option or its value is not known;
{INTERRUPTED} stopped by Ctrl-C, a line says what is kept and how to go on.

With `--json` stdout holds one JSON object, and all that is for people goes to stderr."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False,
                  rich_markup_mode="markdown",
                  context_settings={"help_option_names": ["-h", "--help"]})


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"normfuse {__version__}")
        raise typer.Exit


@app.callback(epilog=" ".join(EXIT_CODES.split("\n\n")[0].split()) + "\n\n"
              + " ".join(EXIT_CODES.split("\n\n")[1].split()))
def main(version: Annotated[bool, typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Print the version.")] = False
         ) -> None:
    """How far is each person from what healthy brains look like at that age, sex and site?

    Learns from healthy people with any set of modalities, then scores anybody: a z per feature
    and modality, and one distance per person, calibrated on healthy people held out.

    Start with `normfuse demo --out out/`; each verb has its own `--help`.
    """


def free_place(out: Path, overwrite: bool, mark: str | None,
               ours: Callable[[Path], bool] | None = None) -> None:
    """Before any work: nothing is there, or only what normfuse itself wrote and may replace.

    ``mark`` is the file that says so, ``ours`` what else such a folder may hold.
    """
    refuse_existing(out, overwrite)
    written = not out.is_dir() if mark is None else (out / mark).exists()
    if out.exists() and not written:
        raise OutputExistsError(f"{out} was not written by this command"
                                f"{f' (it holds no {mark})' if mark else ' (it is a folder)'} and "
                                "will not be replaced; choose another name")
    refuse_existing(out, overwrite, ours)


def named(*names: str) -> Callable[[Path], bool]:
    """Whether a file has one of these names.

    >>> named("model.json")(Path("model/thesis.doc"))
    False
    """
    return lambda path: path.name in names

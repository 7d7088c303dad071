"""The verb that comes first: what was understood of a cohort, and all that is wrong with it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .application import FINE, REFUSED, free_place, named
from .choices import CohortFile, Overwrite, Session
from .made import Made
from .verbs import verb

if TYPE_CHECKING:
    from ..checkup import Checkup


@verb("""
normfuse check cohort.toml
# keep it, with a picture of who has what
normfuse check cohort.toml --out check/
# in a script: stop also for what is suspicious
normfuse check cohort.toml --strict --json
""")
def check(cohort: CohortFile,
          out: Annotated[Path | None, typer.Option(
              help="A new folder for the same as text and JSON, and a picture of who has what."
              )] = None,
          strict: Annotated[bool, typer.Option(
              "--strict", help="Exit with 1 for what is suspicious, too.")] = False,
          session: Session = None,
          overwrite: Overwrite = False) -> Made:
    """Say what was understood of a cohort, and every problem at once; fits nothing.

    Prints subjects, covariates, modalities, who has what, suspicious values, and what `normfuse
    fit` would refuse. Exits with 0 if that is nothing, else with 1. Of images only headers are
    read.
    """
    if out is not None:
        free_place(out, overwrite, "check.json",
                   named("check.json", "check.txt", "missingness.png"))
    from ..checkup import examine
    from ..checkup_text import in_numbers, in_words

    found = examine(cohort, session=session)
    numbers, words = in_numbers(found), in_words(found)
    if out is not None:
        _write(found, out, json.dumps(numbers, indent=1, ensure_ascii=False), words, overwrite)
    wrong = not found.fine or strict and bool(found.suspicious)
    people = {} if found.cohort is None else {
        "people": len(found.cohort), "modalities": len(found.cohort.modalities)}
    return Made("check", out, words, people, found.notes, numbers,
                REFUSED if wrong else FINE, found.problems)


def _write(found: Checkup, out: Path, numbers: str, words: str, overwrite: bool) -> None:
    from ..outputs import new_folder

    with new_folder(out, overwrite=overwrite) as work:
        (work / "check.json").write_text(numbers + "\n", encoding="utf-8")
        (work / "check.txt").write_text(words + "\n", encoding="utf-8")
        if found.cohort is not None and found.cohort.modalities:
            from matplotlib import pyplot as plt

            from normfuse.analyses.figures import plot_missingness

            ax = plot_missingness(found.cohort)
            ax.figure.savefig(work / "missingness.png", dpi=150, bbox_inches="tight")
            plt.close(ax.figure)

"""What was understood of a ``cohort.toml``, all that is wrong with it, and what looks wrong."""
from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from .blocks import Blocks
from .cards import Card, short
from .cohort import Cohort
from .cohort_checks import COVARIATE_KINDS, with_text_ids, without_missing_words
from .cohort_file import Draft, read_draft
from .errors import NormfuseError
from .modality import Modality
from .problems import Problems
from .suspicions import (refuse_unfit, warn_of_people, warn_of_undescribed_levels,
                         warn_of_values)
from .tables.described import Described
from .tables.subjects import with_numbers
from .volumes.section import Images, look_at_sections


@dataclass(frozen=True, eq=False)
class Checkup:
    """Made by :func:`examine`.

    Attributes
    ----------
    file : Path
    problems : tuple of str
        What `normfuse fit` would refuse; the cohort is fine if there are none.
    suspicious : tuple of str
        What looks wrong, and would be used.
    notes : tuple of str
        What was done without being asked for.
    cohort : Cohort or None
        As much as could be read, refused people and cells left out.
    images : dict
        Modality -> how many voxels it would have: images were not read but for their headers.
    described : dict
        Column of the subjects table -> its unit and levels, of BIDS' ``participants.json``.
    """

    file: Path
    problems: tuple[str, ...]
    suspicious: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cohort: Cohort | None = None
    images: Mapping[str, int] = field(default_factory=dict)
    described: Mapping[str, Described] = field(default_factory=dict)

    @property
    def fine(self) -> bool:
        """Whether nothing would be refused."""
        return not self.problems

    def __repr__(self) -> str:
        return (f"<Checkup of {short(self.file, 100)}: {len(self.problems)} problems, "
                f"{len(self.suspicious)} suspicions>")

    def _repr_html_(self) -> str:
        said = [*self.problems, *self.suspicious, *self.notes]
        card = Card("Checkup", f"of {self.file}: {len(self.problems)} problems, "
                    f"{len(self.suspicious)} suspicions", notes=said).html()
        return card + ("" if self.cohort is None else self.cohort._repr_html_())


def examine(path: str | Path, *, session: str | None = None) -> Checkup:
    """Read a ``cohort.toml`` and say what was understood and everything that is wrong.

    Nothing is raised for what is wrong with the cohort. Of images only the headers are read.

    Parameters
    ----------
    path : path
        Of the ``cohort.toml``.
    session : str, optional
        Which visit, as for :meth:`Cohort.read`.

    Examples
    --------
    >>> import tempfile
    >>> from normfuse.simulate import write_cohort
    >>> from normfuse.testing import tiny_cohort
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = write_cohort(tiny_cohort(60), Path(place, "cohort"))
    ...     _ = file.write_text(file.read_text().replace("t1.csv", "t2.csv"))
    ...     examine(file).problems[0][:14]
    'there is no ta'
    """
    path = Path(path)
    images: dict[str, int] = {}

    def look(*asked: Any) -> Images:
        found, sizes = look_at_sections(*asked)
        images.update(sizes)
        return found

    cohort = None
    with _heard() as notes:
        try:
            draft = read_draft(path, session, look)
        except NormfuseError as problem:
            return Checkup(path, getattr(problem, "problems", ()) or (str(problem),))
        problems = draft.problems
        try:
            cohort = draft.cohort()
        except NormfuseError:
            pass  # kept in the draft
    cohort = cohort or as_far_as_read(draft)
    suspicious: list[str] = []
    known = {} if draft.people is None else draft.people.described
    if cohort is not None:
        with _heard() as suspicious:
            controls = _reference(cohort, problems)
            warn_of_people(cohort, controls)
            warn_of_undescribed_levels(cohort, known)
            if controls is not None:
                refuse_unfit(controls, images, problems)
                warn_of_values(cohort, controls, images)
    return Checkup(path, problems.found, tuple(dict.fromkeys(suspicious)),
                   tuple(dict.fromkeys(notes)), cohort, images, known)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """The texts of warnings in the block."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


def _reference(cohort: Cohort, problems: Problems) -> Cohort | None:
    """The reference people; None, and a problem, if there are none."""
    with problems.caught():
        return cohort.reference_subjects()
    return None


def as_far_as_read(draft: Draft) -> Cohort | None:
    """A cohort for description only: what was refused is missing in it.

    None if the subjects could not be read.
    """
    if draft.people is None:
        return None
    kinds = {name: kind for name, kind in draft.covariates.items()
             if name in draft.people.table and kind in COVARIATE_KINDS}
    people = with_text_ids(with_numbers(draft.people.table, kinds), "", Problems())
    for name, kind in kinds.items():
        words = without_missing_words(people[name])
        people[name] = pd.to_numeric(words, errors="coerce").astype(float) \
            if kind == "continuous" else words.astype(object).where(words.notna(), None)
    blocks, modalities = {}, []
    for name, frame in draft.frames.items():
        if not isinstance(frame, pd.DataFrame):
            continue
        block = with_text_ids(frame, "", Problems())
        block = block.loc[:, ~block.columns.duplicated()]
        numbers = block.apply(lambda c: pd.to_numeric(without_missing_words(c), errors="coerce"))
        blocks[name] = numbers.astype(float).dropna(axis=1, how="all").reindex(people.index)
        if blocks[name].shape[1]:
            modalities.append(Modality(name, tuple(map(str, blocks[name])),
                                       draft.units.get(name, "")))
    names = [m.name for m in modalities]
    return Cohort(people, Blocks({name: blocks[name] for name in names}), tuple(modalities), kinds,
                  draft.spec.get("reference", {}).get("query"))

"""Reading a cohort from ``cohort.toml`` and the tables it names.

.. code-block:: toml

    [subjects]
    table = "participants.tsv"        # relative to this file; text, .xlsx or .parquet
    id = "participant_id"             # default: participant_id, else the first column
    id_prefix = "sub-"                # before ids that lack it
    drop_incomplete = false           # true: leave out people without covariates or scans
    sessions = "sessions.tsv"         # BIDS; or "{id}/{id}_sessions.tsv"
    session = "first"                 # or "last", "all", "ses-01"

    [covariates]
    age = "continuous"
    sex = "categorical"
    site = "site"

    [reference]
    query = "diagnosis == 'CN'"

    [modalities.t1]
    table = "t1.csv"                  # or a list of tables, side by side
    prefix = "CT_"                    # or features = ["…", "…"]; default: every other column
    exclude = ["CT_lh_unknown"]
    unit = "mm"
    likelihood = "normal"

    [modalities.pet]
    table = "uptake.xlsx"
    sheet = "SUVR"                    # also: encoding, separator, decimal, thousands
    long = { feature = "region", value = "suvr" }

    [modalities.volume]
    freesurfer = "derivatives/freesurfer/{id}"
    stats = ["aparc.volume", "aseg.volume"]
    include = ["eTIV"]                # which would be left out, as no region
    names = "atlas"                   # or "file": lh_insula_volume

A modality may have one image a person in the place of a table; :mod:`normfuse.volumes.section`
lists its keys. ``docs/guide/input.md`` has an example of every form.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from .blocks import Block
from .cohort import Cohort
from .cohort_checks import with_text_ids
from .cohort_spec import read_spec
from .errors import CohortError, listed
from .problems import Problems
from .space import Space
from .tables.features import Source, chosen_features, read_source
from .tables.freesurfer_names import is_whole
from .tables.reading import read_table
from .tables.subjects import People, read_people, with_numbers
from .volumes.section import Images, read_sections

__all__ = ["Draft", "read_cohort", "read_draft", "read_table"]

ReadImages = Callable[[Mapping[str, Mapping[str, Any]], pd.DataFrame, Path, Mapping[str, Any]],
                      Images]


@dataclass(eq=False)
class Draft:
    """As much of a cohort as could be read, and what went wrong.

    Attributes
    ----------
    spec : dict
        The ``cohort.toml``.
    problems : Problems
        Refusals so far.
    people : People or None
    frames : dict
        Modality -> its features; unread ones are not in it.
    units, spaces : dict
    brought : dict of str
        Covariate -> the modality whose FreeSurfer files have it.
    """

    spec: dict[str, Any]
    problems: Problems
    people: People | None = None
    frames: dict[str, Block] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    brought: dict[str, str] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)

    @property
    def covariates(self) -> dict[str, Any]:
        """Covariate -> kind, as the file says."""
        return dict(self.spec.get("covariates", {}))

    def cohort(self) -> Cohort:
        """The cohort.

        Raises
        ------
        NormfuseError
            With every problem, those of reading and those of the tables together.
        """
        made = None
        with self.problems.caught():
            made = self._made()
        self.problems.settle()
        return cast(Cohort, made)  # nothing was refused

    def _made(self) -> Cohort | None:
        if self.people is None:
            return None
        covariates, people = self.covariates, self.people.table
        people = with_numbers(people.drop(columns=sorted(self.measured.difference(covariates))),
                              covariates)
        # a modality that could not be read is as good as there: its people are not to blame
        unread = pd.DataFrame({"unread": 1.0}, people.index[people.index != ""].unique())
        frames = {name: self.frames.get(name, unread) for name in self.spec["modalities"]}
        return Cohort.from_frames(
            people, frames, covariates=covariates, units=self.units, spaces=self.spaces,
            reference=self.spec.get("reference", {}).get("query"),
            drop_incomplete=bool(self.spec["subjects"].get("drop_incomplete", False)))


def read_cohort(path: Path, session: str | None = None) -> Cohort:
    """The cohort that a ``cohort.toml`` describes; see the module's text for its keys.

    Parameters
    ----------
    path : Path
    session : str, optional
        Which visit, in place of what the file says: ``"first"``, ``"last"``, ``"all"`` or a name.

    Raises
    ------
    NormfuseError
        With every problem at once.
    """
    return read_draft(path, session).cohort()


def read_draft(path: Path, session: str | None = None, images: ReadImages = read_sections
               ) -> Draft:
    """Read as much as can be read.

    Parameters
    ----------
    path : Path
    session : str, optional
    images : callable
        What reads the modalities that have images.

    Raises
    ------
    CohortError
        If the file itself cannot be understood; problems of tables are kept in the draft.
    """
    draft, folder = Draft(read_spec(path), Problems()), path.parent
    with draft.problems.caught():
        draft.people = read_people(draft.spec["subjects"], folder, session)
    sources: dict[str, Source] = {}
    for name, section in draft.spec["modalities"].items():
        if "images" not in section:
            with draft.problems.caught():
                sources[name] = read_source(name, section, draft.people, folder)
    for name, source in sources.items():
        with draft.problems.caught():
            _bring_covariates(draft, name, source)
    for name, source in sources.items():
        with draft.problems.caught():
            _take_features(draft, name, source)
    if draft.people is not None:
        with draft.problems.caught():
            _take_images(draft, draft.people, folder, images)
    return draft


def _bring_covariates(draft: Draft, name: str, source: Source) -> None:
    """Covariates that are no column of the subjects table but a FreeSurfer measure, as eTIV."""
    if draft.people is None:
        return
    people = draft.people.table
    for column in draft.covariates:
        if column not in source.aside or not is_whole(column) \
                or column in people and column not in draft.brought:
            continue
        values = source.table[column][~source.table.index.duplicated()].astype(str)
        values = values.reindex(people.index).fillna("")
        if column in draft.brought:
            known = people[column]
            other = (known != "") & (values != "") & (known.map(_number) != values.map(_number))
            if other.any():
                raise CohortError(f"covariate {column} of {listed(people.index[other])} is not "
                                  f"the same in the files of {draft.brought[column]} and of "
                                  f"{name}")
            values = known.where(known != "", values)
        draft.brought.setdefault(column, name)
        people = people.assign(**{column: values})
    draft.people = replace(draft.people, table=people)


def _number(cell: str) -> float:
    return round(float(pd.to_numeric(cell, errors="coerce")), 2)


def _take_features(draft: Draft, name: str, source: Source) -> None:
    section = draft.spec["modalities"][name]
    shared = section.get("table") == draft.spec["subjects"]["table"] and "long" not in section
    frame = chosen_features(name, source, section, draft.covariates, shared)
    draft.frames[name] = frame
    draft.units[name] = str(section.get("unit", source.unit))
    if shared:
        draft.measured.update(map(str, frame.columns))


def _take_images(draft: Draft, people: People, folder: Path, read: ReadImages) -> None:
    sections = {name: {**section, "images": people.pattern(section["images"])}
                if isinstance(section["images"], str) else section
                for name, section in draft.spec["modalities"].items() if "images" in section}
    if not sections:
        return
    unique = with_text_ids(people.table, "the subjects table", Problems())
    found = read(sections, unique, folder, draft.spec.get("images", {}))
    draft.frames |= found.tables
    draft.spaces |= found.spaces
    draft.units |= {name: str(section.get("unit", "")) for name, section in sections.items()}

"""What a report is made of, once people have the names by which its pages call them."""
from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from normfuse.deviations import ROLE, SEEN_ROLES, Deviations
from normfuse.errors import AtlasError, CohortError, listed

from .group_comparison import GroupComparison
from .pseudonyms import Pseudonyms
from .ranking import most_deviant
from .regional import RegionalDeviations, parcellate
from .report_voxels import VoxelFindings
from .subtype_table import Subtypes

if TYPE_CHECKING:
    from normfuse.atlas import Atlas
    from normfuse.evaluation import Evaluation

    from .report import Report
    from .results import Found

WHO = "normfuse_people"  # column that stands in for a group when there is no comparison
SCORED = "scored people"
_ROLES = {"calibration": "held-out controls", "out_of_fold": "cross-fitted controls"}


@dataclass(frozen=True, eq=False)
class Contents:
    """The parts of a report. Nobody here is called by another name than the pages call them.

    Attributes
    ----------
    deviations, people : Deviations
        All who were scored, and those of them whom the model was not trained on.
    order : DataFrame
        Of :func:`~normfuse.analyses.ranking.most_deviant`.
    names : dict of str
        Id -> what the pages say.
    comparisons : tuple of GroupComparison
    findings : tuple of Found
    """

    deviations: Deviations
    people: Deviations
    order: pd.DataFrame
    names: Mapping[str, str]
    comparisons: tuple[GroupComparison, ...]
    findings: tuple[Found, ...]
    atlas: Atlas | None
    evaluation: Evaluation | None
    voxels: VoxelFindings
    voxel_notes: tuple[str, ...]
    group: str | None
    n_subjects: int

    @classmethod
    def of(cls, report: Report) -> Contents:
        """Of a report, its people renamed unless ids were asked for."""
        people = _unseen(report.deviations)
        order = most_deviant(people)
        voxels = report.voxels or VoxelFindings()
        ids = _everybody(report, order.index, voxels)
        called = Pseudonyms({i: i for i in ids}) if report.with_ids else Pseudonyms.numbered(ids)
        results: list[Any] = list(report.results)
        evaluation, deviations, notes = report.evaluation, report.deviations, voxels.notes()
        if not report.with_ids:
            columns = (*deviations.reference.covariates, WHO, *filter(None, (
                report.group, *(getattr(r, "group", None) for r in results))))
            deviations = called.deviations(deviations, columns)
            people = called.deviations(people, columns)
            results = [_renamed(result, called) for result in results]
            evaluation = None if evaluation is None else called.notes(evaluation)
            voxels = replace(voxels, deviations=None if voxels.deviations is None else
                             called.deviations(voxels.deviations, ()))
            notes = [called.note(note) for note in notes]
        comparisons = tuple(r for r in results if isinstance(r, GroupComparison))
        return cls(deviations, people, order.rename(index=dict(called.names)), called.names,
                   comparisons, tuple(r for r in results if not isinstance(r, GroupComparison)),
                   report.atlas, evaluation, voxels, tuple(notes),
                   report.group or next((c.group for c in comparisons), None), report.n_subjects)

    @property
    def groups(self) -> tuple[str, ...]:
        """Columns of subjects that tell groups apart."""
        found = (self.group, *(c.group for c in self.comparisons))
        return tuple(dict.fromkeys(name for name in found if name is not None))

    @cached_property
    def regional(self) -> tuple[RegionalDeviations | None, str]:
        """The deviations in the atlas's regions if there are any, and what no map will show."""
        if self.atlas is None:
            return None, "There are no brain maps, because no atlas was given."
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the page says it
                found = parcellate(self.people, self.atlas)
        except AtlasError as problem:
            return None, f"There are no brain maps: {problem}."
        left_out = listed(f"{modality} {feature}" for modality, feature in found.unmatched)
        return found, left_out and f"No region of atlas {self.atlas.name}, so on no map: " \
            f"{left_out}."

    @property
    def painted(self) -> Atlas | None:
        """The atlas, if it has any of the features as its regions."""
        return None if self.regional[0] is None else self.atlas

    @property
    def ranked(self) -> list[str]:
        """Whom the model was not trained on, the most deviant first; unknown deviance last."""
        rest = self.people.subjects.index.difference(self.order.index, sort=False)
        return [*self.order.index, *rest]

    def called(self, ids: Iterable[str] | None) -> list[str]:
        """What the pages call these people, in the order of the pages; all if nobody is named."""
        ranked = self.ranked
        if ids is None:
            return ranked
        wanted = list(ids)
        there = set(ranked)
        unknown = [who for who in wanted if self.names.get(who) not in there]
        if unknown:
            raise CohortError(f"no page can be written of {listed(unknown)}: not among the people "
                              "scored, or seen by the model in training")
        chosen = {self.names[who] for who in wanted}
        return [who for who in ranked if who in chosen]


def _unseen(deviations: Deviations) -> Deviations:
    """Without the people the model was trained on, and with a column that says who is who."""
    subjects = deviations.subjects
    role = subjects[ROLE] if ROLE in subjects else pd.Series("new", subjects.index)
    marked = subjects.assign(**{ROLE: role, WHO: role.map(_ROLES).fillna(SCORED)})
    controls = None if deviations.controls is None else _unseen(deviations.controls)
    return deviations.changed(subjects=marked, controls=controls).select(
        subjects.index[~role.isin(SEEN_ROLES)])


def _everybody(report: Report, ranked: pd.Index, voxels: VoxelFindings) -> list[str]:
    """Whoever a page could name: those ranked, then all others."""
    indices = [ranked]
    for deviations in (report.deviations, voxels.deviations):
        if deviations is not None:
            indices += [deviations.subjects.index] + (
                [deviations.controls.subjects.index] if deviations.controls is not None else [])
    indices += [r.table.index for r in report.results if isinstance(r, Subtypes)]
    return list(dict.fromkeys(str(who) for index in indices for who in index))


def _renamed(result: Any, called: Pseudonyms) -> Any:
    """A result that names nobody."""
    told = called.notes(result)
    if not isinstance(result, Subtypes):
        return told
    names = dict(called.names)
    pairs = {name: getattr(result, name).rename(index=names, columns=names)
             for name in ("dissimilarity", "consensus")}
    return replace(told, table=result.table.rename(index=names),
                   candidates=result.candidates.rename(index=names), **pairs)

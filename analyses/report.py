"""The report: who was scored, how far to trust it, and what was found, as pages to read and keep.

``Report`` says what goes in; ``report_contents`` gives people their names, ``report_groups``,
``report_findings`` and ``report_people`` gather numbers and pictures, and ``templates/`` has the
words.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from normfuse.cards import Card
from normfuse.deviations import Deviations, Reference
from normfuse.errors import CohortError, ComparisonError, listed
from normfuse.outputs import file_stem, new_file, new_folder

from .group_comparison import GroupComparison
from .report_voxels import VoxelFindings
from .results import Found

if TYPE_CHECKING:
    import pandas as pd

    from normfuse.atlas import Atlas
    from normfuse.citations import Citation
    from normfuse.evaluation import Evaluation

    from .report_contents import Contents

INDEX = "index.html"
"""Of a folder of pages, one a person."""


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """Everything a reader needs to judge some deviations, as HTML that needs nothing else.

    A page loads nothing, works from a file and prints. Its tables can be sorted, filtered and
    taken away as CSV with every digit; maps of the brain can be walked through. It shows people's
    covariates, though not their ids unless asked for: guard it like the data.

    Attributes
    ----------
    deviations : Deviations
        The scored people. The held-out controls it keeps are added to the pictures of groups;
        people the model was trained on are counted, and left out of everything else.
    results : sequence of GroupComparison, Associations, OverlapMaps, ExtremeCounts, Subtypes
        What was found, in the order in which it is to be shown.
    atlas : Atlas, optional
        For brain maps of the features that are its regions.
    evaluation : Evaluation, optional
        From :func:`normfuse.evaluate`, of the same kind: adds how accurate and calibrated the
        model is.
    voxels : VoxelFindings, optional
        Where the regions are means of voxels: groups and the most deviant people voxel by voxel.
    group : str, optional
        Column of ``subjects`` by which extreme counts and distances are told apart; by default
        that of the first comparison. Without either, scored people stand beside the controls.
    n_subjects : int
        How many of the most deviant people get a part of their own; 0 for none. They are chosen
        by the smaller of two p: of their latent distance, and the smallest Benjamini-Hochberg p
        over their own features.
    with_ids : bool
        Call people by their ids. Else they are numbered in the page's own order, the most deviant
        first, and no id is in any file: not in a table, a note, a picture or a file's name.

    Raises
    ------
    ComparisonError
        If a result is of another kind of deviation, or is none that a report can show; a
        comparison of extreme counts or distances the report makes itself.

    Examples
    --------
    >>> import tempfile
    >>> from normfuse.testing import tiny_deviations
    >>> report = Report(tiny_deviations(), n_subjects=1)
    >>> report
    <Report of 2 people: no results>
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report.write(Path(folder, "report.html")).read_text(encoding="utf-8")
    ...     pages = report.write_subjects(Path(folder, "people"))
    ...     sorted(path.name for path in pages.iterdir())
    ['index.html', 'person-1.html', 'person-2.html']
    >>> "2 people were scored" in page, "sub-b" in page
    (True, False)
    """

    deviations: Deviations
    results: Sequence[GroupComparison | Found] = ()
    atlas: Atlas | None = None
    evaluation: Evaluation | None = None
    voxels: VoxelFindings | None = None
    group: str | None = None
    n_subjects: int = 3
    with_ids: bool = False

    def __post_init__(self) -> None:
        one = isinstance(self.results, (GroupComparison, Found))
        object.__setattr__(self, "results", (self.results,) if one else tuple(self.results))
        kind = self.deviations.reference.kind
        for result in self.results:
            _refuse_unknown(result)
            _one_kind("comparison" if isinstance(result, GroupComparison)
                      else type(result).__name__, result, kind, "compare these deviations")
        _one_kind("evaluation", self.evaluation, kind, "evaluate that kind")
        voxels = self.voxels
        if voxels is not None and voxels.deviations is not None:
            _one_kind("map of voxels", voxels.deviations.reference, kind,
                      "give the voxels that the regions were made of")
        if self.group is not None and self.group not in self.deviations.subjects:
            raise ComparisonError(
                f"group {self.group!r} is not a column of the subjects table; it has "
                f"{listed(self.deviations.subjects.columns, 12)}")

    def html(self) -> str:
        """The page of the whole cohort."""
        from .report_page import cohort_page

        return cohort_page(self._contents())

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page of the whole cohort to a new ``.html`` file.

        Raises
        ------
        OutputExistsError
            If the file is there and ``overwrite`` is not asked for.
        """
        with new_file(Path(path), overwrite=overwrite) as work:
            work.write_text(self.html(), encoding="utf-8")
        return Path(path)

    def write_subjects(self, folder: str | Path, *, ids: str | Iterable[str] | None = None,
                       overwrite: bool = False) -> Path:
        """Write a page a person to a new folder, and ``index.html``, which leads to them.

        Parameters
        ----------
        folder : path
        ids : str or iterable of str, optional
            Whom; by default everybody scored whom the model was not trained on. Somebody's number
            is the same on every page, whoever is asked for.

        Raises
        ------
        CohortError
            For an unknown id, or one that cannot name a file (``with_ids``).
        OutputExistsError
            If the folder is there and ``overwrite`` is not asked for, or holds anything else.
        """
        from tqdm.auto import tqdm

        from .report_page import index_page, subject_page

        contents = self._contents()
        wanted = contents.called([ids] if isinstance(ids, str) else ids)
        files = {who: self._stem(who) + ".html" for who in wanted}
        twice = [who for who in wanted if files[who].lower() == INDEX]
        if twice:
            raise CohortError(f"subject id {twice[0]!r} would name the file {INDEX}, which leads "
                              "to the others; rename the subject, or write without ids")
        with new_folder(Path(folder), overwrite=overwrite, ours=is_page) as work:
            for who, name in tqdm(files.items(), desc="writing pages", unit="person",
                                  leave=False, disable=None):
                (work / name).write_text(subject_page(contents, who), encoding="utf-8")
            (work / INDEX).write_text(index_page(contents, files), encoding="utf-8")
        return Path(folder)

    def citation(self) -> Citation:
        """A methods paragraph on what the report shows; ``.bibtex`` has its sources."""
        from .report_methods import methods

        return methods(self.deviations.reference, self.results, self._contents().painted,
                       self.voxels)

    def key(self) -> pd.Series:
        """Who is who: what the pages call people, by id. Keep it apart from the report.

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> Report(tiny_deviations()).key().to_dict()
        {'sub-b': 'person 1', 'sub-a': 'person 2'}
        """
        import pandas as pd

        contents = self._contents()
        ids = {called: who for who, called in contents.names.items()}
        return pd.Series({ids[called]: called for called in contents.ranked},
                         name="person").rename_axis("participant_id")

    def _stem(self, who: str) -> str:
        return file_stem(who) if self.with_ids else who.replace(" ", "-")

    def _contents(self) -> Contents:
        from .report_contents import Contents

        return Contents.of(self)

    def __repr__(self) -> str:
        names = ", ".join(type(result).__name__ for result in self.results) or "no results"
        return f"<Report of {len(self.deviations)} people: {names}>"

    def _repr_html_(self) -> str:
        results = ", ".join(type(result).__name__ for result in self.results) or "none"
        return Card("Report", f"of {len(self.deviations)} people", {"results": results},
                    notes=[self.citation().text]).html()


def is_page(path: Path) -> bool:
    """Whether a file is a page that a report wrote, which a new one may replace."""
    if path.suffix != ".html" or not path.is_file():
        return False
    with path.open("rb") as page:
        return b'<meta name="generator" content="normfuse">' in page.read(500)


def write_report(deviations: Deviations, path: str | Path, *,
                 comparison: GroupComparison | None = None, atlas: Atlas | None = None,
                 evaluation: Evaluation | None = None, voxels: VoxelFindings | None = None,
                 n_subjects: int = 3, with_ids: bool = False, overwrite: bool = False) -> Path:
    """Write a report on one comparison at most: ``Report(…).write(path)`` in one call.

    Parameters
    ----------
    deviations, atlas, evaluation, voxels, n_subjects, with_ids
        As of :class:`Report`.
    path : path
        A new ``.html`` file.
    comparison : GroupComparison, optional
        From :func:`~normfuse.analyses.compare_groups`. Without it, scored people are shown beside
        the held-out controls, and nothing is tested.
    overwrite : bool
        Replace the file if it is there.

    Raises
    ------
    OutputExistsError
        If the file is there and ``overwrite`` is not asked for.
    ComparisonError
        As :class:`Report`.

    Examples
    --------
    >>> import tempfile
    >>> from normfuse.testing import tiny_deviations
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = write_report(tiny_deviations(), Path(folder, "report.html"))
    ...     "2 people were scored" in report.read_text(encoding="utf-8")
    True
    """
    report = Report(deviations, () if comparison is None else (comparison,), atlas, evaluation,
                    voxels, n_subjects=n_subjects, with_ids=with_ids)
    return report.write(path, overwrite=overwrite)


def _refuse_unknown(result: object) -> None:
    if isinstance(result, GroupComparison) and "g" not in result.table:
        raise ComparisonError("a report shows effect sizes and needs a comparison made by "
                              "compare_groups; extreme counts and distances it compares itself")
    from .report_findings import SHOWN

    if not isinstance(result, (GroupComparison, *SHOWN)):
        known = ", ".join(["GroupComparison", *(kind.__name__ for kind in SHOWN)])
        raise ComparisonError(f"a report shows {known}; got {type(result).__name__}")


def _one_kind(what: str, found: GroupComparison | Found | Evaluation | Reference | None,
              kind: str, advice: str) -> None:
    """Numbers of two kinds of deviation answer two questions; a page may not mix them."""
    theirs = "" if found is None else getattr(found, "kind", "")
    if theirs not in ("", kind):  # files of old do not say
        raise ComparisonError(f"the {what} is of deviations of kind {theirs!r}, the people "
                              f"were scored with kind {kind!r}; {advice}, or leave the {what} out")

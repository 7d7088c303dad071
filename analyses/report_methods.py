"""What a report shows, as a methods paragraph with its sources."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from normfuse.citations import Citation, cite, sentence
from normfuse.deviations import Reference

from .association_table import Associations
from .extremes import ExtremeCounts
from .group_comparison import GroupComparison
from .overlap_maps import OverlapMaps
from .results import Found
from .subtype_table import Subtypes

if TYPE_CHECKING:
    from normfuse.atlas import Atlas

    from .report_voxels import VoxelFindings

_CORRECTIONS = {"Benjamini-Hochberg": "benjamini1995", "Benjamini-Yekutieli": "benjamini2001",
                "Holm": "holm1979"}
_SHUFFLED = ("freedman1983", "winkler2014")


def methods(reference: Reference, results: Iterable[GroupComparison | Found] = (),
            atlas: Atlas | None = None, voxels: VoxelFindings | None = None) -> Citation:
    """The model, the atlas, and every result, in this order.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> methods(tiny_deviations().reference).text.endswith("doi:10.1214/aoms/1177732979).")
    True
    """
    found, every = cite(reference), list(results)
    if atlas is not None:
        found += Citation(f"Regions are those of atlas {atlas.name} ({atlas.citation}).")
    for result in every:
        tell = next(tell for kind, tell in _SENTENCES.items() if isinstance(result, kind))
        found += tell(result)
    if voxels is not None:
        for modality, comparison in voxels.groups.items():
            correction = comparison.summary().splitlines()[2].partition(": ")[2]
            found += sentence(
                f"Voxels of {modality} were compared between {comparison.case} and "
                f"{comparison.baseline}; {comparison.corrected} was corrected by {correction}",
                _corrected(correction))
    tools = (["seabold2010"] if every else []) + (
        ["abraham2014"] if atlas is not None or voxels is not None else [])
    names = {"seabold2010": "statsmodels", "abraham2014": "nilearn"}
    used = " and ".join(names[key] for key in tools)
    return found + (sentence(f"Statistics and maps used {used}", tools) if used else Citation(""))


def _people(n: Any) -> str:
    return ", ".join(f"{count} {level}" for level, count in n.items())


def _corrected(family: str) -> list[str]:
    found = [key for name, key in _CORRECTIONS.items() if name in family]
    return [*found, *(_SHUFFLED if "permutations" in family else ())]


def _given(adjust: Iterable[str]) -> str:
    names = ", ".join(adjust)
    return f" given {names}" if names else ""


def _compared(found: GroupComparison) -> Citation:
    test = f" ({found.test})" if found.test else ""
    keys = ["hedges1981", *(["mackinnon1985"] if "HC3" in found.test else [])]
    return sentence(f"Groups of {found.group} ({_people(found.n)}) were compared in every "
                    f"feature{_given(found.adjust)}{test}, with Hedges' g", keys) + sentence(
        f"q is {found.family}", _corrected(found.family))


def _associated(found: Associations) -> Citation:
    partial = "partial " if found.adjust else ""
    return sentence(f"Deviations were correlated with {_people_of(found)} "
                    f"({partial}{found.method.title()}{_given(found.adjust)}, "
                    f"{found.alternative}); q is {found.family}", _corrected(found.family))


def _people_of(found: Associations) -> str:
    return ", ".join(f"{score} (n = {n})" for score, n in found.n.items())


def _overlapped(found: OverlapMaps) -> Citation:
    return sentence(f"Overlap is the share of people with {found.what}, compared between groups "
                    f"of {found.group} ({_people(found.n)}) by permutation",
                    ("wolfers2018", "newcombe1998")) + sentence(
        f"In it, {found.family}", _corrected(found.family))


def _counted(found: ExtremeCounts) -> Citation:
    return sentence(f"Counts of extreme deviations were compared between groups of {found.group} "
                    f"({_people(found.n)}) by ranks", ("mann1947", "brunner2000")) + sentence(
        f"In it, {found.family}", _corrected(found.family))


def _clustered(found: Subtypes) -> Citation:
    return sentence(f"{len(found.table)} people were clustered: {found.how}; {found.plan}; "
                    f"p = {found.p:.2g} of one cloud standing out as much")


_SENTENCES: dict[type, Callable[..., Citation]] = {
    GroupComparison: _compared, Associations: _associated, OverlapMaps: _overlapped,
    ExtremeCounts: _counted, Subtypes: _clustered}

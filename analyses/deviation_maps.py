"""Deviations as maps in the brain: of one person and of a contrast; and what lies far off."""
from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from normfuse.errors import AtlasError, CohortError, ComparisonError, listed

from .group_comparison import GroupComparison

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from normfuse.atlas import Atlas

    from .regional import RegionalDeviations


def subject_map(regional: RegionalDeviations, subject: str, modality: str, atlas: Atlas
                ) -> Nifti1Image:
    """One person's z in one modality, painted into the atlas's regions.

    Parameters
    ----------
    regional : RegionalDeviations
        Made with the same atlas.
    subject, modality : str
    atlas : Atlas
        Its ``paint`` gives the grid and the value outside measured regions.

    Returns
    -------
    Nifti1Image of float32
        z; regions that were not measured are left as the background.

    Raises
    ------
    AtlasError
        If ``regional`` was made with another atlas.
    CohortError
        If the subject or modality is unknown, or the subject was not measured with it.

    Examples
    --------
    >>> import numpy as np
    >>> from normfuse import load_atlas
    >>> from normfuse.analyses import parcellate
    >>> from normfuse.testing import tiny_deviations
    >>> deviations = tiny_deviations()
    >>> for table in (deviations.z, deviations.observed, deviations.expected):
    ...     table.columns = pd.MultiIndex.from_tuples([
    ...         ("t1", "ctx-lh-insula"), ("t1", "ctx-rh-cuneus"), ("pet", "ctx-lh-insula")])
    >>> atlas = load_atlas("dk")
    >>> image = subject_map(parcellate(deviations, atlas), "sub-b", "t1", atlas)
    >>> float(np.nanmin(image.dataobj)), image.shape == atlas.labels_img.shape
    (-2.5, True)
    """
    check_same_atlas(regional, atlas)
    if modality not in regional.modalities:
        raise CohortError(f"there is no modality {modality!r} with regions of {atlas.name}; there "
                          f"is {listed(regional.modalities)}")
    check_known(regional.z.index, [subject])
    values = regional.z.loc[subject][modality].dropna()
    if not len(values):
        raise CohortError(f"{modality} was not measured of {subject}; there is nothing to paint")
    return atlas.paint(values)


def group_map(comparison: GroupComparison, modality: str, atlas: Atlas, column: str = "g", *,
              contrast: str | None = None) -> Nifti1Image:
    """One column of a comparison, painted into the atlas's regions.

    Parameters
    ----------
    comparison : GroupComparison
        Of a RegionalDeviations of this atlas.
    modality : str
    atlas : Atlas
    column : str
        A column of numbers, such as ``g``, ``t``, ``difference`` or ``q``.
    contrast : str, optional
        Needed if the comparison has several.

    Returns
    -------
    Nifti1Image of float32
        Regions that could not be tested are left as the background.

    Raises
    ------
    ComparisonError
        If modality, column or contrast is not in the comparison.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> from normfuse.analyses.group_comparison import INDEX
    >>> regions = [("AD - CN", "t1", "Left-Hippocampus"), ("AD - CN", "t1", "Brain-Stem")]
    >>> table = pd.DataFrame({"g": [-1.25, 0.5]}, pd.MultiIndex.from_tuples(regions, names=INDEX))
    >>> comparison = GroupComparison(table, "diagnosis", "CN", (), "", {"CN": 30, "AD": 20})
    >>> atlas = load_atlas("dk")
    >>> values = group_map(comparison, "t1", atlas).get_fdata()
    >>> [set(values[atlas.labels == number].tolist()) for number in (17, 16)]
    [{-1.25}, {0.5}]
    """
    table = comparison.table
    contrasts = list(table.index.get_level_values("contrast").unique())
    if contrast is None and len(contrasts) == 1:
        contrast = contrasts[0]
    modalities = table.index.get_level_values("modality").unique()
    numbers = list(table.select_dtypes("number"))
    for what, name, known in (("contrast", contrast, contrasts), ("column", column, numbers),
                              ("modality", modality, list(modalities))):
        if name not in known:
            raise ComparisonError(f"choose a {what} of this comparison: {listed(known, 30)}; "
                                  f"got {name!r}")
    return atlas.paint(table.loc[contrast].loc[modality][column].dropna())


def beyond(z: pd.DataFrame, threshold: float, direction: str = "both") -> pd.DataFrame:
    """Which z lie beyond a positive threshold, ``both``, ``below`` or ``above``; NaN does not.

    Examples
    --------
    >>> beyond(pd.DataFrame({"insula": [-2.1, 2.4, None]}), 1.96, "below")["insula"].tolist()
    [True, False, False]
    """
    if not threshold > 0:
        raise CohortError(f"threshold is a positive z; got {threshold}")
    answers = {"both": z.abs() > threshold, "below": z < -threshold, "above": z > threshold}
    if direction not in answers:
        raise CohortError(f"direction is both, below or above; got {direction!r}")
    return answers[direction]


def check_same_atlas(regional: RegionalDeviations, atlas: Atlas) -> None:
    """Raises AtlasError if these are the regions of another atlas."""
    if regional.atlas != atlas.name:
        raise AtlasError(f"these deviations were parcellated with atlas {regional.atlas}, the map "
                         f"was asked for in {atlas.name}; give the same atlas to both")


def check_known(known: pd.Index, people: list[str]) -> None:
    """Raises CohortError if somebody is not among these deviations."""
    unknown = [subject for subject in people if subject not in known]
    if unknown:
        raise CohortError(f"not among these deviations: {listed(unknown)}; the held-out controls "
                          "are in with_controls()")

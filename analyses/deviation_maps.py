"""Deviations as maps in the brain, and as counts: of one person, of groups, and between groups."""
from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.nonparametric import rank_compare_2indep

from normfuse import __version__
from normfuse.errors import AtlasError, CohortError, ComparisonError, listed
from normfuse.outputs import file_stem, new_folder

from .groups import (CORRECTIONS, INDEX, GroupComparison, Scores, beyond, corrected, group_sizes,
                     honest_people)

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
    _check_atlas(regional, atlas)
    if modality not in regional.modalities:
        raise CohortError(f"there is no modality {modality!r} with regions of {atlas.name}; there "
                          f"is {listed(regional.modalities)}")
    _check_known(regional, [subject])
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


def write_maps(regional: RegionalDeviations, atlas: Atlas, folder: str | Path, *,
               subjects: Iterable[str] | None = None, overwrite: bool = False
               ) -> tuple[Path, ...]:
    """One z-map a person and measured modality, in a new folder of BIDS derivatives.

    Parameters
    ----------
    regional : RegionalDeviations
    atlas : Atlas
        The one ``regional`` was made with.
    folder : path
        Gets ``sub-<id>_desc-normfuse_stat-z_<modality>.nii.gz`` (``sub-`` is not doubled) and
        ``dataset_description.json``.
    subjects : iterable of str, optional
        Everyone by default.
    overwrite : bool
        Replace the folder if it is there.

    Returns
    -------
    tuple of Path
        The maps written. A modality that was not measured of a person has none.

    Raises
    ------
    CohortError
        For an unknown subject, an id that cannot be a file name, or two ids that would share a
        file; nothing is written then.
    OutputExistsError
        If the folder is there and ``overwrite`` is not asked for.

    References
    ----------
    Gorgolewski et al. (2016), doi:10.1038/sdata.2016.44.
    """
    _check_atlas(regional, atlas)
    chosen = [subjects] if isinstance(subjects, str) else subjects
    people = list(regional.z.index) if chosen is None else [str(subject) for subject in chosen]
    _check_known(regional, people)
    stems = _stems(people)
    _check_modalities(regional)
    names = []
    with new_folder(Path(folder), overwrite=overwrite) as work:
        for subject, stem in stems.items():
            measured = regional.z.loc[subject].dropna().index.get_level_values(0)
            for modality in (name for name in regional.modalities if name in measured):
                names.append(f"{stem}_desc-normfuse_stat-z_{modality}.nii.gz")
                image = subject_map(regional, subject, modality, atlas)
                image.to_filename(work / names[-1])
        (work / "dataset_description.json").write_text(
            json.dumps(_description(regional), indent=1), encoding="utf-8")
    return tuple(Path(folder) / name for name in names)


def overlap(deviations: Scores, group: str, *, threshold: float = 1.96,
            direction: str = "both") -> pd.DataFrame:
    r"""The share of each group beyond a threshold, per feature.

    .. math:: o_k(r) = \frac{\#\{i \in k : |z_{ir}| > t\}}{\#\{i \in k : z_{ir}
              \text{ measured}\}}

    Groups overlap little even in illnesses with clear mean differences: people deviate in
    different places. A healthy group shows 5 % everywhere at 1.96. People the model was trained
    on are left out, and the held-out controls added, as in :func:`compare_groups`.

    Parameters
    ----------
    deviations : Deviations or RegionalDeviations
    group : str
        Column of ``subjects``.
    threshold : float
        t, in units of z.
    direction : {"both", "below", "above"}
        Count \|z\| > t, z < -t or z > t.

    Returns
    -------
    DataFrame, index (group, modality, feature)
        ``share`` (0 to 1; NaN if nobody was measured), ``count`` and ``n`` measured. Paint one
        with ``atlas.paint(table.loc["AD"].loc["t1"]["share"])``.

    References
    ----------
    Wolfers et al. (2018), doi:10.1001/jamapsychiatry.2018.2467.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> overlap(tiny_deviations(), "diagnosis").loc[("AD", "t1", "insula")].tolist()
    [1.0, 1.0, 1.0]
    """
    people, levels, _ = honest_people(deviations, group)
    far = beyond(people.z, threshold, direction)
    parts = {}
    for level in sorted(levels.unique()):
        who = (levels == level).to_numpy()
        count, n = far[who].sum(), people.z[who].notna().sum()
        parts[level] = pd.DataFrame({"share": count / n, "count": count, "n": n})
    return pd.concat(parts, names=["group", *INDEX[1:]])


def compare_extremes(deviations: Scores, group: str, *,
                     threshold: float = 1.96, direction: str = "both",
                     baseline: object = None) -> GroupComparison:
    r"""Do people of one group have more extreme deviations? By ranks, per modality and in total.

    .. math:: \mathrm{AUC} = U / (n_1 n_0) = P(c_1 > c_0) + \tfrac12 P(c_1 = c_0)

    for the counts c of features with \|z\| > t. A binomial law of the count would be wrong: the
    regions of one brain are correlated, and in healthy people the variance of the count is about
    ten times as large. Where some features were not measured, the count is scaled up to all.

    Parameters
    ----------
    deviations, group, baseline
        As in :func:`~normfuse.analyses.compare_groups`.
    threshold : float
        t, in units of z.
    direction : {"both", "below", "above"}
        Count \|z\| > t, z < -t or z > t.

    Returns
    -------
    GroupComparison
        Index ``feature`` is ``extreme count``, ``modality`` also ``total``. Columns: mean and
        median count of ``case`` and ``baseline``; ``u``, ``auc`` (above .5: the case group has
        more) with 95 % ``auc_low``, ``auc_high``; ``p``, ``q``, ``n_case``,
        ``n_baseline``; ``reason``.

    Raises
    ------
    ComparisonError
        As :func:`~normfuse.analyses.compare_groups`.

    References
    ----------
    Mann & Whitney (1947), doi:10.1214/aoms/1177730491; interval: Brunner & Munzel (2000),
    doi:10.1002/(SICI)1521-4036(200001)42:1<17::AID-BIMJ17>3.0.CO;2-U.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_cohort, tiny_deviations
    >>> cohort = tiny_cohort()
    >>> raw, empty = pd.concat(cohort.features, axis=1), cohort.subjects[[]]
    >>> deviations = replace(tiny_deviations(), z=(raw - raw.mean()) / raw.std(), observed=raw,
    ...                      expected=raw, latent=empty, distance=empty, subjects=cohort.subjects)
    >>> compare_extremes(deviations, "diagnosis").table["auc"].round(2).tolist()
    [0.41, 0.47, 0.39, 0.4]
    """
    people, levels, notes = honest_people(deviations, group)
    names = people.z.columns.get_level_values(0)
    far, known = beyond(people.z, threshold, direction), people.z.notna()
    short = known.sum(axis=1) < known.any(axis=0).sum()
    if short.any():
        notes = (*notes, f"{int(short.sum())} of {len(short)} people lack some features; their "
                         "counts are scaled up to all of them")
    counts = {}
    for name in (*people.modalities, "total"):
        columns = np.ones(len(names), bool) if name == "total" else names == name
        measured = known.loc[:, columns].sum(axis=1)
        width = known.loc[:, columns].any(axis=0).sum()
        counts[name, "extreme count"] = far.loc[:, columns].sum(axis=1) / measured * width
    table = pd.DataFrame(counts)
    return _by_rank(table, table, people.subjects, levels, baseline, notes)


def compare_distances(deviations: Scores, group: str, *,
                      baseline: object = None) -> GroupComparison:
    """Do people of one group lie farther out in the latent space? By ranks.

    People are ranked by the p-value of their distance (smallest is farthest). Among people with
    the same modalities that is the order of the distances; the distance alone would call people
    with a rare set of modalities far, because few calibration people share it.

    Parameters
    ----------
    deviations, group, baseline
        As in :func:`~normfuse.analyses.compare_groups`.

    Returns
    -------
    GroupComparison
        One row a contrast, (``latent``, ``distance``), with the columns of
        :func:`compare_extremes`; means and medians are of the distance.

    Raises
    ------
    ComparisonError
        As :func:`~normfuse.analyses.compare_groups`.

    References
    ----------
    The law of the distance: Hotelling (1931), doi:10.1214/aoms/1177732979.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_cohort, tiny_deviations
    >>> people = tiny_cohort().subjects
    >>> far = people[[]].assign(distance=people["age"], p=1 - people["age"] / 100)
    >>> none = dict.fromkeys(("z", "observed", "expected", "latent"), people[[]])
    >>> deviations = replace(tiny_deviations(), distance=far, subjects=people, **none)
    >>> compare_distances(deviations, "sex").table.iloc[0][["auc", "n_case"]].round(2).to_dict()
    {'auc': 0.53, 'n_case': 20}
    """
    people, levels, notes = honest_people(deviations, group)
    key = [("latent", "distance")]
    shown = people.distance[["distance"]].set_axis(pd.MultiIndex.from_tuples(key), axis=1)
    ranked = -people.distance[["p"]].set_axis(shown.columns, axis=1)
    return _by_rank(shown, ranked, people.subjects, levels, baseline, notes)


def _by_rank(shown: pd.DataFrame, ranked: pd.DataFrame, subjects: pd.DataFrame, levels: pd.Series,
             baseline: object, notes: tuple[str, ...]) -> GroupComparison:
    """One rank test a contrast and column; means and medians are of what is shown."""
    n, why = group_sizes(subjects, levels, baseline)
    base, *cases = n
    rows = {}
    for case in cases:
        for key in shown.columns:
            known = ranked[key].notna()
            ones, zeros = (known & (levels == level) for level in (case, base))
            averages = {f"{name}_{what}": getattr(shown.loc[who, key], what)()
                        for what in ("mean", "median")
                        for name, who in (("case", ones), ("baseline", zeros))}
            rows[(f"{case} - {base}", *key)] = {
                **averages, **_rank_test(ranked.loc[ones, key], ranked.loc[zeros, key])}
    index = pd.MultiIndex.from_tuples(rows, names=INDEX)
    table = pd.DataFrame(list(rows.values()), index=index)
    table["q"] = corrected(table["p"], "fdr_bh")
    family = f"{CORRECTIONS['fdr_bh']} over {table['p'].notna().sum()} rank tests"
    return GroupComparison(table, str(levels.name), base, (), family, n, (*notes, why))


def _rank_test(case: pd.Series, base: pd.Series) -> dict[str, Any]:
    sizes = {"n_case": len(case), "n_baseline": len(base)}
    nothing = dict.fromkeys(("u", "auc", "auc_low", "auc_high", "p", "q"), np.nan)
    if min(sizes.values()) < 2:
        return {**nothing, **sizes, "reason": f"measured in {len(case)} and {len(base)} people, "
                                              "needs 2 in each group"}
    if pd.concat([case, base]).nunique() == 1:
        return {**nothing, **sizes, "reason": "the same in everyone"}
    u, p = stats.mannwhitneyu(case, base)
    auc = u / (len(case) * len(base))
    with np.errstate(divide="ignore", invalid="ignore"):  # no overlap at all: no interval
        low, high = rank_compare_2indep(case, base).conf_int()
    return {"u": u, "auc": auc, "auc_low": max(low, 0.0), "auc_high": min(high, 1.0), "p": p,
            "q": np.nan, **sizes, "reason": ""}


def _check_atlas(regional: RegionalDeviations, atlas: Atlas) -> None:
    if regional.atlas != atlas.name:
        raise AtlasError(f"these deviations were parcellated with atlas {regional.atlas}, the map "
                         f"was asked for in {atlas.name}; give the same atlas to both")


def _check_known(regional: RegionalDeviations, people: list[str]) -> None:
    unknown = [subject for subject in people if subject not in regional.z.index]
    if unknown:
        raise CohortError(f"not among these deviations: {listed(unknown)}; the held-out controls "
                          "are in regional.with_controls()")


def _check_modalities(regional: RegionalDeviations) -> None:
    for modality in regional.modalities:
        try:
            file_stem(modality)
        except CohortError as problem:
            raise CohortError(f"modality {modality!r} cannot be part of a file name; call it by "
                              "letters and digits, such as t1") from problem


def _stems(people: list[str]) -> dict[str, str]:
    """File stem of each person, all checked before the first file is written."""
    stems: dict[str, str] = {}
    owners: dict[str, str] = {}
    for subject in people:
        safe = file_stem(subject)
        stems[subject] = safe if safe.startswith("sub-") else f"sub-{safe}"
        # Some file systems take sub-A and sub-a for one file.
        other = owners.setdefault(stems[subject].lower(), subject)
        if other != subject:
            raise CohortError(f"subjects {other!r} and {subject!r} would share the file "
                              f"{stems[subject]}; rename one of them")
    return stems


def _description(regional: RegionalDeviations) -> dict[str, Any]:
    reference = regional.reference
    return {"Name": "normfuse deviation maps", "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "normfuse", "Version": __version__,
                             "Description": f"z in the regions of atlas {regional.atlas}, against "
                                            f"{sum(reference.n_subjects.values())} reference "
                                            f"people; {reference.fusion}, seed {reference.seed}"}],
            "GeneratedAt": datetime.now(UTC).isoformat(timespec="seconds")}

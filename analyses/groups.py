"""Do groups differ? Deviations and raw values side by side, among people honestly comparable."""
from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import pandas as pd

from normfuse.deviations import JUDGES, ROLE, SEEN_ROLES, Deviations
from normfuse.errors import ComparisonError, listed

from .effects import CORRECTIONS, Array, compare_features, corrected
from .group_comparison import ALPHA, INDEX, GroupComparison
from .regional import RegionalDeviations

Scores: TypeAlias = Deviations | RegionalDeviations
FEWEST_APART, SHARE_APART = 2, 0.1
"""z and raw values are said to disagree from so many rows on that are significant in one of them
alone, if they are at least this share of those that are in either: with a q of .049 and .051 one
row falls on two sides of a border without any disagreement."""

SameScores = TypeVar("SameScores", bound=Scores)  # what goes in comes out


def compare_groups(deviations: Scores, group: str, *,
                   adjust: Iterable[str] | None = None, baseline: object = None,
                   correction: str = "fdr_bh") -> GroupComparison:
    r"""Differences between groups in every feature, in z and in the raw values.

    .. math:: \text{difference} = \bar z_1 - \bar z_0, \quad
              g = J\,\frac{\bar z_1 - \bar z_0}{s_p}, \quad J = 1 - \frac{3}{4(n_1 + n_0) - 9},
              \quad z = \beta_0 + \beta\,[\text{case}] + \gamma^\top c + \varepsilon

    with 1 the case group, 0 the baseline and :math:`s_p` their pooled sd. The interval of the
    difference is Welch's, that of g solves the noncentral t, and t and p belong to :math:`\beta`,
    by ordinary least squares on the people of that contrast alone. z is free of the model's
    covariates only as far as the reference could tell their effects; what it got wrong is the same
    for everybody, so groups that differ in age or sex must be adjusted for it once more.

    Parameters
    ----------
    deviations : Deviations or RegionalDeviations
        The held-out controls it keeps are added. People the model was trained on are left out
        with a warning: their z is too small, and the difference would look like disease.
    group : str
        Column of ``subjects``. People without a value are left out and counted.
    adjust : iterable of str, optional
        Columns :math:`c`; by default the model's own covariates, ``()`` for none. Numbers as
        they are, all else one-hot. What the reference knows as a category (a site 1, 2, 3)
        stays one.
    baseline : optional
        The level all others are held against. By default the one with most of the calibration
        controls, else the largest.
    correction : {"fdr_bh", "fdr_by", "holm"}
        Of p over all contrasts, modalities and features; z and raw are a family each.

    Returns
    -------
    GroupComparison
        Columns: ``difference`` (case minus baseline, sd of the reference), 95 % ``ci_low`` and
        ``ci_high``; ``g`` with 95 % ``g_low``, ``g_high``; ``adjusted_difference`` :math:`\beta`
        with ``t``, ``df``, ``p`` (two-sided), ``q``; ``n_case``, ``n_baseline``; ``reason``. The
        same with ``raw_`` before it, in the modality's unit.

    Raises
    ------
    ComparisonError
        An unknown column, one group only, a group of fewer than 2, a missing covariate.

    References
    ----------
    Hedges & Olkin (1985), Statistical Methods for Meta-Analysis; Steiger & Fouladi (1997) for the
    interval, which we multiply by the same J as g. Benjamini & Hochberg (1995),
    doi:10.1111/j.2517-6161.1995.tb02031.x.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_cohort, tiny_deviations
    >>> cohort = tiny_cohort()
    >>> raw, empty = pd.concat(cohort.features, axis=1), cohort.subjects[[]]
    >>> deviations = replace(tiny_deviations(), z=(raw - raw.mean()) / raw.std(), observed=raw,
    ...                      expected=raw, latent=empty, distance=empty, attribution=None,
    ...                      subjects=cohort.subjects)
    >>> found = compare_groups(deviations, "diagnosis", adjust=["age", "sex"])
    >>> found.n, found.family
    ({'CN': 35, 'AD': 5}, 'Benjamini-Hochberg over 15 tests (contrasts x features), raw over 15')
    >>> found.table.loc[("AD - CN", "t1", "t1_region1"), "n_baseline"]
    np.int64(34)
    """
    known = getattr(getattr(deviations, "reference", None), "covariates", {})
    if group in known:
        raise ComparisonError(
            f"{group} is a covariate of the model: what z still says about it is the error with "
            "which the model learned its effect, shared by everybody. Fit a model without "
            f"{group} to compare by it")
    if adjust is None:
        adjust = [name for name in known if name in deviations.subjects]
    adjust = (adjust,) if isinstance(adjust, str) else tuple(adjust)
    if correction not in CORRECTIONS:
        raise ComparisonError(f"correction is one of {', '.join(CORRECTIONS)}; got {correction!r}")
    people, levels, notes = honest_people(deviations, group)
    n, why = group_sizes(people.subjects, levels, baseline)
    base, *cases = n
    design = covariate_columns(people.subjects, adjust, group, people.reference.covariates)
    parts = {}
    for case in cases:
        rows = levels.isin([case, base]).to_numpy()
        who = (levels[rows] == case).to_numpy()
        z, raw = (compare_features(values[rows], who, design[rows])
                  for values in (people.z, people.observed))
        parts[f"{case} - {base}"] = z.join(raw.add_prefix("raw_"))
    table = pd.concat(parts, names=INDEX)
    for prefix in ("", "raw_"):
        table[f"{prefix}q"] = corrected(table[f"{prefix}p"], correction)
    tests = table[["p", "raw_p"]].notna().sum()
    return GroupComparison(
        table, group, base, adjust, f"{CORRECTIONS[correction]} over {tests['p']} tests "
        f"(contrasts x features), raw over {tests['raw_p']}", n,
        (*notes, why, *_findings(table)), people.reference.kind)


def honest_people(deviations: SameScores, group: str
                  ) -> tuple[SameScores, pd.Series, tuple[str, ...]]:
    """Everyone with a group on whom the model was not trained, their groups, and notes.

    Raises ComparisonError if ``group`` is not a column of ``subjects``, or nobody is left.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_deviations
    >>> patients = tiny_deviations().select(["sub-b"])
    >>> _, levels, notes = honest_people(
    ...     replace(patients, controls=tiny_deviations().select(["sub-a"])), "diagnosis")
    >>> levels.to_dict(), notes
    ({'sub-b': 'AD', 'sub-a': 'CN'}, ('added 1 held-out controls of the reference',))
    """
    everyone = deviations.with_controls()
    kept, levels, notes = honest_subjects(everyone.subjects, group)
    added = len(everyone) - len(deviations)
    said = (f"added {added} held-out controls of the reference",) if added else ()
    return cast(SameScores, everyone.select(kept)), levels, (*said, *notes)


def honest_subjects(subjects: pd.DataFrame, group: str
                    ) -> tuple[pd.Index, pd.Series, tuple[str, ...]]:
    """Who has a group and was not trained on, their groups, and notes on who is left out.

    Raises ComparisonError if ``group`` is not a column, or nobody is left.

    Examples
    --------
    >>> people = pd.DataFrame({"dx": ["AD", None, "CN"]}, index=["s1", "s2", "s3"])
    >>> kept, _, notes = honest_subjects(people, "dx")
    >>> list(kept), notes
    (['s1', 's3'], ('left out 1 people without a value of dx (s2)',))
    """
    if group not in subjects.columns:
        raise ComparisonError(f"group {group!r} is not a column of the subjects table; it has "
                              f"{listed(subjects.columns, 12)}")
    role = subjects[ROLE] if ROLE in subjects else pd.Series("", subjects.index)
    seen = role.isin(SEEN_ROLES)
    levels = _as_levels(subjects[group])
    notes = []
    if seen.any():
        notes.append(f"left out {int(seen.sum())} people the model was trained on "
                     f"({listed(subjects.index[seen])}): their deviations are too small")
        warnings.warn(notes[-1], stacklevel=4)
    lacking = subjects.index[levels.isna() & ~seen]
    if len(lacking):
        notes.append(f"left out {len(lacking)} people without a value of {group} "
                     f"({listed(lacking)})")
    kept = subjects.index[~seen & levels.notna()]
    if kept.empty:
        raise ComparisonError(f"nobody is left to compare by {group}: " + "; ".join(notes))
    return kept, levels[kept].astype(str), tuple(notes)


def group_sizes(subjects: pd.DataFrame, levels: pd.Series, baseline: object
                ) -> tuple[dict[str, int], str]:
    """People per group, the baseline first, and why that is the baseline.

    Raises ComparisonError for one group only, a group of one, or an unknown baseline.

    Examples
    --------
    >>> levels = pd.Series(["MCI", "CN", "AD", "CN", "AD", "MCI", "CN"])
    >>> group_sizes(levels.to_frame(), levels, None)
    ({'CN': 3, 'AD': 2, 'MCI': 2}, 'baseline CN: the largest group')
    """
    sizes = {str(level): int(n) for level, n in levels.value_counts().items()}
    if len(sizes) == 1:
        raise ComparisonError(
            f"all {len(levels)} people compared by {levels.name} are {levels.iloc[0]!r}, and a "
            "comparison needs a second group; score the controls too: model.deviations(cohort) "
            "on the whole cohort, from which the people the model was fitted on are left out")
    small = sorted(level for level in sizes if sizes[level] < 2)
    if small:
        raise ComparisonError(
            f"{levels.name} {listed(small)} has one person only "
            f"({listed(levels.index[levels.isin(small)])}), and a group needs 2 at least; merge "
            "it with another group, or leave it out with deviations.select()")
    held = levels[subjects[ROLE].isin(JUDGES)] if ROLE in subjects else levels[:0]
    largest = sorted(level for level in sizes if sizes[level] == max(sizes.values()))
    base, why = largest[0], "the largest group" if len(largest) == 1 else (
        f"the first of {len(largest)} groups of equal size; name another with baseline=")
    if baseline is not None:
        base, why = str(baseline), "asked for"
    elif len(held):
        base = str(held.value_counts().index[0])
        why = f"{(held == base).sum()} of its people are calibration controls"
    if base not in sizes:
        raise ComparisonError(f"baseline {base!r} is not a value of {levels.name}; it has "
                              f"{listed(sorted(sizes), 12)}")
    ordered = (base, *sorted(set(sizes) - {base}))
    return {level: sizes[level] for level in ordered}, f"baseline {base}: {why}"


def covariate_columns(subjects: pd.DataFrame, adjust: tuple[str, ...], group: str,
                      known: Mapping[str, Any]) -> Array:
    """Columns of the covariates, (n_subjects, n_columns): numbers, and one-hot categories.

    The first is the constant; ``known`` says which covariates are numbers: ``{"age": {"kind":
    "continuous"}}``. Raises ComparisonError for an unknown column or a missing value.
    """
    kinds = {name: fact.get("kind") for name, fact in known.items()}
    columns: list[Array] = [np.ones(len(subjects))]
    for name in adjust:
        if name == group or name not in subjects.columns:
            raise ComparisonError(f"cannot adjust for {name!r}: it must be a column other than "
                                  f"{group} of {listed(subjects.columns, 12)}")
        values = subjects[name]
        number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if kinds.get(name) == "continuous" or (name not in kinds and number):
            values = pd.to_numeric(values, errors="coerce").astype("float64")
            values = values.where(np.isfinite(values))
            columns.append((values - values.mean()).to_numpy())
        else:
            values = _as_levels(values)
            columns.extend(pd.get_dummies(values, drop_first=True, dtype=float).to_numpy().T)
        if values.isna().any():
            raise ComparisonError(
                f"{name} is missing for {int(values.isna().sum())} of {len(subjects)} compared "
                f"people ({listed(values.index[values.isna()])}); fill it in, leave them out with "
                f"deviations.select(), or do not adjust for {name}")
    return np.column_stack(columns)


def _as_levels(column: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(column) and np.all(np.mod(column.dropna(), 1) == 0):
        column = column.astype("Int64")  # group 1.0 is the group 1, read beside an empty cell
    words = column.astype("string").str.strip()
    return words.mask(words == "")


def _findings(table: pd.DataFrame) -> tuple[str, ...]:
    """Notes on the result: do z and raw values agree, and was everything tested?"""
    in_z, in_raw = (table[name] < ALPHA for name in ("q", "raw_q"))
    apart, either = int((in_z != in_raw).sum()), int((in_z | in_raw).sum())
    untested = int(table["p"].isna().sum())
    notes = []
    if apart >= FEWEST_APART and apart >= SHARE_APART * either:
        notes.append(f"z and raw values disagree in {apart} of {len(table)} rows at q < {ALPHA}: "
                     f"{int((in_z & ~in_raw).sum())} in z alone, {int((in_raw & ~in_z).sum())} "
                     f"raw alone, {either - apart} in both; look whether the groups differ in "
                     "age, sex or site. A region can stand out in z alone because the rest of "
                     "the brain changed")
    if untested:
        notes.append(f"{untested} of {len(table)} rows could not be tested; see reason")
    return tuple(notes)

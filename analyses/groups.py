"""Do groups differ? Deviations and raw values side by side, among people honestly comparable."""
from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from normfuse.errors import ComparisonError

from .comparable import (Scores, covariate_columns, covariate_names, group_sizes, honest_people,
                         honest_subjects, known_covariates)
from .contrasts import Contrasts
from .families import correction_name, disagreement, family, shuffles_of, small_group
from .group_comparison import GroupComparison
from .terms import ALTERNATIVES, TESTS
from .voxel_corrections import MaxT

__all__ = ["Scores", "compare_groups", "covariate_columns", "group_sizes", "honest_people",
           "honest_subjects"]


def compare_groups(deviations: Scores, group: str, *,
                   adjust: Iterable[str] | None = None, baseline: object = None,
                   correction: str | MaxT = "fdr_bh", test: str = "ols",
                   alternative: str = "two-sided") -> GroupComparison:
    r"""Differences between groups in every feature, in z and in the raw values.

    .. math:: \text{difference} = \bar z_1 - \bar z_0, \quad
              g = J\,\frac{\bar z_1 - \bar z_0}{s_p}, \quad J = 1 - \frac{3}{4(n_1 + n_0) - 9},
              \quad z = \beta_0 + \beta\,[\text{case}] + \gamma^\top c + \varepsilon

    with 1 the case group, 0 the baseline and :math:`s_p` their pooled sd. The interval of the
    difference is Welch's, that of g solves the noncentral t, and t and p belong to :math:`\beta`,
    by ordinary least squares on the people of that contrast alone (an analysis of covariance). z
    is free of the model's covariates only as far as the reference could tell their effects; what
    it got wrong is the same for everybody, so groups that differ in age or sex must be adjusted
    for it once more. Of more than two groups, ``omnibus`` asks first whether any differ.

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
    correction : {"fdr_bh", "fdr_by", "holm"} or MaxT
        Of p over all contrasts, modalities and features; z and raw are a family each, and so is
        the omnibus test. ``MaxT(5000, blocks="site")``: family-wise, by the largest t of people
        who change places within sites (Freedman and Lane).
    test : {"ols", "hc3", "welch"}
        One variance for everybody; errors that allow each person their own (HC3), for groups that
        differ in spread; or Welch's t, which knows no covariates.
    alternative : {"two-sided", "greater", "less"}
        ``less``: the case group lies below. Intervals and the omnibus test stay two-sided.

    Returns
    -------
    GroupComparison
        Columns: ``difference`` (case minus baseline, sd of the reference), 95 % ``ci_low`` and
        ``ci_high``; ``g`` with 95 % ``g_low``, ``g_high``; Cliff's ``delta`` with 95 %
        ``delta_low``, ``delta_high``; ``adjusted_difference`` :math:`\beta` with ``t``, ``df``,
        ``p``, ``q`` (p corrected); ``n_case``, ``n_baseline``; ``reason``. The same with ``raw_``
        before it, in the modality's unit. ``omnibus``: ``f``, ``df1``, ``df2``, ``p``, ``q``,
        ``n`` of every feature.

    Raises
    ------
    ComparisonError
        An unknown column or word, one group only, a group of fewer than 2, a missing covariate,
        covariates for Welch's test, or groups that no site has both of (MaxT).

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
    >>> found.n
    {'CN': 35, 'AD': 5}
    >>> found.family
    'Benjamini-Hochberg over 15 tests (1 contrast; t1 4, dti 5, pet 6), raw over 15'
    >>> found.table.loc[("AD - CN", "t1", "t1_region1"), "n_baseline"]
    np.int64(34)
    """
    _check(deviations, group, test, alternative, adjust)
    correction_name(correction)
    adjust = () if test == "welch" else covariate_names(deviations, adjust)
    people, levels, notes = honest_people(deviations, group)
    n, why = group_sizes(people.subjects, levels, baseline)
    base, *cases = n
    design = covariate_columns(people.subjects, adjust, group, people.reference.covariates)
    shuffles, said = shuffles_of(correction, people.subjects, design, levels, tuple(n))
    parts, omnibus = {}, {}
    for prefix, values in (("", people.z), ("raw_", people.observed)):
        found = Contrasts(values, levels, (base, *cases), design, test, alternative)
        parts[prefix] = found.table(correction, shuffles).add_prefix(prefix)
        omnibus[prefix] = found.omnibus(correction, shuffles).add_prefix(prefix)
    table = pd.concat(parts.values(), axis=1)
    return GroupComparison(
        table, group, base, adjust, family(table, correction), n,
        (*notes, why, *said, *small_group(n, test, correction), *disagreement(table)),
        people.reference.kind,
        pd.concat(omnibus.values(), axis=1) if len(cases) > 1 else None,
        f"{TESTS[test]}, {alternative}")


def _check(deviations: Scores, group: str, test: str, alternative: str,
           adjust: Iterable[str] | None) -> None:
    if group in known_covariates(deviations):
        raise ComparisonError(
            f"{group} is a covariate of the model: what z still says about it is the error with "
            "which the model learned its effect, shared by everybody. Fit a model without "
            f"{group} to compare by it")
    for name, word, words in (("test", test, TESTS), ("alternative", alternative, ALTERNATIVES)):
        if word not in words:
            raise ComparisonError(f"{name} is one of {', '.join(words)}; got {word!r}")
    if test == "welch" and adjust is not None and tuple(adjust):
        raise ComparisonError("Welch's test knows no covariates; give adjust=(), or test='hc3', "
                              "which adjusts and allows groups their own spread")

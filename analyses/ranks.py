"""Rank tests between groups: of the number of extreme deviations, and of the latent distance."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.nonparametric import rank_compare_2indep

from .deviation_maps import beyond
from .effects import CORRECTIONS, corrected
from .group_comparison import INDEX, GroupComparison
from .comparable import unlike_scored
from .groups import Scores, group_sizes, honest_people

_UNEVEN = 1.2  # times as many features


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
    threshold, direction
        Which deviations are extreme, as in :func:`~normfuse.analyses.overlap`.

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
    >>> from normfuse.testing import tiny_scored
    >>> deviations = tiny_scored()
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
    found = _by_rank(table, table, people.subjects, levels, baseline, notes)
    return replace(found, kind=people.reference.kind, notes=(
        *found.notes, *unevenly_measured(people.z, levels, tuple(found.n)),
        *unlike_scored(people.subjects)))


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
    >>> empty = ("z", "observed", "expected", "latent", "attribution")
    >>> none = dict.fromkeys(empty, people[[]])
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
                **averages, **rank_test(ranked.loc[ones, key], ranked.loc[zeros, key])}
    index = pd.MultiIndex.from_tuples(rows, names=INDEX)
    table = pd.DataFrame(list(rows.values()), index=index)
    table["q"] = corrected(table["p"], "fdr_bh")
    family = f"{CORRECTIONS['fdr_bh']} over {table['p'].notna().sum()} rank tests"
    return GroupComparison(table, str(levels.name), base, (), family, n, (*notes, why))


def unevenly_measured(z: pd.DataFrame, levels: pd.Series, groups: Sequence[str]
                      ) -> tuple[str, ...]:
    """A note if people of a group were measured with fewer features than the baseline, the first.

    Scaled up to all, a count of 4 features is 0 or far too many, which ranks tell from one of 40.
    """
    n = z.notna().T.groupby(level=0, sort=False).sum().T
    n["total"] = n.sum(axis=1)
    typical_of = n.where(n > 0).groupby(levels).median().loc[list(groups)]
    base, *cases = typical_of.to_dict("index").items()
    apart = [f"{case} - {base[0]}, {name}: {a:g} and {b:g} features"
             for case, typical in cases for name, a in typical.items()
             if max(a, b := base[1][name]) > _UNEVEN * min(a, b)]
    return () if not apart else (
        f"groups were measured unevenly ({'; '.join(apart)}, medians): scaled counts of fewer "
        "features are coarser, which ranks and AUC tell apart even where nobody differs; score "
        "with features that both groups have",)


def rank_test(case: pd.Series, base: pd.Series) -> dict[str, Any]:
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

"""How many people of a group deviate in the same place, and whether more than in another group."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from .comparable import (Scores, covariate_columns, group_sizes, honest_people, site_column,
                         unlike_scored)
from .deviation_maps import beyond
from .effects import CORRECTIONS, corrected
from .families import shuffles_for, sided
from .group_comparison import ALPHA, INDEX
from .linear_terms import EXPLAINED, Array
from .results import Found
from .shuffles import Shuffles
from .terms import Question, TableNull, shuffled
from .voxel_corrections import MaxT, rank_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class OverlapMaps(Found):
    """Shares of groups beyond a threshold; made by :func:`overlap`.

    Attributes
    ----------
    shares : DataFrame, index (group, modality, feature)
        ``share`` (0 to 1; NaN if nobody was measured), ``count`` and ``n`` measured. Paint one
        with ``atlas.paint(maps.shares.loc["AD"].loc["t1"]["share"])``.
    table : DataFrame, index (contrast, modality, feature)
        ``share_case``, ``share_baseline``, their ``difference`` with 95 % ``ci_low``, ``ci_high``;
        ``t``, ``p`` by permutation, ``q`` of those p, ``p_fwe`` by the largest t; ``n_case``,
        ``n_baseline``; ``reason``.
    group, baseline, what, family : str
        What was compared; which deviations counted; what q and p_fwe were corrected over.
    n : dict of int
        People per group, baseline first.
    notes : tuple of str
    kind : str
        Of deviations (:mod:`normfuse.kinds`).

    Examples
    --------
    >>> from normfuse.testing import tiny_scored
    >>> deviations = tiny_scored()
    >>> maps = overlap(deviations, "diagnosis", threshold=1.0)
    >>> print(maps.summary().split(";")[0])
    diagnosis: 35 CN, 5 AD (baseline CN)
    >>> maps.plot().get_xlabel()
    'share of people with |z| > 1'
    """

    shares: pd.DataFrame
    table: pd.DataFrame
    group: str
    baseline: str
    what: str
    family: str
    n: Mapping[str, int]
    notes: tuple[str, ...] = ()
    kind: str = ""

    def summary(self) -> str:
        """The maps in a few lines of text."""
        who = ", ".join(f"{n} {level}" for level, n in self.n.items())
        lines = [f"{self.group}: {who} (baseline {self.baseline}); share of people with "
                 f"{self.what}, deviations of kind {self.kind}"]
        for (contrast, modality), part in self.table.groupby(level=[0, 1], sort=False):
            tested = part[part["p"].notna()]
            most = part["share_case"].max()
            lines.append(f"{contrast}, {modality}: at most {most:.0%} of the case group in one "
                         f"feature; {int((tested['q'] < ALPHA).sum())} of {len(tested)} differ at "
                         f"q < {ALPHA}, {int((tested['p_fwe'] < ALPHA).sum())} at p_fwe < {ALPHA}")
        return "\n".join([*lines, self.family, *(f"note: {note}" for note in self.notes)])

    def plot(self, n: int = 20, *, contrast: str | None = None, ax: Axes | None = None) -> Axes:
        """The n regions most overlapped: :func:`~normfuse.analyses.figures.plot_overlap`."""
        from .figures_counts import plot_overlap

        return plot_overlap(self, n, contrast=contrast, ax=ax)


def overlap(deviations: Scores, group: str, *, threshold: float = 1.96, direction: str = "both",
            baseline: object = None, correction: str = "fdr_bh", shuffles: MaxT | None = None
            ) -> OverlapMaps:
    r"""The share of each group beyond a threshold per feature, and whether the shares differ.

    .. math:: o_k(r) = \frac{\#\{i \in k : |z_{ir}| > t\}}{\#\{i \in k : z_{ir}
              \text{ measured}\}}

    Groups overlap little even in illnesses with clear mean differences: people deviate in
    different places. A healthy group shows 5 % everywhere at 1.96. The difference is judged by
    permutation alone, by t of a linear model of 0 and 1 on group and blocks: counts are too small
    for any law of t.

    Parameters
    ----------
    deviations, group, baseline
        As in :func:`~normfuse.analyses.compare_groups`: people the model was trained on are left
        out, the held-out controls added.
    threshold : float
        t, in units of z.
    direction : {"both", "below", "above"}
        Count \|z\| > t, z < -t or z > t.
    correction : {"fdr_bh", "fdr_by", "holm"}
        Of the p of every feature and contrast, for ``q``.
    shuffles : MaxT, optional
        How people change places, for ``p`` and ``p_fwe``; by default 1000 times within sites.

    Returns
    -------
    OverlapMaps

    Raises
    ------
    ComparisonError
        As :func:`~normfuse.analyses.compare_groups`.

    References
    ----------
    Wolfers et al. (2018), doi:10.1001/jamapsychiatry.2018.2467; interval: Newcombe (1998),
    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.

    Examples
    --------
    >>> from normfuse.testing import tiny_scored
    >>> deviations = tiny_scored()
    >>> maps = overlap(deviations, "diagnosis", threshold=1.0)
    >>> maps.shares.loc[("AD", "t1", "t1_region0")].tolist()
    [0.2, 1.0, 5.0]
    >>> maps.family
    'q: Benjamini-Hochberg over 15 permutation p, p_fwe over the same; 1000 permutations of ...
    """
    people, levels, notes = honest_people(deviations, group)
    n, why = group_sizes(people.subjects, levels, baseline)
    base, *cases = n
    far = beyond(people.z, threshold, direction).astype(float).where(people.z.notna())
    of = {level: _shares(far[(levels == level).to_numpy()]) for level in n}
    site = site_column(people)
    asked = shuffles or MaxT(1000, blocks=site)
    drawn, said = shuffles_for(asked, people.subjects, None, levels, tuple(n))
    design = covariate_columns(people.subjects, (asked.blocks,) if asked.blocks else (), group, {})
    parts = {f"{case} - {base}": _contrast(
        far, of[case], of[base], Question((levels == case).to_numpy(), design),
        levels.isin([case, base]).to_numpy(), drawn) for case in cases}
    table = pd.concat({name: part for name, (part, _) in parts.items()}, names=INDEX)
    highest = np.max([null.largest() for _, null in parts.values()], axis=0)
    table["p_fwe"] = np.where(table["p"].notna(), rank_p(sided(table["t"], "two-sided"), highest),
                              np.nan)
    table["q"] = corrected(table["p"], correction)
    sign = {"both": f"|z| > {threshold:g}", "below": f"z < -{threshold:g}",
            "above": f"z > {threshold:g}"}[direction]
    within = f"within {asked.blocks}" if asked.blocks else "of everybody"
    family = (f"q: {CORRECTIONS[correction]} over {table['p'].notna().sum()} permutation p, p_fwe "
              f"over the same; {asked.n_permutations} permutations {within}, seed {asked.seed}")
    tests, least = int(table["p"].notna().sum()), 1 / (1 + drawn.n)
    if tests * least > ALPHA and drawn.n == asked.n_permutations:  # else all ways were taken
        needed = int(np.ceil(tests * least / ALPHA))
        said = (*said, f"no p is below {least:.3g} with {drawn.n} permutations, so q < {ALPHA} "
                f"takes at least {needed} of {tests} tests at that p; with more permutations, "
                "shuffles=MaxT(…), fewer")
    order = ["share_case", "share_baseline", "difference", "ci_low", "ci_high", "t", "p", "q",
             "p_fwe", "n_case", "n_baseline", "reason"]
    shares = pd.concat(of, names=["group", *INDEX[1:]])
    return OverlapMaps(shares, table[order], group, base, sign, family, n,
                       (*notes, *unlike_scored(people.subjects), why, *said),
                       people.reference.kind)


def _shares(far: pd.DataFrame) -> pd.DataFrame:
    count, n = far.sum(), far.notna().sum()
    return pd.DataFrame({"share": count / n, "count": count, "n": n})


def _contrast(far: pd.DataFrame, case: pd.DataFrame, base: pd.DataFrame, question: Question,
              rows: Array, shuffles: Shuffles) -> tuple[pd.DataFrame, TableNull]:
    """Two groups: shares with Newcombe's interval, t and its p among shuffles."""
    y = np.where(rows[:, None], far.to_numpy(dtype=float), np.nan)
    enough = ((case["n"] >= 2) & (base["n"] >= 2)).to_numpy()
    varies = np.fmax.reduce(y) > np.fmin.reduce(y)
    found, reason = question.fit(y, enough & varies)
    reason[enough & ~varies] = "nobody lies beyond, or everybody"
    reason[~enough] = [f"measured in {a} and {b} people, needs 2 in each group"
                       for a, b in zip(case["n"][~enough], base["n"][~enough])]
    t = found.get("t", np.full(y.shape[1], np.nan))
    # all of one group and nobody of the other leaves no residual: nothing can be farther out
    apart = reason == EXPLAINED
    reason[apart] = ""
    t[apart] = np.copysign(np.inf, found.get("adjusted_difference", t)[apart])
    null = shuffled(question, y, ~np.isnan(t), shuffles)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = confint_proportions_2indep(
            case["count"].to_numpy(), case["n"].to_numpy(), base["count"].to_numpy(),
            base["n"].to_numpy(), method="newcomb", compare="diff")
    return pd.DataFrame({
        "share_case": case["share"], "share_baseline": base["share"],
        "difference": case["share"] - base["share"], "ci_low": low, "ci_high": high, "t": t,
        "p": np.where(np.isnan(t), np.nan, null.p()), "n_case": case["n"],
        "n_baseline": base["n"], "reason": reason.astype(str)}, index=far.columns), null

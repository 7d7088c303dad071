"""How many extreme deviations each person has, and whether people of one group have more."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from normfuse.errors import ComparisonError

from .comparable import (Scores, covariate_columns, group_sizes, honest_people, site_column,
                         unlike_scored)
from .deviation_maps import beyond
from .effects import CORRECTIONS, corrected
from .families import shuffles_for
from .linear_terms import Array
from .ranks import rank_test, unevenly_measured
from .results import Found
from .shuffles import Shuffles
from .terms import Question, shuffled
from .voxel_corrections import MaxT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEY = ["direction", "threshold", "modality"]
SIGNS = {"both": "|z| > {:g}", "below": "z < -{:g}", "above": "z > {:g}"}


@dataclass(frozen=True, eq=False, repr=False)
class ExtremeCounts(Found):
    """Extreme deviations per person; made by :func:`extreme_counts`.

    Attributes
    ----------
    table : DataFrame, index (contrast, direction, threshold, modality)
        ``expected`` count of somebody measured completely; ``case_mean``, ``baseline_mean``,
        ``case_median``, ``baseline_median``; ``u``, ``auc`` (above .5: the case group has more)
        with 95 % ``auc_low``, ``auc_high``; Mann and Whitney's ``p`` and its ``q``; ``p_permuted``
        of the ranks among people who change places; ``n_case``, ``n_baseline``; ``reason``.
    people : DataFrame, index subject, columns (direction, threshold, modality)
        Counts, scaled up to all features where some were not measured; NaN without the modality.
    levels : Series
        Everybody's group.
    group, baseline, family : str
    n : dict of int
        People per group, baseline first.
    notes : tuple of str
    kind : str
        Of deviations (:mod:`normfuse.kinds`).

    Examples
    --------
    >>> from normfuse.testing import tiny_scored
    >>> deviations = tiny_scored()
    >>> found = extreme_counts(deviations, "diagnosis", thresholds=1.96, directions="both")
    >>> found.people["both", 1.96, "total"].max().item(), found.n
    (7.5, {'CN': 35, 'AD': 5})
    >>> [text.get_text() for text in found.plot().get_legend().get_texts()][:2]
    ['CN (n = 35)', 'AD (n = 5)']
    """

    table: pd.DataFrame
    people: pd.DataFrame
    levels: pd.Series
    group: str
    baseline: str
    family: str
    n: Mapping[str, int]
    notes: tuple[str, ...] = ()
    kind: str = ""

    def summary(self) -> str:
        """The counts of all modalities together, in a few lines of text."""
        who = ", ".join(f"{n} {level}" for level, n in self.n.items())
        lines = [f"{self.group}: {who} (baseline {self.baseline}); extreme features per person, "
                 f"deviations of kind {self.kind}"]
        for key, row in self.table.xs("total", level="modality").iterrows():
            contrast, direction, threshold = key  # type: ignore[misc]
            lines.append("{}, {}: mean {:.1f} and {:.1f} (expected {:.1f}); AUC {:.2f} [{:.2f}, "
                         "{:.2f}], p = {:.2g}, q = {:.2g}, permuted p = {:.2g}".format(
                             contrast, SIGNS[direction].format(threshold), *row[[
                                 "case_mean", "baseline_mean", "expected", "auc", "auc_low",
                                 "auc_high", "p", "q", "p_permuted"]]))
        return "\n".join([*lines, self.family, *(f"note: {note}" for note in self.notes)])

    def plot(self, *, direction: str | None = None, threshold: float | None = None,
             ax: Axes | None = None) -> Axes:
        """A point a person: :func:`~normfuse.analyses.figures.plot_extreme_counts`."""
        from .figures_counts import plot_extreme_counts

        return plot_extreme_counts(self, direction=direction, threshold=threshold, ax=ax)


def extreme_counts(deviations: Scores, group: str, *,
                   thresholds: float | Iterable[float] = (1.96, 2.576),
                   directions: str | Iterable[str] = ("both", "below", "above"),
                   baseline: object = None, correction: str = "fdr_bh",
                   shuffles: MaxT | None = None) -> ExtremeCounts:
    r"""Everybody's number of extreme deviations, and whether one group has more of them.

    .. math:: c_i = \frac{m}{m_i} \#\{r : z_{ir} < -t\}, \quad
              \mathrm{AUC} = P(c_1 > c_0) + \tfrac12 P(c_1 = c_0), \quad
              \text{expected} = m\,\Phi(-t)

    of a person measured with :math:`m_i` of the m features (``below``; twice as many are expected
    of ``both``). Groups are compared by ranks: a binomial law would be wrong, as the regions of
    one brain are correlated, and healthy people's variance is about ten times the binomial's. The
    expected count is an average for the same reason, and no bound.

    Parameters
    ----------
    deviations, group, baseline
        As in :func:`~normfuse.analyses.compare_groups`.
    thresholds : float or iterable of float
        t, in units of z.
    directions : {"both", "below", "above"} or several of them
    correction : {"fdr_bh", "fdr_by", "holm"}
        Of Mann and Whitney's p over contrasts, directions, thresholds, modalities and the total.
    shuffles : MaxT, optional
        How people change places for ``p_permuted``; by default 1000 times within sites. It holds
        where sites differ in counts, of which ``p`` knows nothing.

    Returns
    -------
    ExtremeCounts

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
    >>> found = extreme_counts(deviations, "diagnosis", thresholds=1.96, directions="both")
    >>> found.table["auc"].round(2).tolist(), found.table["expected"].round(2).tolist()
    ([0.41, 0.47, 0.39, 0.4], [0.2, 0.25, 0.3, 0.75])
    """
    limits = list(thresholds) if isinstance(thresholds, Iterable) else [thresholds]
    ways = [directions] if isinstance(directions, str) else list(directions)
    if not limits or not ways or correction not in CORRECTIONS:
        raise ComparisonError("give at least one threshold and one direction, and a correction of "
                              f"{', '.join(CORRECTIONS)}; got {limits}, {ways}, {correction!r}")
    people, levels, notes = honest_people(deviations, group)
    n, why = group_sizes(people.subjects, levels, baseline)
    base, *cases = n
    counts, expected = _counts(people.z, people.modalities, ways, limits)
    short = int((people.z.notna().sum(axis=1) < people.z.notna().any().sum()).sum())
    scaled = () if not short else (f"{short} of {len(levels)} people lack some features; their "
                                   "counts are scaled up to all of them",)
    asked = shuffles or MaxT(1000, blocks=site_column(people))
    drawn, said = shuffles_for(asked, people.subjects, None, levels, tuple(n))
    design = covariate_columns(people.subjects, (asked.blocks,) if asked.blocks else (), group, {})
    table = pd.concat({f"{case} - {base}": _contrast(counts, levels, case, base, design, drawn)
                       for case in cases}, names=["contrast", *KEY])
    table.insert(0, "expected", np.tile(expected.to_numpy(), len(cases)))
    table["q"] = corrected(table["p"], correction)
    tests = int(table["p"].notna().sum())
    within = f"within {asked.blocks}" if asked.blocks else "of everybody"
    family = (f"q: {CORRECTIONS[correction]} over {tests} rank tests ({len(cases)} contrast"
              f"{'s' * (len(cases) > 1)}, {len(ways)} directions, {len(limits)} thresholds, "
              f"{len(people.modalities)} modalities and total); permuted p: "
              f"{asked.n_permutations} permutations {within}, seed {asked.seed}")
    return ExtremeCounts(table, counts, levels, group, base, family, n,
                         (*notes, *scaled, *unevenly_measured(people.z, levels, tuple(n)),
                          *unlike_scored(people.subjects), why, *said), people.reference.kind)


def _counts(z: pd.DataFrame, modalities: Iterable[str], directions: Iterable[str],
            thresholds: Iterable[float]) -> tuple[pd.DataFrame, pd.Series]:
    """Scaled counts per person, and what is expected of somebody measured completely."""
    names, known = z.columns.get_level_values(0), z.notna()
    found, expected = {}, {}
    limits = list(thresholds)
    for direction in directions:
        for limit in limits:
            far = beyond(z, limit, direction)
            for name in (*modalities, "total"):
                columns = np.ones(len(names), bool) if name == "total" else names == name
                measured = known.loc[:, columns].sum(axis=1)
                width = int(known.loc[:, columns].any().sum())
                key = (direction, float(limit), name)
                found[key] = far.loc[:, columns].sum(axis=1) / measured * width
                expected[key] = width * stats.norm.sf(limit) * (1 + (direction == "both"))
    table = pd.DataFrame(found)
    table.columns.names = KEY
    return table, pd.Series(expected)


def _contrast(counts: pd.DataFrame, levels: pd.Series, case: str, base: str, design: Array,
              shuffles: Shuffles) -> pd.DataFrame:
    """Rank tests of two groups, one row a count."""
    rows = []
    for _, column in counts.items():
        ones, zeros = (column[(levels == level).to_numpy()].dropna() for level in (case, base))
        rows.append({"case_mean": ones.mean(), "baseline_mean": zeros.mean(),
                     "case_median": ones.median(), "baseline_median": zeros.median(),
                     **rank_test(ones, zeros)})
    table = pd.DataFrame(rows, index=counts.columns)
    pair = levels.isin([case, base]).to_numpy()
    y = np.where(pair[:, None], counts.to_numpy(dtype=float), np.nan)
    chosen = table["p"].notna().to_numpy()
    question = Question((levels == case).to_numpy(), design, ranked=True)
    _, problem = question.fit(y, chosen)
    null = shuffled(question, y, chosen & (problem == ""), shuffles)
    table.insert(list(table).index("q") + 1, "p_permuted", null.p())
    return table

"""Every group against the baseline in every feature, and whether any differ at all."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from .effects import compare_features
from .families import correct
from .group_comparison import INDEX
from .linear_terms import Array
from .shuffles import Shuffles
from .terms import Question, TableNull, shuffled
from .voxel_corrections import MaxT


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Values of people in groups.

    Parameters
    ----------
    values : DataFrame, shape (n_people, n_features), columns (modality, feature)
        NaN where nothing was measured.
    levels : Series, shape (n_people,)
        Everybody's group.
    groups : tuple of str
        The baseline first.
    design : ndarray, shape (n_people, n_columns)
        Covariates with their constant.
    test, alternative : str
        As in :func:`~normfuse.analyses.compare_groups`.
    """

    values: pd.DataFrame
    levels: pd.Series
    groups: tuple[str, ...]
    design: Array
    test: str
    alternative: str

    def table(self, correction: str | MaxT, shuffles: Shuffles | None) -> pd.DataFrame:
        """A row a contrast and feature; see :func:`~normfuse.analyses.compare_groups`."""
        base, *cases = self.groups
        rows = {case: self.levels.isin([case, base]).to_numpy() for case in cases}
        parts = {f"{case} - {base}": compare_features(
            self.values[rows[case]], self._is(case)[rows[case]], self.design[rows[case]],
            self.test, self.alternative) for case in cases}
        table = pd.concat(parts, names=INDEX)

        def draw(shuffles: Shuffles) -> list[TableNull]:
            return [self._null(Question(self._is(case), self.design, self.test), rows[case],
                               part["p"].notna().to_numpy(), shuffles)
                    for case, part in zip(cases, parts.values())]

        q = correct(table["p"], table["t"], correction, self.alternative, shuffles, draw)
        return table.assign(q=q)

    def omnibus(self, correction: str | MaxT, shuffles: Shuffles | None) -> pd.DataFrame:
        r"""Does any group differ from any other? A row a feature.

        F of all groups at once beside the covariates (for ``welch`` Welch's analysis of
        variance), of everybody; ``q`` over the features.
        """
        y = np.where(np.isfinite(self.values), self.values, np.nan).astype(float)
        dummies = np.column_stack([self._is(case) for case in self.groups[1:]]).astype(float)
        members = np.array([np.isfinite(y[self._is(g)]).sum(axis=0) for g in self.groups])
        chosen = (members >= 2).all(axis=0) & (np.fmax.reduce(y) > np.fmin.reduce(y))
        question = Question(dummies, self.design, self.test)
        found, reason = question.fit(y, chosen)
        reason[~chosen] = "fewer than 2 people in a group, or the same in everyone"
        f, df1, df2 = (found.get(name, np.full(y.shape[1], np.nan))
                       for name in ("f", "df1", "df2"))
        table = pd.DataFrame({"f": f, "df1": df1, "df2": df2, "p": stats.f.sf(f, df1, df2),
                              "n": members.sum(axis=0), "reason": reason.astype(str)},
                             index=self.values.columns)

        def draw(shuffles: Shuffles) -> list[TableNull]:
            everyone = np.ones(len(y), bool)
            return [self._null(question, everyone, table["p"].notna().to_numpy(), shuffles)]

        q = correct(table["p"], table["f"], correction, "greater", shuffles, draw)
        table.insert(4, "q", q)
        return table

    def _is(self, group: str) -> Array:
        return (self.levels == group).to_numpy()

    def _null(self, question: Question, rows: Array, chosen: Array, shuffles: Shuffles
              ) -> TableNull:
        """Shuffles of the people of one contrast, as those of everybody would move them."""
        y = self.values.to_numpy(dtype=float)
        y = np.where(np.isfinite(y) & rows[:, None], y, np.nan)
        return shuffled(question, y, chosen, shuffles)

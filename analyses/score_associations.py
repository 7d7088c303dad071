"""Do deviations go with a clinical score? Partial correlations, of z and of the raw values."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from normfuse.deviations import ROLE, UNSEEN_ROLES
from normfuse.errors import ComparisonError, listed

from .association_table import INDEX, Associations
from .comparable import (Scores, covariate_columns, covariate_names, known_covariates,
                         trained_on)
from .families import correct, correction_name, disagreement, family, shuffles_of
from .linear_terms import EXPLAINED, Array
from .shuffles import Shuffles
from .terms import ALTERNATIVES, Question, TableNull, p_of_t, shuffled
from .voxel_corrections import MaxT

METHODS = ("spearman", "pearson")
_WORDS = {"the covariates tell the groups apart completely": "the covariates determine the score",
          EXPLAINED: "score and covariates explain it without residual"}


def associations(deviations: Scores, scores: str | Iterable[str] | pd.DataFrame, *,
                 adjust: Iterable[str] | None = None, method: str = "spearman",
                 correction: str | MaxT = "fdr_bh", alternative: str = "two-sided",
                 controls: bool = False) -> Associations:
    r"""Partial correlation of every feature with every score, in z and in the raw values.

    .. math:: r = \operatorname{cor}(z - \hat z(c), s - \hat s(c)), \quad
              t = r \sqrt{\frac{n - 2 - k}{1 - r^2}}, \quad
              \tanh\!\left(\operatorname{artanh} r \pm \frac{1.96}{\sqrt{n - 3 - k}}\right)

    for a score s and k columns of covariates c; for ``spearman`` of ranks (of covariates too).
    Healthy people of the reference are **left out** if others have the score, too, for with
    patients and controls together everything in which the groups differ goes with the score. If
    there are several groups among the others, adjust for the group.

    Parameters
    ----------
    deviations : Deviations or RegionalDeviations
        People the model was trained on are left out with a warning.
    scores : str, iterable of str, or DataFrame
        Numeric columns of ``subjects``, or a table indexed by subject id. People without a score
        are left out of that score alone.
    adjust : iterable of str, optional
        Columns c of ``subjects``; by default the model's own covariates, ``()`` for none.
    method : {"spearman", "pearson"}
    controls : bool
        Keep healthy people of the reference beside others.
    correction : {"fdr_bh", "fdr_by", "holm"} or MaxT
        Of p over all scores, modalities and features; z and raw are a family each. ``MaxT``:
        residuals of people change places, within blocks.
    alternative : {"two-sided", "greater", "less"}
        ``greater``: a positive correlation. Intervals stay two-sided.

    Returns
    -------
    Associations
        Columns: ``r`` (-1 to 1) with 95 % ``r_low``, ``r_high`` (for ranks a little narrow);
        ``t``, ``df`` (n - 2 - k), ``p``, ``q``, ``n``, ``reason``; the same with ``raw_`` before
        it.

    Raises
    ------
    ComparisonError
        An unknown score or one that is no number, a covariate of the model as a score, a missing
        covariate, an unknown word, or a score that is the same in everyone of each block
        (MaxT).

    References
    ----------
    Fisher (1924), Metron 3, 329-332, for the law of partial correlations; Kim (2015),
    doi:10.5351/CSAM.2015.22.6.665, for ranks.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_cohort, tiny_deviations
    >>> cohort = tiny_cohort()
    >>> raw, empty = pd.concat(cohort.features, axis=1), cohort.subjects[[]]
    >>> deviations = replace(tiny_deviations(), z=(raw - raw.mean()) / raw.std(), observed=raw,
    ...                      expected=raw, latent=empty, distance=empty, attribution=None,
    ...                      subjects=cohort.subjects.assign(mmse=raw["t1", "t1_region1"]))
    >>> found = associations(deviations, "mmse", adjust=["age", "sex"])
    >>> found.table.loc[("mmse", "t1", "t1_region2"), ["df", "n"]].tolist()
    [35.0, 39.0]
    >>> found.family
    'Benjamini-Hochberg over 14 tests (1 score; t1 3, dti 5, pet 6), raw over 14'
    """
    for name, word, words in (("method", method, METHODS),
                              ("alternative", alternative, ALTERNATIVES)):
        if word not in words:
            raise ComparisonError(f"{name} is one of {', '.join(words)}; got {word!r}")
    correction_name(correction)
    table, notes = _scores_of(deviations, scores, controls)
    people = cast(Any, deviations).select(table.index)
    adjust = covariate_names(deviations, adjust)
    both = [name for name in table if name in adjust]
    if both:
        raise ComparisonError(f"{listed(both)} is both a score and adjusted for")
    design = covariate_columns(people.subjects, adjust, "", known_covariates(deviations))
    shuffles, _ = shuffles_of(correction, people.subjects, design, pd.Series(dtype=str))
    if isinstance(correction, MaxT) and correction.blocks is not None:
        _refuse_fixed(table, people.subjects[correction.blocks])
    asked = _Asked(table, design, method == "spearman", alternative)
    found = pd.concat([asked.of(values, correction, shuffles).add_prefix(prefix)
                       for prefix, values in (("", people.z), ("raw_", people.observed))], axis=1)
    return Associations(found, tuple(map(str, table)), method, adjust, family(found, correction),
                        {str(name): int(table[name].notna().sum()) for name in table},
                        (*notes, *disagreement(found, "the score goes with")),
                        people.reference.kind, alternative)


def _scores_of(deviations: Scores, scores: str | Iterable[str] | pd.DataFrame, controls: bool
               ) -> tuple[pd.DataFrame, list[str]]:
    """Numbers of the people who have any, and notes."""
    subjects = deviations.subjects
    if isinstance(scores, pd.DataFrame):
        for what, labels in (("row", scores.index), ("column", scores.columns)):
            again = labels[labels.duplicated()].unique()
            if len(again):
                raise ComparisonError(f"the table of scores has more than one {what} called "
                                      f"{listed(again)}; keep one")
        table = scores.reindex(subjects.index)
        if table.empty or not scores.index.isin(subjects.index).any():
            raise ComparisonError(f"none of the {len(scores)} ids of the table of scores "
                                  f"({listed(scores.index)}) is among these people "
                                  f"({listed(subjects.index)})")
    else:
        names = _names(scores)
        unknown = [name for name in names if name not in subjects]
        if unknown or not names:
            raise ComparisonError(f"scores are columns of the subjects table; {listed(unknown)} "
                                  f"is not: it has {listed(subjects.columns, 12)}")
        table = subjects[names]
    known = [name for name in table if name in known_covariates(deviations)]
    if known:
        raise ComparisonError(
            f"{listed(known)} is a covariate of the model: what z still says about it is the "
            "error with which the model learned its effect. nf.evaluate shows that")
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(float)
    numbers = numbers.where(np.isfinite(numbers))
    words = [name for name in table if (numbers[name].isna() & table[name].notna()).any()]
    if words:
        raise ComparisonError(f"{listed(words)} holds what is not a number, as "
                              f"{table[words[0]][numbers[words[0]].isna()].dropna().iloc[0]!r}; "
                              "compare groups with compare_groups")
    seen, notes = trained_on(subjects)
    lacking = numbers.isna().all(axis=1) & ~seen
    if lacking.any():
        notes.append(f"left out {int(lacking.sum())} people without any score "
                     f"({listed(subjects.index[lacking])})")
    kept = numbers[~seen & ~lacking]
    if kept.empty:
        raise ComparisonError(f"nobody is left who has {listed(_names(scores))} as a number"
                              + "".join(f"; {note}" for note in notes))
    role = subjects[ROLE] if ROLE in subjects else pd.Series("", subjects.index)
    healthy = role[kept.index].isin(UNSEEN_ROLES)
    if not controls and healthy.any() and not healthy.all():
        notes.append(f"left out {int(healthy.sum())} healthy people of the reference who have a "
                     "score, too: among both, whatever tells the groups apart goes with the "
                     "score. controls=True (--controls) keeps them; adjust for the group then")
        kept = kept[~healthy]
    return kept, notes


def _names(scores: str | Iterable[str] | pd.DataFrame) -> list[str]:
    """What the scores are called."""
    return [scores] if isinstance(scores, str) else [str(name) for name in scores]


def _refuse_fixed(scores: pd.DataFrame, blocks: pd.Series) -> None:
    """Raises ComparisonError for a score that people who change places cannot exchange."""
    fixed = [str(name) for name, score in scores.items()
             if score.groupby(blocks.astype(str)).nunique().max() < 2]
    if fixed:
        raise ComparisonError(
            f"{listed(fixed)} is the same in everyone of each {blocks.name}, so that nothing "
            "changes when people change places within one; give MaxT(…, blocks=None) if people of "
            "all of them are exchangeable")


@dataclass(frozen=True, eq=False)
class _Asked:
    """Scores of people, and how to ask about them."""

    scores: pd.DataFrame
    design: Array
    ranked: bool
    alternative: str

    def of(self, values: pd.DataFrame, correction: str | MaxT, shuffles: Shuffles | None
           ) -> pd.DataFrame:
        """A row a score and feature, columns without prefix."""
        asked = [(str(name), *self._one(values, score)) for name, score in self.scores.items()]
        table = pd.concat({name: part for name, part, _, _ in asked}, names=INDEX)

        def draw(shuffles: Shuffles) -> list[TableNull]:
            return [shuffled(question, y, part["p"].notna().to_numpy(), shuffles)
                    for _, part, question, y in asked]

        q = correct(table["p"], table["t"], correction, self.alternative, shuffles, draw)
        return table.assign(q=q)[["r", "r_low", "r_high", "t", "df", "p", "q", "n", "reason"]]

    def _one(self, values: pd.DataFrame, score: pd.Series
             ) -> tuple[pd.DataFrame, Question, Array]:
        y = values.to_numpy(dtype=float)
        y = np.where(np.isfinite(y) & score.notna().to_numpy()[:, None], y, np.nan)
        n = np.isfinite(y).sum(axis=0)
        chosen = (n >= 4) & (np.fmax.reduce(y, axis=0) > np.fmin.reduce(y, axis=0))
        question = Question(score.fillna(0).to_numpy(), self.design, ranked=self.ranked)
        found, reason = question.fit(y, chosen)
        t, df, beta = (found.get(name, np.full(y.shape[1], np.nan))
                       for name in ("t", "df", "adjusted_difference"))
        reason = np.array([_WORDS.get(words, words) for words in reason], dtype=object)
        reason[~chosen] = [f"{k} people have both, needs 4" if k < 4 else "the same in everyone"
                           for k in n[~chosen]]
        r = np.where(np.isnan(t), np.sign(beta), t / np.sqrt(t**2 + df))  # no residual: 1 or -1
        with np.errstate(divide="ignore", invalid="ignore"):
            half = stats.norm.ppf(0.975) / np.sqrt(df - 1)
            ends = [np.tanh(np.arctanh(r) + side * half) for side in (-1, 1)]
        table = pd.DataFrame({"r": r, "r_low": ends[0], "r_high": ends[1], "t": t, "df": df,
                              "p": p_of_t(t, df, self.alternative), "n": n,
                              "reason": reason.astype(str)}, index=values.columns)
        return table, question, y

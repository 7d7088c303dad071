"""Do groups differ? Deviations and raw values side by side, with effect, interval, p, q and n."""
from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from normfuse.deviations import ROLE, SEEN_ROLES, Deviations
from normfuse.errors import CohortError, ComparisonError, ModelFileError, listed
from normfuse.outputs import new_file, new_folder

from .regional import RegionalDeviations

Array: TypeAlias = NDArray[Any]
Scores: TypeAlias = Deviations | RegionalDeviations

INDEX = ["contrast", "modality", "feature"]
ALPHA = 0.05
CORRECTIONS = {"fdr_bh": "Benjamini-Hochberg", "fdr_by": "Benjamini-Yekutieli", "holm": "Holm"}
_STATISTICS = ("difference", "ci_low", "ci_high", "g", "g_low", "g_high", "adjusted_difference",
               "t", "df", "p", "q", "n_case", "n_baseline")
_TEXTS = (*INDEX, "reason", "raw_reason")
# Rounding leaves about 1e-30 of a sum of squares that is zero in theory, 1e-16 of a projection
# that is: both bounds lie far above the rounding and far below anything measured.
_NO_RESIDUAL = 1e-20
_COLLINEAR = 1e-10


@dataclass(frozen=True, eq=False)
class GroupComparison:
    """What a comparison of groups found, and what it rests on.

    Attributes
    ----------
    table : DataFrame, index (contrast, modality, feature)
        A contrast reads ``case - baseline``; the function that made it tells the columns. What
        could not be tested is NaN, with a ``reason``.
    group, baseline : str
        The compared column of ``subjects``, and the level the others are held against.
    adjust : tuple of str
        Covariates in the linear model.
    family : str
        What q was corrected over, and how.
    n : dict of int
        People per group, baseline first. A feature's own n can be smaller.
    notes : tuple of str
        What a reader should know first.
    """

    table: pd.DataFrame
    group: str
    baseline: str
    adjust: tuple[str, ...]
    family: str
    n: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def significant(self, alpha: float = ALPHA) -> pd.DataFrame:
        """The rows with q < alpha, smallest p first."""
        return self.table[self.table["q"] < alpha].sort_values("p")

    def summary(self) -> str:
        """The comparison in a few lines of text."""
        who = ", ".join(f"{n} {level}" for level, n in self.n.items())
        adjusted = f", adjusted for {', '.join(self.adjust)}" if self.adjust else ""
        lines = [f"{self.group}: {who} (baseline {self.baseline}){adjusted}"]
        for (contrast, modality), part in self.table.groupby(level=[0, 1], sort=False):
            tested = part[part["p"].notna()]
            lines.append(f"{contrast}, {modality}: {int((part['q'] < ALPHA).sum())} of "
                         f"{len(tested)} at q < {ALPHA}{_strongest(tested)}")
        return "\n".join([*lines, f"q: {self.family}", *(f"note: {note}" for note in self.notes)])

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the table to a new file."""
        with new_file(Path(path), overwrite=overwrite) as work:
            self.table.to_csv(work)
        return Path(path)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``table.csv`` and ``comparison.json`` to a new folder.

        Raises
        ------
        OutputExistsError
            If the folder is there and ``overwrite`` is not asked for.
        """
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "table"}
        with new_folder(Path(folder), overwrite=overwrite) as work:
            self.table.to_csv(work / "table.csv")
            (work / "comparison.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return Path(folder)

    @classmethod
    def read(cls, folder: str | Path) -> GroupComparison:
        """Read what :meth:`save` wrote."""
        folder = Path(folder)
        try:
            # Only an empty cell is missing: a group or a region may well be called NA.
            table = pd.read_csv(folder / "table.csv", dtype=dict.fromkeys(_TEXTS, str),
                                keep_default_na=False, na_values=[""],
                                float_precision="round_trip").set_index(INDEX)
            table = table.fillna({name: "" for name in _TEXTS if name in table})
            facts = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
            return cls(table, **{**facts, "adjust": tuple(facts["adjust"]),
                                 "notes": tuple(facts["notes"])})
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ModelFileError(f"{folder} is not a folder that GroupComparison.save wrote: "
                                 f"{problem}") from problem

    def __repr__(self) -> str:
        return f"<GroupComparison of {self.group}: {len(self.table)} rows; {self.family}>"

    def _repr_html_(self) -> str:
        text = escape(self.summary()).replace("\n", "<br>")
        strongest = self.table.sort_values("p").head(10)
        return text + strongest.to_html(float_format="{:.3g}".format)


def compare_groups(deviations: Scores, group: str, *,
                   adjust: Iterable[str] = (), baseline: object = None,
                   correction: str = "fdr_bh") -> GroupComparison:
    r"""Differences between groups in every feature, in z and in the raw values.

    .. math:: \text{difference} = \bar z_1 - \bar z_0, \quad
              g = J\,\frac{\bar z_1 - \bar z_0}{s_p}, \quad J = 1 - \frac{3}{4(n_1 + n_0) - 9},
              \quad z = \beta_0 + \beta\,[\text{case}] + \gamma^\top c + \varepsilon

    with 1 the case group, 0 the baseline and :math:`s_p` their pooled sd. The interval of the
    difference is Welch's, that of g solves the noncentral t, and t and p belong to :math:`\beta`,
    by ordinary least squares on the people of that contrast alone. z is free of the model's
    covariates already: to adjust for them again is a check, and it is what the raw values need.

    Parameters
    ----------
    deviations : Deviations or RegionalDeviations
        The held-out controls it keeps are added. People the model was trained on are left out
        with a warning: their z is too small, and the difference would look like disease.
    group : str
        Column of ``subjects``. People without a value are left out and counted.
    adjust : iterable of str
        Columns :math:`c`: numbers as they are, all else one-hot. What the reference knows as a
        category (a site 1, 2, 3) stays one.
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
    ...                      expected=raw, latent=empty, distance=empty, subjects=cohort.subjects)
    >>> found = compare_groups(deviations, "diagnosis", adjust=["age", "sex"])
    >>> found.n, found.family
    ({'CN': 35, 'AD': 5}, 'Benjamini-Hochberg over 15 tests (contrasts x features), raw over 15')
    >>> found.table.loc[("AD - CN", "t1", "t1_region1"), "n_baseline"]
    np.int64(34)
    """
    adjust = (adjust,) if isinstance(adjust, str) else tuple(adjust)
    if correction not in CORRECTIONS:
        raise ComparisonError(f"correction is one of {', '.join(CORRECTIONS)}; got {correction!r}")
    people, levels, notes = honest_people(deviations, group)
    n, why = group_sizes(people.subjects, levels, baseline)
    base, *cases = n
    design = _design(people, adjust, group)
    parts = {}
    for case in cases:
        rows = levels.isin([case, base]).to_numpy()
        who = (levels[rows] == case).to_numpy()
        z, raw = (_compared(values[rows], who, design[rows])
                  for values in (people.z, people.observed))
        parts[f"{case} - {base}"] = z.join(raw.add_prefix("raw_"))
    table = pd.concat(parts, names=INDEX)
    for prefix in ("", "raw_"):
        table[f"{prefix}q"] = corrected(table[f"{prefix}p"], correction)
    tests = table[["p", "raw_p"]].notna().sum()
    return GroupComparison(
        table, group, base, adjust, f"{CORRECTIONS[correction]} over {tests['p']} tests "
        f"(contrasts x features), raw over {tests['raw_p']}", n,
        (*notes, why, *_disagreement(table)))


def honest_people(deviations: Scores, group: str) -> tuple[Scores, pd.Series, tuple[str, ...]]:
    """Everyone with a group on whom the model was not trained, their groups, and notes.

    Raises ComparisonError if ``group`` is not a column of ``subjects``, or nobody is left.
    """
    everyone = deviations.with_controls()
    subjects = everyone.subjects
    if group not in subjects.columns:
        raise ComparisonError(f"group {group!r} is not a column of the subjects table; it has "
                              f"{listed(subjects.columns, 12)}")
    role = subjects[ROLE] if ROLE in subjects else pd.Series("", subjects.index)
    seen = role.isin(SEEN_ROLES)
    levels = _as_levels(subjects[group])
    added = len(everyone) - len(deviations)
    notes = [f"added {added} held-out controls of the reference"] if added else []
    if seen.any():
        notes.append(f"left out {int(seen.sum())} people the model was trained on "
                     f"({listed(subjects.index[seen])}): their deviations are too small")
        warnings.warn(notes[-1], stacklevel=3)
    lacking = subjects.index[levels.isna() & ~seen]
    if len(lacking):
        notes.append(f"left out {len(lacking)} people without a value of {group} "
                     f"({listed(lacking)})")
    kept = subjects.index[~seen & levels.notna()]
    if kept.empty:
        raise ComparisonError(f"nobody is left to compare by {group}: " + "; ".join(notes))
    return everyone.select(kept), levels[kept].astype(str), tuple(notes)


def beyond(z: pd.DataFrame, threshold: float, direction: str = "both") -> pd.DataFrame:
    """Which z lie beyond a positive threshold, ``both``, ``below`` or ``above``; NaN does not."""
    if not threshold > 0:
        raise CohortError(f"threshold is a positive z; got {threshold}")
    answers = {"both": z.abs() > threshold, "below": z < -threshold, "above": z > threshold}
    if direction not in answers:
        raise CohortError(f"direction is both, below or above; got {direction!r}")
    return answers[direction]


def _as_levels(column: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(column) and np.all(np.mod(column.dropna(), 1) == 0):
        column = column.astype("Int64")  # group 1.0 is the group 1, read beside an empty cell
    words = column.astype("string").str.strip()
    return words.mask(words == "")


def group_sizes(subjects: pd.DataFrame, levels: pd.Series, baseline: object
                ) -> tuple[dict[str, int], str]:
    """People per group, the baseline first, and why that is the baseline.

    Raises ComparisonError for one group only, a group of one, or an unknown baseline.
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
    held = levels[subjects[ROLE] == "calibration"] if ROLE in subjects else levels[:0]
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


def _design(people: Scores, adjust: tuple[str, ...], group: str) -> Array:
    """Columns of the covariates, (n_subjects, n_columns): numbers, and one-hot categories."""
    kinds = {name: fact.get("kind") for name, fact in people.reference.covariates.items()}
    columns: list[Array] = [np.ones(len(people))]
    for name in adjust:
        if name == group or name not in people.subjects.columns:
            raise ComparisonError(f"cannot adjust for {name!r}: it must be a column other than "
                                  f"{group} of {listed(people.subjects.columns, 12)}")
        values = people.subjects[name]
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
                f"{name} is missing for {int(values.isna().sum())} of {len(people)} compared "
                f"people ({listed(values.index[values.isna()])}); fill it in, leave them out with "
                f"deviations.select(), or do not adjust for {name}")
    return np.column_stack(columns)


def _compared(values: pd.DataFrame, case: Array, design: Array) -> pd.DataFrame:
    """One contrast: a row a feature; q is filled in when every contrast is there."""
    y = values.to_numpy(dtype="float64")
    known = np.isfinite(y)
    y = np.where(known, y, np.nan)
    n1, n0 = known[case].sum(axis=0), known[~case].sum(axis=0)
    enough = (n1 >= 2) & (n0 >= 2)
    spread = enough & (_varies(y[case]) | _varies(y[~case]))
    reason = np.where(spread, "", "no spread within the groups").astype(object)
    reason[~enough] = [f"measured in {a} and {b} people, needs 2 in each group"
                       for a, b in zip(n1[~enough], n0[~enough])]
    found = {name: np.full(y.shape[1], np.nan) for name in _STATISTICS}
    found.update(n_case=n1, n_baseline=n0)
    for name, numbers in _effects(y[case][:, spread], y[~case][:, spread]).items():
        found[name][spread] = numbers
    # People with the same holes share one projection, so each pattern is solved once.
    patterns, member = np.unique(known, axis=1, return_inverse=True)
    for k, rows in enumerate(patterns.T):
        chosen = np.flatnonzero((member.ravel() == k) & spread)
        if len(chosen):
            fit, problem = _linear_model(y[np.ix_(rows, chosen)], case[rows], design[rows])
            reason[chosen] = problem
            for name, numbers in fit.items():
                found[name][chosen] = numbers
    return pd.DataFrame({**found, "reason": reason.astype(str)}, index=values.columns)


def _varies(y: Array) -> Array:
    """Which columns hold two different numbers, NaN aside."""
    return np.fmax.reduce(y, axis=0) > np.fmin.reduce(y, axis=0)


def _effects(case: Array, base: Array) -> dict[str, Array]:
    """Difference of means with Welch's 95 % interval, Hedges' g with the noncentral t's."""
    n1, n0 = (np.isfinite(part).sum(axis=0) for part in (case, base))
    difference = np.nanmean(case, axis=0) - np.nanmean(base, axis=0)
    v1, v0 = np.nanvar(case, axis=0, ddof=1), np.nanvar(base, axis=0, ddof=1)
    error = v1 / n1 + v0 / n0
    welch = error**2 / ((v1 / n1) ** 2 / (n1 - 1) + (v0 / n0) ** 2 / (n0 - 1))
    half = stats.t.ppf(0.975, welch) * np.sqrt(error)
    df = n1 + n0 - 2
    d = difference / np.sqrt(((n1 - 1) * v1 + (n0 - 1) * v0) / df)
    root = np.sqrt(n1 * n0 / (n1 + n0))
    j = 1 - 3 / (4 * (n1 + n0) - 9)
    low, high = noncentrality_interval(d * root, df)
    return {"difference": difference, "ci_low": difference - half, "ci_high": difference + half,
            "g": j * d, "g_low": j * low / root, "g_high": j * high / root}


def noncentrality_interval(t: Array, df: Array) -> tuple[Array, Array]:
    r"""The 95 % interval of a noncentrality: :math:`F_{\nu,\delta}(|t|) = .975` and .025.

    By bisection, all features at once. NaN where the noncentral t cannot be evaluated (\|t\| of
    many thousands).

    Examples
    --------
    >>> [ends.round(3).tolist() for ends in noncentrality_interval(np.array([0.0]), np.array([9]))]
    [[-1.96], [1.96]]
    """
    size = np.abs(t)
    reach = 12 * np.sqrt(1 + size**2 / (2 * df))  # in sd of t: far beyond both ends
    ends: list[Array] = []
    for level in (0.975, 0.025):
        low, high = size - reach, size + reach
        for _ in range(60):  # the width halves each time: 60 reach the last bit
            middle = (low + high) / 2
            above = stats.nct.cdf(size, df, middle) > level
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        solved = np.abs(stats.nct.cdf(size, df, low) - level) < 1e-6
        ends.append(np.where(solved, low, np.nan))
    return np.where(t < 0, -ends[1], ends[0]), np.where(t < 0, -ends[0], ends[1])


def _linear_model(y: Array, case: Array, design: Array) -> tuple[dict[str, Array], Array]:
    """OLS of complete columns y on group and design, by projecting the design out of both."""
    norms = np.linalg.norm(design, axis=0)
    basis, singular, _ = np.linalg.svd(design[:, norms > 0] / norms[norms > 0],
                                       full_matrices=False)
    basis = basis[:, singular > _COLLINEAR * singular[0]]
    df = len(y) - basis.shape[1] - 1
    dummy, centred = case - case.mean(), y - y.mean(axis=0)
    dummy_left, left = (x - basis @ (basis.T @ x) for x in (dummy, centred))
    information = dummy_left @ dummy_left
    problem = np.full(y.shape[1], "", dtype=object)
    if information < _COLLINEAR * (dummy @ dummy):
        return {}, problem + "the covariates tell the groups apart completely"
    if df < 1:
        return {}, problem + f"{len(y)} people are too few for group and covariates"
    beta = dummy_left @ left / information
    residual = ((left - np.outer(dummy_left, beta)) ** 2).sum(axis=0)
    exact = residual <= _NO_RESIDUAL * (centred**2).sum(axis=0)
    problem[exact] = "group and covariates explain it without residual"
    t = beta / np.sqrt(np.where(exact, np.nan, residual) / df / information)
    return {"adjusted_difference": beta, "t": t, "df": np.where(exact, np.nan, df),
            "p": 2 * stats.t.sf(np.abs(t), df)}, problem


def corrected(p: pd.Series, correction: str) -> pd.Series:
    """q of every p that is there: one NaN would turn all of them into NaN."""
    known = p.dropna()
    q = multipletests(known, method=correction)[1] if len(known) else known
    return pd.Series(q, index=known.index, dtype="float64").reindex(p.index)


def _disagreement(table: pd.DataFrame) -> tuple[str, ...]:
    in_z, in_raw = (int((table[name] < ALPHA).sum()) for name in ("q", "raw_q"))
    untested = int(table["p"].isna().sum())
    notes = []
    if in_z != in_raw:
        notes.append(f"z and raw values disagree: {in_z} and {in_raw} of {len(table)} rows at "
                     f"q < {ALPHA}; look whether the groups differ in age, sex or site, and "
                     "adjust for it")
    if untested:
        notes.append(f"{untested} of {len(table)} rows could not be tested; see reason")
    return tuple(notes)


def _strongest(tested: pd.DataFrame) -> str:
    if tested.empty:
        return ""
    place = int(tested["p"].to_numpy().argmin())
    best = tested.iloc[place]
    effect = "g" if "g" in best else "auc"
    return ("; strongest {} ({} = {:.2f} [{:.2f}, {:.2f}], p = {:.2g}, q = {:.2g}, n = {} + {})"
            .format(tested.index[place][-1], effect, *best[[effect, f"{effect}_low",
                    f"{effect}_high", "p", "q", "n_case", "n_baseline"]]))

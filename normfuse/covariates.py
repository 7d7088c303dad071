"""Age, sex and site as columns a model can use, learned from the reference only."""
from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .errors import CohortError, listed, perhaps

if TYPE_CHECKING:
    from sklearn.preprocessing import SplineTransformer

_SPLINE_DEGREE = 3
_MIN_DISTINCT_FOR_SPLINE = 8


@dataclass(frozen=True)
class CovariateEncoder:
    """Covariates -> design columns with mean 0 and sd 1 in the reference.

    A continuous covariate becomes a straight line plus a cubic B-spline basis with knots at
    quantiles (a straight line alone if it takes fewer than 8 values); beyond the reference's range
    the curve goes on straight. A categorical one or a site becomes one column per level.

    Attributes
    ----------
    kinds : dict of str
        Covariate -> ``continuous``, ``categorical`` or ``site``.
    knots : dict of list of float
        Of each continuous covariate, in its unit; the first and last are the reference's range.
    levels : dict of list of str
    center, scale : list of float
        Of the raw columns, in the reference.

    Examples
    --------
    >>> people = pd.DataFrame({"age": np.linspace(20, 80, 30), "sex": ["F", "M"] * 15})
    >>> encoder = CovariateEncoder.fit(people, {"age": "continuous", "sex": "categorical"})
    >>> encoder.encode(people).shape
    (30, 9)
    """

    kinds: Mapping[str, str]
    knots: Mapping[str, list[float]]
    levels: Mapping[str, list[str]]
    center: list[float]
    scale: list[float]

    @classmethod
    def fit(cls, subjects: pd.DataFrame, kinds: Mapping[str, str], *,
            n_knots: int = 5) -> CovariateEncoder:
        """Learn knots, levels and scaling from reference subjects.

        Raises
        ------
        CohortError
            If a covariate has one value only.
        """
        knots: dict[str, list[float]] = {}
        levels: dict[str, list[str]] = {}
        for name, kind in kinds.items():
            values = subjects[name]
            if values.nunique() < 2 and kind != "site":
                raise CohortError(f"covariate {name} is {values.iloc[0]!r} for all "
                                  f"{len(values)} reference subjects; it can explain nothing: "
                                  "leave it out of the covariates")
            if kind == "continuous":
                knots[name] = _quantile_knots(values.to_numpy(float), n_knots)
            else:
                levels[name] = sorted(values.astype(str).unique())
        bare = cls(dict(kinds), knots, levels, [], [])
        raw = bare._columns(subjects)
        spread = raw.std(axis=0)
        return cls(dict(kinds), knots, levels, raw.mean(axis=0).tolist(),
                   np.where(spread > 1e-12, spread, 1.0).tolist())

    def encode(self, subjects: pd.DataFrame, *, sites: Mapping[str, Collection[str] | None] = {}
               ) -> np.ndarray:
        """Design columns of these subjects, float64, shape (n_subjects, n_columns).

        Parameters
        ----------
        sites : dict of (collection of str, or None)
            Site covariate -> further sites that may occur, None for any; their columns are those
            of nobody's site.

        Raises
        ------
        CohortError
            For a level (a site, say) that no reference subject had, or a missing covariate.

        Warns
        -----
        UserWarning
            When a continuous covariate lies outside the reference's range.
        """
        for name in self.kinds:
            self._check(subjects, name, sites.get(name, ()))
        return (self._columns(subjects) - self.center) / self.scale

    def columns_of(self, *kinds: str) -> np.ndarray:
        """Which columns of :meth:`encode` carry covariates of these kinds, as a boolean mask."""
        return np.concatenate([np.zeros(0, bool)] + [
            np.full(self._width(name), kind in kinds) for name, kind in self.kinds.items()])

    def _width(self, name: str) -> int:
        if self.kinds[name] != "continuous":
            return len(self.levels[name])
        return _n_columns(tuple(self.knots[name]))

    def block(self, subjects: pd.DataFrame, name: str) -> np.ndarray:
        """The design columns of one covariate, as in :meth:`encode` but unchecked."""
        start = 0
        for other in self.kinds:
            if other == name:
                break
            start += self._width(other)
        raw = self._raw(subjects, name)
        at = slice(start, start + raw.shape[1])
        return (raw - self.center[at]) / self.scale[at]

    def _columns(self, subjects: pd.DataFrame) -> np.ndarray:
        return np.hstack([np.zeros((len(subjects), 0)),
                          *(self._raw(subjects, name) for name in self.kinds)])

    def _raw(self, subjects: pd.DataFrame, name: str) -> np.ndarray:
        if self.kinds[name] == "continuous":
            return _spline(subjects[name].to_numpy(float), self.knots[name])
        values = subjects[name].astype(str).to_numpy()
        return (values[:, None] == np.array(self.levels[name])).astype(float)

    def _check(self, subjects: pd.DataFrame, name: str, further: Collection[str] | None
               ) -> None:
        if name not in subjects:
            raise CohortError(f"the model needs the covariate {name!r}; the subjects table has "
                              f"{listed(subjects.columns, 12)}"
                              f"{perhaps(map(str, subjects.columns), [name], 99)}")
        values = subjects[name]
        if values.isna().any():
            raise CohortError(f"{name} is missing for {listed(values.index[values.isna()])}")
        if self.kinds[name] == "continuous":
            low, high = self.knots[name][0], self.knots[name][-1]
            outside = (values < low) | (values > high)
            if outside.any():
                warnings.warn(f"{name} of {int(outside.sum())} of {len(values)} subjects lies "
                              f"outside the training people's {low:g} to {high:g} "
                              f"({listed(values.index[outside])}): their expected values are "
                              "extrapolated", stacklevel=4)
            return
        if further is None:
            return
        unseen = ~values.astype(str).isin([*self.levels[name], *further])
        if unseen.any():
            what = sorted(values[unseen].astype(str).unique())
            known = list(dict.fromkeys([*self.levels[name], *further]))
            raise CohortError(
                f"{name} {listed(map(repr, what))} of {int(unseen.sum())} subjects "
                f"({listed(values.index[unseen])}) was not in the reference, which had "
                f"{listed(known if self.kinds[name] == 'site' else map(repr, known), 12)}"
                f"{perhaps(what, known)}; the model cannot know its offset. "
                f"{_way_out(name, self.kinds[name], what, known)}, or leave them out")

    def describe(self, subjects: pd.DataFrame) -> dict[str, Any]:
        """Range or level counts of each covariate among these subjects, for provenance."""
        found: dict[str, Any] = {}
        for name, kind in self.kinds.items():
            column = subjects[name]
            if kind == "continuous":
                found[name] = {"kind": kind, "range": [float(column.min()), float(column.max())],
                               "mean": float(column.mean())}
            else:
                counts = column.astype(str).value_counts().sort_index()
                found[name] = {"kind": kind, "levels": {k: int(v) for k, v in counts.items()}}
        return found

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)


def _way_out(name: str, kind: str, strange: list[str], known: list[str]) -> str:
    """What to do about levels that the reference did not have."""
    if kind == "site":
        return ("Adapt it with healthy subjects of that site (model.adapt(controls), "
                "`normfuse adapt`), score as if of any site (unseen_site='pooled', "
                "--unseen-site pooled)")
    code = ", ".join(f"{word!r}: {_same(word, known)}" for word in strange[:5])
    return (f"If {name} is only coded otherwise than when the model was fitted, recode it in the "
            f"subjects table: subjects[{name!r}].replace({{{code}}}). Else fit with healthy "
            f"subjects of that {name}")


def _same(word: str, known: list[str]) -> str:
    """The one level that is the same but shorter or longer; what 1 and 2 stand for is no guess."""
    alike = [level for level in known if _alike(word.lower(), level.lower())]
    return repr(alike[0]) if len(alike) == 1 else "…"


def _alike(one: str, other: str) -> bool:
    """``female`` and ``f``, ``1.0`` and ``1``; not 10 and 1."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one.startswith(other) or other.startswith(one)


def _quantile_knots(values: np.ndarray, n_knots: int) -> list[float]:
    distinct = np.unique(values)
    if len(distinct) < _MIN_DISTINCT_FOR_SPLINE:
        return [float(distinct[0]), float(distinct[-1])]
    knots = np.unique(np.quantile(values, np.linspace(0, 1, n_knots)))
    return [float(k) for k in knots]


def _spline(values: np.ndarray, knots: list[float]) -> np.ndarray:
    """The straight line and, with inner knots, the B-spline basis without its constant."""
    line = values[:, None]
    if len(knots) < 3:
        return line
    return np.hstack([line, _basis(tuple(knots)).transform(line)])


@cache
def _basis(knots: tuple[float, ...]) -> SplineTransformer:
    """Of given knots, so that nothing is learned from values."""
    from sklearn.preprocessing import SplineTransformer

    at = np.array(knots)[:, None]
    return SplineTransformer(degree=_SPLINE_DEGREE, knots=at, include_bias=False,
                             extrapolation="linear").fit(at)


@cache
def _n_columns(knots: tuple[float, ...]) -> int:
    return _spline(np.zeros(1), list(knots)).shape[1]

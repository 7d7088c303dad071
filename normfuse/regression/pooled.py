"""The covariate model of one modality: from units to standard normal residuals, and back."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..covariates import CovariateEncoder
from .columns import UNSEEN, EffectColumns
from .effects import Effects
from .fitting import fit_effects
from .judgement import judge
from .sinh_arcsinh import SinhArcsinh

_NODES, _WEIGHTS = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(9))
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, eq=False)
class Residuals:
    """What covariates leave of some subjects' features.

    Attributes
    ----------
    u : ndarray, shape (n_subjects, n_features)
        Standard normal in healthy people; NaN where nothing was measured.
    variance : ndarray like u
        Of u, because the effects of covariates are not known exactly.
    log_slope : ndarray like u
        log du/dy, y in the modality's unit: log p(y) = log p(u) + log_slope.

    Examples
    --------
    >>> u = np.array([[2.0, np.nan]])
    >>> Residuals(u, np.full((1, 2), 0.25), np.zeros((1, 2))).z.round(2).tolist()
    [[1.79, nan]]
    """

    u: np.ndarray
    variance: np.ndarray
    log_slope: np.ndarray

    @property
    def z(self) -> np.ndarray:
        """u / sqrt(1 + variance): the deviation from what covariates alone predict."""
        return self.u / np.sqrt(1 + self.variance)


@dataclass(frozen=True, eq=False)
class PooledRegression:
    """Location, scale and shape of one modality's features given covariates, partially pooled.

    y_j = c_j + k_j SinhArcsinh(x' b_j, exp(x' g_j), skew_j, tail_j); see
    :class:`~normfuse.regression.effects.Effects` for the effects and their posterior. What is left
    is u_j = sinh(tail_j arcsinh(e_j) - skew_j), e_j the standardised residual.

    Attributes
    ----------
    columns : EffectColumns
    center, unit : ndarray, shape (n_features,)
        c and k: mean and sd in the people of the fit, in the modality's unit.
    effects : Effects

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> people = pd.DataFrame({"age": rng.uniform(20, 80, 200)})
    >>> thickness = 3 - 0.01 * people[["age"]].to_numpy() + 0.1 * rng.normal(size=(200, 2))
    >>> encoder = CovariateEncoder.fit(people, {"age": "continuous"})
    >>> model = PooledRegression.fit(thickness, people, encoder)
    >>> at_50 = pd.DataFrame({"age": [50.0]})
    >>> np.abs(model.quantile(0.5, at_50) - 2.5).max() < 0.03
    np.True_
    """

    columns: EffectColumns
    center: np.ndarray
    unit: np.ndarray
    effects: Effects

    @classmethod
    def fit(cls, values: np.ndarray, subjects: pd.DataFrame, encoder: CovariateEncoder
            ) -> PooledRegression:
        """From healthy people's features, shape (n_subjects, n_features); NaN is not measured."""
        rows = ~np.isnan(values).all(axis=1)
        values, subjects = values[rows], subjects[rows]
        columns = EffectColumns.of(encoder)
        center, unit = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        unit = np.where(unit > 0, unit, 1.0)
        seen = ~np.isnan(values)
        y = torch.as_tensor(np.where(seen, (values - center) / unit, 0.0))
        effects = fit_effects(torch.as_tensor(columns.values(subjects)), columns.groups, y,
                              None if seen.all() else torch.as_tensor(seen))
        model = cls(columns, center, unit, effects)
        for covariate in columns.sites:
            loc, scale = model.site_spread(covariate)
            nothing = effects.mean.new_zeros(len(unit), 2)
            model = model.with_site(covariate, UNSEEN, nothing, torch.diag_embed(
                torch.stack([loc, scale]).expand(len(unit), -1)))
        return model

    def site_spread(self, covariate: str) -> Tensor:
        """Prior variance of a site's effect on location and on log scale: between sites, and
        between features of one site; shape (2,)."""
        n, at = self.effects.n_columns, self.columns.position(
            covariate, self.columns.sites[covariate][0])
        return self.effects.spread[:, [at, n + at]].square().sum(0)

    def of_feature(self, column: int) -> PooledRegression:
        """The regression of one feature alone."""
        at, old = slice(column, column + 1), self.effects
        effects = replace(old, mean=old.mean[at], covariance=old.covariance[at])
        return replace(self, center=self.center[at], unit=self.unit[at], effects=effects)

    def residuals(self, values: np.ndarray, subjects: pd.DataFrame,
                  left_out: np.ndarray | None = None) -> Residuals:
        """What covariates leave, with its uncertainty.

        ``left_out`` marks people of the fit: what they taught is taken back for their own
        residuals (:func:`~normfuse.regression.judgement.judge`).
        """
        seen = ~np.isnan(values)
        x = torch.as_tensor(self.columns.values(subjects))
        y = torch.as_tensor(np.where(seen, (values - self.center) / self.unit, 0.0))
        u, variance, slope = (t.numpy() for t in judge(
            self.effects, x, y, None if left_out is None else torch.as_tensor(left_out)))
        return Residuals(*(np.where(seen, a, np.nan)
                           for a in (u, variance, slope - np.log(self.unit))))

    def quantile(self, share: float | np.ndarray, subjects: pd.DataFrame) -> np.ndarray:
        """The value below which this share of healthy people like these lies, in units.

        Shape (n_subjects, n_features); ``share`` may be of any shape that broadcasts to it.
        """
        return self.from_normal(torch.special.ndtri(torch.as_tensor(share, dtype=torch.float64)),
                                subjects)

    def from_normal(self, u: Tensor, subjects: pd.DataFrame) -> np.ndarray:
        """y of u, in units, shape (…, n_subjects, n_features)."""
        return self.center + self.unit * self._law(subjects).from_normal(u).numpy()

    def expected(self, mean: Tensor, sd: Tensor, subjects: pd.DataFrame) -> np.ndarray:
        """E[y] when u ~ N(mean, sd^2), in units, shape (n_subjects, n_features)."""
        law, total = self._law(subjects), torch.zeros_like(mean)
        for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist()):
            total += weight * law.from_normal(mean + node * sd)
        return self.center + self.unit * total.numpy()

    def _law(self, subjects: pd.DataFrame) -> SinhArcsinh:
        return self.effects.law(torch.as_tensor(self.columns.values(subjects)))

    def with_site(self, covariate: str, site: str, mean: Tensor, covariance: Tensor
                  ) -> PooledRegression:
        """With one more site; see :meth:`~normfuse.regression.effects.Effects.with_column`."""
        columns = self.columns.with_site(covariate, site)
        effects = self.effects.with_column(columns.position(covariate, site), mean, covariance)
        return replace(self, columns=columns, effects=effects)

"""Ordinary least squares on covariates, one regression a feature, exact predictive law."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.preprocessing import SplineTransformer


class Design:
    """Intercept, age (straight or a cubic spline of 5 columns), sex and site as indicators."""

    def __init__(self, subjects: pd.DataFrame, spline: bool) -> None:
        self.levels = {c: sorted(subjects[c].unique())[1:] for c in ("sex", "site")}
        age = subjects[["age"]].to_numpy(float)
        self.center, self.spread = age.mean(), age.std()
        self.spline = SplineTransformer(
            n_knots=4, degree=3, knots="quantile", include_bias=False,
            extrapolation="linear").fit(age) if spline else None

    def __call__(self, subjects: pd.DataFrame) -> np.ndarray:
        age = subjects[["age"]].to_numpy(float)
        curve = self.spline.transform(age) if self.spline else (age - self.center) / self.spread
        marks = [np.equal(subjects[c].to_numpy(), level)[:, None].astype(float)
                 for c, levels in self.levels.items() for level in levels]
        return np.hstack([np.ones_like(age), curve, *marks])


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """Fitted to people without missing values in a feature, feature by feature."""

    design: Design
    coefficients: np.ndarray
    scale: np.ndarray
    leverage: tuple[np.ndarray, ...]
    df: np.ndarray

    @classmethod
    def fit(cls, subjects: pd.DataFrame, values: np.ndarray, spline: bool) -> LeastSquares:
        design = Design(subjects, spline)
        x = design(subjects)
        b, scale, inverses, df = [], [], [], []
        for y in values.T:
            seen = ~np.isnan(y)
            inverse = np.linalg.pinv(x[seen].T @ x[seen])
            b.append(inverse @ x[seen].T @ y[seen])
            df.append(seen.sum() - np.linalg.matrix_rank(x[seen]))
            scale.append(np.sqrt(((y[seen] - x[seen] @ b[-1]) ** 2).sum() / df[-1]))
            inverses.append(inverse)
        return cls(design, np.array(b).T, np.array(scale), tuple(inverses), np.array(df))

    def expected(self, subjects: pd.DataFrame) -> np.ndarray:
        return self.design(subjects) @ self.coefficients

    def hat(self, subjects: pd.DataFrame) -> np.ndarray:
        """x' (X'X)^-1 x of each person and feature."""
        x = self.design(subjects)
        return np.column_stack([((x @ inverse) * x).sum(1) for inverse in self.leverage])

    def predictive(self, subjects: pd.DataFrame, values: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray]:
        """z and log density of new people, by Student's t with the coefficients' uncertainty."""
        sd = self.scale * np.sqrt(1 + self.hat(subjects))
        t = (values - self.expected(subjects)) / sd
        z = np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), self.df).clip(1e-300))
        return z, stats.t.logpdf(t, self.df) - np.log(sd)

    def residuals(self, subjects: pd.DataFrame, values: np.ndarray, left_out: bool) -> np.ndarray:
        """(y - expected) / scale; ``left_out`` people of the fit are judged by the others."""
        found = (values - self.expected(subjects)) / self.scale
        return found / (1 - self.hat(subjects).clip(max=0.99)) if left_out else found

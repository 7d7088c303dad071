"""What age, sex and site alone predict: the linear baseline under every model."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


_PENALTIES = np.logspace(-3, 4, 36)


@dataclass(frozen=True, eq=False)
class LinearBaseline:
    """Ridge regression of each feature of one modality on the covariates' design columns.

    y_j = b_0j + x' b_j + e,  sd(e) = s_j. The penalty is one for all features, chosen by
    leave-one-out error; the intercept is not penalised. The deep model works on (y - yhat) / s, so
    a feature missing for a subject is best guessed by 0.

    Attributes
    ----------
    coefficients : ndarray, shape (1 + n_design, n_features)
        First row: intercepts, in the modality's unit.
    scale : ndarray, shape (n_features,)
        Residual sd in the training subjects, in the modality's unit.
    penalty : float
    inverse : ndarray, shape (1 + n_design, 1 + n_design)
        (X'X + penalty)^-1 of the people of the fit, from which their leverages follow.
    """

    coefficients: np.ndarray
    scale: np.ndarray
    penalty: float
    inverse: np.ndarray

    @classmethod
    def fit(cls, block: pd.DataFrame, design: np.ndarray) -> LinearBaseline:
        """Fit on training subjects; single NaN are left out feature by feature."""
        measured = block.notna().to_numpy()
        rows = measured.any(axis=1)
        values, design, measured = block.to_numpy()[rows], design[rows], measured[rows]
        penalty = _pooled_penalty(values, design)
        coefficients = np.empty((1 + design.shape[1], values.shape[1]))
        patterns, which = np.unique(measured, axis=1, return_inverse=True)
        for k in range(patterns.shape[1]):
            seen, columns = patterns[:, k], np.flatnonzero(which.ravel() == k)
            coefficients[:, columns] = _ridge(values[np.ix_(seen, columns)], design[seen], penalty)
        residual = values - coefficients[0] - design @ coefficients[1:]
        scale = np.nanstd(residual, axis=0)
        return cls(coefficients, np.where(scale > 0, scale, 1.0), penalty,
                   _inverse(design, penalty))

    def expected(self, design: np.ndarray) -> np.ndarray:
        """Expected features, in the modality's unit, shape (n_subjects, n_features)."""
        return self.coefficients[0] + design @ self.coefficients[1:]

    def left_out(self, values: np.ndarray, design: np.ndarray) -> np.ndarray:
        """Expected features of people of the fit, each from the others: y - e / (1 - leverage).

        Leverages are those of features measured in everybody; where some people lack a feature,
        the others' weigh a little more than is taken off.
        """
        rows = np.hstack([np.ones((len(design), 1)), design])
        leverage = ((rows @ self.inverse) * rows).sum(axis=1, keepdims=True)
        return values - (values - self.expected(design)) / (1 - np.minimum(leverage, 0.99))

    def standardise(self, values: np.ndarray, design: np.ndarray) -> np.ndarray:
        """(y - yhat) / s."""
        return (values - self.expected(design)) / self.scale


def _pooled_penalty(values: np.ndarray, design: np.ndarray) -> float:
    """The ridge penalty of least leave-one-out error over all standardised features."""
    if not design.shape[1]:
        return 0.0
    from sklearn.linear_model import RidgeCV

    mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    standard = (values - mean) / np.where(spread > 0, spread, 1.0)
    missing = np.isnan(standard)
    search = RidgeCV(_PENALTIES).fit(design, np.where(missing, 0.0, standard))
    if missing.any():  # once more, with failed regions at what is expected of them
        guess = search.predict(design).reshape(standard.shape)
        search = RidgeCV(_PENALTIES).fit(design, np.where(missing, guess, standard))
    return float(search.alpha_)


def _inverse(design: np.ndarray, penalty: float) -> np.ndarray:
    rows = np.hstack([np.ones((len(design), 1)), design])
    weights = np.full(rows.shape[1], penalty)
    weights[0] = 0  # the intercept is not penalised
    return np.linalg.pinv(rows.T @ rows + np.diag(weights))


def _ridge(values: np.ndarray, design: np.ndarray, penalty: float) -> np.ndarray:
    if not design.shape[1] or len(values) < 3:
        return np.vstack([values.mean(axis=0), np.zeros((design.shape[1], values.shape[1]))])
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=penalty, solver="svd").fit(design, values)
    return np.vstack([np.atleast_1d(fitted.intercept_), np.atleast_2d(fitted.coef_).T])

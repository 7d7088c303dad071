"""How good a model's answers are: one code for all models, whoever made them."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CENTILES = np.arange(1, 100) / 100


@dataclass(frozen=True, eq=False)
class Answers:
    """One model's answers for the test people, (n_people, n_features) each.

    Attributes
    ----------
    expected, log_density : DataFrame
        In the features' own units.
    z : DataFrame
        Standard normal for healthy people if the model is right.
    cpu_seconds : float
        Of fitting, calibrating and scoring.
    """

    expected: pd.DataFrame
    z: pd.DataFrame
    log_density: pd.DataFrame
    cpu_seconds: float


def floor(n: int) -> float:
    """MACE of a perfect model whose z are judged on n people."""
    return float(np.sqrt(2 / np.pi) * np.pi / 8 / np.sqrt(n))


def measured(answers: Answers, values: pd.DataFrame, fit_values: pd.DataFrame) -> dict[str, float]:
    """Mean over features of all measures; ``values`` are the test people's."""
    rows = [of_feature(values[name].to_numpy(), answers.expected[name].to_numpy(),
                       answers.z[name].to_numpy(), answers.log_density[name].to_numpy(),
                       fit_values[name].to_numpy()) for name in values]
    means = {k: float(v) for k, v in pd.DataFrame(rows).mean().items()}
    return {**means, "cpu_seconds": answers.cpu_seconds}


def of_feature(y: np.ndarray, expected: np.ndarray, z: np.ndarray, log_density: np.ndarray,
               y_fit: np.ndarray) -> dict[str, float]:
    """MSLL is against mean and variance of the people of the fit: below 0 is better than those.

    Rasmussen and Williams (2006), section 2.5.
    """
    trivial = stats.norm.logpdf(y, y_fit.mean(), y_fit.std())
    below = stats.norm.cdf(z)[:, None] <= CENTILES
    residual = y - expected
    return {"EXPV": 1 - residual.var() / y.var(), "SMSE": (residual ** 2).mean() / y.var(),
            "MSLL": (trivial - log_density).mean(),
            "MACE": np.abs(CENTILES - below.mean(0)).mean(), "W": stats.shapiro(z).statistic,
            "skew": stats.skew(z), "kurtosis": stats.kurtosis(z), "sd": z.std(ddof=1),
            **beyond(z)}


def beyond(z: np.ndarray) -> dict[str, float]:
    """Shares of |z| beyond the nominal 5 and 1 %; NaN are left out."""
    size = np.abs(z[~np.isnan(z)])
    return {f"beyond_{limit}": float((size > limit).mean()) for limit in (1.96, 2.58)}

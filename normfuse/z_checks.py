"""What z of healthy people should be, checked the way the field reports it."""
from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from statsmodels.stats.proportion import proportion_confint

from .deviations import Deviations

COVERAGE = (0.5, 0.8, 0.95, 0.99)
OUTER = (0.005, 0.01, 0.025, 0.05, 0.95, 0.975, 0.99, 0.995)
_CENTILES = np.arange(1, 100) / 100


def of_feature(y: pd.Series, guess: pd.Series, z: pd.Series) -> dict[str, float]:
    """Accuracy and calibration of one feature; NaN in any is a person left out."""
    seen = (y.notna() & guess.notna() & z.notna()).to_numpy()
    y, guess, z = y[seen], guess[seen], z[seen]
    if len(z) < 4 or y.std() == 0:
        return {"n": len(z)}
    below = stats.norm.cdf(z)[:, None] <= _CENTILES
    return {"n": len(z), "EXPV": 1 - (y - guess).var() / y.var(),
            "SMSE": ((y - guess) ** 2).mean() / y.var(ddof=0),
            "Rho": stats.spearmanr(y, guess).statistic if guess.std() > 0 else np.nan,
            "MACE": float(np.abs(_CENTILES - below.mean(0)).mean()),
            "W": stats.shapiro(z).statistic, "skew": stats.skew(z),
            "kurtosis": stats.kurtosis(z), "mean": z.mean(), "sd": z.std(),
            "beyond_1.96": float((z.abs() > 1.96).mean()),
            "beyond_2.58": float((z.abs() > 2.58).mean())}


def mace_floor(n: int) -> float:
    """Expected MACE of a perfect model: |share - p| of n independent values, over all p."""
    return float(np.sqrt(2 / np.pi) * np.pi / 8 / np.sqrt(n)) if n else np.nan


def coverage(z: pd.DataFrame) -> pd.DataFrame:
    """Share of z inside each central interval; see :func:`pooled_share`."""
    rows = {level: pooled_share(z, z.abs() < stats.norm.isf((1 - level) / 2))
            for level in COVERAGE}
    return pd.DataFrame(rows).T.rename_axis("nominal")


def outer_centiles(z: pd.DataFrame) -> pd.DataFrame:
    """Share of z below each low centile and above each high one; see :func:`pooled_share`.

    Central coverage can be right while one tail is too heavy and the other too light. Rows are
    centiles in percent; ``nominal`` is the share that should lie beyond.
    """
    rows = {}
    for centile in OUTER:
        low = centile < 0.5
        beyond = z < stats.norm.ppf(centile) if low else z > stats.norm.ppf(centile)
        rows[round(100 * centile, 6)] = {
            "side": "below" if low else "above", "nominal": round(min(centile, 1 - centile), 9),
            **pooled_share(z, beyond)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("centile")


def pooled_share(z: pd.DataFrame, hit: pd.DataFrame) -> dict[str, float]:
    """Share of measured cells that are hit, and a 95 % interval with people as independent.

    The regions of one brain are not: Wilson's interval is taken for so many independent values as
    would vary as much as the share does between people. In simulations of 15 to 100 people (10 or
    60 features, correlations of .05 and .3, shares of .5 and 5 %) 92 to 98 % of these intervals
    held the truth; 49 to 96 % of those of a bootstrap of people; and all of Wilson's for as many
    values as people, which are up to 15 times wider.

    References
    ----------
    Korn and Graubard (1998), Survey Methodology 24:193-201.
    """
    seen = z.notna().to_numpy()
    measured, hits = seen.sum(axis=1), (hit.to_numpy() & seen).sum(axis=1)
    hits, measured = hits[measured > 0], measured[measured > 0]
    n, cells = len(measured), int(measured.sum())
    share = float(hits.sum() / cells) if cells else np.nan
    if n < 2:
        return {"share": share, "low": np.nan, "high": np.nan, "n": n}
    variance = n / (n - 1) * ((hits - share * measured) ** 2).sum() / cells ** 2
    alike = float(n)
    if variance > 0:
        students = stats.norm.isf(0.025) / stats.t.isf(0.025, n - 1)
        alike = min(share * (1 - share) / variance * students ** 2, float(cells))
    low, high = proportion_confint(share * alike, alike, method="wilson")
    return {"share": share, "low": float(low), "high": float(high), "n": n}


def leftover(found: Deviations) -> pd.DataFrame:
    """Does z still know a covariate? By feature with BH, and by a classifier of categories."""
    rows = {}
    for name, fact in found.reference.covariates.items():
        values = found.subjects[name]
        number = fact["kind"] == "continuous"
        p = np.array([_dependence(z, values, number) for _, z in found.z.items()])
        p = p[~np.isnan(p)]
        q = stats.false_discovery_control(p) if len(p) else p
        rows[name] = {"test": "Spearman" if number else "ANOVA", "n_tested": len(p),
                      "n_features": int((q < 0.05).sum()),
                      "smallest_q": float(q.min()) if len(q) else np.nan,
                      **({} if number else _told_apart(found.z, values.astype(str)))}
    columns = ["test", "n_tested", "n_features", "smallest_q", "balanced_accuracy", "chance",
               "chance_high"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("covariate")


def _dependence(z: pd.Series, values: pd.Series, number: bool) -> float:
    """p of one feature."""
    z = z.dropna()
    values = values[z.index]
    if number:
        values = values.astype(float)
        known = len(z) > 3 and z.nunique() > 1 and values.nunique() > 1
        return float(stats.spearmanr(z, values).pvalue) if known else np.nan
    groups = [part for _, part in z.groupby(values.astype(str)) if len(part) > 1]
    return float(stats.f_oneway(*groups).pvalue) if len(groups) > 1 else np.nan


def _told_apart(z: pd.DataFrame, labels: pd.Series) -> dict[str, float]:
    """Balanced accuracy of a shrunken linear discriminant, five-fold, and what guessing gives.

    ``chance_high`` ends the range that 97.5 % of guesses stay below: recalls of classes are
    binomial.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    kept = labels.map(labels.value_counts()) >= 5
    labels, values = labels[kept], z[kept].fillna(0.0)
    counts = labels.value_counts()
    if len(counts) < 2:
        return {}
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    guess = cross_val_predict(model, values, labels, cv=folds)
    chance = 1 / len(counts)
    spread = np.sqrt(chance * (1 - chance) * (1 / counts).sum()) / len(counts)
    return {"balanced_accuracy": balanced_accuracy_score(labels, guess), "chance": chance,
            "chance_high": min(chance + stats.norm.isf(0.025) * spread, 1.0)}


def by_site(found: Deviations) -> pd.DataFrame:
    """Mean and sd of z at each site, averaged over features; should be 0 and 1."""
    names = [name for name, fact in found.reference.covariates.items() if fact["kind"] == "site"]
    sites = found.subjects[names[0]].astype(str) if names else pd.Series("", found.z.index)[:0]
    grouped = found.z.loc[sites.index].groupby(sites)
    return pd.DataFrame({"n": grouped.size(), "mean": grouped.mean().mean(axis=1),
                         "sd": grouped.std().mean(axis=1)}).rename_axis("site")

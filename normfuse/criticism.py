"""How good a normative model is, by the field's own measures, on healthy people it never saw."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from .cohort import Cohort
from .deviations import Deviations
from .errors import CohortError
from .fitted import Fitted
from .kinds import Kind
from .normative import NormativeModel

COVERAGE = (0.5, 0.8, 0.95, 0.99)
_CENTILES = np.arange(1, 100) / 100


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes
    ----------
    features : DataFrame, one row a (modality, feature)
        ``n``; ``EXPV``, ``SMSE``, ``Rho``; ``MSLL`` against the people of the fit (below 0 is
        better than knowing their mean and sd); ``MACE``; ``W``, ``skew``, ``kurtosis``, ``mean``
        and ``sd`` of z; shares ``beyond_1.96`` and ``beyond_2.58``; and of ordinary least squares
        on splines, fitted to the same people, ``EXPV_spline`` and ``MSLL_spline``.
    coverage : DataFrame, one row a nominal level
        Pooled share of z inside the central interval, with Wilson's 95 % interval for as many
        independent values as there are people.
    leftover : DataFrame, one row a covariate
        Whether z still depends on it: features with q < .05, smallest q, and for a site or other
        category the cross-validated balanced accuracy of telling it from z, with chance.
    sites : DataFrame
        Mean and sd of z by site.
    floor : float
        MACE of a perfect model with so many people.
    kind : str
    """

    features: pd.DataFrame
    coverage: pd.DataFrame
    leftover: pd.DataFrame
    sites: pd.DataFrame
    floor: float
    kind: str

    @property
    def summary(self) -> pd.Series:
        """Means over features."""
        return self.features.mean().rename(self.kind)

    def __repr__(self) -> str:
        s = self.summary
        return (f"<Evaluation of {len(self.features)} features, {self.kind}: EXPV {s['EXPV']:.3f} "
                f"(spline {s['EXPV_spline']:.3f}), MSLL {s['MSLL']:.3f} (spline "
                f"{s['MSLL_spline']:.3f}), MACE {s['MACE']:.4f} (floor {self.floor:.4f})>")

    def _repr_html_(self) -> str:
        parts = [self.summary.round(4).to_frame().T, self.coverage, self.leftover]
        return f"<b>{self.kind}</b>" + "".join(part.round(4).to_html() for part in parts)


def evaluate(model: NormativeModel, held_out: Cohort, *, kind: str | Kind | None = None
             ) -> Evaluation:
    """Accuracy and calibration on healthy people whom the model never saw.

    Parameters
    ----------
    held_out : Cohort
        Healthy people; those of the fit are left out with a warning.
    kind : str or Kind, optional
        As in :meth:`NormativeModel.deviations`.

    Raises
    ------
    CohortError
        Fewer than 10 people are left.

    References
    ----------
    Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, section 2.5 (MSLL,
    with mean and variance of the fit set); Rutherford et al. (2022), eLife 11:e72904.
    """
    fitted, chosen = model.fitted, model.kind_called(kind)
    people = fitted.unseen(fitted.calibrated_only(held_out))
    if len(people) < 10:
        raise CohortError(f"{len(people)} people are left to evaluate with; bring 10 at least")
    found = fitted.score(people, chosen, model.inference)
    density = fitted.log_density(people, chosen, model.inference)
    rows = [_of_feature(found, density, k) for k in range(found.z.shape[1])]
    table = pd.DataFrame(rows, index=found.z.columns)
    people = fitted.preparation.aligned(people)
    table = table.assign(**_against_fit(fitted, people, found.observed, density))
    n = int(found.z.notna().sum().median())
    return Evaluation(table, _coverage(found.z), _leftover(found), _by_site(found),
                      float(np.sqrt(2 / np.pi) * np.pi / 8 / np.sqrt(n)), chosen.name)


def _of_feature(found: Deviations, density: pd.DataFrame, at: int) -> dict[str, float]:
    z = found.z.iloc[:, at].dropna()
    y, guess = (t.iloc[:, at][z.index] for t in (found.observed, found.expected))
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
            "beyond_2.58": float((z.abs() > 2.58).mean()),
            "log_density": density.iloc[:, at].mean()}


def _against_fit(fitted: Fitted, people: Cohort, observed: pd.DataFrame, density: pd.DataFrame
                 ) -> dict[str, np.ndarray]:
    """MSLL of the model and of the spline, and the spline's EXPV."""
    preparation = fitted.preparation
    design = preparation.encoded(people.subjects)
    center, unit, guess, scale = (np.hstack(parts) for parts in zip(*(
        (r.center, r.unit, preparation.rivals[name].expected(design),
         preparation.rivals[name].scale) for name, r in preparation.regressions.items())))
    y = observed.to_numpy()
    trivial = stats.norm.logpdf(y, center, unit)
    spline = stats.norm.logpdf(y, guess, scale)
    return {"MSLL": np.nanmean(trivial - density.to_numpy(), axis=0),
            "EXPV_spline": 1 - np.nanvar(y - guess, axis=0) / np.nanvar(y, axis=0),
            "MSLL_spline": np.nanmean(trivial - spline, axis=0)}


def _coverage(z: pd.DataFrame) -> pd.DataFrame:
    values = z.to_numpy()
    values, n = values[~np.isnan(values)], len(z)
    rows = []
    for level in COVERAGE:
        share = float((np.abs(values) < stats.norm.isf((1 - level) / 2)).mean())
        low, high = proportion_confint(share * n, n, method="wilson")
        rows.append({"nominal": level, "share": share, "low": low, "high": high, "n": n})
    return pd.DataFrame(rows).set_index("nominal")


def _leftover(found: Deviations) -> pd.DataFrame:
    """Does z still know a covariate? By feature with BH, and by a classifier of categories."""
    rows = {}
    for name, fact in found.reference.covariates.items():
        values = found.subjects[name]
        number = fact["kind"] == "continuous"
        p = np.array([_dependence(z, values, number) for _, z in found.z.items()])
        q = multipletests(p[~np.isnan(p)], method="fdr_bh")[1]
        rows[name] = {"n_features": int((q < 0.05).sum()), "smallest_q": q.min(initial=1.0)}
        if not number:
            rows[name] |= _told_apart(found.z, values.astype(str))
    return pd.DataFrame(rows).T


def _dependence(z: pd.Series, values: pd.Series, number: bool) -> float:
    z = z.dropna()
    values = values[z.index]
    if number:
        return float(stats.spearmanr(z, values.astype(float)).pvalue)
    groups = [part for _, part in z.groupby(values.astype(str)) if len(part) > 1]
    return float(stats.f_oneway(*groups).pvalue) if len(groups) > 1 else np.nan


def _told_apart(z: pd.DataFrame, labels: pd.Series) -> dict[str, float]:
    """Balanced accuracy of a shrunken linear discriminant, five-fold."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    kept = labels.map(labels.value_counts()) >= 5
    labels, values = labels[kept], z[kept].fillna(0.0)
    if labels.nunique() < 2:
        return {"balanced_accuracy": np.nan, "chance": np.nan}
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    guess = cross_val_predict(model, values, labels, cv=folds)
    return {"balanced_accuracy": balanced_accuracy_score(labels, guess),
            "chance": 1 / labels.nunique()}


def _by_site(found: Deviations) -> pd.DataFrame:
    sites = [n for n, f in found.reference.covariates.items() if f["kind"] == "site"]
    if not sites:
        return pd.DataFrame()
    grouped = found.z.groupby(found.subjects[sites[0]].astype(str))
    return pd.DataFrame({"n": grouped.size(), "mean": grouped.mean().mean(axis=1),
                         "sd": grouped.std().mean(axis=1)})

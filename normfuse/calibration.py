"""From residuals to z and p: calibration on healthy people whom training never saw."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from scipy import interpolate, optimize, special, stats

from .cards import Shown
from .errors import CalibrationError

SPLIT = ("training", "early_stop", "calibration")

MIN_FEATURE_N = 5
"""Fewer calibration values than this and a feature's z is NaN: its sd would be a guess. So it is
if they are all the same."""

_SHAPE_LEVELS = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99,
                          0.995])


@dataclass(frozen=True)
class HeldOut(Shown):
    """Split the reference by subject into training, early-stopping and calibration people.

    Parameters
    ----------
    calibration : float
        Share kept for calibration. They shape neither weights nor stopping time.
    early_stop : float
        Share that says when to stop training.

    Examples
    --------
    >>> people = pd.DataFrame({"site": ["a", "b"] * 20})
    >>> HeldOut().roles(people, {"site": "site"}, n_latent=2, seed=0).value_counts().to_dict()
    {'training': 23, 'calibration': 12, 'early_stop': 5}
    """

    calibration: float = 0.30
    early_stop: float = 0.12

    def __post_init__(self) -> None:
        if not (0 < self.calibration < 1 and 0 < self.early_stop < 1
                and self.calibration + self.early_stop < 1):
            raise CalibrationError("calibration and early_stop are shares of the reference, both "
                                   f"positive and together below 1; got {self.calibration} and "
                                   f"{self.early_stop}")

    def roles(self, subjects: pd.DataFrame, kinds: Mapping[str, str], *, n_latent: int,
              seed: int) -> pd.Series:
        """``training``, ``early_stop`` or ``calibration`` for each subject.

        Stratified by every categorical covariate and the site: within each stratum, in random
        order, the shares are dealt out evenly. A level that would have nobody in training gets all
        its people moved there, since its offset could not be learned otherwise.

        Raises
        ------
        CalibrationError
            When the calibration people would be too few.
        """
        groups = [name for name, kind in kinds.items() if kind != "continuous"]
        rng = np.random.default_rng(seed)
        strata = subjects[groups].astype(str).agg("|".join, axis=1) if groups \
            else pd.Series("", index=subjects.index)
        order = np.lexsort((rng.permutation(len(subjects)), strata.to_numpy()))
        roles = pd.Series("training", index=subjects.index)
        # dealing by cumulative share keeps every stratum's shares within one person
        position = (np.arange(len(order)) + 0.5 + rng.uniform()) * self.calibration
        chosen = np.floor(position) > np.floor(position - self.calibration)
        rest = order[~chosen]
        share = self.early_stop / (1 - self.calibration)
        position = (np.arange(len(rest)) + 0.5 + rng.uniform()) * share
        roles.iloc[order[chosen]] = "calibration"
        roles.iloc[rest[np.floor(position) > np.floor(position - share)]] = "early_stop"
        for name in groups:
            levels = subjects[name].astype(str)
            trained = set(levels[roles == "training"])
            roles[~levels.isin(trained)] = "training"
        self._enough(roles, n_latent)
        return roles

    def _enough(self, roles: pd.Series, n_latent: int) -> None:
        n = roles.value_counts().reindex(list(SPLIT), fill_value=0)
        needed = max(MIN_FEATURE_N, n_latent + 3)
        if n["calibration"] < needed or n["early_stop"] < 2 or n["training"] < 8:
            least = int(np.ceil(needed / self.calibration))
            raise CalibrationError(
                f"{len(roles)} reference subjects are too few: they give {n['training']} for "
                f"training, {n['early_stop']} for early stopping and {n['calibration']} for "
                f"calibration, where {n_latent} latent dimensions need at least {needed}. Bring "
                f"about {least} healthy subjects, or ask for fewer latent dimensions (n_latent or "
                "smaller levels of a Ladder)")


@dataclass(frozen=True)
class CrossFit(Shown):
    """Calibrate on everybody: a model for each fold of the reference, fitted on the others.

    Each healthy person is scored by the model that did not see them; what is normal is learned
    from all these scores. New people are scored by one more model, fitted on everybody: it knows
    a little more than those of the folds, so that its z are a little too small rather than too
    large.

    Parameters
    ----------
    folds : int
        With 5 instead of 10, the share of new healthy people beyond 1.96 was .038 instead of .040
        (53 real people to fit, 23 to score, 5 splits): models of the folds know less than the one
        that scores new people.
    early_stop : float
        Share of a model's people that says when to stop training.

    Examples
    --------
    >>> people = pd.DataFrame({"sex": ["F", "M"] * 20})
    >>> folds = CrossFit(5).deal(people, {"sex": "categorical"}, seed=0)
    >>> folds.value_counts().tolist(), folds[people["sex"] == "F"].value_counts().tolist()
    ([8, 8, 8, 8, 8], [4, 4, 4, 4, 4])
    >>> CrossFit().learners(people, seed=0).value_counts().to_dict()
    {'training': 35, 'early_stop': 5}
    >>> CrossFit(5).refuse_too_few(13, n_latent=2)
    """

    folds: int = 10
    early_stop: float = 0.12

    def __post_init__(self) -> None:
        if not isinstance(self.folds, int) or self.folds < 2:
            raise CalibrationError(f"folds is a whole number above 1; got {self.folds!r}")
        if not 0 < self.early_stop < 1:
            raise CalibrationError(f"early_stop is a share between 0 and 1; got {self.early_stop}")

    def deal(self, subjects: pd.DataFrame, kinds: Mapping[str, str], *, seed: int) -> pd.Series:
        """The fold of each subject, even within the levels of categories and sites."""
        return deal_folds(subjects, kinds, self.folds, seed)

    def learners(self, subjects: pd.DataFrame, *, seed: int) -> pd.Series:
        """``training`` or ``early_stop`` for each of the people a model is fitted on."""
        rng = np.random.default_rng(seed)
        roles = pd.Series("training", index=subjects.index)
        n = max(2, round(self.early_stop * len(roles)))
        roles.iloc[rng.permutation(len(roles))[:n]] = "early_stop"
        return roles

    def refuse_too_few(self, n: int, n_latent: int) -> None:
        """Raises CalibrationError if so many people are too few."""
        learners = max(n_latent + 3, 10)  # of each fold's model, to know how its latents lie
        least = -(-learners * self.folds // (self.folds - 1))
        if n < least:
            raise CalibrationError(
                f"{n} reference subjects are too few to cross-fit {n_latent} latent dimensions in "
                f"{self.folds} folds: at least {least} are needed. Bring more healthy subjects, "
                "or ask for fewer latent dimensions (n_latent or smaller levels of a Ladder)")


def deal_folds(subjects: pd.DataFrame, kinds: Mapping[str, str], folds: int, seed: int,
               inside: np.ndarray | None = None) -> pd.Series:
    """The fold of each subject, even within the levels of categories and sites.

    Those ``inside`` (bool) and the others are dealt one after the other, if it is given.
    """
    rng = np.random.default_rng(seed)
    keys = [subjects[name].astype(str).to_numpy() for name, kind in kinds.items()
            if kind != "continuous"]
    first = [] if inside is None else [inside]
    order = np.lexsort([rng.permutation(len(subjects)), *keys, *first])
    fold = np.empty(len(subjects), dtype=int)
    fold[order] = np.arange(len(subjects)) % folds
    return pd.Series(fold, index=subjects.index)


SMALL = 150
"""Reference people below whom calibration is cross-fitted by default."""


def choose_calibration(n: int) -> HeldOut | CrossFit:
    """What to do with so many reference people when nobody says."""
    return CrossFit() if n < SMALL else HeldOut()


@dataclass(frozen=True, eq=False)
class Prior:
    """What the other features of a modality say of a feature's location and variance.

    Attributes
    ----------
    count, mean : ndarray, shape (n_features,)
        As if so many more calibration people had this mean.
    freedom, variance : ndarray, shape (n_features,)
        As if so many more degrees of freedom had this variance.

    References
    ----------
    Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3(1), doi 10.2202/1544-6115.1027 (moderated
    variances, method of moments on their logarithms).
    """

    count: np.ndarray
    mean: np.ndarray
    freedom: np.ndarray
    variance: np.ndarray

    @classmethod
    def none(cls, n_features: int) -> Prior:
        """Every feature by itself."""
        return cls(*(np.zeros(n_features) for _ in range(4)))

    @classmethod
    def fit(cls, law: ResidualLaw, independent: Mapping[str, float], columns: Mapping[str, slice]
            ) -> Prior:
        """From each feature's own moments; ``independent`` is how many values each modality has.

        Between features of a modality, mean and log variance differ by more than chance if at all.
        However little they differ, no more is claimed to be known than independent values tell.
        """
        prior = cls.none(len(law.n))
        for name, at in columns.items():
            usable = (law.n[at] >= MIN_FEATURE_N) & (law.sd[at] > 1e-9)
            if usable.sum() < 3:
                continue
            n, b, v = law.n[at][usable], law.mean[at][usable], law.sd[at][usable] ** 2
            most = max(independent[name], 1.0)
            half = (n - 1) / 2
            e = np.log(v) - special.digamma(half) + np.log(half)
            excess = e.var(ddof=1) - special.polygamma(1, half).mean()
            freedom = min(2 * _inverse_trigamma(excess), most)
            prior.freedom[at] = freedom
            prior.variance[at] = np.exp(e.mean() + special.digamma(freedom / 2)
                                        - np.log(freedom / 2))
            between = max(b.var(ddof=1) - (v / n).mean(), 0.0)
            prior.count[at] = min(v.mean() / max(between, 1e-12), most)
            prior.mean[at] = b.mean()
        return prior


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = value; infinity for what is not positive."""
    if value <= 1e-9:
        return np.inf
    return float(np.exp(optimize.brentq(
        lambda log_x: float(special.polygamma(1, np.exp(log_x))) - value, -12, 25)))


@dataclass(frozen=True, eq=False)
class ResidualLaw:
    """Location and scale of standardised residuals u = (y - yhat) / s in calibration people.

    b = mean(u), k^2 = sum (u - b)^2 / (n - 1), both drawn towards those of the modality's other
    features as :class:`Prior` says (count c_0 and mean m_0, degrees of freedom d_0 and variance
    s_0^2):

    b' = (n b + c_0 m_0) / (n + c_0),   k'^2 = ((n - 1) k^2 + d_0 s_0^2) / (n - 1 + d_0).

    A new person's t = (u - b') / (k' sqrt(1 + 1/(n + c_0))) then has Student's law with
    n - 1 + d_0 degrees of freedom, so that z = Phi^-1(T(t)) is standard normal at every n (for
    normal residuals), where (u - b) / k has too heavy tails.

    Attributes
    ----------
    n, mean, sd : ndarray, shape (n_features,)
        Of each feature by itself.
    prior : Prior
    """

    n: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    prior: Prior

    @classmethod
    def fit(cls, u: np.ndarray, columns: Mapping[str, slice] | None = None) -> ResidualLaw:
        """From calibration residuals, shape (n_calibration, n_features); NaN are left out.

        ``columns`` says which features to draw together; without it each stands by itself.
        """
        seen = ~np.isnan(u)
        n = seen.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(seen, u, 0).sum(axis=0) / n
            sd = np.sqrt((np.where(seen, u - mean, 0) ** 2).sum(axis=0) / (n - 1))
        law = cls(n, mean, sd, Prior.none(len(n)))
        if columns is None:
            return law
        independent = {name: independent_values(u[:, at]) for name, at in columns.items()}
        return replace(law, prior=Prior.fit(law, independent, columns))

    def of(self, features: slice) -> ResidualLaw:
        """The law of some features."""
        prior = Prior(*(getattr(self.prior, field.name)[features] for field in fields(Prior)))
        return ResidualLaw(self.n[features], self.mean[features], self.sd[features], prior)

    def z(self, u: np.ndarray) -> np.ndarray:
        """z of new people's residuals, shape (n_subjects, n_features)."""
        return self._to_normal(u, self.n, self.mean, self.sd)

    def z_left_out(self, u: np.ndarray) -> np.ndarray:
        """z of the calibration people themselves, each against the others only."""
        n = self.n - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (self.n * self.mean - u) / n
            squares = (self.n - 1) * self.sd ** 2 - (u - self.mean) ** 2 * self.n / n
            sd = np.sqrt(np.clip(squares, 0, None) / (n - 1))
        return self._to_normal(u, n, mean, sd)

    def _to_normal(self, u: np.ndarray, n: np.ndarray, mean: np.ndarray, sd: np.ndarray
                   ) -> np.ndarray:
        prior, n = self.prior, np.broadcast_to(n, u.shape)
        # people who agree to the last digit say nothing of how far others may lie
        enough = (n >= MIN_FEATURE_N) & (sd > 1e-9)
        with np.errstate(invalid="ignore", divide="ignore"):
            count, freedom = n + prior.count, n - 1 + prior.freedom
            center = (n * mean + prior.count * prior.mean) / count
            spread = np.sqrt(((n - 1) * sd ** 2 + prior.freedom * prior.variance) / freedom)
            t = (u - center) / (spread * np.sqrt(1 + 1 / count))
        return np.where(enough, t_to_normal(t, np.where(enough, freedom, 1)), np.nan)


_MANY, _NODES = 200_000, np.linspace(0, 12, 1201)
"""Values from which Phi^-1(T(t)) is interpolated; where, in arcsinh t: t up to 81,000."""


def t_to_normal(t: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Phi^-1(T(t)), T Student's law with ``freedom`` degrees, of the same shape as t.

    Of very many values by cubic interpolation between exact ones, to 1e-8: voxels have few
    different degrees of freedom.

    Examples
    --------
    >>> t_to_normal(np.array([-2.0, 2.0]), np.array([5.0, np.inf])).round(4).tolist()
    [-1.6355, 2.0]
    """
    size = np.abs(t)
    degrees = np.unique(freedom) if t.size > _MANY else np.empty(0)
    if not 0 < len(degrees) <= 20:
        return np.copysign(_upper(size, freedom), t)
    found = np.full(t.shape, np.nan)
    for degree in degrees:
        at = freedom == degree
        curve = interpolate.CubicSpline(_NODES, _upper(np.sinh(_NODES), degree))
        found[at] = curve(np.arcsinh(size[at]).clip(None, _NODES[-1]))
    return np.copysign(found, t)


def _upper(t: np.ndarray, freedom: np.ndarray | float) -> np.ndarray:
    # by the upper tail: 1 - cdf loses every digit where deviations are interesting
    return -special.ndtri(special.stdtr(np.minimum(freedom, 1e12), -t).clip(1e-300))


@dataclass(frozen=True)
class TailShape:
    """A monotone map that makes the z of one modality normal in its outer centiles too.

    z' = sinh(delta asinh((z - xi) / eta) - epsilon), straight beyond the outermost fitted
    quantile. The t law above is exact for normal residuals; real regions have heavier and
    skewed tails (2 % of healthy values beyond 2.58 instead of 1 %). One shape for all features of
    a modality, since their n people cannot tell each feature's tail.

    Fitted to quantiles q_i of calibration people's left-out z by

    minimise  sum_i (T(q_i) - Phi^-1(p_i))^2 / (2 sd_i^2) + |theta|^2 / tau^2,

    sd_i^2 = p_i (1 - p_i) / (m phi_i^2), tau = 0.3 (1 - exp(-m / 300)): with few independent
    values m it is the identity. m is the number of people times the participation ratio of the
    features' correlations, since the regions of one brain are not independent.

    Attributes
    ----------
    xi, log_eta, epsilon, log_delta : float
        theta; all 0 is the identity.
    low, high : float
        Outermost fitted quantiles.

    References
    ----------
    Jones and Pewsey (2009), Biometrika 96(4), doi 10.1093/biomet/asp053. The shrinkage is ours.

    Examples
    --------
    >>> heavy = stats.t.rvs(4, size=(100, 80), random_state=0)
    >>> mapped = TailShape.fit(heavy)(heavy)
    >>> [round(float((np.abs(v) > 2.576).mean()), 3) for v in (heavy, mapped)]
    [0.059, 0.013]
    """

    xi: float = 0.0
    log_eta: float = 0.0
    epsilon: float = 0.0
    log_delta: float = 0.0
    low: float = -3.0
    high: float = 3.0

    @classmethod
    def fit(cls, z: np.ndarray) -> TailShape:
        """From left-out z of calibration people, shape (n_calibration, n_features)."""
        values = z[~np.isnan(z)]
        independent = independent_values(z)
        if len(values) < 2 or independent < 2:
            return cls()
        seen, wanted = np.quantile(values, _SHAPE_LEVELS), stats.norm.ppf(_SHAPE_LEVELS)
        sd = np.sqrt(_SHAPE_LEVELS * (1 - _SHAPE_LEVELS) / independent) / stats.norm.pdf(wanted)
        tau = 0.3 * (1 - np.exp(-independent / 300))

        def misfit(theta: np.ndarray) -> np.ndarray:
            return np.concatenate([(cls(*theta)._bent(seen) - wanted) / (np.sqrt(2) * sd),
                                   theta / tau])

        theta = optimize.least_squares(misfit, np.zeros(4)).x
        xi, log_eta, epsilon, log_delta = (float(v) for v in theta)
        return cls(xi, log_eta, epsilon, log_delta, float(seen[0]), float(seen[-1]))

    def __call__(self, z: np.ndarray) -> np.ndarray:
        inner = np.clip(z, self.low, self.high)
        u = (inner - self.xi) / np.exp(self.log_eta)
        delta = np.exp(self.log_delta)
        slope = np.cosh(delta * np.arcsinh(u) - self.epsilon) * delta \
            / np.sqrt(1 + u ** 2) / np.exp(self.log_eta)
        return self._bent(inner) + slope * (z - inner)

    def _bent(self, z: np.ndarray) -> np.ndarray:
        u = (z - self.xi) / np.exp(self.log_eta)
        return np.sinh(np.exp(self.log_delta) * np.arcsinh(u) - self.epsilon)


def independent_values(z: np.ndarray) -> float:
    """People times the participation ratio (sum lambda)^2 / sum lambda^2 of the correlations."""
    people = int((~np.isnan(z)).any(axis=1).sum())
    whole = z[:, (~np.isnan(z)).sum(axis=0) >= max(3, 0.5 * people)]
    n, width = people, whole.shape[1]
    if n < 3 or width < 1:
        return 0.0
    centred = whole - np.nanmean(whole, axis=0)
    spread = np.nanstd(whole, axis=0)
    scaled = np.nan_to_num(centred / np.where(spread > 0, spread, 1.0))
    squared_norm = float((scaled @ scaled.T / n).ravel() @ (scaled @ scaled.T / n).ravel())
    # n people give even unrelated features squared correlations of 1 / (n - 1)
    squared_norm = max(squared_norm - width * (width - 1) / (n - 1), width)
    return n * width ** 2 / squared_norm

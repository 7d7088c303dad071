"""Learning effects and their spreads: Newton steps on the evidence lower bound."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .effects import SKEW, TAIL, Effects, effect_groups, law_of
from .sinh_arcsinh import second_order

LAPLACE_STEPS, VARIATIONAL_STEPS = 12, 8
"""Newton steps at the mode, then at draws from the posterior, each worth ``RATE``."""

RATE = 0.3
_FIRST_SPREAD = {"location": 0.3, "scale": 0.1, SKEW: 0.1, TAIL: 0.1}
_PRIOR_COUNT = 2.0
"""As if so many more effects had the first spread: a group of one column and a few features could
otherwise learn that it has none at all."""

_LONGEST = 3.0
"""Longest variational step, in posterior sd before ``RATE``: with thirty people a draw may fall
where derivatives are huge."""

_CHUNK = 256
"""Features worked on together."""

MANY = 3000
"""Features from which pooled means and spreads are learned; of more, so many evenly spaced ones.
Neighbouring voxels say the same of how voxels differ."""

_FOLLOWING = 6, 4
"""Newton steps of the other features, whose prior is known from the first: z differ by .015 (root
mean square) from those after 12 and 8 steps (3,000 simulated features of 200 people, the prior
from 500 of them)."""

_BLOCK = 2048


def fit_effects(x: Tensor, groups: Sequence[str], y: Tensor, measured: Tensor | None) -> Effects:
    """The posterior of effects given features ``y``, about standardised.

    With more than ``MANY`` features, pooled means and spreads are learned from some of them.

    Alternates, as variational expectation maximisation: (1) for every feature a Newton step on

    E_q[log p(y_j | theta_j)] + E_q[log N(theta_j; m, t^2)] + entropy of q = N(mean, covariance),

    covariance^-1 <- E_q[-d^2 log p(y_j, theta_j)], mean <- mean + covariance E_q[d log p], first
    with E_q taken at the mean (Laplace's method), then over antithetic draws (stochastic natural
    gradients); (2) in closed form the pooled means m, then the spreads. A step that would lower
    the feature's log joint density is shortened. Deterministic: the draws are seeded.

    Parameters
    ----------
    x : Tensor, shape (n_subjects, n_columns)
    y : Tensor, shape (n_subjects, n_features)
        What was not measured may hold anything finite.
    measured : bool Tensor like y, or None
        None: everything.

    References
    ----------
    Khan et al. (2018), ICML, arXiv 1806.04854 (variational Newton steps); Efron and Morris (1973),
    doi 10.1080/01621459.1973.10481350 (empirical Bayes).

    Examples
    --------
    >>> x = torch.ones(50, 1, dtype=torch.float64)
    >>> y = 3 + torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> fit_effects(x, ["intercept"], y, None).mean[:, 0].round(decimals=1)
    tensor([2.7000, 3.1000], dtype=torch.float64)
    """
    n_features = y.shape[1]
    some = torch.linspace(0, n_features - 1, min(n_features, MANY)).round().long()
    state = _State.start(x, groups, *_cells(y, measured, some))
    state.climb(LAPLACE_STEPS, VARIATIONAL_STEPS, learn=True)
    doubt = state.doubt()
    if n_features <= MANY:
        return state.effects(doubt)
    return Effects.joined([state.follow(*_cells(y, measured, rows)).effects(doubt)
                           for rows in torch.arange(n_features).split(_BLOCK)])


def _cells(y: Tensor, measured: Tensor | None, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    if len(rows) == y.shape[1]:
        return y, measured
    return y[:, rows], None if measured is None else measured[:, rows]


@dataclass
class _State:
    """Everything that changes while fitting; features are rows of ``mean``."""

    x: Tensor
    groups: tuple[str, ...]
    y: Tensor
    measured: Tensor | None
    pairs: Tensor
    mean: Tensor
    precision: Tensor
    variance: Tensor
    pooled: Tensor
    pooled_sd: Tensor
    spread: Tensor
    pooled_spread: Tensor

    @classmethod
    def start(cls, x: Tensor, groups: Sequence[str], y: Tensor, measured: Tensor | None) -> _State:
        n_effects = 2 * x.shape[1] + 2
        upper = torch.triu_indices(x.shape[1], x.shape[1])
        first = y.new_tensor([_FIRST_SPREAD[name.rsplit(", ")[-1]]
                              for name in effect_groups(groups)])
        zeros = y.new_zeros(y.shape[1], n_effects)
        return cls(x, tuple(groups), y, measured, x[:, upper[0]] * x[:, upper[1]], zeros,
                   torch.diag_embed(1 / first ** 2).repeat(y.shape[1], 1, 1), zeros + first ** 2,
                   zeros[0].clone(), first.clone(), first.clone(), first.clone())

    def climb(self, laplace: int, variational: int, *, learn: bool) -> None:
        """So many steps of either sort for all features, and for spreads to be learned."""
        generator = torch.Generator().manual_seed(0)
        for step in range(laplace + variational):
            for rows in torch.arange(self.y.shape[1]).split(_CHUNK):
                if step < laplace:
                    self.laplace_step(rows)
                else:
                    self.variational_step(rows, generator)
            if learn:
                self.update_spreads()

    def follow(self, y: Tensor, measured: Tensor | None) -> _State:
        """Other features under the prior learned here."""
        new = _State.start(self.x, self.groups, y, measured)
        new.mean = self.pooled.repeat(y.shape[1], 1)
        new.pooled, new.pooled_sd = self.pooled, self.pooled_sd
        new.spread, new.pooled_spread = self.spread, self.pooled_spread
        new.climb(*_FOLLOWING, learn=False)
        return new

    def laplace_step(self, rows: Tensor) -> None:
        """A Newton step at the mean, shortened until the log joint density does not fall."""
        now = self.mean[rows]
        gradient, precision, before = self._derivatives(now, rows)
        factor, failed = torch.linalg.cholesky_ex(precision)
        if failed.any():
            # far from the mode the density need not be log-concave: Newton would climb down there
            values, vectors = torch.linalg.eigh(precision[failed > 0])
            precision[failed > 0] = (vectors * values.abs().clamp_min(1e-2)[:, None]) @ vectors.mT
            factor[failed > 0] = torch.linalg.cholesky(precision[failed > 0])
        inverse = torch.cholesky_inverse(factor)
        step = (inverse @ gradient[..., None])[..., 0]
        length = torch.ones(len(rows), 1, dtype=now.dtype)
        for _ in range(12):
            worse = ~(self._log_joint(now + length * step, rows) >= before - 1e-9 * before.abs())
            if not worse.any():
                break
            length[worse] *= 0.4
        length[worse] = 0.0
        self.mean[rows] = now + length * step
        self.precision[rows] = precision
        self.variance[rows] = inverse.diagonal(dim1=-2, dim2=-1)

    def variational_step(self, rows: Tensor, generator: torch.Generator) -> None:
        """A natural-gradient step by two antithetic draws."""
        now, old = self.mean[rows], self.precision[rows]
        factor = torch.linalg.cholesky(old)
        noise = torch.randn(len(rows), now.shape[1], 1, generator=generator, dtype=now.dtype)
        away = torch.linalg.solve_triangular(factor.mT, noise, upper=True)[..., 0]
        above, below = (self._derivatives(now + sign * away, rows)[:2] for sign in (1.0, -1.0))
        precision = (1 - RATE) * old + RATE * 0.5 * (above[1] + below[1])
        gradient = 0.5 * (above[0] + below[0])
        usable = torch.isfinite(gradient).all(1) & torch.isfinite(precision).flatten(1).all(1)
        usable &= torch.linalg.cholesky_ex(torch.where(usable[:, None, None], precision, old)
                                           ).info == 0
        precision = torch.where(usable[:, None, None], precision, old)
        gradient = torch.where(usable[:, None], gradient, 0.0)
        factor = torch.linalg.cholesky(precision)
        step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        length = (gradient * step).sum(1, keepdim=True).clamp_min(1e-12).sqrt()  # in posterior sd
        self.mean[rows] = now + RATE * step * (_LONGEST / length).clamp_max(1.0)
        self.precision[rows] = precision
        self.variance[rows] = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)

    def _log_joint(self, theta: Tensor, rows: Tensor) -> Tensor:
        log_p = law_of(self.x, theta).log_prob(self.y[:, rows])
        if self.measured is not None:
            log_p = torch.where(self.measured[:, rows], log_p, 0.0)
        return log_p.sum(0) - 0.5 * ((theta - self.pooled) / self.spread).square().sum(1)

    def _derivatives(self, theta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient and minus Hessian of each feature's log joint density, and its value."""
        found = second_order(law_of(self.x, theta), self.y[:, rows])
        parts = {(k,): g for k, g in enumerate(found.gradient)} | found.hessian
        if self.measured is not None:
            parts = {k: torch.where(self.measured[:, rows], v, 0.0) for k, v in parts.items()}
        gradient = torch.cat([parts[0,].T @ self.x, parts[1,].T @ self.x,
                              parts[2,].sum(0)[:, None], parts[3,].sum(0)[:, None]], 1)
        hessian = self._assembled(parts, len(rows))
        precision = torch.diag_embed((1 / self.spread ** 2).expand(len(rows), -1)) - hessian
        pull = (theta - self.pooled) / self.spread ** 2
        log_p = found.log_prob if self.measured is None else \
            torch.where(self.measured[:, rows], found.log_prob, 0.0)
        value = log_p.sum(0) - 0.5 * (pull * (theta - self.pooled)).sum(1)
        return gradient - pull, precision, value

    def _assembled(self, parts: dict, n_rows: int) -> Tensor:
        """Hessian by effects, (n_rows, n_effects, n_effects), from that by the four parameters."""
        n = self.x.shape[1]
        whole = self.x.new_zeros(n_rows, 2 * n + 2, 2 * n + 2)
        loc, scale = slice(0, n), slice(n, 2 * n)
        whole[:, loc, loc] = self._gram(parts[0, 0])
        whole[:, loc, scale] = self._gram(parts[0, 1])
        whole[:, scale, loc] = whole[:, loc, scale]  # each block is symmetric
        whole[:, scale, scale] = self._gram(parts[1, 1])
        for k, place in ((2, -2), (3, -1)):
            for m, at in ((0, loc), (1, scale)):
                whole[:, at, place] = whole[:, place, at] = parts[m, k].T @ self.x
        whole[:, -2, -2], whole[:, -1, -1] = parts[2, 2].sum(0), parts[3, 3].sum(0)
        whole[:, -1, -2] = whole[:, -2, -1] = parts[2, 3].sum(0)
        return whole

    def _gram(self, weight: Tensor) -> Tensor:
        """X' diag(w_j) X of every feature, by products of columns made once."""
        n = self.x.shape[1]
        upper = torch.triu_indices(n, n)
        found = weight.new_empty(weight.shape[1], n, n)
        found[:, upper[0], upper[1]] = found[:, upper[1], upper[0]] = weight.T @ self.pairs
        return found

    def update_spreads(self) -> None:
        """Pooled means given the features' effects, then the spreads of every group."""
        n_features = len(self.mean)
        variance = 1 / (n_features / self.spread ** 2 + 1 / self.pooled_spread ** 2)
        self.pooled = variance * self.mean.sum(0) / self.spread ** 2
        self.pooled_sd = variance.sqrt()
        own = ((self.mean - self.pooled) ** 2 + self.variance).mean(0) + variance
        names = effect_groups(self.groups)
        for name in set(names):
            at = [k for k, other in enumerate(names) if other == name]
            first = _FIRST_SPREAD[name.rsplit(", ")[-1]] ** 2
            for spread, found, count in (
                    (self.spread, own, n_features * len(at)),
                    (self.pooled_spread, self.pooled ** 2 + variance, len(at))):
                total = found[at].mean() * count + _PRIOR_COUNT * first
                spread[at] = (total / (count + _PRIOR_COUNT)).sqrt()

    def doubt(self) -> Tensor:
        """Covariance of the pooled means, which all features of a person share.

        Features of one brain are no independent witnesses of a mean m: their information about
        it, t^-2 - t^-2 covariance_j t^-2 each, counts for as many as are independent. What is not
        known of m widens every feature.
        """
        pull = torch.cholesky_inverse(torch.linalg.cholesky(self.precision)) / self.spread ** 2
        told = torch.eye(len(self.spread), dtype=pull.dtype) \
            - pull.mean(0) * self.spread / self.spread[:, None]  # in units of the spreads
        values, vectors = torch.linalg.eigh(told)
        told = (vectors * values.clamp_min(0.0)) @ vectors.mT  # draws may say less than nothing
        return torch.linalg.inv(torch.diag(1 / self.pooled_spread ** 2)
                                + self._independent_features() * told
                                / torch.outer(self.spread, self.spread))

    def effects(self, doubt: Tensor) -> Effects:
        """Widened by V, what is not known of the pooled means: covariance_j + K_j V K_j',
        K_j = covariance_j t^-2."""
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(self.precision))
        pull = covariance / self.spread ** 2
        covariance = covariance + pull @ doubt @ pull.mT
        # contiguous, as it will be when read from a file: other strides round differently
        return Effects(self.groups, self.mean, (0.5 * (covariance + covariance.mT)).contiguous(),
                       torch.stack([self.pooled, doubt.diagonal().sqrt()]),
                       torch.stack([self.spread, self.pooled_spread]))

    def _independent_features(self) -> float:
        """Participation ratio p^2 / sum of squared correlations of what covariates leave."""
        u = law_of(self.x, self.mean).to_normal(self.y).clamp(-3, 3)
        if self.measured is not None:
            u = torch.where(self.measured, u, 0.0)
        n, p = u.shape
        u = (u - u.mean(0)) / u.std(0).clamp_min(1e-6)
        squares = (u @ u.T / n).square().sum().item()
        return p * p / max(squares - p * (p - 1) / max(n - 1, 1), p)

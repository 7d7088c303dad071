"""Effects of covariates on many features at once, partially pooled across features and sites."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from .sinh_arcsinh import SinhArcsinh

SKEW, TAIL = "skew", "tail"


@dataclass(frozen=True, eq=False)
class Effects:
    """What is believed of the effects on the features of one modality: a Pyro model and its guide.

    Of feature j, with design row x_i, effects theta_j = (b_j, g_j, skew_j, tail_j):

    y_ij ~ SinhArcsinh(x_i' b_j, exp(x_i' g_j), skew_j, exp(tail_j))
    theta_jc ~ N(m_c, t_k^2)   features share the mean m_c of a column's effect
    m_c ~ N(0, v_k^2)          columns of group k (all sites; a spline's columns; …) share spreads

    The guide is q(theta_j) = N(mean_j, covariance_j) for every feature, and q(m_c) normal. The
    spreads t_k and v_k are learned (empirical Bayes): that is the partial pooling. A site with few
    people has offsets near what all features of that site, and all sites, say of it.

    Attributes
    ----------
    groups : tuple of str
        Of each design column, shape (n_columns,).
    mean : Tensor, shape (n_features, 2 n_columns + 2)
    covariance : Tensor, shape (n_features, 2 n_columns + 2, 2 n_columns + 2)
    pooled : Tensor, shape (2, 2 n_columns + 2)
        Mean and sd of m_c.
    spread : Tensor, shape (2, 2 n_columns + 2)
        t and v of each effect's group.

    Examples
    --------
    >>> from normfuse.regression import fit_effects
    >>> x, y = torch.ones(50, 1, dtype=torch.float64), torch.linspace(-2, 2, 50).double()[:, None]
    >>> effects = fit_effects(x, ["intercept"], y, None)
    >>> effects.mean.shape, effects.covariance.shape
    (torch.Size([1, 4]), torch.Size([1, 4, 4]))
    """

    groups: tuple[str, ...]
    mean: Tensor
    covariance: Tensor
    pooled: Tensor
    spread: Tensor

    @property
    def n_columns(self) -> int:
        """Design columns."""
        return len(self.groups)

    def model(self, x: Tensor, y: Tensor, measured: Tensor | bool = True) -> None:
        """The generative model, as a Pyro program; ``y`` of shape (n_subjects, n_features)."""
        pooled = pyro.sample("pooled", dist.Normal(0.0, self.spread[1]).to_event(1))
        with pyro.plate("features", y.shape[1], dim=-1):
            theta = pyro.sample("effects", dist.Normal(pooled, self.spread[0]).to_event(1))
            with pyro.plate("subjects", len(y), dim=-2):
                pyro.sample("y", law_of(x, theta.reshape(y.shape[1], -1)).mask(measured), obs=y)

    def guide(self, x: Tensor, y: Tensor, measured: Tensor | bool = True) -> None:
        """The posterior of the effects, as a Pyro program."""
        pyro.sample("pooled", dist.Normal(*self.pooled).to_event(1))
        with pyro.plate("features", y.shape[1], dim=-1):
            pyro.sample("effects", dist.MultivariateNormal(self.mean, self.covariance))

    @classmethod
    def joined(cls, parts: Sequence[Effects]) -> Effects:
        """The features of all parts, which share what is pooled."""
        first = parts[0]
        return cls(first.groups, torch.cat([p.mean for p in parts]),
                   torch.cat([p.covariance for p in parts]), first.pooled, first.spread)

    def law(self, x: Tensor, at: Tensor | slice = slice(None)) -> SinhArcsinh:
        """The law of these features at these design rows, at the effects' posterior mean."""
        return law_of(x, self.mean[at])

    def with_column(self, at: int, mean: Tensor, covariance: Tensor) -> Effects:
        """One more design column at this place, its effects independent of the others.

        Parameters
        ----------
        mean : Tensor, shape (n_features, 2)
            Of the effect on location and on log scale.
        covariance : Tensor, shape (n_features, 2, 2)
        """
        n, size = self.n_columns, self.mean.shape[1]
        new = torch.tensor([at, n + 1 + at])
        old = torch.tensor([k for k in range(size + 2) if k not in new.tolist()])
        group = self.groups[at - 1]
        source = torch.tensor([at - 1, n + at - 1])  # spreads: of the column before, same group

        def grown(block: Tensor, added: Tensor) -> Tensor:
            wide = block.new_zeros(*block.shape[:-1], size + 2)
            wide[..., old] = block
            wide[..., new] = added
            return wide

        wide = self.mean.new_zeros(len(self.mean), size + 2, size + 2)
        wide[:, old[:, None], old] = self.covariance
        wide[:, new[:, None], new] = covariance
        return Effects((*self.groups[:at], group, *self.groups[at:]), grown(self.mean, mean), wide,
                       grown(self.pooled, self.pooled[:, source]),
                       grown(self.spread, self.spread[:, source]))


def law_of(x: Tensor, theta: Tensor) -> SinhArcsinh:
    """SinhArcsinh of (n_subjects, n_features) for effects (n_features, 2 n_columns + 2)."""
    n = x.shape[-1]
    return SinhArcsinh(x @ theta[:, :n].T, x @ theta[:, n:2 * n].T, theta[:, -2], theta[:, -1],
                       validate_args=False)


def effect_groups(groups: Sequence[str]) -> list[str]:
    """The group of every effect: location and scale effects of a column are of different ones."""
    return [*(f"{g}, location" for g in groups), *(f"{g}, scale" for g in groups), SKEW, TAIL]

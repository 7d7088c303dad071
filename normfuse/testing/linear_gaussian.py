"""Linear-Gaussian models of several modalities: every quantity a VAE approximates, exactly."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

_LOG_2PI = 1.8378770664093453


@dataclass(frozen=True, eq=False)
class NaturalGaussian:
    """A factor ``exp(linear . z - z' precision z / 2)``, Gaussian in z up to a constant.

    Attributes
    ----------
    precision : Tensor, shape (n_latent, n_latent)
        The same for every subject; singular if the modality leaves directions of z unsaid.
    linear : Tensor, shape (n_subjects, n_latent)
    """

    precision: Tensor
    linear: Tensor

    def normal(self) -> MultivariateNormal:
        """N(precision^-1 linear, precision^-1), batch shape (n_subjects,).

        Raises
        ------
        ValueError
            If the precision is singular: the factor is no distribution.
        """
        d = len(self.precision)
        rank = int(torch.linalg.matrix_rank(self.precision, hermitian=True))
        if rank < d:
            raise ValueError(f"the factor's precision has rank {rank} in {d} latent dimensions; "
                             "it is a Gaussian only together with a prior: use `unimodal`")
        return _normal(self.precision, self.linear)


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """z ~ N(0, I),  x_m | z ~ N(W_m z + c_m, diag s_m^2), for any subset S of the modalities.

    P_S = I + sum_{m in S} W_m' diag(s_m)^-2 W_m,  h = sum_{m in S} W_m' diag(s_m)^-2 (x_m - c_m)

    p(z | x_S) = N(P_S^-1 h, P_S^-1)

    -2 log p(x_S) = sum_{m in S, j} ((x_mj - c_mj)^2 / s_mj^2 + log 2 pi s_mj^2)
    - h' P_S^-1 h + log |P_S|

    Attributes
    ----------
    loadings : tuple of Tensor, shape (n_features_m, n_latent)
        W_m. float64, like everything here.
    offsets : tuple of Tensor, shape (n_features_m,)
        c_m.
    sds : tuple of Tensor, shape (n_features_m,)
        s_m, standard deviations of the noise.

    Notes
    -----
    ``xs`` is a tuple of (n_subjects, n_features_m) and ``present`` a bool Tensor of shape
    (n_modalities, n_subjects); an absent block may hold anything, NaN included.

    References
    ----------
    Tipping and Bishop (1999), J. R. Stat. Soc. B 61(3), doi 10.1111/1467-9868.00196; here the
    noise variance differs between features and the features come in blocks.

    Examples
    --------
    The posterior from two modalities is prior times likelihood factors, not the product of the
    two unimodal posteriors, which counts the prior twice:

    >>> truth = LinearGaussian.random((4, 5, 6), 2, seed=0)
    >>> xs = truth.sample(3, seed=1)
    >>> present = torch.tensor([[True], [False], [True]]).expand(3, 3)
    >>> q = truth.posterior(xs, present)
    >>> t1, pet = truth.expert(0, xs[0]), truth.expert(2, xs[2])
    >>> torch.allclose(q.precision_matrix, torch.eye(2) + t1.precision + pet.precision)
    True
    >>> twice = sum(truth.unimodal(m, xs[m]).precision_matrix for m in (0, 2))
    >>> torch.allclose(twice - q.precision_matrix, torch.eye(2, dtype=torch.float64))
    True
    >>> truth.log_prob(xs, present).shape, [tuple(x.shape) for x in truth.expected(xs, present)]
    (torch.Size([3]), [(3, 4), (3, 5), (3, 6)])
    """

    loadings: tuple[Tensor, ...]
    offsets: tuple[Tensor, ...]
    sds: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        for field in ("loadings", "offsets", "sds"):
            object.__setattr__(self, field, tuple(t.double() for t in getattr(self, field)))
        sizes = [len(w) for w in self.loadings]
        for name, tensors in (("offsets", self.offsets), ("sds", self.sds)):
            if [tuple(t.shape) for t in tensors] != [(p,) for p in sizes]:
                raise ValueError(f"{name} have shapes {[tuple(t.shape) for t in tensors]}; the "
                                 f"loadings have {sizes} features")
        if not all(bool((s > 0).all()) for s in self.sds):
            raise ValueError("sds must be positive: log p(x) has no value without noise")

    @classmethod
    def random(cls, n_features: Sequence[int], n_latent: int, seed: int = 0) -> LinearGaussian:
        """Loadings that give each feature about two thirds of its variance, distinct sds."""
        g = torch.Generator().manual_seed(seed)
        return cls(tuple(_randn(g, p, n_latent) / n_latent ** 0.5 for p in n_features),
                   tuple(_randn(g, p) / 2 for p in n_features),
                   tuple(_uniform(g, 0.4, 0.9, p) for p in n_features))

    @property
    def n_latent(self) -> int:
        return self.loadings[0].shape[1]

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Draws of (x_1, ..., x_M), each of shape (n, n_features_m), nothing missing."""
        g = torch.Generator().manual_seed(seed)
        z = _randn(g, n, self.n_latent)
        return tuple(z @ w.T + c + s * _randn(g, n, len(s))
                     for w, c, s in zip(self.loadings, self.offsets, self.sds))

    def log_prob(self, xs: Sequence[Tensor], present: Tensor) -> Tensor:
        """log p(x_S) of each subject, shape (n_subjects,); 0 if nothing is present."""
        precision, linear = self._natural(xs, present)
        q = _normal(precision, linear)
        scaled = [(r / s).square().sum(-1)
                  for r, s in zip(self._residuals(xs, present), self.sds)]
        constants = torch.stack([len(s) * _LOG_2PI + 2 * s.log().sum() for s in self.sds])
        return -0.5 * (torch.stack(scaled).sum(0) + constants @ present.double()
                       - (linear * q.mean).sum(-1) + torch.linalg.slogdet(precision)[1])

    def posterior(self, xs: Sequence[Tensor], present: Tensor) -> MultivariateNormal:
        """p(z | x_S), batch shape (n_subjects,); the prior if nothing is present."""
        return _normal(*self._natural(xs, present))

    def expected(self, xs: Sequence[Tensor], present: Tensor) -> tuple[Tensor, ...]:
        """W_m E[z | x_S] + c_m, shape (n_subjects, n_features_m): E[x_m | x_S] for absent m."""
        z = self.posterior(xs, present).mean
        return tuple(z @ w.T + c for w, c in zip(self.loadings, self.offsets))

    def expert(self, m: int, x_m: Tensor) -> NaturalGaussian:
        """p(x_m | z) as a function of z: what a product of experts with a prior multiplies."""
        scaled = self.loadings[m] / self.sds[m].square()[:, None]
        return NaturalGaussian(scaled.T @ self.loadings[m],
                               (x_m.double() - self.offsets[m]) @ scaled)

    def unimodal(self, m: int, x_m: Tensor) -> MultivariateNormal:
        """p(z | x_m), prior included: what an ideal encoder of modality m returns."""
        factor = self.expert(m, x_m)
        return _normal(torch.eye(self.n_latent).double() + factor.precision, factor.linear)

    def _residuals(self, xs: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        """x_m - c_m with zeros where a modality is absent."""
        n_subjects = len(xs[0])
        if present.shape != (len(self.sds), n_subjects) or len(xs) != len(self.sds):
            raise ValueError(f"present has shape {tuple(present.shape)} beside {len(xs)} blocks of"
                             f" {n_subjects} subjects; expected ({len(self.sds)}, {n_subjects})")
        residuals = [torch.where(here[:, None], x.double() - c, 0.0)
                     for x, c, here in zip(xs, self.offsets, present)]
        for m, r in enumerate(residuals):
            if bool(r.isnan().any()):
                raise ValueError(f"modality {m} is present but holds NaN for "
                                 f"{int(r.isnan().any(-1).sum())} subjects; a modality is present "
                                 "as a whole or absent")
        return residuals

    def _natural(self, xs: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """P_S and h, shapes (n_subjects, n_latent, n_latent) and (n_subjects, n_latent)."""
        factors = [self.expert(m, r + c)
                   for m, (r, c) in enumerate(zip(self._residuals(xs, present), self.offsets))]
        precisions = torch.stack([f.precision for f in factors])
        precision = torch.einsum("mn,mkl->nkl", present.double(), precisions)
        return (torch.eye(self.n_latent).double() + precision,
                torch.stack([f.linear for f in factors]).sum(0))


def _normal(precision: Tensor, linear: Tensor) -> MultivariateNormal:
    loc = torch.linalg.solve(precision, linear[..., None])[..., 0]
    return MultivariateNormal(loc, precision_matrix=precision)


def _randn(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def _uniform(g: torch.Generator, low: float, high: float, size: int) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=g, dtype=torch.float64)

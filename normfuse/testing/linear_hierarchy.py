"""A linear-Gaussian model with two levels of latents, solved exactly."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from .linear_gaussian import LinearGaussian


@dataclass(frozen=True, eq=False)
class LinearHierarchy:
    """Two levels: what a hierarchical VAE approximates, exactly.

    z1 ~ N(0, I),  z2 | z1 ~ N(B z1 + b, diag q^2),
    x_m | z1, z2 ~ N(W_m z2 + V_m z1 + c_m, diag s_m^2)

    With z2 = B z1 + b + diag(q) e and u = (z1, e) ~ N(0, I) this is a
    :class:`~normfuse.testing.linear_gaussian.LinearGaussian` in u, :meth:`flat`, whose loadings
    are (W_m B + V_m, W_m diag q) and whose offsets are W_m b + c_m.

    Attributes
    ----------
    link : Tensor, shape (n_lower, n_top)
        B. float64, like everything here.
    link_offset : Tensor, shape (n_lower,)
        b.
    link_sd : Tensor, shape (n_lower,)
        q, standard deviations of z2 given z1.
    loadings : tuple of Tensor, shape (n_features_m, n_lower)
        W_m.
    top_loadings : tuple of Tensor, shape (n_features_m, n_top)
        V_m, past the lower level.
    offsets : tuple of Tensor, shape (n_features_m,)
        c_m.
    sds : tuple of Tensor, shape (n_features_m,)
        s_m.

    References
    ----------
    The generative model of a two-level ladder, Sonderby et al. (2016), arXiv 1602.02282, with
    linear maps; there x depends on the lowest level only (V_m = 0).

    Examples
    --------
    Below the top, "conditional prior times likelihood experts" is the exact conditional. Its
    precision is the z2 block of the joint precision:

    >>> truth = LinearHierarchy.random((4, 5, 6), (2, 3), seed=0)
    >>> present = torch.tensor([[True], [False], [True]]).expand(3, 7)
    >>> q = truth.posterior(truth.sample(7, seed=1), present)
    >>> q.event_shape
    torch.Size([5])
    >>> product = torch.diag(truth.link_sd ** -2) + sum(
    ...     truth.loadings[m].T @ (truth.loadings[m] / truth.sds[m][:, None] ** 2) for m in (0, 2))
    >>> torch.allclose(q.precision_matrix[0, 2:, 2:], product)
    True
    """

    link: Tensor
    link_offset: Tensor
    link_sd: Tensor
    loadings: tuple[Tensor, ...]
    top_loadings: tuple[Tensor, ...]
    offsets: tuple[Tensor, ...]
    sds: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        for field in ("link", "link_offset", "link_sd"):
            object.__setattr__(self, field, getattr(self, field).double())
        for field in ("loadings", "top_loadings", "offsets", "sds"):
            object.__setattr__(self, field, tuple(t.double() for t in getattr(self, field)))
        lower, top = self.link.shape
        for name, size in (("link_offset", len(self.link_offset)), ("link_sd", len(self.link_sd)),
                           *(("loadings", w.shape[1]) for w in self.loadings)):
            if size != lower:
                raise ValueError(f"{name} fit a lower level of {size} dimensions; link has "
                                 f"shape ({lower}, {top}), n_lower first")
        if not bool((self.link_sd > 0).all()):
            raise ValueError("link_sd must be positive: p(z2 | z1) is a density")

    @classmethod
    def random(cls, n_features: Sequence[int], n_latent: tuple[int, int], seed: int = 0
               ) -> LinearHierarchy:
        """Random maps; ``n_latent`` is (n_top, n_lower), the dimensions of z1 and z2."""
        g = torch.Generator().manual_seed(seed)
        top, lower = n_latent
        direct = LinearGaussian.random(n_features, lower, seed + 1)
        skip = LinearGaussian.random(n_features, top, seed + 2)
        return cls(torch.randn(lower, top, generator=g).double() / top ** 0.5,
                   torch.randn(lower, generator=g).double() / 2,
                   0.4 + 0.5 * torch.rand(lower, generator=g).double(),
                   direct.loadings, tuple(v / 2 for v in skip.loadings),
                   direct.offsets, direct.sds)

    def flat(self) -> LinearGaussian:
        """The same distribution of x with the independent latents u = (z1, e)."""
        return LinearGaussian(
            tuple(torch.cat([w @ self.link + v, w * self.link_sd], 1)
                  for w, v in zip(self.loadings, self.top_loadings)),
            tuple(w @ self.link_offset + c for w, c in zip(self.loadings, self.offsets)), self.sds)

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Draws of (x_1, ..., x_M), each of shape (n, n_features_m), nothing missing."""
        return self.flat().sample(n, seed)

    def log_prob(self, xs: Sequence[Tensor], present: Tensor) -> Tensor:
        """log p(x_S) of each subject, shape (n_subjects,); 0 if nothing is present."""
        return self.flat().log_prob(xs, present)

    def expected(self, xs: Sequence[Tensor], present: Tensor) -> tuple[Tensor, ...]:
        """E[W_m z2 + V_m z1 + c_m | x_S], shape (n_subjects, n_features_m) each."""
        return self.flat().expected(xs, present)

    def prior(self) -> MultivariateNormal:
        """p(z1, z2) jointly, z1 first; event shape (n_top + n_lower,)."""
        loc, tril = self._from_flat()
        return MultivariateNormal(loc, scale_tril=tril)

    def posterior(self, xs: Sequence[Tensor], present: Tensor) -> MultivariateNormal:
        """p(z1, z2 | x_S) jointly, z1 first; batch shape (n_subjects,)."""
        loc, tril = self._from_flat()
        u = self.flat().posterior(xs, present)
        # A product of lower triangles with positive diagonals is the Cholesky factor itself.
        return MultivariateNormal(loc + u.mean @ tril.T, scale_tril=tril @ u.scale_tril)

    def _from_flat(self) -> tuple[Tensor, Tensor]:
        """(z1, z2) = loc + tril u."""
        lower, top = self.link.shape
        upper_rows = torch.eye(top, top + lower).double()
        loc = torch.cat([self.link_offset.new_zeros(top), self.link_offset])
        return loc, torch.cat([upper_rows, torch.cat([self.link, self.link_sd.diag()], 1)])

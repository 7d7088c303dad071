"""Products of experts: barycenters under the reverse Kullback-Leibler divergence."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from .aggregator import CoordinateBarycenter
from .experts import full, is_full, moments
from .missing import Drop
from .weights import Learned, Uniform, Weights, weighted


class ProductOfExperts(CoordinateBarycenter):
    """Multiplies the experts' densities; every modality adds its precision.

    T_m = 1 / sigma_m^2,  P = [1 +] sum_m T_m,  mu = sum_m T_m mu_m / P,  sigma = P^(-1/2);
    with full covariances, T_m = C_m^-1.

    It is ``argmin_q sum_m KL(q || q_m) + (M - 1) H(q)``: the reverse-KL barycenter has weights
    that sum to 1 (:class:`GeneralizedProductOfExperts`), the product has weights 1 and is sharper
    by sqrt(M). One over-confident expert decides alone.

    Parameters
    ----------
    prior_expert : bool
        Add the prior as one more expert (the ``1 +`` above). Then q_m plays the likelihood's part,
        q_m ~ p(x_m | z), and the product is the exact posterior of a linear Gaussian model.

    Notes
    -----
    How often is the prior counted? With conditionally independent modalities the exact posterior
    is p(z | x) = prod_m p(z | x_m) / p(z)^(M-1). A product of genuine posteriors p(z | x_m)
    without that division counts the prior M times, and M + 1 times with the prior expert. So: if
    every q_m is trained to be a posterior by itself, leave the prior expert out and know that the
    result is too sharp; if the q_m are trained only through their product, as here, they become
    likelihood factors, and with the prior expert the prior is counted once.

    The level prior of modality-specific priors is their normalised product: mean precision.

    References
    ----------
    Wu and Goodman (2018), NeurIPS, arXiv 1802.05335; Hinton (2002), doi
    10.1162/089976602760128018.

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[0.5]]]))
    >>> q = ProductOfExperts()(experts, torch.tensor([[True], [True]]))
    >>> round(q.mean.item(), 4), round(q.variance.item(), 4)   # (4*2)/(1+1+4), 1/(1+1+4)
    (1.3333, 0.1667)
    """

    normalised = False

    def __init__(self, *, prior_expert: bool = True) -> None:
        super().__init__(Uniform(), Drop())
        self.prior_expert = prior_expert

    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        precision = scale.square().reciprocal()  # pow(-2) has a slow backward pass
        return precision * loc, precision

    def at(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return first / second, second.rsqrt()

    def prior(self, priors: Distribution) -> Distribution:
        if not is_full(priors):
            return super().prior(priors)
        pulls, precisions = _natural(*moments(priors))
        return full(*_from_natural(pulls.mean(0), precisions.mean(0)), check=False)

    def full(self, experts: Distribution, present: Tensor, prior: Distribution | None
             ) -> tuple[Tensor, Tensor]:
        loc, scale, keep = weighted(experts, present, self.weights)
        pulls, precisions = _natural(loc, scale)
        pull, total = (keep * pulls).sum(0), (keep[..., None] * precisions).sum(0)
        times = torch.ones_like(pull) if self.prior_expert else \
            (~present.any(0)).to(loc.dtype)[:, None]
        origin, extent = (torch.zeros_like(loc[0]), torch.eye(loc.shape[-1]).to(loc)) \
            if prior is None else moments(prior)
        pulled, belief = _natural(origin, extent)
        return _from_natural(pull + times * pulled, total + times[..., None] * belief)


def _natural(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """C^-1 mu and C^-1 from mu and the Cholesky factor of C."""
    precision = torch.cholesky_inverse(scale)
    return (precision @ loc[..., None])[..., 0], precision


def _from_natural(pull: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """mu and the Cholesky factor of C from C^-1 mu and C^-1."""
    factor = torch.linalg.cholesky(precision)
    return torch.cholesky_solve(pull[..., None], factor)[..., 0], lower_of_inverse(precision)


def lower_of_inverse(precision: Tensor) -> Tensor:
    """Lower Cholesky factor of P^-1, without inverting twice."""
    flipped = torch.linalg.cholesky(precision.flip((-2, -1)))
    upper = flipped.flip((-2, -1))  # P = upper upper'
    unit = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return torch.linalg.solve_triangular(upper, unit, upper=True).mT


class GeneralizedProductOfExperts(CoordinateBarycenter):
    """The reverse-KL barycenter, ``argmin_q sum_m w_m KL(q || q_m)``; its weights sum to 1.

    P_k = sum_m w_mk / sigma_mk^2,  mu_k = sum_m w_mk mu_mk / sigma_mk^2 / P_k,
    sigma_k = P_k^(-1/2), the weights renormalised over the modalities that are present.

    Weights that sum to 1 make it idempotent: equal experts give themselves back.

    Parameters
    ----------
    weights : Weights
        By default learned per modality and latent dimension, w_mk = softmax_m(a_mk).

    Notes
    -----
    Absent modalities are always dropped: with the prior substituted, the shift from the prior
    would not be the sum of the modalities' parts, since precisions weigh the means.

    References
    ----------
    Lawry Aguila et al. (2023), MICCAI, doi 10.1007/978-3-031-43907-0_41; Cao and Fleet (2014),
    arXiv 1410.7827. We renormalise over the present modalities.

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> experts = gaussian(torch.full((2, 1, 3), 0.7), torch.full((2, 1, 3), 0.4))
    >>> q = GeneralizedProductOfExperts().sized(2, 3)(experts, torch.tensor([[True], [True]]))
    >>> q.stddev.detach()
    tensor([[0.4000, 0.4000, 0.4000]])
    """

    def __init__(self, *, weights: Weights = Learned(per_dimension=True)) -> None:
        super().__init__(weights, Drop())

    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        precision = scale.square().reciprocal()
        return precision * loc, precision

    def at(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return first / second, second.rsqrt()

"""Products of experts: barycenters under the reverse Kullback-Leibler divergence."""
from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from .aggregator import CoordinateBarycenter


class ProductOfExperts(CoordinateBarycenter):
    """Multiplies the experts' densities; every modality adds its precision.

    T_m = 1 / sigma_m^2,  P = [1 +] sum_m T_m,  mu = sum_m T_m mu_m / P,  sigma = P^(-1/2).

    It is ``argmin_q sum_m KL(q || q_m) + (M - 1) H(q)``: the reverse-KL barycenter has weights
    that sum to 1 (:class:`GeneralizedProductOfExperts`), the product has weights 1 and is sharper
    by sqrt(M). One over-confident expert decides alone.

    Parameters
    ----------
    prior_expert : bool
        Add the prior N(0, I) as one more expert (the ``1 +`` above). Then q_m plays the
        likelihood's part, q_m ~ p(x_m | z), and the product is the exact posterior of a linear
        Gaussian model. Without it, genuine posteriors are multiplied and the prior is counted once
        per modality instead of once.

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

    def __init__(self, *, prior_expert: bool = True) -> None:
        super().__init__()
        self.prior_expert = prior_expert

    def options(self) -> dict[str, bool]:
        return {"prior_expert": self.prior_expert}

    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        precision = scale.square().reciprocal()  # pow(-2) has a slow backward pass
        return precision * loc, precision

    def from_sums(self, first: Tensor, second: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        # with nothing present only the prior N(0, 1) is left, whether or not it is an expert
        precision = second + (1.0 if self.prior_expert else (weight == 0).to(second.dtype))
        return first / precision, precision.rsqrt()


class GeneralizedProductOfExperts(CoordinateBarycenter):
    """The reverse-KL barycenter, with weights learned per modality and latent dimension.

    alpha_mk = softmax_m(a_mk) over the modalities that are present,
    P_k = sum_m alpha_mk / sigma_mk^2,  mu_k = sum_m alpha_mk mu_mk / sigma_mk^2 / P_k,
    sigma_k = P_k^(-1/2).

    Weights that sum to 1 make it idempotent: equal experts give themselves back.

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

    def __init__(self) -> None:
        super().__init__()
        self.logits: nn.Parameter | None = None

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        new = type(self)()
        new.logits = nn.Parameter(torch.zeros(n_modalities, n_latent))
        return new

    def weights(self, loc: Tensor) -> Tensor:
        if self.logits is None:
            return loc.new_ones(())
        alpha = self.logits.softmax(0)
        return alpha.reshape(alpha.shape[0], 1, alpha.shape[1], *(1 for _ in loc.shape[3:]))

    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        precision = scale.square().reciprocal()
        return precision * loc, precision

    def from_sums(self, first: Tensor, second: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        nothing = (weight == 0).to(second.dtype)
        precision = (second + nothing) / (weight + nothing)
        return first / (weight + nothing) / precision, precision.rsqrt()

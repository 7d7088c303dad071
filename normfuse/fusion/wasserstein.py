"""The 2-Wasserstein barycenter of Gaussians."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from .aggregator import CoordinateBarycenter
from .bures import bures_barycenter
from .experts import lower_factor, moments, rebuilt
from .missing import Drop, Missing
from .weights import Uniform, Weights, weighted


ROUGH = 1e-2
"""Residual before the last Newton step that training in float32 asks of a full-covariance
barycenter: gradients are then right to 1 %, far below the noise of a batch, for two thirds of the
time. Scoring, in float64, always iterates to the end."""


class WassersteinBarycenter(CoordinateBarycenter):
    """Averages means and standard deviations: ``argmin_q sum_m w_m W2^2(q, q_m)``.

    mu = sum_m w_m mu_m,  sigma = sum_m w_m sigma_m  over the present modalities. The barycenter of
    diagonal Gaussians over *all* covariances is itself diagonal; full covariances are averaged in
    the Bures metric, C = sum_m w_m (C^1/2 C_m C^1/2)^1/2
    (:func:`~normfuse.fusion.bures.bures_barycenter`). Not precision-weighted: an over-confident
    expert has no more say than the others, and an expert with a huge sigma is not ignored, so
    absence must be said by ``present``.

    Parameters
    ----------
    weights : Weights
        Uniform by default. ``Learned(per_dimension=True)`` only with diagonal experts.
    missing : Missing

    References
    ----------
    Agueh and Carlier (2011), SIAM J. Math. Anal. 43(2), doi 10.1137/100805741; Qiu et al. (2025),
    AAAI, arXiv 2412.20487 (uniform weights are our reading).

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[0.5]]]))
    >>> q = WassersteinBarycenter()(experts, torch.tensor([[True], [True]]))
    >>> q.mean.item(), q.stddev.item()
    (1.0, 0.75)
    """

    def __init__(self, *, weights: Weights = Uniform(), missing: Missing = Drop()) -> None:
        super().__init__(weights, missing)

    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return loc, scale

    def at(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return first, second

    def full(self, experts: Distribution, present: Tensor, prior: Distribution | None
             ) -> tuple[Tensor, Tensor]:
        loc, scale, weight = weighted(experts, present, self.weights)
        if weight.shape[-1] != 1:
            raise TypeError("weights per latent dimension are defined for diagonal experts only")
        total = weight.sum(0)
        nobody = total == 0
        mean = (weight * loc).sum(0) / torch.where(nobody, 1.0, total)
        rough = ROUGH if self.training and loc.dtype == torch.float32 else None
        tril = lower_factor(bures_barycenter(scale @ scale.mT, weight[..., 0], tolerance=rough))
        if bool(nobody.any()):
            origin, extent = (torch.zeros_like(mean), torch.eye(loc.shape[-1]).to(loc)) \
                if prior is None else moments(prior)
            mean = torch.where(nobody, origin, mean)
            tril = torch.where(nobody[..., None], extent, tril)
        return mean, tril

    def kl_bound(self, experts: Distribution, present: Tensor, prior: Distribution) -> Tensor:
        """sum_m w_m KL(q_m || p) >= KL(q || p), per subject; only for one *common* prior p.

        W2 barycenters satisfy Jensen's inequality for the KL to a common Gaussian. Products do
        not, and with modality-specific priors it fails too, so it is offered here alone.

        Parameters
        ----------
        prior : Distribution, batch shape (n_subjects,)
            The same for all modalities.
        """
        common = prior.expand(experts.batch_shape)
        filled, there = self.missing.fill(experts, present, common)
        loc, scale, weight = weighted(filled, there, self.weights)
        if weight[0, 0].numel() != 1:
            raise TypeError("the bound needs one weight per modality")
        each = kl_divergence(rebuilt(filled, loc, scale), common)
        share = weight.reshape(there.shape)
        return (share * each).sum(0) / torch.where(share.sum(0) == 0, 1.0, share.sum(0))

"""The 2-Wasserstein barycenter of diagonal Gaussians."""
from __future__ import annotations

from torch import Tensor

from .aggregator import CoordinateBarycenter


class WassersteinBarycenter(CoordinateBarycenter):
    """Averages means and standard deviations: ``argmin_q sum_m w_m W2^2(q, q_m)``.

    mu = sum_m w_m mu_m,  sigma = sum_m w_m sigma_m  over the present modalities, w_m = 1 / |S|.
    The barycenter over *all* covariances is itself diagonal. Not precision-weighted: an
    over-confident expert has no more say than the others, and an expert with a huge sigma is not
    ignored, so absence must be said by ``present``.

    References
    ----------
    Agueh and Carlier (2011), SIAM J. Math. Anal. 43(2), doi 10.1137/100805741; Qiu et al. (2025),
    AAAI, arXiv 2412.20487 (uniform weights are our reading).

    Examples
    --------
    >>> import torch
    >>> from normfuse.fusion import gaussian
    >>> experts = gaussian(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[0.5]]]))
    >>> q = WassersteinBarycenter()(experts, torch.tensor([[True], [True]]))
    >>> q.mean.item(), q.stddev.item()
    (1.0, 0.75)
    """

    def coordinates(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return loc, scale

    def from_sums(self, first: Tensor, second: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        nothing = (weight == 0).to(second.dtype)  # then mean 0 and sd 1: the prior
        return first / (weight + nothing), (second + nothing) / (weight + nothing)

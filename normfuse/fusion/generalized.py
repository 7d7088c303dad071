"""The generalized 2-Wasserstein barycenter: modalities that see different parts of one space."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from .aggregator import Aggregator
from .bures import bures_barycenter, transport_map
from .choice import of_type
from .experts import (cholesky_factor, everyone, full, gaussian, is_full, lower_factor,
                      moments)
from .maps import Maps, SharedPrivate
from .missing import Drop, Missing
from .weights import Uniform, Weights, weighted


class GeneralizedWassersteinBarycenter(Aggregator):
    """``argmin_q sum_m w_m W2^2(q_m, P_m # q)``: each expert judges its own projection of q.

    With A = [w0 I +] sum_m w_m P_m' P_m (the bracket is the prior expert, P = I):

    mu = A^-1 sum_m w_m P_m' mu_m,  the weighted least-squares solution of P_m mu = mu_m;
    C = F^-T S F^-1,  A = F F',  S the Bures barycenter of F^-1 P_m' C_m P_m F^-T.

    For the shared and private blocks of :class:`~normfuse.fusion.SharedPrivate` this needs no
    iteration over z: the shared block is the Wasserstein barycenter of the shared parts, a private
    block its owner's own posterior, and its covariance with the shared block is carried along by
    the optimal transport of the shared block,

    Cov(u_m, s) = B_m S_ss,  B_m = C_m,us C_m,ss^-1 T_m,  Cov(u_m, u_n) = B_m S_ss B_n';

    the objective says nothing about the rest of Cov(u_m, u_n): u_m and u_n are taken to be
    independent given s. What nobody present sees has the prior.

    Parameters
    ----------
    maps : Maps
        Shared and private blocks by default; given or learned matrices make every step iterate,
        and the result has a full covariance.
    prior_weight : float
        w0 in [0, 1): weight of the prior as one more expert that sees everything.
    weights : Weights
    missing : Missing

    References
    ----------
    Delon, Gozlan and Saint-Dizier (2021), arXiv 2105.09755 (generalized
    barycenters); the closed form for shared and private blocks with full covariances is ours,
    tested against minimisation of the objective.

    Examples
    --------
    >>> experts = gaussian(torch.tensor([[[0.0, 7.0, 1.0]], [[2.0, 2.0, 9.0]]]),
    ...                    torch.ones(2, 1, 3))
    >>> fuse = GeneralizedWassersteinBarycenter(SharedPrivate(private=1)).sized(2, 3)
    >>> fuse(experts, torch.tensor([[True], [True]])).mean   # (0 + 2)/2, its own 7, its own 9
    tensor([[1., 7., 9.]])
    """

    def __init__(self, maps: Maps = SharedPrivate(), *, prior_weight: float = 0.0,
                 weights: Weights = Uniform(), missing: Missing = Drop()) -> None:
        super().__init__()
        if not 0 <= prior_weight < 1:
            raise ValueError(f"prior_weight is at least 0 and below 1; got {prior_weight!r}")
        maps.check(prior_weight)
        if not isinstance(missing, Drop) and not isinstance(maps, SharedPrivate):
            raise ValueError(f"{missing!r} needs SharedPrivate maps: seen through other maps, the "
                             "prior N(0, I) of z is no N(0, I), so it cannot stand in for a "
                             "modality")
        self.maps, self.prior_weight = maps, float(prior_weight)
        self.weights, self.missing = of_type(weights, Weights), of_type(missing, Missing)

    @property
    def blocks(self) -> SharedPrivate | None:
        """The maps, if they select shared and private blocks."""
        return self.maps if isinstance(self.maps, SharedPrivate) else None

    def owned(self) -> Tensor | None:
        return None if self.blocks is None else self.blocks.owned()

    def forward(self, experts: Distribution, present: Tensor,
                priors: Distribution | None = None) -> Distribution:
        experts, present = self.missing.fill(experts, present, priors)
        return self._fuse(experts, present, None if priors is None else self.prior(priors),
                          self.prior_weight)

    def prior(self, priors: Distribution) -> Distribution:
        # modality priors cover every block, so nothing more is needed; other maps may lack rank
        return self._fuse(priors, everyone(priors), None,
                          0.0 if self.blocks else self.prior_weight)

    def at_rest(self, priors: Distribution) -> Tensor:
        if self.blocks is not None:
            return super().at_rest(priors)
        origin = self.prior(priors).mean
        return torch.einsum("med,nd->mne", self.maps.matrices().to(origin), origin)

    def _fuse(self, experts: Distribution, present: Tensor, prior: Distribution | None,
              prior_weight: float) -> Distribution:
        blocks = self.blocks
        if blocks is None or (is_full(experts) and prior_weight):
            return self._by_iteration(experts, present, prior, prior_weight)
        if is_full(experts):
            return self._blockwise(blocks, experts, present, prior)
        return self._coordinatewise(blocks, experts, present, prior, prior_weight)

    @property
    def closed_form(self) -> bool:
        return isinstance(self.maps, SharedPrivate)

    def _coordinatewise(self, blocks: SharedPrivate, experts: Distribution, present: Tensor,
                        prior: Distribution | None, prior_weight: float) -> Distribution:
        """Diagonal experts, shared and private blocks: each coordinate averages its owners."""
        loc, scale, weight = weighted(experts, present, self.weights)
        if bool(present.all()):  # one row says it: of pixels there are many
            weight = weight[:, :1]
        owns = blocks.owned().to(loc.dtype)
        mine = weight * owns.reshape(len(owns), 1, -1, *(1 for _ in loc.shape[3:]))
        mu, sd = (0.0, 1.0) if prior is None else moments(prior)
        total = mine.sum(0)
        first, second = (mine * loc).sum(0), (mine * scale).sum(0)
        if prior_weight:
            extra = prior_weight / (1 - prior_weight) * weight.sum(0)
            total, first, second = total + extra, first + extra * mu, second + extra * sd
        nothing = (total == 0).to(loc.dtype)
        total = total + nothing
        return gaussian((first + nothing * mu) / total, (second + nothing * sd) / total,
                        len(experts.event_shape), check=False)

    def _blockwise(self, blocks: SharedPrivate, experts: Distribution, present: Tensor,
                   prior: Distribution | None) -> Distribution:
        """Full covariances, shared and private blocks: iterate over the shared block only."""
        loc, scale, weight = self._weighted_whole(experts, present)
        s, covariance = slice(0, blocks.shared), scale @ scale.mT
        common = bures_barycenter(covariance[..., s, s], weight[..., 0])
        base = lower_factor(common)
        origin, extent = _standard(loc[0], scale[0]) if prior is None else moments(prior)
        extent = (extent @ extent.mT).expand_as(common.new_empty(scale.shape[1:]))
        nobody = ~present.any(0)
        means = [(weight * loc)[..., s].sum(0) / torch.where(nobody[:, None], 1.0, weight.sum(0))]
        tril = torch.zeros_like(scale[0])
        tril[:, s, s] = base
        for m in range(len(present)):
            own, there = blocks.block(m), present[m][:, None]
            means.append(torch.where(there, loc[m][:, own], origin[:, own]))
            across, within = _carried(covariance[m], common, blocks.shared, own)
            alone = lower_factor(extent[:, own, own])
            tril[:, own, s] = torch.where(there[..., None], across @ base, 0.0)
            tril[:, own, own] = torch.where(there[..., None], within, alone)
        mean = torch.where(nobody[:, None], origin, torch.cat(means, -1))
        whole = lower_factor(extent)
        return full(mean, torch.where(nobody[:, None, None], whole, tril), check=False)

    def _by_iteration(self, experts: Distribution, present: Tensor, prior: Distribution | None,
                      prior_weight: float) -> Distribution:
        """Any maps: the change of variables, then the Bures iteration in all of z."""
        loc, scale, weight = self._weighted_whole(experts, present)
        if not is_full(experts):
            scale = torch.diag_embed(scale)
        maps = self.maps.matrices().to(loc)  # (M, e, d)
        unit = torch.eye(maps.shape[-1], dtype=loc.dtype, device=loc.device)
        nobody = ~present.any(0)
        share = weight[..., 0] / torch.where(nobody, 1.0, weight[..., 0].sum(0))
        share = (1 - prior_weight) * share
        # the prior is one more expert; where nobody is present it is the only one
        extra = torch.where(nobody, 1.0, torch.full_like(share[0], prior_weight))
        origin, extent = _standard(loc[0], unit.expand(len(extra), -1, -1))
        if prior is not None:
            origin, extent = prior.mean, cholesky_factor(prior)
        normal = torch.einsum("mn,mij->nij", share, maps.mT @ maps) + extra[:, None, None] * unit
        factor = lower_factor(normal)
        pull = torch.einsum("mn,mei,mne->ni", share, maps, loc) + extra[:, None] * origin
        mean = torch.cholesky_solve(pull[..., None], factor)[..., 0]
        pushed = torch.cat([_spread(factor, maps.mT[:, None] @ scale),
                            _spread(factor, extent[None])])
        common = bures_barycenter(pushed, torch.cat([share, extra[None]]))
        half = torch.linalg.solve_triangular(factor.mT, lower_factor(common), upper=True)
        return full(mean, lower_factor(half @ half.mT), check=False)

    def _weighted_whole(self, experts: Distribution, present: Tensor
                        ) -> tuple[Tensor, Tensor, Tensor]:
        loc, scale, weight = weighted(experts, present, self.weights)
        if weight[0, 0].numel() != 1:
            raise TypeError("weights per latent dimension need shared and private blocks, and "
                            "experts with diagonal covariances")
        return loc, scale, weight


def _standard(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """N(0, I) for every subject."""
    unit = torch.eye(scale.shape[-1], dtype=scale.dtype, device=scale.device)
    return loc.new_zeros(len(loc), scale.shape[-1]), unit.expand_as(scale)


def _spread(factor: Tensor, scale: Tensor) -> Tensor:
    """F^-1 V V' F^-T for Cholesky factors F and any V."""
    pushed = torch.linalg.solve_triangular(factor, scale, upper=False)
    return pushed @ pushed.mT


def _carried(covariance: Tensor, common: Tensor, shared: int, own: slice
             ) -> tuple[Tensor, Tensor]:
    """Regression of a private block on the fused shared block, and what it leaves."""
    part = covariance[:, :shared, :shared]
    across = covariance[:, :shared, own]
    slope = torch.cholesky_solve(across, lower_factor(part)).mT
    left = covariance[:, own, own] - slope @ across
    return slope @ transport_map(common, part), lower_factor(left)

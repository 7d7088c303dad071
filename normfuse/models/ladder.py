"""Hierarchical latents: every level has modality-specific priors, fused like the posteriors."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import pyro

from ..fusion import (Aggregator, Mixture, SubsetPosterior, component_kl, full, gaussian,
                      sigma_points)
from ..fusion.experts import moments, rebuilt
from ..fusion.mixture import log_weights
from ..networks import MlpEncoder, TopDown
from .batch import Batch
from .bounds import ALIGNMENT
from .recipe import Recipe, is_size
from .vae import Draws, Vae, hide_some
from .whitening import coloured, whitened, whitened_cov


@dataclass(frozen=True, repr=False)
class Ladder(Recipe):
    """A :class:`LadderVAE`: several latent levels.

    Parameters
    ----------
    levels : tuple of int
        Latent dimensions from the features inwards: the last one is the top, N(0, I).

    Examples
    --------
    >>> Ladder(levels=(8, 3)).n_dimensions
    11
    """

    levels: tuple[int, ...] = (32, 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.levels, list | tuple) or not self.levels \
                or not all(map(is_size, self.levels)):
            raise ValueError("levels is a tuple of whole numbers above 0, from the features "
                             f"inwards; got {self.levels!r}")
        object.__setattr__(self, "levels", tuple(self.levels))

    @property
    def n_dimensions(self) -> int:
        return sum(self.levels)

    def for_people(self, n_reference: int) -> Ladder:
        return self

    def resized(self, n_latent: int) -> Ladder:
        raise ValueError("n_latent is for models with one latent vector; give a ladder its levels,"
                         f" as in Ladder(levels={self.levels})")

    def build(self, n_features: Mapping[str, int], n_design: int, fusion: Aggregator) -> LadderVAE:
        self.check(fusion)
        return LadderVAE(n_features, n_design, fusion, self)


@dataclass(frozen=True, eq=False)
class Told:
    """What the encoders say of some subjects, at all levels, in units of each modality's prior.

    Attributes
    ----------
    loc, scale : Tensor, shape (n_modalities, n_subjects, n_dimensions)
    fused, present : bool Tensor, shape (n_modalities, n_subjects)
        ``fused`` is what posteriors are of, among what is present.
    """

    loc: Tensor
    scale: Tensor
    fused: Tensor
    present: Tensor

    def repeated(self, times: int, fused: Tensor | None = None) -> Told:
        """All subjects again and again, perhaps (times, n_modalities, n_subjects) ``fused``."""
        def again(block: Tensor) -> Tensor:
            return block.unsqueeze(1).expand(len(block), times, *block.shape[1:]).flatten(1, 2)

        return Told(again(self.loc), again(self.scale),
                    again(self.fused) if fused is None else fused.movedim(0, 1).flatten(1),
                    again(self.present))


@dataclass(frozen=True, eq=False)
class Level:
    """One latent level of some subjects, given the levels above it.

    Attributes
    ----------
    prior, posterior : Distribution, batch shape (n_subjects,)
    parts : function of nothing -> Tensor, shape (n_modalities, n_subjects, width)
        Each modality's part in the shift of the posterior mean from the prior mean.
    """

    prior: Distribution
    posterior: Distribution
    parts: Callable[[], Tensor]


class LadderVAE(Vae):
    """z = (z_L, …, z_1): the top z_L ~ N(0, I), every other level given those above it.

    p_lm(z_l | z_>l) = N(a_lm, b_lm^2)                          each modality's own prior
    q_lm(z_l | x_m, z_>l) = N(a_lm + b_lm d_lm, (b_lm r_lm)^2)  d, r from x_m, d also from z_>l
    p(z_l | z_>l) = barycenter over m of p_lm
    q(z_l | x_S, z_>l) = barycenter over m in S of q_lm, with p_lm in the place of what is absent
    (if the fusion says missing=SubstitutePrior())
    p(x_m | z_L, …, z_1) = N(mu_m(z), Psi_m)

    ELBO = E_q[sum_m log p(x_m | z)] - sum_l E_q[KL(q(z_l | x_S, z_>l) || p(z_l | z_>l))],

    the KLs in closed form given the draw above. With nothing observed q = p level by level and
    every term is exactly 0. A mixture over subsets of the modalities is one over whole
    hierarchies: the same subset of a subject's modalities at all levels.

    Standard coordinates: e_L = z_L and e_l = (z_l - p.loc) / p.scale, so that the prior of e is
    N(0, I) whatever the priors learn.

    Parameters
    ----------
    n_features : dict of int
        Modality name -> number of features.
    n_design : int
        Number of covariate columns.
    fusion : Aggregator
        Of every level, each with parameters of its own.
    recipe : Ladder

    References
    ----------
    Our reconstruction of Qiu et al. (2026), medRxiv 10.64898/2026.04.05.26350202, of which only
    the abstract was seen ("hierarchical modality-specific priors"). Sønderby et al. (2016), arXiv
    1602.02282 (ladder); Vahdat and Kautz (2020), arXiv 2007.03898 (posteriors relative to priors);
    Dorent et al. (2025), arXiv 2410.19378 (mixtures over subsets of whole hierarchies).

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> vae = LadderVAE({"t1": 4, "pet": 3}, 0, WassersteinBarycenter(),
    ...                 Ladder(levels=(3, 2), hidden=(8,)))
    >>> batch = Batch((torch.zeros(5, 4), torch.zeros(5, 3)), (None, None),
    ...               torch.ones(2, 5, dtype=torch.bool), torch.zeros(5, 0))
    >>> sorted(vae.loss(batch))
    ['kl z1', 'kl z2', 'pet', 't1']
    """

    def __init__(self, n_features: Mapping[str, int], n_design: int, fusion: Aggregator,
                 recipe: Ladder = Ladder()) -> None:
        super().__init__(n_features, n_design, recipe)
        n_modalities = len(self.names)
        self.widths = recipe.levels[::-1]  # top first: the order of z and e
        self.ends = torch.tensor(self.widths).cumsum(0).tolist()
        self.encoders = nn.ModuleList(
            MlpEncoder(width, n_design, self.n_dimensions, recipe.hidden, recipe.dropout,
                       skip=recipe.skip) for width in n_features.values())
        self.top_down: Any = nn.ModuleList(
            TopDown(end, width, n_modalities, recipe.hidden[-1:], skip=recipe.skip)
            for end, width in zip(self.ends, self.widths[1:]))
        self.mixture = fusion.sized(n_modalities, self.n_dimensions) \
            if isinstance(fusion, Mixture) else None
        inner = fusion.inner if isinstance(fusion, Mixture) else fusion
        self.fusions: Any = nn.ModuleList(
            inner.sized(n_modalities, width) for width in self.widths)
        self._align(self.fusions, self.widths)

    def told(self, batch: Batch, fused: Tensor | None = None) -> Told:
        """What the encoders say, from the present modalities or those in ``fused``."""
        said = [moments(encode(x, batch.design))
                for encode, x in zip(self.encoders, self.inputs(batch))]
        loc, scale = (torch.stack(parts) for parts in zip(*said))
        return Told(loc, scale, batch.present if fused is None else fused, batch.present)

    def level(self, k: int, above: Tensor, told: Told) -> Level:
        """Level k from the top, given z of those above, shape (n_subjects, n_above)."""
        fuse = self.fusions[k]
        experts, priors, prior = self._experts(k, above, told)
        return Level(prior, fuse(experts, told.fused, priors),
                     lambda: fuse.contributions(experts, told.fused, priors))

    def _experts(self, k: int, above: Tensor, told: Told
                 ) -> tuple[Distribution, Distribution | None, Distribution]:
        """Each modality's posterior and prior (if it has one), and the level's prior."""
        at = slice(self.ends[k] - self.widths[k], self.ends[k])
        loc, scale = told.loc[..., at], told.scale[..., at]
        if k == 0:
            return gaussian(loc, scale, check=False), None, gaussian(
                torch.zeros_like(loc[0]), torch.ones_like(loc[0]), check=False)
        priors, shift = self.top_down[k - 1](above)
        origin, unit = moments(priors)
        loc, scale = origin + unit * (loc + shift), unit * scale
        return gaussian(loc, scale, check=False), priors, self.fusions[k].prior(priors)

    def level_prior(self, k: int, above: Tensor) -> Distribution:
        """p(z_k | above) of level k from the top, shape (n_subjects, n_above)."""
        if k == 0:
            origin = above.new_zeros(len(above), self.widths[0])
            return gaussian(origin, torch.ones_like(origin), check=False)
        return self.fusions[k].prior(self.top_down[k - 1](above)[0])

    def model(self, batch: Batch, fused: Tensor) -> None:
        with pyro.plate("subjects", len(batch)):
            z = batch.design.new_zeros(len(batch), 0)
            for k in range(len(self.widths)):
                prior: Any = self.level_prior(k, z)
                z = torch.cat([z, pyro.sample(self._site(k), prior)], -1)
            for k, (name, scatter) in enumerate(self.scatters(z, batch).items()):
                pyro.sample(name, scatter, obs=batch.x[k])

    def guide(self, batch: Batch, fused: Tensor) -> None:
        told = self.told(batch, fused)
        with pyro.plate("subjects", len(batch)):
            z = batch.design.new_zeros(len(batch), 0)
            apart = z.new_zeros(len(batch))
            for k in range(len(self.widths)):
                if self.alignments:
                    apart = apart + self._apart(k, z, told)
                posterior: Any = self.level(k, z, told).posterior
                z = torch.cat([z, pyro.sample(self._site(k), posterior)], -1)
            if self.alignments:
                pyro.factor(ALIGNMENT, apart, has_rsample=True)

    def _apart(self, k: int, above: Tensor, told: Told) -> Tensor:
        """The alignment of everything measured at level k, times its weight.

        In standard coordinates: in those of z a small prior would make any distance small. What
        is drawn above is given, or private dimensions there would move to suit this level.
        """
        experts, _, prior = self._experts(k, above.detach(), told)
        loc, scale = moments(experts)
        standard = gaussian(whitened(prior, loc), scale / moments(prior)[1], check=False)
        return self.alignments[k].weight * self.alignments[k](standard, told.present)

    def _site(self, k: int) -> str:
        return f"z{len(self.widths) - k}"

    @property
    def forward_mode(self) -> bool:
        return all(fuse.closed_form for fuse in self.fusions)

    def owned(self) -> Tensor | None:
        owned = [fuse.owned() for fuse in self.fusions]
        return None if owned[0] is None else torch.cat(owned, -1)

    def from_standard(self, standard: Tensor) -> Tensor:
        return self._upper(standard.reshape(-1, standard.shape[-1])).reshape(standard.shape)

    def _upper(self, e: Tensor) -> Tensor:
        """z of standard coordinates e of all levels or of the upper ones, (n, n_above)."""
        z = e[:, :0]
        for k, width in enumerate(self.widths):
            if z.shape[1] == e.shape[1]:
                break
            z = torch.cat([z, coloured(self.level_prior(k, z),
                                       e[:, z.shape[1]:z.shape[1] + width])], -1)
        return z

    def fused_in_training(self, present: Tensor, *, one_component: bool) -> Tensor:
        if self.mixture is None:
            return hide_some(present, self.recipe.hide) if self.recipe.hide else present
        if not one_component:
            return present
        drawn = torch.multinomial(self.mixture.chances(present).T, 1)[:, 0]
        return self.mixture.table(len(present)).to(present.device).bool()[drawn].T & present

    def posterior(self, batch: Batch, fused: Tensor | None = None) -> Distribution:
        told = self.told(batch, fused)
        if self.mixture is None:
            return self._gaussian(told)
        components, chances = _components(self.mixture, told)
        q = self._gaussian(components)
        loc, scale = (t.unflatten(0, chances.shape) for t in moments(q))
        return SubsetPosterior(rebuilt(q, loc, scale), chances.to(loc.dtype))

    def _gaussian(self, told: Told) -> Distribution:
        """The Gaussian with the mean and covariance of e, level by level through sigma points.

        Exact if means are linear in the levels above; deterministic in any case.
        """
        top = self.level(0, told.loc[0, :, :0], told)
        e = full(top.posterior.mean, whitened_cov(top.prior, top.posterior, factor=True),
                 check=False)
        for k in range(1, len(self.widths)):
            points, weights = sigma_points(e)
            level = self.level(k, self._upper(points.flatten(0, 1)),
                               told.repeated(len(points)))
            means = whitened(level.prior, level.posterior.mean).unflatten(0, points.shape[:2])
            spread = whitened_cov(level.prior, level.posterior).unflatten(0, points.shape[:2])
            mean = torch.einsum("sn,snj->nj", weights, means)
            joint = torch.cat([points - e.mean, means - mean], -1)
            covariance = torch.einsum("sn,sni,snj->nij", weights, joint, joint)
            low = slice(-self.widths[k], None)
            covariance[:, low, low] += torch.einsum("sn,snij->nij", weights, spread)
            e = full(torch.cat([e.mean, mean], -1), torch.linalg.cholesky(covariance),
                     check=False)
        return e

    def position(self, batch: Batch) -> tuple[Tensor, Tensor]:
        told = self.told(batch)
        if self.mixture is None:
            parts = self._parts(told)
            return parts.sum(0), parts
        components, chances = _components(self.mixture, told)
        parts = self._parts(components).unflatten(1, chances.shape)
        parts = torch.einsum("kn,mknd->mnd", chances.to(parts), parts)
        return parts.sum(0), parts

    def _parts(self, told: Told) -> Tensor:
        """Each modality's part in e along the path of posterior means."""
        z, found = told.loc[0, :, :0], []
        for k in range(len(self.widths)):
            level = self.level(k, z, told)
            found.append(whitened(level.prior, level.prior.mean + level.parts()))
            z = torch.cat([z, level.posterior.mean], -1)
        return torch.cat(found, -1)

    def draws(self, batch: Batch, fused: Tensor, n_draws: int) -> Draws:
        told = self.told(batch, fused)
        chances = told.loc.new_ones(1, len(batch))
        strata = told
        if self.mixture is not None:
            strata, chances = _components(self.mixture, told)
        each = -(-n_draws // len(chances))
        shape = (each * len(chances), len(batch))
        z, kl, log_prior, log_q, apart = (t.unflatten(0, shape) for t
                                          in self._climb(strata.repeated(each)))
        share = (chances / each).repeat(each, 1).to(z)
        if self.mixture is not None:
            log_q = self._log_mixture(self.mixture, z, told, chances)
        return Draws(z, share, kl, log_prior, log_q, apart if self.alignments else None)

    def _climb(self, told: Told, z: Tensor | None = None
               ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw top-down (or follow a given z): z, summed KLs, log p(z), log q(z), alignments."""
        path = told.loc[0, :, :0]
        sums = [path.new_zeros(len(path)) for _ in range(4)]
        for k, end in enumerate(self.ends):
            level = self.level(k, path, told)
            step = level.posterior.rsample() if z is None else z[:, path.shape[1]:end]
            for total, term in zip(sums, (component_kl(level.posterior, level.prior),
                                          level.prior.log_prob(step),
                                          level.posterior.log_prob(step))):
                total += term
            if self.alignments and z is None:
                sums[3] += self._apart(k, path, told)
            path = torch.cat([path, step], -1)
        return path, sums[0], sums[1], sums[2], sums[3]

    def _log_mixture(self, mixture: Mixture, z: Tensor, told: Told, chances: Tensor) -> Tensor:
        """log density of the mixture over subsets at draws z, (n_draws, n_subjects, …)."""
        components = _components(mixture, told.repeated(len(z)))[0]
        log_q = self._climb(components, z.flatten(0, 1).repeat(len(chances), 1))[3]
        log_q = log_q.unflatten(0, (len(chances), *z.shape[:2]))
        return torch.logsumexp(log_q + log_weights(chances.to(z))[:, None], 0)


def _components(mixture: Mixture, told: Told) -> tuple[Told, Tensor]:
    """The same subjects once for each subset of modalities, and the subsets' weights."""
    table = mixture.table(len(told.fused)).bool()
    return told.repeated(len(table), table[:, :, None] & told.fused), mixture.chances(told.fused)

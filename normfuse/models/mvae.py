"""The multimodal variational autoencoder with one latent vector."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

import pyro
import pyro.distributions as dist

from ..fusion import Aggregator, SubsetPosterior, component_kl, stack
from ..networks import MlpEncoder
from .batch import Batch
from .bounds import ALIGNMENT
from .recipe import Recipe, is_size
from .vae import Draws, Vae, hide_some


MOST_LATENT, PEOPLE_PER_LATENT = 16, 10
"""Of the default size. 32 gained .001 in cross-modal R2 over 16 with 2,000 people and 12 true
factors; calibrating a latent distance takes several people a dimension."""


@dataclass(frozen=True, repr=False)
class OneLatent(Recipe):
    """A :class:`MultimodalVAE`: one latent vector with the prior N(0, I).

    Parameters
    ----------
    n_latent : int or None
        None: one dimension per ten reference people, 2 at least and 16 at most. With a few hundred
        people fewer can be better (docs/guide/choosing_a_fusion.md).
    full_covariance : bool
        Encoders give full covariance matrices; for small n_latent and a fusion that takes them.

    Notes
    -----
    The defaults were chosen on three simulated cohorts by validation loss and by detection of
    planted deviations (benchmarks/planted_deviations.py measures them on others).

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> recipe = OneLatent(n_latent=3, hidden=(8,))
    >>> vae = recipe.build({"t1": 5, "pet": 4}, 2, WassersteinBarycenter())
    >>> vae.n_dimensions, vae.names
    (3, ('t1', 'pet'))
    """

    n_latent: int | None = None
    full_covariance: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_latent is not None and not is_size(self.n_latent):
            raise ValueError(f"n_latent is a whole number above 0; got {self.n_latent!r}")

    @property
    def n_dimensions(self) -> int:
        if self.n_latent is None:
            raise ValueError("n_latent is decided when the model meets the reference; give a "
                             "number to build one without")
        return self.n_latent

    def for_people(self, n_reference: int) -> OneLatent:
        if self.n_latent is not None:
            return self
        return replace(self, n_latent=min(MOST_LATENT, max(2, n_reference // PEOPLE_PER_LATENT)))

    def resized(self, n_latent: int) -> OneLatent:
        if self.n_latent not in (None, n_latent):
            raise ValueError(f"n_latent is {n_latent} and the model has n_latent={self.n_latent}; "
                             "give one of them")
        return replace(self, n_latent=n_latent)

    def build(self, n_features: Mapping[str, int], n_design: int, fusion: Aggregator
              ) -> MultimodalVAE:
        self.check(fusion)
        return MultimodalVAE(n_features, n_design, fusion, self)


@dataclass(frozen=True, repr=False)
class Linear(OneLatent):
    """A Gaussian factor model: linear encoders and decoders; what deep models must beat.

    x_m = W_m z + b_m + noise_m,  z ~ N(0, I): factor analysis, with noise that correlates inside a
    modality group factor analysis. With :class:`~normfuse.inference.Refined` (default) posteriors,
    log-likelihood and leave-one-out expectations are exact.

    Parameters
    ----------
    n_latent : int or None
        As in :class:`OneLatent`; so is the rest.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> vae = Linear(n_latent=2).build({"t1": 4}, 0, WassersteinBarycenter())
    >>> vae.is_affine
    True
    """

    hidden: tuple[int, ...] = ()


class MultimodalVAE(Vae):
    """p(z) = N(0, I), p(x_m | z, c) = N(mu_m(z, c), Psi_m), q(z | x_S, c) by fusion.

    Its standard coordinates are z itself.

    Parameters
    ----------
    n_features : dict of int
        Modality name -> number of features.
    n_design : int
        Number of covariate columns.
    fusion : Aggregator
    recipe : OneLatent

    References
    ----------
    Kingma and Welling (2014), arXiv 1312.6114; Wu and Goodman (2018), arXiv 1802.05335;
    closed-form noise as in Rybkin, Daniilidis and Levine (2021), ICML, arXiv 2006.13202,
    here per feature.

    Examples
    --------
    >>> import torch
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> vae = MultimodalVAE({"t1": 4, "pet": 3}, 0, WassersteinBarycenter(),
    ...                     OneLatent(n_latent=2, hidden=(8,)))
    >>> batch = Batch((torch.zeros(5, 4), torch.zeros(5, 3)), (None, None),
    ...               torch.ones(2, 5, dtype=torch.bool), torch.zeros(5, 0))
    >>> sorted(vae.loss(batch))
    ['kl', 'pet', 't1']
    """

    def __init__(self, n_features: Mapping[str, int], n_design: int, fusion: Aggregator,
                 recipe: OneLatent) -> None:
        super().__init__(n_features, n_design, recipe)
        self.encoders = nn.ModuleList(
            MlpEncoder(width, n_design, self.n_dimensions, recipe.hidden, recipe.dropout,
                       skip=recipe.skip, full_covariance=recipe.full_covariance)
            for width in n_features.values())
        self.fusion = fusion.sized(len(self.names), self.n_dimensions)
        self._align([self.fusion], [self.n_dimensions])

    def experts(self, batch: Batch) -> Distribution:
        """The modalities' own posteriors, batch shape (n_modalities, n_subjects)."""
        return stack([encode(x, batch.design)
                      for encode, x in zip(self.encoders, self.inputs(batch))])

    def posterior(self, batch: Batch, fused: Tensor | None = None) -> Distribution:
        return self.fusion(self.experts(batch), batch.present if fused is None else fused)

    def position(self, batch: Batch) -> tuple[Tensor, Tensor]:
        experts = self.experts(batch)
        return self.fusion(experts, batch.present).mean, \
            self.fusion.contributions(experts, batch.present)

    def from_standard(self, standard: Tensor) -> Tensor:
        return standard

    def _from_standard_along(self, standard: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
        return standard, axes[:, None]

    @property
    def is_affine(self) -> bool:
        return all(getattr(decoder, "is_straight", False) for decoder in self.decoders)

    def owned(self) -> Tensor | None:
        return self.fusion.owned()

    def fused_in_training(self, present: Tensor, *, one_component: bool) -> Tensor:
        if self.recipe.hide and not self.fusion.spans_subsets:
            return hide_some(present, self.recipe.hide)
        return present

    def prior(self, batch: Batch) -> Any:
        """p(z) of every subject."""
        # given its full shape, so that the plate need not expand it at every step
        origin = batch.design.new_zeros(len(batch), self.n_dimensions)
        return dist.Normal(origin, 1.0, validate_args=False).to_event(1)

    def model(self, batch: Batch, fused: Tensor) -> None:
        with pyro.plate("subjects", len(batch)):
            z = pyro.sample("z", self.prior(batch))
            for k, (name, scatter) in enumerate(self.scatters(z, batch).items()):
                pyro.sample(name, scatter, obs=batch.x[k])

    def guide(self, batch: Batch, fused: Tensor) -> None:
        experts = self.experts(batch)
        posterior: Any = self.fusion(experts, fused)
        with pyro.plate("subjects", len(batch)):
            pyro.sample("z", posterior)
            apart = self._apart(experts, batch)
            if apart is not None:
                pyro.factor(ALIGNMENT, apart, has_rsample=True)

    def _apart(self, experts: Distribution, batch: Batch) -> Tensor | None:
        """The alignment of everything measured, of what training hides too; times its weight."""
        return self.alignments[0].weight * self.alignments[0](experts, batch.present) \
            if self.alignments else None

    def draws(self, batch: Batch, fused: Tensor, n_draws: int) -> Draws:
        experts = self.experts(batch)
        q, p = self.fusion(experts, fused), self.prior(batch)
        if isinstance(q, SubsetPosterior):
            each = -(-n_draws // len(q.weights))
            z, share = q.rsample_stratified(each)
            kl = component_kl(q.components, p.expand(q.components.batch_shape))
            kl = kl.repeat_interleave(each, 0)
        else:
            z = q.rsample((n_draws,))
            share, kl = z.new_full(z.shape[:-1], 1 / n_draws), component_kl(q, p)
        return Draws(z, share, kl, p.log_prob(z), q.log_prob(z), self._apart(experts, batch))

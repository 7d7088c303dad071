"""The multimodal variational autoencoder with one latent vector."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import pyro
import pyro.distributions as dist

from ..fusion import Aggregator, stack
from ..networks import MlpDecoder, MlpEncoder
from .batch import Batch
from .likelihood import MeasuredNormal
from .objectives import NamedElbo

NOISE_FLOOR = 1e-2
"""Smallest noise sd, in units of a feature's residual sd. A duplicated feature would else drive
its noise to 0 and the likelihood to infinity."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a :class:`MultimodalVAE`, and what training hides from its encoders.

    Parameters
    ----------
    n_latent : int
    hidden : tuple of int
        Encoder widths from the features inwards; the decoder mirrors them. Empty: linear.
    dropout : float
        In hidden layers.
    hide : float
        Probability with which training hides each present modality from the encoder.
    hide_cells : float
        Probability with which training hides each feature from the encoder (the others are scaled
        up). With a few hundred people, encoders otherwise learn their training subjects by heart.
    skip : bool
        Linear path beside every perceptron.

    Notes
    -----
    The defaults were chosen on three simulated cohorts by validation loss and by detection of
    planted deviations (benchmarks/planted_deviations.py measures them on others).
    """

    n_latent: int = 10
    hidden: tuple[int, ...] = (64,)
    dropout: float = 0.3
    hide: float = 0.5
    hide_cells: float = 0.5
    skip: bool = True

    def __post_init__(self) -> None:
        widths = (self.n_latent, *self.hidden) if isinstance(self.hidden, tuple) else (0,)
        if not all(isinstance(width, int) and width > 0 for width in widths):
            raise ValueError("n_latent and each of the tuple hidden are whole numbers above 0; "
                             f"got n_latent={self.n_latent!r}, hidden={self.hidden!r}")
        for name in ("dropout", "hide", "hide_cells"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a probability below 1; got {getattr(self, name)!r}")


class MultimodalVAE(nn.Module):
    """p(z) = N(0, I), p(x_m | z, c) = N(mu_m(z, c), diag s_m^2), q(z | x_S, c) by fusion.

    One encoder and one decoder per modality, conditioned on the covariates c; what a modality was
    not measured for has no likelihood term. Training fuses a random subset of each subject's
    modalities and reconstructs all of them, without which no modality can be predicted from the
    others. The noise sd s_m of each feature is set once an epoch to its closed-form optimum,
    s^2 = mean of (x - mu(z))^2, so it depends neither on a start value nor on a learning rate.

    Parameters
    ----------
    n_features : dict of int
        Modality name -> number of features.
    n_design : int
        Number of covariate columns.
    fusion : Aggregator
    architecture : Architecture

    References
    ----------
    Kingma and Welling (2014), arXiv 1312.6114; Wu and Goodman (2018), arXiv 1802.05335;
    closed-form noise as in Rybkin, Daniilidis and Levine (2021), ICML, arXiv 2006.13202,
    here per feature.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> vae = MultimodalVAE({"t1": 4, "pet": 3}, 0, WassersteinBarycenter(),
    ...                     Architecture(n_latent=2, hidden=(8,)))
    >>> batch = Batch((torch.zeros(5, 4), torch.zeros(5, 3)), (None, None),
    ...               torch.ones(2, 5, dtype=torch.bool), torch.zeros(5, 0))
    >>> sorted(vae.loss(batch))
    ['kl', 'pet', 't1']
    """

    def __init__(self, n_features: Mapping[str, int], n_design: int, fusion: Aggregator,
                 architecture: Architecture = Architecture()) -> None:
        super().__init__()
        self.names = tuple(n_features)
        self.architecture = a = architecture
        self.encoders = nn.ModuleList(
            MlpEncoder(width, n_design, a.n_latent, a.hidden, a.dropout, skip=a.skip)
            for width in n_features.values())
        self.decoders = nn.ModuleList(
            MlpDecoder(a.n_latent, n_design, width, a.hidden[::-1], a.dropout, skip=a.skip)
            for width in n_features.values())
        self.fusion = fusion.sized(len(self.names), a.n_latent)
        self.noise_sd = nn.ParameterList(
            nn.Parameter(torch.ones(width), requires_grad=False) for width in n_features.values())
        self._squares = [torch.zeros(2, width) for width in n_features.values()]
        self.elbo = NamedElbo()

    def posterior(self, batch: Batch, fused: Tensor | None = None) -> Distribution:
        """q(z | x_S, c), from the present modalities or from those in ``fused``."""
        xs = [_filled(x, m) for x, m in zip(batch.x, batch.measured)]
        if self.training and self.architecture.hide_cells:
            xs = [nn.functional.dropout(x, self.architecture.hide_cells) for x in xs]
        experts = stack([encode(x, batch.design) for encode, x in zip(self.encoders, xs)])
        return self.fusion(experts, batch.present if fused is None else fused)

    def decode(self, z: Tensor, design: Tensor) -> list[Tensor]:
        """Expected features of every modality, shape (..., n_subjects, n_features_m)."""
        return [decoder(z, design) for decoder in self.decoders]

    def model(self, batch: Batch, fused: Tensor) -> None:
        """The generative model, in Pyro."""
        with pyro.plate("subjects", len(batch)):
            # given its full shape, so that the plate need not expand it at every step
            origin = batch.design.new_zeros(len(batch), self.architecture.n_latent)
            z = pyro.sample("z", dist.Normal(origin, 1.0, validate_args=False).to_event(1))
            for k, mean in enumerate(self.decode(z, batch.design)):
                scatter = MeasuredNormal(mean, self.noise_sd[k], batch.measured[k])
                pyro.sample(self.names[k], scatter, obs=batch.x[k])

    def guide(self, batch: Batch, fused: Tensor) -> None:
        """The approximate posterior, in Pyro."""
        posterior: Any = self.posterior(batch, fused)
        with pyro.plate("subjects", len(batch)):
            pyro.sample("z", posterior)

    def loss(self, batch: Batch, warmup: float = 1.0) -> dict[str, Tensor]:
        """Named terms whose sum is minimised; ``warmup`` in [0, 1] scales the KL."""
        fused = batch.present
        if self.architecture.hide and not self.fusion.spans_subsets:
            fused = hide_some(fused, self.architecture.hide)
        terms, scatters = self.elbo.terms(self.model, self.guide, batch, fused)
        if self.training:
            self._remember(batch, scatters)
        if warmup != 1.0:
            terms["kl"] = warmup * terms["kl"]
        return terms

    def _remember(self, batch: Batch, scatters: Mapping[str, Any]) -> None:
        for k, name in enumerate(self.names):
            squares, measured = scatters[name].squares, batch.measured[k]
            self._squares[k][0] += squares.sum(0)
            self._squares[k][1] += len(batch) if measured is None else measured.sum(0)

    def end_epoch(self) -> None:
        """Set the noise to its optimum for the epoch that ends."""
        for sd, squares in zip(self.noise_sd, self._squares):
            total, count = squares
            seen = count > 0
            sd.data[seen] = (total[seen] / count[seen]).sqrt().clamp_min(NOISE_FLOOR).to(sd.dtype)
            squares.zero_()


def _filled(x: Tensor, measured: Tensor | None) -> Tensor:
    """Cells that were not measured are 0; the others stand in for them, as under dropout.

    Without that, a latent position would shrink towards 0 with every failed region.
    """
    if measured is None:
        return x
    count = measured.sum(-1, keepdim=True).clamp_min(1)
    return x * (measured.shape[-1] / count).to(x.dtype)


def hide_some(present: Tensor, probability: float) -> Tensor:
    """Hide each present modality with this probability, but never all of a subject's.

    Examples
    --------
    >>> present = torch.tensor([[True, True], [True, False]])
    >>> hide_some(present, 0.9).any(0)
    tensor([True, True])
    """
    kept = present & (torch.rand(present.shape) >= probability)
    return torch.where(kept.any(0), kept, present)

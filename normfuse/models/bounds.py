"""Lower bounds of log p(x) that training maximises."""
from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..fusion import Choice, mixture
from .batch import Batch
from .objectives import NamedElbo

if TYPE_CHECKING:
    from .vae import Draws, Vae

Terms = tuple[dict[str, Tensor], dict[str, Tensor]]

ALIGNMENT = "alignment"
"""Name of the guide's factor and of the loss's term that draws modalities together."""


class Bound(Choice, ABC):
    """A lower bound of log p(x_S), as terms to minimise."""

    visits_all_components: ClassVar[bool] = True
    """Whether every component of a mixture posterior is drawn from, so that its weights learn."""

    @abstractmethod
    def terms(self, vae: Vae, batch: Batch, warmup: float) -> Terms:
        """Named terms (means over subjects, nats) whose sum is minus the bound, and the squared
        residuals of each modality summed over subjects, shape (n_features,), for its noise."""


@dataclass(frozen=True, repr=False)
class Elbo(Bound):
    """E_q[log p(x | z)] - KL(q || p), by one draw and the closed-form KL.

    Of a mixture posterior one component is drawn per subject and step, and the KL is the
    component bound, sum_k w_k KL(q_k || p) >= KL(q || p): unbiased for

    sum_k w_k { E_{q_k}[log p(x | z)] - KL(q_k || p) }.

    Parameters
    ----------
    free_bits : float
        nats per subject that each latent level may use before its KL is charged, in training only:
        a level that explains nothing is otherwise switched off early and never comes back
        (posterior collapse). The validation loss is always the true bound.

    References
    ----------
    Kingma and Welling (2014), arXiv 1312.6114; Sutter et al. (2021), arXiv 2105.02470; Kingma et
    al. (2016), arXiv 1606.04934 (free bits).

    Examples
    --------
    >>> Elbo(free_bits=0.5)
    Elbo(free_bits=0.5)
    """

    free_bits: float = 0.0

    visits_all_components: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.free_bits < math.inf:
            raise ValueError(f"free_bits is in nats, 0 or more; got {self.free_bits!r}")

    def terms(self, vae: Vae, batch: Batch, warmup: float) -> Terms:
        fused = vae.fused_in_training(batch.present, one_component=True)
        terms, scatters = NamedElbo().terms(vae.model, vae.guide, batch, fused)
        if warmup != 1.0 or (self.free_bits and vae.training):
            for name, term in terms.items():
                if name.split(" ")[0] == "kl":
                    floor = self.free_bits if vae.training else 0.0
                    terms[name] = warmup * term.clamp_min(floor)
                elif name == ALIGNMENT:
                    terms[name] = warmup * term
        return terms, {name: s.squares.sum(0) for name, s in scatters.items()}


@dataclass(frozen=True, repr=False)
class StratifiedElbo(Bound):
    """The ELBO with every component of a mixture visited, each with its weight.

    Parameters
    ----------
    draws : int
        From each component (from the posterior, if it is no mixture).
    mixture_density : bool
        False: the component bound of :class:`Elbo`, without its noise. True: the tighter mixture
        bound, E_q[log p(x, z) - log q(z)] with the mixture's own density q.

    References
    ----------
    Sutter et al. (2021), arXiv 2105.02470; Roeder et al. (2017), arXiv 1703.09194 and Morningstar
    et al. (2021), AISTATS, arXiv 2003.01687 (stratified mixture bounds).

    Examples
    --------
    >>> StratifiedElbo().visits_all_components
    True
    """

    draws: int = 1
    mixture_density: bool = False

    def __post_init__(self) -> None:
        _check_draws(self.draws)

    def terms(self, vae: Vae, batch: Batch, warmup: float) -> Terms:
        fused = vae.fused_in_training(batch.present, one_component=False)
        draws = vae.draws(batch, fused, self.draws)
        found, squares = {}, {}
        gap = draws.log_q - draws.log_prior if self.mixture_density else draws.kl
        found["kl"] = warmup * (draws.share * gap).sum(0).mean()
        for k, (name, scatter) in enumerate(vae.scatters(draws.z, batch).items()):
            found[name] = -(draws.share * scatter.log_prob(batch.x[k])).sum(0).mean()
            squares[name] = _weighted(draws.share, scatter.squares)
        return {**found, **_alignment(draws, warmup)}, squares


@dataclass(frozen=True, repr=False)
class Iwae(Bound):
    """log sum_k share_k p(x, z_k) / q(z_k): tighter the more draws.

    Of a mixture posterior the draws are stratified over its components and q is the mixture's
    density; ``draws`` is then the least number in all. As many from every component, with
    share_k = w / n, keep the sum an unbiased estimate of p(x), hence its log a
    lower bound of log p(x) on average.

    The KL warm-up does not apply: there is no KL term (to an alignment it does). Nor does dropout
    in the decoders: draws are weighed against each other.

    Parameters
    ----------
    draws : int
    resampled : int or None
        Send gradients through so many draws only, chosen with the importance weights; the gradient
        stays unbiased, and a step costs a third. None: through all.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), arXiv 1509.00519; Shi et al. (2019), arXiv 1911.03393,
    whose looser form we do not use; Cremer, Morris and Duvenaud (2017), arXiv 1704.02916
    (resampling).

    Examples
    --------
    >>> Iwae(draws=8)
    Iwae(draws=8)
    """

    draws: int = 10
    resampled: int | None = 2

    def __post_init__(self) -> None:
        _check_draws(self.draws)
        if self.resampled is not None:
            _check_draws(self.resampled)

    def terms(self, vae: Vae, batch: Batch, warmup: float) -> Terms:
        fused = vae.fused_in_training(batch.present, one_component=False)
        draws = vae.draws(batch, fused, self.draws)
        some = self.resampled if vae.training else None
        with torch.set_grad_enabled(some is None and torch.is_grad_enabled()):
            log_weight, scatters = importance(vae, batch, draws)
        bound = torch.logsumexp(log_weight, 0)
        belief = torch.softmax(log_weight.detach(), 0)
        squares = {name: _weighted(belief, s.squares) for name, s in scatters.items()}
        if some is not None:
            chosen = torch.multinomial(belief.T, some, replacement=True).T
            again = importance(vae, batch, draws.take(chosen))[0].mean(0)
            bound = bound + again - again.detach()  # this value, that gradient
        return {"iwae": -bound.mean(), **_alignment(draws, warmup)}, squares


def importance(vae: Vae, batch: Batch, draws: Draws) -> tuple[Tensor, dict]:
    """log [share p(x, z) / q(z)] of each draw, shape (n_draws, n_subjects), and the p(x_m | z).

    A component that a subject does not have has share 0 and log weight -inf, without a gradient.
    """
    with _without_dropout(vae):  # draws are weighed against each other: by one network
        scatters = vae.scatters(draws.z, batch)
    log_p = sum(s.log_prob(batch.x[k]) for k, s in enumerate(scatters.values()))
    log_share = mixture.log_weights(draws.share)
    return log_p + draws.log_prior - draws.log_q + log_share, scatters


@contextmanager
def _without_dropout(vae: Vae) -> Iterator[None]:
    training = vae.decoders.training
    vae.decoders.eval()
    try:
        yield
    finally:
        vae.decoders.train(training)


def _alignment(draws: Draws, warmup: float) -> dict[str, Tensor]:
    """The term that draws modalities together, where a model has one."""
    if draws.alignment is None:
        return {}
    return {ALIGNMENT: warmup * (draws.share * draws.alignment).sum(0).mean()}


def _weighted(share: Tensor, squares: Tensor) -> Tensor:
    return torch.einsum("kn,knp->p", share.detach(), squares)


def _check_draws(value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"draws is a whole number above 0; got {value!r}")

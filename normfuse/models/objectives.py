"""What training minimises: the negative evidence lower bound, as named terms."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence

import pyro.poutine as poutine
from pyro.infer import ELBO

from ..fusion import SubsetPosterior


def latent_kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p) per subject; exact for Gaussians, the component bound for mixtures.

    For q = sum_k w_k q_k, KL(q || p) <= sum_k w_k KL(q_k || p): with it the objective is still a
    lower bound of log p(x).

    References
    ----------
    Sutter et al. (2021), arXiv 2105.02470, lemma 1.

    Examples
    --------
    >>> from normfuse.fusion import gaussian
    >>> q = gaussian(torch.tensor([[1.0]]), torch.tensor([[1.0]]))
    >>> latent_kl(q, gaussian(torch.zeros(1, 1), torch.ones(1, 1)))
    tensor([0.5000])
    """
    if isinstance(q, SubsetPosterior):
        return (q.weights * kl_divergence(q.components, p.expand(q.components.batch_shape))).sum(0)
    mine, prior = getattr(q, "base_dist", q), getattr(p, "base_dist", p)
    if isinstance(mine, Normal) and isinstance(prior, Normal):
        # the literal formula: torch's own goes through twice as many small tensors
        var, away = prior.scale.square(), mine.loc - prior.loc
        each = 0.5 * ((mine.scale.square() + away.square()) / var - 1) \
            - (mine.scale / prior.scale).log()
        return each.flatten(len(q.batch_shape)).sum(-1)
    return kl_divergence(q, p)


class NamedElbo(ELBO):
    """A single-sample ELBO for one latent site, returned term by term.

    The latent site enters by its analytic KL (:func:`latent_kl`), observed sites by their
    log-likelihood; the prior's and guide's own log-densities are never evaluated. Each term is a
    mean over subjects, so that learning rate and clipping do not depend on batch size.

    ``NamedElbo()(model, guide)`` is a torch module whose call gives the total;
    :meth:`terms` gives ``{"kl": …, <site>: …}``, all in nats, to be added up, and the distribution
    of each observed site.
    """

    def terms(self, model: Callable, guide: Callable, *args: object
              ) -> tuple[dict[str, Tensor], dict[str, Distribution]]:
        """The negative ELBO's terms: KL of each latent site, -log p of each observed site."""
        traced, guided = self._get_trace(model, guide, args, {})
        found: dict[str, Tensor] = {}
        observed: dict[str, Distribution] = {}
        for name, site in traced.nodes.items():
            if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
                continue
            if site["is_observed"]:
                observed[name] = site["fn"]
                found[name] = -site["fn"].log_prob(site["value"]).mean()
            else:
                found["kl"] = latent_kl(guided.nodes[name]["fn"], site["fn"]).mean()
        return found, observed

    def _get_trace(self, model: Callable, guide: Callable, args: tuple, kwargs: dict) -> tuple:
        guided = poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(model, trace=guided)
        return poutine.trace(replayed).get_trace(*args, **kwargs), guided

    def differentiable_loss(self, model: Callable, guide: Callable, *args: object) -> Tensor:
        """The negative ELBO, mean over subjects."""
        return torch.stack(list(self.terms(model, guide, *args)[0].values())).sum()

    def loss(self, model: Callable, guide: Callable, *args: object) -> float:
        """The negative ELBO as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args).item()

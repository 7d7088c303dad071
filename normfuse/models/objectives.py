"""What training minimises: the negative evidence lower bound, as named terms."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pyro.poutine as poutine
from pyro.infer import ELBO

from ..fusion import component_kl


class NamedElbo(ELBO):
    """A single-sample ELBO, returned term by term.

    Each latent site enters by its analytic KL given the sites above it
    (:func:`~normfuse.fusion.component_kl`), observed sites by their log-likelihood; the prior's
    and guide's own log-densities are never evaluated. Each term is a mean over subjects, so that
    learning rate and clipping do not depend on batch size.

    ``NamedElbo()(model, guide)`` is a torch module whose call gives the total;
    :meth:`terms` gives ``{"kl": …, <site>: …}``, all in nats, to be added up (``"kl z1"``,
    ``"kl z2"`` if there are several latent sites), and the distribution of each observed site.
    What the guide adds by ``pyro.factor(…, has_rsample=True)`` enters with its own sign, as in
    Pyro's ELBOs, which subtract the guide's log-densities.

    Examples
    --------
    >>> import pyro
    >>> import torch
    >>> from normfuse.fusion import gaussian
    >>> def model(x):
    ...     with pyro.plate("subjects", len(x)):
    ...         z = pyro.sample("z", gaussian(torch.zeros(len(x), 1), torch.ones(len(x), 1)))
    ...         pyro.sample("x", gaussian(z, torch.ones(len(x), 1)), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("subjects", len(x)):
    ...         pyro.sample("z", gaussian(x / 2, torch.full((len(x), 1), 0.7)))
    >>> terms, _ = NamedElbo().terms(model, guide, torch.ones(5, 1))
    >>> sorted(terms)
    ['kl', 'x']
    """

    def terms(self, model: Callable, guide: Callable, *args: object
              ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The negative ELBO's terms: KL of each latent site, -log p of each observed site, factors
        of the guide."""
        traced, guided = self._get_trace(model, guide, args, {})
        found: dict[str, Tensor] = {}
        observed: dict[str, Any] = {}
        for name, site in traced.nodes.items():
            if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
                continue
            if site["is_observed"]:
                observed[name] = site["fn"]
                found[name] = -site["fn"].log_prob(site["value"]).mean()
            else:
                found[f"kl {name}"] = component_kl(guided.nodes[name]["fn"], site["fn"]).mean()
        for name, site in guided.nodes.items():
            if site["type"] == "sample" and site["infer"].get("is_auxiliary"):
                found[name] = site["fn"].log_prob(site["value"]).mean()
        latent = [name for name in found if name.startswith("kl ")]
        if len(latent) == 1:
            found["kl"] = found.pop(latent[0])
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

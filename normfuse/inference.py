"""Where a subject lies in latent space: the fused posterior as it is, or refined by the decoders.

Encoders are trained for all subjects and all subsets of modalities at once, and a diagonal fused
posterior cannot hold the correlations of the true one. Both cost accuracy that the decoders have.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from .fusion import Choice
from .models import Batch, Vae


class Inference(Choice, ABC):
    """How a posterior is found at scoring time; training always uses the fused posterior."""

    def is_exact(self, vae: Vae) -> bool:
        """Whether the posterior is that of the model, not an approximation."""
        return False

    def quick(self) -> Inference:
        """A cheaper form of the same, for use inside an iteration."""
        return self

    @abstractmethod
    def posterior(self, vae: Vae, batch: Batch) -> Distribution:
        """q(e | x_S, c) in standard coordinates, batch shape (n_subjects,), event (n_dim,)."""


@dataclass(frozen=True, repr=False)
class Amortised(Inference):
    """The aggregator's posterior itself.

    Examples
    --------
    >>> Amortised(), Amortised().quick()
    (Amortised(), Amortised())
    """

    def posterior(self, vae: Vae, batch: Batch) -> Distribution:
        return vae.posterior(batch)


@dataclass(frozen=True, repr=False)
class Refined(Inference):
    """From the fused mean, a few Gauss-Newton steps to the most probable z; Laplace covariance.

    minimise  1/2 |z|^2 + 1/2 (x - mu(z))' Psi^-1 (x - mu(z))  over the measured cells;
    q(z) = N(z*, (I + J' Psi^-1 J)^-1),  J = d mu / d z,

    z in standard coordinates, where the prior is N(0, I) at all levels.

    With linear decoders one step gives the exact posterior of a factor-analysis model, whatever
    the fusion; with others the fused posterior says in which basin to look.

    Parameters
    ----------
    steps : int

    References
    ----------
    Kim et al. (2018), ICML, arXiv 1802.02550 (semi-amortised inference); Tierney and Kadane
    (1986), doi 10.1080/01621459.1986.10478240 (Laplace).

    Examples
    --------
    >>> import torch
    >>> from normfuse.models import Batch
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> from normfuse.models import OneLatent
    >>> recipe = OneLatent(n_latent=2, hidden=(4,))
    >>> vae = recipe.build({"t1": 3, "pet": 2}, 1, WassersteinBarycenter())
    >>> batch = Batch((torch.zeros(4, 3), torch.ones(4, 2)), (None, None),
    ...               torch.ones(2, 4, dtype=torch.bool), torch.zeros(4, 1))
    >>> Refined(steps=2).posterior(vae.eval(), batch).mean.shape
    torch.Size([4, 2])
    """

    steps: int = 6

    def is_exact(self, vae: Vae) -> bool:
        return vae.is_affine and self.steps > 0

    def quick(self) -> Refined:
        return Refined(min(self.steps, 2))

    def posterior(self, vae: Vae, batch: Batch) -> Distribution:
        energy, z = Energy(vae, batch), vae.posterior(batch).mean
        if self.is_exact(vae):
            gradient, precision = energy.newton(z)
            z = z + torch.linalg.solve(precision, gradient)
            return MultivariateNormal(z, precision_matrix=precision, validate_args=False)
        if vae.bends_images:
            z = _quasi_newton(energy, z, 2 * self.steps)
        else:
            for _ in range(self.steps):
                gradient, precision = energy.newton(z)
                z = _damped(energy, z, torch.linalg.solve(precision, gradient))
        return MultivariateNormal(z, precision_matrix=energy.newton(z)[1], validate_args=False)


_ROUNDING = 1e-12
_STEP = 1e-5


class Energy:
    """Minus log p(x_S, z), up to what does not depend on z, of some people.

    1/2 |z|^2 + 1/2 (x - mu(z))' Psi^-1 (x - mu(z))

    Attributes
    ----------
    noise : list of MeasuredNoise
        Psi of each modality; its patterns of missing cells are looked for only once.

    Examples
    --------
    >>> import torch
    >>> from normfuse.models import Batch
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> from normfuse.models import OneLatent
    >>> recipe = OneLatent(n_latent=2, hidden=(4,))
    >>> vae = recipe.build({"t1": 3, "pet": 2}, 1, WassersteinBarycenter())
    >>> batch = Batch((torch.zeros(4, 3), torch.ones(4, 2)), (None, None),
    ...               torch.ones(2, 4, dtype=torch.bool), torch.zeros(4, 1))
    >>> energy, z = Energy(vae.eval(), batch), torch.zeros(4, 2)
    >>> [part.shape for part in (energy(z), *energy.newton(z))]
    [torch.Size([4]), torch.Size([4, 2]), torch.Size([4, 2, 2])]
    """

    def __init__(self, vae: Vae, batch: Batch) -> None:
        self.vae, self.batch = vae, batch
        self.noise = vae.noise_among(batch)
        self._alike = vae.is_affine or vae.bends_images

    @cached_property
    def slopes(self) -> list[Tensor]:
        """Those of :meth:`linearised` where they are alike for everybody."""
        return shared_slopes(self.vae)

    def __call__(self, z: Tensor) -> Tensor:
        """Of each person, shape (n_subjects,), at z, shape (n_subjects, n_dimensions)."""
        means = self.vae.decode(z, self.batch.design)
        left = [noise.whiten(x - mean).square().sum(-1)
                for noise, x, mean in zip(self.noise, self.batch.x, means)]
        return 0.5 * (torch.stack(left).sum(0) + z.square().sum(-1))

    def linearised(self, z: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """x_m - mu_m(z), shape (n_subjects, n_features_m), and d mu_m / d z, shape (n_dimensions,
        n_subjects, n_features_m); (n_dimensions, 1, n_features_m) if alike for everybody."""
        if self._alike:
            return self.residuals(z), self.slopes
        axes = torch.eye(z.shape[-1], dtype=z.dtype)
        if not self.vae.forward_mode:
            return self._by_differences(z, axes)
        means, slopes = self.vae.along(z, axes, self.batch.design)
        return [x - mean for x, mean in zip(self.batch.x, means)], slopes

    def residuals(self, z: Tensor) -> list[Tensor]:
        """x_m - mu_m(z)."""
        return [x - mean for x, mean in zip(self.batch.x, self.vae.decode(z, self.batch.design))]

    def _by_differences(self, z: Tensor, axes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The same where a level's prior is found by iteration: slopes good to 1e-9."""
        design = self.batch.design
        pairs = [zip(self.vae.decode(z + _STEP * axis, design),
                     self.vae.decode(z - _STEP * axis, design)) for axis in axes]
        slopes = [torch.stack(found) for found in zip(*(
            [(above - below) / (2 * _STEP) for above, below in pair] for pair in pairs))]
        return self.residuals(z), slopes

    def newton(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the gradient (n, L) and the Gauss-Newton Hessian (n, L, L)."""
        gradient = -z
        precision = torch.eye(z.shape[-1], dtype=z.dtype).repeat(len(z), 1, 1)
        for m, (residual, slopes) in enumerate(zip(*self.linearised(z))):
            noise, rows = self.noise[m], self.batch.whole(m)
            if rows is not None:  # nothing but these people need be looked at
                noise, residual = self.vae.noise[m].among(None), residual.index_select(0, rows)
                slopes = slopes if slopes.shape[1] == 1 else slopes.index_select(1, rows)
            at = slice(None) if rows is None else rows
            white = noise.whiten(slopes)
            jacobian = white.movedim(0, -1)
            gradient[at] += torch.einsum("lnp,np->nl", white, noise.whiten(residual))
            precision[at] += jacobian.mT @ jacobian
        return gradient, precision

    def downhill(self, z: Tensor) -> Tensor:
        """Minus the exact gradient, shape (n_subjects, n_dimensions)."""
        means, back = torch.func.vjp(
            lambda at: tuple(self.vae.decode(at, self.batch.design)), z)[:2]
        weighed = [noise.weigh(x - mean)
                   for noise, x, mean in zip(self.noise, self.batch.x, means)]
        return back(tuple(weighed))[0] - z


def shared_slopes(vae: Vae) -> list[Tensor]:
    """d mu_m / d z at z = 0 and the average person's covariates, (n_dimensions, 1, n_features_m).

    Those of everybody if the model is affine. Of images that convolutions decode they stand for
    everybody's: finding each person's would cost as many decodings as there are latents.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> from normfuse.models import OneLatent
    >>> recipe = OneLatent(n_latent=2, hidden=(4,))
    >>> vae = recipe.build({"t1": 3, "pet": 2}, 1, WassersteinBarycenter())
    >>> [slope.shape for slope in shared_slopes(vae.eval())]
    [torch.Size([2, 1, 3]), torch.Size([2, 1, 2])]
    """
    like = vae.noise_sd[0]
    z = like.new_zeros(1, vae.n_dimensions)
    axes = torch.eye(z.shape[-1], dtype=z.dtype)
    return vae.along(z, axes, like.new_zeros(1, vae.n_design))[1]


def _quasi_newton(energy: Energy, z: Tensor, steps: int) -> Tensor:
    """Towards the most probable z by BFGS, begun at the curvature that all people share.

    A step costs a decoding and its gradient, where Gauss-Newton takes as many decodings as there
    are latents.
    """
    inverse, downhill = torch.linalg.inv(energy.newton(z)[1]), energy.downhill(z)
    eye = torch.eye(z.shape[-1], dtype=z.dtype)
    for _ in range(steps):
        new = _damped(energy, z, (inverse @ downhill[..., None])[..., 0])
        found = energy.downhill(new)
        moved, turned = new - z, downhill - found
        curved = (moved * turned).sum(-1)
        rho = torch.where(curved > 0, 1 / curved, 0.0)[:, None, None]
        outer = eye - rho * moved[..., None] * turned[:, None]
        updated = outer @ inverse @ outer.mT + rho * moved[..., None] * moved[:, None]
        inverse = torch.where(rho > 0, updated, inverse)
        z, downhill = new, found
    return z


def _damped(energy: Energy, z: Tensor, step: Tensor) -> Tensor:
    """The longest of 1, 1/2, 1/4, 1/8 of each subject's step that raises no energy, or none."""
    # near the optimum a good step changes the energy by rounding only; taking it all the same
    # makes the end point independent of the batch
    best, chosen = energy(z) * (1 + _ROUNDING), z
    undecided = torch.ones(len(z), dtype=torch.bool)
    for length in (1.0, 0.5, 0.25, 0.125):
        tried = z + length * step
        lower = undecided & (energy(tried) <= best)
        chosen = torch.where(lower[:, None], tried, chosen)
        undecided = undecided & ~lower
        if not undecided.any():
            break
    return chosen

"""How much say each modality (or each subset of modalities) has."""
from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .choice import Choice
from .experts import slots


class Weights(Choice, nn.Module, ABC):
    """Nonnegative weights w_m. Only their ratios matter: each subject's weights are renormalised
    over what that subject was measured with."""

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    @abstractmethod
    def forward(self) -> Tensor | None:
        """Weights, shape (n_modalities,) or (n_modalities, n_latent); None: all equal."""

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        """A copy made for these numbers."""
        return copy.deepcopy(self)


class Uniform(Weights):
    """w_m = 1 / M.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> WassersteinBarycenter(weights=Uniform())
    WassersteinBarycenter()
    """

    def forward(self) -> Tensor | None:
        return None


class Given(Weights):
    """Weights fixed beforehand, in the order of the modalities.

    Parameters
    ----------
    values : sequence of float
        Positive; scaled to sum to 1.

    Examples
    --------
    >>> Given([2, 1, 1])()
    tensor([0.5000, 0.2500, 0.2500], dtype=torch.float64)
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values = [float(v) for v in values]
        if not self.values or not all(0 < v < math.inf for v in self.values):
            raise ValueError(f"weights are positive numbers; got {self.values}")
        table = torch.tensor(self.values, dtype=torch.float64)  # rounded to what it weighs
        self.register_buffer("table", table / table.sum(), persistent=False)

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        if len(self.values) != n_modalities:
            raise ValueError(f"{len(self.values)} weights were given for {n_modalities} experts")
        return copy.deepcopy(self)

    def forward(self) -> Tensor:
        return self.get_buffer("table")


class Learned(Weights):
    """w_m = softmax_m(a_m), learned with the model; uniform at the start.

    Parameters
    ----------
    per_dimension : bool
        One weight per modality and latent dimension, w_mk = softmax_m(a_mk).

    Notes
    -----
    Without ``sized(n_modalities, n_latent)``, which a model calls, there is nothing to learn and
    the weights are equal. What a fitted model has learned: ``model.fitted.vae.fusion.weights()``
    (of a ladder, ``.fusions[k].weights()``, the top level first).

    References
    ----------
    Lawry Aguila et al. (2023), MICCAI, doi 10.1007/978-3-031-43907-0_41, for products.

    Examples
    --------
    >>> Learned().sized(2, 3)().tolist()
    [0.5, 0.5]
    """

    def __init__(self, *, per_dimension: bool = False) -> None:
        super().__init__()
        self.per_dimension = per_dimension
        self.logits: nn.Parameter | None = None

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        new = type(self)(per_dimension=self.per_dimension)
        shape = (n_modalities, n_latent) if self.per_dimension else (n_modalities,)
        new.logits = nn.Parameter(torch.zeros(shape))
        return new

    def forward(self) -> Tensor | None:
        return None if self.logits is None else self.logits.softmax(0)


def weighted(experts: Distribution, present: Tensor, weights: Weights
             ) -> tuple[Tensor, Tensor, Tensor]:
    """Loc and scale of the experts with absent slots made harmless, and everyone's weight there.

    The weight broadcasts with loc; it is 0 where a modality is absent, and not normalised.
    """
    loc, scale, keep = slots(experts, present)
    table = weights()
    if table is None:
        return loc, scale, keep.to(loc.dtype)
    if len(table) != len(loc):
        raise ValueError(f"there are {len(table)} weights for {len(loc)} experts")
    each = table.reshape(len(table), 1, *table.shape[1:],
                         *(1 for _ in range(loc.dim() - 1 - table.dim())))
    return loc, scale, keep * each.to(loc.dtype)

"""Which part of the joint latent space each modality speaks of: the linear maps P_m."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from .choice import Choice

# Relative to the largest: maps computed in float32 have rounding of 1e-7 in the place of zeros.
LEAST_SINGULAR_VALUE = 1e-6


class Maps(Choice, nn.Module, ABC):
    """Linear maps P_m from the joint latent space R^d to what modality m can see of it."""

    def __repr__(self) -> str:
        return Choice.__repr__(self)

    @abstractmethod
    def sized(self, n_modalities: int, n_latent: int) -> Self:
        """A copy made for these numbers."""

    @abstractmethod
    def matrices(self) -> Tensor:
        """P_m, shape (n_modalities, n_expert, n_latent)."""

    @abstractmethod
    def check(self, prior_weight: float) -> None:
        """Refuse maps whose barycenter could be degenerate with this weight of the prior expert.

        Raises
        ------
        ValueError
        """


class SharedPrivate(Maps):
    """z = [s | u_1 | … | u_M]: what all modalities share, and a block of each modality's own.

    P_m selects (s, u_m). Experts are as wide as z; of modality m's expert only s and u_m count.

    Parameters
    ----------
    private : int or None
        Dimensions of each private block; None: n_latent // (2 n_modalities), so that at least half
        of the dimensions are shared, but 1 at least if that leaves any to share. With no more
        dimensions than modalities all are shared, and the barycenter is the Wasserstein one.

    Examples
    --------
    >>> SharedPrivate(private=1).sized(2, 4).owned().int()
    tensor([[1, 1, 1, 0],
            [1, 1, 0, 1]], dtype=torch.int32)
    """

    def __init__(self, *, private: int | None = None) -> None:
        super().__init__()
        if private is not None and (not isinstance(private, int) or private < 0):
            raise ValueError(f"private is a whole number, 0 or more; got {private!r}")
        self.private = private
        self.register_buffer("owns", None, persistent=False)
        self.shared = self.width = 0

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        new = type(self)(private=self.private)
        least = int(n_latent > n_modalities)
        new.width = max(least, n_latent // (2 * n_modalities)) if self.private is None \
            else self.private
        new.shared = n_latent - n_modalities * new.width
        if new.shared < 1:
            raise ValueError(f"{n_modalities} private blocks of {new.width} leave {new.shared} of "
                             f"{n_latent} latent dimensions to share; raise n_latent or lower "
                             "private")
        owns = torch.zeros(n_modalities, n_latent, dtype=torch.bool)
        owns[:, :new.shared] = True
        for m in range(n_modalities):
            owns[m, new.block(m)] = True
        new.owns = owns
        return new

    def block(self, m: int) -> slice:
        """Where modality m's private block is."""
        return slice(self.shared + m * self.width, self.shared + (m + 1) * self.width)

    def owned(self) -> Tensor:
        """Which latent dimensions each modality speaks of, bool, (n_modalities, n_latent)."""
        if self.owns is None:
            raise ValueError("sized(n_modalities, n_latent) comes first")
        return self.get_buffer("owns")

    def matrices(self) -> Tensor:
        return torch.diag_embed(self.owned().to(torch.get_default_dtype()))

    def check(self, prior_weight: float) -> None:
        pass  # shared blocks are ordinary barycenters, private ones their owner's: never singular


class LinearMaps(Maps):
    """Maps given as matrices.

    Parameters
    ----------
    values : nested sequence or Tensor, shape (n_modalities, n_expert, n_latent)
        Modalities that see fewer dimensions have rows of zeros.

    Examples
    --------
    >>> LinearMaps([[[1.0, 0.0]], [[0.5, 0.5]]])
    LinearMaps(values=[[[1.0, 0.0]], [[0.5, 0.5]]])
    """

    def __init__(self, values: Sequence[Sequence[Sequence[float]]] | Tensor) -> None:
        super().__init__()
        table = torch.as_tensor(values, dtype=torch.float64)
        if table.dim() != 3 or not torch.isfinite(table).all():
            raise ValueError("maps are finite numbers of shape (n_modalities, n_expert, n_latent);"
                             f" got shape {tuple(table.shape)}")
        self.values = table.tolist()
        self.register_buffer("table", table, persistent=False)

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        table = self.get_buffer("table")
        if (len(table), table.shape[2]) != (n_modalities, n_latent):
            raise ValueError(f"the maps are for {len(table)} modalities and {table.shape[2]} "
                             f"latent dimensions; the model has {n_modalities} and {n_latent}")
        return type(self)(self.values)

    def matrices(self) -> Tensor:
        return self.get_buffer("table")

    def check(self, prior_weight: float) -> None:
        table = self.get_buffer("table")
        ranks = torch.linalg.matrix_rank(table, rtol=LEAST_SINGULAR_VALUE)
        if not prior_weight and bool((ranks < table.shape[2]).any()):
            raise ValueError(
                f"maps of ranks {ranks.tolist()} do not each see all {table.shape[2]} latent "
                "dimensions; their barycenter can be singular, and its KL infinite. Give "
                "prior_weight > 0, .05 for instance")


class LearnedMaps(Maps):
    """Square maps learned with the model, starting at P_m = I.

    Learned maps can lose rank at any step, so the barycenter insists on a prior expert of weight
    0.05 or more.

    Examples
    --------
    >>> LearnedMaps().sized(2, 3).table.shape
    torch.Size([2, 3, 3])
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: nn.Parameter | None = None

    def sized(self, n_modalities: int, n_latent: int) -> Self:
        new = type(self)()
        new.table = nn.Parameter(torch.eye(n_latent).repeat(n_modalities, 1, 1))
        return new

    def matrices(self) -> Tensor:
        if self.table is None:
            raise ValueError("sized(n_modalities, n_latent) comes first")
        return self.table

    def check(self, prior_weight: float) -> None:
        if prior_weight < 0.05:
            raise ValueError("learned maps can lose rank, and the barycenter's KL to the prior "
                             "would be infinite; they need prior_weight of at least 0.05, got "
                             f"{prior_weight}")

"""Whether the innermost layer of a network is taught too, beside its output."""
from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from ..fusion import Choice
from ..fusion.choice import of_type
from .contrastive import Critic, MeanSquare


@dataclass(frozen=True, repr=False)
class Supervision(Choice):
    r"""Contrast of the bottleneck's features, averaged over the patch, beside that of the output.

    .. math:: L = w_{out} L_{out} + w_{in} L_{bottleneck}

    Weights depend on how many of the epochs are done. The published finding is that none of these
    helps registration and that they can collapse dimensions of the bottleneck; by default
    networks are taught by their output only. Three ways are described; which weights and turns
    were used is not known.

    Parameters
    ----------
    critic : Critic
        Of the bottleneck.
    """

    critic: Critic = MeanSquare()

    def __post_init__(self) -> None:
        of_type(self.critic, Critic)

    @abstractmethod
    def weights(self, epoch: int, n_epochs: int) -> tuple[float, float]:
        """(w_out, w_in) of an epoch, the first of which is 0."""


@dataclass(frozen=True, repr=False)
class Summed(Supervision):
    """Both at once.

    >>> Summed(weight=0.5).weights(3, 10)
    (1.0, 0.5)
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight is a number above 0; got {self.weight!r}")

    def weights(self, epoch: int, n_epochs: int) -> tuple[float, float]:
        return 1.0, self.weight


@dataclass(frozen=True, repr=False)
class Alternating(Supervision):
    """By turns, an epoch of the output and an epoch of the bottleneck.

    >>> [Alternating().weights(epoch, 10) for epoch in (0, 1)]
    [(1.0, 0.0), (0.0, 1.0)]
    """

    def weights(self, epoch: int, n_epochs: int) -> tuple[float, float]:
        return (0.0, 1.0) if epoch % 2 else (1.0, 0.0)


@dataclass(frozen=True, repr=False)
class BottleneckFirst(Supervision):
    """The bottleneck for a share of the epochs, then the output.

    >>> [BottleneckFirst(share=0.5).weights(epoch, 10) for epoch in (4, 5)]
    [(0.0, 1.0), (1.0, 0.0)]
    """

    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"share is a number between 0 and 1; got {self.share!r}")

    def weights(self, epoch: int, n_epochs: int) -> tuple[float, float]:
        return (0.0, 1.0) if epoch < self.share * n_epochs else (1.0, 0.0)

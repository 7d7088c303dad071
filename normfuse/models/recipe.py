"""What to build: sizes and settings of a generative model, before it meets data."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..fusion import Aggregator, Alignment, Choice, Learned, Mixture, SharedPrivate
from ..fusion.choice import of_type
from ..networks import Convolutional
from .bounds import Bound, Elbo

if TYPE_CHECKING:
    from .vae import Vae


@dataclass(frozen=True, repr=False)
class Recipe(Choice, ABC):
    """Networks, and what training hides from the encoders.

    Parameters
    ----------
    hidden : tuple of int
        Encoder widths from the features inwards; decoders mirror them. Empty: linear.
    dropout : float
        In hidden layers.
    hide : float
        Probability with which training hides each present modality from the encoder.
    hide_cells : float
        Probability with which training hides each feature from the encoder (the others are scaled
        up). With a few hundred people, encoders otherwise learn their training subjects by heart.
    skip : bool
        Linear path beside every perceptron.
    bound : Bound
        What training maximises: :class:`Elbo`, :class:`StratifiedElbo` or :class:`Iwae`.
    voxels : Convolutional, optional
        Networks of modalities that are images, beside linear paths; None: linear decoders, and
        encoders that read scores along principal axes.
    alignment : Alignment, optional
        Draw the modalities' own posteriors together where they share latent dimensions: one more
        term of the loss, ``"alignment"``, with the warm-up of the KL.
    """

    hidden: tuple[int, ...] = (64,)
    dropout: float = 0.3
    hide: float = 0.5
    hide_cells: float = 0.5
    skip: bool = True
    bound: Bound = Elbo()
    voxels: Convolutional | None = None
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.hidden, list | tuple) or not all(map(is_size, self.hidden)):
            raise ValueError(f"hidden is a tuple of whole numbers above 0; got {self.hidden!r}")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        of_type(self.bound, Bound)
        if self.voxels is not None:
            of_type(self.voxels, Convolutional)
        if self.alignment is not None:
            of_type(self.alignment, Alignment)
        for name in ("dropout", "hide", "hide_cells"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a probability below 1; got {getattr(self, name)!r}")

    @property
    @abstractmethod
    def n_dimensions(self) -> int:
        """Latent dimensions in all; only once :meth:`for_people` has decided them."""

    @abstractmethod
    def for_people(self, n_reference: int) -> Recipe:
        """The recipe with what was left open decided for so many reference people."""

    @abstractmethod
    def resized(self, n_latent: int) -> Recipe:
        """The same recipe with another number of latent dimensions."""

    @abstractmethod
    def build(self, n_features: Mapping[str, int], n_design: int, fusion: Aggregator) -> Vae:
        """A model with fresh weights.

        Parameters
        ----------
        n_features : dict of int
            Modality name -> number of features.
        n_design : int
            Number of covariate columns.
        fusion : Aggregator
        """

    def check(self, fusion: Aggregator) -> None:
        """Refuse combinations that would learn something else than they say."""
        if isinstance(fusion, Mixture) and isinstance(fusion.weights, Learned) \
                and not self.bound.visits_all_components:
            raise ValueError(f"{fusion!r} learns the weights of its components, which "
                             f"{self.bound!r} gives no gradient: it draws one of them. Use "
                             "bound=StratifiedElbo() or Iwae()")
        maps = getattr(fusion.inner if isinstance(fusion, Mixture) else fusion, "maps", None)
        if self.alignment is not None and not isinstance(maps, SharedPrivate | None):
            raise ValueError(f"in {fusion!r} each modality's posterior is of a projection of its "
                             "own, so that they cannot be aligned; take SharedPrivate() maps or "
                             "leave alignment=None")


def is_size(value: object) -> bool:
    """A whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

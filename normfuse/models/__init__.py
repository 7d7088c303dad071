"""Generative models: Pyro ``model``/``guide`` pairs over any aggregator."""
from ..networks import Convolutional
from .batch import Batch
from .bounds import Bound, Elbo, Iwae, StratifiedElbo
from .ladder import Ladder, LadderVAE
from .mvae import Linear, MultimodalVAE, OneLatent
from .noise import Noise
from .objectives import NamedElbo
from .recipe import Recipe
from .vae import Draws, Vae

__all__ = ["Batch", "Bound", "Convolutional", "Draws", "Elbo", "Iwae", "Ladder", "LadderVAE",
           "Linear", "MultimodalVAE", "NamedElbo", "Noise", "OneLatent", "Recipe",
           "StratifiedElbo", "Vae"]

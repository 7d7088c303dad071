"""Generative models: Pyro ``model``/``guide`` pairs over any aggregator."""
from .batch import Batch
from .mvae import Architecture, MultimodalVAE
from .objectives import NamedElbo, latent_kl

__all__ = ["Architecture", "Batch", "MultimodalVAE", "NamedElbo", "latent_kl"]

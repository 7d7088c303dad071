"""Fusing what each modality says about a brain into one posterior.

Every aggregator is a barycenter of the unimodal posteriors under some divergence:

================================  ======================================  ======================
class                             argmin over q                           behaviour
================================  ======================================  ======================
ProductOfExperts                  sum_m KL(q || q_m) + (M - 1) H(q)       precisions add
GeneralizedProductOfExperts       sum_m w_m KL(q || q_m)                  precisions average
MixtureOfExperts                  sum_m w_m KL(q_m || q)                  covers every expert
MomentMatchingBarycenter          the same, over Gaussians only           as wide as they disagree
WassersteinBarycenter             sum_m w_m W2^2(q, q_m)                  sds average
GeneralizedWassersteinBarycenter  sum_m w_m W2^2(q_m, P_m # q)            shared + private parts
SubsetMixture(inner)              mixture of the inner one over subsets   compromise
================================  ======================================  ======================

How much say each modality has is an object (:class:`Uniform`, :class:`Given`, :class:`Learned`),
and so is what happens to an absent one (:class:`Drop`, :class:`SubstitutePrior`).
:class:`Alignment` draws the modalities' posteriors together, as a term of a model's loss.
"""
from .aggregator import Aggregator, CoordinateBarycenter
from .alignment import (Alignment, Anchor, Divergence, KullbackLeibler, ModalityAnchor,
                        PriorAnchor, SquaredWasserstein)
from .bures import bures_barycenter
from .choice import Choice
from .divergences import component_kl, gaussian_kl, mixture_kl_bracket, wasserstein2
from .experts import full, gaussian, sigma_points, stack
from .generalized import GeneralizedWassersteinBarycenter
from .maps import LearnedMaps, LinearMaps, Maps, SharedPrivate
from .missing import Drop, Missing, SubstitutePrior
from .mixture import Mixture, MixtureOfExperts, SubsetMixture, SubsetPosterior, subset_table
from .moment import MomentMatchingBarycenter
from .products import GeneralizedProductOfExperts, ProductOfExperts
from .wasserstein import WassersteinBarycenter
from .weights import Given, Learned, Uniform, Weights

__all__ = [
    "Aggregator", "Alignment", "Anchor", "Choice", "CoordinateBarycenter", "Divergence",
    "Drop", "GeneralizedProductOfExperts", "GeneralizedWassersteinBarycenter", "Given",
    "KullbackLeibler", "Learned", "LearnedMaps", "LinearMaps", "Maps", "Missing", "Mixture",
    "MixtureOfExperts", "ModalityAnchor", "MomentMatchingBarycenter", "PriorAnchor",
    "ProductOfExperts", "SharedPrivate", "SquaredWasserstein", "SubsetMixture",
    "SubsetPosterior", "SubstitutePrior", "Uniform", "WassersteinBarycenter", "Weights",
    "bures_barycenter", "component_kl", "full", "gaussian", "gaussian_kl",
    "mixture_kl_bracket", "sigma_points", "stack", "subset_table", "wasserstein2"]

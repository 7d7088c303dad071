"""Fusing what each modality says about a brain into one posterior.

Every aggregator is a barycenter of the unimodal posteriors under some divergence:

=============================  =========================================  ======================
class                          argmin over q                              behaviour
=============================  =========================================  ======================
ProductOfExperts               sum_m KL(q || q_m) + (M - 1) H(q)          precisions add
GeneralizedProductOfExperts    sum_m w_m KL(q || q_m)                     precisions average
MixtureOfExperts               sum_m w_m KL(q_m || q)                     covers every expert
WassersteinBarycenter          sum_m w_m W2^2(q, q_m)                     sds average
SubsetMixture(inner)           mixture of the inner one over subsets      compromise
=============================  =========================================  ======================
"""
from .aggregator import Aggregator, CoordinateBarycenter
from .experts import gaussian, sigma_points, stack
from .mixture import MixtureOfExperts, SubsetMixture, SubsetPosterior
from .products import GeneralizedProductOfExperts, ProductOfExperts
from .wasserstein import WassersteinBarycenter

__all__ = ["Aggregator", "CoordinateBarycenter", "GeneralizedProductOfExperts",
           "MixtureOfExperts", "ProductOfExperts", "SubsetMixture", "SubsetPosterior",
           "WassersteinBarycenter", "gaussian", "sigma_points", "stack"]

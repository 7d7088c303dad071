"""Every law of AggregatorCase for every aggregator, policy, kind of weights and of covariance."""
from __future__ import annotations

import inspect

import torch

from normfuse import fusion
from normfuse.fusion import (
    Aggregator,
    GeneralizedProductOfExperts,
    GeneralizedWassersteinBarycenter,
    Given,
    Learned,
    LearnedMaps,
    LinearMaps,
    MixtureOfExperts,
    MomentMatchingBarycenter,
    ProductOfExperts,
    SharedPrivate,
    SubsetMixture,
    SubstitutePrior,
    Uniform,
    WassersteinBarycenter,
)
from normfuse.testing import AggregatorCase


class TestProductOfExperts(AggregatorCase):
    idempotent = False

    def make(self) -> Aggregator:
        return ProductOfExperts()


class TestProductWithoutPrior(AggregatorCase):
    idempotent = False

    def make(self) -> Aggregator:
        return ProductOfExperts(prior_expert=False)


class TestFullProduct(TestProductOfExperts):
    full_covariance = True


class TestFullProductWithoutPrior(TestProductWithoutPrior):
    full_covariance = True


class TestGeneralizedProduct(AggregatorCase):
    def make(self) -> Aggregator:
        return GeneralizedProductOfExperts()


class TestGeneralizedProductUniform(AggregatorCase):
    def make(self) -> Aggregator:
        return GeneralizedProductOfExperts(weights=Uniform())


class TestMomentMatching(AggregatorCase):
    def make(self) -> Aggregator:
        return MomentMatchingBarycenter()


class TestMomentMatchingFilled(AggregatorCase):
    drops = False

    def make(self) -> Aggregator:
        return MomentMatchingBarycenter(weights=Learned(), missing=SubstitutePrior())


class TestWasserstein(AggregatorCase):
    def make(self) -> Aggregator:
        return WassersteinBarycenter()


class TestWassersteinFilled(AggregatorCase):
    drops = False

    def make(self) -> Aggregator:
        return WassersteinBarycenter(missing=SubstitutePrior())


class TestWassersteinLearnedPerDimension(AggregatorCase):
    def make(self) -> Aggregator:
        return WassersteinBarycenter(weights=Learned(per_dimension=True))


class TestWassersteinGiven(AggregatorCase):
    symmetric = False

    def make(self) -> Aggregator:
        return WassersteinBarycenter(weights=Given([0.5, 0.3, 0.2]))


class TestFullWasserstein(TestWasserstein):
    full_covariance = True


class TestFullWassersteinFilled(TestWassersteinFilled):
    full_covariance = True


class TestFullWassersteinLearned(AggregatorCase):
    full_covariance = True

    def make(self) -> Aggregator:
        return WassersteinBarycenter(weights=Learned())


class TestGeneralizedWasserstein(AggregatorCase):
    symmetric = False

    def make(self) -> Aggregator:
        return GeneralizedWassersteinBarycenter(SharedPrivate(private=1))


class TestGeneralizedWassersteinAllShared(AggregatorCase):
    def make(self) -> Aggregator:
        return GeneralizedWassersteinBarycenter(SharedPrivate(private=0), weights=Learned())


class TestGeneralizedWassersteinFilled(AggregatorCase):
    symmetric = False
    drops = False

    def make(self) -> Aggregator:
        return GeneralizedWassersteinBarycenter(SharedPrivate(private=1),
                                                missing=SubstitutePrior())


class TestGeneralizedWassersteinWithPrior(AggregatorCase):
    symmetric = False
    idempotent = False

    def make(self) -> Aggregator:
        return GeneralizedWassersteinBarycenter(SharedPrivate(private=1), prior_weight=0.1)


class TestFullGeneralizedWasserstein(TestGeneralizedWasserstein):
    full_covariance = True
    idempotent = False  # private blocks of different modalities are independent given the shared


class TestFullGeneralizedWassersteinFilled(TestGeneralizedWassersteinFilled):
    full_covariance = True
    idempotent = False


class TestGivenMaps(AggregatorCase):
    symmetric = False
    idempotent = False
    spatial = False

    def make(self) -> Aggregator:
        maps = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(5))
        return GeneralizedWassersteinBarycenter(LinearMaps(maps), prior_weight=0.2,
                                                weights=Given([0.5, 0.3, 0.2]))


class TestLearnedMaps(AggregatorCase):
    symmetric = False
    idempotent = False
    spatial = False
    full_covariance = True

    def make(self) -> Aggregator:
        return GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.05)


class TestMixture(AggregatorCase):
    def make(self) -> Aggregator:
        return MixtureOfExperts()


class TestMixtureLearned(AggregatorCase):
    def make(self) -> Aggregator:
        return MixtureOfExperts(weights=Learned())


class TestFullMixture(TestMixture):
    full_covariance = True


class TestMixtureOfProducts(AggregatorCase):
    idempotent = False

    def make(self) -> Aggregator:
        return SubsetMixture(ProductOfExperts(prior_expert=False))


class TestMixtureOfBarycenters(AggregatorCase):
    def make(self) -> Aggregator:
        return SubsetMixture(WassersteinBarycenter())


class TestMixtureOfBarycentersFilled(AggregatorCase):
    """Each subset's component carries the prior of what is not in the subset."""
    symmetric = False
    idempotent = False

    def make(self) -> Aggregator:
        return SubsetMixture(WassersteinBarycenter(missing=SubstitutePrior()), weights=Learned())


class TestMixtureOfGeneralizedProducts(AggregatorCase):
    def make(self) -> Aggregator:
        return SubsetMixture(GeneralizedProductOfExperts())


class TestMixtureOfMomentMatching(AggregatorCase):
    def make(self) -> Aggregator:
        return SubsetMixture(MomentMatchingBarycenter())


class TestMixtureOfBlocks(AggregatorCase):
    symmetric = False
    idempotent = False  # in a component without m, its private block has the prior

    def make(self) -> Aggregator:
        return SubsetMixture(GeneralizedWassersteinBarycenter(SharedPrivate(private=1)))


class TestFullMixtureOfBarycenters(TestMixtureOfBarycenters):
    full_covariance = True


def every_case(base=AggregatorCase):
    for case in base.__subclasses__():
        if case.__module__ == __name__:
            yield case
            yield from every_case(case)


def test_every_aggregator_has_a_case():
    classes = {c for _, c in inspect.getmembers(fusion, inspect.isclass)
               if issubclass(c, Aggregator) and not inspect.isabstract(c)}
    assert classes == {type(case().make()) for case in every_case()}


def test_barycenters_that_drop_what_is_absent_are_anchors_of_alignment():
    assert {case.__name__ for case in every_case() if case().is_anchor()} == {
        "TestGeneralizedProduct", "TestGeneralizedProductUniform", "TestMomentMatching",
        "TestWasserstein", "TestWassersteinLearnedPerDimension", "TestWassersteinGiven",
        "TestFullWasserstein", "TestFullWassersteinLearned"}

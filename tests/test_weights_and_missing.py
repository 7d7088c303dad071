"""Weights, policies for the absent, the weights and draws of mixtures, and saved choices.

Outside witnesses: the literal formulas in NumPy, and finite differences. No witness: draws of the
mixtures, which are checked against their own exact moments.
"""
from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch

from normfuse import fusion
from normfuse.errors import ModelFileError
from normfuse.fusion import (
    Alignment,
    GeneralizedProductOfExperts,
    GeneralizedWassersteinBarycenter,
    Given,
    KullbackLeibler,
    Learned,
    LearnedMaps,
    LinearMaps,
    MixtureOfExperts,
    ModalityAnchor,
    MomentMatchingBarycenter,
    PriorAnchor,
    ProductOfExperts,
    SharedPrivate,
    SquaredWasserstein,
    SubsetMixture,
    SubstitutePrior,
    Uniform,
    WassersteinBarycenter,
    full,
    gaussian,
    subset_table,
)
from normfuse.fusion.experts import moments
from normfuse.choices import choice_from_dict, choice_to_dict

VALUES = np.array([5.0, 2.0, 3.0])
# Rows are modalities, columns four subjects; the last one has nothing.
PRESENT = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]).bool()
SHARES = np.array([[0.5, 5 / 8, 0], [0.2, 0, 1], [0.3, 3 / 8, 0]])  # of VALUES, subjects 0 to 2


def drawn(seed=0, shape=(3, 4, 5), dtype=torch.float64, centre=0.0, whole=False):
    """Gaussians with all different locs and scales."""
    generator = torch.Generator().manual_seed(seed)
    loc = centre + torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)
    if whole:
        mixed = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
        return full(loc, torch.diag_embed(scale) + 0.3 * mixed.tril(-1))
    return gaussian(loc.to(dtype), scale.to(dtype))


def arrays(q):
    return q.mean.detach().numpy(), q.stddev.detach().numpy()


@pytest.mark.parametrize("factor", [1, 7])
def test_given_weights_are_renormalised_over_the_present(factor):
    """To the last digit of float64, which float32 would round."""
    fuse = WassersteinBarycenter(weights=Given(factor * VALUES)).sized(3, 5).double()
    experts = drawn()
    for ours, theirs in zip(arrays(fuse(experts, PRESENT)), arrays(experts)):
        np.testing.assert_allclose(ours[:3], np.einsum("mn,mnk->nk", SHARES, theirs[:, :3]),
                                   rtol=0, atol=1e-15)
        assert len(set(ours[3])) == 1


def test_uniform_weights_are_equal_given_ones():
    experts = drawn()
    q, other = (WassersteinBarycenter(weights=w).sized(3, 5)(experts, PRESENT)
                for w in (Uniform(), Given([4, 4, 4])))
    np.testing.assert_allclose(arrays(q), arrays(other), rtol=0, atol=1e-15)
    assert Uniform()() is None and Uniform().sized(3, 5)() is None


@pytest.mark.parametrize("values", [[], [1, 0], [1, -2], [1, float("nan")], [1, float("inf")]])
def test_weights_that_do_not_weigh_are_refused(values):
    with pytest.raises(ValueError, match="weights are positive numbers; got "):
        Given(values)


def test_the_wrong_number_of_weights_is_refused():
    for fuse in (WassersteinBarycenter(weights=Given([1, 2])),
                 GeneralizedWassersteinBarycenter(weights=Given([1, 2]))):
        with pytest.raises(ValueError, match="2 weights were given for 3 experts"):
            fuse.sized(3, 8)
    with pytest.raises(ValueError, match="3 weights were given for 7 experts"):
        SubsetMixture(WassersteinBarycenter(), weights=Given([1, 2, 3])).sized(3, 5)


@pytest.mark.parametrize("mixture", [MixtureOfExperts, lambda weights: SubsetMixture(
    WassersteinBarycenter(), weights=weights)])
def test_mixtures_refuse_weights_per_dimension(mixture):
    fuse = mixture(weights=Learned(per_dimension=True)).sized(3, 5)
    with pytest.raises(TypeError, match=r"got Learned\(per_dimension=True\)"):
        fuse(drawn(shape=(3, 5, 5)), torch.ones(3, 5, dtype=torch.bool))


def stirred(fuse, seed=1):
    for parameter in fuse.double().parameters():
        generator = torch.Generator().manual_seed(seed)
        parameter.data += torch.randn(parameter.shape, generator=generator).double()
    return fuse


@pytest.mark.parametrize("per_dimension", [False, True])
def test_learned_weights_are_a_softmax_over_the_present(per_dimension):
    fuse = WassersteinBarycenter(weights=Learned(per_dimension=per_dimension)).sized(3, 5)
    assert (fuse.weights() == 1 / 3).all()  # uniform at the start
    logits = stirred(fuse).weights.logits
    raw = np.exp(logits.detach().numpy()).reshape(3, 1, -1) * PRESENT.numpy()[..., None]
    share = raw[:, :3] / raw[:, :3].sum(0)
    experts = drawn()
    q = fuse(experts, PRESENT)
    for ours, theirs in zip(arrays(q), arrays(experts)):
        np.testing.assert_allclose(ours[:3], (share * theirs[:, :3]).sum(0), rtol=0, atol=1e-14)
    # each subject's weights add up to one: the slopes over the modalities add up to none
    slope, = torch.autograd.grad(q.mean.square().sum() + q.stddev.sum(), logits)
    assert (slope.abs() > 1e-4).all() and slope.sum(0).abs().max() < 1e-13


@pytest.mark.parametrize("fuse", [
    MixtureOfExperts(weights=Learned()), SubsetMixture(ProductOfExperts(), weights=Learned()),
    SubsetMixture(GeneralizedWassersteinBarycenter(SharedPrivate(private=1)), weights=Learned())])
def test_learned_mixture_weights_by_finite_differences(fuse):
    """Through log_prob and through stratified draws, with components that some subjects lack."""
    ready, experts = stirred(fuse.sized(3, 5)), drawn()
    logits, points = ready.weights.logits, drawn(2, (4, 5)).mean

    def objectives():
        q = ready(experts, PRESENT)
        torch.manual_seed(3)
        values, weights = q.rsample_stratified(2)
        each = q.log_prob(values) + values.square().sum(-1)
        return q.log_prob(points).sum(), (weights * each).sum()

    with torch.random.fork_rng(devices=[]):
        for k in range(2):
            slope, = torch.autograd.grad(objectives()[k], logits)
            for j in range(len(logits)):
                ends = []
                for step in (1e-5, -1e-5):
                    with torch.no_grad():
                        logits[j] += step
                        ends.append(objectives()[k])
                        logits[j] -= step
                assert slope[j].item() == pytest.approx(
                    (ends[0] - ends[1]).item() / 2e-5, rel=1e-6, abs=1e-8)
            assert (slope.abs() > 1e-4).all()


INNER = [ProductOfExperts(), ProductOfExperts(prior_expert=False), GeneralizedProductOfExperts(),
         WassersteinBarycenter(weights=Given(VALUES)),
         WassersteinBarycenter(missing=SubstitutePrior()),
         MomentMatchingBarycenter(weights=Learned()),
         GeneralizedWassersteinBarycenter(SharedPrivate(private=1), prior_weight=0.1)]


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("inner", INNER)
def test_components_are_the_inner_barycenter_of_each_subset(inner, told):
    """And their weights those of the subsets, renormalised over the subsets of what is there."""
    ready = stirred(SubsetMixture(inner, weights=Learned()).sized(3, 5))
    experts, priors = drawn(), drawn(4) if told else None
    q = ready(experts, PRESENT, priors)
    chance = np.exp(ready.weights.logits.detach().numpy())[:, None] * np.ones(4)
    for k, subset in enumerate(subset_table(3).bool()):
        alone = ready.inner(experts, PRESENT & subset[:, None], priors)
        legal = ((PRESENT | ~subset[:, None]).all(0) | ~PRESENT.any(0)).numpy()
        chance[k] *= legal
        for ours, one in zip(moments(q.components), moments(alone)):
            torch.testing.assert_close(ours[k], one, rtol=0, atol=1e-14)
    np.testing.assert_allclose(q.weights.detach(), chance / chance.sum(0), rtol=1e-14)
    assert (chance > 0).sum(0).tolist() == [7, 3, 1, 7]


@pytest.mark.parametrize("whole", [False, True])
def test_stratified_draws_are_unbiased(whole):
    q = SubsetMixture(WassersteinBarycenter(), weights=Given([1, 2, 3, 4, 5, 6, 7])).sized(3, 5)(
        drawn(whole=whole), PRESENT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        values, weights = q.rsample_stratified(4000)
    torch.testing.assert_close(weights.sum(0), torch.ones(4).double(), rtol=1e-12, atol=0)
    second = q.variance + q.mean ** 2
    for power, exact in ((1, q.mean), (2, second)):
        f = (values ** power).reshape(7, 4000, 4, 5)
        w = weights.reshape(7, 4000, 4)[..., None]
        estimate = (w * f).sum((0, 1))
        error = ((w[:, 0] * 4000) ** 2 * f.var(1) / 4000).sum(0).sqrt()
        assert ((estimate - exact).abs() < 5 * error).all()
        assert (error < 0.06).all()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("fuse", [WassersteinBarycenter, MomentMatchingBarycenter])
def test_policies_for_the_absent(fuse, whole):
    """Drop sees the others only, SubstitutePrior the absent one's prior with its full weight."""
    if whole and fuse is MomentMatchingBarycenter:
        with pytest.raises(TypeError, match="MomentMatchingBarycenter fuses diagonal Gaussians"):
            fuse()(drawn(whole=True), PRESENT)
        return
    experts, priors = drawn(whole=whole), drawn(6, whole=whole)
    build = full if whole else gaussian
    (loc, scale), (rest, extent) = moments(experts), moments(priors)
    for n in range(3):
        kept = PRESENT[:, n]
        alone = fuse(weights=Given(VALUES[kept])).sized(int(kept.sum()), 5)(
            build(loc[kept], scale[kept]), PRESENT[kept])
        q = fuse(weights=Given(VALUES)).sized(3, 5)(experts, PRESENT)
        swapped = [t.clone() for t in (rest, extent)]
        for t, mine in zip(swapped, (loc, scale)):
            t[kept] = mine[kept]
        filled = fuse(weights=Given(VALUES)).sized(3, 5)(build(*swapped), PRESENT | True)
        other = fuse(weights=Given(VALUES), missing=SubstitutePrior()).sized(3, 5)(
            experts, PRESENT, priors)
        for ours, expected in ((q, alone), (other, filled)):
            for t, e in zip(moments(ours), moments(expected)):
                torch.testing.assert_close(t[n], e[n], rtol=0, atol=1e-14)
        assert kept.all() == torch.allclose(q.mean[n], other.mean[n])


def test_a_modality_where_its_prior_is_might_as_well_be_absent():
    """Under SubstitutePrior; mixtures do not say so, their weights change with what is there."""
    for fuse, whole in ((MomentMatchingBarycenter, False), (WassersteinBarycenter, True)):
        ready = fuse(weights=Given(VALUES), missing=SubstitutePrior()).sized(3, 5)
        experts, priors = drawn(whole=whole), drawn(6, whole=whole)
        both = [torch.where(PRESENT.reshape(3, 4, *(1 for _ in mine.shape[2:])), mine, own)
                for mine, own in zip(moments(experts), moments(priors))]
        q = ready(experts, PRESENT, priors)
        other = ready((full if whole else gaussian)(*both), PRESENT | True, priors)
        assert all((a == b).all() for a, b in zip(moments(q), moments(other)))


UNUSUAL = [
    ProductOfExperts(prior_expert=False),
    GeneralizedProductOfExperts(weights=Given([0.1, 1 / 3, 7])),
    WassersteinBarycenter(weights=Learned(per_dimension=True), missing=SubstitutePrior()),
    MomentMatchingBarycenter(weights=Given(VALUES), missing=SubstitutePrior()),
    GeneralizedWassersteinBarycenter(SharedPrivate(private=1), prior_weight=0.07,
                                     weights=Learned(), missing=SubstitutePrior()),
    GeneralizedWassersteinBarycenter(LinearMaps(np.arange(45).reshape(3, 3, 5) / 7),
                                     prior_weight=1 / 3, weights=Given([1, 2, 3])),
    GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.05, weights=Learned()),
    MixtureOfExperts(weights=Given([0.3, 0.3, 0.4])),
    SubsetMixture(GeneralizedWassersteinBarycenter(
        SharedPrivate(private=1), missing=SubstitutePrior(), weights=Given([3, 1, 2])),
        weights=Learned()),
]

ALIGNMENTS = [
    Alignment(ModalityAnchor(2), SquaredWasserstein(), weights=Given([1, 2, 3]), weight=0.3),
    Alignment(PriorAnchor(), KullbackLeibler(), weight=0.3)]


@pytest.mark.parametrize("align", ALIGNMENTS, ids=lambda align: type(align.anchor).__name__)
def test_alignments_are_saved_and_read(align):
    spec = json.loads(json.dumps(choice_to_dict(align)))
    again = choice_from_dict(spec)
    assert repr(again) == repr(align) and choice_to_dict(again) == spec
    one, other = (a.sized(3, 5)(drawn(shape=(3, 4, 5)), PRESENT) for a in (align, again))
    assert torch.equal(one, other) and (one > 0).any()


@pytest.mark.parametrize("fuse", UNUSUAL, ids=lambda fuse: type(fuse).__name__)
def test_choices_are_saved_and_read(fuse):
    """Through JSON text, inner choices and all; what is read fuses as what was saved."""
    spec = json.loads(json.dumps(choice_to_dict(fuse)))
    again = choice_from_dict(spec)
    assert repr(again) == repr(fuse) and choice_to_dict(again) == spec
    maps = getattr(fuse, "maps", None)
    experts = drawn(shape=(3, 4, 3 if isinstance(maps, LinearMaps) else 5))
    one, other = (moments(getattr(q, "components", q)) for q in (
        a.sized(3, 5)(experts, PRESENT) for a in (fuse, again)))
    assert all((a == b).all() for a, b in zip(one, other))
    # its printed form is the code that makes it, without what is so by default
    names = {name: getattr(fusion, name) for name in fusion.__all__}
    assert repr(eval(repr(fuse), names)) == repr(fuse)
    assert repr(SubsetMixture(ProductOfExperts())) == "SubsetMixture(inner=ProductOfExperts())"


def test_every_option_of_every_choice_was_saved():
    """So that a new class or option cannot be forgotten above."""
    def inside(choice):
        yield choice
        for value in choice.options().values():
            if isinstance(value, fusion.Choice):
                yield from inside(value)

    unusual = {}
    for choice in (c for chosen in (*UNUSUAL, *ALIGNMENTS) for c in inside(chosen)):
        default = inspect.signature(type(choice)).parameters
        unusual.setdefault(type(choice), set()).update(
            name for name, value in choice.options().items()
            if repr(value) != repr(default[name].default))
    classes = {c for _, c in inspect.getmembers(fusion, inspect.isclass)
               if issubclass(c, fusion.Choice) and not inspect.isabstract(c)}
    assert set(unusual) | {Uniform} == classes - {fusion.Choice}  # Uniform has no options
    for choice in (c for chosen in (*UNUSUAL, *ALIGNMENTS) for c in inside(chosen)):
        assert unusual[type(choice)] == set(choice.options())


def test_choices_of_others_are_not_read():
    with pytest.raises(ModelFileError, match="made with 'Mine', which normfuse does not know"):
        choice_from_dict({"class": "SubsetMixture", "options": {
            "inner": {"class": "Mine", "options": {}},
            "weights": {"class": "Uniform", "options": {}}}})

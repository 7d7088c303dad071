"""Drawing modalities together: the theory, and where the released code departs from it.

Outside witnesses: the loss of MedMAP's released code, written out; SciPy's quadrature and
minimisers; gradcheck. That each anchor keeps its laws, at image shapes too, is tested in
test_fusion_laws.py; the term of a model's loss in test_alignment_models.py.
"""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

import normfuse as nf
from normfuse.fusion import (Alignment, GeneralizedProductOfExperts,
                             GeneralizedWassersteinBarycenter, Given, KullbackLeibler, Learned,
                             LearnedMaps, MixtureOfExperts, ModalityAnchor,
                             MomentMatchingBarycenter, PriorAnchor, ProductOfExperts,
                             SquaredWasserstein, SubsetMixture, SubstitutePrior, Uniform,
                             WassersteinBarycenter, full, gaussian)
from normfuse.models import Ladder, OneLatent

ANCHORS = (WassersteinBarycenter(), MomentMatchingBarycenter(), PriorAnchor(), ModalityAnchor(1),
           GeneralizedProductOfExperts(weights=Uniform()))
PRESENT = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 0, 0, 1]]).bool()


def features(m=4, n=5, d=6, seed=0):
    return torch.randn(m, n, d, generator=torch.Generator().manual_seed(seed)).double()


def unit(f):
    """Gaussians with variance 1 there."""
    return gaussian(f, torch.ones_like(f))


def everyone(f):
    return torch.ones(f.shape[:2], dtype=torch.bool)


def line():
    """Three Gaussians on the line: locs, sds, and weights."""
    return np.array([-0.7, 0.4, 2.1]), np.array([0.5, 1.3, 0.8]), np.array([0.5, 0.3, 0.2])


def on_the_line(align):
    mu, sd, _ = line()
    experts = gaussian(torch.tensor(mu)[:, None, None], torch.tensor(sd)[:, None, None])
    return align(experts, torch.ones(3, 1, dtype=torch.bool)).item()


# Theory beside the released code (methods 4.2 and 4.3)

@pytest.mark.parametrize("divergence, times", [(SquaredWasserstein(), 1 / 2),
                                               (KullbackLeibler(), 1)])
def test_an_eighth_of_the_squared_errors_is_ours_with_unit_variances(divergence, times):
    f = features()
    released = sum((f[m] - f.mean(0)).square().mean() for m in range(4)) / 8
    ours = Alignment(WassersteinBarycenter(), divergence)(unit(f), everyone(f))
    torch.testing.assert_close(released, times * ours.mean() / f.shape[-1])


def test_the_released_learned_mixture_and_its_gradients_are_ours():
    f, logits = features().requires_grad_(), torch.tensor([0.3, -1.0, 0.8, 0.1]).double()
    logits.requires_grad_()
    mixed = (logits.softmax(0)[:, None, None] * f).sum(0)
    released = sum((f[m] - mixed).square().mean() for m in range(4)) / 8
    align = Alignment(WassersteinBarycenter(weights=Learned()), SquaredWasserstein()).sized(4, 6)
    learned = align.anchor.weights.logits
    learned.data = logits.detach().clone()
    ours = align(unit(f), everyone(f)).mean() / 12
    torch.testing.assert_close(ours, released)
    for a, b in zip(torch.autograd.grad(ours, (f, learned)),
                    torch.autograd.grad(released, (f, logits))):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("anchor", [MomentMatchingBarycenter(weights=Given(line()[2])),
                                    GeneralizedProductOfExperts(weights=Given(line()[2])),
                                    PriorAnchor()])
def test_compensation_identity(anchor):
    """sum w KL(q_m || P) = sum w KL(q_m || qbar) + KL(qbar || P), the right side by quadrature."""
    mu, sd, w = line()
    align = Alignment(anchor, weights=Given(w))
    parts = [stats.norm(m, s) for m, s in zip(mu, sd)]
    if isinstance(anchor, PriorAnchor):
        p = stats.norm(0, 1)
    else:
        q = anchor(gaussian(torch.tensor(mu)[:, None, None], torch.tensor(sd)[:, None, None]),
                   torch.ones(3, 1, dtype=torch.bool))
        p = stats.norm(q.mean.item(), q.stddev.item())

    def mixture(x):
        return sum(wm * part.pdf(x) for wm, part in zip(w, parts))

    def integral(f):
        return integrate.quad(f, -15, 15, points=[*mu], limit=300)[0]

    within = sum(wm * integral(lambda x: part.pdf(x) * (part.logpdf(x) - np.log(mixture(x))))
                 for wm, part in zip(w, parts))
    between = integral(lambda x: mixture(x) * (np.log(mixture(x)) - p.logpdf(x)))
    assert on_the_line(align) == pytest.approx(within + between, abs=1e-8)
    assert within < stats.entropy(w)  # the generalised Jensen-Shannon divergence


@pytest.mark.parametrize("divergence, best", [
    (KullbackLeibler(), MomentMatchingBarycenter), (SquaredWasserstein(), WassersteinBarycenter)])
def test_the_best_gaussian_anchor_is_the_divergences_own_barycenter(divergence, best):
    mu, sd, w = line()

    def value(anchor):
        m, s = anchor[0], np.exp(anchor[1])
        if isinstance(divergence, KullbackLeibler):
            return w @ (np.log(s / sd) + (sd ** 2 + (mu - m) ** 2) / (2 * s ** 2) - 0.5)
        return w @ ((mu - m) ** 2 + (sd - s) ** 2)

    found = optimize.minimize(value, [0.0, 0.0], tol=1e-12)
    ours = on_the_line(Alignment(best(weights=Given(w)), divergence, weights=Given(w)))
    assert ours == pytest.approx(found.fun, abs=1e-7)
    other = {MomentMatchingBarycenter: WassersteinBarycenter}.get(best, MomentMatchingBarycenter)
    assert on_the_line(Alignment(other(weights=Given(w)), divergence, weights=Given(w))) \
        > found.fun + 1e-3


@pytest.mark.parametrize("anchor", [*ANCHORS, WassersteinBarycenter(weights=Learned())])
def test_training_and_prediction_weigh_modalities_alike(anchor):
    """The released code weighs features at prediction, and not in training."""
    align, f = Alignment(anchor).sized(3, 6), features(3)
    first = align.train()(gaussian(f, f.exp()), PRESENT)
    assert torch.equal(first, align.eval()(gaussian(f, f.exp()), PRESENT))


def test_a_single_modality_is_fused_as_it_is():
    """The released code multiplies it by its weight among all."""
    f = features(3)
    for fusion in (WassersteinBarycenter(weights=Learned()), MomentMatchingBarycenter()):
        fuse = fusion.sized(3, 6).double()
        for parameter in fuse.parameters():
            parameter.data = torch.tensor([2.0, -1.0, 0.5]).double()
        q = fuse(gaussian(f, f.exp()), torch.tensor([[False], [True], [False]]).expand(3, 5))
        torch.testing.assert_close(q.mean, f[1])
        torch.testing.assert_close(q.stddev, f[1].exp())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("divergence", [KullbackLeibler(), SquaredWasserstein()])
@pytest.mark.parametrize("anchor", [PriorAnchor(), ModalityAnchor(1)])
def test_what_is_absent_is_not_filled_in(anchor, divergence, whole):
    """The released code puts the mixture of all modalities there. Barycenters: in their laws."""
    loc, scale = features(3, d=2), 0.3 + features(3, d=2, seed=1).exp()
    if whole:
        scale = torch.diag_embed(scale) + 0.4 * torch.ones(2, 2).double().tril(-1)
    made = full if whole else gaussian
    align = Alignment(anchor, divergence)
    expected = align(made(loc, scale), PRESENT)
    target = [torch.where(PRESENT.reshape(3, 5, *(1,) * (t.dim() - 2)), t, torch.nan
                          ).requires_grad_() for t in (loc, scale)]
    found = align(made(*target), PRESENT)
    assert torch.equal(found, expected) and (found >= 0).all()
    found.sum().backward()
    for t in target:
        assert (t.grad[~PRESENT] == 0).all() and t.grad.isfinite().all()
    if isinstance(anchor, ModalityAnchor):
        assert (found[~PRESENT[1]] == 0).all() and (found[1:] == 0).sum() == 3
    else:  # one modality has a distance to the prior, nobody's is 0
        torch.testing.assert_close(found[2], divergence(
            made(loc[1, 2], scale[1, 2]),
            made(torch.zeros(2).double(), torch.eye(2).double() if whole else torch.ones(2))))
    sigma = scale.detach()
    assert torch.autograd.gradcheck(lambda mu, s: align(made(mu, s.tril() if whole else s),
                                                        PRESENT), (loc.requires_grad_(),
                                                                   sigma.requires_grad_()))


def test_learned_weights_stay_on_the_simplex_and_are_renormalised_over_the_present():
    f = features(3)
    align = Alignment(WassersteinBarycenter(weights=Learned())).sized(3, 6).double()
    adam = torch.optim.Adam(align.parameters(), 0.5)
    scales = torch.tensor([0.2, 1.0, 3.0]).double()[:, None, None].expand_as(f)
    start = align(gaussian(f, scales), everyone(f)).mean().item()
    for _ in range(30):
        adam.zero_grad()
        loss = align(gaussian(f, scales), everyone(f)).mean()
        loss.backward()
        adam.step()
        w = align.anchor.weights()
        assert (w > 0).all() and w.sum().item() == pytest.approx(1, abs=1e-12)
    assert loss < 0.9 * start and w[2] > 0.5  # KL to a barycenter of W2: it pays to be wide
    some = align.anchor(gaussian(f, scales), PRESENT)
    torch.testing.assert_close(some.mean[1], (w[0] * f[0, 1] + w[2] * f[2, 1]) / (w[0] + w[2]))


@pytest.mark.parametrize("divergence, own, other", [
    (KullbackLeibler(), MomentMatchingBarycenter, WassersteinBarycenter),
    (SquaredWasserstein(), WassersteinBarycenter, MomentMatchingBarycenter)])
def test_equal_weights_are_the_best_of_a_divergences_own_barycenter(divergence, own, other):
    """So a learned mixture under the released squared errors has nothing to learn."""
    f = features(3)
    slopes = []
    for anchor in (own, other):
        align = Alignment(anchor(weights=Learned()), divergence).sized(3, 6).double()
        align(gaussian(f, f.exp()), PRESENT).sum().backward()
        slopes.append(align.anchor.weights.logits.grad.abs().max().item())
    assert slopes[0] < 1e-10 < 1e-2 < slopes[1]


def test_no_variance_collapses_onto_the_error():
    """The released normal anchor has ((m - f)^2 / v + v) / 2: least at v = |m - f|, no log there.
    Of the KL the best v is E[s^2 + (m - f)^2], which never falls below the experts' own."""
    f, s, m = np.array([0.3, -0.01, 2.0]), np.array([0.6, 0.9, 0.7]), 0.0
    for one in f:
        released = optimize.minimize_scalar(lambda v: ((m - one) ** 2 / v + v) / 2,
                                            bounds=(1e-9, 9), method="bounded",
                                            options={"xatol": 1e-9})
        assert released.x == pytest.approx(abs(m - one), abs=1e-4)
    q = gaussian(torch.tensor(f)[:, None], torch.tensor(s)[:, None])

    def ours(v):
        anchor = gaussian(torch.full((3, 1), m).double(), torch.full((3, 1), v ** 0.5).double())
        return KullbackLeibler()(q, anchor).mean().item()

    best = optimize.minimize_scalar(ours, bounds=(1e-3, 9), method="bounded",
                                    options={"xatol": 1e-9})
    assert best.x == pytest.approx((s ** 2 + (m - f) ** 2).mean(), abs=1e-5)


# What it takes

@pytest.mark.parametrize("anchor, said", [
    (ProductOfExperts(), "sharper than its experts"), (MixtureOfExperts(), "with one Gaussian"),
    (SubsetMixture(WassersteinBarycenter()), "with one Gaussian"), ("t1", "ModalityAnchor"),
    (GeneralizedWassersteinBarycenter(), "take that as anchor"),
    (WassersteinBarycenter(missing=SubstitutePrior()), "leave SubstitutePrior\\(\\)")])
def test_anchors_that_break_its_laws_are_refused(anchor, said):
    with pytest.raises(TypeError, match=said):
        Alignment(anchor)


def test_other_nonsense_is_refused():
    anchor = WassersteinBarycenter()
    for weight in (-0.1, float("nan"), float("inf"), True, "much"):
        with pytest.raises(ValueError, match="weight is a number from 0 on"):
            Alignment(anchor, weight=weight)
    with pytest.raises(TypeError, match="KullbackLeibler, SquaredWasserstein"):
        Alignment(anchor, "kl")
    with pytest.raises(TypeError, match="all would go to the modality nearest"):
        Alignment(anchor, weights=Learned())
    for position in (-1, 1.0, True):
        with pytest.raises(ValueError, match="whole number from 0 on"):
            ModalityAnchor(position)
    f = features(2)
    for found in (Alignment(ModalityAnchor(2)), Alignment(anchor, weights=Given([1, 2, 3]))):
        with pytest.raises(ValueError, match="(position 2 among 2|3 weights (were given )?for 2)"):
            found(unit(f), everyone(f))
        with pytest.raises(ValueError, match="(position 2 among 2|3 weights (were given )?for 2)"):
            found.sized(2, 6)
    with pytest.raises(TypeError, match="diagonal Gaussians only"):
        whole = full(f, torch.eye(6).double().expand(2, 5, 6, 6))
        Alignment(MomentMatchingBarycenter())(whole, everyone(f))
    for recipe in (OneLatent, Ladder):
        with pytest.raises(TypeError, match="Alignment"):
            recipe(alignment=WassersteinBarycenter())
        with pytest.raises(ValueError, match="projection of its own"):
            nf.NormativeModel(GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.1),
                              model=recipe(alignment=Alignment(anchor)))

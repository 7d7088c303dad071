"""Drawing modalities together: theory, the released code it came from, and models' losses.

Outside witnesses: the loss of MedMAP's released code, written out; SciPy's quadrature and
minimisers; Pyro's Trace_ELBO and TraceMeanField_ELBO with a factor in the guide; gradcheck. That
each anchor keeps its laws, at image shapes too, is tested in test_fusion_laws.py. No witness:
whether it pays (benchmarks/drawing_together.py measures).
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from scipy import integrate, optimize, stats

import normfuse as nf
from normfuse.citations import cite
from normfuse.fusion import (Alignment, GeneralizedProductOfExperts,
                             GeneralizedWassersteinBarycenter, Given, KullbackLeibler, Learned,
                             LearnedMaps, MixtureOfExperts, ModalityAnchor,
                             MomentMatchingBarycenter, PriorAnchor, ProductOfExperts,
                             SharedPrivate, SquaredWasserstein, SubsetMixture, SubstitutePrior,
                             Uniform, WassersteinBarycenter, full, gaussian, gaussian_kl)
from normfuse.inference import Amortised
from normfuse.kinds import Covariates
from normfuse.models import (Batch, Elbo, Iwae, Ladder, Linear, MultimodalVAE, NamedElbo,
                             OneLatent, StratifiedElbo)
from normfuse.testing import tiny_cohort, tiny_deviations
from normfuse.training import TrainingPlan, fit

ANCHORS = (WassersteinBarycenter(), MomentMatchingBarycenter(), PriorAnchor(), ModalityAnchor(1),
           GeneralizedProductOfExperts(weights=Uniform()))
WIDTHS = {"t1": 4, "dti": 5, "pet": 6}
PRESENT = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 0, 0, 1]]).bool()
BLOCKS = GeneralizedWassersteinBarycenter(SharedPrivate(private=1))


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
    (BLOCKS, "take that as anchor"),
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


# As a term of a model's loss

def toy(recipe, fusion=WassersteinBarycenter(), n=5):
    torch.manual_seed(5)
    recipe = replace(recipe, hidden=(8,), dropout=0.0, hide_cells=0.0)
    vae = recipe.build(WIDTHS, 2, fusion).double().eval()
    for name, p in vae.named_parameters():
        if "alignments" not in name:
            p.data += 0.15 * torch.randn(p.shape).double() * p.requires_grad
    present = PRESENT[:, torch.arange(n) % 5]
    x = tuple(torch.randn(n, w).double() * there[:, None]
              for w, there in zip(WIDTHS.values(), present))
    measured = tuple(there[:, None].expand_as(block) for block, there in zip(x, present))
    return vae, Batch(x, measured, present, torch.randn(n, 2).double())


def recipes(weight=0.7, **options):
    align = Alignment(MomentMatchingBarycenter(weights=Learned()), weight=weight)
    return (OneLatent(n_latent=5, alignment=align, **options),
            Ladder(levels=(5, 4), alignment=align, **options))


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("kind", [0, 1])
def test_it_is_pyros_elbo_with_a_factor_in_the_guide(kind, elbo):
    vae, batch = toy(recipes(hide=0.0)[kind])
    plain = toy(replace(recipes(hide=0.0)[kind], alignment=None))[0]
    plain.load_state_dict(vae.state_dict(), strict=False)

    def with_factor(batch, fused):
        """The guide of a model without, and the levels' alignments at its draws."""
        plain.guide(batch, fused)
        torch.manual_seed(1)  # the draws that the guide made
        if kind == 0:
            apart = vae.alignments[0](vae.experts(batch), batch.present)
        else:
            told, z, apart = vae.told(batch), torch.zeros(5, 0).double(), 0.0
            for k in range(2):
                apart = apart + vae._apart(k, z, told) / 0.7
                z = torch.cat([z, vae.level(k, z, told).posterior.rsample()], -1)
        pyro.factor("align", +0.7 * apart.sum(), has_rsample=True)

    def found(model, guide):
        torch.manual_seed(1)
        vae.zero_grad()
        with pyro.validation_enabled(False):
            loss = elbo().differentiable_loss(model, guide, batch, batch.present)
        loss.backward()
        return loss.item() / 5

    expected = found(plain.model, with_factor)
    theirs = [encoder.net[0].weight.grad for encoder in vae.encoders]  # of the factor alone
    assert found(vae.model, vae.guide) == pytest.approx(expected, abs=1e-10)
    assert any(g.abs().max() > 1e-3 for g in theirs)
    torch.manual_seed(1)
    with torch.no_grad(), pyro.validation_enabled(False):
        terms = NamedElbo().terms(vae.model, vae.guide, batch, batch.present)[0]
        torch.manual_seed(1)
        bare = NamedElbo().terms(plain.model, plain.guide, batch, batch.present)[0]
    assert list(terms) == [*bare, "alignment"] or set(terms) == {*bare, "alignment"}
    assert all(torch.equal(terms[name], bare[name]) for name in bare)
    if elbo is TraceMeanField_ELBO:  # analytic KLs, as ours
        assert sum(terms.values()).item() == pytest.approx(expected, abs=1e-10)


BOUNDS = (Elbo(), StratifiedElbo(), StratifiedElbo(mixture_density=True), Iwae(draws=3))


@pytest.mark.parametrize("fusion", [WassersteinBarycenter(), SubsetMixture(ProductOfExperts())])
def test_every_bound_has_the_same_term_times_weight_and_warmup(fusion):
    expected = None
    for bound in BOUNDS:
        vae, batch = toy(recipes(bound=bound)[0], fusion)
        literal = 0.7 * vae.alignments[0](vae.experts(batch), batch.present).mean()
        expected = literal if expected is None else expected
        for training in (True, False):
            for warmup in (1.0, 0.5):
                found = vae.train(training).loss(batch, warmup)["alignment"]
                torch.testing.assert_close(found, warmup * expected)


@pytest.mark.parametrize("bound", BOUNDS)
def test_ladders_are_aligned_at_every_level_by_every_bound(bound):
    for fusion in (WassersteinBarycenter(), SubsetMixture(WassersteinBarycenter())):
        vae, batch = toy(recipes(bound=bound)[1], fusion, 200)
        batch = replace(batch, x=tuple(x[:5].repeat(40, 1) for x in batch.x),
                        design=batch.design[:5].repeat(40, 1))
        with torch.no_grad():
            torch.manual_seed(0)
            found = torch.stack([vae.loss(batch)["alignment"] for _ in range(10)])
            top = vae._apart(0, torch.zeros(200, 0).double(), vae.told(batch)).mean()
            vae.alignments[1].weight = 0.0
            torch.testing.assert_close(vae.loss(batch)["alignment"], top)
        lower = found - top  # over draws of what is above
        assert lower.min() > 0.01 and lower.std() < 0.1 * lower.mean()


def test_levels_are_aligned_in_units_of_their_prior():
    """KL(q_m || p) of the level, whose prior has another place and width than N(0, I)."""
    vae, batch = toy(Ladder(levels=(5, 4), alignment=Alignment(PriorAnchor(), weight=1.0)))
    above, told = torch.randn(5, 4).double(), vae.told(batch)
    experts, _, prior = vae._experts(1, above, told)
    literal = gaussian_kl(experts, prior.expand((3, 5)))
    expected = (literal * PRESENT).sum(0) / PRESENT.sum(0)
    torch.testing.assert_close(vae._apart(1, above, told), expected)
    assert not torch.allclose(prior.stddev, torch.ones(5, 5).double(), atol=0.1)


def private_slopes(vae, batch, owned):
    """Gradients of the term to what encoders say of private and of shared dimensions."""
    vae.train()
    torch.manual_seed(0)
    vae.loss(batch)["alignment"].backward()
    shared, n = owned.all(0), vae.n_dimensions
    for encoder in vae.encoders:
        for weight in (encoder.net[-1].weight, encoder.net[-1].bias, encoder.skip.weight):
            rows = weight.grad[:2 * n] if len(weight) > n else weight.grad
            for part in rows.split(n):
                yield part[~shared], part[shared]


@pytest.mark.parametrize("recipe", [
    *recipes(), OneLatent(n_latent=5, full_covariance=True,
                          alignment=Alignment(WassersteinBarycenter(), weight=1))])
@pytest.mark.parametrize("fusion", [BLOCKS, SubsetMixture(BLOCKS)])
def test_private_dimensions_never_see_it(recipe, fusion):
    vae, batch = toy(recipe, fusion)
    assert all(len(align.shared) < width for align, width in
               zip(vae.alignments, getattr(vae, "widths", [5])))
    slopes = list(private_slopes(vae, batch, vae.owned()))
    assert len(slopes) == 3 * 5
    for private, shared in slopes:
        assert private.numel() and (private == 0).all() and (shared != 0).any()


def test_somebody_with_one_modality_adds_nothing():
    for recipe in recipes():
        vae, batch = toy(recipe)
        lonely = batch.take(torch.tensor([2, 4]))
        term = vae.loss(lonely)["alignment"]
        assert term == 0 and vae.loss(batch)["alignment"] > 0.01


@pytest.mark.parametrize("bound", [Elbo(), StratifiedElbo(), Iwae(draws=2)])
@pytest.mark.parametrize("kind", [0, 1])
def test_without_weight_it_trains_bit_for_bit_as_without_it(kind, bound):
    plan = TrainingPlan(max_epochs=3, warmup=1, batch_size=8, validation_draws=2,
                        progress=False)
    weights, losses = [], []
    for weight in (None, 0.0):
        recipe = recipes(weight or 0.0, bound=bound)[kind]
        recipe = recipe if weight is not None else replace(recipe, alignment=None)
        vae, batch = toy(replace(recipe, hide=0.5), n=20)
        vae.float()
        history = fit(vae, batch.to(torch.float32), batch.to(torch.float32), plan)
        weights.append({k: v for k, v in vae.state_dict().items() if "alignment" not in k})
        losses.append(history.table["validation"].tolist())
    assert losses[0] == losses[1]
    assert all(torch.equal(weights[1][k], v) for k, v in weights[0].items())


def test_training_draws_modalities_together():
    plan = TrainingPlan(max_epochs=8, warmup=1, batch_size=8, validation_draws=1,
                        learning_rate=0.02, progress=False)
    measure, apart = Alignment(WassersteinBarycenter(), SquaredWasserstein()), []
    for weight in (0.0, 30.0):
        vae, batch = toy(replace(recipes(weight)[0], hide=0.5), n=40)
        fit(vae.float(), batch.to(torch.float32), batch.to(torch.float32), plan)
        with torch.no_grad():
            apart.append(measure(vae.experts(batch.to(torch.float32)), batch.present).mean())
    assert apart[1] < 0.5 * apart[0]


@pytest.fixture(scope="module")
def model():
    align = Alignment(WassersteinBarycenter(weights=Learned()), weights=Given([3, 2, 1]),
                      weight=2)
    plan = TrainingPlan(max_epochs=3, warmup=1, progress=False)
    return nf.NormativeModel(model=Linear(n_latent=2, alignment=align), inference=Amortised(),
                             plan=plan, calibration=nf.HeldOut(),
                             kinds=(Covariates(),)).fit(tiny_cohort(60).reference_subjects())


def test_it_is_saved_with_the_model_and_said_of_it(model, tmp_path):
    model.save(tmp_path / "model")
    again = nf.NormativeModel.load(tmp_path / "model")
    assert repr(again) == repr(model) and "alignment=Alignment(" in repr(again)
    mine, theirs = (m.fitted.vae.state_dict() for m in (model, again))
    assert mine.keys() == theirs.keys() and "alignments.0.anchor.weights.logits" in mine
    assert all(torch.equal(theirs[k], v) for k, v in mine.items())
    assert mine["alignments.0.anchor.weights.logits"].abs().max() > 0
    batch = model.fitted.vae, again.fitted.vae
    assert torch.equal(*(vae.alignments[0].weights() for vae in batch))
    assert (model.history["alignment"] > 0).all()
    terms = model.history.drop(columns=["epoch", "training", "validation"])
    np.testing.assert_allclose(terms.sum(axis=1), model.history["validation"])
    said = again.citation()
    assert "In training their posteriors were drawn towards the 2-Wasserstein barycenter of " \
        "them (with learned weights): the mean Kullback-Leibler divergence was added to the " \
        "loss with a weight of 2 (Liu et al. (2024), arXiv:2408.09465" in said.text
    assert "@article{liu2024," in said.bibtex


@pytest.mark.parametrize("align, said", [
    (Alignment(PriorAnchor(), SquaredWasserstein()),
     "towards the prior: the mean squared 2-Wasserstein distance was added to the loss with a "
     "weight of 0.1"),
    (Alignment(ModalityAnchor(1)), "towards that of pet: the mean Kullback"),
    (Alignment(MomentMatchingBarycenter()), "towards one Gaussian with the moments of their mix")])
def test_the_methods_paragraph_names_the_anchor(align, said):
    reference = tiny_deviations().reference
    assert "drawn towards" not in cite(reference).text
    choices = {"alignment": repr(align), "alignment_weight": f"{align.weight:g}"}
    assert said in cite(replace(reference, choices=choices)).text


def test_a_model_without_it_has_no_such_term():
    vae, batch = toy(OneLatent(n_latent=5))
    assert isinstance(vae, MultimodalVAE) and "alignment" not in vae.loss(batch)
    assert not [k for k in vae.state_dict() if "alignment" in k]

"""Alignment as a term of models' losses: one latent vector and ladders, every bound.

Outside witnesses: Pyro's Trace_ELBO and TraceMeanField_ELBO with a factor in the guide; the term
written out at the draws. Its own laws: test_alignment.py, test_fusion_laws.py. No witness: whether
it pays (benchmarks/drawing_together.py measures).
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import normfuse as nf
from normfuse.citations import cite
from normfuse.fusion import (Alignment, GeneralizedWassersteinBarycenter, Given, Learned,
                             ModalityAnchor, MomentMatchingBarycenter, PriorAnchor,
                             ProductOfExperts, SharedPrivate, SquaredWasserstein, SubsetMixture,
                             WassersteinBarycenter, gaussian_kl)
from normfuse.inference import Amortised
from normfuse.kinds import Covariates
from normfuse.models import (Batch, Elbo, Iwae, Ladder, Linear, MultimodalVAE, NamedElbo,
                             OneLatent, StratifiedElbo)
from normfuse.testing import tiny_cohort, tiny_deviations
from normfuse.training import TrainingPlan, fit

WIDTHS = {"t1": 4, "dti": 5, "pet": 6}
PRESENT = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 0, 0, 1]]).bool()
BLOCKS = GeneralizedWassersteinBarycenter(SharedPrivate(private=1))


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
    assert set(terms) == {*bare, "alignment"}
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

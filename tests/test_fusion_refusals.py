"""Bad input to fusions is refused where it is given, and says what was expected."""
from __future__ import annotations

import pytest
import torch

import normfuse as nf
from normfuse.errors import CalibrationError
from normfuse.fusion import (GeneralizedWassersteinBarycenter, Given, LearnedMaps, Learned,
                             ProductOfExperts, SharedPrivate, SubsetMixture, WassersteinBarycenter,
                             bures_barycenter, full, gaussian, stack)
from normfuse.inference import Refined
from normfuse.models import Batch, OneLatent
from normfuse.testing import tiny_cohort

ZERO, ONE = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
ALL = torch.ones(3, 4, dtype=torch.bool)


@pytest.mark.parametrize("make, message", [
    (lambda: WassersteinBarycenter(weights=[2, 1]), r"Weights.*got \[2, 1\].*Given, Learned"),
    (lambda: WassersteinBarycenter(missing="prior"), "Missing.*got 'prior'.*SubstitutePrior"),
    (lambda: GeneralizedWassersteinBarycenter(weights="learned"), "Weights"),
    (lambda: OneLatent(bound="iwae"), "Bound.*got 'iwae'.*Elbo, Iwae"),
    (lambda: nf.NormativeModel(inference="amortised"), "Inference.*Amortised, Refined"),
    (lambda: SubsetMixture("poe"), "needs a barycenter"),
])
def test_objects_are_asked_for_where_words_were_given(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_two_latent_sizes_are_one_too_many():
    with pytest.raises(ValueError, match="n_latent is 4 and the model has n_latent=5"):
        nf.NormativeModel(n_latent=4, model=OneLatent(n_latent=5))


def test_scales_are_sds_and_cholesky_factors():
    with pytest.raises(ValueError, match="not negative; got -1"):
        gaussian(ZERO, -ONE)
    covariance = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="give torch.linalg.cholesky"):
        full(torch.zeros(2), covariance)
    absent = torch.full((2, 2), torch.nan)
    assert full(torch.zeros(2), absent) and gaussian(torch.zeros(2), absent[0])


def test_experts_and_present_fit_each_other():
    experts = gaussian(ZERO, ONE)
    with pytest.raises(TypeError, match="boolean torch.Tensor; got Tensor of torch.float32"):
        WassersteinBarycenter()(experts, ALL.float())
    with pytest.raises(TypeError, match="got ndarray of bool"):
        ProductOfExperts()(experts, ALL.numpy())
    with pytest.raises(ValueError, match="2 weights for 3 experts"):
        WassersteinBarycenter(weights=Given([1, 2]))(experts, ALL)
    with pytest.raises(ValueError, match="all diagonal or all full"):
        stack([gaussian(ZERO[0], ONE[0]), full(ZERO[0], torch.eye(2).expand(4, 2, 2))])


def test_covariances_have_no_negative_weights():
    with pytest.raises(ValueError, match="weights are not negative; got -1"):
        bures_barycenter(torch.eye(2).expand(2, 2, 2), torch.tensor([-1.0, 2.0]))


@pytest.mark.parametrize("n_latent, width", [(7, 1), (5, 1), (4, 0), (16, 2)])
def test_every_modality_keeps_something_of_its_own_if_there_is_room(n_latent, width):
    blocks = SharedPrivate().sized(4, n_latent)
    assert blocks.width == width and blocks.shared >= 1


def test_weights_that_nothing_sized_are_equal():
    experts = gaussian(torch.randn(3, 4, 2), ONE)
    torch.testing.assert_close(WassersteinBarycenter(weights=Learned())(experts, ALL).mean,
                               WassersteinBarycenter()(experts, ALL).mean)


def test_refined_inference_serves_ladders_whose_priors_are_found_by_iteration():
    """Forward mode cannot pass the iteration; central differences find the same mode."""
    torch.manual_seed(0)
    fusion = GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.1)
    vae = nf.Ladder(levels=(2, 1), hidden=()).build({"a": 3, "b": 4}, 0, fusion)
    vae.double().requires_grad_(False).eval()
    batch = Batch((torch.randn(3, 3).double(), torch.randn(3, 4).double()), (None, None),
                  torch.ones(2, 3, dtype=torch.bool), torch.zeros(3, 0).double())
    assert not vae.forward_mode
    mode = Refined(steps=12).posterior(vae, batch).mean.requires_grad_()
    energy = 0.5 * mode.square().sum() + sum(
        0.5 * ((x - mean) / sd).square().sum() for x, mean, sd
        in zip(batch.x, vae.decode(mode, batch.design), vae.noise_sd))
    assert torch.autograd.grad(energy, mode)[0].abs().max() < 1e-4


def test_ladders_are_told_of_smaller_levels():
    controls = tiny_cohort(60, seed=1).reference_subjects()
    with pytest.raises(CalibrationError, match="smaller levels of a Ladder"):
        nf.NormativeModel(model=nf.Ladder(levels=(40, 12))).fit(controls)


def test_people_of_the_training_are_too_probable_and_that_is_said():
    controls = tiny_cohort(60, seed=1).reference_subjects()
    plan = nf.TrainingPlan(max_epochs=3, warmup=1, progress=False)
    model = nf.NormativeModel(n_latent=2, plan=plan, calibration=nf.HeldOut()).fit(controls)
    with pytest.warns(UserWarning, match="were used to train this model: they are too probable"):
        model.log_likelihood(controls)

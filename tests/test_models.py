"""The generative model, its objective and its inference.

Outside witnesses: objectives and exact linear-Gaussian posteriors in
../shared/peers/peer_fixtures.json (multivae 1.0.3; NumPy algebra), Pyro's own ELBO, closed-form KL
by Monte Carlo, and the exact log p(x) as an upper bound.
"""
from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.distributions import Normal

from normfuse.errors import CohortError
from normfuse.fusion import (
    MixtureOfExperts,
    ProductOfExperts,
    SubsetMixture,
    WassersteinBarycenter,
    component_kl,
    gaussian,
)
from normfuse.inference import Amortised, Energy, Refined
from normfuse.modality import Modality
from normfuse.models import Batch, MultimodalVAE, NamedElbo, OneLatent
from normfuse.models.vae import hide_some

NAMES = ("m1", "m2", "m3")
LINEAR = OneLatent(n_latent=2, hidden=(), hide=0.0, hide_cells=0.0, dropout=0.0)


class FixedEncoder(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = {k: torch.tensor(v, dtype=torch.float64) for k, v in p.items()}

    def forward(self, x, design):
        logvar = x @ self.p["B"].T + self.p["b"]
        return gaussian(x @ self.p["A"].T + self.p["a"], (0.5 * logvar).exp())


class FixedDecoder(FixedEncoder):
    def forward(self, z, design):
        return z @ self.p["C"].T + self.p["c"]


@pytest.fixture
def peer(peer_fixtures, monkeypatch):
    """The peers' networks in our model, with sampling noise forced to zero."""
    given = peer_fixtures["input"]
    vae = MultimodalVAE({m: len(given["params"][m]["c"]) for m in NAMES}, 0, ProductOfExperts(),
                        LINEAR).double().eval()
    for k, m in enumerate(NAMES):
        vae.encoders[k] = FixedEncoder(given["params"][m])
        vae.decoders[k] = FixedDecoder(given["params"][m])
        vae.noise_sd[k].data.fill_(given["scale"][m])
    x = tuple(torch.tensor(given["X"][m], dtype=torch.float64) for m in NAMES)
    batch = Batch(x, (None,) * 3, torch.ones(3, 7, dtype=torch.bool), torch.zeros(7, 0).double())
    monkeypatch.setattr(Normal, "rsample", lambda self, shape=torch.Size():
                        self.loc.expand(torch.Size(shape) + self.loc.shape))
    return vae, batch, peer_fixtures


def total(vae, batch):
    return sum(vae.loss(batch).values()).item()


def test_joint_elbo_equals_another_package(peer):
    vae, batch, fixtures = peer
    expected = fixtures["objectives (zero sampling noise)"]
    assert total(vae, batch) == pytest.approx(
        expected["MVAE joint ELBO (use_subsampling=False, warmup=0)"]["loss"], abs=1e-6)
    kl = vae.loss(batch)["kl"].item()
    assert kl == pytest.approx(1.5675392488093345, abs=1e-6)


def test_incomplete_elbo_equals_another_package(peer):
    vae, batch, fixtures = peer
    present = torch.tensor([fixtures["input"]["masks"][m] for m in NAMES])
    x = tuple(torch.where(there[:, None], block, torch.zeros_like(block))
              for block, there in zip(batch.x, present))
    measured = tuple(there[:, None].expand_as(block) for block, there in zip(x, present))
    some = Batch(x, measured, present, batch.design)
    expected = fixtures["objectives (zero sampling noise)"]["MVAE joint ELBO, incomplete"]["loss"]
    assert total(vae, some) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("fusion", [ProductOfExperts(), WassersteinBarycenter()])
def test_refined_inference_is_the_exact_posterior_of_linear_decoders(peer, fusion):
    vae, batch, fixtures = peer
    vae.fusion = fusion
    q = Refined().posterior(vae, batch)
    np.testing.assert_allclose(q.mean.detach(), fixtures["exact"]["posterior mean"], atol=1e-9)
    np.testing.assert_allclose(q.covariance_matrix[4].detach(),
                               fixtures["exact"]["posterior cov"], atol=1e-9)


def toy(fusion, hidden=(8,), holes=True, n=6, **options):
    torch.manual_seed(5)
    vae = MultimodalVAE({"m1": 4, "m2": 5, "m3": 3}, 2, fusion,
                        OneLatent(n_latent=2, hidden=hidden, **options)).double()
    measured = tuple(torch.rand(n, p) > 0.2 * holes for p in (4, 5, 3))
    present = torch.tensor([[1] * n, [1, 0] * (n // 2), [0, 1, 1] * (n // 3)]).bool()
    measured = tuple(m & there[:, None] for m, there in zip(measured, present))
    x = tuple(torch.randn(m.shape).double() * m for m in measured)
    return vae, Batch(x, measured, present, torch.randn(n, 2).double())


@pytest.mark.parametrize("elbo, fusion", [
    (Trace_ELBO, ProductOfExperts()), (TraceMeanField_ELBO, WassersteinBarycenter()),
    pytest.param(Trace_ELBO, WassersteinBarycenter(), marks=pytest.mark.slow),
    pytest.param(TraceMeanField_ELBO, ProductOfExperts(), marks=pytest.mark.slow)])
def test_named_terms_add_up_to_pyros_elbo(elbo, fusion):
    vae, batch = toy(fusion)
    vae.eval()
    theirs = elbo(num_particles=4000, vectorize_particles=False) if elbo is Trace_ELBO \
        else elbo(num_particles=1500)
    torch.manual_seed(0)
    with torch.no_grad(), pyro.validation_enabled(False):
        expected = theirs.loss(vae.model, vae.guide, batch, batch.present) / len(batch)
        bound = NamedElbo()
        ours = np.mean([bound.loss(vae.model, vae.guide, batch, batch.present)
                        for _ in range(1500)])
    assert ours == pytest.approx(expected, rel=0.02)


def test_kl_of_gaussians_is_torchs():
    torch.manual_seed(6)
    q, p = (gaussian(torch.randn(4, 3, 2, 5), 0.2 + torch.rand(4, 3, 2, 5), event_dim=3)
            for _ in range(2))
    torch.testing.assert_close(component_kl(q, p), torch.distributions.kl_divergence(q, p))


def test_kl_of_mixtures_is_between_the_true_one_and_log_k_above():
    torch.manual_seed(1)
    experts = gaussian(2 * torch.randn(3, 1, 2).double(), 0.3 + torch.rand(3, 1, 2).double())
    prior = gaussian(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    for fusion, k in ((MixtureOfExperts(), 3), (SubsetMixture(WassersteinBarycenter()), 7)):
        q = fusion(experts, torch.ones(3, 1, dtype=torch.bool))
        draws = q.rsample((40_000,))
        true = (q.log_prob(draws) - prior.log_prob(draws)).mean().item()
        bound = component_kl(q, prior).item()
        assert true < bound < true + math.log(k)


@pytest.mark.parametrize("fusion", [WassersteinBarycenter(), SubsetMixture(ProductOfExperts())])
def test_values_that_were_not_measured_change_nothing(fusion):
    vae, batch = toy(fusion)
    vae.eval()
    junk = tuple(torch.where(m, x, torch.full_like(x, 1e6)) for x, m in
                 zip(batch.x, batch.measured))
    losses = []
    for x in (batch.x, junk):
        torch.manual_seed(2)
        # encoders read zeros where nothing was measured; the likelihood must not read it at all
        vae.zero_grad()
        part = Batch(x, batch.measured, batch.present, batch.design)
        z = vae.posterior(batch).mean.detach()
        guide = lambda b, fused: pyro.sample("z", pyro.distributions.Delta(z, event_dim=1))
        with pyro.validation_enabled(False):
            trace = pyro.poutine.trace(pyro.poutine.replay(
                vae.model, trace=pyro.poutine.trace(guide).get_trace(part, None))
            ).get_trace(part, None)
        loss = -sum(trace.nodes[m]["fn"].log_prob(trace.nodes[m]["value"]).sum()
                    for m in vae.names)
        loss.backward()
        losses.append((loss.item(), [p.grad.clone() for p in vae.decoders.parameters()]))
    assert losses[0][0] == losses[1][0]
    for a, b in zip(losses[0][1], losses[1][1]):
        assert torch.isfinite(b).all() and torch.equal(a, b)


def test_noise_is_the_closed_form_optimum_of_the_epoch():
    vae, batch = toy(WassersteinBarycenter(), hide=0.0)
    vae.train()
    torch.manual_seed(4)
    vae.loss(batch)
    torch.manual_seed(4)
    posterior = vae.posterior(batch)
    z = posterior.rsample()
    mean = vae.decode(z, batch.design)[1]
    vae.end_epoch()
    m = batch.measured[1]
    expected = (((batch.x[1] - mean) ** 2 * m).sum(0) / m.sum(0)).sqrt()
    torch.testing.assert_close(vae.noise_sd[1].data, expected.detach())


def test_hiding_leaves_somebody_and_hides_often():
    torch.manual_seed(0)
    present = torch.tensor([[True], [True], [False]]).expand(3, 4000)
    kept = hide_some(present, 0.5)
    assert kept.any(0).all() and not kept[2].any()
    alone = (kept.sum(0) == 1).double().mean().item()
    assert alone == pytest.approx(0.5, abs=0.03)  # one of two hidden 1/2; both hidden: none is


@pytest.mark.parametrize("inference", [Amortised(), Refined()])
def test_posteriors_do_not_depend_on_the_batch(inference):
    vae, batch = toy(SubsetMixture(WassersteinBarycenter()))
    vae.eval().requires_grad_(False)
    whole = inference.posterior(vae, batch)
    for i in range(len(batch)):
        alone = inference.posterior(vae, batch.take(torch.tensor([i])))
        torch.testing.assert_close(alone.mean[0], whole.mean[i], rtol=0, atol=1e-12)


def test_refined_inference_never_raises_the_energy():
    vae, batch = toy(WassersteinBarycenter(), hidden=(16,))
    vae.eval().requires_grad_(False)
    energy = Energy(vae, batch)
    start = energy(vae.posterior(batch).mean)
    end = energy(Refined(steps=8).posterior(vae, batch).mean)
    assert (end <= start * (1 + 1e-9)).all() and (end < start - 1e-3).any()


@pytest.mark.parametrize("name", ["kl", "z", "subjects", "all"])
def test_names_that_results_use_are_no_modalities(name):
    with pytest.raises(CohortError, match=f"cannot be called '{name}'"):
        Modality(name, ("insula",))


def test_failed_regions_do_not_shrink_the_latent_position():
    """With 40 % of cells missing at random, the fused position keeps its spread."""
    torch.manual_seed(8)
    vae = MultimodalVAE({"m1": 200}, 0, ProductOfExperts(), LINEAR).double().eval()
    z, loadings = torch.randn(300, 2).double(), torch.randn(2, 200).double()
    x = z @ loadings
    vae.encoders[0].net[-1].weight.data[:2] = torch.linalg.pinv(loadings).T  # knows z
    everyone, design = torch.ones(1, 300, dtype=torch.bool), torch.zeros(300, 0).double()
    measured = torch.rand(300, 200) > 0.4
    whole = vae.posterior(Batch((x,), (None,), everyone, design)).mean
    some = vae.posterior(Batch((x * measured,), (measured,), everyone, design)).mean
    assert some.std(0).detach().numpy() == pytest.approx(whole.std(0).detach().numpy(), rel=0.15)

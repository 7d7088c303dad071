"""log p(x) by importance sampling, on models where it is known exactly.

Outside witnesses: the exact log p(x_S) of the linear-Gaussian truths of linear_truths.py, and the
exact value stored beside what another package gives for the same networks
(../shared/peers/peer_fixtures.json). No witness: nonlinear decoders.
"""
from __future__ import annotations

import pytest
import torch
from linear_truths import CASES, EXACT, everyone, linear_vae, made

from normfuse.evidence import log_likelihood
from normfuse.fusion import (MixtureOfExperts, ProductOfExperts, SubsetMixture,
                             WassersteinBarycenter, gaussian)
from normfuse.inference import Amortised, Refined
from normfuse.models import Batch, MultimodalVAE, OneLatent
from normfuse.models import vae as vaes
from normfuse.testing.linear_gaussian import LinearGaussian

MIXTURES = ("moe", "mopoe", "mwb")


@pytest.mark.parametrize("name", CASES)
def test_refined_inference_gives_the_exact_value_with_one_draw(name):
    """Linear decoders: the refined posterior is the exact one, whatever the fusion."""
    truth, vae = made(name)
    batch = everyone(truth)
    exact = truth.log_prob(batch.x, batch.present)
    torch.testing.assert_close(log_likelihood(vae, batch, Refined(), 1), exact, atol=1e-9, rtol=0)
    if name in EXACT:
        found = log_likelihood(vae, batch, Amortised(), 1, seed=5)
        torch.testing.assert_close(found, exact, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", MIXTURES)
def test_log_likelihood_of_mixtures_is_near_the_exact_one(name):
    truth, vae = made(name)
    batch = everyone(truth, 3)
    exact = truth.log_prob(batch.x, batch.present)
    near = (log_likelihood(vae, batch, Amortised(), 1000) - exact).abs()
    assert near.max() < 0.2  # nats; the worst of 21 people
    nearer = (log_likelihood(vae, batch, Refined(), 1000) - exact).abs()
    assert nearer.max() < 1e-9
    few = torch.stack([log_likelihood(vae, batch, Amortised(), 15, seed=seed)
                       for seed in range(300)]) - exact
    ratio = few.exp()  # p(x) itself is estimated without bias
    error = ratio.std(0) / 300 ** 0.5
    assert ((ratio.mean(0) - 1).abs() < 5 * error + 1e-9).all() and error.max() < 0.15


@pytest.mark.parametrize("name", [*MIXTURES, "full wb", "gwb"])
@pytest.mark.parametrize("inference", [Amortised(), Refined(steps=2)])
def test_a_persons_likelihood_is_theirs_alone(name, inference, monkeypatch):
    truth, vae = made(name)
    batch, order = everyone(truth, 1), torch.tensor([3, 0, 6, 5, 1, 4, 2])
    whole = log_likelihood(vae, batch, inference, 40)
    shuffled = log_likelihood(vae, batch.take(order), inference, 40)
    torch.testing.assert_close(shuffled, whole[order], atol=1e-10, rtol=0)
    monkeypatch.setattr(vaes, "MOST_CELLS", 1)  # everyone alone
    torch.testing.assert_close(log_likelihood(vae, batch, inference, 40), whole, atol=1e-10,
                               rtol=0)
    another = log_likelihood(vae, batch, inference, 40, seed=1)
    assert isinstance(inference, Refined) or (another != whole).any()


@pytest.mark.parametrize("name", ["poe", "full poe", "full wb", "moe", "mwb", "full mwb"])
def test_the_order_of_modalities_does_not_matter(name):
    truth, fusion, options = CASES[name]
    fusion = type(fusion)(**{k: v for k, v in fusion.options().items() if k != "weights"})
    order, batch = [2, 0, 1], everyone(truth)
    turned = LinearGaussian(*(tuple(part[m] for m in order) for part in
                              (truth.loadings, truth.offsets, truth.sds)))
    other = Batch(tuple(batch.x[m] for m in order), tuple(batch.measured[m] for m in order),
                  batch.present[order], batch.design)
    q, r = (linear_vae(t, fusion, **options).posterior(b)
            for t, b in ((truth, batch), (turned, other)))
    points = truth.posterior(batch.x, batch.present).sample((20,))
    for one, two in ((q.mean, r.mean), (q.variance, r.variance),
                     (q.log_prob(points), r.log_prob(points))):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=0)


@pytest.mark.parametrize("fusion", [MixtureOfExperts(), SubsetMixture(
    ProductOfExperts(prior_expert=False)), SubsetMixture(WassersteinBarycenter())], ids=repr)
def test_log_likelihood_of_mixtures_where_another_package_is_7_nats_off(fusion, peer_fixtures):
    """Its draws all come from one component per subject; 124.65 nats is exact for the seven."""
    given, exact = peer_fixtures["input"], peer_fixtures["exact"]
    params, double = given["params"].values(), torch.float64
    vae = MultimodalVAE({m: len(p["c"]) for m, p in given["params"].items()}, 0, fusion,
                        OneLatent(n_latent=2, hidden=(), hide=0)).double().eval()
    for k, p in enumerate(params):
        w = {key: torch.tensor(v, dtype=double) for key, v in p.items()}
        vae.encoders[k].forward = lambda x, design, w=w: gaussian(
            x @ w["A"].T + w["a"], (0.5 * (x @ w["B"].T + w["b"])).exp())
        vae.decoders[k].net[0].weight.data, vae.decoders[k].net[0].bias.data = w["C"], w["c"]
        vae.noise_sd[k].data.fill_(list(given["scale"].values())[k])
    x = tuple(torch.tensor(block, dtype=double) for block in given["X"].values())
    batch = Batch(x, (None,) * 3, torch.ones(3, 7, dtype=torch.bool), torch.zeros(7, 0).double())
    exact = torch.tensor(exact["log p(x) per subject"], dtype=double)
    assert exact.sum().item() == pytest.approx(-124.65, abs=0.01)
    off = log_likelihood(vae, batch, Amortised(), 1000) - exact
    assert off.abs().max() < 0.25 and abs(off.sum()) < 0.25
    for seed in range(3):
        off = log_likelihood(vae, batch, Amortised(), 5000, seed=seed) - exact
        assert abs(off.sum()) < 0.5
    refined = log_likelihood(vae, batch, Refined(), 1000)
    torch.testing.assert_close(refined, exact, atol=1e-5, rtol=0)

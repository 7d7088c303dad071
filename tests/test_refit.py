"""The last step of a fit: EM for linear paths and noise, and whether perceptrons stay.

Outside witness: scikit-learn's FactorAnalysis, whose maximum EM must reach; the exact log p of a
linear truth.
"""
from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import FactorAnalysis

from normfuse import refit as module
from normfuse.evidence import log_likelihood
from normfuse.fusion import WassersteinBarycenter
from normfuse.inference import Refined
from normfuse.models import Batch, OneLatent
from normfuse.refit import maximise, refit, usual
from normfuse.testing.linear_gaussian import LinearGaussian

WIDTHS = (5, 4, 6)


def as_batch(xs, measured=None):
    n = len(xs[0])
    measured = (None,) * len(xs) if measured is None else measured
    x = tuple(b if m is None else torch.where(m, b, 0.0) for b, m in zip(xs, measured))
    return Batch(x, tuple(measured), torch.ones(len(xs), n, dtype=torch.bool),
                 torch.zeros(n, 0).double())


def model(hidden=(), n_latent=2):
    torch.manual_seed(3)
    recipe = OneLatent(n_latent=n_latent, hidden=hidden, dropout=0.0)
    names = {f"m{k}": width for k, width in enumerate(WIDTHS)}
    return recipe.build(names, 0, WassersteinBarycenter()).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def truth():
    return LinearGaussian.random(WIDTHS, 2, seed=2)


def mean_log_p(vae, batch):
    return log_likelihood(vae, batch, Refined(), 1).mean().item()  # exact: linear decoders


def test_every_round_makes_people_more_probable_until_the_maximum(truth, monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 0.0)
    batch = as_batch(truth.sample(300, seed=0))
    vae = model()
    seen = []
    for _ in range(15):
        maximise(vae, batch, Refined(steps=1), 1, relevance=False)
        seen.append(mean_log_p(vae, batch))
    assert (np.diff(seen) > -1e-9).all()
    # one step is exact: the decoders are linear
    maximise(vae, batch, Refined(steps=1), 400, relevance=False)
    theirs = FactorAnalysis(2, tol=1e-9, max_iter=5000).fit(torch.cat(batch.x, 1).numpy())
    assert mean_log_p(vae, batch) == pytest.approx(theirs.score(torch.cat(batch.x, 1).numpy()),
                                                   abs=1e-3)


def test_cells_that_were_not_measured_say_nothing(truth, monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 0.0)
    xs = truth.sample(1500, seed=1)
    torch.manual_seed(0)
    measured = tuple(torch.rand(b.shape) > 0.3 for b in xs)
    junk = tuple(torch.where(m, b, torch.full_like(b, 1e6)) for b, m in zip(xs, measured))
    vae, again = model(), model()
    maximise(vae, as_batch(xs, measured), Refined(steps=1), 30, relevance=False)
    spoilt = as_batch(xs, measured)
    spoilt = Batch(junk, spoilt.measured, spoilt.present, spoilt.design)
    maximise(again, spoilt, Refined(steps=1), 30, relevance=False)
    for a, b in zip(vae.noise_sd, again.noise_sd):
        torch.testing.assert_close(a, b)
    for sd, true in zip(vae.noise_sd, truth.sds):
        torch.testing.assert_close(sd.data, true, rtol=0.1, atol=0)


def test_a_straight_line_needs_no_perceptron(truth):
    batch = as_batch(truth.sample(400, seed=4))
    vae = model(hidden=(16,))
    refit(vae, batch.take(torch.arange(300)), batch.take(torch.arange(300, 400)), Refined())
    assert all(decoder.is_straight for decoder in vae.decoders)
    exact = truth.log_prob(truth.sample(2000, seed=5), torch.ones(3, 2000, dtype=torch.bool))
    assert mean_log_p(vae, as_batch(truth.sample(2000, seed=5))) > exact.mean() - 0.3


def test_a_perceptron_that_knows_a_curve_stays():
    """Decoders whose perceptron is the truth's own curve; without it the noise would swell."""
    torch.manual_seed(7)
    vae = model(hidden=(16,), n_latent=2)
    for decoder in vae.decoders:
        decoder.net[0].weight.normal_()
        decoder.net[-1].weight.normal_().mul_(0.5)
    z = torch.randn(500, 2).double()
    xs = [mean + 0.2 * torch.randn_like(mean) for mean in vae.decode(z, torch.zeros(500, 0))]
    kept = [decoder.net[-1].weight.clone() for decoder in vae.decoders]
    batch = as_batch(xs)
    refit(vae, batch.take(torch.arange(400)), batch.take(torch.arange(400, 500)), Refined())
    assert not any(decoder.is_straight for decoder in vae.decoders)
    for decoder, weight in zip(vae.decoders, kept):
        torch.testing.assert_close(decoder.net[-1].weight, weight)


def test_a_broken_scan_does_not_decide_on_the_noise(truth):
    batch = as_batch(truth.sample(330, seed=6))
    training, held_out = batch.take(torch.arange(300)), batch.take(torch.arange(300, 330))
    broken = Batch(tuple(torch.cat([12 * x[:1], x[1:]]) for x in held_out.x), held_out.measured,
                   held_out.present, held_out.design)
    clean, spoilt = model(), model()
    refit(clean, training, held_out, Refined())
    refit(spoilt, training, broken, Refined())
    assert 0 not in usual(clean, broken, Refined())
    assert len(usual(clean, held_out, Refined())) == 30
    # what is left of it: one of 330 people from whom the noise itself is learned
    for a, b in zip(clean.noise_sd, spoilt.noise_sd):
        assert (b / a).median() < 1.35

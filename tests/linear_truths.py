"""Models whose decoders, noise and priors are those of a linear-Gaussian truth, for tests."""
from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch

from normfuse.fusion import (GeneralizedProductOfExperts, GeneralizedWassersteinBarycenter, Given,
                             LearnedMaps, MixtureOfExperts, MomentMatchingBarycenter,
                             ProductOfExperts, SharedPrivate, SubsetMixture, SubstitutePrior,
                             WassersteinBarycenter)
from normfuse.models import Batch, Ladder, MultimodalVAE, OneLatent
from normfuse.networks.mlp import FULL_FLOOR, SCALE_FLOOR, UNIT
from normfuse.testing.linear_gaussian import LinearGaussian
from normfuse.testing.linear_hierarchy import LinearHierarchy

FEATURES = (4, 5, 6)
PATTERNS = [p for p in product([True, False], repeat=3) if any(p)]
DRAWS = 8  # calls of a bound whose mean and standard error are compared


def aligned() -> LinearGaussian:
    """W_m' diag(s_m)^-2 W_m is diagonal: diagonal experts can be exact likelihood factors."""
    base = LinearGaussian.random(FEATURES, 2, seed=3)
    sizes = torch.tensor([[2.0, 0.9], [1.4, 1.1], [0.8, 2.5]]).double()
    return LinearGaussian(
        tuple(s[:, None] * torch.linalg.qr(w / s[:, None])[0] * size
              for w, s, size in zip(base.loadings, base.sds, sizes)), base.offsets, base.sds)


def in_blocks() -> LinearGaussian:
    """Two shared latents and one private one of each modality, at an angle to each other."""
    base = LinearGaussian.random(FEATURES, 5, seed=7)
    owns = SharedPrivate(private=1).sized(3, 5).owned()
    return LinearGaussian(tuple(w * own for w, own in zip(base.loadings, owns)), base.offsets,
                          base.sds)


ALIGNED, GENERAL, BLOCKS = aligned(), LinearGaussian.random(FEATURES, 2, seed=5), in_blocks()
SEVEN = Given([1, 5, 2, 4, 3, 6, 2])


def blocked(**options):
    return GeneralizedWassersteinBarycenter(SharedPrivate(private=1), **options)


# Experts are exact likelihood factors ("factors"), or else each modality's exact posterior, of
# which diagonal experts hold the variances only.
CASES = {
    "poe": (ALIGNED, ProductOfExperts(), {"factors": True}),
    "full poe": (GENERAL, ProductOfExperts(), {"factors": True, "full": True}),
    "poe without prior": (ALIGNED, ProductOfExperts(prior_expert=False), {}),
    "gpoe": (ALIGNED, GeneralizedProductOfExperts(), {}),
    "wb": (ALIGNED, WassersteinBarycenter(), {}),
    "wb, prior substituted": (ALIGNED, WassersteinBarycenter(weights=Given([5, 3, 2]),
                                                             missing=SubstitutePrior()), {}),
    "full wb": (GENERAL, WassersteinBarycenter(), {"full": True}),
    "moment": (ALIGNED, MomentMatchingBarycenter(), {}),
    "gwb": (BLOCKS, blocked(), {}),
    "gwb, prior substituted": (BLOCKS, blocked(prior_weight=0.1, missing=SubstitutePrior()), {}),
    "full gwb": (BLOCKS, blocked(), {"full": True}),
    "gwb, maps": (ALIGNED, GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.1), {}),
    "moe": (ALIGNED, MixtureOfExperts(weights=Given([5, 3, 2])), {}),
    "mopoe": (ALIGNED, SubsetMixture(ProductOfExperts(), weights=SEVEN), {"factors": True}),
    "mwb": (ALIGNED, SubsetMixture(WassersteinBarycenter()), {}),
    "full mwb": (GENERAL, SubsetMixture(WassersteinBarycenter(), weights=SEVEN), {"full": True})}
EXACT, ITERATED = {"poe", "full poe"}, {"full wb", "full gwb", "gwb, maps", "full mwb"}


def linear_vae(truth, fusion, *, factors=False, full=False, **options):
    """The truth's decoders and noise; each encoder knows its own modality exactly."""
    d, model = truth.n_latent, OneLatent(
        n_latent=truth.n_latent, hidden=(), hide_cells=0, dropout=0,
        full_covariance=full, **{"hide": 0, **options})
    vae = MultimodalVAE({f"m{k + 1}": len(s) for k, s in enumerate(truth.sds)}, 0, fusion,
                        model).double().eval()
    with torch.no_grad():
        for m, (w, c, s) in enumerate(zip(truth.loadings, truth.offsets, truth.sds)):
            scaled = w / s.square()[:, None]
            covariance = torch.linalg.inv(scaled.T @ w + torch.eye(d) * (not factors))
            sds, tril = covariance.diagonal().sqrt(), torch.linalg.cholesky(covariance)
            encoder, decoder = vae.encoders[m].net[-1], vae.decoders[m].net[-1]
            encoder.weight.zero_(), encoder.bias.zero_()
            encoder.weight[:d] = covariance @ scaled.T
            encoder.bias[:d] = -covariance @ scaled.T @ c
            encoder.bias[d:2 * d] = (sds - (FULL_FLOOR if full else SCALE_FLOOR)).expm1().log()
            if full:  # rows of the Cholesky factor, up to their length
                rows, columns = torch.tril_indices(d, d, -1)
                encoder.bias[2 * d:] = tril[rows, columns] / tril.diagonal()[rows]
            decoder.weight.copy_(w), decoder.bias.copy_(c), vae.noise_sd[m].copy_(s)
    return vae


def made(name):
    truth, fusion, options = CASES[name]
    return truth, linear_vae(truth, fusion, **options)


def subjects(truth, present, seed=1):
    """Distinct people measured as the columns of ``present`` say."""
    xs = tuple(torch.where(there[:, None], x, 0.0)
               for x, there in zip(truth.sample(present.shape[1], seed), present))
    measured = tuple(there[:, None].expand_as(x) for x, there in zip(xs, present))
    return Batch(xs, measured, present, torch.zeros(present.shape[1], 0).double())


def alike(truth, pattern, n=4):
    return subjects(truth, torch.tensor(pattern)[:, None].expand(3, n), sum(pattern))


def everyone(truth, times=2):
    return subjects(truth, torch.tensor(PATTERNS).T.repeat(1, times))


def estimate(bound, vae, batch, times=100):
    """Mean and standard error of a bound, the batch repeated so often at every call."""
    torch.manual_seed(4)
    tiled = batch.take(torch.arange(len(batch)).repeat(times))
    with torch.no_grad():
        found = torch.stack([-sum(bound.terms(vae, tiled, 1.0)[0].values())
                             for _ in range(DRAWS)])
    return found.mean().item(), found.std().item() / DRAWS ** 0.5


def hierarchy() -> LinearHierarchy:
    """One top latent and two below, in which diagonal experts of one modality can be exact."""
    base = LinearHierarchy.random(FEATURES, (1, 2), seed=8)
    return replace(base, loadings=ALIGNED.loadings, offsets=ALIGNED.offsets, sds=ALIGNED.sds)


def hierarchy_in_blocks() -> LinearHierarchy:
    """At both levels shared latents and one private one of each modality."""
    base, maps = LinearHierarchy.random(FEATURES, (4, 5), seed=9), SharedPrivate(private=1)
    lower, top = (maps.sized(3, d).owned() for d in (5, 4))
    return replace(base, loadings=tuple(w * own for w, own in zip(base.loadings, lower)),
                   top_loadings=tuple(v * own for v, own in zip(base.top_loadings, top)))


DEEP, DEEP_BLOCKS = hierarchy(), hierarchy_in_blocks()


def linear_ladder(truth, fusion, *, factors=False, spread=0.0, **options):
    """The truth's decoders, noise and priors; each encoder knows its own modality's posterior.

    Exactly so for one modality of DEEP. ``spread``: modality priors differ, in mean and sd, while
    those with equal weights still average to the truth's.
    """
    lower, top = truth.link.shape
    vae = Ladder(levels=(lower, top), hidden=(), hide_cells=0, dropout=0,
                 **{"hide": 0, **options}).build(
        {f"m{k + 1}": len(s) for k, s in enumerate(truth.sds)}, 0, fusion).double().eval()
    down = vae.top_down[0].net[-1]
    slopes, shifts = (t.view(3, 3, lower, -1) for t in (down.weight.data, down.bias.data[:, None]))
    slopes.zero_(), shifts.zero_()
    for m, (w, v, c, s) in enumerate(zip(truth.loadings, truth.top_loadings, truth.offsets,
                                         truth.sds)):
        origin = truth.link_offset + spread * (m - 1)
        unit = truth.link_sd * (1 + 0.3 * spread * (m - 1))
        slopes[m, 0], shifts[m, 0] = truth.link, origin[:, None]
        shifts[m, 1] = (unit - SCALE_FLOOR).expm1().log()[:, None] - UNIT
        # given z1: the likelihood factor of z2, or the posterior
        scaled = w / s.square()[:, None]
        prior = 0.0 if factors else truth.link_sd ** -2
        variance = 1 / ((scaled.T @ w).diagonal() + prior)
        read = variance[:, None] * scaled.T
        rest = variance * prior
        slopes[m, 2] = (rest[:, None] * truth.link - read @ v - truth.link) / unit[:, None]
        # and of z1, with z2 summed out
        seen = w @ truth.link + v
        spent = torch.linalg.inv((w * truth.link_sd.square()) @ w.T + s.square().diag())
        above = 1 / ((seen.T @ spent @ seen).diagonal() + (not factors))
        climb = above[:, None] * seen.T @ spent
        encoder, decoder = vae.encoders[m].net[-1], vae.decoders[m].net[-1]
        below = read / unit[:, None]
        offset = (rest * truth.link_offset - read @ c - origin) / unit
        sds = torch.cat([above.sqrt(), variance.sqrt() / unit])
        said = torch.cat([climb, below])
        encoder.weight.data = torch.cat([said, torch.zeros_like(said)])
        encoder.bias.data = torch.cat([-climb @ (w @ truth.link_offset + c), offset,
                                       (sds - SCALE_FLOOR).expm1().log()])
        decoder.weight.data, decoder.bias.data = torch.cat([v, w], 1), c.clone()
        vae.noise_sd[m].data = s.clone()
    return vae

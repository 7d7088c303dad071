"""Training cost beside a plain torch loop, in the same run.

Problem: 3 modalities of 100, 48 and 84 features, 12 true factors, latent 32, perceptrons 256-128,
N = 2000, batch 256, Adam at 1e-3, one thread. The plain loop is hand-written torch: the same
networks and activation, analytic KL, learned noise, fused Adam, batches by indexing a permutation,
a random subset of modalities fused per subject (product of experts with a prior expert). Every
variant trains in turn, a block of epochs each, round after round; the figures are medians over
rounds of the ratio to the plain loop's block and to our own product of experts' block of the same
round, in CPU seconds. The ratio of a 10-sample bound is also given to the same fusion's one-sample
step.
"""
from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import pyro

from normfuse.fusion import (Aggregator, GeneralizedWassersteinBarycenter, MixtureOfExperts,
                             ProductOfExperts, SubsetMixture, WassersteinBarycenter)
from normfuse.models import Batch, Iwae, Ladder, OneLatent, Recipe
from normfuse.training import TrainingPlan, make_optimizer, one_epoch

WIDTHS, LATENT, HIDDEN, BATCH, N = (100, 48, 84), 32, (256, 128), 256, 2000


def data(seed: int = 0) -> Batch:
    """Linear factors and noise, a quarter of the variance."""
    torch.manual_seed(seed)
    factors = torch.randn(N, 12)
    x = []
    for width in WIDTHS:
        loadings = torch.randn(12, width)
        loadings *= (0.75 / loadings.square().sum(0)).sqrt()
        x.append(factors @ loadings + 0.5 * torch.randn(N, width))
    return Batch(tuple(x), (None,) * 3, torch.ones(3, N, dtype=torch.bool), torch.zeros(N, 0))


class Plain(nn.Module):
    """The hand-written floor."""

    def __init__(self) -> None:
        super().__init__()
        a, b = HIDDEN
        self.encoders = nn.ModuleList(nn.Sequential(
            nn.Linear(w, a), nn.SiLU(), nn.Linear(a, b), nn.SiLU(), nn.Linear(b, 2 * LATENT))
            for w in WIDTHS)
        self.decoders = nn.ModuleList(nn.Sequential(
            nn.Linear(LATENT, b), nn.SiLU(), nn.Linear(b, a), nn.SiLU(), nn.Linear(a, w))
            for w in WIDTHS)
        self.logvar = nn.ParameterList(nn.Parameter(torch.zeros(w)) for w in WIDTHS)

    def loss(self, x: tuple[Tensor, ...]) -> Tensor:
        keep = torch.rand(3, len(x[0])) > 0.5
        keep = torch.where(keep.any(0), keep, torch.ones_like(keep)).float()[..., None]
        heads = torch.stack([encode(block) for encode, block in zip(self.encoders, x)])
        mu, logvar = heads.chunk(2, -1)
        precision = torch.exp(-logvar) * keep
        total = precision.sum(0) + 1
        mean, spread = (precision * mu).sum(0) / total, total.rsqrt()
        z = mean + spread * torch.randn_like(mean)
        kl = 0.5 * (spread.square() + mean.square() - 1 + total.log()).sum(-1)
        nll = sum(0.5 * ((block - decode(z)).square() * torch.exp(-v) + v
                         + math.log(2 * math.pi)).sum(-1)
                  for decode, block, v in zip(self.decoders, x, self.logvar))
        return (nll + kl).mean()


class PlainMixture(Plain):
    """The floor of a mixture of products over all 7 subsets: one drawn, all in the KL."""

    def loss(self, x: tuple[Tensor, ...]) -> Tensor:
        heads = torch.stack([encode(block) for encode, block in zip(self.encoders, x)])
        mu, logvar = heads.chunk(2, -1)
        precision = torch.exp(-logvar)
        subsets = torch.tensor(list(product([0.0, 1.0], repeat=3))[1:])
        n = len(x[0])
        total = (subsets @ precision.flatten(1)).view(7, n, LATENT) + 1
        means = (subsets @ (precision * mu).flatten(1)).view(7, n, LATENT) / total
        pick, row = torch.randint(7, (n,)), torch.arange(n)
        z = means[pick, row] + total[pick, row].rsqrt() * torch.randn(n, LATENT)
        kl = 0.5 * (1 / total + means.square() - 1 + total.log()).sum(-1).mean(0)
        nll = sum(0.5 * ((block - decode(z)).square() * torch.exp(-v) + v
                         + math.log(2 * math.pi)).sum(-1)
                  for decode, block, v in zip(self.decoders, x, self.logvar))
        return (nll + kl).mean()


def plain(module: Plain, batch: Batch) -> Callable[[int], None]:
    """A function that trains the floor for some epochs."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def run(epochs: int) -> None:
        for _ in range(epochs):
            for rows in torch.randperm(N).split(BATCH):
                loss = module.loss(tuple(block[rows] for block in batch.x))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    return run


PLAIN_NETS: dict[str, Any] = {"hidden": HIDDEN, "dropout": 0.0, "hide_cells": 0.0, "skip": False}


ONE = OneLatent(n_latent=LATENT, **PLAIN_NETS)


def ours(fusion: Aggregator, batch: Batch, recipe: Recipe = ONE) -> Callable[[int], None]:
    """A function that trains our model by the package's own loop for some epochs."""
    vae = recipe.build(dict(zip(("m1", "m2", "m3"), WIDTHS)), 0, fusion)
    plan = TrainingPlan(batch_size=BATCH, learning_rate=1e-3, weight_decay=0.0)
    optimizer = make_optimizer(vae, plan)

    def run(epochs: int) -> None:
        with pyro.validation_enabled(False):
            for epoch in range(epochs):
                one_epoch(vae, batch, plan, optimizer, 1.0, epoch)

    return run


def iwae(**options: int | None) -> OneLatent:
    """The same model with a 10-sample bound."""
    return OneLatent(n_latent=LATENT, bound=Iwae(10, **options), **PLAIN_NETS)


def variants(batch: Batch) -> dict[str, Callable[[int], None]]:
    """Everything that is timed."""
    return {
        "plain": plain(Plain(), batch), "plain mixture": plain(PlainMixture(), batch),
        "ProductOfExperts": ours(ProductOfExperts(), batch),
        "WassersteinBarycenter": ours(WassersteinBarycenter(), batch),
        "GeneralizedWassersteinBarycenter": ours(GeneralizedWassersteinBarycenter(), batch),
        "SubsetMixture(ProductOfExperts)": ours(SubsetMixture(ProductOfExperts()), batch),
        "SubsetMixture(WassersteinBarycenter)":
            ours(SubsetMixture(WassersteinBarycenter()), batch),
        "Ladder(32, 10)": ours(WassersteinBarycenter(), batch,
                               Ladder(levels=(32, 10), **PLAIN_NETS)),
        "full covariance, d = 10": ours(WassersteinBarycenter(), batch, OneLatent(
            n_latent=10, full_covariance=True, **PLAIN_NETS)),
        "MixtureOfExperts": ours(MixtureOfExperts(), batch),
        "MixtureOfExperts, Iwae(10, resampled=None)":
            ours(MixtureOfExperts(), batch, iwae(resampled=None)),
        "MixtureOfExperts, Iwae(10, resampled=2)":
            ours(MixtureOfExperts(), batch, iwae(resampled=2)),
        "SubsetMixture(WassersteinBarycenter), Iwae(10, resampled=2)":
            ours(SubsetMixture(WassersteinBarycenter()), batch, iwae(resampled=2))}


def measure(rounds: int, epochs: int, without: str) -> dict[str, object]:
    """CPU seconds an epoch of every variant, and ratios to the plain loop of the same round."""
    torch.set_num_threads(1)
    batch = data()
    runs = {name: run for name, run in variants(batch).items()
            if not without or without not in name}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        run(2)  # allocator and caches
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run(epochs)
            seconds[name].append((time.process_time() - start) / epochs)
    report: dict[str, dict[str, float]] = {}
    for name, found in seconds.items():
        against = {"plain": "plain", "poe": "ProductOfExperts",
                   "one_sample": name.split(", Iw")[0]}
        report[name] = {"cpu_seconds_per_epoch": round(statistics.median(found), 5)}
        for label, other in against.items():
            ratios = [a / b for a, b in zip(found, seconds[other])]
            report[name][f"ratio_to_{label}"] = round(statistics.median(ratios), 3)
    return {"n": N, "rounds": rounds, "epochs_per_block": epochs, "variants": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--without", default="", help="leave out variants with this in their name")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.rounds, arguments.epochs, arguments.without), indent=1))


if __name__ == "__main__":
    main()

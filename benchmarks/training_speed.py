"""Training cost beside a plain torch loop, in the same run.

Problem: 3 modalities of 100, 48 and 84 features, 12 true factors, latent 32, perceptrons 256-128,
N = 2000, batch 256, Adam at 1e-3, one thread. The plain loop is hand-written torch: the same
networks and activation, analytic KL, learned noise, fused Adam, batches by indexing a permutation,
a random subset of modalities fused per subject (product of experts with a prior expert). Every
variant trains in turn, a block of epochs each, round after round; the figure is the median over
rounds of the ratio to the plain loop's block of the same round, in CPU seconds.
"""
from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn

import pyro

from normfuse.fusion import ProductOfExperts, SubsetMixture, WassersteinBarycenter
from normfuse.models import Architecture, Batch, MultimodalVAE
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


def ours(fusion: object, batch: Batch) -> Callable[[int], None]:
    """A function that trains our model by the package's own loop for some epochs."""
    vae = MultimodalVAE(dict(zip(("m1", "m2", "m3"), WIDTHS)), 0, fusion,
                        Architecture(LATENT, HIDDEN, dropout=0.0, hide_cells=0.0, skip=False))
    plan = TrainingPlan(batch_size=BATCH, learning_rate=1e-3, weight_decay=0.0)
    optimizer = make_optimizer(vae, plan)

    def run(epochs: int) -> None:
        with pyro.validation_enabled(False):
            for epoch in range(epochs):
                one_epoch(vae, batch, plan, optimizer, 1.0, epoch)

    return run


def measure(rounds: int, epochs: int) -> dict[str, object]:
    """CPU seconds an epoch of every variant, and ratios to the plain loop of the same round."""
    torch.set_num_threads(1)
    batch = data()
    variants = {"plain": plain(Plain(), batch), "plain mixture": plain(PlainMixture(), batch),
                "ProductOfExperts": ours(ProductOfExperts(), batch),
                "WassersteinBarycenter": ours(WassersteinBarycenter(), batch),
                "SubsetMixture(ProductOfExperts)": ours(SubsetMixture(ProductOfExperts()), batch),
                "SubsetMixture(WassersteinBarycenter)":
                    ours(SubsetMixture(WassersteinBarycenter()), batch)}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for name, run in variants.items():
        run(2)  # allocator and caches
    for _ in range(rounds):
        for name, run in variants.items():
            start = time.process_time()
            run(epochs)
            seconds[name].append((time.process_time() - start) / epochs)
    report: dict[str, object] = {}
    for name, found in seconds.items():
        ratios = [a / b for a, b in zip(found, seconds["plain"])]
        report[name] = {"cpu_seconds_per_epoch": round(statistics.median(found), 5),
                        "ratio": round(statistics.median(ratios), 3),
                        "ratio_min": round(min(ratios), 3), "ratio_max": round(max(ratios), 3)}
    return {"n": N, "rounds": rounds, "epochs_per_block": epochs, "variants": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.rounds, arguments.epochs), indent=1))


if __name__ == "__main__":
    main()

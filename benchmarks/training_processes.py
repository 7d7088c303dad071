"""Does a second process make training faster? Seconds an epoch: one process, and two of torchrun.

2,000 people, defaults of ``OneLatent`` with 16 dimensions: 232 regions of three modalities, and
the scores of three modalities of voxels (64 axes each: all that training sees of voxels).
``whole`` is a plan of one part in one process, ``one`` a plan of two parts in one process, ``two``
the same shared by two, which end with the same weights. The least wall time and CPU time of the
first process over the rounds; the load of the machine is given, as wall time means little beside
busy neighbours.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import torch

import pyro

from normfuse.batch_parts import Parts
from normfuse.fusion import WassersteinBarycenter
from normfuse.models import Batch, OneLatent
from normfuse.processes import processes
from normfuse.training import TrainingPlan, make_optimizer, one_epoch

N = 2000
WIDTHS = {"232 regions": (100, 48, 84), "voxels (64 axes each)": (64, 64, 64)}


def data(widths: tuple[int, ...]) -> Batch:
    """Linear factors and noise."""
    torch.manual_seed(0)
    factors = torch.randn(N, 12)
    x = tuple(factors @ torch.randn(12, width) / 4 + 0.5 * torch.randn(N, width)
              for width in widths)
    return Batch(x, (None,) * 3, torch.ones(3, N, dtype=torch.bool), torch.zeros(N, 4))


def seconds(widths: tuple[int, ...], batch_size: int, parts: int, rounds: int) -> dict[str, Any]:
    """Of an epoch, by all processes there are."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    people, team = data(widths), processes()
    vae = OneLatent(n_latent=16).build(dict(zip(("t1", "dti", "pet"), widths)), 4,
                                       WassersteinBarycenter())
    plan = TrainingPlan(batch_size=batch_size, parts=parts)
    optimizer = make_optimizer(vae, plan)
    shared = Parts(parts, 0, team) if parts > 1 else None
    wall, cpu = [], []
    with pyro.validation_enabled(False):
        for epoch in range(1, rounds + 2):
            at = time.perf_counter(), time.process_time()
            one_epoch(vae, people, plan, optimizer, 1.0, epoch, shared)
            wall.append(time.perf_counter() - at[0])
            cpu.append(time.process_time() - at[1])
    weights = sum(p.double().abs().sum().item() for p in vae.parameters())
    return {"wall": round(min(wall[1:]), 3), "cpu": round(min(cpu[1:]), 3), "weights": weights}


def measure(batch_size: int, rounds: int, parts: int) -> dict[str, Any]:
    return {name: seconds(widths, batch_size, parts, rounds) for name, widths in WIDTHS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512])
    chosen = parser.parse_args()
    if processes().count > 1:
        found = {size: measure(size, chosen.rounds, 2) for size in chosen.batch_sizes}
        if processes().is_first:
            print(json.dumps(found))
        return
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
             "2", __file__, "--rounds", str(chosen.rounds), "--batch-sizes",
             *map(str, chosen.batch_sizes)]
    two = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    report = {f"batches of {size}": {
        "whole": measure(size, chosen.rounds, 1), "one": measure(size, chosen.rounds, 2),
        "two": two[str(size)]} for size in chosen.batch_sizes}
    print(json.dumps({"load": os.getloadavg()[0], "people": N, **report}, indent=1))


if __name__ == "__main__":
    main()

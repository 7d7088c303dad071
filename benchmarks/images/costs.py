"""Seconds a step and peak memory of image models by fusion and alignment: about a CPU minute.

    python benchmarks/images/costs.py

A step is one of training with 16 slices of 64 x 48 pixels (3 mm) in four contrasts, everything
there; medians of ten after three, each configuration in a process of its own. Peak memory is the
process's, of which importing the package takes what the first line says. Beside them the U-Net of
rivals.py.
"""
from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import pandas as pd
import torch
from rivals import Stacked
from study import ALIGNMENTS, CONTRASTS, FLAT, FUSIONS

from normfuse.imaging.images import Images
from normfuse.imaging.segmentation_net import SegmentationNet
from normfuse.imaging.synthesis_net import SynthesisNet
from normfuse.networks.pyramid import Pyramid

N, SIDES, STEPS = 16, (64, 48), 10


def network(kind: str, fusion: str, alignment: str) -> torch.nn.Module:
    if kind == "unet":
        return Stacked(4, 4 if fusion == "segmentation" else 0)
    sizes = FLAT if fusion.endswith("flat") else Pyramid()
    if kind == "synthesis":
        return SynthesisNet(CONTRASTS, 2, FUSIONS[fusion](), sizes, shared_prior=True,
                            kl_weight=0.01, alignment=ALIGNMENTS[alignment]())
    return SegmentationNet(CONTRASTS, 2, FUSIONS[fusion](), sizes, 4,
                           alignment=ALIGNMENTS[alignment]())


def measured(kind: str, fusion: str, alignment: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if kind == "nothing":
        return {"peak, MiB": peak}
    net: Any = network(kind, fusion, alignment)
    values = torch.randn(4, N, *SIDES)
    known = torch.ones_like(values, dtype=torch.bool)
    batch = Images(values, known, torch.ones(4, N, dtype=torch.bool), known[0],
                   torch.randint(4, (N, *SIDES)))
    adam, seconds = torch.optim.Adam(net.parameters()), []
    for _ in range(STEPS + 3):
        start = time.process_time()
        adam.zero_grad()
        torch.stack(list(net.loss(batch).values())).sum().backward()
        adam.step()
        seconds.append(time.process_time() - start)
    return {"CPU-s a step": statistics.median(seconds[3:]),
            "peak, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "parameters": sum(p.numel() for p in net.parameters())}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measured(*sys.argv[1:])))
        return
    asked = [("nothing", "", "none"),
             *(("unet", task, "none") for task in ("synthesis", "segmentation")),
             *((task, fusion, "none") for task in ("synthesis", "segmentation")
               for fusion in FUSIONS),
             *(("segmentation", "WB", a) for a in ALIGNMENTS if a != "none")]
    rows = []
    for one in asked:
        said = subprocess.run([sys.executable, __file__, *one], check=True, capture_output=True,
                              text=True).stdout
        rows.append({"task": one[0], "fusion": one[1], "alignment": one[2], **json.loads(said)})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()

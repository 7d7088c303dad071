"""Synthesis and segmentation from every subset of four contrasts, beside U-Nets and regression.

    python benchmarks/images/study.py            everything that is not there yet: hours
    python benchmarks/images/study.py --list     what there is to do, and what is done
    python benchmarks/images/study.py --only 'synthesis/.*/seed0'

Each task is a process of its own and writes ``out/image_study/<task>.json`` (cost) and ``.csv``
(one row a person, subset and target); a task that is there is not done again. Every method of a
seed learns from the same people and is judged on the same others, so differences are paired.
``table.py`` sums it up.

* ``synthesis/<method>/seed<k>``: 48 simulated people with a tumour at 4 mm, 20 others judged;
  flat: latents at one resolution only, an eighth of the image's or a half;
* ``segmentation/<method>/seed<k>``: the same people, Dice of the regions of BraTS;
* ``missing/<data>/seed<k>``: synthesis where 60 % of the scans to learn from are missing;
* ``fusion/<fusion>-<alignment>/seed0``: segmentation, trained a third as long;
* ``synthesis_fusion/<fusion>-none/seed0``: synthesis by other fusions, likewise.

U-Nets have three times the epochs, which takes about as many CPU seconds.
"""
from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Distribution

import normfuse as nf
from normfuse import fusion as f
from normfuse.fusion.experts import gaussian, moments
from normfuse.imaging.learning import image_plan
from normfuse.imaging.segmentation import IncompleteSegmenter
from normfuse.imaging.synthesis import ImageSynthesiser
from normfuse.networks.pyramid import Pyramid

OUT = Path("out/image_study")
CONTRASTS = ("T1w", "T1c", "T2w", "FLAIR")
SEEDS = (0, 1, 2)


def subsets(contrasts: tuple[str, ...]) -> list[list[str]]:
    """All that are not empty."""
    return [[c for c, there in zip(contrasts, row) if there]
            for row in product((True, False), repeat=len(contrasts)) if any(row)]


SUBSETS = subsets(CONTRASTS)[1:]  # somebody has to be left to synthesise


class Maximum(f.Aggregator):
    """The largest mean among those present, coordinate by coordinate, and its sd: what networks
    for missing modalities often do with features. No barycenter of anything."""

    weights = f.Uniform()

    def forward(self, experts: Distribution, present: Tensor, priors: Distribution | None = None
                ) -> Distribution:
        loc, scale = moments(experts)
        there = present.reshape(*present.shape, *(1,) * (loc.dim() - 2))
        best = torch.where(there, loc, -torch.inf).argmax(0, keepdim=True)
        loc, scale = (t.gather(0, best)[0] for t in (loc, scale))
        if priors is not None:
            somebody = there.any(0)
            loc, scale = (torch.where(somebody, q, p) for q, p in zip(
                (loc, scale), moments(self.prior(priors))))
        return gaussian(loc, scale, check=False)

    def prior(self, priors: Distribution) -> Distribution:
        everyone = torch.ones(priors.batch_shape[:2], dtype=torch.bool)
        return self(priors, everyone)


FUSIONS: dict[str, Callable[[], f.Aggregator]] = {
    "GWB": lambda: f.GeneralizedWassersteinBarycenter(missing=f.SubstitutePrior()),
    "GWB flat": lambda: f.GeneralizedWassersteinBarycenter(missing=f.SubstitutePrior()),
    "WB": f.WassersteinBarycenter,
    "moments": f.MomentMatchingBarycenter,
    "PoE": f.ProductOfExperts,
    "MoPoE": lambda: f.SubsetMixture(f.ProductOfExperts()),
    "MWB": lambda: f.SubsetMixture(f.WassersteinBarycenter()),
    "maximum": Maximum}
"""WB is the mean of the means and of the sds: what others call fusion by the mean."""

ALIGNMENTS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "T1w": lambda: f.Alignment(f.ModalityAnchor(0)),
    "learned": lambda: f.Alignment(f.MomentMatchingBarycenter(weights=f.Learned()))}

FLAT = Pyramid((8, 16, 32, 64), (0, 0, 0, 16))


def simulated(seed: int, n: int, mm: float) -> nf.SimulatedImages:
    """Some of an endless row, so that those judged are others than those learned from."""
    return nf.simulate_images(n, contrasts=CONTRASTS, lesions="tumour", resolution=mm, seed=seed)


def people(seed: int, n: int, mm: float) -> nf.Cohort:
    return simulated(seed, n, mm).cohort()


def plan(epochs: int) -> nf.TrainingPlan:
    return replace(image_plan(), max_epochs=epochs, patience=epochs,
                   warmup=max(1, epochs // 5), progress=False)


def synthesis(method: str, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    learn, judge = people(seed, 48, 4), people(1000 + seed, 20, 4)
    if method == "regression":
        from rivals import Regression
        return judged(lambda: Regression().fit(learn), judge)
    if method.startswith("unet"):  # unet_complete: nothing hidden in training, zeros afterwards
        from rivals import UNetRival
        hide, epochs = (0.0, 30) if method == "unet_complete" else (0.5, 90)
        return judged(lambda: UNetRival(plan(epochs), seed, hide).fit(learn), judge)
    sizes = {"ladder": Pyramid(), "flat_coarse": Pyramid((8, 16, 32, 64), (0, 0, 0, 64)),
             "flat_fine": Pyramid((8, 24), (0, 24))}
    return judged(lambda: ImageSynthesiser(plan=plan(30), seed=seed,
                                           sizes=sizes[method]).fit(learn), judge)


def segmentation(method: str, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    import segment

    made, judge = simulated(seed, 48, 4), simulated(1000 + seed, 20, 4)
    learn, truth = made.cohort(), made.segmentations()
    methods: dict[str, Callable[[], Any]] = {
        "ladder": lambda: IncompleteSegmenter(plan=plan(36), seed=seed),
        "unet": lambda: segment.UNetSegmenter(plan(108), seed),
        "unet_short": lambda: segment.UNetSegmenter(plan(36), seed)}
    return segment.judged(lambda: methods[method]().fit(learn, truth), judge.cohort(),
                          judge.segmentations())


def fusion(name: str, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    import segment

    fused, aligned = name.split("-")
    made, judge = simulated(seed, 48, 4), simulated(1000 + seed, 20, 4)
    learn, truth = made.cohort(), made.segmentations()
    options: dict[str, Any] = {"sizes": FLAT} if fused.endswith("flat") else {}
    return segment.judged(lambda: IncompleteSegmenter(
        FUSIONS[fused](), alignment=ALIGNMENTS[aligned](), plan=plan(12), seed=seed,
        **options).fit(learn, truth), judge.cohort(), judge.segmentations())


def synthesis_fusion(name: str, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    fused = name.split("-")[0]
    learn, judge = people(seed, 48, 4), people(1000 + seed, 16, 4)
    options: dict[str, Any] = {"sizes": FLAT} if fused.endswith("flat") else {}
    return judged(lambda: ImageSynthesiser(FUSIONS[fused](), plan=plan(8), seed=seed, **options
                                           ).fit(learn), judge)


def missing(data: str, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """complete: 64 people; holes: the same with 60 % of scans missing; complete_cases: those of
    them who have all, one in eight. unet: the U-Net with the first two."""
    from rivals import UNetRival

    everybody = people(seed, 64, 4)
    holed = with_holes(everybody, seed)
    whole = holed.ids[holed.present.all(axis=1).to_numpy()]
    learn = {"complete": everybody, "holes": holed, "unet": everybody, "unet_holes": holed,
             "complete_cases": everybody.select(list(whole))}[data]
    if data.startswith("unet"):
        return judged(lambda: UNetRival(plan(60), seed).fit(learn), people(1000 + seed, 16, 4))
    epochs = 160 if data == "complete_cases" else 20
    return judged(lambda: ImageSynthesiser(plan=plan(epochs), seed=seed).fit(learn),
                  people(1000 + seed, 16, 4))


def with_holes(cohort: nf.Cohort, seed: int, share: float = 0.6, whole: float = 0.125
               ) -> nf.Cohort:
    """Somebody in eight has everything; the others lack so much that ``share`` of all is missing,
    and have one contrast at least."""
    rng = torch.Generator().manual_seed(seed)
    n, m = len(cohort), len(CONTRASTS)
    there = torch.zeros(n, m, dtype=torch.bool)
    there[:round(whole * n)] = True
    for row in there[round(whole * n):]:
        row[torch.randint(m, (), generator=rng)] = True
    free = torch.nonzero(~there)
    more = round((1 - share) * n * m) - int(there.sum())
    for i, j in free[torch.randperm(len(free), generator=rng)[:more]]:
        there[i, j] = True
    subjects = cohort.subjects
    frames = {m.name: cohort.features[m.name].loc[cohort.ids[there[:, k].numpy()]]
              for k, m in enumerate(cohort.modalities)}
    return nf.Cohort.from_frames(subjects, frames, covariates=cohort.covariates,
                                 spaces={m.name: m.space for m in cohort.modalities})


def judged(made: Callable[[], Any], judge: nf.Cohort) -> tuple[pd.DataFrame, dict[str, Any]]:
    start = time.process_time()
    method = made()
    trained = time.process_time() - start
    rows, seconds = [], 0.0
    for given in SUBSETS:
        start = time.process_time()
        synthesised = method.synthesise(judge, [c for c in CONTRASTS if c not in given])
        seconds += time.process_time() - start
        rows.append(synthesised.errors(judge).assign(n_given=len(given)))
    net = getattr(getattr(method, "_fitted", None), "net", getattr(method, "net", None))
    cost = {"training_cpu_s": trained, "cpu_s_a_volume": seconds / len(SUBSETS) / len(judge),
            "parameters": 0 if net is None else sum(p.numel() for p in net.parameters())}
    return pd.concat(rows), cost


TASKS: dict[str, Callable[..., tuple[pd.DataFrame, dict[str, Any]]]] = {
    "synthesis": synthesis, "segmentation": segmentation, "missing": missing, "fusion": fusion,
    "synthesis_fusion": synthesis_fusion}


def all_tasks() -> list[str]:
    return [*(f"synthesis/{m}/seed{s}" for s in SEEDS
              for m in ("ladder", "unet", "unet_complete", "regression")),
            *(f"segmentation/{m}/seed{s}" for s in SEEDS for m in ("ladder", "unet")),
            "segmentation/unet_short/seed0",
            *(f"missing/{d}/seed{s}" for s in SEEDS
              for d in ("complete", "holes", "complete_cases", "unet", "unet_holes")),
            *(f"synthesis/{m}/seed0" for m in ("flat_coarse", "flat_fine")),
            *(f"fusion/{a}-{b}/seed0" for b in ALIGNMENTS for a in FUSIONS),
            *(f"synthesis_fusion/{a}-none/seed0" for a in FUSIONS)]


def work(task: str) -> None:
    kind, name, seed = task.split("/")
    torch.set_num_threads(1)
    table, cost = TASKS[kind](name, int(seed.removeprefix("seed")))
    cost["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    file = OUT / f"{task}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False)
    file.with_suffix(".json.new").write_text(json.dumps(cost), encoding="utf-8")
    file.with_suffix(".json.new").rename(file.with_suffix(".json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="tasks that this pattern is found in")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        work(chosen.task)
        return
    for task in all_tasks():
        done = (OUT / f"{task}.json").exists()
        if re.search(chosen.only, task) is None:
            continue
        print("done" if done else "to do", task, flush=True)
        if not done and not chosen.list:
            subprocess.run([sys.executable, __file__, "--task", task], check=True)


if __name__ == "__main__":
    main()

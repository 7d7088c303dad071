"""Does topological pre-training help? Few labels, patients, lesions as deviations.

    python benchmarks/images/pretraining.py            tasks that are not there yet
    python benchmarks/images/pretraining.py --table

For each of five seeds, at 4 mm, in axial slices of T1w, T2w and FLAIR of simulated people:

* encoders of 40 people without labels (a quarter with a tumour, a quarter with plaques), by
  reconstruction only, with the intra-subject loss, with both, and fresh ones;
* segmentation of tumours (Dice of all labels together) after 2, 5 and 20 labelled people, as many
  steps each; 12 other people, with all contrasts and with each alone;
* patients (tumours) or not: logistic regression on an encoder's features, frozen (their mean, sd
  and extremes in the brain); 24 people to learn from, 56 others to judge (area under the ROC
  curve), with all contrasts and T1w alone. Beside it principal components of the voxels;
* detection: z of a synthesiser fitted to 30 healthy people (each contrast foretold by the others),
  area under the ROC curve of lesions' voxels by |z| in 12 people with tumours, and with one of the
  others missing.

Rows of a seed are paired: the same people, the same steps. Fresh weights beside the encoders'
and the order of people are the seed's.
"""
from __future__ import annotations

import argparse
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import normfuse as nf
from normfuse.imaging.images import Frame, Stack, Units
from normfuse.imaging.pretraining import Topology, pretrain
from normfuse.imaging.topology_nets import image_encoder
from normfuse.networks.pyramid import Pyramid
from normfuse.pretrained import PretrainedEncoders
from normfuse.training import TrainingPlan

OUT = Path("out/pretraining")
MEASURED = Path(__file__).with_suffix(".csv")
CONTRASTS = ("T1w", "T2w", "FLAIR")
ARMS = {"scratch": None, "reconstruction": Topology(intra=0, inter=0),
        "intra": Topology(inter=0), "intra + inter": Topology()}
SEEDS, LABELLED = range(5), (2, 5, 20)
STEPS, BATCH = 300, 8
SIZES = Pyramid()


def people(n: int, lesions: Any, seed: int) -> nf.Cohort:
    return simulated(n, lesions, seed).cohort()


def simulated(n: int, lesions: Any, seed: int) -> Any:
    return nf.simulate_images(n, contrasts=CONTRASTS, lesions=lesions, resolution=4, seed=seed)


def encoders(arm: str, seed: int) -> PretrainedEncoders | None:
    """Made once, then read."""
    folder = OUT / "encoders" / f"{arm.replace(' ', '')}_{seed}"
    if ARMS[arm] is None:
        return None
    if not folder.exists():
        pool = people(40, {"tumour": 0.25, "sclerosis": 0.25}, 1000 + seed)
        start = time.process_time()
        made = pretrain(pool, objective=ARMS[arm], networks=SIZES, seed=seed, plan=TrainingPlan(
            max_epochs=6, patience=6, warmup=0, learning_rate=1e-3, batch_size=8, final_rate=0.05,
            clip=5.0, validation_draws=1))
        made.save(folder)
        said = made.history.iloc[-1].round(3).to_dict()
        print(arm, seed, f"{time.process_time() - start:.0f} CPU-s", said, made.notes, flush=True)
    return PretrainedEncoders.load(folder)


def plan(n_images: int) -> TrainingPlan:
    """STEPS steps, whatever the number of people."""
    epochs = max(1, round(STEPS / -(-n_images // BATCH)))
    return TrainingPlan(max_epochs=epochs, patience=epochs, warmup=max(1, epochs // 8),
                        batch_size=BATCH, final_rate=0.05, clip=5.0, validation_draws=1)


def segmentation(arm: str, seed: int, n: int) -> list[dict[str, Any]]:
    made = simulated(20, "tumour", 2000 + seed)
    cohort, truth = made.cohort(), made.segmentations()
    some = [str(i) for i in cohort.ids[:n]]
    slices = instructive(truth.select(some))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nf.IncompleteSegmenter(sizes=SIZES, encoders=encoders(arm, seed), seed=seed,
                                       plan=plan(slices))
        model.fit(cohort.select(some), truth.select(some))
        new = simulated(12, "tumour", 3000 + seed)
        rows = []
        for given in (CONTRASTS, *((c,) for c in CONTRASTS)):
            found = model.predict(new.cohort(), given=list(given))
            dice = [dice_of(a > 0, b > 0) for a, b in zip(
                found.labels, new.segmentations().select(found.ids).labels)]
            rows.append({"task": f"segmentation, {n} labelled", "given": "+".join(given),
                         "value": float(np.mean(dice)), "n": len(dice)})
    return rows


def instructive(truth: nf.Segmentations) -> int:
    """About as many images as a segmenter takes: those with a label and as many without."""
    level = truth.space.indices[:, 2]
    return 2 * sum(len(np.unique(level[row > 0])) for row in truth.labels)


def dice_of(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


def classification(arm: str, seed: int) -> list[dict[str, Any]]:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    cohort = people(80, {"tumour": 0.5}, 4000 + seed)
    truth = simulated(80, {"tumour": 0.5}, 4000 + seed).segmentations()
    ill = (truth.select(list(map(str, cohort.ids))).labels > 0).any(1)
    order = np.random.default_rng(seed).permutation(len(cohort))
    learn = np.sort(np.r_[order[ill[order]][:12], order[~ill[order]][:12]])
    judge = np.setdiff1d(order, learn)
    blocks = features(arm, seed, cohort, learn)
    rows = []
    for given in (CONTRASTS, CONTRASTS[:1]):
        model = make_pipeline(StandardScaler(), LogisticRegressionCV(
            Cs=np.logspace(-4, 1, 6), cv=3, scoring="neg_log_loss", max_iter=5000))
        x = np.hstack([blocks[c] for c in given])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x[learn], ill[learn])
        area = roc_auc_score(ill[judge], model.decision_function(x[judge]))
        rows.append({"task": "classification", "given": "+".join(given), "value": float(area),
                     "n": len(judge)})
    return rows


@torch.no_grad()
def features(arm: str, seed: int, cohort: nf.Cohort, learn: np.ndarray) -> dict[str, np.ndarray]:
    """Of every contrast: mean, sd and extremes of each innermost feature over the brain."""
    from sklearn.decomposition import PCA

    if arm == "principal components":
        values = {m.name: cohort.features[m.name].to_numpy(np.float64) for m in cohort.modalities}
        return {name: PCA(8, random_state=0).fit(x[learn]).transform(x)
                for name, x in values.items()}
    torch.manual_seed(seed)
    nets = {c: image_encoder(SIZES, 2).eval() for c in CONTRASTS}
    made = encoders(arm, seed)
    if made is not None:
        made.start(nets)
    frame = Frame(cohort.modalities[0].space, SIZES.step, "axial")
    stack = Stack.of(cohort, frame, Units.of(cohort.select(cohort.ids[learn])), slices=frame.busy)
    images = stack.take(torch.arange(len(stack)))
    share = torch.nn.functional.avg_pool2d(images.inside[:, None].float(), SIZES.step)
    inside = (share >= 0.5).view(len(cohort), -1)
    found = {}
    for k, c in enumerate(CONTRASTS):
        inner = torch.cat([nets[c](some[:, None])[-1] for some in images.values[k].split(64)])
        flat = inner.flatten(2).transpose(1, 2).reshape(len(cohort), -1, inner.shape[1])
        found[c] = np.stack([np.r_[f[i].mean(0), f[i].std(0), f[i].amin(0), f[i].amax(0)]
                             for f, i in zip(flat, inside)])
    return found


def detection(arm: str, seed: int) -> list[dict[str, Any]]:
    from sklearn.metrics import roc_auc_score

    healthy = people(30, None, 5000 + seed)
    n_slices = len(Frame(healthy.modalities[0].space, SIZES.step, "axial").busy) * 25
    model = nf.ImageSynthesiser(sizes=SIZES, encoders=encoders(arm, seed), seed=seed,
                                plan=plan(n_slices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(healthy)
        made = simulated(12, "tumour", 6000 + seed)
        ill, truth = made.cohort(), made.segmentations()
        where = truth.select(list(map(str, ill.ids))).labels > 0
        rows = []
        for target, lacking in product(CONTRASTS, (None, "one")):
            others = [c for c in CONTRASTS if c != target]
            given = others if lacking is None else others[:1]
            found = model.synthesise(ill, [target], given=given)
            z = np.abs((ill.features[target].to_numpy() - found.mean[target].to_numpy())
                       / found.sd[target].to_numpy())
            areas = [roc_auc_score(w, row) for w, row in zip(where, z)]
            rows.append({"task": f"detection in {target}", "given": "+".join(given),
                         "value": float(np.mean(areas)), "n": len(areas)})
    return rows


def run() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / "results.csv"
    done = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["key"])
    for seed in SEEDS:
        tasks = [(f"segmentation {n}", arm, lambda a, n=n: segmentation(a, seed, n))
                 for n in LABELLED for arm in ARMS]
        tasks += [("classification", arm, lambda a: classification(a, seed))
                  for arm in (*ARMS, "principal components")]
        tasks += [("detection", arm, lambda a: detection(a, seed)) for arm in ARMS]
        for name, arm, job in tasks:
            key = f"{name}/{arm}/{seed}"
            if key in set(done["key"]):
                continue
            if arm in ARMS:
                encoders(arm, seed)
            start = time.process_time()
            rows = pd.DataFrame(job(arm)).assign(key=key, arm=arm, seed=seed,
                                                 cpu_s=time.process_time() - start)
            rows.to_csv(file, mode="a", header=not file.exists(), index=False)
            print(key, rows["value"].round(3).tolist(), f"{rows['cpu_s'][0]:.0f} CPU-s",
                  flush=True)


def table() -> None:
    """Means over seeds, and differences from scratch with their standard errors; what they are
    made of goes to MEASURED."""
    found = pd.read_csv(OUT / "results.csv")
    found["given"] = np.where(found["given"].str.count(r"\+") == 2, "all",
                              found["given"].where(found["task"].str.startswith("det"), "one"))
    found = found.groupby(["task", "given", "seed", "arm"], as_index=False)["value"].mean()
    found.round(4).to_csv(MEASURED, index=False)
    rows = []
    for (task, given), some in found.groupby(["task", "given"]):
        wide = some.pivot(index="seed", columns="arm", values="value")
        row: dict[str, Any] = {"task": task, "given": given, "n": len(wide),
                               "scratch": f"{wide['scratch'].mean():.3f}"}
        for arm in wide.columns.drop("scratch"):
            apart = (wide[arm] - wide["scratch"]).dropna()
            row[arm] = f"{apart.mean():+.3f} (SE {apart.std() / np.sqrt(len(apart)):.3f})"
        rows.append(row)
    print(pd.DataFrame(rows).fillna("").to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    torch.set_num_threads(1)
    table() if parser.parse_args().table else run()


if __name__ == "__main__":
    main()

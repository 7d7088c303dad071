"""Real people, one left out in turn: synthesis and lesions, fine-tuned from simulation.

Two people with multiple sclerosis and one with a lower-grade glioma, T1w, T1c, T2w and FLAIR in
MNI space, from ../shared/data/images. Networks learn from simulated people (a third healthy, a
third with a tumour, a third with plaques), then go on with two of the real ones; the third is
judged: PSNR and SSIM of each contrast from all 14 subsets of the others, and Dice of "any lesion"
from all 15 subsets. Beside them: the network before it saw real people, voxel-wise regression on
the same two, and the U-Net learned and tuned alike. Three people: no more than an illustration.

``--out`` gets tables (CSV) and pictures (PNG): input, truth, result, uncertainty.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rivals import Regression, UNetRival
from segment import UNetSegmenter
from study import CONTRASTS, SUBSETS, plan, subsets

import normfuse as nf
from normfuse.imaging.images import one_space
from normfuse.imaging.segmentation import IncompleteSegmenter
from normfuse.imaging.synthesis import ImageSynthesiser
from normfuse.imaging.synthesised import Synthesis
from normfuse.segmentations import Segmentations

DATA = (Path(__file__).parents[2] / ".." / "shared" / "data" / "images").resolve()
SCANS = {"openms07": "ms_mni2mm/openms07", "openms19": "ms_mni2mm/openms19",
         "tcgadu7294": "glioma_mni2mm/tcgadu7294"}
MASKS = {"openms07": "ms_mni2mm/openms07_lesions", "openms19": "ms_mni2mm/openms19_lesions",
         "tcgadu7294": "glioma_mni2mm/tcgadu7294_tumourseg"}
NUMBERS = {"openms07": {1: 4}, "openms19": {1: 4}, "tcgadu7294": {1: 1, 2: 2}}
"""Of the masks -> of the labels of simulated people: core 1, oedema 2, enhancing 3, plaque 4."""

TOML = """[subjects]
table = "participants.tsv"
[reference]
query = "all"
"""
MODALITY = """[modalities.{0}]
images = "{{scans}}_{0}.nii.gz"
mask = "brain"
resolution = {1:g}
smoothing = 2.5
scaling = "white_matter"
"""


def real_people(mm: float) -> nf.Cohort:
    """Intensities in units of the mode of white matter, as the simulated ones (their mean)."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [(who, DATA / scans) for who, scans in SCANS.items()]
        pd.DataFrame(rows, columns=["participant_id", "scans"]).to_csv(
            Path(folder) / "participants.tsv", sep="\t", index=False)
        (Path(folder) / "cohort.toml").write_text(
            TOML + "".join(MODALITY.format(c, mm) for c in CONTRASTS), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of signal here and there outside
            read = nf.Cohort.read(Path(folder) / "cohort.toml")
        frames = {m.name: read.features[m.name].copy() for m in read.modalities}
    return nf.Cohort.from_frames(read.subjects.assign(age=0.0), frames, covariates={},
                                 spaces={m.name: m.space for m in read.modalities})


def simulated(n: int, mm: float) -> nf.SimulatedImages:
    return nf.simulate_images(n, contrasts=CONTRASTS, resolution=mm, seed=0,
                              lesions={"tumour": 1 / 3, "sclerosis": 1 / 3})


def synthesis(people: nf.Cohort, n: int, mm: float, epochs: int, out: Path
              ) -> tuple[pd.DataFrame, dict[str, Any]]:
    cost: dict[str, Any] = {}
    learn = simulated(n, mm).cohort()
    start = time.process_time()
    ladder = ImageSynthesiser(plan=plan(epochs)).fit(learn)
    cost["ladder_fit_cpu_s"], start = time.process_time() - start, time.process_time()
    unet = UNetRival(plan(5 * epochs), 0).fit(learn)
    cost["unet_fit_cpu_s"] = time.process_time() - start
    brief = replace(plan(20), learning_rate=5e-4)
    rows = []
    for who in people.ids:
        two, one = people.select([i for i in people.ids if i != who]), people.select([who])
        start = time.process_time()
        methods = {"simulation only": ladder, "ladder": ladder.tune(two, brief)}
        cost["tune_cpu_s"] = time.process_time() - start
        methods["unet"] = unet.tune(two, replace(brief, max_epochs=60))
        methods["regression"] = Regression().fit(two)
        for given in SUBSETS:
            targets = [c for c in CONTRASTS if c not in given]
            for name, method in methods.items():
                made = method.synthesise(one, targets)
                rows.append(made.errors(one).assign(method=name, n_given=len(given)))
                if name == "ladder" and len(given) in (1, 3):
                    picture(made, one, given, out)
    return pd.concat(rows), cost


def picture(made: Synthesis, one: nf.Cohort, given: list[str], out: Path) -> None:
    """One slice: what was looked at, then for each target truth, result, sd, error in sd."""
    import matplotlib.pyplot as plt

    who, space = one.ids[0], made.space
    k = tallest_slice(who, space)
    figure, axes = plt.subplots(len(made.mean), 5, figsize=(12, 2.7 * len(made.mean)),
                                squeeze=False, layout="constrained")
    for row, m in zip(axes, made.modalities):
        real = one.features[m.name].loc[who].to_numpy()
        error = made.standardised(one, m.name).loc[who].to_numpy()
        top = float(np.nanquantile(real, 0.995))
        shown = [(one.features[given[0]].loc[who].to_numpy(), f"{given[0]} (looked at)", "gray",
                  0, None),
                 (real, f"{m.name} (truth)", "gray", 0, top),
                 (made.mean[m.name].loc[who].to_numpy(), f"from {' + '.join(given)}", "gray", 0,
                  top),
                 (made.sd[m.name].loc[who].to_numpy(), "sd", "magma", 0, None),
                 (error, "error / sd", "RdBu_r", -4, 4)]
        for axis, (values, title, colours, low, high) in zip(row, shown):
            image = np.rot90(space.img(np.nan_to_num(values)).get_fdata()[..., k])
            drawn = axis.imshow(image, cmap=colours, vmin=low, vmax=high)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
            figure.colorbar(drawn, ax=axis, shrink=0.7)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{who}_from_{'_'.join(given)}.png", dpi=80)
    plt.close(figure)


def segmentation(people: nf.Cohort, n: int, mm: float, epochs: int, out: Path
                 ) -> tuple[pd.DataFrame, dict[str, Any]]:
    cost: dict[str, Any] = {}
    made = simulated(n, mm)
    learn, taught = made.cohort(), made.segmentations()
    truth = real_lesions(people, taught.names)
    start = time.process_time()
    ours = IncompleteSegmenter(plan=plan(epochs)).fit(learn, taught)
    cost["segmenter_fit_cpu_s"], start = time.process_time() - start, time.process_time()
    unet = UNetSegmenter(plan(4 * epochs), 0).fit(learn, taught)
    cost["unet_segmenter_fit_cpu_s"] = time.process_time() - start
    brief, rows = replace(plan(20), learning_rate=5e-4), []
    for who in people.ids:
        others = [i for i in people.ids if i != who]
        two, two_truth, one = people.select(others), truth.select(others), people.select([who])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of two people nobody calibrates
            methods = {"simulation only": ours, "ladder": ours.tune(two, two_truth, brief),
                       "unet": unet.tune(two, two_truth, replace(brief, max_epochs=60)),
                       "unet, simulation only": unet}
        for given in subsets(CONTRASTS):
            for name, method in methods.items():
                found = method.predict(one, given=given)
                dice = found.dice(truth.select([who]), {"any lesion": list(truth.names)})
                rows.append({"subject": who, "method": name, "given": "+".join(given),
                             "n_given": len(given), "dice": dice["any lesion"].iloc[0],
                             "ml": found.volumes().sum(axis=1).iloc[0],
                             "true_ml": truth.select([who]).volumes().sum(axis=1).iloc[0]})
                if name == "ladder" and given in (["FLAIR"], ["T1w"], list(CONTRASTS)):
                    picture_of_lesions(found, truth, one, given, out)
    return pd.DataFrame(rows), cost


def real_lesions(people: nf.Cohort, names: Mapping[str, int]) -> Segmentations:
    """Masks of experts, by the simulation's names; to coarser voxels by the nearest one."""
    space = one_space(people)
    labels = np.zeros((len(people), space.n_voxels), np.uint8)
    for row, who in zip(labels, people.ids):
        image = mask_on(who, space)
        for there, number in NUMBERS[who].items():
            row[image[tuple(space.indices.T)] == there] = number
    return Segmentations(tuple(map(str, people.ids)), labels, space, dict(names))


def picture_of_lesions(found: Segmentations, truth: Segmentations, one: nf.Cohort,
                       given: list[str], out: Path) -> None:
    """One slice: what was looked at, the truth on it, the result on it, the entropy."""
    import matplotlib.pyplot as plt

    who, space = str(one.ids[0]), found.space
    k, shown = tallest_slice(who, space), given[-1]

    def slice_of(values: np.ndarray) -> np.ndarray:
        return np.rot90(space.img(values.astype(np.float32)).get_fdata()[..., k])

    seen = slice_of(np.nan_to_num(one.features[shown].loc[who].to_numpy()))
    true, result = (slice_of(s.select([who]).labels[0]) for s in (truth, found))
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
    for axis, labels, title in zip(axes, (None, true, result), (
            f"{who}, {shown}", "expert", f"from {' + '.join(given)}")):
        axis.imshow(seen, cmap="gray", vmin=0)
        if labels is not None:
            axis.imshow(np.ma.masked_equal(labels, 0), cmap="tab10", vmin=1, vmax=10, alpha=0.6,
                        interpolation="nearest")
        axis.set_title(title, fontsize=9)
    unsure = axes[3].imshow(slice_of(found.uncertainty[0]), cmap="magma", vmin=0, vmax=1)
    axes[3].set_title("entropy, share of the largest", fontsize=9)
    figure.colorbar(unsure, ax=axes[3], shrink=0.7)
    for axis in axes:
        axis.axis("off")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{who}_lesion_from_{'_'.join(given)}.png", dpi=80)
    plt.close(figure)


def mask_on(who: str, space: nf.Space) -> np.ndarray:
    from nilearn.image import resample_to_img

    lesion = resample_to_img(str(DATA / f"{MASKS[who]}.nii.gz"), space.mask_img(),
                             interpolation="nearest", force_resample=True, copy_header=True)
    return lesion.get_fdata().round()


def tallest_slice(who: str, space: nf.Space) -> int:
    """The axial slice with most of the person's lesion."""
    return int((mask_on(who, space) > 0).sum((0, 1)).argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=48, help="simulated, to learn from")
    parser.add_argument("--mm", type=float, default=3.0)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--only", default="", choices=("", "synthesis", "segmentation"))
    parser.add_argument("--out", type=Path, default=Path("out/real_images"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    people = real_people(chosen.mm)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, run, shown in (("synthesis", synthesis, ["psnr", "ssim", "mae", "z_sd"]),
                             ("segmentation", segmentation, ["dice"])):
        if chosen.only not in ("", name):
            continue
        table, cost = run(people, chosen.people, chosen.mm, chosen.epochs, chosen.out)
        table.to_csv(chosen.out / f"{name}.csv", index=False)
        (chosen.out / f"{name}.json").write_text(json.dumps(cost), encoding="utf-8")
        print(json.dumps(cost))
        print(table.groupby(["method", "n_given"])[shown].mean().round(3))
        print(table.groupby(["method", "subject"])[shown].mean().round(3), flush=True)


if __name__ == "__main__":
    main()

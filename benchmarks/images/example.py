"""What the pictures of the guides on synthesis and segmentation show: some CPU minutes.

Trains both methods on simulated people and keeps one slice of one other person, as bytes, in
``docs/gallery/image_methods.npz``; ``docs/gallery/plot_image_methods.py`` draws it.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from study import CONTRASTS, plan, simulated

import normfuse as nf
from normfuse.imaging.images import one_space

FILE = Path(__file__).parents[2] / "docs" / "gallery" / "image_methods.npz"
MM, WHO = 3, 1


def main() -> None:
    torch.set_num_threads(1)
    learn, other = simulated(0, 40, MM), simulated(1000, 4, MM)
    people, truth = other.cohort(), other.segmentations()
    one, labels = people.select([people.ids[WHO]]), truth.select([people.ids[WHO]])
    who, space = str(one.ids[0]), one_space(one)
    height = int(np.bincount(space.indices[labels.mask(["core", "enhancing"])[0], 2]).argmax())

    def cut(row: np.ndarray) -> np.ndarray:
        return np.asarray(space.img(np.asarray(row, np.float32), np.nan).dataobj)[..., height].T

    kept = {f"scan {c}": cut(one.features[c].loc[who].to_numpy()) for c in CONTRASTS}
    kept["label truth"] = cut(labels.labels[0])
    synthesiser = nf.ImageSynthesiser(plan=plan(12)).fit(learn.cohort())
    for given in (["T1w"], ["T1w", "T1c", "T2w"]):
        made = synthesiser.synthesise(one, ["FLAIR"], given=given)
        name = "+".join(given)
        kept[f"mean {name}"] = cut(made.mean["FLAIR"].loc[who].to_numpy())
        kept[f"sd {name}"] = cut(made.sd["FLAIR"].loc[who].to_numpy())
        kept[f"z {name}"] = cut(made.standardised(one, "FLAIR").loc[who].to_numpy())
    segmenter = nf.IncompleteSegmenter(plan=plan(16)).fit(learn.cohort(), learn.segmentations())
    for given in (["T1w"], ["FLAIR"], list(CONTRASTS)):
        found = segmenter.predict(one, given=given)
        kept[f"label {'+'.join(given)}"] = cut(found.labels[0])
        kept[f"entropy {'+'.join(given)}"] = cut(found.uncertainty[0])
    np.savez_compressed(FILE, **{k: v.astype(np.float16) for k, v in kept.items()})
    print(FILE, f"{FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()

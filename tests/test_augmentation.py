"""Altered copies of the people who train.

Witness: the flip of an image written out with NumPy; TorchIO does the altering.
"""
from __future__ import annotations

import numpy as np
import pytest
import torch

import normfuse as nf
from normfuse.errors import NormfuseError
from normfuse.imaging.augmentation import Augmentation
from normfuse.imaging.images import Frame, Stack, Units
from normfuse.testing import tiny_images, tiny_segmentations

PEOPLE = tiny_images(8)
SPACE = PEOPLE.modalities[0].space
CLASSES = torch.from_numpy(tiny_segmentations(PEOPLE).labels.copy())
STILL = {"flip": 0.0, "degrees": 0.0, "shift": 0.0, "scale": 0.0, "bias": 0.0, "gamma": 0.0}
BRIEF = nf.TrainingPlan(max_epochs=1, warmup=1, validation_draws=1, batch_size=16)


def stack() -> tuple[Stack, Units]:
    units = Units.of(PEOPLE)
    return Stack.of(PEOPLE, Frame(SPACE, 2, "axial"), units, CLASSES), units


def test_without_any_change_copies_are_the_people() -> None:
    before, units = stack()
    after = Augmentation(copies=2, **STILL).added_to(before, units, seed=0)
    assert len(after) == 3 * len(before)
    for old, new in zip(before.tables, after.tables):
        torch.testing.assert_close(new, old.repeat(3, 1), equal_nan=True, rtol=1e-3, atol=1e-3)
    assert torch.equal(after.labels, before.labels.repeat(3, 1))
    last = after.take(torch.tensor([len(after) - 1]))
    assert torch.equal(last.labels, before.take(torch.tensor([len(before) - 1])).labels)


def test_scans_and_labels_of_a_person_are_flipped_together() -> None:
    """Along x, whatever stands there in the mirrored place; what the mirror lacks is unknown."""
    before, units = stack()
    after = Augmentation(copies=1, **{**STILL, "flip": 1.0}).added_to(before, units, seed=0)
    n = len(PEOPLE)

    def mirrored(rows: torch.Tensor, nothing: float) -> np.ndarray:
        volume = np.full((len(rows), *SPACE.shape), nothing)
        volume[:, SPACE.mask] = rows.numpy()
        return volume[:, ::-1][:, SPACE.mask]

    assert np.array_equal(after.labels[n:], mirrored(before.labels, 0))
    for old, new in zip(before.tables, after.tables):
        np.testing.assert_allclose(new[n:], mirrored(old, np.nan), rtol=1e-3, atol=1e-3)
    assert torch.equal(after.present[:, :n], after.present[:, n:])  # who lacks a scan still does


def test_drawn_anew_and_the_same_again() -> None:
    before, units = stack()
    made = [Augmentation(copies=2).added_to(before, units, seed) for seed in (0, 0, 1)]
    rows = [m.tables[0].nan_to_num(0.0) for m in made]
    n = len(PEOPLE)
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert torch.equal(rows[0][:n], before.tables[0].nan_to_num(0.0))
    assert (rows[0][n:2 * n] - rows[0][2 * n:]).abs().max() > 0.1
    assert set(made[0].labels.unique().tolist()) <= set(CLASSES.unique().tolist())


@pytest.mark.parametrize("kind", [nf.IncompleteSegmenter, nf.ImageSynthesiser])
def test_models_train_with_it_and_keep_it(kind, tmp_path) -> None:
    labels = [tiny_segmentations(PEOPLE)] if kind is nf.IncompleteSegmenter else []
    options = {"sizes": nf.Pyramid((4, 8), (0, 4)), "plan": BRIEF}
    plain = kind(**options).fit(PEOPLE, *labels)
    made = kind(**options, augmentation=Augmentation(copies=1)).fit(PEOPLE, *labels)
    again = kind.load(made.save(tmp_path / "model"))
    assert again.augmentation == made.augmentation == Augmentation(copies=1)
    assert not plain.fitted.history["training"].equals(made.fitted.history["training"])


def test_what_it_refuses(monkeypatch) -> None:
    for wrong in ({"copies": 0}, {"flip": 1.5}, {"bias": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Augmentation(**wrong)
    monkeypatch.setitem(__import__("sys").modules, "torchio", None)
    with pytest.raises(NormfuseError, match=r"TorchIO.*normfuse\[imaging\]"):
        Augmentation().added_to(*stack(), seed=0)

"""Both image models: on disk and back, on another device, and in parts that processes may share.

Witnesses: the predictions of the model that was saved; the same training on the CPU; the weights
of one process. A device that is not there (far_device.py) stands for a GPU: it refuses what a GPU
would, tensors of two devices in one operation.
"""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import normfuse as nf
from normfuse.errors import ModelFileError, OutputExistsError
from normfuse.fusion import (Alignment, Learned, MomentMatchingBarycenter, ProductOfExperts,
                             SubsetMixture, WassersteinBarycenter)
from normfuse.imaging.adversarial import PatchAdversary
from normfuse.imaging.image_file import JSON_NAME
from normfuse.signed import WEIGHTS_NAME, digest
from normfuse.testing import tiny_images, tiny_segmentations

PEOPLE = tiny_images()
NEW = tiny_images(seed=1).select(["sub-04", "sub-03", "sub-07"])
PLAN = nf.TrainingPlan(max_epochs=2, warmup=1, batch_size=16, validation_draws=1)
OPTIONS = {"sizes": nf.Pyramid((4, 8), (2, 4)), "plan": PLAN}


class Mine(WassersteinBarycenter):
    """A fusion of somebody's own."""


def segmenter(**options) -> nf.IncompleteSegmenter:
    return nf.IncompleteSegmenter(**{**OPTIONS, **options}).fit(PEOPLE, tiny_segmentations())


def synthesiser(**options) -> nf.ImageSynthesiser:
    return nf.ImageSynthesiser(**{**OPTIONS, **options}).fit(PEOPLE)


def said(model) -> list[np.ndarray]:
    """All that it predicts of new people, from two modalities."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(model, nf.IncompleteSegmenter):
            found = model.predict(NEW, given=["T1w", "FLAIR"])
            return [found.labels, found.uncertainty]
        made = model.synthesise(NEW, ["T2w"], given=["T1w", "FLAIR"])
    return [made.mean["T2w"].to_numpy(), made.sd["T2w"].to_numpy()]


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(said(a), said(b), strict=True))


@pytest.fixture(scope="module")
def made() -> dict[str, nf.IncompleteSegmenter | nf.ImageSynthesiser]:
    align = Alignment(MomentMatchingBarycenter(weights=Learned()), weight=0.2)
    return {"segmenter": segmenter(alignment=align),
            "synthesiser": synthesiser(adversary=PatchAdversary(width=4, layers=1))}


@pytest.fixture(scope="module")
def folders(made, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {name: model.save(place / name) for name, model in made.items()}


@pytest.mark.parametrize("name", ["segmenter", "synthesiser"])
class TestOnDisk:
    def test_predictions_are_the_same_to_the_last_bit(self, made, folders, name):
        model = made[name]
        torch.manual_seed(5)
        state = torch.get_rng_state()
        again = type(model).load(folders[name])
        assert torch.equal(state, torch.get_rng_state())
        assert equal(model, again) and repr(again) == repr(model)
        for option, value in model.options().items():
            assert repr(again.options()[option]) == repr(value), option
        assert again.fitted.known == model.fitted.known
        np.testing.assert_array_equal(again.fitted.history, model.fitted.history)
        with pytest.warns(UserWarning, match="were used to train"):
            (again.predict if name == "segmenter" else again.synthesise)(PEOPLE)

    def test_a_read_one_goes_on_learning(self, folders, name, made):
        again = type(made[name]).load(folders[name])
        more = (tiny_segmentations(NEW),) if name == "segmenter" else ()
        assert not equal(again.tune(NEW, *more, plan=replace(PLAN, max_epochs=1)), again)

    def test_nothing_measured_is_kept(self, folders, name):
        from safetensors.torch import load_file

        content = (folders[name] / JSON_NAME).read_text()
        assert not any(subject in content for subject in PEOPLE.ids)
        assert not any("adversaries" in key for key in load_file(folders[name] / WEIGHTS_NAME))
        assert sorted(f.name for f in folders[name].iterdir()) == [JSON_NAME, WEIGHTS_NAME]

    def test_damage_is_named(self, folders, name, made, tmp_path):
        kind, folder = type(made[name]), tmp_path / "m"

        def refusal(damage) -> str:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(folders[name], folder)
            damage()
            with pytest.raises(ModelFileError) as found:
                kind.load(folder)
            return str(found.value)

        def cut(file: str) -> None:
            (folder / file).write_bytes((folder / file).read_bytes()[:-40])

        def edit(sign: bool, **changes) -> None:
            content = json.loads((folder / JSON_NAME).read_text())
            content |= changes
            content["options"] |= changes.get("options", {})
            content.pop("sha256") if sign else None
            signed = {**content, "sha256": digest(content)} if sign else content
            (folder / JSON_NAME).write_text(json.dumps(signed))

        options = json.loads((folders[name] / JSON_NAME).read_text())["options"]
        large = {"class": "Pyramid", "options": {"channels": [4, 2**20], "latents": [0, 4]}}
        assert "truncated" in refusal(lambda: cut(WEIGHTS_NAME))
        assert "truncated or edited" in refusal(lambda: cut(JSON_NAME))
        assert "is not a saved model" in refusal(lambda: (folder / WEIGHTS_NAME).unlink())
        assert "changed after it was saved" in refusal(lambda: edit(False, units={}))
        assert "has format 99" in refusal(lambda: edit(True, format=99))
        assert "does not hold a complete image model" in refusal(lambda: edit(True, units={}))
        assert "another network than the weights" in refusal(
            lambda: edit(True, options={**options, "sizes": large}))
        assert "normfuse does not know" in refusal(
            lambda: edit(True, options={**options, "fusion": {"class": "Popen", "options": {}}}))

    def test_folders_of_others(self, folders, name, made, tmp_path):
        other = "synthesiser" if name == "segmenter" else "segmenter"
        kind, strange = type(made[name]), type(made[other]).__name__
        with pytest.raises(ModelFileError, match=f"holds '{strange}', no {kind.__name__}"):
            kind.load(folders[other])
        with pytest.raises(ModelFileError, match="is not a saved model"):
            kind.load(tmp_path)
        with pytest.raises(OutputExistsError):
            made[name].save(folders[name])


def test_a_fusion_of_ones_own_is_given_again(tmp_path):
    model = segmenter(fusion=Mine())
    folder = model.save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="'Mine', which normfuse does not know.*fusion="):
        nf.IncompleteSegmenter.load(folder)
    assert equal(model, nf.IncompleteSegmenter.load(folder, fusion=Mine()))
    with pytest.raises(ModelFileError, match="it cannot be read as ProductOfExperts"):
        nf.IncompleteSegmenter.load(folder, fusion=ProductOfExperts())


@pytest.mark.slow
def test_another_device_computes_the_same():
    found = subprocess.run([sys.executable, Path(__file__).with_name("far_device.py")],
                           capture_output=True, text=True, timeout=600)
    assert "refused: aten.add.Tensor" in found.stdout, found.stderr[-3000:]
    assert float(found.stdout.rpartition("far by ")[2] or "inf") < 1e-4, found.stderr[-3000:]


@pytest.mark.parametrize("fit", [segmenter, synthesiser])
def test_parts_of_a_batch_repeat_themselves_and_end_near_the_whole(fit):
    fusion = SubsetMixture(ProductOfExperts())
    plan = replace(PLAN, max_epochs=1, parts=2)
    one, two = (fit(plan=plan, fusion=fusion) for _ in range(2))
    assert equal(one, two)
    whole = fit(plan=replace(plan, parts=1), fusion=fusion).fitted.history
    assert not equal(one, fit(plan=replace(plan, parts=1), fusion=fusion))
    np.testing.assert_allclose(one.fitted.history["training"], whole["training"], rtol=0.1)

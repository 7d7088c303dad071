"""Saved models: a file that is not exactly what was written must not score anybody."""
from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import normfuse as nf
from normfuse.errors import ModelFileError, OutputExistsError
from normfuse.fusion import ProductOfExperts, SubsetMixture, WassersteinBarycenter
from normfuse.choices import choice_from_dict, choice_to_dict
from normfuse.model_file import JSON_NAME
from normfuse.signed import WEIGHTS_NAME
from normfuse.models import OneLatent
from normfuse.testing import tiny_cohort


@pytest.fixture(scope="module")
def model():
    return nf.NormativeModel(
        model=OneLatent(n_latent=2, hidden=(6,)), calibration=nf.CrossFit(2),
        plan=nf.TrainingPlan(max_epochs=4, warmup=1)).fit(tiny_cohort(80).reference_subjects())


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def refusal(folder) -> str:
    with pytest.raises(ModelFileError) as caught:
        nf.NormativeModel.load(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def flip(path, place: int) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def test_two_files_and_nothing_pickled(saved):
    assert sorted(p.name for p in saved.iterdir()) == [JSON_NAME, WEIGHTS_NAME]
    json.loads((saved / JSON_NAME).read_text())
    assert all(t.isfinite().all() for k, t in load_file(saved / WEIGHTS_NAME).items()
               if k.startswith("vae."))


def test_what_is_read_is_what_was_written(model, saved):
    again = nf.NormativeModel.load(saved)
    assert again.fitted.reference == model.fitted.reference
    assert (again.plan, again.model, again.calibration, again.seed) == \
        (model.plan, model.model, model.calibration, model.seed)
    for name, tensor in model.fitted.vae.state_dict().items():
        assert torch.equal(again.fitted.vae.state_dict()[name], tensor)
    assert repr(again) == repr(model)


def test_an_existing_folder_is_kept_unless_asked(model, copy):
    before = (copy / JSON_NAME).read_bytes()
    with pytest.raises(OutputExistsError, match="already there"):
        model.save(copy)
    assert (copy / JSON_NAME).read_bytes() == before
    (copy / "thesis.docx").write_text("x")
    with pytest.raises(OutputExistsError, match="also holds thesis.docx, which would be lost"):
        model.save(copy, overwrite=True)
    (copy / "thesis.docx").unlink()
    model.save(copy, overwrite=True)
    assert sorted(p.name for p in copy.iterdir()) == [JSON_NAME, WEIGHTS_NAME]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_json(copy, share):
    text = (copy / JSON_NAME).read_text()
    (copy / JSON_NAME).write_text(text[:int(share * len(text))])
    assert "cannot be read" in refusal(copy) and "truncated or edited" in refusal(copy)


@pytest.mark.parametrize("key, value", [
    ("seed", 99), ("known", {}), ("sha256", "0"), ("weights_sha256", "0"), ("extra", 1)])
def test_edited_json(copy, key, value):
    content = json.loads((copy / JSON_NAME).read_text())
    content[key] = value
    (copy / JSON_NAME).write_text(json.dumps(content))
    assert "was changed after it was saved: its check sum does not fit" in refusal(copy)


def test_one_digit_of_provenance_edited(copy):
    text = (copy / JSON_NAME).read_text()
    place = text.index('"references"')
    digit = next(i for i in range(place, len(text)) if text[i].isdigit() and text[i] != "0")
    (copy / JSON_NAME).write_text(text[:digit] + "0" + text[digit + 1:])
    assert "was changed after it was saved" in refusal(copy)


def test_laid_out_otherwise_is_still_the_same_model(copy):
    content = json.loads((copy / JSON_NAME).read_text())
    (copy / JSON_NAME).write_text(json.dumps(content, indent=4))
    nf.NormativeModel.load(copy)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_weights(copy, share):
    content = (copy / WEIGHTS_NAME).read_bytes()
    (copy / WEIGHTS_NAME).write_bytes(content[:int(share * len(content))])
    assert "was truncated or changed" in refusal(copy) and "copy the whole" in refusal(copy)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_one_bit_of_the_weights_flipped(copy, place):
    flip(copy / WEIGHTS_NAME, place)
    assert "was truncated or changed" in refusal(copy)


@pytest.mark.parametrize("name", [JSON_NAME, WEIGHTS_NAME])
def test_a_file_is_missing(copy, name):
    (copy / name).unlink()
    assert "is not a saved model" in refusal(copy) and name in refusal(copy)


def test_not_a_model_at_all(tmp_path):
    assert "is not a saved model" in refusal(tmp_path / "nowhere")
    (tmp_path / JSON_NAME).write_text("[1, 2]")
    (tmp_path / WEIGHTS_NAME).write_bytes(b"")
    assert "reads format" in refusal(tmp_path)


def test_another_format(copy):
    content = json.loads((copy / JSON_NAME).read_text())
    (copy / JSON_NAME).write_text(json.dumps({**content, "format": 999}))
    assert "has format 999; this version of normfuse reads format" in refusal(copy)


@pytest.mark.parametrize("fusion", [
    WassersteinBarycenter(), ProductOfExperts(prior_expert=False),
    SubsetMixture(ProductOfExperts(prior_expert=False))], ids=repr)
def test_fusions_survive_the_file(fusion):
    assert repr(choice_from_dict(json.loads(json.dumps(choice_to_dict(fusion))))) == repr(fusion)


def test_a_fusion_of_ones_own_must_be_given_again(tmp_path):
    class Mine(WassersteinBarycenter):
        pass

    own = nf.NormativeModel(Mine(), model=OneLatent(n_latent=2, hidden=(6,)),
                            calibration=nf.HeldOut(),
                            plan=nf.TrainingPlan(max_epochs=4, warmup=1))
    folder = own.fit(tiny_cohort(80).reference_subjects()).save(tmp_path / "model")
    words = refusal(folder)
    assert "was made with 'Mine', which normfuse does not know" in words and "fusion=" in words
    assert isinstance(nf.NormativeModel.load(folder, fusion=Mine()).fusion, Mine)

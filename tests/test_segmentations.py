"""Labels are read from the right voxels or refused, and compared as the field compares them.

Witnesses: MONAI's and scikit-learn's Dice, nibabel's reorientation, NumPy's counts. Real lesion
masks are read where they are kept beside the repository. How a picture looks has no witness; it
was judged by eye.
"""
from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from monai.metrics import compute_dice
from sklearn.metrics import f1_score

from normfuse import Segmentations, Space
from normfuse.errors import CohortError, ImageError, OutputExistsError, SpaceMismatchError
from normfuse.segmentations import TUMOUR_GROUPS
from normfuse.volumes.plan import template_space

NAMES = {"core": 1, "oedema": 2, "enhancing": 3}
SHAPE = (7, 8, 9)
AFFINE = np.array([[2.0, 0, 0, -6], [0, 3, 0, -10], [0, 0, 4, -9], [0, 0, 0, 1]])


def a_space(affine=AFFINE) -> Space:
    mask = np.zeros(SHAPE, bool)
    mask[1:6, 1:7, 2:8] = True
    mask[2, 3, 4] = False
    return Space(mask, affine, "MNI152NLin2009aSym")


@pytest.fixture
def data() -> np.ndarray:
    """Labels 0 to 3, none outside the mask."""
    rng = np.random.default_rng(0)
    return np.where(a_space().mask, rng.integers(0, 4, SHAPE), 0).astype(np.uint8)


def saved(data, path, affine=AFFINE):
    img = nib.Nifti1Image(data, affine)
    img.set_sform(affine, code=4)
    img.set_qform(affine, code=4)
    nib.save(img, path)
    return path


def people(n: int = 5, seed: int = 0, labels: int = 3) -> Segmentations:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, labels + 1, (n, a_space().n_voxels))
    values[:, ::3] = 0
    return Segmentations(tuple(f"s{k}" for k in range(n)), values, a_space(),
                         dict(list(NAMES.items())[:labels]))


class TestReading:
    def test_the_same_grid(self, data, tmp_path):
        found = Segmentations.read({"s1": saved(data, tmp_path / "a.nii.gz")}, a_space(), NAMES)
        np.testing.assert_array_equal(found.labels[0], data[a_space().mask])
        assert found.labels.dtype == np.uint8 and found.notes == ()

    @pytest.mark.parametrize("codes", ["LAS", "RPI", "PSR", "ILA"])
    def test_stored_in_another_orientation(self, data, tmp_path, codes):
        img = nib.Nifti1Image(data, AFFINE)
        turned = img.as_reoriented(nib.orientations.ornt_transform(
            nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes)))
        assert nib.aff2axcodes(turned.affine) == tuple(codes)
        path = saved(np.asarray(turned.dataobj), tmp_path / "a.nii", turned.affine)
        found = Segmentations.read({"s1": path}, a_space(), NAMES)
        np.testing.assert_array_equal(found.labels[0], data[a_space().mask])

    def test_cropped_and_padded(self, data, tmp_path):
        cut = nib.Nifti1Image(data, AFFINE).slicer[2:6, :, 3:]
        first = saved(np.asarray(cut.dataobj), tmp_path / "a.nii", cut.affine)
        shifted = AFFINE.copy()
        shifted[:3, 3] -= 3 * np.array([2.0, 3, 4])
        second = saved(np.pad(data, 3), tmp_path / "b.nii", shifted)
        found = Segmentations.read({"cut": first, "wide": second}, a_space(), NAMES)
        left = np.zeros(SHAPE, np.uint8)
        left[2:6, :, 3:] = data[2:6, :, 3:]
        np.testing.assert_array_equal(found.labels, [left[a_space().mask], data[a_space().mask]])

    def test_labels_outside_the_mask_are_counted(self, data, tmp_path):
        more = data.copy()
        more[0, 0, :5] = 2
        paths = {"s1": saved(data, tmp_path / "a.nii"), "s2": saved(more, tmp_path / "b.nii")}
        (note,) = Segmentations.read(paths, a_space(), NAMES).notes
        n = np.count_nonzero(data)
        assert note.startswith("5 labelled voxels of 1 people lie outside the space's mask and "
                               f"were left out: {5 / (2 * n + 5):.1%} of all") and "s2" not in note

    def test_patterns(self, data, tmp_path):
        for who in ("s1", "s2"):
            saved(data, tmp_path / f"{who}_seg.nii.gz")
        pattern = f"{tmp_path}/{{id}}_seg.nii.gz"
        found = Segmentations.read(pattern, a_space(), NAMES, ids=pd.Index(["s2", "s1"]))
        assert found.ids == ("s2", "s1")
        with pytest.raises(CohortError, match="1 of 2 people have no segmentation: .* for s3"):
            Segmentations.read(pattern, a_space(), NAMES, ids=["s1", "s3"])
        with pytest.raises(CohortError, match="fits none of 1 people"):
            Segmentations.read(pattern, a_space(), NAMES, ids=["s9"])
        with pytest.raises(CohortError, match="Give ids, such as cohort.ids"):
            Segmentations.read(pattern, a_space(), NAMES)

    def test_integers_stored_as_floats_are_integers(self, data, tmp_path):
        path = saved(data.astype(np.float32), tmp_path / "a.nii")
        np.testing.assert_array_equal(
            Segmentations.read({"s1": path}, a_space(), NAMES).labels[0], data[a_space().mask])


class TestRefused:
    @pytest.mark.parametrize("change, words", [
        (np.diag([0.5, 0.5, 0.5, 1]), "its voxels have another size"),
        (np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
         "its voxels lie between those of the space")])
    def test_another_grid(self, data, tmp_path, change, words):
        path = saved(data, tmp_path / "a.nii", AFFINE @ change)
        with pytest.raises(SpaceMismatchError, match=words) as caught:
            Segmentations.read({"s1": path}, a_space(), NAMES)
        told = str(caught.value)
        assert "labels are never interpolated" in told and "s1: 7 x 8 x 9 voxels of" in told
        assert "expected 7 x 8 x 9 voxels of 2 x 3 x 4 mm, the first at (-6, -10, -9) mm" in told
        assert str(path) in told and "nilearn.image.resample_img" in told

    def test_values_without_a_name(self, data, tmp_path):
        other = data.copy()
        other[3, 3, 3:6], other[3, 4, 3] = 7, 9
        paths = {"good": saved(data, tmp_path / "g.nii"), "bad": saved(other, tmp_path / "b.nii")}
        with pytest.raises(ImageError, match="1 of 2 segmentations cannot be used") as caught:
            Segmentations.read(paths, a_space(), NAMES)
        assert "bad: 7 in 3 voxels, 9 in 1 voxels" in str(caught.value)
        assert "core 1, oedema 2, enhancing 3" in str(caught.value)
        assert [f.subject for f in caught.value.findings] == ["bad"]

    def test_numbers_of_the_older_challenge(self, data, tmp_path):
        path = saved(np.where(data == 3, 4, data).astype(np.uint8), tmp_path / "a.nii")
        with pytest.raises(ImageError, match="until 2023 the enhancing part of tumours was 4"):
            Segmentations.read({"s1": path}, a_space(), NAMES)
        old = {**NAMES, "enhancing": 4}
        assert Segmentations.read({"s1": path}, a_space(), old).mask("enhancing").any()

    @pytest.mark.parametrize("values, words", [
        (255, r"expected a binary mask, 0 and 1 \(lesion\), .* give names=\{'lesion': 255\}"),
        (2, r"expected a binary mask.* Name them all")])
    def test_masks_that_are_not_binary(self, data, tmp_path, values, words):
        mask = (data > 0) * np.uint8(values)
        mask[3, 3, 3] = 1 if values == 2 else values
        with pytest.raises(ImageError, match=words):
            Segmentations.read({"s1": saved(mask, tmp_path / "a.nii")}, a_space(), {"lesion": 1})

    def test_probabilities(self, data, tmp_path):
        path = saved((data / 4).astype(np.float32), tmp_path / "a.nii")
        with pytest.raises(ImageError, match="a probability map.* Threshold it, as p > 0.5") as c:
            Segmentations.read({"s1": path}, a_space(), {"lesion": 1})
        assert "such as 0.25, 0.5, 0.75" in str(c.value)
        broken = np.where(data == 1, np.nan, 0).astype(np.float32)
        with pytest.raises(ImageError, match="no whole numbers"):
            Segmentations.read({"s1": saved(broken, tmp_path / "b.nii")}, a_space(), NAMES)

    def test_all_faults_are_said_at_once(self, data, tmp_path):
        (tmp_path / "cut.nii.gz").write_bytes(saved(data, tmp_path / "a.nii.gz").read_bytes()[:90])
        saved(np.stack([data, data], -1), tmp_path / "four.nii.gz")
        with pytest.raises(ImageError) as caught:
            Segmentations.read({"gone": tmp_path / "gone.nii.gz", "good": tmp_path / "a.nii.gz",
                                "cut": tmp_path / "cut.nii.gz", "four": tmp_path / "four.nii.gz"},
                               a_space(), NAMES)
        told = str(caught.value)
        assert told.startswith("3 of 4 segmentations cannot be used") and "good" not in told
        assert "the file is not there" in told and "damaged, or cut off" in told
        assert "expected one volume of three dimensions" in told

    @pytest.mark.parametrize("change, words", [
        ({"labels": np.zeros((1, 5))}, r"2 people and 179 voxels were expected.*got \(1, 5\)"),
        ({"labels": np.full((2, 179), 4)}, "labels hold 4, which names does not name"),
        ({"ids": ("a", "a")}, "hold a twice"), ({"names": {"core": 0}}, "from 1 to 255"),
        ({"names": {"core": 1, "x": 1}}, "from 1 to 255"), ({"names": {}}, "from 1 to 255"),
        ({"uncertainty": np.full((2, 179), 2.0)}, "0 to 1; got 2 to 2"),
        ({"uncertainty": np.full((2, 179), np.nan)}, "0 to 1; got nan"),
        ({"uncertainty": np.zeros(5)}, "uncertainty of 2 people")])
    def test_parts_that_do_not_fit(self, change, words):
        given = {"ids": ("a", "b"), "labels": np.zeros((2, 179), int), "space": a_space(),
                 "names": NAMES, **change}
        with pytest.raises(CohortError, match=words):
            Segmentations(**given)


class TestDice:
    def test_against_monai_and_scikit_learn(self):
        truth, guess = people(seed=1), people(seed=2)
        ours = truth.dice(guess)
        both = [torch.from_numpy(np.stack([s.mask(name) for name in NAMES], 1)).float()
                for s in (guess, truth)]
        monai = compute_dice(*(b[..., None] for b in both), ignore_empty=True)
        np.testing.assert_allclose(ours, monai, rtol=1e-6)
        for row, who in enumerate(truth.ids):
            f1 = f1_score(truth.labels[row], guess.labels[row], labels=[1, 2, 3], average=None)
            np.testing.assert_allclose(ours.loc[who], f1, rtol=1e-12)

    def test_groups(self):
        truth, guess = people(seed=1), people(seed=2)
        ours = truth.dice(guess, TUMOUR_GROUPS)
        whole = [f1_score(a > 0, b > 0) for a, b in zip(truth.labels, guess.labels)]
        core = [f1_score(np.isin(a, (1, 3)), np.isin(b, (1, 3)))
                for a, b in zip(truth.labels, guess.labels)]
        np.testing.assert_allclose(ours["whole tumour"], whole)
        np.testing.assert_allclose(ours["tumour core"], core)
        np.testing.assert_allclose(ours["enhancing tumour"], truth.dice(guess)["enhancing"])

    def test_both_empty_is_unknown_and_one_empty_is_zero(self):
        n = a_space().n_voxels
        some, none = np.zeros((2, n), int), np.zeros((2, n), int)
        some[1, :4] = 1
        a, b = (Segmentations(("x", "y"), v, a_space(), {"lesion": 1}) for v in (some, none))
        assert a.dice(b)["lesion"].isna().tolist() == [True, False] and a.dice(b).loc["y"].item() \
            == 0
        assert b.dice(b)["lesion"].isna().all() and a.dice(a).loc["y"].item() == 1

    def test_people_and_labels_are_matched_by_name(self):
        truth, guess = people(seed=1), people(seed=2)
        swapped = np.array([0, 2, 1, 3])[guess.labels[::-1]]
        other = Segmentations(guess.ids[::-1], swapped, guess.space,
                              {"oedema": 1, "core": 2, "enhancing": 3})
        pd.testing.assert_frame_equal(truth.dice(other), truth.dice(guess))

    def test_what_cannot_be_compared(self):
        moved = AFFINE.copy()
        moved[0, 3] += 2
        one = people()
        other = Segmentations(one.ids, one.labels, a_space(moved), NAMES)
        with pytest.raises(SpaceMismatchError, match="these are on <Space .* the others on <Sp"):
            one.dice(other)
        with pytest.raises(CohortError, match="the other segmentations lack s0, s1"):
            one.dice(one.select(["s2", "s3", "s4"]))
        with pytest.raises(CohortError, match="there is no label enhancing; there are core, oed"):
            one.dice(people(labels=2))
        with pytest.raises(CohortError, match=r"no label oedem;.*perhaps 'oedem' is 'oedema'"):
            one.mask("oedem")


def test_volumes_and_masks():
    made = people()
    ml = made.volumes()
    for row, who in enumerate(made.ids):
        for name, number in NAMES.items():
            assert ml.loc[who, name] == pytest.approx((made.labels[row] == number).sum() * 0.024)
    whole = made.volumes(TUMOUR_GROUPS)["whole tumour"]
    np.testing.assert_allclose(whole, ml.sum(axis=1))
    np.testing.assert_array_equal(made.mask(("core", "enhancing")), np.isin(made.labels, (1, 3)))


def test_people_are_selected_by_id():
    made = Segmentations(people().ids, people().labels, a_space(), NAMES,
                         np.tile(np.linspace(0, 1, 5, dtype=np.float32)[:, None], 179), ("note",))
    few = made.select(["s3", "s1"])
    assert few.ids == ("s3", "s1") and few.notes == ("note",)
    np.testing.assert_array_equal(few.labels, made.labels[[3, 1]])
    assert few.uncertainty[:, 0].tolist() == [0.75, 0.25]
    with pytest.raises(CohortError, match="no segmentation of 's9'"):
        made.select(["s9"])


def test_nobody_can_write_to_the_labels():
    given = np.zeros((1, 179), np.uint8)
    made = Segmentations(("a",), given, a_space(), NAMES)
    with pytest.raises(ValueError, match="read-only"):
        made.labels[0, 0] = 1
    given[0, 0] = 1  # while one's own array stays one's own


def test_written_and_read_again(tmp_path):
    uncertain = np.random.default_rng(0).uniform(size=(5, 179)).astype(np.float32)
    made = Segmentations(people().ids, people().labels, a_space(), NAMES, uncertain)
    folder = made.write(tmp_path / "seg")
    again = Segmentations.read(f"{folder}/{{id}}_dseg.nii.gz", a_space(), NAMES, ids=made.ids)
    np.testing.assert_array_equal(again.labels, made.labels)
    np.testing.assert_array_equal(again.uncertainty, uncertain)
    img = nib.load(folder / "s2_dseg.nii.gz")
    assert img.get_data_dtype() == np.uint8 and int(img.header["sform_code"]) == 4
    np.testing.assert_array_equal(np.asarray(img.dataobj), np.asarray(made.img("s2").dataobj))
    np.testing.assert_array_equal(
        a_space().values(nib.load(folder / "s4_uncertainty.nii.gz")), uncertain[4])
    assert pd.read_csv(folder / "dseg.tsv", sep="\t").to_dict("list") == {
        "index": [1, 2, 3], "name": ["core", "oedema", "enhancing"]}
    with pytest.raises(OutputExistsError):
        made.write(folder)
    damaged = folder / "s4_uncertainty.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(ImageError, match="s4"):
        Segmentations.read(f"{folder}/{{id}}_dseg.nii.gz", a_space(), NAMES, ids=made.ids)
    damaged.unlink()  # of some only: of nobody
    assert Segmentations.read(f"{folder}/{{id}}_dseg.nii.gz", a_space(), NAMES,
                              ids=made.ids).uncertainty is None
    with pytest.raises(CohortError, match="cannot be used as a file name"):
        Segmentations(("../a",), made.labels[:1], a_space(), NAMES).write(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("background", [None, "values", "image"])
def test_a_picture_of_somebody(background):
    space = template_space("brain", 8)
    labels = np.zeros((2, space.n_voxels), int)
    labels[0, 1000:1100], labels[0, 1500:1600] = 1, 3
    made = Segmentations(("ill", "well"), labels, space, NAMES)
    shown = {"values": np.linspace(0.1, 1, space.n_voxels),
             "image": space.img(np.linspace(0.1, 1, space.n_voxels))}.get(background)
    ax = made.plot("ill", shown)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["core", "enhancing"]
    own = plt.figure().add_subplot()
    assert made.plot("well", shown, ax=own) is own and own.get_legend() is None


def test_real_lesions(shared_data):
    """Volumes beside nibabel's own counts, and what the folder's README says of them: 2 people
    with multiple sclerosis, 1 with a glioma."""
    folder = shared_data / "images"
    space = template_space("brain", 2)
    ms = Segmentations.read(f"{folder}/ms_mni2mm/{{id}}_lesions.nii.gz", space, {"lesion": 1},
                            ids=["openms07", "openms19"])
    for who, ml in ms.volumes()["lesion"].items():
        img = nib.load(folder / "ms_mni2mm" / f"{who}_lesions.nii.gz")
        assert ml == pytest.approx(np.count_nonzero(img.dataobj) * 0.008, rel=1e-6)
    file = folder / "glioma_mni2mm" / "tcgadu7294_tumourseg.nii.gz"
    glioma = Segmentations.read({"p": file}, space, NAMES)
    assert glioma.volumes(TUMOUR_GROUPS).loc["p"].round(1).tolist() == [40.1, 15.8, 0.0]
    assert glioma.notes[0].startswith("125 labelled voxels of 1 people lie outside")
    with pytest.raises(SpaceMismatchError, match="99 x 117 x 95 voxels of 2 x 2 x 2 mm"):
        Segmentations.read({"p": file}, template_space("brain", 4), NAMES)
    with pytest.raises(ImageError, match="2 in 3170 voxels"):
        Segmentations.read({"p": file}, space, {"lesion": 1})

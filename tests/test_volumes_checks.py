"""Images that must be refused or flagged by name; those that are right must not be.

Thresholds have no witness but the real images, which test_volumes_real.py reads.
"""
from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from imaging import RAS, brain, oblique, save
from normfuse.errors import CohortError, ImageError
from normfuse.volumes import VolumePlan, read_images
from normfuse.volumes.checks import Facts, compare, judge
from normfuse.volumes.one_image import read_image

PLAN = VolumePlan("brain", resolution=8)


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return brain()


def problems(file: Path, plan: VolumePlan = PLAN):
    found = read_image(file, plan)
    return [*found.problems, *(judge(found.facts, plan) if found.facts else [])]


def said(file: Path, plan: VolumePlan = PLAN) -> str:
    """All that is wrong with it; those that refuse begin with !"""
    return "; ".join(f"{'!' * p.refuses}{p.what} [{p.detail}]" for p in problems(file, plan))


class TestHeaders:
    def test_a_right_image_has_nothing_against_it(self, tmp_path, data):
        assert said(save(tmp_path / "a.nii.gz", data)) == ""
        assert said(save(tmp_path / "b.nii.gz", brain(oblique()), oblique())) == ""

    def test_one_volume_stored_as_four_dimensions(self, tmp_path, data):
        assert said(save(tmp_path / "a.nii", data[..., None])) == ""
        assert "!expected one volume" in said(save(tmp_path / "b.nii",
                                                   np.stack([data, data], axis=-1)))
        assert "[shape (40, 38)]" in said(save(tmp_path / "c.nii", data[:, :, 9]))

    def test_transforms_that_contradict_each_other(self, tmp_path, data):
        def changed(qform, sform, move, name="a.nii"):
            img = nib.Nifti1Image(data, RAS)
            img.header.set_qform(RAS @ move, code=qform)
            img.header.set_sform(RAS, code=sform)
            img = nib.Nifti1Image(data, None, img.header)
            img.to_filename(tmp_path / name)
            return said(tmp_path / name)

        shift, flip = np.eye(4), np.diag([-1.0, 1, 1, 1])
        shift[0, 3] = 0.8  # voxels of 5 mm
        flip[0, 3] = data.shape[0] - 1
        assert changed(2, 2, np.eye(4)) == ""
        assert "!qform and sform disagree" in changed(2, 2, shift)
        assert "[up to 4.0 mm apart, codes 1 and 2]" in changed(1, 2, shift)
        scanner = changed(1, 4, shift)
        assert scanner.startswith("qform and sform disagree; the sform, which says MNI, is used")
        assert "!mirrored" in changed(2, 2, flip) and "!mirrored" in changed(1, 4, flip)
        shift[0, 3] = 1e-3
        assert changed(2, 2, shift) == ""

    def test_no_transform_at_all(self, tmp_path, data):
        assert "!the header has neither" in said(save(tmp_path / "a.nii", data, qform=0, sform=0))

    def test_singular_transform(self, tmp_path, data):
        img = nib.Nifti1Image(data, None)
        img.header.set_sform(np.diag([2.0, 0, 2, 1]), code=2)
        nib.Nifti1Image(data, None, img.header).to_filename(tmp_path / "a.nii")
        assert "!the header's transform to mm is singular" in said(tmp_path / "a.nii")

    def test_files_that_are_no_nifti(self, tmp_path, data):
        (tmp_path / "a.nii.gz").write_text("FA")
        assert "!the file cannot be read as NIfTI" in said(tmp_path / "a.nii.gz")
        whole = save(tmp_path / "b.nii.gz", data).read_bytes()
        (tmp_path / "b.nii.gz").write_bytes(whole[:len(whole) // 2])
        assert "!the file cannot be read as NIfTI" in said(tmp_path / "b.nii.gz")
        assert "!the file is not there" in said(tmp_path / "c.nii")
        nib.save(nib.MGHImage(data, RAS), tmp_path / "d.mgz")
        assert "!expected a .nii or .nii.gz file" in said(tmp_path / "d.mgz")
        color = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.Nifti1Image(color, RAS).to_filename(tmp_path / "e.nii")
        assert "!expected one number a voxel" in said(tmp_path / "e.nii")


class TestData:
    @pytest.mark.parametrize("value", [0, 3, np.nan])
    def test_one_value_everywhere(self, tmp_path, data, value):
        words = said(save(tmp_path / "a.nii", np.full_like(data, value)))
        assert words.startswith("!no signal in the MNI brain")

    def test_masks_and_labels(self, tmp_path, data):
        mask = save(tmp_path / "a.nii.gz", (data > 0).astype(np.uint8))
        assert said(mask) == "!one value wherever there is signal: a mask, no measurement [1]"
        labels = save(tmp_path / "b.nii.gz", np.ceil(3 * data).astype(np.int16))
        assert said(labels).startswith("hardly any different values")

    def test_infinite_values(self, tmp_path, data):
        bad = data.copy()
        bad[0, 0, 0] = bad[20, 19, 18] = np.inf
        assert "!infinite values; put NaN where nothing was measured [2 voxels]" == said(
            save(tmp_path / "a.nii", bad))
        assert "!infinite" in said(save(tmp_path / "b.nii", data.astype(float) * 1e300))

    @pytest.mark.parametrize("factor, coverage", [(0.85, (0.5, 0.75)), (0.72, (0.3, 0.5))])
    def test_images_that_are_too_small(self, tmp_path, data, factor, coverage):
        affine = RAS.copy()
        affine[:3] *= factor  # about the origin, as a wrong voxel size does
        file = save(tmp_path / "a.nii", data, affine)
        assert said(file).startswith("!not in MNI space, or cut")
        assert coverage[0] < read_image(file, PLAN).facts.coverage < coverage[1]
        assert "!" not in said(file, VolumePlan("brain", resolution=8, min_coverage=0.25))

    def test_images_that_are_too_large_or_not_stripped_are_flagged(self, tmp_path, data):
        affine = RAS.copy()
        affine[:3] *= 1.12
        assert said(save(tmp_path / "a.nii", data, affine)).startswith("signal 6 to 14 mm")
        head = np.where(data == 0, 0.1, data).astype(np.float32)
        head[0] = 0  # or the corners would say that 0.1 is background
        assert said(save(tmp_path / "b.nii", head)) == ""  # a head has signal everywhere

    def test_another_background_than_zero(self, tmp_path, data):
        shifted = np.where(data == 0, -1000, data)
        found = read_image(save(tmp_path / "a.nii", shifted), PLAN)
        assert found.facts.coverage > 0.97 and found.facts.spill < 0.05
        empty = np.where(data == 0, np.nan, data)
        assert read_image(save(tmp_path / "b.nii", empty), PLAN).facts.spill < 0.05

    def test_tissue_maps_need_to_fill_their_tissue_only(self, tmp_path, data):
        density = np.where(data > 0.95, data, 0)
        file = save(tmp_path / "gm.nii", density)
        assert "!not in MNI space" in said(file)
        facts = read_image(file, VolumePlan("grey_matter", resolution=8)).facts
        assert facts.coverage > read_image(file, PLAN).facts.coverage

    def test_saturated_integers(self, tmp_path, data):
        clipped = np.clip(np.round(data * 32767 / 1.05), 0, 32767).astype(np.int16)
        words = said(save(tmp_path / "a.nii", clipped, slope=0.01))
        assert words.startswith("saturated")
        # as segmentations store probabilities: 255 is 1
        probability = np.clip(np.round(data * 255), 0, 255).astype(np.uint8)
        assert said(save(tmp_path / "b.nii", probability, slope=1 / 255)) == ""

    def test_holes(self, tmp_path, data):
        holed = data.copy()
        holed[10:28, 12:24, 12:22] = np.nan
        words = said(save(tmp_path / "a.nii", holed), VolumePlan("brain", min_coverage=0.7))
        assert words.startswith("voxels of the mask without a value")
        assert said(save(tmp_path / "b.nii", holed)).startswith("!not in MNI space, or cut")


class TestBesideOthers:
    def facts(self, n, **changed):
        like = read_image(self.file, PLAN).facts
        return [like] * n + [Facts(**{**like.to_dict(), **changed})]

    @pytest.fixture(autouse=True)
    def image(self, tmp_path, data):
        self.file = save(tmp_path / "a.nii.gz", data)
        self.data = data

    def words(self, facts):
        return ["; ".join(p.what for p in found) for found in compare(facts)]

    def test_alike(self):
        assert self.words(self.facts(6)) == [""] * 7

    def test_another_unit(self):
        level = read_image(self.file, PLAN).facts.level
        assert self.words(self.facts(6, level=1000 * level)) == [""] * 6 + [
            "another unit or scaling than the others?"]
        assert self.words(self.facts(6, level=2 * level)) == [""] * 7
        assert self.words(self.facts(2, level=1000 * level)) == [""] * 3  # too few to say

    def test_heads_among_brains(self):
        assert self.words(self.facts(6, spill=0.97))[-1] == \
            "not skull-stripped, unlike the others"

    def test_another_mask(self, tmp_path):
        cut = self.data.copy()
        cut[:, :, :11] = 0  # without the lower cerebellum
        other = read_image(save(tmp_path / "cut.nii", cut), PLAN).facts
        usual = read_image(self.file, PLAN).facts
        assert [bool(w) for w in self.words([usual] * 3 + [other] + [usual] * 3)] == \
            [False] * 3 + [True] + [False] * 3


class TestAllAtOnce:
    @pytest.fixture
    def files(self, tmp_path, data):
        files = {f"sub-{n}": save(tmp_path / f"{n}.nii.gz", brain(seed=n)) for n in range(6)}
        save(files["sub-1"], np.stack([data] * 2, axis=-1))
        save(files["sub-3"], np.zeros_like(data))
        save(files["sub-4"], data * 50)
        files["sub-5"].write_bytes(files["sub-0"].read_bytes())
        return files

    def test_header_faults_come_before_any_reading(self, files, tmp_path, monkeypatch):
        monkeypatch.setattr("normfuse.volumes.reading.read_image", None)
        with pytest.raises(ImageError, match="1 of 6 images") as caught:
            read_images(files, PLAN, name="fa", cache=tmp_path / "cache")
        assert "fa of sub-1: shape (40, 38, 38, 2)" in str(caught.value)
        assert str(files["sub-1"]) in str(caught.value) and len(caught.value.findings) == 1

    def test_dropped_with_a_warning_that_names_them(self, files, tmp_path):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = read_images(files, PLAN, name="fa", cache=tmp_path / "c", drop_failed=True)
        assert table.index.tolist() == ["sub-0", "sub-2", "sub-4", "sub-5"]
        out, odd = (str(w.message) for w in caught)
        assert out.startswith("left out 2 of 6 images") and "sub-1" in out and "sub-3" in out
        assert odd.startswith("1 of 6 images are used but look wrong")
        assert "byte for byte" in odd and "fa of sub-5: as sub-0" in odd

    def test_refused_together_once_data_are_read(self, files, tmp_path, data):
        save(files["sub-1"], np.where(brain(seed=1) > 0, np.nan, 0))
        with pytest.raises(ImageError) as caught:
            read_images(files, PLAN, cache=tmp_path / "c")
        assert {f.subject for f in caught.value.findings} == {"sub-1", "sub-3"}

    def test_nobody_left(self, files, tmp_path):
        with pytest.raises(ImageError, match="1 of 1 images cannot"):
            read_images({"sub-3": files["sub-3"]}, PLAN, cache=tmp_path / "c", drop_failed=True)

    def test_paths_that_cannot_be_right(self, files, tmp_path):
        with pytest.raises(CohortError, match="has no image"):
            read_images({}, PLAN, cache=tmp_path)
        with pytest.raises(CohortError, match="sub-0 and sub-9 have the same file"):
            read_images({**files, "sub-9": files["sub-0"]}, PLAN, cache=tmp_path)
        with pytest.raises(ImageError, match="sub-9.*nowhere.nii"):
            read_images({"sub-0": files["sub-0"], "sub-9": tmp_path / "nowhere.nii"}, PLAN,
                        cache=tmp_path / "c")

    def test_long_lists_are_cut_but_kept_whole_in_the_error(self, files, tmp_path, data):
        many = {f"s{n:02d}": save(tmp_path / f"z{n}.nii.gz", np.zeros_like(data) + n)
                for n in range(40)}
        with pytest.raises(ImageError) as caught:
            read_images(many, PLAN, cache=tmp_path / "c")
        assert len(str(caught.value).splitlines()) < 20 and len(caught.value.findings) == 40
        assert "(28 in all)" in str(caught.value)

"""From an image to a row: nilearn, SciPy and literal sums are the witnesses."""
from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from nilearn.image import resample_img, smooth_img
from nilearn.maskers import NiftiMasker

from imaging import RAS, SHAPE, brain, oblique, save
from normfuse.errors import CohortError
from normfuse.space import Space
from normfuse.volumes.one_image import read_image
from normfuse.volumes.plan import (MNI, TISSUES, VolumePlan, template_space, tissue_probability)
from normfuse.volumes.sampling import FWHM_IN_SD, sampled


@pytest.fixture(scope="module")
def template():
    """The real T1 template at 2 mm with 30 mm of background around it.

    The template's grid ends in the brain stem; there nilearn goes on with 0 and we do not.
    """
    img = load_mni152_template(resolution=2)
    affine = img.affine.copy()
    affine[:3, 3] -= 30
    return nib.Nifti1Image(np.pad(np.asarray(img.dataobj, dtype=np.float32), 15), affine)


def nilearn_values(img, space: Space, fwhm: float) -> np.ndarray:
    smooth = smooth_img(img, fwhm or None)
    there = resample_img(smooth, space.affine, space.shape, interpolation="linear",
                         force_resample=True, copy_header=True)
    return np.asarray(there.dataobj)[space.mask]


@pytest.mark.parametrize("resolution, fwhm", [(2, 0), (2, 6), (3, 6), (4, 8), (4, 0), (1.5, 3)])
def test_values_are_those_of_nilearn(template, resolution, fwhm):
    space = template_space("grey_matter", resolution)
    found = sampled(np.asarray(template.dataobj), template.affine, space, fwhm)
    np.testing.assert_allclose(found, nilearn_values(template, space, fwhm), atol=2e-5)
    assert found.dtype == np.float32 and len(found) == space.n_voxels


def test_values_are_those_of_a_masker(template):
    space = Space(np.pad(template_space("brain", 2).mask, 15), template.affine, MNI)
    masker = NiftiMasker(space.mask_img(), smoothing_fwhm=6, standardize=None).fit()
    found = sampled(np.asarray(template.dataobj), template.affine, space, 6)
    np.testing.assert_allclose(found, masker.transform(template).ravel(), atol=2e-5)


@pytest.mark.parametrize("affine", [
    RAS, oblique(),
    RAS @ np.array([[-1.0, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])],
    ids=["RAS", "oblique", "LAS"])
def test_any_orientation_is_resampled_by_its_affine(affine):
    img = nib.Nifti1Image(brain(affine), affine)
    space = template_space("white_matter", 4)
    found = sampled(np.asarray(img.dataobj), affine, space, 8)
    np.testing.assert_allclose(found, nilearn_values(img, space, 8), atol=2e-5)


def test_storing_the_same_brain_in_another_order_changes_nothing(tmp_path):
    """The same voxels stored RAS, LAS, LPS and with axes exchanged give the same row."""
    data = brain()
    plan = VolumePlan("grey_matter", resolution=4)
    straight = read_image(save(tmp_path / "ras.nii", data), plan).values
    img = nib.Nifti1Image(data, RAS)
    for codes in ("LAS", "LPS", "PIR", "SLA"):
        way = nib.orientations.ornt_transform(nib.io_orientation(RAS),
                                              nib.orientations.axcodes2ornt(codes))
        turned = img.as_reoriented(way)
        assert "".join(nib.aff2axcodes(turned.affine)) == codes
        file = save(tmp_path / f"{codes}.nii.gz", np.asarray(turned.dataobj), turned.affine)
        np.testing.assert_allclose(read_image(file, plan).values, straight, atol=1e-5)
    flipped = read_image(save(tmp_path / "flipped.nii", data[::-1].copy()), plan).values
    assert np.abs(flipped - straight).max() > 0.1  # data turned without its header is not the same


@pytest.mark.parametrize("codes", [(1, 0), (0, 4), (1, 1)])
def test_either_transform_is_enough(tmp_path, codes):
    data, affine = brain(oblique()), oblique()
    plan = VolumePlan("brain", resolution=6)
    file = save(tmp_path / "a.nii.gz", data, affine, qform=codes[0], sform=codes[1])
    found = read_image(file, plan)
    assert not found.problems
    np.testing.assert_allclose(found.values, sampled(data, affine, plan.space, 12), atol=1e-4)


def test_scaled_integers_become_their_values(tmp_path):
    data = brain()
    stored = np.round(data / 2e-4).astype(np.int16)
    plan = VolumePlan("brain", resolution=5, smoothing=0)
    file = save(tmp_path / "i.nii.gz", stored, slope=2e-4)
    big = nib.Nifti1Image(data.astype(">f8"), RAS)
    big.to_filename(tmp_path / "big.nii")
    exact = read_image(tmp_path / "big.nii", plan).values
    np.testing.assert_allclose(read_image(file, plan).values, exact, atol=1.01e-4)


def test_missing_values_take_no_part():
    """Against the sum that the docstring prints, term by term."""
    rng = np.random.default_rng(3)
    data = rng.normal(size=(12, 13, 14)).astype(np.float32)
    data[4:6, 5, 6:9] = np.nan
    affine = np.diag([2.0, 3, 2.5, 1])
    mask = np.zeros(data.shape, bool)
    mask[5, 6, 7] = mask[4, 5, 7] = mask[0, 0, 0] = mask[1, 12, 3] = True
    space = Space(mask, affine, "toy")
    sd = 6 / FWHM_IN_SD
    index = np.argwhere(np.ones(data.shape, bool))
    weights_of = {}
    for axis, size in enumerate((2.0, 3.0, 2.5)):
        reach = int(4 * sd / size + 0.5)  # SciPy cuts the kernel at 4 sd
        steps = np.arange(-reach, reach + 1)
        line = np.exp(-0.5 * (steps * size / sd) ** 2)
        weights_of[axis] = dict(zip(steps.tolist(), line / line.sum()))
    for voxel, found in zip(space.indices, sampled(data, affine, space, 6)):
        kernel = np.array([np.prod([weights_of[a].get(int(d), 0.0) for a, d in enumerate(u)])
                           for u in index - voxel])
        values = data.reshape(-1).astype(float)
        there = np.isfinite(values)
        share = kernel[there].sum()
        if share < 0.5:
            assert np.isnan(found), voxel  # a corner has an eighth of its kernel
        else:
            assert found == pytest.approx((kernel * np.nan_to_num(values)).sum() / share, abs=1e-5)


def test_nan_stay_where_they_are(template):
    data = np.asarray(template.dataobj, dtype=np.float32).copy()
    space = template_space("brain", 4)
    whole = sampled(data, template.affine, space, 8)
    data[45:55, 65:75, 55:65] = np.nan  # 20 mm a side
    holed = sampled(data, template.affine, space, 8)
    lost = np.isnan(holed)
    assert 20 < lost.sum() < (20 / 4 + 1) ** 3
    centre = nib.affines.apply_affine(template.affine, (50, 70, 60))
    near = np.abs(space.coordinates() - centre).max(1) < 30
    np.testing.assert_allclose(holed[~near], whole[~near], atol=1e-6)
    assert lost[np.abs(space.coordinates() - centre).max(1) < 7].all()
    np.testing.assert_allclose(holed[near & ~lost], whole[near & ~lost], atol=0.25)


def test_outside_the_field_of_view_is_missing(template):
    """nilearn fills it with 0, which a model would take for a value."""
    space = template_space("brain", 4)
    cut = np.asarray(template.dataobj)[:, :, :75]
    found = sampled(cut, template.affine, space, 8)
    above = space.coordinates()[:, 2] > template.affine[2, 3] + 2 * 74.5
    assert np.isnan(found[above]).all() and np.isfinite(found[~above]).all()


def test_background_can_be_missing(tmp_path):
    data = brain()
    data[:, :, :14] = 0  # up to z = -5 mm: no cerebellum
    file = save(tmp_path / "cut.nii", data)
    below = template_space("brain", 4).coordinates()[:, 2] < -12
    as_value = read_image(file, VolumePlan("brain")).values
    missing = read_image(file, VolumePlan("brain", zeros_missing=True))
    assert np.abs(as_value[below]).max() < 0.2 and np.isnan(missing.values[below]).mean() > 0.99
    assert missing.facts.gap > 0.15


class TestPlan:
    def test_masks_are_nilearns_brain_and_parts_of_it(self):
        brain_img = load_mni152_brain_mask(resolution=4)
        brain_space, grey, white = (template_space(t, 4) for t in TISSUES)
        assert brain_space == Space.of(brain_img, MNI) and brain_space.n_voxels == 29_398
        assert not (grey.mask & ~brain_space.mask).any()
        assert 0.8 < grey.n_voxels / brain_space.n_voxels < 0.9
        assert 0.25 < white.n_voxels / brain_space.n_voxels < 0.35
        # what the cortex has most of is grey, what lies deep is white
        for space, tissue in ((grey, "grey_matter"), (white, "white_matter")):
            assert tissue_probability(tissue, space).min() >= (0.2 if space is grey else 0.5)

    def test_smoothing_follows_the_resolution(self):
        assert VolumePlan().fwhm == 8 and VolumePlan(resolution=2.0).fwhm == 4
        assert VolumePlan(smoothing=0).fwhm == 0
        # the share that the docstring gives, of the wave two voxels long
        wave = np.cos(np.pi * np.arange(4000) / 40)  # 0.1 mm steps, length 8 mm
        from scipy.ndimage import gaussian_filter1d
        left = np.abs(gaussian_filter1d(wave, 80 / FWHM_IN_SD, mode="wrap")).max()
        assert left == pytest.approx(np.exp(-np.pi ** 2 / (4 * np.log(2))), abs=1e-3)
        assert left == pytest.approx(0.03, abs=0.003)

    def test_a_mask_of_ones_own(self, tmp_path):
        mask = (brain() > 1.0).astype(np.uint8)
        file = save(tmp_path / "mask.nii.gz", mask)
        own = VolumePlan(file).space
        assert own.n_voxels == mask.sum() and own.shape == SHAPE
        coarse = VolumePlan(file, resolution=4).space
        assert coarse.shape == template_space("brain", 4).shape
        assert coarse.n_voxels * 64 == pytest.approx(mask.sum() * 150, rel=0.4)  # mm3 of both
        assert VolumePlan(own).space is own

    @pytest.mark.parametrize("made, words", [
        (lambda f: VolumePlan("gray"), "the mask gray cannot be read"),
        (lambda f: VolumePlan(f / "no.nii"), "cannot be read"),
        (lambda f: VolumePlan(save(f / "0.nii", np.zeros((4, 5, 6), np.uint8))), "0 voxels"),
        (lambda f: VolumePlan(save(f / "4.nii", np.ones((4, 5, 6, 2), np.uint8))), "one volume"),
        (lambda f: VolumePlan(save(f / "far.nii", np.ones((4, 5, 6), np.uint8),
                                   RAS + 900 * np.eye(4, k=3)), resolution=4), "no voxel left"),
    ])
    def test_masks_that_are_none(self, tmp_path, made, words):
        with pytest.raises(CohortError, match=words):
            made(tmp_path).space

    @pytest.mark.parametrize("settings, words", [
        ({"resolution": 0.1}, "resolution must be a number from 0.5 to 30 mm; got 0.1"),
        ({"resolution": "4"}, "resolution must be"), ({"smoothing": -1}, "smoothing must be"),
        ({"min_coverage": 90}, "min_coverage must be a number from 0 to 1; got 90"),
        ({"extent": "head"}, "extent must be one of"),
        ({"mask": template_space("brain", 8), "resolution": 4}, "only one of the two"),
    ])
    def test_settings_that_are_none(self, settings, words):
        with pytest.raises(CohortError, match=words):
            VolumePlan(**settings)

    def test_the_key_changes_with_what_changes_the_rows(self):
        keys = {VolumePlan(**s).key for s in (
            {}, {"mask": "grey_matter"}, {"resolution": 6}, {"smoothing": 7},
            {"zeros_missing": True}, {"extent": "white_matter"})}
        assert len(keys) == 6
        assert VolumePlan(min_coverage=0.5).key == VolumePlan(smoothing=8.0).key

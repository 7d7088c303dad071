"""Means of regions from blocks of voxels.

Witnesses: nilearn's NiftiLabelsMasker, NumPy's average and SciPy's trim_mean, region by region.
"""
from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.maskers import NiftiLabelsMasker
from scipy import stats

from normfuse import parcels as module
from normfuse.atlas import Atlas
from normfuse.errors import AtlasError, SpaceMismatchError
from normfuse.parcels import Parcels, RobustMean, WeightedMean, region_table
from normfuse.space import Space
from normfuse.stored import StoredTable

SHAPE = (7, 8, 9)
AFFINE = np.array([[-2.0, 0, 0, 6], [0, 3, 0, -5], [0, 0, 2.5, 1], [0, 0, 0, 1]])
SPACE_NAME = "MNI152NLin6Asym"


@pytest.fixture
def atlas() -> Atlas:
    """Label 5 lies where the mask is not; labels and table are in different orders."""
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 2, 300, 70000], np.int32), SHAPE, p=[0.4, 0.3, 0.2, 0.1])
    labels[0, :, :3] = 5
    regions = pd.DataFrame({"name": ["far", "D", "B", "C"], "hemisphere": "midline",
                            "tissue": "gm", "lobe": "x", "volume_ml": 1.0},
                           index=[5, 70000, 2, 300])
    return Atlas("toy", nib.Nifti1Image(labels, AFFINE), regions, SPACE_NAME, "CC0", "")


@pytest.fixture
def parcels(atlas) -> Parcels:
    mask = np.random.default_rng(1).random(SHAPE) < 0.8
    mask[0, :, :3] = False
    with pytest.warns(UserWarning, match="1 have no voxel.*: far;"):
        return Parcels.of(atlas, Space(mask, AFFINE, SPACE_NAME))


@pytest.fixture
def values(parcels) -> np.ndarray:
    return np.random.default_rng(2).normal(1000, 3, (11, parcels.space.n_voxels))


def by_region(values: np.ndarray, parcels: Parcels, of) -> np.ndarray:
    """The function of each region's values, person by person, the slow way."""
    labels = parcels.labels
    return np.array([[of(row[labels == n]) if (labels == n).any() else np.nan
                      for n in parcels.regions.index] for row in values])


def test_every_region_keeps_its_row(parcels):
    assert parcels.n_voxels.index.tolist() == ["far", "D", "B", "C"]
    assert parcels.n_voxels.tolist() == [(parcels.labels == n).sum() for n in (5, 70000, 2, 300)]
    assert parcels.n_voxels["far"] == 0


@pytest.mark.filterwarnings("ignore:After applying mask")
def test_means_are_those_of_nilearn(atlas, parcels, values):
    single = values.astype(np.float32)
    found = WeightedMean().of(single, parcels)
    masker = NiftiLabelsMasker(atlas.labels_img, mask_img=parcels.space.mask_img(),
                               resampling_target=None, standardize=None)
    series = masker.fit_transform(nib.concat_images([parcels.space.img(v) for v in single]))
    ids = {int(label): column for column, label in masker.region_ids_.items()
           if column != "background"}
    for row, number in enumerate(parcels.regions.index):
        if number == 5:
            assert np.isnan(found[:, row]).all()
        else:
            np.testing.assert_allclose(found[:, row], series[:, ids[number]], rtol=1e-6)


def test_weighted_means_are_those_of_numpy(parcels, values):
    weights = np.random.default_rng(3).random(parcels.space.n_voxels)
    weights[parcels.labels == 300] *= 0
    values[4, 17:60] = np.nan
    found = WeightedMean(weights, coverage=0).of(values, parcels)
    for row, number in enumerate(parcels.regions.index):
        at = parcels.labels == number
        for person, data in zip(found, values):
            seen = at & ~np.isnan(data)
            expected = (np.average(data[seen], weights=weights[seen])
                        if weights[seen].sum() else np.nan)
            np.testing.assert_allclose(person[row], expected, rtol=1e-12)


def test_weights_may_be_an_image_of_the_same_grid(parcels, values):
    weights = np.random.default_rng(3).random(parcels.space.n_voxels).astype(np.float32)
    np.testing.assert_array_equal(
        WeightedMean(parcels.space.img(weights)).of(values, parcels),
        WeightedMean(weights).of(values, parcels))
    other = nib.Nifti1Image(np.ones((3, 4, 5), np.float32), AFFINE)
    for wrong in (other, weights[:-1], -weights, np.full_like(weights, np.nan)):
        with pytest.raises(SpaceMismatchError):
            WeightedMean(wrong).of(values, parcels)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.3, 0.49])
def test_trimmed_means_are_those_of_scipy(parcels, values, trim):
    np.testing.assert_allclose(
        RobustMean(trim).of(values, parcels),
        by_region(values, parcels, lambda v: stats.trim_mean(v, trim)), rtol=1e-12)


def test_a_few_wild_voxels_do_not_move_a_robust_mean(parcels, values):
    wild = values.copy()
    at = np.flatnonzero(parcels.labels == 2)[:5]
    wild[:, at] = 1e6
    moved = np.abs(RobustMean().of(wild, parcels) - RobustMean().of(values, parcels))
    assert np.nanmax(moved) < 1.5 < np.nanmin(np.abs(WeightedMean().of(wild, parcels)
                                                     - WeightedMean().of(values, parcels))[:, 2])


@pytest.mark.parametrize("how", [WeightedMean(coverage=0.5), RobustMean(coverage=0.5)])
def test_missing_voxels_are_left_out_until_half_are_missing(parcels, values, how):
    at = np.flatnonzero(parcels.labels == 300)
    few, many = at[: len(at) // 2 - 1], at[: len(at) // 2 + 2]
    values[0, few], values[1, many], values[2] = np.nan, np.nan, np.nan
    found = how.of(values, parcels)
    alone = values[:1, :].copy()
    mean = np.nanmean if isinstance(how, WeightedMean) else (
        lambda v: stats.trim_mean(v[~np.isnan(v)], 0.1))
    np.testing.assert_allclose(found[0], by_region(alone, parcels, mean)[0], rtol=1e-12)
    assert np.isnan(found[1, 3]) and np.isfinite(found[1, 1:3]).all()
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize("choose", [
    lambda n: WeightedMean(), lambda n: WeightedMean(np.linspace(0.1, 1, n)),
    lambda n: RobustMean()], ids=["mean", "weighted", "trimmed"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_means_of_equal_values_are_exact(parcels, choose, dtype):
    how = choose(parcels.space.n_voxels)
    of_region = np.random.default_rng(5).normal(0, 1e3, (6, 4)).astype(dtype)
    row = parcels.regions.index.get_indexer(pd.Index(parcels.labels))
    voxels = np.where(row >= 0, of_region[:, row], dtype(np.pi))
    found = how.of(voxels, parcels)
    np.testing.assert_array_equal(found[:, 1:], of_region[:, 1:])


def test_people_do_not_mix_and_blocks_do_not_show(parcels, values, monkeypatch):
    values[3, 40:90] = np.nan
    for how in (WeightedMean(), RobustMean()):
        whole = how.of(values, parcels)
        monkeypatch.setattr(module, "BLOCK_VALUES", 3 * parcels.space.n_voxels)
        np.testing.assert_array_equal(how.of(values, parcels), whole)
        np.testing.assert_array_equal(how.of(values[[7]], parcels)[0], whole[7])


def test_a_table_on_disk_is_read_some_people_at_a_time(parcels, values, tmp_path, monkeypatch):
    ids = [f"sub-{i}" for i in np.random.default_rng(6).permutation(len(values))]
    table = StoredTable.create(tmp_path / "t1", ids, parcels.space.features)
    table.write(0, values)
    some = table.reindexed([*ids[3:8], "sub-99"])
    asked = []
    monkeypatch.setattr(StoredTable, "frame", lambda self: 1 / 0)  # never all voxels at once
    original = StoredTable.values

    def counting(self, people=slice(None), features=slice(None)):
        asked.append(people)
        return original(self, people, features)

    monkeypatch.setattr(StoredTable, "values", counting)
    monkeypatch.setattr("normfuse.stored.BLOCK_VALUES", 1)
    found = region_table(some, parcels)
    assert len(asked) == 6
    expected = WeightedMean().of(values[3:8].astype(np.float32), parcels)
    np.testing.assert_array_equal(found.to_numpy()[:5], expected)
    assert found.index.tolist() == [*ids[3:8], "sub-99"] and found.loc["sub-99"].isna().all()
    assert found.columns.tolist() == ["far", "D", "B", "C"]


def test_voxels_are_joined_by_name(parcels, values):
    frame = pd.DataFrame(values, columns=parcels.space.features)
    mixed = frame.iloc[:, np.random.default_rng(7).permutation(frame.shape[1])].assign(more=1.0)
    pd.testing.assert_frame_equal(region_table(mixed, parcels), region_table(frame, parcels))
    with pytest.raises(SpaceMismatchError, match="2 of the .* not among the table's columns"):
        region_table(frame.iloc[:, 2:], parcels)


def test_choices_that_make_no_sense_are_refused(parcels):
    for make in (lambda: RobustMean(0.5), lambda: RobustMean(-0.1),
                 lambda: WeightedMean(coverage=1.2)):
        with pytest.raises(AtlasError, match="is a share"):
            make()
    with pytest.raises(SpaceMismatchError, match="got shape"):
        WeightedMean().of(np.ones((2, 3)), parcels)

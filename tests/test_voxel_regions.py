"""Regions of voxels: z judged by the controls, and the way back to an image.

Witnesses: SciPy's t law and a refit without the person; means taken voxel by voxel; the normal law
for people drawn from one.
"""
from __future__ import annotations

import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from normfuse import RobustMean, Space, load_atlas
from normfuse.analyses import (RegionalDeviations, compare_groups, parcellate, subject_map,
                               unparcellate)
from normfuse.analyses.judging import judged
from normfuse.analyses.voxel_regions import voxel_spaces
from normfuse.atlas import Atlas
from normfuse.deviations import ROLE, Deviations
from normfuse.errors import AtlasError, SpaceMismatchError
from normfuse.stored import StoredTable
from normfuse.testing import tiny_voxel_deviations
from normfuse.testing.fixtures import tiny_reference

pytestmark = pytest.mark.filterwarnings("ignore:1 of 3 features", "ignore:atlas toy. of 4 regions")

SHAPE = (7, 8, 9)
AFFINE = np.array([[-2.0, 0, 0, 6], [0, 3, 0, -5], [0, 0, 2.5, 1], [0, 0, 0, 1]])
NAME = "MNI152NLin6Asym"
NAMES = ["far", "D", "B", "C"]
NUMBERS = [5, 70000, 2, 300]


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    """Sparse labels in blocks; label 5 lies where the mask is not."""
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[1:4], labels[4:6, :5], labels[6, 2:] = 300, 70000, 2
    labels[0, :, :3] = 5
    regions = pd.DataFrame({"name": NAMES, "hemisphere": "midline", "tissue": "gm",
                            "lobe": ["x", "x", "y", np.nan], "volume_ml": 1.0}, index=NUMBERS)
    return Atlas("toy", nib.Nifti1Image(labels, AFFINE), regions, NAME, "CC0", "")


@pytest.fixture(scope="module")
def space() -> Space:
    mask = np.random.default_rng(1).random(SHAPE) < 0.8
    mask[0, :, :3] = False
    return Space(mask, AFFINE, NAME)


def healthy(n: int, space: Space, rng: np.random.Generator) -> np.ndarray:
    """Smooth standard normal images."""
    images = np.stack([gaussian_filter(rng.normal(size=SHAPE), 1.2) for _ in range(n)])
    return images[:, space.mask] / 0.13


def made(n: int, role: str, seed: int, space: Space) -> Deviations:
    """A modality of voxels between two of regions; the order of voxels is not the space's."""
    rng = np.random.default_rng(seed)
    index = pd.Index([f"{role}-{i}" for i in rng.permutation(n)], name="participant_id")
    shuffled = rng.permutation(space.n_voxels)
    keys = [("pet", "C"), *(("t1", space.features[v]) for v in shuffled), ("dti", "D"),
            ("dti", "tract")]
    columns = pd.MultiIndex.from_tuples(keys, names=["modality", "feature"])
    values = np.column_stack([rng.normal(size=n), healthy(n, space, rng)[:, shuffled],
                              rng.normal(size=(n, 2))])
    z = pd.DataFrame(values, index, columns)
    if role == "new":
        z.loc[index[1], "t1"] = np.nan
    expected = pd.DataFrame(rng.uniform(2, 9, z.shape), index, columns).where(z.notna())
    facts = {"pet": {"unit": "SUVR"}, "t1": {"unit": "au", "n_features": space.n_voxels,
                                             "space": space.to_dict()}, "dti": {"unit": "FA"}}
    far = pd.DataFrame({"distance": 1.0, "p": 0.5, "n_calibration": 20}, index)
    return Deviations(z=z, observed=expected + 0.1 * z, expected=expected, latent=far[["p"]],
                      distance=far, reference=replace(tiny_reference(), modalities=facts),
                      subjects=pd.DataFrame({"dx": "AD" if role == "new" else "CN", ROLE: role},
                                            index))


@pytest.fixture(scope="module")
def deviations(space) -> Deviations:
    return replace(made(9, "new", 0, space), controls=made(30, "calibration", 1, space))


@pytest.fixture(scope="module")
def regional(deviations, atlas) -> RegionalDeviations:
    with pytest.warns(UserWarning, match="far;|dti tract"):
        return parcellate(deviations, atlas)


def of_voxels(table: pd.DataFrame, space: Space, atlas: Atlas, number: int) -> pd.Series:
    """Mean of a region, voxel by voxel by name."""
    labels = atlas.labels[space.mask]
    named = [f for f, label in zip(space.features, labels) if label == number]
    return table["t1"][named].mean(axis=1)


# --- z ---------------------------------------------------------------------------------------

def test_judged_is_the_t_law_of_a_new_value():
    rng = np.random.default_rng(3)
    judges = pd.DataFrame(rng.normal(3, 2, (14, 3)), [f"c{i}" for i in range(14)], list("abc"))
    judges.iloc[2, 1] = np.nan
    people = pd.concat([pd.DataFrame(rng.normal(3, 9, (4, 3)), list("wxyz"), list("abc")), judges])
    found = judged(people, judges)
    for person, region in [(p, r) for p in people.index for r in "abc"]:
        others = judges[region].drop(person, errors="ignore").dropna()
        n = len(others)
        t = (people.loc[person, region] - others.mean()) / (others.std() * np.sqrt(1 + 1 / n))
        expected = stats.norm.ppf(stats.t.cdf(t, n - 1))
        np.testing.assert_allclose(found.loc[person, region], expected, rtol=1e-7, atol=1e-9)


def test_judged_keeps_its_digits_far_out_and_knows_when_not_to_speak():
    judges = pd.DataFrame({"a": np.arange(200.0), "same": 1.0, "few": np.nan},
                          [f"c{i}" for i in range(200)])
    judges.iloc[:4, 2] = [1.0, 2, 3, 4]
    found = judged(pd.DataFrame({"a": [-1e3, 1e4], "same": 2.0, "few": 2.0}, ["x", "y"]), judges)
    assert -30 < found.loc["x", "a"] < -8 and 30 < found.loc["y", "a"] < 40
    assert found[["same", "few"]].isna().all(axis=None)


@pytest.mark.parametrize("how", [None, RobustMean(0.2)])
def test_z_of_healthy_people_is_standard_normal(atlas, space, how):
    """And their mean z is not. Twelve controls are enough for the tails, not for one study."""
    rng, found, means = np.random.default_rng(4), [], []
    for study in range(25):
        voxels = pd.DataFrame(healthy(52, space, rng), columns=space.features)
        labels = atlas.labels[space.mask]
        of_regions = pd.DataFrame({
            n: (voxels.loc[:, labels == n].mean(axis=1) if how is None
                else stats.trim_mean(voxels.loc[:, labels == n], 0.2, axis=1))
            for n in NUMBERS[1:]})
        found.append(judged(of_regions.iloc[12:], of_regions.iloc[:12]).to_numpy())
        means.append(of_regions.to_numpy())
    z = np.concatenate(found)
    assert abs(z.std() - 1) < 0.06 and abs((np.abs(z) > 1.96).mean() - 0.05) < 0.012
    assert np.concatenate(means).std() < 0.6


# --- parcellate ------------------------------------------------------------------------------

def test_spaces_are_read_from_the_reference(deviations, space):
    assert voxel_spaces(deviations) == {"t1": space}
    kept = deviations.z.drop(columns=[("t1", space.features[3])])
    with pytest.raises(SpaceMismatchError, match="t1 has .* not the voxels of"):
        voxel_spaces(replace(deviations, z=kept))


def test_voxels_become_regions_beside_regions(deviations, atlas, space, regional):
    assert list(regional.z) == [("pet", "C"), *(("t1", name) for name in NAMES), ("dti", "D")]
    assert regional.unmatched == (("dti", "tract"),)
    for part, whole in ((regional, deviations), (regional.controls, deviations.controls)):
        for name, number in zip(NAMES, NUMBERS):
            for table in ("observed", "expected"):
                found = getattr(part, table)["t1", name]
                np.testing.assert_allclose(found, of_voxels(getattr(whole, table), space, atlas,
                                                            number), rtol=1e-12)
        pd.testing.assert_series_equal(part.z["pet", "C"], whole.z["pet", "C"])
    assert regional.z["t1", "far"].isna().all() and regional.n_voxels.loc["far", "t1"] == 0
    assert regional.modalities == ("pet", "t1", "dti")


def test_z_is_judged_by_the_controls_means(deviations, atlas, space, regional):
    for name, number in zip(NAMES[1:], NUMBERS[1:]):
        controls = of_voxels(deviations.controls.z, space, atlas, number)
        people = of_voxels(deviations.z, space, atlas, number)
        np.testing.assert_allclose(regional.mean_z["t1", name], people, rtol=1e-10)
        t = (people - controls.mean()) / (controls.std() * np.sqrt(1 + 1 / 30))
        np.testing.assert_allclose(regional.z["t1", name],
                                   stats.norm.ppf(stats.t.cdf(t, 29)), rtol=1e-7)
        first = controls.index[0]
        others = controls.drop(first)
        t = (controls[first] - others.mean()) / (others.std() * np.sqrt(1 + 1 / 29))
        np.testing.assert_allclose(regional.controls.z.loc[first, ("t1", name)],
                                   stats.norm.ppf(stats.t.cdf(t, 28)), rtol=1e-7)
    reference = regional.reference
    assert "space" not in reference.modalities["t1"]
    assert reference.modalities["t1"]["n_features"] == 4
    assert "means of voxels by WeightedMean(coverage=0.5)" in reference.notes[-1]
    assert "judged by 30 held-out controls" in reference.notes[-1]
    assert "space" in deviations.reference.modalities["t1"]  # the input is as it was


def test_the_long_table_says_what_is_what(regional):
    table = regional.table
    assert list(table)[-5:] == ["z", "observed", "expected", "mean_z", "n_voxels"]
    rows = table[table["region"] == "C"].set_index(["subject", "modality"])
    who = regional.z.index[0]
    assert rows.loc[(who, "t1"), "n_voxels"] == regional.n_voxels.loc["C", "t1"] > 50
    assert rows.loc[(who, "t1"), "mean_z"] == regional.mean_z.loc[who, ("t1", "C")]
    assert rows.loc[(who, "pet"), ["mean_z", "n_voxels"]].isna().all()


def test_people_and_controls_stay_together(regional):
    both = regional.with_controls()
    assert len(both.mean_z) == 39 and both.mean_z.index.equals(both.z.index)
    some = regional.select(regional.z.index[[4, 2]])
    pd.testing.assert_frame_equal(some.mean_z, regional.mean_z.iloc[[4, 2]])
    assert regional.controls.mean_z.shape == (30, 4)


def test_held_out_people_in_the_table_judge_each_other(deviations, atlas):
    with pytest.warns(UserWarning, match="far;"):
        found = parcellate(deviations.with_controls(), atlas)
        expected = parcellate(deviations, atlas).with_controls()
    pd.testing.assert_frame_equal(found.z, expected.z)


def test_without_controls_z_is_unknown_and_means_are_there(deviations, atlas, regional):
    with pytest.warns(UserWarning, match="t1: 0 held-out controls.*not standard normal"):
        found = parcellate(replace(deviations, controls=None), atlas)
    assert found.z["t1"].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.mean_z, regional.mean_z)
    assert "z of them is unknown" in found.reference.notes[-1]
    pd.testing.assert_series_equal(found.z["pet", "C"], regional.z["pet", "C"])


def test_a_person_does_not_depend_on_the_others(deviations, atlas, regional):
    who = deviations.z.index[5]
    with pytest.warns(UserWarning):
        alone = parcellate(deviations.select([who]), atlas)
    pd.testing.assert_frame_equal(alone.z, regional.z.loc[[who]])


def test_regions_go_on_into_comparisons_and_maps(regional, atlas):
    found = compare_groups(regional, "dx")
    assert found.n == {"CN": 30, "AD": 9}
    tested = found.table.loc[found.table["t"].notna()]
    assert ("AD - CN", "t1", "C") in tested.index and ("AD - CN", "t1", "far") not in tested.index
    who = regional.z.index[0]
    painted = np.asanyarray(subject_map(regional, who, "t1", atlas).dataobj)
    assert set(painted[atlas.labels == 300]) == {np.float32(regional.z.loc[who, ("t1", "C")])}
    assert np.isnan(painted[atlas.labels == 5]).all()


def test_a_robust_mean_and_a_least_size(deviations, atlas, space):
    with pytest.warns(UserWarning, match="fewer than 50 voxels"):
        found = parcellate(deviations, atlas, how=RobustMean(0.2), least=50)
    labels = atlas.labels[space.mask]
    named = [f for f, label in zip(space.features, labels) if label == 300]
    np.testing.assert_allclose(
        found.observed["t1", "C"].dropna(),
        stats.trim_mean(deviations.observed["t1"][named].dropna(), 0.2, axis=1), rtol=1e-12)
    assert found.z["t1", "B"].isna().all() and found.n_voxels.loc["B", "t1"] == 0
    assert "RobustMean" in found.reference.notes[-1]


# --- and back --------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_round_trip_is_exact(deviations, atlas, space, dtype):
    rng = np.random.default_rng(8)
    index = deviations.z.index
    x = pd.DataFrame(rng.normal(0, 3, (9, 4)), index, NAMES).astype(dtype)
    with pytest.warns(UserWarning, match="far;"):
        maps = [np.asanyarray(unparcellate(row, atlas, space).dataobj)[space.mask]
                for _, row in x.iterrows()]
    z = pd.DataFrame(np.stack(maps), index, pd.MultiIndex.from_product([["t1"], space.features]))
    voxels = replace(deviations, z=z, observed=z, expected=z, controls=None)
    with pytest.warns(UserWarning, match="held-out controls"):
        back = parcellate(voxels, atlas)
    for table in (back.mean_z, back.observed, back.expected):
        np.testing.assert_array_equal(table["t1"][NAMES[1:]], x[NAMES[1:]])
        assert table["t1", "far"].isna().all()


def test_a_map_on_the_grid_of_an_image_survives_the_disk(atlas, tmp_path):
    affine = np.diag([1.7, 1.7, 1.7, 1.0])
    affine[:3, 3] = (-8, -6, 0)
    grid = nib.Nifti1Image(np.zeros((10, 17, 15), np.int8), affine)
    unparcellate({"B": -2.5, "D": 0.0}, atlas, grid, background=7).to_filename(tmp_path / "m.nii")
    back = nib.load(tmp_path / "m.nii")
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    labels = atlas.on(Space(np.ones(grid.shape, bool), affine, NAME)).reshape(grid.shape)
    expected = np.select([labels == 2, labels == 70000], [-2.5, 0.0], 7.0)
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), expected)
    assert back.header["sform_code"] == back.header["qform_code"] == 4


def test_on_its_own_grid_it_is_paint(atlas):
    values = {"B": -2.5, "far": 1.5}
    np.testing.assert_array_equal(unparcellate(values, atlas).dataobj, atlas.paint(values).dataobj)


def test_unknown_and_doubled_regions_are_refused(atlas, space):
    with pytest.raises(AtlasError, match="no region E"):
        unparcellate({"E": 1.0}, atlas, space)
    with pytest.raises(AtlasError, match="more than one value for B"):
        unparcellate(pd.Series([1.0, 2.0], ["B", "B"]), atlas, space)


def test_the_embedded_atlas_there_and_back_at_eight_millimetres():
    """Regions that vanish are NaN afterwards, the others are what they were."""
    dk = load_atlas("dk")
    affine = np.diag([8.0, 8, 8, 1])
    affine[:3, 3] = (-72, -108, -72)
    space = Space(np.ones((19, 23, 21), bool), affine, dk.space)
    x = pd.Series(np.random.default_rng(9).normal(size=len(dk.regions)), dk.regions["name"])
    with pytest.warns(UserWarning, match="of 178 regions, 8 have no voxel"):
        image = unparcellate(x.astype(np.float32), dk, space)
        labels = dk.on(space)
    values = space.values(image)
    for number, name in dk.regions["name"].items():
        assert set(values[labels == number]) <= {np.float32(x[name])}
    assert np.isnan(values[labels == 0]).all()


def test_stored_voxels_are_averaged_some_people_at_a_time(tmp_path, monkeypatch):
    made = tiny_voxel_deviations()
    everyone = made.with_controls()
    everyone.save(tmp_path / "saved")
    stored = Deviations.read(tmp_path / "saved")
    with warnings.catch_warnings(action="ignore"):
        expected = parcellate(everyone, "dk")
        monkeypatch.setattr(StoredTable, "frame", None)  # reads a table whole
        found = parcellate(stored, "dk")
    assert stored.is_stored and found.z.notna().to_numpy().any()
    np.testing.assert_allclose(found.z, expected.z, atol=1e-4)

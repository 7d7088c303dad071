"""Maps and counts.

Witnesses: the toy atlas's own voxels, SciPy's Mann-Whitney, AUC by counting pairs, statsmodels'
Brunner-Munzel interval. Nothing outside checks the BIDS names.
"""
from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from normfuse.analyses import (compare_distances, compare_extremes, compare_groups, group_map,
                               overlap, parcellate, subject_map, write_maps)
from normfuse.analyses.groups import GroupComparison
from normfuse.atlas import Atlas
from normfuse.deviations import ROLE, Deviations
from normfuse.errors import AtlasError, CohortError, ComparisonError, OutputExistsError
from normfuse.testing.fixtures import tiny_reference

NAMES = {300: "L-insula", 7: "R-insula", 2: "L-cuneus", 41: "R-cuneus"}


@pytest.fixture
def atlas() -> Atlas:
    labels = np.zeros((7, 8, 9), dtype="int16")
    labels[1:3, 2:5, 1], labels[5:7, 2:4, 1] = 300, 7
    labels[0:2, 6, 5:8], labels[4:6, 6:8, 5] = 2, 41
    affine = np.array([[2.0, 0, 0, -7], [0, 2, 0, -11], [0, 0, 3, 5], [0, 0, 0, 1]])
    regions = pd.DataFrame({"name": NAMES, "hemisphere": {300: "left", 7: "right", 2: "left",
                                                          41: "right"}})
    regions = regions.assign(tissue="cortex", lobe="occipital", volume_ml=0.1)
    return Atlas("toy", nib.Nifti1Image(labels, affine), regions, "MNI152NLin6Asym", "CC0", "")


@pytest.fixture
def deviations() -> Deviations:
    rng = np.random.default_rng(6)
    dx = np.repeat(["AD", "CN", "MCI"], [9, 14, 6])
    index = pd.Index([f"sub-{i:02d}" for i in rng.permutation(len(dx))], name="participant_id")
    columns = pd.MultiIndex.from_tuples(
        [("t1", "R-cuneus"), ("t1", "L-insula"), ("t1", "R-insula"), ("pet", "L-insula"),
         ("pet", "L-cuneus")], names=["modality", "feature"])
    z = rng.normal(size=(len(dx), 5)) - (dx == "AD")[:, None] * [0.2, 1.5, 0.4, 1.0, 0.0]
    z = pd.DataFrame(z, index, columns)
    z.iloc[[1, 4, 12, 20], 3:] = np.nan
    z.iloc[2, 1] = np.nan
    far = pd.DataFrame({"distance": rng.chisquare(2, len(dx)), "n_calibration": 20}, index)
    far["p"] = stats.chi2.sf(far["distance"], 2)
    return Deviations(z=z, observed=5 + z, expected=5 + 0 * z, latent=far[["p"]], distance=far,
                      subjects=pd.DataFrame({"dx": dx}, index), reference=tiny_reference())


def test_a_persons_map_holds_z_in_the_right_voxels(deviations, atlas):
    regional = parcellate(deviations, atlas)
    who = deviations.z.index[5]
    image = subject_map(regional, who, "t1", atlas)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, atlas.labels_img.affine)
    values = np.asarray(image.dataobj)
    for number, name in NAMES.items():
        inside = np.unique(values[atlas.labels == number])
        expected = deviations.z.loc[who, "t1"].get(name, np.nan)
        np.testing.assert_allclose(inside, [expected], rtol=1e-6)
    assert np.isnan(values[atlas.labels == 0]).all()


def test_a_map_that_cannot_be_made_is_refused(deviations, atlas):
    regional = parcellate(deviations, atlas)
    who, without = deviations.z.index[[0, 1]]
    with pytest.raises(CohortError, match=f"pet was not measured of {without}"):
        subject_map(regional, without, "pet", atlas)
    with pytest.raises(CohortError, match="no modality 'dti'.*t1, pet"):
        subject_map(regional, who, "dti", atlas)
    with pytest.raises(CohortError, match=r"sub-99; the held-out controls are in"):
        subject_map(regional, "sub-99", "t1", atlas)
    with pytest.raises(AtlasError, match="atlas toy, the map was asked for in other"):
        subject_map(regional, who, "t1", replace(atlas, name="other"))


def test_a_groups_map_holds_the_columns_numbers(deviations, atlas):
    found = compare_groups(parcellate(deviations, atlas), "dx", baseline="CN")
    for column in ("g", "raw_t", "n_case"):
        values = np.asarray(group_map(found, "pet", atlas, column, contrast="AD - CN").dataobj)
        for region in ("L-insula", "L-cuneus"):
            number = {name: number for number, name in NAMES.items()}[region]
            expected = found.table.loc[("AD - CN", "pet", region), column]
            np.testing.assert_allclose(values[atlas.labels == number], expected, rtol=1e-6)
        assert np.isnan(values[atlas.labels == 7]).all()  # PET has no right insula


def test_a_groups_map_needs_to_know_which(deviations, atlas):
    found = compare_groups(parcellate(deviations, atlas), "dx", baseline="CN")
    for options, words in (({}, "choose a contrast.*AD - CN, MCI - CN; got None"),
                           ({"contrast": "AD - CN", "column": "reason"}, "choose a column"),
                           ({"contrast": "AD"}, "got 'AD'")):
        with pytest.raises(ComparisonError, match=words):
            group_map(found, "t1", atlas, **options)
    with pytest.raises(ComparisonError, match="choose a modality.*t1, pet; got 'dti'"):
        group_map(found, "dti", atlas, contrast="AD - CN")


def test_written_maps_are_bids_derivatives_of_what_was_measured(deviations, atlas, tmp_path):
    renamed = deviations.z.index.str.replace("sub-03", "P03=x")
    tables = {name: getattr(deviations, name).set_axis(renamed, axis=0)
              for name in ("z", "observed", "expected", "latent", "distance", "subjects")}
    regional = parcellate(replace(deviations, **tables), atlas)
    files = write_maps(regional, atlas, tmp_path / "maps")
    assert len(files) == 29 + 25 and all(file.is_file() for file in files)
    assert {f.name for f in (tmp_path / "maps").iterdir()} == {
        *(f.name for f in files), "dataset_description.json"}
    names = [file.name for file in files]
    assert "sub-07_desc-normfuse_stat-z_t1.nii.gz" in names
    assert "sub-P03=x_desc-normfuse_stat-z_t1.nii.gz" in names
    assert f"{renamed[1]}_desc-normfuse_stat-z_pet.nii.gz" not in names
    image = nib.load(tmp_path / "maps" / "sub-07_desc-normfuse_stat-z_t1.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(),
                                  subject_map(regional, "sub-07", "t1", atlas).get_fdata())
    about = json.loads((tmp_path / "maps" / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "normfuse"
    with pytest.raises(OutputExistsError):
        write_maps(regional, atlas, tmp_path / "maps")
    with pytest.raises(OutputExistsError, match="52 in all.*would be lost"):
        write_maps(regional, atlas, tmp_path / "maps", subjects="sub-07", overwrite=True)
    assert all(file.is_file() for file in files)
    assert write_maps(regional, atlas, tmp_path / "maps", overwrite=True) == files
    assert len(write_maps(regional, atlas, tmp_path / "one", subjects="sub-07")) == 2


@pytest.mark.parametrize("bad, words", [
    ("../sub-03", "cannot be used as a file name"), ("a/b", "cannot be used as a file name"),
    ("a..b", "cannot be used as a file name"), ("SUB-04", None), ("04", "would share the file")])
def test_ids_that_are_no_file_names_are_refused_before_anything_is_written(
        deviations, atlas, tmp_path, bad, words):
    renamed = deviations.z.index.str.replace("sub-03", bad)
    tables = {name: getattr(deviations, name).set_axis(renamed, axis=0)
              for name in ("z", "observed", "expected", "latent", "distance", "subjects")}
    regional = parcellate(replace(deviations, **tables), atlas)
    target = tmp_path / "new" / "maps"
    if words is None:  # sub-SUB-04 is another file than sub-04
        assert write_maps(regional, atlas, target, subjects=[bad, "sub-04"])
        return
    with pytest.raises(CohortError, match=words):
        write_maps(regional, atlas, target)
    assert not list(tmp_path.iterdir())
    with pytest.raises(CohortError, match="not among these deviations: nobody"):
        write_maps(regional, atlas, target, subjects=["nobody"])


def test_a_modality_that_is_no_file_name_is_refused(deviations, atlas, tmp_path):
    tables = {name: getattr(deviations, name).rename(columns={"pet": "pet/av45"}, level=0)
              for name in ("z", "observed", "expected")}
    regional = parcellate(replace(deviations, **tables), atlas)
    with pytest.raises(CohortError, match="modality 'pet/av45' cannot be part of a file name"):
        write_maps(regional, atlas, tmp_path / "maps")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("direction", ["both", "below", "above"])
def test_overlap_is_the_share_of_those_measured(deviations, direction):
    found = overlap(deviations, "dx", threshold=0.7, direction=direction).shares
    assert found.index.names == ["group", "modality", "feature"] and len(found) == 15
    for (level, *column), row in found.iterrows():
        z = deviations.z.loc[deviations.subjects["dx"] == level, tuple(column)].dropna()
        count = {"both": sum(abs(z) > 0.7), "below": sum(z < -0.7), "above": sum(z > 0.7)}
        assert (row["count"], row["n"]) == (count[direction], len(z))
        assert row["share"] == pytest.approx(count[direction] / len(z))


def test_overlap_adds_controls_leaves_out_seen_people_and_refuses_nonsense(deviations):
    roles = deviations.subjects.assign(**{ROLE: "new"})
    roles.iloc[9:12, -1] = "training"
    with pytest.warns(UserWarning, match="left out 3 people"):
        found = overlap(replace(deviations, subjects=roles), "dx").shares
    assert found.loc["CN"]["n"].max() == 11
    parted = replace(deviations.select("dx == 'AD'"), controls=deviations.select("dx == 'CN'"))
    assert set(overlap(parted, "dx").shares.index.get_level_values(0)) == {"AD", "CN"}
    with pytest.raises(CohortError, match="positive z; got -1.96"):
        overlap(deviations, "dx", threshold=-1.96)
    with pytest.raises(CohortError, match="got 'under'"):
        overlap(deviations, "dx", direction="under")


def test_extreme_counts_are_compared_by_ranks(deviations):
    complete = deviations.select(deviations.z.index[deviations.z.notna().all(axis=1)])
    found = compare_extremes(complete, "dx", threshold=0.8, direction="below", baseline="CN")
    assert found.kind == complete.reference.kind
    counts = complete.extreme(0.8, direction="below")  # the model's own count is the witness
    for (contrast, modality, _), row in found.table.iterrows():
        a, b = (counts.loc[complete.subjects["dx"] == level, modality].to_numpy()
                for level in contrast.split(" - "))
        test = stats.mannwhitneyu(a, b)
        pairs = np.sign(a[:, None] - b[None, :])
        assert (row["u"], row["p"]) == (test.statistic, pytest.approx(test.pvalue))
        assert row["auc"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        assert row["case_mean"] == a.mean() and row["baseline_median"] == np.median(b)
        assert (row["n_case"], row["n_baseline"]) == (len(a), len(b))
        assert row["auc_low"] <= row["auc"] <= row["auc_high"] <= 1
    assert list(found.table.index.get_level_values("modality").unique()) == ["t1", "pet", "total"]
    np.testing.assert_allclose(found.table["q"], stats.false_discovery_control(found.table["p"]))
    assert "auc = " in found.summary()


def test_the_interval_of_auc_covers_the_truth():
    rng = np.random.default_rng(12)
    truth = stats.norm.cdf(0.8 / np.sqrt(2))
    hits = 0
    for _ in range(60):
        n = 55
        people = pd.DataFrame({"dx": ["AD"] * 20 + ["CN"] * 35}, index=[f"s{i}" for i in range(n)])
        score = rng.normal(size=n) + 0.8 * (people["dx"] == "AD")
        far = pd.DataFrame({"distance": np.exp(score), "p": stats.norm.sf(score)}, people.index)
        made = Deviations(far[[]], far[[]], far[[]], far[[]], far, people, tiny_reference())
        row = compare_distances(made, "dx").table.iloc[0]
        hits += row["auc_low"] < truth < row["auc_high"]
    assert stats.binomtest(int(hits), 60, 0.95).pvalue > 0.001


def test_counts_of_people_with_holes_are_scaled_and_the_result_says_so(deviations):
    found = compare_extremes(deviations, "dx", threshold=0.8, baseline="CN")
    assert any("5 of 29 people lack some features" in note for note in found.notes)
    z = deviations.z[deviations.subjects["dx"] == "MCI"]
    share = (z.abs() > 0.8).sum(axis=1) / z.notna().sum(axis=1)
    row = found.table.loc[("MCI - CN", "total", "extreme count")]
    assert row["case_mean"] == pytest.approx(5 * share.mean())
    pet = found.table.loc[("AD - CN", "pet", "extreme count")]
    assert (pet["n_case"], pet["n_baseline"]) == (7, 12)  # nobody counts 0 for want of a scan


def test_nobody_extreme_or_nobody_measured_is_a_row_with_a_reason(deviations):
    found = compare_extremes(deviations, "dx", threshold=50).table
    assert (found["reason"] == "the same in everyone").all() and found["p"].isna().all()
    z = deviations.z.copy()
    z.loc[deviations.subjects["dx"] == "AD", "pet"] = np.nan
    found = compare_extremes(replace(deviations, z=z), "dx", baseline="CN").table
    assert found.loc[("AD - CN", "pet", "extreme count"), "reason"].startswith("measured in 0 and")
    apart = deviations.z.copy() * 0
    apart.loc[deviations.subjects["dx"] == "AD"] = 9
    row = compare_extremes(replace(deviations, z=apart), "dx", baseline="CN").table.iloc[0]
    assert row["auc"] == 1 and np.isnan(row["auc_low"]) and row["p"] < 0.001


def test_distances_are_ranked_by_their_p_value(deviations, tmp_path):
    found = compare_distances(deviations, "dx", baseline="CN")
    a, b = (deviations.distance["distance"][deviations.subjects["dx"] == level]
            for level in ("AD", "CN"))
    row = found.table.loc[("AD - CN", "latent", "distance")]
    assert row["p"] == pytest.approx(stats.mannwhitneyu(a, b).pvalue)
    assert row["case_mean"] == a.mean() and row["baseline_median"] == b.median()
    inflated = deviations.distance.copy()
    inflated.loc[a.index, "distance"] *= 3  # few calibration people shared their modalities
    again = compare_distances(replace(deviations, distance=inflated), "dx", baseline="CN")
    assert again.table.loc[row.name, "p"] == row["p"]
    read = GroupComparison.read(found.save(tmp_path / "distances"))
    pd.testing.assert_frame_equal(read.table, found.table)
    assert read.kind == ""  # the latent distance does not depend on it
    assert read.summary() == found.summary() and found._repr_html_()

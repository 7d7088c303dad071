"""Atlases from files, from nilearn, and on other grids.

Witnesses: nilearn's nearest-neighbour resampling, label counts measured elsewhere, and real
atlases in ``../shared/data`` (read, never committed). nilearn's fetchers are played by hand: what
they return over the internet has no witness here.
"""
from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn import datasets, image

from normfuse import fetched_atlases
from normfuse.atlas import Atlas, load_atlas
from normfuse.atlas_parts import UNKNOWN_SPACE
from normfuse.errors import AtlasError, SpaceMismatchError
from normfuse.space import Space

AFFINE = np.array([[-2.0, 0, 0, 6], [0, 3, 0, -5], [0, 0, 2.5, 1], [0, 0, 0, 1]])
TABLE = "index\tname\n300\tRight-B\n2\tLeft-A\n70000\tStem\n"


def toy_labels() -> np.ndarray:
    labels = np.zeros((7, 8, 9), dtype=np.int32)
    labels[0:2, 1:3, 4] = 300
    labels[5:7, 2:5, 3:8] = 2
    labels[3, 7, 8] = 70000
    return labels


def saved(folder, data=None, affine=AFFINE, name="toy.nii.gz", table=TABLE):
    nib.Nifti1Image(toy_labels() if data is None else data, affine).to_filename(folder / name)
    if table:
        (folder / name.replace(".nii.gz", ".tsv")).write_text(table)
    return folder / name


@pytest.fixture
def toy(tmp_path) -> Atlas:
    return load_atlas(saved(tmp_path))


def grid(size: float, shape: tuple[int, ...], origin: tuple[float, ...],
         name: str = UNKNOWN_SPACE) -> Space:
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = origin
    return Space(np.ones(shape, dtype=bool), affine, name)


# --- files -----------------------------------------------------------------------------------

def test_image_and_table_are_joined_by_number(toy, tmp_path):
    assert toy.regions["name"].to_dict() == {2: "Left-A", 300: "Right-B", 70000: "Stem"}
    assert toy.regions["hemisphere"].tolist() == ["left", "right", "midline"]
    np.testing.assert_allclose(toy.regions["volume_ml"], [0.45, 0.06, 0.015])
    assert toy.regions[["tissue", "lobe"]].isna().all(axis=None)
    assert toy.name == "toy" and toy.space == UNKNOWN_SPACE
    assert any("taken for MNI" in note for note in toy.notes)
    assert "toy.tsv" in toy.notes[0] and "unknown" in toy._repr_html_()
    np.testing.assert_array_equal(toy.labels, toy_labels())
    other = load_atlas(str(tmp_path / "toy.nii.gz"), tmp_path / "toy.tsv", space="MNIColin27")
    assert other.space == "MNIColin27" and other.notes == ()


def test_whole_numbers_stored_as_floats_and_a_spare_axis(tmp_path):
    made = load_atlas(saved(tmp_path, toy_labels().astype(np.float32)[..., None]))
    assert made.labels.dtype == np.int32
    np.testing.assert_array_equal(made.labels, toy_labels())


def test_names_of_labels_the_image_lacks_are_noted(tmp_path):
    path = saved(tmp_path, table=TABLE + "0\tUnknown\n9\tRight-C\n10\tLeft-C\n")
    made = load_atlas(path, space="MNI152NLin6Asym")
    assert made.notes[-1] == ("2 regions of the table have no voxel in the image: Right-C, Left-C")
    assert len(made.regions) == 3


def test_without_a_table_regions_are_numbers(tmp_path):
    with pytest.warns(UserWarning, match="toy.nii.gz has no table.*3 regions.*cannot be checked"):
        made = load_atlas(saved(tmp_path, table=None))
    assert made.regions["name"].tolist() == ["label 2", "label 300", "label 70000"]
    assert made.regions["hemisphere"].isna().all()
    assert any("was not checked" in note for note in made.notes)


def test_the_space_may_be_in_the_file_name(tmp_path):
    made = load_atlas(saved(tmp_path, name="tpl-MNI152NLin2009cAsym_toy.nii.gz"))
    assert made.space == "MNI152NLin2009cAsym" and "by its file name" in made.notes[1]


def test_a_mirrored_header_is_refused_and_can_be_repaired(tmp_path):
    path = saved(tmp_path, affine=np.diag([-1.0, 1, 1, 1]) @ AFFINE)
    with pytest.raises(AtlasError, match=r"2 of 2 left or right.*mirrors left and right.*unmirror="
                                         r"True.*np.diag\(\[-1, 1, 1, 1\]\) @ img.affine"):
        load_atlas(path)
    repaired = load_atlas(path, unmirror=True)
    np.testing.assert_allclose(repaired.labels_img.affine, AFFINE)
    np.testing.assert_array_equal(repaired.labels, toy_labels())
    assert "exchanged, as asked" in repaired.notes[0]
    with pytest.raises(AtlasError, match="mirrors left and right"):  # what was right turns wrong
        load_atlas(saved(tmp_path), unmirror=True)


def _no_codes(folder):
    img = nib.Nifti1Image(toy_labels(), None)
    img.header["sform_code"] = img.header["qform_code"] = 0
    img.to_filename(folder / "bare.nii.gz")
    return folder / "bare.nii.gz"


@pytest.mark.parametrize("make, message", [
    (lambda f: f / "none.nii.gz", "there is no file"),
    (lambda f: saved(f, np.random.default_rng(0).random((3, 4, 5))), "no whole numbers"),
    (lambda f: saved(f, np.ones((3, 4, 5, 6), np.int16)), "overlapping or probabilistic"),
    (lambda f: saved(f, np.full((3, 4, 5), -56, np.int16)), "labels from -56 to -56.*int8"),
    (lambda f: saved(f, np.zeros((3, 4, 5), np.int16)), "holds no label"),
    (lambda f: saved(f, table="index\tname\n2\tLeft-A\n7\tStem\n"),
     "no name for label 300, 70000.*table of this image"),
    (lambda f: saved(f, table=TABLE.replace("Stem", "Left-A")), "name Left-A occurs twice"),
    (_no_codes, "neither sform nor qform"),
])
def test_what_is_no_atlas_is_refused(tmp_path, make, message):
    with pytest.raises(AtlasError, match=message):
        load_atlas(make(tmp_path))


def test_a_file_that_is_no_image_and_one_of_the_surface(tmp_path):
    (tmp_path / "text.nii.gz").write_text("hello")
    with pytest.raises(AtlasError, match="cannot be read as an image"):
        load_atlas(tmp_path / "text.nii.gz")
    data = nib.gifti.GiftiDataArray(np.arange(4, dtype=np.int32), "NIFTI_INTENT_LABEL")
    nib.GiftiImage(darrays=[data]).to_filename(tmp_path / "lh.label.gii")
    with pytest.raises(AtlasError, match="atlas of the surface"):
        load_atlas(tmp_path / "lh.label.gii")


def test_a_name_takes_no_table():
    with pytest.raises(AtlasError, match="known by name"):
        load_atlas("dk", "labels.tsv")


# --- other grids -----------------------------------------------------------------------------

def test_labels_on_another_grid_are_those_of_nilearn(toy):
    space = grid(1.9, (9, 14, 13), (-7.3, -6.1, 0.2))
    template = nib.Nifti1Image(np.zeros(space.shape, np.int8), space.affine)
    # SciPy takes what lies beyond the outermost voxels' centres as outside: give it a rim
    affine = AFFINE.copy()
    affine[:3, 3] -= AFFINE[:3, :3].sum(axis=1)
    padded = nib.Nifti1Image(np.pad(toy.labels, 1), affine)
    witness = image.resample_to_img(padded, template, interpolation="nearest",
                                    force_resample=True, copy_header=True)
    expected = np.asanyarray(witness.dataobj)[space.mask]
    assert set(expected) == {0, 2, 300, 70000}
    np.testing.assert_array_equal(toy.on(space), expected)


def test_a_mask_takes_its_voxels_in_its_order(toy):
    whole = grid(1.9, (9, 14, 13), (-7.3, -6.1, 0.2))
    some = np.random.default_rng(1).random(whole.shape) < 0.9
    part = Space(some, whole.affine, whole.name)
    np.testing.assert_array_equal(toy.on(part), toy.on(whole)[some.ravel()])


def test_halves_go_up_everywhere():
    """A grid shifted by half a voxel: each row of labels is met once, none twice."""
    labels = np.arange(1, 13, dtype=np.int32).reshape(12, 1, 1)
    table = pd.DataFrame({"index": range(1, 13), "name": [f"r{n}" for n in range(1, 13)]})
    named = table.set_index("index").assign(hemisphere=np.nan, tissue="", lobe="", volume_ml=1.0)
    atlas = Atlas("rows", nib.Nifti1Image(labels, np.eye(4)), named, UNKNOWN_SPACE, "", "")
    with pytest.warns(UserWarning, match="of 12 regions, 1 have no voxel.*r1;"):
        found = atlas.on(grid(1.0, (11, 1, 1), (0.5, 0.0, 0.0)))
    assert found.tolist() == list(range(2, 13))
    assert atlas.on(grid(1.0, (12, 1, 1), (0.0, 0, 0))).tolist() == list(range(1, 13))


def test_regions_that_vanish_or_shrink_are_named(toy):
    space = grid(1.9, (9, 14, 13), (-7.3, -6.1, 0.2))
    counts = dict(zip(*np.unique(toy.on(space), return_counts=True)))
    with pytest.warns(UserWarning, match=rf"2 have fewer than {counts[2]} voxels .*Right-B, Stem;"
                                         ".*NaN"):
        found = toy.on(space, least=int(counts[2]))
    assert set(found) == {0, 2} and (found == 2).sum() == counts[2]
    with pytest.warns(UserWarning, match="1 have no voxel.*: Stem;"):
        toy.on(grid(1.9, (9, 14, 10), (-7.3, -6.1, 0.2)))
    with pytest.raises(AtlasError, match="3 have no voxel.*lie in the same space"):
        toy.on(grid(1.9, (9, 14, 13), (500.0, 0, 0)))


def test_label_numbers_far_apart_cost_no_memory():
    """Some atlases number in the hundreds of millions."""
    labels = np.zeros((3, 4, 5), dtype=np.int32)
    labels[0], labels[2] = 614_454_277, 7
    named = pd.DataFrame({"name": ["a", "b"], "hemisphere": np.nan, "tissue": "", "lobe": "",
                          "volume_ml": 1.0}, index=[614_454_277, 7])
    atlas = Atlas("far", nib.Nifti1Image(labels, np.eye(4)), named, UNKNOWN_SPACE, "", "")
    painted = np.asanyarray(atlas.paint({"a": 1.5, "b": -2.0}).dataobj)
    np.testing.assert_array_equal(painted[:, 0, 0], [1.5, np.nan, -2.0])


def test_spaces_must_agree(tmp_path):
    toy = load_atlas(saved(tmp_path), space="MNI152NLin6Asym")
    place = (9, 14, 13), (-7.3, -6.1, 0.2)
    with pytest.raises(SpaceMismatchError, match="voxels lie in sub-01, atlas toy in MNI152"):
        toy.on(grid(1.9, *place, name="sub-01"))
    with pytest.warns(UserWarning, match="templates of one family"):
        toy.on(grid(1.9, *place, name="MNI152NLin2009cAsym"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.on(grid(1.9, *place, name="MNI152NLin6Asym"))


# --- nilearn ---------------------------------------------------------------------------------

def test_a_fetched_atlas_is_joined_by_number(monkeypatch, tmp_path):
    lut = pd.DataFrame({"index": [0, 300, 2, 70000, 9], "color": "#fff",
                        "name": ["Background", "Right-B", "Left-A", "Stem", "Right-Wall"]})
    asked = {}

    def fetcher(**options):
        asked.update(options)
        return {"maps": str(saved(tmp_path)), "lut": lut, "template": "MNI152NLin6Asym"}

    monkeypatch.setattr(datasets, "fetch_atlas_schaefer_2018", fetcher)
    made = load_atlas("schaefer_200")
    assert asked == {"n_rois": 200, "verbose": 0}
    assert made.regions["name"].to_dict() == {2: "Left-A", 300: "Right-B", 70000: "Stem"}
    assert made.name == "schaefer_200" and made.space == "MNI152NLin6Asym"
    assert "Schaefer" in made.citation and any("Right-Wall" in note for note in made.notes)


def test_without_internet_the_error_says_what_to_do(monkeypatch):
    def fetcher(**options):
        raise ConnectionError("name resolution failed")

    monkeypatch.setattr(datasets, "fetch_atlas_aal", fetcher)
    with pytest.raises(AtlasError, match="aal could not be fetched .ConnectionError.*internet once"
                                         ".*nilearn_data.*path of an image"):
        load_atlas("aal")


@pytest.mark.parametrize("name", ["difumo", "difumo_64", "MSDL", "smith_2009"])
def test_overlapping_maps_are_refused(name):
    with pytest.raises(AtlasError, match="overlapping maps"):
        load_atlas(name)


def test_every_name_has_its_fetcher_and_options():
    import inspect
    for name, source in fetched_atlases.SOURCES.items():
        fetcher = getattr(datasets, f"fetch_atlas_{source.fetcher}")
        assert set(source.options) <= set(inspect.signature(fetcher).parameters), name


# --- real files ------------------------------------------------------------------------------

@pytest.mark.parametrize("size, kept", [(2, 180), (3, 180), (4, 178), (6, 172), (8, 169)])
def test_labels_left_on_coarse_grids(shared_data, size, kept):
    """Measured elsewhere, the two 'unknown' labels counted."""
    folder = shared_data / "atlases" / "dk_gm_wm"
    atlas = load_atlas(folder / "dk_gm_wm_1mm.nii.gz", space="MNI152NLin6Asym")
    assert len(atlas.regions) == 180 and atlas.notes[0].endswith("dk_gm_wm_1mm.tsv")
    template = datasets.load_mni152_template(resolution=size)
    space = Space(np.ones(template.shape, bool), template.affine, "MNI152NLin6Asym")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = atlas.on(space)
    assert len(np.unique(found)) - 1 == kept
    assert [f"180 regions, {180 - kept} have" in str(w.message) for w in caught] \
        == [True] * (kept < 180)


@pytest.mark.parametrize("image_name, table, n, sides", [
    ("cerebra/CerebrA.nii.gz", "cerebra/CerebrA.txt", 102, (51, 51)),
    ("schaefer_tian/Schaefer2018_100Parcels_7Networks_order_Tian_Subcortex_S1_"
     "MNI152NLin6Asym_2mm.nii.gz", "schaefer_tian/Schaefer2018_100Parcels_7Networks_order_Tian_"
     "Subcortex_S1_label.txt", 116, (58, 58)),
    ("schaefer_tian/Schaefer2018_200Parcels_7Networks_order_Tian_Subcortex_S2_3T_"
     "MNI152NLin2009cAsym_2mm.nii.gz", "schaefer_tian/Schaefer2018_200Parcels_7Networks_order_"
     "Tian_Subcortex_S2_label.txt", 232, (116, 116)),
])
def test_real_atlases_with_their_tables(shared_data, image_name, table, n, sides):
    made = load_atlas(shared_data / "atlases" / image_name, shared_data / "atlases" / table)
    assert len(made.regions) == n
    counts = made.regions["hemisphere"].value_counts()
    assert (counts["left"], counts["right"]) == sides
    assert ("MNI152" in made.space) == ("schaefer" in image_name)


def test_a_real_atlas_without_a_table(shared_data):
    file = next((shared_data / "atlases" / "mindboggle").glob("*.nii.gz"))
    with pytest.warns(UserWarning, match="96 regions are called by their numbers"):
        made = load_atlas(file)
    assert made.regions.loc[2035, "name"] == "label 2035"


def test_the_mirrored_atlas_is_refused_and_repaired(shared_data):
    folder = shared_data / "atlases" / "jhu"
    mirrored = folder / "JHU-WhiteMatter-labels-2mm_as-in-debian-mirrored.nii.gz"
    with pytest.raises(AtlasError, match="42 of 42 left or right.*mirrors left and right.*"
                                         "unmirror=True"):
        load_atlas(mirrored, folder / "labels.txt")
    made = load_atlas(mirrored, folder / "labels.txt", unmirror=True)
    right = load_atlas(folder / "JHU-ICBM-DTI81_2mm_LRfixed.nii.gz", folder / "labels.txt")
    assert len(made.regions) == 48
    for name in ("x", "y", "z"):
        np.testing.assert_allclose(made.centroids()[name], right.centroids()[name], atol=2.0)


def test_the_command_line_gives_examples_of_a_small_atlas_too(tmp_path):
    """It took the 91st region of every atlas."""
    from normfuse.cli.deviations import _atlas_of
    from normfuse.testing import tiny_deviations

    with pytest.warns(UserWarning, match="no brain maps.*called as Left-A, Right-B$"):
        assert _atlas_of(tiny_deviations(), str(saved(tmp_path))).name == "toy"

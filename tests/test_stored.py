"""Tables on disk behave as tables in memory; spaces turn tables into images and back."""
from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from normfuse import Cohort, Modality
from normfuse.errors import CohortError, ModelFileError, SpaceMismatchError
from normfuse.space import Space
from normfuse.stored import StoredTable

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 3.0, 0, -126], [0, 0.5, 4.0, -72], [0, 0, 0, 1]])


@pytest.fixture
def space() -> Space:
    mask = np.random.default_rng(0).random((7, 8, 9)) < 0.3
    return Space(mask, AFFINE, "MNI152NLin2009aSym")


@pytest.fixture
def frame(space) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    ids = pd.Index([f"sub-{i:02d}" for i in rng.permutation(11)], name="participant_id")
    return pd.DataFrame(rng.normal(size=(11, space.n_voxels)).astype(np.float32), ids,
                        list(space.features))


@pytest.fixture
def table(tmp_path, frame) -> StoredTable:
    made = StoredTable.create(tmp_path / "t1", frame.index, frame.columns, {"unit": "mm"})
    made.write(0, frame.to_numpy()[:4])
    made.write(4, frame.to_numpy()[4:])
    return StoredTable.open(tmp_path / "t1")


def test_a_stored_table_gives_back_what_was_written(table, frame):
    pd.testing.assert_frame_equal(table.frame(), frame)
    assert table.attributes == {"unit": "mm"}


def test_people_are_chosen_by_id_in_any_order(table, frame):
    for ids in (frame.index[::-1], frame.index[[7, 2]], frame.index[[3, 3]], frame.index[:0]):
        pd.testing.assert_frame_equal(table.select(ids).frame(), frame.loc[ids])
    with pytest.raises(CohortError, match="sub-99"):
        table.select(["sub-99"])


def test_people_who_are_not_in_it_are_rows_of_nan(table, frame):
    ids = pd.Index(["sub-03", "sub-77", "sub-01"], name="participant_id")
    found = table.reindexed(ids)
    pd.testing.assert_frame_equal(found.frame(), frame.reindex(ids))
    assert found.present.tolist() == [True, False, True]
    pd.testing.assert_frame_equal(found.select(ids[1:]).frame(), frame.reindex(ids[1:]))


@pytest.mark.parametrize("n", [1, 3, 50, None])
def test_pieces_make_the_whole(table, frame, n):
    people = np.vstack([values for _, values in table.by_people(n)])
    features = np.hstack([values for _, values in table.by_features(n)])
    np.testing.assert_array_equal(people, frame)
    np.testing.assert_array_equal(features, frame)


def test_a_damaged_table_is_refused(table, tmp_path):
    with pytest.raises(ModelFileError, match="not a stored table"):
        StoredTable.open(tmp_path / "nothing")
    (tmp_path / "t1" / "people.json").write_text(json.dumps(["sub-00"]))
    with pytest.raises(ModelFileError, match="1 people"):
        StoredTable.open(tmp_path / "t1")


def test_a_cohort_on_disk_is_that_in_memory(table, frame, space):
    people = pd.DataFrame({"age": np.arange(12.0), "dx": ["CN", "AD"] * 6},
                          index=[*frame.index[::-1], "sub-50"])
    volumes = pd.DataFrame({"hippocampus": np.arange(12.0)}, index=people.index)
    cohorts = [Cohort.from_frames(people, {"t1": block, "aseg": volumes}, spaces={"t1": space},
                                  covariates={"age": "continuous"}, reference="dx == 'CN'")
               for block in (table, frame)]
    for found in ([c.select(people.index[[5, 0, 11]]) for c in cohorts],
                  [c.reference_subjects() for c in cohorts], [c.without("aseg") for c in cohorts],
                  [c.split("age > 4")[1] for c in cohorts]):
        stored, memory = found
        pd.testing.assert_frame_equal(stored.subjects, memory.subjects)
        pd.testing.assert_frame_equal(stored.present, memory.present)
        for name, block in memory.features.items():
            pd.testing.assert_frame_equal(stored.features[name].astype(float), block)
    assert cohorts[0].modality("t1").space == space


def test_selecting_people_reads_nothing(table, space, monkeypatch):
    people = pd.DataFrame({"age": 1.0}, index=table.index)
    cohort = Cohort.from_frames(people, {"t1": table}, spaces={"t1": space},
                                covariates={"age": "continuous"})
    monkeypatch.setattr(StoredTable, "values", None)
    assert len(cohort.select(people.index[:3])) == 3 and cohort.present["t1"].all()


def test_images_and_tables_are_one(space):
    values = np.random.default_rng(2).normal(size=space.n_voxels).astype(np.float32)
    img = space.img(values, background=np.nan)
    np.testing.assert_array_equal(space.values(img), values)
    i, j, k = map(int, space.features[5].split(","))
    assert img.dataobj[i, j, k] == values[5]
    np.testing.assert_allclose(space.coordinates()[5], nib.affines.apply_affine(AFFINE, (i, j, k)))
    assert np.isnan(img.get_fdata()).sum() == space.mask.size - space.n_voxels


def test_an_image_on_another_grid_is_refused(space):
    values = np.ones(space.n_voxels)
    moved = nib.Nifti1Image(space.img(values).get_fdata(), AFFINE + np.eye(4, k=3))
    with pytest.raises(SpaceMismatchError, match="Resample"):
        space.values(moved)
    with pytest.raises(SpaceMismatchError, match="one a voxel"):
        space.img(values[1:])


def test_a_space_outlives_a_file(space):
    again = Space.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space and hash(again) == hash(space)
    np.testing.assert_array_equal(again.affine, space.affine)
    assert Space(space.mask, AFFINE + 0.01, "x") != space
    modality = Modality("t1", space.features, "mL", space=space)
    assert Modality.from_dict(json.loads(json.dumps(modality.to_dict()))) == modality


def test_a_space_cannot_be_changed(space):
    with pytest.raises(ValueError, match="read-only"):
        space.mask[0, 0, 0] = True


def test_features_that_are_not_the_voxels_are_refused(space):
    with pytest.raises(CohortError, match="not the voxels"):
        Modality("t1", space.features[::-1], space=space)

"""Images in ``cohort.toml``: patterns, masks by name, faults of all modalities at once."""
from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imaging import brain, save
from normfuse.cohort import Cohort
from normfuse.errors import CohortError, ImageError
from normfuse.simulated_volumes import simulate_volumes
from normfuse.stored import StoredTable
from normfuse.volumes import VolumePlan
from normfuse.volumes.one_image import read_image

PEOPLE = ("participant_id\tage\tsex\tdx\tvisit\n"
          "sub-02\t50\tF\tCN\ta\nsub-01\t61\tM\tAD\tb\nsub-04\t70\tF\tCN\tn/a\n")
TOML = """
[subjects]
table = "participants.tsv"
[covariates]
age = "continuous"
[reference]
query = "dx == 'CN'"
[modalities.t1]
images = "derivatives/{id}/{id}_T1w.nii.gz"
resolution = 8
unit = "a.u."
[modalities.fa]
images = "derivatives/{id}/{id}_{visit}_FA.nii.gz"
resolution = 8
smoothing = 6
[modalities.aseg]
table = "aseg.csv"
unit = "mm3"
"""


@pytest.fixture
def study(tmp_path) -> Path:
    (tmp_path / "participants.tsv").write_text(PEOPLE)
    (tmp_path / "aseg.csv").write_text("participant_id,putamen\nsub-01,5\nsub-04,6\n")
    (tmp_path / "cohort.toml").write_text(TOML)
    names = ("sub-01/sub-01_T1w", "sub-02/sub-02_T1w", "sub-04/sub-04_T1w", "sub-01/sub-01_b_FA",
             "sub-02/sub-02_a_FA", "sub-02/sub-02_b_FA")
    for seed, name in enumerate(names):
        save(tmp_path / "derivatives" / f"{name}.nii.gz", brain(seed=seed))
    return tmp_path


@pytest.fixture
def read(study):
    def reader(*changes: tuple[str, str]):
        text = TOML
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (study / "cohort.toml").write_text(text)
        return Cohort.read(study / "cohort.toml")
    return reader


def refusal(read, *changes):
    with pytest.raises(CohortError) as caught:
        read(*changes)
    return str(caught.value)


class TestReading:
    def test_images_beside_tables(self, read, study):
        cohort = read()
        assert [m.name for m in cohort.modalities] == ["t1", "fa", "aseg"]
        assert cohort.ids.tolist() == ["sub-02", "sub-01", "sub-04"]
        assert cohort.present.to_numpy().tolist() == [[True, True, False], [True, True, True],
                                                      [True, False, True]]
        t1, fa = cohort.modality("t1"), cohort.modality("fa")
        assert (t1.unit, fa.unit) == ("a.u.", "")
        assert t1.space == VolumePlan("grey_matter", resolution=8).space  # by its name
        assert fa.space == VolumePlan("white_matter", resolution=8).space
        file = study / "derivatives/sub-02/sub-02_a_FA.nii.gz"
        plan = VolumePlan("white_matter", resolution=8, smoothing=6)
        np.testing.assert_array_equal(cohort.features["fa"].loc["sub-02"],
                                      read_image(file, plan).values)
        assert cohort.features["fa"].loc["sub-04"].isna().all()
        assert all(isinstance(cohort.features.as_is()[m], StoredTable) for m in ("t1", "fa"))

    def test_the_cache_lies_beside_the_file_unless_it_is_told(self, read, study, monkeypatch):
        read()
        assert len(list((study / "normfuse_cache").glob("*/ledger.jsonl"))) == 2
        read(("[reference]", '[images]\ncache = "../other"\nthreads = 1\n[reference]'))
        assert len(list((study.parent / "other").glob("*/ledger.jsonl"))) == 2
        monkeypatch.setenv("NORMFUSE_CACHE", str(study / "third"))
        read()
        assert len(list((study / "third" / "volumes").glob("*/ledger.jsonl"))) == 2

    def test_a_mask_of_ones_own_is_relative_to_the_file(self, read, study):
        save(study / "masks" / "deep.nii.gz", (brain() > 1).astype(np.uint8))
        cohort = read(('{id}_T1w.nii.gz"\nresolution = 8', '{id}_T1w.nii.gz"\n'
                       'mask = "masks/deep.nii.gz"'))
        assert cohort.modality("t1").n_features == (brain() > 1).sum()

    def test_wildcards_and_absolute_patterns(self, read, study):
        cohort = read(("derivatives/{id}/{id}_T1w.nii.gz", f"{study}/der*/{{id}}/*_T1w.nii.gz"))
        assert cohort.present["t1"].all()

    def test_every_key(self, read):
        cohort = read(("resolution = 8\nunit", 'resolution = 8\nmask = "brain"\nextent = '
                       '"grey_matter"\nzeros = "missing"\nmin_coverage = 0.8\nlikelihood = '
                       '"normal"\nunit'))
        assert cohort.modality("t1").n_features == 3666

    def test_the_example_of_the_guide(self, tmp_path):
        guide = Path(__file__).parents[1] / "docs" / "guide" / "images.md"
        example, = re.findall(r"```toml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
        simulate_volumes(tmp_path / "s", 10, 0, resolution=8, modalities=("t1",))
        (tmp_path / "s" / "cohort.toml").write_text(example)
        cohort = Cohort.read(tmp_path / "s" / "cohort.toml")
        assert cohort.features["t1"].shape == (10, cohort.modality("t1").space.n_voxels)

    def test_people_without_any_image(self, read, study):
        for file in study.glob("derivatives/sub-02/*"):
            file.unlink()
        assert "1 of 3 subjects have no modality at all (sub-02)" in refusal(read)
        with pytest.warns(UserWarning, match="left out 1 of 3"):
            assert len(read(('"participants.tsv"', '"participants.tsv"\ndrop_incomplete = true')
                            )) == 2


class TestPatterns:
    def test_ids_written_another_way(self, read):
        words = refusal(read, ("derivatives/{id}/{id}_T1w", "derivatives/sub-{id}/sub-{id}_T1w"))
        assert "modality t1: the pattern" in words and "fits none of 3 people" in words
        assert "derivatives/sub-sub-02/sub-sub-02_T1w.nii.gz, which is not there" in words
        assert "3 files would fit other ids, such as" in words  # sub-* without one sub- too many

    def test_ids_that_nobody_has(self, read, study):
        (study / "participants.tsv").write_text(PEOPLE.replace("sub-0", "0"))
        (study / "aseg.csv").write_text("participant_id,putamen\n01,5\n")
        words = refusal(read)
        assert "3 files would fit other ids, such as " in words and "sub-01_T1w" in words
        assert "are the ids written alike (sub-01 is not 01)?" in words

    def test_near_misses_are_shown(self, read):
        assert "has no sub-02_T2w.nii.gz; it has sub-02_T1w.nii.gz" in refusal(
            read, ("{id}_T1w", "{id}_T2w"))
        assert "has no derivates; it has derivatives" in refusal(
            read, ("derivatives/{id}/{id}_T1w", "derivates/{id}/{id}_T1w"))
        assert "derivatives has no sub_sub-02; it has sub-02, sub-0" in refusal(
            read, ("derivatives/{id}/{id}_T1w", "derivatives/sub_{id}/{id}_T1w"))

    @pytest.mark.parametrize("pattern, words", [
        ("a.nii", "is the same for everybody; put {id}"),
        ("{sub}/a.nii", "names sub; in braces may stand id, age, sex, dx, visit"),
        ("{id.x}/a.nii", "names id.x"), ("{id:03d}.nii", "names a format"), ("{id", "expected"),
        ("derivatives/*/{dx}_x", None),
        ("derivatives/sub-02/*{sex}1*", "fits none"),
        ("derivatives/{id}/*.nii.gz", "2 files fit sub-01|3 files fit sub-02"),
        ("derivatives/sub-0[2]/{visit}*", None),
    ])
    def test_patterns_that_cannot_be_right(self, read, pattern, words):
        found = refusal(read, ("derivatives/{id}/{id}_T1w.nii.gz", pattern))
        assert any(w in found for w in (words or "fits none").split("|")), found

    def test_one_file_for_two_people(self, read, study):
        save(study / "F.nii.gz", brain())
        assert "F.nii.gz is the file of sub-02 and of sub-04" in refusal(
            read, ("derivatives/{id}/{id}_T1w", "{sex}"))

    def test_an_id_is_no_wildcard(self, read, study):
        (study / "participants.tsv").write_text(PEOPLE.replace("sub-04", "*"))
        (study / "aseg.csv").write_text("participant_id,putamen\n*,5\n")
        assert read().present["t1"].tolist() == [True, True, False]


class TestSections:
    @pytest.mark.parametrize("old, new, words", [
        ("resolution = 8\nunit", 'prefix = "x"\nunit', "[modalities.t1] has unknown prefix"),
        ("resolution = 8\nunit", 'table = "a.csv"\nunit', "both a table and images"),
        ("resolution = 8\nunit", "resolution = 0\nunit", "modality t1: resolution must be"),
        ("resolution = 8\nunit", 'mask = "wm"\nunit', "modality t1: the mask .*wm cannot be read"),
        ("resolution = 8\nunit", "mask = 3\nunit", "modality t1: mask must be"),
        ("resolution = 8\nunit", "zeros = 0\nunit", "modality t1: zeros must be"),
        ('"derivatives/{id}/{id}_T1w.nii.gz"', "3", "modality t1: images must be a path"),
        ("[reference]", "[images]\nthread = 2\n[reference]", "[images] has unknown thread"),
        ("[reference]", "[images]\nthreads = 0\n[reference]", "threads under [images] must be"),
        ("[reference]", "[images]\ndrop_failed = 1\n[reference]", "drop_failed under [images]"),
        ("[reference]", "[images]\ncache = 1\n[reference]", "cache under [images] must be"),
        ("\n[subjects]", "images = 3\n[subjects]", "images must be a section, [images]"),
        ('table = "aseg.csv"', 'tables = "aseg.csv"', "has unknown tables"),
    ])
    def test_mistakes(self, read, old, new, words):
        found = refusal(read, (old, new))
        assert all(w in found for w in words.split(".*")), found

    def test_faults_of_all_modalities_come_together(self, read, study):
        save(study / "derivatives/sub-01/sub-01_T1w.nii.gz", np.stack([brain()] * 2, -1))
        (study / "derivatives/sub-02/sub-02_a_FA.nii.gz").write_text("no image")
        with pytest.raises(ImageError, match="2 of 5 images") as caught:
            read()
        assert "t1 of sub-01: shape" in str(caught.value)
        assert "fa of sub-02: " in str(caught.value)

    def test_failed_images_can_be_left_out(self, read, study):
        save(study / "derivatives/sub-01/sub-01_T1w.nii.gz", 0 * brain())
        with pytest.raises(ImageError, match="t1 of sub-01"):
            read()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cohort = read(("[reference]", "[images]\ndrop_failed = true\n[reference]"))
        assert cohort.present["t1"].tolist() == [True, False, True]
        assert "left out 1 of 5 images" in str(caught[0].message)

    def test_a_table_cohort_loads_no_images(self, read, study):
        text = TOML[:TOML.index("[modalities.t1]")] + TOML[TOML.index("[modalities.aseg]"):]
        (study / "participants.tsv").write_text(PEOPLE[:PEOPLE.index("sub-02")]
                                                + PEOPLE[PEOPLE.index("sub-01"):])
        (study / "cohort.toml").write_text(text)
        cohort = Cohort.read(study / "cohort.toml")
        pd.testing.assert_series_equal(cohort.features["aseg"]["putamen"], pd.Series(
            [5.0, 6.0], ["sub-01", "sub-04"], name="putamen"), check_names=False)
        assert not (study / "normfuse_cache").exists()

"""FreeSurfer's stats folders and the tables made of them: the same cohort, in the atlas's names.

The witness is the table that the files were written from; the layout of the files is FreeSurfer's,
their lines are ours.
"""
from __future__ import annotations

import numpy as np
import pytest
from input_forms import GYRI, people, thickness, volumes, write, write_stats

from normfuse.atlas import load_atlas
from normfuse.cohort import Cohort
from normfuse.errors import CohortError
from normfuse.tables.freesurfer_names import atlas_names

FOLDERS = """[modalities.thickness]
freesurfer = "derivatives/freesurfer/{id}"
stats = "aparc.thickness"
[modalities.volume]
freesurfer = "derivatives/freesurfer/{id}"
stats = "aseg.volume"
"""
ATLAS = [f"ctx-{side}-{gyrus}" for side in ("lh", "rh") for gyrus in GYRI]


@pytest.fixture
def folder(tmp_path):
    """Stats folders of 40 people: four without thickness, three without volumes."""
    who = people()
    thick, volume = thickness(who), volumes(who)
    for i, subject in enumerate(who.index):
        write_stats(tmp_path / "derivatives" / "freesurfer" / subject,
                    None if i < 4 else thick.loc[subject],
                    None if i >= 37 else volume.loc[subject])
    return tmp_path


def read(folder, sections: str = FOLDERS, **more) -> Cohort:
    return Cohort.read(write(folder, sections, **more))


class TestFolders:
    @pytest.mark.filterwarnings("ignore:modality .*not there")
    def test_hold_the_values_under_the_names_of_the_atlas(self, folder):
        cohort, who = read(folder), people()
        block = cohort.features["thickness"]
        assert list(block) == ATLAS
        wanted = thickness(who).iloc[4:]
        np.testing.assert_array_equal(block.loc[wanted.index], wanted)
        assert block.loc[who.index[:4]].isna().all(axis=None)
        assert [m.unit for m in cohort.modalities] == ["mm", "mm3"]
        assert list(cohort.features["volume"]) == ["Left-Hippocampus", "Right-Hippocampus",
                                                   "Left-Thalamus-Proper", "Brain-Stem"]
        known = set(load_atlas("dk").regions["name"])
        assert known.issuperset(block) and known.issuperset(cohort.features["volume"])

    def test_that_lack_a_file_are_said(self, folder):
        with pytest.warns(UserWarning, match="volume: not there, so not measured: aseg.stats of"):
            cohort = read(folder)
        assert cohort.present.sum().tolist() == [36, 37]

    @pytest.mark.filterwarnings("ignore:modality .*not there")
    def test_intracranial_volume_as_covariate_or_feature(self, folder):
        thick = FOLDERS.partition("[modalities.volume]")[0]
        volume = FOLDERS.replace(thick, "").replace('"aseg.volume"', '"aseg.volume"\n'
                                                    'include = ["eTIV", "5th-Ventricle"]')
        block = read(folder, thick + volume).features["volume"]
        assert {"eTIV", "5th-Ventricle"}.issubset(block) and "Left-WM-hypointensities" not in block
        cohort = read(folder, subjects="drop_incomplete = true",
                      covariates='eTIV = "continuous"')
        assert len(cohort) == 37 and "eTIV" not in cohort.features["volume"]
        np.testing.assert_array_equal(cohort.subjects["eTIV"],
                                      volumes(people())["eTIV"].loc[cohort.ids])

    @pytest.mark.filterwarnings("ignore:modality .*not there")
    def test_names_and_choices(self, folder):
        by_file = FOLDERS.replace('"aparc.thickness"', '"aparc.thickness"\nnames = "file"\n'
                                  'exclude = ["lh_insula_thickness"]')
        assert list(read(folder, by_file).features["thickness"]) == [
            c for c in thickness(people()) if c != "lh_insula_thickness"]
        by_atlas = FOLDERS.replace('"aparc.thickness"', '"aparc.thickness"\n'
                                   'features = ["ctx-rh-cuneus", "lh_insula_thickness"]')
        assert list(read(folder, by_atlas).features["thickness"]) == ["ctx-rh-cuneus",
                                                                      "ctx-lh-insula"]

    @pytest.mark.filterwarnings("ignore:modality .*not there")
    def test_every_broken_file_is_named(self, folder):
        stats = folder / "derivatives" / "freesurfer"
        for subject, file in (("sub-003", "lh.aparc.stats"), ("sub-004", "aseg.stats")):
            path = stats / subject / "stats" / file
            text = path.read_text() if path.exists() else "# ColHeaders StructName ThickAvg\n"
            path.write_text(text[:len(text) * 2 // 3].rsplit(" ", 2)[0])
        with pytest.raises(CohortError) as caught:
            read(folder)
        assert all(f"{s}/stats" in str(caught.value) for s in ("sub-003", "sub-004"))
        assert str(caught.value).count("cut short?") == 2

    @pytest.mark.parametrize("stats, words", [
        ('"thickness"', "stats must be a file and a measure"),
        ('"aparc.width"', "Measures are thickness, area"),
        ('"aparc.a2009s.thickness"', "has stats/lh.aparc.a2009s.stats"),
        ('"aseg.thickness"', "no column ThickAvg among")])
    def test_what_is_not_there(self, folder, stats, words):
        with pytest.raises(CohortError) as caught:
            read(folder, FOLDERS.replace('"aseg.volume"', stats))
        assert words in str(caught.value)

    def test_a_pattern_that_fits_nobody(self, tmp_path):
        with pytest.raises(CohortError, match="fits none of 40 people"):
            read(tmp_path)


class TestTables:
    TABLE = '[modalities.thickness]\ntable = ["lh.tsv", "rh.tsv"]\n'

    def made(self, folder, bare: bool = False):
        """As aparcstats2table writes them, one a hemisphere; zero where a region is missing."""
        thick = thickness(people())
        for side in ("lh", "rh"):
            own = thick[[c for c in thick if c.startswith(side)]].fillna(0.0)
            own = own.assign(**{f"{side}_MeanThickness_thickness": 2.5,
                                "BrainSegVolNotVent": 1.1e6,
                                "eTIV": volumes(people())["eTIV"]})
            if bare:
                own = own.rename(columns=lambda c: c.removeprefix(f"{side}_").removesuffix(
                    "_thickness"))
            own.to_csv(folder / f"{side}.tsv", sep="\t", index_label=f"{side}.aparc.thickness")
        return thick

    @pytest.mark.parametrize("bare", [False, True])
    def test_of_both_hemispheres(self, tmp_path, bare):
        thick = self.made(tmp_path, bare)
        with pytest.warns(UserWarning, match="1 zeros in lh.tsv are regions that"):
            cohort = read(tmp_path, self.TABLE, covariates='eTIV = "continuous"')
        block = cohort.features["thickness"]
        assert list(block) == ATLAS and cohort.modality("thickness").unit == "mm"
        np.testing.assert_array_equal(block, thick.loc[block.index])
        assert cohort.subjects["eTIV"].notna().all()

    def test_of_volumes_with_paths_for_ids(self, tmp_path):
        volume = volumes(people())
        volume.rename(columns={"eTIV": "EstimatedTotalIntraCranialVol"}).set_axis(
            "/data/fs/" + volume.index + "/").to_csv(tmp_path / "aseg.csv",
                                                     index_label="Measure:volume")
        with pytest.warns(UserWarning, match="by the last part of their path"):
            cohort = read(tmp_path, '[modalities.volume]\ntable = "aseg.csv"\n',
                          covariates='eTIV = "continuous"')
        block = cohort.features["volume"]
        assert list(block)[2:] == ["Left-Thalamus-Proper", "Brain-Stem"]
        np.testing.assert_array_equal(block.iloc[:, 0], volume.loc[block.index].iloc[:, 0])

    def test_that_are_transposed(self, tmp_path):
        volumes(people()).T.to_csv(tmp_path / "aseg.csv", index_label="Measure:volume")
        with pytest.raises(CohortError, match="has people in its columns"):
            read(tmp_path, '[modalities.volume]\ntable = "aseg.csv"\n')

    def test_that_contradict_each_other(self, tmp_path):
        self.made(tmp_path)
        table = volumes(people())
        table.assign(eTIV=table["eTIV"] + 9).to_csv(tmp_path / "aseg.csv",
                                                    index_label="Measure:volume")
        with pytest.raises(CohortError, match="eTIV of .* is not the same in the files of"):
            read(tmp_path, self.TABLE + '[modalities.volume]\ntable = "aseg.csv"\n',
                 covariates='eTIV = "continuous"')


def test_names_are_the_atlas_s_only_where_the_regions_are():
    known = set(load_atlas("dk").regions["name"])
    every = [f"lh_{g}_area" for g in ("insula", "bankssts", "frontalpole")]
    assert known.issuperset(atlas_names(every).values()) and len(atlas_names(every)) == 3
    assert atlas_names(every, "aparc.DKTatlas") == atlas_names(["lh_G_cuneus_area"]) == {}
    both = ["lh_insula_area", "lh_insula_volume", "rh_insula_area"]  # one name cannot be two
    assert atlas_names(both) == {"rh_insula_area": "ctx-rh-insula"}
    assert atlas_names(["Left-Thalamus", "Left-Thalamus-Proper"]) == {}


@pytest.mark.filterwarnings("ignore:modality .*not there")
def test_names_of_two_versions_are_one_region(folder):
    for file in sorted(folder.glob("derivatives/freesurfer/*/stats/aseg.stats"))[:9]:
        file.write_text(file.read_text().replace("Left-Thalamus ", "Left-Thalamus-Proper "))
    with pytest.warns(UserWarning, match="9 of 37 people were processed by a version before 7"):
        block = read(folder).features["volume"]
    assert block["Left-Thalamus-Proper"].notna().sum() == 37 and block.shape[1] == 4

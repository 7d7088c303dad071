"""Cohorts: what is refused at the border, in which words, and the laws of the rest.

Expected tables are written out by hand; there is no outside witness.
"""
from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from normfuse.cohort import Cohort
from normfuse.errors import CohortError, OutputExistsError
from normfuse.normative import NormativeModel
from normfuse.outputs import file_stem, new_file, new_folder
from normfuse.testing import tiny_cohort

PEOPLE = pd.DataFrame({"age": [31.0, 42.5, 57.0], "sex": ["F", "M", "F"],
                       "dx": ["CN", "CN", "AD"]}, index=["s1", "s2", "s3"])
T1 = pd.DataFrame({"insula": [6.1, 5.8, 4.0], "cuneus": [2.0, 2.1, 1.9]},
                  index=["s3", "s1", "s2"])
PET = pd.DataFrame({"insula": [1.2]}, index=["s2"])
KINDS = {"age": "continuous", "sex": "categorical"}


def made(people=PEOPLE, t1=T1, pet=PET, covariates=KINDS, **options):
    return Cohort.from_frames(people, {"t1": t1, "pet": pet}, covariates=covariates,
                              reference=options.pop("reference", "dx == 'CN'"), **options)


def refusal(call) -> str:
    with pytest.raises(CohortError) as caught:
        call()
    return str(caught.value)


class TestAlignment:
    def test_rows_are_matched_by_id_and_absent_rows_are_nan(self):
        cohort = made()
        assert cohort.features["t1"]["insula"].tolist() == [5.8, 4.0, 6.1]
        assert cohort.features["pet"]["insula"].isna().tolist() == [True, False, True]
        assert cohort.present["pet"].tolist() == [False, True, False]

    def test_a_shuffled_table_gives_the_same_cohort(self):
        one, two = made(), made(t1=T1.iloc[[2, 0, 1]])
        pd.testing.assert_frame_equal(one.features["t1"], two.features["t1"])

    def test_a_failed_region_leaves_the_modality_present(self):
        cohort = made(t1=T1.assign(cuneus=[np.nan, 2.1, 1.9]))
        assert cohort.present["t1"].all() and cohort.features["t1"].isna().sum().sum() == 1

    def test_numeric_ids_become_text(self):
        cohort = made(PEOPLE.set_axis([7, 8, 9]), T1.set_axis([9.0, 7.0, 8.0]),
                      PET.set_axis(["8"]))
        assert cohort.ids.tolist() == ["7", "8", "9"]
        assert cohort.features["t1"].loc["7", "insula"] == 5.8


class TestImmutability:
    def test_fields_cannot_be_set(self):
        with pytest.raises(AttributeError):
            made().reference = "dx == 'AD'"

    def test_inputs_are_neither_changed_nor_watched(self):
        people, t1 = PEOPLE.copy(), T1.copy()
        cohort = made(people, t1)
        pd.testing.assert_frame_equal(people, PEOPLE)
        t1.loc["s1", "insula"], people.loc["s1", "age"] = -1.0, -1.0
        assert cohort.features["t1"].loc["s1", "insula"] == 5.8
        assert cohort.subjects.loc["s1", "age"] == 31.0

    def test_methods_return_new_cohorts(self):
        cohort = tiny_cohort()
        before = {name: block.copy() for name, block in cohort.features.items()}
        cohort.without("pet"), cohort.drop_features("dti", ["dti_region1"])
        cohort.select("age > 50"), cohort.split("sex == 'F'")
        for name, block in cohort.features.items():
            pd.testing.assert_frame_equal(block, before[name])


class TestLaws:
    def test_split_parts_are_disjoint_and_join_to_the_whole(self):
        cohort = tiny_cohort()
        one, two = cohort.split("age > 50")
        assert not set(one.ids) & set(two.ids) and len(one) + len(two) == len(cohort)
        again = one.join(two).select(cohort.ids)
        for name, block in cohort.features.items():
            pd.testing.assert_frame_equal(again.features[name], block)
        pd.testing.assert_frame_equal(again.subjects, cohort.subjects)

    def test_select_keeps_the_order_asked_for(self):
        cohort = tiny_cohort()
        ids = list(cohort.ids[[5, 1, 9]])
        assert cohort.select(ids).ids.tolist() == ids
        assert cohort.select(ids).features["dti"].index.tolist() == ids

    def test_select_refuses_strangers_and_twins(self):
        assert "not in this cohort: s9" in refusal(lambda: made().select(["s1", "s9"]))
        assert "asked for more than once: s1" in refusal(lambda: made().select(["s1", "s1"]))

    def test_join_refuses_the_same_person_and_other_features(self):
        assert "in both cohorts: s1" in refusal(lambda: made().join(made().select(["s1"])))
        one, two = made().select(["s1"]), made().select(["s2"])
        assert "different features of t1" in refusal(
            lambda: one.join(two.drop_features("t1", ["cuneus"])))

    def test_without_hides_a_modality_and_keeps_its_columns(self):
        hidden = made().without("pet")
        assert not hidden.present["pet"].any() and list(hidden.features["pet"]) == ["insula"]
        assert "no modality 'dwi'; this cohort has t1, pet" in refusal(
            lambda: made().without("dwi"))

    def test_drop_features_refuses_unknown_ones(self):
        assert made().drop_features("t1", ["insula"]).modality("t1").features == ("cuneus",)
        assert "t1 has no feature isthmus" in refusal(
            lambda: made().drop_features("t1", ["isthmus"]))


class TestRefusals:
    """One test a line of what cannot be a cohort; on the words, because the words are the help."""

    def test_duplicate_id(self):
        words = refusal(lambda: made(t1=pd.concat([T1, T1.loc[["s1"]]])))
        assert "modality t1 has more than one row for s1" in words and "sub-01_ses-2" in words
        assert "the subjects table has more than one row for s2" in refusal(
            lambda: made(people=pd.concat([PEOPLE, PEOPLE.loc[["s2"]]])))

    @pytest.mark.parametrize("empty", [np.nan, None, "", " ", "n/a", "NaN"])
    def test_missing_id(self, empty):
        words = refusal(lambda: made(people=PEOPLE.set_axis(["s1", empty, "s3"])))
        assert "the subjects table has no id in row 2" in words

    def test_measured_person_who_is_not_a_subject(self):
        words = refusal(lambda: made(people=PEOPLE.loc[["s1", "s2"]]))
        assert "modality t1 has 1 of 3 subjects that are not in the subjects table (s3)" in words
        assert "ids are written alike" in words

    def test_subject_without_one_modality_is_ordinary(self):
        assert made().present.loc["s1"].to_dict() == {"t1": True, "pet": False}

    def test_subject_with_nothing_present(self):
        words = refusal(lambda: made(t1=T1.drop("s3")))
        assert "1 of 3 subjects have no modality at all (s3)" in words
        assert "drop_incomplete" in words
        with pytest.warns(UserWarning, match=r"left out 1 of 3 .*: s3"):
            assert made(t1=T1.drop("s3"), drop_incomplete=True).ids.tolist() == ["s1", "s2"]

    def test_a_row_of_nan_is_nothing_present(self):
        assert "have no modality at all (s3)" in refusal(
            lambda: made(t1=T1.drop("s3").reindex(T1.index)))

    def test_non_numeric_cell_is_named(self):
        words = refusal(lambda: made(t1=T1.astype(object).replace(5.8, "fine")))
        assert "modality t1: subject s1, feature insula holds 'fine'" in words
        assert "not a number" in words

    def test_decimal_comma_is_explained(self):
        words = refusal(lambda: made(t1=T1.astype(object).replace(5.8, "5,8")))
        assert "'5,8'" in words and "decimals with a point" in words

    @pytest.mark.parametrize("value", [np.inf, -np.inf, "inf"])
    def test_infinite_value(self, value):
        words = refusal(lambda: made(t1=T1.astype(object).replace(5.8, value)))
        assert "modality t1: subject s1 has an infinite value in insula" in words

    def test_missing_covariate(self):
        lacking = PEOPLE.assign(age=[31.0, np.nan, 57.0])
        words = refusal(lambda: made(people=lacking))
        assert "age is missing for 1 of 3 subjects (s2)" in words and "drop_incomplete" in words
        with pytest.warns(UserWarning, match="left out 1 of 3"):
            assert made(people=lacking, drop_incomplete=True).ids.tolist() == ["s1", "s3"]

    def test_covariate_that_is_no_column_or_no_number(self):
        assert "covariate 'iq' is not a column of the subjects table; it has age, sex, dx" in \
            refusal(lambda: made(covariates={"iq": "continuous"}))
        assert "covariate sex: subject s1 has 'F'" in refusal(
            lambda: made(covariates={"sex": "continuous"}))
        assert "it must be one of continuous, categorical, site" in refusal(
            lambda: made(covariates={"age": "spline"}))
        assert "only one covariate can be the site" in refusal(
            lambda: made(covariates={"sex": "site", "dx": "site"}))

    def test_feature_named_twice_and_no_feature(self):
        assert "names a feature twice: insula" in refusal(
            lambda: made(t1=T1.set_axis(["insula", "insula"], axis=1)))
        assert "t1 has no features" in refusal(lambda: made(t1=T1[[]]))
        assert "at least one modality" in refusal(
            lambda: Cohort.from_frames(PEOPLE, {}, covariates=KINDS))

    def test_tables_in_each_others_places(self):
        for wrong in (({"t1": T1}, PEOPLE), (PEOPLE, T1)):
            with pytest.raises(TypeError, match="a DataFrame of subjects, then"):
                Cohort.from_frames(*wrong, covariates=KINDS)
        with pytest.raises(TypeError, match="expected a Cohort, .* got DataFrame"):
            NormativeModel().fit(T1)

    def test_reference_query_that_selects_nobody(self):
        words = refusal(lambda: made(reference="dx == 'HC'").reference_subjects())
        assert "\"dx == 'HC'\" selects nobody of 3 subjects" in words
        assert "dx holds 'AD', 'CN'" in words

    def test_no_reference_query(self):
        assert "does not say who is healthy" in refusal(
            lambda: made(reference=None).reference_subjects())


class TestQueries:
    @pytest.mark.parametrize("query, ids", [
        ("dx == 'CN' and age > 40", ["s2"]), ("dx in ['AD']", ["s3"]), ("not sex == 'F'", ["s2"]),
        ("`first language` == 'fr'", ["s1"]), ("age < -1", [])])
    def test_comparisons_are_answered(self, query, ids):
        cohort = made(people=PEOPLE.assign(**{"first language": ["fr", "de", "de"]}))
        assert cohort.select(query).ids.tolist() == ids

    @pytest.mark.parametrize("query", [
        "__import__('os')", "__import__('os').system('true') == 0", "dx.values.tofile('x')",
        "@pd", "dx == @pd.eval('1')", "[x for x in dx]", "(lambda: 1)() == age",
        "age > 9 ** 9 ** 9", "dx == 'CN'; import os", "dx == f'{age}'", "dx", "", "dx = 'CN'",
        "age > 1 if sex == 'F' else dx == 'CN'", "dx[0] == 'CN'", "age := 3"])
    def test_anything_else_is_refused(self, query, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = refusal(lambda: made().select(query))
        assert "dx ==" in words or "diagnosis ==" in words or "only comparisons" in words
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("query", ["index == 's1'", "diagnosis == 'CN'", "pd == 1"])
    def test_unknown_columns_are_named(self, query):
        assert "not a column of the subjects table; it has age, sex, dx" in refusal(
            lambda: made().select(query))

    def test_text_against_a_number_is_explained(self):
        assert "cannot be answered" in refusal(lambda: made().select("dx > 3"))

    def test_a_bad_reference_query_fails_at_once(self):
        assert "'diagnosis', which is not a column" in refusal(
            lambda: made(reference="diagnosis == 'CN'"))


class TestOutputs:
    @pytest.mark.parametrize("name", ["../escape", "a/b", "a..b", ".hidden", "", "/etc/passwd",
                                      "a\\b", "a\x00b", "x" * 151, "sub 01\n"])
    def test_ids_that_could_leave_the_folder_are_no_file_names(self, name):
        assert "cannot be used as a file name" in refusal(lambda: file_stem(name))

    def test_a_file_is_no_folder_to_write_in(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(OutputExistsError, match="notes.txt is a file; choose another"), \
                new_folder(tmp_path / "notes.txt" / "deep" / "out"):
            pass

    def test_existing_output_is_kept(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("x")
        with pytest.raises(OutputExistsError, match="already there.*--overwrite"):
            with new_folder(tmp_path / "out"):
                raise AssertionError("the block must not run")
        assert (tmp_path / "out" / "precious").read_text() == "x"

    def test_a_failure_leaves_the_old_folder_and_no_debris(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("x")
        with pytest.raises(RuntimeError), new_folder(tmp_path / "out", overwrite=True) as work:
            (work / "half").write_text("y")
            raise RuntimeError
        with pytest.raises(RuntimeError), new_file(tmp_path / "table.csv"):
            raise RuntimeError
        assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["precious"]

    def test_the_current_folder_is_never_replaced(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OutputExistsError, match="holds the current folder"):
            with new_folder(tmp_path, overwrite=True):
                raise AssertionError("the block must not run")


@pytest.mark.parametrize("query", [
    "dx == '`' or @pd.io.common.os.system('touch {mark}') == 0 or dx == '`'",
    'dx == "`" or @pd.io.common.os.system("touch {mark}") == 0 or dx == "`"',
    "`dx` == '`' or @pd.io.common.os.system(\"touch {mark}\") == 0 or `dx` == '`'",
    "dx.values.tofile('{mark}') == 1", "__import__('os').system('touch {mark}') == 0",
    "age == " + "-" * 1500 + "1", "not " * 400 + "age == 1", "age == " + "-" * 100_000 + "1"])
def test_no_query_runs_code_or_escapes_our_errors(query, tmp_path):
    mark = tmp_path / "ran"
    try:
        made().select(query.replace("{mark}", str(mark)))
    except CohortError:
        pass
    assert not mark.exists()


def test_queries_may_name_the_id_and_quote_backticks():
    cohort = made(PEOPLE.assign(**{"my site": ["`", "a", "b"]}))
    first, last = cohort.ids[0], cohort.ids[-1]
    assert cohort.select(f"participant_id in ['{first}', '{last}']").ids.tolist() == [first, last]
    assert cohort.select("`my site` == '`'").ids.tolist() == [first]

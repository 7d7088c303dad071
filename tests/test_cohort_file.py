"""``cohort.toml`` and its tables: dialects that must read alike, mistakes that must not."""
from __future__ import annotations

import pandas as pd
import pytest

from normfuse.cohort import Cohort
from normfuse.cohort_file import read_table
from normfuse.errors import CohortError
from normfuse.simulate import write_cohort
from normfuse.testing import tiny_cohort

PEOPLE = ("participant_id\tage\tsex\tdx\tmmse\tcode\n"
          "007\t50\tF\tCN\t29\t010\n"
          "008\t61.5\tM\tAD\tn/a\t020\n"
          "sub-9\t70\tF\tCN\t30\tn/a\n")
T1 = "id,CT_insula,CT_cuneus,note\n008,2.5,1.9,ok\n007,n/a,2.0,ok\nsub-9,2.7,,fine\n"
TOML = """
[subjects]
table = "participants.tsv"
[covariates]
age = "continuous"
sex = "categorical"
[reference]
query = "dx == 'CN'"
[modalities.t1]
table = "t1.csv"
id = "id"
prefix = "CT_"
unit = "mm"
"""


@pytest.fixture
def read(tmp_path):
    """Write the three files, some of them changed, and read the cohort."""
    def reader(people=PEOPLE, t1=T1, toml=TOML):
        for name, text in (("participants.tsv", people), ("t1.csv", t1), ("cohort.toml", toml)):
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return Cohort.read(tmp_path / "cohort.toml")
    return reader


@pytest.fixture
def refusal(read):
    def words(**files):
        with pytest.raises(CohortError) as caught:
            read(**files)
        return str(caught.value)
    return words


def check(cohort):
    assert cohort.ids.tolist() == ["007", "008", "sub-9"]
    block = cohort.features["t1"]
    assert list(block) == ["CT_insula", "CT_cuneus"]
    assert block.loc["008"].tolist() == [2.5, 1.9] and block.loc["sub-9", "CT_insula"] == 2.7
    assert pd.isna(block.loc["007", "CT_insula"]) and pd.isna(block.loc["sub-9", "CT_cuneus"])
    assert cohort.subjects["age"].tolist() == [50.0, 61.5, 70.0]


class TestTables:
    def test_bids_participants_as_they_are(self, read):
        cohort = read()
        check(cohort)
        assert cohort.modality("t1").unit == "mm" and len(cohort.reference_subjects()) == 2

    @pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
    def test_separators_are_recognised(self, read, separator):
        check(read(PEOPLE.replace("\t", separator), T1.replace(",", separator)))

    def test_byte_order_mark_line_ends_and_blank_lines(self, read):
        check(read(b"\xef\xbb\xbf" + PEOPLE.replace("\n", "\r\n").encode(),
                   b"\xef\xbb\xbf" + T1.replace("\n", "\n\n").encode()))

    def test_quoted_names_may_hold_the_separator(self, read):
        quoted = T1.replace("CT_insula", '"CT_insula, left"').replace("007", '"007"')
        assert list(read(t1=quoted).features["t1"]) == ["CT_insula, left", "CT_cuneus"]

    @pytest.mark.parametrize("word", ["", "n/a", "N/A", "NaN", "null", "None"])
    def test_words_for_missing(self, read, word):
        check(read(t1=T1.replace("n/a", word)))

    def test_columns_that_are_no_covariates(self, read):
        people = read().subjects
        assert people["mmse"].tolist()[::2] == [29, 30] and pd.isna(people.loc["008", "mmse"])
        assert people["code"].tolist()[:2] == ["010", "020"]
        assert read().select("mmse > 29").ids.tolist() == ["sub-9"]

    def test_one_table_for_everything(self, read):
        wide = "\n".join(a + "\t" + b for a, b in zip(
            PEOPLE.splitlines(), ["CT_insula\tCT_cuneus", "n/a\t2", "2.5\t1.9", "2.7\t"])) + "\n"
        toml = TOML.replace("t1.csv", "participants.tsv").replace('id = "id"\n', "")
        check(read(wide, toml=toml))
        assert list(read(wide, toml=toml).subjects) == ["age", "sex", "dx", "mmse", "code"]

    def test_features_by_list_keep_its_order_and_can_be_excluded(self, read):
        listed = TOML.replace('prefix = "CT_"', 'features = ["CT_cuneus", "CT_insula"]')
        assert list(read(toml=listed).features["t1"]) == ["CT_cuneus", "CT_insula"]
        check(read(t1=T1.replace("note", "CT_note"),
                   toml=TOML.replace('unit = "mm"', 'exclude = ["CT_note"]')))

    def test_written_cohorts_read_back_the_same(self, tmp_path):
        cohort = tiny_cohort()
        again = Cohort.read(write_cohort(cohort, tmp_path / "cohort"))
        for name, block in cohort.features.items():
            pd.testing.assert_frame_equal(again.features[name], block, check_exact=True)
        pd.testing.assert_frame_equal(again.subjects, cohort.subjects, check_names=False)
        assert (again.covariates, again.reference, again.modalities) == \
            (cohort.covariates, cohort.reference, cohort.modalities)


class TestRefusals:
    def test_non_numeric_cell_is_named(self, refusal):
        words = refusal(t1=T1.replace("2.5", "thin"))
        assert "modality t1: subject 008, feature CT_insula holds 'thin'" in words

    @pytest.mark.parametrize("value", ["inf", "-Infinity", "1e999"])
    def test_infinite_value(self, refusal, value):
        assert "subject 008 has an infinite value in CT_insula" in refusal(
            t1=T1.replace("2.5", value))

    def test_ids(self, refusal):
        assert "t1 has more than one row for 008" in refusal(t1=T1 + "008,2,2,\n")
        assert "subjects table has no id in row 4" in refusal(people=PEOPLE + "\t1\tF\tCN\t\t\n")
        assert "are not in the subjects table (7)" in refusal(t1=T1.replace("007", "7"))
        assert "no modality at all (010)" in refusal(people=PEOPLE + "010\t5\tM\tCN\t\t\n")

    def test_rows_that_do_not_fit_the_header(self, refusal):
        assert "t1.csv has a row with more cells than its first line" in refusal(
            t1=T1.replace("2.5", "2,5"))

    def test_a_column_named_twice(self, refusal):
        assert "t1.csv names a column twice: CT_insula" in refusal(
            t1=T1.replace("CT_cuneus", "CT_insula"))

    def test_files_that_are_no_tables(self, refusal, tmp_path):
        assert "is empty; its first line must name the columns" in refusal(t1="")
        assert "is not a readable text table" in refusal(people=PEOPLE.encode("utf-16-le"))
        with pytest.raises(CohortError, match="there is no table .*relative to the file's own"):
            read_table(tmp_path / "nowhere.csv")

    def test_covariates(self, refusal):
        assert "age is missing for 1 of 3 subjects (007)" in refusal(
            people=PEOPLE.replace("50", "n/a"))
        assert "subject 007 has 'fifty'" in refusal(people=PEOPLE.replace("50", "fifty"))

    def test_reference_that_selects_nobody_says_what_there_is(self, read):
        with pytest.raises(CohortError, match="selects nobody of 3 subjects; dx holds 'AD', 'CN'"):
            read(toml=TOML.replace("'CN'", "'HC'")).reference_subjects()

    @pytest.mark.parametrize("old, new, words", [
        ('unit = "mm"', 'units = "mm"', "[modalities.t1] has unknown units"),
        ('prefix = "CT_"', "", "feature note holds 'ok'"),
        ('prefix = "CT_"', 'prefix = "XX_"', "no column of t1.csv starts with 'XX_'"),
        ('prefix = "CT_"', 'features = ["a"]', "features names a, which is no column of t1.csv"),
        ('prefix = "CT_"', 'features = "note"', "features must be a list"),
        ('unit = "mm"', 'exclude = ["a"]', "exclude names a, which is no column"),
        ('unit = "mm"', 'features = []', "give features or a prefix, not both"),
        ('unit = "mm"', 'likelihood = "beta"', "only 'normal' is available"),
        ('table = "t1.csv"', "table = 3", "[modalities.t1]"),
        ('id = "id"', "", "has no id column 'participant_id'; it has id, CT_insula"),
        ('age = "continuous"', 'age = "linear"', "must be one of continuous, categorical, site"),
        ('[covariates]\nage = "continuous"\nsex = "categorical"', "", None),
        ("[subjects]", 'covariates = ["age"]\n[subjects]', "not a valid TOML file"),
        ("[subjects]", "[subject]", "needs a [subjects] section"),
        ("[modalities.t1]", "[modality.t1]", "needs a [modalities.t1] section"),
        ("dx == 'CN'", "dx.tofile('x')", "compares nothing"),
    ])
    def test_toml(self, read, old, new, words):
        if words is None:  # no covariates at all is allowed
            assert dict(read(toml=TOML.replace(old, new)).covariates) == {}
            return
        with pytest.raises(CohortError) as caught:
            read(toml=TOML.replace(old, new))
        assert words in str(caught.value)

    def test_sections_that_are_no_sections(self, refusal):
        bare = TOML.replace('[covariates]\nage = "continuous"\nsex = "categorical"\n', "")
        assert "covariates must be a section" in refusal(toml='covariates = ["age"]\n' + bare)
        bare = TOML.replace("[reference]\nquery = \"dx == 'CN'\"\n", "")
        assert "reference must be a section" in refusal(toml='reference = "CN"\n' + bare)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(CohortError, match="there is no file"):
            Cohort.read(tmp_path / "cohort.toml")

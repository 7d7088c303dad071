"""Tables of every dialect and format: read alike, or refused; never misread.

The witness is the table that was written: what is read must be that, cell by cell.
"""
from __future__ import annotations

import sys

import pandas as pd
import pytest
from input_forms import people, thickness, write

from normfuse.cohort import Cohort
from normfuse.errors import CohortError
from normfuse.tables.dialect import Dialect
from normfuse.tables.reading import read_table

WIDE = '[modalities.t1]\nunit = "mm"\ntable = "{}"\n{}\n'


@pytest.fixture(scope="module")
def t1():
    return thickness(people())


def same(cohort: Cohort, table: pd.DataFrame) -> None:
    block = cohort.features["t1"].dropna(how="all")
    pd.testing.assert_frame_equal(block, table.loc[block.index], check_names=False)
    assert len(block) == len(table)


def read(folder, name: str, keys: str = "") -> Cohort:
    return Cohort.read(write(folder, WIDE.format(name, keys)))


def refusal(folder, name: str, keys: str = "") -> str:
    with pytest.raises(CohortError) as caught:
        read(folder, name, keys)
    return str(caught.value)


def text(folder, content: str | bytes, **dialect):
    (folder / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(folder / "t.csv", Dialect(**dialect))


class TestFormats:
    @pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet", "xlsx"])
    def test_of_the_same_table_give_the_same_cohort(self, tmp_path, t1, suffix):
        file = tmp_path / f"t1.{suffix}"
        if suffix == "parquet":
            t1.to_parquet(file)
        elif suffix == "xlsx":
            t1.to_excel(file)
        else:
            t1.to_csv(file, sep="\t" if suffix == "tsv" else ",")
        same(read(tmp_path, file.name), t1)

    @pytest.mark.parametrize("suffix", ["csv", "parquet", "xlsx"])
    def test_codes_of_what_is_missing_are_no_numbers(self, tmp_path, t1, suffix):
        coded, empty = t1.copy(), t1.copy()
        coded.iloc[1, 0], empty.iloc[1, 0] = -999, None
        {"csv": coded.to_csv, "parquet": coded.to_parquet, "xlsx": coded.to_excel}[suffix](
            tmp_path / f"t1.{suffix}")
        same(read(tmp_path, f"t1.{suffix}", "missing = [-999, 'lost']"), empty)
        assert "missing is a list of codes" in refusal(tmp_path, f"t1.{suffix}", "missing = -999")

    def test_sheets_are_named(self, tmp_path, t1):
        with pd.ExcelWriter(tmp_path / "t1.xlsx") as book:
            t1.to_excel(book, sheet_name="T1")
            (t1 + 9).to_excel(book, sheet_name="other")
        same(read(tmp_path, "t1.xlsx", 'sheet = "T1"'), t1)
        assert "has 2 sheets (T1, other); choose one" in refusal(tmp_path, "t1.xlsx")
        assert "has no sheet 'T2'; it has T1, other" in refusal(tmp_path, "t1.xlsx",
                                                                'sheet = "T2"')

    def test_whole_numbers_are_ids_in_excel_and_parquet(self, tmp_path):
        table = pd.DataFrame({"participant_id": [7.0, 12.0], "insula": [2.5, 2.25]})
        table.to_excel(tmp_path / "t.xlsx", index=False)
        assert read_table(tmp_path / "t.xlsx").to_numpy().tolist() == [["7", "2.5"],
                                                                       ["12", "2.25"]]

    def test_numbered_people_in_parquet(self, tmp_path, t1):
        ids = pd.RangeIndex(1, 41, name="participant_id")  # kept beside the columns
        t1.set_axis(ids).to_parquet(tmp_path / "t1.parquet")
        cohort = Cohort.read(write(tmp_path, WIDE.format("t1.parquet", ""),
                                   who=people().set_axis(ids)))
        assert cohort.features["t1"].loc["7"].tolist() == t1.iloc[6].tolist()

    def test_formulas_that_were_never_computed_are_refused(self, tmp_path):
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        book.active.append(["participant_id", "insula"])
        book.active.append(["sub-001", "=1+1"])
        book.save(tmp_path / "t1.xlsx")
        assert "formulas that were never computed (B2)" in refusal(tmp_path, "t1.xlsx")

    @pytest.mark.parametrize("suffix, package", [("xlsx", "openpyxl"), ("parquet", "pyarrow")])
    def test_a_package_that_is_not_there_is_named(self, tmp_path, monkeypatch, suffix, package):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.parquet", None)
        (tmp_path / f"t1.{suffix}").write_bytes(b"any")
        with pytest.raises(CohortError, match=rf"read by {package}, which is not installed; run: "
                           r"pip install 'normfuse\["):
            read_table(tmp_path / f"t1.{suffix}")

    @pytest.mark.parametrize("name", ["t1.xlsx", "t1.parquet"])
    def test_files_that_are_not_what_they_are_called(self, tmp_path, name):
        (tmp_path / name).write_text("participant_id,insula\n")
        assert "is not a readable" in refusal(tmp_path, name)

    def test_old_formats_say_what_to_do(self, tmp_path):
        assert "save it as .xlsx" in refusal(tmp_path, "t1.xls")


class TestText:
    @pytest.mark.parametrize("encoding, keys", [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""),
                                                ("latin-1", 'encoding = "latin-1"')])
    def test_encodings(self, tmp_path, t1, encoding, keys):
        table = t1.rename(columns={t1.columns[0]: "größe"})
        table.to_csv(tmp_path / "t1.csv", encoding=encoding)
        same(read(tmp_path, "t1.csv", keys), table)

    def test_latin_1_is_not_guessed(self, tmp_path):
        (tmp_path / "t1.csv").write_bytes("participant_id,größe\nsub-001,2\n".encode("latin-1"))
        assert "Line 1 would read" in refusal(tmp_path, "t1.csv")
        assert 'encoding = "latin-1"' in refusal(tmp_path, "t1.csv")
        assert "is unknown" in refusal(tmp_path, "t1.csv", 'encoding = "klingon"')

    def test_utf_16_without_a_mark(self, tmp_path):
        with pytest.raises(CohortError, match="NUL characters"):
            text(tmp_path, "id,a\n1,2\n".encode("utf-16-le"))

    def test_separators(self, tmp_path):
        assert text(tmp_path, "sep=;\nid;a\n1;2\n").to_dict("list") == {"id": ["1"], "a": ["2"]}
        assert list(text(tmp_path, "id  a b\n1 2  3\n", separator=" ")) == ["id", "a", "b"]
        with pytest.raises(CohortError, match='say separator = " "'):
            text(tmp_path, "id a b\n1 2 3\n")
        with pytest.raises(CohortError, match="as many columns with ',' as with ';'"):
            text(tmp_path, "id,a;b\n1,2;3\n")
        assert list(text(tmp_path, "id,a;b\n1,2\n")) == ["id", "a;b"]  # rows fit one of them

    def test_names_twice_and_separators_at_the_end(self, tmp_path):
        with pytest.raises(CohortError, match="names a column twice: a"):
            text(tmp_path, "id,a,a \n1,2,3\n")
        assert list(text(tmp_path, "id,a,\n1,2,\n")) == ["id", "a"]

    def test_spaces_around_cells_and_names(self, tmp_path, t1):
        lines = t1.to_csv().replace(",", " , ")
        (tmp_path / "t1.csv").write_text(lines)
        same(read(tmp_path, "t1.csv"), t1)


class TestNumbers:
    def test_commas_that_can_only_be_decimal_are_read_and_said(self, tmp_path, t1):
        t1.round(2).to_csv(tmp_path / "t1.csv", sep=";", decimal=",")
        with pytest.warns(UserWarning, match="t1.csv has decimal commas, as 2,"):
            same(read(tmp_path, "t1.csv"), t1.round(2))

    def test_three_decimals_are_asked_for(self, tmp_path):
        table = pd.DataFrame({"a": [2.531, 2.123]}, pd.Index(["sub-001", "sub-002"], name="id"))
        table.to_csv(tmp_path / "t.csv", sep=";", decimal=",")
        with pytest.raises(CohortError, match="such as 2,531, which may be a little over 2"):
            read_table(tmp_path / "t.csv")
        assert read_table(tmp_path / "t.csv", Dialect(decimal=","))["a"].tolist() == \
            ["2.531", "2.123"]
        assert read_table(tmp_path / "t.csv", Dialect(thousands=","))["a"].tolist() == \
            ["2531", "2123"]

    def test_german_thousands(self, tmp_path):
        table = text(tmp_path, "id;a;b\n1;1.234,5;7\n2;12.345.678,25;8\n", decimal=",")
        assert table["a"].tolist() == ["1234.5", "12345678.25"]
        with pytest.raises(CohortError, match="should have decimal commas, but a holds 1.25"):
            text(tmp_path, "id;a\n1;1.25\n2;3,5\n", decimal=",")

    def test_commas_and_points_together_are_refused_by_cell(self, tmp_path):
        (tmp_path / "t1.csv").write_text('participant_id,a,b\nsub-001,"2,5",1\nsub-002,2.5,thin\n'
                                         "sub-003,2.4,3\n")
        words = refusal(tmp_path, "t1.csv")
        assert "subject sub-001, feature a holds '2,5', which is not a number" in words
        assert "nor are 'thin' in b of sub-002" in words and 'decimal = ","' in words

    def test_dates_codes_and_ids_are_no_numbers(self, tmp_path):
        table = text(tmp_path, "id;when;code\n1,5;01.02.2020;1,a\n2;02.02.2020;2,b\n")
        assert table.iloc[0].tolist() == ["1,5", "01.02.2020", "1,a"]

    @pytest.mark.parametrize("said, words", [
        ({"decimal": ";"}, "decimal must be"), ({"thousands": "x"}, "thousands must be"),
        ({"thousands": "."}, "decimal and thousands are both '.'"),
        ({"separator": ";;"}, "one character"), ({"sheet": 3}, "sheet must be text")])
    def test_dialects_that_cannot_be(self, said, words):
        with pytest.raises(CohortError, match=words):
            Dialect.of(said, "[subjects]")


class TestIds:
    def test_sub_before_ids_is_added_or_taken_away_and_said(self, tmp_path, t1):
        bare = t1.set_axis(t1.index.str.removeprefix("sub-").rename("participant_id"))
        bare.to_csv(tmp_path / "t1.csv")
        with pytest.warns(UserWarning, match=r"with sub- before them \(0\d\d is sub-0\d\d; 40 of"):
            same(read(tmp_path, "t1.csv"), t1)

    def test_paths_are_their_last_part(self, tmp_path, t1):
        t1.set_axis(("/any/" + t1.index + "/").rename("participant_id")).to_csv(
            tmp_path / "t1.csv")
        with pytest.warns(UserWarning, match="by the last part of their path"):
            same(read(tmp_path, "t1.csv"), t1)

    def test_some_that_fit_forbid_guessing(self, tmp_path, t1):
        ids = [*t1.index[:3], *t1.index[3:].str.removeprefix("sub-")]
        t1.set_axis(pd.Index(ids, name="participant_id")).to_csv(tmp_path / "t1.csv")
        assert "has 37 of 40 subjects that are not in the subjects table" in refusal(
            tmp_path, "t1.csv")
        same(read(tmp_path, "t1.csv", 'id_prefix = "sub-"'), t1)

    def test_zeros_that_were_lost_are_guessed_at_but_not_used(self, tmp_path):
        who = people().set_axis(people().index.str.removeprefix("sub-").rename("participant_id"))
        thickness(people()).set_axis([str(int(i[4:])) for i in thickness(people()).index]).to_csv(
            tmp_path / "t1.csv", index_label="participant_id")
        with pytest.raises(CohortError, match=r"1 may be 001, its zeros lost|may be 0\d\d, its"):
            Cohort.read(write(tmp_path, WIDE.format("t1.csv", ""), who=who))


class TestLong:
    LONG = 'long = { feature = ["side", "region"], value = "mm" }'

    def long(self, t1):
        table = t1.melt(ignore_index=False, var_name="name", value_name="mm").reset_index()
        parts = table["name"].str.split("_", expand=True)
        return table.assign(side=parts[0], region=parts[1]).drop(columns="name")

    def test_is_the_wide_table(self, tmp_path, t1):
        self.long(t1).to_csv(tmp_path / "t1.csv", index=False)
        wide = t1.rename(columns=lambda c: c.removesuffix("_thickness"))
        same(read(tmp_path, "t1.csv", self.LONG), wide)

    def test_two_values_of_one_region_are_refused_by_name(self, tmp_path, t1):
        table = self.long(t1)
        pd.concat([table, table.iloc[[5]].assign(mm=9)]).to_csv(tmp_path / "t1.csv", index=False)
        words = refusal(tmp_path, "t1.csv", self.LONG)
        assert f"more than one value for lh_bankssts of {table['participant_id'][5]}" in words

    def test_what_cannot_be_understood(self, tmp_path, t1):
        self.long(t1).replace("insula", "n/a").to_csv(tmp_path / "t1.csv", index=False)
        assert "rows name no feature, the first of sub-" in refusal(
            tmp_path, "t1.csv", self.LONG)
        assert "'regions'" not in refusal(tmp_path, "t1.csv", self.LONG.replace("mm", "mn"))
        assert "mn is no column of the long table" in refusal(
            tmp_path, "t1.csv", self.LONG.replace("mm", "mn"))
        assert "is described as long = {" in refusal(tmp_path, "t1.csv", "long = true")


class TestSeveralTables:
    def test_stand_side_by_side(self, tmp_path, t1):
        t1.iloc[:, :4].to_csv(tmp_path / "lh.csv")
        t1.iloc[::-1, 4:].to_csv(tmp_path / "rh.csv")
        cohort = Cohort.read(write(tmp_path, '[modalities.t1]\ntable = ["lh.csv", "rh.csv"]\n'))
        same(cohort, t1)

    def test_with_the_same_column_are_refused(self, tmp_path, t1):
        t1.to_csv(tmp_path / "lh.csv")
        with pytest.raises(CohortError, match="is in more than one of its tables"):
            Cohort.read(write(tmp_path, '[modalities.t1]\ntable = ["lh.csv", "lh.csv"]\n'))

"""``normfuse check``: what it understood, that it finds all faults at once, and how it exits."""
from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from input_forms import people, thickness, volumes, write
from typer.testing import CliRunner

from normfuse.checkup import examine
from normfuse.checkup_text import in_numbers, in_words
from normfuse.cli import app

T1 = '[modalities.t1]\ntable = "t1.csv"\nunit = "mm"\n'
BOTH = T1 + '[modalities.vol]\ntable = "vol.csv"\nexclude = ["5th-Ventricle", ' \
    '"Left-WM-hypointensities"]\nunit = "mm3"\n'


@pytest.fixture
def made(tmp_path):
    """Write a cohort of two modalities, some of it changed; its cohort.toml."""
    def writer(change=None, modality=BOTH, **more):
        tables = {"who": people(), "t1": thickness(people()), "vol": volumes(people()).iloc[6:]}
        if change:
            change(tables)
        tables["t1"].to_csv(tmp_path / "t1.csv", index_label="participant_id")
        tables["vol"].to_csv(tmp_path / "vol.csv")
        return write(tmp_path, modality, who=tables["who"], **more)
    return writer


def run(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


class TestUnderstood:
    def test_a_fine_cohort(self, made):
        found = in_numbers(examine(made()))
        assert found["fine"] and found["problems"] == found["suspicious"] == []
        assert found["subjects"] == {"n": 40, "reference": 35, "query": "diagnosis == 'CN'",
                                     "groups": {"diagnosis": {"AD": 5, "CN": 35}}}
        assert found["covariates"]["age"]["range"] == [people()["age"].min(),
                                                       people()["age"].max()]
        assert found["covariates"]["sex"]["levels"] == people()["sex"].value_counts().to_dict()
        assert found["modalities"]["t1"]["missing_cells"] == pytest.approx(1 / 320)
        assert found["patterns"] == [{"modalities": ["t1", "vol"], "n": 34, "reference": 29},
                                     {"modalities": ["t1"], "n": 6, "reference": 6}]

    def test_in_words_and_on_the_command_line(self, made):
        result = run(made())
        assert result.exit_code == 0 and "fine: nothing would be refused" in result.output
        lines = result.output.splitlines()
        assert lines[0].endswith("40 people, 35 of them reference (diagnosis == 'CN')")
        (both,) = [line for line in lines if line.startswith("  t1 + vol  #")]
        assert both.count("#") == 24 and both.endswith("34 (29 reference)")

    def test_files_and_json(self, made, tmp_path):
        out = tmp_path / "check"
        result = run(made(), "--json", "--out", out)
        said = json.loads(result.stdout)
        assert said["result"]["fine"] and said["counts"]["people"] == said["result"][
            "subjects"]["n"]
        assert {p.name for p in out.iterdir()} == {"check.json", "check.txt", "missingness.png",
                                                   "command.json"}
        assert json.loads((out / "check.json").read_text()) == said["result"]
        again = run(made(), "--out", out)
        assert again.exit_code == 1 and "already there" in again.stderr
        assert run(made(), "--out", out, "--overwrite").exit_code == 0

    def test_help_has_an_example_and_nothing_loads_torch(self, made):
        assert "Examples normfuse check cohort.toml" in " ".join(run("--help").output.split())
        code = ("import sys; from normfuse.cli import app\n"
                f"try: app(['check', {str(made())!r}])\n"
                "except SystemExit as end: assert not end.code, end.code\n"
                "sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'statsmodels')))")
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

    def test_images_are_looked_at_but_not_read(self, tmp_path):
        for who in people().index[:30]:
            image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([8.0, 8, 8, 1]))
            image.to_filename(tmp_path / f"{who}.nii.gz")
        (tmp_path / f"{people().index[2]}.nii.gz").write_bytes(b"no image")
        thickness(people()).to_csv(tmp_path / "t1.csv")
        file = write(tmp_path, T1 + '[modalities.fa]\nimages = "{id}.nii.gz"\nresolution = 8\n')
        found = examine(file)
        assert len(found.problems) == 1 and "1 of 30 images cannot be used" in found.problems[0]
        assert not (tmp_path / "normfuse_cache").exists()


class TestAtOnce:
    def faults(self, tables):
        tables["who"] = tables["who"].astype(object)
        ids = tables["who"].index.tolist()
        tables["who"].loc[ids[0], "age"] = "fifty"
        tables["who"].loc[ids[1], "age"] = None
        tables["t1"] = tables["t1"].astype(object)
        tables["t1"].loc[ids[2], "lh_insula_thickness"] = "thin"
        tables["t1"]["rh_cuneus_thickness"] = 2.5
        tables["t1"].index = tables["t1"].index.where(tables["t1"].index != ids[3], "sub-777")
        tables["vol"] = pd.concat([tables["vol"], tables["vol"].iloc[[3]]])

    def test_every_problem_is_listed(self, made):
        file = made(self.faults, covariates='iq = "continuous"\nsite = "sight"',
                    modality=BOTH + '[modalities.pet]\ntable = "pet.csv"\n')
        result = run(file)
        assert result.exit_code == 1
        text = " ".join(result.output.partition("problems (")[2].split())
        for words in ("there is no table", "sub-777", "has 'fifty'", "age is missing for 1 of 40",
                      "holds 'thin'", "modality vol has more than one row for", "'iq' is not a",
                      "said to be 'sight'", "same value in all the reference (rh_cuneus"):
            assert words in text, words
        assert text.startswith("10) 1. ") and "nothing to score" not in text
        shown = in_words(examine(file))
        assert "t1 + vol" in shown and "40 people" in shown

    def test_fit_and_score_say_them_all_too(self, made, tmp_path):
        result = CliRunner().invoke(app, ["fit", str(made(self.faults)), "--out",
                                          str(tmp_path / "model")])
        assert result.exit_code == 1
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 6 and not (tmp_path / "model").exists()

    def test_keys_that_are_misspelt(self, made):
        file = made(modality=T1.replace("unit", "unitt") + '[modalities.vol]\ntabel = "v.csv"\n')
        words = examine(file).problems
        assert len(words) == 2 and "perhaps 'unitt' is 'unit'" in words[0]
        assert "perhaps 'tabel' is 'table'" in words[1]

    @pytest.mark.parametrize("text, words", [
        ("[subjects", "not a valid TOML file"), ("a = 1", "needs a [subjects] section"),
        (None, "there is no file")])
    def test_files_that_say_nothing(self, tmp_path, text, words):
        if text is not None:
            (tmp_path / "cohort.toml").write_text(text)
        result = run(tmp_path / "cohort.toml")
        assert result.exit_code == 1 and words in " ".join(result.output.split())

    def test_a_reference_that_cannot_be_fitted(self, made):
        def few(tables):
            tables["who"]["diagnosis"] = ["CN"] * 9 + ["AD"] * 31
            tables["who"].loc[tables["who"].index[:9], "sex"] = "F"

        words = examine(made(few)).problems
        assert "9 reference people are too few" in words[0]
        assert "covariate sex is 'F' for all 9" in " ".join(words)
        file = made()
        file.write_text(file.read_text().replace("== 'CN'", "== 'HC'"))
        assert "selects nobody of 40 subjects" in examine(file).problems[0]


class TestSuspicious:
    def test_values_people_and_levels(self, made):
        def odd(tables):
            ids = tables["who"].index
            tables["t1"].loc[ids[0], "lh_insula_thickness"] = -9999
            tables["t1"].loc[ids[39], "rh_insula_thickness"] = -9999
            tables["t1"].loc[ids[5]] = tables["t1"].loc[ids[6]]
            tables["who"].loc[ids[7], "sex"] = "f"
            tables["who"].loc[ids[8], "age"] = 432.0
            tables["who"]["site"] = ["north"] * 30 + ["south"] * 5 + ["west"] * 5

        file = made(odd, covariates='site = "site"')
        found = examine(file)
        assert found.fine
        text = "\n".join(found.suspicious)
        ids = people().index
        for words in (f"432 of {ids[8]} is no age", "'F', 'f' are different levels",
                      "site south (n = 5)", "site west has no reference person: 5 people",
                      f"first -9999 in lh_insula_thickness of {ids[0]}",
                      f"-9999 in rh_insula_thickness of {ids[39]}",
                      f"the very same values are those of {ids[5]} and {ids[6]}"):
            assert words in text, (words, text)
        assert run(file).exit_code == 0 and run(file, "--strict").exit_code == 1

    def test_ids_that_hardly_differ(self, made):
        def twice(tables):
            names = tables["who"].index.tolist()
            tables["who"].index = pd.Index(["sub-7" if i == "sub-008" else i for i in names],
                                           name="participant_id")
            for name in ("t1", "vol"):
                tables[name].index = ["sub-7" if i == "sub-008" else i for i in tables[name].index]
            tables["vol"].index.name = "participant_id"

        words = "\n".join(examine(made(twice)).suspicious)
        assert "ids that hardly differ: sub-007 and sub-7" in words

"""The command line: fit to report on a small cohort, what they write, and how they refuse."""
from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import normfuse as nf
from normfuse.cli import WHEN, Fusion, app
from normfuse.simulate import write_cohort
from normfuse.testing import tiny_cohort, tiny_deviations

FIT = "fit {home}/cohort/cohort.toml --out {home}/model --latent 2 --epochs 6"
SCORE = "score {home}/model {home}/cohort/cohort.toml --out {home}/deviations"
COMPARE = ("compare {home}/deviations --group diagnosis --adjust age,sex --baseline CN "
           "--out {home}/groups")
REPORT = "report {home}/deviations --groups {home}/groups --out {home}/report.html"


def run(line: str, **places):
    return CliRunner().invoke(app, shlex.split(line.format(**places)))


def refusal(line: str, **places) -> str:
    """The one line on stderr of a command that refuses with exit code 1."""
    result = run(line, **places)
    assert result.exit_code == 1, result.output
    errors = [text for text in result.stderr.splitlines() if not text.startswith("note:")]
    assert len(errors) == 1 and errors[0].startswith("error: "), result.stderr
    return errors[0]


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The four verbs run one after the other; their results by name."""
    home = tmp_path_factory.mktemp("work folder")  # with a space
    write_cohort(tiny_cohort(180, seed=2), home / "cohort")
    quoted = {"home": shlex.quote(str(home))}
    found = {name: run(line, **quoted) for name, line in (
        ("fit", FIT), ("score", SCORE), ("compare", COMPARE), ("report", REPORT))}
    for result in found.values():
        assert result.exit_code == 0, result.output
    return {**found, "home": home}


@pytest.fixture
def home(results):
    return shlex.quote(str(results["home"]))


class TestTheVerbs:
    def test_fit_writes_a_model_and_says_how_calibrated_it_is(self, results):
        assert contents(results["home"] / "model") == {"model.json", "weights.safetensors",
                                                       "command.json"}
        said = results["fit"].stdout
        assert "WassersteinBarycenter(), OneLatent(" in said and "n_latent=2)" in said
        assert "held-out controls, z all: " in said and "expected 5%" in said

    def test_score_writes_tables_and_leaves_training_people_out(self, results):
        found = nf.Deviations.read(results["home"] / "deviations")
        assert set(found.subjects["normfuse_role"]) == {"new", "calibration"}
        assert "subjects were used to train this model and are left out" in results["score"].stderr
        assert f"{len(found)} people" in results["score"].stdout
        assert "kind focal: how far a value lies from what the rest of the person's own brain" \
            in results["score"].stdout

    def test_score_is_what_the_library_says(self, results):
        cohort = nf.Cohort.read(results["home"] / "cohort" / "cohort.toml")
        model = nf.NormativeModel.load(results["home"] / "model")
        found = nf.Deviations.read(results["home"] / "deviations")
        pd.testing.assert_frame_equal(found.z, model.deviations(cohort.select(found.z.index)).z)

    def test_compare_writes_a_table(self, results):
        table = pd.read_csv(results["home"] / "groups" / "table.csv")
        assert len(table) == 15 and {"g", "p", "q", "n_case", "raw_p"} <= set(table)
        facts = json.loads((results["home"] / "groups" / "comparison.json").read_text())
        assert facts["adjust"] == ["age", "sex"] and facts["baseline"] == "CN"
        assert "adjusted for age, sex" in results["compare"].stdout

    def test_report_without_atlas_regions_has_no_maps_and_says_so(self, results):
        page = (results["home"] / "report.html").read_text(encoding="utf-8")
        assert page.startswith("<!DOCTYPE html>") and "diagnosis" in page
        assert "no brain maps: none of the 15 features" in results["report"].stderr

    def test_report_has_a_page_a_person_and_ids_only_if_asked_for(self, tmp_path):
        tiny_deviations().save(tmp_path / "scored")
        places = {"scored": tmp_path / "scored", "out": tmp_path / "r.html",
                  "people": tmp_path / "people"}
        line = "report {scored} --out {out} --pages {people} --group diagnosis"
        assert run(line, **places).exit_code == 0
        assert contents(places["people"]) == {"index.html", "person-1.html", "person-2.html"}
        assert "sub-" not in places["out"].read_text(encoding="utf-8")
        (places["people"] / "own.html").write_text("<p>not a page of ours")
        again = run(line + " --with-ids --overwrite", **places)
        assert again.exit_code == 1 and "also holds own.html" in again.stderr
        (places["people"] / "own.html").unlink()
        assert run(line + " --with-ids --overwrite", **places).exit_code == 0
        assert contents(places["people"]) == {"index.html", "sub-a.html", "sub-b.html"}
        assert "sub-b" in places["out"].read_text(encoding="utf-8")
        one = run(line + " --subjects \"participant_id == 'sub-b'\" --key {key} --overwrite",
                  key=tmp_path / "key.csv", **places)
        assert one.exit_code == 0 and contents(places["people"]) == {"index.html", "person-1.html"}
        assert "sub-b,person 1" in (tmp_path / "key.csv").read_text()

    def test_a_page_of_somebody_else_is_not_replaced(self, tmp_path):
        tiny_deviations().save(tmp_path / "scored")
        (tmp_path / "mine.html").write_text("hi")
        result = run("report {scored} --out {out} --overwrite", scored=tmp_path / "scored",
                     out=tmp_path / "mine.html")
        assert result.exit_code == 1 and "is no report of normfuse" in result.stderr
        assert (tmp_path / "mine.html").read_text() == "hi"

    def test_nothing_else_is_left_behind(self, results):
        assert contents(results["home"]) == {"cohort", "model", "deviations", "groups",
                                             "report.html", "report.command.json"}

    def test_subjects_and_include_seen(self, home, tmp_path):
        run(SCORE.replace("{home}/deviations", "{out}") + " --subjects \"diagnosis == 'AD'\"",
            home=home, out=tmp_path / "ad")
        assert set(nf.Deviations.read(tmp_path / "ad").subjects["diagnosis"]) == {"AD"}
        run(SCORE.replace("{home}/deviations", "{out}") + " --include-seen", home=home,
            out=tmp_path / "all")
        assert len(nf.Deviations.read(tmp_path / "all")) == 180

    def test_overwrite_replaces_what_normfuse_wrote(self, results, home):
        before = (results["home"] / "deviations" / "z.csv").read_bytes()
        assert run(SCORE + " --overwrite", home=home).exit_code == 0
        assert (results["home"] / "deviations" / "z.csv").read_bytes() == before

    @pytest.mark.parametrize("name", list(Fusion))
    def test_every_fusion_can_be_asked_for(self, name, home, tmp_path):
        line = FIT.replace("{home}/model", "{out}").replace("--epochs 6", "--epochs 1")
        result = run(f"{line} --fusion {name}", home=home, out=tmp_path / "model")
        assert result.exit_code == 0, result.output
        named = {"mopoe": "SubsetMixture(inner=ProductOfExperts", "moe": "MixtureOfExperts",
                 "mwb": "SubsetMixture(inner=WassersteinBarycenter", "poe": "ProductOfExperts",
                 "gpoe": "GeneralizedProductOfExperts", "wasserstein": "WassersteinBarycenter",
                 "gwb": "GeneralizedWassersteinBarycenter", "moment": "MomentMatching"}
        assert repr(nf.NormativeModel.load(tmp_path / "model").fusion).startswith(named[name])

    def test_a_ladder_can_be_asked_for(self, home, tmp_path):
        line = FIT.replace("{home}/model", "{out}").replace("--epochs 6", "--epochs 1")
        line = re.sub(r" --latent \d+", "", line)
        assert run(f"{line} --levels 3,2", home=home, out=tmp_path / "model").exit_code == 0
        assert nf.NormativeModel.load(tmp_path / "model").model.levels == (3, 2)

    @pytest.mark.parametrize("levels, message", [("3,x", "whole numbers such as"),
                                                 ("3,2 --latent 4", "or --levels for several")])
    def test_wrong_levels_are_refused(self, levels, message, home, tmp_path):
        line = re.sub(r" --latent \d+", "", FIT.replace("{home}/model", "{out}"))
        result = run(f"{line} --levels {levels}", home=home, out=tmp_path / "model")
        assert result.exit_code == 2 and message in result.output


class TestRefusals:
    @pytest.mark.parametrize("line", [FIT, SCORE, COMPARE, REPORT, "demo --out {home}/cohort"])
    def test_existing_output_is_refused_before_anything_is_read(self, results, home, line):
        line = line.replace("cohort.toml", "nowhere.toml").replace("--groups {home}/groups", "")
        assert "is already there" in refusal(line, home=home)
        assert "--overwrite" in refusal(line, home=home)

    @pytest.mark.parametrize("line", [FIT, SCORE, COMPARE, "demo --out {home}/model"])
    def test_overwrite_spares_what_normfuse_did_not_write(self, home, line, tmp_path):
        (tmp_path / "thesis.doc").write_text("years of work")
        verb, rest = line.split(" ", 1)
        rest = rest[:rest.index("--out")] + f"--out {tmp_path} --overwrite"
        group = " --group diagnosis" if verb == "compare" else ""
        words = refusal(f"{verb} {rest}{group}", home=home)
        assert "was not written by this command" in words
        assert (tmp_path / "thesis.doc").read_text() == "years of work"

    def test_a_report_does_not_replace_a_folder(self, home, tmp_path):
        assert "(it is a folder)" in refusal(
            f"report {{home}}/deviations --out {tmp_path} --overwrite", home=home)

    @pytest.mark.parametrize("line, words", [
        (FIT.replace("cohort.toml", "nowhere.toml"), "there is no file"),
        (FIT.replace("--latent 2", "--latent 90"), "reference subjects are too few"),
        (SCORE.replace("model", "modle"), "is not a saved model"),
        (SCORE + " --subjects \"diagnosis == 'XX'\"",
         "selects nobody of 180 subjects; diagnosis holds 'AD', 'CN'"),
        (SCORE + " --subjects \"__import__('os').getcwd() == 1\"", "holds Call"),
        (COMPARE.replace("diagnosis", "diagnose", 1), "'diagnose' is not a column"),
        (COMPARE.replace("age,sex", "age,iq"), "cannot adjust for 'iq'"),
        (COMPARE.replace("CN", "HC"), "baseline 'HC' is not a value of diagnosis"),
        (COMPARE.replace("{home}/deviations", "{home}/cohort"), "is not a folder of deviations"),
        (REPORT.replace("{home}/groups", "{home}/model"), "is not a folder that"),
        (REPORT + " --atlas nowhere", "there is no atlas 'nowhere'; the known ones are dk"),
    ])
    def test_bad_input_is_one_clear_line(self, home, tmp_path, line, words):
        start = line[:line.index("--out")]
        rest = line[line.index("--out"):].split(" ", 2)[2:]
        assert words in refusal(" ".join([start, f"--out {tmp_path}/new", *rest]), home=home)
        assert not list(tmp_path.iterdir())

    def test_unknown_options_are_refused(self, home, tmp_path):
        result = run(FIT.replace("{home}/model", str(tmp_path / "m")) + " --fusion concat",
                     home=home)
        assert result.exit_code == 2 and "concat" in result.stderr and "mopoe" in result.stderr

    def test_the_unexpected_keeps_its_traceback(self, home, tmp_path, monkeypatch):
        def broken(self, folder, **options):
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(nf.NormativeModel, "save", broken)
        result = run(FIT.replace("{home}/model", "{out}"), home=home, out=tmp_path / "model")
        assert isinstance(result.exception, ZeroDivisionError)


class TestHelp:
    def test_fusions_are_listed_with_when_to_use_them(self):
        said = " ".join(run("fit --help").stdout.split())
        assert set(WHEN) == set(Fusion)
        for name, when in WHEN.items():
            assert f"{name}: {when}" in said

    def test_version(self):
        assert run("--version").stdout == f"normfuse {nf.__version__}\n"

    def test_help_needs_no_torch_and_no_tables(self):
        code = ("import sys\nfrom normfuse.cli import app\n"
                "try:\n    app(['fit', '--help'])\nexcept SystemExit:\n    pass\n"
                "assert not {'torch', 'pyro', 'pandas', 'numpy', 'scipy', 'matplotlib'} "
                "& set(sys.modules)")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's output folder, and what it said."""
    home = tmp_path_factory.mktemp("demo")
    done = subprocess.run([sys.executable, "-m", "normfuse.cli", "demo", "--out", "out",
                           "--quick"], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home / "out", done


@pytest.mark.slow
class TestDemo:
    def test_it_leaves_everything_it_made(self, demo):
        out, done = demo
        assert contents(out) == {"cohort", "model", "deviations", "groups", "report.html",
                                 "report.command.json", "command.json"}
        assert done.stdout.rstrip().endswith(f"open {Path('out', 'report.html')}")
        assert (out / "report.html").read_text(encoding="utf-8").count("data:image/png") > 5

    def test_it_prints_the_commands_it_runs(self, demo):
        verbs = [line.split()[2] for line in demo[1].stdout.splitlines() if line.startswith("$ ")]
        assert verbs == ["fit", "score", "compare", "report"]
        assert "# simulate_cohort(150, 30, seed=0)" in demo[1].stdout

    def test_warnings_are_one_line_notes(self, demo):
        lines = demo[1].stderr.splitlines()
        assert lines and all(line.startswith("note: ") for line in lines), demo[1].stderr

    def test_its_own_folder_can_be_replaced(self, demo, monkeypatch):
        import normfuse.simulate

        def stop(*_, **__):
            raise nf.NormfuseError("far enough")

        monkeypatch.setattr(normfuse.simulate, "simulate_cohort", stop)
        assert "already there" in refusal(f"demo --out {demo[0]}")
        assert "far enough" in refusal(f"demo --out {demo[0]} --overwrite")
        assert (demo[0] / "report.html").exists()  # replaced only when there is something new

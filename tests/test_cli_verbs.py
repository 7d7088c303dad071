"""What every verb promises: help with examples, one JSON object, clean pipes, exit codes, and a
``command.json`` from which it runs again.

Witnesses: the JSON module, the files themselves, ``sha256`` of the standard library, and that the
second run leaves the same bytes.
"""
from __future__ import annotations

import hashlib
import json
import re
import shlex
import warnings
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import normfuse as nf
from normfuse.cli import Fusion, app, demo
from normfuse.simulate import write_cohort
from normfuse.testing import tiny_cohort, tiny_head, tiny_voxel_deviations

LINES = {
    "check": "check cohort/cohort.toml --out check",
    "fit": "fit cohort/cohort.toml --out model --latent 2 --epochs 4 --quick",
    "score": "score model cohort/cohort.toml --out deviations",
    "adapt": "adapt model elsewhere/cohort.toml --out adapted",
    "evaluate": "evaluate model unseen/cohort.toml --out evaluation",
    "compare": "compare deviations --group diagnosis --adjust age,sex --out groups",
    "associate": "associate deviations --scores mmse --adjust age --out scores",
    "report": "report deviations --groups groups --out report.html",
    "maps": "maps voxels --out maps",
    "regions": "regions voxels --atlas labels.nii.gz --table names.tsv --out regions",
    "compare-voxels": "compare-voxels voxels --group diagnosis --adjust none --permutations 9 "
                      "--blocks none --out voxel_groups",
    "register": "register '{id}_{modality}.nii.gz' --resolution 8 --out mni",
    "demo": "demo --quick --out demo"}
KEYS = {"schema", "normfuse", "verb", "ok", "exit_code", "made", "where", "counts", "notes",
        "result", "command", "warnings", "errors", "seconds"}
COMMANDS = typer.main.get_command(app).commands


def run(line: str, **options):
    return CliRunner().invoke(app, shlex.split(line), prog_name="normfuse", **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which every verb ran once with --json, and what each said."""
    place = tmp_path_factory.mktemp("verbs")
    near, far = tiny_cohort(330, seed=2).split("site != 'west'")
    write_cohort(near.select(near.ids[::2]), place / "cohort")
    write_cohort(near.select(near.ids[1::2]), place / "unseen")
    write_cohort(far, place / "elsewhere")
    people = pd.read_csv(place / "cohort/participants.tsv", sep="\t", index_col=0)
    people.assign(mmse=np.arange(len(people)) % 7).to_csv(place / "cohort/participants.tsv",
                                                          sep="\t")
    made = tiny_voxel_deviations()
    groups = np.where(np.arange(len(made)) % 2, "AD", "CN")
    made.changed(subjects=made.subjects.assign(diagnosis=groups)).save(place / "voxels")
    space = made.space("t1")
    labels = space.img(np.arange(len(made.z.columns)) % 2 + 1.0)
    labels.to_filename(place / "labels.nii.gz")
    tiny_head(resolution=8).to_filename(place / "sub-1_T1w.nii.gz")
    (place / "names.tsv").write_text("index\tname\n1\tLeft-A\n2\tRight-A\n")
    small = {"people": (40, 8), "options": "--epochs 1 --latent 2 --calibration held-out"}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(place)
        patch.setattr(demo, "QUICK", small)
        steps = demo._regions  # two of four will do: tests/test_cli.py runs all
        patch.setattr(demo, "_regions", lambda *given: islice(steps(*given), 2))
        said = {verb: run(f"{line} --json") for verb, line in LINES.items()}
    return place, said


@pytest.fixture
def inside(place, monkeypatch):
    """The folder, as the current one."""
    monkeypatch.chdir(place[0])
    return place[0]


def test_every_verb_is_tried():
    assert set(COMMANDS) == set(LINES)


@pytest.mark.parametrize("verb", LINES)
def test_help_has_examples_that_can_be_typed(verb):
    said = run(f"{verb} --help", terminal_width=80).stdout
    block = said[said.index("Examples"):said.index("╭")]
    whole = re.sub(r"\\\s*\n\s*", "", block)
    lines = [shlex.split(line) for line in whole.splitlines() if "normfuse" in line]
    assert lines[0][:2] == ["normfuse", verb]
    for _, name, *words in lines:
        known = {option for param in COMMANDS[name].params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known
        assert {"--json", "--verbose", "--config"} <= known


@pytest.mark.parametrize("verb", LINES)
def test_json_is_one_object_and_all_else_is_on_stderr(verb, place):
    home, said = place
    assert said[verb].exit_code == 0, said[verb].output
    found = json.loads(said[verb].stdout)
    assert set(found) == KEYS and found["verb"] == verb and found["ok"] and not found["errors"]
    assert (home / found["where"]).exists() and (home / found["command"]).is_file()
    assert found["counts"] and all(isinstance(n, int) for n in found["counts"].values())
    for text in found["warnings"]:
        assert said[verb].stderr.replace("\n      ", "\n").count(f"note: {text}\n") == 1


@pytest.mark.parametrize("verb", LINES)
def test_nothing_for_terminals_goes_into_a_pipe(verb, place):
    both = place[1][verb].stdout + place[1][verb].stderr
    assert "\r" not in both and "\x1b" not in both


@pytest.mark.parametrize("verb", LINES)
def test_a_command_is_kept_with_every_default_and_its_inputs(verb, place):
    home, said = place
    kept = json.loads((home / json.loads(said[verb].stdout)["command"]).read_text())
    assert kept["verb"] == verb and kept["versions"]["normfuse"] == nf.__version__
    own = {"as_json", "verbose", "config", "overwrite", "help"}
    assert set(kept["options"]) == {p.name for p in COMMANDS[verb].params} - own
    for file, digest in kept["inputs"].items():
        if (home / file).is_file():
            assert hashlib.sha256((home / file).read_bytes()).hexdigest() == digest
    if verb == "score":
        assert set(kept["inputs"]) == {"model", "cohort/cohort.toml", *(
            f"cohort/{p.name}" for p in (home / "cohort").iterdir() if p.suffix != ".toml")}


def test_a_command_runs_again_with_the_same_result(inside):
    again = run("score --config deviations/command.json --out again")
    assert again.exit_code == 0, again.output
    for name in ("z.csv", "distance.csv", "subjects.csv"):
        assert (inside / "again" / name).read_bytes() == (inside / "deviations" / name
                                                          ).read_bytes()
    two = [json.loads((inside / d / "command.json").read_text()) for d in ("deviations", "again")]
    assert two[0]["options"] | {"out": "again"} == two[1]["options"]
    other = run("score --config deviations/command.json --kind covariates --out other --json")
    assert json.loads(other.stdout)["result"]["kind"] == "covariates"


def test_changed_inputs_and_wrong_files_are_said(inside, tmp_path):
    kept = json.loads((inside / "deviations/command.json").read_text())
    kept["inputs"]["cohort/cohort.toml"], kept["versions"]["torch"] = "0" * 64, "1.0"
    (tmp_path / "command.json").write_text(json.dumps(kept))
    said = run(f"score --config {tmp_path}/command.json --out changed").stderr
    assert "not the same as when command.json was written: cohort/cohort.toml" in said
    assert "torch 1.0, now" in said
    wrong = run("fit --config deviations/command.json")
    assert wrong.exit_code == 2 and "is of `normfuse score`" in " ".join(wrong.output.split())
    (tmp_path / "no.json").write_text("[]")
    assert run(f"fit --config {tmp_path}/no.json").exit_code == 2


def test_a_refusal_is_1_and_named_in_json(inside):
    result = run("score nowhere cohort/cohort.toml --out d --json")
    found = json.loads(result.stdout)
    assert result.exit_code == found["exit_code"] == 1 and not found["ok"]
    assert "is not a saved model" in found["errors"][0] and found["where"] is None
    assert "Traceback" in run("score nowhere cohort/cohort.toml --out d -v").stderr
    assert run("score nowhere").exit_code == 2


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_is_130_and_says_what_is_kept(inside, monkeypatch, begun):
    def stopped(self, controls, *, keep):
        if begun:
            keep.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(nf.NormativeModel, "fit", stopped)
    result = run(f"fit cohort/cohort.toml --out stopped{begun}")
    assert result.exit_code == 130 and not (inside / f"stopped{begun}").exists()
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("stopped; ")
    assert (f"kept in .stopped{begun}.unfinished: the same command" in lines[0]) == begun


def test_notes_keep_their_lines_and_are_said_once(inside, monkeypatch):
    def warns(file, **_):
        for number in (1, 2):
            warnings.warn("2 images look wrong:\n* flat\n    t1 of sub-1", stacklevel=number)
        raise nf.NormfuseError("1 of 2 images cannot be used:\n* empty")

    monkeypatch.setattr(nf.Cohort, "read", warns)
    said = run("fit cohort/cohort.toml --out noted").stderr
    assert said == ("note: 2 images look wrong:\n      * flat\n          t1 of sub-1\n"
                    "error: 1 of 2 images cannot be used:\n      * empty\n")
    assert "[UserWarning, " in run("fit cohort/cohort.toml --out noted -v").stderr


@pytest.mark.parametrize("line", [
    LINES["fit"], LINES["score"], LINES["maps"], LINES["evaluate"], LINES["compare-voxels"]])
def test_a_folder_that_holds_more_is_refused_before_any_work(line, inside, monkeypatch):
    out = inside / shlex.split(line)[shlex.split(line).index("--out") + 1]

    def worked(*_, **__):
        pytest.fail("work was begun")

    for owner, name in ((nf.Cohort, "read"), (nf.NormativeModel, "load"),
                        (nf.Deviations, "by_people"), (nf.analyses, "compare_voxels")):
        monkeypatch.setattr(owner, name, worked)
    (out / "thesis.doc").write_text("years of work")
    try:
        result = run(f"{line} --overwrite")
        assert result.exit_code == 1 and "also holds thesis.doc" in result.stderr
    finally:
        (out / "thesis.doc").unlink()


def test_arrays_and_maps_of_others_may_be_replaced(inside):
    few = run("maps voxels --out maps --subjects \"diagnosis == 'AD'\" --overwrite")
    assert few.exit_code == 0, few.output
    half = len(nf.Deviations.read(inside / "voxels").select("diagnosis == 'AD'"))
    assert len(list((inside / "maps").glob("sub-*_stat-z_*"))) == half
    made = tiny_voxel_deviations()
    made.save(inside / "mixed")
    assert (inside / "mixed" / "z").is_dir()
    nf.Deviations.read(inside / "deviations").save(inside / "mixed", overwrite=True)
    assert (inside / "mixed" / "z.csv").is_file() and not (inside / "mixed" / "z").exists()


def test_quick_says_that_it_is_no_result_and_calibration_can_be_chosen(place):
    found = json.loads(place[1]["fit"].stdout)
    assert any("Fit again without --quick" in text for text in found["warnings"])
    assert found["counts"]["calibration"] > 0 and found["counts"]["epochs"] <= 4
    small = json.loads(place[1]["demo"].stdout)["result"]["commands"][0]
    assert "--calibration held-out" in small
    kept = json.loads((place[0] / "demo/model/model.json").read_text())
    assert kept["references"]["focal"]["n_subjects"]["calibration"] < 40


class TestCompletion:
    def completed(self, words: str, shell: str = "bash") -> list[str]:
        env = {"_NORMFUSE_COMPLETE": f"complete_{shell}", "COMP_WORDS": words,
               "COMP_CWORD": str(len(words.split(" ")) - 1),
               "_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        return run("", env=env).stdout.split("\n")

    def test_verbs(self):
        assert {"check", "fit", "compare-voxels"} <= set(self.completed("normfuse "))
        assert set(self.completed("normfuse co")) - {""} == {"compare", "compare-voxels"}

    def test_values_of_options(self):
        assert set(self.completed("normfuse fit --fusion ")) - {""} == set(Fusion)
        assert set(self.completed("normfuse fit --fusion g")) - {""} == {"gwb", "gpoe"}

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_other_shells(self, shell):
        said = "\n".join(self.completed("normfuse fit --fusion g", shell))
        assert "gwb" in said and "gpoe" in said and "mopoe" not in said

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_can_be_shown(self, shell, monkeypatch):
        monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, shell))
        assert "_NORMFUSE_COMPLETE" in run("--show-completion").stdout

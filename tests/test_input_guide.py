"""Every example of docs/guide/input.md is read, in the study that it speaks of."""
from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from input_forms import people, study, thickness

import normfuse as nf
from normfuse.analyses import compare_visits
from normfuse.checkup import examine
from normfuse.checkup_text import in_words

PAGE = (Path(__file__).parents[1] / "docs" / "guide" / "input.md").read_text(encoding="utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    study(folder)
    return folder


@pytest.mark.parametrize("example", TOML, ids=range(len(TOML)))
def test_examples_are_fine_and_hold_the_same_thickness(place, example):
    (place / "cohort.toml").write_text(example, encoding="utf-8")
    found = examine(place / "cohort.toml")
    assert found.fine, found.problems
    block = found.cohort.features["thickness"].dropna(how="all")
    values = block.loc[:, [c for c in block if "cuneus" in c and "lh" in c and "pre" not in c]]
    wanted = thickness(people())["lh_cuneus_thickness"].loc[block.index]
    assert values.iloc[:, 0].to_numpy() == pytest.approx(wanted.to_numpy(), nan_ok=True)
    assert len(tomllib.loads(example)["modalities"]) == len(found.cohort.modalities)


def test_what_check_prints_is_as_shown(place):
    folders = next(text for text in TOML if "freesurfer = " in text)
    (place / "cohort.toml").write_text(re.sub(r"(?m)^(eTIV|drop_inc|exclude).*\n", "", folders))
    said = in_words(examine(place / "cohort.toml")).replace(str(place) + "/", "")
    shown = re.search(r"```text\n(.*?)```", PAGE, flags=re.DOTALL).group(1)
    before, _, after = said.partition("\nnotes")
    assert before + after[after.index("\nfine"):] + "\n" == shown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_python_lines(place, capsys, monkeypatch):
    example = next(text for text in TOML if "sessions = " in text)
    (place / "cohort.toml").write_text(example)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    small = "nf.NormativeModel(n_latent=1, calibration=nf.CrossFit(2), " \
        "plan=nf.TrainingPlan(max_epochs=2, warmup=1))"
    monkeypatch.chdir(place)
    exec(compile(code.replace("nf.NormativeModel()", small), "input.md", "exec"),
         {"nf": nf, "compare_visits": compare_visits,
          "taught": people().query("diagnosis == 'CN'").index[:25]})
    assert "judged by 10 controls seen twice" in capsys.readouterr().out

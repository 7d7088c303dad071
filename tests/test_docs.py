"""What README.md, CONTRIBUTING.md and the guide show is run as it is written."""
from __future__ import annotations

import doctest
import re
import shlex
import textwrap
import tomllib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
import typer
from typer.testing import CliRunner

import normfuse as nf
from normfuse.cli import app
from normfuse.cohort import Cohort
from normfuse.cohort_file import read_cohort
from normfuse.simulate import write_cohort
from normfuse.testing import (tiny_cohort, tiny_deviations, tiny_images, tiny_segmentations,
                              tiny_voxel_deviations)

ROOT = Path(__file__).resolve().parents[1]


def blocks(language: str, file: str = "README.md") -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the cohort that the examples speak of."""
    write_cohort(tiny_cohort(180, seed=4), tmp_path / "all")
    for file in (tmp_path / "all").iterdir():
        file.rename(tmp_path / file.name)
    (tmp_path / "all").rmdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:age of", "ignore:.*used to train")
def test_the_python_lines(here, capsys):
    code, _, fusions = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    exec(compile("import normfuse as nf\n" + fusions, "README.md", "exec"), {})
    assert "diagnosis: " in capsys.readouterr().out


def test_the_lines_on_images(monkeypatch):
    for kind in ("synthesis", "segmentation"):
        monkeypatch.setattr(f"normfuse.imaging.{kind}.image_plan", lambda: nf.TrainingPlan(
            max_epochs=1, warmup=1, batch_size=16))
    people = tiny_images(10)
    names = {"nf": nf, "cohort": people, "lesions": tiny_segmentations(people),
             "patients": tiny_images(seed=1).select(["sub-04", "sub-03"])}
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    assert names["filled"].imputed.to_numpy().any() and len(names["found"]) == 2


def test_the_python_lines_of_the_guide(capsys):
    for code in blocks("python", "docs/guide/what_a_z_means.md"):
        d = tiny_deviations()
        exec(compile(code, "what_a_z_means.md", "exec"), {"deviations": replace(d, conformal=d.p)})
    assert re.search(r"t1 +0\.829\d*\npet +0\.170", capsys.readouterr().out)
    plt.close("all")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:age of", "ignore:.*used to train", "ignore:.*was learned from",
                            "ignore:.*have ids of people")
def test_the_python_lines_of_the_page_on_kinds(here, capsys):
    cohort = tiny_cohort(90, seed=4)
    renamed = cohort.ids.map(lambda i: f"new-{i}")
    write_cohort(Cohort.from_frames(
        cohort.subjects.assign(site="east").set_axis(renamed),
        {name: block.set_axis(renamed).dropna(how="all")
         for name, block in cohort.features.items()},
        covariates=cohort.covariates, reference=cohort.reference), here / "new_site")
    code = "\n".join(blocks("python", "docs/guide/which_deviation.md"))
    exec(compile(code, "which_deviation.md", "exec"), {})
    said = capsys.readouterr().out
    assert "covariates - how far a value lies from what is usual at that age" in said
    assert "EXPV" in said and (here / "evaluation" / "outer.csv").exists()
    plt.close("all")


@pytest.mark.filterwarnings("ignore:atlas dk")
def test_the_python_lines_of_the_page_on_atlases(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    labels = np.zeros((3, 4, 5), np.int32)
    labels[0], labels[2] = 300, 2
    affine = np.diag([-2.0, 2, 2, 1])
    affine[0, 3] = 2
    nib.Nifti1Image(labels, affine).to_filename("labels.nii.gz")
    Path("labels.tsv").write_text("index\tname\n2\tLeft-A\n300\tRight-A\n")
    code = "\n".join(blocks("python", "docs/guide/atlases.md"))
    names = {"deviations": tiny_voxel_deviations()}
    exec(compile(code, "atlases.md", "exec"), names)
    assert "labels: 2 regions in MNI152NLin6Asym" in capsys.readouterr().out
    assert nib.load("z.nii.gz").shape == names["space"].shape


@pytest.mark.filterwarnings("ignore:.*overlap", "ignore:.*precision")
def test_the_python_lines_of_the_page_on_groups(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"age": rng.normal(60, 8, 60), "sex": rng.choice(["F", "M"], 60),
                           "site": rng.choice(["north", "south"], 60), "mmse": rng.normal(size=60),
                           "diagnosis": np.repeat(["AD", "CN"], 30)},
                          [f"sub-{i:02d}" for i in rng.permutation(60)])
    columns = tiny_deviations().z.columns
    z = pd.DataFrame(rng.normal(size=(60, 3)), people.index, columns)
    d = replace(tiny_deviations(), z=z, observed=z, expected=z, subjects=people, latent=z[[]],
                distance=z[[]], attribution=None)
    (code,) = blocks("python", "docs/guide/group_statistics.md")
    # three features in two modalities are too few to correlate people by
    code = code.replace("subtypes(deviations, \"diagnosis == 'AD'\"",
                        "subtypes(deviations, \"diagnosis == 'AD'\", metric='euclidean'")
    exec(compile(code, "group_statistics.md", "exec"), {"deviations": d})
    said = capsys.readouterr().out
    assert "share of people with z < -1.96" in said and "Spearman" in said
    assert Path("groups.csv").exists()
    plt.close("all")


def test_the_python_lines_of_the_page_on_simulated_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks("python", "docs/guide/simulated_images.md"):
        exec(compile(code, "simulated_images.md", "exec"), names)
    assert Path("study/cohort.toml").exists() and len(names["truth"]) == 8
    assert names["scans"].values.keys() <= {"T1w", "T1c", "T2w", "FLAIR"}


@pytest.mark.slow
def test_the_command_lines(here):
    lines = [line for block in blocks("bash") for line in block.splitlines()
             if line.startswith("normfuse ") and "--voxels" not in block]
    verbs = [line.split()[1] for line in lines]
    assert verbs == ["check", "fit", "score", "compare", "evaluate", "report"]
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    page = (here / "report.html").read_text(encoding="utf-8")
    assert "How good is the model" in page and "Deviations of kind focal" in page


def test_the_command_lines_of_images_name_verbs_and_options_that_are_there():
    (block,) = [block for block in blocks("bash") if "--voxels" in block]
    lines = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    verbs = ["demo", "score", "maps", "compare-voxels", "regions", "report"]
    assert [line[0] for line in lines] == verbs
    commands = typer.main.get_command(app).commands
    for verb, *words in lines:
        known = {option for param in commands[verb].params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_the_cohort_file(here):
    (example,) = blocks("toml")
    assert set(tomllib.loads(example)["modalities"]) == {"t1"}
    (here / "example.toml").write_text(example)
    cohort = read_cohort(here / "example.toml")
    assert cohort.modality("t1").unit == "mm3" and len(cohort) == 180


def test_the_example_of_a_new_fusion_keeps_the_laws():
    (code,) = blocks("python", "CONTRIBUTING.md")
    assert len(code.splitlines()) <= 35
    names: dict = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    case = names["TestLogScaleBarycenter"]()
    laws = [name for name in dir(case) if name.startswith("test_")]
    assert len(laws) > 8
    for law in laws:
        getattr(case, law)()
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    said = names["LogScaleBarycenter"].__doc__
    runner.run(parser.get_doctest(said, names, "CONTRIBUTING.md", None, 0))
    assert runner.summarize(verbose=False) == (0, 4)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/guide/{p.name}" for p in sorted(
    (ROOT / "docs" / "guide").glob("*.md")))])
def test_every_file_that_is_linked_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target

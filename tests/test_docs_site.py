"""The manual: every page is reached, every link leads somewhere, every public name has its page,
equations can be drawn, the quickstart runs, and the guide's figures are the measured ones.

`make docs` builds it with every warning an error; that takes 40 CPU seconds and is not repeated
here. Witnesses: the files, the packages' own ``__all__``, and the rows a benchmark left.
"""
from __future__ import annotations

import doctest
import inspect
import re
import runpy
import shlex
import sys
import unicodedata
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from latex2mathml.converter import convert
from test_docs import blocks
from typer.testing import CliRunner

import normfuse as nf
from normfuse.analyses import report
from normfuse.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not {"generated", "_build"} & set(p.parts))


@pytest.fixture(scope="module")
def derived():
    """What conf.py writes when the docs are built."""
    sys.path.insert(0, str(DOCS))
    try:
        yield import_module("derived")
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def made(derived, tmp_path_factory):
    """The derived pages: name -> text."""
    return {**derived._api(), **derived._gallery(DOCS), **derived._from_the_top(ROOT),
            **derived._notebooks(ROOT / "analyses" / "notebooks")}


def anchors(text: str) -> set[str]:
    """Of headings, as plain git hosts and MyST make them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        plain = unicodedata.normalize("NFKC", re.sub(r"[`*]|\]\([^)]*\)|\[", "", title)).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def test_every_page_is_in_a_table_of_contents(made):
    listed = set()
    for where, text in [*((p.relative_to(DOCS).as_posix(), p.read_text()) for p in PAGES),
                        *((f"generated/{name}", text) for name, text in made.items())]:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL):
            listed |= {(Path(where).parent / line).as_posix() for line in block.splitlines()
                       if line and not line.startswith(":")}
    pages = {p.relative_to(DOCS).with_suffix("").as_posix() for p in PAGES}
    pages |= {f"generated/{name}".rsplit(".", 1)[0] for name in made}
    assert pages - listed == {"index"} and listed <= pages


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_every_link_leads_to_a_page_and_its_heading(page, made):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if file.startswith("http"):
            continue
        path = (page.parent / file).resolve() if file else page
        inside = path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else ""
        if inside.startswith("generated/"):
            assert inside.removeprefix("generated/") in made, target
            continue
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def test_every_public_name_has_one_page(derived, made):
    listed = [f"{name[4:-4]}.{line.strip()}" for name, text in made.items()
              if name.startswith("api/normfuse") for line in
              text[text.index(":toctree:"):].splitlines()[1:] if line.strip()]
    objects = [id(getattr(import_module(n.rpartition(".")[0]), n.rpartition(".")[2]))
               for n in listed]
    assert len(set(objects)) == len(objects)
    for package in ("normfuse", "normfuse.analyses", "normfuse.analyses.figures",
                    "normfuse.fusion", "normfuse.models", "normfuse.networks",
                    "normfuse.volumes", "normfuse.testing"):
        module = import_module(package)
        for name in module.__all__:
            if callable(getattr(module, name)):
                assert id(getattr(module, name)) in objects, f"{package}.{name}"
    for name in ("normfuse.kinds.Focal", "normfuse.errors.CohortError"):
        assert name in listed


def test_equations_can_be_drawn():
    text = re.sub(r"```.*?```", "", (DOCS / "methods.md").read_text(), flags=re.DOTALL)
    whole = re.findall(r"\$\$(.+?)\$\$", text, flags=re.DOTALL)
    inline = re.findall(r"(?<!\$)\$([^$\n]+)\$(?!\$)", re.sub(r"\$\$.+?\$\$", "", text,
                                                              flags=re.DOTALL))
    assert len(whole) > 6 and len(inline) > 40
    for latex in (*whole, *inline):
        drawn = convert(latex)
        assert "\\" not in re.sub(r"&#x0005C;", "\\\\", drawn), latex


def test_formulas_of_docstrings_become_blocks(derived):
    module = import_module("plain_formulas")
    assert doctest.testmod(module) == (0, 2)
    prose = ["Meaning.", "", "An expectation = what all others say of it on the whole, of course."]
    assert module.in_blocks(prose) == prose


@pytest.mark.filterwarnings("ignore:age of", "ignore:.*used to train")
def test_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nf.TrainingPlan, "__init__", _few_epochs(nf.TrainingPlan.__init__))
    monkeypatch.setattr(nf, "simulate_cohort", _few_regions(nf.simulate_cohort))
    wanted = []  # the report is written once, by the command, as drawing it is half of the time
    monkeypatch.setattr(report, "write_report", lambda *given, **options: wanted.append(
        signature.bind(*given, **options)))
    first, second = blocks("python", "docs/quickstart.md")
    names: dict = {}
    exec(compile(first, "quickstart.md", "exec"), names)
    (toml,) = blocks("toml", "docs/quickstart.md")
    (tmp_path / "cohort" / "short.toml").write_text(toml)
    assert [m.name for m in nf.Cohort.read("cohort/short.toml").modalities] == ["t1"]
    exec(compile(second, "quickstart.md", "exec"), names)
    assert "diagnosis" in capsys.readouterr().out
    assert wanted[0].arguments["comparison"] is names["groups"]
    monkeypatch.setattr(report, "write_report", write_report)
    (block,) = blocks("bash", "docs/quickstart.md")
    for line in block.splitlines():
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    assert Path("report.html").exists() and Path("report.command.json").exists()
    both = nf.Deviations.read("deviations")
    pd.testing.assert_frame_equal(both.z, names["deviations"].z)  # the two ways are one


write_report = report.write_report
signature = inspect.signature(write_report)


def _few_regions(simulate):
    """The same people, every eighth region."""
    def made(*given, **options):
        cohort = simulate(*given, **options).cohort
        few = {name: block.iloc[:, ::8].dropna(how="all")
               for name, block in cohort.features.items()}
        return SimpleNamespace(cohort=nf.Cohort.from_frames(
            cohort.subjects, few, covariates=cohort.covariates, reference=cohort.reference,
            units={m.name: m.unit for m in cohort.modalities}))

    return made


def _few_epochs(init):
    def quick(self, max_epochs=8, warmup=2, **options):
        init(self, max_epochs=max_epochs, warmup=warmup, **{"progress": False, **options})

    return quick


def test_the_table_of_controls_is_the_measured_one(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = runpy.run_path(str(ROOT / "benchmarks" / "how_many_controls.py"))
    page = (DOCS / "guide" / "how_many_controls.md").read_text(encoding="utf-8")
    table = pd.read_csv(script["FILE"])
    for source in script["SOURCES"]:
        assert script["markdown"](table, source) in page
    seeds = table.groupby(["source", "n", "kind"]).size()
    assert seeds.min() >= 5 and set(seeds.index.get_level_values("n")) == set(script["SIZES"])

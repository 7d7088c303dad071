"""The plan of the house, checked: packages, no torch in statistics, small files, the wheel.

The arrows between modules are contracts in ``setup.cfg``, checked by ``lint-imports``.
"""
from __future__ import annotations

import ast
import configparser
import json
import resource
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("normfuse", "analyses", "atlases")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 450, 60
SOURCES = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]


def run(code: str, *options: str) -> str:
    return subprocess.run([sys.executable, *options, "-c", code], check=True, text=True,
                          capture_output=True).stdout


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a new process has after a statement."""
    found = json.loads(run(f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"))
    return {name.split(".")[0] for name in found}


class TestPackages:
    def test_every_folder_is_listed(self):
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        listed = setup["options"]["packages"].split()
        homes = dict(line.split(" = ") for line in
                     setup["options"]["package_dir"].strip().splitlines())
        names = {folder: name for name, folder in homes.items()}
        found = set()
        for folder in FOLDERS:
            for file in (ROOT / folder).rglob("__init__.py"):
                inner = file.parent.relative_to(ROOT / folder).parts
                found.add(".".join([names[folder], *inner]))
        assert set(listed) == found and len(listed) == len(found)

    def test_every_folder_with_code_has_an_init(self):
        for folder in {p.parent for p in SOURCES}:
            assert (folder / "__init__.py").exists(), folder

    def test_version_is_said_once(self):
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        assert run("import normfuse; print(normfuse.__version__)").strip() == \
            setup["metadata"]["version"]


class TestImports:
    @pytest.mark.parametrize("statement", [
        "import normfuse", "import normfuse.analyses", "import normfuse.cli",
        "from normfuse import Cohort, Deviations, Segmentations, load_atlas, simulate_cohort",
        "import normfuse as nf; nf.simulate_images(1, resolution=9, lesions={'tumour': 1})",
        "from normfuse.analyses import parcellate, compare_groups",
        "from normfuse.testing import tiny_cohort, tiny_deviations"])
    def test_torch_stays_out(self, statement):
        assert not {"torch", "pyro", "safetensors"} & loaded_after(statement)

    @pytest.mark.parametrize("statement", ["import normfuse", "import normfuse.cli",
                                           "import normfuse.analyses"])
    def test_so_do_tables_and_figures_until_they_are_needed(self, statement):
        assert not {"pandas", "scipy", "matplotlib", "nibabel"} & loaded_after(statement)

    @pytest.mark.parametrize("statement, bound", [
        ("import normfuse", 0.1),
        ("from normfuse.cli import app; app(['--help'], standalone_mode=False)", 0.4)])
    def test_the_best_of_five_is_quick(self, statement, bound):
        """0.01 and 0.15 s beyond bare Python; in CPU time, which a busy neighbour hardly changes.
        """
        def seconds(code: str) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(code)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        bare = min(seconds("pass") for _ in range(5))
        assert min(seconds(statement) for _ in range(5)) - bare < bound

    def test_every_public_name_is_there(self):
        run("import normfuse, normfuse.analyses, normfuse.fusion\n"
            "for home in (normfuse, normfuse.analyses, normfuse.fusion):\n"
            "    assert all(getattr(home, name) is not None for name in home.__all__)\n"
            "    assert set(home.__all__) <= set(dir(home))")


class TestSizes:
    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
    def test_files_and_functions_are_small(self, path):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MAX_FILE_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert code_lines(node, text) <= MAX_FUNCTION_LINES, node.name

    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
    def test_no_input_is_checked_by_assert(self, path):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        shipped_cases = path.parent.name == "testing"
        assert shipped_cases or not any(isinstance(n, ast.Assert) for n in ast.walk(tree))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, text: str) -> int:
    """Lines of a function without its docstring, comments and blank lines."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    if not body:
        return 0
    lines = text.splitlines()[body[0].lineno - 1:body[-1].end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the tree so that none of its files is touched."""
    import shutil

    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=skipped)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", place, source],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(place.glob("*.whl"))


class TestWheel:
    def test_it_holds_all_code_and_all_data(self, wheel):
        names = set(zipfile.ZipFile(wheel).namelist())
        homes = {"normfuse": "normfuse", "analyses": "normfuse/analyses",
                 "atlases": "normfuse/atlases"}
        for folder, home in homes.items():
            for path in (ROOT / folder).rglob("*"):
                data = path.suffix in {".py", ".tsv", ".j2", ".typed", ".md", ".gz", ".css"}
                if path.is_file() and data and "__pycache__" not in path.parts:
                    assert f"{home}/{path.relative_to(ROOT / folder).as_posix()}" in names
        assert {"normfuse/py.typed", "normfuse/atlases/registry.tsv"} <= names
        assert any(name.startswith("normfuse/analyses/templates/") for name in names)
        assert any(name.endswith("licenses/LICENSE") for name in names)

    def test_it_installs_one_name_only(self, wheel):
        tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
        assert {top for top in tops if not top.endswith(".dist-info")} == {"normfuse"}

    @pytest.mark.slow
    def test_it_works_in_an_empty_environment(self, wheel, tmp_path):
        """Its dependencies are lent by this environment, since they are gigabytes."""
        venv.create(tmp_path / "venv", with_pip=True)
        python = tmp_path / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
                        wheel], check=True)
        inner = Path(subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True).stdout.strip())
        # a .pth line is searched after the environment's own packages, and without this
        # environment's own .pth files: the editable install stays unseen
        (inner / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
        code = ("import normfuse, normfuse.analyses\n"
                "from importlib.resources import files\n"
                "assert files('normfuse.atlases').joinpath('registry.tsv').read_text()\n"
                "assert len(normfuse.load_atlas('dk').regions) == 178\n"
                "from normfuse.analyses import compare_groups, parcellate, write_report\n"
                "from normfuse.testing import tiny_cohort\n"
                "assert len(tiny_cohort()) == 40\n"
                "print(normfuse.__file__, normfuse.analyses.__file__)")
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert all(Path(path).is_relative_to(inner) for path in done.stdout.split())
        shown = subprocess.run([tmp_path / "venv" / "bin" / "normfuse", "--version"], text=True,
                               capture_output=True, check=True, cwd=tmp_path)
        assert shown.stdout.startswith("normfuse ")

"""The notebooks run from top to bottom on few people, and are stored without outputs.

What they show has no witness here: pictures and prose were judged by eye at full settings. One
kernel runs them all, emptied in between, as to load torch six times would take longer than they.
"""
from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[1] / "analyses" / "notebooks"
SMALL = "plan = nf.TrainingPlan(max_epochs=3, warmup=1, progress=False)"
QUICK = {  # of the first ones that need the folder `deviations`, group_comparison makes it
    "choosing_a_fusion": "n_controls, n_new, n_patients = 150, 40, 20",
    "deviation_maps": "n_controls, n_patients = 150, 24",
    "group_comparison": "n_controls, n_patients, shuffles = 150, 40, 60",
    "lesions": "n_controls, n_patients, resolution = 40, 3, 8",
    "longitudinal": "n_controls, n_twice, n_patients = 150, 20, 12",
    "regional_statistics": "n_controls, n_patients, shuffles, draws = 150, 40, 60, 6",
    "voxelwise": "n_controls, n_patients, resolution, shuffles = 150, 12, 12, 60\n"
                 "modalities = ('t1',)",
}
PICTURES = {"choosing_a_fusion": 3, "deviation_maps": 7, "group_comparison": 4, "lesions": 2,
            "longitudinal": 3, "regional_statistics": 5, "voxelwise": 3}


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    from jupyter_client.manager import KernelManager

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)  # the kernel then draws inline
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(tmp_path_factory.mktemp("notebooks")))
    yield manager
    manager.shutdown_kernel(now=True)


def test_every_notebook_is_tried():
    assert sorted(QUICK) == sorted(PICTURES) == sorted(p.stem for p in FOLDER.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_notebook_runs(name, kernel):
    notebook = read(name)
    at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in
              cell.metadata.get("tags", ()))
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(
        f"import normfuse as nf\n{QUICK[name]}\n{SMALL}"))
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    nbclient.NotebookClient(notebook, km=kernel, timeout=300).execute()
    shown = [o for cell in code_of(notebook) for o in cell.outputs]
    assert sum("image/png" in o.get("data", {}) for o in shown) >= PICTURES[name]
    assert any("text/html" in o.get("data", {}) for o in shown)
    said = "".join(o["text"] for o in shown if o.get("name") == "stderr")
    assert [line for line in said.splitlines() if line.strip() and "epoch/s" not in line] == []


@pytest.mark.parametrize("name", QUICK)
def test_notebook_is_thin_and_stored_without_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and re.match(r"# .+\n\n\S", first.source)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_of(notebook))
    for cell in code_of(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 15 and max(map(len, lines)) <= 105, cell.source
    assert "simulat" in first.source and re.search(r"your own", str(notebook))


def test_both_statistics_notebooks_start_from_the_same_folder():
    (one,), (other,) = ([cell.source for cell in code_of(read(name))
                         if cell.source.startswith("folder = ")]
                        for name in ("group_comparison", "regional_statistics"))
    assert one == other

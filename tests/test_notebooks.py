"""The notebooks run from top to bottom."""
from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "analyses" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel then draws inline
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o for o in shown if "image/png" in o.get("data", {})]
    assert len(pictures) >= 4
    (tmp_path / path.name).write_text(nbformat.writes(notebook))
    complaints = "".join(o["text"] for o in shown if o.get("name") == "stderr")
    assert [line for line in complaints.splitlines() if line.strip()
            and "epoch/s" not in line] == []

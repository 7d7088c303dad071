"""What a process that was killed leaves beside an output, and what becomes of it."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from normfuse.errors import OutputExistsError
from normfuse.outputs import new_folder, refuse_existing

_DIES = """
import os, signal, sys
from pathlib import Path
from normfuse import outputs
if sys.argv[2] == "renaming":  # the older folder has lost its name, the new one has none yet
    honest = os.replace
    def replace(a, b):
        if Path(a).name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        honest(a, b)
    outputs.os.replace = replace
with outputs.new_folder(Path(sys.argv[1]), overwrite=True) as work:
    (work / "a.txt").write_text("new")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["writing", "renaming"])
def test_the_next_process_clears_away_and_gives_back_the_older_folder(tmp_path, when):
    out = tmp_path / "out*[x]"  # no pattern
    with new_folder(out) as work:
        (work / "a.txt").write_text("old")
    (tmp_path / ".out*[x]-mine").mkdir()
    ran = subprocess.run([sys.executable, "-c", _DIES, str(out), when], check=False)
    assert ran.returncode == -9 and len(list(tmp_path.iterdir())) > 2
    assert out.exists() == (when == "writing")
    with pytest.raises(OutputExistsError):
        refuse_existing(out, overwrite=False)
    assert {p.name for p in tmp_path.iterdir()} == {"out*[x]", ".out*[x]-mine"}
    assert (out / "a.txt").read_text() == "old"


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with new_folder(tmp_path / "out") as work:
        refuse_existing(tmp_path / "out", overwrite=True)
        assert work.exists() and str(os.getpid()) in work.parent.name
        (work / "a.txt").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]

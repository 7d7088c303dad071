"""Running a worker in another package's own virtual environment."""
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORKERS = Path(__file__).parent


def absent(environment: str) -> str | None:
    """Why a package's rows must be left out, if they must."""
    if (ROOT / environment / "bin" / "python").is_file():
        return None
    return f"{environment} is not there; `make {environment}/.installed` makes it"


def run(environment: str, worker: str, *arguments: str, scratch: Path) -> dict[str, Any]:
    """The JSON that the worker wrote last on its standard output.

    Raises
    ------
    RuntimeError
        With the end of what it said.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    # a worker's packages write logs and folders wherever they are started
    done = subprocess.run([str(ROOT / environment / "bin" / "python"), str(WORKERS / worker),
                           *arguments], cwd=scratch, capture_output=True, text=True,
                          env=os.environ | threads | {"TMPDIR": str(scratch),
                                                      "PYTHONPATH": str(WORKERS / "stubs")})
    if done.returncode:
        raise RuntimeError(f"{worker} {' '.join(arguments)}: {done.stderr.strip()[-600:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found

"""One thread a process and no screen: beside a busy neighbour two threads cost 2 to 15 times."""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # read once, when torch or NumPy is first imported
os.environ["MPLBACKEND"] = "Agg"

import pytest  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data kept beside the repository, never in it."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data kept beside the repository in ../shared/data")
    return SHARED


@pytest.fixture(autouse=True)
def no_picture_stays_open() -> Iterator[None]:
    """Whoever looks which pictures are open sees those of this test alone."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def peer_fixtures() -> dict:
    """Fixed inputs and the outputs of two other packages for them, float64."""
    path = SHARED.parent / "peers" / "peer_fixtures.json"
    if not path.is_file():
        pytest.skip("needs the stored outputs of other packages in ../shared/peers")
    return json.loads(path.read_text())

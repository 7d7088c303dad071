"""Nothing is lost: training, scoring and statistics of voxels, each killed at ten moments.

Each job runs once undisturbed, which gives its CPU time and its result. Then, at a random moment
in every tenth of that time (counted from the end of imports and reading), a fresh run is ended by
``kill -9`` and the same command given again. What lies on disk in the end must be the same files
with the same bytes, and nothing else. (Of ``model.json`` the time of writing and the check sum,
which covers it, are left out.) Checkpoints are written every .1 s in the place of 10, and 4,096
voxels compared at once in the place of 16,384, so that small data have many pieces. Linux only.

One line a job: kills, how many of them hit a running job, how often the second run found kept
work, how often the result was the same, how often something was left beside.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import normfuse as nf
from normfuse.analyses import ClusterMass, VoxelTable, compare_voxels, voxel_table
from normfuse.calibration import HeldOut
from normfuse.checkpoint import Checkpoint
from normfuse.space import Space
from normfuse.stored import StoredTable

N, PATIENTS, SECONDS = 480, 310, 0.1
PLAN = nf.TrainingPlan(progress=False, max_epochs=400, patience=400)


def space(side: int = 14) -> Space:
    """2,300 voxels; 24,000 of side 31."""
    mask = np.random.default_rng(99).random((side, side + 1, side + 2)) < 0.7
    return Space(mask, np.diag([4.0, 4, 4, 1]), "MNI152NLin2009aSym")


def write_cohort(folder: Path) -> None:
    """Voxels on disk and a few regions, of healthy people and patients."""
    rng, where = np.random.default_rng(0), space()
    ids = [f"sub-{i:03d}" for i in range(N)]
    z = rng.normal(size=(N, 3))
    voxels = z @ rng.normal(size=(3, where.n_voxels)) * 0.5 + rng.normal(size=(N, where.n_voxels))
    voxels[:PATIENTS, :900] -= 1.0
    StoredTable.create(folder / "t1", ids, where.features).write(0, voxels)
    more = rng.normal(size=(N, space(31).n_voxels))
    more[:PATIENTS, 5000:5400] -= 1.0
    StoredTable.create(folder / "many", ids, space(31).features).write(0, more)
    regions = z @ rng.normal(size=(3, 20)) + rng.normal(size=(N, 20))
    pd.DataFrame(regions, ids, [f"r{j}" for j in range(20)]).to_csv(folder / "pet.csv")
    pd.DataFrame({"age": rng.uniform(20, 80, N), "site": rng.choice(["a", "b"], N),
                  "dx": ["AD"] * PATIENTS + ["CN"] * (N - PATIENTS)}, ids
                 ).to_csv(folder / "people.csv")


def cohort(folder: Path) -> nf.Cohort:
    """What :func:`write_cohort` wrote."""
    people, pet = (pd.read_csv(folder / f"{name}.csv", index_col=0) for name in ("people", "pet"))
    return nf.Cohort.from_frames(
        people, {"t1": StoredTable.open(folder / "t1"), "pet": pet}, reference="dx == 'CN'",
        covariates={"age": "continuous", "site": "site"}, spaces={"t1": space()})


def untrained() -> nf.NormativeModel:
    return nf.NormativeModel(n_latent=3, plan=PLAN, calibration=HeldOut())


def training(data: Path) -> Callable[[Path], Any]:
    """Of a model, saved; what was kept on the way is removed, as by ``normfuse fit``."""
    healthy = cohort(data).reference_subjects()

    def run(out: Path) -> None:
        untrained().fit(healthy, keep=out / ".kept").save(out / "model", overwrite=True)
        shutil.rmtree(out / ".kept")

    return run


def scoring(data: Path) -> Callable[[Path], Any]:
    """Of patients, onto disk."""
    model, people = nf.NormativeModel.load(data / "model"), cohort(data)
    patients = people.select(people.subjects.index[people.subjects["dx"] == "AD"])
    return lambda out: model.deviations(patients, to=out / "deviations", overwrite=True)


def statistics(data: Path) -> Callable[[Path], Any]:
    """Of voxels, with clusters of permuted maps."""
    people = cohort(data).subjects
    table = VoxelTable(StoredTable.open(data / "many"), people, space(31))

    def run(out: Path) -> None:
        compare_voxels(table, "dx", adjust=["age", "site"], contrast=("AD", "CN"),
                       correction=ClusterMass(500), resume=out / ".kept"
                       ).save(out / "groups", overwrite=True)
        shutil.rmtree(out / ".kept")

    return run


JOBS = {job.__name__: job for job in (training, scoring, statistics)}


def start(job: str, data: Path, out: Path) -> subprocess.Popen:
    """A process that is about to begin the job."""
    process = subprocess.Popen([sys.executable, __file__, "--job", job, "--data", str(data),
                                "--out", str(out)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def content(out: Path) -> dict[str, bytes]:
    """Every file by its path; folders too."""
    found = {}
    for path in sorted(out.rglob("*")):
        held = path.read_bytes() if path.is_file() else b""
        if path.name == "model.json":
            facts = json.loads(held)
            facts.pop("sha256")
            for reference in facts["references"].values():
                reference.pop("created")
            held = json.dumps(facts).encode()
        found[str(path.relative_to(out))] = held
    return found


def kept(out: Path) -> bool:
    """Whether there is work that a second run can take up."""
    return any(out.glob(".kept/*.npz")) or any(out.glob(".kept/*.pt")) \
        or any(out.glob(".deviations.unfinished/done/*"))


def measure(job: str, data: Path, base: Path, kills: int, seed: int) -> dict[str, object]:
    """One line of the table."""
    whole = base / f"{job}-whole"
    process = start(job, data, whole)
    before = cpu_seconds(process.pid)
    used = os.wait4(process.pid, 0)[2]
    takes = used.ru_utime + used.ru_stime - before
    expected, rng = content(whole), np.random.default_rng(seed)
    counts = {"hit": 0, "resumed": 0, "same": 0, "left_beside": 0}
    for k in range(kills):
        out = base / f"{job}-{k}"
        process = start(job, data, out)
        before, moment = cpu_seconds(process.pid), takes * (k + rng.random()) / kills
        while process.poll() is None and cpu_seconds(process.pid) - before < moment:
            time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        counts["hit"] += process.wait() == -signal.SIGKILL
        counts["resumed"] += kept(out)
        assert start(job, data, out).wait() == 0
        found = content(out)
        counts["left_beside"] += bool(set(found) - set(expected))
        counts["same"] += found == expected
        shutil.rmtree(out)
    return {"job": job, "cpu_seconds": round(takes, 1), "kills": kills, **counts}


def cpu_seconds(pid: int) -> float:
    """What a process has used: wall time says little beside busy neighbours."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        Checkpoint.__init__.__defaults__ = (SECONDS,)  # type: ignore[attr-defined, misc]
        voxel_table.COLUMNS = voxel_table.TILE
        run = JOBS[chosen.job](chosen.data)
        print("ready", flush=True)
        run(chosen.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_cohort(base)
        untrained().fit(cohort(base).reference_subjects()).save(base / "model")
        rows = [measure(job, base, base, chosen.kills, chosen.seed) for job in JOBS]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()

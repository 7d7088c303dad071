"""CPU seconds and peak memory of scoring many people, and of fitting to voxels.

One model of 232 regional measures of three modalities (600 reference people), and one of 29,398
voxels of one modality (200). People to be scored are drawn a piece at a time into stored tables
(zarr), so that nobody's measures lie in memory before they are read; half of the people with
tables lack a modality. ``model.deviations(cohort, to=folder)`` then runs in a fresh process with
one thread. Memory is the process's largest (VmHWM), and what it had after imports and after the
model was read; CPU seconds are of scoring alone. Fits: the same process reads a cohort of so many
people with these voxels and fits. Writes ``scoring_at_scale.csv`` beside this script if asked to
(``--keep``): the figure of the guide is drawn from it.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

WIDTHS = {"tables": {"t1": 100, "dti": 66, "pet": 66}, "voxels": {"t1": 29_398}}
REFERENCE = {"tables": 600, "voxels": 200}
PEOPLE = {"tables": (1_000, 10_000, 50_000), "voxels": (100, 400, 1_600)}
FITTED = (100, 200, 400)
COVARIATES = {"age": "continuous", "sex": "categorical", "site": "site"}
PIECE = 1024
KEPT = Path(__file__).with_suffix(".csv")


def people(n: int, seed: int) -> pd.DataFrame:
    """Covariates of so many people."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"age": rng.uniform(45, 85, n).round(1), "sex": rng.choice(["F", "M"], n),
                         "site": rng.choice(["a", "b", "c", "d"], n)},
                        index=pd.Index([f"p{seed}-{i:06d}" for i in range(n)],
                                       name="participant_id"))


def write(folder: Path, sort: str, n: int, seed: int) -> None:
    """Eight factors, covariates and noise; the same features mean the same for every seed."""
    from normfuse.stored import StoredTable

    who = people(n, seed)
    for k, (m, width) in enumerate(WIDTHS[sort].items()):
        law, rng = np.random.default_rng(100 + k), np.random.default_rng((seed, k))
        loadings = law.normal(scale=0.35, size=(8, width)).astype(np.float32)
        slopes, sites = law.normal(scale=0.2, size=(2, width)), law.normal(scale=0.2,
                                                                           size=(4, width))
        has = np.arange(n) % 4 != k if sort == "tables" and k else np.ones(n, bool)
        table = StoredTable.create(folder / m, who.index[has],
                                   [f"{m}-{j}" for j in range(width)])
        factors = np.random.default_rng((seed, 99)).normal(size=(n, 8)).astype(np.float32)[has]
        rows = who[has]
        for start in range(0, len(rows), PIECE):
            some = rows.iloc[start:start + PIECE]
            covariates = np.column_stack([(some["age"] - 65) / 10, some["sex"] == "M"])
            x = rng.standard_normal((len(some), width), dtype=np.float32)
            x += factors[start:start + PIECE] @ loadings
            x += (covariates @ slopes + sites[some["site"].map(list("abcd").index)]
                  ).astype(np.float32)
            table.write(start, x)
    who.to_csv(folder / "people.csv")


def cohort(folder: Path, sort: str) -> Any:
    """The tables stay on disk."""
    import normfuse as nf
    from normfuse.stored import StoredTable

    who = pd.read_csv(folder / "people.csv", index_col="participant_id", dtype={"site": str})
    return nf.Cohort.from_frames(who, {m: StoredTable.open(folder / m) for m in WIDTHS[sort]},
                                 covariates=COVARIATES)


def fit(sort: str, source: Path, target: Path) -> dict[str, Any]:
    """In this process."""
    import normfuse as nf

    nf.NormativeModel()  # loads torch and all else
    before, start = memory(), time.process_time()
    plan = nf.TrainingPlan(progress=False)
    model = nf.NormativeModel(plan=plan, seed=0).fit(cohort(source, sort))
    seconds = time.process_time() - start
    model.save(target)
    return {"cpu_seconds": round(seconds, 1), "peak_mib": memory("VmHWM"),
            "after_imports_mib": before}


def score(sort: str, source: Path, model: Path, target: Path) -> dict[str, Any]:
    """In this process."""
    import normfuse as nf

    nf.NormativeModel()  # loads torch and all else
    before = memory()
    fitted = nf.NormativeModel.load(model)
    read, start, wall = memory(), time.process_time(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fitted.deviations(cohort(source, sort), to=target)
    return {"cpu_seconds": round(time.process_time() - start, 2),
            "wall_seconds": round(time.perf_counter() - wall, 2), "peak_mib": memory("VmHWM"),
            "after_imports_mib": before, "model_read_mib": read, "scored": len(found),
            "mean z squared": round(float((found.blocks()["t1"].iloc[:64] ** 2).mean(None)), 3)
            if len(found) <= 1000 else None}


def memory(field: str = "VmRSS") -> int:
    """Of this process, MiB. Not ru_maxrss: that counts the process that started this one."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))


def run(*words: object) -> dict[str, Any]:
    """A task in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--task", *map(str, words)], check=True,
                          capture_output=True, text=True)
    print(*words, done.stdout.strip(), file=sys.stderr)
    return json.loads(done.stdout)


def measure(sort: str, place: Path, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Score cohorts of all sizes by one model."""
    reference, model = place / "reference", place / "model"
    write(reference, sort, REFERENCE[sort], 1)
    run("fit", sort, reference, model)
    rows = []
    for n in sizes:
        source = place / f"people-{n}"
        write(source, sort, n, 2)
        rows.append({"what": f"score {sort}", "people": n,
                     **run("score", sort, source, model, place / f"scored-{n}")})
    return rows


def main() -> None:
    if sys.argv[1:2] == ["--task"]:
        task, sort, *places = sys.argv[2:]
        done = {"fit": fit, "score": score}[task](sort, *map(Path, places))
        print(json.dumps(done))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the people scored")
    parser.add_argument("--only", choices=["tables", "voxels", "fits"])
    parser.add_argument("--keep", action="store_true", help="write scoring_at_scale.csv")
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for sort, sizes in PEOPLE.items():
        if chosen.only in (None, sort):
            with tempfile.TemporaryDirectory() as folder:
                sizes = tuple(max(70, n // 100) for n in sizes) if chosen.quick else sizes
                rows += measure(sort, Path(folder), sizes)
    for n in FITTED[:1] if chosen.quick else FITTED:
        if chosen.only in (None, "fits"):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder) / "reference", "voxels", n, 1)
                rows.append({"what": "fit voxels", "people": n, **run(
                    "fit", "voxels", Path(folder) / "reference", Path(folder) / "model")})
    table = pd.DataFrame(rows)
    print(table.to_json(orient="records", indent=1))
    if chosen.keep:
        table.to_csv(KEPT, index=False)


if __name__ == "__main__":
    main()

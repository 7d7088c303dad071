"""Group statistics in every voxel: CPU seconds and peak memory beside plain NumPy and nilearn.

A table of people x 235,375 voxels (nilearn's 2 mm mask of MNI152, float32 noise with an effect of
site) is written to zarr in a temporary folder. Each figure is of a process of its own, one thread:
CPU seconds of the work without imports, and the largest memory of that process (VmHWM) with what
it had after imports. ``plain`` is the shortest loop that gives the same t: 16,384 voxels at a time
from zarr, two products, no missing values, nothing but t. nilearn's ``permuted_ols`` shuffles the
first 10,000 voxels without blocks, as it knows none; ours the same voxels, without and within
site. ``--error-rates RUNS`` simulates how often corrections are wrong instead.
"""
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normfuse.analyses import MaxT, VoxelTable, compare_voxels
from normfuse.space import Space
from normfuse.stored import COLUMNS, StoredTable

SITES, SLICE = 10, 10_000
ADJUST = ("age", "sex", "site")


def people(n: int) -> pd.DataFrame:
    """Groups of unequal size, spread over sites in unequal shares."""
    rng = np.random.default_rng(1)
    site = rng.integers(0, SITES, n)
    case = rng.random(n) < 0.25 + 0.03 * site
    return pd.DataFrame({"dx": np.where(case, "AD", "CN"), "age": rng.normal(65, 9, n),
                         "sex": rng.choice(["F", "M"], n), "site": [f"s{k}" for k in site]},
                        index=[f"sub-{i:05d}" for i in range(n)])


def space() -> Space:
    """235,375 voxels."""
    from nilearn.datasets import load_mni152_brain_mask

    return Space.of(load_mni152_brain_mask(resolution=2), "MNI152NLin2009aSym")


def write(path: Path, n: int, n_voxels: int) -> None:
    """Noise, an effect of site, and one of the group in a tenth of the voxels."""
    rng, who, where = np.random.default_rng(0), people(n), space()
    table = StoredTable.create(path, who.index, where.features[:n_voxels])
    shift = rng.normal(scale=0.3, size=(SITES, n_voxels)).astype(np.float32)
    effect = np.where(np.arange(n_voxels) % 10 == 0, 0.2, 0).astype(np.float32)
    for start in range(0, n, 512):
        part = who.iloc[start:start + 512]
        values = rng.standard_normal((len(part), n_voxels), dtype=np.float32)
        values += shift[part["site"].str[1:].astype(int)]
        values[(part["dx"] == "AD").to_numpy()] += effect
        table.write(start, values)


def some(n_voxels: int) -> Space:
    """The first voxels of the mask."""
    whole = space()
    mask = np.zeros(whole.shape, bool)
    mask[tuple(whole.indices[:n_voxels].T)] = True
    return Space(mask, whole.affine, whole.name)


def design(who: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Who is a case, and the covariates."""
    covariates = pd.get_dummies(who[list(ADJUST)], drop_first=True, dtype=float)
    covariates["age"] -= covariates["age"].mean()
    return (who["dx"] == "AD").to_numpy(float), covariates.to_numpy()


def plain(table: StoredTable, who: pd.DataFrame) -> np.ndarray:
    """t by QR and two products a chunk."""
    case, covariates = design(who)
    q = np.linalg.qr(np.column_stack([np.ones(len(who)), covariates, case]))[0].astype("f4")
    df, found = len(who) - q.shape[1], []
    sign = np.sign(q[:, -1] @ case)
    for start in range(0, table.shape[1], COLUMNS):
        y = table.array[:len(who), start:start + COLUMNS]
        fitted = q.T @ y
        residual = np.einsum("ij,ij->j", y, y) - np.einsum("ij,ij->j", fitted, fitted)
        found.append(sign * fitted[-1] / np.sqrt(residual / df))
    return np.concatenate(found)


def task(name: str, path: Path, n: int, n_permutations: int, out: Path) -> dict[str, Any]:
    """One measurement, in this process."""
    table, who = StoredTable.open(path), people(StoredTable.open(path).shape[0]).iloc[:n]
    if name == "nilearn":
        from nilearn.mass_univariate import permuted_ols
    where = some(table.shape[1])
    before, start = memory(), time.process_time()
    wall = time.perf_counter()
    if name == "plain":
        t = plain(table, who)
    elif name == "nilearn":
        case, covariates = design(who)
        t = permuted_ols(case[:, None], table.values(features=slice(0, SLICE)).astype(np.float64),
                         confounding_vars=covariates, n_perm=n_permutations, random_state=0,
                         n_jobs=1)["t"][0]
    else:
        voxels = VoxelTable(table, who, where)
        options = {} if name == "ours" else {
            "correction": MaxT(n_permutations, blocks="site" if name == "blocks" else None)}
        t = compare_voxels(voxels, "dx", adjust=ADJUST, contrast=("AD", "CN"), **options).maps["t"]
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    np.save(out, np.asarray(t))
    return {"cpu_seconds": round(seconds, 2), "wall_seconds": round(wall, 2),
            "peak_mib": memory("VmHWM"), "after_imports_mib": before}


def memory(field: str = "VmRSS") -> int:
    """Of this process, MiB. Not ru_maxrss: that counts the process that started this one."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))


def run(name: str, path: Path, n: int, n_permutations: int = 0, rounds: int = 1
        ) -> tuple[dict[str, Any], np.ndarray]:
    """A measurement in processes of their own: medians, and t."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "t.npy"
        for _ in range(rounds):
            done = subprocess.run([sys.executable, __file__, "--task", name, str(path), str(n),
                                   str(n_permutations), str(out)], check=True,
                                  capture_output=True, text=True)
            found.append(json.loads(done.stdout))
        t = np.load(out)
    return {key: round(statistics.median(one[key] for one in found), 2) for key in found[0]}, t


def shuffled(path: Path, n: int, few: int, rounds: int) -> dict[str, Any]:
    """Cost of one permutation of one voxel, and the whole time of ``10 * few`` of them."""
    report: dict[str, Any] = {}
    t = {}
    # two numbers of permutations each: what does not grow with them is taken out
    for name, less, more in (("nilearn", 5, few), ("ours, without blocks", few, 10 * few),
                             ("ours, within site", few, 10 * few)):
        key = {"nilearn": "nilearn", "ours, within site": "blocks"}.get(name, "shuffled")
        (a, _), (b, t[name]) = (run(key, path, n, k, rounds) for k in (less, more))
        report[name] = {str(less): a, str(more): b, "cpu_ns_per_voxel_and_permutation": round(
            (b["cpu_seconds"] - a["cpu_seconds"]) / (more - less) / SLICE * 1e9, 1)}
    cost = {name: one["cpu_ns_per_voxel_and_permutation"] for name, one in report.items()}
    for name in list(cost)[1:]:
        report[name]["times_faster"] = round(cost["nilearn"] / cost[name], 1)
        report[name]["largest_difference_of_t"] = float(np.abs(t[name] - t["nilearn"]).max())
    return report


def measure(n: int, n_voxels: int, n_permutations: int, few: int, rounds: int) -> dict[str, Any]:
    """Everything, as JSON."""
    report: dict[str, Any] = {"n": n, "voxels": n_voxels, "rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        path, small = Path(folder) / "whole", Path(folder) / "slice"
        write(path, n, n_voxels)
        write(small, n, SLICE)
        ours, t = run("ours", path, n, rounds=rounds)
        loop, reference = run("plain", path, n, rounds=rounds)
        report["ols"] = {"ours": ours, "plain": loop,
                         "cpu_ratio": round(ours["cpu_seconds"] / loop["cpu_seconds"], 2),
                         "peak_ratio": round(ours["peak_mib"] / loop["peak_mib"], 2),
                         "largest_difference_of_t": float(np.abs(t - reference).max())}
        print(json.dumps(report), file=sys.stderr)
        report["permutations of 10,000 voxels"] = shuffled(small, n, few, rounds)
        print(json.dumps(report), file=sys.stderr)
        report[f"max-T within site, {n_permutations} permutations"] = run(
            "blocks", path, n, n_permutations)[0]
        report["peak memory by people"] = {
            str(k): {"ols": run("ours", path, k)[0],
                     "max-T, 100 permutations": run("blocks", path, k, 100)[0]}
            for k in (100, 400, 1600, 5000) if k <= n}
        narrow = Path(folder) / "narrow"
        write(narrow, min(n, 1600), n_voxels // 4)
        report["peak memory, a quarter of the voxels, 1600 people"] = None if n < 1600 else {
            "ols": run("ours", narrow, 1600)[0]}
    return report


def main() -> None:
    if sys.argv[1:2] == ["--task"]:
        name, path, n, n_permutations, out = sys.argv[2:]
        print(json.dumps(task(name, Path(path), int(n), int(n_permutations), Path(out))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="400 people, 100 permutations")
    parser.add_argument("--error-rates", type=int, metavar="RUNS",
                        help="instead: family-wise error and what is found, by simulation")
    chosen = parser.parse_args()
    if chosen.error_rates:
        from voxel_error_rates import error_rates

        print(json.dumps(error_rates(chosen.error_rates), indent=1))
        return
    n, permutations = (400, 100) if chosen.quick else (chosen.subjects, chosen.permutations)
    print(json.dumps(measure(n, 235_375, permutations, 50, chosen.rounds), indent=1))


if __name__ == "__main__":
    main()

"""`normfuse demo --voxels` from images to the report: cost of every command, and how good z is.

Runs the commands the demo prints, each in a process of its own with one thread, and measures CPU
seconds (of the process and what it starts, imports included) and its largest memory. Then, with
the truth that the simulation left in ``cohort/truth``:

* the share of held-out healthy people's voxels beyond |z| 1.96, with a 95 % interval over people;
* AUC of |z|, and of z signed as lesions are, for patients' planted voxels (inside the truth mask:
  at least half of a lesion's peak of 1.5 to 2 healthy sd) against voxels with less than a
  twentieth of an sd planted; "at best" is that of somebody who knows all but a voxel's own noise;
* Dice and sensitivity of thresholded group maps. The truth of a group: voxels inside the lesion of
  at least so large a share of the patients scanned. Detectable: those where a group of known
  effect, without any model error, would be found in more than half of all studies: the mean effect
  planted in those patients, in units of what focal deviations leave of healthy variation at best,
  gives a t above the threshold that corrected p < .05 asked for.

``--folder`` judges a demo that is there already, without costs.
"""
from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score

from normfuse.analyses import BenjaminiHochberg, VoxelComparison, VoxelTable, compare_voxels
from normfuse.calibration_check import share_row
from normfuse.cli import demo
from normfuse.deviations import Deviations
from normfuse.population import SHARE_PRIVATE, SHARE_SHARED
from normfuse.simulated_volumes import SIGNS, SimulatedVolumes

SHARES = (1 / 3, 0.5)
BEST_SD = float(np.sqrt(1 - SHARE_SHARED - SHARE_PRIVATE))
"""What is left of healthy variation if all factors of a person were known exactly."""

NOTHING = 0.05  # sd; below it a voxel of a patient counts as healthy
TASK = """
import json
import resource
import sys
from pathlib import Path
exec(sys.argv[1])
usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
status = Path("/proc/self/status").read_text()
peak = next(int(l.split()[1]) for l in status.splitlines() if l.startswith("VmHWM"))
print(json.dumps([sum(u.ru_utime + u.ru_stime for u in usage), peak / 1024]), file=sys.stderr)
"""


def commands(out: Path, size: dict[str, Any], seed: int) -> list[tuple[str, str]]:
    """Name and Python of every step of the demo."""
    n_reference, n_patients = size["people"]
    steps = [("simulate", "from normfuse.simulated_volumes import simulate_volumes; "
              f"simulate_volumes({str(out / 'cohort')!r}, {n_reference}, {n_patients}, "
              f"resolution={size['resolution']}, seed={seed})")]
    for line in demo.voxel_commands(out, out / "cohort" / "cohort.toml", seed, size):
        words = shlex.split(line)
        name = words[0] + (" --by mass" if "mass" in words else "")
        steps.append((name, "from normfuse.cli import app; "
                      f"app({words!r}, standalone_mode=False)"))
    return steps


def run(out: Path, size: dict[str, Any], seed: int) -> dict[str, Any]:
    """Cost of every step, and of all."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found: dict[str, Any] = {}
    for name, code in commands(out, size, seed):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", TASK, code], check=True, env=environment,
                              capture_output=True, text=True)
        cpu, peak = json.loads(done.stderr.strip().splitlines()[-1])
        found[name] = {"cpu_seconds": round(cpu, 1), "peak_mib": round(peak),
                       "wall_seconds": round(time.perf_counter() - start, 1)}
        print(name, found[name], file=sys.stderr)
    found["all"] = {"cpu_seconds": round(sum(v["cpu_seconds"] for v in found.values()), 1),
                    "peak_mib": max(v["peak_mib"] for v in found.values())}
    return found


def judge(out: Path) -> dict[str, Any]:
    """What the demo's folder says beside what was planted."""
    found = Deviations.read(out / "deviations")
    report: dict[str, Any] = {}
    for m in found.modalities:
        space = found.space(m)
        assert space is not None
        lesions = pd.read_csv(out / "cohort/truth/lesions.tsv", sep="\t")
        truth = SimulatedVolumes(out / "cohort/cohort.toml", lesions, space)
        z = found.blocks()[m].dropna(how="all")
        ill = found.subjects.loc[z.index, "group"] == "patient"
        healthy, people = z[~ill].to_numpy(), z[ill]
        effects = np.array([truth.effect(who, m) for who in people.index])
        inside = np.array([nib.load(out / f"cohort/truth/{who}_{m}_lesion.nii.gz").get_fdata()[
            space.mask] > 0.5 for who in people.index])
        beyond = share_row(m, 0.05, np.abs(healthy) > 1.96, healthy.size)
        report[m] = {
            "held-out healthy beyond 1.96": {
                "share": round(beyond["share"], 4), "low": round(beyond["low"], 4),
                "high": round(beyond["high"], 4), "people": len(healthy)},
            "auc of planted voxels": _auc(people.to_numpy(), effects, inside, SIGNS[m]),
            "group maps": _groups(out, found, m, effects, inside)}
    return report


def _auc(z: np.ndarray, effects: np.ndarray, inside: np.ndarray, sign: float) -> dict[str, Any]:
    """Mean over patients with a lesion in this modality, 95 % interval over them."""
    rows = []
    for values, planted, lesion in zip(z, effects, inside):
        used = lesion | (np.abs(planted) < NOTHING)
        if lesion.any():
            below = stats.norm.cdf(planted[lesion] / BEST_SD / np.sqrt(2))
            rows.append((roc_auc_score(lesion[used], np.abs(values[used])),
                         roc_auc_score(lesion[used], sign * values[used]),
                         (below ** 2 + (1 - below) ** 2).mean()))
    each = np.array(rows)
    half = stats.t.isf(0.025, len(each) - 1) * each.std(0, ddof=1) / np.sqrt(len(each))
    mean = each.mean(0)
    return {"patients with a lesion": len(each), "voxels planted": int(inside.sum()),
            "|z|": [round(float(v), 3) for v in (mean[0], mean[0] - half[0], mean[0] + half[0])],
            "signed z": [round(float(v), 3) for v in (mean[1], mean[1] - half[1],
                                                      mean[1] + half[1])],
            "|z| at best": round(float(mean[2]), 3)}


def _groups(out: Path, found: Deviations, m: str, effects: np.ndarray, inside: np.ndarray
            ) -> dict[str, Any]:
    """Dice, sensitivity and precision of each thresholded map."""
    largest = VoxelComparison.read(out / "voxel_groups" / m)
    n1, n0 = (int(np.nanmax(largest.maps[name])) for name in ("n_case", "n_baseline"))
    maps = {"max-T, p_fwe < .05": largest.significant(),
            "cluster mass, p_fwe < .05":
                VoxelComparison.read(out / "voxel_clusters" / m).significant(),
            "q < .05": compare_voxels(
                VoxelTable.of(found, m), "group", adjust=("age", "sex"),
                contrast=("patient", "control"), correction=BenjaminiHochberg()).significant()}
    threshold = float(np.quantile(largest.null["largest t"], 0.95))
    d = effects / BEST_SD
    pooled = np.sqrt(1 + (n1 - 1) * d.var(0, ddof=1) / (n1 + n0 - 2))
    best = np.abs(d.mean(0)) / pooled / np.sqrt(1 / n1 + 1 / n0)
    report: dict[str, Any] = {
        "patients": n1, "controls": n0, "t for p_fwe .05": round(threshold, 2),
        "largest |t|": round(float(np.nanmax(np.abs(largest.maps["t"]))), 2),
        "largest |t| at best": round(float(best.max()), 2),
        "detectable voxels": int((best > threshold).sum())}
    for share in SHARES:
        truth = inside.mean(0) >= share
        report[f"in {share:.0%} of patients or more"] = {
            "voxels": int(truth.sum()),
            "of them detectable": int((truth & (best > threshold)).sum()), **{
                name: _overlap(marked, truth) for name, marked in maps.items()}}
    return report


def _overlap(marked: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    both = int((marked & truth).sum())
    return {"marked": int(marked.sum()), "in truth": both,
            "dice": round(2 * both / max(1, int(marked.sum() + truth.sum())), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a demo's --out, in the place of a new one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the demo's --quick")
    chosen = parser.parse_args()
    if chosen.folder:
        print(json.dumps({"quality": judge(chosen.folder)}, indent=1))
        return
    size = demo.QUICK_VOXELS if chosen.quick else demo.VOXELS
    with tempfile.TemporaryDirectory() as folder:
        cost = run(Path(folder), size, chosen.seed)
        print(json.dumps({"people": size["people"], "resolution_mm": size["resolution"],
                          "seed": chosen.seed, "cost": cost, "quality": judge(Path(folder))},
                         indent=1))


if __name__ == "__main__":
    main()

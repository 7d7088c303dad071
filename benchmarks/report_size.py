"""Time to build and size of a report on many people, and how light it is in a browser.

Made-up z of 500 people and 60 controls in 232 regions of atlas dk (t1 100, dti 66, pet 66; a
quarter of the people lack dti, another pet), six factors and noise; a comparison of two groups,
correlations with a score, extreme counts. No model is fitted. Measured: CPU seconds and bytes of
the cohort's page with and without an atlas, of a page of one person (mean over some), and in
Chromium, if it is there: seconds until the page is ready, to sort the people by distance, and the
memory of its script (JSHeapUsedSize).
"""
from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from normfuse import load_atlas
from normfuse.analyses import MaxT, Report, associations, compare_groups, extreme_counts
from normfuse.deviations import ROLE, Deviations, Reference

WIDTHS = {"t1": 100, "dti": 66, "pet": 66}
PAGES = 8  # of people, to take the mean of


def scored(n: int, role: str, group: np.ndarray, seed: int, names: pd.MultiIndex,
           reference: Reference) -> Deviations:
    """So many people, whose brains share six factors."""
    rng = np.random.default_rng(seed)
    index = pd.Index([f"{role}-{k:04d}" for k in range(n)], name="participant_id")
    loadings = np.random.default_rng(9).normal(size=(6, len(names))) / np.sqrt(12)
    z = rng.normal(size=(n, 6)) @ loadings + rng.normal(size=(n, len(names))) * np.sqrt(0.5)
    z = pd.DataFrame(z, index, names)
    for k, m in enumerate(("dti", "pet")):
        z.loc[np.arange(n) % 4 == k, m] = np.nan
    latent = pd.DataFrame(rng.normal(size=(n, 10)), index, [f"z{k + 1}" for k in range(10)])
    far = np.sqrt((latent ** 2).sum(axis=1))
    distance = pd.DataFrame({"distance": far, "p": stats.chi2.sf(far ** 2, 10),
                             "p_conformal": rng.uniform(size=n).clip(1 / 61),
                             "n_calibration": 60})
    subjects = pd.DataFrame({
        "age": rng.uniform(45, 85, n).round(1), "sex": rng.choice(["F", "M"], n),
        "diagnosis": group, "score": rng.normal(26, 3, n).round(), ROLE: role}, index)
    return Deviations(z, 5 + 0.3 * z, 5 + 0 * z, latent, distance, subjects, reference)


def simulated(n: int) -> Deviations:
    """Half of them patients."""
    regions = load_atlas("dk").regions["name"].tolist()
    names = pd.MultiIndex.from_tuples([(m, f) for m, width in WIDTHS.items()
                                       for f in regions[:width]], names=["modality", "feature"])
    reference = Reference(
        "focal", "WassersteinBarycenter()", 10, 0, {"training": 400, "early_stop": 80,
                                                    "calibration": 60},
        {"age": {"kind": "continuous", "range": [45.0, 85.0]},
         "sex": {"kind": "categorical", "levels": {"F": 270, "M": 270}}},
        {m: {"unit": "", "n_features": width, "n_present": 540} for m, width in WIDTHS.items()})
    controls = scored(60, "calibration", np.repeat("CN", 60), 1, names, reference)
    groups = np.where(np.arange(n) % 2, "AD", "CN")
    return scored(n, "new", groups, 0, names, reference).changed(controls=controls)


def timed(work: Any) -> tuple[float, Any]:
    """CPU seconds, and what came out."""
    start = time.process_time()
    made = work()
    return round(time.process_time() - start, 2), made


def in_browser(path: Path) -> dict[str, float]:
    """Nothing if there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return {}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        ready = time.perf_counter() - start
        heap = page.context.new_cdp_session(page)
        heap.send("Performance.enable")
        used = {m["name"]: m["value"] for m in heap.send("Performance.getMetrics")["metrics"]}
        slow = page.evaluate("""() => {
            const button = document.querySelectorAll("#people-table thead button")[4];
            const start = performance.now(); button.click(); return performance.now() - start}""")
        browser.close()
    return {"ready_s": round(ready, 2), "sort_ms": round(slow, 1),
            "heap_mb": round(used["JSHeapUsedSize"] / 1e6, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=500)
    n = parser.parse_args().people
    deviations, atlas = simulated(n), load_atlas("dk")
    results = [compare_groups(deviations, "diagnosis"), associations(deviations, ["score"]),
               extreme_counts(deviations, "diagnosis", shuffles=MaxT(50, blocks=None, seed=0))]
    found: dict[str, Any] = {"people": n, "features": deviations.z.shape[1]}
    with tempfile.TemporaryDirectory() as folder:
        for name, where in (("plain", None), ("maps", atlas)):
            report = Report(deviations, results, atlas=where)
            path = Path(folder, f"{name}.html")
            seconds, _ = timed(lambda: report.write(path))
            some = Path(folder, name)
            each, _ = timed(lambda: report.write_subjects(some, ids=deviations.z.index[:PAGES]))
            sizes = [f.stat().st_size for f in some.iterdir() if f.name != "index.html"]
            found[name] = {"cpu_s": seconds, "mb": round(path.stat().st_size / 1e6, 2),
                           "person_cpu_s": round(each / PAGES, 2),
                           "person_mb": round(float(np.mean(sizes)) / 1e6, 2),
                           **in_browser(path)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

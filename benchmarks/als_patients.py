"""Patients with a known effect: amyotrophic lateral sclerosis, 20 tracts by FA, MD, RD and AD.

24 controls and 24 patients. So few controls are cross-fitted by default: each is scored by a model
that did not see them, patients by one fitted on all. In ALS the corticospinal tracts lose FA and
gain RD and MD; the table says where they stand among all 80 measures, by each kind of deviation.
"""
from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import pandas as pd

import normfuse as nf
from normfuse.analyses import compare_groups
from normfuse.calibration_check import share_row

DATA = Path(__file__).parents[1] / ".." / "shared" / "data" / "tables" / "als_tractometry"
UNITS = {"FA": "", "MD": "um2/ms", "RD": "um2/ms", "AD": "um2/ms"}


def read_als(folder: Path = DATA) -> nf.Cohort:
    """The ALS table as a cohort of four modalities; tracts that were not found stay missing."""
    table = pd.read_csv(folder / "cohort_als.csv", dtype={"subjectID": str})
    table = table.set_index("subjectID")
    frames = {m: table[[c for c in table if c.startswith(f"{m}_")]].rename(
        columns=lambda c: c.partition("_")[2]) for m in UNITS}
    return nf.Cohort.from_frames(
        table[["age", "sex", "diagnosis"]], frames, units=UNITS,
        covariates={"age": "continuous", "sex": "categorical"},
        reference="diagnosis != 'ALS'")


def score(cohort: nf.Cohort, seed: int) -> dict[str, nf.Deviations]:
    """Deviations of every kind by a model of default settings."""
    model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False)
                              ).fit(cohort.reference_subjects())
    return {kind.name: model.deviations(cohort, kind=kind) for kind in model.kinds}


def report(deviations: nf.Deviations, top: int) -> dict[str, object]:
    """Where the corticospinal tracts stand, and how calibrated the controls are."""
    control = next(d for d in deviations.subjects["diagnosis"].unique() if d != "ALS")
    comparison = compare_groups(deviations, "diagnosis", adjust=["age", "sex"], baseline=control)
    table = comparison.table.sort_values("p").reset_index()
    table["place"] = range(1, len(table) + 1)
    columns = ["place", "modality", "feature", "difference", "g", "g_low", "g_high", "t", "p", "q",
               "raw_t", "raw_q", "n_case", "n_baseline"]
    cst = table[table["feature"].str.contains("Corticospinal")]
    healthy = deviations.select(f"diagnosis == '{control}'").z
    beyond = healthy.abs().gt(1.96).where(healthy.notna()).to_numpy(float)
    return {"n": comparison.n, "family": comparison.family,
            "top": table[columns].head(top).round(5).to_dict("records"),
            "corticospinal": cst[columns].round(5).to_dict("records"),
            "controls_beyond_1.96": share_row("z", 0.05, beyond, int(healthy.notna().sum().sum()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--top", type=int, default=6)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    for seed in range(arguments.seeds):
        found = {kind: report(deviations, arguments.top) for kind, deviations
                 in score(read_als(), seed).items()}
        print(json.dumps({"seed": seed, **found}, indent=1, default=str), flush=True)


if __name__ == "__main__":
    main()

"""Figures: what the artists hold is compared with the tables they were drawn from.

How a figure looks has no witness here; it was judged by eye.
"""
from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from normfuse.deviations import ROLE, Deviations, Reference

GYRI = """bankssts caudalanteriorcingulate caudalmiddlefrontal cuneus entorhinal fusiform
inferiorparietal inferiortemporal isthmuscingulate lateraloccipital lateralorbitofrontal lingual
medialorbitofrontal middletemporal parahippocampal paracentral parsopercularis parsorbitalis
parstriangularis pericalcarine postcentral posteriorcingulate precentral precuneus
rostralanteriorcingulate rostralmiddlefrontal superiorfrontal superiorparietal superiortemporal
supramarginal frontalpole temporalpole transversetemporal insula""".split()
DEEP = "Thalamus-Proper Caudate Putamen Pallidum Hippocampus Amygdala Accumbens-area".split()
CORTEX = [f"ctx-{side}-{gyrus}" for side in ("lh", "rh") for gyrus in GYRI]
REGIONS = {"t1": CORTEX + [f"{side}-{part}" for side in ("Left", "Right") for part in DEEP],
           "dti": [name.replace("ctx-", "wm-") for name in CORTEX], "pet": CORTEX}
UNITS = {"t1": "mm3", "dti": "FA", "pet": "SUVR"}
LOSS = {"CN": 0.0, "MCI": 0.4, "AD": 1.1}


def reference_of_calibration(z: pd.DataFrame, distance: pd.DataFrame) -> Reference:
    """A reference whose calibration rows and quantiles are those of the given controls."""
    rows, quantiles = [], {}
    grid = np.linspace(0.002, 0.998, 99)
    for name in (*REGIONS, "all"):
        block = (z if name == "all" else z[name]).dropna(how="all")
        for nominal in (0.05, 0.01):
            share = (block.abs() > stats.norm.isf(nominal / 2)).mean(axis=1)
            half = 1.96 * share.std() / np.sqrt(len(share))
            rows.append({"quantity": f"z {name}", "nominal": nominal, "share": share.mean(),
                         "low": max(share.mean() - half, 0), "high": share.mean() + half,
                         "n_subjects": len(share), "n_values": int(block.notna().sum().sum()),
                         "mean": np.nanmean(block), "sd": np.nanstd(block)})
        if name != "all":
            quantiles[name] = {"theoretical": stats.norm.ppf(grid).tolist(),
                               "observed": np.nanquantile(block, grid).tolist()}
    for nominal in (0.05, 0.01):
        share = (distance["p"] < nominal).mean()
        rows.append({"quantity": "latent distance", "nominal": nominal, "share": share,
                     "low": max(share - 0.04, 0), "high": share + 0.05, "n_subjects": len(z),
                     "n_values": len(z), "mean": np.nan, "sd": np.nan})
    epochs = np.arange(1, 121)
    fall = 180 * np.exp(-epochs / 6) + 95
    history = [{"epoch": int(e), "training": float(f - 0.08 * e),
                "validation": float(f + 3 + 0.0008 * (e - 70) ** 2)}
               for e, f in zip(epochs, fall)]
    return Reference(
        kind="reconstruction", fusion="WassersteinBarycenter()", n_latent=8, seed=11,
        n_subjects={"training": 210, "early_stop": 52, "calibration": len(z)},
        covariates={"age": {"kind": "continuous", "range": [21.0, 84.5]},
                    "sex": {"kind": "categorical", "levels": {"F": 160, "M": 142}},
                    "site": {"kind": "site", "levels": {"north": 150, "south": 100, "west": 52}}},
        modalities={m: {"unit": UNITS[m], "n_features": len(f), "n_present": n}
                    for (m, f), n in zip(REGIONS.items(), (302, 255, 190))},
        history=history, calibration=rows, quantiles=quantiles,
        versions={"normfuse": "0.1.0", "python": "3.11.9"}, created="2025-01-02T03:04:05+00:00",
        notes=("sex is scored only for people whose sex occurs in the reference",))


def _people(ids: list[str], diagnosis: np.ndarray, role: str,
            rng: np.random.Generator) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    index = pd.Index(ids, name="participant_id")
    columns = pd.MultiIndex.from_tuples([(m, f) for m, names in REGIONS.items() for f in names],
                                        names=["modality", "feature"])
    loss = np.array([LOSS[d] for d in diagnosis])
    hit = np.array([1.0 if part.split("-")[-1] in ("Hippocampus", "entorhinal", "precuneus")
                    else 0.25 for _, part in columns])
    z = 0.5 * rng.normal(size=(len(ids), 1)) + 0.87 * rng.normal(size=(len(ids), len(columns)))
    z = pd.DataFrame(z - np.outer(loss * rng.uniform(0.5, 2, len(ids)), hit), index, columns)
    for name, share in (("dti", 0.15), ("pet", 0.35)):
        z.loc[rng.uniform(size=len(ids)) < share, name] = np.nan
    z.iloc[3, 5] = np.nan
    distance = np.sqrt(rng.chisquare(8, len(ids))) + 1.3 * loss
    tables = {"z": z, "observed": 5 + 0.3 * z, "expected": z * 0 + 5,
              "latent": pd.DataFrame(rng.normal(size=(len(ids), 8)), index),
              "distance": pd.DataFrame({"distance": distance, "p": stats.chi2.sf(distance**2, 8),
                                        "n_calibration": 30}, index)}
    subjects = pd.DataFrame({"age": rng.uniform(55, 84, len(ids)).round(1),
                             "sex": rng.choice(["F", "M"], len(ids)),
                             "site": rng.choice(["north", "south", "west"], len(ids)),
                             "diagnosis": diagnosis, ROLE: role}, index)
    return tables, subjects


def realistic_deviations(n: int = 60, *, seed: int = 3) -> Deviations:
    """Patients and new controls scored on three modalities; held-out controls as ``controls``."""
    rng = np.random.default_rng(seed)
    held_out, control_table = _people([f"ctl-{i:03d}" for i in rng.permutation(40)],
                                      np.full(40, "CN"), "calibration", rng)
    reference = reference_of_calibration(held_out["z"], held_out["distance"])
    diagnosis = np.resize(["AD", "MCI", "MCI", "CN"], n)
    tables, subjects = _people([f"sub-{i:03d}" for i in rng.permutation(n)], diagnosis, "new", rng)
    controls = Deviations(**held_out, subjects=control_table, reference=reference)
    return Deviations(**tables, subjects=subjects, reference=reference, controls=controls)

"""How many controls are enough? Models of 30 to 1,000 healthy people score the same new people.

Two sources: ``simulated``, three modalities of 239 regions, nothing missing, patients with planted
deviations; and ``fcon1000``, the five largest sites, 148 thickness regions, where in each person
held out 5 random regions are lowered by 1 residual sd (of least squares on splines in everybody).
Smaller references are parts of larger ones, with sites in proportion; those held out (300, 200)
are the same for all sizes. A model has the default settings: below 150 people it is cross-fitted.

Per size and kind (``focal``, ``covariates``): share of the held-out people's |z| beyond 1.96 and
2.58 (nominal .0500, .0099), sd of z, MACE, EXPV and MSLL (against mean and sd of the people of the
fit), the last two also of the spline regression of the same people; ROC AUC of planted cells
against the others of the same people, and the share of planted cells beyond 1.96 in the planted
direction. Rows go to ``how_many_controls.csv``; what is there is not done again. Prints JSON:
means over seeds with 95 % t intervals. Half an hour for one core.
"""
from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real_tables import fcon1000
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import SplineTransformer

import normfuse as nf

FILE = Path(__file__).with_suffix(".csv")
SIZES = (30, 50, 100, 200, 400, 700, 1000)
KINDS = ("focal", "covariates")
SITES, LOWERED = 5, 5


@dataclass(frozen=True)
class People:
    """Who may teach, who is held out, and who carries what, of one seed."""

    pool: nf.Cohort
    healthy: nf.Cohort
    patients: nf.Cohort
    effect: pd.DataFrame


def simulated(seed: int) -> People:
    """1,000 people to learn from, 300 held out, 120 patients."""
    made = nf.simulate_cohort(1300, 120, seed=seed, missing=0.0)
    controls, patients = made.cohort.split("diagnosis == 'CN'")
    ids = in_proportion(controls.subjects["site"], seed)
    return People(controls.select(ids[:1000]), controls.select(ids[1000:]), patients,
                  made.truth.effect.loc[patients.ids])


def real(seed: int) -> People:
    """460 people or so to learn from, 200 held out, in whom deviations are planted."""
    whole = fcon1000()
    largest = whole.subjects["site"].value_counts().index[:SITES]
    kept = whole.select(whole.ids[whole.subjects["site"].isin(largest)])
    block = kept.features["thickness"]
    cohort = nf.Cohort.from_frames(kept.subjects, {"thickness": block},
                                   covariates=kept.covariates)
    ids = in_proportion(cohort.subjects["site"], seed)
    healthy = cohort.select(ids[-200:])
    rng, effect = np.random.default_rng(seed), np.zeros((200, block.shape[1]))
    for row in effect:
        row[rng.choice(len(row), LOWERED, replace=False)] = -1
    lowered = healthy.features["thickness"] + effect * residual_sd(cohort)
    patients = nf.Cohort.from_frames(healthy.subjects, {"thickness": lowered},
                                     covariates=cohort.covariates)
    columns = pd.MultiIndex.from_product([["thickness"], block.columns])
    return People(cohort.select(ids[:-200]), healthy, patients,
                  pd.DataFrame(effect, healthy.ids, columns))


SOURCES: dict[str, Callable[[int], People]] = {"simulated": simulated, "fcon1000": real}


def in_proportion(sites: pd.Series, seed: int) -> pd.Index:
    """Everybody in an order whose every beginning holds the sites in proportion."""
    drawn = sites.sample(frac=1, random_state=seed)
    place = drawn.groupby(drawn).cumcount() / drawn.groupby(drawn).transform("size")
    return place.sort_values(kind="stable").index


def residual_sd(cohort: nf.Cohort) -> np.ndarray:
    """Of least squares on age (spline), sex and site, in everybody: the unit of the planted."""
    who, y = cohort.subjects, cohort.features["thickness"].to_numpy()
    design = np.hstack([SplineTransformer(n_knots=5).fit_transform(who[["age"]]),
                        pd.get_dummies(who[["sex", "site"]].astype(str)).to_numpy(float)])
    return (y - design @ np.linalg.lstsq(design, y, rcond=None)[0]).std(0, ddof=1)


def one_fit(people: People, n: int, seed: int) -> list[dict[str, float | str]]:
    """One row a kind of deviation."""
    start = time.process_time()
    plan = nf.TrainingPlan(progress=False)
    model = nf.NormativeModel(seed=seed, plan=plan).fit(people.pool.select(people.pool.ids[:n]))
    seconds = time.process_time() - start
    rows: list[dict[str, float | str]] = []
    for kind in KINDS:
        z = model.deviations(people.healthy, kind=kind).z.to_numpy()
        ill = model.deviations(people.patients, kind=kind).z[people.effect.columns]
        means = nf.evaluate(model, people.healthy, kind=kind).means
        effect = people.effect.loc[ill.index].to_numpy()
        marked, along = effect != 0, ill.to_numpy() * np.sign(effect)
        rows.append({
            "n": n, "seed": seed, "kind": kind, "fit_cpu_seconds": seconds,
            "beyond_1.96": (np.abs(z) > 1.96).mean(), "beyond_2.58": (np.abs(z) > 2.5758).mean(),
            "sd_z": z.std(ddof=1),
            **means[["MACE", "EXPV", "MSLL", "EXPV_spline", "MSLL_spline", "beyond_1.96_spline"]],
            "auc": roc_auc_score(marked.ravel(), np.abs(ill.to_numpy()).ravel()),
            "found": (along[marked] > 1.96).mean()})
    return rows


def summary(table: pd.DataFrame) -> dict[str, object]:
    """Mean over seeds and 95 % t interval, per source, kind and n."""
    found: dict[str, object] = {}
    for (source, kind, n), rows in table.groupby(["source", "kind", "n"], sort=False):
        values = rows.drop(columns=["source", "kind", "n", "seed"])
        half = stats.t.isf(0.025, len(rows) - 1) * values.std() / np.sqrt(len(rows))
        found[f"{source} {kind} {n}"] = {"seeds": len(rows), **{
            name: [round(float(v), 4) for v in (values[name].mean(), values[name].mean() - h,
                                                values[name].mean() + h)]
            for name, h in half.items()}}
    return found


def markdown(table: pd.DataFrame, source: str) -> str:
    """The table of the guide: mean and 95 % interval over seeds."""
    rows = table[table["source"] == source]
    columns = {"beyond 1.96, `focal`": ("focal", "beyond_1.96"),
               "`covariates`": ("covariates", "beyond_1.96"),
               "spline": ("covariates", "beyond_1.96_spline"),
               "sd of z, `covariates`": ("covariates", "sd_z"),
               "MSLL, `covariates`": ("covariates", "MSLL"),
               "spline ": ("covariates", "MSLL_spline"),
               "AUC, `focal`": ("focal", "auc"), "`covariates` ": ("covariates", "auc"),
               "found, `focal`": ("focal", "found")}
    lines = [f"| n | {' | '.join(name.strip() for name in columns)} |",
             "|" + "---:|" * (len(columns) + 1)]
    for n, part in rows.groupby("n"):
        cells = []
        for kind, name in columns.values():
            values = part.loc[part["kind"] == kind, name]
            half = stats.t.isf(0.025, len(values) - 1) * values.std() / np.sqrt(len(values))
            cells.append(f"{values.mean():.3f} ± {half:.3f}")
        lines.append(f"| {n:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--markdown", action="store_true", help="print the guide's tables only")
    parser.add_argument("--file", type=Path, default=FILE)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    table = pd.read_csv(arguments.file) if arguments.file.exists() else pd.DataFrame()
    if arguments.markdown:
        print("\n\n".join(markdown(table, source) for source in arguments.sources))
        return
    for seed in range(arguments.seeds):
        for source in arguments.sources:
            people = SOURCES[source](seed)
            for n in (n for n in arguments.sizes if n <= len(people.pool)):
                if len(table) and (table[["source", "n", "seed"]] == [source, n, seed]
                                   ).all(axis=1).any():
                    continue
                rows = pd.DataFrame(one_fit(people, n, seed)).round(5)
                table = pd.concat([table, rows.assign(source=source)], ignore_index=True)
                table.to_csv(arguments.file, index=False)
    print(json.dumps(summary(table), indent=1))


if __name__ == "__main__":
    main()

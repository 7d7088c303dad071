"""Does pre-training encoders of tables help a normative model? Beside one that starts afresh.

    OMP_NUM_THREADS=1 python benchmarks/pretraining_tables.py

Five simulated cohorts of three modalities (82, 75 and 82 regions); for each, models fitted to 150
and to 300 healthy people, afresh or from ``Pretraining(objective)``, made on those who train. All
have the same people, seeds and networks. Judged on 200 other healthy people (log p a feature,
nats; share of |z| beyond 1.96, nominal .05) and on 60 patients (area under the ROC curve of
planted cells by |z|, all modalities together; and of one modality when it is the only one).
"""
from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.inference import Amortised, Refined
from normfuse.imaging.pretraining import Pretraining
from normfuse.imaging.topology_nets import Topology

OUT = Path("out/pretraining")
ARMS = {"scratch": None, "reconstruction": Topology(intra=0, inter=0),
        "intra": Topology(inter=0), "intra + inter": Topology()}
INFERENCES = {"refined": Refined(), "amortised": Amortised()}


def one(arm: str, n: int, seed: int) -> list[dict[str, Any]]:
    made = nf.simulate_cohort(n + 200, 60, seed=seed)
    controls, patients = made.cohort.split("diagnosis == 'CN'")
    learn, judge = controls.select(controls.ids[:n]), controls.select(controls.ids[n:])
    rows = []
    for name, inference in INFERENCES.items():
        how = ARMS[arm]
        model = nf.NormativeModel(
            seed=seed, inference=inference, calibration=nf.HeldOut(), encoders=None if how is None
            else Pretraining(how, seed=seed))
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(learn)
            rows.append({"arm": arm, "n": n, "seed": seed, "inference": name,
                         "cpu_s": time.process_time() - start, **judged(model, judge, patients,
                                                                        made.truth.planted)})
    return rows


def judged(model: nf.NormativeModel, healthy: nf.Cohort, patients: nf.Cohort,
           planted: pd.DataFrame) -> dict[str, float]:
    z = model.deviations(healthy, skip_uncalibrated=True).z
    found = {"log p": float(model.log_likelihood(healthy)["per_feature"].mean()),
             "beyond": float((z.abs() > 1.96).to_numpy()[z.notna().to_numpy()].mean()),
             "all": auc(model, patients, planted)}
    for name in ("t1", "pet"):
        alone = patients.without(*(m.name for m in patients.modalities if m.name != name))
        alone = alone.select(alone.ids[alone.present[name].to_numpy()])
        found[f"{name} alone"] = auc(model, alone, planted)
    return found


def auc(model: nf.NormativeModel, people: nf.Cohort, planted: pd.DataFrame) -> float:
    z = model.deviations(people, skip_uncalibrated=True).z.abs().dropna(axis=1, how="all")
    truth, score = planted.loc[z.index, z.columns].to_numpy().ravel(), z.to_numpy().ravel()
    seen = ~np.isnan(score)
    return float(roc_auc_score(truth[seen], score[seen]))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    file = OUT / "tables.csv"
    done = set(map(tuple, pd.read_csv(file)[["arm", "n", "seed"]].to_numpy())) \
        if file.exists() else set()
    for seed in range(5):
        for n in (150, 300):
            for arm in ARMS:
                if (arm, n, seed) not in done:
                    rows = pd.DataFrame(one(arm, n, seed))
                    rows.to_csv(file, mode="a", header=not file.exists(), index=False)
                    print(rows.round(3).to_string(index=False, header=False), flush=True)
    table(pd.read_csv(file))


def table(found: pd.DataFrame) -> None:
    """Means, and paired differences from scratch with their standard errors over cohorts."""
    keys = ["inference", "n"]
    measures = ["log p", "beyond", "all", "t1 alone", "pet alone"]
    for key, some in found.groupby(keys):
        wide = some.pivot(index="seed", columns="arm", values=measures)
        print(*key, f"({len(wide)} cohorts)")
        rows = {}
        for measure in measures:
            scratch = wide[measure]["scratch"]
            rows[measure] = {"scratch": f"{scratch.mean():.4f}", **{
                arm: f"{(gap := wide[measure][arm] - scratch).mean():+.4f} "
                     f"(SE {gap.std() / len(gap) ** 0.5:.4f})" for arm in list(ARMS)[1:]}}
        print(pd.DataFrame(rows).T.to_string())


if __name__ == "__main__":
    main()

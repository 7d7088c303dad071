"""Finding planted regional deviations: the model beside two linear rivals, in one run.

On the simulated cohort (600 reference people, 120 patients) every method learns from the same
training people, is standardised with the same calibration people by the same t law, and scores the
same patients. ROC AUC of |z|: planted cells against the other cells of the same patients.
``alone`` hides the patient's other modalities.

* ``ols_spline``  y against age, sex and site (the baseline under the model): no other region helps
* ``factor_analysis``  E[y_j | covariates, every other measured cell], exact, rank by held-out
  likelihood on the early-stopping people, then refitted on training and early-stopping people
* ``normfuse``  the reconstruction z of the default model

Prints JSON: per modality and condition the mean over cohorts and, for differences to the rivals,
their standard errors.
"""
from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
from factor_analysis import FactorAnalysis, choose_rank
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.calibration import ResidualLaw, choose_calibration

RANKS = (2, 4, 6, 8, 10, 12, 15)


def aucs(z: np.ndarray, columns: pd.MultiIndex, planted: np.ndarray) -> dict[str, float]:
    """AUC of |z| per modality, planted cells against the others."""
    found = {}
    for name in columns.get_level_values(0).unique():
        at = (columns.get_level_values(0) == name) & np.ones(len(columns), bool)
        score, truth = np.abs(z[:, at]).ravel(), planted[:, at].ravel()
        seen = ~np.isnan(score)
        if truth[seen].any():
            found[name] = float(roc_auc_score(truth[seen], score[seen]))
    return found


class LinearRivals:
    """OLS-spline and factor analysis, fitted and calibrated on a model's own split."""

    def __init__(self, model: nf.NormativeModel, controls: nf.Cohort) -> None:
        self.preparation = model.fitted.preparation
        roles = choose_calibration(len(controls)).roles(controls.subjects, controls.covariates,
                                                        n_latent=model.fitted.vae.n_dimensions,
                                                        seed=model.seed)
        blocks = {role: self.standard(controls.select(controls.ids[(roles == role).to_numpy()]))
                  for role in ("training", "early_stop", "calibration")}
        self.rank = choose_rank(blocks["training"], blocks["early_stop"], RANKS)
        both = np.vstack([blocks["training"], blocks["early_stop"]])
        self.factors = FactorAnalysis(self.rank).fit(both)
        self.calibration = blocks["calibration"]

    def standard(self, cohort: nf.Cohort) -> np.ndarray:
        """Residuals from covariates, standardised, all modalities side by side."""
        design = self.preparation.encoder.encode(cohort.subjects)
        return np.hstack([self.preparation.rivals[m.name].standardise(
            cohort.features[m.name].to_numpy(), design) for m in self.preparation.modalities])

    def z(self, cohort: nf.Cohort) -> dict[str, np.ndarray]:
        """Calibrated z of both rivals; hidden modalities are hidden in the calibration too."""
        new = self.standard(cohort)
        kept = ~np.isnan(new).all(axis=0)
        old = np.where(kept, self.calibration, np.nan)
        conditional = self.factors.conditional_residual
        return {"ols_spline": ResidualLaw.fit(old).z(new),
                "factor_analysis": ResidualLaw.fit(conditional(old)).z(conditional(new))}


def one_cohort(seed: int, **options: object) -> dict[str, object]:
    """All methods on one simulated cohort."""
    simulated = nf.simulate_cohort(600, 120, seed=seed)
    controls, patients = simulated.cohort.split("diagnosis == 'CN'")
    start = time.process_time()
    model = nf.NormativeModel(seed=seed, **options).fit(controls)
    seconds = time.process_time() - start
    rivals = LinearRivals(model, controls)
    columns = model.fitted.preparation.columns
    planted = simulated.truth.planted.loc[patients.ids, columns].to_numpy()
    names = [m.name for m in patients.modalities]
    found: dict[str, object] = {"rank": rivals.rank, "fit_cpu_seconds": seconds,
                                "epochs": len(model.history)}
    for condition in ("together", "alone"):
        for name in names:
            people = patients
            if condition == "alone":
                people = patients.without(*(n for n in names if n != name))
                has = people.present[name].to_numpy()
                people = people.select(people.ids[has])
            at = patients.ids.get_indexer(people.ids)
            scores = {**rivals.z(people), "normfuse": model.deviations(people).z.to_numpy()}
            for method, z in scores.items():
                found[f"{name}.{condition}.{method}"] = aucs(z, columns, planted[at])[name]
    z = model.deviations(patients).controls.z
    found["controls_beyond_1.96"] = float(np.nanmean(np.where(z.isna(), np.nan, z.abs() > 1.96)))
    return found


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean AUC per modality and condition, and the model's paired lead over each rival."""
    keys = sorted({c.rsplit(".", 1)[0] for c in rows.columns if c.count(".") == 2})
    lines = []
    for key in keys:
        ours = rows[f"{key}.normfuse"]
        line: dict[str, object] = {"modality": key.split(".")[0], "condition": key.split(".")[1]}
        for rival in ("ols_spline", "factor_analysis"):
            lead = ours - rows[f"{key}.{rival}"]
            line[rival] = rows[f"{key}.{rival}"].mean()
            line[f"lead_over_{rival}"] = lead.mean()
            line[f"se_{rival}"] = lead.std(ddof=1) / np.sqrt(len(lead))
        lines.append({**line, "normfuse": ours.mean()})
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=100,
                        help="the defaults were chosen on seeds 0 to 2; keep clear of them")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    rows = pd.DataFrame([one_cohort(seed) for seed in
                         range(arguments.first_seed, arguments.first_seed + arguments.cohorts)])
    print(json.dumps({"cohorts": arguments.cohorts, "n_reference": 600, "n_patients": 120,
                      "auc": table(rows).round(4).to_dict("records"),
                      "per_cohort": rows.to_dict("records")}, indent=1))


if __name__ == "__main__":
    main()

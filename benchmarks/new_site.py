"""A site the model has not seen: FCON1000, each of its five largest sites held out in turn.

For each: a model of kind `covariates` fitted on the other sites scores the site's people (a) as
people of any site, without adaptation; (b) after adapting with 10, 25 or 50 of them (the rest are
scored); (c) by a model fitted with those 50 in. 100 thickness regions. MSLL is against mean and sd
of the people of the fit; shares of |z| beyond 1.96 (nominal .05); sd and size of the regions' mean
z. The people scored are the same for all: those beyond the first 50. Prints JSON.
"""
from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from real_tables import fcon1000
from scipy import stats

import normfuse as nf
from normfuse.kinds import Covariates

SIZES = (10, 25, 50)


def learned(people: nf.Cohort, seed: int) -> nf.NormativeModel:
    """Covariate model only matters here: the smallest networks do."""
    return nf.NormativeModel(n_latent=2, kinds=(Covariates(),), seed=seed,
                             plan=nf.TrainingPlan(progress=False, max_epochs=10, warmup=2)
                             ).fit(people)


def figures(model: nf.NormativeModel, people: nf.Cohort, trivial: tuple[np.ndarray, np.ndarray]
            ) -> dict[str, float]:
    """MSLL and calibration of people of one site."""
    found = model.deviations(people, unseen_site="pooled")
    fitted = replace(model.fitted, preparation=replace(model.fitted.preparation,
                                                       pooled_sites=True))
    log_p = fitted.log_density(people, model.kinds[0], model.inference).to_numpy()
    base = stats.norm.logpdf(found.observed.to_numpy(), *trivial)
    z = found.z.to_numpy()
    return {"MSLL": float((base - log_p).mean()), "beyond_1.96": float((np.abs(z) > 1.96).mean()),
            "sd_z": float(z.std(0).mean()), "size_of_mean_z": float(np.abs(z.mean(0)).mean())}


def one_site(cohort: nf.Cohort, site: str, seed: int) -> dict[str, dict[str, float]]:
    """Every way of scoring a site's people."""
    inside = (cohort.subjects["site"] == site).to_numpy()
    others, ids = cohort.select(cohort.ids[~inside]), cohort.ids[inside]
    ids = np.random.default_rng(seed).permutation(ids)
    learners, scored = ids[:max(SIZES)], cohort.select(ids[max(SIZES):])
    block = others.features["thickness"]
    trivial = block.mean().to_numpy(), block.std(ddof=0).to_numpy()
    model = learned(others, seed)
    found = {"not adapted": figures(model, scored, trivial)}
    for n in SIZES:
        found[f"adapted with {n}"] = figures(model.adapt(cohort.select(learners[:n])), scored,
                                             trivial)
    inside_model = learned(cohort.select([*others.ids, *learners]), seed)
    return {**found, "fitted in": figures(inside_model, scored, trivial),
            "n": {"scored": len(scored)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    whole = fcon1000()
    block = whole.features["thickness"].iloc[:, :100]
    cohort = nf.Cohort.from_frames(whole.subjects, {"thickness": block},
                                   covariates=whole.covariates)
    sites = cohort.subjects["site"].value_counts().index[:arguments.sites]
    found = {site: one_site(cohort, site, arguments.seed) for site in sites}
    ways = [way for way in next(iter(found.values())) if way != "n"]
    means = {way: pd.DataFrame([found[s][way] for s in sites]).mean().round(4).to_dict()
             for way in ways}
    print(json.dumps({"mean": means, "sites": found}, indent=1))


if __name__ == "__main__":
    main()

"""Predicting a modality from the others, and how probable new people are, on the peers' problem.

The problem of ../shared/peers/bench_mmvae.py: 3 modalities (100, 48, 84 features), 12 shared
linear factors, 75 % shared variance, 2,000 people to fit on and 1,000 held out. The default
NormativeModel (or the named fusion) is fitted on the 2,000 people, of whom it sets 42 % aside for
early stopping and calibration itself; nothing else is set. Measured on the 1,000:

* ``cross``  R2 of each modality predicted from the two others (exact: .731, .730, .712)
* ``joint``  R2 of each modality reconstructed from all three; above .771, .757, .744 it means that
  people's noise is copied
* ``z_sd``  sd of the residuals over their predictive sd, before any calibration
* ``log_likelihood``  nats per person (IWAE with 1,000 draws), exact: -188.159

and the same of factor analysis fitted on all 2,000 people with the true and with 32 factors.
Prints JSON: the median over seeds and each seed's values.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import normfuse as nf
from normfuse.fusion import (Aggregator, GeneralizedProductOfExperts,
                             GeneralizedWassersteinBarycenter, MixtureOfExperts, ProductOfExperts,
                             SubsetMixture, SubstitutePrior, WassersteinBarycenter)
from normfuse.inference import Amortised
from normfuse.models import Ladder, OneLatent
from normfuse.scoring import raw_scores

PEERS = Path(__file__).parents[1] / ".." / "shared" / "peers"

MODELS: dict[str, tuple[Aggregator, dict[str, Any]]] = {
    "default": (WassersteinBarycenter(), {}),
    "default, amortised": (WassersteinBarycenter(), {"inference": Amortised()}),
    "poe": (ProductOfExperts(), {}),
    "gpoe": (GeneralizedProductOfExperts(), {}),
    "moe": (MixtureOfExperts(), {}),
    "mopoe": (SubsetMixture(ProductOfExperts()), {}),
    "mwb": (SubsetMixture(WassersteinBarycenter()), {}),
    "gwb": (GeneralizedWassersteinBarycenter(), {}),
    "wb 32": (WassersteinBarycenter(), {"model": OneLatent(n_latent=32)}),
    "gwb ladder": (GeneralizedWassersteinBarycenter(missing=SubstitutePrior()),
                   {"model": Ladder(levels=(16, 6))}),
    "wb ladder": (WassersteinBarycenter(), {"model": Ladder(levels=(16, 6))}),
}


def problem(folder: Path) -> tuple[nf.Cohort, nf.Cohort]:
    """The people to fit on and those held out."""
    sys.path.insert(0, str(folder))
    from bench_mmvae import make_data

    train, test, *_ = make_data()
    cohorts = []
    for label, blocks in (("fit", train), ("new", test)):
        ids = pd.Index([f"{label}-{i:04d}" for i in range(len(blocks["m1"]))])
        frames = {m: pd.DataFrame(x.astype(float), ids, [f"{m}_{j}" for j in range(x.shape[1])])
                  for m, x in blocks.items()}
        cohorts.append(nf.Cohort.from_frames(pd.DataFrame(index=ids), frames, covariates={}))
    return cohorts[0], cohorts[1]


def explained(observed: pd.DataFrame, expected: pd.DataFrame) -> float:
    """R2 over all cells of a modality."""
    left = ((observed - expected) ** 2).to_numpy().sum()
    return float(1 - left / ((observed - observed.mean()) ** 2).to_numpy().sum())


def measured(model: nf.NormativeModel, new: nf.Cohort, draws: int) -> dict[str, Any]:
    """All figures of one fitted model."""
    names = list(new.features)
    joint = model.predict(new)
    f = model.fitted
    with torch.no_grad():
        kind = model.kind_called("reconstruction")
        u = raw_scores(f.vae, f.preparation.batch(new), model.inference, [kind]
                       ).residuals[kind.name]
    return {"cross": [explained(new.features[m], model.predict(new.without(m))[m]) for m in names],
            "joint": [explained(new.features[m], joint[m]) for m in names],
            "z_sd": float(np.std(u)), "noise_sd": float(f.vae.noise_sd[0].mean()),
            "log_likelihood": float(model.log_likelihood(new, draws=draws)["log_likelihood"].mean()
                                    )}


def factor_analysis(fit: nf.Cohort, new: nf.Cohort, rank: int) -> dict[str, Any]:
    """The same figures of a linear model fitted on everybody."""
    from linear_models import FactorModel, predict_from_others

    names = list(new.features)
    blocks = [new.features[m].to_numpy() for m in names]
    model = FactorModel.fit([fit.features[m].to_numpy() for m in names], rank)
    cross, joint = predict_from_others(model, blocks), model.predict(blocks)
    return {"cross": [explained(new.features[m], x) for m, x in zip(names, cross)],
            "joint": [explained(new.features[m], x) for m, x in zip(names, joint)],
            "log_likelihood": float(model.log_likelihood(blocks).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=["default"])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--peers", type=Path, default=PEERS)
    parser.add_argument("--no-linear", action="store_true", help="leave factor analysis out")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    fit, new = problem(arguments.peers)
    report: dict[str, Any] = {"n_fit": len(fit), "n_new": len(new), "draws": arguments.draws,
                              "exact": {"cross": [0.731, 0.730, 0.712],
                                        "log_likelihood": -188.159}}
    if not arguments.no_linear:
        for rank in (12, 32):
            report[f"factor analysis, {rank}"] = factor_analysis(fit, new, rank)
    for name in arguments.models:
        fusion, options = MODELS[name]
        rows = []
        for seed in range(arguments.seeds):
            start = time.process_time()
            model = nf.NormativeModel(fusion, seed=seed, **options).fit(fit)
            rows.append({"fit_cpu_seconds": time.process_time() - start,
                         **measured(model, new, arguments.draws)})
        median = {key: np.median([row[key] for row in rows], axis=0).round(4).tolist()
                  for key in rows[0]}
        report[name] = {"seeds": arguments.seeds, "median": median, "each": rows}
        print(name, json.dumps(median), file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

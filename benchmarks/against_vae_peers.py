"""normfuse beside MultiVae and multi-view-AE on real healthy people of several modalities.

One split for all (60 + 20 % to fit, 20 % to test, within site x sex), and the same roles among the
people of the fit: training, early stopping, calibration. Rivals have no covariate model, so they
are given residuals of OLS on age (spline), sex and site, standardised, each person of the fit
judged by the others; what they leave is calibrated feature by feature, location and scale in the
calibration people (t law). normfuse gets the features as they are and does all that by itself.

* ``OLS-spline``  those residuals themselves
* ``factor analysis``  the linear model of the same kind, number of factors by held-out likelihood
* ``multivae-…``, ``multiviewae-…``  in their own environment (.venv-peers, made by the Makefile),
  encoders 256-128, as many latent dimensions as normfuse takes, Adam 1e-3, best epoch kept
* ``normfuse``  the default model; its first kind, focal, is what it gives if nobody asks

A row is a model and what it compares a value with: ``covariates``; ``leave_modality_out``, the
other modalities; ``focal``, all that was measured but the value; ``reconstruction``, all that was
measured, the value too. EXPV of M: share explained, on test people, of what covariates leave of
its features (not shown where the value itself was seen); for two modalities, leave_modality_out
is cross-modal prediction. beyond: share of |z| in healthy test people (nominal .050, .010). AUC
of M: of |z|, 5 random features of each modality of each test person lowered by 1 residual sd,
against that person's other features. CPU seconds: fit and scores in one thread, without imports
and, for rivals, without the least squares before them (under a second).

Writes OUT/against_vae_peers.json and .md and prints the latter.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from factor_analysis import choose_rank
from linear_models import FactorModel, predict_from_others
from peers import environments
from peers.problem import GROUPS, Problem, judged, make, measures
from peers.tables import READERS
from peers.writing import markdown, write
from threadpoolctl import threadpool_limits

import normfuse as nf

ENVIRONMENT = ".venv-peers"
PEERS = ("multivae-MVAE", "multivae-MVAEjoint", "multivae-MoPoE", "multivae-MVTCAE",
         "multiviewae-mVAE", "multiviewae-MoPoEVAE", "multiviewae-mvtCAE")
RANKS = (2, 4, 6, 8, 10, 12, 15)
Row = dict[str, Any]


def linear(problem: Problem) -> Iterator[Row]:
    """OLS-spline and factor analysis."""
    nothing = judged(problem, lambda g: np.zeros_like(problem.residuals[g]))
    yield {"model": "OLS-spline", "kind": "covariates", **nothing}
    start = time.process_time()
    rank = choose_rank(problem.residuals["training"], problem.residuals["early_stop"], RANKS)
    learned = [np.vstack(pair) for pair in zip(problem.blocks("training"),
                                               problem.blocks("early_stop"))]
    model = FactorModel.fit(learned, rank)
    others = judged(problem, lambda g: np.hstack(predict_from_others(model, problem.blocks(g))))
    # its z times this is what the prediction leaves (of people with nothing missing, exactly)
    sd = 1 / np.sqrt(np.diag(np.linalg.inv(_covariance(model))))
    rest = judged(problem, lambda g: problem.residuals[g] - sd * np.hstack(
        model.residual_z(problem.blocks(g))))
    seconds = time.process_time() - start
    for kind, found in (("focal", rest), ("leave_modality_out", others)):
        yield {"model": "factor analysis", "kind": kind, **found, "cpu_seconds": seconds,
               "rank": rank}


def _covariance(model: FactorModel) -> np.ndarray:
    loadings = np.vstack(model.loadings)
    return loadings @ loadings.T + np.diag(np.hstack([v.diagonal() for v in model.noise]))


def normfuse(problem: Problem, seed: int) -> Iterator[Row]:
    """The default model, all its kinds."""
    start = time.process_time()
    model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False)).fit(problem.fit)
    seconds = time.process_time() - start
    for kind in model.kinds:
        start = time.process_time()
        found, low = (model.fitted.score(c, kind, model.inference)
                      for c in (problem.test, problem.planted))
        taken = time.process_time() - start
        left = (found.observed - found.expected).to_numpy() / problem.scale
        yield {"model": "normfuse", "kind": kind.name, "cpu_seconds": seconds + taken,
               "latent": model.fitted.vae.n_dimensions,
               **measures(problem, left, found.z.to_numpy(), low.z.to_numpy())}


def peer(problem: Problem, name: str, seed: int, latent: int, epochs: int) -> Iterator[Row]:
    """One model of another package; it is given 0, what covariates expect, for missing cells."""
    with tempfile.TemporaryDirectory() as folder:
        given, answered = (Path(folder) / f"{n}.npz" for n in ("given", "answered"))
        np.savez(given, **{
            f"{group}/{m}": np.nan_to_num(problem.residuals[group][:, at]).astype(np.float32)
            for group in GROUPS for m, at in problem.slices.items()})
        told = environments.run(
            ENVIRONMENT, "vae_worker.py", name, str(given), str(answered), "--seed", str(seed),
            "--latent", str(latent), "--epochs", str(epochs), scratch=Path(folder))
        with np.load(answered) as file:
            found = {key: file[key].astype(float) for key in file}
    for kind, short in (("reconstruction", "joint"), ("leave_modality_out", "cross")):
        yield {"model": name, "kind": kind, **told, **judged(problem, lambda g: np.hstack(
            [found[f"{g}/{short}/{m}"] for m in problem.slices]))}


def one_split(table: Any, seed: int, models: list[str], epochs: int) -> list[Row]:
    """Every model on one split; a peer that fails is a row that says so."""
    problem = make(table, seed)
    rows = [*linear(problem), *normfuse(problem, seed)]
    latent = rows[-1]["latent"]
    for name in models:
        try:
            rows += peer(problem, name, seed, latent, epochs)
        except RuntimeError as error:
            rows.append({"model": name, "kind": "failed", "error": str(error)})
    return [{**row, "seed": seed, "n_fit": len(problem.fit), "n_test": len(problem.test)}
            for row in rows]


def section(name: str, rows: pd.DataFrame) -> str:
    """The Markdown of one table: means over seeds."""
    rows = rows.assign(model=rows["model"] + ", " + rows["kind"])
    numbers = [c for c in rows if c.startswith(("EXPV ", "beyond", "AUC ")) or c == "cpu_seconds"]
    means = rows.groupby("model", sort=False)[numbers].mean()
    seen = means.index.str.endswith("reconstruction")
    means.loc[seen, [c for c in numbers if c.startswith("EXPV ")]] = np.nan
    first = rows.iloc[0]
    return "\n".join([f"## {name}", "", f"{first['n_fit']} people to fit, {first['n_test']} to "
                      f"test, mean over {rows['seed'].nunique()} splits", "", markdown(means), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=("nspn", "tractometry"), default=["nspn"])
    parser.add_argument("--seeds", type=int, default=2, help="splits, seeds from 0 on")
    parser.add_argument("--n-roi", type=int, default=308, help="first so many of each modality")
    parser.add_argument("--models", nargs="*", choices=PEERS, metavar="NAME", default=PEERS,
                        help=", ".join(PEERS))
    parser.add_argument("--epochs", type=int, default=300, help="of the peers, at most")
    parser.add_argument("--out", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    reason = environments.absent(ENVIRONMENT)
    models = [] if reason else list(arguments.models)
    found, text = {}, ["# normfuse beside other packages' multimodal VAEs", ""]
    text += [f"**No rows of MultiVae and multi-view-AE**: {reason}", ""] if reason else []
    with threadpool_limits(1):
        for name in arguments.tables:
            table = READERS[name](arguments.n_roi)
            found[name] = [row for seed in range(arguments.seeds)
                           for row in one_split(table, seed, models, arguments.epochs)]
            text.append(section(name, pd.DataFrame(found[name])))
    print(write(arguments.out, "against_vae_peers",
                json.dumps({"skipped": reason, "rows": found}, indent=1), "\n".join(text)))


if __name__ == "__main__":
    main()

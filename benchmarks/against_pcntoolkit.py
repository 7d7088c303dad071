"""normfuse beside PCNtoolkit 1.3 on real healthy people: same split, same measures.

Every model learns from the same people (60 + 20 % within site x sex; models that calibrate take
their own calibration people from among them) and answers for the same other 20 %, region by
region: what is expected at that age, sex and site, z, and the density of the value.

* ``OLS``, ``OLS-spline``  least squares on age, sex and site, exact t law
* ``BLR``, ``warped BLR``  PCNtoolkit, in its own environment (.venv-pcn, made by the Makefile):
  cubic B-spline of age, sex and site as fixed effects, sinh-arcsinh warp
* ``normfuse covariates``  deviations of kind "covariates": the same question
* ``normfuse focal``  ANOTHER question: conditional on the rest of the person's own brain. Its
  EXPV, SMSE and MSLL say what a brain tells of its regions; not comparable with the rows above

EXPV, SMSE, MSLL (below 0: better than mean and variance of the people of the fit), MACE (beside
what a perfect model would have with so many people), Shapiro's W, skew, kurtosis and sd of z and
the shares of |z| beyond 1.96 and 2.58 (nominal .050, .010) are means over regions. CPU seconds
are of fitting, calibrating and scoring in one thread, without the packages' imports.

Writes OUT/against_pcntoolkit.json and .md and prints the latter. `--seeds 1 --n-roi 20` to try it.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from peers import environments
from peers.linear import LeastSquares
from peers.measures import Answers, floor, measured
from peers.tables import READERS, Table, make_split
from peers.writing import markdown, mean_over_seeds, write
from threadpoolctl import threadpool_limits

import normfuse as nf

ENVIRONMENT = ".venv-pcn"
COLUMNS = ("EXPV", "SMSE", "MSLL", "MACE", "W", "skew", "kurtosis", "sd", "beyond_1.96",
           "beyond_2.58", "cpu_seconds")
ROWS = ("OLS", "OLS-spline", "BLR", "warped BLR", "normfuse covariates", "normfuse focal*")
CONDITIONAL = ("\\* conditional on the rest of the person's own brain: another question, not "
               "comparable by EXPV, SMSE and MSLL")


def linear(table: Table, fit: pd.Index, test: pd.Index) -> Iterator[tuple[str, Answers]]:
    """OLS, with age straight and as a spline."""
    values = table.values
    for name, spline in (("OLS", False), ("OLS-spline", True)):
        start = time.process_time()
        model = LeastSquares.fit(table.subjects.loc[fit], values.loc[fit].to_numpy(), spline)
        new = table.subjects.loc[test]
        found = [model.expected(new), *model.predictive(new, values.loc[test].to_numpy())]
        seconds = time.process_time() - start
        yield name, Answers(*(pd.DataFrame(v, test, values.columns) for v in found), seconds)


def pcntoolkit(table: Table, fit: pd.Index, test: pd.Index) -> Iterator[tuple[str, Answers]]:
    """BLR and warped BLR, in their own process and environment."""
    for name in ("BLR", "warped BLR"):
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            people = fit.append(test)
            part = ["fit"] * len(fit) + ["test"] * len(test)
            rows = table.subjects.loc[people].assign(part=part).join(table.values)
            rows.rename_axis("subject").to_csv(scratch / "table.csv")
            told = environments.run(ENVIRONMENT, "pcntoolkit_worker.py",
                                    name.lower().replace(" ", "_"), str(scratch / "table.csv"),
                                    folder, scratch=scratch)
            found = [pd.read_csv(scratch / f"{kind}.csv", dtype={"subject": str})
                     .set_index("subject").loc[test] for kind in ("expected", "z", "log_density")]
        yield name, Answers(*found, told["cpu_seconds"])


def normfuse(table: Table, fit: pd.Index, test: pd.Index, seed: int
             ) -> Iterator[tuple[str, Answers]]:
    """The default model, its deviations from covariates and from the own brain."""
    cohort = nf.Cohort.from_frames(
        table.subjects, table.blocks,
        covariates={"age": "continuous", "sex": "categorical", "site": "site"})
    start = time.process_time()
    model = nf.NormativeModel(seed=seed, plan=nf.TrainingPlan(progress=False))
    model.fit(cohort.select(fit))
    seconds, new = time.process_time() - start, cohort.select(test)
    for name, kind in (("normfuse covariates", "covariates"), ("normfuse focal*", "focal")):
        start = time.process_time()
        scored = model.fitted.score(new, model.kind_called(kind), model.inference)
        density = model.fitted.log_density(new, model.kind_called(kind), model.inference)
        found = [t.droplevel(0, axis=1).loc[test] for t in (scored.expected, scored.z, density)]
        yield name, Answers(*found, seconds + time.process_time() - start)


def one_split(table: Table, seed: int, skip: bool) -> Iterator[dict[str, object]]:
    """Every model on one split, as measured rows."""
    split = make_split(table.subjects, seed)
    fit, test = table.subjects.index[split != "test"], table.subjects.index[split == "test"]
    sources = [linear(table, fit, test), normfuse(table, fit, test, seed)]
    if not skip:
        sources.append(pcntoolkit(table, fit, test))
    values = table.values
    for source in sources:
        for name, answers in source:
            yield {"model": name, "seed": seed, "n_fit": len(fit), "n_test": len(test),
                   **measured(answers, values.loc[test], values.loc[fit])}


def section(name: str, table: Table, rows: pd.DataFrame) -> str:
    """The Markdown of one table: means over seeds, and MSLL of each."""
    means = mean_over_seeds(rows, COLUMNS).reindex([r for r in ROWS if r in set(rows["model"])])
    seeds = rows.pivot(index="model", columns="seed", values="MSLL")
    means = means.join(seeds.rename(columns=lambda s: f"MSLL seed {s}"))
    n = int(rows["n_test"].iloc[0])
    blocks = " + ".join(f"{b.shape[1]} {k}" for k, b in table.blocks.items())
    return "\n".join([
        f"## {name}", "", f"{len(table.subjects)} people, {rows['n_fit'].iloc[0]} to fit, {n} to "
        f"test; {blocks}; mean over {len(seeds.columns)} splits; MACE of a perfect model "
        f"{floor(n):.4f}", "", markdown(means), "", CONDITIONAL, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=("fcon1000", "nspn"),
                        default=["fcon1000", "nspn"])
    parser.add_argument("--seeds", type=int, default=5, help="splits, seeds from 0 on")
    parser.add_argument("--n-roi", type=int, default=100,
                        help="first so many regions of each modality; 308 is all of NSPN")
    parser.add_argument("--out", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    reason = environments.absent(ENVIRONMENT)
    skipped = {"PCNtoolkit": reason} if reason else {}
    found, text = {}, ["# normfuse beside PCNtoolkit", ""]
    text += [f"**No rows of PCNtoolkit**: {reason}", ""] if reason else []
    with threadpool_limits(1):
        for name in arguments.tables:
            table = READERS[name](arguments.n_roi)
            found[name] = [row for seed in range(arguments.seeds)
                           for row in one_split(table, seed, bool(reason))]
            text.append(section(name, table, pd.DataFrame(found[name])))
    print(write(arguments.out, "against_pcntoolkit",
                json.dumps({"skipped": skipped, "rows": found}, indent=1), "\n".join(text)))


if __name__ == "__main__":
    main()

"""Which fusion to use: every contender on simulated and real people, resumably.

    python benchmarks/study/run.py            # the whole study; goes on where it was interrupted
    python benchmarks/study/run.py --quick    # under two minutes, into a temporary file

One row per contender and setting is appended to results.csv (see settings.py for the design,
scored.py for the measures). `python benchmarks/study/table.py` makes the tables of the page
docs/guide/choosing_a_fusion.md from it.
"""
from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads of two processes fight
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pandas as pd  # noqa: E402
from settings import Setting, design, runs  # noqa: E402
from tqdm import tqdm  # noqa: E402

RESULTS = HERE / "results.csv"
QUICK = [Setting(n=150, latent=5)]

Run = tuple[str, Setting]


def one_run(run: Run, quick: bool) -> dict[str, Any]:
    """Fit, score and measure one contender on one setting."""
    import torch
    from contenders import contest
    from contenders import quick as quick_plan
    from people import people
    from scored import measures

    from normfuse.training import TrainingPlan

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # few people, ages at the edge: expected here
    name, setting = run
    who, start = people(setting), time.process_time()
    plan = quick_plan() if quick else TrainingPlan()
    scored = contest(name, who, setting.latent, setting.seed, plan)
    seconds = time.process_time() - start
    return {**asdict(setting), "contender": name, **measures(scored, who), "cpu_seconds": seconds}


def todo(planned: Iterable[Run], results: Path) -> Iterator[Run]:
    """Runs that the table of results does not have yet."""
    done: set[tuple[object, ...]] = set()
    if results.exists():
        keys = [*asdict(Setting()), "contender"]
        done = set(pd.read_csv(results, usecols=keys)[keys].itertuples(index=False, name=None))
    yield from ((name, s) for name, s in planned if (*s.key(), name) not in done)


def append(row: dict[str, Any], results: Path) -> None:
    """One row at the end of the table, in the table's own order of columns."""
    columns = list(row)
    if results.exists():
        columns = list(pd.read_csv(results, nrows=0).columns)
        if unknown := set(row) - set(columns):
            new = pd.read_csv(results).reindex(columns=columns + sorted(unknown))
            new.to_csv(results.with_suffix(".new"), index=False)
            results.with_suffix(".new").rename(results)
            columns = list(new.columns)
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if not file.tell():
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def main() -> None:
    from contenders import CONTENDERS

    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a check that all runs; no result")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--data", choices=["simulated", "nspn"], help="only this data set")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS.name} beside this file")
    arguments = parser.parse_args()
    planned = [(name, s) for s in QUICK for name in arguments.contenders] if arguments.quick \
        else list(runs(design(arguments.seeds), arguments.contenders))
    if arguments.data:
        planned = [(name, s) for name, s in planned if s.data == arguments.data]
    out = arguments.out or (Path(tempfile.mkdtemp()) / "quick.csv" if arguments.quick else RESULTS)
    left = list(todo(planned, out))
    failed = 0
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(one_run, run, arguments.quick): run for run in left}
        for future in tqdm(as_completed(waiting), total=len(left), unit="run", desc="study"):
            try:
                append(future.result(), out)
            except Exception as problem:  # one failure must not end hours of other runs
                failed += 1
                tqdm.write(f"{waiting[future]}: {type(problem).__name__}: {problem}")
    print(f"{len(left) - failed} runs done, {failed} failed; results: {out}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

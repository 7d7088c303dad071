"""Tables of what study.py found: ``python benchmarks/images/table.py``.

Differences are paired by person: each person's mean over subsets (and targets or regions) under
one method less that under another; the standard error is over the people of all seeds. Seeds
share no people, yet each method was trained once a seed, so the mean of every seed stands beside.
"""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

OUT = Path("out/image_study")
REGIONS = ["whole tumour", "tumour core", "enhancing tumour"]


def found(kind: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Everything under ``kind``, one row a person, subset and target; and the costs."""
    tables, costs = [], []
    for file in sorted((OUT / kind).glob("*/seed*.json")):
        key = {"method": file.parent.name, "seed": file.stem}
        table = pd.read_csv(file.with_suffix(".csv"))
        if REGIONS[0] in table:
            table = table.rename(columns={"person": "subject"})
            table["dice"] = table[REGIONS].mean(axis=1)
        tables.append(table.assign(**key))
        costs.append({**json.loads(file.read_text()), **key})
    if not tables:
        raise SystemExit(f"nothing under {OUT / kind}; run benchmarks/images/study.py first")
    return pd.concat(tables), pd.DataFrame(costs)


def overview(kind: str, scores: list[str]) -> pd.DataFrame:
    """Mean scores and costs of each method."""
    table, costs = found(kind)
    by_number = table.pivot_table(index="method", columns="n_given", values=scores[0])
    by_number.columns = [f"{scores[0]}, {n} given" for n in by_number.columns]
    named = costs.rename(columns={"training_cpu_s": "training, CPU-s", "peak_mib": "peak, MiB",
                                  "cpu_s_a_volume": "CPU-s a volume"}).drop(columns="seed")
    return table.groupby("method")[scores].mean().join(by_number).join(
        named.groupby("method").mean())


def differences(kind: str, score: str, ours: str, others: list[str], by: str | None = None
                ) -> pd.DataFrame:
    """Ours less each other, paired by person: mean, standard error, n, and each seed's mean."""
    table, _ = found(kind)
    rows = []
    for value, part in [("all", table)] if by is None else table.groupby(by, sort=False):
        each = part.groupby(["method", "seed", "subject"])[score].mean()
        for other in others:
            gap = (each[ours] - each[other]).dropna()
            seeds = gap.groupby("seed").mean()
            rows.append({by or "subsets": value, "less": other, "mean": gap.mean(),
                         "se": gap.std() / np.sqrt(len(gap)), "n": len(gap),
                         "of each seed": " ".join(f"{v:+.3f}" for v in seeds)})
    return pd.DataFrame(rows)


def main() -> None:
    pd.set_option("display.width", 200, "display.max_columns", 30, "display.max_rows", 200)
    for kind, score, scores in (("synthesis", "psnr", ["psnr", "ssim", "mae", "z_sd"]),
                                ("segmentation", "dice", ["dice", *REGIONS])):
        print(f"\n# {kind}\n", overview(kind, scores).round(4))
        others = sorted(set(found(kind)[0]["method"]) - {"ladder"})
        for by in (None, "n_given", "given"):
            print(differences(kind, score, "ladder", others, by).round(4).to_string(index=False))
    for kind, scores in (("missing", ["psnr", "ssim", "mae"]), ("fusion", ["dice", *REGIONS]),
                         ("synthesis_fusion", ["psnr", "ssim", "mae"])):
        if (OUT / kind).exists():
            print(f"\n# {kind}\n", overview(kind, scores).round(4))


if __name__ == "__main__":
    main()

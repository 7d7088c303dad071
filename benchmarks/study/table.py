"""From the study's results.csv to summary.csv and the tables of docs/guide/choosing_a_fusion.md.

Everything is paired: contenders of one seed share people, planted deviations and what is hidden,
so differences are taken within a seed and their standard errors over seeds. Only settings and
seeds that every contender has finished count.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from contenders import CONTENDERS  # noqa: E402
from picture import draw  # noqa: E402
from settings import AMORTISED  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "guide" / "choosing_a_fusion.md"
SETTING = ["data", "n", "missing", "latent"]
MEASURES = {
    "ll_per_feature": ("log p / feature", 3), "r2_joint": ("joint R2", 3),
    "r2_cross": ("cross R2", 3), "auc_cells": ("AUC cells", 3), "auc_regional": ("regional", 3),
    "auc_latent": ("latent", 3), "auc_union": ("union", 3), "z_beyond_1.96": ("z > 1.96", 3)}
BASES = {"simulated": {"n": 300, "missing": 0.0, "latent": 10},
         "nspn": {"n": 0, "missing": 0.0, "latent": 10}}
RIVAL, OURS = "factor analysis", "wb"
FACTORS = {"simulated": ("missing", "latent", "n"), "nspn": ("missing", "latent")}
VARIED = ("ll_per_feature", "r2_cross", "auc_cells", "auc_latent")
TITLES = {"simulated": "Simulated cohort", "nspn": "NSPN, planted deviations"}


def complete(results: pd.DataFrame) -> pd.DataFrame:
    """Rows of the settings and seeds that every contender of their arm has finished."""
    second = results["contender"].str.endswith(AMORTISED)
    kept = []
    for arm in (results[~second], results[second]):
        have = arm.groupby([*SETTING, "seed"])["contender"].transform("nunique")
        kept.append(arm[have == arm["contender"].nunique()])
    return pd.concat(kept)


def base(results: pd.DataFrame, data: str, **other: float) -> pd.DataFrame:
    """The rows of one setting."""
    for name, value in {"data": data, **BASES[data], **other}.items():
        results = results[results[name] == value]
    return results


def shown(values: pd.Series, digits: int) -> str:
    """Mean and standard error over seeds."""
    values = values.dropna()
    if not len(values):
        return "–"
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def lead(rows: pd.DataFrame, measure: str, contender: str, over: str) -> pd.Series:
    """Paired difference within each seed."""
    wide = rows.pivot(index="seed", columns="contender", values=measure)
    return (wide[contender] - wide[over]).dropna()


def marked(values: pd.Series, digits: int) -> str:
    """A difference, in bold where it is beyond two standard errors."""
    if len(values) < 3:
        return "–"
    error = values.std(ddof=1) / np.sqrt(len(values))
    text = f"{values.mean():+.{digits}f} ± {error:.{digits}f}"
    return f"**{text}**" if abs(values.mean()) > 2 * error else text


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A table."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines])


def main_table(rows: pd.DataFrame, names: list[str]) -> str:
    """Means of every measure, one row a contender."""
    return markdown(["", *(label for label, _ in MEASURES.values())],
                    [[name, *(shown(rows.loc[rows["contender"] == name, m], d)
                              for m, (_, d) in MEASURES.items())] for name in names])


def lead_table(rows: pd.DataFrame, names: list[str], over: str) -> str:
    """Paired leads over one contender."""
    measures = {m: v for m, v in MEASURES.items() if m != "z_beyond_1.96"}
    return markdown([f"lead over {over}", *(label for label, _ in measures.values())],
                    [[name, *(marked(lead(rows, m, name, over), d + 1)
                              for m, (_, d) in measures.items())]
                     for name in names if name != over])


def varied(results: pd.DataFrame, data: str, factor: str, measure: str, names: list[str]) -> str:
    """One measure as one factor of the design varies."""
    fixed = {k: v for k, v in BASES[data].items() if k != factor}
    rows = results[results["data"] == data]
    for name, value in fixed.items():
        rows = rows[rows[name] == value]
    levels = sorted(rows[factor].unique())
    digits = MEASURES[measure][1]
    return markdown([f"{MEASURES[measure][0]}, {factor} =", *map(str, levels)],
                    [[name, *(shown(rows.loc[(rows["contender"] == name) & (rows[factor] == level),
                                             measure], digits) for level in levels)]
                     for name in names])


def ratio_table(rows: pd.DataFrame, names: list[str], level: float = 0.05) -> str:
    """(k + .5)/(n + 1) of patients over that of healthy people, flagged at a level, all seeds."""
    lines = []
    for name in names:
        mine, line = rows[rows["contender"] == name], [name]
        for kind in ("latent", "regional", "union"):
            hit, n = mine[f"flagged_{kind}_{level}"].sum(), mine["n_patients"].sum()
            false, m = mine[f"false_{kind}_{level}"].sum(), mine["n_healthy"].sum()
            share, other = (hit + 0.5) / (n + 1), (false + 0.5) / (m + 1)
            error = np.sqrt(1 / (hit + .5) - 1 / (n + 1) + 1 / (false + .5) - 1 / (m + 1))
            low, high = share / other * np.exp([-1.96 * error, 1.96 * error])
            line.append(f"{share / other:.2f} [{low:.2f}, {high:.2f}], false {other:.3f}")
        lines.append(line)
    return markdown([f"flagged at p < {level}", "latent", "regional", "union"], lines)


def sections(results: pd.DataFrame) -> str:
    """All tables, for the page."""
    parts = []
    for data, title in TITLES.items():
        rows = results[results["data"] == data]
        second = rows["contender"].str.endswith(AMORTISED)
        if not second.all():
            parts += [f"### {title}, refined posteriors",
                      *arm(rows[~second], data, [RIVAL, OURS], FACTORS[data])]
        if second.any():
            parts += [f"### {title}, amortised posteriors",
                      *arm(rows[second], data, ["poe" + AMORTISED], ("missing",))]
    return "\n\n".join(parts)


def arm(results: pd.DataFrame, data: str, rivals: list[str],
        factors: tuple[str, ...]) -> list[str]:
    """Tables of one arm on one data set."""
    rows = base(results, data)
    names = [name for name in CONTENDERS if (rows["contender"] == name).any()]
    parts = [f"Base setting, {rows['seed'].nunique()} seeds.", main_table(rows, names),
             *(lead_table(rows, names, over) for over in rivals if over in names),
             ratio_table(rows, names)]
    for factor in factors:
        parts.append(f"#### {factor} varied")
        parts += [varied(results, data, factor, m, names) for m in VARIED]
    return parts


def insert(page: Path, text: str) -> None:
    """Replace what is between the page's markers."""
    start, end = "<!-- tables: made by benchmarks/study/table.py -->", "<!-- end of tables -->"
    old = page.read_text(encoding="utf-8")
    before, rest = old.split(start)
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.csv")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--print", action="store_true", help="print the tables; write nothing")
    arguments = parser.parse_args()
    results = complete(pd.read_csv(arguments.results))
    if arguments.print:
        print(sections(results))
        return
    numbers = results.drop(columns="seed").groupby([*SETTING, "contender"]).agg(["mean", "sem"])
    numbers.columns = ["_".join(c) for c in numbers.columns]
    count = results.groupby([*SETTING, "contender"])["seed"].nunique().rename("seeds")
    numbers.join(count).round(5).to_csv(HERE / "summary.csv")
    insert(arguments.page, sections(results))
    draw(results, BASES, TITLES, RIVAL, arguments.page.parent / "images")
    print(f"{len(results)} runs -> {HERE / 'summary.csv'}, {arguments.page}")


if __name__ == "__main__":
    main()

"""Real tables as one row a person, and the split that every model of a benchmark shares."""
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

TABLES = Path(__file__).parents[2] / ".." / "shared" / "data" / "tables"
MIN_SITE, MIN_CELL = 10, 5


@dataclass(frozen=True, eq=False)
class Table:
    """Healthy people: ``subjects`` with age, sex and site, ``blocks`` modality -> features.

    Feature names are unique over all blocks; indices are the people's names.
    """

    subjects: pd.DataFrame
    blocks: dict[str, pd.DataFrame]

    @property
    def values(self) -> pd.DataFrame:
        """All blocks side by side."""
        return pd.concat(self.blocks.values(), axis=1)


def fcon1000(n_roi: int) -> Table:
    """Destrieux thickness of 23 sites; sites under 10 people and failed regions are left out."""
    whole = _csv("fcon1000", "fcon1000.csv", "sub_id")
    whole["sex"] = whole["sex"].map({0: "F", 1: "M"})
    whole = whole[whole.groupby("site")["site"].transform("size") >= MIN_SITE]
    block = whole[[c for c in whole if c.endswith("_thickness") and "unknown" not in c][:n_roi]]
    kept = (block > 0).all(axis=1)
    return Table(whole.loc[kept, ["age", "sex", "site"]], {"thickness": block[kept]})


def nspn(n_roi: int) -> Table:
    """Thickness and magnetisation transfer of 3 scanners; unknown parts and means left out."""
    whole = _csv("nspn", "cohort_nspn.csv", "nspn_id")
    blocks = {}
    for name, prefix in (("CT", "CT_"), ("MT", "MT_")):
        block = whole[[c for c in whole if c.startswith(prefix) and "_part" in c
                       and "unknown" not in c]]
        blocks[name] = block.loc[:, block.std() > 1e-9].iloc[:, :n_roi]
    return Table(whole[["age", "sex", "site"]], blocks)


def tractometry(n_roi: int) -> Table:
    """Means of 20 tracts: the lifespan people and the controls of the ALS study, two scanners."""
    one = _csv("lifespan_tractometry", "cohort_wh.csv", "subjectID").assign(site="lifespan")
    two = _csv("als_tractometry", "cohort_als.csv", "subjectID").assign(site="als")
    two = two[~two["diagnosis"].eq("ALS")]
    whole = pd.concat([t.set_axis(t["site"] + "_" + t.index) for t in (one, two)])
    whole = whole.assign(sex=whole["sex"].str[0]).dropna(subset=["age", "sex"])
    return Table(whole[["age", "sex", "site"]],
                 {name: whole[[c for c in whole if c.startswith(f"{name}_")][:n_roi]]
                  for name in ("FA", "MD", "RD", "AD")})


READERS: dict[str, Callable[[int], Table]] = {
    "fcon1000": fcon1000, "nspn": nspn, "tractometry": tractometry}


def make_split(subjects: pd.DataFrame, seed: int) -> pd.Series:
    """``train``, ``calib`` or ``test``: 60/20/20 within site x sex; cells under 5 train.

    So no test person comes from a cell that nobody was fitted on.
    """
    rng = np.random.default_rng(seed)
    split = np.full(len(subjects), "train", dtype=object)
    groups = subjects.reset_index(drop=True).groupby(["site", "sex"]).groups
    for _, rows in sorted(groups.items()):
        order = np.sort(np.asarray(rows))
        rng.shuffle(order)
        n = round(0.2 * len(order))
        if len(order) >= MIN_CELL:
            split[order[:n]], split[order[n:2 * n]] = "test", "calib"
    return pd.Series(split, subjects.index)


def _csv(folder: str, file: str, name: str) -> pd.DataFrame:
    path = TABLES / folder / file
    if not path.is_file():
        sys.exit(f"this benchmark reads ../shared/data/tables/{folder}/{file}, seen from the "
                 "project's root; it is not there, so nothing was measured")
    return pd.read_csv(path, dtype={name: str}).set_index(name)

"""The real tables that benchmarks read, as cohorts of healthy people. None is part of the project.

Each function takes the folder that holds the tables; see its README for sources and licences.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import normfuse as nf

DATA = Path(__file__).parents[1] / ".." / "shared" / "data" / "tables"

_KINDS = {"age": "continuous", "sex": "categorical"}
_STRUCTURE = re.compile("Thalamus|Caudate|Putamen|Pallidum|Hippocampus|Amygdala|Accumbens|"
                        "Lateral-Ventricle|VentralDC|Cerebellum|Brain-Stem|CC_")


def fcon1000(folder: Path = DATA) -> nf.Cohort:
    """1,072 people, 22 sites: Destrieux thickness (148) and subcortical volumes."""
    table = pd.read_csv(folder / "fcon1000" / "fcon1000.csv", dtype={"sub_id": str})
    table = table.set_index("sub_id").assign(sex=table["sex"].map({0: "F", 1: "M"}).to_numpy())
    thickness = table[[c for c in table if c.endswith("_thickness") and "unknown" not in c]]
    kept = (thickness > 0).all(axis=1) & (table.groupby("site")["age"].transform("size") >= 10)
    kept &= ~thickness.duplicated()  # one person is in it twice
    volumes = table[[c for c in table if _STRUCTURE.search(c)]]
    return _cohort(table[kept], {"thickness": thickness[kept], "volume": volumes[kept]},
                   {"thickness": "mm", "volume": "mm3"}, site=True)


def ixi(folder: Path = DATA) -> nf.Cohort:
    """577 people of 20 to 86 years: Desikan-Killiany thickness."""
    table = pd.read_csv(folder / "ixi" / "IXI_aparc_thickness.csv").drop_duplicates(
        "participant_id").set_index("participant_id")
    people = pd.read_csv(folder / "ixi" / "IXI_age_gender.csv").drop_duplicates(
        "participant_id").set_index("participant_id").dropna(subset=["age", "sex"])
    both = people.index.intersection(table.index)
    people = people.loc[both].assign(sex=lambda t: t["sex"].map({1: "M", 2: "F"}))
    block = table.loc[both, [c for c in table if c.endswith("_thickness") and "Mean" not in c]]
    return _cohort(people, {"thickness": block}, {"thickness": "mm"})


def aomic(folder: Path = DATA) -> nf.Cohort:
    """226 students: thickness, subcortical volumes, T1 intensity below the cortex."""
    table = pd.read_csv(folder / "aomic_piop2" / "cohort_piop2.csv").set_index("participant_id")
    table = table.dropna(subset=["age", "sex"])
    ends = {"thickness": "_thickness$", "volume": "_volume$", "intensity": "^T1int_"}
    blocks = {name: table.filter(regex=pattern) for name, pattern in ends.items()}
    return _cohort(table, blocks, {"thickness": "mm", "volume": "mm3", "intensity": ""})


def lifespan(folder: Path = DATA) -> nf.Cohort:
    """77 people of 6 to 50 years: FA, MD, RD, AD of 20 tracts."""
    table = pd.read_csv(folder / "lifespan_tractometry" / "cohort_wh.csv").set_index("subjectID")
    blocks = {m: table.filter(regex=f"^{m}_").rename(columns=lambda c: c.partition("_")[2])
              for m in ("FA", "MD", "RD", "AD")}
    return _cohort(table.dropna(subset=["age", "sex"]), blocks, dict.fromkeys(blocks, ""))


def nspn(folder: Path = DATA) -> nf.Cohort:
    """297 people of 14 to 25 years, 3 scanners: thickness and magnetisation transfer."""
    table = pd.read_csv(folder / "nspn" / "cohort_nspn.csv", dtype={"nspn_id": str})
    table = table.set_index("nspn_id")
    blocks = {name: table.filter(regex=f"^{prefix}_")
              for name, prefix in (("thickness", "CT"), ("mt", "MT"))}
    return _cohort(table, blocks, {"thickness": "mm", "mt": "MT"}, site=True)


TABLES: dict[str, Callable[[], nf.Cohort]] = {
    "fcon1000": fcon1000, "ixi": ixi, "aomic": aomic, "lifespan": lifespan, "nspn": nspn}


def _cohort(people: pd.DataFrame, blocks: dict[str, pd.DataFrame], units: dict[str, str], *,
            site: bool = False) -> nf.Cohort:
    kinds = {**_KINDS, "site": "site"} if site else _KINDS
    varying = {name: b.loc[:, b.std() > 1e-9].loc[people.index] for name, b in blocks.items()}
    people = people[list(kinds)].assign(sex=people["sex"].astype(str))
    return nf.Cohort.from_frames(people, varying, units=units, covariates=kinds)

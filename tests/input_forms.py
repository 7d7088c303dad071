"""The same small cohort written in every form that people bring, by our own simulation."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

GYRI = ("bankssts", "cuneus", "insula", "precuneus")
ASEG = ("Left-Hippocampus", "Right-Hippocampus", "Left-Thalamus", "Brain-Stem", "5th-Ventricle",
        "Left-WM-hypointensities")
HEAD = """[subjects]
table = "participants.tsv"
{subjects}
[covariates]
age = "continuous"
sex = "categorical"
{covariates}
[reference]
query = "diagnosis == 'CN'"
"""
THICKNESS = [f"{side}_{gyrus}_thickness" for side in ("lh", "rh") for gyrus in GYRI]


def people(n: int = 40, seed: int = 0) -> pd.DataFrame:
    """Ages, sexes and diagnoses; the last eighth are patients."""
    rng = np.random.default_rng(seed)
    ids = [f"sub-{i + 1:03d}" for i in rng.permutation(n)]
    age = rng.uniform(20, 80, n).round(1)
    age[n - n // 8:] = age[n - n // 8:].clip(30, 70)  # nobody is to be extrapolated to
    return pd.DataFrame({"age": age, "sex": rng.choice(["F", "M"], n),
                         "diagnosis": np.where(np.arange(n) < n - n // 8, "CN", "AD")},
                        pd.Index(ids, name="participant_id"))


def thickness(who: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Millimetres, three decimals as FreeSurfer writes them; one region failed."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(len(who), 1))
    values = 2.5 + 0.1 * (shared + rng.normal(size=(len(who), len(THICKNESS)))) \
        - 0.004 * (who[["age"]].to_numpy() - 50)
    values[3, 1] = np.nan
    return pd.DataFrame(values.round(3), who.index, THICKNESS)


def volumes(who: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Cubic millimetres, with what a segmentation always has beside its structures."""
    rng = np.random.default_rng(seed + 1)
    table = pd.DataFrame(4000 + 300 * rng.normal(size=(len(who), len(ASEG))), who.index, ASEG)
    table[["5th-Ventricle", "Left-WM-hypointensities"]] = 0.0
    return table.round(1).assign(eTIV=(1.5e6 + 1e5 * rng.normal(size=len(who))).round(1))


def write(folder: Path, modality: str, *, subjects: str = "", covariates: str = "",
          who: pd.DataFrame | None = None) -> Path:
    """``participants.tsv`` and ``cohort.toml`` with one modality section."""
    folder.mkdir(parents=True, exist_ok=True)
    (people() if who is None else who).to_csv(folder / "participants.tsv", sep="\t", na_rep="n/a")
    text = HEAD.format(subjects=subjects, covariates=covariates) + modality
    (folder / "cohort.toml").write_text(text, encoding="utf-8")
    return folder / "cohort.toml"


def write_stats(folder: Path, thick: pd.Series | None, volume: pd.Series | None) -> None:
    """The stats folder of one person: our own lines in FreeSurfer's layout."""
    stats = folder / "stats"
    stats.mkdir(parents=True, exist_ok=True)
    if thick is not None:
        for side in ("lh", "rh"):
            rows = [f"{g} 1400 950 2300 {thick[f'{side}_{g}_thickness']:.3f} 0.6 0.1 0.02 12 1.1"
                    for g in GYRI if not np.isnan(thick[f"{side}_{g}_thickness"])]
            (stats / f"{side}.aparc.stats").write_text("\n".join([
                "# Table of FreeSurfer cortical parcellation anatomical statistics", "#",
                "# Measure Cortex, MeanThickness, Mean Thickness, 2.45, mm",
                "# Measure Cortex, WhiteSurfArea, White Surface Total Area, 88000, mm^2",
                "# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd MeanCurv "
                "GausCurv FoldInd CurvInd", *rows]) + "\n")
    if volume is not None:
        rows = [f"{i} {i + 9} {round(volume[name])} {volume[name]:.1f}  {name}  80 6 40 110 70"
                for i, name in enumerate(ASEG, 1)]
        (stats / "aseg.stats").write_text("\n".join([
            "# Title Segmentation Statistics",
            "# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, "
            f"{volume['eTIV']:.1f}, mm^3",
            "# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin "
            "normMax normRange", *rows]) + "\n")


def german(table: pd.DataFrame, path: Path, encoding: str = "utf-8-sig") -> None:
    """As Excel exports where the comma is decimal."""
    table.to_csv(path, sep=";", decimal=",", encoding=encoding)

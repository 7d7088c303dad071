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


def study(folder: Path) -> None:
    """Every file that the guide's examples name, of the same people."""
    who, thick, volume = people(), thickness(people()), volumes(people())
    folder.mkdir(parents=True, exist_ok=True)
    who.to_csv(folder / "participants.tsv", sep="\t", na_rep="n/a")
    _write_wide(folder, who, thick)
    _write_visits(folder, who, thick)
    for i, subject in enumerate(who.index):
        write_stats(folder / "derivatives" / "freesurfer" / subject,
                    None if i < 4 else thick.loc[subject],
                    None if i >= 37 else volume.loc[subject])
    for side in ("lh", "rh"):
        own = thick[[c for c in thick if c.startswith(side)]].fillna(0.0)
        own.to_csv(folder / f"{side}.thickness.tsv", sep="\t",
                   index_label=f"{side}.aparc.thickness")
    volume.to_csv(folder / "aseg.tsv", sep="\t", index_label="Measure:volume")
    _write_enigma(folder, thick, volume)


def _write_wide(folder: Path, who: pd.DataFrame, thick: pd.DataFrame) -> None:
    thick.to_csv(folder / "thickness.csv", na_rep="n/a")
    with pd.ExcelWriter(folder / "uptake.xlsx") as book:
        (thick / 2).iloc[8:].assign(remarks="none").to_excel(book, sheet_name="SUVR")
        who.to_excel(book, sheet_name="people")
    (thick.iloc[:, :4] / 5).to_parquet(folder / "fa_left.parquet")
    (thick.iloc[5:, 4:] / 5).to_parquet(folder / "fa_right.parquet")
    bare = who.index.str.removeprefix("sub-").rename("Kürzel")
    german(who.set_axis(bare), folder / "personen.csv", "latin-1")
    german(thick, folder / "dicke.csv")
    long = thick.melt(ignore_index=False, var_name="name", value_name="thickness").reset_index()
    parts = long["name"].str.split("_", expand=True)
    long = long.assign(hemisphere=parts[0], region=parts[1]).drop(columns="name")
    long.to_csv(folder / "long.csv", index=False)


def _write_enigma(folder: Path, thick: pd.DataFrame, volume: pd.DataFrame) -> None:
    names = {f"{side}_{g}_thickness": f"{side[0].upper()}_{g}_thickavg"
             for side in ("lh", "rh") for g in GYRI}
    cortex = thick.rename(columns=names).assign(LThickness=2.5, RThickness=2.4, LSurfArea=9e4,
                                                RSurfArea=9e4, ICV=volume["eTIV"])
    cortex.to_csv(folder / "CorticalMeasuresENIGMA_ThickAvg.csv", index_label="SubjID")
    volume[["Left-Hippocampus", "Right-Hippocampus", "Left-Thalamus", "eTIV"]].set_axis(
        ["Lhippo", "Rhippo", "Lthal", "ICV"], axis=1).to_csv(folder / "LandRvolumes.csv",
                                                             index_label="SubjID")


def _write_visits(folder: Path, who: pd.DataFrame, thick: pd.DataFrame) -> None:
    rows = []
    for number, later in (("ses-01", 0), ("ses-02", 2)):
        again = thick.mul(1 - 0.002 * later).round(3)
        rows.append(again.assign(session_id=number).reset_index())
    pd.concat(rows).to_csv(folder / "visits.tsv", sep="\t", index=False, na_rep="n/a")
    for subject, age in who["age"].items():
        (folder / str(subject)).mkdir(exist_ok=True)
        pd.DataFrame({"session_id": ["ses-01", "ses-02"], "age": [age, age + 2]}).to_csv(
            folder / str(subject) / f"{subject}_sessions.tsv", sep="\t", index=False)

"""Deviations on disk: CSV for regions, zarr for voxels, and where they come from as JSON."""
from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from .blocks import Blocks
from .cohort_checks import numbers_if_all
from .deviations import MAPS, WIDE, Deviations, Reference
from .errors import CohortError, ModelFileError, listed
from .imputed_deviations import ImputedDeviations
from .inputs import read_csv, read_object
from .modality import refuse_unsafe_name
from .stored import ROWS, StoredTable

NARROW = ("latent", "distance", "subjects")


IMPUTED = "imputed"

_OURS = {"reference.json", IMPUTED, *MAPS, *(f"{name}.csv" for name in (*WIDE, *NARROW))}


def is_ours(path: Path) -> bool:
    """Whether something in a folder of deviations is part of them, as tables or as arrays.

    >>> is_ours(Path("deviations/z.csv")), is_ours(Path("deviations/thesis.doc"))
    (True, False)
    """
    return path.name in _OURS


def write(deviations: Deviations, work: Path) -> None:
    """Everything into an empty folder."""
    deviations = deviations.without_imputed()  # their place is apart from what was measured
    stored = any(deviations.space(m) for m in deviations.modalities)
    for name, held in deviations.held().items():
        if name in MAPS and (stored or isinstance(held, Blocks)):
            _store(deviations.blocks(name), work / name)
        elif name != "conformal" or not stored:
            write_table(getattr(deviations, name), name, work)
    write_reference(deviations.reference, work)
    if deviations.imputed is not None:
        _write_imputed(deviations.imputed, work / IMPUTED)


def _write_imputed(imputed: ImputedDeviations, folder: Path) -> None:
    """``z/<modality>`` and ``sd/<modality>``, of imputed people only."""
    for what, blocks in (("z", imputed.z), ("sd", imputed.sd)):
        for name, block in blocks.items():
            StoredTable.create(folder / what / name, block.index, block.columns,
                               {"by": imputed.by}).write(0, block.to_numpy())


def _read_imputed(folder: Path, modalities: Iterable[str], people: pd.Index
                  ) -> ImputedDeviations | None:
    """What :func:`_write_imputed` wrote, if anything."""
    if not folder.is_dir():
        return None
    z, sd = ({m: StoredTable.open(folder / what / m) for m in map(refuse_unsafe_name, modalities)
              if (folder / what / m).is_dir()} for what in ("z", "sd"))
    for m, table in z.items():
        if m not in sd or list(sd[m].index) != list(table.index) \
                or not table.index.isin(people).all():
            raise ValueError(f"{folder.name} does not fit subjects.csv; it was edited")
    by = " and ".join(dict.fromkeys(str(t.attributes.get("by", "")) for t in z.values()))
    return ImputedDeviations(Blocks(z), Blocks(sd), by) if z else None


def write_table(table: pd.DataFrame, name: str, work: Path) -> None:
    """One table as CSV."""
    table.to_csv(work / f"{name}.csv", index_label=None if name in WIDE else "participant_id")


def write_reference(reference: Reference, work: Path) -> None:
    """Where the deviations come from."""
    (work / "reference.json").write_text(json.dumps(reference.to_dict(), indent=1),
                                         encoding="utf-8")


def _store(blocks: Blocks, folder: Path) -> None:
    """One stored table a modality."""
    for name, block in blocks.as_is().items():
        table = StoredTable.create(folder / name, block.index, block.columns)
        for start in range(0, len(block), ROWS):
            at = slice(start, start + ROWS)
            table.write(start, block.values(people=at) if isinstance(block, StoredTable)
                        else block.iloc[at].to_numpy())


def read(folder: Path) -> Deviations:
    """What :func:`write` wrote; tables of voxels are only opened."""
    try:
        reference = Reference.from_dict(read_object(folder / "reference.json"))
        blocks = {name: Blocks({m: StoredTable.open(folder / name / m)
                                for m in map(refuse_unsafe_name, reference.modalities)})
                  for name in MAPS if (folder / name).is_dir()}
        wide = {name: read_wide(folder, name) for name in WIDE if name not in blocks and (
            name in MAPS or (folder / f"{name}.csv").exists())}
        narrow = {name: read_narrow(folder, name) for name in ("latent", "distance")}
        subjects = read_subjects(folder / "subjects.csv", reference)
        imputed = _read_imputed(folder / IMPUTED, reference.modalities, subjects.index)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            CohortError) as problem:
        raise ModelFileError(f"{folder} is not a folder of deviations as `normfuse score` "
                             f"writes it: {problem}") from problem
    for name, found in blocks.items():
        for m, block in found.as_is().items():
            _refuse_other_people(folder, f"{name}/{m}", block.index, subjects.index)
    for name, table in {**wide, **narrow}.items():
        _refuse_other_people(folder, f"{name}.csv", table.index, subjects.index)
    tables: dict[str, Any] = {**blocks, **wide, **narrow}
    features = [list(wide[name].columns) for name in MAPS if name in wide]
    if not reference.modalities or any(found != features[0] for found in features):
        raise ModelFileError(f"{folder}: {', '.join(MAPS)} do not list the same features; one of "
                             "them was edited")
    return Deviations(**tables, subjects=subjects, reference=reference, imputed=imputed)


def read_wide(folder: Path, name: str) -> pd.DataFrame:
    """A table with columns (modality, feature) or (modality, latent)."""
    table = read_csv(folder / f"{name}.csv", header=[0, 1], index_col=0, dtype={0: str})
    table.columns.names = ["modality", "latent" if name == "attribution" else "feature"]
    table = table.set_axis(table.index.astype(str).rename("participant_id"), axis=0)
    return _numbers(table, f"{name}.csv")


def _numbers(table: pd.DataFrame, file: str) -> pd.DataFrame:
    """The table; refuses one that somebody has written words into."""
    words = [column for column, kind in table.dtypes.items()
             if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)]
    if words:
        raise ValueError(f"{file} holds words instead of numbers in {listed(words)}")
    return table


def read_narrow(folder: Path, name: str) -> pd.DataFrame:
    """A table of few columns."""
    table = read_csv(folder / f"{name}.csv", index_col="participant_id",
                     dtype={"participant_id": str})
    return _numbers(table, f"{name}.csv")


def read_subjects(path: Path, reference: Reference) -> pd.DataFrame:
    """Cells as they were: a group may be called NA or None, a site 01 is not the site 1."""
    words = read_csv(path, dtype=str, keep_default_na=False, na_values=[""]
                     ).set_index("participant_id")
    categories = {name for name, fact in reference.covariates.items()
                  if fact.get("kind") != "continuous"}
    return words.assign(**{name: numbers_if_all(words[name])
                           for name in words.columns.difference(list(categories))})


def _refuse_other_people(folder: Path, name: str, people: pd.Index, index: pd.Index) -> None:
    if list(people) != list(index):
        raise ModelFileError(f"{folder}: {name} and subjects.csv do not list the same subjects; "
                             "one of them was edited")

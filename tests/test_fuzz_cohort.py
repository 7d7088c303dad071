"""Damaged and hostile cohorts: refused with an error of ours, or read; nothing else happens.

Witness: none of ours; whatever hypothesis comes up with (``make fuzz`` tries thousands).
"""
from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from fuzzing import HOSTILE, altered, changes, damaged, edits, instead, refused, toml, tries
from hypothesis import given
from hypothesis import strategies as st
from input_forms import study

from normfuse import Cohort
from normfuse.checkup import examine
from normfuse.checkup_text import in_numbers, in_words
from normfuse.volumes.one_image import read_image
from normfuse.volumes.plan import VolumePlan

HEAD = {"subjects": {"table": "participants.tsv", "drop_incomplete": True},
        "covariates": {"age": "continuous", "sex": "categorical"},
        "reference": {"query": "diagnosis == 'CN'"}}
VISITS = {**HEAD, "subjects": {"table": "participants.tsv", "session": "first",
                               "sessions": "{id}/{id}_sessions.tsv", "drop_incomplete": True}}
STATS = "derivatives/freesurfer/sub-010/stats/lh.aparc.stats"
FORMS = {
    "participants.tsv": {"t1": {"table": "thickness.csv"}},
    "thickness.csv": {"t1": {"table": "thickness.csv", "prefix": "lh", "unit": "mm"}},
    "thickness.csv.gz": {"t1": {"table": "thickness.csv.gz", "exclude": ["lh_insula_thickness"]}},
    "dicke.csv": {"t1": {"table": "dicke.csv", "decimal": ",", "separator": ";"}},
    "uptake.xlsx": {"pet": {"table": "uptake.xlsx", "sheet": "SUVR", "exclude": ["remarks"]}},
    "fa_left.parquet": {"fa": {"table": ["fa_left.parquet", "fa_right.parquet"]}},
    "long.csv": {"t1": {"table": "long.csv", "long": {"feature": ["hemisphere", "region"],
                                                      "value": "thickness"}}},
    "aseg.tsv": {"volume": {"table": "aseg.tsv", "include": ["eTIV"]}},
    "lh.thickness.tsv": {"t1": {"table": ["lh.thickness.tsv", "rh.thickness.tsv"]}},
    STATS: {"t1": {"freesurfer": "derivatives/freesurfer/{id}", "stats": ["aparc.thickness"]}},
    "visits.tsv": {"t1": {"table": "visits.tsv", "session_column": "session_id"}},
    "sub-010/sub-010_sessions.tsv": {"t1": {"table": "visits.tsv"}}}


def spec_of(form: str) -> dict:
    head = VISITS if form in ("visits.tsv", "sub-010/sub-010_sessions.tsv") else HEAD
    return {**head, "modalities": FORMS[form]}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    study(place / "study")
    table = (place / "study" / "thickness.csv").read_bytes()
    (place / "study" / "thickness.csv.gz").write_bytes(gzip.compress(table))
    (place / "study" / "cohort.toml").touch()
    return place


def read(place: Path, spec: bytes) -> str:
    """Both ways of reading refuse the same, or neither does."""
    file = place / "study" / "cohort.toml"
    with instead(file, spec):
        said = refused(lambda: Cohort.read(file), place, "study/normfuse_cache")
        refused(lambda: (in_words(examine(file)), in_numbers(examine(file))), place)
        refused(lambda: repr(Cohort.read(file).reference_subjects()._repr_html_()), place,
                "study/normfuse_cache")
    return said


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_read_as_they_are(place, form):
    assert read(place, toml(spec_of(form)).encode()) == ""


@tries(40)
@given(form=st.sampled_from(sorted(FORMS)), plan=edits)
def test_damaged_tables(place, form, plan):
    file = place / "study" / form
    with instead(file, damaged(file.read_bytes(), plan)):
        read(place, toml(spec_of(form)).encode())


@tries(40)
@given(form=st.sampled_from(sorted(FORMS)), plan=changes)
def test_altered_settings(place, form, plan):
    read(place, toml(altered(spec_of(form), plan)).encode("utf-8", "replace"))


@tries(25)
@given(form=st.sampled_from(sorted(FORMS)), plan=edits)
def test_damaged_settings(place, form, plan):
    read(place, damaged(toml(spec_of(form)).encode(), plan))


@tries(15)
@given(ids=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4),
       names=st.lists(st.sampled_from(HOSTILE), max_size=3),
       kind=st.sampled_from(["csv", "parquet", "xlsx"]))
def test_hostile_cells(place, ids, names, kind):
    """In ids, groups, categories and names of columns."""
    who = pd.read_csv(place / "study" / "participants.tsv", sep="\t")
    who.loc[:len(ids) - 1, "participant_id"] = ids
    who.loc[5:4 + len(names), "diagnosis"] = names
    who.loc[9:8 + len(names), "sex"] = names
    table = pd.read_csv(place / "study" / "thickness.csv")
    table.loc[:len(ids) - 1, "participant_id"] = ids
    table = table.rename(columns=dict(zip(table.columns[1:], names)))
    people, t1 = (place / "study" / f"{n}.{kind}" for n in ("people", "t1"))
    try:
        for frame, file in ((who, people), (table, t1)):
            getattr(frame, {"csv": "to_csv", "parquet": "to_parquet", "xlsx": "to_excel"}[kind])(
                file, index=False)
    except Exception:  # what cannot be written need not be read
        return
    finally:
        written = people.exists() and t1.exists()
        if not written:
            for file in (people, t1):
                file.unlink(missing_ok=True)
    read(place, toml({**HEAD, "subjects": {"table": people.name, "drop_incomplete": True},
                      "modalities": {"t1": {"table": t1.name}}}).encode())
    for file in (people, t1):
        file.unlink()


PLAN = VolumePlan("brain", resolution=10)


@pytest.fixture(scope="module")
def image() -> bytes:
    made = PLAN.space.img(np.random.default_rng(0).gamma(9, size=PLAN.space.n_voxels))
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made up"))
    return made.to_bytes()


@tries(25)
@given(plan=edits, packed=st.booleans(), head=st.booleans())
def test_damaged_images(tmp_path_factory, image, plan, packed, head):
    place = tmp_path_factory.mktemp("image")
    content = damaged(image[:400], plan) + image[400:] if head else damaged(image, plan)
    file = place / ("t1.nii.gz" if packed else "t1.nii")
    file.write_bytes(gzip.compress(content, 1) if packed else content)
    refused(lambda: read_image(file, PLAN), place)

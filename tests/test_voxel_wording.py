"""What a comparison of voxels says of itself, and what its maps say where nothing is.

Without a witness: the wording. The headers' codes are those of the NIfTI-1 standard.
"""
from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from normfuse.analyses import (BenjaminiHochberg, MaxT, VoxelComparison, VoxelTable,
                               compare_voxels, overlap_voxels, voxel_table)
from normfuse.analyses.kept_work import KeptWork
from normfuse.deviations import Deviations
from normfuse.errors import BegunWorkError
from normfuse.space import Space
from normfuse.testing import tiny_voxel_deviations


def space(name: str = "MNI152NLin2009aSym") -> Space:
    mask = np.zeros((7, 8, 9), bool)
    mask[1:5, 2:7, 3:8] = True
    return Space(mask, np.diag([2.0, 3, 4, 1]), name)


def compared(where: Space, correction=BenjaminiHochberg()) -> VoxelComparison:
    y = np.random.default_rng(0).normal(size=(24, where.n_voxels))
    y[:10, :12] += 4
    y[:, 20] = 1.5
    who = pd.DataFrame({"dx": ["AD"] * 10 + ["CN"] * 14}, [f"s{i}" for i in range(24)])
    return compare_voxels(VoxelTable(y, who, where), "dx", adjust=(), contrast=("AD", "CN"),
                          correction=correction)


@pytest.mark.parametrize("correction", [BenjaminiHochberg(), MaxT(50, None)])
def test_maps_of_p_are_one_where_nothing_is(correction, tmp_path):
    where = space()
    found = compared(where, correction)
    folder = found.save(tmp_path / "groups")
    for name in ("p", found.corrected):
        for img in (found.img(name), nib.load(folder / found._file(name))):
            data = img.get_fdata()
            assert (data[~where.mask] == 1).all() and np.isnan(data[where.mask][20])
            np.testing.assert_allclose(data[where.mask], found.maps[name], rtol=1e-6)
        marked = found.img(name, significant=True).get_fdata()
        np.testing.assert_array_equal(marked[where.mask] < 1, found.significant())
    assert (nib.load(folder / found._file("t")).get_fdata()[~where.mask] == 0).all()
    assert (found.img("t", significant=True).get_fdata()[where.mask][~found.significant()] == 0
            ).all()
    np.testing.assert_array_equal(VoxelComparison.read(folder).maps["p"], found.maps["p"])
    for glass in (False, True):
        found.plot("p", glass=glass, significant=True)
        plt.close("all")


@pytest.mark.parametrize("name, code", [("MNI152NLin2009aSym", 4), ("MNIInfant", 4),
                                        ("UKBTemplate", 2)])
def test_only_mni_is_called_mni(name, code, tmp_path):
    found = compared(space(name))
    saved = nib.load(found.save(tmp_path / "groups") / found._file("t"))
    for img in (saved, found.img("t")):
        assert img.header["sform_code"] == img.header["qform_code"] == code


def test_a_result_says_what_was_compared(tmp_path):
    made = tiny_voxel_deviations()
    table = VoxelTable.of(made, "t1")
    found = compare_voxels(table, "diagnosis", contrast=("AD", "CN"))
    kind = made.reference.kind
    lines = found.summary().splitlines()
    assert lines[0].startswith(f"diagnosis: {kind} z of t1, 6 AD - ")
    assert lines[2].endswith("; family: 2828 voxels of t1")
    assert "age" in made.reference.covariates and "age" not in table.subjects
    assert any(note.startswith("not adjusted for age: covariates of the model, but no columns")
               for note in found.notes)
    assert not compare_voxels(table, "diagnosis", adjust=(), contrast=("AD", "CN")).notes[1:]
    shares = overlap_voxels(table, "diagnosis", contrast=("AD", "CN"), correction=MaxT(19, None))
    assert f"share of people with |z| > 1.96 ({kind} z of t1), 6 AD" in shares.summary()
    folder = found.save(tmp_path / "groups")
    facts = json.loads((folder / "comparison.json").read_text())
    assert (facts["modality"], facts["kind"]) == ("t1", kind)
    assert facts["Family"] == "2828 voxels of t1"
    assert VoxelComparison.read(folder).summary() == found.summary()


def test_peaks_have_the_adjusted_difference():
    found = compared(space())
    peak = found.table.iloc[0]
    at = int(np.nanargmax(np.abs(found.maps["t"])))
    assert peak["adjusted_difference"] == found.maps["adjusted_difference"][at]


@pytest.mark.parametrize("columns", [256, 16_384])
def test_people_measured_in_part_stay_on_disk_as_in_memory(columns, tmp_path, monkeypatch):
    made = tiny_voxel_deviations().with_controls()
    z = made.z.copy()
    z.iloc[0, :1100] = np.nan  # the first voxels only
    z.iloc[1] = np.nan
    z.iloc[2, :-1] = np.nan
    made = replace(made, z=z, controls=None)
    made.save(tmp_path / "deviations")
    monkeypatch.setattr(voxel_table, "COLUMNS", columns)
    stored = Deviations.read(tmp_path / "deviations")
    assert stored.is_stored
    memory, disk = VoxelTable.of(made, "t1"), VoxelTable.of(stored, "t1")
    assert list(disk.subjects.index) == list(memory.subjects.index)
    assert len(disk) == len(z) - 1 and memory.notes == disk.notes
    assert disk.notes == (f"left out 1 people without values ({z.index[1]})",)
    one, other = (compare_voxels(table, "diagnosis", adjust=(), contrast=("AD", "CN"))
                  for table in (memory, disk))
    for name, values in one.maps.items():
        np.testing.assert_array_equal(other.maps[name], values)


def test_torn_pieces_are_computed_again(tmp_path):
    work = KeptWork(tmp_path / "work", {"seed": 1})
    work.save("one", t=np.arange(3.0))
    whole = (work.folder / "one.npz").read_bytes()
    for torn in (b"", whole[:10], whole[:-30]):
        (work.folder / "one.npz").write_bytes(torn)
        assert work.load("one") is None
    with work.writing("null.npy") as path:
        np.lib.format.open_memmap(path, "w+", np.float32, (4, 50)).flush()
    assert work.holds("null.npy", (4, 50), np.float32)
    assert not work.holds("null.npy", (5, 50), np.float32)
    assert not work.holds("null.npy", (4, 50), np.float64)
    whole = (work.folder / "null.npy").read_bytes()
    for torn in (b"", whole[:40], whole[:-4]):
        (work.folder / "null.npy").write_bytes(torn)
        assert not work.holds("null.npy", (4, 50), np.float32)
    assert not work.holds("other.npy", (4, 50), np.float32)
    for torn in ("", "[]", '{"seed": 1'):
        (work.folder / "work.json").write_text(torn)
        with pytest.raises(BegunWorkError, match="work.json is damaged .*remove that folder"):
            KeptWork(work.folder, {"seed": 1})

"""Small files that would take all memory or all time, and files that would run code, are refused.

One process with 3 GB of memory, most of it the libraries', reads them all, so that a refusal that
came too late would be a MemoryError.
"""
from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import zarr

from normfuse import Cohort, Deviations, NormativeModel
from normfuse.errors import CohortError, ModelFileError
from normfuse.inputs import LIMIT_NAME, UnfitFileError, limit_bytes, refuse_size
from normfuse.signed import WEIGHTS_NAME
from normfuse.modality import Modality
from normfuse.stored import StoredTable
from normfuse.testing import tiny_voxel_deviations

SPEC = """[subjects]
table = "participants.tsv"
[covariates]
age = "continuous"
[modalities.t1]
"""
PEOPLE = "participant_id\tage\n" + "".join(f"s{i}\t{i + 30}\n" for i in range(5))
LIMIT = 0.5
"""Gigabytes of one file, instead of 2: to unpack more takes seconds."""


def table(name: str, **more: str) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n"
                   for key, value in {"table": name, **more}.items())


def packed_zeros(start: bytes, path: Path) -> None:
    """A gzip file of a few megabytes that unpacks to gigabytes."""
    block = gzip.compress(b"0" * 2 ** 26, 6)
    path.write_bytes(gzip.compress(start) + block * 10)


def workbook(path: Path, cell: str, zeros: int = 0) -> None:
    """With one cell, and perhaps a part that unpacks to gigabytes."""
    pd.DataFrame({"participant_id": ["s1"], "insula": [1]}).to_excel(path, index=False)
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b'r="B2"', f'r="{cell}"'.encode())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in parts.items():
            new.writestr(name, content)
        if zeros:
            with new.open("xl/media/image.xml", "w", force_zip64=True) as big:
                for _ in range(zeros):
                    big.write(bytes(2 ** 26))


def image(path: Path, *, shape=(9, 9, 9), offset: float = 352, note: bytes = bytes(4)) -> None:
    """A header that promises what it likes, then nothing."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_sform(np.eye(4), 4)
    content = bytearray(header.binaryblock)
    struct.pack_into("<8h", content, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<f", content, 108, offset)
    path.write_bytes(gzip.compress(bytes(content) + note))


class Canary:
    """Leaves a file behind if it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("bombs")
    (place / "participants.tsv").write_text(PEOPLE)
    packed_zeros(b"participant_id\tinsula\ns1\t", place / "inflating.tsv.gz")
    (place / "square.csv").write_text("participant_id," + ",".join(f"r{k}" for k in range(10000))
                                      + "\n" + "s1,1\n" * 10000)
    (place / "long.csv").write_text("participant_id,region,value\n" + "".join(
        f"s{k},r{k},1\n" for k in range(10000)))
    workbook(place / "far.xlsx", "XFD1048576")
    workbook(place / "inflating.xlsx", "B2", zeros=2)
    zeros = pyarrow.array(np.zeros(10 ** 6, "int8"))
    pyarrow.parquet.write_table(pyarrow.table({"participant_id": pyarrow.chunked_array(
        [zeros] * 70)}), place / "rows.parquet", row_group_size=10 ** 8)
    (place / "sparse.csv").touch()
    os.truncate(place / "sparse.csv", 2 ** 40)
    os.mkfifo(place / "pipe.csv")
    (place / "folder.csv").mkdir()
    for k in range(5):
        for name, what in (("vast", {"shape": (32767, 32767, 32767)}),
                           ("none", {"shape": (-3, 4, 5)}),
                           ("notes", {"offset": 1e9, "note": b"\1\0\0\0" + bytes(9)}),
                           ("note", {"offset": 4000, "note": b"\1\0\0\0" + bytes(4000)})):
            image(place / f"s{k}_{name}.nii.gz", **what)
    return place


CASES = {
    table("inflating.tsv.gz"): "unpacks to more than 0.5 GB",
    table("square.csv"): "a table of 10001 rows and 10001 columns would take",
    table("long.csv") + 'long = {feature = "region", value = "value"}': "does region name regions",
    table("far.xlsx"): "a table of 1048576 rows and 16384 columns would take",
    table("inflating.xlsx"): "what it unpacks to would take 0.134 GB of memory, more than 0.05 GB",
    table("rows.parquet"): "a table of 70000000 rows and 1 columns would take",
    table("sparse.csv"): "would take 1.1e+03 GB",
    table("pipe.csv"): "no ordinary file",
    table("folder.csv"): "no ordinary file",
    table("/dev/zero"): "no ordinary file",
    table("http://127.0.0.1:9/t1.csv"): "there is no table",
    table("x" * 300 + ".csv"): "File name too long",
    'images = "{id}_vast.nii.gz"': "an image of shape (32767, 32767, 32767) would take",
    'images = "{id}_none.nii.gz"': "cannot be read as NIfTI",
    'images = "{id}_notes.nii.gz"': "its voxels are said to begin at byte 1e+09",
    'images = "{id}_note.nii.gz"': "an extension of its header is said to have 0 bytes",
    'images = "{id}_vast.nii.gz"\nmask = "s0_vast.nii.gz"': "the mask",
    "table = " + "[" * 5000: "nested too deeply",
    "table = " + "9" * 5000: "not a valid TOML file",
    'table = "a\\u0000b.csv"': "holds a NUL character"}

_READ = """
import json, resource, sys, warnings
import matplotlib, numpy, pandas, pyarrow.parquet, openpyxl, nibabel, nilearn.datasets
import scipy.ndimage
from pathlib import Path
from normfuse.cohort import Cohort
from normfuse.errors import NormfuseError
resource.setrlimit(resource.RLIMIT_AS, (3 * 10 ** 9, 3 * 10 ** 9))
warnings.simplefilter("ignore")
place, said = Path(sys.argv[1]), {}
for section in json.loads((place / "cases.json").read_text()):
    (place / "cohort.toml").write_text(sys.argv[2] + section)
    try:
        said[section] = repr(Cohort.read(place / "cohort.toml"))
    except NormfuseError as problem:
        said[section] = str(problem)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(bombs) -> dict[str, str]:
    (bombs / "cases.json").write_text(json.dumps(list(CASES)))
    done = subprocess.run([sys.executable, "-c", _READ, str(bombs), SPEC], capture_output=True,
                          text=True, timeout=120, cwd=bombs,
                          env={**os.environ, LIMIT_NAME: str(LIMIT)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("section", CASES, ids=lambda s: s.strip()[:30])
def test_they_are_refused_with_a_word_to_the_owner(said, section):
    assert CASES[section] in said[section]


def test_nothing_was_left_behind(said, bombs):
    made = {p.name for p in bombs.iterdir()} - {p.name for p in bombs.glob("s[0-4]_*")}
    assert made <= {"participants.tsv", "cohort.toml", "cases.json", "normfuse_cache", "pipe.csv",
                    "folder.csv", "inflating.tsv.gz", "square.csv", "long.csv", "far.xlsx",
                    "inflating.xlsx", "rows.parquet", "sparse.csv"}


def test_who_has_more_memory_may_say_so(tmp_path, monkeypatch):
    (tmp_path / "participants.tsv").write_text(PEOPLE)
    (tmp_path / "t1.csv").write_text("participant_id,insula\n" + "".join(
        f"s{i},{i}\n" for i in range(5)))
    (tmp_path / "cohort.toml").write_text(SPEC + table("t1.csv"))
    monkeypatch.setenv(LIMIT_NAME, "0.00000001")
    with pytest.raises(CohortError, match=f"set the environment variable {LIMIT_NAME}"):
        Cohort.read(tmp_path / "cohort.toml")
    monkeypatch.setenv(LIMIT_NAME, "0.001")
    assert len(Cohort.read(tmp_path / "cohort.toml")) == 5 and limit_bytes() == 10 ** 6
    monkeypatch.setenv(LIMIT_NAME, "plenty")
    with pytest.raises(UnfitFileError, match="must be a number of gigabytes; it is 'plenty'"):
        refuse_size(1)


class TestStoredTables:
    """zarr has codecs that unpickle, and chunks of any size."""

    @pytest.fixture
    def place(self, tmp_path) -> Path:
        StoredTable.create(tmp_path / "t1", ["s1", "s2"], ["a", "b", "c"])
        return tmp_path / "t1"

    def refusal(self, place: Path) -> str:
        with pytest.raises(ModelFileError, match="is not a stored table") as caught:
            StoredTable.open(place)
        return str(caught.value)

    def test_a_chunk_of_any_size(self, place):
        facts = json.loads((place / "zarr.json").read_text())
        facts["chunk_grid"]["configuration"]["chunk_shape"] = [10 ** 9, 10 ** 9]
        (place / "zarr.json").write_text(json.dumps(facts))
        assert "a chunk would take 4e+09 GB" in self.refusal(place)

    def test_what_would_be_unpickled(self, place, monkeypatch):
        monkeypatch.chdir(place.parent)
        (place / "zarr.json").unlink()
        (place / ".zarray").write_text(json.dumps({
            "zarr_format": 2, "shape": [2, 3], "chunks": [2, 3], "dtype": "|O", "order": "C",
            "compressor": None, "fill_value": None, "filters": [{"id": "pickle"}]}))
        (place / "0.0").write_bytes(pickle.dumps([Canary()] * 6 + ["|O", [2, 3]]))
        self.refusal(place)
        assert not (place.parent / "canary").exists()

    def test_other_numbers(self, place):
        facts = json.loads((place / "zarr.json").read_text())
        (place / "zarr.json").write_text(json.dumps({**facts, "data_type": "int16",
                                                     "fill_value": 0}))
        assert "it is int16 of shape (2, 3)" in self.refusal(place)


def test_a_pickle_in_the_place_of_weights_is_not_opened(tmp_path, monkeypatch):
    from test_fuzz_results import sign

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / WEIGHTS_NAME).write_bytes(pickle.dumps(Canary()))
    (tmp_path / "model" / "model.json").write_bytes(sign(tmp_path, {"format": 3}))
    with pytest.raises(ModelFileError, match="cannot be read: Error while deserializing header"):
        NormativeModel.load(tmp_path / "model")
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path, monkeypatch):
    from normfuse.checkpoint import Checkpoint

    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole.pt").write_bytes(pickle.dumps(Canary()))
    with pytest.raises(ModelFileError, match="whole.pt, which says how far a training is, is dam"):
        Checkpoint(tmp_path / "whole.pt").load("it")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["../../out", "a/b", "a\\b", "..", ".hidden", "a\0b", "x" * 61])
def test_a_modality_whose_files_would_lie_elsewhere(name, tmp_path):
    with pytest.raises(CohortError, match="files are named after it"):
        Modality(name, ("insula",))
    folder = tiny_voxel_deviations(2, 2).save(tmp_path / "deviations")
    facts = json.loads((folder / "reference.json").read_text())
    facts["modalities"] = {name: facts["modalities"]["t1"]}
    (folder / "reference.json").write_text(json.dumps(facts))
    with pytest.raises(ModelFileError, match="files are named after it"):
        Deviations.read(folder)


def test_a_store_of_zarr_itself_is_still_a_store(tmp_path):
    """The refusals above are of what is strange, not of what zarr writes for us."""
    StoredTable.create(tmp_path / "t1", ["s1"], ["a"]).write(0, np.array([[2.5]]))
    assert zarr.open_array(str(tmp_path / "t1"), mode="r")[0, 0] == 2.5
    assert StoredTable.open(tmp_path / "t1").frame().loc["s1", "a"] == 2.5

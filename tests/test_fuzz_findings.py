"""What ``make fuzz`` has found, each once: it was an error of pandas, NumPy, nibabel or Python."""
from __future__ import annotations

import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fuzzing import instead, refused, toml
from test_fuzz_cohort import FORMS, HEAD, STATS
from test_fuzz_cohort import place as study  # noqa: F401
from test_fuzz_results import JSON_NAME, look, sign
from test_fuzz_results import place as written  # noqa: F401

from normfuse import Cohort
from normfuse.checkup import examine
from normfuse.checkup_text import in_words
from normfuse.volumes.header import opened

T1, FOLDERS = {"table": "thickness.csv"}, FORMS[STATS]["t1"]


@pytest.mark.parametrize("changed, words", [
    ({"modalities": {"t1": {**FOLDERS, "stats": []}}}, "stats is an empty list"),
    ({"modalities": {"t1": {**FOLDERS, "stats": "x" * 300 + ".thickness"}}}, "must be a file and"),
    ({"modalities": {"t1": {**FOLDERS, "stats": "../../x.thickness"}}}, "must be a file and"),
    ({"modalities": {"t1": {**T1, "features": [["a"]]}}}, "which is no column of"),
    ({"reference": {"query": True}}, "query under [reference] must be text in quotes; got True"),
    ({"subjects": {"table": "participants.tsv", "id": 3}}, "id under [subjects] must be text"),
    ({"modalities": {"../t1": T1}}, "files are named after it"),
    ({"modalities": {"all": T1}}, "has a meaning of its own in the results"),
    ({"modalities": {"t1": T1, "t2": {"table": [[]]}}}, "or a list of tables")])
def test_settings(study, changed, words):  # noqa: F811
    file = study / "study" / "cohort.toml"
    spec = {**HEAD, "modalities": {"t1": T1}, **changed}
    with instead(file, toml(spec).encode()):
        assert words in refused(lambda: Cohort.read(file), study)
        assert any(words in problem for problem in examine(file).problems)


def test_nobody_in_the_subjects_table(study):  # noqa: F811
    file, people = study / "study" / "cohort.toml", study / "study" / "participants.tsv"
    spec = toml({**HEAD, "modalities": {"t1": T1}}).encode()
    with instead(file, spec), instead(people, b"participant_id\tage\tsex\tdiagnosis\n"):
        assert "0 people" in in_words(examine(file))
        assert refused(lambda: Cohort.read(file), study)


def test_a_rotation_that_is_none(tmp_path):
    image = nib.Nifti1Image(np.ones((3, 4, 5)), np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.set_sform(np.eye(4), 1)
    content = bytearray(image.to_bytes())
    struct.pack_into("<f", content, 256, 2.0)  # quatern_b of a unit quaternion
    (tmp_path / "t1.nii").write_bytes(content)
    found, problems = opened(tmp_path / "t1.nii")
    assert found is None and "w2 should be positive" in problems[0].detail


def cell(text: str, line: int, at: int, new: str) -> str:
    lines = text.splitlines()
    cells = lines[line].split(",")
    cells[at] = new
    return "\n".join([*lines[:line], ",".join(cells), *lines[line + 1:]]) + "\n"


@pytest.mark.parametrize("name, change", [
    ("evaluation/coverage.csv", lambda t: cell(t, 1, 2, "much")),
    ("evaluation/features.csv", lambda t: t.replace("MSLL_spline", "MSLL")),
    ("evaluation/outer.csv", lambda t: t.replace("high", "hihg")),
    ("evaluation/features.csv", lambda t: cell(t, 1, 2, "9" * 400)),
    ("groups/table.csv", lambda t: t.replace(",p,", ",P,")),
    ("groups/table.csv", lambda t: "\n".join(t.splitlines()[:1]).replace(",p,", ",P,")),
    ("deviations/z.csv", lambda t: cell(t, 3, 1, "far")),
    ("deviations/latent.csv", lambda t: "\n".join(t.splitlines()[:-1])),
    ("deviations/expected.csv", lambda t: t.replace("cuneus", "cunus")),
    ("deviations/distance.csv", lambda t: t.replace("sub-a", "sub-c"))])
def test_edited_tables(written, name, change):  # noqa: F811
    before = (written / name).read_text()
    assert change(before) != before
    with instead(written / name, change(before).encode()):
        assert "normfuse" in look(written, name) or "edited" in look(written, name) \
            or "wrote" in look(written, name)


@pytest.mark.parametrize("name, key, value", [
    ("evaluation/evaluation.json", "kind", {}), ("evaluation/evaluation.json", "people", "all"),
    ("evaluation/evaluation.json", "floor", []), ("groups/comparison.json", "n", "many"),
    ("compared/comparison.json", "Maps", {}),
    ("compared/comparison.json", "n", {}), ("deviations/reference.json", "covariates", [3]),
    ("deviations/reference.json", "n_subjects", 5),
    ("deviations/reference.json", "modalities", {}),
    ("work/work.json", "seed", "x")])
def test_edited_facts(written, name, key, value):  # noqa: F811
    facts = json.loads((written / name).read_text())
    with instead(written / name, json.dumps({**facts, key: value}).encode()):
        assert look(written, name)


@pytest.mark.parametrize("key, value", [
    ("references", [[]]), ("references", {"focal": []}),
    ("patterns", [{"present": [], "tails": ""}]),
    ("plan", {"max_epochs": -1}), ("fusion", {"class": "os.system", "options": {}}),
    ("model", {"class": "OneLatent", "options": {"hidden": "x"}}), ("seed", None)])
def test_edited_models(written, key, value):  # noqa: F811
    content = json.loads((written / "model" / JSON_NAME).read_text())
    with instead(written / "model" / JSON_NAME, sign(written, {**content, key: value})):
        assert look(written, "model") or key == "seed"


@pytest.mark.parametrize("chunks", [[1, 1], [64], [0, 9], [64, 2, 1]])
def test_chunks_of_another_shape(written, chunks):  # noqa: F811
    file = written / "voxels" / "z" / "t1" / "zarr.json"
    facts = json.loads(file.read_text())
    facts["chunk_grid"]["configuration"]["chunk_shape"] = chunks
    with instead(file, json.dumps(facts).encode()):
        assert look(written, "voxels") or chunks == [1, 1]  # chunks that are not there are NaN


def test_a_piece_of_begun_work_that_cannot_be_read_is_computed_again(written):  # noqa: F811
    file = Path(written / "work" / "piece.npz")
    content = file.read_bytes()
    with instead(file, content[:40] + bytes(30) + content[70:]):
        assert look(written, "work") == ""

"""Voxels and regions of many people, scored onto disk piece by piece, as in one go."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse import streaming
from normfuse.calibration import HeldOut
from normfuse.deviations import Deviations
from normfuse.errors import OutputExistsError, SpaceMismatchError
from normfuse.space import Space
from normfuse.stored import StoredTable

KINDS = {"age": "continuous", "sex": "categorical", "site": "site"}


def made(folder: Path, n: int = 190, seed: int = 0, n_patients: int = 30, *,
         prefix: str = "sub") -> nf.Cohort:
    """Smooth voxels on disk and a few regions, of healthy people and patients."""
    rng = np.random.default_rng(seed)
    mask = np.random.default_rng(99).random((15, 16, 14)) < 0.7
    space = Space(mask, np.diag([4.0, 4, 4, 1]), "MNI152NLin2009aSym")
    ids = [f"{prefix}-{i:03d}" for i in range(n)]
    people = pd.DataFrame({"age": rng.uniform(20, 80, n), "sex": rng.choice(["F", "M"], n),
                           "site": rng.choice(["a", "b"], n),
                           "dx": ["AD"] * n_patients + ["CN"] * (n - n_patients)}, index=ids)
    z = rng.normal(size=(n, 3))
    age = (people[["age"]].to_numpy() - 50) / 17
    voxels = (z @ rng.normal(size=(3, space.n_voxels)) * 0.5 + 0.3 * age
              + rng.normal(size=(n, space.n_voxels)))
    voxels[:n_patients, :150] -= 2.0
    table = StoredTable.create(folder / "t1", ids[:-4], space.features, {"made": seed})
    table.write(0, voxels[:-4])
    regions = pd.DataFrame(z @ rng.normal(size=(3, 7)) + rng.normal(size=(n, 7)), ids,
                           [f"r{j}" for j in range(7)])
    return nf.Cohort.from_frames(people, {"t1": StoredTable.open(folder / "t1"), "pet": regions},
                                 covariates=KINDS, reference="dx == 'CN'", spaces={"t1": space})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> nf.Cohort:
    return made(tmp_path_factory.mktemp("voxels"))


@pytest.fixture(scope="module")
def model(cohort) -> nf.NormativeModel:
    plan = nf.TrainingPlan(progress=False, max_epochs=60, warmup=10)
    return nf.NormativeModel(n_latent=4, plan=plan, calibration=HeldOut()).fit(
        cohort.reference_subjects())


@pytest.fixture(scope="module")
def in_memory(model, cohort) -> Deviations:
    return model.deviations(cohort, include_seen=True)


def same(found: Deviations, expected: Deviations) -> None:
    for name, table in expected.tables().items():
        if name == "conformal":
            continue
        other = getattr(found, name)
        assert list(other.index) == list(table.index) and list(other.columns) == list(
            table.columns), name
        if name != "subjects":
            np.testing.assert_allclose(other.to_numpy(float), table.to_numpy(float), rtol=3e-6,
                                       atol=3e-5, err_msg=name)


def test_voxels_are_modelled_with_low_rank_layers(model):
    kinds = [type(d).__name__ for d in model.fitted.vae.decoders]
    assert kinds == ["WideDecoder", "MlpDecoder"]
    assert not model.fitted.vae.noise[0].is_correlated


def test_voxels_need_linear_paths(cohort):
    recipe = nf.OneLatent(n_latent=2, skip=False)
    with pytest.raises(nf.NormfuseError, match="skip=True"):
        nf.NormativeModel(model=recipe, calibration=HeldOut(),
                          plan=nf.TrainingPlan(progress=False)).fit(cohort.reference_subjects())


def test_healthy_voxels_are_calibrated_and_planted_ones_found(in_memory):
    z = in_memory.z["t1"]
    new = in_memory.subjects["normfuse_role"] == "new"
    healthy = in_memory.controls.z["t1"].to_numpy()
    share = np.nanmean(np.abs(healthy) > 1.96)
    assert 0.035 < share < 0.065, share
    assert new.sum() == 30 and z.loc[new].iloc[:, :150].to_numpy().mean() < -1.3
    assert abs(z.loc[new].iloc[:, 150:].to_numpy().mean()) < 0.25


def test_pieces_on_disk_are_what_memory_holds(model, cohort, in_memory, tmp_path):
    found = model.deviations(cohort, include_seen=True, to=tmp_path / "out")
    assert found.is_stored and sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    same(found, in_memory)
    again = Deviations.read(tmp_path / "out")
    same(again, in_memory)
    assert again.space("t1") == cohort.modality("t1").space and again.space("pet") is None
    pd.testing.assert_frame_equal(found.extreme(), in_memory.extreme(), check_dtype=False)
    chosen = found.select(found.subjects.index[[70, 3]])
    assert chosen.is_stored
    pd.testing.assert_frame_equal(chosen.z, found.z.iloc[[70, 3]])
    with pytest.raises(OutputExistsError):
        model.deviations(cohort, include_seen=True, to=tmp_path / "out")


def test_memory_saved_is_what_was_streamed(in_memory, tmp_path):
    in_memory.save(tmp_path / "saved")
    same(Deviations.read(tmp_path / "saved"), in_memory)


def test_scoring_that_stopped_goes_on(model, cohort, in_memory, tmp_path, monkeypatch):
    scored, honest = [], streaming.Scorer.__call__

    def failing(self, ids):
        scored.append(ids[0])
        if len(scored) == 2:
            raise KeyboardInterrupt
        return honest(self, ids)

    monkeypatch.setattr(streaming.Scorer, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        model.deviations(cohort, include_seen=True, to=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [".out.unfinished"]
    with pytest.raises(OutputExistsError, match="another scoring"):
        model.deviations(cohort, kind="covariates", include_seen=True, to=tmp_path / "out")
    same(model.deviations(cohort, include_seen=True, to=tmp_path / "out"), in_memory)
    assert len(scored) == 4 and scored[1] == scored[2]  # the first piece was not scored again
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_else_lies_in_a_folder_is_never_lost(model, cohort, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="was not written by scoring"):
        model.deviations(cohort, include_seen=True, to=tmp_path / "mine", overwrite=True)
    some = cohort.select(cohort.ids[:5])
    model.deviations(some, include_seen=True, to=tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="notes.txt"):
        model.deviations(some, include_seen=True, to=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "notes.txt").exists() and (tmp_path / "mine/thesis.txt").exists()
    (tmp_path / "out" / "notes.txt").unlink()
    model.deviations(some, include_seen=True, to=tmp_path / "out", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


@pytest.mark.parametrize("where", ["write_reference", "take_name"])
def test_a_crash_at_the_very_end_loses_nothing(model, cohort, tmp_path, monkeypatch, where):
    some, honest = cohort.select(cohort.ids[:70]), getattr(streaming, where)
    monkeypatch.setattr(streaming, where, lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        model.deviations(some, include_seen=True, to=tmp_path / "out")
    monkeypatch.setattr(streaming, where, honest)
    monkeypatch.setattr(streaming._Piece, "__call__", None)  # nothing is left to be scored
    found = model.deviations(some, include_seen=True, to=tmp_path / "out")
    assert len(found) == 70 and [p.name for p in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").glob("tmp*"))


def test_a_model_of_voxels_outlives_a_file(model, cohort, in_memory, tmp_path):
    model.save(tmp_path / "model")
    again = nf.NormativeModel.load(tmp_path / "model")
    same(again.deviations(cohort, include_seen=True), in_memory)


def test_other_voxels_are_refused(model, cohort):
    space = cohort.modality("t1").space
    moved = Space(space.mask, space.affine + np.eye(4, k=3), space.name)
    other = nf.Cohort.from_frames(cohort.subjects, dict(cohort.features), covariates=KINDS,
                                  spaces={"t1": moved})
    with pytest.raises(SpaceMismatchError, match="fitted with"):
        model.deviations(other)


_SCRIPT = """
import sys, torch; torch.set_num_threads(1)
import normfuse as nf
sys.path.insert(0, {tests!r})
from test_streaming import made
from pathlib import Path
model = nf.NormativeModel.load({model!r})
cohort = made(Path({folder!r}), n=400, seed=5, n_patients=400, prefix="pat")
print("ready", flush=True)
model.deviations(cohort, to={out!r})
"""


@pytest.mark.slow
def test_killed_scoring_is_taken_up_and_ends_the_same(model, tmp_path):
    model.save(tmp_path / "model")
    cohort = made(tmp_path / "whole", n=400, seed=5, n_patients=400, prefix="pat")
    whole = model.deviations(cohort, to=tmp_path / "uninterrupted")
    rng, killed = np.random.default_rng(0), 0
    for attempt in range(4):
        script = _SCRIPT.format(tests=str(Path(__file__).parent), model=str(tmp_path / "model"),
                                folder=str(tmp_path / f"data{attempt}"), out=str(tmp_path / "out"))
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                                   env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert process.stdout.readline() == b"ready\n"
        try:
            process.wait(rng.uniform(0.2, 2.0) if attempt < 3 else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            assert not (tmp_path / "out").exists()
    found = Deviations.read(tmp_path / "out")
    assert killed >= 1
    for name in ("z", "observed", "expected"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    pd.testing.assert_frame_equal(found.distance, whole.distance)
    pd.testing.assert_frame_equal(found.subjects, whole.subjects)


def test_maps_of_voxels_on_disk_are_z(model, cohort, in_memory, tmp_path):
    import nibabel as nib

    from normfuse.analyses import write_voxel_maps

    stored = model.deviations(cohort, include_seen=True, to=tmp_path / "out")
    people = ["sub-188", "sub-003", "sub-100"]  # the first was not measured with t1
    maps = write_voxel_maps(stored, tmp_path / "maps", subjects=people)
    assert [m.name for m in maps] == ["sub-003_desc-normfuse_stat-z_t1.nii.gz",
                                      "sub-100_desc-normfuse_stat-z_t1.nii.gz"]
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == sorted(
        [m.name for m in maps] + ["dataset_description.json",
                                  "desc-normfuse_mask_t1.nii.gz"])
    space = cohort.modality("t1").space
    for file, subject in zip(maps, people[1:]):
        img = nib.load(file)
        assert img.get_data_dtype() == np.float32
        np.testing.assert_allclose(space.values(img), in_memory.z.loc[subject, "t1"], atol=3e-5)
        assert not img.get_fdata()[~space.mask].any()

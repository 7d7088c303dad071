"""A training that was killed ends as one that was not, bit for bit."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import normfuse as nf
from normfuse import checkpoint, training
from normfuse.calibration import CrossFit, HeldOut
from normfuse.simulate import simulate_cohort

PLAN = nf.TrainingPlan(progress=False, max_epochs=24, warmup=6, patience=10)


@pytest.fixture(scope="module")
def controls() -> nf.Cohort:
    cohort = simulate_cohort(120, 2, seed=3).cohort.reference_subjects()
    features = {name: block.iloc[:, :6] for name, block in cohort.features.items()}
    return nf.Cohort.from_frames(cohort.subjects, features, covariates=cohort.covariates,
                                 drop_incomplete=True)


def model(calibration=HeldOut()) -> nf.NormativeModel:
    return nf.NormativeModel(n_latent=3, plan=PLAN, calibration=calibration)


def same(a: nf.NormativeModel, b: nf.NormativeModel) -> None:
    for mine, theirs in zip(a.fitted.vae.state_dict().values(),
                            b.fitted.vae.state_dict().values()):
        assert torch.equal(mine, theirs)
    assert a.fitted.reference.history == b.fitted.reference.history


def test_a_training_that_stopped_goes_on(controls, tmp_path, monkeypatch, stop=15):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint.Checkpoint.__init__, "__defaults__", (0.0,))
    whole = model().fit(controls)
    honest, epochs = training.one_epoch, []

    def failing(module, data, plan, optimizer, warmup, epoch, parts):
        epochs.append(epoch)
        if epoch == stop and len(epochs) == stop:
            raise KeyboardInterrupt
        return honest(module, data, plan, optimizer, warmup, epoch, parts)

    monkeypatch.setattr(training, "one_epoch", failing)
    with pytest.raises(KeyboardInterrupt):
        model().fit(controls, keep=tmp_path / "kept")
    again = model().fit(controls, keep=tmp_path / "kept")
    same(again, whole)
    assert epochs[stop] == stop  # no epoch was done twice
    done = len(epochs)
    same(model().fit(controls, keep=tmp_path / "kept"), whole)
    assert len(epochs) == done  # what is over is not trained again


@pytest.mark.slow
def test_the_checkpoint_of_another_training_is_not_taken_up(controls, tmp_path):
    model().fit(controls, keep=tmp_path / "kept")
    fewer = controls.select(controls.ids[:-1])
    same(model().fit(fewer, keep=tmp_path / "kept"), model().fit(fewer))


@pytest.mark.slow
def test_every_fold_has_its_own(controls, tmp_path):
    some = controls.select(controls.ids[:60])
    same(model(CrossFit(2)).fit(some, keep=tmp_path / "kept"), model(CrossFit(2)).fit(some))
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [
        "fold_0.pt", "fold_1.pt", "whole.pt"]


_SCRIPT = """
import sys, torch; torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from pathlib import Path
import normfuse.checkpoint as checkpoint
checkpoint.Checkpoint.__init__.__defaults__ = (0.0,)
import normfuse as nf
from test_checkpoint import PLAN, HeldOut, model
cohort = nf.Cohort.read({cohort!r})
print("ready", flush=True)
model().fit(cohort.reference_subjects(), keep=Path({keep!r})).save({out!r})
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    from normfuse.simulate import write_cohort

    file = write_cohort(simulate_cohort(120, 2, seed=3).cohort, tmp_path / "cohort")
    whole = model().fit(nf.Cohort.read(file).reference_subjects())
    script = _SCRIPT.format(tests=str(Path(__file__).parent), cohort=str(file),
                            keep=str(tmp_path / "kept"), out=str(tmp_path / "model"))
    rng, killed = np.random.default_rng(0), 0
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                                   env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert process.stdout.readline() == b"ready\n"
        try:
            process.wait(rng.uniform(0.5, 3.0) if attempt < 2 else None)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed and not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    same(nf.NormativeModel.load(tmp_path / "model"), whole)

"""Two workers score what one process scores, also when one of them is killed."""
from __future__ import annotations

import os
import signal

import numpy as np
import pandas as pd
import pytest
from test_streaming import made

import normfuse as nf
from normfuse.calibration import HeldOut
from normfuse.cluster import OnDask
from normfuse.deviations import Deviations

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[nf.NormativeModel, nf.Cohort, Deviations]:
    folder = tmp_path_factory.mktemp("study")
    plan = nf.TrainingPlan(progress=False, max_epochs=40, warmup=10)
    model = nf.NormativeModel(n_latent=3, plan=plan, calibration=HeldOut()).fit(
        made(folder / "reference").reference_subjects())
    cohort = made(folder / "patients", n=300, seed=3, n_patients=300, prefix="pat")
    return model, cohort, model.deviations(cohort, to=folder / "alone")


def same(found: Deviations, expected: Deviations) -> None:
    for name in ("z", "observed", "expected"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    pd.testing.assert_frame_equal(found.distance, expected.distance)


def test_two_workers_score_as_one_process(study, tmp_path):
    model, cohort, alone = study
    same(model.deviations(cohort, to=tmp_path / "out", run=OnDask(workers=2)), alone)


@pytest.mark.slow
def test_a_killed_worker_costs_its_piece_only(study, tmp_path):
    model, cohort, alone = study
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0,
                                  dashboard_address=None) as cluster:
        pids = [worker.process.pid for worker in cluster.workers.values()]
        done = []

        class Killing(OnDask):
            def __call__(self, task, numbers):
                for k in super().__call__(task, numbers):
                    if not done:
                        os.kill(pids[0], signal.SIGKILL)
                    done.append(k)
                    yield k

        found = model.deviations(cohort, to=tmp_path / "out",
                                 run=Killing(cluster.scheduler_address))
    same(found, alone)
    assert sorted(done) == list(range(5))


def test_without_dask_the_message_says_what_to_install(study, tmp_path, monkeypatch):
    import builtins
    honest = builtins.__import__

    def missing(name, *rest, **more):
        if name == "distributed":
            raise ImportError(name)
        return honest(name, *rest, **more)

    model, cohort, _ = study
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(nf.NormfuseError, match=r"normfuse\[cluster\]"):
        model.deviations(cohort, to=tmp_path / "out", run=OnDask())

"""Two workers compare voxels as one process does, also when one of them is killed.

Witness: the same comparison in one process.
"""
from __future__ import annotations

import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
from test_voxel_files import deviations, people, same, space, z
from typer.testing import CliRunner

from normfuse.analyses import (BenjaminiHochberg, ClusterMass, MaxT, Tfce, VoxelComparison,
                               VoxelTable, compare_voxels, overlap_voxels, voxel_table)
from normfuse.cli import app
from normfuse.cluster import OnDask
from normfuse.errors import ComparisonError
from normfuse.space import Space
from normfuse.stored import StoredTable


@pytest.fixture
def table(tmp_path, monkeypatch) -> VoxelTable:
    """On disk, in six stretches."""
    monkeypatch.setattr(voxel_table, "COLUMNS", voxel_table.TILE)
    who, where = people(), space()
    stored = StoredTable.create(tmp_path / "t1", who.index, where.features)
    stored.write(0, z())
    return VoxelTable(StoredTable.open(tmp_path / "t1"), who, where)


def backwards(task, numbers):
    """Last first, each number by a copy that went through a file."""
    for k in reversed(numbers):
        yield pickle.loads(pickle.dumps(task))(k)


@pytest.mark.parametrize("correction", [BenjaminiHochberg(), MaxT(60), ClusterMass(40)])
def test_whoever_does_the_pieces_in_whatever_order_the_bits_are_the_same(table, correction,
                                                                         tmp_path):
    options = {"adjust": ["age", "site"], "contrast": ("AD", "CN"), "correction": correction}
    alone = compare_voxels(table, "dx", **options)
    same(compare_voxels(table, "dx", **options, run=backwards), alone)
    same(compare_voxels(table, "dx", **options, run=backwards, resume=tmp_path / "work"), alone)
    assert not list((tmp_path / "work").glob(".*"))


def test_tfce_and_overlap_travel_too():
    mask = np.zeros((9, 9, 9), bool)
    mask[2:7, 2:8, 3:7] = True
    who, where = people(), Space(mask, np.eye(4), "MNI152NLin2009aSym")
    small = VoxelTable(z()[:, :where.n_voxels], who, where)
    for call, correction in ((compare_voxels, Tfce(20)), (overlap_voxels, MaxT(20))):
        found = [call(small, "dx", contrast=("AD", "CN"), correction=correction, **options)
                 for options in ({}, {"run": backwards})]
        same(*found)


def test_a_machine_that_does_not_see_the_folder_says_so(table, tmp_path):
    def elsewhere(task, numbers):
        task.work.folder = tmp_path / "not here"
        return map(task, numbers)

    with pytest.raises(ComparisonError, match="does not see .*not here; begin the work in a fol"):
        compare_voxels(table, "dx", contrast=("AD", "CN"), run=elsewhere)


@pytest.mark.slow
def test_a_killed_worker_costs_its_pieces_only(table, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"adjust": ["age", "site"], "contrast": ("AD", "CN"),
               "correction": ClusterMass(100)}
    alone = compare_voxels(table, "dx", **options)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0,
                                  dashboard_address=None) as cluster:
        done: list[list[int]] = []

        class Killing(OnDask):
            def __call__(self, task, numbers):
                done.append([])
                pids = [worker.process.pid for worker in cluster.workers.values()]
                for k in super().__call__(task, numbers):
                    if not done[-1]:  # once among the stretches, once among the shuffled maps
                        os.kill(pids[len(done) - 1], signal.SIGKILL)
                    done[-1].append(k)
                    yield k

        found = compare_voxels(table, "dx", **options, resume=tmp_path / "work",
                               run=Killing(cluster.scheduler_address))
    same(found, alone)
    assert [sorted(numbers) for numbers in done] == [list(range(6)), list(range(7))]
    assert not list((tmp_path / "work").glob(".*"))


def test_the_command_takes_workers(tmp_path, monkeypatch):
    where, who = space(), people()
    made = deviations(where, z(), who.assign(normfuse_role="new"))
    replace(made, conformal=None).save(tmp_path / "deviations")
    words = ["compare-voxels", str(tmp_path / "deviations"), "--group", "dx", "--contrast",
             "AD,CN", "--permutations", "20"]
    for out, more in (("one", []), ("two", ["--workers", "2"])):
        ran = CliRunner().invoke(app, [*words, "--out", str(tmp_path / out), *more])
        assert ran.exit_code == 0, ran.output
    same(*(VoxelComparison.read(tmp_path / out / "t1") for out in ("one", "two")))
    assert {p.name for p in tmp_path.iterdir()} == {"deviations", "one", "two"}

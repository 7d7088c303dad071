"""Two processes train what one does, bit for bit; one that dies ends both, and nothing is lost.

Witnesses: the same training in one process with as many parts, and of a part's gradient the whole
batch's.
"""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_checkpoint import same
from test_training import PLAN, TRAINING, VALIDATION, Constant

import normfuse as nf
from normfuse.batch_parts import Parts
from normfuse.errors import NormfuseError
from normfuse.fusion import ProductOfExperts, WassersteinBarycenter
from normfuse.imaging.pretraining import pretrain
from normfuse.imaging.representations import ContrastiveRepresentations
from normfuse.models import Batch, Ladder, OneLatent
from normfuse.networks.pyramid import Pyramid
from normfuse.processes import Processes, processes
from normfuse.simulate import simulate_cohort, write_cohort
from normfuse.testing import tiny_images
from normfuse.training import TrainingPlan, fit


def people(n: int = 23) -> Batch:
    """Two modalities, some cells and one person's scan missing."""
    drawn = torch.Generator().manual_seed(1)
    x = tuple(torch.randn(n, width, generator=drawn) for width in (5, 3))
    known = torch.rand(n, 5, generator=drawn) < 0.9
    known[4] = False
    present = torch.ones(2, n, dtype=torch.bool)
    present[0, 4] = False
    return Batch(x, (known, None), present, torch.randn(n, 2, generator=drawn))


class Sure(Constant):
    """Without the random part."""

    def loss(self, batch, warmup=1.0):
        return {"t1": self.weight * 0, "pet": (self.weight - batch.target).square().mean()}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_parts_of_a_batch_add_up_to_the_batch(n):
    module, rows = Sure(), torch.tensor([3, 0, 5, 1])  # fewer people than parts, for 5
    TRAINING.target[:6] = torch.arange(6.0)
    try:
        terms = Parts(n, 0, Processes()).descend(module, TRAINING, rows, 1.0, (1, 1))
        expected = Sure()
        expected.loss(TRAINING.take(rows))["pet"].backward()
        torch.testing.assert_close(module.weight.grad, expected.weight.grad)
        assert terms == {"t1": 0.0, "pet": pytest.approx((9 + 0 + 25 + 1) / 4)}
    finally:
        TRAINING.target[:6] = 10.0


def test_the_noise_hears_of_every_part():
    vae = OneLatent(n_latent=2, hidden=(4,)).build({"t1": 5, "pet": 3}, 2, ProductOfExperts())
    batch, parts = people(), Parts(3, 0, Processes())
    for step in (1, 2):
        parts.descend(vae, batch, torch.arange(12 * step - 12, min(12 * step, 23)), 1.0, (1, step))
    assert vae.sums[0][1].tolist() == batch.measured[0].sum(0).tolist()
    assert vae.sums[1][1].tolist() == [23.0] * 3 and (vae.sums[1][0] > 0).all()


def test_training_in_parts_ends_where_it_should_and_repeats_itself():
    found = [fit(module := Constant(), TRAINING, VALIDATION, plan, seed=seed).table["validation"]
             for plan, seed in ((PLAN.shared_by(3), 1), (PLAN.shared_by(3), 1), (PLAN, 1),
                                (PLAN.shared_by(3), 2))]
    assert module.weight.item() == pytest.approx(3.0, abs=0.25)
    assert found[0].equals(found[1]) and not found[0].equals(found[2])
    assert not found[0].equals(found[3])


def test_the_environment_of_one_process_changes_nothing(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert processes() == Processes() and processes().is_first
    with pytest.raises(ValueError, match="parts is a whole number above 0"):
        TrainingPlan(parts=0)


def test_processes_begun_anew_do_not_wait_for_dead_ones(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"),
                        ("MASTER_PORT", "1"), ("TORCHELASTIC_RESTART_COUNT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(NormfuseError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        processes()


_LADDER = """
import sys; sys.path.insert(0, {tests!r})
from test_processes import *
team = processes()
torch.save([vae_of_three_parts() + image_nets_of_three_parts(),
            team.rows(3, lambda k: torch.tensor([10.0 * k, team.rank]))],
           f"{folder}/{{team.rank}}.pt")
try:
    team.from_first(lambda: 1 / 0)
except Exception as problem:
    open(f"{folder}/{{team.rank}}.txt", "w").write(repr(problem))
"""

_DIES = """
import os, signal
from normfuse import training
honest = training.one_epoch
def dying(module, data, plan, optimizer, warmup, epoch, parts):
    if epoch == 12 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(module, data, plan, optimizer, warmup, epoch, parts)
training.one_epoch = dying
import normfuse.checkpoint as checkpoint
checkpoint.Checkpoint.__init__.__defaults__ = (0.0,)
from normfuse.cli import app
app()
"""


def vae_of_three_parts() -> list[torch.Tensor]:
    torch.manual_seed(0)
    vae = Ladder(levels=(3, 2), hidden=(6,)).build({"t1": 5, "pet": 3}, 2,
                                                   WassersteinBarycenter())
    plan = TrainingPlan(max_epochs=6, warmup=2, batch_size=9, parts=3, progress=False)
    fit(vae, people(), people(11), plan, seed=4)
    return list(vae.state_dict().values())


def image_nets_of_three_parts() -> list[torch.Tensor]:
    plan = TrainingPlan(max_epochs=1, warmup=0, batch_size=12, parts=3, progress=False)
    encoders = pretrain(tiny_images(), networks=Pyramid((4, 8), (0, 4)), plan=plan)
    alike = ContrastiveRepresentations((4, 8), patch=4, plan=plan).fit(tiny_images())
    return [*encoders.weights["T2w"].values(), *alike.fitted.net.state_dict().values()]


def torchrun(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)


def test_two_processes_share_three_parts(tmp_path):
    script = tmp_path / "ladder.py"
    script.write_text(_LADDER.format(tests=str(Path(__file__).parent), folder=tmp_path))
    ran = torchrun(str(script))
    assert ran.returncode == 0, ran.stderr
    expected = vae_of_three_parts() + image_nets_of_three_parts()
    for rank in (0, 1):
        weights, rows = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))
        assert rows.tolist() == [[0, 0], [10, 1], [20, 0]]
    assert "ZeroDivisionError" in (tmp_path / "0.txt").read_text()
    said = (tmp_path / "1.txt").read_text()
    assert NormfuseError.__name__ in said and "first of 2 processes stopped: ZeroDivision" in said


@pytest.mark.slow
def test_one_that_dies_ends_both_and_the_same_command_goes_on(tmp_path):
    made = simulate_cohort(160, 9, seed=3).cohort
    few = nf.Cohort.from_frames(
        made.subjects, {name: block.iloc[:, :4] for name, block in made.features.items()},
        covariates=made.covariates, reference=made.reference, drop_incomplete=True)
    file = write_cohort(few, tmp_path / "cohort")
    words = ["fit", str(file), "--out", str(tmp_path / "model"), "--epochs", "30", "--latent", "3"]
    (tmp_path / "dies.py").write_text(_DIES)
    ran = torchrun(str(tmp_path / "dies.py"), *words)
    assert ran.returncode != 0 and "Signal 9 (SIGKILL)" in ran.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"cohort", "dies.py", ".model.unfinished"}
    kept = torch.load(tmp_path / ".model.unfinished" / "training.pt", weights_only=True)
    assert kept["reached"]["epoch"] == 11
    ran = torchrun("-m", "normfuse", *words)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("model: ") == 1 and {p.name for p in tmp_path.iterdir()} == {
        "cohort", "dies.py", "model"}
    cohort = nf.Cohort.read(file)
    alone = nf.NormativeModel(n_latent=3, plan=TrainingPlan(
        max_epochs=30, warmup=7, parts=2)).fit(cohort.reference_subjects())
    both = nf.NormativeModel.load(tmp_path / "model")
    same(both, alone)
    assert both.plan.parts == 2
    some = cohort.select("diagnosis != 'CN'")
    one, other = alone.deviations(some), both.deviations(some)
    np.testing.assert_array_equal(one.z, other.z)
    np.testing.assert_array_equal(one.distance, other.distance)

"""The training loop on modules whose optimum is known."""
from __future__ import annotations

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from normfuse.errors import TrainingError
from normfuse.training import TrainingPlan, fit, in_notebook


@dataclass(frozen=True)
class Points:
    """Targets, one a subject."""

    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Tensor) -> Points:
        return Points(self.target[rows])


class Constant(nn.Module):
    """One weight that moves from 0 to the mean of the targets; a random part to be averaged."""

    def __init__(self, bad_epoch: int | None = None, bad: float = float("nan")) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.bad_epoch, self.bad, self.epoch, self.warmups = bad_epoch, bad, 1, []

    def loss(self, batch: Points, warmup: float = 1.0) -> dict[str, Tensor]:
        self.warmups.append(warmup)
        pet = (self.weight - batch.target).square().mean() * (1 + 1e-3 * torch.rand(()))
        spoilt = self.training and self.epoch == self.bad_epoch
        return {"t1": self.weight * 0, "pet": pet * (self.bad if spoilt else 1.0)}

    def end_epoch(self) -> None:
        self.epoch += 1


TRAINING, VALIDATION = Points(torch.full((40,), 10.0)), Points(torch.full((7,), 3.0))
PLAN = TrainingPlan(max_epochs=80, patience=12, learning_rate=0.1, batch_size=20, warmup=4,
                    weight_decay=0.0, progress=False)


def test_the_best_weights_on_held_out_people_are_restored():
    module = Constant()
    history = fit(module, TRAINING, VALIDATION, PLAN)
    losses = history.table["validation"].to_numpy()
    assert history.best_epoch == 1 + int(losses.argmin())
    assert len(losses) == history.best_epoch + PLAN.patience < PLAN.max_epochs
    assert module.weight.item() == pytest.approx(3.0, abs=0.25)  # not 10, where training leads
    assert (module.weight.item() - 3) ** 2 == pytest.approx(losses.min(), rel=2e-3)
    assert not module.training


def test_warmup_rises_in_equal_steps_and_the_best_epoch_comes_after_it():
    module = Constant()
    history = fit(module, TRAINING, Points(torch.zeros(7)), PLAN)
    steps = [w for w in module.warmups if w < 1]
    assert sorted(set(steps)) == [0.25, 0.5, 0.75]
    assert history.best_epoch == 4  # earlier ones were better, but not yet of the whole loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_modality_and_the_epoch(value):
    with pytest.raises(TrainingError, match="the loss of pet became nan or infinite in epoch 3; "
                                            "look for extreme values"):
        fit(Constant(3, value), TRAINING, VALIDATION, PLAN)


def test_so_does_a_validation_loss():
    with pytest.raises(TrainingError, match="the validation loss of pet became nan or infinite"):
        fit(Constant(), TRAINING, Points(torch.tensor([1.0, float("nan")])), PLAN)


def test_the_seed_decides_and_the_caller_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tables = [fit(Constant(), TRAINING, VALIDATION, PLAN, seed=seed).table.to_numpy()
              for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0][:3], tables[2][:3])


def test_threads_are_given_back_even_after_a_failure():
    threads = torch.get_num_threads()
    with pytest.raises(TrainingError):
        fit(Constant(1), TRAINING, VALIDATION, TrainingPlan(threads=threads + 1, progress=False))
    assert torch.get_num_threads() == threads


def test_a_kernel_is_told_from_a_process_that_imported_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    for shell, notebook in ((None, False), (SimpleNamespace(), False),
                            (SimpleNamespace(kernel=1), True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
        assert in_notebook() is notebook


def test_progress_is_shown_when_asked_for(capsys):
    fit(Constant(), TRAINING, VALIDATION, TrainingPlan(max_epochs=3, warmup=0, progress=True))
    assert "training" in capsys.readouterr().err
    fit(Constant(), TRAINING, VALIDATION, TrainingPlan(max_epochs=3, warmup=0))
    assert capsys.readouterr().err == ""

"""The one training loop: early stopping on held-out people, best weights restored."""
from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

import pyro

from .batch_parts import Parts, pieces
from .cards import Card, Shown
from .checkpoint import Checkpoint, fingerprint
from .errors import TrainingError
from .processes import Processes, processes


class Sliceable(Protocol):
    """Data that can be cut into batches by position.

    With an attribute ``at_once`` they are never worked on whole, but so many subjects together.
    """

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Any: ...


@dataclass(frozen=True)
class TrainingPlan(Shown):
    """How to train.

    Parameters
    ----------
    max_epochs : int
    patience : int
        Epochs without a better validation loss before training stops.
    batch_size : int
        Subjects per step.
    learning_rate : float
        Of Adam.
    final_rate : float
        The share of the learning rate that is left in the last of ``max_epochs``, reached along
        half a cosine; 1: it stays.
    weight_decay : float
        Decoupled (AdamW).
    warmup : int
        Epochs over which the KL's weight rises to 1; early stopping looks only after them.
    clip : float
        Largest gradient norm: a guard against a rare bad batch, not a part of every step.
    validation_draws : int
        Posterior draws (always the same ones) averaged in the validation loss.
    threads : int
        CPU threads for torch. More than one is several times slower beside a busy neighbour.
    progress : bool or None
        Show a bar; None: in a terminal or a notebook only.
    parts : int
        Pieces that each batch is cut into, every one with random numbers of its own, so that
        processes may share them (``torchrun``, docs/guide/cluster.md); at least as many as there
        are processes. With another number the result is another one, as with another seed.

    Examples
    --------
    >>> TrainingPlan(max_epochs=50, patience=10).batch_size
    64
    >>> TrainingPlan(patience=0)
    Traceback (most recent call last):
    ValueError: patience is a whole number above 0; got 0
    """

    max_epochs: int = 500
    patience: int = 40
    batch_size: int = 64
    learning_rate: float = 2e-3
    final_rate: float = 1.0
    weight_decay: float = 1e-4
    warmup: int = 20
    clip: float = 100.0
    validation_draws: int = 8
    threads: int = 1
    progress: bool | None = None
    parts: int = 1

    def __post_init__(self) -> None:
        for name in ("max_epochs", "patience", "batch_size", "validation_draws", "threads",
                     "parts"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is a whole number above 0; got {getattr(self, name)!r}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a number above 0; got {getattr(self, name)!r}")

        if not 0 < self.final_rate <= 1:
            raise ValueError(f"final_rate is a share above 0, at most 1; got {self.final_rate!r}")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, the first of which is 1.

        >>> plan = TrainingPlan(max_epochs=101, learning_rate=0.01, final_rate=0.1)
        >>> [round(plan.rate(epoch), 4) for epoch in (1, 51, 101)]
        [0.01, 0.0055, 0.001]
        """
        way = (epoch - 1) / max(self.max_epochs - 1, 1)
        left = self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * way)) / 2
        return self.learning_rate * left

    def shared_by(self, n_processes: int) -> TrainingPlan:
        """With a part for each process at least."""
        return replace(self, parts=max(self.parts, n_processes))


@dataclass(frozen=True, eq=False)
class History:
    """What happened, epoch by epoch.

    ``table`` has the columns ``epoch``, ``training``, ``validation`` (mean loss a subject, in
    nats, KL fully weighted) and one per named term of the validation loss.
    """

    table: pd.DataFrame
    best_epoch: int

    def __repr__(self) -> str:
        return f"<History of {len(self.table)} epochs, the best the {self.best_epoch}th>"

    def _repr_html_(self) -> str:
        near = self.table[self.table["epoch"] >= self.best_epoch - 2]
        return Card("History", f"of {len(self.table)} epochs; weights kept of epoch "
                    f"{self.best_epoch}", {}, {"from there on (nats a person)":
                                               near.set_index("epoch")}).html()


@dataclass
class _Reached:
    """How far a training has come."""

    best: dict[str, Tensor]
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    rows: list[dict[str, float]] = field(default_factory=list)

    def is_over(self, plan: TrainingPlan) -> bool:
        return self.epoch >= plan.max_epochs or (
            self.epoch >= plan.warmup
            and self.epoch - max(self.best_epoch, plan.warmup) >= plan.patience)


def fit(module: nn.Module, training: Sliceable, validation: Sliceable, plan: TrainingPlan, *,
        seed: int = 0, keep: Checkpoint | None = None) -> History:
    """Train a module with ``loss(batch, warmup) -> {name: Tensor}`` and restore its best weights.

    Parameters
    ----------
    module : Module
        May also have ``end_epoch()``, called after each epoch's steps, and ``watch(validation)
        -> {name: float}``, whose numbers are added to the history and to no loss.
    training, validation : Sliceable
    plan : TrainingPlan
    seed : int
        Of everything random here; the caller's random state is left as it was.
    keep : Checkpoint, optional
        Where to write what was reached, and to take it up from.

    Raises
    ------
    TrainingError
        When a loss term is not finite; its name (the modality, or ``kl``) is in the message. When
        the plan ends before its warm-up: no epoch could be the best, and nothing be learned.
    """
    if plan.max_epochs < plan.warmup:
        raise TrainingError(f"{plan.max_epochs} epochs end within the warm-up of {plan.warmup}; "
                            "raise max_epochs or lower warmup")
    team = processes()
    plan = plan.shared_by(team.count)
    parts = Parts(plan.parts, seed, team) if plan.parts > 1 else None
    if team.count > 1:  # another kind of CPU may have drawn or solved other last bits
        module.load_state_dict(team.from_first(module.state_dict))
    optimizer = make_optimizer(module, plan)
    reached = _Reached(copy.deepcopy(module.state_dict()))
    identity = "" if keep is None else _identity(module, training, validation, plan, seed)
    with _quiet_torch(plan.threads, seed), _bar(plan, team) as bar:
        found = None if keep is None else team.from_first(lambda: keep.load(identity))
        if found is not None:
            reached = _taken_up(found, module, optimizer)
            bar.update(reached.epoch)
        while not reached.is_over(plan):
            epoch = reached.epoch + 1
            warmup = min(1.0, epoch / plan.warmup) if plan.warmup else 1.0
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(epoch)
            trained = one_epoch(module, training, plan, optimizer, warmup, epoch, parts)
            terms = _validate(module, validation, plan, seed, parts)
            total = sum(terms.values())
            if not math.isfinite(total):
                raise _not_finite("validation loss", terms, epoch)
            reached.rows.append({"epoch": epoch, "training": trained, "validation": total,
                                 **terms, **_watched(module, validation, seed)})
            reached.epoch = epoch
            if warmup == 1.0 and total < reached.best_loss:
                reached.best_loss, reached.best_epoch = total, epoch
                reached.best = copy.deepcopy(module.state_dict())
            bar.update()
            bar.set_postfix(validation=f"{total:.4g}", best=reached.best_epoch, refresh=False)
            if keep is not None and team.is_first:
                keep.save(identity, {"reached": vars(reached), "weights": module.state_dict(),
                                     "optimizer": optimizer.state_dict(),
                                     "random": torch.get_rng_state()}, last=reached.is_over(plan))
    module.load_state_dict(reached.best)
    module.eval()
    return History(pd.DataFrame(reached.rows), reached.best_epoch)


def _identity(module: nn.Module, training: Any, validation: Any, plan: TrainingPlan, seed: int
              ) -> str:
    """Of a training: the same start, data and settings."""
    settings = replace(plan, progress=None, threads=1)
    return fingerprint(type(module), settings, seed, *_settings_of(module),
                       *module.state_dict().values(),
                       *_told_apart_by(training), *_told_apart_by(validation))


def _settings_of(module: nn.Module) -> Iterator[str]:
    """What a module does with its weights: losses with other terms start from the same ones."""
    for name, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items()
                 if not key.startswith("_") and _is_plain(value)}
        yield f"{name} {type(part).__name__} {sorted(plain.items())}"


def _is_plain(value: Any) -> bool:
    """Whether its repr says all there is, and is the same in every process."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Shown)


def _told_apart_by(data: Any) -> Iterator[Any]:
    """Tensors and settings in data, and in data of data: a repr would leave most numbers out."""
    for part in vars(data).values():
        for value in part if isinstance(part, tuple) else (part,):
            if hasattr(value, "take") and not isinstance(value, Tensor):
                yield from _told_apart_by(value)
            else:
                yield value


def _taken_up(found: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer
              ) -> _Reached:
    module.load_state_dict(found["weights"])
    optimizer.load_state_dict(found["optimizer"])
    torch.set_rng_state(found["random"])
    return _Reached(**found["reached"])


def make_optimizer(module: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """AdamW in its fused form, which costs a quarter of the default one."""
    return torch.optim.AdamW([p for p in module.parameters() if p.requires_grad],
                             lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True)


def one_epoch(module: Any, data: Sliceable, plan: TrainingPlan, optimizer: torch.optim.Optimizer,
              warmup: float, epoch: int, parts: Parts | None = None) -> float:
    """One pass over the data in random batches; the mean loss a subject."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    module.train()
    total = 0.0
    order = torch.randperm(len(data)) if parts is None else parts.order(len(data), epoch)
    for step, rows in enumerate(order.split(plan.batch_size), 1):
        if parts is None:
            value = _descend(module, data.take(rows), weights, warmup, epoch)
        else:
            terms = parts.descend(module, data, rows, warmup, (epoch, step))
            value = sum(terms.values())
            if not math.isfinite(value):
                raise _not_finite("loss", terms, epoch)
        _clip(weights, plan.clip)
        optimizer.step()
        total += value * len(rows)
    if hasattr(module, "end_epoch"):
        module.end_epoch()
    return total / len(data)


def _descend(module: Any, batch: Any, weights: list[Tensor], warmup: float, epoch: int) -> float:
    """Gradients of a whole batch's mean loss into the weights; that loss."""
    terms = module.loss(batch, warmup)
    loss = torch.stack(list(terms.values())).sum()
    value = loss.item()
    if not math.isfinite(value):
        raise _not_finite("loss", {k: t.item() for k, t in terms.items()}, epoch)
    for weight in weights:  # what zero_grad does, without its bookkeeping
        weight.grad = None
    loss.backward()
    return value


def _clip(weights: list[Tensor], largest: float) -> None:
    """Scale gradients down to a norm; most steps need only the norm."""
    gradients = [w.grad for w in weights if w.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    if norm > largest:
        nn.utils.clip_grads_with_norm_(weights, largest, norm, foreach=True)


def _not_finite(what: str, terms: Mapping[str, float], epoch: int) -> TrainingError:
    bad = [name for name, term in terms.items() if not math.isfinite(term)]
    return TrainingError(f"the {what} of {', '.join(bad)} became nan or infinite in epoch "
                         f"{epoch}; look for extreme values in that modality, or lower the "
                         "learning rate")


def _validate(module: Any, data: Sliceable, plan: TrainingPlan, seed: int, parts: Parts | None
              ) -> dict[str, float]:
    """Mean loss terms over a few draws that are the same at every call."""
    module.eval()
    sums: dict[str, float] = {}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if parts is not None:
            return parts.validate(module, data, plan.validation_draws)
        torch.manual_seed(seed)
        for _ in range(plan.validation_draws):
            for share, batch in pieces(data):
                for name, term in module.loss(batch, 1.0).items():
                    sums[name] = sums.get(name, 0.0) + share * term.item() / plan.validation_draws
    return sums


def _watched(module: Any, data: Sliceable, seed: int) -> dict[str, float]:
    """What the module wants to be seen of itself, with the random numbers of a validation."""
    if not hasattr(module, "watch"):
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(module.watch(data))


@contextmanager
def _quiet_torch(threads: int, seed: int) -> Iterator[None]:
    """Seeded, with a fixed thread count and Pyro's validation off, all undone at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def _bar(plan: TrainingPlan, team: Processes) -> Any:
    from tqdm.auto import tqdm

    shown = plan.progress
    if shown is None:
        shown = sys.stderr.isatty() or in_notebook()
    return tqdm(total=plan.max_epochs, desc="training", unit="epoch", leave=False,
                disable=not (shown and team.is_first))


def in_notebook() -> bool:
    """Whether this very process is a notebook's kernel; that ipykernel was imported is not enough.

    >>> in_notebook()
    False
    """
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")

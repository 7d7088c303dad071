"""Processes that train one model together, as ``torchrun`` starts them; usually one alone."""
from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import NormfuseError

T = TypeVar("T")

_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process in its environment."""

_LONGEST_WAIT = timedelta(hours=12)
"""For another process. One that dies is noticed at once; this ends the wait for one that hangs."""


@dataclass(frozen=True)
class Processes:
    """All that train together, seen by one of them.

    Parameters
    ----------
    rank : int
        Which one this is, from 0.
    count : int

    Examples
    --------
    >>> alone = Processes()
    >>> alone.rows(3, lambda k: torch.tensor([k, 10.0 * k])).tolist()
    [[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]]
    >>> alone.from_first(lambda: "written")
    'written'
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes, prints and shows a bar."""
        return self.rank == 0

    def rows(self, n: int, row: Callable[[int], Tensor]) -> Tensor:
        """``row(0)`` … ``row(n - 1)``, float vectors of one length, on every process.

        Process r computes the rows r, r + count, …, and nothing is added up on the way: what is
        then made of the rows has the same bits however many processes there are.

        Returns
        -------
        Tensor, shape (n, length)
        """
        each = -(-n // self.count)  # as many everywhere; to repeat the last row costs no time
        mine = torch.stack([row(min(self.rank + step * self.count, n - 1))
                            for step in range(each)])
        if self.count == 1:
            return mine
        found = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(found, mine)
        return torch.stack(found, 1).flatten(0, 1)[:n]

    def from_first(self, find: Callable[[], T]) -> T:
        """What the first process finds, on every process; the others do nothing and wait for it.

        Raises
        ------
        NormfuseError
            In the others, if ``find`` failed in the first, which raises what it met.
        """
        if self.count == 1:
            return find()
        told: list[Any] = [None, None]
        problem: Exception | None = None
        if self.is_first:
            try:
                told[0] = find()
            except Exception as met:
                problem, told[1] = met, repr(met)
        dist.broadcast_object_list(told, src=0)
        dist.barrier()  # nobody leaves before everybody was told
        if problem is not None:
            raise problem
        if told[1] is not None:
            raise NormfuseError(f"the first of {self.count} processes stopped: {told[1]}")
        return told[0]


def processes() -> Processes:
    """Those that ``torchrun`` started with this one, joined at the first call; else this one.

    Uses the process group that is there; else begins one, gloo for what is computed on CPUs (all
    of this package) and NCCL for CUDA, and ends it when Python does.

    Raises
    ------
    NormfuseError
        If torchrun began the processes anew in a way that can leave them waiting for ever.
    """
    if not dist.is_available():
        return Processes()
    if not dist.is_initialized():
        if not all(os.environ.get(name) for name in _TOLD) or int(os.environ["WORLD_SIZE"]) < 2:
            return Processes()
        _refuse_stale_store()
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                                timeout=_LONGEST_WAIT)
        atexit.register(_leave)
    return Processes(dist.get_rank(), dist.get_world_size())


def _refuse_stale_store() -> None:
    # torch 2.13: gloo finds the addresses of the processes that died in the store they shared
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" \
            and os.environ.get("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "0") != "1":
        raise NormfuseError("torchrun began its processes anew, and they may not find each other; "
                            "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun "
                            "--max-restarts, or give the command again")


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()

"""Scoring and statistics on other processes and machines, by Dask."""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import NormfuseError


@dataclass(frozen=True)
class OnDask:
    """Does pieces on the workers of a Dask cluster: ``model.deviations(…, to=…, run=OnDask())``,
    ``compare_voxels(…, resume=…, run=OnDask())``.

    Workers must see the same files: images or tables of the cohort, and the folder that is
    written. The model (or the design of a comparison) travels once to each worker. A piece whose
    worker dies is done by another one; nothing else is lost. A worker does one piece at a time,
    however many threads it has.

    Parameters
    ----------
    scheduler : str, optional
        Address, as ``"tcp://node1:8786"``. By default a cluster of processes on this machine,
        which ends with the work.
    workers : int
        Of that local cluster.
    retries : int
        How often a piece that fails is tried again.

    Examples
    --------
    >>> OnDask("tcp://node1:8786")
    OnDask(scheduler='tcp://node1:8786', workers=2, retries=2)
    """

    scheduler: str | None = None
    workers: int = 2
    retries: int = 2

    def __call__(self, task: Callable[[int], int], numbers: Sequence[int]) -> Iterator[int]:
        try:
            from distributed import Client, LocalCluster
        except ImportError as problem:
            raise NormfuseError("several processes or machines need Dask: pip install "
                                "'normfuse[cluster]'") from problem
        if self.scheduler is None:
            # no limit: what zarr maps from disk would count as memory used
            with LocalCluster(n_workers=self.workers, threads_per_worker=1, memory_limit=0,
                              dashboard_address=None) as cluster, Client(cluster) as client:
                yield from self._through(client, task, numbers)
        else:
            with Client(self.scheduler) as client:
                yield from self._through(client, task, numbers)

    def _through(self, client: Any, task: Callable[[int], int], numbers: Sequence[int]
                 ) -> Iterator[int]:
        """Also when all workers that hold the task die, and others come after them."""
        from concurrent.futures import CancelledError

        from distributed.comm import CommClosedError

        left, losses = list(numbers), 0
        while left:
            client.wait_for_workers(1)  # a queue may take its time
            try:
                for k in self._once(client, task, left):
                    left.remove(k)
                    losses = 0
                    yield k
            except (CancelledError, CommClosedError):
                losses += 1
                if losses > self.retries:
                    raise

    def _once(self, client: Any, task: Callable[[int], int], numbers: Sequence[int]
              ) -> Iterator[int]:
        from distributed import as_completed

        carried = client.scatter(task, broadcast=True, hash=False)
        futures = [client.submit(_do, carried, k, pure=False, retries=self.retries)
                   for k in numbers]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            client.cancel(futures)


_ONE = threading.Lock()
"""Held by the piece that is done: pieces use the same memory one after the other."""


def _do(task: Callable[[int], int], k: int) -> int:
    """On a worker: with one thread, or processes on one machine wait for each other."""
    with _ONE:
        if "torch" in sys.modules:  # statistics do without it
            sys.modules["torch"].set_num_threads(1)
        return task(k)

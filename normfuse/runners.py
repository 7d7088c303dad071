"""Who does the pieces of a long task: this process, or others (:class:`~normfuse.cluster.OnDask`).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol


class Runner(Protocol):
    """Does a task for every number, in any order and anywhere, and gives the numbers done.

    The task may be pickled and sent away; it writes what it finds where its owner can read it.
    """

    def __call__(self, task: Callable[[int], int], numbers: Sequence[int]) -> Iterable[int]: ...


def one_after_the_other(task: Callable[[int], int], numbers: Sequence[int]) -> Iterator[int]:
    """In this process.

    Examples
    --------
    >>> list(one_after_the_other(lambda k: k, [2, 0]))
    [2, 0]
    """
    return map(task, numbers)

"""A training step whose batch is cut into parts, which several processes may share."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .processes import Processes

_ORDER, _DRAWS = 0, 1  # streams beside those of steps, which are counted from epoch 1


@dataclass(eq=False)
class Parts:
    r"""Gradients of a batch as the sum of its parts', each with random numbers of its own.

    .. math:: \nabla L = \sum_p \frac{n_p}{n} \nabla L_p

    Part p of a step draws from a stream that depends on seed, epoch, step and p alone, and the
    sum is made in the order of the parts. So a training depends on how many parts there are, to
    the last bit, but not on how many processes compute them. (torch's DistributedDataParallel
    leaves the order of the sum to the network, and draws by process.) Bounds whose terms are means
    over people are those of the whole batch; free bits are granted to each part by itself.

    Parameters
    ----------
    n : int
        Parts of each batch, at least as many as processes.
    seed : int
    processes : Processes
    """

    n: int
    seed: int
    processes: Processes
    names: tuple[str, ...] = field(default=(), init=False)  # of the loss's terms

    def order(self, n_subjects: int, epoch: int) -> Tensor:
        """Everybody, shuffled."""
        self._draw(_ORDER, epoch)
        return torch.randperm(n_subjects)

    def descend(self, module: Any, data: Any, rows: Tensor, warmup: float, at: tuple[int, int]
                ) -> dict[str, float]:
        """Gradients of the batch ``rows`` into the weights; the mean terms of its loss.

        The module's ``sums`` (if it has any) grow by those of the whole batch. ``at`` is epoch
        and step, both from 1.
        """
        weights = [p for p in module.parameters() if p.requires_grad]
        sums: Sequence[Tensor] = getattr(module, "sums", ())
        before, pieces = [s.clone() for s in sums], rows.tensor_split(self.n)

        def of(k: int) -> Tensor:
            # an empty part stands for nobody: somebody's numbers, counted 0 times
            piece = pieces[k] if len(pieces[k]) else rows[:1]
            self._draw(*at, k + 1)
            for tensor in (*weights, *sums):
                _clear(tensor)
            terms = self._terms(module.loss(data.take(piece), warmup))
            if math.isfinite(terms.sum().item()):  # else everybody is told so by the terms
                terms.sum().backward()
            gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
            share, there = len(pieces[k]) / len(rows), float(len(pieces[k]) > 0)
            return torch.cat([*(share * g.ravel() for g in gradients),
                              *(there * s.ravel() for s in sums), share * terms.detach()])

        total = in_order(self.processes.rows(self.n, of))
        places = [*weights, *sums]
        found = total.split([t.numel() for t in places] + [len(self.names)])
        for weight, gradient in zip(weights, found):
            weight.grad = gradient.view_as(weight).clone()
        for tensor, old, new in zip(sums, before, found[len(weights):]):
            tensor.copy_(old + new.view_as(tensor))
        return dict(zip(self.names, found[-1].tolist()))

    def validate(self, module: Any, data: Any, draws: int) -> dict[str, float]:
        """Mean terms of the loss over draws that are the same at every call."""
        def of(k: int) -> Tensor:
            self._draw(_DRAWS, 0, k)
            return in_order(torch.stack([share * self._terms(module.loss(some, 1.0)).double()
                                         for share, some in pieces(data)]))

        means = in_order(self.processes.rows(draws, of)) / draws
        return dict(zip(self.names, means.tolist()))

    def _terms(self, terms: dict[str, Tensor]) -> Tensor:
        self.names = tuple(terms)
        return torch.stack(list(terms.values()))

    def _draw(self, *where: int) -> None:
        """Begin the stream of random numbers of this place."""
        state = np.random.SeedSequence([self.seed % 2 ** 64, len(where), *where])
        torch.manual_seed(int(state.generate_state(1, np.uint64)[0]))


def pieces(data: Any) -> Iterator[tuple[float, Any]]:
    """Everybody, or as many at once as the data say is possible, with the share that they are."""
    at_once = getattr(data, "at_once", None)
    if at_once is None:
        yield 1.0, data
        return
    for rows in torch.arange(len(data)).split(at_once):
        yield len(rows) / len(data), data.take(rows)


def in_order(rows: Tensor) -> Tensor:
    """Their sum, the first first: torch's own sum may take another order for other widths.

    Examples
    --------
    >>> in_order(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [4.0, 6.0]
    """
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


def _clear(tensor: Tensor) -> None:
    if tensor.requires_grad:
        tensor.grad = None
    else:
        tensor.zero_()

"""How much wider or narrower a network's standard deviations must be to be true."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from .images import Images, Stack

MOST = 6
"""Modalities of which every combination is calibrated; of more only those that occur."""

MOST_IMAGES = 240
"""Slices, spread over people and places, on which a combination is calibrated."""

Pattern = tuple[bool, ...]
Predicted = Callable[[Images], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Widths:
    """Factors by what was looked at.

    Attributes
    ----------
    factors : dict
        Which modalities were looked at -> factor of each modality's sd, nan where nobody could
        tell.

    Examples
    --------
    >>> widths = Widths({(True, False): (1.0, 1.3)})
    >>> widths.of(torch.tensor([[True, True], [False, True]])).shape
    torch.Size([2, 2, 1, 1])
    """

    factors: Mapping[Pattern, tuple[float, ...]] = field(default_factory=dict)

    def of(self, present: Tensor, dimensions: int = 2) -> Tensor:
        """Shape (n_modalities, n_images, 1, …); for a pattern that is not there the mean."""
        table = {p: torch.tensor(f) for p, f in self.factors.items()}
        every = torch.stack(list(table.values())) if table else torch.ones(1, len(present))
        usual = torch.nan_to_num(torch.nanmean(every, 0), nan=1.0)
        rows = [table.get(tuple(column), usual) for column in present.T.cpu().tolist()]
        found = torch.stack([torch.where(torch.isnan(row), usual, row) for row in rows], 1)
        return found.to(present.device).view(*found.shape, *(1,) * dimensions)


def measured_widths(images: Stack, predicted: Predicted, at_once: int) -> Widths:
    """Root mean squares of standardised errors in people whom training did not see.

    Of every proper subset of the modalities (of more than six only those that occur), with all
    the people who have it and the modality that it foretells.

    Parameters
    ----------
    images : Stack
    predicted : callable
        Images of which only some modalities are present -> mean and sd of all.
    at_once : int
    """
    some = images.thinned(MOST_IMAGES)
    batches = [some.take(rows) for rows in torch.arange(len(some)).split(at_once)]
    n = len(batches[0].present)
    patterns = [p for p in product((False, True), repeat=n) if any(p) and not all(p)] \
        if n <= MOST else sorted({tuple(c) for b in batches for c in b.present.T.cpu().tolist()})
    factors = {}
    for pattern in patterns:
        looked_at = torch.tensor(pattern)
        squares, count = torch.zeros(n, dtype=torch.float64), torch.zeros(n)
        for batch in batches:
            kept = looked_at.to(batch.present.device)
            who = (batch.present | ~kept[:, None]).all(0)
            if not who.any():
                continue
            part = batch.take(torch.nonzero(who).ravel())
            mean, sd = predicted(part.only(kept))
            z2 = torch.where(part.known, ((part.values - mean) / sd) ** 2, 0.0)
            squares += z2.flatten(1).sum(1, dtype=torch.float64).cpu()
            count += part.known.flatten(1).sum(1).cpu()
        factor = torch.where(looked_at | (count == 0), torch.nan, (squares / count).sqrt())
        factors[pattern] = tuple(factor.tolist())
    return Widths(factors)

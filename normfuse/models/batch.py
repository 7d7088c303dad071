"""Subjects as tensors."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Some subjects, ready for a model.

    Attributes
    ----------
    x : tuple of Tensor, shape (n_subjects, n_features_m) each
        Standardised features of each modality; 0 where nothing was measured.
    measured : tuple of (bool Tensor of the same shape, or None if every cell was measured)
    present : bool Tensor, shape (n_modalities, n_subjects)
    design : Tensor, shape (n_subjects, n_design)
        Encoded covariates.
    variance : tuple of Tensor like ``x``, or None
        Of x, because the covariates' effects are not known exactly; None: 0.

    Examples
    --------
    >>> batch = Batch((torch.zeros(4, 3), torch.ones(4, 2)), (None, None),
    ...               torch.ones(2, 4, dtype=torch.bool), torch.zeros(4, 1))
    >>> len(batch), len(batch.take(torch.tensor([2, 0])))
    (4, 2)
    """

    x: tuple[Tensor, ...]
    measured: tuple[Tensor | None, ...]
    present: Tensor
    design: Tensor
    variance: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return self.present.shape[1]

    def to(self, dtype: torch.dtype) -> Batch:
        """The same numbers in another precision."""
        return Batch(tuple(x.to(dtype) for x in self.x), self.measured, self.present,
                     self.design.to(dtype),
                     None if self.variance is None else tuple(v.to(dtype) for v in self.variance))

    def whole(self, m: int) -> Tensor | None:
        """Positions of the people who have all cells of modality m, if the others have none."""
        rows, known = torch.nonzero(self.present[m]).ravel(), self.measured[m]
        if known is None or bool(known.index_select(0, rows).all()):
            return rows
        return None

    def take(self, rows: Tensor) -> Batch:
        """The subjects at these positions."""
        def cut(block: Tensor) -> Tensor:
            return block.index_select(0, rows)

        return Batch(tuple(cut(x) for x in self.x),
                     tuple(None if m is None else cut(m) for m in self.measured),
                     self.present.index_select(1, rows), cut(self.design),
                     None if self.variance is None else tuple(cut(v) for v in self.variance))

    def joined(self, other: Batch) -> Batch:
        """These subjects and then the others."""
        def cells(m: int, batch: Batch) -> Tensor:
            known = batch.measured[m]
            return torch.ones_like(batch.x[m], dtype=torch.bool) if known is None else known

        variance = None if self.variance is None or other.variance is None else \
            tuple(torch.cat(pair) for pair in zip(self.variance, other.variance))
        complete = [a is None and b is None for a, b in zip(self.measured, other.measured)]
        return Batch(tuple(torch.cat(pair) for pair in zip(self.x, other.x)),
                     tuple(None if whole else torch.cat([cells(m, self), cells(m, other)])
                           for m, whole in enumerate(complete)),
                     torch.cat([self.present, other.present], 1),
                     torch.cat([self.design, other.design]), variance)

    def hide(self, kept: Tensor) -> Batch:
        """The same subjects measured with only the modalities where ``kept`` (n_modalities,)."""
        x = tuple(x if k else torch.zeros_like(x) for x, k in zip(self.x, kept))
        measured = tuple(m if k else torch.zeros_like(x, dtype=torch.bool)
                         for x, m, k in zip(self.x, self.measured, kept))
        return Batch(x, measured, self.present & kept[:, None], self.design, self.variance)

"""One modality's noise in the cells that were measured, whatever they are in each person."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


class MeasuredNoise(ABC):
    """Psi_oo of each person, o the cells that were measured in them.

    Blocks have shape (..., n_subjects, n_features), or (..., 1, n_features) if they are the same
    for everybody, and may hold anything where nothing was measured.

    Attributes
    ----------
    log_det : Tensor, shape (n_subjects,), or (1,) if everything was measured
        log |Psi_oo|; 0 if nothing was measured.
    precision_diagonal : Tensor, shape (n_subjects or 1, n_features)
        (Psi_oo^-1)_jj; 0 where j was not measured.
    """

    log_det: Tensor

    @property
    @abstractmethod
    def precision_diagonal(self) -> Tensor: ...

    @abstractmethod
    def whiten(self, block: Tensor) -> Tensor:
        """A block u with |u_i|^2 = e_o' Psi_oo^-1 e_o of each row e; linear in e."""

    @abstractmethod
    def weigh(self, block: Tensor) -> Tensor:
        """Psi_oo^-1 e_o of each row, 0 where nothing was measured."""

    @abstractmethod
    def fill(self, block: Tensor) -> Tensor:
        """Each e with E[e_u | e_o] in its missing cells u."""

    @abstractmethod
    def left_open(self) -> Tensor:
        """Cov[e_u | e_o] in its places, shape (n_features, n_features), summed over people."""


class Independent(MeasuredNoise):
    """R = I."""

    def __init__(self, sd: Tensor, measured: Tensor | None) -> None:
        self.sd, self.measured = sd, measured
        each = 2 * self.sd.log()
        self.log_det = each.sum()[None] if measured is None else measured.to(each) @ each

    @property
    def precision_diagonal(self) -> Tensor:
        return self._known(self.sd.square().reciprocal()[None])

    def whiten(self, block: Tensor) -> Tensor:
        return self._known(block / self.sd)

    def weigh(self, block: Tensor) -> Tensor:
        return self._known(block / self.sd.square())

    def fill(self, block: Tensor) -> Tensor:
        return self._known(block)

    def left_open(self) -> Tensor:
        variance = self.sd.square()
        if self.measured is None:
            return torch.zeros_like(variance).diag()
        return torch.diag((~self.measured).sum(0) * variance)

    def _known(self, block: Tensor) -> Tensor:
        return block if self.measured is None else torch.where(self.measured, block, 0.0)


@dataclass(frozen=True, eq=False)
class _Gap:
    """A pattern of missing cells, and what the measured ones say of them, in units of s.

    Attributes
    ----------
    pattern : int
    rows, cells : Tensor of int
        Who has it; which cells are missing.
    gain : Tensor, shape (n_cells, n_features)
        -P_uu^-1 P_uo, 0 in the columns of u.
    spread : Tensor, shape (n_cells, n_cells)
        P_uu^-1.
    log_det : Tensor
        log |P_uu|.
    """

    pattern: int
    rows: Tensor
    cells: Tensor
    gain: Tensor
    spread: Tensor
    log_det: Tensor


class Correlated(MeasuredNoise):
    """Missing cells u are filled with E[e_u | e_o]; then all people need the same L^-1.

    With P = R^-1 and e in units of s:  E[e_u | e_o] = -P_uu^-1 P_uo e_o,  Cov[e_u | e_o] =
    P_uu^-1;  the filled e has e' P e = e_o' R_oo^-1 e_o,  and |R_oo| = |R| |P_uu|. So a pattern
    costs a matrix of its few missing cells, not one of all the others.

    Attributes
    ----------
    patterns : bool Tensor, shape (n_patterns, n_features)
    which : Tensor of int, shape (n_subjects,), or None if everything was measured

    References
    ----------
    Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, appendix A.2 and A.3.
    """

    def __init__(self, sd: Tensor, inverse_root: Tensor, measured: Tensor | None) -> None:
        self.sd, self.root = sd, inverse_root
        self.patterns, self.which = torch.ones(1, len(self.sd), dtype=torch.bool), None
        if measured is not None:
            self.patterns, self.which = torch.unique(measured, dim=0, return_inverse=True)
        self.gaps = [] if self.which is None else list(_gaps(self.precision, self.patterns,
                                                             self.which))
        each = 2 * self.sd.log()
        log_det = self.patterns.to(each) @ each - 2 * self.root.diagonal().log().sum()
        for gap in self.gaps:
            log_det[gap.pattern] += gap.log_det
        self.log_det = self._of_people(torch.where(self.patterns.any(1), log_det, 0.0))

    @cached_property
    def precision(self) -> Tensor:
        """P, for complete people."""
        return self.root.mT @ self.root

    @property
    def precision_diagonal(self) -> Tensor:
        found = self.precision.diagonal().expand(self.patterns.shape).clone()
        for gap in self.gaps:
            found[gap.pattern] += (self.precision[gap.cells] * gap.gain).sum(0)
        return self._of_people(torch.where(self.patterns, found, 0.0) / self.sd.square())

    def whiten(self, block: Tensor) -> Tensor:
        return self._spread(block, lambda filled: filled @ self.root.mT)

    def weigh(self, block: Tensor) -> Tensor:
        return self._spread(block, lambda filled: filled @ self.precision / self.sd)

    def fill(self, block: Tensor) -> Tensor:
        return self._spread(block, lambda filled: filled * self.sd)

    def left_open(self) -> Tensor:
        found = torch.zeros_like(self.root)
        for gap in self.gaps:
            found[gap.cells[:, None], gap.cells] += len(gap.rows) * gap.spread
        return self.sd[:, None] * found * self.sd

    def _spread(self, block: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``act`` makes of filled rows; of rows that are alike, once a pattern."""
        if self.which is None:
            return act(block / self.sd)
        alike = block.shape[-2] == 1
        mask = self.patterns if alike else self.patterns[self.which]
        filled = torch.where(mask, block / self.sd, 0.0)
        for gap in self.gaps:
            rows = torch.tensor([gap.pattern]) if alike else gap.rows
            filled[..., rows[:, None], gap.cells] = filled[..., rows, :] @ gap.gain.mT
        found = act(filled)
        return found[..., self.which, :] if alike else found

    def _of_people(self, by_pattern: Tensor) -> Tensor:
        return by_pattern if self.which is None else by_pattern[self.which]


def _gaps(precision: Tensor, patterns: Tensor, which: Tensor) -> Iterator[_Gap]:
    """Of patterns in which some cells are missing, but not all."""
    for k, pattern in enumerate(patterns):
        if pattern.all() or not pattern.any():
            continue
        cells = torch.nonzero(~pattern).ravel()
        factor = torch.linalg.cholesky(precision[cells[:, None], cells])
        gain = torch.where(pattern, -torch.cholesky_solve(precision[cells], factor), 0.0)
        yield _Gap(k, torch.nonzero(which == k).ravel(), cells, gain,
                   torch.cholesky_inverse(factor), 2 * factor.diagonal().log().sum())

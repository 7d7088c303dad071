"""Residuals of people, those of the fit judged by what everybody else taught."""
from __future__ import annotations

import torch
from torch import Tensor

from .effects import Effects
from .sinh_arcsinh import FARTHEST, SinhArcsinh, second_order

_CHUNK = 64
"""Features worked on together: memory, not speed."""

FAR = 2.5
"""The variance of u is that of a value no farther out than this."""

_LEAST_LEFT = 0.05
"""At least so much of the precision about somebody comes from others: a person who is nearly all
that is known of a site would otherwise be left with less than nothing."""


def judge(effects: Effects, x: Tensor, y: Tensor, left_out: Tensor | None = None
          ) -> tuple[Tensor, Tensor, Tensor]:
    """u of every cell, its variance, and log du/dy.

    The parameters of a cell, eta = V' theta = (loc, log scale, skew, log tail), are normal under
    the posterior of the effects, with covariance S = V' covariance V; the variance of u is w' S w,
    w = du/d eta.

    For people of the fit the posterior is divided by their own likelihood, with gradient a and
    information A by eta: what is left is, to second order,

    N(eta - S_o a, S_o),   S_o = (S^-1 - A)^-1,

    as if the effects had been fitted without them (the spreads of effects are kept).

    Parameters
    ----------
    x : Tensor, shape (n_subjects, n_columns)
    y : Tensor, shape (n_subjects, n_features)
        Standardised.
    left_out : bool Tensor, shape (n_subjects,), optional
        Who took part in the fit. By default nobody did.

    References
    ----------
    Opper and Winther (2000), Neural Computation 12(11), doi 10.1162/089976600300014881 (cavities
    in place of leaving out); Vehtari et al. (2016), JMLR 17(103).
    """
    u, variance, slope = (torch.empty_like(y) for _ in range(3))
    for rows in torch.arange(y.shape[1]).split(_CHUNK):
        u[:, rows], variance[:, rows], slope[:, rows] = _of_some(effects, x, y, rows, left_out)
    return u, variance, slope


def _of_some(effects: Effects, x: Tensor, y: Tensor, at: Tensor, left_out: Tensor | None
             ) -> tuple[Tensor, Tensor, Tensor]:
    law = effects.law(x, at)
    eta, spread, y = torch.stack(law.parameters, -1), _spread(effects, x, at), y[:, at]
    if left_out is not None and left_out.any():
        eta[left_out], spread[left_out] = _without(eta[left_out], spread[left_out], y[left_out])
        law = SinhArcsinh.stacked(eta)
    # slopes grow faster than u itself: beyond FAR the variance would make z smaller again
    w = _slopes(law, law.from_normal(law.to_normal(y).clamp(-FAR, FAR)))
    return law.to_normal(y), torch.einsum("npk,npkl,npl->np", w, spread, w), law.log_slope(y)


def _spread(effects: Effects, x: Tensor, at: Tensor) -> Tensor:
    """S of every cell, shape (n_subjects, n_features, 4, 4)."""
    n, covariance = x.shape[1], effects.covariance[at]
    found = x.new_empty(len(x), len(at), 4, 4)
    blocks = (slice(0, n), slice(n, 2 * n))
    for k, rows in enumerate(blocks):
        for m, columns in enumerate(blocks[k:], k):
            half = torch.einsum("nd,pde->npe", x, covariance[:, rows, columns])
            found[..., k, m] = found[..., m, k] = torch.einsum("npe,ne->np", half, x)
        for m in (2, 3):
            found[..., k, m] = found[..., m, k] = x @ covariance[:, rows, m - 4].T
    found[..., 2:, 2:] = covariance[:, -2:, -2:]
    return found


def _without(eta: Tensor, spread: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The cavity of each cell."""
    found = second_order(SinhArcsinh.stacked(eta), y)
    gradient = torch.stack(found.gradient, -1)
    information = torch.empty_like(spread)
    for (k, m), value in found.hessian.items():
        information[..., k, m] = information[..., m, k] = -value
    root = torch.linalg.cholesky(spread)
    left = torch.eye(4, dtype=y.dtype) - root.mT @ information @ root
    factor, failed = torch.linalg.cholesky_ex(left - _LEAST_LEFT * torch.eye(4, dtype=y.dtype))
    if failed.any():
        values, vectors = torch.linalg.eigh(left[failed > 0])
        left[failed > 0] = (vectors * values.clamp_min(_LEAST_LEFT)[..., None, :]) @ vectors.mT
    others = root @ torch.linalg.solve(left, root.mT)
    return eta - (others @ gradient[..., None])[..., 0], others


def _slopes(law: SinhArcsinh, y: Tensor) -> Tensor:
    """du / d(loc, log scale, skew, log tail), shape (…, 4)."""
    per_scale = torch.exp(-law.log_scale)
    e = (y - law.loc) * per_scale
    bent = law.log_tail.exp() * torch.arcsinh(e)
    cosh = torch.cosh((bent - law.skew).clamp(-FARTHEST, FARTHEST))
    by_e = cosh * law.log_tail.exp() / torch.sqrt(1 + e * e)
    return torch.stack([-by_e * per_scale, -by_e * e, -cosh, cosh * bent], -1)

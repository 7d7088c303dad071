"""A new site: its offsets and scales from some of its healthy people, all else as it was."""
from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .columns import UNSEEN
from .pooled import PooledRegression
from .sinh_arcsinh import SinhArcsinh, second_order

_ROUNDS = 15


def add_site(regression: PooledRegression, covariate: str, site: str, values: np.ndarray,
             subjects: pd.DataFrame) -> PooledRegression:
    """The regression with this site's effects learned from its people.

    Offset b_j and log scale g_j of every feature, with the prior that reference sites taught:

    (b_j, g_j) ~ N(m, t^2),  m ~ N(0, v^2),

    t between features of one site, v between sites. Newton steps for all features at once and the
    mean m in turn; other effects stay at their posterior means, so that other sites' z do not
    change. With few people the offsets shrink towards what the site's features have in common.

    Parameters
    ----------
    values : ndarray, shape (n_subjects, n_features)
        Healthy people of the new site, in the modality's unit; NaN is not measured.
    """
    seen = torch.as_tensor(~np.isnan(values))
    y = torch.as_tensor(np.where(seen, (values - regression.center) / regression.unit, 0.0))
    base = regression.effects.law(torch.as_tensor(regression.columns.values(
        subjects.assign(**{covariate: UNSEEN}))))
    at = regression.columns.position(covariate, regression.columns.sites[covariate][0])
    both = torch.tensor([at, regression.effects.n_columns + at])
    t2, v2 = regression.effects.spread[:, both].square()
    mean, pooled = y.new_zeros(y.shape[1], 2), y.new_zeros(2)
    for _ in range(_ROUNDS):
        gradient, precision = _terms(base, mean, y, seen)
        precision = _positive(precision) + torch.diag(1 / t2)
        step = torch.linalg.solve(precision, (gradient - (mean - pooled) / t2)[..., None])
        mean = mean + step[..., 0].clamp(-1.0, 1.0)
        pooled = (mean / t2).sum(0) / (len(mean) / t2 + 1 / v2)
    covariance = torch.linalg.inv(_positive(_terms(base, mean, y, seen)[1]) + torch.diag(1 / t2))
    # the common part is known no better than its own posterior: a rank-one addition each
    shared = 1 / (len(mean) / t2 + 1 / v2)
    pull = covariance @ torch.diag(1 / t2)
    covariance = covariance + pull @ torch.diag(shared) @ pull.mT
    return regression.with_site(covariate, site, mean, covariance)


def _terms(base: SinhArcsinh, mean: Tensor, y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (p, 2) and minus Hessian (p, 2, 2) of each feature's log likelihood."""
    law = SinhArcsinh(base.loc + mean[:, 0], base.log_scale + mean[:, 1], base.skew,
                      base.log_tail, validate_args=False)
    found = second_order(law, y)

    def total(block: Tensor) -> Tensor:
        return torch.where(seen, block, 0.0).sum(0)

    cross = total(found.hessian[0, 1])
    hessian = torch.stack([torch.stack([total(found.hessian[0, 0]), cross], -1),
                           torch.stack([cross, total(found.hessian[1, 1])], -1)], -2)
    return torch.stack([total(found.gradient[0]), total(found.gradient[1])], -1), -hessian


def _positive(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.abs().clamp_min(1e-6)[:, None]) @ vectors.mT

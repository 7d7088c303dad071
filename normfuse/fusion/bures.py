"""The 2-Wasserstein geometry of full covariances, differentiable also at equal eigenvalues.

Autograd through ``torch.linalg.eigh`` divides by differences of eigenvalues and gives NaN where
the training of a VAE starts (all covariances c I). Here every derivative solves a Lyapunov
equation, which divides by sums of their roots. First derivatives only.
"""
from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bures_newton import MOST_INNER_STEPS, Equation, newton, pair_sums, resolved, symmetric


def sqrtm(matrices: Tensor) -> Tensor:
    """The symmetric square root of symmetric positive semidefinite matrices.

    R R = C.  Its derivative solves dR R + R dR = dC.

    Parameters
    ----------
    matrices : Tensor, shape (..., d, d)
        Symmetric; eigenvalues below 0 (by rounding) count as 0. At a singular matrix the true
        derivative is infinite; here it is bounded by what the floating point resolves.

    Returns
    -------
    Tensor, shape (..., d, d)

    References
    ----------
    Higham (2008), Functions of Matrices, SIAM, doi 10.1137/1.9780898717778, section 6.1.

    Examples
    --------
    >>> sqrtm(torch.diag(torch.tensor([4.0, 9.0])))
    tensor([[2., 0.],
            [0., 3.]])
    """
    return _SquareRoot.apply(matrices)


def transport_map(source: Tensor, target: Tensor) -> Tensor:
    """The optimal (Monge) map T from N(0, S) to N(0, C): symmetric, with T S T = C.

    T = L^-T (L' C L)^(1/2) L^-1  for any L with L L' = S; here its Cholesky factor.

    Parameters
    ----------
    source : Tensor, shape (..., d, d)
        Symmetric positive definite, S.
    target : Tensor, shape (..., d, d)
        Symmetric positive semidefinite, C.

    Returns
    -------
    Tensor, shape (..., d, d)

    Raises
    ------
    torch.linalg.LinAlgError
        A source is not positive definite: no map can widen a Gaussian without width.

    References
    ----------
    Gelbrich (1990), Math. Nachr. 147, doi 10.1002/mana.19901470121.

    Examples
    --------
    >>> transport_map(torch.diag(torch.tensor([4.0, 1.0])), torch.diag(torch.tensor([1.0, 9.0])))
    tensor([[0.5000, 0.0000],
            [0.0000, 3.0000]])
    """
    factor = torch.linalg.cholesky(source)
    half = torch.linalg.solve_triangular(
        factor.mT, sqrtm(factor.mT @ target @ factor), upper=True)
    whole = torch.linalg.solve_triangular(factor.mT, half.mT, upper=True)
    return (whole + whole.mT) / 2


def bures_distance2(a: Tensor, b: Tensor) -> Tensor:
    """The squared Bures-Wasserstein distance between covariances.

    d^2(A, B) = tr A + tr B - 2 tr (A^(1/2) B A^(1/2))^(1/2) = W2^2(N(0, A), N(0, B)).

    Parameters
    ----------
    a, b : Tensor, shape (..., d, d)
        Symmetric positive semidefinite; the gradient is finite at A = B (there it is 0).

    Returns
    -------
    Tensor, shape (...)

    References
    ----------
    Bhatia, Jain and Lim (2019), Expo. Math. 37(2), doi 10.1016/j.exmath.2018.01.002.

    Examples
    --------
    >>> bures_distance2(4 * torch.eye(2), torch.eye(2)).item()   # (2 - 1)^2 for each axis
    2.0
    """
    root = sqrtm(a)
    cross = sqrtm(root @ b @ root)
    return (_trace(a) + _trace(b) - 2 * _trace(cross)).clamp_min(0)  # below 0 by rounding only


def bures_barycenter(covariances: Tensor, weights: Tensor, *, tolerance: float | None = None,
                     max_iterations: int = 100) -> Tensor:
    """The covariance of the 2-Wasserstein barycenter: ``argmin_S sum_m w_m d^2(S, C_m)``.

    sum_m w_m (S^(1/2) C_m S^(1/2))^(1/2) = (sum_m w_m) S.

    Diagonal covariances give the weighted mean of their sds, one alone gives itself. In the form
    solved here, S = L L' and R_m = (L' C_m L)^(1/2), it is sum_m w_m (R_m - L' L) = 0. A change
    dS = L X L' lowers that by H[X] = sum_m w_m Z_m, where Z_m R_m + R_m Z_m = R_m X R_m. Newton's
    steps and the derivatives both invert H, by conjugate gradients.

    Parameters
    ----------
    covariances : Tensor, shape (M, ..., d, d)
        Symmetric positive semidefinite. At least one with a positive weight must be positive
        definite; with all singular the iteration may stall at a wrong point. float32 serves
        condition numbers up to about 1e6.
    weights : Tensor, shape (M, ...)
        Not negative; only ratios matter. A slot of weight 0 may hold anything (NaN): it changes
        neither result nor gradients, and its own gradients are 0. Where all are 0 the result is
        the identity, with gradients 0.
    tolerance : float, optional
        Largest ``|sum_m w_m R_m - L' L| / |L' L|`` before the last Newton step. That step about
        squares it; the gradients, taken before it, have about this relative error. Default: the
        square root of the resolution (1.5e-8 for float64, 3.5e-4 for float32), beyond which the
        root of a singular matrix is not known.
    max_iterations : int
        Newton steps; 2 to 6 are usual.

    Returns
    -------
    Tensor, shape (..., d, d)

    Warns
    -----
    RuntimeWarning
        Not converged after ``max_iterations``, or a linear system not solved; with the residual.

    References
    ----------
    Agueh and Carlier (2011), SIAM J. Math. Anal. 43(2), doi 10.1137/100805741; Alvarez-Esteban
    et al. (2016), J. Math. Anal. Appl. 441(2), doi 10.1016/j.jmaa.2016.04.045. Our fixed point is
    theirs; we take their step only where Newton's would go astray.

    Examples
    --------
    >>> experts = torch.stack([torch.diag(torch.tensor([1.0, 4.0])), 9 * torch.eye(2)])
    >>> bures_barycenter(experts, torch.tensor([1.0, 1.0])).sqrt()   # (1 + 3)/2, (2 + 3)/2
    tensor([[2.0000, 0.0000],
            [0.0000, 2.5000]])
    """
    if weights.shape != covariances.shape[:-2]:
        raise ValueError(f"expected one weight per covariance, shape {covariances.shape[:-2]}; "
                         f"got weights of shape {weights.shape}")
    if bool((weights < 0).any()):
        raise ValueError(f"weights are not negative; got {float(weights.min()):.4g}")
    d, m = covariances.shape[-1], len(covariances)
    present = weights > 0
    eye = torch.eye(d, dtype=covariances.dtype, device=covariances.device)
    known = torch.where(present[..., None, None], covariances, eye)
    nothing = ~present.any(0)
    weights = torch.where(present, weights, 0).to(covariances.dtype)
    weights = torch.where(nothing, 1, weights)
    weights = weights / weights.sum(0)
    if tolerance is None:
        tolerance = torch.finfo(covariances.dtype).eps ** 0.5
    found = _Barycenter.apply(known.movedim(0, -2).reshape(-1, d, m, d),
                              weights.movedim(0, -1).reshape(-1, m), tolerance, max_iterations)
    return torch.where(nothing[..., None, None], eye, found.reshape(covariances.shape[1:]))


class _SquareRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrices)
        roots = values.clamp_min(0).sqrt()
        ctx.save_for_backward(roots, vectors)
        return (vectors * roots[..., None, :]) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors
        inner = vectors.mT @ symmetric(grad) @ vectors
        return vectors @ (inner / pair_sums(resolved(roots, roots.dtype))) @ vectors.mT


class _Barycenter(torch.autograd.Function):
    """Covariances (B, d, M, d) and weights (B, M) that sum to 1 -> (B, d, d)."""

    @staticmethod
    def forward(ctx: Any, covariances: Tensor, weights: Tensor, tolerance: float,
                max_iterations: int) -> Tensor:
        found, factor, rows, roots = newton(covariances, weights, tolerance, max_iterations)
        ctx.tolerance = tolerance
        ctx.save_for_backward(factor, rows, roots, weights)
        return symmetric(found @ found.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Y = H^-1[L' G L];  for C_m: w_m L Z_m L' with Z_m R_m + R_m Z_m = Y;  for w_m: <Y, R_m>.

        The weights sum to 1, so <Y, R_m - L' L> would come to the same.
        """
        factor, rows, roots, weights = ctx.saved_tensors
        equation = Equation(factor, rows, roots, weights)
        right = factor.mT @ symmetric(grad) @ factor
        dual, reached = equation.solve(right, right.new_full(right.shape[:1], ctx.tolerance))
        if (reached > 2 * ctx.tolerance).any():
            warnings.warn(f"the gradient of a Bures barycenter has a relative error of about "
                          f"{reached.max():.1e} after {MOST_INNER_STEPS} steps, tolerance "
                          f"{ctx.tolerance:.1e}", RuntimeWarning, stacklevel=2)
        inner = equation.to_eigenbases(dual)
        for_weights = (inner.diagonal(dim1=-2, dim2=-1) * roots).sum(-1)
        inner = inner / pair_sums(resolved(roots, torch.double)) * weights[..., None, None]
        lifted = torch.bmm(equation.rows, factor.mT).view(equation.each.shape)
        outer = torch.bmm(lifted.mT, torch.bmm(inner.flatten(0, 1), lifted))
        return outer.view(rows.shape).transpose(1, 2), for_weights, None, None


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)

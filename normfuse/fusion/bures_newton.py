"""Newton's method for the Bures barycenter of a batch of covariances: the engine of bures.py."""
from __future__ import annotations

import warnings

import torch
from torch import Tensor

LOOSEST_INNER_SOLUTION = 0.1  # of a Newton step that is itself further off
MOST_INNER_STEPS = 200  # 3 to 9 are usual in float32, as each leaves a tenth of the error
LARGEST_EXPANSION = 0.5  # of the factor by a Newton step: (I - K)^-1 has its pole at 1
LONGEST_LAST_STEP = 0.3  # relative change of the factor: from further off it squares nothing


class Equation:
    """sum_m w_m (R_m - L' L) = 0 near one L, with the roots R_m given by their eigenbases.

    L is kept such that L' L is nearly diagonal, D. Then H is near P = H at R_m = D, which only
    scales each entry: P[X]_ij = X_ij d_i d_j / (d_i + d_j).
    """

    def __init__(self, factor: Tensor, rows: Tensor, roots: Tensor, weights: Tensor) -> None:
        self.factor = factor
        self.rows = rows.flatten(1, 2)  # (B, M d, d): eigenvector k of R_m is row m d + k
        self.each = rows.flatten(0, 1)  # (B M, d, d): the same memory
        self.roots, self.weights = roots, weights[..., None]
        self.gram = torch.bmm(factor.mT, factor)
        self.diagonal = self.gram.diagonal(dim1=-2, dim2=-1)
        self.scaling = 1 / pair_sums(self.diagonal.reciprocal())
        inverses = (self.weights * resolved(roots, torch.double)).reciprocal()  # w = 0: infinite
        self.kernel = pair_sums(inverses).reciprocal_()  # w r_i r_j / (r_i + r_j)

    def gap(self) -> Tensor:
        """The left-hand side."""
        scaled = self.rows * (self.weights * self.roots).flatten(1)[..., None]
        return torch.bmm(self.rows.mT, scaled) - self.gram

    def to_eigenbases(self, matrix: Tensor) -> Tensor:
        """A matrix in the eigenbasis of every R_m."""
        inner = torch.bmm(self.rows, matrix).view(self.each.shape)
        return torch.bmm(inner, self.each.mT).view(self.kernel.shape)

    def linear(self, matrix: Tensor) -> Tensor:
        """H[X], symmetric and positive definite."""
        inner = self.to_eigenbases(matrix).mul_(self.kernel).view(self.each.shape)
        return torch.bmm(self.rows.mT, torch.bmm(inner, self.each).view(self.rows.shape))

    def solve(self, right: Tensor, accuracy: Tensor) -> tuple[Tensor, Tensor]:
        """H^-1[right] and the accuracy reached, by preconditioned conjugate gradients.

        Each element of the batch stops by itself.
        """
        solution, residual = torch.zeros_like(right), right.clone()
        direction = residual / self.scaling
        energy = (residual * direction).sum((-2, -1))
        enough = energy * accuracy.square()
        for _ in range(MOST_INNER_STEPS):
            going = energy > enough
            if not going.any():
                break
            image = self.linear(direction)
            length = torch.where(going, energy / (direction * image).sum((-2, -1)), 0)
            solution.addcmul_(length[:, None, None], direction)
            residual.addcmul_(length[:, None, None], image, value=-1)
            scaled = residual / self.scaling
            before, energy = energy, (residual * scaled).sum((-2, -1))
            ratio = torch.where(going, energy / before, 0)
            direction = torch.addcmul(scaled, ratio[:, None, None], direction)
        return solution, accuracy * torch.where(energy > enough, (energy / enough).sqrt(), 1)

    def step(self, gap: Tensor, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Newton's L (I - K)^-1; where that expands too much, Alvarez-Esteban's L^-T sum w_m R_m.

        K = D^-1 P[X], so that K + K' = X. The latter never fails to descend, but leaves about a
        third of the error at each step. Also returns the length of Newton's step.
        """
        change = solution * self.scaling
        found = _moved(self.factor, change / self.diagonal[:, :, None])
        balance = self.diagonal.rsqrt()
        relative = balance[:, :, None] * change * balance[:, None, :]  # similar to K, symmetric
        eye = torch.eye(gap.shape[-1], dtype=gap.dtype, device=gap.device)
        _, wide = torch.linalg.cholesky_ex(eye - relative / LARGEST_EXPANSION)
        if wide.any():
            safe = torch.linalg.solve_ex(self.gram, self.gram + gap)[0]
            found = torch.where(wide[:, None, None] > 0, torch.bmm(self.factor, safe), found)
        return found, relative.flatten(1).norm(dim=1)


def newton(covariances: Tensor, weights: Tensor, tolerance: float, max_iterations: int
           ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The factor found; and the factor before, with the eigenbases of its R_m."""
    b, d, m, _ = covariances.shape
    factor = _start(covariances, weights)
    found, active = torch.empty_like(factor), torch.arange(b, device=factor.device)
    rows, roots = factor.new_empty(b, m, d, d), factor.new_empty(b, m, d)
    doubles, rounding = covariances.double(), 8 * torch.finfo(factor.dtype).eps
    for _ in range(max_iterations):
        left = factor[active]
        # In double, as L' C_m L has the conditions of S and C_m multiplied; "U", as with its large
        # entries last LAPACK then keeps the digits of the small eigenvalues (if d < 26).
        values, vectors = torch.linalg.eigh(_congruent(doubles[active], left.double()), UPLO="U")
        rows[active], roots[active] = vectors.mT.to(rows), values.clamp_min(0).sqrt().to(roots)
        equation = Equation(left, rows[active], roots[active], weights[active])
        gap = equation.gap()
        size = gap.flatten(1).norm(dim=1) / equation.gram.flatten(1).norm(dim=1)
        # Newton's own error is about size * size; nothing is gained below rounding
        accuracy = torch.maximum(size, rounding / size).clamp_max(LOOSEST_INNER_SOLUTION)
        moved, length = equation.step(gap, equation.solve(gap, accuracy)[0])
        exact = size <= rounding
        useful = ~exact & moved.flatten(1).isfinite().all(1)
        found[active] = torch.where(useful[:, None, None], moved, left)
        finished = exact | (size <= tolerance) & (length <= LONGEST_LAST_STEP)
        active = active[~finished]
        if not len(active):
            break
        factor[active] = found[active]
    if len(active):
        warnings.warn(
            f"{len(active)} of {b} Bures barycenters did not converge in {max_iterations} "
            f"iterations: residual {size.max():.1e}, tolerance {tolerance:.1e}. Each needs at "
            "least one positive definite covariance.", RuntimeWarning, stacklevel=5)
    return found, factor, rows, roots


def _start(covariances: Tensor, weights: Tensor) -> Tensor:
    """L = V D^(1/2) of the weighted mean, moved to the solution of a quadratic approximation.

    R_m = D + E_m - Lyap[E_m^2] + ...  with  E_m = Lyap[L' C_m L - D^2]  and  Lyap[X]_ij =
    X_ij / (d_i + d_j). The weighted mean of E_m is 0, so the gap is -Lyap[sum_m w_m E_m^2] + ...
    """
    mean = (covariances * weights[:, None, :, None]).sum(2)
    values, vectors = torch.linalg.eigh(mean)
    values = torch.maximum(values, values[:, -1:] * torch.finfo(mean.dtype).eps)
    factor = vectors * values[:, None, :].sqrt()
    sums = pair_sums(values)
    linear = _congruent(covariances, factor) / sums[:, None]
    linear = linear - torch.diag_embed(values / 2)[:, None]
    weighted = (linear * weights[..., None, None]).transpose(1, 2).flatten(2)
    gap = -torch.bmm(weighted, linear.flatten(1, 2)) / sums
    # K = D^-1 P[H^-1[gap]] with H = P / 1.2, the best such constant on random covariances
    return _moved(factor, 1.2 * gap / values[:, :, None])


def _moved(factor: Tensor, change: Tensor) -> Tensor:
    """L (I - K)^-1, to first order L (I + K), whose error after a Newton step is ten times larger.

    The gap of commuting covariances is linear in L^-1, so for these one Newton step is exact.
    """
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve(eye - change.mT, factor.mT).mT


def _congruent(covariances: Tensor, factor: Tensor) -> Tensor:
    """L' C_m L, shape (B, M, d, d)."""
    b, d, m, _ = covariances.shape
    half = torch.bmm(factor.mT, covariances.flatten(2)).view(b, d * m, d)
    return torch.bmm(half, factor).view(b, d, m, d).transpose(1, 2)


def resolved(roots: Tensor, computed: torch.dtype) -> Tensor:
    """Ascending roots, kept above the noise of their computation and off 0."""
    floor = roots[..., -1:] * torch.finfo(computed).eps ** 0.5
    return torch.maximum(roots, floor.clamp_min(torch.finfo(roots.dtype).tiny ** 0.5))


def pair_sums(values: Tensor) -> Tensor:
    """values_i + values_j."""
    return values[..., :, None] + values[..., None, :]


def symmetric(matrices: Tensor) -> Tensor:
    """The symmetric part."""
    return (matrices + matrices.mT) / 2

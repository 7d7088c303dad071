"""Bures-Wasserstein geometry of full covariances.

Outside witnesses: POT (barycenter, distance), SciPy (matrix square root, BFGS on the objective),
the literal formulas, and finite differences for every gradient. No witness: gradients at singular
covariances, where the true ones are infinite; there we only ask for finite numbers.
"""
from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize
from torch import Tensor
from torch.autograd import gradcheck

from normfuse.fusion.bures import bures_barycenter, bures_distance2, sqrtm, transport_map

ROUNDING = 1e-12  # float64 through a few roots of matrices of condition about 100


@pytest.fixture(scope="module")
def ot() -> ModuleType:
    return pytest.importorskip("ot")  # here, as its import takes a second


def covariances(*batch: int, d: int, seed: int = 0, log_condition: float = 2.0) -> Tensor:
    """Random axes; eigenvalues log-uniform over 10 ** log_condition."""
    rng = torch.Generator().manual_seed(seed)
    double = {"generator": rng, "dtype": torch.float64}
    axes = torch.linalg.qr(torch.randn(*batch, d, d, **double))[0]
    values = 10 ** (log_condition * (torch.rand(*batch, d, **double) - 0.5))
    made = axes * values[..., None, :] @ axes.mT
    return (made + made.mT) / 2


def random_weights(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(100 + seed)
    return torch.rand(*shape, generator=rng, dtype=torch.float64) + 0.1


def scipy_root(matrix: Tensor | np.ndarray) -> np.ndarray:
    return np.real(linalg.sqrtm(np.asarray(matrix)))


def relative(found: Tensor, true: Tensor) -> float:
    return float(((found - true).norm(dim=(-2, -1)) / true.norm(dim=(-2, -1))).max())


def equation_gap(barycenter: Tensor, experts: Tensor, weights: Tensor) -> float:
    """sum_m w_m (S^(1/2) C_m S^(1/2))^(1/2) - (sum_m w_m) S, evaluated with SciPy."""
    root = scipy_root(barycenter)
    mean = sum(w * scipy_root(root @ c.numpy() @ root) for w, c in zip(weights.tolist(), experts))
    return float(np.linalg.norm(mean / weights.sum().item() - barycenter.numpy())
                 / np.linalg.norm(barycenter))


def differences(function, at: Tensor, direction: Tensor, step: float = 1e-5) -> Tensor:
    return (function(at + step * direction) - function(at - step * direction)) / (2 * step)


# --- the barycenter: values

def test_barycenter_agrees_with_pot(ot):
    experts, weights = covariances(3, 4, d=5), random_weights(3, 4)
    found = bures_barycenter(experts, weights)
    for b in range(4):
        share = (weights[:, b] / weights[:, b].sum()).numpy()
        _, true = ot.gaussian.bures_wasserstein_barycenter(
            np.zeros((3, 5)), experts[:, b].numpy(), weights=share, num_iter=2000, eps=1e-13)
        assert relative(found[b], torch.as_tensor(true)) < 1e-8


def test_two_covariances_lie_on_mccanns_geodesic():
    experts = covariances(2, d=4)
    a, b = experts.numpy()
    root = scipy_root(a)
    inverse = np.linalg.inv(root)
    upsilon = inverse @ scipy_root(root @ b @ root) @ inverse
    part = 0.7 * np.eye(4) + 0.3 * upsilon
    found = bures_barycenter(experts, torch.tensor([0.7, 0.3], dtype=torch.float64))
    assert relative(found, torch.as_tensor(part @ a @ part)) < ROUNDING


def test_commuting_covariances_average_their_roots():
    axes = torch.linalg.eigh(covariances(d=5))[1]
    sds = random_weights(3, 5, seed=1)
    weights = random_weights(3)
    experts = axes * sds.square()[:, None, :] @ axes.mT
    sd = (weights[:, None] * sds).sum(0) / weights.sum()
    found = bures_barycenter(experts, weights)
    assert relative(found, axes * sd.square() @ axes.mT) < ROUNDING


def test_diagonal_covariances_average_their_sds_and_stay_diagonal():
    sds = 10 ** (4 * random_weights(3, 7, 6, seed=2) - 2)
    weights = random_weights(3, 7)
    found = bures_barycenter(torch.diag_embed(sds.square()), weights)
    sd = (weights[..., None] * sds).sum(0) / weights.sum(0)[:, None]
    torch.testing.assert_close(found.diagonal(dim1=-2, dim2=-1).sqrt(), sd, rtol=1e-9, atol=0)
    off = found - torch.diag_embed(found.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < ROUNDING * found.abs().max()


def test_it_minimises_the_weighted_squared_distances():
    experts, weights = covariances(3, d=3, log_condition=1.0), random_weights(3)
    lower = np.tril_indices(3)

    def objective(entries: np.ndarray) -> float:
        factor = np.zeros((3, 3))
        factor[lower] = entries
        s = factor @ factor.T
        cross = [np.linalg.svd(factor.T @ np.linalg.cholesky(c), compute_uv=False).sum()
                 for c in experts.numpy()]
        return sum(w * (np.trace(s) + np.trace(c) - 2 * x)
                   for w, c, x in zip(weights.tolist(), experts.numpy(), cross))

    best = optimize.minimize(objective, np.eye(3)[lower], method="BFGS", options={"gtol": 1e-8})
    found = bures_barycenter(experts, weights)
    reached = objective(np.linalg.cholesky(found.numpy())[lower])
    assert reached == pytest.approx(best.fun, rel=1e-9) and reached <= best.fun + 1e-12
    factor = np.zeros((3, 3))
    factor[lower] = best.x
    assert relative(found, torch.as_tensor(factor @ factor.T)) < 1e-4  # BFGS is no better


def test_a_single_expert_gives_itself_back():
    experts = covariances(3, 6, d=5, log_condition=4.0)
    weights = torch.zeros(3, 6, dtype=torch.float64)
    weights[1] = 0.3
    assert relative(bures_barycenter(experts, weights), experts[1]) < ROUNDING
    assert relative(bures_barycenter(experts[:1], weights[1:2]), experts[0]) < ROUNDING
    single = bures_barycenter(experts.float(), weights.float())
    assert relative(single, experts[1].float()) < 5e-6


def test_order_scale_and_splitting_of_the_weights_change_nothing():
    experts, weights = covariances(4, 5, d=3), random_weights(4, 5)
    found = bures_barycenter(experts, weights)
    order = torch.tensor([2, 0, 3, 1])
    assert relative(bures_barycenter(experts[order], weights[order]), found) < ROUNDING
    assert relative(bures_barycenter(experts, 1e5 * weights), found) < ROUNDING
    twice = bures_barycenter(experts.repeat(2, 1, 1, 1), torch.cat([0.2 * weights, 0.8 * weights]))
    assert relative(twice, found) < ROUNDING


def test_it_turns_and_scales_with_its_experts():
    experts, weights = covariances(3, d=4), random_weights(3)
    axes = 1.7 * torch.linalg.eigh(covariances(d=4, seed=9))[1]
    turned = bures_barycenter(axes @ experts @ axes.mT, weights)
    assert relative(turned, axes @ bures_barycenter(experts, weights) @ axes.mT) < ROUNDING


def test_a_batch_equals_one_by_one():
    hard = covariances(3, 2, d=4, log_condition=6.0)
    experts = torch.cat([covariances(3, 4, d=4, log_condition=1.0), hard], 1)
    weights = random_weights(3, 6)
    weights[0, 1] = weights[2, 1] = weights[1, 4] = 0
    found = bures_barycenter(experts.reshape(3, 2, 3, 4, 4), weights.reshape(3, 2, 3))
    alone = [bures_barycenter(experts[:, b], weights[:, b]) for b in range(6)]
    assert relative(found.reshape(6, 4, 4), torch.stack(alone)) < 1e-14


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.lists(st.integers(0, 3), max_size=2),
       st.integers(0, 10**6), st.floats(0, 4))
def test_laws_of_every_shape(m, d, batch, seed, log_condition):
    experts = covariances(m, *batch, d=d, seed=seed, log_condition=log_condition)
    weights = random_weights(m, *batch, seed=seed)
    found = bures_barycenter(experts, weights)
    assert found.shape == (*batch, d, d) and torch.equal(found, found.mT)
    share = weights / weights.sum(0)
    if 0 in batch:
        return
    traces = (share * experts.diagonal(dim1=-2, dim2=-1).sum(-1)).sum(0)
    assert (found.diagonal(dim1=-2, dim2=-1).sum(-1) <= traces * (1 + ROUNDING)).all()
    widths = (share * torch.linalg.det(experts) ** (0.5 / d)).sum(0)
    assert (torch.linalg.det(found) ** (0.5 / d) >= widths * (1 - 1e-9)).all()
    first = (slice(None), *(0 for _ in batch))
    assert equation_gap(found[first[1:]], experts[first], weights[first]) < 1e-9


@pytest.mark.parametrize("n_singular", [1, 2])
def test_singular_experts_beside_a_positive_definite_one(n_singular):
    experts, weights = covariances(3, 4, d=5, seed=3), random_weights(3, 4)
    values, axes = torch.linalg.eigh(experts)
    values[:n_singular, :, :2] = 0
    experts = (axes * values[..., None, :] @ axes.mT).requires_grad_()
    weights.requires_grad_()
    found = bures_barycenter(experts, weights)
    for b in range(4):  # a null space is only known to sqrt(eps)
        assert equation_gap(found[b].detach(), experts[:, b].detach(), weights[:, b]) < 1e-7
    found.diagonal(dim1=-2, dim2=-1).sum().backward()
    assert experts.grad.isfinite().all() and weights.grad.isfinite().all()


def test_nobody_present_gives_the_identity_and_no_gradient():
    experts = covariances(2, 3, d=4)
    experts[:, 1] = torch.nan
    weights = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 2.0]], dtype=torch.float64)
    experts.requires_grad_()
    weights.requires_grad_()
    found = bures_barycenter(experts, weights)
    assert torch.equal(found[1], torch.eye(4, dtype=torch.float64))
    found.square().sum().backward()
    assert (experts.grad[:, 1] == 0).all() and (weights.grad[:, 1] == 0).all()
    assert experts.grad.isfinite().all() and weights.grad.isfinite().all()


def test_non_convergence_warns_with_residual_and_iterations():
    experts, weights = covariances(3, 4, d=5), random_weights(3, 4)
    with pytest.warns(RuntimeWarning, match=r"4 of 4 .* 1 iterations: residual \d.*e-0\d") as seen:
        bures_barycenter(experts, weights, max_iterations=1)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bures_barycenter(experts, weights)


def test_extreme_scales_and_weights_converge():
    experts = covariances(3, 20, d=4, log_condition=5.0)
    experts = experts * 10 ** (8 * random_weights(3, 20, seed=5) - 4)[..., None, None]
    weights = 10 ** (-4 * random_weights(3, 20, seed=6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bures_barycenter(experts, weights)
    for b in range(20):
        assert equation_gap(found[b], experts[:, b], weights[:, b]) < 1e-8


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="one weight per covariance"):
        bures_barycenter(covariances(3, 4, d=2), random_weights(3))


@pytest.mark.parametrize("log_condition, error", [(2.0, 1e-5), (4.0, 2e-3)])
@pytest.mark.parametrize("d", [3, 10, 32])
def test_single_precision(d, log_condition, error):
    """Relative to each direction's own variance; writing S down in float32 costs cond * 6e-8."""
    experts = covariances(3, 30, d=d, log_condition=log_condition).float()
    weights = random_weights(3, 30).float()
    found = bures_barycenter(experts, weights)
    true = bures_barycenter(experts.double(), weights.double())
    assert found.dtype == torch.float32 and relative(found, true) < 3e-5
    inverse = torch.linalg.inv(torch.linalg.cholesky(true))
    assert torch.linalg.matrix_norm(inverse @ (found - true) @ inverse.mT, 2).median() < error


# --- the barycenter: gradients

def test_gradients_of_the_barycenter():
    roots = covariances(3, 2, d=3, seed=4).requires_grad_()
    weights = random_weights(3, 2).requires_grad_()
    eye = 0.1 * torch.eye(3, dtype=torch.float64)

    def barycenter(roots: Tensor, weights: Tensor) -> Tensor:
        return bures_barycenter(roots @ roots.mT + eye, weights)

    assert gradcheck(barycenter, (roots, weights), atol=1e-7, rtol=1e-6)


def test_an_absent_slot_changes_no_value_and_no_gradient():
    roots = covariances(2, 2, d=3, seed=4).requires_grad_()
    weights = random_weights(2, 2).requires_grad_()
    gap = torch.full((1, 2, 3, 3), torch.nan, dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)

    def barycenter(roots: Tensor, weights: Tensor) -> Tensor:
        return bures_barycenter(torch.cat([roots @ roots.mT, gap]), torch.cat([weights, nothing]))

    with torch.no_grad():
        without = bures_barycenter(roots @ roots.mT, weights)
        assert relative(barycenter(roots, weights), without) < 1e-14
    assert gradcheck(barycenter, (roots, weights), atol=1e-7, rtol=1e-6)
    barycenter(roots, weights).sum().backward()
    assert (gap.grad == 0).all() and (nothing.grad == 0).all()


def test_gradients_where_all_covariances_are_isotropic():
    """S = (sum_m w_m sqrt(c_m))^2 I; near it dS = sum_m w_m sqrt(s / c_m) dC_m."""
    c = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    experts = (c[:, None, None] * torch.eye(4, dtype=torch.float64)).requires_grad_()
    sd = (weights.detach() * c.sqrt()).sum()
    upstream = covariances(d=4, seed=7)
    (bures_barycenter(experts, weights) * upstream).sum().backward()
    true = (weights.detach() * sd / c.sqrt())[:, None, None] * upstream
    torch.testing.assert_close(experts.grad, true, rtol=1e-10, atol=0)

    def loss(experts: Tensor) -> Tensor:
        return (bures_barycenter(experts, weights.detach()) * upstream).sum()

    direction = covariances(3, d=4, seed=8)
    slope = differences(loss, experts.detach(), direction)
    assert float((experts.grad * direction).sum()) == pytest.approx(slope.item(), rel=1e-7)
    turn = torch.tensor([1.0, -0.3, 0.2], dtype=torch.float64)
    slope = differences(lambda w: (bures_barycenter(experts.detach(), w) * upstream).sum(),
                        weights.detach(), turn)
    assert float((weights.grad * turn).sum()) == pytest.approx(slope.item(), rel=1e-7)


def test_gradients_in_single_precision():
    experts, weights = covariances(3, 20, d=8), random_weights(3, 20)
    upstream = covariances(20, d=8, seed=1)
    seen = []
    for dtype in (torch.float64, torch.float32):
        leaf = experts.to(dtype, copy=True).requires_grad_()
        (bures_barycenter(leaf, weights.to(dtype)) * upstream.to(dtype)).sum().backward()
        seen.append(leaf.grad.double())
    errors = (seen[1] - seen[0]).norm(dim=(-2, -1)) / seen[0].norm(dim=(-2, -1))
    assert errors.median() < 1e-3 and errors.max() < 2e-2


# --- square root, map, distance

def test_square_root():
    matrices = covariances(3, d=5)
    root = sqrtm(matrices)
    assert relative(root @ root, matrices) < ROUNDING
    assert relative(root[1], torch.as_tensor(scipy_root(matrices[1]))) < ROUNDING
    leaf = matrices.clone().requires_grad_()
    assert gradcheck(lambda a: sqrtm(a @ a.mT), (leaf,), atol=1e-7, rtol=1e-6)


def test_square_root_at_equal_and_at_zero_eigenvalues():
    upstream = covariances(d=4, seed=7)
    leaf = (9 * torch.eye(4, dtype=torch.float64)).requires_grad_()
    (sqrtm(leaf) * upstream).sum().backward()
    torch.testing.assert_close(leaf.grad, upstream / 6)  # dR = dC / (2 sqrt(9))
    for singular in (torch.zeros(3, 3), torch.ones(3, 3), torch.diag(torch.tensor([-1e-9, 1, 1]))):
        leaf = singular.clone().requires_grad_()
        sqrtm(leaf).sum().backward()
        assert leaf.grad.isfinite().all()


def test_transport_map():
    source, target = covariances(2, 4, d=5)
    t = transport_map(source, target)
    assert torch.equal(t, t.mT) and (torch.linalg.eigvalsh(t) > 0).all()
    assert relative(t @ source @ t, target) < ROUNDING
    a, b = covariances(2, d=3, seed=3)
    leaves = (a.requires_grad_(), b.requires_grad_())
    assert gradcheck(lambda a, b: transport_map(a @ a.mT, b @ b.mT), leaves, atol=1e-6, rtol=1e-5)
    with pytest.raises(torch.linalg.LinAlgError):
        transport_map(torch.zeros(2, 2), torch.eye(2))


def test_transport_maps_of_the_barycenter_average_to_the_identity():
    experts, weights = covariances(3, 4, d=5), random_weights(3, 4)
    maps = transport_map(bures_barycenter(experts, weights), experts)
    mean = (weights[..., None, None] * maps).sum(0) / weights.sum(0)[:, None, None]
    assert relative(mean, torch.eye(5, dtype=torch.float64).expand(4, 5, 5)) < 1e-10


def test_transport_map_between_isotropic_covariances_has_a_gradient():
    eye, upstream = torch.eye(3, dtype=torch.float64), covariances(d=3, seed=7)
    leaves = [(4 * eye).requires_grad_(), (9 * eye).requires_grad_()]
    (transport_map(*leaves) * upstream).sum().backward()
    # t = sqrt(c / s): dt/ds = -t / (2 s), dt/dc = t / (2 c)
    torch.testing.assert_close(leaves[0].grad + leaves[0].grad.mT, -2 * 1.5 / 8 * upstream)
    torch.testing.assert_close(leaves[1].grad + leaves[1].grad.mT, 2 * 1.5 / 18 * upstream)


def test_distance_agrees_with_pot(ot):
    a, b = covariances(2, 3, d=4)
    found = bures_distance2(a, b)
    for k in range(3):
        true = ot.gaussian.bures_wasserstein_distance(
            np.zeros(4), np.zeros(4), a[k].numpy(), b[k].numpy())
        assert found[k].item() == pytest.approx(float(true) ** 2, rel=1e-10)
    torch.testing.assert_close(bures_distance2(b, a), found)


def test_gradient_of_the_distance():
    a, b = covariances(2, d=3, seed=3)
    leaves = (a.requires_grad_(), b.requires_grad_())
    assert gradcheck(lambda a, b: bures_distance2(a @ a.mT, b @ b.mT), leaves, atol=1e-6)
    apart = covariances(2, d=4).requires_grad_()
    bures_distance2(apart[0], apart[1]).backward()
    a, b = apart.detach()
    true = torch.eye(4, dtype=torch.float64) - torch.stack(
        [transport_map(a, b), transport_map(b, a)])
    assert relative(apart.grad, true) < 1e-10


@pytest.mark.parametrize("same", [3 * torch.eye(4, dtype=torch.float64), covariances(d=4)])
def test_distance_of_equal_covariances_and_its_gradient_are_zero(same):
    leaves = [same.clone().requires_grad_(), same.clone().requires_grad_()]
    distance = bures_distance2(*leaves)
    assert 0 <= distance.item() < 1e-12
    distance.backward()
    for leaf in leaves:
        assert leaf.grad.abs().max() < 1e-10

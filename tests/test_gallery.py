"""The gallery draws, the page about fusions runs, and what captions say is so.

Witnesses: closed forms written out here, SciPy's matrix root and POT. How a figure looks has no
witness; it was judged by eye.
"""
from __future__ import annotations

import doctest
import importlib
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from scipy.linalg import sqrtm

from normfuse.fusion import (Drop, GeneralizedProductOfExperts, MixtureOfExperts,
                             MomentMatchingBarycenter, ProductOfExperts, SubstitutePrior, Uniform,
                             WassersteinBarycenter, gaussian_kl)

ROOT = Path(__file__).resolve().parents[1]
GALLERY, GUIDE = ROOT / "docs" / "gallery", ROOT / "docs" / "guide"
PAGE = GUIDE / "fusion_geometry.md"
SCRIPTS = sorted(GALLERY.glob("plot_*.py"))
SLOW = ("plot_voxel_groups", "plot_embedding", "plot_people")
MOST_BYTES = 120_000  # of a picture that is committed


@pytest.fixture
def script(monkeypatch):
    """``script("plot_x")`` imports it, as Python would from its own folder."""
    monkeypatch.syspath_prepend(str(GALLERY))
    return importlib.import_module


def is_picture(path):
    """Of the promised width, and with more on it than a blank page or one flat colour."""
    picture = Image.open(path).convert("RGB")
    grey = np.asarray(picture.convert("L"))
    return (picture.width == 1280 and len(picture.getcolors(1 << 20)) > 20
            and 0.01 < (grey < 250).mean() < 0.6 and path.stat().st_size < MOST_BYTES)


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in SLOW))
    for path in SCRIPTS])
def test_script_draws_what_it_says(path, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(GALLERY))
    monkeypatch.setattr(sys, "argv", [str(path), "--out", str(tmp_path / "new")])
    ran = runpy.run_path(str(path), run_name="__main__")
    written = sorted((tmp_path / "new").iterdir())
    promised = sorted(re.findall(r"``(\w+\.png)``", ran["__doc__"]))
    assert [p.name for p in written] == promised and len(written) == len(ran["FIGURES"])
    assert sorted(capsys.readouterr().out.split()) == [str(p) for p in written]
    assert all(map(is_picture, written))
    assert not plt.get_fignums()


def test_the_guide_shows_every_picture_of_the_gallery():
    pages = [PAGE, *(GUIDE / f"{name}.md" for name in (
        "atlases", "which_deviation", "scale", "voxel_statistics", "group_statistics",
        "how_many_controls", "simulated_images", "synthesis", "segmentation", "pretraining",
        "registration"))]
    shown = re.findall(r"!\[[^\]]+\]\(images/(\w+)\.png\)",
                       "".join(page.read_text(encoding="utf-8") for page in pages))
    drawn = re.findall(r"``(\w+)\.png``", "".join(p.read_text(encoding="utf-8") for p in SCRIPTS))
    assert sorted(shown) == sorted(drawn) and len(shown) == 22
    assert all(is_picture(GUIDE / "images" / f"{name}.png") for name in shown)


def test_page_runs_and_prints_what_it_says():
    text = PAGE.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))
    page = doctest.DocTestParser().get_doctest(code, {}, PAGE.name, str(PAGE), 0)
    complaints: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(page, out=complaints.append)
    assert result.attempted > 40
    assert result.failed == 0, "".join(complaints)


def test_two_experts_of_figure_1(script):
    """Formulas of the table on the page, by hand."""
    figure = script("plot_fusion_geometry")
    mu, sd = np.array([-1.0, 1.5]), np.array([0.6, 1.1])
    t = 1 / sd ** 2
    spread = np.sqrt((sd ** 2 + (mu - 0.25) ** 2).mean())
    full = (t @ mu / t.sum(), t.sum() ** -0.5)
    locs, sds = np.array([*mu, full[0]]), np.array([*sd, full[1]])
    expected = {
        "PoE, prior expert": (t @ mu / (1 + t.sum()), (1 + t.sum()) ** -0.5), "PoE": full,
        "gPoE": (full[0], full[1] * 2 ** 0.5), "Moment matching": (0.25, spread),
        "MoE": (0.25, spread), "WB": (0.25, 0.85),
        "MoPoE": (locs.mean(), np.sqrt((sds ** 2 + (locs - locs.mean()) ** 2).mean()))}
    for name, value in expected.items():
        q = figure.FUSIONS[name][0](figure.two_experts(), figure.present(True, True))
        assert figure.mean_sd(q) == pytest.approx(value), name


def test_every_density_of_figure_1_has_mass_one(script):
    figure = script("plot_fusion_geometry")
    grid = np.linspace(-12, 14, 5201)
    for name, (fusion, _, _) in figure.FUSIONS.items():
        q = fusion(figure.two_experts(), figure.present(True, True))
        assert np.trapezoid(figure.density(q, grid), grid) == pytest.approx(1, abs=1e-6), name


def test_over_confident_expert_of_figure_2(script):
    figure = script("plot_fusion_geometry")
    there = figure.present(True, True, True)
    q = {name: fusion(figure.over_confident(), there)
         for name, (fusion, _, _) in figure.FUSIONS.items()}
    assert figure.mean_sd(q["PoE"]) == pytest.approx((2000 / 402, 402 ** -0.5))
    assert round(q["PoE"].mean.item(), 3) == 4.975
    assert round(q["WB"].mean.item(), 3) == 1.667
    assert figure.mean_sd(q["WB"]) == pytest.approx((5 / 3, 2.05 / 3))
    assert figure.mean_sd(q["MoE"]) == pytest.approx(figure.mean_sd(q["Moment matching"]))
    # right panel: only products listen to the sd that an expert claims
    means = {name: [fusion(figure.over_confident(sd), there).mean.item() for sd in (0.03, 10.0)]
             for name, (fusion, _, _) in figure.FUSIONS.items()}
    for name in ("WB", "MWB", "MoE", "Moment matching"):
        assert means[name] == pytest.approx([5 / 3, 5 / 3]), name
    assert means["PoE"][0] > 4.98 and means["PoE"][1] < 0.03


def test_intervals_of_figure_2_hold_their_mass(script):
    figure = script("plot_fusion_geometry")
    ((low, high),) = figure.intervals(figure.normal(1.0, 0.5), 0.95)
    assert (low, high) == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-3)
    q = figure.FUSIONS["MoE"][0](figure.over_confident(), figure.present(True, True, True))
    pieces = figure.intervals(q, 0.95)
    assert len(pieces) == 2
    mass = 0.0
    for low, high in pieces:
        grid = np.linspace(low, high, 2001)
        mass += np.trapezoid(figure.density(q, grid), grid)
    assert mass == pytest.approx(0.95, abs=2e-3)


def test_policies_of_figure_3(script):
    """Sums of (mean, sd) over the present, divided by how many are present, or by all three."""
    figure = script("plot_fusion_geometry")
    mu, sd = np.array([2.4, 3.4, 1.0]), np.array([0.6, 0.5, 0.8])
    for n in (3, 2, 1, 0):
        there = figure.present(*[m < n for m in range(3)])
        drop = WassersteinBarycenter(missing=Drop())
        stay = WassersteinBarycenter(missing=SubstitutePrior())
        kept = (mu[:n].mean(), sd[:n].mean()) if n else (0, 1)
        assert figure.mean_sd(drop(figure.three_scans(), there)) == pytest.approx(kept)
        drawn = stay(figure.three_scans(), there)
        assert figure.mean_sd(drawn) == pytest.approx((mu[:n].sum() / 3,
                                                       (sd[:n].sum() + 3 - n) / 3))
        for fusion in (drop, stay):
            parts = fusion.contributions(figure.three_scans(), there)
            shift = fusion(figure.three_scans(), there).mean
            torch.testing.assert_close(parts.sum(0), shift)
            assert not parts[n:].any()


def test_ellipses_of_figure_4(script):
    """Crossed: covariances commute, so that every fusion is isotropic by hand. Three: POT."""
    figure = script("plot_fusion_ellipses")
    crossed, both = figure.two_crossed(), figure.present(True, True)
    mean, product = figure.mean_covariance(ProductOfExperts(prior_expert=False)(crossed, both))
    np.testing.assert_allclose(product, np.eye(2) / (1.5 ** -2 + 0.35 ** -2), atol=1e-12)
    assert mean[1] > 0.7  # where they cross, not between the means, which are at 0
    _, barycenter = figure.mean_covariance(WassersteinBarycenter()(crossed, both))
    np.testing.assert_allclose(barycenter, np.eye(2) * 0.925 ** 2, atol=1e-8)
    _, mixture = figure.mean_covariance(MixtureOfExperts()(crossed, both))
    within = (1.5 ** 2 + 0.35 ** 2) / 2
    np.testing.assert_allclose(mixture, np.diag([within + 0.81, within]), atol=1e-12)
    assert figure.area(mixture) == pytest.approx(2.93, abs=5e-3)

    three = figure.three_tilted()
    q = WassersteinBarycenter()(three, figure.everyone(three))
    mean, covariance = ot.gaussian.bures_wasserstein_barycenter(
        three.mean[:, 0].numpy(), three.covariance_matrix[:, 0].numpy(), np.full(3, 1 / 3),
        num_iter=5000, eps=1e-13)
    np.testing.assert_allclose(q.mean[0], mean, atol=1e-12)
    np.testing.assert_allclose(q.covariance_matrix[0], covariance, atol=1e-7)
    long_axis = np.linalg.eigh(covariance)[1][:, 1]
    assert abs(long_axis[1] / long_axis[0]) == pytest.approx(1)  # turned by 45 degrees


def test_mean_and_covariance_of_a_mixture_are_exact(script):
    figure = script("plot_fusion_ellipses")
    three = figure.three_tilted()
    means, covariances = three.mean[:, 0].numpy(), three.covariance_matrix[:, 0].numpy()
    mean, covariance = figure.mean_covariance(MixtureOfExperts()(three, figure.everyone(three)))
    away = means - means.mean(0)
    np.testing.assert_allclose(mean, means.mean(0))
    np.testing.assert_allclose(covariance, covariances.mean(0) + away.T @ away / 3)


@pytest.mark.parametrize("t", (0.0, 0.25, 0.5, 0.75, 1.0))
def test_interpolation_of_figure_5(script, t):
    """McCann: x goes to (1 - t) x + t T x, so the covariance is M A M, M = (1 - t) I + t T."""
    figure = script("plot_fusion_ellipses")
    experts = figure.two_to_interpolate()
    a, b = experts.covariance_matrix[:, 0].numpy()
    root = sqrtm(a)
    inverse = np.linalg.inv(root)
    moved = (1 - t) * np.eye(2) + t * inverse @ sqrtm(root @ b @ root) @ inverse
    q = figure.interpolated(WassersteinBarycenter, t)
    np.testing.assert_allclose(q.mean[0], [4 * t - 2, 0], atol=1e-12)
    np.testing.assert_allclose(q.covariance_matrix[0], moved @ a @ moved.T, atol=1e-8)
    mixed = figure.interpolated(MixtureOfExperts, t)
    points = torch.tensor([[-2.0, 0.0], [0.3, 0.2], [2.0, 0.0]]).double()[:, None]
    each = experts.log_prob(points[:, None]).exp()[..., 0]
    np.testing.assert_allclose(mixed.log_prob(points).exp()[:, 0],
                               (1 - t) * each[:, 0] + t * each[:, 1], rtol=1e-12)


def test_blocks_of_figure_6(script):
    """One shared dimension: means and sds of s average, u_m and its correlation with s stay."""
    figure = script("plot_fusion_blocks")
    q = figure.fused(Drop(), True, True)
    s, t1, pet = 0.7, 0.55, 0.8
    expected = np.array([[s * s, 0.8 * s * t1, -0.75 * s * pet],
                         [0.8 * s * t1, t1 ** 2, 0.8 * t1 * -0.75 * pet],
                         [-0.75 * s * pet, 0.8 * t1 * -0.75 * pet, pet ** 2]])
    np.testing.assert_allclose(q.mean[0], [0.25, 1.1, -0.9])
    np.testing.assert_allclose(q.covariance_matrix[0], expected, atol=1e-12)


def test_blocks_of_figure_6_without_pet(script):
    figure = script("plot_fusion_blocks")
    dropped = figure.fused(Drop(), True, False)
    np.testing.assert_allclose(dropped.mean[0], [-1.0, 1.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(dropped.stddev[0], [0.9, 0.55, 1.0])
    filled = figure.fused(SubstitutePrior(), True, False)
    np.testing.assert_allclose(filled.mean[0], [-0.5, 1.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(filled.stddev[0], [0.95, 0.55, 1.0])
    for q in (dropped, filled):
        assert not q.covariance_matrix[0, 2, :2].any()


def test_order_of_the_sds(script):
    figure = script("plot_fusion_geometry")
    rng = np.random.default_rng(3)
    for _ in range(20):
        experts = figure.one_subject(rng.normal(size=4).tolist(), rng.uniform(0.1, 3, 4).tolist())
        there = figure.present(True, True, True, True)
        reverse, transport, forward = (figure.mean_sd(fusion(experts, there))[1] for fusion in (
            GeneralizedProductOfExperts(weights=Uniform()), WassersteinBarycenter(),
            MomentMatchingBarycenter()))
        assert reverse < transport < forward


def test_bound_of_moment_matching_is_an_identity(script):
    """sum w KL(q_m || p) = KL(q || p) + sum w KL(q_m || q) for moment matching."""
    figure = script("plot_fusion_geometry")
    experts, prior = figure.three_scans(), figure.normal(0.3, 1.4)
    q = MomentMatchingBarycenter()(experts, figure.present(True, True, True))
    left = gaussian_kl(experts, prior.expand((1,))).mean(0)
    right = gaussian_kl(q, prior) + gaussian_kl(experts, q).mean(0)
    torch.testing.assert_close(left, right)


def test_what_commutes_with_linear_maps(script):
    """A rotation and a common scale: both. A stretched axis: the product only."""
    figure = script("plot_fusion_ellipses")
    experts, both = figure.two_to_interpolate(), figure.present(True, True)
    rotated = 1.7 * torch.tensor([[0.8, -0.6], [0.6, 0.8]]).double()
    stretched = torch.diag(torch.tensor([3.0, 1.0])).double()

    def gap(fusion, change):
        moved = figure.tilted((experts.mean[:, 0] @ change.T).tolist(),
                              list(change @ experts.covariance_matrix[:, 0] @ change.T))
        before, after = fusion(experts, both), fusion(moved, both)
        expected = change @ before.covariance_matrix[0] @ change.T
        return ((after.covariance_matrix[0] - expected).norm() / expected.norm()).item()

    product = ProductOfExperts(prior_expert=False)
    assert gap(product, rotated) < 1e-10 and gap(product, stretched) < 1e-10
    assert gap(WassersteinBarycenter(), rotated) < 1e-7
    assert gap(WassersteinBarycenter(), stretched) > 0.01

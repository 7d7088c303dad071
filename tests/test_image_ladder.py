"""Image ladders: beside the flat tabular ladder's laws, the theory where released code departs.

Witnesses: products of Gaussians multiplied on a grid (SciPy), single pixels fused one by one, and
Monte Carlo for the KL.
"""
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from normfuse import fusion as f
from normfuse.imaging.objectives import laplace_nll
from normfuse.models.image_ladder import ImageLadder
from normfuse.networks.pyramid import Pyramid

SIZES = Pyramid((4, 8, 8), (0, 2, 3))
FUSIONS = [f.ProductOfExperts(), f.GeneralizedProductOfExperts(), f.MixtureOfExperts(),
           f.MomentMatchingBarycenter(), f.WassersteinBarycenter(),
           f.GeneralizedWassersteinBarycenter(missing=f.SubstitutePrior()),
           f.SubsetMixture(f.ProductOfExperts()), f.SubsetMixture(f.WassersteinBarycenter())]


def ladder(fusion: f.Aggregator, *, shared: bool = False, dimensions: int = 2,
           alignment: f.Alignment | None = None, sizes: Pyramid = SIZES) -> ImageLadder:
    """With weights by chance, so that priors and experts say something."""
    torch.manual_seed(0)
    made = ImageLadder(3, dimensions, fusion, sizes, shared, alignment)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return made


def images(n: int = 4, sides: tuple[int, ...] = (8, 12)) -> torch.Tensor:
    return torch.randn(3, n, *sides, generator=torch.Generator().manual_seed(1))


THERE = torch.tensor([[True, False, True, False], [True, True, False, False],
                      [True, True, False, False]])


@pytest.mark.parametrize("fusion", FUSIONS, ids=repr)
def test_absent_images_change_nothing_and_get_no_gradient(fusion: f.Aggregator) -> None:
    made, x = ladder(fusion), images().requires_grad_()
    other = torch.where(THERE[..., None, None], x, torch.nan).detach()
    torch.manual_seed(2)
    h, _ = made.climb(made.look(x, THERE), THERE)
    torch.manual_seed(2)
    again, _ = made.climb(made.look(other, THERE), THERE)
    assert torch.equal(h, again)
    (gradient,) = torch.autograd.grad(h.square().sum(), x)
    assert (gradient[~THERE] == 0).all() and (gradient[THERE].abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize("fusion", FUSIONS, ids=repr)
def test_people_do_not_mix_and_nothing_known_costs_nothing(fusion: f.Aggregator) -> None:
    made, x = ladder(fusion), images()
    _, together = made.climb(made.look(x, THERE), THERE, temperature=0)
    _, alone = made.climb(made.look(x[:, 1:2], THERE[:, 1:2]), THERE[:, 1:2], temperature=0)
    for a, b in zip(together, alone):
        assert torch.allclose(a.z[1], b.z[0], atol=1e-5)
        assert torch.allclose(a.kl[1], b.kl[0], rtol=1e-4)
        assert (a.kl[:3] > 0).all() and a.kl[3].abs() < 1e-3 * a.kl[:3].min()


@pytest.mark.parametrize("fusion", FUSIONS[:6], ids=repr)
def test_every_pixel_is_fused_as_if_it_were_alone(fusion: f.Aggregator) -> None:
    made, x = ladder(fusion), images()
    _, levels = made.climb(made.look(x, THERE), THERE, temperature=0)
    for fuse, level in zip(made.fusions, levels):  # of resolutions that have latents
        pixels = level.z[0, 0].numel()
        for row in (0, 5, pixels + 1, 2 * pixels):
            experts, priors = (f.gaussian(d.mean[:, row:row + 1], d.stddev[:, row:row + 1])
                               for d in (level.experts, level.priors))
            person = row // pixels
            q = fuse(experts, THERE[:, person:person + 1], priors)
            assert torch.allclose(q.mean[0], level.posterior.mean[row], atol=1e-5)
            assert torch.allclose(q.stddev[0], level.posterior.stddev[row], rtol=1e-4)


def test_precisions_add_and_not_reciprocals_of_sds() -> None:
    """Prior N(0, 1) times expert N(2, .5^2): mean 1.6, sd .447; 1/sd added gives 1.33, .333."""
    grid = np.linspace(-8, 8, 20001)
    density = stats.norm.pdf(grid) * stats.norm.pdf(grid, 2, 0.5)
    density /= density.sum()
    mean = float(density @ grid)
    sd = float(np.sqrt(density @ (grid - mean) ** 2))
    q = f.ProductOfExperts()(f.gaussian(torch.tensor([[[2.0]]]), torch.tensor([[[0.5]]])),
                             torch.tensor([[True]]))
    assert q.mean.item() == pytest.approx(mean, abs=1e-5) == pytest.approx(1.6, abs=1e-5)
    assert q.stddev.item() == pytest.approx(sd, abs=1e-5)


def test_the_conditional_prior_is_in_every_product() -> None:
    made = ladder(f.ProductOfExperts(), shared=True)
    x, there = images(), torch.ones(3, 4, dtype=torch.bool)
    _, levels = made.climb(made.look(x, there), there)
    for level in levels[1:]:  # the coarsest prior is N(0, I): that says too little
        precision = level.experts.variance.reciprocal()
        own = level.priors.variance[0].reciprocal()
        assert not torch.allclose(own, torch.ones_like(own), atol=0.05)
        total = own + precision.sum(0)
        assert torch.allclose(level.posterior.variance, 1 / total, rtol=1e-3)
        assert torch.allclose(level.posterior.mean, (
            own * level.priors.mean[0] + (precision * level.experts.mean).sum(0)) / total,
            atol=1e-3)


def test_experts_are_shared_and_encoders_are_not() -> None:
    made = ladder(f.ProductOfExperts())
    x = images(1).repeat(1, 3, 1, 1)
    one = torch.eye(3, dtype=torch.bool)
    features = made.look(x, one)
    assert not torch.allclose(features[0][0, 0], features[0][1, 1])
    same = [t[0:1, :1].expand(3, 3, *t.shape[2:]) for t in features]
    _, levels = ladder(f.ProductOfExperts(), shared=True).climb(same, one, temperature=0)
    assert torch.allclose(levels[-1].z[0], levels[-1].z[2], atol=1e-5)


def test_a_mixture_draws_subsets_evenly_among_those_there() -> None:
    made = ladder(f.SubsetMixture(f.ProductOfExperts()))
    there = torch.tensor([[True], [True], [False]]).expand(3, 6000)
    torch.manual_seed(0)
    drawn = made.fused_in_training(there, 0.5)
    counts = [int((drawn.T == torch.tensor(s)).all(1).sum())
              for s in ([1, 0, 0], [0, 1, 0], [1, 1, 0])]
    assert sum(counts) == 6000 and stats.chisquare(counts).pvalue > 1e-3


def test_kl_of_a_level_is_that_of_its_draws() -> None:
    made = ladder(f.ProductOfExperts())
    with torch.no_grad():
        seen = [t.expand(-1, 400, *t.shape[2:]) for t in made.look(images(1), THERE[:, :1])]
        there = THERE[:, :1].expand(-1, 400)
        h = made.start.expand(400, -1, *seen[0].shape[3:])
        level = made.level(0, h, seen[0], there, 1.0)
        z = level.z.movedim(1, -1).reshape(-1, level.z.shape[1])
        log_ratio = level.posterior.log_prob(z) - f.gaussian(torch.zeros_like(z),
                                                             torch.ones_like(z)).log_prob(z)
        each = log_ratio.view(400, -1).sum(1)
    error = each.std() / 400**0.5
    assert abs(each.mean() - level.kl[0]) < 4 * error


def test_volumes_climb_as_slices_do() -> None:
    made = ladder(f.WassersteinBarycenter(), dimensions=3)
    there = THERE[:, :2]
    h, levels = made.climb(made.look(images(2, (4, 8, 12)), there), there)
    assert h.shape == (2, 4, 4, 8, 12)
    assert [level.z.shape[2:] for level in levels] == [(1, 2, 3), (2, 4, 6)]
    h.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


ANCHORS = [f.WassersteinBarycenter(), f.MomentMatchingBarycenter(), f.ModalityAnchor(1),
           f.PriorAnchor()]


@pytest.mark.parametrize("anchor", ANCHORS, ids=repr)
def test_alignment_of_images_is_that_of_their_pixels(anchor: f.Aggregator) -> None:
    """In standard coordinates of the level's prior, summed over pixels and weighed."""
    align = f.Alignment(anchor, f.SquaredWasserstein(), weight=0.3)
    made = ladder(f.WassersteinBarycenter(), alignment=align)
    seen = made.look(images(), THERE)
    _, levels = made.climb(seen, THERE, aligned=THERE)
    for fuse, level in zip(made.fusions, levels):
        prior, pixels = fuse.prior(level.priors), level.z[0, 0].numel()
        standard = f.gaussian((level.experts.mean - prior.mean) / prior.stddev,
                              level.experts.stddev / prior.stddev)
        each = align.sized(3, level.z.shape[1])(standard, THERE.repeat_interleave(pixels, 1))
        assert torch.allclose(level.apart, 0.3 * each.view(4, pixels).sum(1), rtol=1e-4)
        lone = level.apart[2:]  # one modality, and none
        assert (lone == 0).all() if isinstance(anchor, f.Aggregator) else lone[1] == 0


def test_alignment_of_images_leaves_private_channels_alone() -> None:
    """Of five latents at the coarsest level two are shared, and one is each modality's own."""
    blocks = f.GeneralizedWassersteinBarycenter(f.SharedPrivate(private=1))
    made = ladder(blocks, alignment=f.Alignment(f.WassersteinBarycenter()),
                  sizes=Pyramid((4, 8, 8), (0, 4, 5)))
    _, levels = made.climb(made.look(images(), THERE), THERE, aligned=THERE)
    total = sum(level.apart.sum() for level in levels)
    last = made.experts[0].rest[-1]
    (gradient,) = torch.autograd.grad(total, last.weight)
    moved = gradient.flatten(1).abs().sum(1) > 0
    shared = torch.from_numpy(np.tile(made.fusions[0].owned().all(0).numpy(), 2))
    assert torch.equal(moved, shared) and 0 < shared.sum() < len(shared)


def test_laplace_density() -> None:
    x, loc, scale = np.random.default_rng(0).normal(size=(3, 50))
    ours = laplace_nll(*(torch.from_numpy(v) for v in (x, loc, scale)))
    assert np.allclose(ours, -stats.laplace.logpdf(x, loc, np.exp(scale)))


@pytest.mark.parametrize(("wrong", "said"), [
    ({"channels": (6, 8), "latents": (0, 4)}, "that 4 divides"),
    ({"channels": (8, 8), "latents": (4, 0)}, "the last of latents is not 0"),
    ({"channels": (8,), "latents": (4, 4)}, "a number for each resolution")])
def test_sizes_that_cannot_be(wrong: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pyramid(**wrong)

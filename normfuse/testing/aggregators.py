"""The laws every aggregator keeps, as a test case to subclass."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..fusion import (Aggregator, Alignment, KullbackLeibler, SquaredWasserstein, SubsetPosterior,
                      full, gaussian)
from ..fusion.experts import is_full, moments

_M, _N, _L = 3, 5, 4  # unequal on purpose: a mixed-up axis must not fit
_PIXELS = 6


class AggregatorCase:
    """Subclass, give :meth:`make`, and let pytest collect it.

    Attributes
    ----------
    idempotent : bool
        Equal experts give themselves back. True of barycenters whose weights sum to 1; a product
        with weights 1 is sharper by sqrt(M).
    symmetric : bool
        The order of the modalities is irrelevant: neither weights nor blocks belong to one.
    drops : bool
        An absent modality is left out, rather than replaced by its prior.
    full_covariance : bool
        Give it experts with full covariance matrices.
    spatial : bool
        It takes latent maps (channels, i, j, k) too.

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> class TestMine(AggregatorCase):
    ...     def make(self):
    ...         return WassersteinBarycenter()
    >>> TestMine().test_shape()
    """

    idempotent = True
    symmetric = True
    drops = True
    full_covariance = False
    spatial = True

    def make(self) -> Aggregator:
        """A fresh aggregator, not yet sized."""
        raise NotImplementedError

    def is_anchor(self) -> bool:
        """Whether equal posteriors are 0 from it, and alignment takes it."""
        try:
            Alignment(self.make())
        except TypeError:
            return False
        return self.idempotent

    def ready(self) -> Aggregator:
        """Sized for three modalities and four latent dimensions, with parameters stirred."""
        aggregator = self.make().sized(_M, _L).double()
        generator = torch.Generator().manual_seed(3)
        for parameter in aggregator.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).double()
        return aggregator

    def experts(self, seed: int = 0, pixels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct locs, scales, and a presence table with every kind of row but the empty one.

        ``pixels``: of each subject an image, whose pixels are rows one after the other.
        """
        generator, n = torch.Generator().manual_seed(seed), _N * pixels
        loc = torch.randn(_M, n, _L, generator=generator, dtype=torch.float64)
        scale = 0.2 + torch.rand(_M, n, _L, generator=generator, dtype=torch.float64)
        if self.full_covariance:
            mixed = torch.randn(_M, n, _L, _L, generator=generator, dtype=torch.float64)
            scale = torch.diag_embed(scale) + 0.4 * mixed.tril(-1)
        present = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1], [1, 1, 0, 0, 1]]).bool()
        return loc, scale, present.repeat_interleave(pixels, 1)

    def build(self, loc: Tensor, scale: Tensor) -> Distribution:
        """Experts from loc and scale."""
        return full(loc, scale) if self.full_covariance else gaussian(loc, scale)

    def fuse(self, loc: Tensor, scale: Tensor, present: Tensor) -> Distribution:
        """One call of the aggregator."""
        return self.ready()(self.build(loc, scale), present)

    def spoilt(self, present: Tensor, pixels: int = 1) -> list[Tensor]:
        """The experts, with NaN where a modality is absent."""
        return [torch.where(present.reshape(_M, -1, *(1 for _ in t.shape[2:])), t, torch.nan)
                for t in self.experts(pixels=pixels)[:2]]

    def test_shape(self) -> None:
        loc, scale, present = self.experts()
        q = self.fuse(loc, scale, present)
        assert q.batch_shape == (_N,) and q.event_shape == (_L,)
        assert q.rsample((4,)).shape == (4, _N, _L) and q.log_prob(q.mean).shape == (_N,)
        assert torch.isfinite(q.mean).all() and (q.variance > 0).all()

    def test_spatial_latents(self) -> None:
        if not self.spatial or self.full_covariance:
            return
        loc, scale, present = self.experts()
        wide = [t[..., None, None].expand(*t.shape, 2, 3) for t in (loc, scale)]
        q = self.ready()(gaussian(wide[0], wide[1], event_dim=3), present)
        flat = self.fuse(loc, scale, present)
        assert q.event_shape == (_L, 2, 3)
        torch.testing.assert_close(q.mean[..., 1, 2], flat.mean)

    def test_pixels_of_images_are_like_subjects(self) -> None:
        loc, scale, present = self.experts(pixels=_PIXELS)
        whole = self.fuse(loc, scale, present)
        assert whole.batch_shape == (_N * _PIXELS,)
        for pixel in range(_PIXELS):  # a whole image has one presence: the one of its subject
            at = slice(pixel, None, _PIXELS)
            alone = self.fuse(loc[:, at], scale[:, at], self.experts()[2])
            torch.testing.assert_close(alone.mean, whole.mean[at])
            torch.testing.assert_close(alone.variance, whole.variance[at])
        empty = [t.requires_grad_() for t in self.spoilt(present, _PIXELS)]
        seen = self.fuse(empty[0], empty[1], present)
        _same(seen, whole)
        (seen.mean.sum() + seen.variance.sum()).backward()
        for tensor in empty:
            assert tensor.grad is not None and tensor.grad.isfinite().all()
            assert (tensor.grad[~present] == 0).all() and (tensor.grad[present] != 0).any()
        if self.symmetric:
            order = torch.tensor([2, 0, 1])
            fuse = self.make().sized(_M, _L)
            _same(fuse(self.build(loc, scale), present),
                  fuse(self.build(loc[order], scale[order]), present[order]))

    def test_posteriors_drawn_towards_it(self) -> None:
        if not self.is_anchor():
            return
        loc, scale, present = self.experts(pixels=_PIXELS)
        anchors = self.fuse(loc, scale, present)
        for divergence in (KullbackLeibler(), SquaredWasserstein()):
            align = Alignment(self.ready(), divergence)
            whole = align(self.build(*self.spoilt(present, _PIXELS)), present)
            each = torch.stack([divergence(self.build(mu, sigma), anchors)
                                for mu, sigma in zip(loc, scale)])
            mean = (present * each).sum(0) / present.sum(0)
            torch.testing.assert_close(whole, torch.where(present.sum(0) > 1, mean, 0.0))
            assert (whole[present.sum(0) == 1] == 0).all() and (whole[present.all(0)] > 0).all()
            at = slice(3, None, _PIXELS)
            torch.testing.assert_close(
                align(self.build(loc[:, at], scale[:, at]), self.experts()[2]), whole[at])
            alike = self.build(*(t[:1].expand_as(t) for t in (loc, scale)))
            assert (align(alike, present).abs() < 1e-9).all()
            empty = [t.requires_grad_() for t in self.spoilt(present, _PIXELS)]
            align(self.build(*empty), present).sum().backward()
            for tensor in empty:
                assert tensor.grad is not None and tensor.grad.isfinite().all()
                several = present & (present.sum(0) > 1)
                assert (tensor.grad[~several] == 0).all()
                assert (tensor.grad[several].abs().flatten(1).sum(-1) > 0).all()

    def test_order_of_modalities(self) -> None:
        if not self.symmetric:
            return
        loc, scale, present = self.experts()
        order = torch.tensor([2, 0, 1])
        q = self.make().sized(_M, _L)(self.build(loc, scale), present)
        other = self.make().sized(_M, _L)(self.build(loc[order], scale[order]), present[order])
        _same(q, other)

    def test_subjects_do_not_mix(self) -> None:
        loc, scale, present = self.experts()
        whole = self.fuse(loc, scale, present)
        order = torch.tensor([3, 0, 4, 2, 1])
        shuffled = self.fuse(loc[:, order], scale[:, order], present[:, order])
        torch.testing.assert_close(shuffled.mean, whole.mean[order])
        for i in range(_N):
            alone = self.fuse(loc[:, i:i + 1], scale[:, i:i + 1], present[:, i:i + 1])
            torch.testing.assert_close(alone.mean[0], whole.mean[i])
            torch.testing.assert_close(alone.variance[0], whole.variance[i])

    def test_absent_slots_may_hold_anything(self) -> None:
        loc, scale, present = self.experts()
        empty = self.spoilt(present)
        _same(self.fuse(loc, scale, present), self.fuse(empty[0], empty[1], present))

    def test_absent_is_dropped_or_replaced(self) -> None:
        if not self.symmetric:
            return
        loc, scale, present = self.experts()
        kept = torch.tensor([True, False, True])
        some = present & kept[:, None]
        q = self.make().sized(_M, _L)(self.build(loc, scale), some)
        if self.drops:
            two = self.make().sized(2, _L)(self.build(loc[kept], scale[kept]), some[kept])
            _same(q, two)
            return
        there = some.reshape(_M, _N, *(1 for _ in scale.shape[2:]))
        unit = torch.eye(_L).double() if self.full_covariance else torch.ones(()).double()
        loc = torch.where(some[..., None], loc, 0.0)
        everyone = torch.ones_like(some)
        _same(q, self.make().sized(_M, _L)(self.build(loc, torch.where(there, scale, unit)),
                                           everyone))

    def test_no_gradient_to_the_absent(self) -> None:
        present = self.experts()[2]
        loc, scale = (t.requires_grad_() for t in self.spoilt(present))
        q = self.fuse(loc, scale, present)
        (q.mean.sum() + q.variance.sum()).backward()
        for tensor in (loc, scale):
            assert tensor.grad is not None
            assert (tensor.grad[~present] == 0).all()
            assert (tensor.grad[present].abs().flatten(1).sum(-1) > 0).all()

    def test_gradcheck(self) -> None:
        loc, scale, present = self.experts()

        def fused(mu: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
            sigma = sigma.tril() if self.full_covariance else sigma
            q = self.fuse(mu, sigma, present)
            return moments(q.components if isinstance(q, SubsetPosterior) else q)

        assert torch.autograd.gradcheck(fused, (loc.requires_grad_(), scale.requires_grad_()))

    def test_equal_experts(self) -> None:
        loc, scale, _ = self.experts()
        everyone = torch.ones(_M, _N, dtype=torch.bool)
        q = self.fuse(loc[:1].expand_as(loc), scale[:1].expand_as(scale), everyone)
        alike = self.build(loc[0], scale[0])
        same = torch.allclose(q.mean, alike.mean) and torch.allclose(q.variance, alike.variance)
        if is_full(q) and is_full(alike):
            # they have the same mean, hence the same density only if the covariances agree
            same = same and torch.allclose(q.log_prob(loc[1]), alike.log_prob(loc[1]))
        assert same == self.idempotent

    def test_nothing_present_is_the_prior(self) -> None:
        loc, scale, present = self.experts()
        present = present.clone()
        present[:, 1] = False
        q = self.fuse(loc, scale, present)
        torch.testing.assert_close(q.mean[1], torch.zeros(_L).double())
        torch.testing.assert_close(q.variance[1], torch.ones(_L).double())

    def test_nothing_present_is_the_prior_of_the_modalities(self) -> None:
        loc, scale, present = self.experts()
        present = present.clone()
        present[:, 1] = False
        priors = self.build(*self.experts(seed=1)[:2])
        aggregator = self.ready()
        q, p = aggregator(self.build(loc, scale), present, priors), aggregator.prior(priors)
        torch.testing.assert_close(q.mean[1], p.mean[1])
        torch.testing.assert_close(q.variance[1], p.variance[1])
        assert not torch.allclose(q.mean[0], p.mean[0])

    def test_contributions_add_up(self) -> None:
        loc, scale, present = self.experts()
        priors = self.build(*self.experts(seed=1)[:2])
        aggregator = self.ready()
        for told in (None, priors):
            experts = self.build(*self.spoilt(present))
            parts = aggregator.contributions(experts, present, told)
            origin = 0.0 if told is None else aggregator.prior(told).mean
            torch.testing.assert_close(parts.sum(0),
                                       aggregator(experts, present, told).mean - origin)
            assert (parts[~present] == 0).all()

    def test_the_callers_object_is_not_changed(self) -> None:
        mine = self.make()
        before = repr(mine), [p.clone() for p in mine.parameters()]
        mine.sized(_M, _L)
        assert repr(mine) == before[0] and len(list(mine.parameters())) == len(before[1])

    def test_rebuilt_from_its_options(self) -> None:
        mine = self.make()
        again = type(mine)(**mine.options())
        assert repr(again) == repr(mine)
        loc, scale, present = self.experts()
        _same(mine.sized(_M, _L).double()(self.build(loc, scale), present),
              again.sized(_M, _L).double()(self.build(loc, scale), present))

    def test_sampling_agrees_with_moments(self) -> None:
        loc, scale, present = self.experts()
        q = self.fuse(loc, scale, present)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            draws = q.rsample((20_000,))
        error = (q.variance / 20_000).sqrt()
        assert ((draws.mean(0) - q.mean).abs() < 5 * error).all()
        torch.testing.assert_close(draws.var(0), q.variance, rtol=0.08, atol=0)


def _same(q: Distribution, other: Distribution) -> None:
    torch.testing.assert_close(q.mean, other.mean)
    torch.testing.assert_close(q.variance, other.variance)
    points = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None, None]
    points = points.expand(7, *q.batch_shape, *q.event_shape)
    torch.testing.assert_close(q.log_prob(points), other.log_prob(points))

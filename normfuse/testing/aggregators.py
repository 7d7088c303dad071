"""The laws every aggregator keeps, as a test case to subclass."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..fusion import Aggregator, SubsetPosterior, gaussian

_M, _N, _L = 3, 5, 2  # unequal on purpose: a mixed-up axis must not fit


class AggregatorCase:
    """Subclass, give :meth:`make`, and let pytest collect it.

    Attributes
    ----------
    idempotent : bool
        Equal experts give themselves back. True of barycenters whose weights sum to 1; a product
        with weights 1 is sharper by sqrt(M).

    Examples
    --------
    >>> from normfuse.fusion import WassersteinBarycenter
    >>> class TestMine(AggregatorCase):
    ...     def make(self):
    ...         return WassersteinBarycenter()
    >>> TestMine().test_shape()
    """

    idempotent = True

    def make(self) -> Aggregator:
        """A fresh aggregator, not yet sized."""
        raise NotImplementedError

    def ready(self) -> Aggregator:
        """Sized for three modalities and two latent dimensions, with parameters stirred."""
        aggregator = self.make().sized(_M, _L).double()
        torch.manual_seed(3)
        for parameter in aggregator.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        return aggregator

    def experts(self, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct locs, scales, and a presence table with every kind of row but the empty one."""
        generator = torch.Generator().manual_seed(seed)
        loc = torch.randn(_M, _N, _L, generator=generator, dtype=torch.float64)
        scale = 0.2 + torch.rand(_M, _N, _L, generator=generator, dtype=torch.float64)
        present = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1], [1, 1, 0, 0, 1]]).bool()
        return loc, scale, present

    def fuse(self, loc: Tensor, scale: Tensor, present: Tensor) -> Distribution:
        """One call of the aggregator."""
        return self.ready()(gaussian(loc, scale), present)

    def test_shape(self) -> None:
        loc, scale, present = self.experts()
        q = self.fuse(loc, scale, present)
        assert q.batch_shape == (_N,) and q.event_shape == (_L,)
        assert q.rsample((4,)).shape == (4, _N, _L) and q.log_prob(q.mean).shape == (_N,)
        assert torch.isfinite(q.mean).all() and (q.variance > 0).all()

    def test_spatial_latents(self) -> None:
        loc, scale, present = self.experts()
        wide = [t[..., None, None].expand(*t.shape, 4, 3) for t in (loc, scale)]
        q = self.ready()(gaussian(wide[0], wide[1], event_dim=3), present)
        flat = self.fuse(loc, scale, present)
        assert q.event_shape == (_L, 4, 3)
        torch.testing.assert_close(q.mean[..., 2, 1], flat.mean)

    def test_order_of_modalities(self) -> None:
        loc, scale, present = self.experts()
        order = torch.tensor([2, 0, 1])
        q = self.make().sized(_M, _L)(gaussian(loc, scale), present)
        other = self.make().sized(_M, _L)(gaussian(loc[order], scale[order]), present[order])
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

    def test_absent_is_dropped(self) -> None:
        loc, scale, present = self.experts()
        spoilt = [torch.where(present[..., None], t, torch.tensor(float("nan")).double())
                  for t in (loc, scale)]
        _same(self.fuse(loc, scale, present), self.fuse(spoilt[0], spoilt[1], present))
        kept = torch.tensor([True, False, True])
        some = present & kept[:, None]
        both = self.make().sized(_M, _L)(gaussian(loc, scale), some)
        two = self.make().sized(2, _L)(gaussian(loc[kept], scale[kept]), some[kept])
        _same(both, two)

    def test_no_gradient_to_the_absent(self) -> None:
        loc, scale, present = self.experts()
        loc = torch.where(present[..., None], loc, torch.nan).requires_grad_()
        scale = torch.where(present[..., None], scale, torch.nan).requires_grad_()
        q = self.fuse(loc, scale, present)
        (q.mean.sum() + q.variance.sum()).backward()
        for tensor in (loc, scale):
            assert tensor.grad is not None
            assert (tensor.grad[~present] == 0).all()
            assert (tensor.grad[present].abs().sum(-1) > 0).all()

    def test_gradcheck(self) -> None:
        loc, scale, present = self.experts()

        def moments(mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            q = self.fuse(mu, sigma, present)
            return q.mean, q.variance

        assert torch.autograd.gradcheck(moments, (loc.requires_grad_(), scale.requires_grad_()))

    def test_equal_experts(self) -> None:
        loc, scale, _ = self.experts()
        everyone = torch.ones(_M, _N, dtype=torch.bool)
        q = self.fuse(loc[:1].expand_as(loc), scale[:1].expand_as(scale), everyone)
        same = torch.allclose(q.mean, loc[0]) and torch.allclose(q.stddev, scale[0])
        assert same == self.idempotent

    def test_nothing_present_is_the_prior(self) -> None:
        loc, scale, present = self.experts()
        present = present.clone()
        present[:, 1] = False
        q = self.fuse(loc, scale, present)
        torch.testing.assert_close(q.mean[1], torch.zeros(_L).double())
        torch.testing.assert_close(q.variance[1], torch.ones(_L).double())

    def test_the_callers_object_is_not_changed(self) -> None:
        mine = self.make()
        before = repr(mine), [p.clone() for p in mine.parameters()]
        mine.sized(_M, _L)
        assert repr(mine) == before[0] and len(list(mine.parameters())) == len(before[1])

    def test_sampling_agrees_with_moments(self) -> None:
        loc, scale, present = self.experts()
        q = self.fuse(loc, scale, present)
        torch.manual_seed(0)
        draws = q.rsample((20_000,))
        error = (q.variance / 20_000).sqrt()
        assert ((draws.mean(0) - q.mean).abs() < 5 * error).all()
        torch.testing.assert_close(draws.var(0), q.variance, rtol=0.08, atol=0)


def _same(q: Distribution, other: Distribution) -> None:
    torch.testing.assert_close(q.mean, other.mean)
    torch.testing.assert_close(q.variance, other.variance)
    if isinstance(q, SubsetPosterior):
        points = torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None, None]
        points = points.expand(7, *q.batch_shape, *q.event_shape)
        torch.testing.assert_close(q.log_prob(points), other.log_prob(points))

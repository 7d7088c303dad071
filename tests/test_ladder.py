"""The hierarchical model's laws, over every fusion; test_ladder_exact.py has its numbers.

Outside witnesses: Pyro's Trace_ELBO and TraceMeanField_ELBO; torch's Jacobians for the change of
variables; log densities of mixtures added up subset by subset; draws for the deterministic moments
(with nonlinear networks these are approximate, and the test's tolerance says how much). No
witness: what a fit learns.
"""
from __future__ import annotations

import math

import pyro
import pytest
import torch
from linear_truths import SEVEN, blocked
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.autograd.functional import jacobian
from torch.distributions import Normal

from normfuse.fusion import (GeneralizedProductOfExperts, GeneralizedWassersteinBarycenter, Given,
                             Learned, LearnedMaps, MixtureOfExperts, MomentMatchingBarycenter,
                             ProductOfExperts, SubsetMixture, SubstitutePrior,
                             WassersteinBarycenter)
from normfuse.models import Batch, Elbo, Iwae, Ladder, LadderVAE, StratifiedElbo
from normfuse.models.ladder import Told
from normfuse.models.whitening import whitened
from normfuse.training import TrainingPlan, fit

WIDTHS = {"t1": 4, "dti": 5, "pet": 6}
SUBSTITUTE = SubstitutePrior()
FILLED = {
    "wb": WassersteinBarycenter(weights=Given([5, 3, 2]), missing=SUBSTITUTE),
    "wb learned": WassersteinBarycenter(weights=Learned(per_dimension=True), missing=SUBSTITUTE),
    "moment": MomentMatchingBarycenter(missing=SUBSTITUTE),
    "gwb": blocked(missing=SUBSTITUTE, weights=Learned()),
    "gwb, prior expert": blocked(prior_weight=0.2, missing=SUBSTITUTE)}
MIXTURES = {
    "moe": MixtureOfExperts(weights=Given([5, 3, 2])),
    "mopoe": SubsetMixture(ProductOfExperts(), weights=SEVEN),
    "mwb": SubsetMixture(WassersteinBarycenter(missing=SUBSTITUTE), weights=SEVEN),
    "mgwb": SubsetMixture(blocked(), weights=SEVEN)}
FUSIONS = {
    "poe": ProductOfExperts(), "poe without prior": ProductOfExperts(prior_expert=False),
    "gpoe": GeneralizedProductOfExperts(), "wb, drop": WassersteinBarycenter(),
    "moment, drop": MomentMatchingBarycenter(), "gwb, drop": blocked(),
    "gwb, maps": GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.1),
    **FILLED, **MIXTURES}
BOUNDS = (Elbo(), StratifiedElbo(draws=2), StratifiedElbo(mixture_density=True), Iwae(draws=9))


def toy(fusion, *, present=None, seed=5, **options):
    """Nonlinear networks, five people of whom each misses something else, holes, covariates."""
    torch.manual_seed(seed)
    recipe = Ladder(levels=(5, 4), hidden=(8,), dropout=0.0, hide_cells=0.0, **options)
    vae = recipe.build(WIDTHS, 2, fusion).double().eval()
    for p in vae.parameters():  # modality priors, shifts and learned weights all differ
        p.data += 0.15 * torch.randn(p.shape).double() * p.requires_grad
    if present is None:
        present = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 1, 0, 1]]).bool()
    n = present.shape[1]
    measured = tuple((torch.rand(n, p) > 0.2) & there[:, None]
                     for p, there in zip(WIDTHS.values(), present))
    x = tuple(torch.randn(m.shape).double() * m for m in measured)
    return vae, Batch(x, measured, present, torch.randn(n, 2).double())


def slopes(vae, batch, bound, seed=3):
    """Loss terms and the gradients of all weights."""
    vae.zero_grad()
    torch.manual_seed(seed)
    terms = bound.terms(vae, batch, 1.0)[0]
    sum(terms.values()).backward()
    return terms, [p.grad for p in vae.parameters() if p.grad is not None]


def to_standard(vae, z):
    """The inverse of from_standard, level by level."""
    starts = [end - width for end, width in zip(vae.ends, vae.widths)]
    return torch.cat([whitened(vae.level_prior(k, z[:, :at]), z[:, at:end])
                      for k, (at, end) in enumerate(zip(starts, vae.ends))], -1)


@pytest.mark.parametrize("name", FUSIONS)
def test_nothing_observed_costs_nothing(name):
    vae, batch = toy(FUSIONS[name], present=torch.zeros(3, 4, dtype=torch.bool))
    rounded = name in ("gwb, maps", "gwb, prior expert")  # q and p are made in two ways
    for bound in BOUNDS:
        terms, gradients = slopes(vae, batch, bound)
        # log sum of K times 1/K
        sums = isinstance(bound, Iwae) or name in MIXTURES and bound is BOUNDS[2]
        atol = 1e-9 if rounded else 1e-12 if sums else 0.0
        assert all(abs(term.item()) <= atol for term in terms.values())
        assert gradients and all((g.abs() < 1e-9).all() for g in gradients)  # NaN would fail
    q = vae.posterior(batch)
    torch.testing.assert_close(q.mean, torch.zeros(4, 9).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(q.variance, torch.ones(4, 9).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("value", [1e6, math.nan])
def test_what_was_not_measured_changes_neither_loss_nor_gradient(name, value):
    vae, batch = toy(FUSIONS[name])
    junk = tuple(torch.where(m, x, value) for x, m in zip(batch.x, batch.measured))
    other = Batch(junk, batch.measured, batch.present, batch.design)
    for bound in BOUNDS[::3] if value == value else BOUNDS[1:3]:
        (one, first), (two, second) = (slopes(vae, b, bound) for b in (batch, other))
        assert {k: v.item() for k, v in one.items()} == {k: v.item() for k, v in two.items()}
        assert all(torch.equal(a, b) for a, b in zip(first, second))
        assert sum(g.abs().sum() for g in first) > 1 and len(first) == len(second)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_person_depends_on_nobody_else_and_parts_add_up(name):
    vae, batch = toy(FUSIONS[name])
    order = torch.tensor([3, 0, 4, 2, 1])
    q, (position, parts) = vae.posterior(batch), vae.position(batch)
    r, turned = vae.posterior(batch.take(order)), vae.position(batch.take(order))[0]
    atol = 1e-9 if name == "gwb, maps" else 1e-12
    for one, two in ((q.mean[order], r.mean), (q.variance[order], r.variance),
                     (position[order], turned)):
        torch.testing.assert_close(one, two, atol=atol, rtol=0)
    alone = vae.posterior(batch.take(order[:1]))
    torch.testing.assert_close(alone.mean[0], q.mean[3], atol=atol, rtol=0)
    torch.testing.assert_close(alone.variance[0], q.variance[3], atol=atol, rtol=0)
    assert parts.shape == (3, 5, 9) and (parts[~batch.present] == 0).all()
    assert (parts.sum(0) - position).abs().max() < atol and position.abs().min(1)[0].max() > 1e-3
    top = vae.level(0, position[:, :0], vae.told(batch)).posterior
    if vae.mixture is None:
        torch.testing.assert_close(position[:, :4], top.mean, atol=atol, rtol=0)
    owned = vae.fusions[0].owned()
    if owned is not None:  # private blocks belong to their owners, at both levels
        owned = torch.cat([owned, vae.fusions[1].owned()], 1)
        assert (parts.transpose(1, 2)[~owned] == 0).all()


@pytest.mark.parametrize("name", FUSIONS)
def test_standard_coordinates_are_a_change_of_variables(name):
    vae, batch = toy(FUSIONS[name])
    e = torch.randn(5, 9, generator=torch.manual_seed(2)).double()
    z = vae.from_standard(e)
    torch.testing.assert_close(to_standard(vae, z), e)
    slope = torch.stack([jacobian(lambda row: vae.from_standard(row[None])[0], row) for row in e])
    literal = Normal(0.0, 1.0).log_prob(e).sum(-1) - torch.linalg.slogdet(slope)[1]
    found = vae.level_prior(0, z[:, :0]).log_prob(z[:, :4]) \
        + vae.level_prior(1, z[:, :4]).log_prob(z[:, 4:])
    torch.testing.assert_close(found, literal)
    several = torch.stack([e, -e, 2 * e])
    for m, means in enumerate(vae.decode(several, batch.design)):
        assert means.shape == (3, 5, list(WIDTHS.values())[m])
        again = vae.decoded(vae.from_standard(2 * e), batch.design)[m]
        torch.testing.assert_close(means[2], again)
    if vae.fusions[0].owned() is not None:  # no decoder reads what is private to another
        owned = torch.cat([fuse.owned() for fuse in vae.fusions], 1)
        for m, means in enumerate(vae.decoded(z, batch.design)):
            elsewhere = [vae.decoded(z + step, batch.design)[m] for step in (~owned[m], owned[m])]
            assert torch.equal(elsewhere[0], means) and not torch.equal(elsewhere[1], means)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("name", ["wb", "poe", "gwb", "gwb, maps"])
def test_named_terms_add_up_to_pyros_elbo(name, elbo):
    vae, batch = toy(FUSIONS[name], hide=0.0)
    n, times = (8, 15) if name == "gwb, maps" else (20, 100)
    tiled, theirs = batch.take(torch.arange(5).repeat(times)), elbo()
    torch.manual_seed(0)
    with torch.no_grad(), pyro.validation_enabled(False):
        found = torch.tensor([(theirs.loss(vae.model, vae.guide, tiled, tiled.present) / 5 / times,
                               *(sum(bound.terms(vae, tiled, 1.0)[0].values())
                                 for bound in BOUNDS[:3])) for _ in range(n)])
    expected, *ours = found.mean(0)
    for value, error in zip(ours, found.std(0)[1:]):
        error = math.hypot(error, found.std(0)[0]) / n ** 0.5
        assert abs(value - expected) < 5 * error < 0.1 * expected


@pytest.mark.parametrize("name", ["wb", "poe", "moment", "gwb, drop", "moe"])
def test_moments_of_the_posterior_are_those_of_its_draws(name):
    vae, batch = toy(FUSIONS[name])
    with torch.no_grad():
        q, draws = vae.posterior(batch), vae.draws(batch, batch.present, 9000)
        e = to_standard(vae, draws.z.flatten(0, 1)).unflatten(0, draws.share.shape)
        mean = (draws.share[..., None] * e).sum(0)
        variance = (draws.share[..., None] * (e - mean) ** 2).sum(0)
        assert ((q.mean - mean).abs() < 0.08 * variance.sqrt()).all()
        assert ((q.variance / variance).log().abs() < 0.2).all()


@pytest.mark.parametrize("name", FILLED)
def test_shifts_from_the_prior_add_up_over_what_is_there(name):
    vae, batch = toy(FUSIONS[name])
    above = torch.randn(5, 4, generator=torch.manual_seed(1)).double()
    for k, context in ((0, above[:, :0]), (1, above)):
        def shifts(present):
            level = vae.level(k, context, vae.told(batch, present.expand(3, 5)))
            return torch.stack([level.posterior.mean - level.prior.mean,
                                level.posterior.stddev - level.prior.stddev]), level

        (mean, sd), level = shifts(torch.tensor([[True], [False], [True]]))
        (mean1, sd1), (mean3, sd3) = (shifts(torch.tensor(p)[:, None])[0]
                                      for p in ([True, False, False], [False, False, True]))
        torch.testing.assert_close(mean, mean1 + mean3)
        torch.testing.assert_close(level.parts().sum(0), mean)
        assert mean.abs().max() > 0.1
        if name != "moment":  # whose width grows with what the experts disagree about
            torch.testing.assert_close(sd, sd1 + sd3)
        if name == "wb":  # w_m times the modality's own shift
            told = vae.told(batch)
            priors, move = vae.top_down[0](above)
            own = told.loc[..., :4] if k == 0 else priors.base_dist.scale * (told.loc[..., 4:]
                                                                             + move)
            torch.testing.assert_close(mean1, 0.5 * own[0])
            torch.testing.assert_close(mean3, 0.2 * own[2])


@pytest.mark.parametrize("name", [*FILLED, "wb, drop"])
def test_an_expert_that_says_what_its_prior_says_changes_nothing(name):
    vae, batch = toy(FUSIONS[name])
    vae.top_down[0].net[-1].bias.data.view(3, 3, 5)[1, 2] = 0  # no shift from above for dti
    for weight in (vae.top_down[0].net[-1].weight, vae.top_down[0].skip.weight):
        weight.data.view(3, 3, 5, -1)[1, 2] = 0
    told, without = vae.told(batch), torch.tensor([[True], [False], [True]]).expand(3, 5)
    told.loc[1], told.scale[1] = 0.0, 1.0
    seen, unseen = (vae._gaussian(Told(told.loc, told.scale, p, told.present))
                    for p in (torch.ones(3, 5, dtype=torch.bool), without))
    same = torch.allclose(seen.mean, unseen.mean, atol=1e-12, rtol=0) and \
        torch.allclose(seen.covariance_matrix, unseen.covariance_matrix, atol=1e-12, rtol=0)
    assert same == (name in FILLED)


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_is_one_over_whole_hierarchies(name):
    vae, batch = toy(FUSIONS[name])
    inner = LadderVAE(WIDTHS, 2, FUSIONS[name].inner, vae.recipe).double().eval()
    inner.load_state_dict(vae.state_dict())
    table = vae.mixture.table(3).bool()
    n, each = len(table), -(-280 // len(table))
    with torch.no_grad():
        draws = vae.draws(batch, batch.present, 280)
        assert draws.z.shape == (n * each, 5, 9)
        torch.testing.assert_close(draws.share.sum(0), torch.ones(5).double())
        given = torch.tensor(FUSIONS[name].weights.values).double()
        legal = (table[:, :, None] <= batch.present).all(1)
        weights = given[:, None] * legal / (given[:, None] * legal).sum(0)
        levels, own = [], []
        for subset in table:
            told, total = inner.told(batch, subset[:, None] & batch.present), 0.0
            for k, (low, end) in enumerate(((0, 4), (4, 9))):
                step = [inner.level(k, z[:, :low], told).posterior.log_prob(z[:, low:end])
                        for z in draws.z]
                total = total + torch.stack(step)
            own.append(total)
            levels.append(inner.level(0, told.loc[0, :, :0], told).posterior)
        literal = torch.logsumexp(torch.stack(own) + weights.log()[:, None], 0)
        torch.testing.assert_close(draws.log_q, literal)
        for c in range(n):
            rows = torch.arange(c, n * each, n)
            torch.testing.assert_close(draws.share[rows] * each, weights[c].expand(each, 5))
            error = levels[c].stddev / each ** 0.5
            away = (draws.z[rows][..., :4].mean(0) - levels[c].mean).abs()
            assert (away < 5 * error).all()
        torch.testing.assert_close(vae.posterior(batch).weights, weights)


def test_free_bits_and_warm_up_act_on_each_level():
    vae, batch = toy(FUSIONS["wb"], hide=0.0)

    def found(floor, training, warmup):
        vae.train(training)
        torch.manual_seed(8)
        terms = Elbo(free_bits=floor).terms(vae, batch, warmup)[0]
        assert list(terms) == ["kl z2", "kl z1", *WIDTHS]
        return [v.item() for v in terms.values()]

    top, low, *rest = found(0.0, True, 1.0)
    floor = (top + low) / 2
    assert 0 < top < low - 0.5
    assert found(floor, True, 1.0) == pytest.approx([floor, low, *rest], rel=1e-12)
    assert found(floor, False, 1.0) == [top, low, *rest]  # validation: the true bound
    for floored, training in ((0.0, True), (floor, False)):
        assert found(floored, training, 0.25) == [top / 4, low / 4, *rest]
    assert found(floor, True, 0.25) == pytest.approx([floor / 4, low / 4, *rest], rel=1e-12)
    assert list(StratifiedElbo().terms(vae, batch, 0.5)[0]) == ["kl", *WIDTHS]


@pytest.mark.parametrize("bound, names", [
    (Elbo(free_bits=0.5), ["kl z2", "kl z1", *WIDTHS]), (Iwae(draws=4), ["iwae"])])
def test_history_has_a_column_for_each_level(bound, names):
    vae, batch = toy(FUSIONS["gwb"], bound=bound)
    plan = TrainingPlan(max_epochs=6, warmup=2, batch_size=2, progress=False)
    history = fit(vae, batch, batch, plan, seed=1)
    assert list(history.table) == ["epoch", "training", "validation", *names]
    total = history.table[names].sum(axis=1)
    assert history.table["validation"].to_numpy() == pytest.approx(total.to_numpy())
    assert history.table["validation"].iloc[-1] < history.table["validation"].iloc[0]

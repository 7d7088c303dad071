"""The covariate model: the sinh-arcsinh law, the effects' posterior, and what reaches a z.

Outside witnesses: numerical integration and autograd for the law, Pyro's own trace for the log
joint density, statsmodels' mixed model for shrunken site offsets, and simulated truths.
"""
from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from scipy import integrate, stats

from normfuse.covariates import CovariateEncoder
from normfuse.regression import (EffectColumns, PooledRegression, SinhArcsinh, fit_effects)
from normfuse.regression.effects import law_of
from normfuse.regression.sinh_arcsinh import second_order

KINDS = {"age": "continuous", "sex": "categorical", "site": "site"}
LAW = [torch.tensor(v, dtype=torch.float64) for v in (0.3, -0.2, 0.4, -0.15)]


def people(n, seed=0, sites=4):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"age": rng.uniform(20, 80, n), "sex": rng.choice(["F", "M"], n),
                         "site": rng.choice([f"s{k}" for k in range(sites)], n)})


def simulated(n, p, seed=0, *, noise=1.0, sites=4, offset=0.5):
    """Features with known location, scale and shape."""
    who, rng = people(n, seed, sites), np.random.default_rng(seed + 1)
    age = (who["age"].to_numpy() - 50) / 20
    offsets = offset * rng.normal(size=(sites, p))
    loc = (0.6 * age[:, None] + 0.3 * (who["sex"] == "M").to_numpy()[:, None]
           + offsets[[int(s[1:]) for s in who["site"]]])
    scale = noise * np.exp(0.2 * age)[:, None]
    u = rng.normal(size=(n, p))
    return who, loc + scale * np.sinh((np.arcsinh(u) + 0.2) / 0.9), loc, scale, u


class TestLaw:
    def test_density_integrates_to_one(self):
        law = SinhArcsinh(*LAW)
        total, _ = integrate.quad(lambda y: law.log_prob(torch.tensor(y)).exp().item(), -40, 40,
                                  points=[0.0], limit=200)
        assert total == pytest.approx(1, abs=1e-8)

    def test_quantiles_are_those_of_its_draws(self):
        torch.manual_seed(0)
        draws = SinhArcsinh(*LAW).sample((200_000,)).numpy()
        u = torch.tensor(stats.norm.ppf([0.05, 0.5, 0.9]))
        expected = SinhArcsinh(*LAW).from_normal(u).numpy()
        np.testing.assert_allclose(np.quantile(draws, [0.05, 0.5, 0.9]), expected, atol=0.02)

    def test_there_and_back(self):
        y = torch.linspace(-6, 8, 50, dtype=torch.float64)
        law = SinhArcsinh(*LAW)
        torch.testing.assert_close(law.from_normal(law.to_normal(y)), y, rtol=1e-12, atol=1e-12)

    def test_derivatives_by_hand_are_autograds(self):
        y = torch.tensor([[-3.0], [0.2], [2.5]], dtype=torch.float64)

        def log_prob(theta):
            return SinhArcsinh(*theta).log_prob(y).sum()

        theta = torch.stack(LAW)
        found = second_order(SinhArcsinh(*LAW), y)
        assert found.log_prob.sum() == pytest.approx(log_prob(theta).item(), rel=1e-12)
        gradient = torch.stack([g.sum() for g in found.gradient])
        torch.testing.assert_close(gradient, torch.func.grad(log_prob)(theta))
        hessian = torch.func.hessian(log_prob)(theta)
        for (a, b), value in found.hessian.items():
            assert value.sum().item() == pytest.approx(hessian[a, b].item(), rel=1e-9), (a, b)


@pytest.fixture(scope="module")
def fitted():
    who, y, *_ = simulated(300, 12)
    columns = EffectColumns.of(CovariateEncoder.fit(who, KINDS))
    x = torch.as_tensor(columns.values(who))
    standard = torch.as_tensor((y - y.mean(0)) / y.std(0))
    return x, standard, fit_effects(x, columns.groups, standard, None)


class TestEffects:
    def test_the_objective_is_the_pyro_models_log_joint(self, fitted):
        x, y, effects = fitted
        trace = pyro.poutine.trace(pyro.condition(effects.model, {
            "pooled": effects.pooled[0], "effects": effects.mean})).get_trace(x, y)
        prior = (stats.norm.logpdf(effects.pooled[0], 0, effects.spread[1]).sum()
                 + stats.norm.logpdf(effects.mean, effects.pooled[0], effects.spread[0]).sum())
        literal = law_of(x, effects.mean).log_prob(y).sum().item() + prior
        assert trace.log_prob_sum().item() == pytest.approx(literal, rel=1e-10)

    def test_pyros_bound_is_lower_to_either_side(self, fitted):
        """300 draws of Pyro's own ELBO, before and after moving every mean by .3 of its sd."""
        x, y, effects = fitted
        elbo = pyro.infer.Trace_ELBO(num_particles=300, vectorize_particles=False)
        torch.manual_seed(0)
        with torch.no_grad():
            here = -elbo.loss(effects.model, effects.guide, x, y)
            sd = effects.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
            for sign in (-1, 1):
                moved = replace(effects, mean=effects.mean + 0.3 * sign * sd)
                assert -elbo.loss(moved.model, moved.guide, x, y) < here

    @pytest.mark.parametrize("n", [150, 1000])
    def test_errors_are_as_large_as_the_variance_says(self, n):
        """Of u in new people of a simulated truth, where |u| < 2.5 (to first order)."""
        who, y, _, _, u = simulated(n + 500, 12)
        model = PooledRegression.fit(y[:n], who[:n], CovariateEncoder.fit(who[:n], KINDS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # ages a little beyond the reference's
            found = model.residuals(y[n:], who[n:])
        error, inner = (found.u - u[n:]) ** 2, np.abs(u[n:]) < 2.5
        assert 0.75 < error[inner].mean() / found.variance[inner].mean() < 1.33

    def test_sites_are_shrunk_like_a_mixed_model(self):
        """statsmodels' random intercepts, normal features, one feature."""
        import statsmodels.formula.api as smf

        rng = np.random.default_rng(3)
        who = people(300, 3, sites=12)
        who = pd.concat([who, who[who["site"] == "s0"].iloc[:4].assign(site="tiny")],
                        ignore_index=True)
        code = who["site"].astype("category").cat.codes.to_numpy()
        y = 0.6 * rng.normal(size=13)[code] + rng.normal(size=len(who))
        mixed = smf.mixedlm("y ~ age", who.assign(y=y), groups=who["site"]).fit()
        theirs = pd.Series({k: v.iloc[0] for k, v in mixed.random_effects.items()})
        kinds = {"age": "continuous", "site": "site"}
        model = PooledRegression.fit(y[:, None], who, CovariateEncoder.fit(who, kinds))
        n = model.effects.n_columns
        sites = model.columns.sites["site"]
        ours = pd.Series(model.effects.mean[0, n - len(sites):n].numpy() * model.unit[0],
                         list(sites))[theirs.index]
        centred = ours - ours.mean() - (theirs - theirs.mean())
        assert centred.abs().max() < 0.12 and np.corrcoef(ours, theirs)[0, 1] > 0.98


class TestResiduals:
    @pytest.mark.parametrize("n", [30, 100, 400])
    def test_z_of_new_people_is_standard_normal(self, n):
        shares, spreads = [], []
        for seed in range(5):
            who, y, *_ = simulated(n + 400, 20, seed)
            learners, others = who.iloc[:n], who.iloc[n:]
            model = PooledRegression.fit(y[:n], learners, CovariateEncoder.fit(learners, KINDS))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                z = model.residuals(y[n:], others).z
            shares.append((np.abs(z) > 1.96).mean())
            spreads.append(z.std())
        assert np.mean(shares) == pytest.approx(0.05, abs=0.02 if n == 30 else 0.01)
        assert np.mean(spreads) == pytest.approx(1, abs=0.08 if n == 30 else 0.03)

    def test_missing_cells_change_nothing_for_other_features(self):
        who, y, *_ = simulated(200, 3)
        holes = y.copy()
        holes[:60, 1] = np.nan
        encoder = CovariateEncoder.fit(who, KINDS)
        model = PooledRegression.fit(holes, who, encoder)
        alone = PooledRegression.fit(holes[60:], who.iloc[60:], encoder)
        found = model.residuals(holes, who)
        assert np.isnan(found.u[:60, 1]).all() and not np.isnan(found.u[60:]).any()
        near = alone.residuals(holes, who).u[60:, 1]
        assert np.corrcoef(near, found.u[60:, 1])[0, 1] > 0.995

    def test_quantiles_hold_their_share(self):
        who, y, *_ = simulated(1500, 6)
        model = PooledRegression.fit(y[:1000], who[:1000], CovariateEncoder.fit(who[:1000], KINDS))
        for share in (0.05, 0.5, 0.95):
            below = (y[1000:] < model.quantile(share, who[1000:])).mean()
            assert below == pytest.approx(share, abs=0.02)

    def test_expectation_is_the_mean_of_draws(self):
        who, y, *_ = simulated(300, 2)
        model = PooledRegression.fit(y, who, CovariateEncoder.fit(who, KINDS))
        one = who.iloc[:1]
        u = torch.randn(100_000, 1, 2, dtype=torch.float64,
                        generator=torch.Generator().manual_seed(0))
        draws = model.from_normal(0.4 + 0.8 * u, one).mean(0)
        found = model.expected(torch.full((1, 2), 0.4).double(), torch.full((1, 2), 0.8).double(),
                               one)
        np.testing.assert_allclose(found, draws, atol=0.015)

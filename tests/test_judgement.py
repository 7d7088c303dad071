"""Reference people judged by what everybody else taught, against fits without them."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from normfuse.covariates import CovariateEncoder
from normfuse.regression import PooledRegression

KINDS = {"age": "continuous", "sex": "categorical", "site": "site"}


def table(n, seed=0, p=12):
    """Skewed features that share a factor."""
    rng = np.random.default_rng(seed)
    who = pd.DataFrame({"age": rng.uniform(20, 80, n), "sex": rng.choice(["F", "M"], n),
                        "site": rng.choice(["a", "b", "c"], n)})
    noise = 0.6 * rng.normal(size=(n, 1)) + 0.8 * rng.normal(size=(n, p))
    y = 3 - 0.01 * who[["age"]].to_numpy() + 0.1 * np.sinh(0.8 * noise)
    return y + 0.1 * (who["site"] == "b").to_numpy()[:, None], who


def fitted(y, who):
    return PooledRegression.fit(y, who, CovariateEncoder.fit(who, KINDS))


@pytest.mark.parametrize("n", [80, 300])
def test_it_is_what_a_fit_without_them_says(n):
    y, who = table(n)
    encoder = CovariateEncoder.fit(who, KINDS)
    model = PooledRegression.fit(y, who, encoder)
    inside, left_out = model.residuals(y, who), model.residuals(y, who, np.ones(n, bool))
    rows = np.arange(0, n, n // 20)
    without = []
    for i in rows:
        kept = np.arange(n) != i
        again = PooledRegression.fit(y[kept], who[kept], encoder)
        without.append(again.residuals(y[[i]], who.iloc[[i]]))
    truth = np.vstack([r.u for r in without])
    error, naive = (np.sqrt(np.mean((r.u[rows] - truth) ** 2)) for r in (left_out, inside))
    assert error < 0.5 * naive
    assert np.abs(left_out.u[rows]).mean() == pytest.approx(np.abs(truth).mean(), rel=0.03)
    ratio = left_out.variance[rows] / np.vstack([r.variance for r in without])
    assert np.median(ratio) == pytest.approx(1, abs=0.1)


def test_residuals_of_reference_people_spread_like_those_of_new_ones():
    y, who = table(200, p=30)
    new, others = table(3000, seed=1, p=30)
    model = fitted(y, who)
    inside, left_out = model.residuals(y, who).z.std(), \
        model.residuals(y, who, np.ones(200, bool)).z.std()
    fresh = model.residuals(new, others).z.std()
    assert inside < left_out - 0.02
    assert left_out == pytest.approx(fresh, rel=0.04)


def test_only_those_marked_are_left_out():
    y, who = table(60)
    model = fitted(y, who)
    some = np.arange(60) < 10
    found, plain, whole = (model.residuals(y, who, m) for m in (some, None, np.ones(60, bool)))
    np.testing.assert_array_equal(found.u[10:], plain.u[10:])
    np.testing.assert_allclose(found.u[:10], whole.u[:10], rtol=1e-12)
    np.testing.assert_array_equal(model.residuals(y, who, np.zeros(60, bool)).u, plain.u)


def test_one_old_person_among_students_has_no_law_of_their_own():
    """Over their sd, spline columns of such ages reach 20, and log scales -10."""
    rng = np.random.default_rng(0)
    who = pd.DataFrame({"age": [*rng.uniform(18, 23, 59), 40.0], "sex": rng.choice(["F", "M"], 60),
                        "site": ["a", "b"] * 30})
    y = 2.5 + 0.15 * rng.normal(size=(60, 30))
    model = fitted(y, who)
    law = model.effects.law(torch.as_tensor(model.columns.values(who)))
    assert law.log_scale.abs().max() < 2
    assert np.abs(model.residuals(y, who, np.ones(60, bool)).u).max() < 10


def test_the_only_person_of_a_site_is_judged_by_what_sites_are_like():
    y, who = table(80)
    who.loc[0, "site"] = "d"
    y[0] += 1.0
    model = fitted(y, who)
    found = model.residuals(y, who, np.ones(80, bool))
    assert np.isfinite(found.u).all()
    inside = model.residuals(y, who)
    assert np.abs(found.u[0]).mean() > np.abs(inside.u[0]).mean()


def test_the_farther_out_the_larger_z():
    """With few people the variance of u grows faster than u: z would turn back."""
    y, who = table(24, p=6)
    model = fitted(y, who)
    far = np.linspace(-1.5, 1.5, 201)[:, None] + np.median(y, axis=0)
    at = pd.DataFrame({"age": 78.0, "sex": "F", "site": "a"}, index=range(len(far)))
    z = model.residuals(far, at).z
    assert (np.diff(z, axis=0) > 0).all()
    assert np.abs(z[[0, -1]]).min() > 3

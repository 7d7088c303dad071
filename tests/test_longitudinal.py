"""Change between visits, and indices of one number a person."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from normfuse.analyses.indices import (abnormal, abnormal_share, dissimilarity, severity_index,
                                       significance_ratio)
from normfuse.analyses.longitudinal import compare_visits
from normfuse.errors import ComparisonError
from normfuse.testing import tiny_deviations

FEATURES = pd.MultiIndex.from_product([["t1", "pet"], [f"r{k}" for k in range(10)]],
                                      names=["modality", "feature"])


def deviations(z, subjects):
    z = pd.DataFrame(z, subjects.index, FEATURES)
    return replace(tiny_deviations(), z=z, observed=z, expected=0 * z, latent=z.iloc[:, :2],
                   distance=z.iloc[:, :1], attribution=None, subjects=subjects, controls=None)


def two_visits(n_controls, n_patients, *, rho=0.8, drop=0.0, seed=0):
    """z at two visits, correlated rho; patients lose ``drop`` in the first five regions."""
    rng = np.random.default_rng(seed)
    n = n_controls + n_patients
    first = rng.normal(size=(n, 20))
    second = rho * first + np.sqrt(1 - rho ** 2) * rng.normal(size=(n, 20))
    second[n_controls:, :5] -= drop
    ids = [f"sub-{k:03d}_ses-{v}" for v in (1, 2) for k in range(n)]
    subjects = pd.DataFrame({"session": [1] * n + [2] * n,
                             "diagnosis": (["CN"] * n_controls + ["AD"] * n_patients) * 2},
                            index=pd.Index(ids, name="participant_id"))
    return deviations(np.vstack([first, second]), subjects)


class TestChange:
    @pytest.mark.parametrize("n", [8, 20, 60])
    def test_healthy_change_is_standard_normal_and_the_naive_difference_is_not(self, n):
        shares, naive = [], []
        for seed in range(40):
            found = compare_visits(two_visits(n, 30, seed=seed), ("1", "2"),
                                   controls="diagnosis == 'CN'")
            for who in (found.subjects["control"], ~found.subjects["control"]):
                shares.append((found.z[who].abs() > 1.96).to_numpy().mean())
            naive.append((found.change.abs() > 1.96).to_numpy().mean())
        assert np.mean(shares) == pytest.approx(0.05, abs=0.006)
        expected = 2 * stats.norm.sf(1.96 / np.sqrt(2 * (1 - 0.8)))
        assert np.mean(naive) == pytest.approx(expected, abs=0.003) and expected < 0.003

    def test_a_lost_region_is_found_by_the_group_table(self):
        found = compare_visits(two_visits(60, 40, drop=0.6), (1, 2), controls="diagnosis == 'CN'")
        table = found.group_table()
        hit = table["q"] < 0.05
        assert hit[[("t1", f"r{k}") for k in range(5)]].all() and hit.sum() <= 6
        assert (table.loc[hit, "shift"] < 0).all() and (table.loc[hit, "auc"] < 0.5).all()

    def test_groups_that_change_alike_differ_in_a_share_alpha_of_features(self):
        p = [compare_visits(two_visits(15, 40, seed=seed), (1, 2), controls="diagnosis == 'CN'")
             .group_table()["p"] for seed in range(40)]
        assert (pd.concat(p) < 0.05).mean() == pytest.approx(0.05, abs=0.02)

    def test_a_control_is_judged_by_the_others(self):
        data = two_visits(12, 3)
        found = compare_visits(data, (1, 2), controls="diagnosis == 'CN'")
        others = data.select([i for i in data.z.index if not i.startswith("sub-004")])
        alone = compare_visits(replace(data, **{
            name: t for name, t in data.tables().items()}), (1, 2),
            controls="diagnosis == 'CN' and participant_id != 'sub-004'")
        fewer = compare_visits(others, (1, 2), controls="diagnosis == 'CN'")
        assert fewer.controls["n"].eq(11).all()
        np.testing.assert_allclose(found.z.loc["sub-004"], alone.z.loc["sub-004"])

    def test_what_it_says(self):
        found = compare_visits(two_visits(30, 10), ("1", "2"), controls="diagnosis == 'CN'")
        assert "judged by 30 controls seen twice" in found.summary()
        assert "z2 - z1 against N(0, 1) would say 0.00" in found.summary()
        assert list(found.table.columns) == ["change", "z", "p"] and len(found.table) == 40 * 20
        assert "VisitChanges of 40 people" in repr(found) and "<table" in found._repr_html_()

    @pytest.mark.parametrize("options, message", [
        ({"visit": "wave"}, "'wave' is not a column"),
        ({"visits": (1, 3)}, "nobody has session 3; there are 1, 2"),
        ({"controls": "diagnosis == 'MCI'"}, "0 people answer"),
        ({"person": "diagnosis"}, "more than one row"),
    ])
    def test_refusals(self, options, message):
        asked = {"visits": (1, 2), "controls": "diagnosis == 'CN'", **options}
        with pytest.raises(ComparisonError, match=message):
            compare_visits(two_visits(10, 5), **asked)


@pytest.fixture
def four():
    z = np.zeros((4, 20))
    z[0, :3], z[1, 12], z[2, 0] = -2.5, 3.0, 2.5
    z[3, 10:] = np.nan
    return deviations(z, pd.DataFrame(index=pd.Index(list("abcd"), name="participant_id")))


class TestIndices:
    directions = {"t1": "below", "pet": "above"}

    def test_abnormal_has_a_direction_for_each_modality(self, four):
        found = abnormal(four, directions=self.directions)
        assert found.sum(axis=1).tolist() == [3, 1, 0, 0]
        assert found.loc["d", "pet"].isna().all()
        assert abnormal(four).sum(axis=1).tolist() == [3, 1, 1, 0]

    def test_shares_and_severity_count_measured_features_only(self, four):
        share = abnormal_share(four, directions=self.directions)
        assert share.loc["a"].tolist() == [0.3, 0.0, 0.15]
        assert np.isnan(share.loc["d", "pet"]) and share.loc["d", "total"] == 0
        severity = severity_index(four, directions=self.directions)
        assert severity.loc["a", "t1"] == pytest.approx(0.75)
        assert severity.loc["b", "total"] == pytest.approx(3 / 20)

    def test_dissimilarity_is_hammings(self, four):
        found = dissimilarity(four)
        assert found.loc["a", "b"] == pytest.approx(4 / 20)
        assert found.loc["a", "d"] == pytest.approx(3 / 10)
        assert (np.diag(found) == 0).all() and found.equals(found.T)

    def test_an_unknown_modality_is_named(self, four):
        with pytest.raises(ComparisonError, match="directions name dti; the modalities are"):
            abnormal_share(four, directions={"dti": "below"})

    def test_the_ratio_has_an_interval_also_without_false_alarms(self):
        found = significance_ratio(pd.Series([1e-4] * 5 + [0.5] * 15), pd.Series([0.4] * 99))
        assert found["low"] < found["ratio"] < found["high"] < np.inf
        with pytest.raises(ComparisonError, match="0 of controls"):
            significance_ratio(pd.Series([0.1]), pd.Series([np.nan]))

    def test_the_ratios_interval_covers(self):
        rng = np.random.default_rng(0)
        hits = 0
        for _ in range(400):
            found = significance_ratio(pd.Series(rng.uniform(size=80) ** 2),
                                       pd.Series(rng.uniform(size=200)), level=0.05)
            hits += found["low"] < np.sqrt(0.05) / 0.05 < found["high"]
        assert hits / 400 > 0.93

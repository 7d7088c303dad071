"""Subtypes.

Witnesses: SciPy's distances, scikit-learn's adjusted Rand index, a planted truth, and chance: how
often one cloud is taken for several is measured over many cohorts by benchmarks/subtypes_null.py.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score

from normfuse.analyses import StabilityPlan, profile_dissimilarity, subtypes
from normfuse.analyses.clusterings import OneCloud, adjusted_rand, clusters
from normfuse.deviations import ROLE, Deviations
from normfuse.errors import ComparisonError
from normfuse.testing import tiny_deviations

QUICK = StabilityPlan(n_subsamples=20, n_null=39)


def people(effect: float, n: int = 60, seed: int = 0) -> tuple[Deviations, np.ndarray]:
    """Two types that deviate in other regions, some without PET."""
    rng = np.random.default_rng(seed)
    z = 0.3 * rng.normal(size=(n, 4)) @ rng.normal(size=(4, 50)) + rng.normal(size=(n, 50))
    which = rng.integers(0, 2, n)
    z[which == 0, :15] -= effect
    z[which == 1, 25:40] -= effect
    columns = pd.MultiIndex.from_tuples([("t1" if j < 30 else "pet", f"r{j}") for j in range(50)],
                                        names=["modality", "feature"])
    z = pd.DataFrame(z, [f"s{i:02d}" for i in rng.permutation(n)], columns)
    z.iloc[rng.permutation(n)[:9], 30:] = np.nan
    none = dict.fromkeys(("observed", "expected", "latent", "distance", "attribution"), z[[]])
    subjects = pd.DataFrame({"dx": "AD", "age": np.linspace(55, 90, n), ROLE: "new"}, z.index)
    return replace(tiny_deviations(), z=z, subjects=subjects, **none), which


def test_dissimilarities_are_scipys():
    z = people(0)[0].z.dropna()
    t1, pet = z["t1"], z["pet"]
    for metric, mix in (("correlation", lambda a, b: (a + b) / 2),
                        ("euclidean", lambda a, b: np.sqrt((a**2 / 30 + b**2 / 20) / 2))):
        expected = mix(*(squareform(pdist(part, metric)) for part in (t1, pet)))
        np.testing.assert_allclose(profile_dissimilarity(z, metric), expected, atol=1e-9)


def test_dissimilarity_of_people_with_holes_uses_what_both_have():
    z = people(0)[0].z.copy()
    z.iloc[3, 2] = np.nan
    bare = z.index[z["pet"].isna().all(axis=1)][0]
    other = z.index[3]
    both = z.loc[[bare, other]].dropna(axis=1)
    r = np.corrcoef(both.to_numpy())[0, 1]
    found = profile_dissimilarity(z)
    assert found.loc[bare, other] == pytest.approx(1 - r)
    z.iloc[3, :30] = np.nan
    with pytest.raises(ComparisonError, match="share no modality"):
        profile_dissimilarity(z)


def test_rand_index_is_scikit_learns():
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.integers(0, 4, 30), rng.integers(0, 3, 30)
        assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)


@pytest.mark.parametrize("method", ["kmedoids", "average", "complete", "ward"])
def test_every_method_finds_what_lies_apart(method):
    rng = np.random.default_rng(3)
    at = np.concatenate([rng.normal(size=(n, 2)) + c for n, c in ((9, 0), (14, 12), (6, -15))])
    found = clusters(squareform(pdist(at)), [3], method)[0]
    assert adjusted_rand(found, np.repeat([0, 1, 2], [9, 14, 6])) == 1


def test_people_of_one_cloud_scatter_as_those_seen():
    z = people(1.5)[0].z.to_numpy()
    cloud = OneCloud.of(z, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    draws = [cloud.draw(rng) for _ in range(60)]
    assert (np.isnan(draws[0]) == np.isnan(z)).all()

    def spectrum(x):
        x = x[:, :30] - x[:, :30].mean(axis=0)
        return np.linalg.svd(x, compute_uv=False)[:6] ** 2

    ratio = np.mean([spectrum(x) for x in draws], axis=0) / spectrum(z)
    assert (np.abs(ratio - 1) < 0.15).all()


def test_planted_types_are_found_and_described():
    deviations, which = people(1.6)
    found = subtypes(deviations, plan=QUICK, most=4)
    assert found.n_clusters == 2 and found.p < 0.05
    assert adjusted_rand_score(which, found.table["subtype"]) > 0.8
    mean = found.profiles["mean"]
    at = {k: mean.loc["t1"].iloc[:15][k].mean() for k in (1, 2)}
    assert min(at.values()) < -1.2 and max(at.values()) > -0.4
    assert found.profiles["n"].loc["t1"].sum(axis=1).eq(60).all()
    assert "2 subtypes among 60 people" in found.summary()
    again = subtypes(deviations, plan=QUICK, most=4)
    pd.testing.assert_frame_equal(again.table, found.table)


def test_one_cloud_has_no_subtypes_and_the_answer_says_so(tmp_path):
    found = subtypes(people(0)[0], plan=QUICK, most=4)
    assert found.n_clusters == 1 and set(found.table["subtype"]) == {1}
    assert found.summary().startswith("no subtypes beyond chance among 60 people: with ")
    assert list(found.candidates) == [2, 3, 4]
    for what in ("stability", "consensus", "profiles"):
        assert found.plot(what).get_xlabel()
    assert (found.save(tmp_path / "s") / "stability.csv").exists() and found._repr_html_()


def test_controls_are_left_out_and_nonsense_is_refused():
    deviations, _ = people(0)
    roles = deviations.subjects.assign(**{ROLE: ["calibration"] * 7 + ["new"] * 53})
    found = subtypes(replace(deviations, subjects=roles), most=2,
                     plan=StabilityPlan(n_subsamples=4, n_null=4))
    assert len(found.table) == 53 and "7 held-out controls" in found.notes[0]
    for options, words in (({"metric": "cosine"}, "metric is"), ({"method": "dbscan"}, "method"),
                           ({"method": "ward"}, "ward needs"), ({"most": 40}, "most is from 2"),
                           ({"who": "dx == 'AD' and age < 60"}, "are left to look")):
        with pytest.raises(ComparisonError, match=words):
            subtypes(deviations, **options)


def test_a_cloud_of_few_features_has_no_nan() -> None:
    """As many axes as features leave no noise, or by rounding a little less than none."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cloud = OneCloud.of(rng.normal(size=(30, 3)), rng)
        assert np.isfinite(cloud.axes).all() and np.isfinite(cloud.draw(rng)).all()

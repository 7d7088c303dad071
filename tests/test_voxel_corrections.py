"""What shuffles are compared on: one scale of t, TFCE as an integral, ties, few people.

Witnesses: SciPy's t, Welch's test and labels of clusters written out for the same shuffles, every
deal of small groups by itertools. By simulation, benchmarks/voxel_statistics.py --error-rates.
"""
from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, stats

from normfuse.analyses import (ClusterExtent, ClusterMass, MaxT, OlsT, Tfce, VoxelTable, WelchT,
                               compare_voxels, overlap_voxels)
from normfuse.analyses.clusters import Box, tfce
from normfuse.analyses.equivalents import equivalent_t
from normfuse.analyses.shuffles import Shuffles
from normfuse.errors import ComparisonError
from normfuse.space import Space

AD_CN = ("AD", "CN")


def grid(*shape: int) -> Space:
    return Space(np.ones(shape, bool), np.diag([2.0, 3, 4, 1]), "MNI152NLin2009aSym")


def groups(n1: int, n0: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"dx": ["AD"] * n1 + ["CN"] * n0, **columns},
                        [f"s{i}" for i in range(n1 + n0)])


def compare(values, who, space, **options):
    return compare_voxels(VoxelTable(values, who, space), "dx", contrast=AD_CN,
                          **{"adjust": (), **options})


@pytest.mark.parametrize("df", [1.0, 2.0, 3.0, 4.7, 12.0, 40.0])
def test_the_equivalent_of_t_is_as_improbable(df):
    p = np.array([0.4, 0.05, 1e-3, 1e-6])
    t = stats.t.isf(p, df)
    np.testing.assert_allclose(equivalent_t(t, df, 41), stats.t.isf(p, 41), rtol=0.005)
    np.testing.assert_allclose(equivalent_t(-t, df, 41), -stats.t.isf(p, 41), rtol=0.005)
    far = equivalent_t(np.geomspace(1e-3, 1e7, 5000), df, 41)
    assert np.isfinite(far).all() and (np.diff(far) > 0).all()
    single = t.astype(np.float32)
    np.testing.assert_array_equal(equivalent_t(single, df, df), single)
    assert equivalent_t(single, df, 41).dtype == np.float32


@pytest.mark.parametrize("correction", [MaxT(199, None), ClusterMass(199, None), Tfce(39, None)])
def test_voxels_of_few_people_do_not_decide_for_the_brain(correction):
    rng, space = np.random.default_rng(0), grid(6, 7, 8)
    y = rng.normal(size=(60, space.n_voxels))
    blob = ((space.indices - [1, 3, 3])**2).sum(axis=1) < 4
    y[:30, blob] += 1.5
    rim = np.flatnonzero(space.indices[:, 0] == 5)[:40]
    holed = y.copy()
    for voxel in rim:
        holed[np.r_[rng.permutation(30)[3:], 30 + rng.permutation(30)[3:]], voxel] = np.nan
    whole, few = (compare(one, groups(30, 30), space, correction=correction) for one in (y, holed))
    # the extremes of t of 4 degrees of freedom lie far beyond those of 58
    assert np.abs(few.maps["t"][rim]).max() > np.abs(whole.maps["t"][~blob]).max()
    assert few.null.quantile(0.95).iloc[0] < 1.1 * whole.null.quantile(0.95).iloc[0]
    assert few.significant()[blob].sum() >= whole.significant()[blob].sum() > 10
    np.testing.assert_array_equal(np.delete(few.maps["t"], rim), np.delete(whole.maps["t"], rim))


def _tfce(t: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The integral as a sum over 100 heights."""
    volume, found = t.reshape(shape), np.zeros(shape)
    step = np.abs(t).max() / 100
    for sign in (1, -1):
        for height in np.arange(1, 101) * step:
            label, n = ndimage.label(sign * volume >= height * (1 - 1e-12))
            extent = np.append(0, np.bincount(label.ravel(), minlength=n + 1)[1:])
            found += sign * np.sqrt(extent[label]) * height**2 * step
    return found.ravel()


def test_tfce_and_its_p_are_the_integral_written_out():
    rng, space, n = np.random.default_rng(2), grid(5, 6, 7), 30
    y = np.array([ndimage.gaussian_filter(one, 1).ravel()
                  for one in rng.normal(size=(n, *space.shape))])
    y[:14, :30] += 0.3
    found = compare(y, groups(14, 16), space, correction=Tfce(60, None, seed=5))
    case, shuffles = np.arange(n) < 14, Shuffles(np.zeros(n, int), 60, 5)
    largest = []
    for order in shuffles.sequences(slice(None)):
        new = np.empty(n, bool)
        new[shuffles.places] = case[order]
        largest.append(np.abs(_tfce(stats.ttest_ind(y[new], y[~new]).statistic,
                                    space.shape)).max())
    seen = _tfce(stats.ttest_ind(y[case], y[~case]).statistic, space.shape)
    np.testing.assert_allclose(found.maps["tfce"], seen, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.null.iloc[:, 0], largest, rtol=1e-3)
    p = (1 + (np.array(largest)[:, None] >= np.abs(seen)).sum(axis=0)) / 61
    assert (found.maps["p_fwe"] == p).mean() > 0.98 and p.min() < 0.05


def test_tfce_of_a_blob_does_not_depend_on_a_stronger_one_elsewhere():
    space = grid(14, 5, 5)
    weak, strong = (((space.indices - at)**2).sum(axis=1) < 4 for at in ([3, 2, 2], [10, 2, 2]))
    box = Box.around(space)
    alone = tfce(3.0 * weak, box)
    both = tfce(3.0 * weak + 30.0 * strong, box)
    np.testing.assert_allclose(both[weak], alone[weak], rtol=0.2)  # ten times as coarse
    one_sided = tfce(3.0 * weak - 30.0 * strong, box, two_sided=False)
    np.testing.assert_allclose(one_sided, alone, rtol=1e-12)
    rng, n = np.random.default_rng(0), 40
    z = np.array([ndimage.gaussian_filter(one, 0.8).ravel()
                  for one in rng.normal(size=(n, *space.shape))])
    z[:20] += z.std() * (weak + 6.0 * strong)
    found = compare(z / z.std(), groups(20, 20), space, correction=Tfce(39, None))
    assert found.significant()[weak].mean() > 0.7


@pytest.mark.parametrize("correction", [ClusterExtent(39, None), ClusterMass(39, None)])
def test_clusters_of_welch_have_one_threshold_in_all_maps(correction):
    """Of shuffled people, too: t of few degrees of freedom needs to be larger to count."""
    rng, space = np.random.default_rng(3), grid(4, 5, 6)
    y = rng.normal(size=(45, space.n_voxels))
    y[:5, :15] += 4
    found = compare(y, groups(5, 40), space, test=WelchT(), correction=correction)
    case, shuffles = np.arange(45) < 5, Shuffles(np.zeros(45, int), 39, 0)
    height, largest = stats.t.isf(0.0005, 43), []
    for order in shuffles.sequences(slice(None)):
        new = np.empty(45, bool)
        new[shuffles.places] = case[order]
        welch = stats.ttest_ind(y[new], y[~new], equal_var=False)
        t = np.sign(welch.statistic) * stats.t.isf(welch.pvalue / 2, 43)
        largest.append(0.0)
        for sign in (1, -1):
            label, n = ndimage.label((sign * t > height).reshape(space.shape))
            weight = None if correction.of == "extent" else np.abs(t) - height
            largest[-1] = max([largest[-1], *np.bincount(label.ravel(), weight)[1:]])
    np.testing.assert_allclose(found.null.iloc[:, 0], largest, rtol=1e-3, atol=1e-3)
    assert max(largest) > 0 and found.significant()[:15].any()


def test_all_of_one_group_and_none_of_the_other_is_the_largest_difference():
    space, rng = grid(2, 2, 2), np.random.default_rng(1)
    z = rng.normal(size=(36, 8)) * 0.3
    z[:6, 3] = z[:5, 4] = -4
    z[2:6, 5] = z[8:, 5] = np.nan  # 2 + 2 people, told apart
    z[:2, 5] = -4
    found = overlap_voxels(VoxelTable(z, groups(6, 30), space), "dx", direction="below",
                           contrast=AD_CN, correction=MaxT(999, None)).maps
    assert found["t"][3] == pytest.approx(np.sqrt(36 * 34), rel=1e-4)
    assert found["t"][3] > 2 * found["t"][4]
    assert found["p_fwe"][3] == found["p_fwe"][4] == 0.001
    assert found["t"][5] == pytest.approx(np.sqrt(4 * 2), rel=1e-4) and found["p_fwe"][5] > 0.1
    assert found["reason"].tolist() == [2, 2, 2, 0, 0, 0, 2, 2]
    # among shuffles the same: 3 of 3 against 0 of 3 come back in 2 of 20 deals
    few = overlap_voxels(VoxelTable(np.repeat([-4.0, 0], 3)[:, None] * np.ones(8),
                                    groups(3, 3), space), "dx", contrast=AD_CN,
                         correction=MaxT(99, None)).maps
    np.testing.assert_allclose(few["p_fwe"], 0.1)


@pytest.mark.parametrize("spread", [1.0, 0.1, 0.01, 1e-3])
@pytest.mark.parametrize("test", [OlsT(), WelchT(), OlsT(two_sided=False)])
def test_equal_deals_tie_however_large_t(spread, test):
    """Every deal of 4 and 4, by itertools: p is their share that reach as far."""
    space, y = grid(2, 2, 2), np.random.default_rng(0).normal(size=(8, 8))
    y = y * spread + np.array([5.0] * 4 + [0] * 4)[:, None] * [1, 1, 0, 0, -1, 0, 1, 0]
    found = compare(y, groups(4, 4), space, test=test, correction=MaxT(80, None))
    largest = []
    for chosen in combinations(range(8), 4):
        new = np.isin(np.arange(8), chosen)
        welch = stats.ttest_ind(y[new], y[~new], equal_var=isinstance(test, OlsT))
        t = np.sign(welch.statistic) * stats.t.isf(welch.pvalue / 2, 6)
        largest.append(np.abs(t).max() if test.two_sided else t.max())
    assert len(found.null) == 69 and "70 ways only" in found.notes[-1]
    t = equivalent_t(found.maps["t"], found.maps["df"], 6)
    seen = np.abs(t) if test.two_sided else t
    p = (np.array(largest)[:, None] >= seen - 1e-4 * np.abs(seen)).mean(axis=0)
    np.testing.assert_allclose(found.maps["p_fwe"][np.abs(seen) < 50], p[np.abs(seen) < 50])
    assert found.maps["p_fwe"].min() >= (2 if test.two_sided else 1) / 70 - 1e-12


@pytest.mark.parametrize("test", [OlsT(), WelchT()])
@pytest.mark.parametrize("absent", [(), (0, 6)])
def test_shuffles_by_chance_that_deal_as_it_was_tie_too(test, absent):
    space, y = grid(1, 2, 3), np.random.default_rng(0).normal(size=(8, 6)) * 0.003
    y[:4] += 5
    y[list(absent)] = np.nan
    y[:, 5] = np.random.default_rng(1).normal(size=8)  # somebody everywhere
    found = compare(y, groups(4, 4), space, test=test, correction=MaxT(60, None, seed=2))
    present = ~np.isin(np.arange(8), absent)
    fewer, case = Shuffles(np.zeros(8, int), 60, 2).among(present), np.arange(8) < 4
    dealt = case[fewer.sequences(slice(None))]
    seen = case[np.flatnonzero(present)][fewer.places]
    as_it_was = (dealt == seen).all(axis=1) | (dealt == ~seen).all(axis=1)
    assert as_it_was.sum() > 0 and len(found.null) == 60
    # where it was not, the lone voxel of everybody stays far below
    np.testing.assert_allclose(found.maps["p_fwe"][:5], (1 + as_it_was.sum()) / 61)


@pytest.mark.parametrize("correction", [ClusterExtent(99, None), ClusterMass(99, None),
                                        Tfce(99, None)])
def test_equal_deals_tie_in_clusters_too(correction):
    space, y = grid(2, 3, 4), np.random.default_rng(0).normal(size=(8, 24)) * 0.003
    y[:4] += 5
    found = compare(y, groups(4, 4), space, correction=correction)
    np.testing.assert_allclose(found.maps["p_fwe"], 2 / 70)


def test_small_groups_are_dealt_out_in_every_way_once():
    case = np.array([True, False, False, True, False, True, False, False])
    blocks = np.array([0, 0, 1, 0, 0, 1, 1, 1])
    made, notes = Shuffles.dealing(blocks, 23, 0, case, "site", False)
    assert made.n == 23 and "24 ways only: each was taken once, and no p is below 1/24" in notes[0]
    deals = {tuple(case[order]) for order in made.sequences(slice(None))}
    assert len(deals) == 23 and tuple(case[made.places]) not in deals
    for order in made.sequences(slice(None)):
        assert sorted(order) == list(range(8))
        np.testing.assert_array_equal(blocks[order], blocks[made.places])
    fewer, none = Shuffles.dealing(blocks, 22, 0, case, "site", False)
    assert fewer.n == 22 and fewer.deals is None and not none
    # with a covariate that moves along, 24 x 24 orders differ, not 24 deals
    assert Shuffles.dealing(blocks, 500, 0, case, "site", True)[1] == ()
    assert "576 ways only: the 600 shuffles repeat" in Shuffles.dealing(
        blocks, 600, 0, case, "site", True)[1][0]


def test_covariates_within_blocks_are_no_few_ways():
    space, rng = grid(2, 3, 4), np.random.default_rng(0)
    who = groups(3, 3, age=rng.normal(size=6), site=["a", "b"] * 3)
    y = rng.normal(size=(6, 24))
    with_age = compare(y, who, space, adjust=["age"], correction=MaxT(199, None))
    assert not any("ways" in note for note in with_age.notes) and len(with_age.null) == 199
    with_site = compare(y, who, space, adjust=["site"], correction=MaxT(199))
    assert any("9 ways only" in note for note in with_site.notes) and len(with_site.null) == 8


@pytest.mark.parametrize("test", [OlsT(), WelchT()])
def test_where_nobody_can_change_places_nothing_is_tested(test):
    space, rng = grid(2, 2, 2), np.random.default_rng(0)
    who = groups(20, 10, site=["a"] * 10 + ["b"] * 10 + ["a"] * 10)
    y = rng.normal(size=(30, 8))
    y[:10, 0] = np.nan  # site a: controls alone; site b: patients alone
    y[10:20, 0] += 6
    y[:20, 1] += 3
    found = compare(y, who, space, test=test, correction=MaxT(199))
    assert found.maps["reason"].tolist() == [6, 0, 0, 0, 0, 0, 0, 0]
    assert np.isnan(found.maps["p_fwe"][0]) and found.maps["p_fwe"][1] < 0.1
    assert found.null.max().iloc[0] < 8
    assert "1 voxels were not tested: nobody there can change places" in found.summary()
    assert np.isfinite(compare(y, who, space, test=test).maps["t"]).all()  # no shuffles, no matter


@pytest.mark.parametrize("options", [{"n_permutations": 99.5}, {"n_permutations": 100.0},
                                     {"seed": -1}, {"seed": 0.5}, {"n_permutations": True}])
def test_numbers_of_shuffles_are_whole(options):
    with pytest.raises(ComparisonError, match=f"{next(iter(options))} is a whole number"):
        MaxT(**options)
    assert MaxT(np.int64(5)).n_permutations == 5

"""Group statistics voxel by voxel.

Witnesses: statsmodels OLS, SciPy's Welch test, nilearn's permuted_ols (t, family-wise p, cluster
extent and mass), the region tables' Hedges' g and overlap, and Freedman and Lane's scheme
written out with least squares. By simulation: the family-wise error with site blocks. Without a
witness: the wording of summaries.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from nilearn.maskers import NiftiMasker
from nilearn.mass_univariate import permuted_ols
from scipy import ndimage, stats

from normfuse.analyses import (BenjaminiHochberg, ClusterExtent, ClusterMass, MaxT, OlsT,
                               VoxelTable, WelchT, compare_voxels, overlap_voxels, voxel_table)
from normfuse.analyses.effects import compare_features
from normfuse.analyses.shuffles import Shuffles
from normfuse.errors import CohortError, ComparisonError, SpaceMismatchError
from normfuse.space import Space
from normfuse.stored import StoredTable

ADJUST = ["age", "sex", "site"]
AD_CN = ("AD", "CN")


def people(n: int = 47, seed: int = 3) -> pd.DataFrame:
    """Groups of unequal size, older patients, sites in unequal shares; ids in no order."""
    rng = np.random.default_rng(seed)
    dx = np.array(["AD"] * (n // 3) + ["CN"] * (n - n // 3))
    made = pd.DataFrame({
        "dx": dx, "age": rng.normal(66, 8, n) + 4 * (dx == "AD"),
        "sex": rng.choice(["F", "M"], n, p=[0.6, 0.4]),
        "site": rng.choice(["north", "south", "west"], n, p=[0.5, 0.3, 0.2])},
        index=[f"sub-{i:03d}" for i in range(n)])
    return made.iloc[rng.permutation(n)]


def sparse(shape: tuple[int, int, int] = (7, 8, 9), share: float = 0.6) -> Space:
    """A mask with gaps, unequal sides and voxels that are not cubes."""
    mask = np.random.default_rng(5).random(shape) < share
    affine = np.diag([2.0, -3, 4, 1])
    affine[:3, 3] = (-20, 31, -9)
    return Space(mask, affine, "MNI152NLin2009aSym")


def values(who: pd.DataFrame, space: Space, seed: int = 1) -> pd.DataFrame:
    """Raw values: far from zero, with effects of age and site, and of the group in a few."""
    rng = np.random.default_rng(seed)
    n, v = len(who), space.n_voxels
    site = pd.factorize(who["site"])[0]
    y = rng.normal(size=(n, v)) + rng.normal(scale=2, size=(3, v))[site]
    y += 0.05 * rng.normal(size=v) * (who["age"].to_numpy()[:, None] - 60)
    y[(who["dx"] == "AD").to_numpy(), :20] -= 1.5
    y = y * np.geomspace(0.01, 100, v) + np.geomspace(1, 900, v)
    return pd.DataFrame(y.astype(np.float32), who.index, space.features)


def with_holes(y: pd.DataFrame) -> pd.DataFrame:
    """Some voxels lack some people, some lack a group, one lacks everybody, one a whole site."""
    y = y.copy()
    rng = np.random.default_rng(8)
    for voxel in range(5, 60):
        y.iloc[rng.choice(len(y), rng.integers(1, 9), replace=False), voxel] = np.nan
    y.iloc[3, 30:50] = np.inf
    y.iloc[:, 60] = np.nan
    return y


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, Space, pd.DataFrame]:
    who, space = people(), sparse()
    return who, space, with_holes(values(who, space))


@pytest.mark.parametrize("adjust", [(), ("age",), tuple(ADJUST)])
def test_every_voxel_equals_statsmodels(data, adjust):
    who, space, y = data
    found = compare_voxels(VoxelTable(y, who, space), "dx", adjust=adjust, contrast=AD_CN).maps
    for voxel in [*range(0, 70), *range(70, space.n_voxels, 9)]:
        table = who.assign(y=y.iloc[:, voxel].astype(float), case=(who["dx"] == "AD") * 1.0)
        table = table[np.isfinite(table["y"])]
        if voxel == 60:
            assert table.empty and np.isnan(found["t"][voxel]) and found["reason"][voxel] == 1
            continue
        fit = smf.ols("y ~ " + " + ".join(["case", *adjust]), table).fit()
        got = [found[name][voxel] for name in ("t", "adjusted_difference", "p", "df")]
        expected = [fit.tvalues["case"], fit.params["case"], fit.pvalues["case"], fit.df_resid]
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(got[1:], expected[1:], rtol=1e-4)
        assert found["n_case"][voxel] == table["case"].sum()
        assert found["n_baseline"][voxel] == (1 - table["case"]).sum()


def test_effects_equal_those_of_the_region_tables(data):
    who, space, y = data
    found = compare_voxels(VoxelTable(y, who, space), "dx", adjust=(), contrast=AD_CN).maps
    some = np.r_[0:80, 90:space.n_voxels:20]
    expected = compare_features(y.iloc[:, some], (who["dx"] == "AD").to_numpy(),
                                np.ones((len(who), 1)))
    for name in ("g", "difference", "t", "df", "p", "n_case", "n_baseline"):
        np.testing.assert_allclose(found[name][some], expected[name].astype(float), rtol=2e-5,
                                   atol=1e-6)
    np.testing.assert_array_equal(found["reason"][some] > 0, expected["reason"] != "")


def test_welch_equals_scipy(data):
    who, space, y = data
    y = y.copy()
    y[who["dx"] == "AD"] *= 3
    found = compare_voxels(VoxelTable(y, who, space), "dx", adjust=(), contrast=AD_CN,
                           test=WelchT())
    clean = y.astype(float).replace([np.inf, -np.inf], np.nan)
    expected = stats.ttest_ind(clean[who["dx"] == "AD"], clean[who["dx"] == "CN"],
                               equal_var=False, nan_policy="omit")
    tested = np.isfinite(found.maps["t"])
    assert not tested[60] and tested.sum() == space.n_voxels - 1
    for name, values_ in (("t", expected.statistic), ("df", expected.df), ("p", expected.pvalue)):
        np.testing.assert_allclose(found.maps[name][tested], np.asarray(values_)[tested],
                                   rtol=2e-5, atol=1e-6)
    with pytest.raises(ComparisonError, match="adjusts for nothing"):
        compare_voxels(VoxelTable(y, who, space), "dx", adjust=["age"], test=WelchT())


def _freedman_lane(y: np.ndarray, case: np.ndarray, design: np.ndarray, order: np.ndarray
                   ) -> float:
    """t of the group after the covariates' residuals were dealt out anew, by least squares."""
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    again = np.empty_like(y)
    again[order] = (y - fitted)[np.arange(len(y))]
    full = np.column_stack([case, design])
    beta, *_ = np.linalg.lstsq(full, fitted + again, rcond=None)
    rest = fitted + again - full @ beta
    rank = np.linalg.matrix_rank(full)
    variance = rest @ rest / (len(y) - rank) * np.linalg.pinv(full.T @ full)[0, 0]
    return float(beta[0] / np.sqrt(variance))


def as_improbable(t: float, df: float, to: float) -> float:
    """T_to^-1(T_df(t)), by SciPy."""
    return float(np.sign(t) * stats.t.isf(stats.t.sf(abs(t), df), to))


def shuffled(model, tile, tested, shuffles) -> np.ndarray:
    """t of every shuffle and column."""
    found = np.full((shuffles.n, tile.shape[1]), np.nan)
    for drawn, some, t in model.shuffled(tile, tested, shuffles):
        found[drawn, some] = t
    np.testing.assert_array_equal(np.isfinite(found).all(axis=0), tested)
    return found


@pytest.mark.parametrize("blocks", ["site", None])
def test_a_shuffle_is_freedman_and_lane_even_where_people_are_missing(data, blocks):
    who, space, y = data
    design = pd.get_dummies(who[ADJUST], dtype=float, drop_first=True)
    design["age"] -= design["age"].mean()
    design.insert(0, "one", 1.0)
    case = (who["dx"] == "AD").to_numpy()
    codes = pd.factorize(who["site"], sort=True)[0] if blocks else np.zeros(len(who), int)
    shuffles = Shuffles(codes, 5, seed=2)
    model = OlsT().model(case, design.to_numpy())
    some = np.r_[0:30, 55:60, 80:90]
    tile = y.iloc[:, some].to_numpy()
    df = model.statistics(tile)["df"]
    found = shuffled(model, tile, np.isfinite(df), shuffles)
    for column in range(len(some)):
        present = np.isfinite(tile[:, column])
        theirs = shuffles.among(present)
        local = (np.cumsum(present) - 1)
        for k in range(5):
            # the person at a place gets group and covariates of another: the other's
            # residual moves the opposite way
            order = np.empty(present.sum(), int)
            order[theirs.places] = local[theirs.sequences(slice(k, k + 1))[0]]
            expected = _freedman_lane(tile[present, column].astype(float), case[present] * 1.0,
                                      design.to_numpy()[present], order)
            expected = as_improbable(expected, df[column], model.people.df)
            assert found[k, column] == pytest.approx(expected, rel=2e-4, abs=2e-4)


def test_a_shuffle_of_welch_is_welch_of_shuffled_groups(data):
    who, _, y = data
    case = (who["dx"] == "AD").to_numpy()
    codes = pd.factorize(who["site"], sort=True)[0]
    shuffles = Shuffles(codes, 4, seed=2)
    tile = y.iloc[:, :30].to_numpy()
    model = WelchT().model(case, np.ones((len(who), 1)))
    found = shuffled(model, tile, np.ones(30, bool), shuffles)
    for column in range(30):
        present = np.isfinite(tile[:, column])
        theirs, one = shuffles.among(present), tile[present, column].astype(float)
        for k in range(4):
            new = np.empty(present.sum(), bool)
            new[theirs.places] = case[theirs.sequences(slice(k, k + 1))[0]]
            expected = stats.ttest_ind(one[new], one[~new], equal_var=False)
            expected = as_improbable(expected.statistic, expected.df, len(who) - 2)
            assert found[k, column] == pytest.approx(expected, rel=2e-4, abs=2e-4)


def test_nilearn_gives_the_same_t_and_alike_family_wise_p(data):
    who, space, _ = data
    y = values(who, space)
    case = (who["dx"] == "AD").to_numpy(float)[:, None]
    covariates = pd.get_dummies(who[ADJUST], dtype=float, drop_first=True).to_numpy()
    for two_sided in (True, False):
        theirs = permuted_ols(case, y.to_numpy(float), covariates, n_perm=1000, random_state=1,
                              two_sided_test=two_sided)
        ours = compare_voxels(VoxelTable(y, who, space), "dx", adjust=ADJUST, contrast=AD_CN,
                              test=OlsT(two_sided), correction=MaxT(1000, blocks=None)).maps
        np.testing.assert_allclose(ours["t"], theirs["t"][0], atol=1e-4)
        # two samples of 1,000: the difference of two shares near .5 has an sd of .022
        assert np.abs(ours["p_fwe"] - 10**-theirs["logp_max_t"][0]).max() < 0.09
    assert (ours["p_fwe"][:20] > 0.5).all()  # the case group lies below: not counted


@pytest.mark.parametrize("correction, null, name", [
    (ClusterExtent(300, None, forming_p=0.02), "size", "cluster_extent"),
    (ClusterMass(300, None, forming_p=0.02), "mass", "cluster_mass")])
def test_clusters_are_nilearns(data, correction, null, name):
    who, space, _ = data
    rng = np.random.default_rng(4)
    smooth = np.array([ndimage.gaussian_filter(rng.normal(size=space.shape), 1)[space.mask]
                       for _ in range(len(who))])
    smooth[(who["dx"] == "AD").to_numpy()] += 0.35 * (space.indices[:, 2] < 3)
    y = pd.DataFrame(smooth, who.index, space.features)
    masker = NiftiMasker(space.mask_img(), verbose=0).fit()
    covariates = pd.get_dummies(who[ADJUST], dtype=float, drop_first=True).to_numpy()
    theirs = permuted_ols((who["dx"] == "AD").to_numpy(float)[:, None], y.to_numpy(float),
                          covariates, n_perm=correction.n_permutations, masker=masker,
                          random_state=1, threshold=0.02)
    found = compare_voxels(VoxelTable(y, who, space), "dx", adjust=ADJUST, contrast=AD_CN,
                           correction=correction)
    np.testing.assert_allclose(found.maps[name], theirs[null][0], rtol=1e-3, atol=1e-3)
    assert found.maps[name].any()
    drawn = found.null.iloc[:, 0]
    hers = theirs[f"h0_max_{null}"][0]
    assert stats.ks_2samp(drawn, hers).pvalue > 0.001
    inside = found.maps[name] != 0
    gap = np.abs(found.maps["p_fwe"] - 10**-theirs[f"logp_max_{null}"][0])[inside].max()
    assert gap < 4 * np.sqrt(0.5 / correction.n_permutations)


@pytest.mark.slow
def test_family_wise_error_is_what_it_says_with_a_site_effect():
    space, hits, runs = sparse((4, 5, 3)), 0, 400
    rng = np.random.default_rng(12)
    for run in range(runs):
        n = 40
        site = rng.integers(0, 3, n)
        dx = np.where(rng.random(n) < np.array([0.2, 0.5, 0.8])[site], "AD", "CN")
        who = pd.DataFrame({"dx": dx, "site": site.astype(str)}, [f"s{i}" for i in range(n)])
        y = rng.standard_t(4, size=(n, space.n_voxels)) + 1.5 * site[:, None]
        # not adjusted for site: only the blocks keep its effect from looking like disease
        found = compare_voxels(VoxelTable(y, who, space), "dx", adjust=["site"] if run % 2 else (),
                               contrast=AD_CN, correction=MaxT(99, "site", seed=run))
        hits += found.significant().any()
    low, high = stats.binom.ppf([0.0005, 0.9995], runs, 0.05)
    assert low <= hits <= high


@pytest.fixture(scope="module")
def wide() -> tuple[pd.DataFrame, Space, np.ndarray]:
    """More voxels than three tiles."""
    who, space = people(), sparse((29, 23, 31), 0.7)
    y = np.random.default_rng(6).normal(size=(len(who), space.n_voxels)).astype(np.float32)
    y[7, 100:4500] = np.nan
    y[2, 9000:9003] = np.nan
    blob = ((space.indices - [14, 11, 15])**2).sum(axis=1) < 36
    y[np.ix_((who["dx"] == "AD").to_numpy(), blob)] -= 1.9
    return who, space, y


@pytest.mark.parametrize("test, correction", [
    (OlsT(), MaxT(60)), (WelchT(), MaxT(60)), (OlsT(False), ClusterMass(30)),
    (OlsT(), BenjaminiHochberg())])
def test_not_a_bit_depends_on_how_much_is_read_at_once(wide, test, correction, monkeypatch,
                                                       tmp_path):
    who, space, y = wide
    assert space.n_voxels > 3 * voxel_table.TILE
    adjust = ADJUST if isinstance(test, OlsT) else ()

    def run(values_):
        return compare_voxels(VoxelTable(values_, who, space), "dx", adjust=adjust, test=test,
                              contrast=AD_CN, correction=correction)

    found = [run(y)]
    stored = StoredTable.create(tmp_path / "t1", who.index, space.features)
    stored.write(0, y)
    found.append(run(StoredTable.open(tmp_path / "t1")))
    monkeypatch.setattr(voxel_table, "COLUMNS", voxel_table.TILE)
    monkeypatch.setattr(voxel_table, "_ROWS", 10)
    found.append(run(y))
    for other in found[1:]:
        for name, map_ in found[0].maps.items():
            np.testing.assert_array_equal(other.maps[name], map_)
        pd.testing.assert_frame_equal(other.null, found[0].null, check_exact=True)


def test_many_people_are_read_fewer_voxels_at_a_time(wide, monkeypatch):
    who, space, y = wide
    table = VoxelTable(y, who, space)
    assert table.width == voxel_table.COLUMNS
    monkeypatch.setattr(voxel_table, "READ_VALUES", len(who) * 9000)
    assert table.width == 8192
    monkeypatch.setattr(voxel_table, "READ_VALUES", 10)
    assert table.width == voxel_table.TILE


@pytest.mark.parametrize("correction", [BenjaminiHochberg(), MaxT(200), ClusterMass(100)])
def test_a_planted_blob_is_found(wide, correction):
    who, space, y = wide
    blob = ((space.indices - [14, 11, 15])**2).sum(axis=1) < 36
    found = compare_voxels(VoxelTable(y, who, space), "dx", adjust=ADJUST, contrast=AD_CN,
                           correction=correction)
    marked = found.significant()
    dice = 2 * (marked & blob).sum() / (marked.sum() + blob.sum())
    assert dice > (0.6 if isinstance(correction, MaxT) else 0.85)
    peak = found.table.iloc[0]
    assert peak["t"] < 0 and peak["g_low"] < peak["g"] < peak["g_high"] < 0
    centre = space.affine @ [14, 11, 15, 1]
    assert np.abs(peak[["x", "y", "z"]].to_numpy(float) - centre[:3]).max() < 24
    assert (found.maps["g"][blob] < 0).mean() > 0.99


def test_rows_are_found_by_id_not_by_position(wide, tmp_path):
    who, space, y = wide
    expected = compare_voxels(VoxelTable(y, who, space), "dx", adjust=["age"], contrast=AD_CN)
    mixed = np.random.default_rng(0).permutation(len(who))
    stored = StoredTable.create(tmp_path / "t1", [*who.index[mixed], "stranger"], space.features)
    stored.write(0, np.vstack([y[mixed], np.ones(space.n_voxels)]))
    found = compare_voxels(VoxelTable(stored, who, space), "dx", adjust=["age"], contrast=AD_CN)
    for name in ("t", "g", "n_case"):
        np.testing.assert_allclose(found.maps[name], expected.maps[name], rtol=1e-4, atol=1e-5)
    fewer = VoxelTable(stored.select(list(who.index[4:])), who, space)
    assert len(fewer) == len(who) - 4 and "left out 4 people without values" in fewer.notes[0]


def test_what_cannot_be_tested_says_why():
    who, space = people(20), sparse((3, 2, 4), 1.1)
    case = (who["dx"] == "AD").to_numpy()
    y = np.random.default_rng(0).normal(size=(20, space.n_voxels))
    y[:, 0] = 3.7
    y[:, 1] = np.where(case, 5.1, 2.2)
    y[case, 2] = np.nan
    y[:, 3] = 2 * who["age"] - 7
    y[np.flatnonzero(case)[2:], 4] = np.nan
    y[np.flatnonzero(~case)[3:], 4] = np.nan
    people_ = who.assign(a=y[:, 5], b=y[:, 6])
    y[np.flatnonzero(case & (who["sex"] == "F").to_numpy()), 7] = np.nan
    y[np.flatnonzero(~case & (who["sex"] == "M").to_numpy()), 7] = np.nan
    found = compare_voxels(VoxelTable(y, people_, space), "dx", adjust=["age", "sex", "a", "b"],
                           contrast=AD_CN, correction=MaxT(19, None))
    assert found.maps["reason"][:8].tolist() == [2, 2, 1, 5, 4, 5, 5, 3]
    untested = found.maps["reason"] > 0
    np.testing.assert_array_equal(np.isnan(found.maps["t"]), untested)
    np.testing.assert_array_equal(np.isnan(found.maps["p_fwe"]), untested)
    assert found.untested().sum() == 8 and "2 voxels were not tested: no spread" in found.summary()


def test_overlap_maps_are_shares_and_find_where_patients_pile_up(wide):
    who, space, y = wide
    table = VoxelTable(y, who, space)
    found = overlap_voxels(table, "dx", direction="below", contrast=AD_CN,
                           correction=MaxT(200))
    with np.errstate(invalid="ignore"):
        far = np.where(np.isnan(y), np.nan, y < -1.96)
    case = (who["dx"] == "AD").to_numpy()
    np.testing.assert_allclose(found.maps["share_case"], np.nanmean(far[case], axis=0), atol=1e-6)
    np.testing.assert_allclose(found.maps["share_baseline"], np.nanmean(far[~case], axis=0),
                               atol=1e-6)
    np.testing.assert_array_equal(found.maps["difference"] == 0,
                                  found.maps["share_case"] == found.maps["share_baseline"])
    flat = np.nanmax(far, axis=0) == 0
    np.testing.assert_array_equal(np.isnan(found.maps["t"]), flat)
    blob = ((space.indices - [14, 11, 15])**2).sum(axis=1) < 36
    marked = found.significant()
    assert marked[blob].mean() > 0.05 and not marked[~blob].any()
    assert "share of people with z < -1.96" in found.summary()
    assert len(found.table) and {"share_case", "share_baseline", "p_fwe"} < set(found.table)
    with pytest.raises(ComparisonError, match="by permutation"):
        overlap_voxels(table, "dx", correction=BenjaminiHochberg())
    with pytest.raises(CohortError, match="direction is both"):
        overlap_voxels(table, "dx", direction="left")


@pytest.mark.parametrize("options, words", [
    ({"group": "scanner"}, "'scanner' is not a column"),
    ({"group": "site"}, "site has 3 values .*contrast=\\('north', 'south'\\)"),
    ({"contrast": ("AD", "MCI")}, "two values of dx.*AD, CN"),
    ({"adjust": ["educaton"]}, "cannot adjust for 'educaton'"),
    ({"correction": MaxT(10, "scanner")}, "blocks 'scanner' is not a column.*blocks=None"),
    ({"correction": MaxT(10, "dx")}, "no dx has people of both groups"),
    ({"adjust": ["twin"]}, "the covariates tell the groups apart completely")])
def test_what_cannot_be_answered_is_refused_with_advice(data, options, words):
    who, space, y = data
    table = VoxelTable(y, who.assign(twin=who["dx"] + "x"), space)
    with pytest.raises(ComparisonError, match=words):
        compare_voxels(table, **{"group": "dx", "adjust": (), **options})


def test_tables_that_do_not_fit_are_refused(data):
    who, space, y = data
    with pytest.raises(SpaceMismatchError, match="are not the .* voxels"):
        VoxelTable(y.iloc[:, ::-1], who, space)
    with pytest.raises(CohortError, match="a row for each of the 47"):
        VoxelTable(y.to_numpy()[:-1], who, space)
    with pytest.raises(CohortError, match="twice"):
        VoxelTable(y, pd.concat([who, who.iloc[:2]]), space)
    with pytest.raises(CohortError, match="nobody is in both"):
        VoxelTable(y, who.rename(index=lambda name: name + "x"), space)
    with pytest.raises(ComparisonError, match="n_permutations"):
        MaxT(0)
    with pytest.raises(ComparisonError, match="forming_p"):
        ClusterMass(forming_p=1.0)


def test_few_ways_to_deal_out_groups_and_unadjusted_blocks_are_noted():
    who = pd.DataFrame({"dx": ["AD", "AD", "CN", "CN", "CN"], "site": "one"}, list("abcde"))
    space = sparse((2, 3, 2), 1.1)
    y = np.random.default_rng(0).normal(size=(5, space.n_voxels))
    found = compare_voxels(VoxelTable(y, who, space), "dx", contrast=AD_CN, correction=MaxT(99))
    assert any("10 ways only: each was taken once" in note for note in found.notes)
    assert any("not adjusted for it" in note for note in found.notes)
    # one deal in ten is the one that was seen, whatever the rounding says of it
    assert found.maps["p_fwe"].min() >= 0.1 and len(found.null) == 9

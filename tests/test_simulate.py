"""Simulated cohorts: laws of the generator, and the truth it states.

Outside witnesses: ordinary least squares (statsmodels) for the covariates, binomial bounds (SciPy)
for missing data, the printed equations evaluated literally. Without a witness: that the sizes of
effects resemble real people; they follow the literature only roughly.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from normfuse import population, simulate
from normfuse.atlas import load_atlas
from normfuse.cohort import Cohort
from normfuse.errors import CohortError, OutputExistsError
from normfuse.simulate import simulate_cohort, write_cohort

SEED = 7


@pytest.fixture(scope="module")
def made():
    return simulate_cohort(seed=SEED)


@pytest.fixture(scope="module")
def many():
    """Enough healthy people to see the generator's laws, all measured."""
    return simulate_cohort(3000, 0, seed=SEED, missing=0.0)


def table(cohort):
    return pd.concat(cohort.features, axis=1, names=["modality", "feature"])


def residuals(made):
    """Distance from the true expectation, in true SD."""
    return (table(made.cohort) - made.truth.expected) / made.truth.residual_sd


# --- randomness ------------------------------------------------------------------------------

def test_the_same_seed_gives_the_same_cohort(made):
    again = simulate_cohort(seed=SEED)
    pd.testing.assert_frame_equal(again.cohort.subjects, made.cohort.subjects)
    pd.testing.assert_frame_equal(table(again.cohort), table(made.cohort))
    for part in ("planted", "effect", "expected", "factors"):
        pd.testing.assert_frame_equal(getattr(again.truth, part), getattr(made.truth, part))


def test_another_seed_gives_other_people_and_another_population(made):
    other = simulate_cohort(seed=SEED + 1)
    assert not (table(other.cohort) == table(made.cohort)).any(axis=None)
    assert (other.truth.residual_sd != made.truth.residual_sd).all()
    assert not other.cohort.subjects["age"].equals(made.cohort.subjects["age"])


def test_another_share_of_missing_data_hides_cells_and_changes_none(made):
    whole = table(simulate_cohort(seed=SEED, missing=0.0).cohort)
    assert whole.notna().all(axis=None)
    some = table(made.cohort)
    pd.testing.assert_frame_equal(some, whole.where(some.notna()))


# --- the planted truth -----------------------------------------------------------------------

def test_planted_cells_are_shifted_by_exactly_the_stated_effect(made):
    healthy = simulate_cohort(seed=SEED, effect=0.0)
    shift = (table(made.cohort) - table(healthy.cohort)) / made.truth.residual_sd
    seen = table(made.cohort).notna()
    np.testing.assert_allclose(shift.to_numpy()[seen], made.truth.effect.to_numpy()[seen],
                               atol=1e-9)
    assert not healthy.truth.planted.any(axis=None)
    pd.testing.assert_frame_equal(made.truth.planted, made.truth.effect != 0)


def test_controls_carry_nothing(made):
    controls = made.cohort.reference_subjects().ids
    assert len(controls) == 600
    assert not made.truth.planted.loc[controls].any(axis=None)


def test_planted_cells_deviate_and_their_neighbours_do_not(made):
    z, planted = residuals(made), made.truth.planted
    ill = made.cohort.subjects["diagnosis"] != "CN"
    for modality, sign in {"t1": -1, "dti": -1, "pet": 1}.items():
        hit = z[modality].where(planted[modality]).loc[ill].stack().dropna()
        wanted = made.truth.effect[modality].where(planted[modality]).loc[ill].stack().dropna()
        assert (np.sign(wanted) == sign).all()
        # People share factors, so the error of a mean is estimated over people, not cells.
        error = (z - made.truth.effect)[modality].where(planted[modality]).loc[ill].mean(axis=1)
        assert abs(stats.ttest_1samp(error.dropna(), 0.0).statistic) < 4
        assert abs(hit.mean()) > 0.7
        spared = z[modality].where(~planted[modality]).loc[ill].mean(axis=1).dropna()
        assert abs(stats.ttest_1samp(spared, 0.0).statistic) < 4


def test_every_region_of_the_disease_exists_and_is_used(made):
    for modality, (_, parts) in simulate.DISEASE.items():
        used = made.truth.planted[modality].any()
        used = set(used.index[used])
        for part in parts.split():
            sides = {f for f in used if f.split("-")[-1] == part}
            assert len(sides) == (1 if part.startswith("CC_") else 2), (modality, part)
        assert len(used) == sum(1 if p.startswith("CC_") else 2 for p in parts.split())


def test_patients_differ_and_mci_is_weaker_and_smaller(made):
    diagnosis, truth = made.cohort.subjects["diagnosis"], made.truth
    count = truth.planted.sum(axis=1)
    size = truth.effect.abs().where(truth.planted)
    assert diagnosis.value_counts().to_dict() == {"CN": 600, "MCI": 60, "AD": 60}
    assert 1.0 <= size[diagnosis == "AD"].min(axis=None)
    assert size[diagnosis == "AD"].max(axis=None) <= 1.5
    assert size[diagnosis == "MCI"].max(axis=None) <= 0.9
    assert count[diagnosis == "MCI"].mean() < 0.7 * count[diagnosis == "AD"].mean()
    assert count[diagnosis != "CN"].min() > 0
    patterns = truth.planted[diagnosis != "CN"].drop_duplicates()
    assert len(patterns) == 120
    one_sided = (truth.planted[("t1", "Left-Hippocampus")]
                 ^ truth.planted[("t1", "Right-Hippocampus")])
    assert one_sided.any() and not one_sided[diagnosis != "CN"].all()


# --- covariates ------------------------------------------------------------------------------

def test_least_squares_finds_the_stated_directions(many):
    people, features = many.cohort.subjects, table(many.cohort)
    slopes = {}
    for modality, feature in features.columns[::7]:
        data = people.assign(value=features[(modality, feature)])
        fit = smf.ols("value ~ age + sex + C(site)", data).fit()
        slopes[modality, feature] = (fit.tvalues["age"], fit.tvalues["sex[T.M]"], fit.f_pvalue)
    found = pd.DataFrame(slopes, index=["age", "male", "p"]).T
    stated = pd.Series({"t1": -1, "dti": -1, "pet": 1})
    ageing = found["age"] * stated[found.index.get_level_values(0)].to_numpy()
    assert (ageing > 0).all() and (ageing > 3).mean() > 0.9
    assert (found.loc["t1", "male"] > 3).all()
    assert (found["p"] < 1e-4).all()


def test_the_expectation_bends_with_age_and_steps_between_sites(many):
    """Least squares on the noise-free expectation leaves nothing over."""
    people, expected = many.cohort.subjects, many.truth.expected
    t = (people["age"].to_numpy() - 45) / 45
    design = np.column_stack([t, t**2, people["sex"] == "M", pd.get_dummies(people["site"])])
    design = design.astype(float)
    found, *_ = np.linalg.lstsq(design, expected.to_numpy(), rcond=None)
    np.testing.assert_allclose(design @ found, expected, rtol=1e-9)
    found = pd.DataFrame(found, columns=expected.columns)
    for modality, sign in {"t1": -1, "dti": -1, "pet": 1}.items():
        assert (sign * found.loc[:1, modality] > 0).all(axis=None)
    offsets = (found.loc[3:] - found.loc[3:].mean()) / many.truth.residual_sd
    assert offsets.abs().max(axis=None) > 0.3 and offsets.std().median() < 0.8


def test_patients_are_older_and_ages_stay_in_range(made):
    people = made.cohort.subjects
    ill = people["diagnosis"] != "CN"
    assert people["age"].between(45, 90).all()
    assert 5 < people["age"][ill].mean() - people["age"][~ill].mean() < 10
    assert set(people["site"]) == set(people["site"][~ill]) == set(population.SITES)


def test_the_printed_equations_evaluated_literally():
    made_up = population.Population.draw(load_atlas("dk"), np.random.default_rng(11))
    people = pd.DataFrame({"age": [45.0, 90.0, 70.5], "sex": ["M", "F", "M"],
                           "site": ["B", "A", "D"]}, index=["x", "y", "z"])
    factors = pd.DataFrame(np.random.default_rng(2).standard_normal((3, 9)), index=people.index,
                           columns=made_up.loadings.columns)
    expected = made_up.expected(people)
    variation = made_up.variation(factors, np.random.default_rng(5))
    noise = np.random.default_rng(5).standard_normal((3, 239))
    spread = np.sqrt(stats.norm.expect(lambda s: np.tanh(s / 2) ** 2))
    for i, who in enumerate(people.index):
        t = (people.loc[who, "age"] - 45) / 45
        male, site = people.loc[who, "sex"] == "M", people.loc[who, "site"]
        for j, feature in list(enumerate(made_up.norms.index))[::17]:
            n, w = made_up.norms.loc[feature], made_up.loadings.loc[feature]
            level = n.level * (1 + n.linear * t + n.quadratic * t**2 + n.male * male)
            assert expected.loc[who, feature] == pytest.approx(level + n.sd * n[f"site_{site}"])
            g = np.tanh(w @ factors.loc[who] / 2) / spread
            assert variation.loc[who, feature] == pytest.approx(
                np.sqrt(0.5) * g + np.sqrt(0.5) * noise[i, j])


# --- variation -------------------------------------------------------------------------------

def test_healthy_residuals_have_mean_zero_and_sd_one(many):
    z = residuals(many)
    assert z.mean().abs().max() < 5 / np.sqrt(3000)
    assert (z.std() - 1).abs().max() < 5 / np.sqrt(2 * 3000)


def test_values_are_those_of_brains(many):
    features, truth = table(many.cohort), many.truth
    share = truth.residual_sd / truth.expected.mean()
    assert share["t1"].between(0.075, 0.16).all()
    assert share[["dti", "pet"]].between(0.04, 0.1).all()
    assert features["t1"].min(axis=None) > 0
    assert 0.15 < features["dti"].min(axis=None) and features["dti"].max(axis=None) < 0.8
    assert 0.6 < features["pet"].min(axis=None) and features["pet"].max(axis=None) < 1.9
    regions = load_atlas("dk").regions.set_index("name")
    ratio = truth.expected["t1"].mean() / (1000 * regions.loc[features["t1"].columns, "volume_ml"])
    assert ratio.between(0.75, 1.15).all()


def test_shared_factors_tie_the_modalities_together(many):
    z, factors = residuals(many), many.truth.factors
    across = z.corr().loc["t1", "pet"].to_numpy()
    shuffled = z["pet"].sample(frac=1, random_state=1).set_axis(z.index)
    chance = pd.concat({"t1": z["t1"], "pet": shuffled}, axis=1).corr().loc["t1", "pet"].to_numpy()
    assert np.sqrt((across**2).mean()) > 5 * np.sqrt((chance**2).mean())
    shared = [name for name in factors if name.startswith("shared")]
    rest = z - factors[shared].to_numpy() @ np.linalg.lstsq(
        factors[shared].to_numpy(), z.to_numpy(), rcond=None)[0]
    left = rest.corr().loc["t1", "pet"].to_numpy()
    assert np.sqrt((left**2).mean()) < 2 * np.sqrt((chance**2).mean())


def test_private_factors_stay_in_their_modality(many):
    z, factors = residuals(many), many.truth.factors
    for name in ("t1-1", "dti-2", "pet-1"):
        home = name.split("-")[0]
        strength = z.apply(lambda column: abs(column.corr(factors[name])))
        assert strength[home].mean() > 0.15
        assert strength.drop(index=home, level=0).max() < 5 / np.sqrt(3000)


def test_variation_is_bilateral(many):
    correlation = residuals(many)["t1"].corr()
    left = [f for f in correlation if f.startswith("ctx-lh")]
    pairs = correlation.loc[left, [f.replace("-lh-", "-rh-") for f in left]].to_numpy()
    twins = np.diag(pairs)
    assert twins.mean() > 0.25
    assert (twins > np.abs(pairs).mean(axis=1)).mean() > 0.9


# --- missing data ----------------------------------------------------------------------------

def test_missing_shares_lie_within_binomial_bounds(made):
    present = made.cohort.present
    assert present["t1"].all()
    for modality, share in {"dti": 0.15, "pet": 0.3}.items():
        low, high = stats.binom.interval(1 - 1e-4, len(present), share)
        assert low <= (~present[modality]).sum() <= high
    scanned = pd.concat([made.cohort.features[m].loc[present[m]].stack(future_stack=True)
                         for m in present])
    low, high = stats.binom.interval(1 - 1e-4, len(scanned), 0.005)
    assert low <= scanned.isna().sum() <= high


def test_missing_depends_on_nothing(made):
    people, present = made.cohort.subjects, made.cohort.present
    for modality in ("dti", "pet"):
        scanned = present[modality]
        assert stats.ks_2samp(people["age"][scanned], people["age"][~scanned]).pvalue > 1e-3
        counts = pd.crosstab(people["diagnosis"], scanned)
        assert stats.chi2_contingency(counts).pvalue > 1e-3


# --- requests and files ----------------------------------------------------------------------

@pytest.mark.parametrize("request_, message", [
    ({"n_reference": 9}, "at least 10 reference people"),
    ({"n_patients": -1}, "got 600 and -1"),
    ({"missing": 1.0}, "from 0 to below 1; got 1.0"),
    ({"missing": -0.1}, "got -0.1"),
    ({"effect": -1.0}, "0 or more"),
    ({"effect": float("nan")}, "got nan"),
])
def test_impossible_requests_are_refused(request_, message):
    with pytest.raises(CohortError, match=message):
        simulate_cohort(**request_)


def test_a_written_cohort_reads_back(tmp_path):
    cohort = simulate_cohort(31, 13, seed=2).cohort
    file = write_cohort(cohort, tmp_path / "new" / "demo")
    back = Cohort.read(file)
    pd.testing.assert_frame_equal(table(back), table(cohort), check_names=False, rtol=1e-12)
    pd.testing.assert_frame_equal(back.subjects, cohort.subjects, check_dtype=False)
    assert back.modalities == cohort.modalities
    assert (back.covariates, back.reference) == (cohort.covariates, cohort.reference)
    absent = cohort.ids[~cohort.present["pet"]]
    assert len(absent) and not pd.read_csv(file.parent / "pet.csv", index_col=0).index.isin(
        absent).any()


def test_nothing_is_overwritten(tmp_path):
    cohort = simulate_cohort(12, 3).cohort
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="already there"):
        write_cohort(cohort, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_awkward_words_survive_the_file_and_unsafe_names_are_refused(tmp_path):
    people = pd.DataFrame({"Group, \"x\"": ["CN", "a\tb"], "älter": [61.5, 70.25]},
                          index=["s2", "s1"])
    block = pd.DataFrame({"left, \"insula\"": [1.0, np.nan], "b": [0.1, 0.3]}, index=["s1", "s2"])
    cohort = Cohort.from_frames(people, {"t1": block}, covariates={"älter": "continuous"},
                                reference="älter < 65", units={"t1": "mm\"3"})
    back = Cohort.read(write_cohort(cohort, tmp_path / "a"))
    pd.testing.assert_frame_equal(back.features["t1"], cohort.features["t1"])
    assert back.reference_subjects().ids.tolist() == ["s2"]
    assert back.modalities == cohort.modalities
    with pytest.raises(CohortError, match=r"'\.\./t1': files are named after it"):
        Cohort.from_frames(people, {"../t1": block}, covariates={})

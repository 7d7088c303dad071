"""A new site and centiles: shrinkage, what stays as it was, and what is refused."""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import normfuse as nf
from normfuse.errors import CohortError
from normfuse.kinds import Covariates

KINDS = {"age": "continuous", "sex": "categorical", "site": "site"}
PLAN = nf.TrainingPlan(max_epochs=4, warmup=1, progress=False)


def cohort(n, sites, seed, *, shift=0.0, stretch=1.0):
    """Eight features of one modality; sites differ by offsets of sd .5 and scales of sd .15."""
    rng, of_site = np.random.default_rng(seed), np.random.default_rng(7)
    effects = {f"s{k}": (0.5 * of_site.normal() + 0.3 * of_site.normal(size=8),
                         0.15 * of_site.normal()) for k in range(12)}
    who = pd.DataFrame({"age": rng.uniform(20, 80, n), "sex": rng.choice(["F", "M"], n),
                        "site": rng.choice(sites, n)}, index=[f"p{seed}-{k}" for k in range(n)])
    y = -0.02 * (who[["age"]].to_numpy() - 50) + rng.normal(size=(n, 8)) * stretch * np.exp(
        [[effects[s][1]] for s in who["site"]]) + [effects[s][0] + shift for s in who["site"]]
    block = pd.DataFrame(y, who.index, [f"r{k}" for k in range(8)])
    return nf.Cohort.from_frames(who, {"ct": block}, covariates=KINDS)


@pytest.fixture(scope="module")
def model():
    return nf.NormativeModel(n_latent=2, plan=PLAN).fit(
        cohort(500, [f"s{k}" for k in range(8)], 1))


def z_of(model, people, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return model.deviations(people, kind="covariates", **options).z.to_numpy()


class TestNewSite:
    def test_an_unknown_site_is_refused_with_the_way_out(self, model):
        with pytest.raises(CohortError, match=r"model.adapt\(controls\).*unseen_site='pooled'"):
            model.deviations(cohort(20, ["s9"], 2))

    def test_pooled_scoring_is_wider_and_adapting_is_right(self, model):
        people = cohort(400, ["s9"], 3, shift=0.6)
        pooled = z_of(model, people, unseen_site="pooled")
        noted = model.deviations(people, unseen_site="pooled").reference.notes
        assert any("400 people of sites that the model does not know" in n for n in noted)
        assert not any("of any site" in n for n in model.fitted.reference.notes)
        with pytest.warns(UserWarning, match="learned from 30 people; below 50"):
            adapted = model.adapt(cohort(30, ["s9"], 4, shift=0.6))
        z = z_of(adapted, people)
        assert abs(z.mean()) < 0.25 < pooled.mean()
        assert (np.abs(z) > 1.96).mean() == pytest.approx(0.05, abs=0.02)
        assert pooled.std() < z.std()

    def test_a_model_is_evaluated_at_an_unknown_site_as_it_scores_there(self, model):
        people = cohort(60, ["s9"], 3, shift=0.6)
        with pytest.raises(CohortError, match="unseen_site='pooled'"):
            nf.evaluate(model, people, kind="covariates")
        with pytest.raises(ValueError, match="unseen_site is 'pooled' or None; got 'any'"):
            nf.evaluate(model, people, unseen_site="any")
        found = nf.evaluate(model, people, kind="covariates", unseen_site="pooled")
        z = z_of(model, people, unseen_site="pooled")
        np.testing.assert_allclose(found.features["mean"], z.mean(0))
        assert found.notes[0].startswith("60 people of sites that the model does not know")

    def test_more_people_leave_less_error(self, model):
        people = cohort(600, ["s10"], 5, shift=-0.5)
        known = cohort(600, ["s0"], 5)  # of whom the reference had 60 or so
        errors, at_known = [], np.abs(z_of(model, known).mean(0)).mean()
        for n in (10, 40, 160):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                adapted = model.adapt(cohort(n, ["s10"], 6, shift=-0.5))
            errors.append(np.abs(z_of(adapted, people).mean(0)).mean())
        assert errors[2] < errors[0] and errors[2] < 1.25 * at_known

    def test_other_sites_keep_their_z(self, model):
        people = cohort(50, ["s0", "s3"], 8)
        adapted = model.adapt(cohort(60, ["s9"], 4))
        np.testing.assert_allclose(z_of(adapted, people), z_of(model, people), atol=1e-12)
        assert any("s9 was added with 60" in n for n in adapted.fitted.reference.notes)
        assert not any("s9" in n for n in model.fitted.reference.notes)

    def test_an_adapted_model_can_be_saved(self, model, tmp_path):
        people = cohort(30, ["s9", "s1"], 8)
        adapted = model.adapt(cohort(60, ["s9"], 4))
        again = nf.NormativeModel.load(adapted.save(tmp_path / "model"))
        np.testing.assert_array_equal(z_of(again, people), z_of(adapted, people))

    def test_a_site_is_learned_once_and_the_way_out_is_told(self, model):
        adapted = model.adapt(cohort(60, ["s9"], 4))
        with pytest.raises(CohortError, match="s9 was added by an earlier adapt.*adapt the "
                                              "original model again, with everybody of that"):
            adapted.adapt(cohort(60, ["s9"], 12))
        with pytest.raises(CohortError, match="knows site s1, s9 already; s9 was added"):
            adapted.adapt(cohort(80, ["s9", "s1"], 12))

    @pytest.mark.parametrize("n, site, message", [(9, "s9", "has 9 healthy subjects; 10 at least"),
                                                  (40, "s1", "knows site s1 already")])
    def test_refusals(self, model, n, site, message):
        with pytest.raises(CohortError, match=message):
            model.adapt(cohort(n, [site], 3))


class TestCentiles:
    def test_a_persons_z_is_the_centile_of_their_value(self, model):
        people = cohort(12, ["s0", "s2"], 9)
        z = z_of(model, people)
        for k, subject in enumerate(people.ids):
            who = people.subjects.loc[subject]
            share = float(stats.norm.cdf(z[k, 3]))
            found = model.centiles("r3", shares=[share], age=who["age"], sex=who["sex"],
                                   site=who["site"])
            assert found.iloc[0, 0] == pytest.approx(people.features["ct"].loc[subject, "r3"],
                                                     abs=0.01)

    def test_shares_of_new_healthy_people(self, model):
        people = cohort(1500, ["s0", "s1", "s2"], 10)
        found = pd.concat([model.centiles("r0", shares=[0.05, 0.5, 0.95], age=w.age, sex=w.sex,
                                          site=w.site) for w in
                           people.subjects.iloc[:300].itertuples()])
        y = people.features["ct"]["r0"].to_numpy()[:300, None]
        shares = (y < found.to_numpy()).mean(0)
        np.testing.assert_allclose(shares, [0.05, 0.5, 0.95], atol=0.06)

    def test_a_grid_of_covariates_and_an_open_site(self, model):
        found = model.centiles("r0", age=[30, 50, 70], sex=["F", "M"])
        assert found.shape == (6, 5) and found.index.names == ["age", "sex", "site"]
        assert (found.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
        at_site = model.centiles("r0", age=50, sex="F", site="s0")
        width = found.loc[(50, "F")].iloc[0]
        assert width[0.95] - width[0.05] > at_site.iloc[0][0.95] - at_site.iloc[0][0.05]

    @pytest.mark.parametrize("asked, message", [
        ({"feature": "r99", "age": 50, "sex": "F"}, "no feature 'r99'"),
        ({"feature": "r0", "age": 50}, "centiles depend on sex"),
        ({"feature": "r0", "age": 50, "sex": "F", "height": 2}, "height are no covariates"),
        ({"feature": "r0", "age": 50, "sex": "F", "site": "mars"},
         "site='mars' was asked for; the model knows 's0'.*leave site out for the average one"),
        ({"feature": "r0", "age": 50, "sex": ["F", "female"]},
         "sex='female' was asked for; the model knows 'F', 'M'$"),
        ({"feature": "r0", "age": [50, "old"], "sex": "F"}, "age is a finite number"),
        ({"feature": "r0", "age": np.nan, "sex": "F"}, "age=nan was asked for"),
        ({"feature": "R-0", "age": 50, "sex": "F"}, "no feature 'R-0' .perhaps 'R-0' is 'r0'"),
    ])
    def test_refusals(self, model, asked, message):
        with pytest.raises(CohortError, match=message) as refused:
            model.centiles(**asked)
        assert "subjects" not in str(refused.value)

    def test_an_age_that_nobody_had_is_extrapolated_with_a_warning(self, model):
        with pytest.warns(UserWarning, match="age=90, 95 lies outside the training people's 20"):
            model.centiles("r0", age=[50, 90, 95], sex="F")


def test_covariates_kind_is_blind_to_the_rest_of_the_brain(model):
    people = cohort(20, ["s0"], 11)
    changed = people.features["ct"].assign(r5=people.features["ct"]["r5"] + 3)
    other = nf.Cohort.from_frames(people.subjects, {"ct": changed}, covariates=KINDS)
    others = [k for k in range(8) if k != 5]
    a, b = (model.deviations(c, kind=Covariates()).z.to_numpy()[:, others]
            for c in (people, other))
    np.testing.assert_array_equal(a, b)

"""Imputed modalities: marked, never learned from, never scored as if observed.

Witnesses: people drawn from a Gaussian law whose conditional means and variances are known in
closed form; z of people measured with one modality, scored by the model itself, in the place of
every quadrature; the same cohort without the imputed cells, bit by bit. That real imputers do not
exaggerate has no witness here: see benchmarks/imputation.py.
"""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import normfuse as nf
from normfuse.analyses import Report, compare_groups
from normfuse.errors import CohortError, ModelFileError
from normfuse.imaging.learning import Roles
from normfuse.imaging.synthesis import ImageSynthesiser
from normfuse.imputation_check import check_imputation
from normfuse.kinds import Covariates, Focal
from normfuse.networks.pyramid import Pyramid
from normfuse.testing import tiny_cohort, tiny_images

REGIONS = ("b0", "b1", "b2", "b3", "b4")
KINSHIP = 0.6  # correlation of a region of PET with what t1 says of it


def people(n: int, seed: int) -> tuple[nf.Cohort, pd.DataFrame]:
    """t1 and pet of healthy people without covariates' effects; E[pet | t1] of each."""
    rng = np.random.default_rng(seed)
    ids = [f"sub-{seed}{i:04d}" for i in range(n)]
    t1 = pd.DataFrame(rng.normal(size=(n, 4)), ids, [f"a{j}" for j in range(4)])
    told = np.column_stack([t1, t1.to_numpy()[:, :1]])
    pet = KINSHIP * told + np.sqrt(1 - KINSHIP ** 2) * rng.normal(size=(n, 5))
    table = pd.DataFrame({"age": rng.uniform(20, 80, n)}, ids)
    cohort = nf.Cohort.from_frames(
        table, {"t1": 9 + t1, "pet": pd.DataFrame(1 + 0.1 * pet, ids, list(REGIONS))},
        covariates={"age": "continuous"}, reference="age > 0")
    return cohort, pd.DataFrame(1 + 0.1 * KINSHIP * told, ids, cohort.modality("pet").features)


class Exact:
    """E[pet | t1] and the sd of what is left, times a factor."""

    def __init__(self, factor=1.0, taught=()):
        self.sd, self.taught = 0.1 * np.sqrt(1 - KINSHIP ** 2) * factor, taught

    def impute(self, cohort):
        t1 = cohort.features["t1"].to_numpy() - 9
        mean = pd.DataFrame(1 + 0.1 * KINSHIP * np.column_stack([t1, t1[:, :1]]), cohort.ids,
                            cohort.modality("pet").features)
        mean = mean[~cohort.present["pet"] & cohort.present["t1"]]
        return cohort.with_imputed({"pet": mean}, {"pet": 0 * mean + self.sd}, by="Exact()",
                                   learned_from=self.taught)


@pytest.fixture(scope="module")
def model():
    plan = nf.TrainingPlan(max_epochs=3, warmup=1, progress=False)
    return nf.NormativeModel(n_latent=4, plan=plan, kinds=(Covariates(), Focal())).fit(
        people(400, 0)[0])


@pytest.fixture(scope="module")
def new():
    return people(300, 1)[0]


@pytest.fixture(scope="module")
def filled(new):
    """Every second person without PET, which is imputed."""
    half = new.select(new.ids[::2]).without("pet").join(new.select(new.ids[1::2]))
    return Exact().impute(half)


def scored_alone(model, ids, values):
    """z of people measured with PET only, if it were these values."""
    subjects = pd.DataFrame({"age": values.pop("age")}, ids)
    cohort = nf.Cohort.from_frames(subjects, {"pet": pd.DataFrame(values).set_axis(ids)},
                                   covariates={"age": "continuous"})
    return model.deviations(cohort, kind="covariates").z["pet"]


class TestCohort:
    def test_flags_follow_people_and_modalities(self, filled):
        who = filled.ids[:150]
        assert filled.imputed.loc[who, "pet"].all() and filled.imputed.sum().tolist() == [0, 150]
        assert filled.present["pet"].sum() == 150 and filled.features["pet"].notna().all(axis=None)
        young, old = filled.split("age < 50")
        assert young.imputed["pet"].sum() + old.imputed["pet"].sum() == 150
        again = young.join(old).select(filled.ids)
        pd.testing.assert_frame_equal(again.imputed, filled.imputed)
        pd.testing.assert_frame_equal(again.imputation.sd["pet"].loc[who],
                                      filled.imputation.sd["pet"].loc[who])
        assert filled.select(filled.ids[150:]).imputation is None
        assert filled.without("pet").imputation is None
        less = filled.drop_features("pet", ["b1"])
        assert list(less.imputation.sd["pet"].columns) == ["b0", "b2", "b3", "b4"]

    def test_observed_is_the_cohort_before(self, filled, new):
        back = filled.observed()
        assert back.imputation is None and not back.imputed.any(axis=None)
        pd.testing.assert_frame_equal(back.features["t1"], new.features["t1"].loc[filled.ids])
        pd.testing.assert_frame_equal(back.present, filled.present)
        assert back.features["pet"].iloc[:150].isna().all(axis=None)

    def test_it_is_seen(self, filled):
        assert "imputed: pet of 150 people" in repr(filled)
        assert "imputed" in filled._repr_html_() and "Exact()" in filled._repr_html_()

    def test_it_is_not_written_as_if_measured(self, filled, tmp_path):
        file = nf.write_cohort(filled, tmp_path / "study")
        assert len(pd.read_csv(tmp_path / "study" / "pet.csv")) == 150
        assert nf.Cohort.read(file).present["pet"].sum() == 150

    @pytest.mark.parametrize("spoil, said", [
        (lambda t, s: (t, None), "an sd for every cell"),
        (lambda t, s: (t.assign(b0=np.nan), s), "without a finite value"),
        (lambda t, s: (t, s - s), "positive sd"),
        (lambda t, s: (t.drop(columns="b0"), s.drop(columns="b0")), "5 features"),
        (lambda t, s: (t.set_axis(["no-one"]), s.set_axis(["no-one"])), "not in this cohort")])
    def test_bad_values_are_refused(self, new, spoil, said):
        cohort = new.without("pet")
        table = pd.DataFrame(1.0, cohort.ids[:1], cohort.modality("pet").features)
        mean, sd = spoil(table, table)
        with pytest.raises(CohortError, match=said):
            cohort.with_imputed({"pet": mean}, {} if sd is None else {"pet": sd})

    def test_nothing_is_imputed_over(self, new, filled):
        table = pd.DataFrame(1.0, filled.ids[:1], new.modality("pet").features)
        with pytest.raises(CohortError, match="was measured"):
            new.with_imputed({"pet": table}, {"pet": table})
        with pytest.raises(CohortError, match="imputed already"):
            filled.with_imputed({"pet": table}, {"pet": table})


class TestLearning:
    def test_models_refuse(self, filled, model):
        for learn in (nf.NormativeModel(n_latent=2).fit, model.adapt,
                      lambda cohort: Roles.drawn(cohort, 0)):
            with pytest.raises(CohortError, match=r"pet of 150 people were imputed.*observed\(\)"):
                learn(filled)


class TestDeviations:
    def test_what_was_observed_is_scored_bit_by_bit_as_without(self, model, filled):
        for kind in ("covariates", "focal"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *a, **k: None)
                with_it = model.deviations(filled, kind=kind)
            without = model.deviations(filled.observed(), kind=kind)
            for name, table in without.tables().items():
                pd.testing.assert_frame_equal(with_it.tables()[name], table, check_exact=True)
        pd.testing.assert_frame_equal(model.predict(filled), model.predict(filled.observed()),
                                      check_exact=True)

    def test_z_is_that_of_the_expected_centile(self, model, filled):
        """Against scans drawn from N(imputed, sd^2), each scored as a measurement."""
        who = filled.ids[:3]
        found = model.deviations(filled.select(who), kind="covariates").imputed
        rng, n = np.random.default_rng(0), 1500
        for person in who:
            x, s = filled.features["pet"].loc[person], filled.imputation.sd["pet"].loc[person]
            drawn = x.to_numpy() + s.to_numpy() * rng.normal(size=(n, 5))
            z = scored_alone(model, [f"{person}-{k}" for k in range(n)], {
                "age": np.full(n, filled.subjects.loc[person, "age"]),
                **dict(zip(x.index, drawn.T))})
            centile = stats.norm.cdf(z).mean(0)
            assert stats.norm.cdf(found.z["pet"].loc[person]) == pytest.approx(centile, abs=0.03)
            assert found.sd["pet"].loc[person].to_numpy() == pytest.approx(z.to_numpy().std(0),
                                                                           rel=0.1)

    def test_without_doubt_it_is_the_z_of_the_value(self, model, filled):
        sure = filled.observed().with_imputed(
            {"pet": filled.features["pet"].iloc[:40]}, {"pet": filled.imputation.sd["pet"][:40] * 0
                                                        + 1e-9})
        found = model.deviations(sure, kind="covariates").imputed.z["pet"]
        who = [f"{i}-again" for i in found.index]
        z = scored_alone(model, who, {"age": sure.subjects["age"].iloc[:40].to_numpy(), **{
            f: v.iloc[:40].to_numpy() for f, v in filled.features["pet"].items()}})
        np.testing.assert_allclose(found, z, atol=1e-6)

    def test_healthy_people_stay_below_nominal_as_the_formula_says(self, model, filled):
        """sd of z = sqrt((1 - s^2) / (1 + s^2)), s^2 = 1 - KINSHIP^2 of the variance."""
        z = model.deviations(filled, kind="covariates").imputed.z["pet"]
        s2 = 1 - KINSHIP ** 2
        assert z.to_numpy().std() == pytest.approx(np.sqrt((1 - s2) / (1 + s2)), rel=0.12)
        assert (z.abs() > 1.96).to_numpy().mean() < 0.01

    def test_a_draw_is_as_spread_as_health(self, model, filled):
        """Var E[g] + E Var[g] = Var[g]: the conditional law's two parts make up the whole."""
        imputed = model.deviations(filled, kind="covariates").imputed
        draws = np.stack([imputed.draw(seed)["pet"].to_numpy() for seed in range(8)])
        own = model.deviations(people(300, 1)[0], kind="covariates").z["pet"]
        measured = own.loc[imputed.z["pet"].index].to_numpy()
        assert draws.std() == pytest.approx(measured.std(), abs=0.06)
        assert 0.03 < (np.abs(draws) > 1.96).mean() < 0.07
        assert imputed.z["pet"].to_numpy().std() < 0.75 * draws.std()
        assert (imputed.draw(3)["pet"] == imputed.draw(3)["pet"]).all(axis=None)
        assert not np.array_equal(draws[0], draws[1])

    def test_an_error_free_of_the_deviation_gives_exactly_one(self, model, new):
        """x_hat = x + noise, the worst an imputer that does not exaggerate can do."""
        rng = np.random.default_rng(3)
        x = new.features["pet"]
        noisy = x + 0.07 * rng.normal(size=x.shape)
        cohort = new.without("pet").with_imputed({"pet": noisy}, {"pet": 0 * x + 0.07})
        z = model.deviations(cohort, kind="covariates").imputed.z["pet"].to_numpy()
        assert z.std() == pytest.approx(1, abs=0.08)
        assert (np.abs(z) > 1.96).mean() == pytest.approx(0.05, abs=0.025)

    def test_other_kinds_leave_them_out_and_say_so(self, model, filled):
        with pytest.warns(UserWarning, match='kind focal.*kind="covariates"'):
            assert model.deviations(filled, kind="focal").imputed is None

    def test_they_are_not_written_piece_by_piece(self, model, filled, tmp_path):
        with pytest.raises(CohortError, match="observed()"):
            model.deviations(filled, kind="covariates", to=tmp_path / "z")


@pytest.fixture(scope="module")
def found(model, filled):
    return model.deviations(filled, kind="covariates")


class TestKeptApart:
    def test_they_are_in_no_count_unless_asked_for(self, found, filled):
        assert found.z["pet"].iloc[:150].isna().all(axis=None)
        assert found.extreme()["pet"].iloc[:150].isna().all()
        full = found.with_imputed()
        assert full.extreme()["pet"].notna().all()
        assert full.reference.notes[-1].startswith("imputed, not measured: pet of 150 people")
        assert full.observed["pet"].iloc[:150].isna().all(axis=None)
        back = full.without_imputed()
        pd.testing.assert_frame_equal(back.z, found.z)
        assert back.reference.notes == found.reference.notes

    def test_groups_are_compared_by_measurements(self, found):
        half = pd.Series(np.where(np.arange(300) % 2, "a", "b"), found.subjects.index)
        grouped = found.changed(subjects=found.subjects.assign(group=half), controls=None)
        for scored, n in ((grouped, 75), (grouped.with_imputed(), 150)):
            table = compare_groups(scored, "group").table
            assert set(table.xs("pet", level="modality")["n_baseline"]) == {n}

    def test_a_report_marks_them(self, found, tmp_path):
        some = found.select(found.z.index[140:160]).changed(controls=None)
        for name, scored, n in (("without", some, 0), ("with", some.with_imputed(), 1)):
            page = Report(scored).write(tmp_path / f"{name}.html").read_text(encoding="utf-8")
            assert page.count("imputed, not measured: pet of 10 people") == n

    def test_flags_follow_people(self, found):
        assert found.imputed.flags(found.z.index).sum().to_dict() == {"pet": 150}
        some = found.select(found.z.index[148:152])
        assert some.imputed.z["pet"].shape == (2, 5)
        assert found.select(found.z.index[200:]).imputed is None
        parts = [found.select(found.z.index[:10]), found.select(found.z.index[10:])]
        whole = type(found).joined(parts, found.z.index, found.reference)
        pd.testing.assert_frame_equal(whole.imputed.z["pet"], found.imputed.z["pet"])

    def test_on_disk_they_lie_apart(self, found, tmp_path):
        folder = found.with_imputed().save(tmp_path / "deviations")
        z = pd.read_csv(folder / "z.csv", header=[0, 1], index_col=0)
        assert z["pet"].iloc[:150].isna().all(axis=None)
        again = nf.Deviations.read(folder)
        np.testing.assert_allclose(again.imputed.z["pet"], found.imputed.z["pet"], rtol=1e-6)
        np.testing.assert_allclose(again.with_imputed().z["pet"], found.with_imputed().z["pet"],
                                   rtol=1e-6)
        assert again.imputed.by == "Exact()" and "pet of 150 people" in repr(again.imputed)
        (folder / "imputed" / "z" / "pet" / "people.json").write_text(
            str([f"x{i}" for i in range(150)]).replace("'", '"'))
        with pytest.raises(ModelFileError, match="edited"):
            nf.Deviations.read(folder)

    def test_a_card_says_so(self, found):
        assert "imputed" in found._repr_html_()
        assert "pet of 150 people" in found.imputed._repr_html_()


class TestCheck:
    def test_an_honest_imputer(self, model):
        row = check_imputation(model, Exact()).iloc[0]
        assert row["modality"] == "pet" and row["share"] < 0.02 < row["nominal"]
        # of E[g] on what was measured: the share of the variance that t1 tells
        assert row["slope"] == pytest.approx(KINSHIP ** 2, abs=0.08)
        assert row["n_subjects"] == len(model._held_out)

    def test_who_taught_the_imputer_is_left_out(self, model):
        from normfuse.fingerprints import roles_to_hashes

        people = model._held_out
        taught = roles_to_hashes(people, pd.Series("training", people.ids[:50]))
        with pytest.warns(UserWarning, match=f"50 of {len(people)} people taught the imputer"):
            row = check_imputation(model, Exact(taught=taught)).iloc[0]
        assert row["n_subjects"] == len(people) - 50
        everybody = roles_to_hashes(people, pd.Series("training", people.ids))
        with pytest.warns(UserWarning), pytest.raises(CohortError, match="three are the least"):
            check_imputation(model, Exact(taught=everybody))

    def test_nobody_to_check_with(self, new):
        unfitted = nf.NormativeModel(n_latent=2)
        with pytest.raises(CohortError, match="name healthy people"):
            check_imputation(unfitted, Exact())


class TestByTheModel:
    """Against the conditional mean and sd that people were drawn by."""

    def test_values_and_sd(self, model, new):
        filled = model.impute(new.without("pet"))
        exact = Exact().impute(new.without("pet"))
        mean, told = (c.features["pet"].to_numpy() for c in (filled, exact))
        assert np.sqrt(((mean - told) ** 2).mean()) < 0.5 * told.std()
        sd = filled.imputation.sd["pet"].to_numpy()
        error = mean - new.features["pet"].to_numpy()
        assert (error / sd).std() == pytest.approx(1, abs=0.12)
        assert filled.imputed["pet"].all() and not filled.imputed["t1"].any()

    def test_its_z_stay_below_nominal(self, model):
        row = check_imputation(model, model).iloc[0]
        assert row["share"] < 0.03 and row["n_subjects"] == len(model._held_out)

    def test_the_python_lines_of_the_guide(self, model, new, capsys):
        page = Path(__file__).parents[1] / "docs" / "guide" / "imputation.md"
        (code, check) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"),
                                   flags=re.DOTALL)
        known = {"model": model, "synthesiser": Exact(), "patients": new.without("pet"), "nf": nf,
                 "held_out": new}
        exec(compile(code + check, page.name, "exec"), known)
        assert "(300, 5)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def synthesiser():
    brief = nf.TrainingPlan(max_epochs=2, warmup=1, validation_draws=1, progress=False)
    return ImageSynthesiser(sizes=Pyramid((4, 8), (0, 4)), plan=brief).fit(tiny_images(12))


class TestImages:
    def test_impute_is_synthesise_marked(self, synthesiser):
        new = tiny_images(10, seed=5)
        filled, made = synthesiser.impute(new), synthesiser.synthesise(new)
        pd.testing.assert_frame_equal(filled.imputed, ~new.present)
        for m, table in made.mean.items():
            np.testing.assert_array_equal(filled.features[m].loc[table.index], table)
            np.testing.assert_array_equal(filled.imputation.sd[m], made.sd[m])
        for m, block in new.features.items():
            measured = new.present[m].to_numpy()
            np.testing.assert_array_equal(filled.features[m][measured], block[measured])
        # an imputed scan is not looked at
        again = synthesiser.impute(filled)
        np.testing.assert_array_equal(again.features["FLAIR"], filled.features["FLAIR"])

    def test_nothing_to_impute(self, synthesiser):
        new = tiny_images(10, seed=5)
        whole = new.select(new.ids[new.present.all(axis=1).to_numpy()])
        assert synthesiser.impute(whole).imputation is None

    def test_tables_of_regions_are_no_images(self, synthesiser):
        with pytest.raises(CohortError, match="table of regions"):
            synthesiser.impute(tiny_cohort())

"""The model a researcher owns: its promises, each on a small cohort with holes.

Outside witness of leave-one-out scores: laws refitted without that person. Whether z is standard
normal in real people is measured by ``benchmarks/healthy_people.py``, not here.
"""
from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyro
import pytest
import torch

import normfuse as nf
from normfuse.fingerprints import calibration_folds
from normfuse.latent_law import MIN_SHAPE_N
from normfuse.errors import CalibrationError, CohortError, NotFittedError, TrainingError
from normfuse.fusion import (GeneralizedProductOfExperts, MixtureOfExperts, ProductOfExperts,
                             SubsetMixture, WassersteinBarycenter)
from normfuse.models import OneLatent
from normfuse.scoring import raw_scores
from normfuse.simulate import write_cohort
from normfuse.testing import tiny_cohort

SMALL = {"model": OneLatent(n_latent=2, hidden=(8,)), "calibration": nf.HeldOut(),
         "plan": nf.TrainingPlan(max_epochs=10, warmup=3, batch_size=32)}
FUSIONS = [WassersteinBarycenter(), ProductOfExperts(prior_expert=False),
           GeneralizedProductOfExperts(), MixtureOfExperts(), SubsetMixture(ProductOfExperts()),
           SubsetMixture(WassersteinBarycenter())]
pytestmark = pytest.mark.filterwarnings("ignore:age of .* lies outside")  # random ages do
TABLES = ("z", "observed", "expected", "latent", "distance")


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(96, seed=5)


@pytest.fixture(scope="module")
def controls(cohort):
    return cohort.reference_subjects()


@pytest.fixture(scope="module")
def patients(cohort, controls):
    """The patients, within the ages of the reference."""
    ages = controls.subjects["age"]
    return cohort.select(f"diagnosis == 'AD' and age > {ages.min() + 5} and age < "
                         f"{ages.max() - 5}")


@pytest.fixture(scope="module")
def model(controls):
    return nf.NormativeModel(seed=3, **SMALL).fit(controls)


@pytest.fixture(scope="module")
def scored(model, patients):
    return model.deviations(patients)


def assert_same(one, two, tolerance=1e-6):
    for name in TABLES:
        left, right = getattr(one, name), getattr(two, name)
        pd.testing.assert_frame_equal(left, right.loc[left.index, left.columns], check_exact=False,
                                      rtol=0, atol=tolerance)


def changed(cohort, name, **columns):
    """The cohort with other values in some features of one modality."""
    blocks = {**cohort.features, name: cohort.features[name].assign(**columns)}
    return nf.Cohort(cohort.subjects, blocks, cohort.modalities, cohort.covariates,
                     cohort.reference)


def with_people(cohort, subjects):
    """The cohort with another subjects table."""
    return nf.Cohort(subjects, cohort.features, cohort.modalities, cohort.covariates,
                     cohort.reference)


class TestASubjectStandsAlone:
    @pytest.mark.parametrize("fusion", FUSIONS, ids=repr)
    def test_alone_in_any_batch_in_any_order_and_after_saving(self, fusion, controls, patients,
                                                              tmp_path):
        model = nf.NormativeModel(fusion, **SMALL).fit(controls)
        together = model.deviations(patients)
        for subject in patients.ids:
            assert_same(model.deviations(patients.select([subject])), together)
        backwards = patients.select(patients.ids[::-1])
        assert_same(model.deviations(backwards), together)
        assert_same(model.deviations(backwards.select(backwards.ids[2:7])), together)
        again = nf.NormativeModel.load(model.save(tmp_path / "model"))
        assert repr(again.fusion) == repr(fusion)
        assert_same(again.deviations(patients), together, tolerance=0)

    def test_after_saving_in_a_new_process(self, model, scored, patients, tmp_path):
        model.save(tmp_path / "model")
        file = write_cohort(patients.select(patients.ids[::-1]), tmp_path / "cohort")
        script = ("import sys, normfuse as nf; model, cohort, out = sys.argv[1:]\n"
                  "nf.NormativeModel.load(model).deviations(nf.Cohort.read(cohort)).save(out)")
        subprocess.run([sys.executable, "-c", script, tmp_path / "model", file, tmp_path / "out"],
                       check=True)
        read = nf.Deviations.read(tmp_path / "out")
        assert_same(read, scored)
        assert read.reference == scored.reference

    def test_order_of_features_and_modalities_does_not_matter(self, model, scored, patients):
        blocks = {name: patients.features[name][patients.features[name].columns[::-1]]
                  for name in reversed(list(patients.features))}
        shuffled = nf.Cohort.from_frames(patients.subjects, blocks, covariates=patients.covariates)
        assert_same(model.deviations(shuffled), scored)

    def test_a_modality_absent_from_the_table_is_not_measured(self, model, patients):
        blocks = {name: patients.features[name] for name in ("t1", "dti")}
        fewer = nf.Cohort.from_frames(patients.subjects, blocks, covariates=patients.covariates)
        assert_same(model.deviations(fewer), model.deviations(patients.without("pet")))

    def test_z_is_nan_exactly_where_nothing_was_measured(self, scored, patients):
        observed = pd.concat(patients.features, axis=1).loc[scored.z.index]
        assert (scored.z.isna().to_numpy() == observed.isna().to_numpy()).all()
        assert scored.latent.notna().all(axis=None) and scored.distance.notna().all(axis=None)


class TestWhoWasSeen:
    def test_training_people_are_left_out_with_a_warning(self, model, controls, patients):
        n = model.fitted.reference.n_subjects
        seen = n["training"] + n["early_stop"]
        with pytest.warns(UserWarning, match=f"{seen} of {len(controls)} subjects were used to "
                                             "train this model and are left out.*cross_fit"):
            found = model.deviations(controls)
        assert set(found.subjects["normfuse_role"]) == {"calibration"}
        assert len(found) == n["calibration"]

    def test_they_can_be_asked_for_and_are_marked(self, model, controls):
        found = model.deviations(controls, include_seen=True)
        assert found.subjects["normfuse_role"].value_counts().to_dict() == \
            model.fitted.reference.n_subjects

    def test_nobody_is_left(self, model, controls):
        roles = model.deviations(controls, include_seen=True).subjects["normfuse_role"]
        trained = controls.select(controls.ids[(roles == "training").to_numpy()])
        with pytest.warns(UserWarning), pytest.raises(CohortError, match="nobody is left to"):
            model.deviations(trained)

    def test_a_seen_person_is_known_by_any_one_scan(self, model, controls):
        renamed = controls.without("pet", "dti")
        assert "new" not in set(
            model.deviations(renamed, include_seen=True).subjects["normfuse_role"])

    def test_a_calibration_person_with_one_scan_reprocessed_is_not_taken_out_of_the_laws(
            self, model, controls):
        """Their new value never went in: taking it out would leave almost no variance."""
        roles = model.deviations(controls, include_seen=True).subjects["normfuse_role"]
        values = controls.features["pet"]["pet_region1"]
        held = controls.select(roles.index[(roles == "calibration") & values.notna()])
        moved = changed(held, "pet", pet_region1=1.3 * values[held.ids])
        with pytest.warns(UserWarning, match="subjects have ids of people this model was fitted"):
            found = model.deviations(moved)
        assert set(found.subjects["normfuse_role"]) == {"new"}
        assert found.z.abs().max(axis=None) < 15

    def test_namesakes_with_other_values_are_new_and_reported(self, model, patients, controls):
        names = dict(zip(patients.ids, controls.ids))
        people = patients.subjects.rename(index=names)
        blocks = {name: block.rename(index=names) for name, block in patients.features.items()}
        twins = nf.Cohort.from_frames(people, blocks, covariates=patients.covariates)
        with pytest.warns(UserWarning, match=f"{len(patients)} subjects have ids of people"):
            assert set(model.deviations(twins).subjects["normfuse_role"]) == {"new"}

    def test_people_are_recognised_under_another_name(self, model, controls):
        with pytest.warns(UserWarning, match="used to train"):
            before = len(model.deviations(controls))
        names = {subject: f"patient-{k}" for k, subject in enumerate(controls.ids)}
        blocks = {name: block.rename(index=names) for name, block in controls.features.items()}
        renamed = nf.Cohort.from_frames(controls.subjects.rename(index=names), blocks,
                                        covariates=controls.covariates)
        with pytest.warns(UserWarning, match="used to train"):
            assert len(model.deviations(renamed)) == before

    def test_repeated_visits_are_no_reference(self, controls):
        ids = list(controls.ids)
        names = {ids[0]: "sub-x_ses-1", ids[1]: "sub-x_ses-2"}
        twice = nf.Cohort(controls.subjects.rename(index=names),
                          {m: b.rename(index=names) for m, b in controls.features.items()},
                          controls.modalities, controls.covariates, controls.reference)
        with pytest.raises(CohortError, match=r"1 reference people have more than one visit "
                                              r"\(sub-x\).*one visit a person"):
            nf.NormativeModel(**SMALL).fit(twice)

    def test_the_file_holds_no_id_and_no_value(self, model, controls, tmp_path):
        text = (model.save(tmp_path / "model") / "model.json").read_text()
        assert not any(subject in text for subject in controls.ids)

    def test_calibration_people_are_scored_by_the_others(self, model, controls):
        f = model.fitted
        kind = model.kinds[0]
        with pytest.warns(UserWarning, match="used to train"):
            found = model.deviations(controls)
        people = f.preparation.aligned(controls.select(found.z.index))
        batch = f.preparation.batch(people, np.ones(len(people), bool))
        assert len(people) < MIN_SHAPE_N  # then a distance has Hotelling's law
        folds = calibration_folds(people.ids)
        assert len(set(map(tuple, batch.present.T.tolist()))) > 2
        for i, subject in enumerate(people.ids):
            has = batch.present[:, i]
            able = torch.nonzero(batch.present[has].all(0)).ravel()
            others = raw_scores(f.vae, batch.take(able[able != i]).hide(has), model.inference,
                                [kind])
            own = raw_scores(f.vae, batch.take(torch.tensor([i])), model.inference, [kind])
            law = f.laws[tuple(has.tolist())]
            of_kind = law.features[kind.name]
            residual = replace(type(of_kind.residual).fit(others.residuals[kind.name]),
                               prior=of_kind.residual.prior)
            latent, position = type(law.latent).fit(others.parts.sum(0)), own.parts.sum(0)
            distance, p = latent.test(position, law.distances[0])
            far = law.latent.f(raw_scores(f.vae, batch.take(able).hide(has), model.inference,
                                          [kind]).parts.sum(0), left_out=True)
            rank = (far >= far[able.tolist().index(i)] - 1e-9).mean()
            z = residual.z(own.residuals[kind.name])[0]
            for name, at in f.preparation.slices.items():
                z[at] = of_kind.tails[name][folds[i] + 1](z[at])  # without their fold
            np.testing.assert_allclose(found.z.loc[subject], z, rtol=0, atol=1e-7)
            np.testing.assert_allclose(found.latent.loc[subject], latent.z(position)[0],
                                       rtol=0, atol=1e-7)
            np.testing.assert_allclose(found.distance.loc[subject],
                                       [distance[0], p[0], rank, len(able) - 1], rtol=0, atol=1e-7)

    def test_the_controls_kept_in_memory_are_those_people(self, model, scored, controls):
        with pytest.warns(UserWarning, match="used to train"):
            found = model.deviations(controls)
        assert_same(scored.controls.select(found.z.index), found)


class TestRefusals:
    def test_too_few_reference_people(self, controls):
        with pytest.raises(CalibrationError, match="14 reference subjects are too few.*10 latent "
                                                   "dimensions.*healthy subjects, or ask for"):
            nf.NormativeModel(n_latent=10).fit(controls.select(list(controls.ids[:14])))

    def test_patients_are_not_a_reference(self, cohort):
        with pytest.raises(CohortError, match="12 of 96 subjects.*do not answer the cohort's "
                                              "reference query \"diagnosis == 'CN'\""):
            nf.NormativeModel(**SMALL).fit(cohort)

    def test_constant_feature(self, controls):
        with pytest.raises(CohortError, match=r"modality dti: 1 of 5 features have one and the "
                                              r"same value in all the reference \(dti_region2\)"):
            nf.NormativeModel(**SMALL).fit(changed(controls, "dti", dti_region2=0.4))

    def test_feature_that_was_never_measured(self, controls):
        with pytest.raises(CohortError, match=r"modality pet: 1 of 6 features were never measured "
                                              r"in the reference \(pet_region0\).*exclude = "):
            nf.NormativeModel(**SMALL).fit(changed(controls, "pet", pet_region0=np.nan))

    def test_feature_that_nobody_in_training_has(self, model, controls):
        roles = model.deviations(controls, include_seen=True).subjects["normfuse_role"]
        values = controls.features["t1"]["t1_region1"].where(roles == "calibration")
        with pytest.raises(CohortError, match="never measured in the .* people used for training"):
            nf.NormativeModel(seed=3, **SMALL).fit(changed(controls, "t1", t1_region1=values))

    def test_covariate_that_never_varies(self, controls):
        women = controls.select("sex == 'F'")
        with pytest.raises(CohortError, match="covariate sex is 'F' for all .* leave it out"):
            nf.NormativeModel(**SMALL).fit(women)

    def test_missing_feature_names_it(self, model, patients):
        with pytest.raises(CohortError, match="dti lacks dti_region3; .* fitted with 5 features"):
            model.deviations(patients.drop_features("dti", ["dti_region3"]))

    def test_extra_feature_names_it(self, model, patients):
        blocks = {**patients.features, "t1": patients.features["t1"].assign(new=1.0)}
        more = nf.Cohort.from_frames(patients.subjects, blocks, covariates=patients.covariates)
        with pytest.raises(CohortError, match="t1 has new, which the model does not know"):
            model.deviations(more)

    def test_unknown_modality(self, model, patients):
        blocks = {**patients.features, "asl": patients.features["t1"]}
        more = nf.Cohort.from_frames(patients.subjects, blocks, covariates=patients.covariates)
        with pytest.raises(CohortError, match="knows no modality asl; .* dti, pet, t1"):
            model.deviations(more)

    def test_site_never_seen(self, model, patients):
        moved = with_people(patients, patients.subjects.assign(site="moon"))
        with pytest.raises(CohortError, match="site 'moon' of .* was not in the reference, which "
                                              "had north, south, west.*healthy subjects of that"):
            model.deviations(moved)

    @pytest.mark.parametrize("codes, recode", [
        ({"F": "female", "M": "male"}, "{'female': 'F', 'male': 'M'}"),
        ({"F": "w", "M": "m"}, "{'m': 'M', 'w': …}"), ({"F": "2", "M": "1"}, "{'1': …, '2': …}"),
        ({"F": "woman", "M": "MALE"}, "{'MALE': 'M', 'woman': …}")])
    def test_sex_coded_otherwise(self, model, patients, codes, recode):
        people = patients.subjects.assign(sex=patients.subjects["sex"].map(codes))
        with pytest.raises(CohortError, match="sex {!r}, {!r} of 10 subjects .* the reference, "
                           "which had 'F', 'M'".format(*sorted(codes.values()))) as refused:
            model.deviations(with_people(patients, people))
        assert f"subjects['sex'].replace({recode})" in str(refused.value)

    def test_misspelt_names_are_recognised(self, model, patients):
        blocks = {name: patients.features[name] for name in patients.features}
        dotted = {f"t1_region{k}": f"T1_REGION.{k}" for k in range(4)}
        renamed = {**blocks, "t1": blocks["t1"].rename(columns=dotted)}
        for frames, words in (
                (renamed, "(perhaps 'T1_REGION.0' is 't1_region0', 'T1_REGION.1' is 't1_region1'"),
                ({**blocks, "T1": blocks["t1"]}, "(perhaps 'T1' is 't1')")):
            other = nf.Cohort.from_frames(patients.subjects, frames,
                                          covariates=patients.covariates)
            with pytest.raises(CohortError) as refused:
                model.deviations(other)
            assert words in str(refused.value)
        aged = with_people(patients, patients.subjects.rename(columns={"age": "Age"}))
        with pytest.raises(CohortError, match="perhaps 'Age' is 'age'"):
            model.deviations(aged)

    def test_covariate_absent_at_scoring(self, model, patients):
        bare = with_people(patients, patients.subjects.drop(columns="age"))
        with pytest.raises(CohortError, match="needs the covariate 'age'; .* sex, site"):
            model.deviations(bare)

    @pytest.mark.filterwarnings("default:age of")
    def test_age_beyond_the_reference_is_said(self, model, patients):
        old = with_people(patients, patients.subjects.assign(age=99.0))
        with pytest.warns(UserWarning, match="age of .* lies outside the training people's"):
            assert model.deviations(old).z.notna().any(axis=None)

    def test_combination_of_scans_that_too_few_were_calibrated_with(self, controls, patients):
        scanned = controls.present.index[controls.present["pet"]][:9]
        rare = changed(controls, "pet", **{
            name: values.where(controls.ids.isin(scanned))
            for name, values in controls.features["pet"].items()})
        model = nf.NormativeModel(**SMALL).fit(rare)
        assert any("t1 + dti + pet cannot be scored" in n for n in model.fitted.reference.notes)
        with pytest.raises(CalibrationError, match="were measured with .*pet; too few calibration "
                                                   r"people.*cohort.without\('pet'\)"):
            model.deviations(patients)
        assert len(model.deviations(patients.without("pet"))) == len(patients)
        with pytest.warns(UserWarning, match="left out: too few calibration people"):
            some = model.deviations(patients, skip_uncalibrated=True)
        assert 0 < len(some) < len(patients) and some.z["pet"].isna().all().all()

    def test_nothing_present(self, model, patients):
        with pytest.raises(CalibrationError, match="have none of the model's modalities"):
            model.deviations(patients.without("t1", "dti", "pet"))

    def test_unfitted_and_misused(self, patients, tmp_path):
        with pytest.raises(NotFittedError, match="call fit"):
            nf.NormativeModel().deviations(patients)
        with pytest.raises(NotFittedError):
            nf.NormativeModel().save(tmp_path / "model")
        assert not list(tmp_path.iterdir())
        with pytest.raises(TypeError, match="an object such as WassersteinBarycenter"):
            nf.NormativeModel("mopoe")

    def test_training_that_ends_in_the_warmup(self, controls):
        plan = nf.TrainingPlan(max_epochs=2, warmup=5)
        with pytest.raises(TrainingError, match="within the warm-up of 5; raise max_epochs"):
            nf.NormativeModel(plan=plan, n_latent=2).fit(controls)

    def test_extreme_values_are_named_and_spoil_no_other_feature(self, model, controls, patients):
        roles = model.deviations(controls, include_seen=True).subjects["normfuse_role"]
        deciding = (roles == "early_stop") & controls.present["pet"]
        values = controls.features["pet"]["pet_region2"].mask(deciding, 1e30)
        with pytest.warns(UserWarning, match="modality pet: .* reference values lie beyond 30 "
                                             "robust standard deviations, first 1e.30 in pet_r"):
            spoilt = nf.NormativeModel(seed=3, **SMALL).fit(
                changed(controls, "pet", pet_region2=values))
        others = [c for c in spoilt.fitted.preparation.columns if c != ("pet", "pet_region2")]
        z, clean = (m.deviations(patients).z[others] for m in (spoilt, model))
        assert (z - clean).abs().mean(axis=None) < 0.3


class TestRandomness:
    def test_the_same_seed_gives_the_same_model_and_another_another(self, controls, patients,
                                                                    scored):
        again = nf.NormativeModel(seed=3, **SMALL).fit(controls).deviations(patients)
        assert_same(again, scored, tolerance=0)
        other = nf.NormativeModel(seed=4, **SMALL).fit(controls).deviations(patients)
        assert (other.z - scored.z).abs().max(axis=None) > 1e-3

    def test_the_callers_state_is_left_alone(self, controls, patients):
        torch.manual_seed(11), np.random.seed(11), random.seed(11)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        threads, validation = torch.get_num_threads(), pyro.settings.get("validate_poutine")
        nf.NormativeModel(**SMALL).fit(controls).deviations(patients)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]
        assert torch.get_num_threads() == threads
        assert pyro.settings.get("validate_poutine") == validation
        assert not list(pyro.get_param_store().keys())

    def test_the_caller_state_does_not_matter(self, controls, patients, scored):
        torch.manual_seed(987)
        assert_same(nf.NormativeModel(seed=3, **SMALL).fit(controls).deviations(patients), scored,
                    tolerance=0)


class TestPrediction:
    def test_what_was_not_measured_is_predicted_from_the_rest(self, model, patients):
        hidden = patients.without("pet")
        predicted = model.predict(hidden)
        assert predicted.notna().all(axis=None) and list(predicted["pet"]) == \
            list(patients.features["pet"])
        assert 0.5 < predicted["pet"].to_numpy().mean() < 2.0  # in SUVR, not standardised

    def test_inputs_are_not_changed(self, model, patients):
        before = {name: block.copy() for name, block in patients.features.items()}
        model.deviations(patients), model.predict(patients)
        for name, block in patients.features.items():
            pd.testing.assert_frame_equal(block, before[name])


def test_cross_fitting_accounts_for_everybody(cohort):
    found = nf.cross_fit(nf.NormativeModel(**SMALL), cohort, folds=3)
    assert found.z.index.equals(cohort.ids)
    reference = cohort.reference_subjects()
    assert sum(found.reference.n_subjects.values()) == pytest.approx(len(reference), abs=2)
    fold = found.subjects["normfuse_fold"]
    assert fold[reference.ids].value_counts().max() - fold[reference.ids].value_counts().min() <= 1
    rows = {(r["quantity"], r["nominal"]): r for r in found.reference.calibration}
    assert rows["z all", 0.05]["n_subjects"] == len(reference)  # all folds' controls, not one's
    for folds in (0, 1, 10_000, 2.5):
        with pytest.raises(CohortError, match="folds is a number from 2 to"):
            nf.cross_fit(nf.NormativeModel(**SMALL), cohort, folds=folds)


def test_sites_too_thin_to_know_are_noted(cohort):
    people = cohort.subjects
    healthy = cohort.reference_subjects().ids
    people.loc[healthy[:4], "site"] = "tiny"
    notes = nf.NormativeModel(**SMALL).fit(
        with_people(cohort, people).reference_subjects()).fitted.reference.notes
    assert any("site tiny" in note and "too few reference people" in note for note in notes)


def test_p_values_by_rank_that_can_tell_nothing_are_noted(model, patients):
    """With 84 healthy people 25 calibrate, so that no rank is rarer than 2 in 26."""
    assert model.fitted.reference.n_subjects["calibration"] < 39
    for kind in ("focal", "covariates"):
        found = model.deviations(patients, kind=kind)
        said = [n for n in found.reference.notes if "p-values by rank" in n]
        everything = (found.z.notna().T.groupby(level=0).any().T.all(axis=1)).to_numpy()
        smallest = 2 / (model.fitted.laws[(True,) * 3].features[kind].residual.n.max() + 1)
        assert found.conformal[everything].min(axis=None) >= smallest - 1e-12
        assert bool(said) == (smallest > 0.05) == (kind == "focal")
        if said:
            assert f"t1 + dti + pet (never below {smallest:.2g})" in said[0]

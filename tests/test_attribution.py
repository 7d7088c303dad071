"""Whose modality moved a latent position, for models of every new kind, from fit to file.

Outside witnesses: shares must add up to the latent z that is computed without them; a share is
recomputed from the encoders alone where the fusion makes that possible; log p(x) is shifted by
exactly log 4 a feature when its unit is. No witness: whether shares find the modality that really
deviates in real people.
"""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import normfuse as nf
from normfuse.fusion import (GeneralizedWassersteinBarycenter, Given, Learned, LearnedMaps,
                             MixtureOfExperts, ProductOfExperts, SharedPrivate, SubsetMixture,
                             SubstitutePrior, WassersteinBarycenter)
from normfuse.inference import Amortised, Refined
from normfuse.models import Elbo, Iwae, Ladder, OneLatent, StratifiedElbo
from normfuse.testing import tiny_cohort

pytestmark = pytest.mark.filterwarnings("ignore:age of .* lies outside")  # random ages do
PLAN = nf.TrainingPlan(max_epochs=25, warmup=3, batch_size=32, learning_rate=0.02)
WIDE = {"hidden": (8,)}
MODELS = {
    "flat": (WassersteinBarycenter(), OneLatent(n_latent=2, **WIDE)),
    "gwb": (GeneralizedWassersteinBarycenter(SharedPrivate(private=1)),
            OneLatent(n_latent=5, **WIDE)),
    "ladder": (WassersteinBarycenter(weights=Given([5, 3, 2]), missing=SubstitutePrior()),
               Ladder(levels=(4, 2), **WIDE))}


@pytest.fixture(scope="module")
def cohort():
    return tiny_cohort(110, seed=5)


@pytest.fixture(scope="module")
def patients(cohort):
    return cohort.select("diagnosis == 'AD'")


@pytest.fixture(scope="module")
def models(cohort):
    return {name: nf.NormativeModel(
        fusion, model=model, plan=PLAN, calibration=nf.HeldOut(), seed=3).fit(
        cohort.reference_subjects()) for name, (fusion, model) in MODELS.items()}


@pytest.fixture(scope="module", params=MODELS)
def model(request, models):
    return models[request.param]


@pytest.fixture(scope="module")
def scored(model, patients):
    return model.deviations(patients)


def summed(attribution):
    """Over modalities, those that a person does not have left out."""
    return attribution.T.groupby(level="latent").sum(min_count=1).T


class TestShares:
    def test_they_add_up_to_the_latent_z(self, scored):
        for found in (scored, scored.controls):
            total = summed(found.attribution)[found.latent.columns]
            pd.testing.assert_frame_equal(total, found.latent, rtol=0, atol=1e-9,
                                          check_names=False)
            assert found.latent.abs().max(axis=None) > 1

    def test_one_for_each_modality_and_latent(self, scored, patients, model):
        columns = scored.attribution.columns
        assert columns.names == ["modality", "latent"]
        assert columns.tolist() == [(m, z) for m in patients.features for z in scored.latent]
        assert scored.latent.shape[1] == model.model.n_dimensions

    def test_nan_where_the_modality_is_absent_and_only_there(self, scored, patients):
        kinds = set()
        for name, there in patients.present.items():
            share = scored.attribution[name].loc[there.index]
            assert share[~there].isna().all(axis=None)
            told = scored.latent.loc[there.index][there].notna()
            assert share[there].notna().equals(told)
            kinds |= {(name, bool(t)) for t in there}
        assert len(kinds) == 5  # t1 is always there, dti and pet not

    def test_a_person_alone(self, model, scored, patients):
        one = patients.ids[4]
        alone = model.deviations(patients.select([one])).attribution
        pd.testing.assert_frame_equal(alone, scored.attribution.loc[[one]], rtol=0, atol=1e-9)


class TestWhoseShare:
    def test_private_latents_are_their_owners(self, models, patients):
        found = models["gwb"].deviations(patients)
        for k, name in enumerate(patients.features):
            private = f"z{3 + k}"
            there = found.latent.index[patients.present[name].loc[found.latent.index]]
            for other in patients.features:
                share = found.attribution[other, private].loc[there]
                if other == name:
                    pd.testing.assert_series_equal(share, found.latent[private].loc[there],
                                                   check_names=False, rtol=0, atol=1e-9)
                    assert share.abs().max() > 0.5
                else:
                    assert (share.dropna() == 0).all() and share.notna().any()
            # nothing is known of the others' private latents, so they have no z
            away = found.latent.index.difference(there)
            assert found.latent.loc[away, private].isna().all()

    def test_a_share_is_the_modalitys_own_shift_times_its_weight(self, models, patients):
        model = models["ladder"]
        f, found = model.fitted, model.deviations(patients)
        people = f.preparation.aligned(patients)
        batch = f.preparation.batch(people)
        top = torch.stack([q(x, batch.design).mean[:, :2] for q, x in
                           zip(f.vae.encoders, f.vae.inputs(batch))])
        weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
        for i, subject in enumerate(people.ids):
            law = f.laws[tuple(batch.present[:, i].tolist())]
            for m, (name, weight) in enumerate(zip(people.features, weights.tolist())):
                if not batch.present[m, i]:
                    continue
                for d in (0, 1):
                    own = weight * top[m, i, d].item() - law.parts[m, d]
                    h = (weights * batch.present[:, i] * top[:, i, d]).sum().item()
                    z = found.latent.loc[subject, f"z{d + 1}"]
                    literal = own * z / (h - law.latent.mean[d])
                    assert found.attribution.loc[subject, (name, f"z{d + 1}")] == \
                        pytest.approx(literal, abs=1e-9)

    @pytest.mark.parametrize("name", ["t1", "dti"])
    def test_what_changes_in_one_scan_is_its_own(self, models, patients, name):
        """With Wasserstein fusion at the top, the other modalities' parts stay what they were."""
        model = models["flat"]
        both = patients.select(patients.ids[patients.present["dti"].to_numpy()])
        block = both.features[name]
        moved = nf.Cohort(both.subjects, {**both.features, name: block + 2 * block.std()},
                          both.modalities, both.covariates, both.reference)
        f = model.fitted
        parts = [f.vae.position(f.preparation.batch(f.preparation.aligned(c)))[1]
                 for c in (both, moved)]
        shift = (parts[1] - parts[0]).abs().amax((1, 2))
        there = [m == name for m in both.features]
        assert [s > 1e-3 for s in shift.tolist()] == there
        assert (shift[~torch.tensor(there)] == 0).all()
        before, after = (model.deviations(c).attribution[name] for c in (both, moved))
        assert (after - before).abs().max(axis=None) > 0.1


class TestKept:
    def test_saved_and_read(self, scored, tmp_path):
        read = nf.Deviations.read(scored.save(tmp_path / "out"))
        pd.testing.assert_frame_equal(read.attribution, scored.attribution, rtol=1e-12, atol=0,
                                      check_names=False)
        assert read.attribution.columns.names == ["modality", "latent"]
        (tmp_path / "out" / "attribution.csv").unlink()
        assert nf.Deviations.read(tmp_path / "out").attribution is None

    def test_selected(self, scored):
        ids = list(scored.z.index[[5, 1]])
        some = scored.select(ids)
        pd.testing.assert_frame_equal(some.attribution, scored.attribution.loc[ids])
        assert list(scored.select("sex == 'F'").attribution.index) == \
            list(scored.subjects.index[scored.subjects["sex"] == "F"])

    def test_with_controls(self, scored):
        whole = scored.with_controls()
        assert len(whole.attribution) == len(scored) + len(scored.controls)
        pd.testing.assert_frame_equal(whole.attribution.loc[scored.z.index], scored.attribution)
        pd.testing.assert_frame_equal(whole.attribution.loc[scored.controls.z.index],
                                      scored.controls.attribution)

    @pytest.mark.slow
    def test_cross_fitted(self, cohort):
        fusion, model = MODELS["flat"]
        plan = nf.TrainingPlan(max_epochs=5, warmup=2, batch_size=32)
        found = nf.cross_fit(nf.NormativeModel(fusion, model=model, plan=plan), cohort, folds=2)
        assert found.attribution.index.equals(cohort.ids)
        total = summed(found.attribution)[found.latent.columns]
        pd.testing.assert_frame_equal(total, found.latent, rtol=0, atol=1e-9, check_names=False)
        absent = ~cohort.present["pet"].loc[cohort.ids]
        assert found.attribution["pet"].isna().all(axis=1).equals(absent.rename(None))


OTHERS = {
    "gwb": (GeneralizedWassersteinBarycenter(SharedPrivate(private=1), prior_weight=0.1,
                                             weights=Learned(), missing=SubstitutePrior()),
            OneLatent(n_latent=4, hidden=(6, 5), bound=Iwae(draws=4, resampled=None)),
            Amortised(), nf.CrossFit(2)),
    "maps": (GeneralizedWassersteinBarycenter(LearnedMaps(), prior_weight=0.2),
             OneLatent(n_latent=2, hidden=(), full_covariance=True, skip=False), Refined(steps=2),
             nf.HeldOut()),
    "ladder": (SubsetMixture(WassersteinBarycenter(weights=Learned(per_dimension=True)),
                             weights=Learned()),
               Ladder(levels=(2, 1, 2), bound=StratifiedElbo(mixture_density=True), **WIDE),
               Amortised(), nf.CrossFit(2)),
    "poe": (ProductOfExperts(prior_expert=False),
            Ladder(levels=(3, 2), bound=Elbo(free_bits=0.5), hide=0.3, **WIDE), Refined(steps=3),
            nf.HeldOut()),
    "moe": (MixtureOfExperts(weights=Given([3, 2, 1])), Ladder(levels=(3,), **WIDE), Refined(),
            nf.HeldOut())}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] * (name != "gwb")) for name in OTHERS])
def test_a_saved_model_gives_the_same_scores(name, cohort, patients, tmp_path):
    fusion, recipe, inference, calibration = OTHERS[name]
    plan = nf.TrainingPlan(max_epochs=3, warmup=1, batch_size=32, learning_rate=0.02)
    model = nf.NormativeModel(fusion, model=recipe, plan=plan, inference=inference, seed=2,
                              calibration=calibration).fit(cohort.reference_subjects())
    again = nf.NormativeModel.load(model.save(tmp_path / "model"))
    assert repr(again.fusion) == repr(fusion) and again.model == recipe
    assert repr(again.inference) == repr(inference) and repr(again) == repr(model)
    learned = [k for k in again.fitted.vae.state_dict() if "logits" in k or "maps.table" in k]
    assert bool(learned) == (name in ("gwb", "maps", "ladder"))
    for key in learned:  # learned, so that a forgotten one would show
        value = model.fitted.vae.state_dict()[key]
        assert torch.equal(again.fitted.vae.state_dict()[key], value)
    people = patients.select(patients.ids[:5])
    for part in (people, people.without("pet")):
        one, two = model.deviations(part), again.deviations(part)
        for table in ("z", "expected", "latent", "attribution", "distance"):
            pd.testing.assert_frame_equal(getattr(one, table), getattr(two, table), rtol=0,
                                          atol=1e-12)
        pd.testing.assert_frame_equal(model.log_likelihood(part), again.log_likelihood(part),
                                      rtol=0, atol=1e-12)


class TestLogLikelihood:
    def test_brains_are_more_probable_than_shuffled_ones(self, model, cohort):
        healthy = model.deviations(cohort).controls.z.index  # not trained on
        people = cohort.select(healthy)
        rng = np.random.default_rng(1)
        blocks = {name: pd.DataFrame(
            {column: np.where(v.isna(), np.nan, rng.permutation(np.resize(v.dropna(), len(v))))
             for column, v in block.items()}, index=block.index)
            for name, block in people.features.items()}
        shuffled = nf.Cohort(people.subjects, blocks, people.modalities, people.covariates,
                             people.reference)
        one, other = (model.log_likelihood(c, draws=50) for c in (people, shuffled))
        assert (one["n_measured"] == other["n_measured"]).all()
        assert one["log_likelihood"].mean() > other["log_likelihood"].mean() + 2  # nats

    def test_of_one_person_in_any_order_of_columns(self, model, patients):
        whole = model.log_likelihood(patients, draws=30)
        assert whole.index.equals(patients.ids) and whole.notna().all(axis=None)
        blocks = {name: patients.features[name][patients.features[name].columns[::-1]]
                  for name in reversed(list(patients.features))}
        turned = nf.Cohort.from_frames(patients.subjects, blocks, covariates=patients.covariates)
        turned = turned.select(turned.ids[::-1])
        again = model.log_likelihood(turned, draws=30)
        pd.testing.assert_frame_equal(again.loc[whole.index], whole, rtol=0, atol=1e-9)
        counts = sum(block.notna().sum(axis=1) for block in patients.features.values())
        assert (whole["n_measured"] == counts.loc[whole.index]).all()
        pd.testing.assert_series_equal(whole["per_feature"] * counts, whole["log_likelihood"],
                                       check_names=False)

    @pytest.mark.slow
    def test_a_density_is_per_unit(self, cohort, patients):
        """Quartered numbers are exact in floating point: the same fit, and log 4 a feature."""
        fusion, recipe = MODELS["flat"]
        plan, found = nf.TrainingPlan(max_epochs=5, warmup=2), []
        for c in (1.0, 4.0):
            blocks = {**cohort.features, "dti": c * cohort.features["dti"]}
            scaled = nf.Cohort(cohort.subjects, blocks, cohort.modalities, cohort.covariates,
                               cohort.reference)
            model = nf.NormativeModel(fusion, model=recipe, plan=plan, calibration=nf.HeldOut()
                                      ).fit(scaled.reference_subjects())
            found.append(model.log_likelihood(scaled.select(patients.ids)))
        measured = cohort.features["dti"].loc[patients.ids].notna().sum(axis=1)
        away = found[0]["log_likelihood"] - found[1]["log_likelihood"]
        np.testing.assert_allclose(away, np.log(4) * measured, atol=1e-9)
        assert set(measured) >= {0, 5}

"""Pre-training: encoders of images and tables, what they know, and who they have seen."""
from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import normfuse as nf
from normfuse.calibration import CrossFit, HeldOut
from normfuse.checkpoint import Checkpoint
from normfuse.errors import CalibrationError, CohortError, ModelFileError, TrainingError
from normfuse.imaging import pretraining
from normfuse.imaging.images import Frame, Stack, Units, one_space
from normfuse.imaging.pretraining import Pretraining, pretrain
from normfuse.imaging.topology import INTRA_MARGIN
from normfuse.imaging.topology_nets import Couples, ImageTopologyNet, Topology, TopologyNet
from normfuse.inference import Amortised
from normfuse.kinds import Reconstruction
from normfuse.models import Convolutional, OneLatent
from normfuse.networks import BentEncoder, PrincipalAxes
from normfuse.networks.pyramid import Pyramid
from normfuse.preparation import Preparation
from normfuse.pretrained import JSON_NAME, PretrainedEncoders
from normfuse.stages import Stages
from normfuse.testing import tiny_cohort, tiny_images, tiny_segmentations
from normfuse.training import TrainingPlan

PLAN = TrainingPlan(max_epochs=2, warmup=0, batch_size=8, validation_draws=1, learning_rate=3e-3)
SIZES = Pyramid((4, 8), (0, 4))
PEOPLE = tiny_images()
OTHERS = tiny_images(seed=1)
RECIPE = OneLatent(n_latent=2, hidden=(8,))


def made(**options):
    return pretrain(PEOPLE, **{"networks": SIZES, "plan": PLAN, **options})


@pytest.fixture(scope="module")
def encoders():
    return made()


def same(a: PretrainedEncoders, b: PretrainedEncoders) -> bool:
    return a.modalities == b.modalities and all(
        torch.equal(value, b.weights[name][key])
        for name, weights in a.weights.items() for key, value in weights.items())


class TestImages:
    def test_the_same_again_and_after_a_stop(self, encoders, tmp_path, monkeypatch):
        assert same(encoders, made()) and not same(encoders, made(seed=1))
        done = []

        def stopping(self, batch, warmup=1.0):
            done.append(self.training)
            if sum(done) == 12:
                raise KeyboardInterrupt
            return loss(self, batch, warmup)

        loss = ImageTopologyNet.loss
        monkeypatch.setattr(ImageTopologyNet, "loss", stopping)
        monkeypatch.setattr(pretraining, "Checkpoint", lambda path: Checkpoint(path, 0.0))
        with pytest.raises(KeyboardInterrupt):
            made(keep=tmp_path)
        before = sum(done)
        again = made(keep=tmp_path)
        assert same(encoders, again) and sum(done) - before == 8  # one epoch, not two
        pd.testing.assert_frame_equal(encoders.history, again.history)

    def test_another_objective_is_not_taken_up(self, tmp_path):
        """Its networks start from the same weights; what is kept is of another loss."""
        made(keep=tmp_path)
        for objective in (Topology(1, 0, 0), Topology(intra=3.0), Topology(n_neighbours=2)):
            other = made(objective=objective, keep=tmp_path)
            assert same(other, made(objective=objective)) and repr(objective) == other.objective
        assert same(made(), made(keep=tmp_path))

    def test_a_best_first_epoch_is_said(self, monkeypatch):
        steps = iter(range(1, 99))
        monkeypatch.setattr(TopologyNet, "loss", lambda self, batch, warmup=1.0: {
            "intra": next(steps) + 0 * sum(p.sum() for p in self.parameters())})
        with pytest.warns(UserWarning, match="by the first of 3 epochs: hardly anything"):
            made(plan=replace(PLAN, max_epochs=3))

    def test_people_lack_scans(self, encoders):
        assert not PEOPLE.present.all(axis=None)
        alone = {m.name: PEOPLE.features[m.name].copy() for m in PEOPLE.modalities}
        for k, subject in enumerate(PEOPLE.ids):  # everybody has one of the modalities only
            for m, block in enumerate(alone.values()):
                if m != k % 3:
                    block.loc[subject] = np.nan
        lonely = nf.Cohort(PEOPLE.subjects, alone, PEOPLE.modalities, PEOPLE.covariates)
        with pytest.warns(UserWarning, match="nothing was compared .* nobody has two"):
            found = pretrain(lonely, networks=SIZES, plan=PLAN)
        assert (found.history["intra"] == 0).all() and "nothing was compared" in found.told()
        frame = Frame(one_space(PEOPLE), SIZES.step, "axial")
        stack = Stack.of(lonely, frame, Units.of(lonely), slices=frame.busy).of_somebody()
        batch = Couples(stack).take(torch.arange(len(stack)))
        mine, theirs = batch.present.chunk(2, 1)
        assert torch.equal(mine, theirs) and (mine.sum(0) == 1).all()
        net = ImageTopologyNet(SIZES, 2, ["T1w", "T2w", "FLAIR"], Topology())
        terms = net.loss(batch)
        assert terms["intra"] == 0 < terms["inter"]

    def test_volumes_and_convolutions(self):
        volumes = made(plane=None, plan=replace(PLAN, batch_size=2, max_epochs=1))
        assert (volumes.dimensions, len(volumes.weights)) == (3, 3)
        bends = made(networks=Convolutional(channels=(4, 8)), plan=replace(PLAN, max_epochs=1))
        assert bends.dimensions == 3 and "FLAIR" in bends.modalities

    def test_it_learns_what_is_near(self):
        plan = replace(PLAN, max_epochs=8)
        history = made(plan=plan, objective=Topology(0, 1, 0)).history
        assert history["intra"].iloc[-1] < 0.8 * history["intra"].iloc[0]
        assert history["intra"].iloc[-1] < INTRA_MARGIN  # what a collapse would cost

    def test_a_collapse_is_seen_by_all_but_the_inter_subject_term(self):
        net = ImageTopologyNet(SIZES, 2, ["T1w", "T2w", "FLAIR"], Topology())
        for encoder in net.encoders:
            last = encoder.steps[-1][0]
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.ones_(last.bias)
            torch.nn.init.zeros_(encoder.steps[-1][1].steps[-1].weight)
        frame = Frame(one_space(PEOPLE), SIZES.step, "axial")
        stack = Stack.of(PEOPLE, frame, Units.of(PEOPLE), slices=frame.busy)
        terms = net.loss(Couples(stack).take(torch.arange(16)))
        assert float(terms["intra"]) == pytest.approx(10 * INTRA_MARGIN, abs=1e-5)
        assert float(terms["inter"]) < 1e-6
        watched = net.watch(Couples(stack))
        assert max(watched[f"rank of {m}"] for m in net.names) < 0.1
        assert watched["matched"] < 0.3 and watched["collapsed"] == pytest.approx(0.5)

    def test_who_stops_has_two_modalities_where_somebody_has(self):
        blocks = {m.name: PEOPLE.features[m.name].copy() for m in PEOPLE.modalities}
        for name in ("T2w", "FLAIR"):
            blocks[name].iloc[:9] = np.nan  # of the last three only there is more than a T1w
        few = nf.Cohort(PEOPLE.subjects, blocks, PEOPLE.modalities, PEOPLE.covariates)
        for seed in range(4):
            history = pretrain(few, networks=SIZES, plan=replace(PLAN, max_epochs=1),
                               seed=seed).history
            assert (history["intra"] > 0).all() and (history["inter"] > 0).all()

    def test_a_collapse_is_said(self, monkeypatch):
        monkeypatch.setattr(pretraining, "COLLAPSED", 1e3)
        with pytest.warns(UserWarning, match=r"nearly the same in T1w \(.*These encoders collaps"):
            found = made(plan=replace(PLAN, max_epochs=1))
        assert "collapsed" in found.told() and "collapsed" in found._repr_html_()

    def test_partners_are_other_people_in_the_same_slice(self):
        frame = Frame(one_space(PEOPLE), SIZES.step, "axial")
        stack = Stack.of(PEOPLE, frame, Units.of(PEOPLE), slices=frame.busy)
        who = Stack(frame, tuple(torch.arange(12.0)[:, None].expand(12, 304) + 1
                                 for _ in range(3)), stack.people, stack.slices)
        batch = Couples(who).take(torch.arange(0, len(stack), 3))
        mine, theirs = batch.values.amax((2, 3)).chunk(2, 1)
        assert (mine != theirs).all()
        mine, theirs = batch.inside.chunk(2)
        assert torch.equal(mine, theirs)

    @pytest.mark.parametrize("options, said", [
        ({"objective": Topology(1, 0, 0), "networks": "Pyramid"}, "networks is an object"),
        ({"objective": "TACO"}, "expected an object of a subclass of Topology"),
        ({"plan": {"max_epochs": 3}}, "plan is a TrainingPlan")])
    def test_refused_options(self, options, said):
        with pytest.raises(TypeError, match=said):
            made(**options)

    def test_refused_people(self):
        alone = PEOPLE.select(PEOPLE.ids)
        for name in ("T2w", "FLAIR"):
            alone = alone.without(name)
        with pytest.raises(CohortError, match="nobody has two modalities, and the objective"):
            pretrain(alone, objective=Topology(0, 1, 0), networks=SIZES, plan=PLAN)
        with pytest.raises(CohortError, match="7 people are too few to pre-train on: 8 at least"):
            pretrain(PEOPLE.select(PEOPLE.ids[:7]), networks=SIZES)
        with pytest.raises(ValueError, match="cannot be used without reconstruction"):
            Topology(0, 0, 1)
        with pytest.raises(ValueError, match="one of the weights"):
            Topology(0, 0, 0)
        with pytest.raises(ValueError, match="intra is a weight from 0 on; got -1"):
            Topology(intra=-1)


class TestFile:
    def test_saved_and_read(self, encoders, tmp_path):
        found = PretrainedEncoders.load(encoders.save(tmp_path / "e"))
        assert same(encoders, found) and found.networks == encoders.networks
        assert (found.told(), found.n_people, found.known) == (
            encoders.told(), 12, encoders.known)
        pd.testing.assert_frame_equal(found.history, encoders.history)
        assert sorted(p.name for p in (tmp_path / "e").iterdir()) == [
            "encoders.json", "weights.safetensors"]

    def test_what_was_edited_is_refused(self, encoders, tmp_path):
        folder = encoders.save(tmp_path / "e")
        content = json.loads((folder / JSON_NAME).read_text())
        (folder / JSON_NAME).write_text(json.dumps({**content, "n_people": 99}))
        with pytest.raises(ModelFileError, match="changed after it was saved"):
            PretrainedEncoders.load(folder)
        with pytest.raises(ModelFileError, match="is not a saved model"):
            PretrainedEncoders.load(tmp_path)


class TestImageModels:
    def test_they_start_there(self, encoders, monkeypatch):
        seen = []

        def unlearning(net, *_, **__):
            seen.append({k: v.clone() for k, v in net.ladder.encoders.state_dict().items()})
            raise KeyboardInterrupt

        for where in ("segmentation", "synthesis"):
            monkeypatch.setattr(f"normfuse.imaging.{where}.fit", unlearning)
        with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nf.IncompleteSegmenter(encoders=encoders).fit(OTHERS, tiny_segmentations(OTHERS))
        with pytest.raises(KeyboardInterrupt):
            nf.ImageSynthesiser(encoders=encoders).fit(OTHERS)
        for found in seen:
            for k, weights in enumerate(encoders.weights.values()):
                assert all(torch.equal(found[f"{k}.{key}"], v) for key, v in weights.items())

    def test_nobody_who_was_seen_calibrates_unsaid(self, encoders):
        plan = replace(PLAN, max_epochs=1)
        with pytest.warns(UserWarning, match="by whom uncertainty is calibrated were seen in pre"):
            nf.ImageSynthesiser(encoders=encoders, plan=plan).fit(PEOPLE)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clean = nf.ImageSynthesiser(encoders=Pretraining(networks=SIZES, plan=plan),
                                        plan=plan).fit(PEOPLE)
        assert clean.sizes == SIZES
        assert "pre-trained on 9 people by Topology()" in clean.fitted.start

    def test_people_of_pretraining_are_known_and_all_is_saved(self, encoders, tmp_path):
        model = nf.ImageSynthesiser(encoders=encoders, plan=replace(PLAN, max_epochs=1))
        model.fit(OTHERS)
        with pytest.warns(UserWarning, match="used to train this synthesiser"):
            found = model.synthesise(PEOPLE.select(PEOPLE.ids[:1]), ["T2w"])
        read = nf.ImageSynthesiser.load(model.save(tmp_path / "m"))
        assert read.fitted.start == encoders.told() and read.sizes == SIZES
        with pytest.warns(UserWarning, match="used to train"):
            again = read.synthesise(PEOPLE.select(PEOPLE.ids[:1]), ["T2w"])
        pd.testing.assert_frame_equal(found.mean["T2w"], again.mean["T2w"])

    def test_few_labels(self, encoders):
        some = OTHERS.select(OTHERS.ids[:3])
        with pytest.warns(UserWarning, match="3 labelled people are too few to stop by"):
            model = nf.IncompleteSegmenter(encoders=encoders, plan=PLAN).fit(
                some, tiny_segmentations(some))
        assert model.fitted.softness == 1 and len(model.fitted.history) == 2

    def test_modalities_and_sizes(self, encoders):
        with pytest.raises(ValueError, match=r"sizes has channels \(4, 12\), the encoders have"):
            nf.ImageSynthesiser(encoders=encoders, sizes=Pyramid((4, 12), (0, 4)))
        with pytest.raises(TypeError, match="encoders are PretrainedEncoders"):
            nf.IncompleteSegmenter(encoders="folder")
        with pytest.raises(ValueError, match="for a NormativeModel; image models take"):
            nf.IncompleteSegmenter(encoders=Pretraining(networks=Convolutional()))
        with pytest.raises(ValueError, match="these encoders read slices; .* of 3 dimensions"):
            nf.ImageSynthesiser(encoders=encoders, plane=None, plan=PLAN).fit(OTHERS)
        net = {"PET": torch.nn.Linear(2, 2)}
        with pytest.raises(CohortError, match="know T1w, T2w, FLAIR, and none of PET"):
            encoders.start(net)
        less = replace(encoders, weights={"T1w": encoders.weights["T1w"]})
        with pytest.warns(UserWarning, match="from axial slices of 4 mm; .* at coronal slices"):
            nf.ImageSynthesiser(encoders=encoders, plane="coronal", plan=replace(
                PLAN, max_epochs=1)).fit(OTHERS)
        with pytest.warns(UserWarning, match="encoders of T2w, FLAIR were not pre-trained"):
            nf.ImageSynthesiser(encoders=less, plan=replace(PLAN, max_epochs=1)).fit(OTHERS)


class TestTables:
    CONTROLS, PATIENTS = tiny_cohort(180, seed=1).split("diagnosis == 'CN'")
    BRIEF = TrainingPlan(max_epochs=3, warmup=1)

    @pytest.fixture(scope="class")
    def of_patients(self):
        return pretrain(self.PATIENTS, networks=RECIPE, plan=PLAN)

    def test_a_model_starts_there(self, of_patients):
        assert of_patients.dimensions == 0 and of_patients.features["dti"][0] == "dti_region0"
        model = nf.NormativeModel(encoders=of_patients, plan=self.BRIEF)
        assert model.model == RECIPE  # the encoders'
        prepared = Preparation.fit(self.CONTROLS)
        people = prepared.batch(self.CONTROLS, np.ones(len(self.CONTROLS), bool))
        stages = Stages(self.CONTROLS.modalities, people, people, self.BRIEF, model.inference, 0,
                        None, of_patients)
        vae = stages._built(RECIPE, model.fusion, [None] * 3)
        fresh = replace(stages, encoders=None)._built(RECIPE, model.fusion, [None] * 3)
        for k, (name, weights) in enumerate(of_patients.weights.items()):
            n = len(of_patients.features[name])
            first, design = vae.encoders[k].net[0].weight.split([n, people.design.shape[1]], 1)
            assert torch.equal(first, weights["net.0.weight"])
            assert torch.equal(design, fresh.encoders[k].net[0].weight[:, n:])
            assert torch.equal(vae.encoders[k].skip.weight[:, :n], weights["skip.weight"])

    def test_scores_and_provenance(self, of_patients, tmp_path):
        model = nf.NormativeModel(encoders=of_patients, plan=self.BRIEF).fit(self.CONTROLS)
        assert of_patients.told() in model.fitted.reference.notes
        with pytest.warns(UserWarning, match="were used to train this model and are left out"), \
                pytest.raises(CohortError, match="nobody is left"):
            model.deviations(self.PATIENTS)
        scored = model.deviations(self.PATIENTS, include_seen=True)
        assert set(scored.subjects["normfuse_role"]) == {"pretraining"}
        # the covariate model learned nothing of them, and is judged with nobody left out
        plain = nf.NormativeModel(model=RECIPE, plan=self.BRIEF).fit(self.CONTROLS)
        mine, theirs = (m.deviations(self.PATIENTS, kind="covariates", include_seen=True).z
                        for m in (model, plain))
        pd.testing.assert_frame_equal(mine, theirs)
        read = nf.NormativeModel.load(model.save(tmp_path / "m"))
        pd.testing.assert_frame_equal(scored.z, read.deviations(self.PATIENTS,
                                                                include_seen=True).z)

    @pytest.mark.parametrize("calibration", [HeldOut(), CrossFit(folds=2)])
    def test_who_was_seen_calibrates_nothing(self, calibration):
        seen = pretrain(self.CONTROLS, networks=RECIPE, plan=PLAN)
        model = nf.NormativeModel(encoders=seen, plan=self.BRIEF, calibration=calibration)
        with pytest.raises(CalibrationError, match="were seen when the encoders were pre-trained"):
            model.fit(self.CONTROLS)

    @pytest.mark.parametrize("calibration", [HeldOut(), CrossFit(folds=2)])
    def test_a_model_may_make_its_own(self, calibration, monkeypatch):
        asked = []
        fit = Pretraining.fit

        def noted(how, cohort, *, keep=None):
            asked.append(set(cohort.ids))
            return fit(how, cohort, keep=keep)

        monkeypatch.setattr(Pretraining, "fit", noted)
        model = nf.NormativeModel(model=RECIPE, encoders=Pretraining(plan=PLAN), plan=self.BRIEF,
                                  calibration=calibration, kinds=(Reconstruction(),),
                                  inference=Amortised()).fit(self.CONTROLS)
        assert "pre-trained on" in " ".join(model.fitted.reference.notes)
        if isinstance(calibration, CrossFit):  # each fold's people train in the other fold
            assert len(asked) == 3 and not asked[0].intersection(asked[1])
        else:
            assert asked and not asked[0].intersection(model._held_out.ids)

    def test_refusals(self, of_patients):
        with pytest.raises(TypeError, match="encoders are PretrainedEncoders.*got 'folder'"):
            nf.NormativeModel(encoders="folder")
        with pytest.raises(CohortError, match="no two modalities have three regions of the same"):
            renamed = {m.name: self.PATIENTS.features[m.name].add_prefix(f"{m.name}_x")
                       for m in self.PATIENTS.modalities}
            pretrain(nf.Cohort.from_frames(self.PATIENTS.subjects, renamed,
                                           covariates=dict(self.PATIENTS.covariates)))
        fewer = self.CONTROLS.features["dti"].iloc[:, :4]
        less = nf.Cohort.from_frames(self.CONTROLS.subjects, {
            "t1": self.CONTROLS.features["t1"], "dti": fewer},
            covariates=dict(self.CONTROLS.covariates))
        with pytest.raises(CohortError, match="encoder of dti reads 5 features"):
            nf.NormativeModel(encoders=of_patients, plan=self.BRIEF).fit(less)
        with pytest.raises(ValueError, match="pre-trained at another size"):
            nf.NormativeModel(model=OneLatent(n_latent=3, hidden=(8,)), encoders=of_patients,
                              plan=self.BRIEF).fit(self.CONTROLS)
        with pytest.raises(TrainingError, match="have no place in a model"):
            nf.NormativeModel(model=RECIPE, encoders=made(plan=replace(PLAN, max_epochs=1)),
                              plan=self.BRIEF).fit(self.CONTROLS)
        with pytest.raises(CohortError, match="are images or have more than 2000 features"):
            pretrain(PEOPLE, networks=RECIPE)


def test_convolutions_of_a_normative_model_start_there():
    bend = Convolutional(channels=(4, 8))
    of_images = made(networks=bend, plan=replace(PLAN, max_epochs=1))
    recipe = OneLatent(n_latent=2, hidden=(4,), voxels=bend)
    vae = recipe.build({m: 3 for m in of_images.modalities}, 1, nf.NormativeModel().fusion)
    vae.widen([PrincipalAxes(torch.ones(3, 304), torch.ones(3, 304))] * 3)
    vae.convolve([torch.tensor(one_space(PEOPLE).mask)] * 3)
    of_images.start({name: encoder.conv.steps for name, encoder in zip(vae.names, vae.encoders)
                     if isinstance(encoder, BentEncoder)})
    for k, weights in enumerate(of_images.weights.values()):
        state = vae.encoders[k].conv.steps.state_dict()
        assert weights and all(torch.equal(state[key], value) for key, value in weights.items())

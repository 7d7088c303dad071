"""Segmentation with missing modalities: what it finds, whom it refuses, and what it says of doubt.

Outside witnesses: MONAI's DiceCELoss, scikit-learn's log loss, scipy's entropy. No witness: how
well a small network segments; it must beat labelling everything alike by far.
"""
from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from monai.losses.dice import DiceCELoss
from scipy.stats import entropy
from sklearn.metrics import log_loss

import normfuse as nf
from normfuse.errors import CohortError, NormfuseError, NotFittedError, SpaceMismatchError
from normfuse.fusion import (Alignment, ProductOfExperts, SubsetMixture, WassersteinBarycenter)
from normfuse.imaging.images import Frame, Stack, Units
from normfuse.imaging.labelled import with_labels
from normfuse.imaging.learning import Roles
from normfuse.imaging.objectives import dice_cross_entropy
from normfuse.imaging.segmentation_net import SegmentationNet
from normfuse.imaging.softness import measured_softness, probabilities
from normfuse.testing import tiny_images, tiny_segmentations

PLAN = nf.TrainingPlan(max_epochs=20, warmup=2, batch_size=8, learning_rate=1.5e-2, final_rate=0.1,
                       validation_draws=1, clip=5.0)
BRIEF = replace(PLAN, max_epochs=1, warmup=1)
SIZES = nf.Pyramid((8, 16), (4, 4))
PEOPLE = tiny_images(24)
TRUTH = tiny_segmentations(PEOPLE)
NEW = tiny_images(24, seed=1).select([f"sub-{k:02d}" for k in (20, 4, 22)])


@pytest.fixture(scope="module")
def segmenter() -> nf.IncompleteSegmenter:
    return nf.IncompleteSegmenter(sizes=SIZES, plan=PLAN).fit(PEOPLE, TRUTH)


def refused(cohort=PEOPLE, truth=TRUTH, error=CohortError) -> str:
    with pytest.raises(error) as found, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        nf.IncompleteSegmenter(sizes=SIZES, plan=BRIEF).fit(cohort, truth)
    return str(found.value)


def in_order(cohort: nf.Cohort, names: list[str]) -> nf.Cohort:
    return nf.Cohort(cohort.subjects, {n: cohort.features[n] for n in names},
                     tuple(cohort.modality(n) for n in names), cohort.covariates)


class TestLoss:
    def test_is_monais_where_all_classes_are_there(self):
        torch.manual_seed(0)
        logits, labels = torch.randn(40, 3), torch.arange(40) % 3
        theirs = DiceCELoss(include_background=False, softmax=True, to_onehot_y=True, batch=True)
        torch.testing.assert_close(sum(dice_cross_entropy(logits, labels)),
                                   theirs(logits.T[None], labels[None, None]))

    def test_absent_classes_have_no_overlap_to_raise(self):
        logits = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(40) % 2
        dice, _ = dice_cross_entropy(logits, labels)
        p = logits.softmax(1)[:, 1]
        assert dice.item() == pytest.approx(
            (1 - 2 * p[labels == 1].sum() / (p.sum() + 20)).item(), abs=1e-5)
        dice, cross = dice_cross_entropy(logits.requires_grad_(), torch.zeros(40).long())
        (dice + cross).backward()
        assert dice == 0 and torch.isfinite(logits.grad).all()

    def test_is_of_the_brain_alone(self):
        frame, units = Frame(TRUTH.space, 2, "axial"), Units.of(PEOPLE)
        cohort, classes = with_labels(PEOPLE, TRUTH, TRUTH.space, TRUTH.names)
        batch = Stack.of(cohort, frame, units, classes).of_somebody().take(torch.arange(9))
        torch.manual_seed(0)
        net = SegmentationNet(("a", "b", "c"), 2, WassersteinBarycenter(), SIZES, 3, hide=0.0)
        assert not batch.inside.all()
        elsewhere = replace(batch, labels=torch.where(batch.inside, batch.labels, 2))
        found = []
        for some in (batch, elsewhere):
            torch.manual_seed(1)
            found.append(net.loss(some))
        assert found[0]["dice"] == found[1]["dice"]
        assert found[0]["cross entropy"] == found[1]["cross entropy"]

    @pytest.mark.parametrize("fusion", [SubsetMixture(ProductOfExperts()), ProductOfExperts()],
                             ids=repr)
    def test_any_aggregator_and_an_alignment_train_to_the_end(self, fusion):
        made = nf.IncompleteSegmenter(fusion, sizes=nf.Pyramid((4, 8), (0, 4)), plan=BRIEF,
                                      alignment=Alignment(WassersteinBarycenter()))
        history = made.fit(PEOPLE, TRUTH).fitted.history
        assert {"dice", "cross entropy", "kl z1", "alignment"} <= set(history)
        assert np.isfinite(history.to_numpy()).all()


class TestWhatIsFound:
    def test_lesions_of_new_people_from_every_subset(self, segmenter):
        truth = tiny_segmentations(NEW)
        whole = {"any": ("bright", "brightest")}
        marked = truth.mask(("bright", "brightest")).mean(1)
        everything = 2 * marked / (1 + marked)  # Dice of labelling every voxel
        for given in (["T1w"], ["T2w"], ["FLAIR"], ["T1w", "T2w"], None):
            dice = segmenter.predict(NEW, given=given).dice(truth, whole)["any"]
            assert (dice > everything + 0.15).all(), (given, dice, everything)
        assert (dice > 0.75).all()

    def test_numbers_are_those_of_the_names(self, segmenter):
        found = segmenter.predict(NEW)
        assert found.names == {"bright": 1, "brightest": 4} and found.ids == tuple(NEW.ids)
        assert set(np.unique(found.labels)) == {0, 1, 4}

    def test_order_of_modalities_does_not_matter(self, segmenter):
        turned = in_order(NEW, ["FLAIR", "T1w", "T2w"])
        assert same(segmenter.predict(turned), segmenter.predict(NEW))

    def test_a_modality_may_be_lacking_altogether(self, segmenter):
        assert same(segmenter.predict(in_order(NEW, ["FLAIR", "T1w"])),
                    segmenter.predict(NEW, given=["T1w", "FLAIR"]))

    def test_a_persons_result_is_their_own(self, segmenter):
        found, alone = segmenter.predict(NEW), segmenter.predict(NEW.select(["sub-22"]))
        assert same(alone, found.select(["sub-22"]))

    def test_what_is_absent_is_not_looked_at(self, segmenter):
        blocks = {**NEW.features.as_is(), "T2w": NEW.features["T2w"] * -7 + 100}
        other = nf.Cohort(NEW.subjects, blocks, NEW.modalities, NEW.covariates)
        assert same(segmenter.predict(other, given=["T1w"]), segmenter.predict(NEW, given=["T1w"]))
        assert not same(segmenter.predict(other), segmenter.predict(NEW))

    def test_training_repeats_itself_and_leaves_the_callers_random_state(self):
        torch.manual_seed(3)
        state, both = torch.get_rng_state(), []
        for _ in range(2):
            both.append(nf.IncompleteSegmenter(sizes=SIZES, plan=BRIEF).fit(PEOPLE, TRUTH))
            both[-1].predict(NEW)
        assert torch.equal(state, torch.get_rng_state())
        weights = [m.fitted.net.state_dict() for m in both]
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])

    def test_whole_volumes(self):
        plan = replace(BRIEF, batch_size=2)
        made = nf.IncompleteSegmenter(plane=None, sizes=nf.Pyramid((4, 8), (0, 4)), plan=plan)
        assert made.fit(PEOPLE, TRUTH).predict(NEW).labels.shape == (3, TRUTH.space.n_voxels)


class TestDoubt:
    def test_is_the_entropy_of_the_mean_probabilities(self, segmenter):
        found = segmenter.predict(NEW.select(["sub-04"]))
        f = segmenter.fitted
        images = Stack.of(nf.Cohort(NEW.subjects, NEW.features.as_is(), NEW.modalities,
                                    NEW.covariates).select(["sub-04"]), f.frame, f.units)
        torch.manual_seed(segmenter.seed)
        p = probabilities(f.net.logits(images.take(torch.arange(f.frame.n_slices)), 0.0, 4),
                          f.softness)
        voxels = torch.stack([f.frame.table(p[:, c])[0] for c in range(3)]).numpy()
        np.testing.assert_allclose(found.uncertainty[0], entropy(voxels) / np.log(3), atol=1e-5)
        assert (found.labels[0] == f.numbers[voxels.argmax(0)]).all()

    def test_is_larger_where_labels_are_wrong_and_with_less_to_look_at(self, segmenter):
        found, wrong = segmenter.predict(NEW), tiny_segmentations(NEW).labels
        wrong = found.labels != wrong
        assert found.uncertainty[wrong].mean() > 2 * found.uncertainty[~wrong].mean()
        assert segmenter.predict(NEW, given=["FLAIR"]).uncertainty.mean() > \
            found.uncertainty.mean()

    def test_softness_makes_log_loss_least(self):
        frame, units = Frame(TRUTH.space, 2, "axial"), Units.of(PEOPLE)
        cohort, classes = with_labels(PEOPLE, TRUTH, TRUTH.space, TRUTH.names)
        images = Stack.of(cohort, frame, units, classes)

        def over_confident(batch):
            drawn = torch.Generator().manual_seed(int(batch.labels.sum()))
            shape = (2, len(batch), 3, *frame.sides)
            told = torch.nn.functional.one_hot(batch.labels, 3).movedim(-1, 1)
            return 6 * (told + 0.7 * torch.randn(shape, generator=drawn))

        best = measured_softness(images, over_confident, 16)
        parts = [images.take(rows) for rows in torch.arange(len(images)).split(16)]
        true = torch.cat([part.labels[part.inside] for part in parts])
        loss = {}
        for softness in (0.8 * best, best, 1.25 * best):
            p = torch.cat([probabilities(over_confident(part), softness).movedim(1, -1)
                           [part.inside] for part in parts]).double()
            loss[softness] = log_loss(true, p / p.sum(1, keepdim=True), labels=[0, 1, 2])
        assert best > 1.2 and min(loss, key=loss.get) == best


class TestTuning:
    def test_few_people_teach_a_copy(self, segmenter):
        few = NEW.select(["sub-20", "sub-04"])
        tuned = segmenter.tune(few, tiny_segmentations(few), BRIEF)
        assert tuned.fitted.softness == segmenter.fitted.softness
        assert not same(tuned.predict(NEW.select(["sub-22"])),
                        segmenter.predict(NEW.select(["sub-22"])))
        with pytest.warns(UserWarning, match="2 of 3 people were used to train this segmenter"):
            tuned.predict(NEW)

    def test_what_none_of_them_has_keeps_its_units(self, segmenter):
        few = in_order(NEW, ["T1w", "T2w"])
        units = segmenter.tune(few, tiny_segmentations(NEW), BRIEF).fitted.units
        old = segmenter.fitted.units
        assert units.mean[2] == old.mean[2] and units.mean[0] != old.mean[0]

    def test_labels_are_matched_by_name(self, segmenter):
        truth = tiny_segmentations(NEW)
        swapped = nf.Segmentations(truth.ids, np.array([0, 7, 0, 0, 2])[truth.labels], truth.space,
                                   {"brightest": 2, "bright": 7})
        assert same(segmenter.tune(NEW, swapped, BRIEF).predict(PEOPLE.select(["sub-01"])),
                    segmenter.tune(NEW, truth, BRIEF).predict(PEOPLE.select(["sub-01"])))
        odd = replace(truth, names={"bright": 1, "dark": 4})
        with pytest.raises(CohortError, match="knows no label dark; it was fitted to bright"):
            segmenter.tune(NEW, odd)


class TestRefusals:
    def test_labels_on_another_grid(self):
        moved = nf.Space(TRUTH.space.mask, np.diag([3.0, 3, 3, 1]), "tiny")
        words = refused(truth=replace(TRUTH, space=moved), error=SpaceMismatchError)
        assert all(part in words for part in ("3 x 3 x 3 mm", "4 x 4 x 4 mm", "Segmentations"))

    def test_unknown_label_values(self):
        with pytest.raises(CohortError, match="labels hold 4, which names does not name"):
            replace(TRUTH, names={"bright": 1})

    def test_no_segmentations(self):
        assert "got ndarray" in refused(truth=TRUTH.labels, error=TypeError)

    def test_nobody_in_common(self):
        strangers = replace(TRUTH, ids=tuple(f"x{i}" for i in TRUTH.ids))
        assert "ids must be the same" in refused(truth=strangers)

    def test_who_has_one_only_is_named_and_left_out(self):
        some = PEOPLE.select(PEOPLE.ids[2:])
        with pytest.warns(UserWarning) as told:
            made = nf.IncompleteSegmenter(sizes=SIZES, plan=BRIEF).fit(
                some, TRUTH.select(TRUTH.ids[:-1]))
        words = next(str(w.message) for w in told if "labels" in str(w.message))
        assert "1 people have images but no labels and are left out (sub-23)" in words
        assert "2 people have labels but no images and are left out (sub-00, sub-01)" in words
        with pytest.warns(UserWarning, match="people were used to train"):
            made.predict(some)

    def test_a_label_of_nobody_in_training(self):
        some = np.where(TRUTH.labels == 4, 1, TRUTH.labels)
        assert "none of the 18 people who train has a voxel of brightest" in refused(
            truth=replace(TRUTH, labels=some))

    def test_a_modality_in_another_space(self, segmenter):
        smaller = TRUTH.space.mask.copy()
        smaller[tuple(TRUTH.space.indices[0])] = False
        space = nf.Space(smaller, TRUTH.space.affine, "tiny")
        block = NEW.features["T1w"].iloc[:, 1:]
        odd = nf.Cohort.from_frames(NEW.subjects, {"T1w": block}, covariates=NEW.covariates,
                                    spaces={"T1w": space}, drop_incomplete=False)
        with pytest.raises(SpaceMismatchError, match="303 voxels.*304 voxels"):
            segmenter.predict(odd)
        two = nf.Cohort.from_frames(
            PEOPLE.subjects, {"T1w": PEOPLE.features["T1w"].iloc[:, 1:].dropna(),
                              "T2w": PEOPLE.features["T2w"].dropna()}, covariates=NEW.covariates,
            spaces={"T1w": space, "T2w": TRUTH.space}, drop_incomplete=True)
        assert "T2w is on" in refused(two, error=SpaceMismatchError)

    def test_an_unknown_modality(self, segmenter):
        odd = nf.Cohort.from_frames(NEW.subjects, {"PET": NEW.features["T1w"]},
                                    covariates=NEW.covariates, spaces={"PET": TRUTH.space})
        with pytest.raises(CohortError, match="knows no modality PET; it was made with T1w"):
            segmenter.predict(odd)
        with pytest.raises(CohortError, match="given is a list of modalities among T1w"):
            segmenter.predict(NEW, given="T1w")

    def test_a_person_of_whom_nothing_is_to_be_looked_at(self, segmenter):
        with pytest.raises(CohortError, match="nothing is left to look at of sub-00"):
            segmenter.predict(tiny_images(24, seed=1), given=["FLAIR"])

    def test_before_fitting(self):
        with pytest.raises(NotFittedError, match="call fit"):
            nf.IncompleteSegmenter().predict(NEW)
        with pytest.raises(TypeError, match="fusion is an object"):
            nf.IncompleteSegmenter("gwb")


def same(a: nf.Segmentations, b: nf.Segmentations) -> bool:
    return (a.labels == b.labels).all() and (a.uncertainty == b.uncertainty).all()


def test_without_monai_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(NormfuseError, match=r"normfuse\[imaging\]"):
        nf.IncompleteSegmenter().fit(PEOPLE, TRUTH)


def test_who_was_imputed_teaches_nothing(segmenter):
    holes = PEOPLE.select(PEOPLE.ids[~PEOPLE.present["FLAIR"].to_numpy()][:2])
    filled = {"FLAIR": pd.DataFrame(1.0, holes.ids, holes.modality("FLAIR").features)}
    with pytest.raises(CohortError, match="were imputed, not measured"):
        segmenter.tune(holes.with_imputed(filled, filled, by="me"), TRUTH)


@pytest.mark.parametrize("n_ill", [3, 4])
def test_somebody_with_a_lesion_says_when_to_stop_and_somebody_calibrates(n_ill):
    ill = [f"sub-{k:02d}" for k in range(n_ill)]
    for seed in range(20):
        roles = Roles.drawn(PEOPLE, seed, ill)
        assert all(set(ill) & set(group)
                   for group in (roles.training, roles.early_stop, roles.calibration))
        assert roles.counts == Roles.drawn(PEOPLE, seed).counts


def test_one_person_with_a_lesion_is_enough_to_train():
    """Those who say when to stop may all be healthy; where the one trains."""
    labels = np.zeros_like(TRUTH.labels)
    trains = next(k for k, who in enumerate(TRUTH.ids) if who in Roles.drawn(PEOPLE, 0).training
                  and set(TRUTH.labels[k]) >= set(TRUTH.names.values()))
    labels[trains] = TRUTH.labels[trains]
    one = nf.Segmentations(TRUTH.ids, labels, TRUTH.space, TRUTH.names)
    made = nf.IncompleteSegmenter(sizes=SIZES, plan=BRIEF)
    assert len(made.fit(PEOPLE, one).fitted.history) == 1

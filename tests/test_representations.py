"""Representations that two modalities have in common: training, storage, and what they ignore.

Witnesses: the loss of representations that are all the same; a network that was never trained; a
training in one piece beside one that was stopped; another device (far_device.py stands for a GPU).
"""
from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

import normfuse as nf
from normfuse.errors import CohortError, ImageError, ModelFileError, NotFittedError
from normfuse.imaging.contrastive import (AbsoluteDifference, Cosine, MeanSquare, collapse_value)
from normfuse.imaging.embedding_picture import _on_a_plane, plot_embedding
from normfuse.imaging.images import Frame, one_space
from normfuse.imaging.patches import Patches, stack_of, standardised
from normfuse.imaging.representations import ContrastiveRepresentations, contrast_plan
from normfuse.imaging.supervision import Alternating, BottleneckFirst, Summed
from normfuse.testing import tiny_cohort, tiny_head

BRIEF = replace(contrast_plan(), max_epochs=2, batch_size=8, progress=False)


@pytest.fixture(scope="module")
def people() -> nf.Cohort:
    return nf.simulate_images(10, contrasts=("T1w", "T2w", "FLAIR"), resolution=8, seed=1).cohort()


def model(**options) -> ContrastiveRepresentations:
    return ContrastiveRepresentations(
        **{"channels": (4, 8), "patch": 8, "plan": BRIEF, "per_image": 2, **options})


@pytest.fixture(scope="module")
def fitted(people) -> ContrastiveRepresentations:
    return model(per_image=16, plan=replace(
        BRIEF, max_epochs=12, batch_size=16, learning_rate=5e-3)).fit(people)


def same_weights(one: ContrastiveRepresentations, other: ContrastiveRepresentations) -> bool:
    states = (m.fitted.net.state_dict().values() for m in (one, other))
    return all(torch.equal(a, b) for a, b in zip(*states))


class TestTraining:
    def test_it_leaves_the_collapse_and_says_how_far(self, fitted):
        history = fitted.fitted.history
        assert history["collapsed"].iloc[-1] == pytest.approx(collapse_value(16))
        assert history["contrast"].iloc[-1] < history["collapsed"].iloc[-1] - 0.5
        assert history["rank of output"].iloc[-1] > 5
        assert {"rank of bottleneck", "alignment", "uniformity"} <= set(history)

    def test_hardly_any_training_is_said(self, people):
        with pytest.warns(UserWarning, match="hardly better"):
            model(plan=replace(BRIEF, learning_rate=1e-7)).fit(people)
        assert model(plan=replace(BRIEF, warmup=20)).plan.warmup == 0  # there is no KL

    def test_a_checkpoint_of_another_loss_is_not_taken_up(self, people, tmp_path):
        """Networks, people and plan are the same."""
        kept = model().fit(people, keep=tmp_path)
        for other in ({"temperature": 0.1}, {"critic": AbsoluteDifference()}, {"decay": 0.1},
                      {"supervision": Summed()}):
            fresh = model(**other).fit(people)
            again = model(**other).fit(people, keep=tmp_path)
            assert same_weights(fresh, again) and not same_weights(kept, again)

    @pytest.mark.parametrize("way", (Summed, Alternating, BottleneckFirst))
    @pytest.mark.parametrize("critic", (MeanSquare(), AbsoluteDifference(), Cosine()), ids=repr)
    def test_every_supervision_trains_and_is_judged_by_its_output(self, people, way, critic):
        history = model(supervision=way(critic)).fit(people).fitted.history
        assert np.isfinite(history).all(axis=None)
        assert "bottleneck" not in history  # a validation loss that could be compared with none's
        assert "contrast" in history

    def test_what_is_supervised_changes_what_is_learned(self, people):
        found = [model(supervision=s).fit(people).fitted.net.state_dict()["nets.0.last.weight"]
                 for s in (None, Summed(), Alternating(), BottleneckFirst(share=0.5))]
        for i, a in enumerate(found):
            assert all(not torch.equal(a, b) for b in found[i + 1:])

    def test_missing_modalities(self, people):
        """Whoever has two takes part; what one does not have changes nothing."""
        some = people.select(people.ids[:5]).without("FLAIR").join(people.select(people.ids[5:]))
        net = model().fit(some).fitted.net
        assert net.names == ("T1w", "T2w", "FLAIR")
        alone = people.select(people.ids[:8]).without("T2w").without("FLAIR")
        with pytest.raises(CohortError, match="two modalities"):
            model().fit(alone)

    def test_slices(self, people):
        flat = model(plane="axial").fit(people)
        assert flat.fitted.net.dimensions == 2
        with pytest.raises(ValueError, match="plane=None"):
            flat.represent(tiny_head(), "T1w")

    def test_the_same_again_and_after_a_stop(self, people, tmp_path):
        whole = model().fit(people).fitted
        again = model().fit(people, keep=tmp_path).fitted
        taken_up = model().fit(people, keep=tmp_path).fitted
        for other in (again, taken_up):
            for a, b in zip(whole.net.state_dict().values(), other.net.state_dict().values()):
                assert torch.equal(a, b)

    def test_refusals(self, people):
        with pytest.raises(NotFittedError, match="fit"):
            model().represent(tiny_head(), "T1w")
        with pytest.raises(ValueError, match="multiple of 2"):
            model(patch=7)
        with pytest.raises(CohortError, match="too few"):
            model().fit(people.select(people.ids[:5]))
        for wrong in ({"critic": "mse"}, {"supervision": "summed"}):
            with pytest.raises(TypeError, match="expected an object of"):
                model(**wrong)
        with pytest.raises(TypeError, match="expected an object of"):
            Summed("mse")
        with pytest.raises(ValueError, match="temperature is a number"):
            model(temperature=-1)
        with pytest.raises(TypeError, match="expected a Cohort, .* got DataFrame"):
            model().fit(people.subjects)
        for wrong, said in ((lambda: Summed(weight=-1), "weight is"),
                            (lambda: BottleneckFirst(share=1.0), "share is"),
                            (lambda: model(plan=replace(BRIEF, batch_size=1)), "two pairs")):
            with pytest.raises(ValueError, match=said):
                wrong()
        with pytest.raises(ValueError, match="T1w, T2w"):
            model().fit(people).represent(tiny_head(), "PET")


class TestPatches:
    def take(self, people, plane=None, shading=0.0):
        frame = Frame(one_space(people), 1, plane)
        torch.manual_seed(0)
        patches = Patches(stack_of(people, frame, "cpu"), 8, 2, shading, 8)
        return patches.take(torch.arange(6))

    @pytest.mark.parametrize("plane", (None, "axial", "sagittal"))
    def test_both_show_one_place(self, people, plane):
        """A modality paired with itself would be the same; here what T1w and FLAIR share."""
        pairs = self.take(people, plane)
        assert pairs.images.shape[:3] == (2, 6, 1)
        assert (pairs.which[0] != pairs.which[1]).all()
        twin = nf.Cohort.from_frames(
            people.subjects, {m: people.features["T1w"] for m in ("a", "b")}, covariates={},
            spaces=dict.fromkeys("ab", people.modalities[0].space))
        same = self.take(twin, plane).images
        assert torch.equal(same[0], same[1]) and same.std() > 0.3

    def test_shading_is_each_ones_own(self, people):
        plain, shaded = self.take(people), self.take(people, shading=0.5)
        away = (plain.images - shaded.images).abs().amax((2, 3, 4, 5))
        assert (away > 0.01).all()

    def test_units_and_levels_do_not_matter(self):
        values = np.random.default_rng(0).gamma(3, size=(4, 200))
        values[:, :20] = 0
        assert np.allclose(standardised(values), standardised(1000 * values), atol=1e-5)


class TestRepresent:
    def test_where_there_is_no_brain_it_is_0(self, fitted):
        image = tiny_head(resolution=8)
        found = fitted.represent(image, "T1w")
        outside = np.asanyarray(image.dataobj) == 0
        assert not np.asanyarray(found.dataobj)[outside].any()
        inside = np.asanyarray(found.dataobj)[~outside]
        assert inside.mean() == pytest.approx(2, abs=0.01)
        assert inside.std() == pytest.approx(1, abs=0.01)

    def test_images_that_cannot_be(self, fitted, tmp_path):
        head = tiny_head()
        for image, said in ((nib.Nifti1Image(np.zeros((9, 9, 9)), np.eye(4)), "no signal"),
                            (tmp_path / "no.nii", "not there"), (np.ones((9, 9, 9)), "ndarray")):
            with pytest.raises(ImageError, match=said):
                fitted.represent(image, "T1w")
        nib.save(head, tmp_path / "t1.nii")
        assert np.array_equal(fitted.represent(tmp_path / "t1.nii", "T1w").dataobj,
                              fitted.represent(head, "T1w").dataobj)

    def test_empty_space_does_not_matter(self, fitted):
        image = tiny_head(resolution=8)
        wide = np.pad(np.asanyarray(image.dataobj), 4)
        affine = image.affine.copy()
        affine[:3, 3] -= 32
        one = np.asanyarray(fitted.represent(image, "T1w").dataobj)
        two = np.asanyarray(fitted.represent(nib.Nifti1Image(wide, affine), "T1w").dataobj)
        assert np.allclose(one, two[4:-4, 4:-4, 4:-4], atol=1e-4)

    def test_other_voxels_are_brought_to_those_of_the_fit(self, fitted):
        fine = fitted.represent(tiny_head(resolution=4), "T2w")
        assert np.allclose(np.linalg.norm(fine.affine[:3, :3], axis=0), 8)

    def test_two_modalities_become_alike(self, fitted):
        """More than they are, and more than an untrained network makes them."""
        def alike(make) -> float:
            a, b = (np.asanyarray(make(tiny_head(c, seed=50, resolution=8), c).dataobj)
                    for c in ("T1w", "T2w"))
            return float(np.corrcoef(a[a != 0], b[a != 0])[0, 1])

        raw = alike(lambda image, contrast: image)
        assert alike(fitted.represent) > max(raw, 0) + 0.1


class TestOnDisk:
    def test_the_same_to_the_last_bit(self, fitted, tmp_path):
        fitted.save(tmp_path / "m")
        read = ContrastiveRepresentations.load(tmp_path / "m")
        image = tiny_head(resolution=8)
        one, two = (np.asanyarray(m.represent(image, "T1w").dataobj) for m in (fitted, read))
        assert np.array_equal(one, two)
        assert read.fitted.history.equals(fitted.fitted.history)
        assert repr(read) == repr(fitted)

    def test_supervision_comes_back(self, people, tmp_path):
        model(supervision=Summed(Cosine(), 0.5)).fit(people).save(tmp_path / "m")
        read = ContrastiveRepresentations.load(tmp_path / "m")
        assert read.supervision == Summed(Cosine(), 0.5)

    def test_damage_is_named(self, fitted, tmp_path):
        fitted.save(tmp_path / "m")
        file = tmp_path / "m" / "representations.json"
        file.write_text(file.read_text().replace('"T1w"', '"T9w"'))
        with pytest.raises(ModelFileError, match="changed after"):
            ContrastiveRepresentations.load(tmp_path / "m")
        with pytest.raises(ModelFileError, match="not a saved model"):
            ContrastiveRepresentations.load(tmp_path)


class TestPicture:
    def test_partners_are_joined_and_each_modality_has_its_colour(self, fitted, people):
        figure = plot_embedding(fitted, people, n_places=20)
        left, right = figure.axes
        assert left.get_title(loc="left").startswith("output, effective rank ")
        assert right.get_title(loc="left").startswith("bottleneck")
        for ax in (left, right):
            shown = np.vstack([points.get_offsets() for points in ax.collections])
            ends = np.vstack([line.get_xydata() for line in ax.lines])
            assert shown.shape == ends.shape == (40, 2)
            assert {tuple(p) for p in shown} == {tuple(p) for p in ends}
        again = plot_embedding(fitted, people, n_places=20)
        assert np.array_equal(left.lines[0].get_xydata(), again.axes[0].lines[0].get_xydata())

    def test_distances_in_the_plane_follow_those_of_representations(self):
        rows = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
        at = torch.from_numpy(_on_a_plane(torch.cat([rows, torch.zeros(30, 5)], 1), 0))
        assert np.allclose(torch.pdist(at), torch.pdist(rows), atol=0.05)

    def test_refusals(self, fitted, people):
        with pytest.raises(ValueError, match="four places"):
            plot_embedding(fitted, people, n_places=3)
        others = nf.simulate_images(10, contrasts=("T1w", "FLAIR"), resolution=8, seed=1).cohort()
        with pytest.raises(CohortError, match="in this order"):
            plot_embedding(fitted, others)


def test_tables_are_refused():
    with pytest.raises(CohortError, match="table of regions"):
        model().fit(tiny_cohort(20))

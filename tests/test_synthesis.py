"""Synthesis of absent scans: what is learned, what is said of it, and who may ask.

Witnesses: the regression of one tissue map's contrasts on each other (closed form), SciPy and
scikit-image's formulas written out for errors, and the recipe itself trained without holes.
"""
from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from normfuse import Cohort, Space, TrainingPlan
from normfuse import fusion as f
from normfuse.errors import CohortError, NotFittedError, SpaceMismatchError
from normfuse.imaging.adversarial import Adversaries, PatchAdversary
from normfuse.imaging.images import Frame, Stack, Units
from normfuse.imaging.synthesis import ImageSynthesiser
from normfuse.imaging.synthesis_net import SynthesisNet
from normfuse.imaging.widths import Widths, measured_widths
from normfuse.networks.pyramid import Pyramid
from normfuse.testing import tiny_images

SIZES = Pyramid((8, 16), (0, 8))
BRIEF = TrainingPlan(max_epochs=2, warmup=1, validation_draws=1, progress=False)
ENOUGH = TrainingPlan(max_epochs=25, warmup=5, patience=25, learning_rate=8e-3, final_rate=0.05,
                      batch_size=16, clip=5.0, validation_draws=1, progress=False)


@pytest.fixture(scope="module")
def fitted() -> ImageSynthesiser:
    return ImageSynthesiser(sizes=SIZES, plan=ENOUGH).fit(tiny_images(40))


@pytest.fixture(scope="module")
def others() -> Cohort:
    """New people, complete: ids that the fit has not heard of."""
    new = tiny_images(60, seed=7)
    new = new.select(list(new.ids[new.present.all(axis=1).to_numpy()])[:25])
    frames = {m.name: new.features[m.name].rename("new-{}".format) for m in new.modalities}
    return Cohort.from_frames(new.subjects.rename("new-{}".format), frames,
                              covariates=new.covariates,
                              spaces={m.name: m.space for m in new.modalities})


def r2(made: pd.DataFrame, real: pd.DataFrame) -> float:
    return 1 - float(((made - real) ** 2).to_numpy().mean() / real.to_numpy().var())


@pytest.mark.parametrize("given", [["T1w"], ["FLAIR"], ["T1w", "FLAIR"]], ids="+".join)
def test_absent_contrasts_are_foretold(fitted: ImageSynthesiser, others: Cohort,
                                       given: list[str]) -> None:
    """At best R2 is that of the tissue map, noise apart: near .9 here."""
    made = fitted.synthesise(others, ["T2w"], given=given)
    assert r2(made.mean["T2w"], others.features["T2w"]) > 0.6
    assert made.given.iloc[0].tolist() == [n in given for n in ("T1w", "T2w", "FLAIR")]


def test_uncertainty_is_that_of_new_people(fitted: ImageSynthesiser, others: Cohort) -> None:
    for given in (["T1w"], ["FLAIR"], ["T1w", "FLAIR"]):
        z = fitted.synthesise(others, ["T2w"], given=given).standardised(others, "T2w")
        assert abs(z.to_numpy().std() - 1) < 0.12  # six people calibrated it


def test_own_scan_is_not_looked_at(fitted: ImageSynthesiser, others: Cohort) -> None:
    asked = fitted.synthesise(others, ["T2w"])
    lacking = fitted.synthesise(others.without("T2w"))
    pd.testing.assert_frame_equal(asked.mean["T2w"], lacking.mean["T2w"])
    pd.testing.assert_frame_equal(asked.sd["T2w"], lacking.sd["T2w"])
    assert list(lacking.mean) == ["T2w"]


def test_nothing_to_synthesise(fitted: ImageSynthesiser, others: Cohort) -> None:
    with pytest.raises(CohortError, match="nobody lacks a modality: name what to synthesise"):
        fitted.synthesise(others)


def test_people_do_not_depend_on_each_other(fitted: ImageSynthesiser, others: Cohort) -> None:
    alone = fitted.synthesise(others.select(list(others.ids[7:8])), ["T1w"])
    together = fitted.synthesise(others, ["T1w"])
    pd.testing.assert_frame_equal(alone.mean["T1w"], together.mean["T1w"].iloc[7:8], rtol=1e-4)


def test_modalities_are_told_apart_by_name(fitted: ImageSynthesiser, others: Cohort) -> None:
    turned = Cohort.from_frames(
        others.subjects, {n: others.features[n] for n in ("FLAIR", "T1w")},
        covariates=others.covariates,
        spaces={m.name: m.space for m in others.modalities if m.name != "T2w"})
    a, b = fitted.synthesise(turned), fitted.synthesise(others.without("T2w"))
    pd.testing.assert_frame_equal(a.mean["T2w"], b.mean["T2w"])


def test_errors_are_what_they_are_called(fitted: ImageSynthesiser, others: Cohort) -> None:
    few = others.select(list(others.ids[:2]))
    made = fitted.synthesise(few, ["FLAIR"])
    # the slices of these few voxels are too small for a mean over slices of 100
    table = made.errors(few, minimum=30)
    x, mu = (t.iloc[0] for t in (few.features["FLAIR"], made.mean["FLAIR"]))
    assert table["mae"][0] == pytest.approx(np.abs(x - mu).mean(), rel=1e-5)
    space, found = made.space, []
    for k in range(space.shape[2]):
        inside = space.mask[..., k]
        if inside.sum() >= 30:
            real, guess = (space.img(v).get_fdata()[..., k] for v in (x, mu))
            found.append(10 * np.log10(np.ptp(real) ** 2 / np.mean((real - guess)[inside] ** 2)))
    assert table["psnr"][0] == pytest.approx(np.mean(found), rel=1e-5)
    assert 0 < table["ssim"][0] < 1


def test_of_an_image_itself_ssim_is_one(fitted: ImageSynthesiser, others: Cohort) -> None:
    few = others.select(list(others.ids[:1]))
    made = fitted.synthesise(few, ["FLAIR"])
    true = replace(made, mean={"FLAIR": few.features["FLAIR"] + 1e-9})
    assert true.errors(few, minimum=30)["ssim"][0] == pytest.approx(1, abs=1e-6)


def test_seeds_repeat_and_differ() -> None:
    people = tiny_images(10)
    first, again, other = (ImageSynthesiser(sizes=Pyramid((4, 8), (0, 4)), plan=BRIEF, seed=seed)
                           .fit(people).fitted.net.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_tuning_goes_on_and_leaves_the_original(fitted: ImageSynthesiser, others: Cohort) -> None:
    before = {k: v.clone() for k, v in fitted.fitted.net.state_dict().items()}
    few = others.select(list(others.ids[:3]))
    tuned = fitted.tune(few, plan=BRIEF)
    assert all(torch.equal(v, fitted.fitted.net.state_dict()[k]) for k, v in before.items())
    assert any(not torch.equal(v, tuned.fitted.net.state_dict()[k]) for k, v in before.items())
    assert tuned.fitted.widths == fitted.fitted.widths
    with pytest.warns(UserWarning, match="3 of 3 people were used to train"):
        tuned.synthesise(few, ["T1w"])


def test_whole_volumes() -> None:
    made = ImageSynthesiser(plane=None, sizes=Pyramid((4, 8), (0, 4)), plan=BRIEF).fit(
        tiny_images(10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        synthesis = made.synthesise(tiny_images(10))
    assert {n: len(t) for n, t in synthesis.mean.items()} == {"T1w": 1, "T2w": 2, "FLAIR": 2}
    assert np.isfinite(np.concatenate([t.to_numpy().ravel() for t in synthesis.sd.values()])).all()


def test_slices_become_the_volume_they_were_cut_from() -> None:
    people = tiny_images(6)
    space = people.modalities[0].space
    for plane in ("axial", "coronal", "sagittal", None):
        frame = Frame(space, 4, plane)
        stack = Stack.of(people, frame, Units((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
        images = stack.take(torch.arange(len(stack)))
        for k, m in enumerate(people.modalities):
            back = frame.table(images.values[k]).numpy()
            assert np.array_equal(back, np.nan_to_num(people.features[m.name].to_numpy("f4")))
        assert images.inside.sum() == 6 * space.n_voxels


def test_widths_are_root_mean_squares_where_the_other_was_hidden() -> None:
    people = tiny_images(12)
    frame = Frame(people.modalities[0].space, 2, "axial")
    stack = Stack.of(people, frame, Units((3.0, 4.0, 5.0), (1.0, 1.0, 1.0)))
    seen: list[torch.Tensor] = []

    def predicted(batch):
        seen.append(batch.present)
        return torch.zeros_like(batch.values), torch.full_like(batch.values, 2.0)

    widths = measured_widths(stack, predicted, at_once=16)
    factor = widths.factors[True, False, True][1]
    there = people.present[["T1w", "T2w", "FLAIR"]].all(axis=1).to_numpy()
    values = people.features["T2w"].to_numpy()[there] - 4
    assert factor == pytest.approx(np.sqrt(np.mean((values / 2) ** 2)), rel=1e-4)
    assert np.isnan(widths.factors[True, False, True][0])
    assert all(p.any(0).all() and not p.all(0).any() for p in seen)


def test_a_pattern_nobody_calibrated_gets_the_mean_of_others() -> None:
    widths = Widths({(True, False): (float("nan"), 1.4)})
    assert widths.of(torch.tensor([[False], [True]])).flatten().tolist() == pytest.approx([1, 1.4])


def test_judges_and_synthesiser_move_only_themselves() -> None:
    torch.manual_seed(0)
    judges = Adversaries(PatchAdversary(width=4, layers=1, reserve=2), 2, (8, 8))
    made = torch.randn(2, 3, 8, 8, requires_grad=True)
    real, there = torch.randn(2, 3, 8, 8), torch.tensor([[True] * 3, [False] * 3])
    terms = judges.terms(made, real, there)
    (moves,) = torch.autograd.grad(terms["judge"], made, allow_unused=True, retain_graph=True)
    assert moves is None
    still = torch.autograd.grad(terms["adversary"], list(judges.parameters()), allow_unused=True,
                                retain_graph=True)
    assert all(g is None for g in still)
    (moves,) = torch.autograd.grad(terms["adversary"], made)
    assert (moves[0] != 0).any() and (moves[1] == 0).all()  # of the second no image was seen yet
    judges.terms(made, real, there.flip(0))
    assert judges.count.tolist() == [3, 3] and torch.equal(judges.kept[1][0], real[1][2])
    lacking = judges.terms(made, real, torch.zeros(2, 3, dtype=torch.bool))
    assert lacking["judge"] > 0  # from the reserve


def test_the_adversary_joins_after_the_warm_up_and_only_in_training() -> None:
    people = tiny_images(8)
    frame = Frame(people.modalities[0].space, 2, "axial")
    batch = Stack.of(people, frame, Units.of(people)).take(torch.arange(6))
    net = SynthesisNet(("T1w", "T2w", "FLAIR"), 2, f.ProductOfExperts(), Pyramid((4, 8), (0, 4)),
                       adversaries=Adversaries(PatchAdversary(width=4), 3, frame.sides))
    assert "judge" in net.loss(batch, 1.0) and "judge" not in net.loss(batch, 0.5)
    assert "judge" not in net.eval().loss(batch, 1.0)


def test_bad_input(fitted: ImageSynthesiser, others: Cohort) -> None:
    with pytest.raises(NotFittedError, match="fit"):
        ImageSynthesiser().synthesise(others)
    with pytest.raises(CohortError, match="7 people are too few"):
        ImageSynthesiser().fit(tiny_images(7))
    with pytest.raises(CohortError, match="nothing is left to look at of new-"):
        fitted.synthesise(others, ["T1w"], given=["T1w"])
    with pytest.raises(CohortError, match="targets is a list of modalities"):
        fitted.synthesise(others, ["PET"])
    with pytest.raises(CohortError, match="targets is a list of modalities"):
        fitted.synthesise(others, "T1w")
    with pytest.raises(CohortError, match="knows no modality PD"):
        fitted.synthesise(_renamed(others, "T1w", "PD"))
    with pytest.raises(SpaceMismatchError, match="read them with the same mask"):
        fitted.synthesise(_moved(others, ["T1w", "T2w", "FLAIR"]))
    with pytest.raises(SpaceMismatchError, match="T2w is on"):
        ImageSynthesiser().fit(_moved(others, ["T2w"]))
    with pytest.raises(TypeError, match="fusion is an object"):
        ImageSynthesiser("poe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="plane is one of"):
        ImageSynthesiser(plane="oblique").fit(others)
    with pytest.raises(CohortError, match="was not synthesised"):
        fitted.synthesise(others, ["T1w"]).img("new-sub-05", "T2w")


def _moved(cohort: Cohort, which: list[str]) -> Cohort:
    old = cohort.modalities[0].space
    affine = old.affine.copy()
    affine[0, 3] += 2
    spaces = {m.name: Space(old.mask, affine, "tiny") if m.name in which else old
              for m in cohort.modalities}
    return Cohort.from_frames(cohort.subjects, dict(cohort.features), spaces=spaces,
                              covariates=cohort.covariates)


def _renamed(cohort: Cohort, old: str, new: str) -> Cohort:
    names = {m.name: new if m.name == old else m.name for m in cohort.modalities}
    return Cohort.from_frames(cohort.subjects, {names[n]: t for n, t in cohort.features.items()},
                              spaces={names[m.name]: m.space for m in cohort.modalities},
                              covariates=cohort.covariates)

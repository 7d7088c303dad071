"""Small references: calibrated in turns, so that nobody is lost and nobody judges themselves."""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse.errors import CalibrationError
from normfuse.pattern_law import Frame

PLAN = nf.TrainingPlan(max_epochs=4, warmup=1, progress=False)
KINDS = {"age": "continuous", "sex": "categorical", "site": "site"}


def healthy(n=60, seed=0):
    """Two modalities that share two factors; one site has three people."""
    rng = np.random.default_rng(seed)
    who = pd.DataFrame({"age": rng.uniform(20, 60, n), "sex": rng.choice(["F", "M"], n),
                        "site": (["rare"] * 3 + ["a", "b"] * n)[:n]},
                       index=[f"p{seed}-{k}" for k in range(n)])
    factors = rng.normal(size=(n, 2))
    blocks = {}
    for m, width in (("t1", 10), ("dti", 8)):
        y = factors @ np.random.default_rng(5).normal(size=(2, width)) * 0.5 \
            + rng.normal(size=(n, width)) - 0.02 * who[["age"]].to_numpy()
        blocks[m] = pd.DataFrame(y, who.index, [f"{m}{k}" for k in range(width)])
    return nf.Cohort.from_frames(who, blocks, covariates=KINDS)


def model(**options):
    return nf.NormativeModel(n_latent=2, plan=PLAN, **options)


@pytest.fixture(scope="module")
def people():
    return healthy()


@pytest.fixture(scope="module")
def fitted(people):
    return model().fit(people)


def test_everybody_is_scored_by_a_model_that_did_not_see_them(fitted, people):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*used to train.*")
        found = fitted.deviations(people)
    assert found.z.index.equals(people.ids)
    assert (found.subjects["normfuse_role"] == "out_of_fold").all()
    assert len(found.controls) == len(people)
    assert (found.distance["n_calibration"] == len(people) - 1).all()
    assert dict(found.reference.n_subjects) == {"cross_fitted": 60}


def test_nothing_of_a_person_is_in_what_is_expected_of_them(people):
    blocks = {name: block.copy() for name, block in people.features.items()}
    blocks["t1"].iloc[7] += 3.0
    changed = nf.Cohort.from_frames(people.subjects, blocks, covariates=KINDS)
    one, other = (model(calibration=nf.CrossFit(3)).fit(c) for c in (people, changed))
    for kind in ("covariates", "leave_modality_out"):
        before, after = (m.deviations(c, kind=kind).expected["t1"].iloc[7]
                         for m, c in ((one, people), (other, changed)))
        np.testing.assert_allclose(before, after, rtol=0, atol=1e-9)
    moved = other.deviations(changed).z["t1"].iloc[7] - one.deviations(people).z["t1"].iloc[7]
    assert (moved > 0.5).all()


def test_healthy_people_are_normal():
    shares = []
    for seed in range(3):
        found = model(calibration=nf.CrossFit(4)).fit(healthy(61, seed)).deviations(
            healthy(200, 50 + seed), kind="covariates")
        shares.append((found.z.abs() > 1.96).mean(axis=None))
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def test_saved_and_loaded_it_still_knows_the_folds(fitted, people, tmp_path):
    again = nf.NormativeModel.load(fitted.save(tmp_path / "model"))
    for name, table in fitted.deviations(people).tables().items():
        pd.testing.assert_frame_equal(again.deviations(people).tables()[name], table, rtol=0,
                                      atol=1e-12)
    assert again.calibration is None and len(again.fitted.turns) == 10


def test_predictions_and_probabilities_leave_people_out_too(fitted, people):
    assert fitted.predict(people).index.equals(people.ids)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*used to train.*")
        found = fitted.log_likelihood(people)
    assert found.notna().all(axis=None)


def test_the_choice_follows_the_number_of_people():
    assert model().fit(healthy(150)).fitted.turns == ()
    assert len(model(calibration=nf.CrossFit(2)).fit(healthy(150)).fitted.turns) == 2


@pytest.mark.parametrize("wrong", [lambda: nf.CrossFit(1), lambda: nf.CrossFit(2.5),
                                   lambda: nf.CrossFit(early_stop=1.0)])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(CalibrationError):
        wrong()


def test_too_few_people_are_refused():
    with pytest.raises(CalibrationError, match="11 reference subjects are too few to cross-fit 2 "
                                               "latent dimensions in 10 folds: at least 12"):
        model().fit(healthy(12).select(healthy(12).ids[:11]))


def test_a_frame_turns_and_scales_positions_back():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2, 500, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [1.0, 3.0, 0.2]
    moved = parts @ turn + rng.normal(size=(2, 1, 3))
    whole = [Frame.of(p)(p).sum(0) for p in (parts, moved)]
    for positions in whole:
        np.testing.assert_allclose(np.cov(positions.T), np.eye(3), atol=1e-9)
        np.testing.assert_allclose(positions.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(*(np.linalg.norm(p, axis=1) for p in whole), rtol=1e-9)


def test_a_fold_with_one_person_of_a_pattern():
    """One position in a tensor took a scalar out of the folds, and the fit broke off."""
    import torch

    from normfuse.scoring import Witness, calibrate

    class Few(Witness):
        def able(self, kept):
            return torch.tensor([1][:self.people], dtype=torch.long)

    folds = [np.arange(2), np.arange(2)]
    assert Few(None, 1).folds(None, folds[0]).tolist() == [1]
    assert calibrate([Few(None, 1), Few(None, 0)], {(True,): None}, None, (), folds, {}) == {}

"""What is made of synthesised scans: draws of them, and measured minus expected as deviations."""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import normfuse as nf
from normfuse import TrainingPlan
from normfuse.analyses import compare_groups
from normfuse.errors import CohortError
from normfuse.imaging.synthesis import ImageSynthesiser
from normfuse.imaging.synthesis_deviations import NOTES
from normfuse.networks.pyramid import Pyramid
from normfuse.testing import tiny_images

PLAN = TrainingPlan(max_epochs=6, warmup=2, validation_draws=1, learning_rate=8e-3, batch_size=16)


@pytest.fixture(scope="module")
def fitted() -> ImageSynthesiser:
    return ImageSynthesiser(sizes=Pyramid((4, 8), (0, 4)), plan=PLAN, kl_weight=1.0).fit(
        tiny_images(24))


@pytest.fixture(scope="module")
def others() -> nf.Cohort:
    new = tiny_images(30, seed=7)
    frames = {m.name: new.features[m.name].rename("new-{}".format) for m in new.modalities}
    group = pd.Series(["A", "B"] * 15, new.ids.map("new-{}".format))
    return nf.Cohort.from_frames(new.subjects.rename("new-{}".format).assign(group=group), frames,
                                 covariates=new.covariates,
                                 spaces={m.name: m.space for m in new.modalities})


def test_draws_spread_around_what_is_expected(fitted, others) -> None:
    """Their mean is the prediction of many draws; their spread is 0 at temperature 0 and grows."""
    people = others.select(others.ids[:3])
    draws = fitted.sample(people, ["FLAIR"], n=40)
    images = np.stack([d.mean["FLAIR"].to_numpy() for d in draws])
    averaged = ImageSynthesiser(**{**fitted.options(), "temperature": 1.0, "draws": 40})
    averaged._fitted = fitted.fitted
    expected = averaged.synthesise(people, ["FLAIR"])
    error = images.std(0) * np.sqrt(2 / 40)
    far = np.abs(images.mean(0) - expected.mean["FLAIR"].to_numpy()) / error
    assert images.std(0).min() > 0 and np.quantile(far, 0.99) < 4
    within = np.stack([d.sd["FLAIR"].to_numpy() for d in draws])
    widened = expected.sd["FLAIR"].to_numpy() / np.sqrt(
        within.mean(0) ** 2 + images.var(0))  # by the factor of calibration, nearly
    assert (draws[0].sd["FLAIR"].to_numpy() > 0).all() and 0.8 < np.median(widened) < 1.25
    still = fitted.sample(people, ["FLAIR"], n=2, temperature=0.0)
    assert np.array_equal(still[0].mean["FLAIR"], still[1].mean["FLAIR"])
    hot = np.stack([d.mean["FLAIR"].to_numpy() for d in fitted.sample(
        people, ["FLAIR"], n=10, temperature=2.0)])
    assert hot.std(0).mean() > 1.5 * images.std(0).mean()


def test_a_persons_draws_are_theirs(fitted, others) -> None:
    alone = fitted.sample(others.select(["new-sub-05"]), ["FLAIR"], n=2)
    among = fitted.sample(others.select(["new-sub-04", "new-sub-05"]), ["FLAIR"], n=2)
    for one, many in zip(alone, among):
        assert np.allclose(one.mean["FLAIR"].loc["new-sub-05"],
                           many.mean["FLAIR"].loc["new-sub-05"], rtol=1e-4, atol=1e-4)
    assert not np.array_equal(alone[0].mean["FLAIR"], alone[1].mean["FLAIR"])
    expected = fitted.synthesise(others.select(["new-sub-04", "new-sub-05"]), ["FLAIR"])
    apart = [d.mean["FLAIR"] - expected.mean["FLAIR"] for d in fitted.sample(
        others.select(["new-sub-04", "new-sub-05"]), ["FLAIR"], n=8)]
    errors = np.stack([a.to_numpy() for a in apart])
    assert abs(np.corrcoef(*errors.transpose(1, 0, 2).reshape(2, -1))[0, 1]) < 0.2
    with pytest.raises(ValueError, match="n is 1 at least"):
        fitted.sample(others, n=0)


def test_measured_minus_expected_are_deviations(fitted, others, tmp_path) -> None:
    found = fitted.deviations(others)
    made = fitted.synthesise(others.select(found.z.index[found.z["T2w"].notna().any(axis=1)]),
                             ["T2w"])
    again = made.standardised(others, "T2w")
    assert np.allclose(found.z["T2w"].loc[again.index], again, equal_nan=True)
    assert np.allclose(found.observed["T2w"].loc[again.index],
                       others.features["T2w"].loc[again.index])
    judged = found.z.T.groupby(level=0).any().T[list(found.modalities)]
    alone = others.present.sum(axis=1) == 1
    assert judged.equals(others.present & ~alone.to_numpy()[:, None])
    assert found.reference.kind == "synthesis" and found.reference.notes == NOTES
    assert found.reference.n_subjects == {"training": 18, "early_stop": 2, "calibration": 4}
    assert found.space("T2w") == others.modality("T2w").space
    assert set(found.subjects["normfuse_role"]) == {"new"}
    kept = nf.Deviations.read(found.save(tmp_path / "deviations"))
    assert np.allclose(kept.z, found.z, atol=1e-5, equal_nan=True)
    result = compare_groups(found.changed(z=found.z.iloc[:, :5]), "group", baseline="A")
    assert result.table["p"].notna().sum() == 5 and result.kind == "synthesis"


def test_who_trained_is_known_and_who_has_one_scan_is_named(fitted, others) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        roles = fitted.deviations(tiny_images(24), ["T1w"]).subjects["normfuse_role"]
    assert {"training", "calibration"} <= set(roles)
    only = others.select(["new-sub-05"]).without("T2w").without("FLAIR")
    with pytest.raises(CohortError, match="two are needed"):
        fitted.deviations(only)

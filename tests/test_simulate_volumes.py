"""Simulated images are what their docstring says; the model's own terms are the witness."""
from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from normfuse import Cohort
from normfuse import simulated_volumes as module
from normfuse.errors import CohortError, OutputExistsError
from normfuse.simulated_volumes import EFFECT, HOTSPOT, simulate_volumes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate_volumes(tmp_path_factory.mktemp("sim") / "study", 150, 40, resolution=8,
                            seed=3)


@pytest.fixture(scope="module")
def cohort(made):
    return Cohort.read(made.cohort_file)


def truth(made, name):
    img = nib.load(made.cohort_file.parent / "truth" / f"{name}.nii.gz")
    return np.asarray(img.dataobj)


def residuals(cohort, name):
    """What age, sex and site do not explain, of everybody, by least squares on the reference."""
    block = cohort.features[name].dropna().astype(float)
    people = cohort.subjects.loc[block.index]
    t = (people["age"] - 65) / 20
    design = np.column_stack([np.ones(len(t)), t, t**2, people["sex"] == "M",
                              *[people["site"] == s for s in "BCD"]]).astype(float)
    healthy = (people["diagnosis"] == "CN").to_numpy()
    fit = np.linalg.lstsq(design[healthy], block[healthy], rcond=None)[0]
    freedom = 1 - design.shape[1] / healthy.sum()
    return pd.DataFrame((block - design @ fit) / np.sqrt(freedom), block.index), healthy


def test_the_folder_is_a_study(made, cohort):
    folder = made.cohort_file.parent
    assert sorted(p.name for p in folder.iterdir() if p.name != "normfuse_cache") == [
        "cohort.toml", "dataset_description.json", "derivatives", "participants.tsv", "truth"]
    assert len(cohort) == 190 and len(cohort.reference_subjects()) == 150
    present = cohort.present.mean()
    assert present["t1"] == 1 and 0.78 < present["dti"] < 0.92 and 0.6 < present["pet"] < 0.8
    assert [m.unit for m in cohort.modalities] == ["density", "FA", "SUVR"]
    img = nib.load(folder / "derivatives/sub-0007/sub-0007_GM.nii.gz")
    assert img.get_data_dtype() == np.float32 and int(img.header["sform_code"]) == 4


def test_values_are_like_those_of_real_tissue(cohort):
    medians = {m.name: float(np.median(cohort.features[m.name].dropna()))
               for m in cohort.modalities}
    assert 0.45 < medians["t1"] < 0.75 and 0.3 < medians["dti"] < 0.48 and 0.9 < medians[
        "pet"] < 1.25
    assert all((cohort.features[m].dropna() > 0).all(axis=None) for m in medians)


def test_healthy_residuals_have_the_true_sd(made, cohort):
    for m in cohort.modalities:
        rest, healthy = residuals(cohort, m.name)
        sd = truth(made, f"{m.name}_sd")[m.space.mask]
        ratio = np.sqrt((rest[healthy] ** 2).mean()).to_numpy() / sd
        spread = 5 / np.sqrt(2 * healthy.sum())  # five standard errors of an sd
        assert 0.97 < np.median(ratio) < 1.03 and np.abs(ratio - 1).max() < spread


def test_modalities_share_a_quarter_of_the_variance(made, cohort):
    factors = pd.read_csv(made.cohort_file.parent / "truth" / "factors.tsv", sep="\t", index_col=0)
    for m in cohort.modalities:
        rest, healthy = residuals(cohort, m.name)
        scores = factors.loc[rest.index[healthy]].to_numpy()
        y = rest[healthy].to_numpy()
        fitted = scores @ np.linalg.lstsq(scores, y, rcond=None)[0]
        explained = (fitted ** 2).sum(0) / (y ** 2).sum(0)
        assert 0.2 < explained.mean() < 0.32


def test_lesions_are_where_and_as_large_as_the_truth_says(made, cohort, tmp_path, monkeypatch):
    """The same people without lesions differ from them by the planted effect alone."""
    lesions = made.lesions
    assert lesions["effect"].abs().between(*EFFECT).all()
    assert (np.sign(lesions["effect"]) == lesions["modality"].map(
        {"t1": -1, "dti": -1, "pet": 1})).all()
    assert set(lesions["participant_id"]) == set(cohort.select("diagnosis != 'CN'").ids)
    monkeypatch.setattr(module, "EFFECT", (0.0, 0.0))
    without = Cohort.read(simulate_volumes(tmp_path / "healthy", 150, 40, resolution=8,
                                           seed=3).cohort_file)
    ill = cohort.select("diagnosis != 'CN'").ids
    for m in cohort.modalities:
        added = (cohort.features[m.name] - without.features[m.name]).dropna()
        within = m.space.mask[made.space.mask]
        effects = np.stack([made.effect(s, m.name)[within] for s in added.index])
        np.testing.assert_allclose(added / truth(made, f"{m.name}_sd")[m.space.mask], effects,
                                   atol=2e-4)
        assert (np.abs(effects).max(1) > 0.5).sum() <= len(ill)
        one = ill[0]
        mask = truth(made, f"{one}_{m.name}_lesion")[made.space.mask] > 0
        peak = np.abs(made.effect(one, m.name))
        rows = lesions[(lesions["participant_id"] == one) & (lesions["modality"] == m.name)]
        if len(rows) == 1:
            half = rows["effect"].abs().iloc[0] / 2
            np.testing.assert_array_equal(mask, peak >= half)


def test_patients_have_lesions_in_common(made):
    for name in ("t1", "dti", "pet"):
        share = truth(made, f"{name}_share")[made.space.mask]
        top = made.space.coordinates()[share.argmax()]
        assert share.max() > 0.35 and np.linalg.norm(top - HOTSPOT) < 16
        assert (share == 0).mean() > 0.3


def test_a_person_depends_on_the_seed_and_their_number_alone(made, tmp_path):
    fewer = simulate_volumes(tmp_path / "a", 150, 40, resolution=8, seed=3,
                             modalities=("pet", "t1"), missing=0.1)
    other = simulate_volumes(tmp_path / "b", 12, 2, resolution=8, seed=4)
    first, again, third = (c.cohort_file.parent / "derivatives/sub-0003/sub-0003_GM.nii.gz"
                           for c in (made, fewer, other))
    np.testing.assert_array_equal(nib.load(first).dataobj, nib.load(again).dataobj)
    assert np.abs(np.asarray(nib.load(first).dataobj) - nib.load(third).dataobj).max() > 0.05
    assert not list((tmp_path / "a").glob("**/*FA.nii.gz"))
    people = [pd.read_csv(c.cohort_file.parent / "participants.tsv", sep="\t")
              for c in (made, fewer)]
    pd.testing.assert_frame_equal(*people)
    kept = made.lesions[made.lesions["modality"] != "dti"].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer.lesions, kept)


def test_no_patients(tmp_path):
    made = simulate_volumes(tmp_path / "a", 10, 0, resolution=10)
    assert made.lesions.empty and len(Cohort.read(made.cohort_file)) == 10


@pytest.mark.parametrize("asked, words", [
    ({"modalities": ("t2",)}, "modalities must be some of t1, dti, pet; got t2"),
    ({"modalities": ()}, "got none"), ({"missing": 1}, "missing is a share"),
    ({"n_reference": 9}, "at least 10 reference people"),
])
def test_requests_that_make_no_sense(tmp_path, asked, words):
    with pytest.raises(CohortError, match=words):
        simulate_volumes(tmp_path / "a", **asked)
    assert not (tmp_path / "a").exists()


def test_nothing_is_overwritten(made):
    with pytest.raises(OutputExistsError):
        simulate_volumes(made.cohort_file.parent, 10, 0, resolution=10)

"""Simulated images are what their docstrings say.

Witnesses: SciPy's solver of the relaxation equations for the signals, ``scipy.stats.rice`` for the
noise, closed forms for smooth fields and shares, published changes of T1 under contrast agent, and
three real patients for what is bright beside what. Shapes and sizes of lesions have no witness but
the eye.
"""
from __future__ import annotations

import tomllib
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

import normfuse as nf
from normfuse.errors import CohortError, OutputExistsError
from normfuse.imaging.anatomy import Template, smooth
from normfuse.imaging.missingness import present_at_random
from normfuse.imaging.physics import SEQUENCES, TISSUES, InversionRecovery, SpinEcho
from normfuse.imaging.simulated import BIAS, OWN_BIAS, rician
from normfuse.imaging.simulated_images import SimulatedImages
from normfuse.volumes.plan import template_space, tissue_probability

CONTRASTS = tuple(SEQUENCES)
BOTH = {"tumour": 0.4, "sclerosis": 0.4}


@pytest.fixture(scope="module")
def made() -> SimulatedImages:
    return nf.simulate_images(6, contrasts=CONTRASTS, lesions=BOTH, resolution=6, missing=0.3,
                              seed=2)


@pytest.fixture(scope="module")
def patients() -> dict:
    """At 3 mm, so that lesions fill voxels: kind -> all contrasts of one person."""
    return {kind: nf.simulate_images(1, contrasts=CONTRASTS, lesions=kind, resolution=3, seed=1
                                     ).scan(0) for kind in ("tumour", "sclerosis")}


def recovered(m: float, seconds: float, t1: float) -> float:
    """Longitudinal magnetisation after a while, by SciPy."""
    return solve_ivp(lambda t, y: (1 - y) / t1, (0, seconds), [m], rtol=1e-9).y[0, -1]


@pytest.mark.parametrize("tissue", ["white", "fluid", "enhancing"])
def test_signals_are_steady_states_of_pulses(tissue):
    """90 degrees every TR; 180, wait TI, 90, wait for the rest of TR, until nothing changes."""
    one = TISSUES[tissue]
    echo, inversion = SpinEcho(550, 12, contrast=True), InversionRecovery(2300, 3, 1100)
    t1 = 1 / (1 / one.t1 + one.uptake / 1000)
    expected = one.density * recovered(0.0, 550, t1) * np.exp(-12 / one.t2)
    assert echo.signal(one) == pytest.approx(expected, rel=1e-6)
    after = 0.0  # a 90 degree pulse leaves nothing
    for _ in range(2):
        before = recovered(-recovered(after, 2300 - 1100, one.t1), 1100, one.t1)
    expected = one.density * abs(before) * np.exp(-3 / one.t2)
    assert inversion.signal(one) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("contrast, order", {
    "T1w": "fluid core sclerosis grey white", "T1w ": "fluid core oedema enhancing grey white",
    "T1c": "fluid core oedema grey white enhancing", "T1c ": "sclerosis white enhancing",
    "T2w": "white grey sclerosis fluid", "T2w ": "white grey enhancing oedema core fluid",
    "FLAIR": "fluid white grey sclerosis", "FLAIR ": "fluid white grey core oedema",
    "FA": "fluid core enhancing oedema sclerosis white", "FA ": "fluid grey white",
    "MD": "white grey sclerosis enhancing oedema core fluid",
    "PET": "fluid core oedema white grey enhancing"}.items())
def test_which_tissue_is_brighter(contrast, order):
    """As radiology has it: fluid is dark in T1w and FLAIR and bright in T2w, plaques are bright in
    FLAIR and T2w and darkish in T1w, the rim is bright in T1c alone."""
    levels = [SEQUENCES[contrast.strip()].signal(TISSUES[name]) for name in order.split()]
    assert levels == sorted(levels)


def test_order_survives_other_protocols_and_wetter_tissue():
    rng = np.random.default_rng(0)
    for _ in range(50):
        t2w, flair = (SEQUENCES[name].jittered(rng) for name in ("T2w", "FLAIR"))
        white, fluid = TISSUES["white"].jittered(rng, 0.03), TISSUES["fluid"]
        assert flair.signal(fluid) < 0.25 * flair.signal(white)
        assert t2w.signal(fluid) > 2 * t2w.signal(white.wetter(0.1)) > 2 * t2w.signal(white)


def test_contrast_agent_shortens_t1_as_published():
    """ms; enhancing tumour 838 (sd 210), oedema 123 (74), healthy tissue 32 (35): see physics.py.
    """
    for name, (mean, sd) in {"enhancing": (838, 210), "oedema": (123, 74), "white": (32, 35),
                             "grey": (32, 35)}.items():
        one = TISSUES[name]
        assert abs(one.t1 - 1 / (1 / one.t1 + one.uptake / 1000) - mean) < sd


def test_tissues_are_as_bright_as_in_real_patients(shared_data):
    """Medians where the template is all one tissue, beside white matter; n = 3."""
    space = template_space("brain", 2)
    grey, white = (tissue_probability(t, space) for t in ("grey_matter", "white_matter"))
    ratios = {"T1w": [], "T2w": [], "FLAIR": []}
    for stem in ("ms_mni2mm/openms07", "ms_mni2mm/openms19", "glioma_mni2mm/tcgadu7294"):
        for contrast, found in ratios.items():
            img = nib.load(shared_data / "images" / f"{stem}_{contrast}.nii.gz")
            values = space.values(img)
            found.append([np.median(values[part]) / np.median(values[white > 0.95])
                          for part in (grey > 0.95, white + grey < 0.05)])
    for contrast, found in ratios.items():
        low, high = np.min(found, 0), np.max(found, 0)
        sequence = SEQUENCES[contrast]
        ours = np.array([sequence.signal(TISSUES[t]) for t in ("grey", "fluid")]) \
            / sequence.signal(TISSUES["white"])
        # pure fluid is not what registered voxels hold: of it only the side is asked for
        assert low[0] - 0.1 < ours[0] < high[0] + 0.1, contrast
        assert (ours[1] > 2) == (low[1] > 2) and (ours[1] < 0.5) == (high[1] < 0.5)


def test_noise_is_rician():
    for signal, sd in ((0.0, 1.0), (1.0, 0.7), (5.0, 1.0)):
        drawn = rician(np.full(20_000, signal), sd, np.random.default_rng(3))
        assert stats.kstest(drawn, stats.rice(signal / sd, scale=sd).cdf).pvalue > 0.01


def test_fields_have_variance_one_and_the_correlation_of_their_kernel():
    space, fwhm = template_space("brain", 8), 40.0
    rng = np.random.default_rng(0)
    fields = np.stack([smooth(space, fwhm, rng) for _ in range(400)])
    sd = fwhm / np.sqrt(8 * np.log(2))
    assert abs(fields.mean()) < 0.05 and abs(fields.var(0).mean() - 1) < 0.04
    assert np.abs(fields.var(0) - 1).max() < 6 * np.sqrt(2 / 400)  # at the rim, too
    for step in (1, 2, 4):
        seen = (fields[:, step:] * fields[:, :-step]).mean()
        assert seen == pytest.approx(np.exp(-(8 * step)**2 / (4 * sd**2)), abs=0.04)


def test_bias_field_is_gentle_and_smooth(made):
    """What two contrasts of a person share beyond tissue, in white matter: no more than the field
    that was put in, and the same at neighbours."""
    body = nf.simulate_images(1, contrasts=("T1w",), resolution=4, seed=5)
    scans = body.scan(0)
    image = np.full(body.space.shape, np.nan)
    pure = scans.anatomy.shares["white"] > 0.95
    image[body.space.mask] = np.where(pure, np.log(scans.values["T1w"]), np.nan)
    step = image[1:] - image[:-1]
    assert np.nanstd(image) < 2 * np.hypot(BIAS, OWN_BIAS)
    assert np.nanstd(step) < 0.7 * np.nanstd(image)


class TestAnatomy:
    def test_shares_are_shares(self, patients):
        for scans in patients.values():
            total = sum(scans.anatomy.shares.values())
            np.testing.assert_allclose(total, 1, atol=1e-5)
            assert all(s.min() > -1e-6 for s in scans.anatomy.shares.values())

    def test_a_tumour_is_core_in_rim_in_oedema(self, patients):
        scans = patients["tumour"]
        space = template_space("brain", 3)
        at, labels = space.coordinates(), scans.anatomy.labels
        centre = at[labels == 1].mean(0)
        away = [np.median(np.linalg.norm(at[labels == k] - centre, axis=1)) for k in (1, 3, 2)]
        assert away == sorted(away)
        assert 0.6 < scans.anatomy.shares["oedema"][labels == 2].mean() <= 1

    def test_what_is_seen_of_a_tumour(self, patients):
        values, labels = patients["tumour"].values, patients["tumour"].anatomy.labels
        level = {c: [np.median(v[labels == k]) for k in range(4)] for c, v in values.items()}
        assert level["T1c"][3] > 1.15 and max(level["T1c"][1], level["T1c"][2]) < 1
        assert level["T1w"][1] < level["T1w"][2] < 0.8 and level["T1w"][3] < 0.8
        assert min(level["FLAIR"][2:]) > 1.3 and level["T2w"][1] > level["T2w"][2] > 1.3
        assert level["FA"][1] < level["FA"][2] and level["PET"][3] > 1.2

    def test_what_is_seen_of_plaques(self, patients):
        values, labels = patients["sclerosis"].values, patients["sclerosis"].anatomy.labels
        white = (labels == 0) & (patients["sclerosis"].anatomy.shares["white"] > 0.9)
        ratio = {c: np.median(v[labels == 1]) / np.median(v[white]) for c, v in values.items()}
        assert 1.2 < ratio["FLAIR"] < 1.8 and 1.2 < ratio["T2w"] < 2
        assert 0.6 < ratio["T1w"] < 0.9 and ratio["T1c"] < 1 and ratio["FA"] < 0.8

    def test_plaques_are_beside_the_ventricles_in_white_matter(self):
        template = Template(template_space("brain", 6))
        healthy = tissue_probability("white_matter", template.space)
        near = template.near[template.space.mask]
        found = sum((template.person(np.random.default_rng(i), "sclerosis").labels > 0)
                    for i in range(20))
        weights = found / found.sum()
        assert weights @ healthy > 1.5 * healthy.mean() and weights @ near > 2 * near.mean()

    def test_ventricles_widen_with_age_and_nothing_else_does(self):
        template = Template(template_space("brain", 6))
        deep = template.deep > 25
        ages, volumes = np.linspace(20, 80, 13), []
        for n, age in enumerate(ages):
            shares = template.person(np.random.default_rng(n), age=age).shares
            volumes.append(shares["fluid"][deep].sum() * 0.216)
        assert stats.spearmanr(ages, volumes).statistic > 0.8
        young, old = (template.person(np.random.default_rng(0), age=age).shares["fluid"]
                      for age in (20, 80))
        rim = template.deep < 10
        assert np.abs(old - young)[rim].max() < 0.1 < np.abs(old - young)[deep].max()

    def test_a_person_is_the_same_on_every_grid(self):
        fine, coarse = (Template(template_space("brain", mm)) for mm in (3, 6))
        for kind in ("tumour", "sclerosis"):
            ml = [(t.person(np.random.default_rng(1), kind).labels > 0).sum()
                  * np.prod(t.size) / 1000 for t in (fine, coarse)]
            assert ml[1] == pytest.approx(ml[0], rel=0.25)
        centres = [t.centres[t.person(np.random.default_rng(1), "tumour").labels > 0].mean(0)
                   for t in (fine, coarse)]
        assert np.linalg.norm(centres[0] - centres[1]) < 3
        one, same, other = (t.space.img(t.person(np.random.default_rng(seed)).shares["white"])
                            for t, seed in ((fine, 1), (coarse, 1), (fine, 2)))
        brain = tuple(slice(2, side - 2) for side in same.shape)
        values = [np.asarray(img.dataobj)[::step, ::step, ::step][brain].ravel()
                  for img, step in ((one, 2), (same, 1), (other, 2))]
        alike = np.corrcoef(values)
        assert alike[0, 1] > 0.94 > 0.9 > alike[0, 2]


class TestIndependence:
    def same(self, one, other, contrasts=CONTRASTS):
        for c in contrasts:
            if c in one.values and c in other.values:
                np.testing.assert_array_equal(one.values[c], other.values[c])
        np.testing.assert_array_equal(one.anatomy.labels, other.anatomy.labels)

    def test_nothing_is_computed_before_it_is_asked_for(self, monkeypatch):
        monkeypatch.setattr("normfuse.imaging.simulated.Scanner.__init__", None)
        people = nf.simulate_images(300, lesions=BOTH, missing=0.5)
        assert len(people) == 300 and people.present.shape == (300, 4) and iter(people)
        with pytest.raises(TypeError):
            next(iter(people))

    @pytest.mark.parametrize("change", [
        {"n_subjects": 9}, {"contrasts": ("PET", "T2w")}, {"missing": 0.0},
        {"missing": {"T2w": 0.5}}, {"ids": list("abcdef")}])
    def test_a_person_depends_on_seed_and_position_alone(self, made, change):
        asked = {"n_subjects": 6, "contrasts": CONTRASTS, "missing": 0.3, **change}
        other = nf.simulate_images(**asked, lesions=BOTH, resolution=6, seed=2)
        for n in (1, 4):
            self.same(made.scan(n), other.scan(n))
        columns = ["age", "sex", "diagnosis"]
        assert made.subjects[columns].to_numpy().tolist() \
            == other.subjects[columns].iloc[:6].to_numpy().tolist()

    def test_a_mask_takes_voxels_out(self, made):
        grey = nf.simulate_images(6, contrasts=CONTRASTS, lesions=BOTH, resolution=6,
                                  missing=0.3, seed=2, mask="grey_matter")
        rows = grey.space.mask[made.space.mask]
        self.same(made.scan(2).at(np.flatnonzero(rows)), grey.scan(2))

    def test_another_seed_is_somebody_else(self, made):
        other = nf.simulate_images(6, contrasts=CONTRASTS, resolution=6, seed=3).scan(0)
        one = made.scan(0)
        name = next(iter(one.values))
        assert np.abs(one.values[name] - other.values[name]).mean() > 0.02

    def test_the_same_person_without_the_lesion(self):
        ill, well = (nf.simulate_images(1, resolution=6, lesions=lesion, seed=8).scan(0)
                     for lesion in ("tumour", None))
        away = sum(ill.anatomy.shares[k] for k in ("core", "oedema", "enhancing")) < 1e-4
        for c in ("T1w", "FLAIR"):
            ratio = (ill.values[c] / well.values[c])[away]
            np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3)
            assert np.median(ratio) == pytest.approx(1, abs=0.03)

    def test_ids_and_positions(self, made):
        self.same(made.scan("sub-0003"), made.scan(2))
        self.same(list(made)[-1], made.scan(-1))
        with pytest.raises(CohortError, match="there is no 'sub-003' among the simulated people"):
            made.scan("sub-003")
        with pytest.raises(CohortError, match="positions 0 to 5; got 6"):
            made.scan(6)


class TestMissing:
    @pytest.mark.parametrize("shares", [(0.6, 0.6, 0.6, 0.6), (0.9, 0.5, 0.1, 0.3), (1, 0, 0.5, 0),
                                        (0.75,) * 4, (0.9, 0.95, 0.95, 0.2)])
    def test_shares_are_those_asked_for_and_nobody_has_nothing(self, shares):
        rng, n = np.random.default_rng(0), 40_000
        there = present_at_random(np.array(shares), rng.random((n, 4)), rng.random(n))
        se = np.sqrt(np.array(shares) * (1 - np.array(shares)) / n)
        assert there.any(1).all()
        assert (np.abs((~there).mean(0) - shares) <= 5 * se).all()

    def test_at_random_by_contrast_and_by_pattern(self):
        present = nf.simulate_images(3000, missing={"T1c": 0.5}).present
        assert present.drop(columns="T1c").all(axis=None)
        assert abs(present["T1c"].mean() - 0.5) < 0.05
        patterns = {("T1w", "FLAIR"): 0.3, ("T2w",): 0.1}
        present = nf.simulate_images(3000, missing=patterns).present
        told = present.apply(lambda row: "+".join(row.index[row]), axis=1).value_counts() / 3000
        expected = {"T1w+T1c+T2w+FLAIR": 0.6, "T1w+FLAIR": 0.3, "T2w": 0.1}
        assert told.to_dict() == pytest.approx(expected, abs=0.04) and len(told) == 3

    def test_missing_says_nothing_of_the_person(self):
        people = nf.simulate_images(2000, lesions={"tumour": 0.5}, missing=0.4)
        groups = people.present["T1w"].groupby(people.subjects["diagnosis"]).mean()
        assert abs(groups.diff().iloc[-1]) < 0.11
        assert abs(people.subjects["age"].corr(people.present["FLAIR"].astype(float))) < 0.1

    def test_a_cohort_has_what_was_scanned(self, made):
        cohort = made.cohort()
        pd.testing.assert_frame_equal(cohort.present, made.present, check_names=False)
        who = int(np.flatnonzero(made.present["FLAIR"])[0])
        np.testing.assert_array_equal(cohort.features["FLAIR"].iloc[who],
                                      made.scan(who).values["FLAIR"])
        assert set(cohort.reference_subjects().subjects["diagnosis"]) == {"healthy"}
        assert all(m.space == made.space for m in cohort.modalities)

    def test_a_contrast_of_nobody(self, tmp_path):
        people = nf.simulate_images(3, contrasts=("T1w", "PET"), missing={"PET": 1.0},
                                    resolution=8)
        assert people.cohort().present.sum().tolist() == [3, 0]
        file = people.write(tmp_path / "x")
        assert [m.name for m in nf.Cohort.read(file).modalities] == ["T1w"]


class TestLesions:
    def test_shares_are_spread_over_people_and_counts_are_the_first(self):
        kinds = nf.simulate_images(100, lesions=BOTH).subjects["diagnosis"]
        for part in (kinds[:20], kinds[50:70], kinds):
            assert abs((part == "tumour").mean() - 0.4) < 0.11
        counted = nf.simulate_images(6, lesions={"sclerosis": 2, "tumour": 1}).subjects
        assert counted["diagnosis"].tolist() == ["sclerosis"] * 2 + ["tumour"] + ["healthy"] * 3

    def test_numbers_of_labels_are_of_one_kind_only(self, made):
        assert made.names == {"core": 1, "oedema": 2, "enhancing": 3, "lesion": 4}
        truth = made.segmentations()
        for kind, numbers in {"tumour": {0, 1, 2, 3}, "sclerosis": {0, 4}, "healthy": {0}}.items():
            who = made.subjects.index[made.subjects["diagnosis"] == kind]
            assert set(np.unique(truth.select(who).labels)) <= numbers
        alone = nf.simulate_images(1, lesions="sclerosis", resolution=6, seed=2)
        assert alone.names == {"lesion": 1} and alone.segmentations().volumes().loc[
            "sub-0001", "lesion"] > 0.3

    def test_the_truth_is_that_of_the_images(self, made):
        truth = made.segmentations()
        for n in range(3):
            labelled = truth.labels[n] > 0
            np.testing.assert_array_equal(labelled, made.scan(n).anatomy.labels > 0)

    def test_nobody_has_one(self):
        with pytest.raises(CohortError, match="nobody has a lesion; ask for some"):
            nf.simulate_images(2).segmentations()


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    return made.write(tmp_path_factory.mktemp("images") / "study")


class TestWriting:
    def test_what_is_read_is_what_was_simulated(self, made, file):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no image looks wrong
            read = nf.Cohort.read(file)
        cohort = made.cohort()
        pd.testing.assert_frame_equal(read.subjects, cohort.subjects)
        assert (read.covariates, read.reference) == (cohort.covariates, cohort.reference)
        assert read.modalities == cohort.modalities
        for c in CONTRASTS:
            np.testing.assert_array_equal(read.features[c], cohort.features[c])

    @pytest.mark.parametrize("mask", ["grey_matter", "white_matter"])
    def test_other_masks(self, tmp_path, mask):
        people = nf.simulate_images(2, contrasts=("FA",), resolution=8, mask=mask, seed=4)
        read = nf.Cohort.read(people.write(tmp_path / "x"))
        np.testing.assert_array_equal(read.features["FA"], people.cohort().features["FA"])

    def test_the_truth_is_written_beside(self, made, file):
        truth = made.segmentations()
        again = nf.Segmentations.read(f"{file.parent}/derivatives/{{id}}/{{id}}_dseg.nii.gz",
                                      made.space, made.names, ids=made.ids)
        np.testing.assert_array_equal(again.labels, truth.labels)
        assert again.ids == truth.ids and again.notes == ()
        table = pd.read_csv(file.parent / "derivatives" / "dseg.tsv", sep="\t")
        assert dict(zip(table["name"], table["index"])) == made.names

    def test_the_same_bytes_twice(self, tmp_path):
        people = nf.simulate_images(2, lesions="tumour", resolution=8, missing=0.3)
        first, second = (people.write(tmp_path / name).parent for name in "ab")
        files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
        assert len(files) > 6
        assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)

    def test_nothing_is_overwritten_and_nothing_half_written_stays(self, made, file, tmp_path,
                                                                   monkeypatch):
        with pytest.raises(OutputExistsError):
            made.write(file.parent)
        monkeypatch.setattr(SimulatedImages, "_write_person", None)
        with pytest.raises(TypeError):
            made.write(tmp_path / "half")
        assert list(tmp_path.iterdir()) == []

    def test_ids_that_cannot_be_files(self, tmp_path):
        with pytest.raises(CohortError, match="cannot be used as a file name"):
            nf.simulate_images(1, ids=["../x"], resolution=8).write(tmp_path / "x")

    def test_the_file_says_what_units_are(self, file):
        modalities = tomllib.loads(file.read_text())["modalities"]
        assert modalities["T1w"]["unit"] == "white matter = 1"
        assert modalities["MD"]["smoothing"] == 0 and modalities["MD"]["resolution"] == 6


@pytest.mark.parametrize("asked, words", [
    ({"n_subjects": 0}, "whole number from 1; got 0"),
    ({"contrasts": ("T1w", "T2")}, "got T1w, T2"),
    ({"contrasts": ("T1w", "T1w")}, "each once"), ({"contrasts": ()}, "got none"),
    ({"lesions": "stroke"}, "of kind tumour or sclerosis; got stroke"),
    ({"lesions": {"tumour": 0.7, "sclerosis": 0.7}}, "add up to 1 at most"),
    ({"lesions": {"tumour": 4}}, "add up to 3 at most"),
    ({"lesions": {"tumour": 1, "sclerosis": 0.5}}, "as shares"),
    ({"lesions": {"tumour": True}}, "as shares"), ({"mask": "skull"}, "mask is one of brain"),
    ({"resolution": 0.1}, "from 1 to 10 mm; got 0.1"), ({"ids": ["a", "a", "b"]}, "2 differ"),
    ({"missing": 1.5}, "from 0 to 1; got 1.5 for T1w"), ({"missing": "much"}, "got 'much'"),
    ({"missing": {"PET": 0.5}}, "missing names PET; the contrasts are T1w, T1c"),
    ({"missing": 0.8}, "would have no image at all; shares missing may add up to at most 3"),
    ({"missing": {("T1w", "PET"): 0.5}}, "a pattern is a tuple of contrasts"),
    ({"missing": {(): 0.5}}, "a pattern is a tuple"),
    ({"missing": {("T1w",): 0.7, ("T2w",): 0.7}}, "add up to 1.4"),
    ({"missing": {("T1w",): 0.7, "T2w": 0.7}}, "got 'T2w'")])
def test_requests_that_make_no_sense(asked, words):
    with pytest.raises(CohortError, match=words):
        nf.simulate_images(**{"n_subjects": 3, **asked})

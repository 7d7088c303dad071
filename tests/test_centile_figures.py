"""Centile curves and a person's centile: what is drawn is what the tables say.

Witness: SciPy's normal law. How a figure looks was judged by eye.
"""
from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from scipy import stats
from test_figures import drawn, realistic_deviations

import normfuse as nf
from normfuse.analyses.figures import PALETTE, plot_centiles
from normfuse.analyses.wording import centile_words
from normfuse.errors import CohortError
from normfuse.testing import tiny_cohort

FEATURE = "Left-Hippocampus"
SHARES = [0.05, 0.5, 0.95]


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def deviations():
    d = realistic_deviations()
    return replace(d, reference=replace(d.reference, kind="covariates"))


def curves(sexes=("F", "M"), site="(average)", ages=(75, 55, 65)):
    """Made up, straight, ages in no order."""
    who = pd.MultiIndex.from_product([ages, sexes, [site]], names=["age", "sex", "site"])
    y = np.array([[5 - 0.04 * (a - 70) + 0.3 * stats.norm.ppf(s) - 0.1 * (sex == "M")
                   for s in SHARES] for a, sex, _ in who])
    return pd.DataFrame(y, who, pd.Index(SHARES, name="centile"))


def test_centile_is_the_normal_laws(deviations):
    found = deviations.centile
    pd.testing.assert_frame_equal(found.isna(), deviations.z.isna())
    cell = deviations.z.iloc[0, 3]
    assert found.iloc[0, 3] == pytest.approx(100 * stats.norm(0, 1).cdf(cell))
    assert found.max(axis=None) <= 100 and found.min(axis=None) >= 0


@pytest.mark.parametrize("centile, words", [
    (0.3, "below the 1st centile: fewer than 1 in 100 comparable healthy people have less"),
    (1.2, "on the 1st centile: 1 of 100 comparable healthy people has less"),
    (22.6, "on the 23rd centile: 23 of 100 comparable healthy people have less"),
    (92, "on the 92nd centile: 8 of 100 comparable healthy people have more"),
    (99.7, "above the 99th centile: fewer than 1 in 100 comparable healthy people have more")])
def test_centiles_in_words(centile, words):
    assert centile_words(centile) == words


class TestCurves:
    def test_a_curve_a_centile_and_sex_sorted_by_age(self):
        table = curves()
        ax = drawn(plot_centiles(table, FEATURE))
        assert len(ax.lines) == 6
        for line, (sex, share) in zip(ax.lines, [(s, p) for s in "FM" for p in SHARES]):
            wanted = table.xs(sex, level="sex")[share].droplevel("site").sort_index()
            np.testing.assert_allclose(line.get_xydata().T, [wanted.index, wanted])
        assert [t.get_text() for t in ax.texts] == ["5 %", "50 %", "95 %"]
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["sex F", "sex M"]
        assert len({line.get_linestyle() for line in ax.lines}) == 2  # and not by colour alone
        assert ax.lines[1].get_linewidth() > ax.lines[0].get_linewidth()

    def test_points_are_people_of_the_reference(self, deviations):
        ax = drawn(plot_centiles(curves(), FEATURE, deviations))
        controls, column = deviations.controls, ("t1", FEATURE)
        for k, sex in enumerate("FM"):
            who = controls.subjects.index[controls.subjects["sex"] == sex]
            shown = ax.collections[k].get_offsets().data
            wanted = np.c_[controls.subjects.loc[who, "age"], controls.observed.loc[who, column]]
            np.testing.assert_allclose(np.sort(shown, axis=0), np.sort(wanted, axis=0))
            assert to_hex(ax.collections[k].get_facecolor()[0]) == to_hex(PALETTE[k])
        assert ax.get_ylabel() == "L hippocampus, t1 (mm3)" and ax.get_xlabel() == "age"

    def test_curves_of_one_site_and_sex_have_its_people_only(self, deviations):
        ax = plot_centiles(curves(["F"], "south"), FEATURE, deviations)
        who = deviations.controls.subjects.eval("sex == 'F' and site == 'south'")
        assert len(ax.collections[0].get_offsets()) == who.sum()
        assert ax.get_legend() is None

    def test_the_others_if_there_is_nobody_of_the_reference(self, deviations):
        ax = plot_centiles(curves(), FEATURE, replace(deviations, controls=None))
        assert sum(len(c.get_offsets()) for c in ax.collections) == len(deviations)

    def test_ages_that_the_reference_lacks_are_grey(self, deviations):
        ax = plot_centiles(curves(ages=(10, 50, 95)), FEATURE, deviations)
        spans = [patch.get_extents().transformed(ax.transData.inverted()) for patch in ax.patches]
        np.testing.assert_allclose([[s.x0, s.x1] for s in spans], [[10, 21], [84.5, 95]])
        assert not plot_centiles(curves(), FEATURE, deviations).patches

    def test_one_person_is_marked_with_the_centile_in_words(self, deviations):
        subject = deviations.z["t1", FEATURE].idxmin()
        ax = drawn(plot_centiles(curves(["F"]), FEATURE, deviations, subject=subject))
        words = " ".join(ax.texts[-1].get_text().split())
        centile = deviations.centile.loc[subject, ("t1", FEATURE)]
        assert words == f"{subject} lies {centile_words(centile)}"
        assert ax.lines[-1].get_xydata().tolist() == [[
            deviations.subjects.loc[subject, "age"],
            deviations.observed.loc[subject, ("t1", FEATURE)]]]

    def test_it_draws_where_it_is_told(self):
        _, (left, right) = plt.subplots(1, 2)
        assert plot_centiles(curves(), FEATURE, ax=right) is right and not left.lines

    @pytest.mark.parametrize("change, message", [
        ({"feature": "nowhere"}, "there is no feature 'nowhere'"),
        ({"feature": "ctx-lh-insula"}, "is a feature of t1, pet; say which modality"),
        ({"modality": "dti"}, "no feature 'Left-Hippocampus' of modality 'dti'"),
        ({"x": "years"}, "years is no covariate of the table"),
        ({"table": curves(ages=[60])}, "a curve needs several values of age"),
        ({"subject": "nobody"}, "not among these deviations"),
        ({"table": pd.concat([curves(), curves(site="south")])}, "sex, site vary in the table"),
    ])
    def test_refusals(self, deviations, change, message):
        asked = {"table": curves(), "feature": FEATURE, "deviations": deviations, **change}
        with pytest.raises(CohortError, match=message):
            plot_centiles(**asked)

    def test_a_person_is_not_marked_on_curves_of_another_kind(self, deviations):
        focal = replace(deviations, reference=replace(deviations.reference, kind="focal"))
        with pytest.raises(CohortError, match="score with kind='covariates'"):
            plot_centiles(curves(), FEATURE, focal, subject=focal.z.index[0])
        with pytest.raises(CohortError, match="give the deviations that hold its values"):
            plot_centiles(curves(), FEATURE, subject="sub-001")

    def test_a_person_without_the_value_is_refused(self, deviations):
        subject = deviations.z.index[deviations.z["pet"].isna().all(axis=1)][0]
        with pytest.raises(CohortError, match="was not measured in"):
            plot_centiles(curves(), "ctx-lh-insula", deviations, modality="pet", subject=subject)


def test_of_a_model():
    """What NormativeModel.centiles returns goes in as it is."""
    cohort = tiny_cohort(120, seed=2)
    plan = nf.TrainingPlan(max_epochs=2, warmup=1, progress=False)
    model = nf.NormativeModel(n_latent=2, plan=plan, calibration=nf.HeldOut()).fit(
        cohort.reference_subjects())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deviations = model.deviations(cohort.select("diagnosis == 'AD'"), kind="covariates")
    table = model.centiles("t1_region0", age=range(25, 80, 5), sex="F")
    assert table.attrs["measured"] == ["t1"]
    alone = deviations.z[["dti", "pet"]].isna().all(axis=1)  # calibrated as the curves are
    subject = deviations.z.index[alone][0]
    ax = drawn(plot_centiles(table, "t1_region0", deviations, subject=subject))
    assert len(ax.lines) == 5 + 1
    at = model.centiles("t1_region0", shares=[deviations.centile.loc[subject, (
        "t1", "t1_region0")] / 100], **deviations.subjects.loc[subject, ["age", "sex", "site"]])
    assert at.iloc[0, 0] == pytest.approx(ax.lines[-1].get_ydata()[0], abs=0.01)
    assert "curves:" not in ax.texts[-1].get_text()
    both = deviations.z.index[deviations.z["dti"].notna().any(axis=1)
                              & deviations.z["pet"].isna().all(axis=1)][0]
    centile = deviations.centile.loc[both, ("t1", "t1_region0")] / 100
    who = deviations.subjects.loc[both, ["age", "sex", "site"]]
    for measured, exact in ((["dti", "t1"], True), (None, False)):
        found = model.centiles("t1_region0", shares=[centile], measured=measured, **who).iloc[0, 0]
        assert exact == bool(abs(found - deviations.observed.loc[both, ("t1", "t1_region0")])
                             < 1e-3)
    words = " ".join(plot_centiles(table, "t1_region0", deviations, subject=both).texts[-1]
                     .get_text().split())
    assert words.endswith("(by people measured with t1 + dti; curves: with t1)")
    own = model.centiles("t1_region0", age=range(25, 80, 5), sex="F", measured=["t1", "dti"])
    assert "curves:" not in plot_centiles(own, "t1_region0", deviations, subject=both
                                          ).texts[-1].get_text()
    for measured in (["dti"], ["t1", "asl"]):
        with pytest.raises(CohortError, match="it names 't1', whose centiles these are"):
            model.centiles("t1_region0", age=50, sex="F", measured=measured)

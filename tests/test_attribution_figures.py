"""Attribution as users see it: the table, the shares, the picture's bars, the report's words.

Witnesses: sums and products written out again here, element by element. How the picture looks has
none; it was judged by eye. That a fitted model's shares add up to its latent z is seen with one
real fit at the end.
"""
from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from test_figures import drawn, realistic_deviations, tick_labels
from test_report import Page

import normfuse as nf
from normfuse.analyses import attribution_table, figures, modality_shares, write_report
from normfuse.analyses.drawing import modality_styles
from normfuse.analyses.ranking import most_deviant
from normfuse.deviations import Deviations
from normfuse.errors import CohortError
from normfuse.testing import tiny_cohort, tiny_deviations
from normfuse.training import TrainingPlan

OLD = "have no attribution: an older normfuse made them"


def attributed_deviations(n_latent: int = 13) -> Deviations:
    """People with scans missing as in life, random shares of both signs, shuffled columns."""
    made, rng = realistic_deviations(), np.random.default_rng(8)
    names = [f"z{k + 1}" for k in range(n_latent)]
    columns = pd.MultiIndex.from_product([made.modalities, names], names=["modality", "latent"])
    shares = pd.DataFrame(rng.normal(0, 0.8, (len(made), len(columns))), made.z.index, columns)
    for name in made.modalities:
        shares.loc[made.z[name].isna().all(axis=1), name] = np.nan
    latent = shares.T.groupby(level=1, sort=False).sum().T[rng.permutation(names)]
    return replace(made, latent=latent, attribution=shares, controls=None)


@pytest.fixture(scope="module")
def deviations() -> Deviations:
    return attributed_deviations()


@pytest.fixture(scope="module")
def complete(deviations) -> str:
    """Somebody measured with everything."""
    return deviations.attribution.dropna().index[0]


@pytest.fixture
def ax() -> Axes:
    return Figure(figsize=(7, 5), layout="constrained").add_subplot()


def bars(ax: Axes, n_rows: int) -> list[list[tuple[float, float]]]:
    """(from, to) of every row's bar, for each modality that is drawn."""
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    rows = [round(bar.get_y() + bar.get_height() / 2, 6) for bar in ax.patches]
    assert rows == list(range(n_rows)) * (len(rows) // n_rows)
    return [edges[k:k + n_rows] for k in range(0, len(edges), n_rows)]


def totals(ax: Axes) -> np.ndarray:
    line, = (line for line in ax.lines if line.get_marker() == "|")
    assert line.get_ydata() == pytest.approx(range(len(line.get_ydata())))
    return np.asarray(line.get_xdata(), dtype=float)


class TestTable:
    def test_every_row_is_the_cell_it_names(self, deviations):
        table = attribution_table(deviations)
        assert table.columns.tolist() == ["subject", "latent", "modality", "share", "z"]
        assert len(table) == 60 * 13 * 3
        for row in table.sample(200, random_state=1).itertuples():
            np.testing.assert_equal(row.share, deviations.attribution.loc[
                row.subject, (row.modality, row.latent)])
            assert row.z == deviations.latent.loc[row.subject, row.latent]

    def test_shares_add_up_to_z_within_person_and_dimension(self, deviations):
        table = attribution_table(deviations)
        added = table.groupby(["subject", "latent"]).agg(share=("share", "sum"), z=("z", "first"))
        np.testing.assert_allclose(added["share"], added["z"], atol=1e-12)

    def test_a_dimension_without_z_has_no_shares(self, deviations):
        latent = deviations.latent.copy()
        latent.loc[latent.index[4], "z3"] = np.nan
        table = attribution_table(replace(deviations, latent=latent))
        blank = table[(table["subject"] == latent.index[4]) & (table["latent"] == "z3")]
        assert len(blank) == 3 and blank[["share", "z"]].isna().all(axis=None)


class TestShares:
    def test_the_formula_person_by_person(self, deviations):
        found = modality_shares(deviations)
        assert found.shape == (60, 3) and list(found) == ["t1", "dti", "pet"]
        for person, row in found.iterrows():
            z = deviations.latent.loc[person]
            for name in found:
                a = deviations.attribution.loc[person, name]
                wanted = sum(a[k] * z[k] for k in z.index) / sum(z[k] ** 2 for k in z.index)
                np.testing.assert_allclose(row[name], wanted, atol=1e-12)

    def test_they_add_up_to_one_and_some_oppose(self, deviations):
        found = modality_shares(deviations)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert (found < 0).any(axis=None) and (found > 1).any(axis=None)

    def test_absent_is_nan_and_a_lone_modality_carries_all(self, deviations):
        found, have = modality_shares(deviations), deviations.z.notna().T.groupby(level=0).any().T
        pd.testing.assert_frame_equal(found.notna(), have[list(found)], check_names=False)
        lone = have.sum(axis=1) == 1
        assert lone.any()
        np.testing.assert_allclose(found.loc[lone, "t1"], 1)

    def test_of_an_undefined_dimension_nothing_is_counted(self, deviations, complete):
        z, shares = deviations.latent.copy(), deviations.attribution.copy()
        z.loc[complete, ["z2", "z7"]] = np.nan
        shares.loc[complete, (slice(None), ["z2", "z7"])] = 0.0  # as a model leaves them
        found = modality_shares(replace(deviations, latent=z, attribution=shares)).loc[complete]
        kept = z.loc[complete].dropna()
        wanted = [(shares.loc[complete, m][kept.index] * kept).sum() / (kept ** 2).sum()
                  for m in found.index]
        np.testing.assert_allclose(found, wanted)
        z.loc[complete] = np.nan
        assert modality_shares(replace(deviations, latent=z)).loc[complete].isna().all()

    def test_a_person_depends_on_nobody_else(self, deviations):
        some = deviations.z.index[[41, 3, 17]]
        alone = modality_shares(deviations.select(some))
        pd.testing.assert_frame_equal(alone, modality_shares(deviations).loc[some])

    def test_rows_are_matched_by_id(self, deviations):
        turned = replace(deviations, latent=deviations.latent.iloc[::-1])
        pd.testing.assert_frame_equal(modality_shares(turned), modality_shares(deviations))

    def test_it_survives_the_disk(self, deviations, tmp_path):
        again = Deviations.read(deviations.save(tmp_path / "kept"))
        pd.testing.assert_frame_equal(modality_shares(again), modality_shares(deviations))


class TestPicture:
    def test_bars_start_where_the_last_ended_and_add_up_to_z(self, deviations, complete, ax):
        assert drawn(figures.plot_attribution(deviations, complete, ax=ax)) is ax
        shown, z = tick_labels(ax), deviations.latent.loc[complete]
        assert len(shown) == 10
        np.testing.assert_allclose(totals(ax), z[shown])
        stacks = bars(ax, 10)
        assert len(stacks) == 3
        for row, dimension in enumerate(shown):
            low = high = 0.0
            for name, stack in zip(("t1", "dti", "pet"), stacks):
                share = deviations.attribution.loc[complete, (name, dimension)]
                start = high if share > 0 else low
                np.testing.assert_allclose(stack[row], (start, start + share), atol=1e-12)
                low, high = low + min(share, 0), high + max(share, 0)
            assert low < 0 or high > 0
            assert low + high == pytest.approx(z[dimension])

    def test_the_strongest_dimensions_come_first(self, deviations, complete, ax):
        figures.plot_attribution(deviations, complete, n=4, ax=ax)
        wanted = deviations.latent.loc[complete].abs().nlargest(4)
        assert tick_labels(ax) == list(wanted.index)
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is on top

    def test_nothing_is_cut_off_and_the_thresholds_are_drawn(self, deviations, complete, ax):
        far = replace(deviations, latent=3 * deviations.latent,
                      attribution=3 * deviations.attribution)
        figures.plot_attribution(far, complete, ax=ax)
        ends = np.abs(bars(ax, 10))
        assert ends.max() > 4 and ends.max() < ax.get_xlim()[1] == -ax.get_xlim()[0]
        dashed = {line.get_xdata()[0] for line in ax.lines if line.get_ls() == "--"}
        assert dashed == {-1.96, 1.96}

    def test_colours_are_those_of_the_other_pictures(self, deviations, ax):
        lacking = deviations.z.index[(deviations.z["dti"].isna().all(axis=1)
                                      & deviations.z["pet"].notna().any(axis=1))][0]
        figures.plot_attribution(deviations, lacking, ax=ax)
        styles = modality_styles(deviations.modalities)
        wanted = [to_hex(styles[name][0]) for name in ("t1", "pet")]
        assert [to_hex(bar.get_facecolor()) for bar in ax.patches[::10]] == wanted
        other = figures.plot_subject(deviations, lacking, ax=Figure().add_subplot())
        theirs = {h.get_label(): to_hex(h.get_color()) for h in other.get_legend().legend_handles}
        legend = ax.get_legend()
        mine = {h.get_label(): to_hex(h.get_facecolor()) for h in legend.legend_handles[:2]}
        assert mine == {name: theirs[name] for name in ("t1", "pet")}
        assert [t.get_text() for t in legend.get_texts()] == ["t1", "pet", "total z"]

    def test_names_are_not_read_as_formulas(self, deviations, complete, ax):
        odd = deviations.attribution.rename(columns={"t1": r"$\frac{1$", "pet": "p" * 200},
                                            level=0)
        ids = {complete: "sub-$x$" + 80 * "y"}
        strange = replace(deviations, **{name: table.rename(index=ids) for name, table in
                                         replace(deviations, attribution=odd).tables().items()})
        drawn(figures.plot_attribution(strange, ids[complete], ax=ax))
        assert len(ax.get_title("left")) < 70
        assert max(len(t.get_text()) for t in ax.get_legend().get_texts()) < 40

    def test_without_an_axis_a_new_figure_is_made(self):
        before = plt.get_fignums()
        made = figures.plot_attribution(tiny_deviations(), "sub-a")
        assert set(plt.get_fignums()) - set(before) == {made.figure.number}
        assert "sub-a" in made.get_title("left") and made.get_xlabel()
        plt.close(made.figure)


class TestErrors:
    @pytest.mark.parametrize("ask", [
        modality_shares, attribution_table,
        lambda old: figures.plot_attribution(old, "sub-b")])
    def test_deviations_of_an_older_version(self, ask):
        with pytest.raises(CohortError, match=f"{OLD}.*score the people again"):
            ask(replace(tiny_deviations(), attribution=None))

    def test_an_unknown_subject(self):
        with pytest.raises(CohortError, match="not among these deviations: sub-x"):
            figures.plot_attribution(tiny_deviations(), "sub-x")

    def test_somebody_without_a_latent_z(self, deviations, complete):
        latent = deviations.latent.copy()
        latent.loc[complete] = np.nan
        figures_before = plt.get_fignums()
        with pytest.raises(CohortError, match=f"{complete} has no latent z"):
            figures.plot_attribution(replace(deviations, latent=latent), complete)
        assert plt.get_fignums() == figures_before


def report(folder, deviations: Deviations, **options) -> tuple[Page, int]:
    path = write_report(deviations, folder / "report.html", **options)
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    return page, path.stat().st_size


def pictures(page: Page) -> int:
    return sum("modality adds to the latent z" in str(image["alt"]) for image in page.all("img"))


class TestReport:
    def test_everyone_shown_has_a_sentence_and_a_picture(self, deviations, tmp_path):
        page, size = report(tmp_path, deviations, n_subjects=4)
        assert pictures(page) == 4 and size < 4e6
        assert page.words.count("With Wasserstein fusions the modalities' weights are fixed") == 1
        assert page.words.count("not the latent distance") == 1
        shares = modality_shares(deviations)
        for person in most_deviant(deviations).index[:4]:
            row = (100 * shares.loc[person].dropna()).sort_values(ascending=False)
            parts = [f"{name} {'carries ' * (k == 0)}{value:.0f} %{' (opposes)' * (value < -0.5)}"
                     for k, (name, value) in enumerate(row.items())]
            told = f"Of this person's latent deviation {', '.join(parts)}.".replace("-", "−")
            if len(row) == 1:
                told = "All of this person's latent deviation comes from t1, the only modality"
            squares = (deviations.latent.loc[person] ** 2).sum()
            assert told in page.words
            assert f"Squared latent z add up to {squares:.1f} over 13 dimensions" in page.words

    def test_one_that_opposes_and_one_alone(self, deviations, tmp_path):
        shares = modality_shares(deviations)
        opposed = (shares < -0.05).any(axis=1)
        lone = shares.notna().sum(axis=1) == 1
        who = [shares.index[opposed][0], shares.index[lone][0]]
        page, _ = report(tmp_path, deviations.select(who), n_subjects=2)
        against = shares.loc[who[0]].idxmin()
        assert re.search(rf"{against} −\d+ % \(opposes\)", page.words)
        assert "comes from t1, the only modality measured. Squared latent z" in page.words

    def test_without_attribution_it_is_not_mentioned(self, deviations, tmp_path):
        page, _ = report(tmp_path, replace(deviations, attribution=None), n_subjects=2)
        assert pictures(page) == 0
        assert "Attribution" not in page.words and "latent deviation" not in page.words

    def test_somebody_without_a_latent_z_has_none(self, deviations, tmp_path):
        first = most_deviant(deviations).index[0]
        latent = deviations.latent.copy()
        latent.loc[first] = np.nan
        page, _ = report(tmp_path, replace(deviations, latent=latent), n_subjects=2)
        assert pictures(page) == 1 and page.words.count("Squared latent z") == 1

    def test_of_nobody_it_is_not_explained(self, deviations, tmp_path):
        page, _ = report(tmp_path, deviations, n_subjects=0)
        assert "Attribution" not in page.words


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:age of")
def test_a_fitted_models_shares_add_up_and_are_shown(tmp_path):
    cohort = tiny_cohort(150, seed=4)
    plan = TrainingPlan(max_epochs=8, warmup=2)
    model = nf.NormativeModel(n_latent=3, plan=plan, calibration=nf.HeldOut(), seed=0).fit(
        cohort.reference_subjects())
    deviations = model.deviations(cohort.select("diagnosis == 'AD'"))
    table = attribution_table(deviations)
    added = table.groupby(["subject", "latent"]).agg(share=("share", "sum"), z=("z", "first"))
    np.testing.assert_allclose(added["share"], added["z"], atol=1e-9)
    shares = modality_shares(deviations)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    pd.testing.assert_frame_equal(shares.notna(), cohort.present.loc[shares.index, list(shares)],
                                  check_names=False)
    page, _ = report(tmp_path, deviations, n_subjects=2)
    assert pictures(page) == 2

"""Figures of many people, of one, and of the cortex: what is drawn equals the numbers.

Witnesses: SciPy and NumPy for ellipses, shares and distances, nilearn's own surface for the
cortex. How a figure looks has no witness here; it was judged by eye.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from scipy import stats

from normfuse import load_atlas
from normfuse.analyses import VisitChanges, figures, parcellate
from normfuse.analyses.figures_surface import cortical
from normfuse.deviations import ROLE, Deviations
from normfuse.errors import CalibrationError, CohortError, ComparisonError
from normfuse.testing import tiny_deviations, tiny_voxel_deviations

HOSTILE = "$a_{$ <b>\n" + "x" * 200
ATLAS = load_atlas("dk")
CORTEX = [name for name in ATLAS.regions["name"] if name.startswith("ctx-")]


def people(n: int = 46, *, seed: int = 0) -> Deviations:
    """30 held-out controls and 16 patients, the first of whom has no PET; ids in no order."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"sub-{i:02d}" for i in rng.permutation(n)])
    columns = pd.MultiIndex.from_product([["t1", "pet"], CORTEX[::2]])
    z = pd.DataFrame(rng.normal(size=(n, len(columns))), ids, columns)
    z.iloc[30:] += np.linspace(0.2, 1.2, n - 30)[:, None]
    z.loc[ids[30], "pet"] = np.nan
    mix = np.array([[1, 0.8, 0], [0, 0.6, 0.3], [0, 0, 0.95]])
    latent = pd.DataFrame(rng.normal(size=(n, 3)) @ mix, ids, ["z1", "z2", "z3"])
    subjects = pd.DataFrame({"diagnosis": ["CN"] * 30 + ["AD"] * (n - 30),
                             ROLE: ["calibration"] * 30 + ["new"] * (n - 30)}, ids)
    return replace(tiny_deviations(), z=z, observed=z, expected=0 * z, latent=latent,
                   distance=latent[[]], attribution=None, subjects=subjects)


@pytest.fixture(scope="module")
def some() -> Deviations:
    return people()


@pytest.fixture(scope="module")
def regional(some):
    return parcellate(some, ATLAS)


@pytest.fixture
def ax():
    return Figure(figsize=(7, 6)).add_subplot()


def drawn(ax):
    FigureCanvasAgg(ax.figure).draw()
    return ax


class TestHeatMap:
    def test_cells_are_the_z_of_ordered_people(self, some, ax):
        drawn(figures.plot_heatmap(some, "diagnosis", ax=ax))
        shown = ax.images[0].get_array()
        ill, well = (some.z[some.subjects["diagnosis"] == d] for d in ("AD", "CN"))
        order = [part.abs().mean(axis=1).sort_values(ascending=False).index
                 for part in (ill, well)]
        np.testing.assert_array_equal(shown.filled(np.nan), some.z.loc[[*order[0], *order[1]]])
        assert shown.mask.sum() == some.z["pet"].shape[1]
        assert [t.get_text() for t in ax.get_yticklabels()] == ["AD (n = 16)", "CN (n = 30)"]
        assert [t.get_text() for t in ax.get_xticklabels()] == ["t1\n34 regions",
                                                                "pet\n34 regions"]

    def test_clusters_put_twins_side_by_side(self, some, ax):
        z = some.z.copy()
        z.iloc[5], z.iloc[40] = z.iloc[20] + 0.001, z.iloc[12] + 0.001
        shown = figures.plot_heatmap(replace(some, z=z), clustered=True, ax=ax).images[0]
        rows = [int(np.flatnonzero((shown.get_array().filled(9) == z.iloc[i].fillna(9).to_numpy())
                                   .all(axis=1))[0]) for i in (5, 20, 40, 12)]
        assert abs(rows[0] - rows[1]) == 1 == abs(rows[2] - rows[3])

    def test_all_panels_have_one_scale(self, some):
        limits = [figures.plot_heatmap(some.select([i]), ax=Figure().add_subplot()).images[0]
                  .get_clim() for i in some.z.index[:2]]
        assert limits == [(-4, 4)] * 2

    def test_refusals(self, some, ax):
        with pytest.raises(ComparisonError, match="room for 3000 features; there are 5656"):
            voxels = tiny_voxel_deviations()
            figures.plot_heatmap(replace(voxels, z=pd.concat([voxels.z] * 2, axis=1)), ax=ax)
        with pytest.raises(ComparisonError, match="not a column"):
            figures.plot_heatmap(some, "moon", ax=ax)


class TestLatent:
    def test_circle_holds_95_percent_and_ellipse_is_the_controls(self, some, ax):
        drawn(figures.plot_latent(some, "diagnosis", ax=ax))
        circle, ellipse = (p for p in ax.patches if isinstance(p, Ellipse))
        assert circle.width / 2 == pytest.approx(np.sqrt(stats.chi2.ppf(0.95, 2)))
        healthy = some.latent[some.subjects["diagnosis"] == "CN"][["z1", "z2"]]
        # a point of the rim has the same Mahalanobis distance wherever it lies
        rim = ellipse.get_patch_transform().transform([[1, 0], [0, 1], [0.6, 0.8]])
        away = rim - healthy.mean().to_numpy()
        far = np.einsum("ij,jk,ik->i", away, np.linalg.inv(np.cov(healthy.T)), away)
        np.testing.assert_allclose(far, stats.chi2.ppf(0.95, 2))
        offsets = {c.get_offsets().shape[0] for c in ax.collections}
        assert offsets == {30, 16}

    def test_white_directions_are_standard_normal_in_controls(self, some, ax):
        figures.plot_latent(some, "diagnosis", principal=True, ax=ax)
        by_size = {len(c.get_offsets()): np.asarray(c.get_offsets()) for c in ax.collections}
        np.testing.assert_allclose(np.cov(by_size[30].T), np.eye(2), atol=1e-10)
        healthy = some.latent.iloc[:30]
        far = (some.latent - healthy.mean()).to_numpy()
        squared = np.einsum("ij,jk,ik->i", far, np.linalg.inv(np.cov(healthy.T)), far)
        assert (np.square(by_size[16]).sum(axis=1) <= squared[30:] + 1e-9).all()

    @pytest.mark.parametrize("options, message", [
        ({"dimensions": ["z1", "moon"]}, "two latent dimensions, of z1, z2, z3; got z1, moon"),
        ({"dimensions": ["z1"]}, "a plane has two"),
        ({"principal": True, "few": True}, "need two dimensions and 13 held-out controls"),
    ])
    def test_refusals(self, some, ax, options, message):
        few = some.select(some.z.index[25:]) if options.pop("few", False) else some
        with pytest.raises(ComparisonError, match=message):
            figures.plot_latent(few, "diagnosis", ax=ax, **options)


class TestReliability:
    def test_points_are_shares_of_controls_alone(self, some, ax):
        drawn(figures.plot_reliability(some, ax=ax))
        healthy = some.z.iloc[:30]
        line = ax.containers[0].lines[0]
        levels = [0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005]
        expected = [(healthy["t1"].abs() > stats.norm.isf(a / 2)).to_numpy().mean()
                    for a in levels]
        np.testing.assert_allclose(np.array(line.get_ydata(), float), expected)
        each = (healthy["t1"].abs() > stats.norm.isf(0.05)).mean(axis=1)
        low, high = stats.t.interval(0.95, 29, each.mean(), each.sem())
        wing = ax.containers[0].lines[2][0].get_segments()[3]
        np.testing.assert_allclose(wing[:, 1], [low, high])

    def test_without_controls_nothing_can_be_said(self, some, ax):
        with pytest.raises(CalibrationError, match="0 held-out controls"):
            figures.plot_reliability(some.select("diagnosis == 'AD'"), ax=ax)


class TestRadar:
    def polar(self):
        return Figure().add_subplot(projection="polar")

    @pytest.mark.parametrize("absolute", [False, True])
    def test_spokes_are_means_and_the_band_leaves_the_person_out(self, regional, absolute):
        who = regional.z.index[0]  # a control
        ax = drawn(figures.plot_radar(regional, who, "t1", absolute=absolute, ax=self.polar()))
        lobe = ATLAS.regions.set_index("name")["lobe"]
        z = regional.z["t1"].abs() if absolute else regional.z["t1"]
        means = z.T.groupby(lobe).mean().T
        np.testing.assert_allclose(ax.lines[0].get_ydata()[:-1], means.loc[who])
        others = means.iloc[1:30]
        rim = ax.collections[0].get_paths()[0].vertices[:, 1]
        for low, high in zip(others.quantile(0.05), others.quantile(0.95)):
            assert np.isclose(rim, low).any() and np.isclose(rim, high).any()
        assert [t.get_text() for t in ax.get_xticklabels()] == list(means)

    def test_refusals(self, some, regional):
        patient = some.z.index[30]
        for who, what, error, message in (
                (patient, "pet", CohortError, "pet was not measured"),
                ("nobody", "t1", CohortError, "not among these"),
                (patient, "moon", CohortError, "no modality 'moon'")):
            with pytest.raises(error, match=message):
                figures.plot_radar(regional, who, what, ax=self.polar())
        with pytest.raises(ComparisonError, match="three spokes; hemisphere gives 1|2"):
            figures.plot_radar(regional, patient, "t1", by="hemisphere", ax=self.polar())
        with pytest.raises(ComparisonError, match="polar"):
            figures.plot_radar(regional, patient, "t1", ax=Figure().add_subplot())
        with pytest.raises(ComparisonError, match="20 held-out controls"):
            figures.plot_radar(regional.select(some.z.index[28:]), patient, "t1", ax=self.polar())


class TestSurface:
    @pytest.mark.parametrize("side, other", [("left", "right"), ("right", "left")])
    def test_a_region_is_where_it_is(self, side, other):
        name = f"ctx-{side[0]}h-lateraloccipital"
        image = ATLAS.paint({name: -2.5})
        values = cortical(image, side)
        assert np.unique(values[np.isfinite(values)].round(4)).tolist() == [-2.5]
        assert np.isnan(cortical(image, other)).all()
        at = load_fsaverage("fsaverage5")["pial"].parts[side].coordinates[np.isfinite(values)]
        assert (at[:, 1] < -55).all() and (at[:, 0] * (-1 if side == "left" else 1) > 0).all()

    def test_between_the_hemispheres_there_is_nothing(self):
        everything = ATLAS.paint({name: 1.0 for name in ATLAS.regions["name"]})
        thick = load_fsaverage_data("fsaverage5", data_type="thickness").data.parts["left"]
        shown = np.isfinite(cortical(everything, "left"))
        assert not shown[thick == 0].any() and shown[thick > 0].mean() > 0.98

    def test_panels_share_a_scale_and_a_picture_follows_its_data(self):
        one, two = (ATLAS.paint({"ctx-lh-lateraloccipital": z}) for z in (-2.5, 2.5))
        assert figures.common_limit(one, two) == 2.5 == figures.common_limit(two)
        assert figures.common_limit(one, least=3) == 3 and figures.common_limit() == 1
        pixels = []
        for img in (one, two):
            ax = Figure(figsize=(3, 2)).add_axes((0, 0, 0.8, 0.8))
            figures.plot_surface(img, HOSTILE, limit=3, views=[("left", "lateral")], ax=ax)
            canvas = FigureCanvasAgg(ax.figure)
            canvas.draw()
            shown = np.asarray(canvas.buffer_rgba(), dtype=int)[:, :225]  # without the colour bar
            red, blue = shown[..., 0], shown[..., 2]
            pixels.append([(red - blue > 60).sum(), (blue - red > 60).sum()])
        assert pixels[0][0] == 0 < pixels[0][1] and pixels[1][1] == 0 < pixels[1][0]


def changes(n: int = 12) -> VisitChanges:
    rng = np.random.default_rng(4)
    change = pd.DataFrame(rng.normal(size=(n, 3)), columns=pd.MultiIndex.from_tuples(
        [("t1", HOSTILE), ("t1", "b"), ("pet", "b")]))
    change.iloc[n // 2:, 1] -= 6
    change.iloc[0, 1] = np.nan
    who = pd.DataFrame({"control": np.arange(n) < n // 2})
    return VisitChanges(change, change, pd.DataFrame(), who, ("1", HOSTILE))


def test_changes_are_drawn_of_each_person_and_filled_where_they_differ(ax):
    found = changes()
    drawn(found.plot(3, ax=ax))
    lowest = [c for c in ax.collections if -0.5 < c.get_offsets()[:, 1].mean() < 0.5]
    np.testing.assert_allclose(np.sort(np.concatenate([c.get_offsets()[:, 0] for c in lowest])),
                               np.sort(found.change[("t1", "b")].dropna()))
    p = stats.mannwhitneyu(found.change.iloc[6:, 1], found.change.iloc[1:6, 1]).pvalue
    assert p < 0.05 / 3 and all((c.get_facecolor()[:, :3] < 1).any() for c in lowest)
    with pytest.raises(ComparisonError, match="0 people who are no controls and 12 controls"):
        replace(found, subjects=found.subjects.assign(control=True)).plot(ax=ax)


def test_hostile_names_are_drawn(some):
    named = replace(some, z=some.z.rename(columns={"t1": HOSTILE}),
                    latent=some.latent.rename(columns={"z1": HOSTILE}),
                    subjects=some.subjects.replace({"diagnosis": {"AD": HOSTILE}}))
    for draw in (figures.plot_heatmap, figures.plot_latent):
        drawn(draw(named, "diagnosis", ax=Figure().add_subplot()))
    drawn(figures.plot_reliability(named, ax=Figure().add_subplot()))

"""Figures: what the artists hold is compared with the tables they were drawn from.

How a figure looks has no witness here; it was judged by eye.
"""
from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from normfuse.analyses import compare_groups, figures
from normfuse.deviations import ROLE, Deviations, Reference
from normfuse.errors import CohortError, ComparisonError, TrainingError

GYRI = """bankssts caudalanteriorcingulate caudalmiddlefrontal cuneus entorhinal fusiform
inferiorparietal inferiortemporal isthmuscingulate lateraloccipital lateralorbitofrontal lingual
medialorbitofrontal middletemporal parahippocampal paracentral parsopercularis parsorbitalis
parstriangularis pericalcarine postcentral posteriorcingulate precentral precuneus
rostralanteriorcingulate rostralmiddlefrontal superiorfrontal superiorparietal superiortemporal
supramarginal frontalpole temporalpole transversetemporal insula""".split()
DEEP = "Thalamus-Proper Caudate Putamen Pallidum Hippocampus Amygdala Accumbens-area".split()
CORTEX = [f"ctx-{side}-{gyrus}" for side in ("lh", "rh") for gyrus in GYRI]
REGIONS = {"t1": CORTEX + [f"{side}-{part}" for side in ("Left", "Right") for part in DEEP],
           "dti": [name.replace("ctx-", "wm-") for name in CORTEX], "pet": CORTEX}
UNITS = {"t1": "mm3", "dti": "FA", "pet": "SUVR"}
LOSS = {"CN": 0.0, "MCI": 0.4, "AD": 1.1}


def reference_of_calibration(z: pd.DataFrame, distance: pd.DataFrame) -> Reference:
    """A reference whose calibration rows and quantiles are those of the given controls."""
    rows, quantiles = [], {}
    grid = np.linspace(0.002, 0.998, 99)
    for name in (*REGIONS, "all"):
        block = (z if name == "all" else z[name]).dropna(how="all")
        for nominal in (0.05, 0.01):
            share = (block.abs() > stats.norm.isf(nominal / 2)).mean(axis=1)
            half = 1.96 * share.std() / np.sqrt(len(share))
            rows.append({"quantity": f"z {name}", "nominal": nominal, "share": share.mean(),
                         "low": max(share.mean() - half, 0), "high": share.mean() + half,
                         "n_subjects": len(share), "n_values": int(block.notna().sum().sum()),
                         "mean": np.nanmean(block), "sd": np.nanstd(block)})
        if name != "all":
            quantiles[name] = {"theoretical": stats.norm.ppf(grid).tolist(),
                               "observed": np.nanquantile(block, grid).tolist()}
    for nominal in (0.05, 0.01):
        share = (distance["p"] < nominal).mean()
        rows.append({"quantity": "latent distance", "nominal": nominal, "share": share,
                     "low": max(share - 0.04, 0), "high": share + 0.05, "n_subjects": len(z),
                     "n_values": len(z), "mean": np.nan, "sd": np.nan})
    epochs = np.arange(1, 121)
    fall = 180 * np.exp(-epochs / 6) + 95
    history = [{"epoch": int(e), "training": float(f - 0.08 * e),
                "validation": float(f + 3 + 0.0008 * (e - 70) ** 2)}
               for e, f in zip(epochs, fall)]
    return Reference(
        kind="reconstruction", fusion="WassersteinBarycenter()", n_latent=8, seed=11,
        n_subjects={"training": 210, "early_stop": 52, "calibration": len(z)},
        covariates={"age": {"kind": "continuous", "range": [21.0, 84.5]},
                    "sex": {"kind": "categorical", "levels": {"F": 160, "M": 142}},
                    "site": {"kind": "site", "levels": {"north": 150, "south": 100, "west": 52}}},
        modalities={m: {"unit": UNITS[m], "n_features": len(f), "n_present": n}
                    for (m, f), n in zip(REGIONS.items(), (302, 255, 190))},
        history=history, calibration=rows, quantiles=quantiles,
        versions={"normfuse": "0.1.0", "python": "3.11.9"}, created="2025-01-02T03:04:05+00:00",
        notes=("sex is scored only for people whose sex occurs in the reference",))


def _people(ids: list[str], diagnosis: np.ndarray, role: str,
            rng: np.random.Generator) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    index = pd.Index(ids, name="participant_id")
    columns = pd.MultiIndex.from_tuples([(m, f) for m, names in REGIONS.items() for f in names],
                                        names=["modality", "feature"])
    loss = np.array([LOSS[d] for d in diagnosis])
    hit = np.array([1.0 if part.split("-")[-1] in ("Hippocampus", "entorhinal", "precuneus")
                    else 0.25 for _, part in columns])
    z = 0.5 * rng.normal(size=(len(ids), 1)) + 0.87 * rng.normal(size=(len(ids), len(columns)))
    z = pd.DataFrame(z - np.outer(loss * rng.uniform(0.5, 2, len(ids)), hit), index, columns)
    for name, share in (("dti", 0.15), ("pet", 0.35)):
        z.loc[rng.uniform(size=len(ids)) < share, name] = np.nan
    z.iloc[3, 5] = np.nan
    distance = np.sqrt(rng.chisquare(8, len(ids))) + 1.3 * loss
    age = rng.uniform(55, 84, len(ids)).round(1)
    expected = z * 0 + (5 - 0.04 * (age - 70))[:, None]
    tables = {"z": z, "observed": expected + 0.3 * z, "expected": expected,
              "latent": pd.DataFrame(rng.normal(size=(len(ids), 8)), index),
              "distance": pd.DataFrame({"distance": distance, "p": stats.chi2.sf(distance**2, 8),
                                        "n_calibration": 30}, index)}
    subjects = pd.DataFrame({"age": age,
                             "sex": rng.choice(["F", "M"], len(ids)),
                             "site": rng.choice(["north", "south", "west"], len(ids)),
                             "diagnosis": diagnosis, ROLE: role}, index)
    return tables, subjects


def realistic_deviations(n: int = 60, *, seed: int = 3) -> Deviations:
    """Patients and new controls scored on three modalities; held-out controls as ``controls``."""
    rng = np.random.default_rng(seed)
    held_out, control_table = _people([f"ctl-{i:03d}" for i in rng.permutation(40)],
                                      np.full(40, "CN"), "calibration", rng)
    reference = reference_of_calibration(held_out["z"], held_out["distance"])
    diagnosis = np.resize(["AD", "MCI", "MCI", "CN"], n)
    tables, subjects = _people([f"sub-{i:03d}" for i in rng.permutation(n)], diagnosis, "new", rng)
    controls = Deviations(**held_out, subjects=control_table, reference=reference)
    return Deviations(**tables, subjects=subjects, reference=reference, controls=controls)


def settings() -> dict:
    """The user's settings; nilearn, when imported, chooses the same backend again."""
    return {**matplotlib.rcParams, "backend": matplotlib.get_backend().lower(),
            "backend_fallback": None}


def drawn(ax: Axes) -> Axes:
    """Drawn to the end: labels that cannot be typeset, for one, only fail here."""
    FigureCanvasAgg(ax.figure).draw()
    return ax


@pytest.fixture
def ax() -> Axes:
    return Figure(figsize=(7, 6), layout="constrained").add_subplot()


@pytest.fixture(scope="module")
def deviations() -> Deviations:
    return realistic_deviations()


@pytest.fixture(scope="module")
def comparison(deviations):
    return compare_groups(deviations, "diagnosis", adjust=["age", "sex"])


def markers(ax: Axes) -> dict[float, tuple[float, str]]:
    """Row -> (x, face colour) of the marker drawn in it."""
    points = [line for line in ax.lines if line.get_marker() in figures.MARKERS]
    return {float(p.get_ydata()[0]): (float(p.get_xdata()[0]), to_hex(p.get_markerfacecolor()))
            for p in points}


def tick_labels(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_every_figure_returns_the_axis_it_was_given(deviations, comparison):
    patients, reference = deviations, deviations.reference
    calls = [lambda ax: figures.plot_training(reference, ax=ax),
             lambda ax: figures.plot_qq(reference, ax=ax),
             lambda ax: figures.plot_calibration(reference, ax=ax),
             lambda ax: figures.plot_group_effects(comparison, ax=ax),
             lambda ax: figures.plot_extremes(patients, "diagnosis", ax=ax),
             lambda ax: figures.plot_distances(patients, "diagnosis", ax=ax),
             lambda ax: figures.plot_subject(patients, patients.z.index[2], ax=ax),
             lambda ax: figures.plot_missingness(patients, ax=ax)]
    for call in calls:
        ax = Figure().add_subplot()
        assert drawn(call(ax)) is ax
        assert ax.get_xlabel()


def test_every_figure_is_offered_in_one_place():
    folder = Path(figures.__file__).parent
    made = {name for file in folder.glob("*.py") for name in
            re.findall(r"^def (plot_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)}
    assert len(made) == 24
    assert made == {name for name in figures.__all__ if name.startswith("plot_")}
    for name in made:
        assert callable(getattr(figures, name)) and f":func:`{name}`" in figures.__doc__


def test_without_an_axis_a_new_figure_is_made(deviations):
    before = plt.get_fignums()
    ax = figures.plot_missingness(deviations)
    assert set(plt.get_fignums()) - set(before) == {ax.figure.number}
    plt.close(ax.figure)


def test_training_marks_the_lowest_validation_loss(deviations, ax):
    history = pd.DataFrame(deviations.reference.history)
    figures.plot_training(deviations.reference, ax=ax)
    curve = next(line for line in ax.lines if line.get_label() == "validation")
    np.testing.assert_allclose(curve.get_ydata(), history["validation"])
    best = next(line for line in ax.lines if "kept" in line.get_label())
    assert best.get_xdata()[0] == history.loc[history["validation"].idxmin(), "epoch"] != 120
    assert ax.get_ylim()[1] < history["training"].max()  # the first epochs do not set the scale


def test_training_without_validation_or_history(deviations, ax):
    bare = [{"epoch": 1, "training": 3.0}, {"epoch": 2, "training": 2.5}]
    figures.plot_training(replace(deviations.reference, history=bare), ax=ax)
    assert [line.get_label() for line in ax.lines] == ["training"]
    with pytest.raises(TrainingError, match="no training history"):
        figures.plot_training(replace(deviations.reference, history=[]))


def test_qq_band_holds_the_order_statistics_of_independent_people(deviations, ax):
    """Witness: simulation. The share of normal samples inside the band at a rank is 95 %."""
    figures.plot_qq(deviations.reference, ax=ax)
    n = min(row["n_subjects"] for row in deviations.reference.calibration)
    x, y = ax.collections[0].get_paths()[0].vertices.T
    rng = np.random.default_rng(5)
    samples = np.sort(rng.normal(size=(20_000, n)), axis=1)
    for rank in (3, n // 2, n - 4):
        expected = stats.norm.ppf((rank + 1) / (n + 1))
        near = np.argsort(np.abs(x - expected))[:6]
        low, high = y[near].min(), y[near].max()
        inside = ((samples[:, rank] > low) & (samples[:, rank] < high)).mean()
        assert inside == pytest.approx(0.95, abs=0.02)


def test_qq_draws_the_quantiles_it_was_given(deviations, ax):
    figures.plot_qq(deviations.reference, ax=ax)
    points = {line.get_label(): line for line in ax.lines}
    for name, quantiles in deviations.reference.quantiles.items():
        np.testing.assert_allclose(points[name].get_xydata().T,
                                   [quantiles["theoretical"], quantiles["observed"]])


def test_calibration_draws_shares_intervals_and_nominal_lines(deviations, ax):
    figures.plot_calibration(deviations.reference, ax=ax)
    rows = pd.DataFrame(deviations.reference.calibration)
    assert tick_labels(ax) == ["z t1", "z dti", "z pet", "z all", "latent distance"]
    for container, (nominal, part) in zip(ax.containers, [
            (level, rows[rows["nominal"] == level]) for level in (0.05, 0.01)]):
        line, _, (wings,) = container.lines
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), part["share"])
        ends = np.array([segment[:, 0] for segment in wings.get_segments()], dtype=float)
        np.testing.assert_allclose(ends, part[["low", "high"]].astype(float), atol=1e-12)
        assert any(set(li.get_xdata()) == {nominal} for li in ax.lines if li.get_ls() == "--")


def test_group_effects_draw_the_smallest_p_and_fill_the_significant(comparison, ax):
    figures.plot_group_effects(comparison, 14, contrast="MCI - CN", ax=ax)
    table = comparison.table.xs("MCI - CN", level="contrast")
    top = table.sort_values("p").head(14).sort_values("g")
    found = markers(ax)
    np.testing.assert_allclose([found[row][0] for row in range(14)], top["g"])
    filled = [colour != "#ffffff" for _, (_, colour) in sorted(found.items())]
    assert filled == (top["q"] < 0.05).tolist()
    assert 0 < sum(filled) < 14
    assert tick_labels(ax) == [figures.region_label(f) for _, f in top.index]


def test_group_effects_of_an_unknown_or_empty_contrast(comparison):
    with pytest.raises(ComparisonError, match="no contrast 'FTD - CN'; there are AD - CN"):
        figures.plot_group_effects(comparison, contrast="FTD - CN")
    nothing = replace(comparison, table=comparison.table.assign(p=np.nan))
    with pytest.raises(ComparisonError, match="no region could be compared in AD - CN"):
        figures.plot_group_effects(nothing)


def test_extremes_draw_one_point_a_person_who_was_measured(deviations, ax):
    figures.plot_extremes(deviations, "diagnosis", ax=ax)
    everyone = deviations.with_controls()
    counts = everyone.extreme(1.96)
    for modality in range(3):
        for group, level in enumerate(("CN", "AD", "MCI")):
            x = ax.collections[3 * modality + group].get_offsets()[:, 0]
            who = everyone.subjects["diagnosis"] == level
            wanted = counts.loc[who, deviations.modalities[modality]].dropna()
            assert sorted(x) == sorted(wanted)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["CN (n = 55)", "AD (n = 15)", "MCI (n = 30)"]
    chance = [li.get_xdata()[0] for li in ax.lines if li.get_ls() == "--"]
    np.testing.assert_allclose(chance, [0.05 * 82, 0.05 * 68, 0.05 * 68], rtol=1e-3)


def test_distances_fill_the_unusual(deviations, ax):
    figures.plot_distances(deviations, "diagnosis", ax=ax)
    everyone = deviations.with_controls()
    for row, level in enumerate(("CN", "AD", "MCI")):
        who = everyone.distance[everyone.subjects["diagnosis"] == level]
        points = ax.collections[row]
        np.testing.assert_allclose(points.get_offsets()[:, 0], who["distance"])
        filled = (points.get_facecolors()[:, :3] < 1).any(axis=1)
        np.testing.assert_array_equal(filled, who["p"] < 0.05)


def test_people_seen_in_training_are_in_no_group_picture(deviations, ax):
    roles = deviations.subjects[ROLE].where(np.arange(60) % 6 > 0, "training")
    with pytest.warns(UserWarning, match="left out 10 people"):
        figures.plot_distances(replace(
            deviations, subjects=deviations.subjects.assign(**{ROLE: roles})), "diagnosis", ax=ax)
    assert sum(len(points.get_offsets()) for points in ax.collections) == 60 - 10 + 40


def test_a_column_of_scores_is_no_grouping(deviations):
    with pytest.raises(ComparisonError, match="'age' has .* room for 12"):
        figures.plot_extremes(deviations, "age")
    with pytest.raises(ComparisonError, match="'dx' is not a column"):
        figures.plot_distances(deviations, "dx")


def test_subject_draws_the_largest_deviations_in_order(deviations, ax):
    subject = deviations.z.index[3]
    figures.plot_subject(deviations, subject, 9, ax=ax)
    z = deviations.z.loc[subject].dropna()
    top = z[z.abs() >= z.abs().nlargest(9).min()].sort_values()
    found = markers(ax)
    np.testing.assert_allclose([found[row][0] for row in range(9)], top)
    assert np.sum(ax.get_xlim()) == 0  # below and above expectation have equal room
    with pytest.raises(CohortError, match="nothing was measured of"):
        figures.plot_subject(replace(deviations, z=deviations.z * np.nan), subject)


def test_missingness_counts_combinations(deviations, ax):
    figures.plot_missingness(deviations, ax=ax)
    have = pd.DataFrame({m: deviations.z[m].notna().any(axis=1) for m in REGIONS})
    for label, bar in zip(tick_labels(ax), ax.patches):
        names = label.split(" + ")
        assert bar.get_width() == (have == [m in names for m in REGIONS]).all(axis=1).sum()
    assert sum(bar.get_width() for bar in ax.patches) == 60


def test_names_are_not_read_as_formulas(deviations, ax):
    names = {"t1": r"$\frac{1$", "dti": "d\nti$x$", "pet": "p" * 200}
    tables = {name: getattr(deviations, name).rename(columns=names, level=0)
              for name in ("z", "observed", "expected")}
    odd = replace(deviations, **tables, controls=None)
    drawn(figures.plot_missingness(odd, ax=ax))
    assert max(len(label) for label in tick_labels(ax)) < 150


def test_region_names_keep_what_is_not_freesurfers():
    assert figures.region_label("CC_Mid_Posterior") == "CC_Mid_Posterior"
    assert figures.region_label("lateralthing") == "lateralthing"
    assert figures.region_label("Right-Inf-Lat-Vent") == "R inf lat vent"
    assert figures.region_label("cost $\n in $") == "cost $ in $"


def test_brain_leaves_the_unmeasured_out_and_shares_its_scale():
    values = np.full((9, 10, 8), np.nan, dtype=np.float32)
    values[2:5, 3:7, 2:6], values[6, 3:7, 2:6] = -2.5, 0.0
    affine = np.diag([14.0, 14.0, 14.0, 1.0])
    affine[:3, 3] = [-56, -80, -40]
    image = nib.Nifti1Image(values, affine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = figures.plot_brain(image, "one $ person", limit=4, ax=Figure().add_subplot())
    FigureCanvasAgg(ax.figure).draw()
    maps = [art for axes in ax.figure.axes for art in axes.images
            if art.get_cmap().name == "RdBu_r"]
    assert maps and {tuple(art.get_clim()) for art in maps} == {(-4.0, 4.0)}
    painted = np.concatenate([np.ma.compressed(art.get_array()) for art in maps])
    assert set(np.round(painted, 3)) == {-2.5, 0.0}  # 0 was measured and is painted
    assert ax.get_title("left") == r"one \$ person"
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)


def test_the_users_settings_and_random_state_stay(deviations):
    np.random.seed(4)
    state, before = np.random.get_state()[1].copy(), settings()
    figures.plot_extremes(deviations, "diagnosis", ax=Figure().add_subplot())
    affine = [[9, 0, 0, -9], [0, 9, 0, -9], [0, 0, 15, -60], [0, 0, 0, 1]]
    figures.plot_brain(nib.Nifti1Image(np.ones((3, 4, 9), np.float32), np.array(affine)),
                       ax=Figure().add_subplot())
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert settings() == before

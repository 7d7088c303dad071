"""Pictures of a reference, of groups and of one person: each takes an axis and returns it."""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from normfuse.deviations import ROLE, Deviations, Reference
from normfuse.errors import CalibrationError, CohortError, ComparisonError, TrainingError, listed

from .groups import honest_people

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

    from .groups import GroupComparison

PALETTE = tuple(sns.color_palette("colorblind"))
MARKERS = "osD^vPX*"  # the shape repeats what the colour says
EXTREME = 1.96
SIGNIFICANT = 0.05
AXIAL_CUTS = (-26, -14, 0, 16, 34, 52)  # mm; the same slices on every map can be compared
_GREY = "0.45"
_PAINTED = 1e-5
_MAX_GROUPS = 12  # more levels are a score or an id, not a grouping
_GYRUS_WORDS = re.compile("(caudal|rostral|superior|inferior|middle|lateral|medial|anterior|"
                          "posterior|isthmus|pars|transverse|frontal(?=pole)|temporal(?=pole))"
                          "(?=[a-z])")


def region_label(name: str) -> str:
    """A feature's name as one would say it: side, words, and ``WM`` for white matter.

    Names that are not FreeSurfer's stay as they are, but for what would break a line.

    Examples
    --------
    >>> [region_label(n) for n in ("ctx-lh-rostralanteriorcingulate", "wm-rh-insula")]
    ['L rostral anterior cingulate', 'R insula WM']
    >>> region_label("Left-Thalamus-Proper"), region_label("Brain-Stem"), region_label("fa_cst")
    ('L thalamus proper', 'Brain stem', 'fa_cst')
    """
    parts = re.fullmatch(r"(ctx|wm)-([lr])h-(.+)", name)
    if parts:
        tissue, side, gyrus = parts.groups()
        words = _GYRUS_WORDS.sub(r"\1 ", gyrus).replace("bankssts", "banks STS")
        return _one_line(f"{side.upper()} {words}{' WM' if tissue == 'wm' else ''}")
    side, dash, rest = name.partition("-")
    if dash and side in ("Left", "Right"):
        return _one_line(f"{side[0]} {_lower_words(rest)}")
    if re.fullmatch(r"[A-Z][a-z]+(-[A-Z][a-z]+)+", name):
        return _one_line(name[0] + _lower_words(name)[1:])
    return _one_line(name)


def plot_training(reference: Reference, *, ax: Axes | None = None) -> Axes:
    """Loss of each epoch on training and early-stopping people; the lowest validation is marked.

    Raises
    ------
    TrainingError
        If the reference keeps no history.
    """
    if not reference.history:
        raise TrainingError("this reference keeps no training history; there is nothing to draw")
    history = pd.DataFrame(reference.history)
    ax = _axis(ax, (7, 3.2))
    ax.plot(history["epoch"], history["training"], color=PALETTE[0], label="training")
    if "validation" in history and history["validation"].notna().any():
        ax.plot(history["epoch"], history["validation"], color=PALETTE[1], label="validation")
        kept = history["epoch"] == reference.best_epoch
        best = history[kept].iloc[0] if kept.any() else \
            history.iloc[int(np.nanargmin(history["validation"]))]
        ax.axvline(best["epoch"], color=_GREY, lw=1, ls=":")
        ax.plot(best["epoch"], best["validation"], "o", color=PALETTE[1], mec="white", ms=8,
                label=f"weights kept: epoch {best['epoch']:.0f}")
    # Losses fall a hundredfold in the first epochs; on their scale an overfit would be invisible.
    settled = history["epoch"] >= 0.05 * history["epoch"].max()
    losses = history.loc[settled].filter(["training", "validation"]).to_numpy()
    if np.isfinite(losses).any() and np.nanmin(losses) < np.nanmax(losses):
        low, high = np.nanmin(losses), np.nanmax(losses)
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set(xlabel="epoch", ylabel="loss (nats per person)")
    ax.legend(frameon=False)
    return _open(ax)


def plot_qq(reference: Reference, *, ax: Axes | None = None) -> Axes:
    r"""Quantiles of the held-out controls' z against those of the standard normal law.

    The band holds the k-th smallest of n independent values with 95 % probability at each k,
    :math:`\Phi^{-1}(\mathrm{Beta}^{-1}_{q}(k, n + 1 - k))`, for n **people**: regions of one brain
    are correlated, and n values would make the band far too narrow.

    Raises
    ------
    CalibrationError
        If the reference keeps no quantiles.
    """
    if not reference.quantiles:
        raise CalibrationError("this reference keeps no quantiles of held-out controls; nothing "
                               "can be said about their calibration")
    ax = _axis(ax, (4.6, 4.6))
    people = {str(row["quantity"]): int(row["n_subjects"]) for row in reference.calibration}
    names = [name for name in reference.quantiles if name in reference.modalities]
    n = min((people.get(f"z {name}", reference.n_subjects.get("calibration", 0))
             for name in names), default=0)
    pairs = {name: np.array([reference.quantiles[name][which] for which in
                             ("theoretical", "observed")], float) for name in names}
    reach = 1.05 * max(3.0, *(float(np.nanmax(np.abs(pair))) for pair in pairs.values()))
    line = np.linspace(-reach, reach, 201)
    if n > 1:
        k = stats.norm.cdf(line) * (n + 1)
        low, high = (stats.norm.ppf(stats.beta.ppf(q, k, n + 1 - k)) for q in (0.025, 0.975))
        ax.fill_between(line, np.maximum(low, -2 * reach), np.minimum(high, 2 * reach),
                        color="0.9", lw=0, label=f"95 % band for {n} people")
    ax.plot(line, line, color=_GREY, lw=1)
    for (name, (expected, observed)), (colour, marker) in zip(pairs.items(),
                                                              _styles(pairs).values()):
        ax.plot(expected, observed, marker, color=colour, ms=4, mew=0, label=_plain(name))
    ax.set(xlabel="expected z (standard normal)", ylabel="z of held-out controls",
           xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.legend(frameon=False, loc="upper left")
    return _open(ax)


def plot_calibration(reference: Reference, *, ax: Axes | None = None) -> Axes:
    """Share of held-out controls' values beyond each nominal level, with its 95 % interval.

    Raises
    ------
    CalibrationError
        If the reference keeps no calibration rows.
    """
    if not reference.calibration:
        raise CalibrationError("this reference keeps no calibration rows; nothing can be said "
                               "about how often healthy people exceed a threshold")
    table = pd.DataFrame(reference.calibration)
    quantities, levels = table["quantity"].unique(), sorted(table["nominal"].unique())[::-1]
    ax = _axis(ax, (7, 1.2 + 0.45 * len(quantities)))
    for i, (level, colour) in enumerate(zip(levels, PALETTE)):
        rows = table[table["nominal"] == level]
        y = [list(quantities).index(q) + _shift(i, len(levels)) for q in rows["quantity"]]
        wings = np.array([rows["share"] - rows["low"], rows["high"] - rows["share"]], float)
        ax.axvline(level, color=colour, lw=1.2, ls="--")
        ax.errorbar(rows["share"], y, xerr=wings.clip(min=0), fmt=MARKERS[i], color=colour, ms=6,
                    capsize=2.5, lw=1.5, label=f"nominal {100 * level:g} %")
    _name_rows(ax, [_plain(q) for q in quantities])
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.set_xlim(left=0)
    ax.set_xlabel("share of held-out controls' values beyond the threshold")
    return _open(_legend_beside(ax))


def plot_group_effects(comparison: GroupComparison, n: int = 20, *, contrast: str | None = None,
                       ax: Axes | None = None) -> Axes:
    """Forest plot of the n regions with the smallest p: Hedges' g and its 95 % interval.

    Parameters
    ----------
    comparison : GroupComparison
    n : int
        Regions to draw, over all modalities.
    contrast : str, optional
        One of the comparison's contrasts; the first by default.

    Raises
    ------
    ComparisonError
        For an unknown contrast, or one in which nothing could be compared.
    """
    known = comparison.table.index.get_level_values("contrast").unique()
    if contrast is None and len(known):
        contrast = known[0]
    if contrast not in known:
        raise ComparisonError(f"there is no contrast {contrast!r}; there are {listed(known)}")
    table = comparison.table.xs(contrast, level="contrast")
    styles = _styles(table.index.get_level_values("modality").unique())
    top = table.assign(size=-table["g"].abs()).dropna(subset=["g", "p"])
    top = top.sort_values(["p", "size"]).head(n).sort_values("g")
    if top.empty:
        raise ComparisonError(f"no region could be compared in {contrast}; see the column reason")
    ax = _axis(ax, (7.5, 1 + 0.26 * len(top)))
    ax.axvline(0, color=_GREY, lw=1)
    for y, (modality, row) in enumerate(zip(top.index.get_level_values("modality"),
                                            top.to_dict("records"))):
        colour, marker = styles[modality]
        ax.errorbar(row["g"], y, xerr=[[row["g"] - row["g_low"]], [row["g_high"] - row["g"]]],
                    fmt=marker, color=colour, ms=6.5, lw=1.5, mew=1.4,
                    mfc=colour if row["q"] < SIGNIFICANT else "white")
    _name_rows(ax, [_plain(region_label(feature)) for _, feature in top.index])
    ax.set_xlabel(f"Hedges' g of z, {_plain(contrast).replace(' - ', ' − ')}, with 95 % interval")
    handles = _modality_handles(styles, top.index.get_level_values("modality"))
    handles += [Line2D([], [], ls="", marker="o", color=_GREY, mfc=fill, label=label)
                for fill, label in ((_GREY, "q < .05"), ("white", "q ≥ .05"))]
    return _open(_legend_beside(ax, handles))


def plot_extremes(deviations: Deviations, group: str, *, ax: Axes | None = None) -> Axes:
    """How many features of each person lie beyond \\|z\\| 1.96, per modality and group.

    The held-out controls are added and people seen in training left out, as in
    :func:`~normfuse.analyses.compare_extremes`. Boxes show the quartiles; each point is a person,
    and whoever lacks the modality has none.

    Raises
    ------
    ComparisonError
        If ``group`` is no column of ``subjects``, or has more than 12 values.
    """
    people, of, levels = _grouped(deviations, group)
    counts, names = people.extreme(EXTREME), people.modalities
    ax = _axis(ax, (7, 1.2 + 0.38 * len(levels) * len(names)))
    for i, name in enumerate(names):
        for j, level in enumerate(levels):
            values = counts.loc[of == level, name].dropna()
            _strip(ax, values, i + _shift(j, len(levels)), PALETTE[j % len(PALETTE)],
                   0.7 / len(levels))
        chance = 2 * stats.norm.sf(EXTREME) * people.z[name].shape[1]
        ax.plot([chance, chance], [i - 0.42, i + 0.42], color=_GREY, lw=1.2, ls="--")
    _name_rows(ax, [_plain(name) for name in names])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(left=min(-0.5, ax.get_xlim()[0]))
    ax.set_xlabel(f"features beyond |z| {EXTREME} per person (dashed: expected by chance)")
    return _open(_legend_beside(ax, _group_handles(levels, of)))


def plot_distances(deviations: Deviations, group: str, *, ax: Axes | None = None) -> Axes:
    """Latent distance of each person, per group; filled where its p is below .05.

    People are chosen as in :func:`plot_extremes`, and the same errors are raised.
    """
    people, of, levels = _grouped(deviations, group)
    table = people.distance.dropna(subset=["distance"])
    ax = _axis(ax, (7, 1 + 0.5 * len(levels)))
    for j, level in enumerate(levels):
        rows = table[of[table.index] == level]
        _strip(ax, rows["distance"], j, PALETTE[j % len(PALETTE)], 0.7,
               filled=(rows["p"] < SIGNIFICANT).to_numpy())
    _name_rows(ax, [_plain(level) for level in levels])
    ax.set_xlabel("Mahalanobis distance in latent space (filled: p < .05)")
    return _open(_legend_beside(ax, _group_handles(levels, of)))


def plot_subject(deviations: Deviations, subject: str, n: int = 20, *,
                 ax: Axes | None = None) -> Axes:
    """The n features of one person that deviate most, over all modalities.

    Raises
    ------
    CohortError
        If the subject is unknown, or nothing was measured of them.
    """
    z = deviations.select([subject]).z.iloc[0].dropna()
    if z.empty:
        raise CohortError(f"nothing was measured of {subject}; there is no deviation to draw")
    top = z.loc[z.abs().sort_values(ascending=False).index[:n]].sort_values()
    styles = _styles(deviations.modalities)
    ax = _axis(ax, (7.5, 1 + 0.26 * len(top)))
    ax.axvline(0, color=_GREY, lw=1)
    for threshold in (-EXTREME, EXTREME):
        ax.axvline(threshold, color=_GREY, lw=1, ls="--")
    for y, (modality, value) in enumerate(zip(top.index.get_level_values(0), top)):
        colour, marker = styles[modality]
        ax.plot([0, value], [y, y], color=colour, lw=1.5)
        ax.plot(value, y, marker, color=colour, ms=6.5)
    reach = 1.1 * max(3.0, top.abs().max())
    ax.set_xlim(-reach, reach)
    _name_rows(ax, [_plain(region_label(feature)) for _, feature in top.index])
    ax.set_xlabel(f"deviation, z (dashed: ±{EXTREME})")
    return _open(_legend_beside(ax, _modality_handles(styles, top.index.get_level_values(0))))


def plot_missingness(deviations: Deviations, *, ax: Axes | None = None) -> Axes:
    """Which modalities people have together, and how many people each combination counts."""
    names = list(deviations.modalities)
    have = deviations.z.notna().T.groupby(level=0).any().T[names]
    combination = have.apply(lambda row: " + ".join(_plain(n, 24) for n in names if row[n])
                             or "nothing", axis=1)
    counts = combination.value_counts()
    ax = _axis(ax, (6, 0.9 + 0.35 * len(counts)))
    bars = ax.barh(np.arange(len(counts)), counts, color=PALETTE[0], height=0.6)
    ax.bar_label(bars, padding=3)
    _name_rows(ax, list(counts.index))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(0, 1.1 * counts.max())
    ax.set_xlabel("people")
    return _open(ax)


def plot_brain(img: Nifti1Image, title: str = "", *, limit: float | None = None,
               unit: str = "z", ax: Axes | None = None) -> Axes:
    """Axial slices of a map over the MNI152 template, left on the left.

    Parameters
    ----------
    img : Nifti1Image
        In ``unit``; NaN where there is no value (the template shows through).
    title : str
    limit : float, optional
        The colour scale runs from -limit to limit; the largest absolute value by default.
    unit : str
        What the colour bar counts.
    """
    from nilearn.image import new_img_like  # slow to import, and only maps need it
    from nilearn.plotting import plot_stat_map

    values = np.asarray(img.dataobj, dtype=np.float32)
    known = np.isfinite(values)
    if limit is None:
        limit = float(np.abs(values[known]).max(initial=0)) or 1.0
    if not known.all():
        # nilearn leaves out what lies below 1e-6: a region exactly as expected must be painted.
        values = np.where(known & (np.abs(values) < _PAINTED), _PAINTED, values)
    if ax is None:
        ax = plt.figure(figsize=(10, 2.3)).add_axes((0.01, 0, 0.91, 0.85))
    scale = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), "RdBu_r")
    bar = ax.figure.colorbar(scale, ax=ax, fraction=0.015, pad=0.01, shrink=0.7, label=unit)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    display = plot_stat_map(
        new_img_like(img, np.where(known, values, 0)), axes=ax, display_mode="z", colorbar=False,
        cut_coords=AXIAL_CUTS, vmin=-limit, vmax=limit, cmap="RdBu_r", dim=0, black_bg=False,
        resampling_interpolation="nearest", annotate=False)
    display.annotate(size=9)
    ax.set_title(_plain(title), loc="left")
    return ax


def _axis(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _one_line(text: object, limit: int = 60) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= limit else f"{words[:limit - 8]}…{words[-7:]}"


def _plain(text: object, limit: int = 60) -> str:
    # Names come from other people's tables: a pair of dollars would be read as a formula.
    return _one_line(text, limit).replace("$", r"\$")


def _lower_words(name: str) -> str:
    return name.replace("-", " ").lower().replace(" dc", " DC").replace("ventraldc", "ventral DC")


def _styles(modalities: Iterable[str]) -> dict[str, tuple[Any, str]]:
    return {name: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)])
            for i, name in enumerate(modalities)}


def _modality_handles(styles: dict[str, tuple[Any, str]], shown: pd.Index) -> list[Line2D]:
    return [Line2D([], [], ls="", marker=marker, color=colour, label=_plain(name, 30))
            for name, (colour, marker) in styles.items() if name in shown]


def _group_handles(levels: Sequence[str], of: pd.Series) -> list[Line2D]:
    return [Line2D([], [], ls="", marker="o", color=PALETTE[i % len(PALETTE)],
                   label=f"{_plain(level, 30)} (n = {int((of == level).sum())})")
            for i, level in enumerate(levels)]


def _grouped(deviations: Deviations, group: str) -> tuple[Deviations, pd.Series, list[str]]:
    of = honest_people(deviations, group)[1]
    people = deviations.with_controls().select(of.index)
    held_out = of[people.subjects[ROLE] == "calibration"] if ROLE in people.subjects else of[:0]
    levels = sorted(of.unique(), key=lambda level: (-(held_out == level).sum(), level))
    if len(levels) > _MAX_GROUPS:
        raise ComparisonError(f"{group!r} has {len(levels)} values among {len(of)} people; a "
                              f"figure has room for {_MAX_GROUPS}: choose a column of groups")
    return people, of, levels


def _strip(ax: Axes, values: pd.Series, y: float, colour: Any, height: float, *,
           filled: np.ndarray | None = None) -> None:
    """Quartile box and one point a person, spread within the row so that ties can be told."""
    if not len(values):
        return
    # A fixed seed: the spread means nothing and the figure must not touch the user's random state.
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(values)) * height
    inside = [colour if fill else "white" for fill in
              (np.ones(len(values), bool) if filled is None else filled)]
    ax.boxplot([values], positions=[y], widths=0.85 * height, orientation="horizontal",
               showfliers=False, manage_ticks=False, boxprops={"color": "0.6"},
               whiskerprops={"color": "0.6"}, capprops={"color": "0.6"},
               medianprops={"color": "0.15", "lw": 2})
    ax.scatter(values, y + spread, s=16, facecolors=inside, edgecolors=[colour], lw=0.8,
               alpha=0.8, zorder=3)


def _shift(i: int, n: int) -> float:
    """Where in a row of height .7 the i-th of n things goes."""
    return 0.7 * ((i + 0.5) / n - 0.5)


def _name_rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def _legend_beside(ax: Axes, handles: Sequence[Line2D] | None = None) -> Axes:
    ax.legend(**({} if handles is None else {"handles": handles}), frameon=False,
              loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return ax


def _open(ax: Axes) -> Axes:
    sns.despine(ax=ax)
    return ax

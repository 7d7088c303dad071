"""Normal range of one feature against age: centile curves, people as points, and one of them."""
from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normfuse.deviations import ROLE, Deviations
from normfuse.errors import CohortError, listed, perhaps

from .drawing import MARKERS, PALETTE, axis_or_new, legend_beside, open_frame
from .wording import centile_words, plain, region_label

_OPEN = "(average)"  # how NormativeModel.centiles calls a site that was not given
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))


def plot_centiles(table: pd.DataFrame, feature: str, deviations: Deviations | None = None, *,
                  modality: str | None = None, subject: str | None = None, x: str = "age",
                  by: str | None = None, ax: Axes | None = None) -> Axes:
    """Centile curves of a feature in its unit; healthy people as points, one person marked.

    Where the reference had nobody (of that age, say) the ground is grey: curves are a guess there.

    Points are people of the reference (held-out controls that the deviations keep), or everybody
    if there are none of it; of one site or sex only, if the table is.

    Parameters
    ----------
    table : DataFrame
        From :meth:`normfuse.NormativeModel.centiles`, for several values of ``x``.
    feature : str
    deviations : Deviations, optional
        Whose observed values to show.
    modality : str, optional
        If several modalities have a feature of that name.
    subject : str, optional
        Marked, with the centile in words; needs deviations of kind ``covariates``, which are what
        the curves are of. The words are ``deviations.centile``: of the person's own site, sex and
        age, by calibration people measured with the same modalities. The curves are of the
        covariates and modalities that ``table`` was made for, so that the mark may lie a little
        beside the centile that the words tell; which is said where the modalities differ. Make the
        table with the person's own site and ``measured=`` to have both alike.
    x, by : str
        Covariates: that of the axis, and that of the colours; by default the other one that
        has several values in the table.

    Raises
    ------
    CohortError
        A covariate, feature or subject that is not there, more than one covariate beside ``x``
        that varies, or a marked subject with deviations of another kind.

    Examples
    --------
    >>> table = pd.DataFrame([[5.1, 6.0, 6.9], [4.9, 5.8, 6.7]], pd.Index([30, 70], name="age"),
    ...                      [0.05, 0.5, 0.95])
    >>> from normfuse.testing import tiny_deviations
    >>> ax = plot_centiles(table, "cuneus", tiny_deviations())
    >>> [text.get_text() for text in ax.texts], ax.get_ylabel()
    (['5 %', '50 %', '95 %'], 'cuneus, t1 (mm3)')
    """
    by = _colour_covariate(table, x, by)
    levels = [None] if by is None else list(table.index.get_level_values(by).unique())
    ax = axis_or_new(ax, (6.5, 4.2))
    for i, level in enumerate(levels):
        rows = table if by is None else table[table.index.get_level_values(by) == level]
        _draw_curves(ax, rows, x, PALETTE[i % len(PALETTE)], _DASHES[i % len(_DASHES)],
                     labelled=i == 0)
    ax.set(xlabel=plain(x), ylabel=plain(region_label(feature)))
    if deviations is not None:
        column = _column(deviations, feature, modality)
        unit = deviations.reference.modalities.get(column[0], {}).get("unit")
        ax.set_ylabel(plain(f"{region_label(feature)}, {column[0]}{f' ({unit})' if unit else ''}"))
        _shade_unknown(ax, deviations, table, x)
        _draw_people(ax, deviations, column, table, x, by, levels)
        if subject is not None:
            _draw_person(ax, deviations, column, subject, x, table.attrs.get("measured"))
    elif subject is not None:
        raise CohortError(f"to mark {subject!r}, give the deviations that hold its values")
    if by is not None:
        legend_beside(ax, [Line2D([], [], color=PALETTE[i % len(PALETTE)], lw=2,
                                  ls=_DASHES[i % len(_DASHES)], marker=MARKERS[i % len(MARKERS)],
                                  ms=5, label=f"{plain(by)} {plain(level, 30)}")
                           for i, level in enumerate(levels)])
    return open_frame(ax)


def _colour_covariate(table: pd.DataFrame, x: str, by: str | None) -> str | None:
    names = [str(name) for name in table.index.names]
    wrong = [name for name in (x, by) if name is not None and name not in names]
    if wrong:
        raise CohortError(f"{listed(wrong)} is no covariate of the table; it has {listed(names)}")
    if table.index.get_level_values(x).nunique() < 2:
        raise CohortError(f"a curve needs several values of {x}: model.centiles(feature, "
                          f"{x}=range(20, 81), …)")
    several = [n for n in names if n != x and table.index.get_level_values(n).nunique() > 1]
    beside = [name for name in several if name != by]
    if len(beside) > (by is None):
        raise CohortError(f"{listed(several)} vary in the table; keep one of them beside {x}")
    return by if by is not None else next(iter(several), None)


def _draw_curves(ax: Axes, rows: pd.DataFrame, x: str, colour: object, dashes: object, *,
                 labelled: bool) -> None:
    """The middle curve thick, those farther out thinner, each named at its right end."""
    at = rows.index.get_level_values(x).to_numpy(float)
    order = np.argsort(at)
    for share, y in rows.items():
        centile = 100 * float(str(share))
        curve = y.to_numpy(float)[order]
        ax.plot(at[order], curve, color=colour, ls=dashes,
                lw=2.0 - 1.2 * abs(centile - 50) / 50, zorder=3)
        if labelled:
            ax.annotate(f"{centile:g} %", (at[order][-1], curve[-1]), (4, 0), va="center",
                        textcoords="offset points", fontsize="small", color="0.3")


def _column(deviations: Deviations, feature: str, modality: str | None) -> tuple[str, str]:
    having = [name for name in deviations.modalities
              if (name, feature) in deviations.observed.columns and modality in (None, name)]
    if len(having) > 1:
        raise CohortError(f"{feature!r} is a feature of {listed(having)}; say which modality")
    if not having:
        names = [f for name in deviations.modalities if modality in (None, name)
                 for f in deviations.observed[name].columns]
        raise CohortError(f"there is no feature {feature!r}"
                          + (f" of modality {modality!r}" if modality else "")
                          + perhaps([feature], names))
    return having[0], feature


def _shade_unknown(ax: Axes, deviations: Deviations, table: pd.DataFrame, x: str) -> None:
    low, high = deviations.reference.covariates.get(x, {}).get("range", (-np.inf, np.inf))
    at = table.index.get_level_values(x).to_numpy(float)
    for start, end in ((at.min(), min(low, at.max())), (max(high, at.min()), at.max())):
        if start < end:
            ax.axvspan(start, end, color="0.93", lw=0, zorder=0)


def _draw_people(ax: Axes, deviations: Deviations, column: tuple[str, str], table: pd.DataFrame,
                 x: str, by: str | None, levels: list) -> None:
    everyone = deviations.with_controls()
    who = everyone.subjects
    known = who[ROLE].ne("new") if ROLE in who else pd.Series(False, who.index)
    kept = known if known.any() else ~known
    for name in map(str, table.index.names):
        values = table.index.get_level_values(name)
        kind = deviations.reference.covariates.get(name, {}).get("kind")
        if name != x and name in who and kind != "continuous" and _OPEN not in values:
            kept &= who[name].astype(str).isin(values.astype(str))
    who, y = who[kept], everyone.observed.loc[kept, column]
    for i, level in enumerate(levels):
        rows = who.index if by is None else who.index[who[by].astype(str) == str(level)]
        ax.scatter(who.loc[rows, x].astype(float), y[rows], s=13, lw=0, alpha=0.35, zorder=2,
                   color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)])


def _draw_person(ax: Axes, deviations: Deviations, column: tuple[str, str], subject: str, x: str,
                 measured: list[str] | None) -> None:
    person = deviations.select([subject])
    if person.reference.kind != "covariates":
        raise CohortError("the curves show what is usual at that age, sex and site; these "
                          f"deviations are of kind {person.reference.kind!r}, whose centile is "
                          "another: score with kind='covariates'")
    value, centile = (t[column].iloc[0] for t in (person.observed, person.centile))
    if not np.isfinite(value) or not np.isfinite(centile):
        raise CohortError(f"{column[1]} of {column[0]} was not measured in {subject}")
    at = float(person.subjects[x].iloc[0])
    ax.plot(at, value, "D", ms=8, color="black", mec="white", mew=1.2, zorder=5)
    low, high = ax.get_ylim()
    room, below = 0.22 * (high - low), centile < 50  # for words that cover nobody
    ax.set_ylim(low - room * below, high + room * (not below))
    theirs = [m for m in person.modalities if person.z[m].notna().to_numpy().any()]
    unlike = "" if measured is None or set(measured) == set(theirs) else (
        f" (by people measured with {' + '.join(theirs)}; curves: with {' + '.join(measured)})")
    words = textwrap.fill(f"{plain(subject, 30)} lies {centile_words(centile)}{plain(unlike, 90)}",
                          40)
    ax.annotate(words, (at, value), (0.5, 0.02 if below else 0.98), textcoords="axes fraction",
                ha="center", va="bottom" if below else "top", fontsize="small", zorder=4,
                arrowprops={"arrowstyle": "-", "color": "0.3", "lw": 0.8})

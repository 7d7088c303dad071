"""One person at a glance: mean deviation by part of the brain, around a circle."""
from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.projections.polar import PolarAxes

from normfuse.deviations import JUDGES, ROLE
from normfuse.errors import CohortError, ComparisonError

from .deviation_maps import check_known
from .drawing import GREY, PALETTE
from .regional import RegionalDeviations
from .wording import plain

BAND = (0.05, 0.95)
FEWEST = 20  # controls, below which the 5th centile is the least of them
LEAST = 1.5  # z at the rim


def plot_radar(regional: RegionalDeviations, subject: str, modality: str, *, by: str = "lobe",
               absolute: bool = False, ax: Axes | None = None) -> Axes:
    """Mean z of one person by lobe, tissue or hemisphere, beside healthy people's 5 to 95 %.

    **Read it along a spoke, and against the band.** A mean z is not standard normal (see
    :meth:`RegionalDeviations.summarise`), so that 1.96 means nothing here: the band does. The
    *area* misleads: it grows with the square of the deviation, and with the order of the spokes,
    which means nothing. A mean of z hides what is high here and low there (``absolute=True`` does
    not); one odd region vanishes in a large lobe. :func:`plot_subject` shows what was found.

    Parameters
    ----------
    regional : RegionalDeviations
        The held-out controls are taken from it.
    subject, modality : str
    by : {"lobe", "tissue", "hemisphere"}
    absolute : bool
        Mean of \\|z\\|, .8 in healthy people, in the place of the mean of z.
    ax : PolarAxes, optional
        Made with ``subplot_kw={"projection": "polar"}``.

    Raises
    ------
    CohortError
        An unknown person, or one without that modality.
    ComparisonError
        Fewer than 20 held-out controls with that modality, fewer than three parts, or an axis
        that is not polar.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> from normfuse.analyses import parcellate
    >>> from normfuse.simulate import simulate_cohort
    >>> from normfuse.testing import tiny_deviations
    >>> from dataclasses import replace
    >>> t1 = simulate_cohort(30, 0, seed=1).cohort.features["t1"]
    >>> z = pd.concat({"t1": (t1 - t1.mean()) / t1.std()}, axis=1)
    >>> empty = pd.DataFrame(index=z.index)
    >>> made = replace(tiny_deviations(), z=z, observed=z, expected=z, latent=empty,
    ...                distance=empty, attribution=None,
    ...                subjects=empty.assign(**{ROLE: "calibration"}))
    >>> ax = plot_radar(parcellate(made, load_atlas("dk")), z.index[0], "t1")
    >>> [label.get_text() for label in ax.get_xticklabels()][:3]
    ['cingulate', 'frontal', 'insula']
    """
    check_known(regional.with_controls().z.index, [subject])
    means = _means(regional.with_controls(), modality, by, absolute)
    if subject not in means.index:
        raise CohortError(f"{modality} was not measured of {subject}; there is nothing to draw")
    mine = means.T[subject].dropna()
    low, high, n = _band(regional, means, subject, mine.index)
    if len(mine) < 3:
        raise ComparisonError(f"a radar needs three spokes; {by} gives {len(mine)} of {modality}. "
                              "Take another unit, or plot_subject")
    if ax is None:
        ax = plt.subplots(figsize=(6.4, 4.6), subplot_kw={"projection": "polar"},
                          layout="constrained")[1]
    if not isinstance(ax, PolarAxes):
        raise ComparisonError("a radar is drawn on a polar axis; make one with "
                              "plt.subplots(subplot_kw={'projection': 'polar'})")
    _draw(ax, mine, low, high, absolute)
    handles = [Line2D([], [], color=PALETTE[1], marker="o", label=plain(subject, 30)),
               Patch(color=PALETTE[0], alpha=0.25, label=f"5 to 95 % of {n}\nhealthy people")]
    ax.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1.2, 1.12))
    ax.set_title(f"{plain(modality, 24)}: mean {'|z|' if absolute else 'z'} by {by}", loc="left",
                 pad=18)
    return ax


def _means(regional: RegionalDeviations, modality: str, by: str, absolute: bool) -> pd.DataFrame:
    """One row a person, one column a part of the brain."""
    if modality not in regional.modalities:
        raise CohortError(f"there is no modality {modality!r}; there are "
                          f"{', '.join(regional.modalities)}")
    one = regional.summarise(by) if not absolute else _of_absolute(regional, by)
    one = one[one["modality"] == modality]
    return one.pivot(index="subject", columns=by, values="mean_z").sort_index(axis=1)


def _of_absolute(regional: RegionalDeviations, by: str) -> pd.DataFrame:
    rows = regional.table.dropna(subset=["z", by])
    grouped = rows.assign(mean_z=rows["z"].abs()).groupby(["subject", "modality", by], sort=False)
    return grouped["mean_z"].mean().reset_index()


def _band(regional: RegionalDeviations, means: pd.DataFrame, subject: str, parts: pd.Index
          ) -> tuple[pd.Series, pd.Series, int]:
    """Of the held-out controls, the person left out."""
    subjects = regional.with_controls().subjects
    role = subjects[ROLE] if ROLE in subjects else pd.Series("", subjects.index)
    judges = means.loc[means.index.isin(subjects.index[role.isin(JUDGES)])
                       & (means.index != subject), parts].dropna(how="all")
    if len(judges) < FEWEST:
        raise ComparisonError(f"the band needs {FEWEST} held-out controls measured alike; there "
                              f"are {len(judges)}. Deviations read from a folder hold only those "
                              "who were scored with the others (normfuse score of everybody)")
    return judges.quantile(BAND[0]), judges.quantile(BAND[1]), len(judges)


def _draw(ax: PolarAxes, mine: pd.Series, low: pd.Series, high: pd.Series, absolute: bool) -> None:
    angles = np.linspace(0, 2 * np.pi, len(mine), endpoint=False)
    around = np.r_[angles, angles[:1]]

    def closed(values: pd.Series) -> np.ndarray:
        return np.r_[values.to_numpy(), values.to_numpy()[:1]]

    ax.fill_between(around, closed(low), closed(high), color=PALETTE[0], alpha=0.25, lw=0)
    ax.plot(around, closed(mine), color=PALETTE[1], marker="o", ms=5, lw=1.8)
    rim = 1.1 * max(LEAST, float(np.abs([mine, low, high]).max()))
    if not absolute:
        ax.plot(np.linspace(0, 2 * np.pi, 200), np.zeros(200), color=GREY, lw=1)
    ax.set_ylim(0 if absolute else -rim, rim)
    ax.set_theta_zero_location("N")
    ax.set_theta_direction(-1)
    ax.set_xticks(angles, [plain(part, 24) for part in mine.index])
    ax.tick_params(axis="x", pad=10)
    ax.set_rlabel_position(float(np.degrees(np.pi / len(mine))))
    cast(Axes, ax).yaxis.set_major_locator(plt.MaxNLocator(4))

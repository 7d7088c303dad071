"""How often healthy people exceed any threshold, beside how often they should."""
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from normfuse.calibration_check import share_row
from normfuse.deviations import JUDGES, ROLE, Deviations
from normfuse.errors import CalibrationError

from .drawing import GREY, axis_or_new, legend_beside, modality_styles, open_frame
from .wording import plain

LEVELS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
ENOUGH = 5  # values expected beyond a threshold, for a point of it


def plot_reliability(deviations: Deviations, *, ax: Axes | None = None) -> Axes:
    r"""Share of held-out controls' z beyond each threshold against the nominal share, by modality.

    .. math:: \hat s(a) = \frac{1}{n} \sum_i \frac{\#\{r : |z_{ir}| > \Phi^{-1}(1 - a/2)\}}{m_i}

    with its 95 % interval by Student's t over the n **people**, as the regions of one brain are
    correlated. Above the line, healthy people are called extreme too often; points of one modality
    rest on the same people and rise and fall together. :func:`plot_calibration` shows two of these
    levels, and needs no people.

    Parameters
    ----------
    deviations : Deviations
        Its held-out controls, or those among its people.

    Raises
    ------
    CalibrationError
        There are no held-out controls.

    Examples
    --------
    >>> import pandas as pd
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_deviations, tiny_voxel_deviations
    >>> ax = plot_reliability(tiny_voxel_deviations())
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_legend().get_texts()][0]
    ('nominal share beyond the threshold', 'as it should be')
    """
    people = deviations.with_controls()
    roles = people.subjects[ROLE] if ROLE in people.subjects else pd.Series("", people.z.index)
    judges = people.select(list(roles.index[roles.isin(JUDGES)]))
    if len(judges) < 2:
        raise CalibrationError(f"there are {len(judges)} held-out controls among these "
                               "deviations; score healthy people, too, or take "
                               "model.deviations(…) of a model that was fitted here, which brings "
                               "them along")
    ax = axis_or_new(ax, (6.4, 4.4))
    ax.plot([LEVELS[-1], LEVELS[0]], [LEVELS[-1], LEVELS[0]], color=GREY, lw=1,
            label="as it should be")
    for i, (name, (colour, marker)) in enumerate(modality_styles(judges.modalities).items()):
        table = _shares(judges.blocks()[name])
        if table.empty:
            continue
        aside = 1 + 0.05 * (i - (len(judges.modalities) - 1) / 2)
        wings = [table["share"] - table["low"], table["high"] - table["share"]]
        ax.errorbar(table["nominal"] * aside, table["share"], yerr=wings, color=colour,
                    marker=marker, ms=5, lw=1.2, capsize=2,
                    label=f"{plain(name, 24)} (n = {table['n_subjects'].iloc[0]})")
    ax.set(xscale="log", yscale="log", xlabel="nominal share beyond the threshold",
           ylabel="share of held-out controls' z")
    ax.set_ylim(bottom=LEVELS[-1] / 5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    above = ax.secondary_xaxis("top")
    above.set_xticks([0.32, 0.05, 0.01, 0.001], [f"{stats.norm.isf(a / 2):.2g}" for a in
                                                 (0.32, 0.05, 0.01, 0.001)], minor=False)
    above.tick_params(which="minor", length=0)
    above.set_xlabel("threshold of |z|")
    return open_frame(legend_beside(ax))


def _shares(z: pd.DataFrame) -> pd.DataFrame:
    """One row a level of which enough values are expected beyond."""
    values = z.to_numpy(dtype=float)
    n = int(np.isfinite(values).sum())
    rows = [share_row("z", level, np.where(np.isnan(values), np.nan,
                                           np.abs(values) > stats.norm.isf(level / 2)), n)
            for level in LEVELS if n * level >= ENOUGH]
    return pd.DataFrame(rows)

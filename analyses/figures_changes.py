"""Change between two visits, of people beside controls seen twice."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normfuse.errors import ComparisonError

from .drawing import (GREY, PALETTE, SIGNIFICANT, axis_or_new, legend_beside, name_rows,
                      open_frame, person_strip, row_offset)
from .wording import plain, region_label

if TYPE_CHECKING:
    from .longitudinal import VisitChanges


def plot_changes(found: VisitChanges, n: int = 12, *, ax: Axes | None = None) -> Axes:
    """Change of z in the n features where the others change most unlike the controls.

    A point a person and a box of their quartiles. The controls' own box shows how much z changes
    between visits with nothing wrong: it is what a change is judged by, not 1 sd. Filled where q
    of Mann and Whitney's test is below .05.

    Parameters
    ----------
    found : VisitChanges
    n : int
        By p, over all modalities: **chosen to differ**.

    Raises
    ------
    ComparisonError
        Nobody but controls was seen twice.

    Examples
    --------
    >>> import pandas as pd
    >>> from normfuse.analyses import VisitChanges
    >>> change = pd.DataFrame({("t1", "insula"): [0.1, -0.2, -1.5], ("t1", "cuneus"): [0.0] * 3})
    >>> made = VisitChanges(change, change, pd.DataFrame(),
    ...                     pd.DataFrame({"control": [True, True, False]}), ("1", "2"))
    >>> ax = plot_changes(made, 1)
    >>> [label.get_text() for label in ax.get_yticklabels()], len(ax.collections[0].get_offsets())
    (['insula'], 2)
    """
    table = found.group_table().dropna(subset=["p"]).sort_values("p", kind="stable").head(n)
    if table.empty:
        raise ComparisonError("a change is drawn of people beside controls; "
                              f"{int((~found.subjects['control']).sum())} people who are no "
                              f"controls and {int(found.subjects['control'].sum())} controls were "
                              "seen twice in the same feature")
    table = table.sort_values("shift")
    ax = axis_or_new(ax, (7.5, 1.2 + 0.5 * len(table)))
    ax.axvline(0, color=GREY, lw=1)
    healthy = found.subjects["control"].to_numpy(dtype=bool)
    groups = (("controls", healthy), ("others", ~healthy))
    for i, (feature, row) in enumerate(table.iterrows()):
        change = found.change[feature]
        for j, (_, who) in enumerate(groups):
            values = change[who].dropna()
            person_strip(ax, values, i + row_offset(j, 2), PALETTE[j], 0.35, filled=np.full(
                len(values), bool(row["q"] < SIGNIFICANT)))
    several = len({modality for modality, _ in table.index}) > 1
    name_rows(ax, [plain(region_label(feature)) + (f" ({plain(modality, 12)})" * several)
                   for modality, feature in table.index])
    first, second = (plain(visit, 20) for visit in found.visits)
    ax.set_xlabel(f"change of z, visit {first} to {second} (filled: q < {SIGNIFICANT:g})")
    handles = [Line2D([], [], ls="", marker="o", color=PALETTE[j],
                      label=f"{name} (n = {int(who.sum())})")
               for j, (name, who) in enumerate(groups)]
    return open_frame(legend_beside(ax, handles))

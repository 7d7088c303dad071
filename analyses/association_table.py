"""What went with which score: a table, what it rests on, and ways to keep and show it."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from normfuse.errors import ModelFileError
from normfuse.inputs import read_object

from .group_comparison import ALPHA, read_table
from .results import Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INDEX = ["score", "modality", "feature"]


@dataclass(frozen=True, eq=False, repr=False)
class Associations(Found):
    """Which deviations go with which score; made by :func:`~normfuse.analyses.associations`.

    Attributes
    ----------
    table : DataFrame, index (score, modality, feature)
        What could not be tested is NaN, with a ``reason``.
    scores : tuple of str
    method : str
        ``spearman`` or ``pearson``.
    adjust : tuple of str
        Covariates that were taken out of both.
    family : str
        What q was corrected over, and how.
    n : dict of int
        People with each score. A feature's own n can be smaller.
    notes : tuple of str
        What a reader should know first.
    kind : str
        Of deviations (:mod:`normfuse.kinds`).
    alternative : str

    Examples
    --------
    >>> table = pd.DataFrame({"r": [-0.4, 0.1], "r_low": [-0.6, -0.2], "r_high": [-0.1, 0.4],
    ...                       "p": [0.004, 0.7], "q": [0.008, 0.7], "n": 50, "reason": ""},
    ...                      index=pd.MultiIndex.from_product([["mmse"], ["t1"], ["a", "b"]],
    ...                                                       names=INDEX))
    >>> found = Associations(table, ("mmse",), "spearman", ("age",), "Holm over 2 tests",
    ...                      {"mmse": 50}, kind="focal")
    >>> print(found.summary())
    partial Spearman correlations given age with mmse (n = 50); deviations of kind focal
    mmse, t1: 1 of 2 at q < 0.05; strongest a (r = -0.40 [-0.60, -0.10], p = 0.004, ...
    q: Holm over 2 tests, two-sided
    """

    table: pd.DataFrame
    scores: tuple[str, ...]
    method: str
    adjust: tuple[str, ...]
    family: str
    n: Mapping[str, int]
    notes: tuple[str, ...] = ()
    kind: str = ""
    alternative: str = "two-sided"

    @classmethod
    def read(cls, folder: str | Path) -> Associations:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ModelFileError
            If it is no such folder.

        Examples
        --------
        >>> Associations.read("somewhere/else")
        Traceback (most recent call last):
        ...
        normfuse.errors.ModelFileError: somewhere/else is not a folder that Associations.save ...
        """
        folder = Path(folder)
        try:
            facts = read_object(folder / "facts.json")
            told = {f.name: facts[f.name] for f in fields(cls) if f.name != "table"}
            lists = {name: tuple(told[name]) for name in ("scores", "adjust", "notes")}
            found = cls(read_table(folder / "table.csv", INDEX), **{**told, **lists})
            found.summary(), found.significant()  # which cannot be told of what is damaged
            return found
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError
                ) as problem:
            raise ModelFileError(f"{folder} is not a folder that Associations.save wrote: "
                                 f"{problem}") from problem

    def significant(self, alpha: float = ALPHA) -> pd.DataFrame:
        """The rows with q < alpha, smallest p first."""
        return self.table[self.table["q"] < alpha].sort_values("p")

    def summary(self) -> str:
        """The associations in a few lines of text."""
        who = ", ".join(f"{score} (n = {n})" for score, n in self.n.items())
        given = f"partial {self.method.title()} correlations given {', '.join(self.adjust)}" \
            if self.adjust else f"{self.method.title()} correlations"
        kind = f"; deviations of kind {self.kind}" if self.kind else ""
        lines = [f"{given} with {who}{kind}"]
        for (score, modality), part in self.table.groupby(level=[0, 1], sort=False):
            tested = part[part["p"].notna()]
            lines.append(f"{score}, {modality}: {int((part['q'] < ALPHA).sum())} of "
                         f"{len(tested)} at q < {ALPHA}{_strongest(tested)}")
        return "\n".join([*lines, f"q: {self.family}, {self.alternative}",
                          *(f"note: {note}" for note in self.notes)])

    def plot(self, n: int = 20, *, score: str | None = None, ax: Axes | None = None) -> Axes:
        """The n strongest regions: :func:`~normfuse.analyses.figures.plot_associations`."""
        from .figures_forest import plot_associations

        return plot_associations(self, n, score=score, ax=ax)


def _strongest(tested: pd.DataFrame) -> str:
    if tested.empty:
        return ""
    place = int(tested["p"].to_numpy().argmin())
    best = tested.iloc[place]
    return ("; strongest {} (r = {:.2f} [{:.2f}, {:.2f}], p = {:.2g}, q = {:.2g}, n = {})".format(
        tested.index[place][-1], *best[["r", "r_low", "r_high", "p", "q", "n"]]))

"""What a comparison of groups found: a table, what it rests on, and ways to keep and show it."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from normfuse.cards import Card, short
from normfuse.errors import ModelFileError
from normfuse.inputs import read_csv, read_object
from normfuse.outputs import new_file, new_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INDEX = ["contrast", "modality", "feature"]
ALPHA = 0.05
_TEXTS = (*INDEX, "score", "reason", "raw_reason")
_CARD = ("g", "g_low", "g_high", "auc", "auc_low", "auc_high", "t", "p", "q", "n_case",
         "n_baseline", "raw_g", "raw_q")


@dataclass(frozen=True, eq=False)
class GroupComparison:
    """What a comparison of groups found, and what it rests on.

    Attributes
    ----------
    table : DataFrame, index (contrast, modality, feature)
        A contrast reads ``case - baseline``; the function that made it tells the columns. What
        could not be tested is NaN, with a ``reason``.
    group, baseline : str
        The compared column of ``subjects``, and the level the others are held against.
    adjust : tuple of str
        Covariates in the linear model.
    family : str
        What q was corrected over, and how.
    n : dict of int
        People per group, baseline first. A feature's own n can be smaller.
    notes : tuple of str
        What a reader should know first.
    kind : str
        Of the deviations that were compared (:mod:`normfuse.kinds`); empty if the numbers do not
        depend on it, as latent distances, or if an older file did not say.
    omnibus : DataFrame or None, index (modality, feature)
        Of more than two groups: whether any of them differ.
    test : str
        Which test p belongs to, and of how many sides.

    Examples
    --------
    >>> import tempfile
    >>> table = pd.DataFrame({"g": [0.1, -0.9], "g_low": [-0.4, -1.5], "g_high": [0.6, -0.3],
    ...                       "p": [0.7, 0.004], "q": [0.7, 0.008], "n_case": 20, "n_baseline": 31,
    ...                       "reason": ""},
    ...                      index=pd.MultiIndex.from_product([["AD - CN"], ["t1"], ["a", "b"]],
    ...                                                       names=INDEX))
    >>> found = GroupComparison(table, "diagnosis", "CN", (), "Holm over 2 tests",
    ...                         {"CN": 31, "AD": 20}, kind="focal")
    >>> found.significant()["g"].to_dict()
    {('AD - CN', 't1', 'b'): -0.9}
    >>> print(found.summary())
    diagnosis: 31 CN, 20 AD (baseline CN); deviations of kind focal
    AD - CN, t1: 1 of 2 at q < 0.05; strongest b (g = -0.90 [-1.50, -0.30], p = 0.004, ...
    q: Holm over 2 tests
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     GroupComparison.read(found.save(Path(folder, "groups"))).table.equals(found.table)
    True
    """

    table: pd.DataFrame
    group: str
    baseline: str
    adjust: tuple[str, ...]
    family: str
    n: Mapping[str, int]
    notes: tuple[str, ...] = ()
    kind: str = ""
    omnibus: pd.DataFrame | None = None
    test: str = ""

    def significant(self, alpha: float = ALPHA) -> pd.DataFrame:
        """The rows with q < alpha, smallest p first."""
        return self.table[self.table["q"] < alpha].sort_values("p")

    def summary(self) -> str:
        """The comparison in a few lines of text."""
        who = ", ".join(f"{n} {level}" for level, n in self.n.items())
        adjusted = f", adjusted for {', '.join(self.adjust)}" if self.adjust else ""
        kind = f"; deviations of kind {self.kind}" if self.kind else ""
        lines = [f"{self.group}: {who} (baseline {self.baseline}){adjusted}{kind}"]
        for (contrast, modality), part in self.table.groupby(level=[0, 1], sort=False):
            tested = part[part["p"].notna()]
            lines.append(f"{contrast}, {modality}: {int((part['q'] < ALPHA).sum())} of "
                         f"{len(tested)} at q < {ALPHA}{_strongest(tested)}")
        if self.omnibus is not None:
            for modality, part in self.omnibus.groupby(level=0, sort=False):
                lines.append(f"any group, {modality}: {int((part['q'] < ALPHA).sum())} of "
                             f"{int(part['p'].notna().sum())} at q < {ALPHA} (omnibus F)")
        tests = [f"test: {self.test}"] if self.test else []
        return "\n".join([*lines, *tests, f"q: {self.family}",
                          *(f"note: {note}" for note in self.notes)])

    def plot(self, n: int = 20, *, contrast: str | None = None, ax: Axes | None = None) -> Axes:
        """The n strongest regions: :func:`~normfuse.analyses.figures.plot_group_effects`."""
        from .figures_forest import plot_group_effects

        return plot_group_effects(self, n, contrast=contrast, ax=ax)

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the table to a new file.

        Examples
        --------
        >>> import tempfile
        >>> index = pd.MultiIndex.from_tuples([("AD - CN", "t1", "insula")], names=INDEX)
        >>> table = pd.DataFrame({"p": [0.004], "q": [0.008]}, index)
        >>> found = GroupComparison(table, "diagnosis", "CN", (), "Holm over 2 tests", {"CN": 31})
        >>> with tempfile.TemporaryDirectory() as place:
        ...     print(found.to_csv(Path(place, "groups.csv")).read_text().strip())
        contrast,modality,feature,p,q
        AD - CN,t1,insula,0.004,0.008
        """
        with new_file(Path(path), overwrite=overwrite) as work:
            self.table.to_csv(work)
        return Path(path)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``table.csv``, ``comparison.json`` and perhaps ``omnibus.csv`` to a new folder.

        Raises
        ------
        OutputExistsError
            If the folder is there and ``overwrite`` is not asked for.
        """
        facts = {f.name: getattr(self, f.name) for f in fields(self)
                 if f.name not in ("table", "omnibus")}
        with new_folder(Path(folder), overwrite=overwrite) as work:
            self.table.to_csv(work / "table.csv")
            if self.omnibus is not None:
                self.omnibus.to_csv(work / "omnibus.csv")
            (work / "comparison.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return Path(folder)

    @classmethod
    def read(cls, folder: str | Path) -> GroupComparison:
        """Read what :meth:`save` wrote."""
        folder = Path(folder)
        try:
            table = read_table(folder / "table.csv", INDEX)
            omnibus = folder / "omnibus.csv"
            facts = read_object(folder / "comparison.json")
            found = cls(table, **{**facts, "adjust": tuple(facts["adjust"]),
                                  "notes": tuple(facts["notes"]), "omnibus":
                                  read_table(omnibus, INDEX[1:]) if omnibus.exists() else None})
            found.summary(), found.significant()  # which cannot be told of what is damaged
            return found
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError
                ) as problem:
            raise ModelFileError(f"{folder} is not a folder that GroupComparison.save wrote: "
                                 f"{problem}") from problem

    def __repr__(self) -> str:
        return (f"<GroupComparison of {short(self.group)}: {len(self.table)} rows; "
                f"{short(self.family, 200)}>")

    def _repr_html_(self) -> str:
        first, *more = self.summary().splitlines()
        columns = [name for name in _CARD if name in self.table]
        return Card("GroupComparison", first, {}, {"": self.table.sort_values("p")[columns]},
                    more).html()


def read_table(file: Path, index: list[str]) -> pd.DataFrame:
    """A saved table of features."""
    # Only an empty cell is missing: a group or a region may well be called NA.
    table = read_csv(file, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False,
                     na_values=[""]).set_index(index)
    return table.fillna({name: "" for name in _TEXTS if name in table})


def _strongest(tested: pd.DataFrame) -> str:
    if tested.empty:
        return ""
    place = int(tested["p"].to_numpy().argmin())
    best = tested.iloc[place]
    effect = "g" if "g" in best else "auc"
    return ("; strongest {} ({} = {:.2f} [{:.2f}, {:.2f}], p = {:.2g}, q = {:.2g}, n = {} + {})"
            .format(tested.index[place][-1], effect, *best[[effect, f"{effect}_low",
                    f"{effect}_high", "p", "q", "n_case", "n_baseline"]]))

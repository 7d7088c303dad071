"""Which cells of a cohort are expectations and not measurements, and how far off they may be."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .blocks import Blocks
from .cards import Card
from .cohort_checks import refuse_others
from .errors import CohortError, listed

if TYPE_CHECKING:
    from .cohort import Cohort


@dataclass(frozen=True, eq=False)
class Imputed:
    """The imputed modalities of some people: a mark for each, and the sd of every cell.

    Attributes
    ----------
    sd : Blocks
        Modality -> table, shape (n_imputed, n_features), in the modality's unit: how far the
        person's own value would be from the imputed one, one standard deviation. A person is in
        the table of a modality if that modality of theirs was imputed; all others were measured
        or are missing.
    by : str
        What imputed them.
    learned_from : frozenset of str
        Hashes of the people whom it learned from (:mod:`normfuse.fingerprints`).

    Examples
    --------
    >>> sd = pd.DataFrame({"insula": [0.2, 0.3]}, index=["s2", "s3"])
    >>> imputed = Imputed(Blocks({"pet": sd}), "a regression")
    >>> imputed.select(["s1", "s3"]).flags(pd.Index(["s1", "s3"]), ["t1", "pet"]).to_numpy()
    array([[False, False],
           [False,  True]])
    """

    sd: Blocks
    by: str = ""
    learned_from: frozenset[str] = frozenset()

    def flags(self, ids: pd.Index, modalities: Iterable[str]) -> pd.DataFrame:
        """Which modality of whom, bool, shape (n_subjects, n_modalities)."""
        return pd.DataFrame({m: ids.isin(self.sd[m].index) if m in self.sd
                             else np.zeros(len(ids), bool) for m in modalities}, index=ids)

    def select(self, ids: Iterable[str]) -> Imputed | None:
        """Of these people; None if none of them has anything imputed."""
        wanted = pd.Index(list(ids))
        return self._with({m: table.loc[wanted[wanted.isin(table.index)]]
                           for m, table in self.sd.items()})

    def without(self, names: Iterable[str]) -> Imputed | None:
        """As if these modalities had not been imputed."""
        dropped = set(names)
        return self._with({m: table for m, table in self.sd.items() if m not in dropped})

    def of_features(self, name: str, features: Iterable[str]) -> Imputed | None:
        """With these features of one modality only, in this order."""
        chosen = list(features)
        return self._with({m: table[chosen] if m == name else table
                           for m, table in self.sd.items()})

    def joined(self, other: Imputed | None) -> Imputed:
        """And those of other people, whatever imputed them."""
        if other is None:
            return self
        tables = dict(self.sd)
        for m, table in other.sd.items():
            tables[m] = pd.concat([tables[m], table[list(tables[m].columns)]]) \
                if m in tables else table
        by = " and ".join(dict.fromkeys(filter(None, (self.by, other.by))))
        return Imputed(Blocks(tables), by, self.learned_from | other.learned_from)

    def _with(self, tables: Mapping[str, pd.DataFrame]) -> Imputed | None:
        kept = {m: table for m, table in tables.items() if len(table)}
        return Imputed(Blocks(kept), self.by, self.learned_from) if kept else None

    @property
    def counts(self) -> dict[str, int]:
        """Modality -> people."""
        return {m: len(table) for m, table in self.sd.items()}

    def __repr__(self) -> str:
        return f"<Imputed: {counted(self.counts)}>"

    def _repr_html_(self) -> str:
        return Card("Imputed", counted(self.counts), {"by": self.by}).html()


NOTE = "imputed, not measured"


def counted(counts: Mapping[str, int]) -> str:
    """As in ``pet of 12 people``."""
    return ", ".join(f"{name} of {n} people" for name, n in counts.items())


def checked_sd(name: str, mean: pd.DataFrame, sd: pd.DataFrame | None, features: tuple[str, ...],
               measured: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Imputed values and their sd, columns in the modality's order.

    Raises
    ------
    CohortError
        For people who were measured, unknown people or features, or cells without a value or a
        positive sd.
    """
    if sd is None or not mean.index.equals(sd.index) or set(mean.columns) != set(sd.columns):
        raise CohortError(f"imputed {name} needs an sd for every cell: a table of the same people "
                          "and features as the values")
    strangers = mean.index.difference(measured.index)
    if len(strangers) or mean.index.has_duplicates:
        raise CohortError(f"imputed {name} is of people who are not in this cohort, or of "
                          f"somebody twice: {listed(strangers)}")
    if set(mean.columns) != set(features):
        raise CohortError(f"imputed {name} must have the cohort's {len(features)} features of "
                          f"{name}; it has {mean.shape[1]}")
    there = mean.index[measured.loc[mean.index].to_numpy()]
    if len(there):
        raise CohortError(f"{name} of {listed(there)} was measured; only a modality that is "
                          f"missing can be imputed. Hide it first: cohort.without({name!r})")
    mean, sd = mean[list(features)], sd[list(features)]
    values, widths = mean.to_numpy(float), sd.to_numpy(float)
    bad = mean.index[~(np.isfinite(values) & np.isfinite(widths) & (widths > 0)).all(axis=1)]
    if len(bad):
        raise CohortError(f"imputed {name} of {listed(bad)} has cells without a finite value or "
                          "a positive sd; an imputed modality is imputed whole")
    return mean, sd


def refuse_imputed(cohort: Cohort) -> None:
    """Nothing is learned from imputed cells, nor from what is no cohort.

    Raises
    ------
    CohortError
        If there are any.
    TypeError
        If it is none.
    """
    refuse_others(cohort)
    if cohort.imputation is not None:
        raise CohortError(f"{counted(cohort.imputation.counts)} were imputed, not measured; "
                          "imputed values vary less than people do, and who learned from them "
                          "would find people too unusual. A missing modality is no obstacle: give "
                          "cohort.observed()")


def note_of_imputed(counts: Mapping[str, int]) -> str:
    """What a reader of z must know when imputed ones are among them."""
    return (f"{NOTE}: {counted(counts)}; their z are of kind covariates and nearer "
            "0 than the persons' own would be, the less the other scans tell")

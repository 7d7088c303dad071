"""Which subtypes were found, if any: members, profiles, stability, and how to show them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from normfuse.errors import ComparisonError

from .results import Found

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Subtypes(Found):
    """Clusters of people; made by :func:`~normfuse.analyses.subtypes`.

    Attributes
    ----------
    table : DataFrame, index subject
        ``subtype`` (1 for everybody if none was found); ``candidate``, of the number of clusters
        that was stablest; ``consensus``, how often the person fell together with the others of
        that candidate (0 to 1); ``silhouette`` (-1 to 1).
    stability : DataFrame, index n_clusters
        ``silhouette`` and ``stability`` (mean adjusted Rand index), each with ``…_null``,
        ``…_low`` and ``…_high`` (mean and 95 % of one cloud's); of the silhouette ``excess`` in sd
        of one cloud's, and ``p`` of this number alone.
    profiles : DataFrame, index (modality, feature), columns (mean, sd or n; subtype)
        z of each subtype. No p-values: the clusters were chosen to differ, so any test would be
        passed.
    dissimilarity, consensus : DataFrame, shape (n_people, n_people)
        The latter for the candidate.
    candidates : DataFrame, index subject, columns n_clusters
        Members for every number of clusters that was looked at.
    n_clusters : int
        1: no subtypes beyond chance.
    n_candidate : int
    p, level : float
        Of one cloud standing out as much at any number of clusters; below what it is a finding.
    how, plan : str
    notes : tuple of str
    kind : str
        Of deviations (:mod:`normfuse.kinds`).

    Examples
    --------
    >>> from normfuse.analyses import StabilityPlan, subtypes
    >>> from normfuse.testing import tiny_scored
    >>> deviations = tiny_scored(60)
    >>> found = subtypes(deviations, metric="euclidean", most=3,
    ...                  plan=StabilityPlan(n_subsamples=20, n_null=19))
    >>> print(found.summary().split(":")[0])
    no subtypes beyond chance among 60 people
    >>> found.table["subtype"].unique().tolist()
    [1]
    >>> found.plot("consensus").get_xlabel()
    'people, in the same order'
    """

    table: pd.DataFrame
    stability: pd.DataFrame
    profiles: pd.DataFrame
    dissimilarity: pd.DataFrame
    consensus: pd.DataFrame
    candidates: pd.DataFrame
    n_clusters: int
    n_candidate: int
    p: float
    level: float
    how: str
    plan: str
    notes: tuple[str, ...] = ()
    kind: str = ""

    def summary(self) -> str:
        """The answer in a few lines of text."""
        best = self.stability.loc[self.n_candidate]
        said = ", ".join(f"{name} {best[name]:.2f} (one cloud {best[f'{name}_null']:.2f} "
                         f"[{best[f'{name}_low']:.2f}, {best[f'{name}_high']:.2f}])"
                         for name in ("silhouette", "stability"))
        beside = f"with {self.n_candidate} clusters {said}; p = {self.p:.2g} over all numbers"
        lines = [f"no subtypes beyond chance among {len(self.table)} people: {beside}"]
        if self.n_clusters > 1:
            sizes = self.table["subtype"].value_counts().sort_index()
            sure = self.table.groupby("subtype")["consensus"].mean().to_dict()
            lines = [f"{self.n_clusters} subtypes among {len(self.table)} people: {beside}"]
            lines += [f"subtype {k}: {n} people, together in {sure[k]:.0%} of the subsamples"
                      for k, n in sizes.to_dict().items()]
        return "\n".join([*lines, f"{self.how}, deviations of kind {self.kind}; {self.plan}",
                          *(f"note: {note}" for note in self.notes)])

    def _shown(self) -> pd.DataFrame:
        return self.stability  # the table names people

    def plot(self, what: str = "stability", *, ax: Axes | None = None) -> Axes:
        """``stability``, ``consensus`` or ``profiles``."""
        from . import figures_subtypes as figures

        draw = {"stability": figures.plot_stability, "consensus": figures.plot_consensus,
                "profiles": figures.plot_profiles}
        if what not in draw:
            raise ComparisonError(f"what is one of {', '.join(draw)}; got {what!r}")
        return draw[what](self, ax=ax)

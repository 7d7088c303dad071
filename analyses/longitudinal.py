"""Change between two visits: how unusual it is, not how unusual each visit is."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from normfuse.cards import Card
from normfuse.deviations import Deviations
from normfuse.errors import ComparisonError, listed
from normfuse.subject_query import matching

from .comparable import trained_on
from .effects import corrected
from .judging import MIN_JUDGES, judged

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class VisitChanges:
    """How unusual each person's change is; made by :func:`compare_visits`.

    Attributes
    ----------
    z : DataFrame, shape (n_people, n_features)
        z of the change: standard normal in healthy people seen twice.
    change : DataFrame, same shape
        Second minus first visit's z, in sd of the reference.
    controls : DataFrame, one row a feature
        ``n``, ``mean`` and ``sd`` of the controls' own changes.
    subjects : DataFrame
        Of the second visit, one row a person, with ``control``.
    visits : tuple of str
        Which visits were compared.

    Examples
    --------
    >>> index = pd.Index(["s1", "s2"], name="person")
    >>> change = pd.DataFrame({("t1", "insula"): [-2.0, 0.1]}, index)
    >>> normal = pd.DataFrame({"n": 30, "mean": 0.0, "sd": 0.8}, change.columns)
    >>> who = pd.DataFrame({"control": [False, True]}, index)
    >>> found = VisitChanges(change / 0.8, change, normal, who, ("ses-1", "ses-2"))
    >>> found.table["p"].round(3).tolist()
    [0.012, 0.901]
    """

    z: pd.DataFrame
    change: pd.DataFrame
    controls: pd.DataFrame
    subjects: pd.DataFrame
    visits: tuple[str, str]

    @property
    def table(self) -> pd.DataFrame:
        """One row a person and feature: ``change``, ``z``, two-sided ``p``."""
        long = pd.DataFrame({"change": self.change.stack(list(range(self.change.columns.nlevels)),
                                                         future_stack=True),
                             "z": self.z.stack(list(range(self.z.columns.nlevels)),
                                               future_stack=True)})
        return long.assign(p=2 * stats.norm.sf(long["z"].abs()))

    def group_table(self, correction: str = "fdr_bh") -> pd.DataFrame:
        """Do people who are no controls change otherwise than controls? One row a feature.

        Mann and Whitney's test of the changes, ``auc`` = P(a case's change exceeds a control's),
        the ``shift`` of the medians, n of both, and q over features. A signed-rank test of the
        cases' z alone, as published, would take the controls' mean change as known: its error is
        shared by all cases, and looks like an effect.
        """
        healthy, rows = self.subjects["control"], []
        for _, change in self.change.items():
            cases, controls = change[~healthy].dropna(), change[healthy].dropna()
            row = {"n_case": len(cases), "n_control": len(controls),
                   "shift": cases.median() - controls.median(), "auc": np.nan, "p": np.nan}
            if len(cases) and len(controls):
                u, row["p"] = stats.mannwhitneyu(cases, controls)
                row["auc"] = u / (len(cases) * len(controls))
            rows.append(row)
        table = pd.DataFrame(rows, index=self.change.columns)
        return table.assign(q=corrected(table["p"], correction))

    def summary(self) -> str:
        """One paragraph, with what the naive difference would have said."""
        healthy = self.z.loc[self.subjects["control"]].to_numpy()
        naive = self.change.loc[self.subjects["control"]].to_numpy()
        healthy, naive = healthy[~np.isnan(healthy)], naive[~np.isnan(naive)]
        others = int((~self.subjects["control"]).sum())
        return (f"Change from visit {self.visits[0]} to {self.visits[1]} of {others} people, "
                f"judged by {int(self.subjects['control'].sum())} controls seen twice. Among "
                f"controls, each judged by the others, {(np.abs(healthy) > 1.96).mean():.3f} of "
                f"the changes lie beyond 1.96 (nominal .05); z2 - z1 against N(0, 1) would say "
                f"{(np.abs(naive) > 1.96).mean():.3f}. The controls' own mean change is "
                f"{self.controls['mean'].mean():+.3f} reference sd, and is taken as normal.")

    def plot(self, n: int = 12, *, ax: Axes | None = None) -> Axes:
        """The n strongest features: :func:`~normfuse.analyses.figures.plot_changes`."""
        from .figures_changes import plot_changes

        return plot_changes(self, n, ax=ax)

    def __repr__(self) -> str:
        return f"<VisitChanges of {len(self.z)} people, {self.z.shape[1]} features>"

    def _repr_html_(self) -> str:
        return Card("VisitChanges", self.summary(), {}, {
            "features in which the others change otherwise than controls do":
                self.group_table().sort_values("p")}).html()


def compare_visits(deviations: Deviations, visits: tuple[str, str], *, controls: str,
                   visit: str = "session", person: str | None = None) -> VisitChanges:
    r"""How unusual each person's change between two visits is.

    .. math:: d = z_2 - z_1, \qquad
              z_\text{change} = \Phi^{-1}\!\left(T_{n-1}\!\left(
              \frac{d - \bar d}{s_d \sqrt{1 + 1/n}}\right)\right)

    with mean and sd of :math:`d` over n healthy people seen at both visits, feature by feature.
    Two visits of one person are correlated, :math:`\operatorname{Var}(d) = 2 \sigma^2 (1 - \rho)`,
    so that :math:`z_2 - z_1` is not standard normal, nor does it have variance 2. What the model
    got wrong about a site or an age cancels. A control is judged by the other controls.

    Visits of people the model was trained on are left out with a warning: their z is too small.
    The controls' visits should lie as far apart as the patients'.

    Parameters
    ----------
    deviations : Deviations
        Of both visits, one row each; best of kind ``covariates``, in which nothing of a person's
        own brain is regressed out of the change.
    visits : tuple of str
        The first and the second, as in column ``visit``.
    controls : str
        Query of ``subjects``, as in ``"diagnosis == 'CN'"``.
    visit, person : str
        Columns of ``subjects``. Without ``person`` the part of the subject id before ``_ses-``.

    Raises
    ------
    ComparisonError
        A column, visit or person's name that is not there, two rows for one visit, or fewer than
        5 controls measured twice.

    References
    ----------
    Rehak Buckova et al. (2025), eLife 14:RP95823. The variance is that of the controls' changes
    around their own mean, and the law Student's, as everywhere here.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from normfuse.testing import tiny_deviations
    >>> ids = [f"s{i:02d}_ses-{visit}" for visit in (1, 2) for i in range(12)]
    >>> z = pd.DataFrame(np.random.default_rng(0).normal(size=(24, 3)), ids,
    ...                  tiny_deviations().z.columns)
    >>> people = pd.DataFrame({"visit": ["1"] * 12 + ["2"] * 12,
    ...                        "diagnosis": (["AD"] * 4 + ["CN"] * 8) * 2}, index=ids)
    >>> both = replace(tiny_deviations(), z=z, observed=z, expected=z, latent=z[[]],
    ...                distance=z[[]], subjects=people, attribution=None)
    >>> found = compare_visits(both, ("1", "2"), controls="diagnosis == 'CN'", visit="visit")
    >>> found.z.shape, int(found.subjects["control"].sum())
    ((12, 3), 8)
    >>> found.group_table()["n_case"].tolist(), found.table.columns.tolist()
    ([4, 4, 4], ['change', 'z', 'p'])
    >>> print(found.summary().split(";")[0][:60])
    Change from visit 1 to 2 of 4 people, judged by 8 controls s
    """
    seen, _ = trained_on(deviations.subjects, stacklevel=3)
    if seen.any():
        deviations = deviations.select(deviations.subjects.index[~seen])
    first, second = _paired(deviations, visits, visit, person)
    change = (second.z - first.z).dropna(how="all")
    subjects = second.subjects.loc[change.index]
    healthy = matching(subjects, controls).to_numpy()
    if healthy.sum() < MIN_JUDGES:
        raise ComparisonError(f"{int(healthy.sum())} people answer {controls!r} and were measured "
                              f"at both visits; the spread of normal change needs {MIN_JUDGES} "
                              "at least, and 30 for a figure worth printing")
    normal = change[healthy]
    return VisitChanges(
        judged(change, normal), change,
        pd.DataFrame({"n": normal.count(), "mean": normal.mean(), "sd": normal.std()}),
        subjects.assign(control=healthy), (str(visits[0]), str(visits[1])))


def _paired(deviations: Deviations, visits: tuple[str, str], visit: str, person: str | None
            ) -> tuple[Deviations, Deviations]:
    """Both visits, indexed by person."""
    subjects = deviations.subjects
    if str(visits[0]) == str(visits[1]):
        raise ComparisonError(f"change is between two different visits; got {visits[0]!r} twice")
    for column in (visit, *([] if person is None else [person])):
        if column not in subjects:
            raise ComparisonError(f"{column!r} is not a column of the subjects table; it has "
                                  f"{listed(subjects.columns, 12)}")
    if person is not None and subjects[person].isna().any():
        lacking = subjects.index[subjects[person].isna()]
        raise ComparisonError(f"{person} is missing for {len(lacking)} rows ({listed(lacking)}), "
                              "so that nothing says whose visits they are; fill it in, or leave "
                              "them out with deviations.select()")
    who = pd.Series([str(i).partition("_ses-")[0] for i in subjects.index], subjects.index) \
        if person is None else subjects[person].astype(str)
    found = []
    for name in visits:
        rows = subjects.index[subjects[visit].astype(str) == str(name)]
        if not len(rows):
            raise ComparisonError(f"nobody has {visit} {name!r}; there are "
                                  f"{listed(sorted(subjects[visit].astype(str).unique()), 12)}")
        again = who[rows][who[rows].duplicated()]
        if len(again):
            raise ComparisonError(f"{listed(again.unique())} have more than one row with {visit} "
                                  f"{name!r}; keep one")
        found.append(deviations.select(rows))
    both = pd.Index(who[found[0].z.index]).intersection(pd.Index(who[found[1].z.index]))
    if both.empty:
        raise ComparisonError(f"nobody was measured at both {visit} {visits[0]!r} and "
                              f"{visits[1]!r}; are people named alike? (person=…)")
    return tuple(_by_person(part, who, both) for part in found)  # type: ignore[return-value]


def _by_person(part: Deviations, who: pd.Series, both: pd.Index) -> Deviations:
    named: dict[str, Any] = {
        name: table.set_axis(pd.Index(who[table.index], name=table.index.name), axis=0).loc[both]
        for name, table in part.tables().items()}
    return part.changed(**named, controls=None)

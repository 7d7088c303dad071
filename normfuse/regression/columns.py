"""Covariates as the columns of a regression, each in the group that it is shrunk with."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..covariates import CovariateEncoder

UNSEEN = "(any other)"
"""The site of whoever was measured at none that the model knows: nothing is known of its effects
but how much sites differ."""


@dataclass(frozen=True)
class EffectColumns:
    """Design columns of an encoder's covariates, and what kind of effect each carries.

    An intercept; for each continuous covariate a standardised line and spline columns; for each
    categorical one a contrast per level (one of -1/2 and 1/2 if there are two); line times
    contrast for every such pair; 0 or 1 for every site.

    Attributes
    ----------
    encoder : CovariateEncoder
    sites : dict of tuple of str
        Site covariate -> the sites that have columns, in their order: those of the reference, then
        :data:`UNSEEN`, which stands for any other, then those added later.

    Examples
    --------
    >>> people = pd.DataFrame({"age": np.linspace(20, 80, 30), "sex": ["F", "M"] * 15,
    ...                        "site": ["a", "b", "c"] * 10})
    >>> kinds = {"age": "continuous", "sex": "categorical", "site": "site"}
    >>> columns = EffectColumns.of(CovariateEncoder.fit(people, kinds))
    >>> sorted(set(columns.groups))
    ['age', 'age curve', 'age x sex', 'intercept', 'sex', 'site']
    >>> columns.values(people).shape == (30, len(columns.groups))
    True
    """

    encoder: CovariateEncoder
    sites: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, encoder: CovariateEncoder) -> EffectColumns:
        """With the reference's sites."""
        return cls(encoder, {name: tuple(encoder.levels[name])
                             for name, kind in encoder.kinds.items() if kind == "site"})

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The group of each column; columns of a group share the spread of their effects."""
        return tuple(group for group, _ in self._parts(None))

    def values(self, subjects: pd.DataFrame) -> np.ndarray:
        """float64, shape (n_subjects, n_columns)."""
        return np.column_stack([column for _, column in self._parts(subjects)])

    def with_site(self, covariate: str, site: str) -> EffectColumns:
        """One more site, its column the last of that covariate's."""
        return EffectColumns(self.encoder,
                             {**self.sites, covariate: (*self.sites[covariate], site)})

    def position(self, covariate: str, site: str) -> int:
        """Which column a site has."""
        before = len(self.groups) - sum(len(s) for s in self.sites.values())
        for name, sites in self.sites.items():
            if name == covariate:
                return before + sites.index(site)
            before += len(sites)
        raise KeyError(covariate)

    def known(self, covariate: str) -> tuple[str, ...]:
        """The sites whose effects were learned."""
        return tuple(s for s in self.sites[covariate] if s != UNSEEN)

    def _parts(self, subjects: pd.DataFrame | None) -> list[tuple[str, Any]]:
        """(group, column) of every column; without subjects, only the groups mean anything."""
        if subjects is None:
            subjects = self._template()
        columns: list[tuple[str, Any]] = [("intercept", np.ones(len(subjects)))]
        lines: dict[str, np.ndarray] = {}
        contrasts: dict[str, np.ndarray] = {}
        for name, kind in self.encoder.kinds.items():
            if kind == "site":
                continue
            if kind == "continuous":
                block = self._bounded(subjects, name)
                lines[name] = block[:, 0]
                columns += [(name, block[:, 0])]
                columns += [(f"{name} curve", column) for column in block.T[1:]]
            else:
                levels = (subjects[name].astype(str).to_numpy()[:, None]
                          == np.array(self.encoder.levels[name])).astype(float)
                levels = levels[:, 1:] - 0.5 if levels.shape[1] == 2 else levels
                contrasts[name] = levels
                columns += [(name, column) for column in levels.T]
        for line, values in lines.items():
            for name, levels in contrasts.items():
                columns += [(f"{line} x {name}", values * column) for column in levels.T]
        for name, sites in self.sites.items():
            named = subjects[name].astype(str)
            at = named.where(named.isin(sites), UNSEEN).to_numpy()
            columns += [(name, (at == site).astype(float)) for site in sites]
        return columns

    def _bounded(self, subjects: pd.DataFrame, name: str) -> np.ndarray:
        """Line and spline columns over their largest value within the range of the fit.

        Not over their sd: the one person of 29 among sixty students would lie 20 sd out, where an
        effect that is nothing to the others makes their law as narrow as it likes.
        """
        return self.encoder.block(subjects, name) / self._largest[name]

    @cached_property
    def _largest(self) -> dict[str, np.ndarray]:
        found = {}
        for name, knots in self.encoder.knots.items():
            ages = pd.DataFrame({name: np.linspace(knots[0], knots[-1], 65)})
            found[name] = np.abs(self.encoder.block(ages, name)).max(axis=0)
        return found

    def _template(self) -> pd.DataFrame:
        row = {name: self.encoder.knots[name][0] if kind == "continuous"
               else self.encoder.levels[name][0] for name, kind in self.encoder.kinds.items()}
        return pd.DataFrame([row])

"""Deviations of what was imputed, kept apart from those of what was measured."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .blocks import Blocks
from .cards import Card
from .errors import CohortError
from .imputed import NOTE, counted, note_of_imputed

if TYPE_CHECKING:
    from .deviations import Deviations


@dataclass(frozen=True, eq=False)
class ImputedDeviations:
    r"""What is believed of the z of modalities that were not measured but imputed.

    Let g be the map from a value to its z of kind ``covariates`` at the person's age, sex and
    site, and the person's own value x ~ N(x_hat, s^2), the imputed value and its sd. Then

    .. math:: z = \frac{E[g(x)]}{\sqrt{1 + Var[g(x)]}}, \qquad \Phi(z) = E[\Phi(g(x))]

    (the second for normal g(x)): z is that of the *expected centile*. If g(x) = (x - mu) / sigma
    it is (x_hat - mu) / sqrt(sigma^2 + s^2).

    Attributes
    ----------
    z : Blocks
        Modality -> table, shape (n_imputed, n_features).
    sd : Blocks of the same shapes
        sqrt(Var[g(x)]): how far the z of the person's own scan may be from E[g(x)]. Near 1, and z
        near 0, nothing is known of it.
    by : str
        What imputed them.
    included : bool
        Whether they are among the ``z`` of the deviations they belong to.
    """

    z: Blocks
    sd: Blocks
    by: str = ""
    included: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Modality -> people."""
        return {m: len(table) for m, table in self.z.items()}

    def flags(self, ids: pd.Index) -> pd.DataFrame:
        """Which modality of whom was imputed, bool; only modalities that anybody's was."""
        return pd.DataFrame({m: ids.isin(table.index) for m, table in self.z.items()}, index=ids)

    def draw(self, seed: int = 0) -> Blocks:
        r"""z that the own scans of these people might have shown, drawn: one completed data set.

        .. math:: z = E[g(x)] + \sqrt{Var[g(x)]}\; \epsilon, \qquad \epsilon \sim N(0, 1)

        If the imputer's law of x is the true one, these z vary among healthy people as measured
        ones do, 5 % of them beyond 1.96; the expected centile's vary less. An sd of z above 1
        (:func:`~normfuse.imputation_check.check_imputation`) shows that it is not, and that draws
        will be too extreme. Do the analysis on
        several draws and pool them by Rubin's rules (Multiple imputation for nonresponse in
        surveys, 1987): one draw alone shows deviations that nobody measured. Noise is drawn apart
        for every feature, so averages over features have too little of it.

        Parameters
        ----------
        seed : int
            Of the noise; as many draws as seeds.

        Returns
        -------
        Blocks
            Modality -> table, shape (n_imputed, n_features), z units.
        """
        rng = np.random.default_rng(seed)
        return Blocks({m: z * np.sqrt(1 + self.sd[m] ** 2)
                       + self.sd[m] * rng.standard_normal(z.shape) for m, z in self.z.items()})

    def select(self, ids: Iterable[str]) -> ImputedDeviations | None:
        """Of these people; None if nothing of theirs was imputed."""
        wanted = pd.Index(list(ids))
        parts = [{m: table.loc[wanted[wanted.isin(table.index)]] for m, table in found.items()}
                 for found in (self.z, self.sd)]
        z, sd = (Blocks({m: table for m, table in part.items() if len(table)}) for part in parts)
        return replace(self, z=z, sd=sd) if len(z) else None

    @classmethod
    def joined(cls, parts: Sequence[ImputedDeviations | None]) -> ImputedDeviations | None:
        """Those of people scored apart; None if there are none."""
        found = [part for part in parts if part is not None]
        if not found:
            return None
        names = list(dict.fromkeys(m for part in found for m in part.z))
        z, sd = (Blocks({m: pd.concat([getattr(part, what)[m] for part in found if m in part.z])
                         for m in names}) for what in ("z", "sd"))
        return cls(z, sd, " and ".join(dict.fromkeys(part.by for part in found)))

    def renamed(self, names: Mapping[str, str]) -> ImputedDeviations:
        """The same people by other ids."""
        z, sd = (Blocks({m: table.rename(index=dict(names)) for m, table in found.items()})
                 for found in (self.z, self.sd))
        return replace(self, z=z, sd=sd)

    def among(self, deviations: Deviations) -> Deviations:
        """Deviations whose ``z`` hold these too.

        ``observed`` holds what was measured as before; ``conformal`` p are of measurements only.
        """
        if self.included:
            return deviations
        z = self._table(deviations)
        for m, table in self.z.items():
            z.loc[table.index, m] = table.to_numpy()
        reference = deviations.reference
        notes = (*reference.notes, note_of_imputed(self.counts))
        return deviations.changed(z=z, reference=replace(reference, notes=notes),
                                  imputed=replace(self, included=True))

    def out_of(self, deviations: Deviations) -> Deviations:
        """The inverse of :meth:`among`."""
        if not self.included:
            return deviations
        z = deviations.z.copy()
        for m, table in self.z.items():
            if m in deviations.modalities:
                z.loc[table.index, m] = np.nan
        reference = deviations.reference
        kept = tuple(note for note in reference.notes if not note.startswith(NOTE))
        return deviations.changed(z=z, reference=replace(reference, notes=kept),
                                  imputed=replace(self, included=False))

    def _table(self, deviations: Deviations) -> pd.DataFrame:
        """z in memory, of the features that were imputed."""
        z = deviations.z.copy()
        for m, table in self.z.items():
            if m not in z or list(z[m].columns) != list(table.columns):
                raise CohortError(f"z of imputed {m} is of {table.shape[1]} features that these "
                                  "deviations no longer have; take with_imputed() before regions "
                                  "are made of voxels")
        return z

    def __repr__(self) -> str:
        return f"<ImputedDeviations: {counted(self.counts)}>"

    def _repr_html_(self) -> str:
        spread = pd.DataFrame({
            "people": self.counts,
            "sd of z": {m: float(np.nanstd(t.to_numpy())) for m, t in self.z.items()},
            "median sd": {m: float(np.nanmedian(t.to_numpy())) for m, t in self.sd.items()}})
        return Card("ImputedDeviations", counted(self.counts), {"by": self.by},
                    {"": spread.rename_axis("modality").round(2)}).html()

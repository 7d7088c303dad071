"""What leaves a normative model: how far each person is from what was expected of them."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .blocks import Blocks, Wide
from .cards import short, some
from .errors import CohortError, listed
from .imputed_deviations import ImputedDeviations
from .noun_cards import deviations_card, reference_card
from .outputs import new_folder
from .space import Space
from .stored import ROWS
from .subject_query import matching

ROLE = "normfuse_role"
"""Column of ``Deviations.subjects``: ``new`` (never seen), ``calibration`` (not trained on; scored
against the other calibration subjects), ``out_of_fold`` (scored by a model that did not see them,
against the others so scored), ``adapted`` (their site was learned from them; scored by what
the others said of it), ``training`` or ``early_stop`` (seen: z is too small), ``pretraining``
(seen by encoders alone)."""

PRETRAINING = "pretraining"
SEEN_ROLES = ("training", "early_stop", PRETRAINING)
OUT_OF_FOLD, ADAPTED = "out_of_fold", "adapted"

JUDGES = ("calibration", OUT_OF_FOLD)
"""Healthy people who said what is normal and were trained on by no model that scored them."""

UNSEEN_ROLES = (*JUDGES, ADAPTED)

MAPS = ("z", "observed", "expected")
"""Tables of one value a person and feature, which may lie on disk."""

WIDE = (*MAPS, "attribution", "conformal")
_ALL = (*WIDE, "latent", "distance", "subjects")


@dataclass(frozen=True)
class Reference:
    """Where a z-score comes from: whom the model learned from, and how.

    Attributes
    ----------
    kind : str
        What each value was compared with; see :mod:`normfuse.kinds`.
    fusion : str
        The aggregator, as one would write it.
    n_latent, seed : int
    n_subjects : dict of int
        People used for ``training``, ``early_stop`` and ``calibration``; or ``cross_fitted``,
        for all three in turn.
    covariates : dict
        Name -> ``{"kind": …, "range": [low, high]}`` or ``{"kind": …, "levels": {level: n}}``.
    modalities : dict
        Name -> ``{"unit", "n_features", "n_present"}`` in the reference.
    history : list of dict
        One row an epoch: ``epoch``, ``training``, ``validation`` and the named loss terms.
    best_epoch : int
        The epoch whose weights the model has; 0 if not recorded.
    calibration : list of dict
        The calibration people scored leave-one-out, one row per quantity and nominal level:
        ``quantity`` (``"z t1"``, …, ``"z all"``, ``"latent distance"``), ``nominal`` (.05 is
        \\|z\\| > 1.96 or p < .05; .01), ``share`` seen, its 95 % interval ``low``, ``high`` (over
        subjects: the regions of one brain are not independent), ``n_subjects``, ``n_values``,
        ``mean`` and ``sd`` of z.
    quantiles : dict
        Modality, or ``"all"`` -> ``{"theoretical": […], "observed": […]}`` of those z, for the
        QQ figure.
    versions : dict of str
    model : str
        The recipe of networks and latent levels, as one would write it.
    created : str
        UTC date and time of the fit.
    notes : tuple of str
        What a reader should know before using the numbers.
    meaning, use : str
        What a deviation of this kind is, and what it is for, each as the end of a sentence; empty
        if nobody said.
    choices : dict of str
        What else was chosen, as one would write it: ``inference``. Empty in older files.
    """

    kind: str
    fusion: str
    n_latent: int
    seed: int
    n_subjects: Mapping[str, int]
    covariates: Mapping[str, Any]
    modalities: Mapping[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    calibration: list[dict[str, Any]] = field(default_factory=list)
    quantiles: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    created: str = ""
    notes: tuple[str, ...] = ()
    meaning: str = ""
    use: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_calibration(self) -> int:
        """How many said what is normal, unseen by the model that scored them."""
        return self.n_subjects.get("calibration", 0) + self.n_subjects.get("cross_fitted", 0)

    def __repr__(self) -> str:
        # a mask or a training's history would fill pages
        people = some(f"{n} {role.replace('_', ' ')}" for role, n in self.n_subjects.items())
        return (f"<Reference of {short(self.kind) or 'no'} z: {some(self.modalities)} of "
                f"{people}; {short(self.fusion, 200)}, {self.n_latent} latent dimensions>")

    def _repr_html_(self) -> str:
        return reference_card(self).html()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reference:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            If something has another type than it should have.
        """
        for name, kind in _TYPES.items():
            if not isinstance(values.get(name, kind()), kind):
                raise ValueError(f"{name} of the reference should be of type {kind.__name__}; it "
                                 f"is {values[name]!r:.60}")
        for name, kind in _PARTS.items():
            found = values.get(name, ())
            parts = found.values() if isinstance(found, Mapping) else found
            if not all(isinstance(part, kind) for part in parts):
                raise ValueError(f"every one of {name} of the reference should be of type "
                                 f"{kind.__name__}")
        return cls(**{**values, "notes": tuple(values.get("notes", ()))})


_TYPES: dict[str, type] = {
    **dict.fromkeys(("kind", "fusion", "model", "created", "meaning", "use"), str),
    **dict.fromkeys(("n_latent", "seed", "best_epoch"), int),
    **dict.fromkeys(("n_subjects", "covariates", "modalities", "quantiles", "versions"), dict),
    **dict.fromkeys(("history", "calibration"), list)}
_PARTS: dict[str, type] = {
    "n_subjects": int, "notes": str, **dict.fromkeys((
        "covariates", "modalities", "quantiles", "history", "calibration"), dict)}


@dataclass(frozen=True, eq=False)
class Deviations:
    """Calibrated deviations of people from a reference.

    Attributes
    ----------
    z : DataFrame, shape (n_subjects, n_features), columns (modality, feature)
        Standard normal in healthy people who were not trained on; NaN where nothing was measured.
    observed, expected : DataFrame, same shape
        What was measured and what the model expected, in the modality's unit.
    latent : DataFrame, shape (n_subjects, n_latent)
        Per-dimension z of the fused latent position.
    distance : DataFrame, columns ``distance``, ``p``, ``p_conformal``, ``n_calibration``
        Mahalanobis distance of the latent position from the calibration people who were
        measured with the same modalities, its p-value by the F law, and by rank among those
        people, never below 1 / (n + 1).
    subjects : DataFrame
        The cohort's subjects table plus the column ``normfuse_role``.
    reference : Reference
    attribution : DataFrame or None, columns (modality, latent)
        Each modality's share of each latent z; the shares of a person sum to ``latent``, NaN
        (nothing to share) left out. With Wasserstein and generalized Wasserstein fusion a share is
        that modality's own shift of the posterior times its fixed weight; with products the
        weights are the precisions, so that a share depends on the other modalities' too.
    conformal : DataFrame or None, columns (modality, feature)
        Two-sided p-value of each feature by rank among the n calibration people measured alike:
        2 times the smaller share, the person counted in, of those as low and of those as high.
        P(p <= a) <= a whatever the law of residuals, if the person is exchangeable with them (as
        old, of the same sites …). Never below 2 / (n + 1): with fewer than 39 people none is
        below .05 (``reference.notes`` says so), and none survives a correction over m features
        below n = 40 m. z and ``p`` have no such floor, but trust the shape of the tails.
        None if there are too many features to keep ranks of; not adjusted for their number.
    controls : Deviations or None
        The calibration people, each scored against the others. Kept in memory after ``fit`` so
        that patients have somebody honest to be compared with; never written to disk.
    imputed : ImputedDeviations or None
        z of modalities that were imputed. They are not in ``z``, and so in no count, test or
        report, unless :meth:`with_imputed` puts them there.

    Notes
    -----
    ``z``, ``observed`` and ``expected`` of voxels may lie on disk (after :meth:`read`, or
    ``model.deviations(…, to=folder)``). They are read whenever they are asked for: select people
    first, or go through :meth:`by_people`.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> d = tiny_deviations()
    >>> d.extreme(1.96)["t1"].tolist()
    [1, 0]
    >>> d.select("age > 70").z.index.tolist(), [len(part) for part in d.by_people(1)]
    (['sub-b'], [1, 1])
    """

    z: pd.DataFrame
    observed: pd.DataFrame
    expected: pd.DataFrame
    latent: pd.DataFrame
    distance: pd.DataFrame
    subjects: pd.DataFrame
    reference: Reference
    attribution: pd.DataFrame | None = None
    conformal: pd.DataFrame | None = None
    controls: Deviations | None = None
    imputed: ImputedDeviations | None = None

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        held = self.__dict__["z"]
        return tuple(held if isinstance(held, Blocks) else held.columns.levels[0][
            held.columns.codes[0]].unique())

    def blocks(self, name: str = "z") -> Blocks:
        """``z``, ``observed`` or ``expected`` by modality; what lies on disk stays there."""
        held = self.__dict__[name]
        return held if isinstance(held, Blocks) else Blocks(
            {m: held[m] for m in self.modalities})

    @property
    def is_stored(self) -> bool:
        """Whether z lies on disk."""
        return isinstance(self.__dict__["z"], Blocks)

    def space(self, modality: str) -> Space | None:
        """Where the features of a modality are, if they are voxels."""
        found = self.reference.modalities.get(modality, {}).get("space")
        return None if found is None else Space.from_dict(found)

    def by_people(self, n: int = ROWS) -> Iterator[Deviations]:
        """Some people at a time, in memory."""
        for start in range(0, len(self), n):
            part = self.select(self.subjects.index[start:start + n])
            yield part.changed(**part.tables())

    def changed(self, **tables: Any) -> Deviations:
        """The same with other tables; what lies on disk stays there, unlike with ``replace``."""
        return Deviations(**{**self.__dict__, **tables})

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by name, subjects in the same order; no attribution if there is none."""
        found = {name: getattr(self, name) for name in _ALL}
        return {name: table for name, table in found.items() if table is not None}

    @property
    def p(self) -> pd.DataFrame:
        """Two-sided p-value of every z."""
        return pd.DataFrame(2 * stats.norm.sf(np.abs(self.z)), self.z.index, self.z.columns)

    @property
    def q(self) -> pd.DataFrame:
        """Each person's p, Benjamini-Hochberg adjusted over that person's own features.

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> tiny_deviations().q.round(3).iloc[0].tolist()
        [0.037, 0.764, 0.054]
        """
        q = self.p.to_numpy(copy=True)
        for row in q:
            seen = ~np.isnan(row)
            if seen.any():
                row[seen] = stats.false_discovery_control(row[seen])
        return pd.DataFrame(q, self.z.index, self.z.columns)

    @property
    def centile(self) -> pd.DataFrame:
        """Of every z, in percent: 100 Phi(z).

        Of 100 healthy people with the same covariates so many lie lower: of kind ``covariates``
        in the value itself, of the other kinds in what the rest of their brain leaves unexplained.

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> tiny_deviations().centile.round(1).iloc[0].tolist()
        [0.6, 61.8, 98.2]
        """
        return pd.DataFrame(100 * stats.norm.cdf(self.z), self.z.index, self.z.columns)

    def select(self, who: str | Iterable[str]) -> Deviations:
        """The people that answer a query on ``subjects``, or those with the given ids."""
        if isinstance(who, str):
            ids = self.subjects.index[matching(self.subjects, who).to_numpy()]
        else:
            ids = pd.Index([str(i) for i in who])
            unknown = ids.difference(self.subjects.index)
            if len(unknown):
                raise CohortError(f"not among these deviations: {listed(unknown)}")
        return self.changed(imputed=self.imputed and self.imputed.select(ids), **{
            name: held.select(ids) if isinstance(held, Blocks) else held.loc[ids]
            for name, held in self.held().items()})

    def held(self) -> dict[str, pd.DataFrame | Blocks]:
        """Every table by name, those on disk unread."""
        return {name: self.__dict__[name] for name in _ALL if self.__dict__[name] is not None}

    @classmethod
    def joined(cls, parts: Sequence[Deviations], ids: pd.Index, reference: Reference
               ) -> Deviations:
        """People scored apart as one table, in this order.

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> d = tiny_deviations()
        >>> parts = [d.select(["sub-a"]), d.select(["sub-b"])]
        >>> Deviations.joined(parts, d.subjects.index, d.reference).z.equals(d.z)
        True
        """
        each = [part.tables() for part in parts]
        tables: dict[str, Any] = {
            name: pd.concat([found[name] for found in each]).loc[ids] for name in each[0]}
        return cls(**tables, reference=reference,
                   imputed=ImputedDeviations.joined([part.imputed for part in parts]))

    def with_controls(self) -> Deviations:
        """These people and, below them, the reference's held-out controls (once each).

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> d = tiny_deviations()
        >>> patient = d.select(["sub-b"]).changed(controls=d.select(["sub-a"]))
        >>> patient.with_controls().subjects["diagnosis"].to_dict()
        {'sub-b': 'AD', 'sub-a': 'CN'}
        """
        if self.controls is None:
            return self
        new = self.controls.subjects.index.difference(self.subjects.index, sort=False)
        added = self.controls.select(new)
        theirs = added.tables()
        tables: dict[str, Any] = {name: pd.concat([table, theirs[name]])
                                  for name, table in self.tables().items() if name in theirs}
        return self.changed(**{"attribution": None, "conformal": None, **tables}, controls=None)

    def with_imputed(self) -> Deviations:
        """z of imputed modalities among the others, noted in ``reference.notes``."""
        return self if self.imputed is None else self.imputed.among(self)

    def without_imputed(self) -> Deviations:
        """z of what was measured only."""
        return self if self.imputed is None else self.imputed.out_of(self)

    def extreme(self, threshold: float = 1.96, *, direction: str = "both") -> pd.DataFrame:
        """How many features of each person lie beyond a threshold, per modality.

        Parameters
        ----------
        threshold : float
            In units of z, positive.
        direction : {"both", "below", "above"}
            Count \\|z\\| > t, z < -t or z > t.

        Returns
        -------
        DataFrame, shape (n_subjects, n_modalities + 1)
            Counts, and ``total``. A modality that was not measured counts NaN, not 0. The
            counts of healthy people vary far more than a binomial: regions are correlated.
        """
        if direction not in ("both", "below", "above"):
            raise CohortError(f"direction is both, below or above; got {direction!r}")
        if self.is_stored:
            return pd.concat([part.extreme(threshold, direction=direction)
                              for part in self.by_people()])
        beyond = {"both": self.z.abs() > threshold, "below": self.z < -threshold,
                  "above": self.z > threshold}
        names = list(self.modalities)
        counts = beyond[direction].T.groupby(level=0).sum().T[names]
        measured = self.z.notna().T.groupby(level=0).any().T[names]
        counts = counts.where(measured)
        if measured.to_numpy().all():
            counts = counts.astype(int)
        return counts.assign(total=counts.sum(axis=1))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``z.csv``, ``observed.csv`` … and ``reference.json`` to a new folder.

        Voxels are written as zarr arrays of float32, ``z/<modality>`` …, some people at a time.

        Raises
        ------
        OutputExistsError
            If the folder is there and ``overwrite`` is not asked for.

        Examples
        --------
        >>> import tempfile
        >>> from normfuse.testing import tiny_deviations
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = tiny_deviations().save(Path(place, "deviations"))
        ...     print(sorted(file.name for file in folder.iterdir())[:3])
        ...     print(len(Deviations.read(folder)))
        ['attribution.csv', 'distance.csv', 'expected.csv']
        2
        """
        from .deviation_files import is_ours, write

        with new_folder(Path(folder), overwrite=overwrite, ours=is_ours) as work:
            write(self, work)
        return Path(folder)

    @classmethod
    def read(cls, folder: str | Path) -> Deviations:
        """Read what :meth:`save` wrote."""
        from .deviation_files import read

        return read(Path(folder))

    def __repr__(self) -> str:
        held = self.__dict__["z"]
        width = sum(block.shape[1] for block in held.as_is().values()) \
            if isinstance(held, Blocks) else held.shape[1]
        return (f"<Deviations of {len(self)} subjects, {width} features of "
                f"{some(self.modalities)}; reference n = "
                f"{sum(self.reference.n_subjects.values())}, {short(self.reference.fusion, 200)}>")

    def _repr_html_(self) -> str:
        return deviations_card(self).html()


for _name in (*MAPS, "conformal"):
    # afterwards: a dataclass would have taken it for a default
    setattr(Deviations, _name, Wide(_name))

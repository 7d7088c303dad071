"""People and what was measured of them, aligned by subject id."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import cohort_checks as checks
from .blocks import Block, Blocks
from .cards import short, some
from .errors import CohortError, listed
from .imputed import Imputed, checked_sd, counted
from .modality import Modality
from .noun_cards import cohort_card
from .problems import Problems
from .space import Space
from .subject_query import matching

if TYPE_CHECKING:
    from .atlas import Atlas
    from .segmentations import Segmentations


class Cohort:
    """Subjects, their covariates, and one block of features per modality.

    Immutable: every method returns a new cohort. Rows are aligned by subject id, never by
    position. A subject without a scan has a row of NaN in that modality; single NaN inside a
    row are failed regions. Both are ordinary.

    Attributes
    ----------
    subjects : DataFrame, shape (n_subjects, any)
        Everything known of each person; index: id as text.
    features : dict of DataFrame, shape (n_subjects, n_features) each
        One block per modality, in the modality's unit, on the same index.
    modalities : tuple of Modality
    covariates : dict of str
        Column of ``subjects`` -> ``"continuous"``, ``"categorical"`` or ``"site"``.
    reference : str or None
        Query that selects the healthy people a model may learn from.
    imputation : Imputed or None
        Which cells of ``features`` are expectations and not measurements, and their sd.

    Examples
    --------
    >>> people = pd.DataFrame({"age": [30.0, 40.0], "dx": ["CN", "AD"]}, index=["s1", "s2"])
    >>> t1 = pd.DataFrame({"insula": [6.1, 5.8]}, index=["s2", "s1"])
    >>> pet = pd.DataFrame({"insula": [1.2]}, index=["s1"])
    >>> cohort = Cohort.from_frames(people, {"t1": t1, "pet": pet},
    ...                             covariates={"age": "continuous"}, reference="dx == 'CN'")
    >>> cohort.features["t1"].loc["s1", "insula"], len(cohort.reference_subjects())
    (np.float64(5.8), 1)
    >>> cohort.present.loc["s2"].tolist()
    [True, False]
    """

    def __init__(self, subjects: pd.DataFrame, features: Mapping[str, Block] | Blocks,
                 modalities: tuple[Modality, ...], covariates: Mapping[str, str],
                 reference: str | None = None, imputation: Imputed | None = None) -> None:
        self._subjects = subjects.copy(deep=False)
        self._features = features if isinstance(features, Blocks) else Blocks(features)
        self._covariates = dict(covariates)
        self._modalities = tuple(modalities)
        self._reference = reference
        self._imputation = imputation

    @property
    def subjects(self) -> pd.DataFrame:
        """A copy of the subjects table (copied for real only when it is written to)."""
        return self._subjects.copy(deep=False)

    @property
    def features(self) -> Blocks:
        """One table per modality; each access gives a copy, as for ``subjects``."""
        return self._features

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities, in order."""
        return self._modalities

    @property
    def reference(self) -> str | None:
        """The query that selects the healthy people a model may learn from."""
        return self._reference

    @property
    def covariates(self) -> dict[str, str]:
        """Covariate -> kind."""
        return dict(self._covariates)

    @classmethod
    def from_frames(cls, subjects: pd.DataFrame, frames: Mapping[str, Block], *,
                    covariates: Mapping[str, str], reference: str | None = None,
                    units: Mapping[str, str] | None = None,
                    spaces: Mapping[str, Space] | None = None,
                    drop_incomplete: bool = False) -> Cohort:
        """Build a cohort from tables indexed by subject id.

        Parameters
        ----------
        subjects : DataFrame
            One row a person, index: id.
        frames : dict of DataFrame or StoredTable
            One table per modality, index: id, columns: features. People without that scan are
            simply not in it. Tables on disk stay there until they are needed.
        covariates : dict of str
            Column -> ``"continuous"``, ``"categorical"`` or ``"site"``.
        reference : str, optional
            Query that selects the reference (healthy) people, as ``"diagnosis == 'CN'"``.
        units : dict of str, optional
            Unit of each modality, printed on figures.
        spaces : dict of Space, optional
            Of the modalities whose features are voxels, where these are.
        drop_incomplete : bool
            Leave out (with a warning that names them) people who lack a covariate or have no
            modality at all, instead of refusing.

        Raises
        ------
        CohortError
            Duplicate or missing ids, a measured person who is not in ``subjects``, a cell that is
            not a finite number, a missing covariate, a person with nothing measured.
        """
        checks.refuse_swapped(subjects, frames)
        if not frames:
            raise CohortError("a cohort needs at least one modality; none was given")
        problems = Problems()
        subjects = checks.with_text_ids(subjects, "the subjects table", problems)
        known = checks.known_covariates(subjects, covariates, problems)
        blocks: dict[str, Block] = {}
        modalities = []
        for name, frame in frames.items():
            blocks[name] = frame
            with problems.caught():
                blocks[name] = checks.checked_table(name, frame, subjects, covariates)
                modalities.append(Modality(name, tuple(blocks[name].columns),
                                           (units or {}).get(name, ""),
                                           space=(spaces or {}).get(name)))
        kept = subjects
        with problems.caught():
            present = pd.DataFrame({name: checks.there(block, subjects.index)
                                    for name, block in blocks.items()})
            kept = checks.complete_people(subjects, present, known, drop_incomplete)
        if reference is not None:
            with problems.caught():  # a bad query should fail here, not an hour later
                matching(kept, reference)
        problems.settle()
        return cls(kept, Blocks(blocks).select(kept.index), tuple(modalities), covariates,
                   reference)

    @classmethod
    def read(cls, path: str | Path, *, session: str | None = None) -> Cohort:
        """Read a ``cohort.toml``; see :mod:`normfuse.cohort_file` for what it may say.

        Parameters
        ----------
        path : path
        session : str, optional
            Which visit, in place of what the file says: ``"first"``, ``"last"``, the name of one,
            or ``"all"``, with ids as ``sub-01_ses-2`` and columns ``person`` and ``session``.
        """
        from .cohort_file import read_cohort

        return read_cohort(Path(path), session)

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def ids(self) -> pd.Index:
        """Subject ids, in order."""
        return self.subjects.index

    @property
    def present(self) -> pd.DataFrame:
        """Which modality was measured of whom: boolean, (n_subjects, n_modalities).

        What was imputed was not measured.
        """
        there = self.features.present()[[m.name for m in self.modalities]]
        return there if self._imputation is None else there & ~self.imputed

    @property
    def imputation(self) -> Imputed | None:
        """What was imputed, with its sd; None if nothing was."""
        return self._imputation

    @property
    def imputed(self) -> pd.DataFrame:
        """Which modality of whom was imputed: boolean, (n_subjects, n_modalities)."""
        return (self._imputation or Imputed(Blocks({}))).flags(
            self.ids, [m.name for m in self.modalities])

    def modality(self, name: str) -> Modality:
        """The modality of that name.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> tiny_cohort().modality("dti").n_features
        5
        """
        for modality in self.modalities:
            if modality.name == name:
                return modality
        raise CohortError(f"there is no modality {name!r}; this cohort has "
                          f"{listed(m.name for m in self.modalities)}")

    def select(self, who: str | Iterable[str]) -> Cohort:
        """The subjects that answer a query, or those with the given ids, in that order.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> tiny_cohort().select("age > 60 and sex == 'F'").subjects["age"].min() > 60
        np.True_
        >>> tiny_cohort().select(["sub-007", "sub-003"]).ids.tolist()
        ['sub-007', 'sub-003']
        """
        if isinstance(who, str):
            ids = self.ids[matching(self.subjects, who).to_numpy()]
        else:
            ids = pd.Index([str(i) for i in who])
            unknown = ids.difference(self.ids)
            if len(unknown):
                raise CohortError(f"not in this cohort: {listed(unknown)}")
            if ids.has_duplicates:
                raise CohortError(f"asked for more than once: {listed(ids[ids.duplicated()])}; a "
                                  "person can be in a cohort once")
        return self._with(self.subjects.loc[ids], self.features.select(ids),
                          self._imputation and self._imputation.select(ids))

    def split(self, query: str) -> tuple[Cohort, Cohort]:
        """Those who answer the query, and all the others."""
        chosen = matching(self.subjects, query)
        return self.select(self.ids[chosen.to_numpy()]), self.select(self.ids[~chosen.to_numpy()])

    def reference_subjects(self) -> Cohort:
        """The people a model may learn from, by the cohort's own reference query."""
        if self.reference is None:
            raise CohortError("this cohort does not say who is healthy: write [reference] and "
                              "query = \"diagnosis == 'CN'\" in cohort.toml (in Python "
                              "reference=\"…\"), or query = \"all\" if everybody is")
        chosen = self.select(self.reference)
        if not len(chosen):
            raise CohortError(f"the reference query {self.reference!r} selects nobody of "
                              f"{len(self)} subjects; "
                              f"{checks.values_of(self.subjects, self.reference)}")
        return chosen

    def join(self, other: Cohort) -> Cohort:
        """Both cohorts' people; they must have the same modalities and features.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> women, men = tiny_cohort().split("sex == 'F'")
        >>> len(women), len(men), len(women.join(men))
        (20, 20, 40)
        """
        both = self.ids.intersection(other.ids)
        if len(both):
            raise CohortError(f"in both cohorts: {listed(both)}; ids must differ")
        if [m.name for m in self.modalities] != [m.name for m in other.modalities]:
            raise CohortError("cohorts with different modalities cannot be joined: "
                              f"{listed(m.name for m in self.modalities)} and "
                              f"{listed(m.name for m in other.modalities)}")
        for m in self.modalities:
            if set(m.features) != set(other.modality(m.name).features):
                raise CohortError(f"cohorts with different features of {m.name} cannot be joined")
        mine, theirs = self._imputation, other._imputation
        return self._with(pd.concat([self.subjects, other.subjects]), {
            m.name: pd.concat([self.features[m.name],
                               other.features[m.name][list(m.features)]])
            for m in self.modalities}, theirs if mine is None else mine.joined(theirs))

    def without(self, *names: str) -> Cohort:
        """The same people as if those modalities had not been measured (columns stay, as NaN).

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> tiny_cohort().without("pet").present.sum().tolist()
        [40, 32, 0]
        """
        for name in names:
            self.modality(name)
        return self._with(self.subjects, {
            name: self.features[name] * np.nan if name in names else block
            for name, block in self.features.as_is().items()},
            self._imputation and self._imputation.without(names))

    def with_imputed(self, mean: Mapping[str, pd.DataFrame], sd: Mapping[str, pd.DataFrame], *,
                     by: str = "", learned_from: Iterable[str] = ()) -> Cohort:
        """The same people, some of whose missing modalities are filled in and marked.

        What is marked was not measured: ``present`` stays False there, no model learns from it,
        and no deviation of it is taken for that of a measurement.

        Parameters
        ----------
        mean : dict of DataFrame, shape (n_imputed, n_features)
            Modality -> expected values in its unit, of people in whom it is missing.
        sd : dict of DataFrame of the same shape
            How far the person's own value would be from it.
        by : str
            What imputed them.
        learned_from : iterable of str
            Hashes of the people whom that learned from.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> cohort = tiny_cohort()
        >>> who = cohort.ids[~cohort.present["dti"]]
        >>> mean = pd.DataFrame(0.4, who, cohort.modality("dti").features)
        >>> filled = cohort.with_imputed({"dti": mean}, {"dti": 0 * mean + 0.1}, by="a guess")
        >>> filled.imputed.sum().tolist(), filled.present["dti"].sum()
        ([0, 8, 0], np.int64(32))
        >>> bool(filled.features["dti"].isna().all(axis=1).any())
        False
        >>> filled.observed().imputation is None
        True
        """
        tables, widths, blocks = {}, {}, self.features.as_is()
        for name, given in mean.items():
            features = self.modality(name).features
            tables[name], widths[name] = checked_sd(name, given, sd.get(name), features,
                                                    self.present[name])
            block = self.features[name].astype(float)
            block.loc[tables[name].index] = tables[name].to_numpy()
            blocks[name] = block
        new = Imputed(Blocks({m: t for m, t in widths.items() if len(t)}), by,
                      frozenset(learned_from))
        again = [] if self._imputation is None else [
            m for m, t in new.sd.items() if m in self._imputation.sd
            and t.index.isin(self._imputation.sd[m].index).any()]
        if again:
            raise CohortError(f"{listed(again)} was imputed already of some of these people; "
                              "begin with cohort.observed()")
        if not len(new.sd):
            return self
        old = self._imputation
        return self._with(self.subjects, blocks, new if old is None else old.joined(new))

    def observed(self) -> Cohort:
        """What was measured: imputed cells are missing again."""
        if self._imputation is None:
            return self
        blocks = self.features.as_is()
        for name, table in self._imputation.sd.items():
            block = self.features[name]
            block.loc[table.index] = np.nan
            blocks[name] = block
        return self._with(self.subjects, blocks)

    def masked(self, segmentations: Segmentations, *,
               labels: str | Sequence[str] | None = None, margin: float = 0.0,
               atlas: Atlas | None = None, most: float = 0.1) -> Cohort:
        """The same people as if nothing had been measured under their lesions.

        Voxels that a lesion touches become missing cells, in every modality: for a model of
        healthy brains they tell nothing. Who has no segmentation stays as they are.

        Parameters
        ----------
        segmentations : Segmentations
        labels : str or sequence of str, optional
            What counts as lesion; by default every label.
        margin : float, mm
            Beyond the lesion's rim; smoothed images carry a lesion about as far as the FWHM.
        atlas : Atlas, optional
            Of modalities that are tables of regions: a region is missing if more than ``most``
            (a share) of it is lesion.

        Raises
        ------
        CohortError, SpaceMismatchError, AtlasError
            Regions without an atlas, another template space, features that are no regions.

        Examples
        --------
        >>> from normfuse.segmentations import Segmentations
        >>> from normfuse.testing import tiny_images
        >>> cohort = tiny_images()
        >>> space = cohort.modality("T1w").space
        >>> lesion = Segmentations(("sub-05",), space.indices[None, :, 2] == 3, space,
        ...                        {"lesion": 1})
        >>> cohort.masked(lesion).features["T1w"].isna().sum(axis=1)[["sub-04", "sub-05"]].tolist()
        [0, 84]
        """
        from .lesions import masked_blocks

        return self._with(self.subjects, masked_blocks(
            self.features.as_is(), self.modalities, segmentations, labels, margin, atlas, most),
            self._imputation)

    def drop_features(self, name: str, features: Iterable[str]) -> Cohort:
        """Leave features of one modality out.

        Examples
        --------
        >>> from normfuse.testing import tiny_cohort
        >>> tiny_cohort().drop_features("t1", ["t1_region2"]).modality("t1").features
        ('t1_region0', 't1_region1', 't1_region3')
        """
        unwanted = set(features)
        old = self.modality(name)
        unknown = unwanted.difference(old.features)
        if unknown:
            raise CohortError(f"{name} has no feature {listed(sorted(unknown))}")
        if old.space is not None:
            raise CohortError(f"the features of {name} are voxels; make its mask smaller instead")
        kept = Modality(name, tuple(f for f in old.features if f not in unwanted), old.unit)
        blocks = {**self.features.as_is(), name: self.features[name][list(kept.features)]}
        modalities = tuple(kept if m.name == name else m for m in self.modalities)
        return Cohort(self.subjects, blocks, modalities, self.covariates, self.reference,
                      self._imputation and self._imputation.of_features(name, kept.features))

    def _with(self, subjects: pd.DataFrame, blocks: Mapping[str, Block] | Blocks,
              imputation: Imputed | None = None) -> Cohort:
        return Cohort(subjects, blocks, self.modalities, self.covariates, self.reference,
                      imputation)

    def __repr__(self) -> str:
        present = self.present.sum()
        shares = some(f"{short(m.name, 20)} {m.n_features} features, {present[m.name]} people"
                      for m in self.modalities)
        filled = "" if self._imputation is None else \
            f"; imputed: {counted(self._imputation.counts)}"
        return f"<Cohort of {len(self)} subjects: {shares}{filled}>"

    def _repr_html_(self) -> str:
        return cohort_card(self).html()

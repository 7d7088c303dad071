"""Deviations of named brain regions: a model's features joined with an atlas, voxels averaged."""
from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from normfuse.atlas import load_atlas
from normfuse.cards import Card, short, some
from normfuse.deviations import MAPS
from normfuse.errors import AtlasError, CohortError, listed
from normfuse.noun_cards import deviations_card
from normfuse.parcels import RegionMean, WeightedMean

from .voxel_regions import regions_of_voxels, voxel_spaces, with_regions

if TYPE_CHECKING:
    from normfuse.atlas import Atlas
    from normfuse.deviations import Deviations, Reference

    from .voxel_regions import VoxelRegions

UNITS = ("lobe", "tissue", "hemisphere")
_FACTS = ("label", "hemisphere", "tissue", "lobe")


@dataclass(frozen=True, eq=False)
class RegionalDeviations:
    """Deviations whose every feature is a region of one atlas.

    Attributes
    ----------
    deviations : Deviations
        Restricted to the atlas's regions, controls included.
    atlas : str
        The atlas's name.
    regions : DataFrame, shape (n_regions, any)
        The atlas's table: index label number, columns ``name``, ``hemisphere``, ``tissue``,
        ``lobe``, ``volume_ml`` (mL).
    unmatched : tuple of (modality, feature)
        Features of the model that are no region of this atlas, and were left out.
    n_voxels : DataFrame or None, index region, one column a modality of voxels
        How many voxels each region has; a region with 0 keeps its row, and its values are NaN.
    plain_means : DataFrame or None
        Of everybody's z, controls included: see :attr:`mean_z`.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> regional = RegionalDeviations(tiny_deviations(), "toy", pd.DataFrame())
    >>> regional.z.shape, regional.modalities
    ((2, 3), ('t1', 'pet'))
    """

    deviations: Deviations
    atlas: str
    regions: pd.DataFrame
    unmatched: tuple[tuple[str, str], ...] = ()
    n_voxels: pd.DataFrame | None = None
    plain_means: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.deviations)

    @property
    def z(self) -> pd.DataFrame:
        """Deviations, (n_subjects, n_features), columns (modality, region)."""
        return self.deviations.z

    @property
    def observed(self) -> pd.DataFrame:
        """What was measured, in the modality's unit; same shape as ``z``."""
        return self.deviations.observed

    @property
    def expected(self) -> pd.DataFrame:
        """What the model expected, in the modality's unit; same shape as ``z``."""
        return self.deviations.expected

    @property
    def mean_z(self) -> pd.DataFrame | None:
        """Of modalities of voxels, the mean of the voxels' z; None if there is no such modality.

        Not standard normal: its spread in healthy people is below 1 by how little the voxels of a
        region correlate. ``z`` is this, judged by that spread.
        """
        return None if self.plain_means is None else self.plain_means.loc[self.z.index]

    @property
    def distance(self) -> pd.DataFrame:
        """The whole person's latent distance; it does not depend on the atlas."""
        return self.deviations.distance

    @property
    def subjects(self) -> pd.DataFrame:
        """What is known of each person, with ``normfuse_role``."""
        return self.deviations.subjects

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that have at least one region of the atlas."""
        return self.deviations.modalities

    @property
    def reference(self) -> Reference:
        """Where the z-scores come from."""
        return self.deviations.reference

    @property
    def controls(self) -> RegionalDeviations | None:
        """The held-out controls in the same regions, if they are in memory."""
        controls = self.deviations.controls
        return None if controls is None else replace(self, deviations=controls)

    def with_controls(self) -> RegionalDeviations:
        """These people and, below them, the reference's held-out controls (once each).

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> both = tiny_deviations()
        >>> patient = replace(both.select(["sub-b"]), controls=both.select(["sub-a"]))
        >>> RegionalDeviations(patient, "toy", pd.DataFrame()).with_controls().z.index.tolist()
        ['sub-b', 'sub-a']
        """
        return replace(self, deviations=self.deviations.with_controls())

    def select(self, who: str | Iterable[str]) -> RegionalDeviations:
        """The people that answer a query on ``subjects``, or those with the given ids.

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> regional = RegionalDeviations(tiny_deviations(), "toy", pd.DataFrame())
        >>> regional.select("age > 70").z.index.tolist()
        ['sub-b']
        """
        return replace(self, deviations=self.deviations.select(who))

    @property
    def table(self) -> pd.DataFrame:
        """One row a person, modality and region, the regions that were not measured as NaN.

        Columns ``subject``, ``modality``, ``region``, ``label``, ``hemisphere``, ``tissue``,
        ``lobe``, ``z`` (standard normal), ``observed`` and ``expected`` (modality's unit); with
        voxels also ``mean_z`` and ``n_voxels``, NaN in modalities of regions.
        See :func:`parcellate` for an example.
        """
        people, columns = self.z.index, self.z.columns
        facts = self._facts()
        return pd.DataFrame({
            "subject": np.repeat(people.to_numpy(), len(columns)),
            "modality": np.tile(columns.get_level_values(0), len(people)),
            "region": np.tile(columns.get_level_values(1), len(people)),
            **{name: np.tile(facts[name].to_numpy(), len(people)) for name in _FACTS},
            **{name: getattr(self, name).to_numpy().ravel()
               for name in ("z", "observed", "expected")},
            **self._of_voxels()})

    def summarise(self, by: str = "lobe", *, threshold: float = 1.96) -> pd.DataFrame:
        r"""Mean z and share of extreme regions per person and lobe, tissue or hemisphere.

        .. math:: \bar z_{iu} = \frac{1}{|R_{iu}|} \sum_{r \in R_{iu}} z_{ir} \qquad
                  s_{iu} = \frac{1}{|R_{iu}|} \sum_{r \in R_{iu}} [\,|z_{ir}| > t\,]

        over the regions :math:`R_{iu}` of unit u measured in person i, each counted once whatever
        its volume. **A mean z is not N(0, 1)**: its spread in healthy people lies between
        :math:`1/\sqrt{|R|}` and 1, by how correlated the regions are. So 1.96 means nothing for
        it; compare people with each other, for example with the controls.

        Parameters
        ----------
        by : {"lobe", "tissue", "hemisphere"}
            Regions without such a unit (a ventricle has no lobe) are left out.
        threshold : float
            Of \|z\|.

        Returns
        -------
        DataFrame
            Columns ``subject``, ``modality``, ``by``, ``mean_z``, ``share_extreme`` (0 to 1) and
            ``n_regions`` measured. A unit that was not measured at all has no row.

        Raises
        ------
        CohortError
            If ``by`` is something else.

        Examples
        --------
        >>> from normfuse.testing import tiny_deviations
        >>> regions = pd.DataFrame({"name": ["insula", "cuneus"], "hemisphere": ["left", "right"],
        ...                         "tissue": "cortex", "lobe": ["insula", "occipital"]}, [35, 5])
        >>> regional = RegionalDeviations(tiny_deviations(), "toy", regions)
        >>> regional.summarise("tissue")[["subject", "modality", "mean_z", "share_extreme"]]
          subject modality  mean_z  share_extreme
        0   sub-b       t1   -1.10            0.5
        1   sub-b      pet    2.10            1.0
        2   sub-a       t1   -0.25            0.0
        """
        if by not in UNITS:
            raise CohortError(f"by is one of {', '.join(UNITS)}; got {by!r}")
        rows = self.table.dropna(subset=["z", by])
        rows = rows.assign(extreme=rows["z"].abs() > threshold)
        grouped = rows.groupby(["subject", "modality", by], sort=False)
        return grouped.agg(mean_z=("z", "mean"), share_extreme=("extreme", "mean"),
                           n_regions=("z", "size")).reset_index()

    def _of_voxels(self) -> dict[str, np.ndarray]:
        if self.mean_z is None or self.n_voxels is None:
            return {}
        columns = self.z.columns
        counts = self.n_voxels.T.stack().reindex(columns).to_numpy()
        return {"mean_z": self.mean_z.reindex(columns=columns).to_numpy().ravel(),
                "n_voxels": np.tile(counts, len(self.z))}

    def _facts(self) -> pd.DataFrame:
        by_name = self.regions.assign(label=self.regions.index).set_index("name")
        return by_name.loc[self.z.columns.get_level_values(1), list(_FACTS)]

    def __repr__(self) -> str:
        n_regions = self.z.columns.get_level_values(1).nunique()
        return (f"<RegionalDeviations of {len(self)} subjects in {n_regions} of "
                f"{len(self.regions)} regions of {short(self.atlas)}: {some(self.modalities)}; "
                f"{len(self.unmatched)} features left out>")

    def _repr_html_(self) -> str:
        facts = self._facts().assign(modality=self.z.columns.get_level_values(0))
        counts = pd.crosstab(facts["tissue"].fillna("unknown"), facts["modality"])
        return Card("RegionalDeviations", repr(self).strip("<>").partition(" ")[2],
                    deviations_card(self.deviations).facts,
                    {"regions per tissue and modality": counts}, self.reference.notes).html()


def parcellate(deviations: Deviations, atlas: Atlas | str, *, how: RegionMean = WeightedMean(),
               least: int = 1) -> RegionalDeviations:
    r"""The deviations of an atlas's regions: named features as they are, voxels averaged.

    Region tables already hold one value a region: nothing is averaged, and names must be equal
    letter by letter, because a near match can be the other hemisphere.

    Of a modality of voxels, observed and expected are averaged in the modality's unit. A mean of z
    is not standard normal, since the voxels of a region are neither independent nor the same; so
    it is judged by the n held-out controls' means of the same region:

    .. math:: m_{ir} = \operatorname{mean}_{v \in r} z_{iv}, \qquad
              t_{ir} = \frac{m_{ir} - \bar m_r}{s_r \sqrt{1 + 1/n}}, \qquad
              z_{ir} = \Phi^{-1}(T_{n-1}(t_{ir}))

    with mean and sd of the controls' :math:`m_r`; each control is judged by the other n - 1. The
    controls are ``deviations.controls`` or, without those, the people of ``deviations`` themselves
    who were held out for calibration. Without either, z is NaN and ``mean_z`` holds the means.

    z rather than residuals in units are averaged, because their spread is already the same at
    every age, site and combination of modalities.

    Parameters
    ----------
    deviations : Deviations
        Columns (modality, feature); one region may occur in several modalities. Features are
        voxels if ``reference.modalities[name]["space"]`` says where they are.
    atlas : Atlas or str
        An atlas, or the name of one to load; its ``name`` and its ``regions`` (index label
        number, column ``name`` and others).
    how : RegionMean
        ``WeightedMean()`` or ``RobustMean()`` over a region's voxels.
    least : int
        Voxels a region must have.

    Returns
    -------
    RegionalDeviations
        The features that are no region of the atlas are in its ``unmatched``, with a warning. Of
        voxels, every region has its column: NaN if it has too few voxels, with a warning.
        Conformal p-values are of voxels and left out.

    Raises
    ------
    AtlasError
        If no feature is a region of the atlas, or no voxel lies in one.
    SpaceMismatchError
        If voxels and atlas are said to lie in different spaces.

    References
    ----------
    The t law of a new value beside n others: any textbook; Crawford and Howell (1998),
    doi:10.1076/clin.12.4.482.7241, brought it to single patients. We map its probability to z.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from normfuse.testing import tiny_deviations
    >>> regions = pd.DataFrame({"name": ["cuneus", "insula"], "hemisphere": "left",
    ...                         "tissue": "cortex", "lobe": ["occipital", "insula"],
    ...                         "volume_ml": [2.9, 6.4]}, index=[1005, 1035])
    >>> regional = parcellate(tiny_deviations(), SimpleNamespace(name="toy", regions=regions))
    >>> regional.table[["subject", "modality", "region", "label", "z"]].head(2)
      subject modality  region  label    z
    0   sub-b       t1  insula   1035 -2.5
    1   sub-b       t1  cuneus   1005  0.3

    Voxels; some small regions have none of 8 mm, which a warning says:

    >>> from normfuse.testing import tiny_voxel_deviations
    >>> with warnings.catch_warnings(action="ignore"):
    ...     regional = parcellate(tiny_voxel_deviations(), "dk")
    >>> people = regional.with_controls()
    >>> [round(float(np.nanstd(table)), 1) for table in (people.z, people.mean_z)]
    [1.0, 0.6]
    """
    if isinstance(atlas, str):
        atlas = load_atlas(atlas)
    spaces = voxel_spaces(deviations)
    columns = _columns(deviations, leave_out=set(spaces))
    known = columns.get_level_values(1).isin(atlas.regions["name"])
    if not spaces and not known.any():
        raise AtlasError(f"none of the {len(columns)} features is a region of atlas {atlas.name}: "
                         f"features are called {listed(columns.get_level_values(1).unique(), 3)}, "
                         f"regions {listed(atlas.regions['name'], 3)}; rename the features, or "
                         "choose the atlas they were made with")
    unmatched = tuple((str(key[0]), str(key[1])) for key in columns[~known])
    if unmatched:
        warnings.warn(f"{len(unmatched)} of {len(columns)} features are not regions of atlas "
                      f"{atlas.name} and were left out: "
                      f"{listed(f'{m} {f}' for m, f in unmatched)}", stacklevel=2)
    made = {name: regions_of_voxels(deviations, name, space, atlas, how=how, least=least)
            for name, space in spaces.items()}
    kept = _restricted(deviations, columns[known])
    if kept.controls is not None:
        kept = kept.changed(controls=_restricted(kept.controls, columns[known]))
    if not made:
        return RegionalDeviations(kept, atlas.name, atlas.regions, unmatched)
    return RegionalDeviations(with_regions(kept, made, deviations.modalities, atlas.name,
                                           repr(how)), atlas.name, atlas.regions, unmatched,
                              *_facts_of_voxels(made))


def _facts_of_voxels(made: dict[str, VoxelRegions]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Voxels of each region, and everybody's mean z, by modality."""
    counts = pd.DataFrame({name: found.n_voxels for name, found in made.items()})
    means = pd.concat({name: found.mean_z for name, found in made.items()}, axis=1,
                      names=["modality", "feature"])
    return counts, means


def _columns(deviations: Deviations, leave_out: set[str]) -> pd.MultiIndex:
    """(modality, feature) of the other modalities; nothing is read from disk."""
    pairs = [(m, str(f)) for m, block in deviations.blocks().as_is().items()
             if m not in leave_out for f in block.columns]
    return pd.MultiIndex.from_tuples(pairs or [("", "")], names=["modality", "feature"])[
        :len(pairs)]


def _restricted(deviations: Deviations, columns: pd.Index) -> Deviations:
    """To these columns, in memory."""
    people, modalities = deviations.subjects.index, list(columns.get_level_values(0).unique())

    def kept(name: str) -> pd.DataFrame:
        blocks = deviations.blocks(name)
        found = {m: blocks[m].loc[people] for m in modalities}
        return pd.concat(found, axis=1, names=columns.names)[columns] if found else pd.DataFrame(
            index=people, columns=columns, dtype=float)

    return deviations.changed(**{name: kept(name) for name in MAPS})

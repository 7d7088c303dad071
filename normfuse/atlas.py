"""Brain regions: a labels image, what each label is called, and where both come from."""
from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atlas_checks import (centroids_of, check_labels, check_same_labels, check_sides,
                           check_table, similar)
from .atlas_parts import UNKNOWN_SPACE, fetched, from_file
from .cards import Card, short
from .errors import AtlasError, SpaceMismatchError, listed

if TYPE_CHECKING:  # nibabel, pandas and scipy load inside the functions: importing stays fast
    import pandas as pd
    from nibabel.nifti1 import Nifti1Image

    from .space import Space


@dataclass(frozen=True, eq=False)
class Atlas:
    r"""Named regions of the brain on a grid in a stated space.

    The constructor checks that the image and the table speak of the same labels, and that left is
    left: the centroid of every left region lies at :math:`x < 0` and of every right one at
    :math:`x > 0`, with

    .. math:: x_r = \frac{1}{|r|}\sum_{v \in r} (A\,v)_1

    for affine :math:`A`. A widely copied white-matter atlas has a header that fails this.

    Parameters
    ----------
    name : str
        Short name (``"dk"``).
    labels_img : Nifti1Image, shape (i, j, k)
        Whole numbers; 0 is outside every region. Affine in mm, x to the right.
    regions : DataFrame, shape (n_regions, 5 or more)
        Index: label number. Columns ``name``, ``hemisphere`` (``left``, ``right``, ``midline``,
        or NaN where nobody said), ``tissue``, ``lobe`` (NaN where none applies) and ``volume_ml``
        (mL).
    space : str
        Template space in TemplateFlow's words, such as ``"MNI152NLin6Asym"``.
    licence, citation : str
        Terms of use, and what to cite.
    notes : tuple of str
        What was assumed or left out when it was loaded.

    Raises
    ------
    AtlasError
        Image and table disagree, a name occurs twice, or left and right are exchanged.

    References
    ----------
    TemplateFlow's names of spaces: Ciric et al. (2022), doi:10.1038/s41592-022-01681-2.

    Examples
    --------
    >>> import nibabel as nib, pandas as pd
    >>> labels = np.zeros((4, 3, 2), dtype="int16"); labels[0] = 7; labels[3] = 300
    >>> affine = np.array([[2., 0, 0, -3], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    >>> regions = pd.DataFrame({"name": ["Left-A", "Right-A"], "hemisphere": ["left", "right"],
    ...                         "tissue": "cortex", "lobe": "frontal", "volume_ml": 0.048},
    ...                        index=[7, 300])
    >>> toy = Atlas("toy", nib.Nifti1Image(labels, affine), regions, "MNI152NLin6Asym", "CC0", "")
    >>> toy.region_numbers(["Right-A"]).tolist()
    [300]
    >>> float(toy.paint({"Left-A": -1.5}).dataobj[0, 0, 0])
    -1.5
    """

    name: str
    labels_img: Nifti1Image
    regions: pd.DataFrame
    space: str
    licence: str
    citation: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_table(self.name, self.regions)
        labels = np.asanyarray(self.labels_img.dataobj)
        check_labels(self.name, labels)
        centroids = centroids_of(labels, self.labels_img.affine)
        check_same_labels(self.name, set(centroids), set(self.regions.index))
        check_sides(self.name, self.regions, centroids)

    @property
    def labels(self) -> np.ndarray:
        """The label of each voxel, integer, shape (i, j, k)."""
        return np.asanyarray(self.labels_img.dataobj)

    def centroids(self) -> pd.DataFrame:
        """Centre of each region: columns ``x``, ``y``, ``z`` in mm, index as ``regions``.

        Examples
        --------
        >>> import nibabel as nib
        >>> import pandas as pd
        >>> labels = np.zeros((3, 4, 5), np.int32)
        >>> labels[2, 1:3] = 7
        >>> img = nib.Nifti1Image(labels, np.diag([2.0, 2, 2, 1]))
        >>> regions = pd.DataFrame({"name": ["insula"], "hemisphere": "right", "tissue": "cortex",
        ...                         "lobe": "insula", "volume_ml": 0.08}, index=[7])
        >>> atlas = Atlas("toy", img, regions, "MNI152NLin6Asym", "none", "nobody")
        >>> atlas.centroids().loc[7].tolist()
        [4.0, 3.0, 4.0]
        """
        import pandas as pd

        found = pd.DataFrame.from_dict(centroids_of(self.labels, self.labels_img.affine),
                                       orient="index", columns=["x", "y", "z"])
        return found.loc[self.regions.index]

    def region_numbers(self, names: Iterable[str]) -> np.ndarray:
        """Label numbers of the named regions, in the order asked.

        Raises
        ------
        AtlasError
            For a name the atlas does not know; similar names are offered.
        """
        wanted = [names] if isinstance(names, str) else [str(name) for name in names]
        number_of = {name: number for number, name in self.regions["name"].items()}
        unknown = [name for name in wanted if name not in number_of]
        if unknown:
            alike = similar(unknown[0], list(number_of))
            hint = f"did you mean {listed(alike)}?" if alike else "see atlas.regions['name']"
            raise AtlasError(f"atlas {self.name} has no region {listed(unknown)}; {hint}")
        return np.array([number_of[name] for name in wanted], dtype=np.int64)

    def paint(self, values: Mapping[str, float] | pd.Series, *,
              background: float = np.nan) -> Nifti1Image:
        """A map that holds each region's value in all of its voxels.

        Parameters
        ----------
        values : Mapping or Series of float
            Region name -> value, in any unit; regions may be left out.
        background : float
            Value of every voxel without one. NaN by default, because 0 is a possible deviation:
            a region exactly as expected must not look like a region that was never measured.
            Use 0 for programs that cannot read NaN, and for nilearn's plots, which warn of it.

        Returns
        -------
        Nifti1Image of float32, on the grid of ``labels_img``

        Raises
        ------
        AtlasError
            For an unknown name, or a name that occurs twice.
        """
        import nibabel as nib
        import pandas as pd

        series = pd.Series(values, dtype="float64")
        if series.index.has_duplicates:
            twice = series.index[series.index.duplicated()].unique()
            raise AtlasError(f"more than one value for {listed(twice)}; each region needs one")
        value_of = np.full(len(self.regions) + 1, background, dtype=np.float32)
        rows = self.regions.index.get_indexer(pd.Index(self.region_numbers(series.index)))
        value_of[rows + 1] = series.to_numpy(dtype=np.float32)
        image = nib.Nifti1Image(value_of[self._rows], self.labels_img.affine,
                                self.labels_img.header)
        image.set_data_dtype(np.float32)
        image.header["descrip"] = b""
        return image

    @cached_property
    def _rows(self) -> np.ndarray:
        """Row of each voxel's region, counted from 1; 0 outside. Shape (i, j, k).

        By search, because label numbers may be far apart: some atlases number in the millions.
        """
        import pandas as pd

        numbers, at = np.unique(self.labels, return_inverse=True)
        rows = self.regions.index.get_indexer(pd.Index(numbers)).astype(np.int32) + 1
        return rows[at].reshape(self.labels.shape)

    def on(self, space: Space, *, least: int = 1) -> np.ndarray:
        r"""The label of each voxel of another grid: that of the nearest atlas voxel.

        .. math:: \ell'(v) = \ell(\lfloor A^{-1} B\, v + \tfrac12 \rfloor)

        for the atlas's affine :math:`A` and the grid's :math:`B`; 0 outside the atlas. Numbers are
        carried over, never counted anew. A region of which fewer than ``least`` voxels are left
        has none: a warning names it.

        Parameters
        ----------
        space : Space
            Its ``mask``'s voxels are looked up, in its order.
        least : int
            Voxels a region must keep, 1 or more.

        Returns
        -------
        ndarray of int, shape (n_voxels,)

        Raises
        ------
        SpaceMismatchError
            If atlas and voxels are said to lie in different spaces that are not both MNI.
        AtlasError
            If no region is left.

        Examples
        --------
        >>> from normfuse.space import Space
        >>> eight_mm = np.diag([8.0, 8, 8, 1]); eight_mm[:3, 3] = (-72, -108, -72)
        >>> space = Space(np.ones((19, 23, 21), bool), eight_mm, "MNI152NLin6Asym")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     labels = load_atlas("dk").on(space)
        >>> str(caught[0].message)[:61]
        'atlas dk: of 178 regions, 8 have no voxel among the 9177 of 8'
        """
        self._check_space(space)
        at = space.coordinates() - self.labels_img.affine[:3, 3]
        at = at @ np.linalg.inv(self.labels_img.affine[:3, :3]).T
        # Headers hold single precision: without the rounding, voxels half-way between two of the
        # atlas would fall to either by chance. Half always goes up: no row of voxels is skipped.
        nearest = np.floor(at.round(3) + 0.5).astype(int)
        inside = ((nearest >= 0) & (nearest < self.labels.shape)).all(axis=1)
        labels = np.zeros(len(nearest), dtype=np.int64)
        labels[inside] = self.labels[tuple(nearest[inside].T)]
        numbers, counts = np.unique(labels, return_counts=True)
        few = self.regions.index[~self.regions.index.isin(numbers[counts >= max(least, 1)])]
        if len(few):
            self._report_few(few, space, max(least, 1))
        labels[np.isin(labels, few)] = 0
        return labels

    def _report_few(self, few: pd.Index, space: Space, least: int) -> None:
        wanted = "no voxel" if least == 1 else f"fewer than {least} voxels"
        size = " x ".join(f"{side:g}" for side in space.voxel_size)
        said = (f"atlas {self.name}: of {len(self.regions)} regions, {len(few)} have {wanted} "
                f"among the {space.n_voxels} of {size} mm: "
                f"{listed(self.regions.loc[few, 'name'], 12)}")
        if len(few) == len(self.regions):
            raise AtlasError(f"{said}; do atlas ({self.space}) and voxels ({space.name}) lie in "
                             "the same space?")
        warnings.warn(f"{said}; their values will be NaN. Use smaller voxels, a wider mask or an "
                      "atlas of larger regions if they matter", stacklevel=3)

    def _check_space(self, space: Space) -> None:
        if self.space == space.name or self.space == UNKNOWN_SPACE:
            return
        theirs, ours = f"the voxels lie in {space.name}", f"atlas {self.name} in {self.space}"
        if not (self.space.startswith("MNI") and space.name.startswith("MNI")):
            raise SpaceMismatchError(f"{theirs}, {ours}; they cannot be matched by affine. Use an "
                                     "atlas of that space, or register it and say so: "
                                     f"load_atlas(path, space={space.name!r})")
        warnings.warn(f"{theirs}, {ours}: templates of one family whose anatomy differs by a few "
                      "mm. Large regions bear it; for small ones take the atlas's version in "
                      "that space", stacklevel=3)

    def __repr__(self) -> str:
        return (f"<Atlas {short(self.name)}: {len(self.regions)} regions in "
                f"{short(self.space)}>")

    def _repr_html_(self) -> str:
        known = self.regions["tissue"].fillna("unknown")
        tissue = self.regions.groupby(known)["volume_ml"].agg(["size", "sum"]).round(0)
        tissue = tissue.astype(int).set_axis(["regions", "mL"], axis=1)
        return Card("Atlas", f"{self.name}: {len(self.regions)} regions in {self.space}",
                    {"licence": self.licence, "citation": self.citation}, {"": tissue},
                    self.notes).html()


def load_atlas(name_or_path: str | Path, table: str | Path | pd.DataFrame | None = None, *,
               space: str | None = None, unmirror: bool = False) -> Atlas:
    """An atlas by name, or of any labels image and table.

    ``"dk"`` is FreeSurfer's Desikan-Killiany cortex and subcortex, with white matter split by its
    nearest gyrus, built on this machine at first use and cached after; see
    :mod:`normfuse.desikan` for the rule. No image is shipped with normfuse. The names in
    :data:`normfuse.fetched_atlases.SOURCES` (``"schaefer_100"``, ``"aal"``, …) are fetched by
    nilearn when first asked for. Anything else is the path of an image.

    Parameters
    ----------
    name_or_path : str or Path
        A name, or a volume of whole numbers (NIfTI and what else nibabel reads).
    table : path or DataFrame, optional
        What each number is called, joined by number; see
        :func:`normfuse.label_tables.read_label_table` for the formats. By default the table of
        the image's name beside it (``labels.tsv`` of ``labels.nii.gz``); without one, regions
        are called by their numbers, with a warning, and sides cannot be checked.
    space : str, optional
        Template space of the image in TemplateFlow's words. By default what its file name says;
        else it is taken for MNI, which ``notes`` says.
    unmirror : bool
        Exchange left and right in the header of an image whose names are known to be right.

    Raises
    ------
    AtlasError
        If the name is unknown or its source not at hand; if the image holds no labels, the table
        lacks one, or left and right are exchanged.

    References
    ----------
    Desikan et al. (2006), doi:10.1016/j.neuroimage.2006.01.021. We differ by the white-matter
    labels and by dropping the two ``unknown`` cortical labels.

    Examples
    --------
    >>> atlas = load_atlas("dk")
    >>> len(atlas.regions), atlas.regions.loc[17, "name"], atlas.regions.loc[3035, "lobe"]
    (178, 'Left-Hippocampus', 'insula')
    """
    if _is_path(name_or_path):
        return Atlas(**vars(from_file(Path(name_or_path), table, space, unmirror)))
    name = str(name_or_path)
    if table is not None or space is not None or unmirror:
        raise AtlasError(f"atlas {name!r} is known by name and has its own table and "
                         "space; table, space and unmirror belong to the path of an image, such "
                         "as ./labels.nii.gz")
    known = _registry()
    if name not in known:
        return Atlas(**vars(fetched(name, list(known))))
    from .desikan import build_labels, region_table

    row = known[name]
    labels_img = build_labels()
    return Atlas(name, labels_img, region_table(labels_img), row["space"], row["licence"],
                 row["citation"])


def _is_path(given: str | Path) -> bool:
    return isinstance(given, os.PathLike) or any(
        mark in given for mark in (os.sep, "/", ".nii", ".mg", ".img", ".hdr"))


def _registry() -> dict[str, dict[str, str]]:
    with (files("normfuse.atlases") / "registry.tsv").open(encoding="utf-8") as stream:
        return {row["name"]: row for row in csv.DictReader(stream, delimiter="\t")}

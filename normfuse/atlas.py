"""Brain regions: a labels image, what each label is called, and where both come from."""
from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from .errors import AtlasError, listed

if TYPE_CHECKING:  # nibabel, pandas and scipy load inside the functions: importing stays fast
    import pandas as pd
    from nibabel.nifti1 import Nifti1Image

REGION_COLUMNS = ("name", "hemisphere", "tissue", "lobe", "volume_ml")


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
        Index: label number. Columns ``name``, ``hemisphere`` (``left``, ``right`` or
        ``midline``), ``tissue``, ``lobe`` (NaN where none applies) and ``volume_ml`` (mL).
    space : str
        Template space in TemplateFlow's words, such as ``"MNI152NLin6Asym"``.
    licence, citation : str
        Terms of use, and what to cite.

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

    def __post_init__(self) -> None:
        _check_table(self.name, self.regions)
        labels = np.asanyarray(self.labels_img.dataobj)
        if not np.issubdtype(labels.dtype, np.integer):
            raise AtlasError(f"atlas {self.name}: labels must be whole numbers, not "
                             f"{labels.dtype}; resample with interpolation='nearest' and save "
                             "as int16 or int32")
        if labels.ndim != 3:
            raise AtlasError(f"atlas {self.name}: the labels image must have 3 axes, not "
                             f"{labels.ndim}; overlapping or probabilistic maps are not labels")
        centroids = _centroids(labels, self.labels_img.affine)
        _check_same_labels(self.name, set(centroids), set(self.regions.index))
        _check_sides(self.name, self.regions, centroids)

    @property
    def labels(self) -> np.ndarray:
        """The label of each voxel, integer, shape (i, j, k)."""
        return np.asanyarray(self.labels_img.dataobj)

    def centroids(self) -> pd.DataFrame:
        """Centre of each region: columns ``x``, ``y``, ``z`` in mm, index as ``regions``."""
        import pandas as pd

        found = pd.DataFrame.from_dict(_centroids(self.labels, self.labels_img.affine),
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
            similar = _similar(unknown[0], list(number_of))
            hint = f"did you mean {listed(similar)}?" if similar else "see atlas.regions['name']"
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
        labels = self.labels
        # Atlases number labels in the thousands at most, so a direct table is the quickest join.
        value_of = np.full(int(labels.max()) + 1, background, dtype=np.float32)
        value_of[self.region_numbers(series.index)] = series.to_numpy(dtype=np.float32)
        image = nib.Nifti1Image(value_of[labels], self.labels_img.affine, self.labels_img.header)
        image.set_data_dtype(np.float32)
        image.header["descrip"] = b""
        return image

    def __repr__(self) -> str:
        return f"<Atlas {self.name}: {len(self.regions)} regions in {self.space}>"

    def _repr_html_(self) -> str:
        tissue = self.regions.groupby("tissue")["volume_ml"].agg(["size", "sum"]).round(0)
        tissue = tissue.astype(int).set_axis(["regions", "mL"], axis=1)
        return (f"<b>Atlas {escape(self.name)}</b>: {len(self.regions)} regions in "
                f"{escape(self.space)}{tissue.to_html()}"
                f"<small>{escape(self.licence)}. {escape(self.citation)}</small>")


def load_atlas(name: str) -> Atlas:
    """The atlas of that name, built on this machine at first use and cached after.

    ``"dk"`` is FreeSurfer's Desikan-Killiany cortex and subcortex, with white matter split by its
    nearest gyrus; see :mod:`normfuse.desikan` for the rule. No image is shipped with normfuse.

    Parameters
    ----------
    name : str
        A name in the first column of ``atlases/registry.tsv``.

    Raises
    ------
    AtlasError
        If the name is unknown, or its source package is not installed.

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
    known = _registry()
    if name not in known:
        raise AtlasError(f"there is no atlas {name!r}; the known ones are {listed(known, 20)}")
    from .desikan import build_labels, region_table

    row = known[name]
    labels_img = build_labels()
    return Atlas(name, labels_img, region_table(labels_img), row["space"], row["licence"],
                 row["citation"])


def _registry() -> dict[str, dict[str, str]]:
    with (files("normfuse.atlases") / "registry.tsv").open(encoding="utf-8") as stream:
        return {row["name"]: row for row in csv.DictReader(stream, delimiter="\t")}


def _check_table(name: str, regions: pd.DataFrame) -> None:
    missing = [column for column in REGION_COLUMNS if column not in regions.columns]
    if missing:
        raise AtlasError(f"atlas {name}: the region table lacks {listed(missing)}; its columns "
                         f"must be {', '.join(REGION_COLUMNS)}")
    if not (regions.index.to_series() > 0).all():
        raise AtlasError(f"atlas {name}: label {regions.index.min()} is in the region table; "
                         "numbers must be 1 or more (0 is outside every region)")
    for what, values in (("label number", regions.index), ("name", regions["name"])):
        twice = values[values.duplicated()]
        if len(twice):
            raise AtlasError(f"atlas {name}: the {what} {listed(twice)} occurs twice in the "
                             "region table; each region needs its own")


def _centroids(labels: np.ndarray, affine: np.ndarray) -> dict[int, np.ndarray]:
    """World x, y, z of each label's centroid, mm."""
    voxels = np.nonzero(labels)
    numbers, member, counts = np.unique(labels[voxels], return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(member, weights=axis) / counts for axis in voxels], axis=1)
    return dict(zip(numbers.tolist(), means @ affine[:3, :3].T + affine[:3, 3]))


def _check_same_labels(name: str, in_image: set[int], in_table: set[int]) -> None:
    for where, extra in (("table", in_image - in_table), ("image", in_table - in_image)):
        if extra:
            raise AtlasError(f"atlas {name}: label {listed(sorted(extra))} is missing from the "
                             f"{where}; image and table must hold the same labels")


def _check_sides(name: str, regions: pd.DataFrame, centroids: Mapping[int, np.ndarray]) -> None:
    sign = regions["hemisphere"].map({"left": -1.0, "right": 1.0}).fillna(0.0)
    x = np.array([centroids[number][0] for number in regions.index])
    wrong = sign.to_numpy() * x < 0
    if wrong.any():
        first = int(np.argmax(wrong))
        all_wrong = bool(wrong[sign != 0].all())
        advice = ("the header mirrors left and right: correct its affine before use" if all_wrong
                  else "correct the hemisphere of those regions in the table")
        raise AtlasError(
            f"atlas {name}: {int(wrong.sum())} of {int((sign != 0).sum())} left or right regions "
            f"lie on the other side ({regions['name'].iloc[first]} is centred at "
            f"x = {x[first]:+.1f} mm; left must be below 0); {advice}")


def _similar(name: str, known: list[str]) -> list[str]:
    low = {k.lower(): k for k in known}
    inside = [k for lowered, k in low.items() if name.lower() in lowered] if name else []
    return (inside or [low[m] for m in get_close_matches(name.lower(), low, cutoff=0.5)])[:4]

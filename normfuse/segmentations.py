"""What each voxel of people's brains was labelled as: by hand, by a simulation, or by a model."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .cards import Card, some
from .errors import CohortError, SpaceMismatchError, listed, perhaps
from .outputs import file_stem, new_folder
from .segmentation_files import read_label_images, read_uncertainty
from .space import Space
from .volumes.pattern import find_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from nibabel.nifti1 import Nifti1Image

TUMOUR_GROUPS: Mapping[str, tuple[str, ...]] = {
    "whole tumour": ("core", "oedema", "enhancing"), "tumour core": ("core", "enhancing"),
    "enhancing tumour": ("enhancing",)}
"""The regions that the Brain Tumour Segmentation challenge (BraTS) scores."""


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Labels of people's voxels on one space.

    Parameters
    ----------
    ids : tuple of str
    labels : ndarray of uint8, shape (n_people, space.n_voxels)
        0: background.
    space : Space
    names : dict of int
        Name of a label -> its number, 1 to 255.
    uncertainty : ndarray of float32, shape (n_people, space.n_voxels), optional
        Entropy of the labels' probabilities as a share of the largest one possible, 0 to 1.
    notes : tuple of str
        What was left out on the way.

    Raises
    ------
    CohortError
        For ids, names or arrays that do not fit each other.

    Examples
    --------
    >>> space = Space(np.ones((1, 2, 3), bool), np.diag([2.0, 2, 2, 1]), "MNI152NLin2009aSym")
    >>> truth = Segmentations(("s1", "s2"), np.array([[1, 1, 2, 0, 0, 0], [0] * 6]), space,
    ...                       {"core": 1, "oedema": 2})
    >>> truth.volumes()
         core  oedema
    s1  0.016   0.008
    s2  0.000   0.000
    >>> guess = Segmentations(("s2", "s1"), np.array([[0] * 6, [1, 2, 2, 2, 0, 0]]), space,
    ...                       {"core": 1, "oedema": 2})
    >>> truth.dice(guess).round(3)
         core  oedema
    s1  0.667     0.5
    s2    NaN     NaN
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    space: Space
    names: Mapping[str, int]
    uncertainty: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(str(i) for i in self.ids))
        object.__setattr__(self, "names", checked_names(self.names))
        if len(set(self.ids)) < len(self.ids):
            twice = sorted({i for i in self.ids if self.ids.count(i) > 1})
            raise CohortError(f"segmentations hold {listed(twice)} twice; a person has one")
        labels = np.asarray(self.labels)
        self._refuse_shape("labels", labels)
        extra = np.setdiff1d(labels, [0, *self.names.values()]).tolist()
        if extra:
            raise CohortError(f"labels hold {listed(extra)}, which names does not name: "
                              f"{dict(self.names)}")
        self._keep("labels", labels.astype(np.uint8, copy=False))
        if self.uncertainty is not None:
            uncertainty = np.asarray(self.uncertainty, dtype=np.float32)
            self._refuse_shape("uncertainty", uncertainty)
            if uncertainty.size and not (uncertainty.min() >= 0 and uncertainty.max() <= 1.001):
                raise CohortError("uncertainty is a share of the largest entropy, 0 to 1; got "
                                  f"{uncertainty.min():g} to {uncertainty.max():g}")
            self._keep("uncertainty", uncertainty)

    def _refuse_shape(self, what: str, given: np.ndarray) -> None:
        wanted = (len(self.ids), self.space.n_voxels)
        if given.shape != wanted:
            raise CohortError(f"{what} of {wanted[0]} people and {wanted[1]} voxels were "
                              f"expected, shape {wanted}; got {given.shape}")

    def _keep(self, name: str, values: np.ndarray) -> None:
        """As a view that cannot be written to."""
        view = values.view()
        view.setflags(write=False)
        object.__setattr__(self, name, view)

    @classmethod
    def read(cls, files: str | Mapping[str, str | Path], space: Space,
             names: Mapping[str, int], *, ids: Iterable[str] | None = None) -> Segmentations:
        """Read a label image a person. Labels are never interpolated.

        If ``…_uncertainty.nii.gz`` stands beside everybody's ``…_dseg.nii.gz``, as written by
        :meth:`write`, it is read too.

        Parameters
        ----------
        files : str or dict of path
            A pattern with ``{id}``, as in ``cohort.toml``, ``"seg/{id}_dseg.nii.gz"``; or id ->
            path. Images may be turned, mirrored with their header, or cropped, but on the voxels
            of the space.
        space : Space
            As ``cohort.modality("FLAIR").space``. Labels outside its mask are left out, and
            ``notes`` says how many.
        names : dict of int
            What the numbers mean; of a binary mask, ``{"lesion": 1}``.
        ids : iterable of str, optional
            Whose; needed for a pattern. Everybody must have a file.

        Raises
        ------
        ImageError
            For files that are absent or damaged, values that are no whole numbers or not among
            the names.
        SpaceMismatchError
            For images on other voxels.
        CohortError
            For patterns that fit nobody or several files, and ids without a path.

        Examples
        --------
        >>> import tempfile
        >>> from normfuse import simulate_images
        >>> made = simulate_images(2, contrasts=["T1w"], lesions="sclerosis", resolution=8)
        >>> truth = made.segmentations()
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = truth.write(Path(place, "truth"))
        ...     again = Segmentations.read(f"{folder}/{{id}}_dseg.nii.gz", truth.space,
        ...                                {"lesion": 1}, ids=truth.ids)
        >>> again
        <Segmentations of 2 people: lesion 1; 3666 voxels>
        """
        names = checked_names(names)
        paths = _paths(files, ids)
        labels, notes = read_label_images(paths, space, names)
        return cls(tuple(paths), labels, space, names, read_uncertainty(paths, space), notes)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, ids: Iterable[str]) -> Segmentations:
        """Some of the people, in that order.

        Examples
        --------
        >>> from normfuse.testing import tiny_segmentations
        >>> tiny_segmentations().select(["sub-03", "sub-01"]).mask("bright").sum(1)
        array([13, 60])
        """
        wanted = [str(i) for i in ids]
        rows = [self._row(i) for i in wanted]
        return Segmentations(tuple(wanted), self.labels[rows], self.space, self.names,
                             None if self.uncertainty is None else self.uncertainty[rows],
                             self.notes)

    def mask(self, what: str | Sequence[str]) -> np.ndarray:
        """Where a label is, or one of several; bool, shape (n_people, n_voxels)."""
        wanted = (what,) if isinstance(what, str) else tuple(what)
        unknown = [name for name in wanted if name not in self.names]
        if unknown or not wanted:
            raise CohortError(f"there is no label {listed(unknown) or 'asked for'}; there are "
                              f"{listed(self.names, 12)}{perhaps(unknown, self.names)}")
        return np.isin(self.labels, [self.names[name] for name in wanted])

    def volumes(self, groups: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
        """Volume of each label, or of each group of labels, in ml: one row a person.

        ``groups`` is name -> labels, such as ``TUMOUR_GROUPS``.
        """
        ml = abs(np.linalg.det(self.space.affine[:3, :3])) / 1000
        return pd.DataFrame({name: self.mask(what).sum(1) * ml
                             for name, what in self._groups(groups).items()}, list(self.ids))

    def dice(self, other: Segmentations, groups: Mapping[str, Sequence[str]] | None = None
             ) -> pd.DataFrame:
        r"""Agreement :math:`2 |A \cap B| / (|A| + |B|)` with another segmentation, by person.

        Where neither has a voxel of the label the result is NaN: nothing was there to agree on,
        and a 1 would let people without a lesion raise the mean. Where one alone has some it is 0.

        Parameters
        ----------
        other : Segmentations
            Of these people at least, on the same space; labels are matched by name.
        groups : dict, optional
            Name -> labels that count as one, such as ``TUMOUR_GROUPS``; default: each by itself.

        Raises
        ------
        SpaceMismatchError
            If the spaces differ.
        CohortError
            If ``other`` lacks people or labels.
        """
        if self.space != other.space:
            raise SpaceMismatchError(
                f"segmentations on different voxels cannot be compared: these are on "
                f"{self.space!r}, the others on {other.space!r}; read both with the same space")
        lacking = [i for i in self.ids if i not in set(other.ids)]
        if lacking:
            raise CohortError(f"the other segmentations lack {listed(lacking)}; compare those "
                              "that both have, with select(ids)")
        theirs, found = other.select(self.ids), {}
        for name, what in self._groups(groups).items():
            a, b = self.mask(what), theirs.mask(what)
            total = (a.sum(1) + b.sum(1)).astype(float)
            found[name] = np.divide(2 * (a & b).sum(1), total, where=total > 0,
                                    out=np.full(len(total), np.nan))
        return pd.DataFrame(found, list(self.ids))

    def img(self, who: str) -> Nifti1Image:
        """One person's labels as an image of uint8."""
        return labels_img(self.space, self.labels[self._row(who)])

    def write(self, folder: str | Path) -> Path:
        """One ``<id>_dseg.nii.gz`` a person and ``dseg.tsv``, which names the labels, as in BIDS;
        ``<id>_uncertainty.nii.gz`` if it is known.

        Returns
        -------
        Path
            The folder, which must be new.
        """
        import nibabel as nib

        stems = [file_stem(i) for i in self.ids]
        with new_folder(Path(folder)) as work:
            write_names(self.names, work / "dseg.tsv")
            for row, stem in enumerate(stems):
                nib.save(labels_img(self.space, self.labels[row]), work / f"{stem}_dseg.nii.gz")
                if self.uncertainty is not None:
                    nib.save(self.space.img(self.uncertainty[row]),
                             work / f"{stem}_uncertainty.nii.gz")
        return Path(folder)

    def plot(self, who: str, background: Any = None, *, ax: Axes | None = None) -> Axes:
        """Axial slices through one person's labels.

        Parameters
        ----------
        who : str
        background : ndarray, shape (n_voxels,), or image, optional
            What they are drawn on, as the person's FLAIR; default: the template.
        ax : Axes, optional

        Examples
        --------
        >>> from normfuse import simulate_images
        >>> made = simulate_images(1, lesions="tumour", resolution=8)
        >>> ax = made.segmentations().plot("sub-0001", made.scan(0).values["FLAIR"])
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['core', 'oedema', 'enhancing']
        """
        from .segmentation_figures import plot_labels

        row = self.labels[self._row(who)]
        return plot_labels(row, self.space, self.names, background, ax)

    def _groups(self, groups: Mapping[str, Sequence[str]] | None) -> Mapping[str, Sequence[str]]:
        return {name: (name,) for name in self.names} if groups is None else groups

    def _row(self, who: str) -> int:
        if who not in self.ids:
            raise CohortError(f"there is no segmentation of {who!r}{perhaps([who], self.ids)}; "
                              f"there are {listed(self.ids)}")
        return self.ids.index(who)

    def __repr__(self) -> str:
        told = some(f"{name} {number}" for name, number in self.names.items())
        return f"<Segmentations of {len(self)} people: {told}; {self.space.n_voxels} voxels>"

    def _repr_html_(self) -> str:
        ml = self.volumes()
        table = pd.DataFrame({"number": pd.Series(dict(self.names)), "people": (ml > 0).sum(),
                              "median ml": ml.where(ml > 0).median(),
                              "largest, ml": ml.max()}).rename_axis("label")
        return Card("Segmentations", f"of {len(self)} people", {
            "voxels": repr(self.space).strip("<>"),
            "uncertainty": "" if self.uncertainty is None else
            f"known; {self.uncertainty.mean():.3f} on average"}, {"": table}, self.notes).html()


def labels_img(space: Space, labels: np.ndarray) -> Nifti1Image:
    """An image of uint8 of one label a voxel of the space, 0 outside."""
    import nibabel as nib

    data = np.zeros(space.shape, dtype=np.uint8)
    data[space.mask] = labels
    made = nib.Nifti1Image(data, space.affine)
    space.set_transforms(made)
    return made


def write_names(names: Mapping[str, int], path: Path) -> None:
    """The table of labels that BIDS asks for beside them."""
    pd.DataFrame({"index": list(names.values()), "name": list(names)}).to_csv(path, sep="\t",
                                                                              index=False)


def checked_names(names: Mapping[str, int]) -> dict[str, int]:
    """Names of labels, if every one has a number of its own from 1 to 255.

    >>> checked_names({"core": 1, "oedema": 1})
    Traceback (most recent call last):
    normfuse.errors.CohortError: names of labels have different whole numbers from 1 to 255 (0 is \
background); got {'core': 1, 'oedema': 1}
    """
    fit = [isinstance(n, (int, np.integer)) and not isinstance(n, bool) and 1 <= n <= 255
           for n in names.values()]
    if not fit or not all(fit) or len(set(names.values())) < len(fit):
        raise CohortError("names of labels have different whole numbers from 1 to 255 (0 is "
                          f"background); got {dict(names)}")
    return {str(name): int(number) for name, number in names.items()}


def _paths(files: str | Mapping[str, str | Path], ids: Iterable[str] | None) -> dict[str, Path]:
    """The file of each person."""
    wanted = None if ids is None else [str(i) for i in ids]
    if isinstance(files, Mapping):
        given = {str(who): Path(path) for who, path in files.items()}
        lacking = [i for i in wanted or () if i not in given]
        if lacking or not given:
            raise CohortError(f"no segmentation was given for {listed(lacking) or 'anybody'}")
        return given if wanted is None else {i: given[i] for i in wanted}
    if not wanted:
        raise CohortError(f"whose files does {files!r} mean? Give ids, such as cohort.ids")
    found = find_files("segmentation", str(files), pd.DataFrame(index=wanted), Path())
    lacking = [i for i in wanted if i not in found]
    if lacking:
        raise CohortError(f"{len(lacking)} of {len(wanted)} people have no segmentation: "
                          f"{files!r} fits nothing for {listed(lacking)}; leave them out of ids")
    return {i: found[i] for i in wanted}

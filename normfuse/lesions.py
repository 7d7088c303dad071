"""Where a segmented lesion is among the voxels or regions of a model."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .blocks import Block
from .errors import AtlasError, CohortError, SpaceMismatchError, listed
from .space import Space

if TYPE_CHECKING:
    from .atlas import Atlas
    from .modality import Modality
    from .segmentations import Segmentations


def lesion_distances(segmentations: Segmentations, space: Space,
                     labels: str | Sequence[str] | None = None) -> pd.DataFrame:
    """mm from each voxel of a space to the lesion of each person.

    From the rim of the voxel (half its side) to the centre of the nearest labelled voxel, never
    below 0: 0 is a voxel that the lesion touches. Infinite in people without a lesion.

    Parameters
    ----------
    segmentations : Segmentations
        On these voxels or others of the same template space, such as finer ones.
    space : Space
    labels : str or sequence of str, optional
        What counts as lesion; by default every label.

    Returns
    -------
    DataFrame, shape (n_people, n_voxels)

    Raises
    ------
    SpaceMismatchError
        For segmentations in another template space, or one that does not reach over the voxels.

    Examples
    --------
    >>> from normfuse.segmentations import Segmentations
    >>> space = Space(np.ones((1, 1, 5), bool), np.diag([2.0, 2, 2, 1]), "MNI152NLin2009aSym")
    >>> found = Segmentations(("s1", "s2"), np.array([[1, 1, 0, 0, 0], [0] * 5]), space,
    ...                       {"lesion": 1})
    >>> lesion_distances(found, space).loc["s1"].tolist()
    [0.0, 0.0, 1.0, 3.0, 5.0]
    """
    own = segmentations.space
    if own.name != space.name:
        raise SpaceMismatchError(f"the segmentations are in {own.name}, the images in "
                                 f"{space.name}; bring both to one template space")
    ill = segmentations.mask(list(segmentations.names) if labels is None else labels)
    found = np.full((len(segmentations), space.n_voxels), np.inf, dtype=np.float32)
    at = _where(own, space)
    half = max(space.voxel_size) / 2
    for row, inside in zip(found, ill):
        if inside.any():
            row[:] = np.clip(_from(own, inside, at) - half, 0, None)
    return pd.DataFrame(found, list(segmentations.ids), space.features)


def _where(own: Space, space: Space) -> np.ndarray:
    """Where in the grid of segmentations the voxels of a space are, shape (3, n_voxels)."""
    back = np.linalg.inv(own.affine)
    at = back[:3, :3] @ space.coordinates().T + back[:3, 3:]
    beyond = np.maximum(-at, at - (np.array(own.shape)[:, None] - 1)).max()
    if beyond > 0.5 + 2 * max(space.voxel_size) / min(own.voxel_size):
        raise SpaceMismatchError(f"the segmentations' grid {own!r} does not reach over the "
                                 f"voxels of {space!r}; segment the whole brain, or read the "
                                 "images with a smaller mask")
    return at


def _from(own: Space, inside: np.ndarray, at: np.ndarray) -> np.ndarray:
    """mm to the nearest labelled voxel, at these places; cropped grids end at their rim."""
    from scipy.ndimage import distance_transform_edt, map_coordinates

    volume = np.ones(own.shape, bool)
    volume[own.mask] = ~inside
    away = distance_transform_edt(volume, own.voxel_size)
    return np.asarray(map_coordinates(away, at, order=1, mode="nearest"))


def lesion_shares(segmentations: Segmentations, atlas: Atlas,
                  labels: str | Sequence[str] | None = None) -> pd.DataFrame:
    """How much of each region of an atlas is lesion.

    Returns
    -------
    DataFrame, shape (n_people, n_regions)
        Shares from 0 to 1; NaN for regions without a voxel of the segmentations' space.

    Examples
    --------
    >>> import nibabel as nib
    >>> from normfuse import Atlas
    >>> from normfuse.segmentations import Segmentations
    >>> space = Space(np.ones((1, 1, 4), bool), np.eye(4), "MNI152NLin2009aSym")
    >>> found = Segmentations(("s1",), np.array([[1, 0, 0, 0]]), space, {"lesion": 1})
    >>> image = nib.Nifti1Image(np.array([[[7, 7, 3, 3]]], np.int16), np.eye(4))
    >>> regions = pd.DataFrame({"name": ["insula", "cuneus"], "hemisphere": "left",
    ...                         "tissue": "cortex", "lobe": "", "volume_ml": 0.002}, [7, 3])
    >>> atlas = Atlas("toy", image, regions, "MNI152NLin2009aSym", "CC0", "made up")
    >>> lesion_shares(found, atlas)
        insula  cuneus
    s1     0.5     0.0
    """
    from .parcels import Parcels, WeightedMean

    ill = segmentations.mask(list(segmentations.names) if labels is None else labels)
    parcels = Parcels.of(atlas, segmentations.space)
    return pd.DataFrame(WeightedMean().of(ill.astype(float), parcels), list(segmentations.ids),
                        list(atlas.regions["name"]))


def masked_blocks(blocks: Mapping[str, Block], modalities: Sequence[Modality],
                  segmentations: Segmentations, labels: str | Sequence[str] | None,
                  margin: float, atlas: Atlas | None, most: float) -> dict[str, Block]:
    """The tables of a cohort without what lies under lesions; see ``Cohort.masked``."""
    if not margin >= 0:
        raise CohortError(f"margin is in mm and not negative; got {margin}")
    if not 0 <= most < 1:
        raise CohortError(f"most is the share of a region that may be lesion, 0 to below 1; got "
                          f"{most}")
    tables = [m.name for m in modalities if m.space is None]
    if tables and atlas is None:
        raise CohortError(f"{listed(tables)} is a table of regions, not of voxels: say which "
                          "atlas's, masked(…, atlas=nf.load_atlas(\"dk\"))")
    found: dict[str, Block] = {}
    known: dict[Space, pd.DataFrame] = {}
    for m in modalities:
        if m.space is None:
            hidden = _regions(m, segmentations, labels, atlas, most)
        else:
            if m.space not in known:
                known[m.space] = lesion_distances(segmentations, m.space, labels)
            hidden = known[m.space] <= margin
        found[m.name] = _without(blocks[m.name], hidden)
    return found


def _regions(modality: Modality, segmentations: Segmentations,
             labels: str | Sequence[str] | None, atlas: Atlas | None, most: float
             ) -> pd.DataFrame:
    """Which regions of whom are lesion for more than a share."""
    shares = lesion_shares(segmentations, atlas, labels) if atlas is not None else pd.DataFrame()
    unknown = [f for f in modality.features if f not in shares]
    if unknown:
        raise AtlasError(f"{len(unknown)} features of {modality.name} ({listed(unknown)}) are no "
                         f"regions of atlas {'' if atlas is None else atlas.name}; choose the "
                         "atlas they were made with, or drop_features")
    return shares[list(modality.features)] > most


def _without(block: Block, hidden: pd.DataFrame) -> Block:
    """NaN where ``hidden``; a table on disk is read only if something is."""
    hidden = hidden.loc[hidden.index.isin(block.index)]
    hidden = hidden[hidden.any(axis=1)]
    if not len(hidden):
        return block
    table = block if isinstance(block, pd.DataFrame) else block.frame()
    values = table.to_numpy(dtype=table.dtypes.iloc[0], copy=True)
    rows = table.index.get_indexer(hidden.index)
    values[rows] = np.where(hidden.to_numpy(), np.nan, values[rows])
    return pd.DataFrame(values, table.index, table.columns)

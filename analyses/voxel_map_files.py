"""z-maps of voxels on disk: one NIfTI file a person and modality, as BIDS derivatives."""
from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normfuse.errors import CohortError, listed
from normfuse.outputs import new_folder

from .map_files import check_modalities, describe, file_stems
from .voxel_regions import voxel_spaces

if TYPE_CHECKING:
    from normfuse.deviations import Deviations


def write_voxel_maps(deviations: Deviations, folder: str | Path, *,
                     subjects: Iterable[str] | None = None, overwrite: bool = False
                     ) -> tuple[Path, ...]:
    """One z-map a person and measured modality of voxels, in a new folder of BIDS derivatives.

    On the grid of the model, float32; 0 outside the mask, NaN inside it where nothing was
    measured. Deviations that lie on disk are read some people at a time.

    Parameters
    ----------
    deviations : Deviations
    folder : path
        Gets ``sub-<id>_desc-normfuse_stat-z_<modality>.nii.gz`` (``sub-`` is not doubled), the
        masks as ``desc-normfuse_mask_<modality>.nii.gz`` and ``dataset_description.json``.
    subjects : iterable of str, optional
        Everyone by default.
    overwrite : bool
        Replace the folder if it is there, all its maps included, unless it holds other files.

    Returns
    -------
    tuple of Path
        The maps written. A modality that was not measured of a person has none.

    Raises
    ------
    CohortError
        If no modality has voxels, for an unknown subject, or for ids that cannot be file names.
    OutputExistsError
        If the folder is there and may not be replaced.

    References
    ----------
    Gorgolewski et al. (2016), doi:10.1038/sdata.2016.44.

    Examples
    --------
    >>> import tempfile
    >>> from normfuse.testing import tiny_voxel_deviations
    >>> found = tiny_voxel_deviations()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     maps = write_voxel_maps(found, Path(folder, "maps"), subjects=found.z.index[:1])
    >>> [file.name for file in maps]
    ['sub-new-00_desc-normfuse_stat-z_t1.nii.gz']
    """
    spaces = voxel_spaces(deviations)
    if not spaces:
        raise CohortError("no modality of these deviations has voxels "
                          f"({listed(deviations.modalities)}); write_maps paints the regions of "
                          "an atlas")
    stems = file_stems(deviations.subjects.index, subjects)
    check_modalities(spaces)
    names = []
    with new_folder(Path(folder), overwrite=overwrite, ours=is_ours) as work:
        for m, space in spaces.items():
            space.mask_img().to_filename(work / f"desc-normfuse_mask_{m}.nii.gz")
        for part in _shown(deviations.select(list(stems))):
            for m, space in spaces.items():
                for subject, values in part.blocks()[m].iterrows():
                    if np.isnan(values.to_numpy()).all():
                        continue
                    names.append(f"{stems[str(subject)]}_desc-normfuse_stat-z_{m}.nii.gz")
                    space.img(values.to_numpy()).to_filename(work / names[-1])
        describe(work, deviations.reference, "z in voxels")
    return tuple(Path(folder) / name for name in names)


def is_ours(path: Path) -> bool:
    """Whether a file is one that :func:`write_voxel_maps` writes.

    >>> is_ours(Path("sub-1_desc-normfuse_stat-z_t1.nii.gz")), is_ours(Path("sub-1_T1w.nii.gz"))
    (True, False)
    """
    return path.name == "dataset_description.json" or (
        "desc-normfuse_" in path.name and path.name.endswith(".nii.gz"))


def _shown(deviations: Deviations, at_once: int = 16) -> Iterable[Deviations]:
    from tqdm.auto import tqdm

    return tqdm(deviations.by_people(at_once), total=-(-len(deviations) // at_once),
                desc="maps", unit=f" x {at_once} people", leave=False,
                disable=not sys.stderr.isatty())

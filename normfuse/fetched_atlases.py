"""Atlases that nilearn fetches from the internet when somebody first asks for them."""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import AtlasError

if TYPE_CHECKING:
    import pandas as pd
    from nibabel.nifti1 import Nifti1Image


@dataclass(frozen=True)
class Source:
    """What nilearn fetches under a name, and what it does not say itself."""

    fetcher: str
    options: dict[str, Any]
    citation: str


_SCHAEFER = "Schaefer et al. (2018), doi:10.1093/cercor/bhx179"
_OXFORD = "Harvard-Oxford atlas, FSL; Desikan et al. (2006), doi:10.1016/j.neuroimage.2006.01.021"
SOURCES = {
    "aal": Source("aal", {}, "Rolls et al. (2020), doi:10.1016/j.neuroimage.2019.116189"),
    "destrieux": Source("destrieux_2009", {},
                        "Destrieux et al. (2010), doi:10.1016/j.neuroimage.2010.06.010"),
    "harvard_oxford": Source("harvard_oxford", {"atlas_name": "cortl-maxprob-thr25-1mm"}, _OXFORD),
    "harvard_oxford_subcortex": Source("harvard_oxford",
                                       {"atlas_name": "sub-maxprob-thr25-1mm"}, _OXFORD),
    "juelich": Source("juelich", {"atlas_name": "maxprob-thr25-1mm", "symmetric_split": True},
                      "Amunts et al. (2020), doi:10.1126/science.abb4588"),
    **{f"schaefer_{n}": Source("schaefer_2018", {"n_rois": n}, _SCHAEFER)
       for n in range(100, 1001, 100)},
    **{f"yeo_{n}": Source("yeo_2011", {"n_networks": n},
                          "Yeo et al. (2011), doi:10.1152/jn.00338.2011") for n in (7, 17)},
}
"""Name -> what nilearn's fetcher is asked for. Labels only: each voxel in one region at most."""

_PROBABILISTIC = {"difumo": "Dadi et al. (2020)", "msdl": "Varoquaux et al. (2011)",
                  "smith": "Smith et al. (2009)", "allen": "Allen et al. (2011)",
                  "craddock": "Craddock et al. (2012)"}


def is_probabilistic(name: str) -> str | None:
    """Whose overlapping maps these are, if the name is of such an atlas."""
    return _PROBABILISTIC.get(re.split(r"[_\W\d]", name.lower())[0])


def fetch(name: str) -> tuple[Nifti1Image, pd.DataFrame, str, str]:
    """Image, table, space and citation of an atlas in :data:`SOURCES`.

    The files are kept where nilearn keeps all it fetches (``$NILEARN_DATA``, else
    ``~/nilearn_data``); the second time needs no internet.

    Raises
    ------
    AtlasError
        If they are not there and cannot be fetched.
    """
    import nibabel as nib

    source = SOURCES[name]
    try:
        found = _fetcher(source.fetcher, source.options)()
    except Exception as problem:  # nilearn lets through what requests, tarfile and pandas raise
        raise AtlasError(
            f"atlas {name} could not be fetched ({type(problem).__name__}: "
            f"{' '.join(str(problem).split())[:160]}). It needs the internet once; elsewhere, run "
            f"nilearn.datasets.fetch_atlas_{source.fetcher} and bring its folder ~/nilearn_data, "
            "or give load_atlas the path of an image and its table") from problem
    maps = found["maps"]
    img: Any = maps if hasattr(maps, "affine") else nib.load(maps)
    space = str(found.get("template") or "")
    # nilearn notes of this volume the surface that its labels were drawn on
    return img, found["lut"], "" if space == "fsaverage" else space, source.citation


def _fetcher(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    from nilearn import datasets  # slow to import, and only fetching needs it

    return partial(getattr(datasets, f"fetch_atlas_{name}"), verbose=0, **options)

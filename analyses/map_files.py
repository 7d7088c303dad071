"""Maps on disk: one file a person and modality, named and described as BIDS derivatives."""
from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normfuse import __version__
from normfuse.errors import CohortError
from normfuse.outputs import file_stem, new_folder

from .deviation_maps import check_known, check_same_atlas, subject_map

if TYPE_CHECKING:
    import pandas as pd
    from normfuse.atlas import Atlas
    from normfuse.deviations import Reference

    from .regional import RegionalDeviations


def write_maps(regional: RegionalDeviations, atlas: Atlas, folder: str | Path, *,
               subjects: Iterable[str] | None = None, overwrite: bool = False
               ) -> tuple[Path, ...]:
    """One z-map a person and measured modality, in a new folder of BIDS derivatives.

    Parameters
    ----------
    regional : RegionalDeviations
    atlas : Atlas
        The one ``regional`` was made with.
    folder : path
        Gets ``sub-<id>_desc-normfuse_stat-z_<modality>.nii.gz`` (``sub-`` is not doubled) and
        ``dataset_description.json``.
    subjects : iterable of str, optional
        Everyone by default.
    overwrite : bool
        Replace the folder if it is there, unless it holds a file that is not written again: maps
        of other people are never lost.

    Returns
    -------
    tuple of Path
        The maps written. A modality that was not measured of a person has none.

    Raises
    ------
    CohortError
        For an unknown subject, an id that cannot be a file name, or two ids that would share a
        file; nothing is written then.
    OutputExistsError
        If the folder is there and may not be replaced.

    References
    ----------
    Gorgolewski et al. (2016), doi:10.1038/sdata.2016.44.

    Examples
    --------
    >>> import tempfile
    >>> from dataclasses import replace
    >>> from normfuse import load_atlas
    >>> from normfuse.analyses import RegionalDeviations
    >>> from normfuse.testing import tiny_deviations
    >>> made, atlas = tiny_deviations(), load_atlas("dk")
    >>> z = made.z.rename(columns={"insula": "ctx-lh-insula", "cuneus": "ctx-lh-cuneus"}, level=1)
    >>> regional = RegionalDeviations(replace(made, z=z), atlas.name, atlas.regions)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     maps = write_maps(regional, atlas, Path(folder, "maps"), subjects=["sub-b"])
    >>> [file.name for file in maps]
    ['sub-b_desc-normfuse_stat-z_t1.nii.gz', 'sub-b_desc-normfuse_stat-z_pet.nii.gz']
    """
    check_same_atlas(regional, atlas)
    stems = file_stems(regional.z.index, subjects)
    check_modalities(regional.modalities)
    names = []
    with new_folder(Path(folder), overwrite=overwrite) as work:
        for subject, stem in stems.items():
            measured = regional.z.loc[subject].dropna().index.get_level_values(0)
            for modality in (name for name in regional.modalities if name in measured):
                names.append(f"{stem}_desc-normfuse_stat-z_{modality}.nii.gz")
                image = subject_map(regional, subject, modality, atlas)
                image.to_filename(work / names[-1])
        describe(work, regional.reference, f"z in the regions of atlas {regional.atlas}")
    return tuple(Path(folder) / name for name in names)


def check_modalities(modalities: Iterable[str]) -> None:
    """Refuses names that cannot be part of a file's."""
    for modality in modalities:
        try:
            file_stem(modality)
        except CohortError as problem:
            raise CohortError(f"modality {modality!r} cannot be part of a file name; call it by "
                              "letters and digits, such as t1") from problem


def file_stems(known: pd.Index, subjects: Iterable[str] | None) -> dict[str, str]:
    """File stem of these people (None: of all), checked before the first file is written."""
    chosen = [subjects] if isinstance(subjects, str) else subjects
    people = [str(subject) for subject in (known if chosen is None else chosen)]
    check_known(known, people)
    stems: dict[str, str] = {}
    owners: dict[str, str] = {}
    for subject in people:
        safe = file_stem(subject)
        stems[subject] = safe if safe.startswith("sub-") else f"sub-{safe}"
        # Some file systems take sub-A and sub-a for one file.
        other = owners.setdefault(stems[subject].lower(), subject)
        if other != subject:
            raise CohortError(f"subjects {other!r} and {subject!r} would share the file "
                              f"{stems[subject]}; rename one of them")
    return stems


def describe(work: Path, reference: Reference, what: str) -> None:
    """Write ``dataset_description.json`` of maps of this."""
    against = f"{sum(reference.n_subjects.values())} reference people"
    facts: dict[str, Any] = {
        "Name": "normfuse deviation maps", "BIDSVersion": "1.10.0", "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "normfuse", "Version": __version__,
                         "Description": f"{what}, against {against}; {reference.fusion}, seed "
                                        f"{reference.seed}"}],
        "GeneratedAt": datetime.now(UTC).isoformat(timespec="seconds")}
    (work / "dataset_description.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

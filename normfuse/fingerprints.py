"""Recognising people a model has already seen, without storing who they are or what they have."""
from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from .cohort import Cohort
from .deviations import ROLE
from .errors import listed
from .pattern_law import N_FOLDS

_PRECEDENCE = ("training", "early_stop", "calibration")


def _hash(text: str, values: bytes = b"") -> str:
    return hashlib.sha256(text.encode() + b"|" + values).hexdigest()[:24]


def fingerprints(cohort: Cohort) -> pd.DataFrame:
    """A hash of id and measured values per subject and modality; empty text where not measured.

    The id alone would not do: ``sub-01`` exists in every study.
    """
    present = cohort.present
    table = {}
    for m in cohort.modalities:
        values = np.ascontiguousarray(cohort.features[m.name].to_numpy("float64"))
        table[m.name] = [_hash(f"{m.name}|{subject}", row.tobytes()) if there else ""
                         for subject, row, there in zip(cohort.ids, values, present[m.name])]
    return pd.DataFrame(table, index=cohort.ids)


def calibration_folds(ids: Iterable[str]) -> np.ndarray:
    """The fold of each calibration person, by their id alone, so that nothing need be stored."""
    return np.array([int(_hash(f"fold|{subject}"), 16) % N_FOLDS for subject in ids], dtype=int)


def roles_to_hashes(cohort: Cohort, roles: pd.Series) -> dict[str, str]:
    """What a model keeps: hash of each block, and of each id alone, to its role."""
    prints = fingerprints(cohort)
    known = {h: role for name in prints for h, role in zip(prints[name], roles) if h}
    known.update({_hash(str(subject)): role for subject, role in zip(cohort.ids, roles)})
    known.update(dict(zip(_covariate_hashes(cohort), roles)))
    return known


def _covariate_hashes(cohort: Cohort) -> list[str]:
    table = cohort.subjects.reindex(columns=list(cohort.covariates))
    for name, kind in cohort.covariates.items():
        column = table[name]
        table[name] = pd.to_numeric(column, errors="coerce").astype(float) \
            if kind == "continuous" else column.astype(str)
    return [_hash(f"covariates|{subject}|{row!r}")
            for subject, row in zip(cohort.ids, table.to_numpy(object).tolist())]


def known_roles(cohort: Cohort, known: Mapping[str, str]) -> pd.Series:
    """Each subject's role in the fit: ``new`` unless one of its blocks was seen there.

    Warns
    -----
    UserWarning
        If ids of training people come with other values: perhaps the same people, reprocessed.
    """
    prints = fingerprints(cohort)
    roles = [_role([h for h in row if h], covariates, known) for row, covariates
             in zip(prints.itertuples(index=False), _covariate_hashes(cohort))]
    namesakes = [str(i) for i, role in zip(cohort.ids, roles)
                 if role == "new" and _hash(str(i)) in known]
    if namesakes:
        warnings.warn(f"{len(namesakes)} subjects have ids of people this model was fitted with, "
                      f"but other values or covariates ({listed(namesakes)}); if they are the "
                      "same people, their z-scores are too small", stacklevel=5)
    return pd.Series(roles, index=cohort.ids, name=ROLE)


def _role(blocks: list[str], covariates: str, known: Mapping[str, str]) -> str:
    found = [known[h] for h in blocks if h in known]
    # a person seen in training stays seen even if another block of theirs is new
    role = min(found, key=_PRECEDENCE.index, default="new")
    # leaving a person out takes their values out of the laws: it must be those that went in
    same = len(found) == len(blocks) and covariates in known
    return "new" if role == "calibration" and not same else role

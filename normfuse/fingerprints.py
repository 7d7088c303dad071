"""Recognising people a model has already seen, without storing what was measured of them.

A model file holds hashes, not values or ids. Whoever has somebody's values or id can still ask
whether they are in it: a hash hides what it was made of, not that it was made.
"""
from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from .cohort import Cohort
from .deviations import OUT_OF_FOLD, ROLE, SEEN_ROLES
from .errors import listed
from .pattern_law import N_FOLDS
from .stored import ROWS

_PRECEDENCE = (*SEEN_ROLES, "calibration", OUT_OF_FOLD)
_ENOUGH = 4
"""Measured values that make a block unmistakable; with fewer the id is hashed with them."""


def _hash(text: str, values: bytes = b"") -> str:
    return hashlib.sha256(text.encode() + b"|" + values).hexdigest()[:24]


def person_of(subject: str) -> str:
    """The id without a BIDS session: ``sub-01_ses-2`` and ``sub-01_ses-1`` are one person.

    >>> person_of("sub-01_ses-2")
    'sub-01'
    """
    return subject.partition("_ses-")[0]


def calibration_folds(ids: Iterable[str]) -> np.ndarray:
    """The fold of each calibration person, by their id alone, so that nothing need be stored."""
    return np.array([int(_hash(f"fold|{subject}"), 16) % N_FOLDS for subject in ids], dtype=int)


def roles_to_hashes(cohort: Cohort, roles: pd.Series) -> dict[str, str]:
    """What a model keeps: role by hash of each block, block with covariates, and person's id."""
    known = {_hash(f"person|{person_of(str(i))}"): role for i, role in zip(cohort.ids, roles)}
    covariates = _covariate_texts(cohort)
    for blocks, text, role in zip(_blocks(cohort), covariates, roles):
        for block in blocks:
            known[block] = known[_hash(block + text)] = role
    return known


def known_roles(cohort: Cohort, known: Mapping[str, str]) -> pd.Series:
    """Each subject's role in the fit: ``new`` unless one of its blocks was seen there.

    Blocks are recognised by their values, whatever the subject is called now.

    Warns
    -----
    UserWarning
        If ids of the fit's people come with other values: perhaps reprocessed, or another visit.
    """
    roles = [_role(blocks, text, known) for blocks, text
             in zip(_blocks(cohort), _covariate_texts(cohort))]
    namesakes = [str(i) for i, role in zip(cohort.ids, roles)
                 if role == "new" and _hash(f"person|{person_of(str(i))}") in known]
    if namesakes:
        warnings.warn(f"{len(namesakes)} subjects have ids of people this model was fitted with, "
                      f"but other values or covariates ({listed(namesakes)}); if they are the "
                      "same people, their z-scores are too small", stacklevel=5)
    return pd.Series(roles, index=cohort.ids, name=ROLE)


def warn_of_twins(cohort: Cohort) -> None:
    """Name people one of whose scans has the very same values as somebody else's.

    Warns
    -----
    UserWarning
        If there are any: ids differ, so nothing else would notice.
    """
    owners: dict[str, list[str]] = {}
    for subject, blocks in zip(cohort.ids, _blocks(cohort)):
        for block in blocks:
            owners.setdefault(block, []).append(str(subject))
    twins = dict.fromkeys(" = ".join(who) for who in owners.values() if len(who) > 1)
    if twins:
        warnings.warn(f"{len(twins)} of {len(cohort)} reference people are there more than once, "
                      f"with the same values under other ids ({listed(twins)}): whoever is in "
                      "training and in calibration at once makes z too small. Keep one of each",
                      stacklevel=3)


def _precedence(role: str) -> int:
    return _PRECEDENCE.index(role) if role in _PRECEDENCE else len(_PRECEDENCE)


def _role(blocks: list[str], covariates: str, known: Mapping[str, str]) -> str:
    # a person seen in training stays seen even if another block of theirs is new
    role = min((known[block] for block in blocks if block in known), key=_precedence,
               default="new")
    # leaving a person out takes their values out of the laws: it must be those that went in
    same = all(_hash(block + covariates) in known for block in blocks)
    return "new" if role not in SEEN_ROLES and not same else role


def _blocks(cohort: Cohort) -> list[list[str]]:
    """Hashes of each subject's measured blocks."""
    found: list[list[str]] = []
    for start in range(0, len(cohort), ROWS):  # of voxels on disk, only so many are read at once
        ids = cohort.ids[start:start + ROWS]
        some: list[list[str]] = [[] for _ in ids]
        for name, block in cohort.features.select(ids).items():
            values = block.to_numpy("float64")
            seen = ~np.isnan(values)
            clean = np.where(seen, values, 0.0) + 0.0  # one NaN and one zero, whatever their bits
            for row, subject in enumerate(ids):
                count = int(seen[row].sum())
                if count:
                    what = name if count >= _ENOUGH else f"{name}|{subject}"
                    some[row].append(_hash(what, clean[row].tobytes() + seen[row].tobytes()))
        found += some
    return found


def _covariate_texts(cohort: Cohort) -> list[str]:
    table = cohort.subjects.reindex(columns=list(cohort.covariates))
    for name, kind in cohort.covariates.items():
        column = table[name]
        table[name] = pd.to_numeric(column, errors="coerce").astype(float) \
            if kind == "continuous" else column.astype(str)
    return [repr(row) for row in table.to_numpy(object).tolist()]

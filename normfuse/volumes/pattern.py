"""Which file is whose: a path pattern with ``{id}`` and the columns of the subjects table."""
from __future__ import annotations

import glob
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from string import Formatter

import pandas as pd

from ..cohort_checks import MISSING_WORDS
from ..errors import CohortError, listed


def find_files(name: str, pattern: str, people: pd.DataFrame, folder: Path) -> dict[str, Path]:
    """The file of each person who has one.

    Parameters
    ----------
    name : str
        Of the modality, for messages.
    pattern : str
        Such as ``"derivatives/{id}/{id}_FA.nii.gz"`` or ``"{site}/{id}_*_T1w.nii.gz"``. Names in
        braces are ``id`` or columns of the table; ``*`` and ``?`` stand for what differs
        otherwise, as long as one file alone fits.
    people : DataFrame
        Text cells, index: id. Someone whose cell is empty or n/a has no such image.
    folder : Path
        Where relative patterns begin.

    Returns
    -------
    dict of Path, by id; people without a file are not in it

    Raises
    ------
    CohortError
        If the pattern names no person or an unknown column, if it fits nobody (with what is there
        instead), if several files fit one person or one file several people.

    Examples
    --------
    >>> import tempfile
    >>> people = pd.DataFrame({"visit": ["a", "n/a", "b"]}, index=["s1", "s2", "s3"])
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for file in ("s1_a.nii", "s2_a.nii"):
    ...         Path(place, file).touch()
    ...     found = find_files("t1", "{id}_{visit}.nii", people, Path(place))
    ...     print({who: path.name for who, path in found.items()})
    {'s1': 's1_a.nii'}
    """
    pieces = _pieces(name, pattern, people)
    found: dict[str, Path] = {}
    for subject, cells in zip(people.index.astype(str), _cells(people)):
        wanted = _filled(pieces, {**cells, "id": subject})
        if wanted is None:
            continue
        here = [Path(p) for p in sorted(glob.glob(str(folder.absolute() / wanted)))]
        if len(here) > 1:
            raise CohortError(f"modality {name}: {len(here)} files fit {subject} "
                              f"({listed(p.name for p in here)}); make the pattern {pattern!r} "
                              "fit one")
        found |= {subject: path for path in here}
    if not found:
        raise CohortError(_nobody(name, pattern, pieces, people, folder))
    owners: dict[Path, str] = {}
    for subject, path in found.items():
        if owners.setdefault(path, subject) != subject:
            raise CohortError(f"modality {name}: {path} is the file of {owners[path]} and of "
                              f"{subject}; the pattern {pattern!r} must tell people apart, by "
                              "{id} for instance")
    return found


def _pieces(name: str, pattern: str, people: pd.DataFrame) -> list[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(pattern))
    except ValueError as problem:
        raise CohortError(f"modality {name}: the pattern {pattern!r} is not understood "
                          f"({problem}); write a name in braces, as {{id}}") from problem
    fields = [field for _, field, *_ in parsed if field is not None]
    known = ["id", *map(str, people.columns)]
    unknown = [f for f in fields if f not in known]
    if unknown or any(spec or conversion for *_, spec, conversion in parsed):
        raise CohortError(f"modality {name}: the pattern {pattern!r} names "
                          f"{listed(unknown) or 'a format'}; in braces may stand "
                          f"{listed(known, 12)}")
    if not fields:
        raise CohortError(f"modality {name}: the pattern {pattern!r} is the same for everybody; "
                          "put {id} where the subject's id stands")
    return [(text, field) for text, field, *_ in parsed]


def _cells(people: pd.DataFrame) -> list[dict[str, str]]:
    text = people.set_axis(people.columns.astype(str), axis=1).astype(str)
    return [{str(column): cell.strip() for column, cell in row.items()}
            for row in text.to_dict("records")]


def _filled(pieces: list[tuple[str, str | None]], cells: Mapping[str, str],
            literal: bool = False) -> str | None:
    words = []
    for text, field in pieces:
        words.append(text)
        if field is None:
            continue
        if cells[field].lower() in MISSING_WORDS:
            return None
        # an id such as "sub[1]" or "*" must not match somebody else
        words.append(cells[field] if literal else glob.escape(cells[field]))
    return "".join(words)


def _nobody(name: str, pattern: str, pieces: list[tuple[str, str | None]], people: pd.DataFrame,
            folder: Path) -> str:
    filled = ((s, _filled(pieces, {**cells, "id": s}, literal=True))
              for s, cells in zip(people.index.astype(str), _cells(people)))
    subject, example = next(((s, found) for s, found in filled if found is not None), ("", None))
    if example is None:
        return f"modality {name}: nobody has all the cells that the pattern {pattern!r} names"
    looked = folder / example
    return (f"modality {name}: the pattern {pattern!r} fits none of {len(people)} people; for "
            f"{subject} it means {looked}, which is not there. {_nearest(looked, pieces, folder)}")


def _nearest(looked: Path, pieces: list[tuple[str, str | None]], folder: Path) -> str:
    anybody = "".join(text + ("*" if field else "") for text, field in pieces)
    others = sorted(glob.glob(str(folder.absolute() / anybody)))
    if others:
        return f"{len(others)} files would fit other ids, such as {others[0]}: are the ids " \
            "written alike (sub-01 is not 01)?"
    missing, parent = looked, looked.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    there = sorted(p.name for p in parent.iterdir()) if parent.is_dir() else []
    near = get_close_matches(missing.name, there, 3, 0.5) or there[:3]
    found = f"; it has {listed(near)}" if near else " and is empty"
    return f"{parent} has no {missing.name}{found}. Paths are relative to the folder of " \
        "cohort.toml"

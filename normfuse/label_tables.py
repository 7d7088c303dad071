"""Names of label numbers, read from whatever table an atlas comes with."""
from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from .errors import AtlasError, listed
from .inputs import read_text

if TYPE_CHECKING:
    import pandas as pd

NUMBER_COLUMNS = ("index", "label", "value", "id", "number", "no", "no.", "labelvalue",
                  "label_value", "label_id", "labelid", "region_id", "roi", "roi_id", "intensity")
NAME_COLUMNS = ("name", "region", "label_name", "labelname", "label name", "region_name",
                "roi_name", "structure", "label", "roi", "abbreviation")
SIDE_COLUMNS = ("hemisphere", "hemi", "side")
_SIDES = {"left": "left", "l": "left", "lh": "left", "right": "right", "r": "right", "rh": "right",
          "midline": "midline", "mid": "midline", "m": "midline", "b": "midline",
          "both": "midline", "bilateral": "midline"}
_TABLES = (".tsv", ".csv", ".txt", ".lut", ".ctab", ".xml")
_COLOURS = re.compile(r"(?:[\s,]+\d+(?:\.\d+)?){3,4}$")
_ITK_SNAP = re.compile(r'(\d+)(?:\s+[\d.]+){3,7}\s+"(.+)"')
_WORKBENCH = re.compile(r"(\d+)(?:\s+\d+){4}")


def read_label_table(table: str | Path | pd.DataFrame) -> pd.DataFrame:
    """The regions that a table names.

    Understood are tables with a header (TSV, CSV, BIDS ``dseg.tsv``; the number's column is called
    ``index``, ``label``, ``value`` or ``id``, the name's ``name``, ``region`` or ``label_name``),
    look-up tables without one (FreeSurfer's ``index name R G B A``, Connectome Workbench's pairs
    of lines, ITK-SNAP's), and the XML of FSL and SPM.

    Parameters
    ----------
    table : path or DataFrame

    Returns
    -------
    DataFrame
        Index: label number. Columns ``name``, ``hemisphere``, ``tissue`` and ``lobe``. A side that
        no column tells is taken from the name (``Left-``, ``lh``, ``L_``, ``_R``, …); a name
        without one is ``midline`` if others have theirs, else NaN. The row of label 0, the
        background, is left out.

    Raises
    ------
    AtlasError
        If the table cannot be read, or a number stands for two names.

    Examples
    --------
    >>> import pandas as pd
    >>> read_label_table(pd.DataFrame({"value": [300, 2, 16],
    ...     "region": ["Insula_R", "Insula_L", "Brain-Stem"]}))[["name", "hemisphere"]]
               name hemisphere
    300    Insula_R      right
    2      Insula_L       left
    16   Brain-Stem    midline
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        index = [] if table.index.name is None else [table.index.name]
        return _finished(_columns(table.reset_index(index).astype(str), "the table"), "the table")
    path = Path(table)
    try:
        text = read_text(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise AtlasError(f"the label table {path} cannot be read: {problem}; give a TSV, CSV, "
                         "FreeSurfer look-up table or XML") from problem
    rows = _xml(text, path) if path.suffix.lower() == ".xml" else _text(text, path)
    return _finished(rows, str(path.name))


def table_beside(image: Path) -> Path | None:
    """The table of the image's name in its folder, or a BIDS one that speaks of it.

    BIDS lets one ``dseg.tsv`` serve several images: its name's parts are all in theirs.
    """
    stem = image_stem(image)
    for suffix in _TABLES:
        if (found := image.with_name(stem + suffix)).is_file():
            return found
    parts = set(stem.split("_"))
    fitting = [p for p in sorted(image.parent.glob("*dseg.tsv"))
               if set(p.stem.split("_")) <= parts]
    return max(fitting, key=lambda p: len(p.stem), default=None)


def image_stem(image: Path) -> str:
    """Its file name without ``.nii.gz`` and the like."""
    return re.sub(r"(\.nii|\.img|\.hdr|\.mgh|\.mgz)?(\.gz)?$", "", image.name)


def numbered(numbers: Iterable[int]) -> pd.DataFrame:
    """A table of labels nobody named: ``label 12``."""
    import pandas as pd

    index = pd.Index(list(numbers), dtype="int64")
    return pd.DataFrame({"name": [f"label {n}" for n in index], "hemisphere": np.nan,
                         "tissue": np.nan, "lobe": np.nan}, index).astype(object)


def side_of(name: str) -> str | None:
    """``left`` or ``right`` if a region's name says so.

    Words anywhere (left, lh), single letters only at either end: ``Area_L_4`` is layer 4.

    >>> [side_of(n) for n in ("ctx-lh-insula", "Precentral_R", "L_V1_ROI", "7Networks_RH_Vis_1",
    ...                       "Lingual", "Area_L_4")]
    ['left', 'right', 'left', 'right', None, None]
    """
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    told = {_SIDES[word] for word in words if word in ("left", "right", "lh", "rh")}
    told |= {_SIDES[word] for word in (words[:1] + words[-1:]) if word in ("l", "r")}
    if not told:  # leftInsula, but not leftover
        told = {side for side in ("left", "right") if re.match(f"{side}[A-Z]", name)}
    return told.pop() if len(told) == 1 else None


def _finished(rows: pd.DataFrame, whose: str) -> pd.DataFrame:
    """Numbers as index, sides in one spelling, doubled names told apart by their side."""
    import pandas as pd

    values = pd.to_numeric(rows["number"], errors="coerce")
    wrong = rows["number"][values.isna() | (values % 1 != 0)]
    if len(wrong):
        raise AtlasError(f"{whose}: label {listed(wrong)} is no whole number")
    rows = rows.set_index(pd.Index(values.astype("int64"))).drop(columns="number")
    rows = rows[rows.index != 0].rename_axis(index=None)
    twice = rows.index[rows.index.duplicated()].unique()
    if len(twice):
        raise AtlasError(f"{whose}: label {listed(twice)} occurs twice; each number needs one "
                         "name")
    told = rows.get("side", pd.Series(index=rows.index, dtype=object))
    side = told.map(lambda s: _SIDES.get(str(s).strip().lower())).astype(object)
    side = side.where(side.notna(), rows["name"].map(side_of))
    side = side.fillna("midline" if side.notna().any() else np.nan).astype(object)
    doubled = (rows["name"].duplicated(keep=False) & side.isin(["left", "right"])
               & rows["name"].map(side_of).isna())
    name = rows["name"].where(~doubled, side.astype(str) + " " + rows["name"])
    facts = {fact: rows[fact].replace(["", "n/a", "nan"], np.nan) if fact in rows else np.nan
             for fact in ("tissue", "lobe")}
    return pd.DataFrame({"name": name, "hemisphere": side, **facts}, rows.index).astype(object)


def _columns(table: pd.DataFrame, whose: str) -> pd.DataFrame:
    """The columns ``number``, ``name``, and of ``side``, ``tissue``, ``lobe`` those it has."""
    import pandas as pd

    table = table.set_axis([str(c).strip().lower() for c in table.columns], axis=1)
    at = _find(table, NUMBER_COLUMNS, numbers=True)
    named = None if at is None else _find(table.drop(columns=at), NAME_COLUMNS, numbers=False)
    if at is None or named is None:
        raise AtlasError(f"{whose}: a column of label numbers (such as index, label, value or id) "
                         "and one of names (name, region or label_name) are needed; the columns "
                         f"are {listed(table.columns, 9)}. Rename them, or give a DataFrame")
    wanted = {"number": at, "name": named, "side": next(
        (c for c in SIDE_COLUMNS if c in table), None), "tissue": "tissue", "lobe": "lobe"}
    return pd.DataFrame({what: table[column].str.strip() for what, column in wanted.items()
                         if column in table})


def _find(table: pd.DataFrame, candidates: tuple[str, ...], *, numbers: bool) -> str | None:
    for name in candidates:
        if name in table and table[name].str.fullmatch(r"\s*\d+(\.0*)?\s*").all() == numbers:
            return name
    return None


def _text(text: str, path: Path) -> pd.DataFrame:
    """A table with a header if its first line is one, else a look-up table."""
    import io

    import pandas as pd

    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise AtlasError(f"the label table {path} is empty")
    mark = next((m for m in "\t;," if m in lines[0]), None)
    if mark is not None:
        words = [word.strip().strip('"').lower() for word in lines[0].split(mark)]
        known = set(words) & {*NUMBER_COLUMNS, *NAME_COLUMNS}
        if known and not any(word.isdigit() for word in words):
            table = pd.read_csv(io.StringIO(text), sep=mark, dtype=str, keep_default_na=False,
                                comment="#" if text.lstrip().startswith("#") else None)
            return _columns(table, path.name)
    return pd.DataFrame(_look_up(lines, path), columns=["number", "name"])


def _look_up(lines: list[str], path: Path) -> list[tuple[str, str]]:
    """(number, name) of each line."""
    if len(lines) % 2 == 0 and all(_WORKBENCH.fullmatch(line) for line in lines[1::2]):
        return [(line.split()[0], name) for name, line in zip(lines[::2], lines[1::2])]
    quoted = [_ITK_SNAP.fullmatch(line) for line in lines]
    if all(quoted):
        return [(found[1], found[2]) for found in quoted if found]
    if all(_COLOURS.search(line) for line in lines):
        lines = [_COLOURS.sub("", line) for line in lines]
    found = [re.fullmatch(r"(\d+)[\s,;:]+(.*\S)", line) for line in lines]
    if not all(found):
        strange = lines[[bool(f) for f in found].index(False)]
        raise AtlasError(f"{path.name}: the line {strange!r} has no number and name; expected a "
                         "header with index and name, or FreeSurfer's lines 'index name R G B A'")
    return [(match[1], match[2]) for match in found if match]


def _xml(text: str, path: Path) -> pd.DataFrame:
    """FSL's ``<label index="0">name</label>`` or SPM's ``<index>``, ``<name>``."""
    import pandas as pd

    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as problem:
        raise AtlasError(f"the label table {path} is no whole XML: {problem}") from problem
    # FSL counts the maps of a probabilistic atlas from 0; in its label image they count from 1
    shift = int((root.findtext(".//header/type") or "").strip().lower().startswith("prob"))
    rows = [(str(int(entry.attrib["index"]) + shift), (entry.text or "").strip())
            if "index" in entry.attrib
            else ((entry.findtext("index") or "").strip(), (entry.findtext("name") or "").strip())
            for entry in root.iter("label") if "index" in entry.attrib or len(entry)]
    if not rows:
        raise AtlasError(f"{path.name} holds no <label> as FSL or SPM write it")
    return pd.DataFrame(rows, columns=["number", "name"])

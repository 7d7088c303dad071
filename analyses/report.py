"""One self-contained HTML page: who was scored, how far to trust it, and what was found."""
from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from normfuse import __version__
from normfuse.deviations import ROLE, SEEN_ROLES, Deviations, Reference
from normfuse.errors import AtlasError, ComparisonError, listed
from normfuse.outputs import new_file

from . import figures
from .groups import GroupComparison
from .regional import RegionalDeviations, parcellate

if TYPE_CHECKING:
    from normfuse.atlas import Atlas

DPI = 150
WIDTH = 7.9  # inches; at 96 px an inch it fills the column of text
MAP_SIZE = (WIDTH, 1.65)
Z_LIMIT = 4.0  # one scale for every person's maps: two pages can be held side by side
TOP = 20  # regions in a figure
ROWS = 30  # of a table when nothing is significant
MOST_ROWS = 300  # of a table of significant regions: a page of thousands helps nobody
WHO = "people"
_LOOK = {"font.size": 9.5, "axes.labelsize": 9.5, "axes.titlesize": 10, "figure.dpi": DPI,
         "savefig.dpi": DPI, "axes.linewidth": 0.8, "svg.fonttype": "none"}
_KINDS = {"reconstruction": (
    "Kind of deviation: reconstruction. The person's own scan was in the encoder, so a deviation "
    "is what the fused position of the whole brain in latent space cannot explain. A change that "
    "the whole brain shares moves the latent position instead: read the latent distance with it.")}
_ROLES = {"new": "scored people", "calibration": "held-out controls"}


@dataclass(frozen=True)
class Text:
    """A paragraph; ``tone`` is ``lead``, ``good``, ``warn`` or nothing."""

    words: str
    tone: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    points: tuple[str, ...]
    kind: ClassVar[str] = "list"


@dataclass(frozen=True)
class Tiles:
    """A row of key figures, (name, value)."""

    pairs: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Table:
    """A table of words, with the numbers of the rows to mark."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    marked: frozenset[int] = frozenset()
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """An embedded PNG: its data, size in CSS px, words for who cannot see it, and a caption."""

    source: str
    width: int
    height: int
    alt: str
    caption: str
    kind: ClassVar[str] = "picture"


Block = Text | Points | Tiles | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
    parts: tuple[Section, ...] = ()
    person: bool = False

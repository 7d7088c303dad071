"""Maps that a reader can walk through: nilearn's viewer inside the page, loading nothing.

nilearn's page of a map brings its own libraries and anatomy along. Of several maps in one page
these would lie there several times over; here they are kept once, and ``templates/viewer.js`` puts
the page of a map together when it is looked at, in a frame that may do nothing but run it.
"""
from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

RESOLUTION = 3  # mm; of 2 a page is three times as large, and regions look no different
_PAINTED = 1e-5  # far below any colour step, above what nilearn takes for background
_LARGE = 2000  # characters from which a piece is worth keeping once
_ICON = re.compile(r"<link\b[^>]*>")  # of nilearn's own site: the only thing it would fetch
_DATA = re.compile(r"data:image/[^\"']+")
_RANDOM = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Viewer:
    """Some maps in one frame, and what to call each."""

    key: str
    names: tuple[str, ...]
    pages: tuple[str, ...]


def viewer(key: str, maps: Iterable[tuple[str, Nifti1Image]], limit: float) -> Viewer | None:
    """Maps to walk through, colours from -limit to limit; None if there is no map.

    Parameters
    ----------
    key : str
        Used once in a page.
    maps : iterable of (name, image)
        NaN where there is no value.
    limit : float
        In the unit of the maps.

    Examples
    --------
    >>> from normfuse import load_atlas
    >>> image = load_atlas("dk").paint({"Left-Hippocampus": -2.4, "ctx-rh-insula": 1.1})
    >>> made = viewer("one", [("t1", image)], 4.0)
    >>> made.names, "http" in made.pages[0].split("<script>")[0]
    (('t1',), False)
    """
    made = [(name, _page(img, f"{key}-{k}", limit)) for k, (name, img) in enumerate(maps)]
    return Viewer(key, *map(tuple, zip(*made))) if made else None


def _page(img: Nifti1Image, key: str, limit: float) -> str:
    from nilearn.datasets import load_mni152_template
    from nilearn.image import new_img_like
    from nilearn.plotting import view_img

    values = np.asarray(img.dataobj, dtype=np.float32)
    known = np.isfinite(values)
    values = np.where(known & (np.abs(values) < _PAINTED), _PAINTED, values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a map that shows nothing
        html = view_img(new_img_like(img, np.where(known, values, 0)), threshold=_PAINTED / 10,
                        bg_img=load_mni152_template(resolution=RESOLUTION), vmax=limit,
                        cmap="RdBu_r", symmetric_cmap=True, black_bg=False, dim=0, title="",
                        resampling_interpolation="nearest").html
    # the same map is to give the same page, and two maps different names
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return _RANDOM.sub(name, _ICON.sub("", html).replace("\r\n", "\n"))


class _Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.inside, self.found = False, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        if self.inside:
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data


def scripts_of(html: str) -> list[str]:
    """What a browser would run of a page.

    >>> scripts_of("<p>a<script>f('<b>')</script><script>g()</script>")
    ["f('<b>')", 'g()']
    """
    parser = _Scripts()
    parser.feed(html)
    parser.close()
    return parser.found


def allowed(script: str) -> str:
    """How a Content-Security-Policy names one script and no other.

    >>> allowed("alert('Hello, world.');")  # of the specification's own example
    "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    """
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def shared(viewers: Sequence[Viewer]) -> tuple[list[str], list[Viewer]]:
    """Pieces that several maps have in common, and the maps with ``\\1k\\1`` for piece k."""
    pages = [page for v in viewers for page in v.pages]
    counts = Counter(piece for page in pages for piece in (*scripts_of(page), *_DATA.findall(page))
                     if len(piece) > _LARGE)
    pieces = [piece for piece, n in counts.items() if n > 1]
    short = []
    for v in viewers:
        told = list(v.pages)
        for k, piece in enumerate(pieces):
            told = [page.replace(piece, f"\1{k}\1") for page in told]
        short.append(Viewer(v.key, v.names, tuple(told)))
    return pieces, short

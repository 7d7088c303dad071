"""Names and numbers as one prints them, on figures and in the report."""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

_GYRUS_WORDS = re.compile("(caudal|rostral|superior|inferior|middle|lateral|medial|anterior|"
                          "posterior|isthmus|pars|transverse|frontal(?=pole)|temporal(?=pole))"
                          "(?=[a-z])")


def region_label(name: str) -> str:
    """A feature's name as one would say it: side, words, and ``WM`` for white matter.

    Names that are not FreeSurfer's stay as they are, but for what would break a line.

    Examples
    --------
    >>> [region_label(n) for n in ("ctx-lh-rostralanteriorcingulate", "wm-rh-insula")]
    ['L rostral anterior cingulate', 'R insula WM']
    >>> region_label("Left-Thalamus-Proper"), region_label("Brain-Stem"), region_label("fa_cst")
    ('L thalamus proper', 'Brain stem', 'fa_cst')
    """
    parts = re.fullmatch(r"(ctx|wm)-([lr])h-(.+)", name)
    if parts:
        tissue, side, gyrus = parts.groups()
        words = _GYRUS_WORDS.sub(r"\1 ", gyrus).replace("bankssts", "banks STS")
        return one_line(f"{side.upper()} {words}{' WM' if tissue == 'wm' else ''}")
    side, dash, rest = name.partition("-")
    if dash and side in ("Left", "Right"):
        return one_line(f"{side[0]} {_lower_words(rest)}")
    if re.fullmatch(r"[A-Z][a-z]+(-[A-Z][a-z]+)+", name):
        return one_line(name[0] + _lower_words(name)[1:])
    return one_line(name)


def _lower_words(name: str) -> str:
    return name.replace("-", " ").lower().replace(" dc", " DC").replace("ventraldc", "ventral DC")


def one_line(text: object, limit: int = 60) -> str:
    """Without line breaks, and shortened in the middle.

    >>> one_line("superior\\nlongitudinal fasciculus", limit=20)
    'superior lon…ciculus'
    """
    words = " ".join(str(text).split())
    return words if len(words) <= limit else f"{words[:limit - 8]}…{words[-7:]}"


def plain(text: object, limit: int = 60) -> str:
    """As :func:`one_line`, for matplotlib, which would read a pair of dollars as a formula."""
    return one_line(text, limit).replace("$", r"\$")


def number(value: Any, digits: int = 2) -> str:
    """A number with a true minus sign, a dash where there is none.

    >>> number(-1.256), number(-0.001), number(None)
    ('−1.26', '0.00', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # no minus before 0


def measure(value: Any) -> str:
    """A measurement in whatever unit: four digits that tell something.

    >>> measure(11391.325), measure(0.52891), measure(-0.00071234), measure(0.0)
    ('11391', '0.5289', '−0.0007123', '0.000')
    """
    if value is None or not np.isfinite(value):
        return "–"
    size = 0 if value == 0 else int(np.floor(np.log10(abs(value))))
    return number(value, min(max(3 - size, 0), 12))


def p_value(value: Any, equals: str = "") -> str:
    """A p-value as one prints it, after ``equals`` in a sentence.

    >>> p_value(0.0341), p_value(0.0341, "= "), p_value(0.00002, "= "), p_value(float("nan"))
    ('.034', '= .034', '< .001', '–')
    """
    if value is None or not np.isfinite(value):
        return "–"
    return "< .001" if value < .001 else f"{equals}{f'{value:.3f}'.removeprefix('0')}"


def word(value: Any) -> str:
    """A cell of somebody's table: 71.0 is 71, and a missing value a dash."""
    if pd.isna(value):
        return "–"
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def role(name: str) -> str:
    """What people of the reference were for.

    >>> role("early_stop"), role("cross_fitted")
    ('to say when to stop', 'who took turns to be held out')
    """
    return {"training": "to train on", "early_stop": "to say when to stop",
            "calibration": "held out to calibrate with",
            "cross_fitted": "who took turns to be held out"}.get(name, f"for {name}")


def ordinal(n: int) -> str:
    """A place in an order.

    >>> [ordinal(n) for n in (1, 2, 3, 11, 52)]
    ['1st', '2nd', '3rd', '11th', '52nd']
    """
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def centile_words(centile: float) -> str:
    """Where a value lies among those of healthy people, 0 to 100, as one would say it.

    >>> print(centile_words(2.3), centile_words(99.8), sep="\\n")
    on the 2nd centile: 2 of 100 comparable healthy people have less
    above the 99th centile: fewer than 1 in 100 comparable healthy people have more
    """
    if centile < 1 or centile > 99:
        side, end, way = ("below", "1st", "less") if centile < 50 else ("above", "99th", "more")
        return (f"{side} the {end} centile: fewer than 1 in 100 comparable healthy people have "
                f"{way}")
    at = round(centile)
    n, way = (at, "less") if at < 50 else (100 - at, "more")
    return (f"on the {ordinal(at)} centile: {n} of 100 comparable healthy people "
            f"{'has' if n == 1 else 'have'} {way}")


def percent(share: Any) -> str:
    """A share of 0 to 1 in percent, a dash where there is none."""
    return "–" if share is None or not np.isfinite(share) else f"{100 * share:.1f} %"


def effect(row: Mapping[str, Any], name: str = "g") -> str:
    """An effect and its interval.

    >>> effect({"auc": 0.61, "auc_low": 0.4, "auc_high": 0.8}, "auc")
    '0.61 [0.40, 0.80]'
    """
    return f"{number(row[name])} [{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}]"


def minus(contrast: str) -> str:
    """The name of a contrast, with a true minus sign."""
    return contrast.replace(" - ", " − ")

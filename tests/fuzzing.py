"""What hostile and damaged files look like, and what a reader of them may do.

``make fuzz`` tries thousands of each; ``NORMFUSE_FUZZ`` is how many.
"""
from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from normfuse.errors import NormfuseError

N = int(os.environ.get("NORMFUSE_FUZZ", 0))


def tries(n: int) -> settings:
    """So many examples in every run of the tests, always the same; all that are asked for in
    ``make fuzz``, always others."""
    return settings(max_examples=N or n, derandomize=not N, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck))


HOSTILE = (
    "", " ", "\0", "\x1b[2J", "../../outside", "/etc/passwd", "C:\\x", "a/b", ".", "..", "~", "*",
    "[!", "{id}", "{0.__class__}", "{id!r:>9}", "%s%n", "nan", "inf", "-1e999", "1e308",
    "=cmd|' /C calc'!A0", "=HYPERLINK(\"http://x\")", "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>", "' onmouseover='x", "{{ 7 * 7 }}", "{% for %}",
    "</style><svg/onload=x>", "javascript:x", "&lt;b&gt;", "<!--", "]]>",
    "__import__('os').system('touch canary')", "@canary", "!!python/object/apply:os.system",
    "http://127.0.0.1:1/x.csv", "file:///etc/passwd", "/dev/zero",
    "é\u0301\u202e\ufeff\U0001f9e0", "n/a", "None", "true", "x" * 3000, "sub-001", "age",
    "diagnosis", "index", "Unnamed: 0")
"""Paths, formulas, markup, templates, code, control characters, words with a meaning already."""

VALUES = (None, True, False, 0, -1, 2 ** 31, 2 ** 63, 10 ** 400, -0.0, 1e308, float("nan"),
          float("inf"), [], {}, [[]], {"a": {}}, [None], "0" * 50, *HOSTILE)

_BYTES = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\"", b"'", b",", b"\t", b";", b"[",
    b"{" * 3000, b"[" * 3000, b"9" * 5000, b"=1+1", b"1e999", b"nan", b"\x80\x04c", b"<!ENTITY",
    b"\x1f\x8b\x08", b"PK\x03\x04", b"PAR1", b"n/a", b"-", b"\x7f\xff\xff\xff",
    b"\x00\x00\xc0\x7f")

edits = st.lists(st.tuples(
    st.sampled_from("flip cut drop double insert overwrite".split()),
    st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.sampled_from(_BYTES)),
    min_size=1, max_size=4)
"""For :func:`damaged`."""

changes = st.lists(st.tuples(
    st.integers(0, 10 ** 6), st.sampled_from("set drop add name".split()),
    st.sampled_from(VALUES)), min_size=1, max_size=3)
"""For :func:`altered`."""


def damaged(content: bytes, plan: list[tuple[str, float, int, bytes]]) -> bytes:
    """The same bytes but for some edits."""
    for what, where, byte, token in plan:
        at = int(where * (len(content) + 1))
        end = min(len(content), at + 1 + byte)
        content = {
            "flip": content[:at] + bytes([byte]) + content[at + 1:],
            "cut": content[:at], "drop": content[:at] + content[end:],
            "double": content[:end] + content[at:], "insert": content[:at] + token + content[at:],
            "overwrite": content[:at] + token + content[at + len(token):]}[what]
    return content


def altered(value: Any, plan: list[tuple[int, str, Any]]) -> Any:
    """A copy of nested dicts and lists with something set, dropped, added or renamed."""
    value = copy.deepcopy(value)
    for which, what, new in plan:
        places = list(_places(value))
        if not places:
            break
        held, key = places[which % len(places)]
        if what == "drop":
            del held[key]
        elif what == "set" or isinstance(held, list):
            held[key] = new
        elif what == "add":
            held[str(new)] = copy.deepcopy(held[key])
        else:
            held[str(new)] = held.pop(key)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = list(value.items()) if isinstance(value, dict) else \
        list(enumerate(value)) if isinstance(value, list) else []
    for key, part in inner:
        yield value, key
        yield from _places(part)


def toml(spec: dict[str, Any], prefix: str = "") -> str:
    """A TOML file; values that TOML cannot say are left as Python says them."""
    lines, sections = [], []
    for key, value in spec.items():
        name = json.dumps(str(key))
        if isinstance(value, dict) and not prefix.count("."):
            path = f"{prefix}{name}"
            sections.append(f"[{path}]\n{toml(value, path + '.')}")
        else:
            lines.append(f"{name} = {_inline(value)}")
    return "\n".join([*lines, *sections]) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {_inline(v)}"
                               for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, str) else str(value)


def tree(place: Path) -> dict[str, int]:
    """Every file below, and its size."""
    return {str(path.relative_to(place)): path.lstat().st_size
            for path in place.rglob("*") if not path.is_dir()}


def refused(call: Callable[[], object], place: Path, may_write: str = "\0") -> str:
    """What the call refuses with; empty if it ends well.

    Any other error fails the test, and so does a file that was made or changed below ``place``,
    but for those whose path begins with ``may_write``.
    """
    before, said = tree(place), ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except NormfuseError as problem:
            said = str(problem)
            assert said.strip()
    after = {name: size for name, size in tree(place).items() if not name.startswith(may_write)}
    assert after == {name: size for name, size in before.items()
                     if not name.startswith(may_write)}
    return said


@contextmanager
def instead(file: Path, content: bytes) -> Iterator[None]:
    """The file with other content for a while."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)

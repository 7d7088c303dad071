"""Formulas that docstrings write as plain lines become blocks that keep their lines."""
from __future__ import annotations

import re
from typing import Any

_RELATION = re.compile(r"\s(=|~|>=|<=|~=)\s|\|\|?.+\|")
_PROSE = re.compile(r"(?:\b[a-z]{3,}\b[\s,;]+){5}")  # five words in a row are a sentence
_STAR = re.compile(r"(?<=[\s(])\*(?=[a-z]+\b(?!\*))")  # (n_subjects, *event)


def register(app: Any) -> None:
    """Before numpydoc reads the docstring."""
    app.connect("autodoc-process-docstring", _process, priority=100)


def _process(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]
             ) -> None:
    lines[:] = in_blocks(lines)


def in_blocks(lines: list[str]) -> list[str]:
    r"""Paragraphs that are formulas, as code.

    >>> for line in in_blocks(["Meaning.", "", "z = (y - m) / s,", "s > 0", "", "With z = 1."]):
    ...     print(line or "-")
    Meaning.
    -
    .. code-block:: text
    -
        z = (y - m) / s,
        s > 0
    -
    With z = 1.
    >>> in_blocks(["Tensor, shape (n, *event)"])
    ['Tensor, shape (n, \\*event)']
    """
    found: list[str] = []
    for at, part in enumerate(_paragraphs(lines)):
        if at and _is_formula(part):  # the first is the sentence that lists quote
            found += [".. code-block:: text", "", *(f"    {line}" for line in part)]
        else:
            found += [line if ">>>" in line else _STAR.sub(r"\\*", line) for line in part]
    return found


def _paragraphs(lines: list[str]) -> list[list[str]]:
    """Runs of lines, blank ones by themselves."""
    parts: list[list[str]] = []
    for line in lines:
        if line.strip() and parts and parts[-1][0].strip():
            parts[-1].append(line)
        else:
            parts.append([line])
    return parts


def _is_formula(part: list[str]) -> bool:
    first, text = part[0], " ".join(part)
    return bool(first[:1].strip() and _RELATION.search(first) and not _PROSE.search(text)
                and not re.match(r"[*>.\-]|``|\w+ : |[A-Z][a-z]+ [a-z]+[ :]", first)
                and not (len(part) > 1 and set(part[1].strip()) <= {"-"})
                and "``" not in text and ":" + "math:" not in text)

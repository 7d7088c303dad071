"""Every error that normfuse raises on purpose.

Each message says what was expected, what came, whose it is (subject, modality, file) and what to
do.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class NormfuseError(Exception):
    """Base of all normfuse errors: catch it to catch every deliberate refusal.

    Examples
    --------
    >>> from normfuse import Cohort
    >>> try:
    ...     Cohort.read("nowhere.toml")
    ... except NormfuseError as problem:
    ...     print(problem)
    there is no file nowhere.toml
    """


class CohortError(NormfuseError):
    """A cohort's tables cannot be understood, or do not fit the model they meet.

    ``problems`` has one text a fault if there are several.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class AtlasError(NormfuseError):
    """An atlas is unknown, cannot be built, or contradicts its own region table."""


class SpaceMismatchError(NormfuseError):
    """An image is not where it is said to be, or not where another one is."""


class ImageError(NormfuseError):
    """Images of a cohort cannot be used; ``findings`` has one entry a fault."""

    def __init__(self, message: str, findings: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class CalibrationError(NormfuseError):
    """Too few reference people to say how far a deviation is from chance."""


class TrainingError(NormfuseError):
    """Training produced a value that is not finite, or cannot start."""


class NotFittedError(NormfuseError):
    """A model was asked before it was fitted."""


class ModelFileError(NormfuseError):
    """A saved model is missing, truncated, edited, or of another version."""


class ComparisonError(NormfuseError):
    """A statistical comparison was asked for that the data cannot answer."""


class BegunWorkError(ComparisonError):
    """A folder of begun work belongs to another computation, is damaged, or cannot be seen."""


class OutputExistsError(NormfuseError):
    """An output path is already there; nothing was written."""


def perhaps(names: Iterable[str], known: Iterable[str], limit: int = 3) -> str:
    """What misspelt names may have meant, as the end of a sentence; empty if nothing is near.

    >>> perhaps(["Ctx_lh_insula", "moon"], ["ctx-lh-insula", "ctx-rh-insula"])
    " (perhaps 'Ctx_lh_insula' is 'ctx-lh-insula')"
    """
    every, pairs = list(known), []
    for name in list(names)[:limit]:
        # region10 is no misspelt region1
        plain = {_only(str.isalnum, other): other for other in every
                 if _only(str.isdigit, other) == _only(str.isdigit, name)}
        near = get_close_matches(_only(str.isalnum, name), plain, n=1, cutoff=0.8)
        pairs += [f"{name!r} is {plain[near[0]]!r}"] if near else []
    return f" (perhaps {', '.join(pairs)})" if pairs else ""


def _only(kept: Callable[[str], bool], name: str) -> str:
    return "".join(filter(kept, name.lower()))


def listed(names: Iterable[object], limit: int = 5) -> str:
    """The first few names, then how many more there are.

    >>> listed(["sub-1", "sub-2", "sub-3"], limit=2)
    'sub-1, sub-2, … (3 in all)'
    """
    every = [str(name) for name in names]
    if len(every) <= limit:
        return ", ".join(every)
    return ", ".join(every[:limit]) + f", … ({len(every)} in all)"

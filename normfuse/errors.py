"""Every error that normfuse raises on purpose.

Each message says what was expected, what came, whose it is (subject, modality, file) and what to
do.
"""
from __future__ import annotations

from collections.abc import Iterable


class NormfuseError(Exception):
    """Base of all normfuse errors: catch it to catch every deliberate refusal."""


class CohortError(NormfuseError):
    """A cohort's tables cannot be understood, or do not fit the model they meet."""


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


class OutputExistsError(NormfuseError):
    """An output path is already there; nothing was written."""


def listed(names: Iterable[object], limit: int = 5) -> str:
    """The first few names, then how many more there are.

    >>> listed(["sub-1", "sub-2", "sub-3"], limit=2)
    'sub-1, sub-2, … (3 in all)'
    """
    every = [str(name) for name in names]
    if len(every) <= limit:
        return ", ".join(every)
    return ", ".join(every[:limit]) + f", … ({len(every)} in all)"

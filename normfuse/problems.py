"""Refusals collected, so that all of them are said at once."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import CohortError, NormfuseError


class Problems:
    """What is wrong so far; :meth:`settle` refuses, with every problem in one message.

    Examples
    --------
    >>> problems = Problems()
    >>> for age in ("50", "fifty", "n/a"):
    ...     with problems.caught():
    ...         if not age.isdecimal():
    ...             raise CohortError(f"{age!r} is no age")
    >>> problems.settle()
    Traceback (most recent call last):
    normfuse.errors.CohortError: 2 problems:
    * 'fifty' is no age
    * 'n/a' is no age
    """

    def __init__(self) -> None:
        self._errors: list[NormfuseError] = []

    @property
    def found(self) -> tuple[str, ...]:
        """Every problem once, in the order in which they were met."""
        every = (text for error in self._errors for text in getattr(error, "problems", ())
                 or (str(error),))
        return tuple(dict.fromkeys(every))

    @contextmanager
    def caught(self) -> Iterator[None]:
        """A refusal inside ends the block and is kept."""
        try:
            yield
        except NormfuseError as error:
            self._errors.append(error)

    def add(self, text: str) -> None:
        """Keep a problem that does not end what is being done."""
        self._errors.append(CohortError(text))

    def settle(self) -> None:
        """Raise what was kept, if anything was.

        Raises
        ------
        NormfuseError
            The refusal itself if it was the only one; else a CohortError with all of them.
        """
        if len(self._errors) == 1:
            raise self._errors[0]
        if len(self.found) == 1:
            raise CohortError(self.found[0])
        if self._errors:
            raise CohortError(f"{len(self.found)} problems:\n"
                              + "\n".join(f"* {text}" for text in self.found), self.found)

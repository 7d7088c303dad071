"""One way of looking at the brain."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .cards import Card, short, some
from .errors import CohortError, listed
from .space import Space

_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f]+")

MOST_LETTERS = 60
"""Of a modality's name, which is part of file names."""

RESERVED = frozenset({"all", "epoch", "kl", "subjects", "total", "training", "validation", "z"})
"""Names that columns and rows of results have beside those of the modalities."""


@dataclass(frozen=True)
class Modality:
    """A block of features measured by one kind of scan.

    Parameters
    ----------
    name : str
        Short name, used as the first level of every result's columns (``"t1"``).
    features : tuple of str
        Feature names in the order the model uses; usually atlas regions.
    unit : str
        Unit of the features (``"mm3"``, ``"FA"``, ``"SUVR"``); printed, never converted.
    likelihood : str
        Distribution of a feature given the latent variables. Only ``"normal"`` is offered now.
    space : Space, optional
        Where the features are, if they are voxels: then they are ``space.features``.

    Examples
    --------
    >>> Modality("dti", ("wm-lh-insula", "wm-rh-insula"), unit="FA").n_features
    2
    """

    name: str
    features: tuple[str, ...]
    unit: str = ""
    likelihood: str = "normal"
    space: Space | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(str(f) for f in self.features))
        if not self.name:
            raise CohortError("a modality needs a name, such as 't1'; it came empty")
        refuse_unsafe_name(self.name)
        if self.name in RESERVED:
            raise CohortError(f"a modality cannot be called {self.name!r}, which has a meaning of "
                              f"its own in the results; nor {listed(sorted(RESERVED), 9)}")
        if not self.features:
            raise CohortError(f"modality {self.name} has no features; give it at least one")
        if len(set(self.features)) < len(self.features):
            twice = sorted(f for f, n in Counter(self.features).items() if n > 1)
            raise CohortError(f"modality {self.name} names a feature twice: {listed(twice)}; "
                              "rename or drop one of each")
        if self.space is not None and self.features != self.space.features:
            raise CohortError(f"modality {self.name} has {len(self.features)} features that are "
                              f"not the voxels of {self.space!r}")
        if self.likelihood != "normal":
            raise CohortError(f"modality {self.name} asks for likelihood {self.likelihood!r}; "
                              "only 'normal' is available")

    def __repr__(self) -> str:
        # the names of 100,000 voxels would fill pages
        where = some(self.features, 3) if self.space is None else repr(self.space)
        unit = f", unit={short(self.unit, 20)!r}" if self.unit else ""
        return f"<Modality {short(self.name, 40)!r}: {where}{unit}>"

    def _repr_html_(self) -> str:
        facts = {"features": f"{self.n_features}: {some(self.features)}",
                 "unit": self.unit, "likelihood": self.likelihood,
                 "voxels": "" if self.space is None else repr(self.space).strip("<>")}
        if self.space is not None:
            facts.pop("features")
        return Card("Modality", self.name, facts).html()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; voxels by their mask.

        Examples
        --------
        >>> pet = Modality("pet", ("insula", "cuneus"), unit="SUVR")
        >>> pet.to_dict()
        {'name': 'pet', 'unit': 'SUVR', 'likelihood': 'normal', 'features': ['insula', 'cuneus']}
        >>> Modality.from_dict(pet.to_dict()) == pet
        True
        """
        found = {"name": self.name, "unit": self.unit, "likelihood": self.likelihood}
        if self.space is None:
            return {**found, "features": list(self.features)}
        return {**found, "space": self.space.to_dict()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Modality:
        """The inverse of :meth:`to_dict`."""
        values = dict(found)
        if "space" in values:
            space = Space.from_dict(values.pop("space"))
            return cls(features=space.features, space=space, **values)
        return cls(**values)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.features)


def refuse_unsafe_name(name: str) -> str:
    """The name, if files and folders can be called after it and stay where they belong.

    Raises
    ------
    CohortError
        If it could lead elsewhere.

    Examples
    --------
    >>> refuse_unsafe_name("T1w GM")
    'T1w GM'
    """
    if not _NAME.fullmatch(name) or len(name) > MOST_LETTERS:
        raise CohortError(f"a modality cannot be called {name[:MOST_LETTERS]!r}: files are named "
                          "after it, so that it may not hold / \\ or control characters, begin "
                          f"with a dot, or have more than {MOST_LETTERS} letters")
    return name

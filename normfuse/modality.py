"""One way of looking at the brain."""
from __future__ import annotations

from dataclasses import dataclass

from .errors import CohortError, listed

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

    Examples
    --------
    >>> Modality("dti", ("wm-lh-insula", "wm-rh-insula"), unit="FA").n_features
    2
    """

    name: str
    features: tuple[str, ...]
    unit: str = ""
    likelihood: str = "normal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(str(f) for f in self.features))
        if not self.name:
            raise CohortError("a modality needs a name, such as 't1'; it came empty")
        if self.name in RESERVED:
            raise CohortError(f"a modality cannot be called {self.name!r}, which has a meaning of "
                              f"its own in the results; nor {listed(sorted(RESERVED), 9)}")
        if not self.features:
            raise CohortError(f"modality {self.name} has no features; give it at least one")
        twice = sorted({f for f in self.features if self.features.count(f) > 1})
        if twice:
            raise CohortError(f"modality {self.name} names a feature twice: {listed(twice)}; "
                              "rename or drop one of each")
        if self.likelihood != "normal":
            raise CohortError(f"modality {self.name} asks for likelihood {self.likelihood!r}; "
                              "only 'normal' is available")

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.features)

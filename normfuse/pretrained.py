"""Encoders that have seen people before: a value that models start from, and its file."""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from .cards import Card, some
from .choices import choice_from_dict, choice_to_dict
from .cohort import Cohort
from .errors import CohortError, ModelFileError, listed
from .fingerprints import known_roles
from .fusion import Choice
from .modality import Modality
from .models import Convolutional, OneLatent, Recipe
from .networks.pyramid import Pyramid
from .processes import processes
from .signed import read_signed, write_signed
from .training import TrainingPlan

FORMAT = 1
JSON_NAME = "encoders.json"


class Encoding(Protocol):
    """What makes encoders from people, such as :class:`~normfuse.imaging.pretraining.Pretraining`:
    so a model can make its own from the people it trains on, and from nobody else."""

    networks: Any

    def with_networks(self, networks: Choice) -> Encoding:
        """For a model of these networks."""

    def fit(self, cohort: Cohort, *, keep: str | Path | None = None) -> PretrainedEncoders:
        """Encoders of these people."""


@dataclass(frozen=True, eq=False)
class PretrainedEncoders:
    """One encoder a modality, taught without labels and without covariates.

    Attributes
    ----------
    networks : Pyramid, Convolutional or Recipe
        Of image models (``IncompleteSegmenter``, ``ImageSynthesiser``), of the images of a
        ``NormativeModel``, or of its tables.
    dimensions : int
        Of images: 2 for slices, 3 for volumes; 0 for tables.
    features : dict of tuple of str
        Modality -> regions that it reads, in their order; none of images.
    objective : str
        What they were taught by.
    weights : dict of dict of Tensor
        Modality -> weights.
    known : dict of str
        Hashes of the people who were seen.
    n_people : int
    plan : TrainingPlan
    history : DataFrame
        Epoch by epoch; see :func:`~normfuse.imaging.pretraining.pretrain`.
    notes : tuple of str
        What is wrong with them, such as a collapse.
    seen : str
        What images they learned from, as ``axial slices of 4 mm``.

    Examples
    --------
    >>> from normfuse.imaging.pretraining import pretrain
    >>> from normfuse.networks.pyramid import Pyramid
    >>> from normfuse.testing import tiny_images
    >>> brief = TrainingPlan(max_epochs=1, warmup=0, batch_size=8, validation_draws=1)
    >>> pretrain(tiny_images(), networks=Pyramid((4, 8), (0, 4)), plan=brief)
    <PretrainedEncoders of T1w, T2w, FLAIR, slices: from 12 people>
    """

    networks: Pyramid | Convolutional | Recipe
    dimensions: int
    features: Mapping[str, tuple[str, ...]]
    objective: str
    weights: Mapping[str, Mapping[str, Tensor]]
    known: Mapping[str, str]
    n_people: int
    plan: TrainingPlan
    history: pd.DataFrame
    notes: tuple[str, ...] = ()
    seen: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names."""
        return tuple(self.weights)

    @property
    def _of(self) -> str:
        return {0: "tables", 2: "slices", 3: "volumes"}[self.dimensions]

    def start(self, encoders: Mapping[str, nn.Module]) -> None:
        """Copy weights into new encoders, which must be as large; of modalities that are unknown
        here nothing happens.

        Raises
        ------
        CohortError
            None of the modalities is known.
        ValueError
            Networks of another size.

        Warns
        -----
        UserWarning
            Some are unknown, and start afresh.
        """
        known = [name for name in encoders if name in self.weights]
        if not known:
            raise CohortError(f"these encoders know {listed(self.weights)}, and none of "
                              f"{listed(encoders)}; name the modalities alike")
        fresh = [name for name in encoders if name not in self.weights]
        if fresh:
            warnings.warn(f"the encoders of {listed(fresh)} were not pre-trained and start "
                          f"afresh: pre-training knew {listed(self.weights)}", stacklevel=4)
        for name in known:
            _copy(self.weights[name], encoders[name], name)

    def refuse_other(self, networks: Choice, dimensions: int) -> None:
        """Raise ValueError unless encoders of these networks can start from these."""
        mine, theirs = (getattr(n, "channels", None) for n in (self.networks, networks))
        if type(self.networks) is not type(networks) or mine != theirs:
            raise ValueError(f"these encoders are of {self.networks!r}, the model's of "
                             f"{networks!r}; take the encoders' sizes (leave sizes out), or "
                             "pre-train others")
        if self.dimensions != dimensions:
            raise ValueError(f"these encoders read {self._of}; the model's are of "
                             f"{dimensions} dimensions: pre-train with its plane")

    def refuse_features(self, modality: Modality) -> None:
        """Raise CohortError unless a table has the regions that its encoder reads."""
        read = self.features.get(modality.name)
        if read is not None and read != tuple(modality.features):
            raise CohortError(f"the encoder of {modality.name} reads {len(read)} features "
                              f"({listed(read)}) in this order; the cohort's has "
                              f"{modality.n_features} ({listed(modality.features)})")

    def has_seen(self, cohort: Cohort) -> pd.Series:
        """Who of these people were there when they were pre-trained, bool."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # reprocessed scans of the same people
            return known_roles(cohort, self.known) != "new"

    def told(self) -> str:
        """One sentence for provenance."""
        return (f"encoders were pre-trained on {self.n_people} people by {self.objective}"
                + "".join(f"; {note}" for note in self.notes))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write to a new folder: ``encoders.json`` and ``weights.safetensors``."""
        return processes().from_first(lambda: _written(self, Path(folder), overwrite))

    @classmethod
    def load(cls, folder: str | Path) -> PretrainedEncoders:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ModelFileError
            If something is missing, truncated or edited, or of another version.
        """
        return _read(Path(folder))

    def __repr__(self) -> str:
        return (f"<PretrainedEncoders of {listed(self.weights)}, {self._of}: from "
                f"{self.n_people} people>")

    def _repr_html_(self) -> str:
        last = self.history.tail(3).set_index("epoch")
        return Card("Pre-trained encoders", f"of {some(self.weights)}", {
            "networks": repr(self.networks), "read": self._of, "taught by": self.objective,
            "people": str(self.n_people), **({"notes": "; ".join(self.notes)}
                                             if self.notes else {})}, {"last epochs": last}).html()


def encoding(encoders: PretrainedEncoders | Encoding | None
             ) -> PretrainedEncoders | Encoding | None:
    """The same; TypeError for what is neither encoders nor makes them.

    >>> encoding("encoders/")
    Traceback (most recent call last):
    TypeError: encoders are PretrainedEncoders, as from pretrain(cohort) or ...; got 'encoders/'
    """
    if encoders is not None and not isinstance(encoders, PretrainedEncoders) \
            and not hasattr(encoders, "with_networks"):
        raise TypeError("encoders are PretrainedEncoders, as from pretrain(cohort) or "
                        "PretrainedEncoders.load(folder), or a Pretraining() to make some; got "
                        f"{encoders!r}")
    return encoders


def recipe_for(encoders: PretrainedEncoders | Encoding | None) -> Recipe:
    """The default recipe of a normative model that starts from these: theirs, if they have one.

    >>> recipe_for(None)
    OneLatent()
    """
    networks = getattr(encoders, "networks", None)
    if isinstance(networks, Recipe):
        return networks
    return OneLatent(voxels=networks) if isinstance(networks, Convolutional) else OneLatent()


def _copy(weights: Mapping[str, Tensor], encoder: nn.Module, name: str) -> None:
    """The new one may read covariates too, beside: their columns stay as they are."""
    state = encoder.state_dict()
    for key, value in weights.items():
        mine = state.get(key)
        fits = mine is not None and mine.dim() == value.dim() and (
            mine.shape == value.shape or (value.dim() == 2 and len(mine) == len(value)
                                          and mine.shape[1] >= value.shape[1]))
        if mine is None or not fits:
            raise ValueError(f"the encoder of {name} was pre-trained at another size: {key} is "
                             f"{tuple(value.shape)} there, "
                             f"{None if mine is None else tuple(mine.shape)} in this model; give "
                             "it the networks of the encoders, or pre-train others")
        with torch.no_grad():
            mine[tuple(slice(n) for n in value.shape)].copy_(value)


def _written(encoders: PretrainedEncoders, folder: Path, overwrite: bool) -> Path:
    content = {"format": FORMAT, "networks": choice_to_dict(encoders.networks),
               "dimensions": encoders.dimensions,
               "features": {name: list(f) for name, f in encoders.features.items()},
               "modalities": list(encoders.weights), "objective": encoders.objective,
               "known": dict(encoders.known), "n_people": encoders.n_people,
               "plan": asdict(encoders.plan), "history": encoders.history.to_dict("list"),
               "notes": list(encoders.notes), "seen": encoders.seen}
    tensors = {f"{k}.{key}": value.detach().cpu().contiguous()
               for k, weights in enumerate(encoders.weights.values())
               for key, value in weights.items()}
    return write_signed(folder, JSON_NAME, content, tensors, overwrite=overwrite)


def _read(folder: Path) -> PretrainedEncoders:
    content, tensors = read_signed(folder, JSON_NAME, FORMAT, "PretrainedEncoders.save")
    try:
        weights = {str(name): {key.removeprefix(f"{k}."): value
                               for key, value in tensors.items() if key.startswith(f"{k}.")}
                   for k, name in enumerate(content["modalities"])}
        if not all(weights.values()) or sum(map(len, weights.values())) != len(tensors):
            raise ValueError("weights and modalities do not fit")
        return PretrainedEncoders(
            choice_from_dict(content["networks"], folder), int(content["dimensions"]),
            {str(name): tuple(map(str, f)) for name, f in content["features"].items()},
            str(content["objective"]), weights, dict(content["known"]), int(content["n_people"]),
            TrainingPlan(**content["plan"]), pd.DataFrame(content["history"]),
            tuple(map(str, content["notes"])), str(content.get("seen", "")))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as problem:
        raise ModelFileError(f"{folder} does not hold complete encoders: {problem!r}; save them "
                             "again") from problem

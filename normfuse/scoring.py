"""Standardised residuals and latent positions of subjects, one missingness pattern at a time."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from .errors import CalibrationError, listed
from .inference import Inference
from .kinds import Kind, Predicted
from .models import Batch, Vae
from .pattern_law import FeatureLaw, Frame, PatternLaw

Pattern = tuple[bool, ...]
"""Which modalities were measured, in the model's order."""

MAX_ENUMERATED = 6
"""Up to 6 modalities all 63 patterns are calibrated; beyond, those that occur in the reference,
all modalities, and each alone."""


@dataclass(frozen=True, eq=False)
class RawScores:
    """Before calibration: what the model says of some subjects.

    Attributes
    ----------
    residuals : dict of ndarray, shape (n_subjects, n_features)
        Kind -> u = (x - mean) / sqrt(sd^2 + var[x]): signed, over the kind's predictive sd and
        what is not known of the covariates' effects. NaN where nothing was measured.
    expected : dict of Predicted
        Kind -> means and sds; also for modalities that were not measured.
    parts : ndarray, shape (n_modalities, n_subjects, n_latent)
        Each modality's part in the mean of the fused posterior, which is their sum: the latent
        space is the aggregator's.
    """

    residuals: Mapping[str, np.ndarray]
    expected: Mapping[str, Predicted]
    parts: np.ndarray


def raw_scores(vae: Vae, batch: Batch, inference: Inference, kinds: Sequence[Kind]) -> RawScores:
    """Score subjects in float64, each depending on itself alone."""
    expected: dict[str, list[Predicted]] = {kind.name: [] for kind in kinds}
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(batch)).split(vae.people_at_once):
            part = batch.take(rows)
            for kind in kinds:
                expected[kind.name].append(kind.predicted(vae, part, inference))
            parts.append(vae.position(part)[1].numpy())
    joined = {name: Predicted(*(tuple(map(torch.cat, zip(*(getattr(p, field) for p in found))))
                                for field in ("mean", "sd")))
              for name, found in expected.items()}
    return RawScores({name: residual(batch, found) for name, found in joined.items()}, joined,
                     np.concatenate(parts, 1))


def residual(batch: Batch, found: Predicted) -> np.ndarray:
    """(x - mean) / sqrt(sd^2 + var[x]), shape (n_subjects, n_features)."""
    blocks = []
    for m, (x, mean, sd) in enumerate(zip(batch.x, found.mean, found.sd)):
        doubt = 0.0 if batch.variance is None else batch.variance[m]
        u, measured = (x - mean) / (sd ** 2 + doubt).sqrt(), batch.measured[m]
        blocks.append(u if measured is None else torch.where(measured, u, torch.nan))
    return torch.cat(blocks, -1).numpy()


@dataclass(frozen=True, eq=False)
class Witness:
    """A fitted model and healthy people it did not learn from, who say what is normal.

    Attributes
    ----------
    vae : Vae
    people : Batch
    learners : Batch or None
        Whom the model learned from, if positions must be put in their frame.
    """

    vae: Vae
    people: Batch
    learners: Batch | None = None

    def able(self, kept: Tensor) -> Tensor:
        """Positions of the people who have at least these modalities."""
        return torch.nonzero(self.people.present[kept].all(0)).ravel()

    def folds(self, kept: Tensor, every: np.ndarray) -> np.ndarray:
        """Those people's folds, of everybody's."""
        return every[self.able(kept).numpy()]  # a tensor of one position would take a scalar

    def parts(self, kept: Tensor) -> np.ndarray:
        """Of the latent positions of those people measured with only these, in their frame."""
        with torch.no_grad():
            found = [self.vae.position(some)[1].numpy() for _, some in self._measured_with(kept)]
        return self.frame(kept)(np.concatenate(found, 1))

    def residuals(self, kept: Tensor, kind: Kind, inference: Inference) -> np.ndarray:
        """Those people's, measured with only these; what is expected of them is not kept."""
        width = sum(x.shape[1] for x in self.people.x)
        found = np.empty((len(self.able(kept)), width))
        with torch.no_grad():
            for at, some in self._measured_with(kept):
                found[at] = residual(some, kind.predicted(self.vae, some, inference))
        return found

    def _measured_with(self, kept: Tensor) -> Iterator[tuple[slice, Batch]]:
        """So many of them as fit in memory, and where they are among all of them."""
        able, step = self.able(kept), self.vae.people_at_once
        for start in range(0, len(able), step):
            at = slice(start, start + step)
            yield at, self.people.take(able[at]).hide(kept)

    def frame(self, kept: Tensor) -> Frame:
        """Coordinates for people measured with these modalities."""
        n_modalities = len(kept)
        if self.learners is None:
            return Frame.none(n_modalities, self.vae.n_dimensions)
        able = torch.nonzero(self.learners.present[kept].all(0)).ravel()
        if len(able) <= self.vae.n_dimensions + 1:
            return Frame.none(n_modalities, self.vae.n_dimensions)
        with torch.no_grad():
            return Frame.of(self.vae.position(self.learners.take(able).hide(kept))[1].numpy())


def calibrate(witnesses: Sequence[Witness], frames: Mapping[Pattern, Frame],
              inference: Inference, kinds: Sequence[Kind], folds: Sequence[np.ndarray],
              columns: Mapping[str, slice], everybody: tuple[Batch, np.ndarray] | None = None
              ) -> dict[Pattern, PatternLaw]:
    """The law of every pattern for which there are calibration people enough.

    Parameters
    ----------
    frames : dict of Frame
        Patterns to calibrate -> frame of the model that will score.
    folds : sequence of int ndarray
        Of the people of each witness, those that shapes are fitted without.
    columns : dict of slice
        Where each modality's features are.
    everybody : (Batch, int ndarray), optional
        The whole reference, each judged by the others, and their folds: for marginal kinds.
    """
    laws = {}
    for pattern, frame in frames.items():
        kept = torch.tensor(pattern)
        who = np.concatenate([w.folds(kept, fold) for w, fold in zip(witnesses, folds)])
        if len(who) < 2:
            continue
        features = {}
        for kind in kinds:
            judged = list(zip(witnesses, folds)) if everybody is None or not kind.marginal else \
                [(Witness(witnesses[0].vae, everybody[0]), everybody[1])]
            u = np.vstack([w.residuals(kept, kind, inference) for w, _ in judged])
            features[kind.name] = FeatureLaw.fit(
                u, np.concatenate([w.folds(kept, fold) for w, fold in judged]), columns)
        law = PatternLaw.fit(features, np.concatenate([w.parts(kept) for w in witnesses], 1), who,
                             frame)
        if law.latent.usable:
            laws[pattern] = law
    return laws


def patterns(present: Tensor) -> list[Pattern]:
    """Those to calibrate, for presence (n_modalities, n_reference)."""
    n_modalities = len(present)
    if n_modalities <= MAX_ENUMERATED:
        return [p for p in product([True, False], repeat=n_modalities) if any(p)]
    seen = {tuple(bool(v) for v in column) for column in present.T}
    alone = {tuple(j == k for j in range(n_modalities)) for k in range(n_modalities)}
    return sorted(seen | alone | {(True,) * n_modalities})


def by_pattern(batch: Batch) -> Iterator[tuple[Pattern, Tensor]]:
    """Each missingness pattern and the positions of its subjects."""
    patterns, which = torch.unique(batch.present.T, dim=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        yield tuple(bool(v) for v in pattern), torch.nonzero(which == k).ravel()


def refuse_uncalibrated(batch: Batch, laws: dict[Pattern, PatternLaw], ids: list[str],
                        names: list[str]) -> None:
    """Everybody's pattern must have a law.

    Raises
    ------
    CalibrationError
        Names the subjects, their modalities, and what to hide.
    """
    for pattern, rows in by_pattern(batch):
        if pattern in laws:
            continue
        who = [ids[i] for i in rows.tolist()]
        has = [name for name, there in zip(names, pattern) if there]
        if not has:
            raise CalibrationError(f"{listed(who)} have none of the model's modalities "
                                   f"({listed(names)}); there is nothing to score")
        instead = f"Score them without one of these (cohort.without({has[-1]!r})), leave " \
            if len(has) > 1 else "Leave "
        raise CalibrationError(
            f"{len(who)} subjects ({listed(who)}) were measured with {' + '.join(has)}; too few "
            "calibration people were, so nobody can say what is normal for that combination. "
            f"{instead}them out (skip_uncalibrated=True, --skip-uncalibrated), or fit with more "
            "healthy people who have them all")

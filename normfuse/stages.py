"""The stages in which a model is trained: of scores, of all features, and of images."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import Checkpoint
from .errors import TrainingError, listed
from .fusion import Aggregator
from .inference import Inference
from .modality import Modality
from .models import Batch, Convolutional, Recipe, Vae
from .networks import BentEncoder, PrincipalAxes
from .pretrained import PretrainedEncoders
from .refit import MOST_CORRELATED, maximise, refit
from .training import History, TrainingPlan, fit


@dataclass(frozen=True, eq=False)
class Stages:
    """What all stages of a training need.

    Attributes
    ----------
    training, early_stop : Batch
        People to learn from, and those who say when to stop and what pays; float64.
    keep : Path or None
        Without its suffix, where each training writes how far it is.
    encoders : PretrainedEncoders or None
        Where those of tables start, or the convolutions of images.
    """

    modalities: Sequence[Modality]
    training: Batch
    early_stop: Batch
    plan: TrainingPlan
    inference: Inference
    seed: int
    keep: Path | None = None
    encoders: PretrainedEncoders | None = None

    def learn(self, recipe: Recipe, fusion: Aggregator) -> tuple[Vae, History]:
        """A trained model, and how its networks of tables and scores came about.

        Where a modality has more features than networks can read, or is an image for
        convolutions, they first read and predict its scores along principal axes.
        """
        axes = [self._axes(recipe, m) for m in range(len(self.modalities))]
        wide = any(axes)
        if wide and recipe.hidden and not recipe.skip:
            raise TrainingError(f"models of voxels start from linear paths, and {recipe!r} has "
                                "none; leave skip=True")
        vae = self._built(recipe, fusion, axes)
        training, early_stop = (_along(b, axes) for b in (self.training, self.early_stop))
        history = self._fit(vae, training, early_stop, self.plan, "")
        refit(vae, training, early_stop, self.inference, linear=wide)
        if wide:
            vae.widen(axes)
            if recipe.voxels is not None:
                self._convolve(vae, recipe.voxels)
            refit(vae, self.training, self.early_stop, self.inference)
        return vae, history

    def _axes(self, recipe: Recipe, m: int) -> PrincipalAxes | None:
        is_image = recipe.voxels is not None and self.modalities[m].space is not None
        if self.training.x[m].shape[1] <= MOST_CORRELATED and not is_image:
            return None
        return PrincipalAxes.of(self.training.x[m][self.training.present[m]])

    def _built(self, recipe: Recipe, fusion: Aggregator, axes: Sequence[PrincipalAxes | None]
               ) -> Vae:
        widths = {m.name: m.n_features if found is None else len(found.down)
                  for m, found in zip(self.modalities, axes)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            vae = recipe.build(widths, self.training.design.shape[1], fusion)
        if self.encoders is not None and recipe.voxels is None:
            self._start_tables(vae, self.encoders, [m.name for m, found in zip(
                self.modalities, axes) if found is not None])
        return vae

    def _start_tables(self, vae: Vae, encoders: PretrainedEncoders, wide: Sequence[str]) -> None:
        if wide or encoders.dimensions:
            raise TrainingError(
                f"encoders of {encoders.networks!r} have no place in a model whose encoders read "
                + (f"scores of {listed(wide)} along principal axes" if wide else "tables")
                + "; images start from encoders of Convolutional(), in a model with "
                "model=OneLatent(voxels=Convolutional()), tables from those of its recipe")
        for m in self.modalities:
            encoders.refuse_features(m)
        encoders.start(dict(zip(vae.names, vae.encoders)))

    def _fit(self, vae: Vae, training: Batch, early_stop: Batch, plan: TrainingPlan, stage: str
             ) -> History:
        """In single precision; the model is left in double."""
        keep = None if self.keep is None else Checkpoint(
            self.keep.with_name(f"{self.keep.name}{stage}.pt"))
        vae.for_training()
        history = fit(vae, training.to(torch.float32), early_stop.to(torch.float32), plan,
                      seed=self.seed, keep=keep)
        vae.double().requires_grad_(False)
        return history

    def _convolve(self, vae: Vae, bend: Convolutional) -> None:
        """Train convolutions beside the best linear model of the training people."""
        maximise(vae, self.training, self.inference)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            vae.convolve(masks(self.modalities))
        if self.encoders is not None:
            self.encoders.refuse_other(bend, 3)
            self.encoders.start({name: encoder.conv.steps for name, encoder in zip(
                vae.names, vae.encoders) if isinstance(encoder, BentEncoder)})
        vae.requires_grad_(True)
        for noise in vae.noise:
            noise.requires_grad_(False)  # has a closed form
        plan = replace(self.plan, warmup=0, max_epochs=bend.epochs, patience=bend.patience,
                       batch_size=bend.batch_size, learning_rate=bend.learning_rate,
                       validation_draws=min(2, self.plan.validation_draws))
        self._fit(vae, self.training, self.early_stop, plan, "_images")


def masks(modalities: Sequence[Modality]) -> list[Tensor | None]:
    """Of those that are images."""
    return [None if m.space is None else torch.tensor(m.space.mask) for m in modalities]


def rebuilt(recipe: Recipe, fusion: Aggregator, modalities: Sequence[Modality], n_design: int,
            weights: Mapping[str, Tensor]) -> Vae:
    """A model that :meth:`Stages.learn` left, from what its ``state_dict`` said.

    ValueError if the recipe is of a larger model than the weights: it would be made first.
    """
    downs = [weights.get(f"encoders.{m}.down") for m in range(len(modalities))]
    widths = {m.name: m.n_features if down is None else len(down)
              for m, down in zip(modalities, downs)}
    sides = {side for weight in weights.values() for side in weight.shape}
    strange = [n for n in recipe.hidden if n not in sides]
    if strange or recipe.n_dimensions > max(sides, default=0):
        raise ValueError(f"{recipe!r} is of another size than the weights")
    with torch.random.fork_rng(devices=[]):  # fresh weights draw; the caller's state stays
        vae = recipe.build(widths, n_design, fusion)
        vae.widen([None if down is None else PrincipalAxes(*2 * (torch.zeros_like(
            down, dtype=torch.float32),)) for down in downs])
        vae.convolve([mask if down is not None else None
                      for mask, down in zip(masks(modalities), downs)])
    vae.double().requires_grad_(False).eval()
    vae.load_state_dict(weights)
    return vae


def _along(batch: Batch, axes: Sequence[PrincipalAxes | None]) -> Batch:
    """People by their scores where there are axes; what was not measured of them counts as 0."""
    x, measured = list(batch.x), list(batch.measured)
    for m, found in enumerate(axes):
        if found is not None:
            x[m], present = x[m] @ found.down.mT, batch.present[m]
            measured[m] = None if present.all() else present[:, None].expand_as(x[m])
    return replace(batch, x=tuple(x), measured=tuple(measured), variance=None)

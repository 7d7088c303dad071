"""What image methods must beat: voxel-wise regression, and a U-Net of MONAI.

The U-Net reads all modalities stacked, zeros where one is absent, beside channels that say which
are there; in training each is hidden with probability a half. It is trained by the same loop, on
the same images, for about as many CPU seconds.
"""
from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn

from normfuse import Cohort, TrainingPlan
from normfuse.imaging.images import Frame, Images, Stack, Units, one_space
from normfuse.imaging.learning import Roles
from normfuse.imaging.synthesised import Synthesis
from normfuse.models.vae import hide_some
from normfuse.training import fit

CHANNELS, STRIDES = (16, 32, 64, 64), (2, 2, 2)


class Stacked(nn.Module):
    """A U-Net of values and presence; ``n_classes`` 0: synthesis of all modalities, L1."""

    def __init__(self, n_modalities: int, n_classes: int = 0, *, hide: float = 0.5) -> None:
        super().__init__()
        self.hide, self.n_classes = hide, n_classes
        self.net = UNet(2, 2 * n_modalities, n_classes or n_modalities, channels=CHANNELS,
                        strides=STRIDES, num_res_units=2)
        self.dice = DiceCELoss(to_onehot_y=True, softmax=True)

    def seen(self, batch: Images, fused: Tensor) -> Tensor:
        there = fused[:, :, None, None].to(batch.values.dtype)
        return self.net(torch.cat([batch.values * there, there.expand_as(batch.values)])
                        .movedim(0, 1))

    def loss(self, batch: Images, warmup: float = 1.0) -> dict[str, Tensor]:
        made = self.seen(batch, hide_some(batch.present, self.hide))
        if self.n_classes:
            return {"segmentation": self.dice(made, batch.labels[:, None])}
        known = batch.known & batch.present[:, :, None, None]
        return {"l1": torch.where(known, (made.movedim(1, 0) - batch.values).abs(), 0.0).sum()
                / known.sum()}


class UNetRival:
    """Trained like ours."""

    def __init__(self, plan: TrainingPlan, seed: int, hide: float = 0.5) -> None:
        self.plan, self.seed, self.hide = plan, seed, hide

    def fit(self, cohort: Cohort, labels: Tensor | None = None, n_classes: int = 0) -> UNetRival:
        roles = Roles.drawn(cohort, self.seed)
        row = pd.Series(range(len(cohort)), cohort.ids)
        self.frame = Frame(one_space(cohort), 2 ** len(STRIDES), "axial")
        self.units = Units.of(cohort.select(roles.training))
        self.names = tuple(m.name for m in cohort.modalities)
        torch.manual_seed(self.seed)
        self.net = Stacked(len(self.names), n_classes, hide=self.hide)
        stacks = [Stack.of(cohort.select(ids), self.frame, self.units,
                           None if labels is None else labels[row[ids].to_numpy()],
                           slices=self.frame.busy).of_somebody().instructive()
                  for ids in (roles.training, roles.early_stop)]
        self.history = fit(self.net, *stacks, self.plan, seed=self.seed)
        return self

    def tune(self, cohort: Cohort, plan: TrainingPlan, labels: Tensor | None = None) -> UNetRival:
        """A copy that went on with these people, all of them, to the end of the plan."""
        new = copy.copy(self)
        new.units, new.net = Units.of(cohort), copy.deepcopy(self.net)
        stack = Stack.of(cohort, self.frame, new.units, labels,
                         slices=self.frame.busy).instructive()
        fit(new.net, stack, stack, plan, seed=self.seed)
        return new

    @torch.no_grad()
    def _maps(self, cohort: Cohort, kept: Tensor) -> Tensor:
        """(n_outputs, n_people, n_voxels) from the modalities where ``kept``."""
        images, found = Stack.of(cohort, self.frame, self.units), []
        for rows in torch.arange(len(images)).split(32):
            batch = images.take(rows)
            found.append(self.net.seen(batch, batch.present & kept[:, None]).movedim(1, 0))
        return torch.stack([self.frame.table(t) for t in torch.cat(found, 1)])

    def synthesise(self, cohort: Cohort, targets: list[str]) -> Synthesis:
        kept = torch.tensor([n not in targets for n in self.names])
        made = self._maps(cohort, kept)
        mean = {n: made[k] * self.units.sd[k] + self.units.mean[k]
                for k, n in enumerate(self.names) if n in targets}
        return as_synthesis(cohort, mean)

    def labels(self, cohort: Cohort, given: list[str]) -> np.ndarray:
        """The likeliest class of every voxel, (n_people, n_voxels)."""
        kept = torch.tensor([n in given for n in self.names])
        return self._maps(cohort, kept).argmax(0).numpy().astype(np.uint8)


class Regression:
    """Of a voxel's value on those of the others there, their squares, products and cubes; one
    model for all voxels, with every subset of the others."""

    def fit(self, cohort: Cohort) -> Regression:
        values = {m.name: cohort.features[m.name].to_numpy(np.float64).ravel()
                  for m in cohort.modalities}
        some = np.random.default_rng(0).permutation(len(next(iter(values.values()))))[:400_000]
        self.values = {name: v[some] for name, v in values.items()}
        return self

    def synthesise(self, cohort: Cohort, targets: list[str]) -> Synthesis:
        given = [n for n in self.values if n not in targets]
        mean = {}
        for target in targets:
            known = ~np.isnan(np.sum([self.values[n] for n in (*given, target)], axis=0))
            design = _powers([self.values[n][known] for n in given])
            weights = np.linalg.lstsq(design, self.values[target][known], rcond=None)[0]
            seen = [cohort.features[n].to_numpy(np.float64).ravel() for n in given]
            mean[target] = torch.from_numpy(_powers(seen) @ weights).view(len(cohort), -1)
        return as_synthesis(cohort, mean)


def _powers(columns: list[np.ndarray]) -> np.ndarray:
    squares = [a * b for i, a in enumerate(columns) for b in columns[i:]]
    return np.stack([np.ones_like(columns[0]), *columns, *squares, *(c**3 for c in columns)], 1)


def as_synthesis(cohort: Cohort, mean: dict[str, Tensor]) -> Synthesis:
    """With an sd of 1, which nobody looks at."""
    frames = {n: pd.DataFrame(v.numpy(), cohort.ids, cohort.modality(n).features)
              for n, v in mean.items()}
    given = pd.DataFrame({m.name: m.name not in mean for m in cohort.modalities}, cohort.ids)
    return Synthesis(one_space(cohort), frames, {n: f * 0 + 1 for n, f in frames.items()}, given,
                     tuple(m for m in cohort.modalities if m.name in mean))

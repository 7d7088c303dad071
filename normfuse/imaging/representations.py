"""Images of different modalities made alike: what registration compares in their place."""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..checkpoint import Checkpoint
from ..cohort import Cohort
from ..errors import CohortError, NotFittedError, listed
from ..fusion.choice import of_type
from ..networks.local_unet import LocalUNet
from ..processes import processes
from ..training import History, TrainingPlan, fit
from .contrastive import (Critic, MeanSquare, closeness, collapse_value, effective_rank, info_nce,
                          uniformity)
from .images import Frame, one_space
from .learning import Roles
from .patches import Pairs, Patches, stack_of
from .supervision import Supervision

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

OUTLINE = 2.0
"""Mean of a representation in the brain, in its sds; outside it is 0."""

MARGIN = 5
"""Of the coarsest voxels of a network: as far as two convolutions at each resolution see."""

POOLED = 4
"""Sides to which an output is averaged before its rank is taken: more would count noise."""


UNTAUGHT = 0.9
"""Share of the contrast of constant representations above which hardly anything was learned."""


class RepresentationNet(nn.Module):
    r"""One network a modality, y_m = f_m(x_m), taught by contrast of pairs.

    .. math:: loss = L(y_a, y_b) + \lambda (|y|_1 + |y|_2^2), \qquad y = g^{-1} f(g x)

    with a quarter turn g drawn for each modality and step: so f learns to turn with its input.

    Parameters
    ----------
    names : sequence of str
        Of modalities.
    dimensions : int
    channels : sequence of int
    critic : Critic
    temperature : float
    decay : float
        lambda; both norms are means over pixels.
    supervision : Supervision, optional
    n_epochs : int
        Of the training.
    """

    def __init__(self, names: Sequence[str], dimensions: int, channels: Sequence[int], *,
                 critic: Critic, temperature: float, decay: float,
                 supervision: Supervision | None, n_epochs: int, n_outputs: int = 1) -> None:
        super().__init__()
        self.names, self.dimensions = tuple(names), dimensions
        self.critic, self.temperature, self.decay = critic, temperature, decay
        self.supervision, self.n_epochs = supervision, n_epochs
        self.nets = nn.ModuleList(LocalUNet(dimensions, channels, n_outputs) for _ in names)
        self.epoch: Tensor
        self.register_buffer("epoch", torch.tensor(0))

    def end_epoch(self) -> None:
        """Count, for supervisions that change."""
        self.epoch += 1

    def see(self, batch: Pairs) -> tuple[Tensor, Tensor]:
        """Outputs (2, N, n_outputs, *sides) and averaged innermost features (2, N, channels)."""
        images, which = batch.images.flatten(0, 1), batch.which.ravel().to(batch.images.device)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for m, net in enumerate(self.nets):
            rows = torch.nonzero(which == m).ravel()
            if len(rows):
                out, inner = self._turned(net, images.index_select(0, rows))
                found.append((rows, out, inner.flatten(2).mean(2)))
        order = torch.cat([rows for rows, *_ in found]).argsort()
        out, inner = (torch.cat(parts).index_select(0, order).unflatten(0, (2, -1))
                      for parts in list(zip(*found))[1:])
        return out, inner

    def _turned(self, net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        planes = [(-2, -1)] if self.dimensions == 2 else [(-3, -2), (-3, -1), (-2, -1)]
        quarters = torch.randint(4, (len(planes),)).tolist() if self.training else [0] * 3
        turns = list(zip(planes, quarters))
        for plane, k in turns:
            images = images.rot90(k, plane)
        out, inner = net(images)
        for plane, k in reversed(turns):
            out = out.rot90(-k, plane)
        return out, inner

    def loss(self, batch: Pairs, warmup: float = 1.0) -> dict[str, Tensor]:
        """Terms by name. Judged, rather than trained, every network is by its output alone."""
        (a, b), (inner_a, inner_b) = self.see(batch)
        share = (1.0, 0.0)
        if self.supervision is not None and self.training:
            share = self.supervision.weights(int(self.epoch), self.n_epochs)
        terms = {}
        if share[0]:
            terms["contrast"] = share[0] * info_nce(a, b, self.critic, self.temperature)
        if share[1] and self.supervision is not None:
            terms["bottleneck"] = share[1] * info_nce(inner_a, inner_b, self.supervision.critic,
                                                      self.temperature)
        both = torch.stack([a, b])
        terms["decay"] = self.decay * (both.abs().mean() + both.square().mean())
        return terms

    def pooled(self, outputs: Tensor) -> Tensor:
        """Averaged to POOLED voxels a side, rows of numbers."""
        pool = nn.functional.adaptive_avg_pool2d if self.dimensions == 2 else \
            nn.functional.adaptive_avg_pool3d
        return pool(outputs, POOLED).flatten(1)

    @torch.no_grad()
    def watch(self, data: Patches) -> dict[str, float]:
        """What shows a collapse: ranks, alignment, uniformity, and the loss it would have."""
        outs, inners = zip(*(self.see(data.take(rows))
                             for rows in torch.arange(len(data)).split(data.at_once)))
        out, inner = torch.cat(outs, 1), torch.cat(inners, 1)
        flat = self.pooled(out.flatten(0, 1))
        return {"rank of output": effective_rank(flat),
                "rank of bottleneck": effective_rank(inner.flatten(0, 1)),
                "alignment": closeness(out[0], out[1]), "uniformity": uniformity(flat),
                "collapsed": collapse_value(min(data.at_once, len(data)))}


@dataclass(frozen=True, eq=False)
class FittedRepresentations:
    """What was learned.

    Attributes
    ----------
    net : RepresentationNet
    resolution : float, mm
        Of the images that were learned from; others are brought to it.
    history : DataFrame
        With ranks, alignment and uniformity epoch by epoch.
    """

    net: RepresentationNet
    resolution: float
    history: pd.DataFrame


class ContrastiveRepresentations:
    r"""Networks that give a place the same values in whichever modality they see it.

    Learned from people whose scans lie on one another, simulated or real, by telling pairs of
    patches of one place from pairs of different places
    (:func:`~normfuse.imaging.contrastive.info_nce`). Two images of different modalities can then
    be compared by squared differences of their representations: a monomodal problem, see
    :func:`~normfuse.imaging.registration.register`.

    Parameters
    ----------
    channels : tuple of int
        Of the U-Nets' features at each resolution.
    plane : str or None
        Slices that are learned from, such as ``"axial"``; None: volumes, which registration
        needs.
    critic : Critic
    temperature, decay : float
        Of the loss; weight of the activations' norms.
    supervision : Supervision, optional
        Of the bottleneck; by default none, which the literature found best.
    patch : int
        Side of a patch, voxels.
    per_image : int
        Patches of a volume or slice in an epoch.
    shading : float
        sd of the fields and contrasts that patches' intensities are altered by.
    plan : TrainingPlan, optional
        Its ``batch_size`` N is the number of pairs that are contrasted.
    device : str
    seed : int

    References
    ----------
    Pielawski et al. (2020), CoMIR, NeurIPS, arXiv 2006.06325. Supervision of the bottleneck and
    what comes of it: see :mod:`normfuse.imaging.supervision`.

    Examples
    --------
    >>> from normfuse.testing import tiny_images
    >>> brief = TrainingPlan(max_epochs=1, warmup=0, batch_size=8, validation_draws=1)
    >>> model = ContrastiveRepresentations((4, 8), patch=4, plan=brief).fit(tiny_images())
    >>> model
    <ContrastiveRepresentations of T1w, T2w, FLAIR at 4 mm, in 3-D>
    >>> list(model.fitted.history)[3:6]
    ['contrast', 'decay', 'rank of output']
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 32), *, plane: str | None = None,
                 critic: Critic = MeanSquare(), temperature: float = 0.5, decay: float = 1e-4,
                 supervision: Supervision | None = None, patch: int = 16, per_image: int = 8,
                 shading: float = 0.5, plan: TrainingPlan | None = None, device: str = "cpu",
                 seed: int = 0) -> None:
        self.channels, self.plane, self.critic = tuple(channels), plane, critic
        self.temperature, self.decay, self.supervision = temperature, decay, supervision
        self.patch, self.per_image, self.shading = patch, per_image, shading
        self.plan = replace(plan or contrast_plan(), warmup=0)  # there is no KL to begin without
        self.device, self.seed = device, seed
        self._fitted: FittedRepresentations | None = None
        of_type(critic, Critic)
        if supervision is not None:
            of_type(supervision, Supervision)
        for name, least in (("temperature", 1e-6), ("decay", 0), ("per_image", 1), ("shading", 0)):
            if not least <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is a number from {least:g} on; got "
                                 f"{getattr(self, name)!r}")
        step = 2 ** (len(self.channels) - 1)
        if self.plan.batch_size < 2:
            raise ValueError("contrast needs two pairs in a batch at least; got "
                             f"plan.batch_size={self.plan.batch_size}")
        if patch % step or patch < 2 * step:
            raise ValueError(f"patch is a multiple of {step}, {2 * step} at least, for "
                             f"{len(self.channels)} resolutions; got {patch!r}")

    @property
    def fitted(self) -> FittedRepresentations:
        """What was learned; refuses if nothing was."""
        if self._fitted is None:
            raise NotFittedError("these representations have not been fitted; call fit(cohort) "
                                 "first, or ContrastiveRepresentations.load(folder)")
        return self._fitted

    def __repr__(self) -> str:
        if self._fitted is None:
            return "<ContrastiveRepresentations, not fitted>"
        f = self.fitted
        return (f"<ContrastiveRepresentations of {listed(f.net.names)} at {f.resolution:g} mm, in "
                f"{f.net.dimensions}-D>")

    def fit(self, cohort: Cohort, *, keep: str | Path | None = None) -> ContrastiveRepresentations:
        """Learn from people's images; whoever has two modalities takes part.

        Parameters
        ----------
        cohort : Cohort
            Modalities of voxels on one grid and mask, of one voxel size in all directions.
        keep : path, optional
            A folder for what is reached, taken up by the same call after a crash.

        Raises
        ------
        CohortError
            Fewer than eight people, or nobody with two modalities.
        TrainingError
        """
        space = one_space(cohort)
        if np.ptp(space.voxel_size) > 1e-3:
            raise CohortError("representations turn with the image, and need voxels as long as "
                              f"wide; these are {space.voxel_size} mm: read them with a "
                              "resolution, as resolution = 4 in cohort.toml")
        roles = Roles.drawn(cohort, self.seed)
        frame = Frame(space, 1, self.plane)
        learn, stop = (Patches(stack_of(cohort.select(ids), frame, self.device), self.patch,
                               self.per_image, shading, self.plan.batch_size)
                       for ids, shading in ((roles.training + roles.calibration, self.shading),
                                            (roles.early_stop, 0.0)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self.network([m.name for m in cohort.modalities], frame.dimensions)
        net.to(self.device)
        history: History = fit(
            net, learn, stop, self.plan, seed=self.seed,
            keep=None if keep is None else Checkpoint(Path(keep) / "representations.pt"))
        self._fitted = FittedRepresentations(net, float(space.voxel_size[0]), history.table)
        best = history.table.set_index("epoch").loc[history.best_epoch]
        if best["contrast"] > UNTAUGHT * best["collapsed"]:
            warnings.warn(f"these representations tell places apart hardly better (contrast "
                          f"{best['contrast']:.3f}) than if all were alike "
                          f"({best['collapsed']:.3f}): they collapsed, or learned for too short a "
                          "time. Give more epochs or people, or another critic", stacklevel=2)
        return self

    def network(self, names: Sequence[str], dimensions: int) -> RepresentationNet:
        """A new one, for these modalities."""
        return RepresentationNet(
            names, dimensions, self.channels, critic=self.critic, temperature=self.temperature,
            decay=self.decay, supervision=self.supervision, n_epochs=self.plan.max_epochs)

    def options(self) -> dict[str, Any]:
        """What it was made with."""
        return {name: getattr(self, name) for name in (
            "channels", "plane", "critic", "temperature", "decay", "supervision", "patch",
            "per_image", "shading", "plan", "device", "seed")}

    @torch.no_grad()
    def represent(self, image: Nifti1Image | str | Path, modality: str) -> Nifti1Image:
        """A volume's representation, at the resolution of the fit, along the image's own axes.

        It has mean 2 and sd 1 in the brain and is 0 elsewhere, so that outlines are compared too.

        Parameters
        ----------
        image : Nifti1Image or path
            A brain without skull, background 0, in any space.
        modality : str
            One of the fit's.

        Raises
        ------
        ValueError
            A modality that the fit does not know, or representations of slices.
        ImageError
            No single volume, or no signal.
        """
        import nibabel as nib

        from .volume_grids import brain_in_steps_of, cut_sides, volume

        f = self.fitted
        if modality not in f.net.names:
            raise ValueError(f"these representations know {listed(f.net.names)}; got {modality!r}")
        if f.net.dimensions != 3:
            raise ValueError("these representations are of slices; fit with plane=None to "
                             "represent volumes")
        from .patches import standardised

        regular, brain = brain_in_steps_of(volume(image, "the image"), f.resolution)
        box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(brain))
        net = cast(LocalUNet, f.net.nets[f.net.names.index(modality)])
        scaled = standardised(np.asanyarray(regular.dataobj)[box].reshape(1, -1))
        inside = brain[box]
        # empty space as wide as the network sees, but where the brain is cut: it goes on there,
        # and what looks most like it is its mirror image
        wide = MARGIN * net.step
        room = np.array([(wide, wide + -side % net.step) for side in inside.shape])
        cut = cut_sides(brain)
        padded = np.pad(np.pad(scaled.reshape(inside.shape), room * cut, mode="symmetric"),
                        room * ~cut)
        net.eval()
        out, _ = net(torch.from_numpy(padded)[None, None].to(self.device))
        seen = out[0, 0].cpu().numpy()[tuple(slice(wide, wide + n) for n in inside.shape)]
        seen = OUTLINE + (seen - seen[inside].mean()) / max(float(seen[inside].std()), 1e-8)
        found = np.zeros(brain.shape, dtype=np.float32)
        found[box] = np.where(inside, seen, 0)
        return nib.Nifti1Image(found, regular.affine)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write to a new folder: ``representations.json`` and ``weights.safetensors``."""
        from .representation_file import write_representations

        return processes().from_first(
            lambda: write_representations(self, Path(folder), overwrite=overwrite))

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> ContrastiveRepresentations:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ModelFileError
            If something is missing, truncated or edited, or of another version.
        """
        from .representation_file import read_representations

        return read_representations(Path(folder), device)


def contrast_plan() -> TrainingPlan:
    """Thirty-two pairs a step; a learning rate that falls."""
    return TrainingPlan(max_epochs=60, patience=60, warmup=0, batch_size=32, learning_rate=1e-3,
                        final_rate=0.05, clip=1.0, validation_draws=1)

"""Lesions from whatever scans there are: segmentation with missing modalities."""
from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..checkpoint import Checkpoint
from ..cohort import Cohort
from ..errors import NotFittedError, listed
from ..fingerprints import person_of
from ..fusion import Aggregator, Alignment, WassersteinBarycenter
from ..imputed import refuse_imputed
from ..modality import Modality
from ..networks.pyramid import Pyramid
from ..pretrained import PretrainedEncoders
from ..processes import processes
from ..segmentations import Segmentations
from ..training import History, TrainingPlan, fit
from .images import Frame, Images, Stack, Units, one_space
from .augmentation import Augmentation
from .extra import need
from .image_cards import image_model_card
from .labelled import of_labels, refuse_untaught, with_labels
from .learning import (FEWEST, Roles, aligned, hashes, image_plan, refuse_blind, refuse_unknown,
                       warn_of_seen)
from .segmentation_net import SegmentationNet
from .softness import measured_softness, probabilities
from .starting import Encoders, sizes_with, started

AT_ONCE = 16
"""Slices of a person in memory together when predicting."""


@dataclass(frozen=True, eq=False)
class FittedSegmentation:
    """What a segmenter has learned.

    Attributes
    ----------
    frame : Frame
    units : Units
    modalities : tuple of Modality
    labels : dict of int
        Name of a label -> its number. The network's classes are background and these, in order.
    net : SegmentationNet
    softness : float
        What logits are divided by, from people whom training did not see.
    known : dict of str
        Hashes of the people of the fit, and what they were for.
    history : DataFrame
    start : str
        How its encoders were pre-trained, if they were.
    """

    frame: Frame
    units: Units
    modalities: tuple[Modality, ...]
    labels: Mapping[str, int]
    net: SegmentationNet
    softness: float
    known: dict[str, str]
    history: pd.DataFrame
    start: str = ""

    @property
    def numbers(self) -> np.ndarray:
        """Of classes, background first, uint8."""
        return np.array([0, *self.labels.values()], dtype=np.uint8)


class IncompleteSegmenter:
    """Labels lesions in people's scans, whichever of the modalities they have.

    A hierarchy of latent images is inferred from what is there: every modality has its own
    encoder, and at each resolution an aggregator fuses what they say
    (:class:`~normfuse.models.image_ladder.ImageLadder`). In training modalities are hidden at
    random, so that one network serves every combination of them.

    Parameters
    ----------
    fusion : Aggregator
        By default the Wasserstein barycenter of what is there.
    plane : str or None
        Slices that are worked on one by one, ``"axial"`` by default; None: whole volumes.
    sizes : Pyramid, optional
        Of the networks; by default those of ``encoders``, or ``Pyramid()``.
    hide : float
        Probability with which a modality is hidden in a step of training.
    kl_weight : float
        Of the KL, in nats a pixel, beside Dice and cross-entropy.
    temperature : float
        Multiplies the sd of latent draws when predicting; 0 predicts from means.
    draws : int
        Of the latents, averaged in a prediction.
    alignment : Alignment, optional
        Draws the modalities' posteriors together while training.
    augmentation : Augmentation, optional
        Altered copies of the people who train.
    encoders : PretrainedEncoders or Pretraining, optional
        Where a fit starts (:func:`~normfuse.imaging.pretraining.pretrain`); a ``Pretraining`` is
        made on the people who train.
    plan : TrainingPlan, optional
        Its ``batch_size`` and epochs are of images.
    device : str
        Where networks work, such as ``"cuda"``.
    seed : int

    References
    ----------
    Dorent et al. (2019), MICCAI, doi 10.1007/978-3-030-32245-8_9: hetero-modal variational
    encoder-decoders, fused by products; here by any aggregator. Loss: Dice plus cross-entropy, as
    in Isensee et al. (2021), doi 10.1038/s41592-020-01008-z.

    Examples
    --------
    >>> from normfuse.testing import tiny_images, tiny_segmentations
    >>> people = tiny_images()
    >>> brief = TrainingPlan(max_epochs=2, warmup=1, validation_draws=1)
    >>> segmenter = IncompleteSegmenter(sizes=Pyramid((4, 8), (0, 4)), plan=brief)
    >>> segmenter = segmenter.fit(people, tiny_segmentations(people))
    >>> one = tiny_images(seed=1).select(["sub-05"])
    >>> segmenter.predict(one, given=["T1w"])
    <Segmentations of 1 people: bright 1, brightest 4; 304 voxels>
    >>> list(segmenter.fitted.history)
    ['epoch', 'training', 'validation', 'dice', 'cross entropy', 'kl z1']
    >>> segmenter.tune(one, tiny_segmentations(one))     # a copy that went on with one person
    <IncompleteSegmenter by WassersteinBarycenter(): bright, brightest in T1w, T2w, FLAIR>
    """

    def __init__(self, fusion: Aggregator | None = None, *, plane: str | None = "axial",
                 sizes: Pyramid | None = None, hide: float = 0.5, kl_weight: float = 1e-4,
                 temperature: float = 0.0, draws: int = 4, alignment: Alignment | None = None,
                 augmentation: Augmentation | None = None, encoders: Encoders | None = None,
                 plan: TrainingPlan | None = None, device: str = "cpu", seed: int = 0) -> None:
        self.fusion = WassersteinBarycenter() if fusion is None else fusion
        if not isinstance(self.fusion, Aggregator):
            raise TypeError("fusion is an object such as WassersteinBarycenter(); got "
                            f"{self.fusion!r}")
        self.plane, self.sizes, self.encoders = plane, sizes_with(sizes, encoders), encoders
        self.hide, self.kl_weight = hide, kl_weight
        self.temperature, self.draws, self.alignment = temperature, draws, alignment
        self.augmentation = augmentation
        self.plan, self.device, self.seed = plan or image_plan(), device, seed
        self._fitted: FittedSegmentation | None = None

    @property
    def fitted(self) -> FittedSegmentation:
        """What was learned; refuses if nothing was."""
        if self._fitted is None:
            raise NotFittedError("this segmenter has not been fitted; call fit(cohort, "
                                 "segmentations) first, or IncompleteSegmenter.load(folder)")
        return self._fitted

    def fit(self, cohort: Cohort, segmentations: Segmentations, *,
            keep: str | Path | None = None) -> IncompleteSegmenter:
        """Learn from people's images, any of which may be missing, and their labels.

        Parameters
        ----------
        cohort : Cohort
            Modalities of voxels, all on one grid and mask. Of eight people or more a tenth says
            when to stop, a sixth calibrates probabilities.
        segmentations : Segmentations
            On the same voxels; of healthy people all background. Who has none is left out.
        keep : path, optional
            A folder for what is reached, taken up by the same call after a crash.

        Raises
        ------
        CohortError
            Nobody with both, or a label that nobody in training has.
        SpaceMismatchError, TrainingError

        Warns
        -----
        UserWarning
            People with images and no labels, or labels and no images; fewer than eight people, all
            of whom train, so that nobody calibrates; people seen in pre-training who calibrate.
        """
        need("monai", "the Dice loss of a segmenter")
        names, space = of_labels(segmentations), one_space(cohort)
        cohort, classes = with_labels(cohort, segmentations, space, names)
        refuse_imputed(cohort)
        roles = _roles(cohort, self.seed, _with_labels(cohort, classes))
        trainees = [str(i) for i in cohort.ids] if roles is None else roles.training
        frame = Frame(space, self.sizes.step, self.plane)
        refuse_untaught(classes, cohort, trainees, names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self.network(tuple(m.name for m in cohort.modalities), frame.dimensions,
                               len(names))
        people = cohort.select(trainees)
        encoders = started(self.encoders, net, self.sizes, frame, people,
                           None if roles is None else cohort.select(roles.calibration), keep)
        known = {**({} if encoders is None else encoders.known), **hashes(cohort, roles)}
        start = FittedSegmentation(frame, Units.of(people), cohort.modalities, names, net, 1.0,
                                   known, pd.DataFrame(), _told(encoders))
        self._learn(start, cohort, classes, roles, keep)
        return self

    def tune(self, cohort: Cohort, segmentations: Segmentations,
             plan: TrainingPlan | None = None) -> IncompleteSegmenter:
        """A copy that went on learning from these people, such as real ones after simulated.

        Their own intensities are standardised anew. With fewer than eight people nobody can say
        when to stop or calibrate: all epochs of ``plan`` are trained, and probabilities keep the
        calibration that they have, which need not hold for them. Labels are matched by name; some
        may be lacking.
        """
        need("monai", "the Dice loss of a segmenter")
        of_labels(segmentations)
        refuse_imputed(cohort)
        f, plan = self.fitted, plan or replace(self.plan, max_epochs=8, warmup=1,
                                               learning_rate=self.plan.learning_rate / 4)
        cohort, classes = with_labels(aligned(cohort, f.modalities), segmentations,
                                      f.frame.space, f.labels)
        roles = None if len(cohort) < FEWEST else Roles.drawn(cohort, self.seed,
                                                              _with_labels(cohort, classes))
        new = IncompleteSegmenter(**{**self.options(), "plan": plan})
        start = replace(f, units=f.units.anew(cohort), net=copy.deepcopy(f.net),
                        known={**f.known, **hashes(cohort, roles)})
        new._learn(start, cohort, classes, roles, None)
        return new

    def _learn(self, start: FittedSegmentation, cohort: Cohort, classes: Tensor,
               roles: Roles | None, keep: str | Path | None) -> None:
        def stack(ids: Sequence[str]) -> Stack:
            return Stack.of(cohort.select(ids), start.frame, start.units,
                            classes[cohort.ids.get_indexer(pd.Index(ids))], start.frame.busy,
                            self.device)

        everybody = [str(i) for i in cohort.ids]
        training, stopping = (everybody, everybody) if roles is None else (
            roles.training, roles.early_stop)
        learn = stack(training)
        if self.augmentation is not None:
            learn = self.augmentation.added_to(learn, start.units, self.seed, self.plan.progress)
        learn, stop = (s.of_somebody().instructive() for s in (learn, stack(stopping)))
        start.net.to(self.device)
        history: History = fit(
            start.net, learn, stop, self.plan, seed=self.seed,
            keep=None if keep is None else Checkpoint(Path(keep) / "segmentation.pt"))
        self._fitted = replace(start, history=history.table)
        if roles is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                softness = measured_softness(stack(roles.calibration).of_somebody(),
                                             self._logits, AT_ONCE)
            self._fitted = replace(self._fitted, softness=softness)

    def _logits(self, batch: Images) -> Tensor:
        return self.fitted.net.logits(batch, self.temperature, self.draws)

    def network(self, names: tuple[str, ...], dimensions: int, n_labels: int) -> SegmentationNet:
        """A new one, for these modalities and labels."""
        return SegmentationNet(names, dimensions, self.fusion, self.sizes, n_labels + 1,
                               hide=self.hide, kl_weight=self.kl_weight, alignment=self.alignment)

    def options(self) -> dict[str, Any]:
        """What it was made with."""
        return {name: getattr(self, name) for name in (
            "fusion", "plane", "sizes", "hide", "kl_weight", "temperature", "draws", "alignment",
            "augmentation", "plan", "device", "seed")}

    def predict(self, cohort: Cohort, *, given: Sequence[str] | None = None) -> Segmentations:
        r"""The most probable label of every voxel, and how unsure that is.

        Uncertainty is the entropy of the labels' probabilities, averaged over draws of the
        latents, as a share of the largest one possible,

        .. math:: - \sum_c p_c \log p_c / \log C,

        0 where one label is certain, 1 where all C (background included) are alike.

        Parameters
        ----------
        cohort : Cohort
            Any of the modalities of the fit, in any order. A person's result does not depend on
            who else is there.
        given : sequence of str, optional
            Modalities to look at, of those that somebody has; default: all.

        Raises
        ------
        CohortError
            Somebody of whom nothing is left to look at, or a modality unknown to the fit.
        SpaceMismatchError
            Voxels of another space than those of the fit.

        Warns
        -----
        UserWarning
            People the segmenter was trained on: it finds their lesions too easily.
        """
        f = self.fitted
        cohort = aligned(cohort, f.modalities)
        refuse_unknown("given", given, f.net.names)
        kept = torch.tensor([given is None or name in given for name in f.net.names])
        present = torch.from_numpy(cohort.present.to_numpy().T.copy())
        refuse_blind(cohort, present & kept[:, None])
        warn_of_seen(cohort, f.known, "segmenter", stacklevel=2)
        images = Stack.of(cohort, f.frame, f.units, device=self.device)
        f.net.eval()
        each = [self._one(images, rows, kept.to(self.device))
                for rows in torch.arange(len(images)).split(f.frame.n_slices)]
        classes, uncertainty = (torch.cat(t).numpy() for t in zip(*each))
        return Segmentations(tuple(map(str, cohort.ids)), f.numbers[classes], f.frame.space,
                             f.labels, uncertainty)

    def _one(self, images: Stack, rows: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Classes and uncertainty of a person's voxels, from draws that are everybody's."""
        found, unsure = [], []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for some in rows.split(AT_ONCE):
                p = probabilities(self._logits(images.take(some).only(kept)),
                                  self.fitted.softness)
                found.append(p.argmax(1).cpu())
                entropy = torch.special.entr(p).sum(1) / np.log(p.shape[1])
                unsure.append(entropy.clamp(0, 1).cpu())
        frame = self.fitted.frame
        return frame.table(torch.cat(found)), frame.table(torch.cat(unsure))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write to a new folder: ``image_model.json`` and ``weights.safetensors``.

        Of processes that ``torchrun`` started the first one writes; the others wait.
        """
        from .image_file import write_image_model

        return processes().from_first(
            lambda: write_image_model(self, Path(folder), overwrite=overwrite))

    @classmethod
    def load(cls, folder: str | Path, *, fusion: Aggregator | None = None,
             device: str | None = None) -> IncompleteSegmenter:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        folder : path
        fusion : Aggregator, optional
            Only for one of your own.
        device : str, optional
            In the place of that of the fit.

        Raises
        ------
        ModelFileError
            If it is missing, truncated, changed, or no segmenter.
        """
        from .image_file import read_image_model

        return read_image_model(cls, Path(folder), fusion, device)

    def __repr__(self) -> str:
        state = "not fitted" if self._fitted is None else \
            f"{listed(self._fitted.labels)} in {listed(self._fitted.net.names)}"
        return f"<IncompleteSegmenter by {self.fusion!r}: {state}>"

    def _repr_html_(self) -> str:
        facts = {} if self._fitted is None else {
            "labels": listed(f"{name} {n}" for name, n in self._fitted.labels.items()),
            "softness": f"{self._fitted.softness:.3g}",
            **({"start": self._fitted.start} if self._fitted.start else {})}
        return image_model_card(self, facts).html()


def _roles(cohort: Cohort, seed: int, telling: list[str]) -> Roles | None:
    """None, with a warning, if people are too few to share out."""
    if len({person_of(str(i)) for i in cohort.ids}) >= FEWEST:
        return Roles.drawn(cohort, seed, telling)
    warnings.warn(f"{len(cohort)} labelled people are too few to stop by or to calibrate with: all"
                  " epochs of the plan are trained, and probabilities are too sure. From "
                  f"{FEWEST} people on some are kept apart for that", stacklevel=3)
    return None


def _told(encoders: PretrainedEncoders | None) -> str:
    return "" if encoders is None else encoders.told()


def _with_labels(cohort: Cohort, classes: Tensor) -> list[str]:
    return [str(i) for i in cohort.ids[(classes > 0).any(1).numpy()]]

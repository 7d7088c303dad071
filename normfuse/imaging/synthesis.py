"""Any modality from any others: cross-modal synthesis of images."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..checkpoint import Checkpoint
from ..cohort import Cohort
from ..deviations import Deviations
from ..errors import CohortError, NotFittedError, listed
from ..fusion import Aggregator, Alignment, ProductOfExperts, SubsetMixture
from ..imputed import refuse_imputed
from ..networks.pyramid import Pyramid
from ..processes import processes
from ..training import History, TrainingPlan, fit
from .adversarial import Adversaries, PatchAdversary
from .augmentation import Augmentation
from .fitted_synthesis import Draw, FittedSynthesis
from .image_cards import image_model_card
from .images import Frame, Images, Stack, Units, one_space
from .learning import (FEWEST, Roles, aligned, hashes, image_plan, refuse_blind, refuse_unknown,
                       warn_of_seen)
from .starting import Encoders, sizes_with, started
from .synthesis_net import SynthesisNet
from .synthesised import Synthesis
from .widths import Widths, measured_widths

AT_ONCE = 16
"""Images in memory together when predicting."""


class ImageSynthesiser:
    """Foretells the scans that somebody lacks from those that they have.

    A hierarchy of latent images is inferred from whatever is there and decoded to every modality
    (:class:`~normfuse.models.image_ladder.ImageLadder`). Each voxel gets an expected value and a
    standard deviation, calibrated on people whom training did not see. Training takes people
    with any missing modalities.

    Parameters
    ----------
    fusion : Aggregator
        How modalities are fused at every resolution; by default a mixture over their subsets of
        products with the conditional prior.
    plane : str or None
        Slices that are worked on one by one, ``"axial"`` by default; None: whole volumes.
    sizes : Pyramid, optional
        Of the networks; by default those of ``encoders``, or ``Pyramid()``.
    shared_prior : bool
        One conditional prior for all modalities, as in the article, or each its own.
    kl_weight : float
        Of the KL beside the likelihood. 1 is the evidence lower bound; less keeps more detail.
    temperature : float
        Multiplies the sd of latent draws when predicting (.5 in the article); 0 takes means.
    draws : int
        Of the latents, averaged in a prediction with a temperature above 0.
    alignment : Alignment, optional
        Draws the modalities' posteriors together while training.
    adversary : PatchAdversary, optional
        Makes pictures sharper once the plan's warm-up is over.
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
    Dorent et al. (2025), "Unified cross-modal image synthesis with hierarchical mixture of
    product-of-experts", arXiv 2410.19378.

    Examples
    --------
    >>> from normfuse.testing import tiny_images
    >>> people = tiny_images()
    >>> brief = TrainingPlan(max_epochs=2, warmup=1, validation_draws=1)
    >>> synthesiser = ImageSynthesiser(sizes=Pyramid((4, 8), (0, 4)), plan=brief).fit(people)
    >>> made = synthesiser.synthesise(people.select(people.ids[:2]), targets=["FLAIR"])
    >>> synthesiser.fitted.net.names
    ('T1w', 'T2w', 'FLAIR')
    >>> synthesiser = synthesiser.tune(people.select(people.ids[:2]))     # a copy that went on
    >>> made.mean["FLAIR"].shape == made.sd["FLAIR"].shape == (2, people.modalities[0].n_features)
    True
    """

    def __init__(self, fusion: Aggregator | None = None, *, plane: str | None = "axial",
                 sizes: Pyramid | None = None, shared_prior: bool = True, hide: float = 0.5,
                 kl_weight: float = 0.01, temperature: float = 0.0, draws: int = 4,
                 alignment: Alignment | None = None, adversary: PatchAdversary | None = None,
                 augmentation: Augmentation | None = None, encoders: Encoders | None = None,
                 plan: TrainingPlan | None = None, device: str = "cpu", seed: int = 0) -> None:
        self.fusion = SubsetMixture(ProductOfExperts()) if fusion is None else fusion
        if not isinstance(self.fusion, Aggregator):
            raise TypeError("fusion is an object such as SubsetMixture(ProductOfExperts()); "
                            f"got {self.fusion!r}")
        self.plane, self.sizes, self.encoders = plane, sizes_with(sizes, encoders), encoders
        self.shared_prior = shared_prior
        self.hide, self.kl_weight, self.alignment = hide, kl_weight, alignment
        self.temperature, self.draws, self.adversary = temperature, draws, adversary
        self.augmentation = augmentation
        self.plan, self.device, self.seed = plan or image_plan(), device, seed
        self._fitted: FittedSynthesis | None = None

    @property
    def fitted(self) -> FittedSynthesis:
        """What was learned; refuses if nothing was."""
        if self._fitted is None:
            raise NotFittedError("this synthesiser has not been fitted; call fit(cohort) first, or"
                                 " ImageSynthesiser.load(folder)")
        return self._fitted

    def fit(self, cohort: Cohort, *, keep: str | Path | None = None) -> ImageSynthesiser:
        """Learn from people's images, any of which may be missing.

        Parameters
        ----------
        cohort : Cohort
            Modalities of voxels, all on one grid and mask. Eight people at least: a tenth says
            when to stop, a sixth calibrates the sd.
        keep : path, optional
            A folder for what is reached, taken up by the same call after a crash.

        Raises
        ------
        CohortError, SpaceMismatchError, TrainingError

        Warns
        -----
        UserWarning
            People who are to calibrate were seen in pre-training.
        """
        roles = Roles.drawn(cohort, self.seed)
        training, stopping, calibrating = (cohort.select(ids) for ids in (
            roles.training, roles.early_stop, roles.calibration))
        frame = Frame(one_space(cohort), self.sizes.step, self.plane)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            judges = None if self.adversary is None else Adversaries(
                self.adversary, len(cohort.modalities), frame.sides)
            net = self.network(tuple(m.name for m in cohort.modalities), frame.dimensions, judges)
        encoders = started(self.encoders, net, self.sizes, frame, training, calibrating, keep)
        known = {**({} if encoders is None else encoders.known), **hashes(cohort, roles)}
        start = FittedSynthesis(frame, Units.of(training), cohort.modalities, net, Widths(), known,
                                pd.DataFrame(), roles.counts,
                                "" if encoders is None else encoders.told())
        history = self._train(start, training, stopping, keep)
        self._fitted = replace(start, history=history.table)
        self._calibrate(calibrating)
        return self

    def tune(self, cohort: Cohort, plan: TrainingPlan | None = None) -> ImageSynthesiser:
        """A copy that went on learning from these people, such as real ones after simulated.

        Their own intensities are standardised anew. With fewer than eight people nobody can say
        when to stop or calibrate: all epochs of ``plan`` are trained, and the sd keeps the
        calibration that it has, which need not hold for them.
        """
        refuse_imputed(cohort)
        f, plan = self.fitted, plan or replace(self.plan, max_epochs=8, warmup=1,
                                               learning_rate=self.plan.learning_rate / 4)
        cohort = aligned(cohort, f.modalities)
        few = len(cohort) < FEWEST
        roles = None if few else Roles.drawn(cohort, self.seed)
        new = ImageSynthesiser(**{**self.options(), "plan": plan})
        start = replace(f, units=f.units.anew(cohort), net=_copy(f.net))
        training, stopping = (cohort, cohort) if roles is None else (
            cohort.select(roles.training), cohort.select(roles.early_stop))
        history = new._train(start, training, stopping, None)
        new._fitted = replace(start, history=history.table,
                              known={**f.known, **hashes(cohort, roles)})
        if roles is not None:
            new._calibrate(cohort.select(roles.calibration))
        return new

    def _calibrate(self, people: Cohort) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            widths = measured_widths(Stack.of(
                people, self.fitted.frame, self.fitted.units, slices=self.fitted.frame.busy,
                device=self.device), self._mean_and_sd, AT_ONCE)
        self._fitted = replace(self.fitted, widths=widths)

    def _mean_and_sd(self, batch: Images, draw: Draw | None = None) -> tuple[Tensor, Tensor]:
        """Of all modalities, in the network's units, not yet widened."""
        draw = draw or Draw(self.temperature, self.draws, self.seed)
        mean, variance = self.fitted.net.predicted(batch, draw.temperature, draw.n)
        return mean, variance.sqrt()

    def network(self, names: tuple[str, ...], dimensions: int,
                judges: Adversaries | None = None) -> SynthesisNet:
        """A new one, for these modalities."""
        return SynthesisNet(names, dimensions, self.fusion, self.sizes,
                            shared_prior=self.shared_prior, hide=self.hide,
                            kl_weight=self.kl_weight, alignment=self.alignment,
                            adversaries=judges)

    def options(self) -> dict[str, Any]:
        """What it was made with."""
        return {name: getattr(self, name) for name in (
            "fusion", "plane", "sizes", "shared_prior", "hide", "kl_weight", "temperature",
            "draws", "alignment", "adversary", "augmentation", "plan", "device", "seed")}

    def _train(self, start: FittedSynthesis, training: Cohort, stopping: Cohort,
               keep: str | Path | None) -> History:
        learn, stop = (Stack.of(c, start.frame, start.units, slices=start.frame.busy,
                                device=self.device) for c in (training, stopping))
        if self.augmentation is not None:
            learn = self.augmentation.added_to(learn, start.units, self.seed, self.plan.progress)
        start.net.to(self.device)
        return fit(start.net, learn.of_somebody(), stop.of_somebody(), self.plan, seed=self.seed,
                   keep=None if keep is None else Checkpoint(Path(keep) / "synthesis.pt"))

    def synthesise(self, cohort: Cohort, targets: Sequence[str] | None = None, *,
                   given: Sequence[str] | None = None) -> Synthesis:
        """Expected scans, and how far from them the persons' own would be.

        Parameters
        ----------
        cohort : Cohort
            The modalities of the fit, in any order; absent ones may be lacking altogether.
        targets : sequence of str, optional
            Modalities to synthesise for everybody, also for those who have them, whose own scan
            is not looked at. By default each person's missing ones.
        given : sequence of str, optional
            Modalities to look at, of those that somebody has; by default all but the targets.

        Raises
        ------
        CohortError
            Somebody of whom nothing is left to look at, or a modality unknown to the fit.
        SpaceMismatchError
            Voxels of another space than those of the fit.

        Warns
        -----
        UserWarning
            People the synthesiser was trained on: their errors are too small.
        """
        cohort = aligned(cohort, self.fitted.modalities)
        looked_at, wanted = self._asked(cohort, targets, given)
        return self._result(cohort, looked_at, wanted, Draw(self.temperature, self.draws,
                                                            self.seed))

    def sample(self, cohort: Cohort, targets: Sequence[str] | None = None, *, n: int = 5,
               given: Sequence[str] | None = None, temperature: float = 1.0) -> list[Synthesis]:
        """Scans that each person could have, such as for multiple imputation.

        Each is of one draw of the latents given what is there: its ``mean`` is the scan expected
        with these latents, its ``sd`` what they leave open. The spread of the means over many
        draws is what the latents do not know. A person's draws depend on ``seed`` and on nobody
        else, and are independent of others'.

        Parameters
        ----------
        cohort, targets, given
            As for :meth:`synthesise`.
        n : int
            Draws.
        temperature : float
            Multiplies the sd of the latents.

        Examples
        --------
        >>> from normfuse.testing import tiny_images
        >>> people = tiny_images()
        >>> brief = TrainingPlan(max_epochs=2, warmup=1, validation_draws=1)
        >>> synthesiser = ImageSynthesiser(sizes=Pyramid((4, 8), (0, 4)), plan=brief).fit(people)
        >>> draws = synthesiser.sample(tiny_images(seed=1), ["FLAIR"], n=3)
        >>> len(draws), draws[0].img("sub-01", "FLAIR").shape
        (3, (12, 10, 6))
        """
        if n < 1 or temperature < 0:
            raise ValueError(f"n is 1 at least and temperature not negative; got n={n} and "
                             f"temperature={temperature:g}")
        cohort = aligned(cohort, self.fitted.modalities)
        looked_at, wanted = self._asked(cohort, targets, given)
        return [self._result(cohort, looked_at, wanted, Draw(temperature, 1, self.seed + k, True))
                for k in range(n)]

    def _asked(self, cohort: Cohort, targets: Sequence[str] | None, given: Sequence[str] | None
               ) -> tuple[Tensor, Tensor]:
        """What of whom is looked at, and synthesised: (n_modalities, n_people) each."""
        present = torch.from_numpy(cohort.present.to_numpy().T.copy())
        looked_at = present & self._chosen(targets, given)[:, None]
        refuse_blind(cohort, looked_at)
        if targets is None and bool(present.all()):
            raise CohortError("nobody lacks a modality: name what to synthesise, as "
                              f"targets=[{self.fitted.net.names[-1]!r}]")
        warn_of_seen(cohort, self.fitted.known, "synthesiser", stacklevel=3)
        return looked_at, ~present if targets is None else torch.zeros_like(present) | \
            torch.tensor([name in targets for name in self.fitted.net.names])[:, None]

    def _result(self, cohort: Cohort, looked_at: Tensor, wanted: Tensor, draw: Draw
                ) -> Synthesis:
        f = self.fitted
        mean, sd = ({m.name: pd.DataFrame(values[k][wanted[k]].numpy(),
                                          cohort.ids[wanted[k].numpy()], m.features)
                     for k, m in enumerate(f.modalities) if wanted[k].any()}
                    for values in self._predicted(cohort, looked_at, draw))
        return Synthesis(f.frame.space, mean, sd,
                         pd.DataFrame(looked_at.T.numpy(), cohort.ids, f.net.names),
                         tuple(m for k, m in enumerate(f.modalities) if wanted[k].any()))

    def deviations(self, cohort: Cohort, targets: Sequence[str] | None = None) -> Deviations:
        """How far each scan is from what the person's other scans foretell: (x - mean) / sd.

        Each modality in turn is synthesised from the others of those who have it. The result is
        of kind ``synthesis``, for the maps, comparisons and reports of :mod:`normfuse.analyses`.
        It has no latent distance, and knows of no covariates: adjust for them when comparing.

        Parameters
        ----------
        cohort : Cohort
            As for :meth:`synthesise`; who has one modality only gets no z.
        targets : sequence of str, optional
            Modalities to judge; default: all.

        Examples
        --------
        >>> from normfuse.testing import tiny_images
        >>> brief = TrainingPlan(max_epochs=2, warmup=1, validation_draws=1)
        >>> synthesiser = ImageSynthesiser(sizes=Pyramid((4, 8), (0, 4)), plan=brief)
        >>> patients = tiny_images(seed=1).select(["sub-05"])
        >>> deviations = synthesiser.fit(tiny_images()).deviations(patients, ["FLAIR"])
        >>> deviations.reference.kind, deviations.modalities, deviations.z.shape
        ('synthesis', ('FLAIR',), (1, 304))
        """
        from .synthesis_deviations import synthesis_deviations

        return synthesis_deviations(self, cohort, targets)

    def impute(self, cohort: Cohort) -> Cohort:
        """The same people with each one's missing scans filled in, marked as imputed.

        Values and sd are those of :meth:`synthesise`. ``imputed`` of the result says whose and
        which; ``observed()`` takes them out again. A normative model learns nothing from them
        and gives them z of kind ``covariates`` that carry their sd, apart from the others
        (:class:`~normfuse.imputed_deviations.ImputedDeviations`).

        Parameters
        ----------
        cohort : Cohort
            As for :meth:`synthesise`; what was imputed before is imputed anew.

        Examples
        --------
        >>> from normfuse.testing import tiny_images
        >>> people = tiny_images()
        >>> brief = TrainingPlan(max_epochs=2, warmup=1, validation_draws=1)
        >>> synthesiser = ImageSynthesiser(sizes=Pyramid((4, 8), (0, 4)), plan=brief).fit(people)
        >>> filled = synthesiser.impute(people.without("FLAIR").select(["sub-05", "sub-06"]))
        >>> filled.imputed.sum().to_dict(), filled.features["FLAIR"].notna().all(axis=None)
        ({'T1w': 0, 'T2w': 0, 'FLAIR': 2}, np.True_)
        """
        cohort = aligned(cohort, self.fitted.modalities)
        if cohort.present.all(axis=None):
            return cohort
        found = self.synthesise(cohort)
        taught = [person for person, role in self.fitted.known.items() if role != "calibration"]
        return cohort.with_imputed(found.mean, found.sd, by=repr(self), learned_from=taught)

    def _predicted(self, cohort: Cohort, looked_at: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Of everybody and every modality, (n_modalities, n_people, n_voxels), in its unit."""
        f, images = self.fitted, self._stack(cohort)
        fused = looked_at[:, images.people].to(self.device)
        loc, sd = [], []
        f.net.eval()
        with torch.random.fork_rng(devices=[]):
            slices = torch.arange(len(images)).split(f.frame.n_slices)
            for who, person in zip(cohort.ids, slices, strict=True):
                torch.manual_seed(draw.seed_of(str(who)))  # draws stay, whoever else is there
                for rows in person.split(AT_ONCE):
                    batch = images.take(rows).only(fused[:, rows])
                    mean, width = self._mean_and_sd(batch, draw)
                    loc.append(mean.cpu())
                    sd.append((width * f.widths.of(batch.present, f.frame.dimensions)).cpu())
        unit, origin = (torch.tensor(v)[:, None, None] for v in (f.units.sd, f.units.mean))
        tables = [torch.stack([f.frame.table(m) for m in torch.cat(parts, 1)])
                  for parts in (loc, sd)]
        return tables[0] * unit + origin, tables[1] * unit

    def _stack(self, cohort: Cohort) -> Stack:
        f = self.fitted
        return Stack.of(cohort, f.frame, f.units, device=self.device)

    def _chosen(self, targets: Sequence[str] | None, given: Sequence[str] | None) -> Tensor:
        names = self.fitted.net.names
        refuse_unknown("targets", targets, names)
        refuse_unknown("given", given, names)
        return torch.tensor([name not in (targets or ()) and (given is None or name in given)
                             for name in names])

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write to a new folder: ``image_model.json`` and ``weights.safetensors``.

        What judged synthesised patches in training is left behind, with its reserve of measured
        images: a model that was read is tuned without an adversary. Of processes that ``torchrun``
        started the first one writes; the others wait.
        """
        from .image_file import write_image_model

        return processes().from_first(
            lambda: write_image_model(self, Path(folder), overwrite=overwrite))

    @classmethod
    def load(cls, folder: str | Path, *, fusion: Aggregator | None = None,
             device: str | None = None) -> ImageSynthesiser:
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
            If it is missing, truncated, changed, or no synthesiser.
        """
        from .image_file import read_image_model

        return read_image_model(cls, Path(folder), fusion, device)

    def __repr__(self) -> str:
        state = "not fitted" if self._fitted is None else listed(self._fitted.net.names)
        return f"<ImageSynthesiser by {self.fusion!r}: {state}>"

    def _repr_html_(self) -> str:
        told = "" if self._fitted is None else self._fitted.start
        return image_model_card(self, {"start": told} if told else {}).html()


def _copy(net: SynthesisNet) -> SynthesisNet:
    import copy

    return copy.deepcopy(net)

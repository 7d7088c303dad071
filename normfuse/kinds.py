"""The four deviations a person can have, named and never mixed."""
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from .conditional import leave_one_out
from .fusion import Choice, sigma_points
from .inference import Amortised, Inference, Refined, shared_slopes
from .models import Batch, Vae


@dataclass(frozen=True, eq=False)
class Predicted:
    """What is expected of some subjects' features, standardised.

    Attributes
    ----------
    mean, sd : tuple of Tensor, shape (n_subjects, n_features_m)
        Of the predictive law N(mean, sd^2), by total variance: sd^2 = E[noise variance] + variance
        of the expectation under what is known of the subject's latents. NaN may stand where
        nothing was measured.

    Examples
    --------
    >>> import torch
    >>> Predicted((torch.zeros(4, 3),), (torch.ones(4, 3),)).sd[0].shape
    torch.Size([4, 3])
    """

    mean: tuple[Tensor, ...]
    sd: tuple[Tensor, ...]


class Kind(Choice, ABC):
    """What a person's features are compared with."""

    name: ClassVar[str]
    marginal: ClassVar[bool] = False
    """Whether nobody's brain is in the prediction. What is normal can then be learned from the
    whole reference, each person judged by the others."""
    meaning: ClassVar[str]
    use: ClassVar[str]

    @abstractmethod
    def predicted(self, vae: Vae, batch: Batch, inference: Inference) -> Predicted:
        """The predictive law of every feature of subjects measured with the same modalities."""


@dataclass(frozen=True, repr=False)
class Covariates(Kind):
    """Deviation from what age, sex and site alone predict: z of y against E[y | covariates].

    Nobody's brain is in the prediction. What other packages of the field give.

    Examples
    --------
    >>> kind = Covariates()
    >>> kind, kind.name
    (Covariates(), 'covariates')
    """

    name = "covariates"
    marginal = True
    meaning = ("how far a value lies from what is usual at that age, sex and site; the person's "
               "other measurements play no part")
    use = ("for changes that are spread over much of the brain, and to compare with published "
           "normative models")

    def predicted(self, vae: Vae, batch: Batch, inference: Inference) -> Predicted:
        return Predicted(tuple(torch.zeros_like(x) for x in batch.x),
                         tuple(torch.ones_like(x) for x in batch.x))


@dataclass(frozen=True, repr=False)
class LeaveModalityOut(Kind):
    """z of y_m against E[y_m | covariates, the person's other modalities].

    A person measured with one modality is compared with what covariates predict.

    Examples
    --------
    >>> kind = LeaveModalityOut()
    >>> kind, kind.name
    (LeaveModalityOut(), 'leave_modality_out')
    """

    name = "leave_modality_out"
    meaning = ("how far a modality lies from what the person's other modalities predict of it "
               "at that age, sex and site")
    use = "for changes that one modality shows and the others do not"

    def predicted(self, vae: Vae, batch: Batch, inference: Inference) -> Predicted:
        means, sds = [], []
        for m in range(len(batch.x)):
            kept = torch.ones(len(batch.x), dtype=torch.bool)
            kept[m] = False
            mean, sd = _spread_through(vae, batch.hide(kept), inference, [m])
            means += mean
            sds += sd
        return Predicted(tuple(means), tuple(sds))


@dataclass(frozen=True, repr=False)
class Focal(Kind):
    """z of y_j against E[y_j | covariates, everything else measured in the person's brain].

    Feature j is left out of the posterior that predicts it, one feature at a time, in closed form
    (:func:`normfuse.conditional.leave_one_out`): exact for linear decoders, and for others to
    first order around the person's own latent position.

    Parameters
    ----------
    blocks : int, optional
        Instead, hide one of so many disjoint blocks of features at a time and encode the rest
        anew. For inference that is not refined, whose posterior has no closed form to take a
        feature out of; such a feature is also predicted without its neighbours in the block.

    Examples
    --------
    >>> kind = Focal(blocks=8)
    >>> kind, kind.name
    (Focal(blocks=8), 'focal')
    """

    blocks: int | None = None

    name = "focal"
    meaning = ("how far a value lies from what the rest of the person's own brain predicts at "
               "that age, sex and site")
    use = ("to find where a brain departs from itself; a change that all regions share is partly "
           "explained away. The default: of the four it found deviations planted in real people "
           "best (five regions lowered by 1 sd: AUC .82, by covariates alone .76)")

    def __post_init__(self) -> None:
        if self.blocks is not None and (not isinstance(self.blocks, int) or self.blocks < 2):
            raise ValueError(f"blocks is a whole number above 1, or None; got {self.blocks!r}")

    def predicted(self, vae: Vae, batch: Batch, inference: Inference) -> Predicted:
        if self.blocks is None:
            if not isinstance(inference, Refined):
                raise TypeError("Focal() needs inference=Refined(); take Focal(blocks=8) with "
                                f"{inference!r}")
            center, variance = leave_one_out(vae, batch, inference)
            widths = [x.shape[1] for x in batch.x]
            return Predicted(center.split(widths, -1), variance.sqrt().split(widths, -1))
        mean = [torch.zeros_like(x) for x in batch.x]
        sd = [torch.ones_like(x) for x in batch.x]
        everything = list(range(len(batch.x)))
        for block in range(self.blocks):
            found = _spread_through(vae, self._without(batch, block), inference, everything)
            for m, x in enumerate(batch.x):
                at = slice(block, x.shape[1], self.blocks)
                mean[m][:, at], sd[m][:, at] = found[0][m][:, at], found[1][m][:, at]
        return Predicted(tuple(mean), tuple(sd))

    def _without(self, batch: Batch, block: int) -> Batch:
        """Every so many features hidden: neighbours tell more of a region than strangers do."""
        x, measured = [], []
        for values, seen in zip(batch.x, batch.measured):
            seen = torch.ones_like(values, dtype=torch.bool) if seen is None else seen.clone()
            seen[:, block::self.blocks] = False
            x.append(torch.where(seen, values, 0.0))
            measured.append(seen)
        return Batch(tuple(x), tuple(measured), batch.present, batch.design, batch.variance)


@dataclass(frozen=True, repr=False)
class Reconstruction(Kind):
    """z of y against the model's reconstruction, which has seen y itself.

    The reconstruction partly copies what it is compared with, so deviations are smaller than the
    person's; calibration stretches them back for healthy people only.

    Examples
    --------
    >>> kind = Reconstruction()
    >>> kind, kind.name
    (Reconstruction(), 'reconstruction')
    """

    name = "reconstruction"
    meaning = ("what of a value the model cannot express even though it has seen it; the "
               "reconstruction partly copies the value")
    use = "for patterns outside anything healthy; quantitative statements need another kind"

    def predicted(self, vae: Vae, batch: Batch, inference: Inference) -> Predicted:
        return Predicted(*map(tuple, _spread_through(vae, batch, inference,
                                                     list(range(len(batch.x))))))


def default_kinds(inference: Inference) -> tuple[Kind, ...]:
    """All four; focal deviations first, in the form that this inference allows.

    Examples
    --------
    >>> [kind.name for kind in default_kinds(Refined())]
    ['focal', 'leave_modality_out', 'covariates', 'reconstruction']
    """
    focal = Focal(blocks=8) if isinstance(inference, Amortised) else Focal()
    return focal, LeaveModalityOut(), Covariates(), Reconstruction()


def _spread_through(vae: Vae, batch: Batch, inference: Inference, modalities: list[int]
                    ) -> tuple[list[Tensor], list[Tensor]]:
    """The posterior carried through the decoders of these modalities by sigma points."""
    q = inference.posterior(vae, batch)
    if (vae.is_affine or vae.bends_images) and isinstance(q, MultivariateNormal):
        means, spreads = _through_lines(vae, batch, q, modalities)
    else:
        means, spreads = [], []
        points, weights = sigma_points(q)
        for m in modalities:
            decoded = vae.decoded_by(m, points, batch.design)
            means.append((weights[..., None] * decoded).sum(0))
            spreads.append((weights[..., None] * (decoded - means[-1]) ** 2).sum(0))
    return means, [(vae.noise_sd[m] ** 2 + s).sqrt() for m, s in zip(modalities, spreads)]


def _through_lines(vae: Vae, batch: Batch, q: MultivariateNormal, modalities: list[int]
                   ) -> tuple[list[Tensor], list[Tensor]]:
    """The same where slopes J are alike for everybody: the variance is that of J z, alike for all
    people whose posterior has the same covariance."""
    root = q.scale_tril
    if bool((root == root[:1]).all()):
        root = root[:1]
    slopes, means, spreads = shared_slopes(vae), [], []
    for m in modalities:
        means.append(vae.decoded_by(m, q.mean, batch.design))
        spreads.append(torch.stack([(r.mT @ slopes[m][:, 0]).square().sum(0) for r in root]
                                   ).expand_as(means[-1]))
    return means, spreads

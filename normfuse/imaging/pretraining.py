"""Encoders that know anatomy before anybody has labelled anything: topological pre-training."""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..cards import Shown
from ..checkpoint import Checkpoint
from ..cohort import Cohort
from ..errors import CohortError, listed
from ..fingerprints import person_of, roles_to_hashes
from ..fusion.choice import of_type
from ..imputed import refuse_imputed
from ..models import Convolutional, OneLatent, Recipe
from ..networks.pyramid import Pyramid
from ..preparation import Preparation
from ..pretrained import PretrainedEncoders
from ..training import History, Sliceable, TrainingPlan, fit
from .images import Frame, Stack, Units, one_space
from .learning import FEWEST
from .topology_nets import Couples, ImageTopologyNet, RegionTopologyNet, Topology, TopologyNet

STOPPING = 0.1
"""Share of people who say which epoch was best; two at least, to be compared."""

COLLAPSED = 1.5
"""Effective rank of tokens below which all of them say the same."""

WIDEST = 2000
"""Features of a table; of more, models read scores along principal axes."""


@dataclass(frozen=True, repr=False)
class Pretraining(Shown):
    """How to pre-train; ``fit(cohort)`` does it.

    Parameters
    ----------
    objective : Topology
    networks : Pyramid, Convolutional or Recipe, optional
        Of the model that is to start from these encoders: ``Pyramid`` for ``IncompleteSegmenter``
        and ``ImageSynthesiser``, ``Convolutional`` for the images of a ``NormativeModel``, a
        recipe such as ``OneLatent(n_latent=8)`` for its tables. By default a Pyramid for images,
        ``OneLatent()`` for tables.
    plane : str or None
        Slices that a Pyramid reads, ``"axial"`` by default; None: whole volumes, as always with
        ``Convolutional``.
    plan : TrainingPlan, optional
        Its ``warmup`` is of no use here.
    device : str
    seed : int

    Examples
    --------
    >>> Pretraining(Topology(inter=0), seed=1)
    Pretraining(objective=Topology(inter=0), seed=1)
    """

    objective: Topology = Topology()
    networks: Pyramid | Convolutional | Recipe | None = None
    plane: str | None = "axial"
    plan: TrainingPlan | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        of_type(self.objective, Topology)
        if not isinstance(self.networks, Pyramid | Convolutional | Recipe | None):
            raise TypeError("networks is an object such as Pyramid(), Convolutional() or "
                            f"OneLatent(); got {self.networks!r}")
        if not isinstance(self.plan, TrainingPlan | None):
            raise TypeError(f"plan is a TrainingPlan(max_epochs=…); got {self.plan!r}")
        torch.device(self.device)  # refuses what is none

    def __repr__(self) -> str:
        told = {name: value for name, value in vars(self).items()
                if repr(value) != repr(type(self).__dataclass_fields__[name].default)}
        return f"Pretraining({', '.join(f'{k}={v!r}' for k, v in told.items())})"

    def with_networks(self, networks: Pyramid | Convolutional | Recipe) -> Pretraining:
        """For a model of these networks."""
        return replace(self, networks=networks)

    def fit(self, cohort: Cohort, *, keep: str | Path | None = None) -> PretrainedEncoders:
        """Encoders of these people; see :func:`pretrain`."""
        refuse_imputed(cohort)
        training, stopping = _two_groups(cohort, self.seed)
        networks = self.networks or (Pyramid() if cohort.modalities[0].space is not None
                                     else OneLatent())
        if not self.objective.reconstruction and not self.objective.inter and (
                cohort.present.sum(axis=1) < 2).all():
            raise CohortError("nobody has two modalities, and the objective compares nothing "
                              "else: leave reconstruction in it")
        learner = _Tables(self, networks, cohort) if isinstance(networks, Recipe) else \
            _Images(self, networks, cohort)
        plan = replace(self.plan or learner.plan, warmup=0)  # there is no KL to begin without
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = learner.net().to(self.device)
        history = fit(net, learner.data(training), learner.data(stopping), plan, seed=self.seed,
                      keep=None if keep is None else Checkpoint(Path(keep) / "pretraining.pt"))
        notes = _complaints(net, history, self.objective,
                            _incomparable(cohort, isinstance(networks, Recipe)))
        for note in notes:
            warnings.warn(note, stacklevel=2)
        weights = {name: {key: value.detach().cpu().clone()
                          for key, value in encoder.state_dict().items()}
                   for name, encoder in zip(net.names, net.encoders)}
        return PretrainedEncoders(
            learner.networks, learner.dimensions, learner.features, repr(self.objective), weights,
            roles_to_hashes(cohort, pd.Series("training", cohort.ids)), len(cohort), plan,
            history.table, notes, learner.seen)


def pretrain(cohort: Cohort, *, keep: str | Path | None = None, **options: Any
             ) -> PretrainedEncoders:
    r"""Teach each modality's encoder what lies near what, without labels or covariates.

    Tokens of a person are the places of an encoder's innermost features (of tables: regions).
    What is near in one modality is to be near in the person's others, and what corresponds in two
    people is to have corresponding neighbours; decoders make the features keep what the image
    shows. Encoders of different modalities need not agree in their features, only in which places
    are alike. Whoever has one modality only teaches its reconstruction and what people share.

    Parameters
    ----------
    cohort : Cohort
        Images on one grid and mask, or tables; eight people at least, healthy or not. A tenth of
        them says which epoch was best. **People who were seen here are known to models that start
        from the encoders, like those of their training**: they cannot calibrate them.
    keep : path, optional
        A folder for what is reached, written every few seconds, and taken up by the same call
        after a crash.
    **options
        Of :class:`Pretraining`: ``objective``, ``networks``, ``plane``, ``plan``, ``device``,
        ``seed``.

    Returns
    -------
    PretrainedEncoders
        For ``IncompleteSegmenter(encoders=…)``, ``ImageSynthesiser(encoders=…)`` and
        ``NormativeModel(encoders=…)``. Its ``history`` has, beside the losses of the people who
        stop (each times its weight), each modality's ``rank`` (effective rank of its tokens),
        ``matched`` (share of tokens that are somebody else's nearest and have them as theirs) and
        ``collapsed`` (the intra-subject term if all features were the same).

    Raises
    ------
    CohortError
        Too few people, nothing that modalities have in common, imputed values, or images of
        different grids.
    TrainingError

    Warns
    -----
    UserWarning
        Tokens of a modality are all alike (its encoder collapsed), or nothing could be compared.

    References
    ----------
    TACO, cross-instance topology, here with an encoder for each modality.

    Examples
    --------
    >>> from normfuse.testing import tiny_images
    >>> from normfuse.imaging.segmentation import IncompleteSegmenter
    >>> brief = TrainingPlan(max_epochs=2, warmup=0, batch_size=8, validation_draws=1)
    >>> encoders = pretrain(tiny_images(), networks=Pyramid((4, 8), (0, 4)), plan=brief)
    >>> list(encoders.history)[3:8]
    ['reconstruction', 'intra', 'inter', 'rank of T1w', 'rank of T2w']
    >>> IncompleteSegmenter(encoders=encoders).sizes          # those of the encoders
    Pyramid(channels=(4, 8), latents=(0, 4))
    """
    return Pretraining(**options).fit(cohort, keep=keep)


class _Images:
    """Images of a cohort, as a model with these networks would read them."""

    def __init__(self, how: Pretraining, networks: Pyramid | Convolutional, cohort: Cohort
                 ) -> None:
        self.how, self.networks, self.cohort = how, networks, cohort
        volumes = isinstance(networks, Convolutional)
        step = 2 ** networks.halvings if isinstance(networks, Convolutional) else networks.step
        self.frame = Frame(one_space(cohort), step, None if volumes else how.plane)
        self.dimensions, self.seen = self.frame.dimensions, self.frame.told()
        self.features: dict[str, tuple[str, ...]] = {}
        self.tables = _residuals(cohort) if volumes else None
        self.units = Units.of(cohort)
        self.plan = TrainingPlan(max_epochs=20, patience=20, warmup=0, learning_rate=1e-3,
                                 batch_size=8 if self.dimensions == 2 else 2, final_rate=0.05,
                                 clip=5.0, validation_draws=1)

    def net(self) -> TopologyNet:
        return ImageTopologyNet(self.networks, self.dimensions,
                                [m.name for m in self.cohort.modalities], self.how.objective)

    def data(self, ids: Sequence[str]) -> Sliceable:
        people = self.cohort.select(ids)
        stack = Stack.of(people, self.frame, self.units, slices=self.frame.busy,
                         device=self.how.device)
        if self.tables is not None:
            rows = torch.as_tensor(self.cohort.ids.get_indexer(pd.Index(ids)))
            stack = replace(stack, tables=tuple(t[rows] for t in self.tables))
        return Couples(stack.of_somebody())


def _residuals(cohort: Cohort) -> tuple[torch.Tensor, ...]:
    """What covariates leave, as convolutions of normative models read it; nan: not measured."""
    prepared = Preparation.fit(cohort)
    batch = prepared.batch(prepared.aligned(cohort), np.ones(len(cohort), bool))
    return tuple(torch.where(torch.ones_like(x, dtype=torch.bool) if known is None else known, x,
                             torch.nan).float() for x, known in zip(batch.x, batch.measured))


class _Tables:
    """Tables of a cohort, as a normative model reads them."""

    def __init__(self, how: Pretraining, networks: Recipe, cohort: Cohort) -> None:
        self.how, self.cohort, self.dimensions, self.seen = how, cohort, 0, ""
        self.networks = networks.for_people(len(cohort))
        wide = [m.name for m in cohort.modalities if m.n_features > WIDEST or m.space is not None]
        if wide:
            raise CohortError(f"{listed(wide)} are images or have more than {WIDEST} features, "
                              f"which {networks!r} reads along principal axes; give "
                              "networks=Convolutional() or Pyramid()")
        self.features = {m.name: tuple(m.features) for m in cohort.modalities}
        self.regions = {m.name: [f.removeprefix(f"{m.name}_") for f in m.features]
                        for m in cohort.modalities}
        self.prepared = Preparation.fit(cohort)
        self.plan = TrainingPlan(max_epochs=100, patience=20, warmup=0, learning_rate=1e-3,
                                 batch_size=32, clip=5.0, validation_draws=1)
        net = self.net()
        if how.objective.intra and len(cohort.modalities) > 1 and not any(
                len(mine) > 2 for mine, _ in net.common.values()):
            raise CohortError("no two modalities have three regions of the same name (but for the "
                              "modality's, as in t1_insula and pet_insula): topology between them "
                              "means nothing; name regions alike, or take Topology(intra=0)")

    def net(self) -> RegionTopologyNet:
        r = self.networks
        return RegionTopologyNet(self.regions, r.n_dimensions, r.hidden, r.dropout, r.hide_cells,
                                 r.skip, self.how.objective)

    def data(self, ids: Sequence[str]) -> Sliceable:
        people = self.prepared.aligned(self.cohort.select(ids))
        return self.prepared.batch(people, np.ones(len(people), bool)).to(torch.float32)


def _two_groups(cohort: Cohort, seed: int) -> tuple[list[str], list[str]]:
    """Those who train, and those who say which epoch was best, by person."""
    people = sorted({person_of(str(i)) for i in cohort.ids})
    if len(people) < FEWEST:
        raise CohortError(f"{len(people)} people are too few to pre-train on: {FEWEST} at least")
    order = np.random.default_rng(seed).permutation(people).tolist()
    several = {person_of(str(i)) for i in cohort.ids[(cohort.present.sum(axis=1) > 1).to_numpy()]}
    order.sort(key=lambda who: who not in several)  # topology can be judged in these
    stopping = set(order[:max(2, round(STOPPING * len(people)))])
    ids = [str(i) for i in cohort.ids]
    return ([i for i in ids if person_of(i) not in stopping],
            [i for i in ids if person_of(i) in stopping])


def _incomparable(cohort: Cohort, tables: bool) -> str:
    """Why no modality of a person was compared with another."""
    if (cohort.present.sum(axis=1) < 2).all():
        return ("nobody has two modalities; these encoders know what reconstructs a scan, and "
                "what people share")
    if tables:
        return "none has two modalities with three regions of the same name"
    return ("none has two modalities with three places in the brain at the innermost resolution; "
            "bring images of smaller voxels, or networks of fewer resolutions")


def _complaints(net: TopologyNet, history: History, objective: Topology, why: str
                ) -> tuple[str, ...]:
    """What the kept epoch says of collapse, and whether topology was judged at all."""
    best = history.table[history.table["epoch"] == history.best_epoch].iloc[0]
    flat = [f"{name} ({best[f'rank of {name}']:.1f})" for name in net.names
            if best.get(f"rank of {name}", np.inf) < COLLAPSED]
    notes = []
    if objective.intra and not history.table["intra"].any():
        notes.append(f"nothing was compared within the people who say when to stop: {why}")
    if history.best_epoch == 1 and len(history.table) > 2:
        notes.append("the people who say when to stop were served best by the first of "
                     f"{len(history.table)} epochs: hardly anything was learned. With few tokens "
                     "topology is fulfilled from the start; bring images of smaller voxels, more "
                     "people, or another objective")
    if flat:
        notes.append(f"the features of all places are nearly the same in {listed(flat)}: "
                     "effective rank of their tokens. These encoders collapsed; raise the weight "
                     "of reconstruction, or train longer")
    return tuple(notes)

"""Networks that pre-training teaches: encoders of images or of tables, and what judges them."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..fusion import Choice
from ..models import Batch
from ..networks import MlpDecoder, MlpEncoder
from ..networks.conv import ConvEncoder, Convolutional
from ..networks.pyramid import LAYERS, Looking, Painting, Pyramid, Widening
from .contrastive import effective_rank
from .images import Images, Stack
from .topology import (INTER_MARGIN, INTRA_MARGIN, NEIGHBOURS, inter_loss, intra_loss,
                       mutual_nearest, tokens)

PAIRS = 6
"""People in a step of whom topology is compared, and pairs of people."""

BRAIN = 0.5
"""Share of a token's place that is brain: what lies outside is alike in everybody."""


@dataclass(frozen=True, repr=False)
class Topology(Choice):
    r"""What pre-training minimises.

    .. math:: L = \lambda_r L_{rec} + \lambda_a L_{intra} + \lambda_b L_{inter}

    Reconstruction is the mean squared error of standardised values from the last features;
    intra-subject and inter-subject losses are :func:`~normfuse.imaging.topology.intra_loss` and
    :func:`~normfuse.imaging.topology.inter_loss`.

    Parameters
    ----------
    reconstruction, intra, inter : float
        Weights. The inter-subject term alone is 0 where all features are the same, and is refused
        without one of the others.
    n_neighbours : int

    References
    ----------
    TACO, cross-instance topology; weights 1, 10 and 10 as there.

    Examples
    --------
    >>> Topology(inter=0)                       # within people only
    Topology(inter=0)
    >>> Topology(0, 0, 1)
    Traceback (most recent call last):
    ValueError: the inter-subject loss is 0 where all features are the same: it cannot be used ...
    """

    reconstruction: float = 1.0
    intra: float = 10.0
    inter: float = 10.0
    n_neighbours: int = NEIGHBOURS

    def __post_init__(self) -> None:
        for name in ("reconstruction", "intra", "inter"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} is a weight from 0 on; got {value!r}")
        if not isinstance(self.n_neighbours, int) or self.n_neighbours < 1:
            raise ValueError(f"n_neighbours is a whole number above 0; got {self.n_neighbours!r}")
        if not self.reconstruction and not self.intra:
            raise ValueError("the inter-subject loss is 0 where all features are the same: it "
                             "cannot be used without reconstruction or the intra-subject loss"
                             if self.inter else "one of the weights must be above 0")


class TopologyNet(nn.Module, ABC):
    """Encoders and decoders of every modality, and the losses of a batch.

    Parameters
    ----------
    names : sequence of str
    objective : Topology
    """

    def __init__(self, names: Sequence[str], objective: Topology) -> None:
        super().__init__()
        self.names, self.objective = tuple(names), objective
        self.encoders: Any
        self.decoders: Any

    @abstractmethod
    def seen(self, batch: Any) -> Seen:
        """Tokens and errors of a batch."""

    def loss(self, batch: Any, warmup: float = 1.0) -> dict[str, Tensor]:
        """Terms by name; what there is nothing for in a batch is 0."""
        o, seen = self.objective, self.seen(batch)
        nothing = 0 * seen.error
        terms = {"reconstruction": o.reconstruction * seen.error}
        if o.intra:
            terms["intra"] = o.intra * _mean([
                intra_loss(a, b, _fitting(o.n_neighbours, len(a))) for a, b in seen.within],
                nothing)
        if o.inter:
            terms["inter"] = o.inter * _mean([self.between(a, b) for a, b in seen.across], nothing)
        return terms

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Two people; both ways."""
        k = self.objective.n_neighbours
        return (inter_loss(a, b, k) + inter_loss(b, a, k)) / 2

    @torch.no_grad()
    def watch(self, data: Any) -> dict[str, float]:
        """What shows a collapse: of each modality the effective rank of its tokens; the share of
        tokens that have a correspondence in somebody else; the intra-subject loss that equal
        features would have."""
        ranks: dict[str, list[float]] = {name: [] for name in self.names}
        matched: list[float] = []
        for rows in torch.arange(len(data)).split(getattr(data, "at_once", len(data))):
            seen = self.seen(data.take(rows))
            for name, features in seen.by_modality.items():
                if len(features):  # of a few slices none may have a place in the brain
                    ranks[name].append(effective_rank(features))
            matched += [len(mutual_nearest(a, b)[0]) / len(a) for a, b in seen.across]
        found = {f"rank of {name}": sum(each) / len(each) for name, each in ranks.items() if each}
        found["matched"] = sum(matched) / len(matched) if matched else float("nan")
        return {**found, "collapsed": self.objective.intra * INTRA_MARGIN}


@dataclass(frozen=True, eq=False)
class Seen:
    """What the losses of one batch are made of.

    Attributes
    ----------
    error : Tensor
        Mean squared error of reconstructions.
    within : list of (Tensor, Tensor)
        Tokens of one person in two modalities.
    across : list of (Tensor, Tensor)
        Tokens of two people in one modality.
    by_modality : dict of Tensor
        All tokens of each modality.
    """

    error: Tensor
    within: list[tuple[Tensor, Tensor]]
    across: list[tuple[Tensor, Tensor]]
    by_modality: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Couples:
    """Images of people, each with the same slice of somebody else, who has a modality in common
    if anybody has.

    Attributes
    ----------
    stack : Stack
    """

    stack: Stack

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def at_once(self) -> int:
        """Images in memory together where no gradient is wanted; their partners beside."""
        return self.stack.at_once

    def take(self, rows: Tensor) -> Images:
        """2 n images: these and then their partners; random numbers are torch's."""
        stack = self.stack
        same = stack.slices[rows, None] == stack.slices[None]
        other = same & (stack.people[rows, None] != stack.people[None])
        there = stack.present.float()[:, stack.people]
        alike = there[:, rows].T @ there > 0
        lot = (torch.rand(other.shape) + alike).masked_fill(~other, -1.0)
        return stack.take(torch.cat([rows, lot.argmax(1)]))


class ImageTopologyNet(TopologyNet):
    """Encoders of images; tokens are the places of the innermost features that lie in the brain.

    Parameters
    ----------
    networks : Pyramid or Convolutional
    dimensions : int
    names, objective
        As in :class:`TopologyNet`.

    Examples
    --------
    >>> net = ImageTopologyNet(Pyramid((4, 8), (0, 4)), 2, ["T1w", "T2w"], Topology())
    >>> images = torch.randn(2, 4, 16, 16)                 # two people and their partners
    >>> there = torch.ones(2, 4, dtype=torch.bool)
    >>> batch = Images(images, torch.ones_like(images, dtype=torch.bool), there,
    ...                torch.ones(4, 16, 16, dtype=torch.bool))
    >>> sorted(net.loss(batch))
    ['inter', 'intra', 'reconstruction']
    """

    def __init__(self, networks: Pyramid | Convolutional, dimensions: int, names: Sequence[str],
                 objective: Topology) -> None:
        super().__init__(names, objective)
        self.dimensions = dimensions
        self.encoders = nn.ModuleList(image_encoder(networks, dimensions) for _ in names)
        self.decoders = nn.ModuleList(_painter(networks, dimensions) for _ in names)
        self.shrinks = 2 ** (len(networks.channels) - isinstance(networks, Pyramid))
        pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[dimensions]
        self.share: Any = pool(self.shrinks)

    def seen(self, batch: Images) -> Seen:
        first, second, shared = _two_modalities(batch.present.cpu())
        looked = torch.stack([first, second])
        maps: dict[int, tuple[Tensor, Tensor]] = {}
        errors, counts = [], []
        for m in looked.unique().tolist():
            if m < 0:
                continue
            rows = torch.nonzero((looked == m).any(0)).ravel().to(batch.values.device)
            image, known = batch.values[m].index_select(0, rows), batch.known[m].index_select(
                0, rows)
            inner = _innermost(self.encoders[m](image[:, None]))
            error = (self.decoders[m](inner)[:, 0] - image).square()
            errors.append(torch.where(known, error, 0.0).sum())
            counts.append(known.sum())
            maps[m] = (rows.cpu(), tokens(inner))
        inside = self.share(batch.inside[:, None].float())[:, 0].flatten(1) >= BRAIN
        error = torch.stack(errors).sum() / torch.stack(counts).sum().clamp_min(1)
        return self._compared(first, second, shared, maps, inside, error)

    def _compared(self, first: Tensor, second: Tensor, shared: Tensor,
                  maps: Mapping[int, tuple[Tensor, Tensor]], inside: Tensor, error: Tensor
                  ) -> Seen:
        def of(i: int, m: int) -> Tensor:
            rows, features = maps[m]
            return features[int(torch.nonzero(rows == i)[0, 0])][inside[i]]

        n = len(first) // 2
        two = torch.nonzero(second >= 0).ravel()
        within = [(of(i, int(first[i])), of(i, int(second[i]))) for i in _some(two)]
        across = [(of(i, int(first[i])), of(i + n, int(first[i])))
                  for i in _some(torch.nonzero(shared).ravel())]
        each = {self.names[m]: torch.cat([f[inside[i]] for i, f in zip(rows, features)])
                for m, (rows, features) in maps.items()}
        within, across = ([pair for pair in pairs if min(map(len, pair)) > 2]
                          for pairs in (within, across))
        return Seen(error, within, across, each)


def image_encoder(networks: Pyramid | Convolutional, dimensions: int) -> nn.Module:
    """A new one, as models of these networks have it."""
    if isinstance(networks, Pyramid):
        return Looking(dimensions, networks)
    sides = (2 ** networks.halvings,) * dimensions
    return ConvEncoder(sides, 1, 0, 1, networks).steps


def _painter(networks: Pyramid | Convolutional, dimensions: int) -> nn.Module:
    """The innermost features -> an image."""
    widths = networks.channels[::-1]
    steps: list[nn.Module] = [Widening(wide, narrow, dimensions, k + 2 < len(widths))
                              for k, (wide, narrow) in enumerate(zip(widths, widths[1:]))]
    if isinstance(networks, Pyramid):
        return nn.Sequential(*steps, Painting(dimensions, networks, 1))
    return nn.Sequential(*steps, nn.SiLU(), LAYERS[dimensions][1](widths[-1], 1, 4, 2, 1))


def _innermost(features: Any) -> Tensor:
    return features[-1] if isinstance(features, list) else features


def _two_modalities(present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of 2 n images two modalities that are there, the second -1 where there is but one; and
    whether image i and its partner, image i + n, have the first in common."""
    n = present.shape[1] // 2
    common = present[:, :n] & present[:, n:]
    shared = common.any(0)
    wanted = torch.where(torch.cat([shared, shared]), torch.cat([common, common], 1), present)
    first = torch.where(wanted, torch.rand(wanted.shape), -1.0)
    first[:, n:] = torch.where(shared, first[:, :n], first[:, n:])
    at = first.argmax(0)
    rest = present.clone()
    rest[at, torch.arange(2 * n)] = False
    second = torch.where(rest, torch.rand(rest.shape), -1.0).argmax(0)
    at = torch.where(present.any(0), at, -1)
    return at, torch.where(rest.any(0), second, -1), shared


def _some(rows: Tensor) -> list[int]:
    """As many as PAIRS, by chance."""
    return rows[torch.randperm(len(rows))[:PAIRS]].tolist()


def _fitting(n_neighbours: int, n_tokens: int) -> int:
    """Neighbours and as many others: fewer where there are few places."""
    return max(1, min(n_neighbours, (n_tokens - 1) // 2))


def _mean(losses: Sequence[Tensor], nothing: Tensor) -> Tensor:
    return torch.stack(list(losses)).mean() if losses else nothing


class RegionTopologyNet(TopologyNet):
    r"""Encoders of tables; the token of a region is what it does to the latents.

    .. math:: x_m \to z_m = f_m(x_m) \to \hat x_m, \qquad
              t_{mj} = \frac{\partial f_m}{\partial x_{mj}} \in R^{latents}

    Regions of two modalities correspond by name, and of two people always, so that the
    inter-subject loss is the intra-subject one between people.

    Parameters
    ----------
    regions : dict of list of str
        Modality -> names of its regions, alike in all modalities.
    n_latent : int
    hidden : tuple of int
    dropout, hide_cells : float
    skip : bool
        As in a :class:`~normfuse.models.Recipe`.
    objective : Topology

    Examples
    --------
    >>> names = ["insula", "cuneus", "precuneus"]
    >>> both = {"t1": names, "pet": names[1:]}
    >>> net = RegionTopologyNet(both, 2, (4,), 0, 0, True, Topology())
    >>> net.common[0, 1]
    ([1, 2], [0, 1])
    """

    def __init__(self, regions: Mapping[str, Sequence[str]], n_latent: int,
                 hidden: tuple[int, ...], dropout: float, hide_cells: float, skip: bool,
                 objective: Topology) -> None:
        super().__init__(list(regions), objective)
        self.hide_cells = hide_cells
        widths = [len(names) for names in regions.values()]
        self.encoders = nn.ModuleList(MlpEncoder(n, 0, n_latent, hidden, dropout, skip=skip)
                                      for n in widths)
        self.decoders = nn.ModuleList(MlpDecoder(n_latent, 0, n, hidden[::-1], dropout, skip=skip)
                                      for n in widths)
        self.common = {(a, b): _matched(list(first), list(second))
                       for a, first in enumerate(regions.values())
                       for b, second in enumerate(regions.values()) if a != b}

    def seen(self, batch: Batch) -> Seen:
        errors, n_cells = [], []
        nothing = batch.x[0].new_zeros(len(batch), 0)
        for m, (encode, decode) in enumerate(zip(self.encoders, self.decoders)):
            rows = torch.nonzero(batch.present[m]).ravel()
            if not len(rows):
                continue
            x = batch.x[m].index_select(0, rows)
            known = batch.measured[m]
            known = torch.ones_like(x, dtype=torch.bool) if known is None else \
                known.index_select(0, rows)
            read = nn.functional.dropout(x, self.hide_cells, self.training)
            z = encode.numbers(read, nothing[rows])[0]
            error = (decode(z, nothing[rows]) - x).square()
            errors.append(torch.where(known, error, 0.0).sum())
            n_cells.append(known.sum())
        error = torch.stack(errors).sum() / torch.stack(n_cells).sum().clamp_min(1)
        return self._compared(batch, error)

    def _compared(self, batch: Batch, error: Tensor) -> Seen:
        within, across = [], []
        by: dict[str, list[Tensor]] = {}
        tables: dict[tuple[int, int], Tensor] = {}

        def of(i: int, m: int) -> Tensor:
            if (i, m) not in tables:
                tables[i, m] = self._tokens(m, batch.x[m][i])
                by.setdefault(self.names[m], []).append(tables[i, m])
            return tables[i, m]

        people = torch.randperm(len(batch))[:PAIRS].tolist()
        for i, other in zip(people, people[1:] + people[:1]):
            there = torch.nonzero(batch.present[:, i]).ravel()
            pairs = [(a, b) for a in there.tolist() for b in there.tolist()
                     if a != b and len(self.common[a, b][0]) > 2]
            if pairs:
                a, b = pairs[int(torch.randint(len(pairs), ()))]
                mine, theirs = self.common[a, b]
                within.append((of(i, a)[mine], of(i, b)[theirs]))
            both = torch.nonzero(batch.present[:, i] & batch.present[:, other]).ravel()
            if len(both) and i != other:
                m = int(both[torch.randint(len(both), ())])
                if len(of(i, m)) > 2:
                    across.append((of(i, m), of(other, m)))
        return Seen(error, within, across, {name: torch.cat(each) for name, each in by.items()})

    def _tokens(self, m: int, x: Tensor) -> Tensor:
        """(n_regions, n_latent) at these values."""
        def located(values: Tensor) -> Tensor:
            return self.encoders[m].numbers(values[None], values.new_zeros(1, 0))[0][0]

        with torch.enable_grad():
            return torch.func.jacrev(located)(x).T

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Regions are the same in both."""
        return intra_loss(a, b, _fitting(self.objective.n_neighbours, len(a)), INTER_MARGIN)


def _matched(first: list[str], second: list[str]) -> tuple[list[int], list[int]]:
    """Positions of what both have."""
    at = {name: k for k, name in enumerate(second)}
    both = [(k, at[name]) for k, name in enumerate(first) if name in at]
    return [a for a, _ in both], [b for _, b in both]

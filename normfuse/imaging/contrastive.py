"""Contrast of pairs: what two modalities show of one place is alike, and unlike other places."""
from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fusion import Choice

SMALLEST = 1e-8
"""Norm below which a vector has no direction."""


class Critic(Choice):
    """How alike two representations are: h(a, b), the larger the more alike."""

    @abstractmethod
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Of every row with every other: (n, channels, *sides), (m, channels, *sides) -> (n, m);
        vectors (n, channels) are images of one pixel."""


@dataclass(frozen=True, repr=False)
class MeanSquare(Critic):
    """h(a, b) = -mean (a - b)^2, over pixels and channels.

    Examples
    --------
    >>> MeanSquare()(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 0]], [[2.0, 0]]]))
    tensor([[-0., -2.]])
    """

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a.flatten(1), b.flatten(1)
        origin = b.mean(0)  # subtracting squares of large numbers would lose digits
        a, b = a - origin, b - origin
        squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        return -squares.clamp_min(0) / a.shape[1]


@dataclass(frozen=True, repr=False)
class AbsoluteDifference(Critic):
    """h(a, b) = - mean over pixels of the sum over channels of |a - b|.

    Examples
    --------
    >>> AbsoluteDifference()(torch.zeros(1, 2), torch.tensor([[1.0, -3.0]]))
    tensor([[-4.]])
    """

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        pixels = max(1, a[0, 0].numel())
        return -torch.cdist(a.flatten(1), b.flatten(1), p=1) / pixels


@dataclass(frozen=True, repr=False)
class Cosine(Critic):
    """h(a, b) = mean over pixels of the cosine of the angle between the channels' vectors.

    It needs two channels at least: of one nothing but the sign is left.

    Examples
    --------
    >>> Cosine()(torch.tensor([[1.0, 0]]), torch.tensor([[5.0, 0], [0, 2.0]]))
    tensor([[1., 0.]])
    """

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape[1] < 2:
            raise ValueError("the cosine compares directions and needs two channels at least; got "
                             "one: give more channels, or MeanSquare()")
        pixels = max(1, a[0, 0].numel())
        a, b = (t / t.norm(dim=1, keepdim=True).clamp_min(SMALLEST) for t in (a, b))
        return a.flatten(1) @ b.flatten(1).T / pixels


def info_nce(a: Tensor, b: Tensor, critic: Critic, temperature: float = 0.5) -> Tensor:
    r"""The contrastive loss of N pairs, both ways.

    With the 2N representations y of a and b, j(i) the partner of i,

    .. math:: L = \frac{1}{2N} \sum_i \Big[ \log \sum_{k \ne i} e^{h(y_i, y_k) / \tau}
              - h(y_i, y_{j(i)}) / \tau \Big]

    (the partner is in the sum). Of constant representations it is log(2N - 1), see
    :func:`collapse_value`; log(2N - 1) - L bounds their mutual information from below.

    Parameters
    ----------
    a, b : Tensor, shape (N, channels, *sides) or (N, channels)
        Row i of both shows the same.
    critic : Critic
    temperature : float
        tau.

    References
    ----------
    Pielawski et al. (2020), CoMIR, NeurIPS, arXiv 2006.06325.

    Examples
    --------
    >>> far_apart = 100 * torch.eye(4)
    >>> float(info_nce(far_apart, far_apart, MeanSquare()))
    0.0
    >>> same = torch.ones(4, 3)
    >>> abs(float(info_nce(same, same, MeanSquare())) - collapse_value(4)) < 1e-6
    True
    """
    if a.shape != b.shape or len(a) < 2:
        raise ValueError("pairs need two tensors of one shape and two rows at least; got "
                         f"{tuple(a.shape)} and {tuple(b.shape)}")
    n, both = len(a), torch.cat([a, b])
    alike = critic(both, both) / temperature
    oneself = torch.eye(2 * n, dtype=torch.bool, device=a.device)
    rows = torch.arange(2 * n, device=a.device)
    partner = alike[rows, (rows + n) % (2 * n)]
    return (torch.logsumexp(alike.masked_fill(oneself, -torch.inf), 1) - partner).mean()


def collapse_value(n_pairs: int) -> float:
    """The loss of N pairs when all representations are the same: log(2N - 1).

    >>> round(collapse_value(16), 3)
    3.434
    """
    return math.log(2 * n_pairs - 1)


def effective_rank(rows: Tensor) -> float:
    r"""How many directions vectors fill: :math:`\exp(-\sum_i p_i \log p_i)`.

    p are the singular values of the centred matrix, divided by their sum. 0 if all rows are one.

    Parameters
    ----------
    rows : Tensor, shape (n, d)

    References
    ----------
    Roy and Vetterli (2007), EUSIPCO, "The effective rank".

    Examples
    --------
    >>> rng = torch.Generator().manual_seed(0)
    >>> full = torch.randn(500, 16, generator=rng)
    >>> flat = full * (torch.arange(16) < 4)
    >>> round(effective_rank(full), 1), round(effective_rank(flat), 1)
    (15.9, 4.0)
    """
    values = torch.linalg.svdvals((rows - rows.mean(0)).double())
    total = float(values.sum())
    if total <= SMALLEST * max(1.0, float(rows.abs().max())):
        return 0.0
    return float(torch.special.entr(values / total).sum().exp())


def closeness(a: Tensor, b: Tensor) -> float:
    """"Alignment": mean squared distance of partners on the unit sphere; 0 where they agree, 2 of
    unrelated ones.

    Wang and Isola (2020), ICML, arXiv 2005.10242.

    >>> closeness(torch.eye(3), 2 * torch.eye(3))
    0.0
    """
    a, b = _on_sphere(a), _on_sphere(b)
    return float((a - b).square().sum(1).mean())


def uniformity(rows: Tensor) -> float:
    r"""Log of the mean of :math:`e^{-2 |u_i - u_j|^2}` over pairs of unit vectors.

    0 if all are one, -4 at least; near that where they are spread over the sphere.
    Wang and Isola (2020), ICML, arXiv 2005.10242.

    >>> uniformity(torch.ones(5, 3))
    0.0
    """
    apart = torch.pdist(_on_sphere(rows)).square()
    return float((-2 * apart).exp().mean().log())


def _on_sphere(rows: Tensor) -> Tensor:
    rows = rows.flatten(1).double()
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(SMALLEST)

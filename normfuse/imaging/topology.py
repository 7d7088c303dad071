r"""What lies near what: losses that ask it to be the same in every modality and every person.

Tokens are places: the voxels of an innermost feature map, or regions. Distances between tokens are

.. math:: d(a, b) = 1 - \frac{a \cdot b}{|a| |b|}.

References
----------
TACO, cross-instance topology. Both losses as its code has them, but for the order of axes (see
:func:`tokens`).
"""
from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = 5
INTRA_MARGIN, INTER_MARGIN = 0.05, 0.4


def tokens(features: Tensor) -> Tensor:
    """(n, channels, *sides) -> (n, n_tokens, channels): one token a place.

    The channel axis is moved to the end first. Reshaping alone, as the released code does, makes
    rows that mix channels and places.

    Examples
    --------
    >>> maps = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])[None]   # two channels
    >>> tokens(maps)[0, 0].tolist(), maps.reshape(1, -1, 2)[0, 0].tolist()
    ([0.0, 1.0], [0.0, 0.0])
    """
    return features.flatten(2).transpose(1, 2)


def cosine_distances(a: Tensor, b: Tensor) -> Tensor:
    """Of every row with every other, (n, channels), (m, channels) -> (n, m), 0 to 2.

    >>> cosine_distances(torch.eye(2), torch.tensor([[3.0, 0]])).tolist()
    [[0.0], [1.0]]
    """
    return 1 - torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T


def intra_loss(first: Tensor, second: Tensor, n_neighbours: int = NEIGHBOURS,
               margin: float = INTRA_MARGIN) -> Tensor:
    r"""One person in two modalities: neighbours in the first are near in the second.

    .. math:: L = \overline{\big(d(z_i, z_j) - d(z_i, z_n) + m\big)_+}

    over tokens i, their nearest neighbours j in the first (by Euclidean distance) and as many
    others n, drawn by chance; z are tokens of the second. Both ways, averaged. If all tokens are
    the same it is exactly the margin: a collapse costs something.

    Parameters
    ----------
    first, second : Tensor, shape (n_tokens, channels)
        Token i of both is one place; numbers of channels may differ.
    n_neighbours : int
    margin : float
        m.
    """
    return (_one_way(first, second, n_neighbours, margin)
            + _one_way(second, first, n_neighbours, margin)) / 2


def _one_way(first: Tensor, second: Tensor, k: int, margin: float) -> Tensor:
    n = len(first)
    if len(second) != n or n < 2 * k + 1:
        raise ValueError(f"topology needs as many tokens on both sides, {2 * k + 1} at least for "
                         f"{k} neighbours; got {n} and {len(second)}")
    near = _nearest(torch.cdist(first, first), k)
    # everybody else by chance: the k largest of random numbers, neighbours and oneself excluded
    lot = torch.rand(n, n, device=first.device).scatter(1, near, -1.0)
    lot.fill_diagonal_(-1.0)
    far = lot.topk(k, 1).indices
    apart = cosine_distances(second, second)
    return (apart.gather(1, near) - apart.gather(1, far) + margin).clamp_min(0).mean()


def _nearest(distances: Tensor, k: int) -> Tensor:
    """The k nearest others of each row."""
    eye = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    return distances.masked_fill(eye, torch.inf).topk(k, 1, largest=False).indices


def mutual_nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of tokens of two people each of which is the other's nearest, as positions.

    >>> mutual_nearest(torch.eye(3), torch.eye(3)[[2, 0]])
    (tensor([0, 2]), tensor([1, 0]))
    """
    apart = cosine_distances(a, b)
    to_b, to_a = apart.argmin(1), apart.argmin(0)
    rows = torch.arange(len(a), device=a.device)
    matched = torch.nonzero(to_a[to_b] == rows).ravel()
    return matched, to_b[matched]


def inter_loss(a: Tensor, b: Tensor, n_neighbours: int = NEIGHBOURS,
               margin: float = INTER_MARGIN) -> Tensor:
    r"""Two people: what is near in one is near in the other, as far as they correspond.

    Tokens u and u' correspond if each is the other's nearest. For each u of those and its
    neighbours v in a that correspond to some v',

    .. math:: L = \overline{\big(d(u', v') - d(u', n) + m\big)_+}, \quad n \text{ in } b
              \text{ by chance, without correspondence.}

    **0 if all tokens are the same**: hardly anything corresponds then. It cannot prevent a
    collapse, and is not to be used alone.

    Parameters
    ----------
    a, b : Tensor, shape (n_tokens, channels), (m_tokens, channels)
    """
    matched, theirs = mutual_nearest(a, b)
    partner = torch.full((len(a),), -1, device=a.device)
    partner[matched] = theirs
    near = partner[_nearest(cosine_distances(a, a), min(n_neighbours, len(a) - 1))[matched]]
    corresponds = near >= 0
    apart = cosine_distances(b, b)[theirs]
    pool = _strangers(near, theirs, len(b))
    rows = torch.nonzero(corresponds.any(1) & pool.any(1)).ravel()
    if not len(rows):
        return 0 * (a.sum() + b.sum())
    near, corresponds, apart, pool = (t[rows] for t in (near, corresponds, apart, pool))
    drawn = torch.multinomial(pool.double(), near.shape[1], replacement=True)
    each = (apart.gather(1, near.clamp_min(0)) - apart.gather(1, drawn) + margin).clamp_min(0)
    return ((each * corresponds).sum(1) / corresponds.sum(1)).mean()


def _strangers(near: Tensor, own: Tensor, n: int) -> Tensor:
    """Of whom a stranger may be drawn for each row, bool, (n_rows, n): whoever has no
    correspondence; if everybody has one, whoever is no neighbour."""
    pool = torch.ones(len(near), n, dtype=torch.bool, device=near.device)
    pool[:, own] = False
    if not bool(pool.any()):
        pool = torch.ones(len(near), n + 1, dtype=torch.bool, device=near.device)
        pool = pool.scatter(1, near % (n + 1), False)[:, :n]  # -1, no neighbour, falls off
        pool[torch.arange(len(near), device=near.device), own] = False
    return pool

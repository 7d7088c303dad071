"""Clusters of people by their dissimilarities, and whether other people would give the same."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.isotonic import isotonic_regression
from sklearn.metrics import silhouette_score

from .linear_terms import Array

METHODS = ("kmedoids", "average", "complete", "ward")
_MATCHING = 8  # rounds, and draws in each: the spectrum is then met to a few per cent
_AXES = 10  # leading ones
_ROUNDS = 100  # of k-medoids; about five are needed


def clusters(distance: Array, ks: Sequence[int], method: str) -> Array:
    """Who belongs together, for several numbers of clusters.

    Parameters
    ----------
    distance : ndarray, shape (n_people, n_people)
    ks : sequence of int
        Numbers of clusters.
    method : {"kmedoids", "average", "complete", "ward"}

    Returns
    -------
    ndarray of int, shape (len(ks), n_people)
        Numbered from 0.

    Examples
    --------
    >>> at = np.array([0.0, 0.1, 0.2, 5, 5.1, 5.2])
    >>> apart = np.abs(at[:, None] - at)
    >>> [clusters(apart, [2], method)[0].tolist() for method in ("kmedoids", "average")]
    [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    """
    if method == "kmedoids":
        return np.array([_kmedoids(distance, k) for k in ks])
    tree = linkage(squareform(distance, checks=False), method)
    return np.array([_numbered(fcluster(tree, k, "maxclust")) for k in ks])


def _numbered(labels: Array) -> Array:
    """0, 1, … in the order in which people come."""
    _, first, member = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[member]


def _kmedoids(distance: Array, k: int) -> Array:
    """Greedy first medoids (Kaufman and Rousseeuw's BUILD), then best centres in turn."""
    medoids = [int(distance.sum(axis=0).argmin())]
    nearest = distance[medoids[0]].copy()
    while len(medoids) < k:
        gain = np.clip(nearest[:, None] - distance, 0, None).sum(axis=0)
        gain[medoids] = -1
        medoids.append(int(gain.argmax()))
        nearest = np.minimum(nearest, distance[medoids[-1]])
    centre = np.array(medoids)
    for _ in range(_ROUNDS):
        member = distance[:, centre].argmin(axis=1)
        member[centre] = np.arange(k)  # a twin of a medoid must not empty its cluster
        better = np.array([np.flatnonzero(member == c)[
            distance[np.ix_(member == c, member == c)].sum(axis=0).argmin()] for c in range(k)])
        if (better == centre).all():
            break
        centre = better
    return _numbered(member)


def adjusted_rand(a: Array, b: Array) -> float:
    r"""How alike two clusterings are beyond chance, 1 at most (Hubert and Arabie 1985).

    .. math:: \frac{I - E}{(A + B) / 2 - E}, \quad I = \sum_{ij} \binom{n_{ij}}{2}, \quad
              E = AB / \binom{n}{2}

    Examples
    --------
    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    1.0
    """
    wide = int(b.max()) + 1
    table = np.bincount(a * wide + b, minlength=(int(a.max()) + 1) * wide).reshape(-1, wide)
    inside, of_a, of_b = (float((x * (x - 1)).sum()) / 2 for x in
                          (table, table.sum(axis=1), table.sum(axis=0)))
    expected = of_a * of_b / (len(a) * (len(a) - 1) / 2)
    most = (of_a + of_b) / 2
    return 1.0 if most == expected else (inside - expected) / (most - expected)


def stability(distance: Array, ks: Sequence[int], method: str, subsamples: Array) -> Array:
    """Mean adjusted Rand index between everybody's clusters and those of subsamples alone.

    Parameters
    ----------
    subsamples : ndarray of int, shape (n_subsamples, n_kept)

    Returns
    -------
    ndarray, shape (len(ks),)
    """
    whole = clusters(distance, ks, method)
    found = np.zeros((len(subsamples), len(ks)))
    for i, kept in enumerate(subsamples):
        part = clusters(distance[np.ix_(kept, kept)], ks, method)
        found[i] = [adjusted_rand(w[kept], p) for w, p in zip(whole, part)]
    return found.mean(axis=0)


def silhouettes(distance: Array, ks: Sequence[int], method: str) -> Array:
    """Mean silhouette of everybody for each number of clusters, -1 to 1 (Rousseeuw 1987)."""
    return np.array([silhouette_score(distance, label, metric="precomputed")
                     for label in clusters(distance, ks, method)])


def consensus(distance: Array, k: int, method: str, subsamples: Array) -> Array:
    """Share of the subsamples with both of them in which two people fell together.

    References
    ----------
    Monti et al. (2003), doi:10.1023/A:1023949509487.
    """
    together, both = np.zeros(distance.shape), np.zeros(distance.shape)
    for kept in subsamples:
        label = clusters(distance[np.ix_(kept, kept)], [k], method)[0]
        both[np.ix_(kept, kept)] += 1
        together[np.ix_(kept, kept)] += label[:, None] == label
    with np.errstate(invalid="ignore"):
        found = together / both
    np.fill_diagonal(found, 1)
    return found


@dataclass(frozen=True, eq=False)
class OneCloud:
    r"""People as many and with the same holes, of one Gaussian that scatters as those seen.

    .. math:: N(\bar z, \; V (\Lambda - \sigma^2)_+ V^\top + \sigma^2 I), \quad
              \lambda_j \leftarrow \lambda_j \sqrt{\lambda_j^\text{seen} / \lambda_j^\text{drawn}}

    with V the leading principal axes of the people seen. Their variances :math:`\lambda` are
    chosen so that the people drawn have, on average, the leading variances and the total variance
    of those seen: drawn from the sample covariance itself they would scatter more unevenly, as
    few people always do, and pass for clusters. For it, holes are filled with the mean and the
    variance is restored.

    Attributes
    ----------
    mean : ndarray, shape (n_features,)
    axes : ndarray, shape (n_axes, n_features)
        Leading axes, times the sd along them beyond the noise.
    noise : float
        :math:`\sigma`.
    seen : bool ndarray, shape (n_people, n_features)
    """

    mean: Array
    axes: Array
    noise: float
    seen: Array

    @classmethod
    def of(cls, z: Array, rng: np.random.Generator) -> OneCloud:
        """The cloud of these people, NaN where nothing was measured."""
        n, seen = len(z), np.isfinite(z)
        count = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, z, 0).sum(axis=0) / count
        rest = np.where(seen, z - mean, 0) * np.sqrt(n / count)
        q = min(_AXES, n // 5, z.shape[1])
        axes = np.linalg.svd(rest - rest.mean(axis=0), full_matrices=False)[2][:q]
        observed, total = _spectrum(rest, q)
        # with as many axes as features nothing is left, but for a rounding that may be negative
        spectrum, noise = observed.copy(), max(total - observed.sum(), 0) / z.shape[1]
        for _ in range(_MATCHING):
            sd = np.sqrt(np.clip(spectrum - noise, 0, None))
            drawn = np.mean([_spectrum(
                rng.normal(size=(n, q)) * sd @ axes + np.sqrt(noise) * rng.normal(size=z.shape),
                q)[0] for _ in range(_MATCHING)], axis=0)
            # equal variances cannot be drawn equal: without pooling they would swap for ever
            spectrum = isotonic_regression(spectrum * np.sqrt(observed / drawn), increasing=False)
            spectrum = np.maximum(spectrum, noise)
            noise = max(total - (spectrum - noise).sum(), 0) / z.shape[1]
        sd = np.sqrt(np.clip(spectrum - noise, 0, None))
        return cls(mean, sd[:, None] * axes, float(np.sqrt(noise)), seen)

    def draw(self, rng: np.random.Generator) -> Array:
        """Other people, (n_people, n_features)."""
        drawn = rng.normal(size=(len(self.seen), len(self.axes))) @ self.axes
        drawn += self.noise * rng.normal(size=self.seen.shape)
        return np.where(self.seen, self.mean + drawn, np.nan)


def _spectrum(z: Array, q: int) -> tuple[Array, float]:
    """The q largest variances along principal axes, and the variance of all."""
    rest = z - z.mean(axis=0)
    found = np.linalg.eigvalsh(rest @ rest.T if len(z) < z.shape[1] else rest.T @ rest)[::-1]
    return found[:q] / (len(z) - 1), float(found.sum() / (len(z) - 1))

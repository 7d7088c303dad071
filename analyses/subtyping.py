"""Are there subtypes among patients? Clusters of their deviations, beside those of one cloud."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.metrics import silhouette_samples

from normfuse.cards import Shown
from normfuse.deviations import JUDGES, ROLE
from normfuse.errors import ComparisonError, listed

from .clusterings import METHODS, OneCloud, clusters, consensus, silhouettes, stability
from .comparable import Scores, trained_on
from .linear_terms import Array
from .profile_distances import FEWEST_FEATURES, profile_dissimilarity
from .subtype_table import Subtypes

FEWEST = 20
_FLAT = 1e-9  # sd of silhouettes that are all the same
_SMALL = 5  # people: a smaller cluster is somebody who stands apart, not a subtype


@dataclass(frozen=True)
class StabilityPlan(Shown):
    """How stability is measured.

    Parameters
    ----------
    n_subsamples : int
        Of people, without replacement.
    share : float
        Of the people in each, 0 to 1.
    n_null : int
        Sets of people drawn from one cloud; the smallest p is 1 / (n_null + 1).
    level : float
        Subtypes are reported if p is below.
    seed : int

    Examples
    --------
    >>> StabilityPlan(n_subsamples=50).n_null
    99
    """

    n_subsamples: int = 50
    share: float = 0.8
    n_null: int = 99
    level: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_subsamples", "n_null"):
            given = getattr(self, name)
            if not isinstance(given, int) or given < 2:
                raise ComparisonError(f"{name} is a whole number, 2 at least; got {given!r}")
        if not (0 < self.share < 1 and 0 < self.level < 1):
            raise ComparisonError("share and level lie between 0 and 1; got "
                                  f"{self.share} and {self.level}")


def subtypes(deviations: Scores, who: str | None = None, *, metric: str = "correlation",
             method: str = "kmedoids", most: int = 6, plan: StabilityPlan = StabilityPlan()
             ) -> Subtypes:
    r"""Clusters among people, how many, and whether there are any beyond chance.

    .. math:: T = \max_k \frac{s_k - \overline{s}_k^{0}}{\mathrm{sd}(s_k^{0})}, \quad
              p = \frac{1 + \#\{T^{0} \ge T\}}{1 + n_0}, \quad
              S_k = \overline{\mathrm{ARI}}_b

    :math:`s_k` is the mean silhouette of k clusters, :math:`s^0` and :math:`T^0` the same of as
    many people drawn from **one** Gaussian of the patients' mean and covariance: any method cuts
    a cloud into k pieces, and a long cloud into stable ones. If p is not below ``plan.level`` the
    answer is one cluster. If it is, the number of clusters is, of those whose silhouette one cloud
    reaches in less than that share, the stablest: :math:`S_k` is the mean adjusted Rand index
    between everybody's k clusters and those of subsamples clustered alone.

    Parameters
    ----------
    deviations : Deviations or RegionalDeviations
        People the model was trained on are left out with a warning.
    who : str, optional
        Query of ``subjects``, as "diagnosis == 'AD'"; by default everybody but the held-out
        controls of the reference.
    metric : {"correlation", "euclidean"}
        See :func:`~normfuse.analyses.profile_dissimilarity`: people may lack modalities.
    method : {"kmedoids", "average", "complete", "ward"}
        ``ward`` needs Euclidean distances of people measured alike.
    most : int
        The largest number of clusters to look at, 2 at least.
    plan : StabilityPlan

    Returns
    -------
    Subtypes

    Raises
    ------
    ComparisonError
        Fewer than 20 people, people who share no modality, an unknown word.

    Notes
    -----
    A small p says that the people are no single Gaussian cloud: heavy tails or severity that
    trails off will do. Look at ``profiles``, and for the same subtypes in other people.

    References
    ----------
    Stability: Ben-Hur, Elisseeff & Guyon (2002), Pac. Symp. Biocomput. 7, 6-17; one cloud as the
    null: Liu et al. (2008), doi:10.1198/016214508000000454; silhouettes: Rousseeuw (1987),
    doi:10.1016/0377-0427(87)90125-7.

    Examples
    --------
    >>> from normfuse.testing import tiny_scored
    >>> deviations = tiny_scored(60)
    >>> found = subtypes(deviations, metric="euclidean", most=3,
    ...                  plan=StabilityPlan(n_subsamples=20, n_null=19))
    >>> found.n_clusters, len(found.table)
    (1, 60)
    """
    people, notes = _patients(deviations, who)
    z = people.z.loc[:, people.z.notna().any()]
    values, ks = z.to_numpy(dtype=float), range(2, most + 1)
    _check(z, metric, method, most)
    distance = profile_dissimilarity(z, metric).to_numpy()
    if distance.max() < _FLAT:
        raise ComparisonError(f"the z of these {len(z)} people are all alike, so that there is "
                              "nothing to tell kinds of people by; look at their features")
    thin = z.columns.get_level_values(0).value_counts() < FEWEST_FEATURES[metric]
    if thin.any():
        notes.append(f"{listed(thin.index[thin])} has too few features to correlate, and no say")
    rng = np.random.default_rng(plan.seed)
    n_kept = max(most + 1, round(plan.share * len(z)))
    drawn = np.array([rng.permutation(len(z))[:n_kept] for _ in range(plan.n_subsamples)])
    null = {"silhouette": np.empty((plan.n_null, len(ks))),
            "stability": np.empty((plan.n_null, len(ks)))}
    cloud = OneCloud.of(values, rng)
    for i in range(plan.n_null):
        others = pd.DataFrame(cloud.draw(rng), z.index, z.columns)
        apart = profile_dissimilarity(others, metric).to_numpy()
        null["silhouette"][i] = silhouettes(apart, ks, method)
        null["stability"][i] = stability(apart, ks, method, drawn)
    seen = {"silhouette": silhouettes(distance, ks, method),
            "stability": stability(distance, ks, method, drawn)}
    table, p = _beside_null(seen, null, list(ks))
    best = _number(table, plan.level)
    labels = clusters(distance, ks, method)
    chosen = labels[best - 2] if p < plan.level else np.zeros(len(z), int)
    sizes = np.bincount(labels[best - 2])
    if p < plan.level and sizes.min() < _SMALL:
        notes.append(f"a subtype of {sizes.min()} people: rather somebody who stands apart")
    agreed = consensus(distance, best, method, drawn)
    return Subtypes(
        _members(z.index, chosen, labels[best - 2], distance, agreed), table,
        _profiles(z, chosen), pd.DataFrame(distance, z.index, z.index),
        pd.DataFrame(agreed, z.index, z.index),
        pd.DataFrame(labels.T + 1, z.index, pd.Index(ks, name="n_clusters")),
        int(chosen.max()) + 1, best, p, plan.level, f"{method} of {metric} dissimilarities",
        f"{plan.n_subsamples} subsamples of {n_kept} people, {plan.n_null} clouds, "
        f"seed {plan.seed}", tuple(notes), people.reference.kind)


def _patients(deviations: Scores, who: str | None) -> tuple[Any, list[str]]:
    """Whom to cluster, and notes."""
    people = cast(Any, deviations) if who is None else cast(Any, deviations).select(who)
    seen, notes = trained_on(people.subjects)
    healthy = people.subjects[ROLE].isin(JUDGES) if ROLE in people.subjects and who is None \
        else pd.Series(False, people.subjects.index)
    if healthy.any():
        notes.append(f"left out {int(healthy.sum())} held-out controls of the reference")
    bare = people.z.isna().all(axis=1)
    if bare.any():
        notes.append(f"left out {int(bare.sum())} people without any feature "
                     f"({listed(people.z.index[bare])})")
    kept = people.select(people.z.index[~(seen | healthy | bare)])
    if len(kept) < FEWEST:
        raise ComparisonError(f"{len(kept)} people are left to look for subtypes among, and "
                              f"{FEWEST} are the least: with fewer nothing can be told from "
                              "chance" + "".join(f"; {note}" for note in notes))
    return kept, notes


def _check(z: pd.DataFrame, metric: str, method: str, most: int) -> None:
    if method not in METHODS:
        raise ComparisonError(f"method is one of {', '.join(METHODS)}; got {method!r}")
    if method == "ward" and (metric != "euclidean" or z.isna().any(axis=None)):
        raise ComparisonError("ward needs metric='euclidean' and people measured alike; "
                              "kmedoids and average take any dissimilarity")
    if not 2 <= most <= len(z) // 5:
        raise ComparisonError(f"most is from 2 to {len(z) // 5} for {len(z)} people (5 a "
                              f"cluster); got {most}")


def _beside_null(seen: dict[str, Array], null: dict[str, Array], ks: list[int]
                 ) -> tuple[pd.DataFrame, float]:
    """For each k what was seen beside one cloud's, and p of the largest excess of silhouettes."""
    columns: dict[str, Array] = {}
    for name, numbers in seen.items():
        low, high = np.quantile(null[name], (0.025, 0.975), axis=0)
        columns |= {name: numbers, f"{name}_null": null[name].mean(axis=0), f"{name}_low": low,
                    f"{name}_high": high}
    cloud = null["silhouette"]
    sd = np.maximum(cloud.std(axis=0, ddof=1), _FLAT)
    excess = (seen["silhouette"] - cloud.mean(axis=0)) / sd
    reached = (cloud >= seen["silhouette"]).sum(axis=0)
    table = pd.DataFrame({**columns, "excess": excess, "p": (1 + reached) / (1 + len(cloud))},
                         index=pd.Index(ks, name="n_clusters"))
    return table, beside_one_cloud(seen["silhouette"], cloud)


def beside_one_cloud(seen: Array, clouds: Array) -> float:
    """p of the largest excess over all numbers of clusters, (n_k,) beside (n_clouds, n_k).

    Mean and sd are those of all, the people seen among them: by those of the clouds alone, clouds
    lie nearer to their own mean than one more cloud does, and p is too small.
    """
    every = np.vstack([seen, clouds])
    largest = ((every - every.mean(axis=0))
               / np.maximum(every.std(axis=0, ddof=1), _FLAT)).max(axis=1)
    return float((largest >= largest[0]).mean())


def _number(table: pd.DataFrame, level: float) -> int:
    """The stablest number of clusters that stands out; if none does, the one nearest to it."""
    beyond = table[table["p"] < level]
    place = int(beyond["stability"].to_numpy().argmax()) if len(beyond) else int(
        table["excess"].to_numpy().argmax())
    return int((beyond if len(beyond) else table).index[place])


def _members(index: pd.Index, chosen: Array, candidate: Array, distance: Array, agreed: Array
             ) -> pd.DataFrame:
    """A row a person: subtype, and how surely."""
    same = (candidate[:, None] == candidate) & ~np.eye(len(candidate), dtype=bool)
    with np.errstate(invalid="ignore"):
        sure = np.nansum(np.where(same, agreed, 0), axis=1) / same.sum(axis=1)
    return pd.DataFrame({"subtype": chosen + 1, "candidate": candidate + 1, "consensus": sure,
                         "silhouette": silhouette_samples(distance, candidate,
                                                          metric="precomputed")}, index)


def _profiles(z: pd.DataFrame, chosen: Array) -> pd.DataFrame:
    """Mean, sd and n of z in each subtype."""
    parts = z.groupby(pd.Series(chosen + 1, z.index, name="subtype"))
    return pd.concat({"mean": parts.mean().T, "sd": parts.std().T, "n": parts.count().T}, axis=1)

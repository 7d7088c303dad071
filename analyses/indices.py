"""One number a person, as the field reports them: severity, abnormal share, dissimilarity."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform

from normfuse.errors import ComparisonError, listed

from .deviation_maps import beyond
from .groups import Scores

Directions = Mapping[str, str]


def abnormal(deviations: Scores, threshold: float = 1.96,
             directions: Directions | None = None) -> pd.DataFrame:
    """Which features lie beyond the threshold, each modality in its own direction.

    Parameters
    ----------
    directions : dict of {"below", "above", "both"}, optional
        Modality -> where disease lies, as in ``{"t1": "below", "pet": "above"}``; ``both`` if it
        is not named.

    Returns
    -------
    DataFrame of float, shape (n_subjects, n_features)
        1, 0, and NaN where nothing was measured.
    """
    names = list(deviations.modalities)
    directions = dict(directions or {})
    unknown = [m for m in directions if m not in names]
    if unknown:
        raise ComparisonError(f"directions name {listed(unknown)}; the modalities are "
                              f"{listed(names)}")
    parts = {m: beyond(deviations.z[[m]], threshold, directions.get(m, "both")) for m in names}
    found = pd.concat(list(parts.values()), axis=1)[deviations.z.columns]
    return found.astype(float).where(deviations.z.notna())


def abnormal_share(deviations: Scores, threshold: float = 1.96,
                   directions: Directions | None = None) -> pd.DataFrame:
    """Share of each person's measured features that are abnormal, per modality and in total.

    Healthy people have .05 on average (.025 in one direction), and far more variance between them
    than a binomial: the regions of one brain are correlated.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> abnormal_share(tiny_deviations(), directions={"t1": "below"})["t1"].tolist()
    [0.5, 0.0]
    """
    return _per_modality(deviations, abnormal(deviations, threshold, directions))


def severity_index(deviations: Scores, threshold: float = 1.96,
                   directions: Directions | None = None) -> pd.DataFrame:
    r"""Disease severity index: how many regions are abnormal, and how far.

    .. math:: \mathrm{DSI} = \frac{1}{n} \sum_{j=1}^n |z_j| \, [z_j \text{ abnormal}]

    over a person's n measured features, per modality and in total.

    References
    ----------
    Kumar et al. (2024), as DSI of multimodal normative models in Alzheimer's disease.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> severity_index(tiny_deviations()).loc["sub-b"].round(2).to_dict()
    {'t1': 1.25, 'pet': 2.1, 'total': 1.53}
    """
    far = abnormal(deviations, threshold, directions)
    return _per_modality(deviations, far * deviations.z.abs())


def _per_modality(deviations: Scores, values: pd.DataFrame) -> pd.DataFrame:
    found = values.T.groupby(level="modality", sort=False).mean().T
    return found[list(deviations.modalities)].assign(total=values.mean(axis=1))


def dissimilarity(deviations: Scores, threshold: float = 1.96,
                  directions: Directions | None = None) -> pd.DataFrame:
    """Share of features in which two people's abnormality maps differ, for every pair.

    The normalised Hamming distance, over the features that both were measured with.

    Returns
    -------
    DataFrame, shape (n_subjects, n_subjects)
        NaN for pairs without a common feature.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> dissimilarity(tiny_deviations()).loc["sub-a", "sub-b"].item()
    0.5
    """
    far = abnormal(deviations, threshold, directions)
    values = far.to_numpy()

    def share(a: np.ndarray, b: np.ndarray) -> float:
        both = ~np.isnan(a) & ~np.isnan(b)
        return float((a[both] != b[both]).mean()) if both.any() else np.nan

    metric = share if np.isnan(values).any() else "hamming"
    return pd.DataFrame(squareform(pdist(values, metric), checks=False), far.index, far.index)


def significance_ratio(cases: pd.Series, controls: pd.Series, level: float = 0.001) -> pd.Series:
    r"""How much likelier a case is to fall below a p-value than a held-out healthy person.

    .. math:: \frac{(k_1 + 1/2) / (n_1 + 1)}{(k_0 + 1/2) / (n_0 + 1)}

    with Katz's interval of the same half-corrected counts: with no control below the level, the
    plain ratio is infinite whatever the cases show.

    Parameters
    ----------
    cases, controls : Series
        p-values, as of ``deviations.distance["p"]``; NaN are left out.

    Returns
    -------
    Series
        ``ratio``, 95 % ``low``, ``high``; ``k_cases``, ``n_cases``, ``k_controls``,
        ``n_controls``; ``share_controls``, which should be near ``level``.

    Examples
    --------
    >>> found = significance_ratio(pd.Series([0.0001] * 5 + [0.5] * 15), pd.Series([0.4] * 99))
    >>> round(float(found["ratio"]), 1), int(found["k_controls"])
    (52.4, 0)
    """
    p1, p0 = cases.dropna(), controls.dropna()
    if p1.empty or p0.empty:
        raise ComparisonError(f"the ratio needs p-values of both groups; there are {len(p1)} of "
                              f"cases and {len(p0)} of controls")
    k1, k0, n1, n0 = (p1 < level).sum(), (p0 < level).sum(), len(p1), len(p0)
    ratio = ((k1 + 0.5) / (n1 + 1)) / ((k0 + 0.5) / (n0 + 1))
    error = np.sqrt(1 / (k1 + 0.5) - 1 / (n1 + 1) + 1 / (k0 + 0.5) - 1 / (n0 + 1))
    return pd.Series({"ratio": ratio, "low": ratio * np.exp(-1.96 * error),
                      "high": ratio * np.exp(1.96 * error), "k_cases": k1, "n_cases": n1,
                      "k_controls": k0, "n_controls": n0, "share_controls": k0 / n0})

"""Who deviates most: an order of people, and no test."""
from __future__ import annotations

import numpy as np
import pandas as pd

from normfuse.deviations import Deviations


def most_deviant(people: Deviations) -> pd.DataFrame:
    r"""Everyone of whom something is known, the most deviant first.

    .. math:: p_i = \min\Bigl(p_i^{\text{latent}},\; \min_k \frac{m_i\, p_{i(k)}}{k}\Bigr)

    for the p of the latent distance, which sees what the whole brain shares, and the smallest
    Benjamini-Hochberg p of the :math:`m_i` features measured in that person, which sees a
    deviation in one place. It orders people and tests nothing: it is corrected neither for the
    two looks nor for the number of people.

    Returns
    -------
    DataFrame, a row a person
        ``latent`` and ``feature`` (the two p-values, NaN where there is none), and ``p``, the
        smaller. Among equals, the largest \|z\| and then the largest distance come first.

    References
    ----------
    Benjamini & Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x; the smallest of their
    adjusted p is that of Simes (1986), doi:10.1093/biomet/73.3.751.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> most_deviant(tiny_deviations()).round(3).T.to_dict("list")
    {'sub-b': [0.31, 0.037, 0.037], 'sub-a': [0.93, 0.689, 0.689]}
    """
    p = np.sort(people.p.to_numpy(dtype="float64"), axis=1)  # NaN go last
    m = np.isfinite(p).sum(axis=1, keepdims=True)
    found = pd.DataFrame({"latent": people.distance["p"],
                          "feature": np.fmin.reduce(p * m / np.arange(1, p.shape[1] + 1), axis=1),
                          "farthest": people.z.abs().max(axis=1),
                          "distance": people.distance["distance"]}, people.z.index)
    found.insert(2, "p", found[["latent", "feature"]].min(axis=1))
    ordered = found.dropna(subset="p").sort_values(["p", "farthest", "distance"],
                                                   ascending=[True, False, False])
    return ordered[["latent", "feature", "p"]]

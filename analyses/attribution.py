r"""Which modality a person's latent deviation comes from.

Everything here is about the z of single latent dimensions, ``deviations.latent``, and **not**
about the Mahalanobis distance in ``deviations.distance``: that one weighs the dimensions by how
they vary together in healthy people, and can be unusual where no dimension is.
"""
from __future__ import annotations

import numpy as np
import pandas as pd

from normfuse.deviations import Deviations
from normfuse.errors import CohortError


def attributed(deviations: Deviations) -> pd.DataFrame:
    """Each modality's share of each latent z; NaN also where there is no z to share.

    Returns
    -------
    DataFrame, shape (n_subjects, n_modalities * n_latent), columns (modality, latent)

    Raises
    ------
    CohortError
        If these deviations have no attribution.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> attributed(tiny_deviations()).loc["sub-a", ("t1", "z2")]
    np.float64(0.4)
    """
    shares = deviations.attribution
    if shares is None:
        raise CohortError("these deviations have no attribution: an older normfuse made them, and "
                          "did not keep each modality's share of the latent z; fit the model and "
                          "score the people again with this version")
    return shares.where(_z_of_columns(deviations, shares).notna())


def attribution_table(deviations: Deviations) -> pd.DataFrame:
    """One row a person, latent dimension and modality.

    Parameters
    ----------
    deviations : Deviations

    Returns
    -------
    DataFrame
        Columns ``subject``, ``latent``, ``modality``, ``share`` (in units of z, signed; NaN if the
        modality was not measured) and ``z`` of the dimension, to which its shares add up.

    Raises
    ------
    CohortError
        If these deviations have no attribution.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> attribution_table(tiny_deviations()).head(4)
      subject latent modality  share    z
    0   sub-b     z1       t1    1.2  1.5
    1   sub-b     z1      pet    0.3  1.5
    2   sub-b     z2       t1   -0.5 -0.2
    3   sub-b     z2      pet    0.3 -0.2
    """
    shares = attributed(deviations)
    modalities, dimensions = (shares.columns.unique(level) for level in (0, 1))
    shares = shares[[(m, k) for k in dimensions for m in modalities]]
    people, columns = shares.index, shares.columns
    return pd.DataFrame({
        "subject": np.repeat(people.to_numpy(), len(columns)),
        "latent": np.tile(columns.get_level_values(1), len(people)),
        "modality": np.tile(columns.get_level_values(0), len(people)),
        "share": shares.to_numpy().ravel(),
        "z": _z_of_columns(deviations, shares).to_numpy().ravel()})


def modality_shares(deviations: Deviations) -> pd.DataFrame:
    r"""How much of each person's squared latent z every modality carries.

    .. math:: r_{im} = \frac{\sum_k a_{imk}\, z_{ik}}{\sum_k z_{ik}^2}, \qquad
              \sum_m a_{imk} = z_{ik} \;\Rightarrow\; \sum_m r_{im} = 1

    for the shares :math:`a_{imk}` of modality m in latent dimension k of person i. A negative
    :math:`r_{im}` is a modality that opposes: without its share the others would have moved the
    person farther; theirs then add up to more than 1.

    It splits the sum of squared z over the latent dimensions, each counted once, **not the squared
    Mahalanobis distance**. Whatever deviates is split, chance too: in healthy people, modalities
    of equal weight carry about equal parts on average. So read it of people whose latent position
    is unusual; of a small sum it says nothing.

    Parameters
    ----------
    deviations : Deviations

    Returns
    -------
    DataFrame, shape (n_subjects, n_modalities)
        NaN where the modality was not measured; the others add up to 1.

    Raises
    ------
    CohortError
        If these deviations have no attribution.

    Examples
    --------
    >>> from normfuse.testing import tiny_deviations
    >>> modality_shares(tiny_deviations()).round(2).T.to_dict()
    {'sub-b': {'t1': 0.83, 'pet': 0.17}, 'sub-a': {'t1': 1.0, 'pet': nan}}

    By hand, for the first person and t1: (1.2 x 1.5 + -0.5 x -0.2) / (1.5^2 + 0.2^2).

    >>> round((1.2 * 1.5 + 0.5 * 0.2) / (1.5**2 + 0.2**2), 2)
    0.83
    """
    shares = attributed(deviations)
    carried = (shares * _z_of_columns(deviations, shares)).T.groupby(level=0, sort=False).sum(
        min_count=1).T
    return carried.div((deviations.latent.loc[shares.index] ** 2).sum(axis=1), axis=0)


def _z_of_columns(deviations: Deviations, shares: pd.DataFrame) -> pd.DataFrame:
    """The latent z that each column of shares is a part of."""
    z = deviations.latent.loc[shares.index, shares.columns.get_level_values(1)]
    return z.set_axis(shares.columns, axis=1)

"""Values that cannot be what they seem: constants, codes, failed regions, columns of zeros."""
from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from .cohort import Cohort
from .errors import CohortError, listed

EXTREME = 30
"""Robust standard deviations from the median beyond which no healthy region lies."""

PILE = 0.3
"""Share of one and the same value above which a feature is a count or a lesion, not a measure."""


def refuse_empty_features(block: pd.DataFrame, name: str, whom: str = "the reference", *,
                          voxels: bool = False) -> None:
    """Every feature must vary in the reference."""
    values = block.to_numpy()
    never = block.columns[block.isna().all()]
    if len(never):
        raise CohortError(f"modality {name}: {len(never)} of {block.shape[1]} features were never "
                          f"measured in {whom} ({listed(never)}); {_how_to_drop(name, voxels)}")
    flat = np.nanmax(values, axis=0) - np.nanmin(values, axis=0)
    size = np.nanmax(np.abs(values), axis=0)
    constant = block.columns[flat <= 1e-12 * size]
    if len(constant):
        raise CohortError(f"modality {name}: {len(constant)} of {block.shape[1]} features have "
                          f"one and the same value in all {whom} ({listed(constant)}): nothing "
                          f"deviates from a constant; {_how_to_drop(name, voxels)}")


def _how_to_drop(name: str, voxels: bool) -> str:
    if voxels:
        return (f"give [modalities.{name}] a mask = \"….nii.gz\" that all images fill: for images "
                "cut by a mask of their own, one that is a voxel tighter")
    return (f"leave them out by exclude = [\"…\"] under [modalities.{name}] or "
            f"cohort.drop_features({name!r}, […])")


def warn_of_reference_values(controls: Cohort) -> None:
    """Say which reference values look like codes or failures, and which features are no measures.

    Warns
    -----
    UserWarning
        For values beyond ``EXTREME`` robust standard deviations; lone zeros in a feature that
        otherwise has none; a value that more than ``PILE`` of the people share.
    """
    for m in controls.modalities:
        block = controls.features[m.name]
        _warn(far_out(block, block.median(), 1.4826 * (block - block.median()).abs().median()),
              block, f"modality {m.name}: {{n}} reference values lie beyond {EXTREME} robust "
              "standard deviations", "codes for missing values or failed regions")
        zeros = (block == 0) & ((block == 0).mean() < 0.05) & (block.min() >= 0)
        _warn(zeros, block, f"modality {m.name}: {{n}} reference values are exactly 0 in features "
              "that hardly ever are", "failed regions")
        piled = block.columns[_piled(block.to_numpy())]
        if len(piled):
            warnings.warn(f"modality {m.name}: in {listed(piled)} more than {PILE:.0%} of the "
                          "reference share one value; a normal likelihood does not fit them and "
                          "their z will not be calibrated; "
                          + _how_to_drop(m.name, m.space is not None),
                          stacklevel=3)


def _piled(values: np.ndarray) -> np.ndarray:
    """Columns in which more than ``PILE`` of what was measured is one and the same value."""
    ordered, n = np.sort(values, axis=0), (~np.isnan(values)).sum(axis=0)
    found = np.zeros(len(n), bool)
    for count in np.unique(n):  # in order, so many equal values reach at least so far
        at, reach = n == count, int(PILE * count)
        found[at] = (ordered[reach:, at] == ordered[:len(ordered) - reach, at]).any(axis=0)
    return found


def warn_of_scored_values(names: list[str], ids: pd.Index, standard: list[np.ndarray],
                          features: list[tuple[str, ...]]) -> None:
    """The same for people to be scored, by their distance from what covariates predict.

    One such value spoils all of a person's z: it goes through the encoder.
    """
    for name, values, columns in zip(names, standard, features):
        table = pd.DataFrame(values, ids, list(columns))
        _warn(table.abs() > EXTREME, table, f"modality {name}: {{n}} values lie beyond {EXTREME} "
              "standard deviations of what is expected", "codes for missing values or failed "
              "regions (one spoils every z of its person)", unit=" sd")


def far_out(block: pd.DataFrame, center: pd.Series, spread: pd.Series) -> pd.DataFrame:
    """Cells further than ``EXTREME`` spreads from the center; never if the spread is 0."""
    return (block - center).abs() > EXTREME * spread.where(spread > 0)


def _warn(bad: pd.DataFrame, block: pd.DataFrame, what: str, why: str, unit: str = "") -> None:
    if bad.to_numpy().any():
        row, column = np.argwhere(bad.to_numpy())[0]
        warnings.warn(f"{what.format(n=int(bad.to_numpy().sum()))}, first "
                      f"{block.iloc[row, column]:g}{unit} in {block.columns[column]} of "
                      f"{block.index[row]}; if these are {why}, leave those cells empty",
                      stacklevel=5)

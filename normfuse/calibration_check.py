"""Are the z-scores and p-values what they say? Asked of healthy people left out of everything."""
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .deviations import Deviations
from .errors import listed

NOMINAL = (0.05, 0.01)
FAR = 8.0
"""Robust standard deviations above the median from which a person's scan may be broken."""
_QUANTILES = np.concatenate([[0.001, 0.0025, 0.005], np.linspace(0.01, 0.99, 99),
                             [0.995, 0.9975, 0.999]])


def check_calibration(held_out: Deviations) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows for ``Reference.calibration`` and points for its QQ figure.

    ``held_out`` must have been scored by a model and laws that did not see them.
    """
    rows, quantiles = [], {}
    blocks: dict[str, Any] = {name: held_out.z[name] for name in held_out.modalities}
    for name, z in {**blocks, "all": held_out.z}.items():
        rows += _z_rows(f"z {name}", z)
        values = z.to_numpy().ravel()
        values = values[~np.isnan(values)]
        quantiles[name] = {"theoretical": stats.norm.ppf(_QUANTILES).tolist(),
                           "observed": np.quantile(values, _QUANTILES).tolist()
                           if len(values) else []}
    p = held_out.distance["p"].dropna()
    rows += [share_row("latent distance", level, (p < level).to_numpy()[:, None], len(p))
             for level in NOMINAL]
    return rows, quantiles


def notes_on_outliers(held_out: Deviations) -> tuple[str, ...]:
    """Who of the people who said what is normal deviates as broken scans do.

    By the root mean square of a person's z in a modality: more than twice the median, and more
    than ``FAR`` robust standard deviations above it.
    """
    notes = []
    for name in held_out.modalities:
        z: Any = held_out.z[name]
        spread = ((z ** 2).mean(axis=1) ** 0.5).dropna()
        away = spread - spread.median()
        sd = stats.median_abs_deviation(spread, scale="normal")
        out = spread[(away > spread.median()) & (away > FAR * sd)]
        if len(out) and len(spread) > 5:
            notes.append(f"{name} of {listed(out.sort_values(ascending=False).index)} deviates "
                         f"{out.max() / spread.median():.1f} times as much as most healthy "
                         "people's: look at these scans. If they are broken, everybody else's z "
                         "are too small; leave them out and fit again")
    return tuple(notes)


def _z_rows(quantity: str, z: pd.DataFrame) -> list[dict[str, Any]]:
    values = z.to_numpy()
    finite = values[~np.isnan(values)]
    spread = {"mean": float(finite.mean()), "sd": float(finite.std())} if len(finite) else {}
    rows = []
    for level in NOMINAL:
        beyond = np.where(np.isnan(values), np.nan,
                          np.abs(values) > stats.norm.isf(level / 2))
        rows.append({**share_row(quantity, level, beyond, len(finite)), **spread})
    return rows


def share_row(quantity: str, nominal: float, beyond: np.ndarray, n_values: int) -> dict[str, Any]:
    """Share of true cells and its 95 % interval.

    With one value a subject the interval is Wilson's. With many (the regions of one brain are
    not independent) it is Student's t over the subjects' own shares.

    Parameters
    ----------
    beyond : ndarray, shape (n_subjects, n_values each)
        1 beyond, 0 not, NaN not measured.
    """
    beyond = beyond[~np.isnan(beyond.astype(float)).all(axis=1)].astype(float)
    each = np.nanmean(beyond, axis=1) if len(beyond) else np.array([])
    n = len(each)
    share = float(each.mean()) if n else float("nan")
    if beyond.shape[1] == 1:
        low, high = stats.binomtest(int(each.sum()), n).proportion_ci(method="wilson") \
            if n else (np.nan, np.nan)
    else:
        half = np.nan if n < 2 else stats.t.isf(0.025, n - 1) * each.std(ddof=1) / np.sqrt(n)
        low, high = max(0.0, share - half), min(1.0, share + half)
    return {"quantity": quantity, "nominal": nominal, "share": share, "low": float(low),
            "high": float(high), "n_subjects": n, "n_values": n_values}

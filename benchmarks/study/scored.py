"""What every contender hands over, and the measures taken of it."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from people import People
from sklearn.metrics import roc_auc_score

import normfuse as nf
from normfuse.preparation import Preparation

LEVELS = (0.05, 0.01)


@dataclass(frozen=True, eq=False)
class Scored:
    """One contender's answers for one setting.

    Attributes
    ----------
    log_likelihood : Series
        log p of each held-out healthy person's measurements, in the modalities' units.
    joint, cross : dict of DataFrame
        Modality -> its expectation for held-out healthy people, from everything they were measured
        with, and from their other modalities only (people who have others).
    z : DataFrame, columns (modality, feature)
        Of held-out healthy people and patients, those who could be calibrated.
    p : Series
        p-value of the latent distance of the same people.
    """

    log_likelihood: pd.Series
    z: pd.DataFrame
    p: pd.Series
    joint: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    cross: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def measures(scored: Scored, who: People) -> dict[str, float]:
    """All measures of one contender, by name."""
    baseline = Preparation.fit(who.reference)
    found = {"ll_per_feature": _per_feature(scored.log_likelihood, who.healthy, baseline)}
    for kind in ("joint", "cross"):
        for name, expected in getattr(scored, kind).items():
            found[f"r2_{kind}_{name}"] = _explained(name, expected, who.healthy, baseline)
        values = [v for k, v in found.items() if k.startswith(f"r2_{kind}_")]
        found[f"r2_{kind}"] = float(np.mean(values)) if values else np.nan
    healthy = scored.z.index.intersection(who.healthy.ids)
    patients = scored.z.index.intersection(who.patients.ids)
    p = pd.DataFrame({"latent": scored.p, "regional": _smallest_p(scored.z)})
    p["union"] = np.minimum(1, 2 * p[["latent", "regional"]].min(axis=1))
    for name in p:
        found[f"auc_{name}"] = _auc(p.loc[patients, name], p.loc[healthy, name])
        for level in LEVELS:
            found[f"flagged_{name}_{level}"] = float((p.loc[patients, name] < level).sum())
            found[f"false_{name}_{level}"] = float((p.loc[healthy, name] < level).sum())
    z = scored.z.abs()
    measured = z.loc[healthy].to_numpy()
    found["z_beyond_1.96"] = float((measured[~np.isnan(measured)] > 1.96).mean())
    found["auc_cells"] = _cells(z.loc[patients], who.planted)
    return {**found, "n_healthy": float(len(healthy)), "n_patients": float(len(patients))}


def _per_feature(found: pd.Series, healthy: nf.Cohort, baseline: Preparation) -> float:
    """Nats per measured feature, in units of the OLS-spline residual sd of the reference."""
    total = n = 0.0
    for m in healthy.modalities:
        measured = healthy.features[m.name].loc[found.index].notna().to_numpy()
        total += float((measured @ np.log(baseline.rivals[m.name].scale)).sum())
        n += measured.sum()
    return (float(found.sum()) + total) / n


def _explained(name: str, expected: pd.DataFrame, healthy: nf.Cohort, baseline: Preparation
               ) -> float:
    """Share of the variance around the OLS-spline expectation that is explained."""
    some = healthy.select(expected.index)
    observed = some.features[name]
    design = baseline.encoder.encode(some.subjects)
    spline = baseline.rivals[name]
    left = (observed - expected[list(observed.columns)]).to_numpy() / spline.scale
    return float(1 - np.nansum(left ** 2)
                 / np.nansum(spline.standardise(observed.to_numpy(), design) ** 2))


def _smallest_p(z: pd.DataFrame) -> pd.Series:
    """Each person's smallest p over features, Bonferroni-adjusted for those measured."""
    from scipy import stats

    p = 2 * stats.norm.sf(z.abs().max(axis=1)) * z.notna().sum(axis=1)
    return pd.Series(np.minimum(p, 1), z.index)


def _auc(patients: pd.Series, healthy: pd.Series) -> float:
    both = pd.concat([patients, healthy])
    label = np.r_[np.ones(len(patients)), np.zeros(len(healthy))]
    seen = both.notna().to_numpy()
    if len(set(label[seen])) < 2:
        return np.nan
    return float(roc_auc_score(label[seen], -both[seen]))


def _cells(z: pd.DataFrame, planted: pd.DataFrame) -> float:
    """AUC of |z|, planted cells against the other cells of the same people."""
    truth = planted.loc[z.index, z.columns].to_numpy()
    seen = z.notna().to_numpy()
    return float(roc_auc_score(truth[seen], z.to_numpy()[seen]))

"""Who is learned from, who is held out healthy, and who carries planted deviations."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from settings import Setting

import normfuse as nf
from normfuse.preparation import Preparation

N_HEALTHY, N_PATIENTS = 150, 120
EFFECT = 1.25  # residual sd, as in simulate_cohort
SHARE = 0.08  # of NSPN's regions that one person's planted deviation touches


@dataclass(frozen=True, eq=False)
class People:
    """Attributes
    ----------
    reference, healthy, patients : Cohort
        To fit on; held out; held out with planted deviations.
    planted : DataFrame of bool, shape (n_patients, n_features)
    """

    reference: nf.Cohort
    healthy: nf.Cohort
    patients: nf.Cohort
    planted: pd.DataFrame


def people(setting: Setting) -> People:
    """The people of one setting."""
    return simulated(setting) if setting.data == "simulated" else nspn(setting)


def simulated(setting: Setting) -> People:
    """Healthy people beyond the reference are held out; MCI and AD patients are the patients."""
    made = nf.simulate_cohort(setting.n + N_HEALTHY, N_PATIENTS, seed=1000 + setting.seed,
                              missing=setting.missing)
    controls, patients = made.cohort.split("diagnosis == 'CN'")
    order = np.random.default_rng(setting.seed).permutation(controls.ids.to_numpy())
    held_out = _known_sites(controls, order[:setting.n], order[setting.n:])
    patients = _known_sites(made.cohort, order[:setting.n], patients.ids)
    columns = pd.MultiIndex.from_tuples(
        [(m.name, f) for m in controls.modalities for f in m.features])
    return People(controls.select(order[:setting.n]), held_out, patients,
                  made.truth.planted.loc[patients.ids, columns])


def _known_sites(cohort: nf.Cohort, reference: np.ndarray, others: np.ndarray) -> nf.Cohort:
    """Those of the others whose site the reference has."""
    sites = set(cohort.subjects.loc[reference, "site"])
    return cohort.select([i for i in others if cohort.subjects.at[i, "site"] in sites])


def nspn(setting: Setting) -> People:
    """60 % of NSPN to fit on; half of the rest stays healthy, deviations are planted in half."""
    import real_tables
    from sklearn.model_selection import train_test_split

    cohort = real_tables.nspn()
    strata = cohort.subjects["site"] + cohort.subjects["sex"]
    reference, rest = train_test_split(cohort.ids, test_size=0.4, random_state=setting.seed,
                                       stratify=strata)
    rng = np.random.default_rng(setting.seed)
    rest = rng.permutation(rest)
    half = len(rest) // 2
    learners = cohort.select(reference)
    patients, planted = _plant(cohort.select(rest[half:]), Preparation.fit(learners), rng)
    hide = [_hidden(c, setting.missing, rng)
            for c in (learners, cohort.select(rest[:half]), patients)]
    return People(*hide, planted)


def _plant(cohort: nf.Cohort, preparation: Preparation, rng: np.random.Generator
           ) -> tuple[nf.Cohort, pd.DataFrame]:
    """Lower the same random regions in every modality of each person."""
    n_regions = min(m.n_features for m in cohort.modalities)
    touched = rng.random((len(cohort), n_regions)) < SHARE
    size = EFFECT * rng.uniform(0.8, 1.2, (len(cohort), 1))
    frames, marks = {}, {}
    for m in cohort.modalities:
        block, mark = cohort.features[m.name].copy(), np.zeros((len(cohort), m.n_features), bool)
        mark[:, :n_regions] = touched
        scale = preparation.rivals[m.name].scale
        frames[m.name] = block - mark * size * scale
        marks[m.name] = pd.DataFrame(mark, cohort.ids, list(m.features))
    made = nf.Cohort.from_frames(cohort.subjects, frames, covariates=cohort.covariates,
                                 units={m.name: m.unit for m in cohort.modalities})
    return made, pd.concat(marks, axis=1)


def _hidden(cohort: nf.Cohort, share: float, rng: np.random.Generator) -> nf.Cohort:
    """Without the last modality for this share of people, without the first for half of it."""
    if not share:
        return cohort
    draw = rng.random(len(cohort))
    first, *_, last = [m.name for m in cohort.modalities]
    frames = {name: block.copy() for name, block in cohort.features.items()}
    frames[last].loc[draw < share] = np.nan
    frames[first].loc[draw > 1 - share / 2] = np.nan
    return nf.Cohort.from_frames(cohort.subjects, frames, covariates=cohort.covariates,
                                 units={m.name: m.unit for m in cohort.modalities})

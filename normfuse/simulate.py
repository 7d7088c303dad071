"""Cohorts with known truth, on real anatomy: for teaching, tests and benchmarks.

Three modalities over the regions of the ``dk`` atlas: grey-matter volume (``t1``, mm3), fractional
anisotropy of white matter (``dti``) and amyloid-like uptake (``pet``, SUVR). Healthy people differ
as :mod:`normfuse.population` says; patients carry planted deviations on top.
"""
from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .atlas import load_atlas
from .cards import Card
from .cohort import Cohort
from .errors import CohortError, listed
from .outputs import new_folder
from .population import OLDEST, YOUNGEST, Population

COVARIATES = {"age": "continuous", "sex": "categorical", "site": "site"}
UNITS = {"t1": "mm3", "dti": "FA", "pet": "SUVR"}
REFERENCE = "diagnosis == 'CN'"

# Gyri and nuclei that Alzheimer's disease changes, and in which direction.
DISEASE = {
    "t1": (-1.0, "Hippocampus Amygdala entorhinal parahippocampal fusiform inferiortemporal "
                 "middletemporal temporalpole inferiorparietal precuneus isthmuscingulate"),
    "dti": (-1.0, "entorhinal parahippocampal fusiform inferiortemporal middletemporal "
                  "posteriorcingulate isthmuscingulate precuneus CC_Posterior"),
    "pet": (1.0, "precuneus posteriorcingulate isthmuscingulate inferiorparietal middletemporal "
                 "medialorbitofrontal rostralanteriorcingulate superiorfrontal "
                 "rostralmiddlefrontal"),
}
# Diagnosis -> share of the disease regions one patient shows, strength relative to AD.
STAGES = {"MCI": (0.35, 0.6), "AD": (0.6, 1.0)}
ONE_SIDED = 0.3  # share of affected regions that are affected on one side only
SEVERITY = (0.8, 1.2)  # a patient's own factor on the effect
# Sites recruit unevenly, and patients from other sites than controls.
_RECRUITING = {"CN": "AAAABBBCCD", "patient": "AAABBBCCDD"}


@dataclass(frozen=True, eq=False)
class Truth:
    """What a simulated cohort was made of; every table covers all people, scanned or not.

    Attributes
    ----------
    planted : DataFrame of bool, shape (n_subjects, n_features)
        Which cells hold a planted deviation. Columns: (modality, feature).
    effect : DataFrame, shape (n_subjects, n_features)
        Signed size of the deviation in healthy residual SD; 0 where none.
    expected : DataFrame, shape (n_subjects, n_features)
        Expectation of a healthy person of that age, sex and site, in the modality's unit.
    factors : DataFrame, shape (n_subjects, n_factors)
        Scores of the shared and private factors, standard normal in health and disease.
    residual_sd : Series, shape (n_features,)
        Healthy SD around ``expected``, in the modality's unit.
    """

    planted: pd.DataFrame
    effect: pd.DataFrame
    expected: pd.DataFrame
    factors: pd.DataFrame
    residual_sd: pd.Series

    def __repr__(self) -> str:
        return (f"<Truth of {len(self.planted)} subjects: {int(self.planted.to_numpy().sum())} "
                f"planted deviations in {self.planted.shape[1]} features>")

    def _repr_html_(self) -> str:
        planted = self.planted.T.groupby(level=0, sort=False).sum().T
        table = pd.DataFrame({"planted deviations": planted.sum(),
                              "people with any": (planted > 0).sum()})
        return Card("Truth", f"of {len(self.planted)} simulated people", {},
                    {"": table.rename_axis("modality")}).html()


@dataclass(frozen=True)
class SimulatedCohort:
    """A cohort, and the truth that a model should recover from it."""

    cohort: Cohort
    truth: Truth

    def _repr_html_(self) -> str:
        return self.cohort._repr_html_() + self.truth._repr_html_()


def simulate_cohort(n_reference: int = 600, n_patients: int = 120, *, seed: int = 0,
                    missing: float = 0.3, effect: float = 1.25) -> SimulatedCohort:
    r"""Healthy people and patients with planted regional deviations.

    .. math:: x_{ir} = E_{ir} + \sigma_r(\delta_{ir} + e_{ir})

    where :math:`E` depends on age, sex and site, :math:`e` has mean 0 and SD 1, and
    :math:`\delta` is 0 in health. Each patient shows a random part of the disease's regions;
    ``AD`` more and stronger than ``MCI``. Patients are older on average.

    Parameters
    ----------
    n_reference, n_patients : int
        People with diagnosis ``CN``; people with ``MCI`` or ``AD``, half each.
    seed : int
        Decides everything. The same seed with another ``effect`` or ``missing`` gives the same
        people, so that only what was asked for differs.
    missing : float, 0 to below 1
        Share of people without PET, completely at random; half that share lacks DTI, and 1/60 of
        it (0.5 % at 0.3) is the share of single failed regions.
    effect : float, SD
        Mean size of an AD patient's deviations; patients vary from 0.8 to 1.2 times that.

    Raises
    ------
    CohortError
        For fewer than ten reference people, a negative number, or a share outside [0, 1).

    Examples
    --------
    >>> made = simulate_cohort(30, 10, seed=1)
    >>> {m.name: m.n_features for m in made.cohort.modalities}
    {'t1': 82, 'dti': 75, 'pet': 82}
    >>> bool(made.truth.planted.loc[made.cohort.reference_subjects().ids].any(axis=None))
    False
    """
    _check_request(n_reference, n_patients, missing, effect)
    # One stream a part: asking for another effect must not change who the people are.
    norms, who, scores, noise, illness, gaps = np.random.default_rng(seed).spawn(6)
    population = Population.draw(load_atlas("dk"), norms)
    people = draw_people(n_reference, n_patients, who)
    names = population.loadings.columns
    factors = pd.DataFrame(scores.standard_normal((len(people), len(names))),
                           index=people.index, columns=names)
    expected = population.expected(people)
    planted = effect * _relative_effect(people, population.norms.index, illness)
    sd = population.norms["sd"].rename("residual_sd")
    values = expected + sd * (planted + population.variation(factors, noise))
    cohort = Cohort.from_frames(people, _measured(values, missing, gaps), covariates=COVARIATES,
                                reference=REFERENCE, units=UNITS)
    return SimulatedCohort(cohort, Truth(planted.ne(0), planted, expected, factors, sd))


def write_cohort(cohort: Cohort, folder: str | Path) -> Path:
    """Write a cohort as ``cohort.toml`` and the tables it names, for the command line.

    Parameters
    ----------
    cohort : Cohort
    folder : path
        A new folder; it receives ``participants.tsv``, one CSV per modality (people without that
        scan are left out, and so are imputed ones) and ``cohort.toml``.

    Returns
    -------
    Path of the ``cohort.toml``, which :meth:`normfuse.Cohort.read` reads back

    Raises
    ------
    OutputExistsError
        If the folder is there already; nothing is written.
    CohortError
        If a modality's name cannot be a file name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = write_cohort(simulate_cohort(20, 5).cohort, Path(place, "demo"))
    ...     print(sorted(p.name for p in file.parent.iterdir()), len(Cohort.read(file)))
    ['cohort.toml', 'dti.csv', 'participants.tsv', 'pet.csv', 't1.csv'] 25
    """
    cohort = cohort.observed()
    unsafe = [m.name for m in cohort.modalities if not re.fullmatch(r"[A-Za-z0-9_-]+", m.name)]
    if unsafe:
        raise CohortError(f"modality {listed(unsafe)} cannot be a file name; rename it with "
                          "letters, digits, _ and - only")
    folder = Path(folder)
    with new_folder(folder) as work:
        cohort.subjects.to_csv(work / "participants.tsv", sep="\t", na_rep="n/a",
                               index_label="participant_id")
        for modality in cohort.modalities:
            block = cohort.features[modality.name].dropna(how="all")
            block.to_csv(work / f"{modality.name}.csv", na_rep="n/a",
                         index_label="participant_id")
        (work / "cohort.toml").write_text(_toml(cohort), encoding="utf-8")
    return folder / "cohort.toml"


def _check_request(n_reference: int, n_patients: int, missing: float, effect: float) -> None:
    if n_reference < 10 or n_patients < 0:
        raise CohortError(f"a simulated cohort needs at least 10 reference people (so that every "
                          f"site has one) and 0 patients; got {n_reference} and {n_patients}")
    if not 0 <= missing < 1:
        raise CohortError(f"missing is a share from 0 to below 1; got {missing}")
    if not np.isfinite(effect) or effect < 0:
        raise CohortError(f"effect is a size in SD, 0 or more (the disease gives the direction); "
                          f"got {effect}")


def draw_people(n_reference: int, n_patients: int, rng: np.random.Generator) -> pd.DataFrame:
    """Diagnosis, age (years, 45 to 90), sex and site, in no order."""
    groups = ["CN"] * n_reference + np.resize(["MCI", "AD"], n_patients).tolist()
    diagnosis = np.array(groups, dtype=object)
    ill = diagnosis != "CN"
    # Beta shapes with means of 66.5 and 74 years: age is a real confounder of disease.
    spread = np.where(ill, rng.beta(5.0, 2.8, len(ill)), rng.beta(2.2, 2.4, len(ill)))
    site = np.empty(len(ill), dtype=object)
    for group, rows in (("CN", ~ill), ("patient", ill)):
        site[rows] = rng.permutation(np.resize(list(_RECRUITING[group]), int(rows.sum())))
    people = pd.DataFrame({
        "diagnosis": diagnosis,
        "age": np.round(YOUNGEST + (OLDEST - YOUNGEST) * spread, 1),
        "sex": np.where(rng.random(len(ill)) < 0.54, "F", "M"),
        "site": site})
    people = people.iloc[rng.permutation(len(people))]
    return people.set_axis(pd.Index([f"sub-{i + 1:04d}" for i in range(len(people))],
                                    name="participant_id"), axis=0)


def _relative_effect(people: pd.DataFrame, features: pd.Index,
                     rng: np.random.Generator) -> pd.DataFrame:
    """Signed deviation of every cell, relative to the mean effect in AD."""
    effect = pd.DataFrame(0.0, index=people.index, columns=features)
    stage = people["diagnosis"].map(STAGES)
    ill = stage.notna()
    extent, strength = np.array(stage[ill].tolist()).reshape(-1, 2).T
    strength = strength * rng.uniform(*SEVERITY, len(strength))
    for modality, (sign, parts) in DISEASE.items():
        for part in parts.split():
            sides = [f for f in features if f[0] == modality and re.search(f"(^|-){part}$", f[1])]
            shown = rng.random(len(extent)) < extent
            spared = np.where(rng.random(len(extent)) < ONE_SIDED,
                              rng.integers(2, size=len(extent)), -1)
            for side, feature in enumerate(sides):
                here = shown & ((spared != side) | (len(sides) == 1))
                effect.loc[ill, feature] = sign * strength * here
    return effect


def _measured(values: pd.DataFrame, missing: float,
              rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """One table a modality, of the people who were scanned; failed regions are NaN."""
    unscanned = {"t1": 0.0, "dti": missing / 2, "pet": missing}
    frames = {}
    for modality, share in unscanned.items():
        block = pd.DataFrame(values[modality])
        scanned = rng.random(len(block)) >= share
        failed = rng.random(block.shape) < missing / 60
        frames[modality] = block.mask(failed).loc[scanned]
    return frames


def _toml(cohort: Cohort) -> str:
    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML basic string

    lines = ["[subjects]", 'table = "participants.tsv"', 'id = "participant_id"', "",
             "[covariates]"]
    lines += [f"{text(name)} = {text(kind)}" for name, kind in cohort.covariates.items()]
    if cohort.reference is not None:
        lines += ["", "[reference]", f"query = {text(cohort.reference)}"]
    for m in cohort.modalities:
        lines += ["", f"[modalities.{m.name}]", f'table = "{m.name}.csv"',
                  'id = "participant_id"', f"unit = {text(m.unit)}",
                  f"likelihood = {text(m.likelihood)}"]
    return "\n".join(lines) + "\n"

"""What an evaluation of a normative model found: tables, what they rest on, and ways to keep them.

Needs no torch, so that reports can show it.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from .cards import Card, short
from .errors import ModelFileError
from .inputs import read_csv, read_object
from .outputs import new_file, new_folder

RIVAL = "_spline"
LENIENT = ("calibration people were judged by each other, so that mean and sd of their z are near "
           "0 and 1 and MACE is small by construction; healthy people new to the model test it "
           "harder")
AS_PRINTED = 0.0005
"""Differences of means that three digits do not show are none."""

_TABLES = {"features": ["modality", "feature"], "coverage": "nominal", "outer": "centile",
           "leftover": "covariate", "sites": "site"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How accurate and how calibrated a model is; made by :func:`normfuse.evaluate`.

    Attributes
    ----------
    features : DataFrame, one row a (modality, feature)
        ``n``; ``EXPV``, explained variance; ``SMSE``, squared error by the variance; ``Rho``,
        Spearman's, of expected and observed; ``MSLL`` against the mean and sd of the people of the
        fit (below 0 is better than knowing those); ``MACE``, mean distance of the share below a
        centile from the nominal one; ``W`` (Shapiro and Wilk), ``skew``, excess ``kurtosis``,
        ``mean`` and ``sd`` of z; shares ``beyond_1.96`` and ``beyond_2.58``; ``log_density`` in
        nats, per unit of the modality. The same, ending in ``_spline``, of ordinary least squares
        on covariates (splines of continuous ones), fitted to the same people.
    coverage : DataFrame, one row a nominal level
        ``share`` of z inside the central interval, 95 % ``low``, ``high``, ``n`` people.
    outer : DataFrame, one row a centile in percent (0.5 to 5 and 95 to 99.5)
        ``side``, ``nominal`` share beyond it, ``share`` seen, 95 % ``low``, ``high``, ``n``.
    leftover : DataFrame, one row a covariate
        Whether z still depends on it: ``test`` of each feature, ``n_features`` of ``n_tested``
        with q < .05 (Benjamini-Hochberg), ``smallest_q``; and for a site or other category the
        cross-validated ``balanced_accuracy`` of telling it from z, with ``chance``, and
        ``chance_high``, below which 97.5 % of guesses stay.
    sites : DataFrame, one row a site
        ``n`` people, ``mean`` and ``sd`` of their z, averaged over features.
    floor : float
        MACE to be expected of a perfect model with so many people.
    kind : str
        Of deviation; see :mod:`normfuse.kinds`.
    people : dict of int
        How many were evaluated, by their role in the fit: ``new``, or ``calibration`` (each judged
        by what did not see them).
    notes : tuple of str
        What a reader should know first.

    Notes
    -----
    Intervals take people as independent, not the regions of one brain
    (:func:`normfuse.z_checks.pooled_share`).

    Examples
    --------
    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> from normfuse import z_checks
    >>> columns = pd.MultiIndex.from_tuples([("t1", "insula"), ("t1", "cuneus")],
    ...                                     names=["modality", "feature"])
    >>> features = pd.DataFrame({"n": 60, "EXPV": [0.3, 0.4], "EXPV_spline": 0.2, "MSLL": -0.2,
    ...                          "MSLL_spline": -0.1, "MACE": 0.03}, columns)
    >>> z = pd.DataFrame([[0.1, -1.2], [0.9, 0.3], [-0.4, 2.1]], ["s1", "s2", "s3"], columns)
    >>> left = pd.DataFrame(columns=["n_features", "balanced_accuracy", "chance_high"])
    >>> sites = pd.DataFrame(index=pd.Index([], name="site"))
    >>> found = Evaluation(features, z_checks.coverage(z), z_checks.outer_centiles(z),
    ...                    left.rename_axis("covariate"), sites, 0.04, "focal", {"new": 60})
    >>> print(found.summary())
    deviations of kind focal, 2 features; people: 60 new
    EXPV 0.350 (spline regression 0.200), MSLL -0.200 (-0.100), MACE 0.0300 (perfect: 0.0400)
    nothing off: every interval holds its nominal value, no covariate is left in z
    >>> found.missed(), found.behind(), found.beside_rival.index.tolist()
    ([], [], ['EXPV', 'MSLL'])
    >>> with tempfile.TemporaryDirectory() as place:
    ...     again = Evaluation.read(found.save(Path(place, "evaluation")))
    ...     print(found.to_csv(Path(place, "features.csv")).name, again.features.equals(features))
    features.csv True
    """

    features: pd.DataFrame
    coverage: pd.DataFrame
    outer: pd.DataFrame
    leftover: pd.DataFrame
    sites: pd.DataFrame
    floor: float
    kind: str
    people: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def means(self) -> pd.Series:
        """Of every column of ``features``, over features."""
        return self.features.mean().rename(self.kind)

    @property
    def beside_rival(self) -> pd.DataFrame:
        """Means over features: one row a metric, the model beside the spline regression."""
        means = self.means
        metrics = [name for name in means.index
                   if f"{name}{RIVAL}" in means and name not in ("n", "log_density")]
        return pd.DataFrame({self.kind: means[metrics].to_numpy(),
                             "spline": means[[f"{m}{RIVAL}" for m in metrics]].to_numpy()},
                            pd.Index(metrics, name="metric"))

    @property
    def is_lenient(self) -> bool:
        """Whether people that the model was calibrated on are among the evaluated."""
        return any(role != "new" for role in self.people)

    def missed(self) -> list[str]:
        """Every check whose 95 % interval leaves the nominal value out, as a phrase each."""
        central = self.coverage.reset_index()
        found = [f"{_percent(row['share'])} of z inside the central {_percent(row['nominal'])}"
                 for _, row in central.iterrows() if not holds(row)]
        found += [f"{_percent(row['share'])} of z {row['side']} the {centile:g} % centile"
                  for centile, row in self.outer.iterrows() if not holds(row)]
        for name, row in self.leftover.iterrows():
            if row["n_features"]:
                found.append(f"{name} in {row['n_features']:.0f} of {row['n_tested']:.0f} "
                             "features' z")
            if row["balanced_accuracy"] > row["chance_high"]:
                found.append(f"{name} told from z with balanced accuracy "
                             f"{row['balanced_accuracy']:.2f} (chance {row['chance']:.2f})")
        return found

    def behind(self) -> list[str]:
        """Every mean in which the spline regression is more accurate, as a phrase each."""
        means, found = self.means, []
        for name, sign, word in (("EXPV", 1, "lower"), ("MSLL", -1, "higher")):
            mine, theirs = self.features[name], self.features[f"{name}{RIVAL}"]
            if sign * (means[name] - means[f"{name}{RIVAL}"]) <= -AS_PRINTED:
                found.append(f"{name} {means[name]:.3f} against {means[f'{name}{RIVAL}']:.3f} "
                             f"({word} in {int((sign * (mine - theirs) < 0).sum())} of "
                             f"{len(self.features)} features)")
        return found

    def summary(self) -> str:
        """The evaluation in a few lines of text."""
        means = self.means
        who = ", ".join(f"{n} {role.replace('_', ' ')}" for role, n in self.people.items())
        missed, behind = self.missed(), self.behind()
        lines = [
            f"deviations of kind {self.kind}, {len(self.features)} features; people: {who}",
            f"EXPV {means['EXPV']:.3f} (spline regression {means['EXPV_spline']:.3f}), "
            f"MSLL {means['MSLL']:.3f} ({means['MSLL_spline']:.3f}), "
            f"MACE {means['MACE']:.4f} (perfect: {self.floor:.4f})",
            f"off: {'; '.join(missed)} (of {len(self.coverage) + len(self.outer)} intervals about "
            "one in twenty is by chance)" if missed else
            f"{'' if behind else 'nothing off: '}every interval holds its nominal value, no "
            "covariate is left in z"]
        if behind:
            lines.append("behind the spline regression, which knows covariates only: "
                         + "; ".join(behind))
        notes = [*self.notes, *([LENIENT] if self.is_lenient else [])]
        return "\n".join([*lines, *(f"note: {note}" for note in notes)])

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the table of features to a new file."""
        with new_file(Path(path), overwrite=overwrite) as work:
            self.features.to_csv(work)
        return Path(path)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``features.csv``, ``coverage.csv`` … and ``evaluation.json`` to a new folder.

        Raises
        ------
        OutputExistsError
            If the folder is there and ``overwrite`` is not asked for.
        """
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TABLES}
        with new_folder(Path(folder), overwrite=overwrite) as work:
            for name in _TABLES:
                getattr(self, name).to_csv(work / f"{name}.csv")
            (work / "evaluation.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return Path(folder)

    @classmethod
    def read(cls, folder: str | Path) -> Evaluation:
        """Read what :meth:`save` wrote."""
        folder = Path(folder)
        try:
            # Only an empty cell is missing: a site or a region may well be called NA or 01.
            tables: dict[str, Any] = {name: read_csv(
                folder / f"{name}.csv", keep_default_na=False, na_values=[""],
                dtype={"modality": str, "feature": str, "covariate": str, "site": str}
            ).set_index(index) for name, index in _TABLES.items()}
            facts = read_object(folder / "evaluation.json")
            found = cls(**tables, **{**facts, "notes": tuple(facts.get("notes", ()))})
            found.summary()  # which cannot be told of what is damaged
            if not isinstance(found.kind, str):
                raise ValueError(f"kind should be a word; it is {found.kind!r}")
            return found
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError
                ) as problem:
            raise ModelFileError(f"{folder} is not a folder that `normfuse evaluate` or "
                                 f"Evaluation.save wrote: {problem}") from problem

    def __repr__(self) -> str:
        first, second, *_ = self.summary().splitlines()
        return f"<Evaluation: {short(first, 200)}; {short(second, 200)}>"

    def _repr_html_(self) -> str:
        said, *more = self.summary().splitlines()
        return Card("Evaluation", said, {}, {
            "model beside spline regression, means over features": self.beside_rival,
            "share of z inside a central interval": self.coverage,
            "share beyond a centile": self.outer, "what covariates still tell": self.leftover,
            "sites": self.sites}, more).html()


def holds(row: Mapping[Any, Any] | pd.Series) -> bool:
    """Whether a share's interval holds the nominal value; an unknown one refutes nothing."""
    return not (row["low"] > row["nominal"] or row["high"] < row["nominal"])


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"

"""What a comparison of voxels found: maps, what they rest on, and ways to keep and show them."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from normfuse import __version__
from normfuse.cards import Card, short
from normfuse.errors import ComparisonError, ModelFileError, listed
from normfuse.image_files import load_image
from normfuse.inputs import read_csv, read_object
from normfuse.outputs import new_folder
from normfuse.space import Space

from .effects import Array, noncentrality_interval
from .group_comparison import ALPHA
from .peaks import peaks_of
from .voxel_sums import REASONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from nibabel.nifti1 import Nifti1Image

_FACTS = ("group", "case", "baseline", "adjust", "test", "two_sided", "correction", "n", "notes",
          "quantity", "modality", "kind")
_PROBABILITIES = ("p", "q", "p_fwe")


@dataclass(frozen=True, eq=False)
class VoxelComparison:
    """Maps of a comparison of two groups.

    Attributes
    ----------
    maps : dict of ndarray, each (n_voxels,), float64, in the order of ``space``
        ``t`` with ``df`` and ``p``; ``q`` or ``p_fwe``, as the correction has it; ``g``;
        ``difference`` of the means (case minus baseline, in the values' unit) and
        ``adjusted_difference`` of the linear model; ``mean_case``, ``mean_baseline``;
        ``n_case``, ``n_baseline`` measured there; ``reason``, why a voxel was not tested
        (0: it was; else a position in ``voxel_sums.REASONS``), NaN in the others then.
        Corrections add ``cluster``, ``cluster_extent``, ``cluster_mass`` or ``tfce``.
    space : Space
    group, case, baseline : str
    adjust : tuple of str
    test : str
    two_sided : bool
        False: only case above baseline counts.
    correction : str
    n : dict of int
        People per group, the case group first.
    null : DataFrame, one row a permutation
        The largest statistic in each shuffled map; empty without permutations.
    notes : tuple of str
    quantity : str
        What was compared.
    modality, kind : str
        Of which deviations; empty if the table did not say.

    Examples
    --------
    >>> space = Space(np.ones((1, 2, 3), bool), np.eye(4) * 2, "MNI152NLin2009aSym")
    >>> maps = dict(t=np.array([0.5, 7, 1, -9, 2, 6.5]), q=np.array([.8, .01, .6, .01, .2, .02]),
    ...             g=np.array([0.1, 1.4, 0.2, -1.8, 0.4, 1.3]), n_case=np.full(6, 30.0),
    ...             n_baseline=np.full(6, 35.0), reason=np.zeros(6))
    >>> found = VoxelComparison(maps, space, "dx", "AD", "CN", (), "OLS t", True,
    ...                         "Benjamini-Hochberg over voxels", {"AD": 30, "CN": 35})
    >>> found.significant().tolist(), found.img("t").shape
    ([False, True, False, True, False, True], (1, 2, 3))
    """

    maps: Mapping[str, Array]
    space: Space
    group: str
    case: str
    baseline: str
    adjust: tuple[str, ...]
    test: str
    two_sided: bool
    correction: str
    n: Mapping[str, int]
    null: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: tuple[str, ...] = ()
    quantity: str = "values"
    modality: str = ""
    kind: str = ""

    @property
    def family(self) -> str:
        """What the correction is over."""
        tested = int(np.isfinite(self.maps["t"]).sum())
        return f"{tested} voxels{f' of {self.modality}' if self.modality else ''}"

    @property
    def corrected(self) -> str:
        """The map that says what is significant: ``p_fwe`` or ``q``."""
        return "p_fwe" if "p_fwe" in self.maps else "q"

    def about(self, maps: Mapping[str, Array], quantity: str) -> VoxelComparison:
        """The same comparison, its maps named for what they count."""
        return replace(self, maps=dict(maps), quantity=quantity)

    def significant(self, alpha: float = ALPHA) -> Array:
        """Which voxels have a corrected p below alpha, bool (n_voxels,)."""
        return np.nan_to_num(self.maps[self.corrected], nan=1.0) < alpha

    def img(self, column: str, *, significant: bool = False) -> Nifti1Image:
        """One map as an image; NaN where it was not tested, outside the mask 0, or 1 for p and q.

        Parameters
        ----------
        column : str
            A key of ``maps``.
        significant : bool
            0, or 1 for p and q, where the corrected p is not below .05.
        """
        if column not in self.maps:
            raise ComparisonError(f"column is one of {listed(self.maps, 30)}; got {column!r}")
        values, nothing = self.maps[column], _nothing(column)
        return self.space.img(np.where(self.significant(), values, nothing) if significant
                              else values, nothing)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Peaks of the clusters of significant voxels (corrected p < .05), the strongest first.

        ``cluster`` (letters: further peaks, at least 8 mm away), ``x``, ``y``, ``z`` (mm), ``t``,
        ``g`` with 95 % ``g_low``, ``g_high`` and ``adjusted_difference`` where there is g, ``p``,
        ``q`` or ``p_fwe``, ``n_case``, ``n_baseline``, and ``volume``, mL of the cluster.
        """
        marked = self.significant() & np.isfinite(self.maps["t"])
        columns = ["cluster", "x", "y", "z", *self._shown, "volume"]
        if not marked.any():
            return pd.DataFrame(columns=columns)
        found = peaks_of(self.space.img(np.where(marked, self.maps["t"], 0)))
        places, where = np.flatnonzero(marked), self.space.coordinates()[marked]
        at = [int(places[((where - xyz)**2).sum(axis=1).argmin()])
              for xyz in found[["X", "Y", "Z"]].to_numpy(dtype=float)]
        made = self._voxels(np.array(at)).assign(
            cluster=found["Cluster ID"],
            volume=pd.to_numeric(found["Cluster Size (mm3)"], errors="coerce") / 1000)
        return made[columns]

    @property
    def _shown(self) -> list[str]:
        return [name for name in ("t", "g", "g_low", "g_high", "adjusted_difference", "share_case",
                                  "share_baseline", "p", self.corrected, "n_case", "n_baseline")
                if name in self.maps or (name in ("g_low", "g_high") and "g" in self.maps)]

    def _voxels(self, at: Array) -> pd.DataFrame:
        """Some voxels as rows: where, and what was found."""
        made = pd.DataFrame(self.space.coordinates()[at], columns=["x", "y", "z"])
        for name in self._shown:
            if name in self.maps:
                made[name] = self.maps[name][at]
        if "g" in self.maps:
            n1, n0 = made["n_case"].to_numpy(), made["n_baseline"].to_numpy()
            root, j = np.sqrt(n1 * n0 / (n1 + n0)), 1 - 3 / (4 * (n1 + n0) - 9)
            ends = noncentrality_interval(made["g"].to_numpy() / j * root, n1 + n0 - 2)
            made["g_low"], made["g_high"] = (j * end / root for end in ends)
        return made

    def untested(self) -> pd.Series:
        """Number of voxels without a t, by reason."""
        codes = self.maps["reason"][np.isnan(self.maps["t"])].astype(int)
        return pd.Series([REASONS[code] for code in codes], dtype=object).value_counts()

    def summary(self) -> str:
        """The comparison in a few lines of text.

        Examples
        --------
        >>> maps = dict(t=np.array([0.5, 7, 1, -9, 2, 6.5]),
        ...             q=np.array([.8, .01, .6, .01, .2, .02]),
        ...             g=np.array([0.1, 1.4, 0.2, -1.8, 0.4, 1.3]), n_case=np.full(6, 30.0),
        ...             n_baseline=np.full(6, 35.0), reason=np.zeros(6))
        >>> space = Space(np.ones((1, 2, 3), bool), np.eye(4) * 2, "MNI152NLin2009aSym")
        >>> found = VoxelComparison(maps, space, "dx", "AD", "CN", (), "OLS t", True,
        ...                         "Benjamini-Hochberg over voxels", {"AD": 30, "CN": 35})
        >>> print(found.summary().splitlines()[0])
        dx: 30 AD - 35 CN, not adjusted; OLS t, two-sided
        """
        side = "two-sided" if self.two_sided else f"only {self.case} > {self.baseline} counts"
        adjusted = f"adjusted for {', '.join(self.adjust)}" if self.adjust else "not adjusted"
        about = f"{self._about}, " if self._about else ""
        lines = [f"{self.group}: {about}{self.n[self.case]} {self.case} - {self.n[self.baseline]} "
                 f"{self.baseline}, {adjusted}; {self.test}, {side}",
                 self._strongest(),
                 f"{self.corrected}: {self.correction}; family: {self.family}"]
        lines += [f"{n} voxels were not tested: {why}" for why, n in self.untested().items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    @property
    def _about(self) -> str:
        """Of what, in words; empty for a bare table of values."""
        whose = " z of ".join(part for part in (self.kind, self.modality) if part)
        what = "" if self.quantity == "values" else self.quantity
        return f"{what} ({whose})" if what and whose else what or whose

    def _strongest(self) -> str:
        t = self.maps["t"]
        tested = np.isfinite(t)
        if not tested.any():
            return "no voxel could be tested"
        count = f"{int(self.significant().sum())} of {int(tested.sum())} voxels at " \
                f"{self.corrected} < {ALPHA}"
        best = int(np.nanargmax(np.abs(t) if self.two_sided else t))
        row = self._voxels(np.array([best])).iloc[0]
        effect = "g = {:.2f} [{:.2f}, {:.2f}]".format(*row[["g", "g_low", "g_high"]]) \
            if "g" in row else "{:.0%} and {:.0%}".format(*row[["share_case", "share_baseline"]])
        which = "|t|" if self.two_sided else "t"
        return (f"{count}; largest {which} = {abs(row['t']) if self.two_sided else row['t']:.1f} "
                f"at ({row['x']:.0f}, {row['y']:.0f}, {row['z']:.0f}) mm: {effect}, "
                f"{self.corrected} = {row[self.corrected]:.2g}, "
                f"n = {row['n_case']:.0f} + {row['n_baseline']:.0f}")

    def plot(self, column: str = "t", *, significant: bool = False, glass: bool = False,
             ax: Axes | None = None) -> Axes:
        """A map on slices of the template, or through a glass brain.

        Parameters
        ----------
        column : str
            A key of ``maps``.
        significant : bool
            Only where the corrected p is below .05.
        glass : bool
            Projections from three sides instead of slices.
        """
        from .figures_brain import plot_brain, plot_glass

        img = self.img(column, significant=significant)
        whose = {"case": f"{self.case}: ", "baseline": f"{self.baseline}: "}.get(
            column.rpartition("_")[2], f"{self.case} - {self.baseline}")
        shares = self.quantity if column.startswith("share") else ""
        title = f"{whose}{shares}" + (f", {self.corrected} < {ALPHA}" if significant else "")
        unit = column.replace("_case", "").replace("_baseline", "").replace("_", " ")
        shown = self.space.mask.copy()
        if significant:
            shown[self.space.mask] = self.significant()
        data = np.where(shown, np.asarray(img.dataobj), np.nan)
        return (plot_glass if glass else plot_brain)(type(img)(data, img.affine), title,
                                                     unit=unit, ax=ax)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write maps, peaks and facts to a new folder.

        ``contrast-<case>vs<baseline>_stat-<column>_statmap.nii.gz`` (float64, NaN where not
        tested, outside the mask as in :meth:`img`), ``mask.nii.gz``, ``peaks.tsv``, ``null.tsv``
        (if there were permutations) and ``comparison.json``.

        Raises
        ------
        OutputExistsError
            If the folder is there and ``overwrite`` is not asked for.

        Examples
        --------
        >>> import tempfile
        >>> maps = dict(t=np.array([0.5, 7, 1, -9, 2, 6.5]),
        ...             q=np.array([.8, .01, .6, .01, .2, .02]),
        ...             g=np.array([0.1, 1.4, 0.2, -1.8, 0.4, 1.3]), n_case=np.full(6, 30.0),
        ...             n_baseline=np.full(6, 35.0), reason=np.zeros(6))
        >>> space = Space(np.ones((1, 2, 3), bool), np.eye(4) * 2, "MNI152NLin2009aSym")
        >>> found = VoxelComparison(maps, space, "dx", "AD", "CN", (), "OLS t", True,
        ...                         "Benjamini-Hochberg over voxels", {"AD": 30, "CN": 35})
        >>> with tempfile.TemporaryDirectory() as place:
        ...     again = VoxelComparison.read(found.save(Path(place, "AD")))
        ...     print(again.significant().sum(), len(again.table))
        ...     print(again.plot(glass=True).get_title("left")[:7])
        3 3
        AD - CN
        """
        facts: dict[str, Any] = {name: getattr(self, name) for name in _FACTS}
        facts["Space"], facts["Family"] = self.space.name, self.family
        facts["Maps"] = {name: self._file(name) for name in self.maps}
        facts["Untested"] = {str(why): int(n) for why, n in self.untested().items()}
        facts["Reasons"] = dict(enumerate(REASONS))
        facts["GeneratedBy"] = [{"Name": "normfuse", "Version": __version__}]
        with new_folder(Path(folder), overwrite=overwrite) as work:
            for name, values in self.maps.items():
                _write(self.space, values, _nothing(name), work / self._file(name))
            self.space.mask_img().to_filename(work / "mask.nii.gz")
            self.table.to_csv(work / "peaks.tsv", sep="\t", index=False, na_rep="n/a")
            if len(self.null):
                self.null.to_csv(work / "null.tsv", sep="\t", index=False)
            (work / "comparison.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        return Path(folder)

    def _file(self, column: str) -> str:
        case, baseline = (re.sub(r"[^A-Za-z0-9]", "", level) or "x"
                          for level in (self.case, self.baseline))
        stat = column.replace("_", "").replace("-", "")
        return f"contrast-{case}vs{baseline}_stat-{stat}_statmap.nii.gz"

    @classmethod
    def read(cls, folder: str | Path) -> VoxelComparison:
        """Read what :meth:`save` wrote."""
        folder = Path(folder)
        try:
            facts = read_object(folder / "comparison.json")
            space = Space.of(load_image(folder / "mask.nii.gz"), str(facts["Space"]))
            maps = {name: np.asarray(load_image(folder / Path(file).name).dataobj)[space.mask]
                    for name, file in facts["Maps"].items()}
            null = folder / "null.tsv"
            found = cls(maps, space, null=read_csv(null, sep="\t") if null.exists()
                        else pd.DataFrame(),
                        **{**{name: facts[name] for name in _FACTS if name in facts},
                           "adjust": tuple(facts["adjust"]), "notes": tuple(facts["notes"])})
            found.summary()  # which cannot be told of what is damaged
            return found
        except Exception as problem:  # nibabel, gzip and pandas each have errors of their own
            raise ModelFileError(f"{folder} is not a folder that VoxelComparison.save wrote: "
                                 f"{problem}") from problem

    def __repr__(self) -> str:
        return (f"<VoxelComparison of {short(self.group)}: {short(self.case)} - "
                f"{short(self.baseline)}, {self.space.n_voxels} voxels; "
                f"{short(self.correction, 200)}>")

    def _repr_html_(self) -> str:
        first, *more = self.summary().splitlines()
        return Card("VoxelComparison", first, {}, {"": self.table}, more).html()


def _nothing(column: str) -> float:
    """What stands for no effect in a map."""
    return float(column in _PROBABILITIES)


def _write(space: Space, values: Array, background: float, path: Path) -> None:
    """In double precision: p falls below what single precision can hold."""
    import nibabel as nib

    data = np.full(space.shape, background)
    data[space.mask] = values
    made = nib.Nifti1Image(data, space.affine)
    space.set_transforms(made)
    made.to_filename(path)

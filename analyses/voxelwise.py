"""Do two groups differ, voxel by voxel? And in how many people does a voxel lie far off?"""
from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, TypeAlias

import numpy as np
import pandas as pd

from normfuse import __version__
from normfuse.errors import ComparisonError, listed

from .clusters import Box
from .effects import Array
from .groups import covariate_columns, group_sizes, honest_subjects
from .kept_work import KeptWork
from .shuffles import Shuffles
from .voxel_comparison import VoxelComparison
from .voxel_corrections import BenjaminiHochberg, MaxT, Null, Shuffled
from .voxel_ols import OlsModel, OlsT
from .voxel_sums import p_values
from .voxel_table import VoxelTable, tiles
from .voxel_welch import WelchModel, WelchT

Model: TypeAlias = OlsModel | WelchModel

_TOGETHER = 16  # shuffled maps read back at once


def compare_voxels(voxels: VoxelTable, group: str, *, adjust: Iterable[str] | None = None,
                   contrast: tuple[str, str] | None = None, test: OlsT | WelchT = OlsT(),
                   correction: BenjaminiHochberg | Shuffled = BenjaminiHochberg(),
                   resume: str | Path | None = None) -> VoxelComparison:
    r"""The difference of two groups in every voxel: t, effect, p, corrected p.

    .. math:: y_v = \beta_0 + \beta\,[\text{case}] + \gamma^\top c + \varepsilon, \qquad
              g = J\,\frac{\bar y_1 - \bar y_0}{s_p}, \quad J = 1 - \frac{3}{4(n_1 + n_0) - 9}

    t and p belong to :math:`\beta`; g is of the values as they are, as in
    :func:`~normfuse.analyses.compare_groups`. The table is read some voxels at a time, once:
    memory does not grow with the voxels, and is 4 bytes x people x 16,384 voxels (at most 512
    MiB) plus about as much again for permutations. Corrections of clusters keep the shuffled maps
    on disk, 4 bytes x permutations x voxels.

    Parameters
    ----------
    voxels : VoxelTable
        People the model was trained on are left out with a warning.
    group : str
        Column of its ``subjects``. People without a value are left out and counted.
    adjust : iterable of str, optional
        Columns c; by default the covariates the table knows, ``()`` for none.
    contrast : (case, baseline), optional
        Needed for a group of more than two values. By default the baseline is as in
        :func:`~normfuse.analyses.compare_groups`.
    test : OlsT or WelchT
    correction : BenjaminiHochberg, MaxT, ClusterExtent, ClusterMass or Tfce
    resume : path, optional
        A folder that keeps finished pieces. The same call after an end by force takes them up
        and ends with the same bits; other data or settings are refused.

    Returns
    -------
    VoxelComparison

    Raises
    ------
    ComparisonError
        An unknown column, other than two groups, a group of fewer than 2, a missing covariate or
        block, groups that the covariates or blocks tell apart.

    References
    ----------
    Freedman & Lane (1983), doi:10.1080/07350015.1983.10509354, for permutations; Winkler et al.
    (2014), doi:10.1016/j.neuroimage.2014.01.060, for blocks.

    Examples
    --------
    >>> from normfuse.space import Space
    >>> space = Space(np.ones((3, 4, 5), bool), np.eye(4), "MNI152NLin2009aSym")
    >>> rng = np.random.default_rng(0)
    >>> people = pd.DataFrame({"dx": ["AD", "CN"] * 15, "age": rng.normal(70, 8, 30)},
    ...                       index=[f"sub-{i}" for i in range(30)])
    >>> z = rng.normal(size=(30, 60)); z[::2, 20] += 3
    >>> found = compare_voxels(VoxelTable(z, people, space), "dx", adjust=["age"],
    ...                        contrast=("AD", "CN"), correction=MaxT(99, blocks=None))
    >>> print(found.summary())
    dx: 15 AD - 15 CN, adjusted for age; OLS t, two-sided
    1 of 60 voxels at p_fwe < 0.05; largest |t| = 7.5 at (1, 0, 0) mm: g = 2.80 [1.78, 3.80], ...
    p_fwe: family-wise by the largest t, 99 permutations of everybody, seed 0
    note: baseline CN: asked for
    """
    subjects, levels, n, notes = _two_groups(voxels, group, contrast)
    named = tuple(voxels.covariates) if adjust is None else (
        (adjust,) if isinstance(adjust, str) else tuple(adjust))
    if adjust is None:
        named = tuple(name for name in named if name in subjects)
    if group in voxels.covariates:
        raise ComparisonError(f"{group} is a covariate of the model: its effect was taken out of "
                              "these values; fit a model without it to compare by it")
    people = voxels.select(subjects.index)
    base, case = n
    who = (levels == case).to_numpy()
    design = covariate_columns(subjects, named, group, voxels.covariates)
    model = test.model(who, design)
    shuffles, more = _shuffles(correction, subjects, who, named)
    settings = {
        "normfuse": __version__, "numpy": np.__version__, "test": repr(test),
        "correction": repr(correction), "coded": repr(people.coded),
        "space": people.space.fingerprint, "voxels at once": people.width,
        "people": _mark(np.array([str(name) for name in subjects.index])),
        "groups and covariates": _mark(np.column_stack([who, design])),
        "blocks": _mark(shuffles.blocks) if shuffles else ""}
    with _kept(resume, settings) as work:
        maps, null = _computed(people, model, shuffles, work, resume is not None, correction)
        maps["p"] = p_values(maps["t"], maps["df"], test.two_sided)
        if isinstance(correction, Shuffled) and null is not None:
            done = correction.correct_by(maps, null, Box.around(people.space), test.two_sided)
        else:
            done = BenjaminiHochberg().correct(maps)
        work.finish()
    return VoxelComparison(
        {**maps, **done.maps}, people.space, group, case, base, named, str(test),
        test.two_sided, str(correction), {case: n[case], base: n[base]}, done.null,
        (*voxels.notes, *notes, *more, *done.notes))


def overlap_voxels(voxels: VoxelTable, group: str, *, threshold: float = 1.96,
                   direction: str = "both", contrast: tuple[str, str] | None = None,
                   correction: Shuffled = MaxT(), resume: str | Path | None = None
                   ) -> VoxelComparison:
    r"""The share of each group beyond a threshold in every voxel, and whether the shares differ.

    .. math:: o_k(v) = \frac{\#\{i \in k : |z_{iv}| > t\}}{\#\{i \in k : z_{iv}
              \text{ measured}\}}

    The difference is judged by permutation alone: by t of a linear model of 0 and 1 on group and
    blocks, as counts are too small for any law of t.

    Parameters
    ----------
    voxels : VoxelTable
        Of z.
    group, contrast, correction, resume
        As in :func:`compare_voxels`.
    threshold : float
        In units of z.
    direction : {"both", "below", "above"}
        Count \|z\| > t, z < -t or z > t.

    Returns
    -------
    VoxelComparison
        With maps ``share_case``, ``share_baseline``, their ``difference``, ``t`` and ``p_fwe``.
        Where nobody lies beyond there is nothing to test.

    References
    ----------
    Wolfers et al. (2018), doi:10.1001/jamapsychiatry.2018.2467.

    Examples
    --------
    >>> from normfuse.space import Space
    >>> space = Space(np.ones((1, 2, 2), bool), np.eye(4), "MNI152NLin2009aSym")
    >>> people = pd.DataFrame({"dx": ["AD"] * 4 + ["CN"] * 6}, index=list("abcdefghij"))
    >>> z = np.zeros((10, 4)); z[:3, 1] = -2.5; z[:, 2] = 3.0
    >>> found = overlap_voxels(VoxelTable(z, people, space), "dx", contrast=("AD", "CN"),
    ...                        correction=MaxT(99, blocks=None))
    >>> found.maps["share_case"].tolist()
    [0.0, 0.75, 1.0, 0.0]
    """
    if not isinstance(correction, Shuffled):
        raise ComparisonError("shares are compared by permutation: give MaxT(), ClusterExtent(), "
                              f"ClusterMass() or Tfce(); got {correction!r}")
    blocks = [correction.blocks] if correction.blocks else []
    found = compare_voxels(voxels.beyond(threshold, direction), group, adjust=blocks,
                           contrast=contrast, correction=correction, resume=resume)
    names = {"mean_case": "share_case", "mean_baseline": "share_baseline"}
    maps = {names.get(name, name): values for name, values in found.maps.items()
            if name not in ("g", "p", "df", "adjusted_difference")}
    for whose in ("case", "baseline"):  # counts are whole: rounding of sums is taken off
        n = np.where(maps[f"n_{whose}"] > 0, maps[f"n_{whose}"], np.nan)
        maps[f"share_{whose}"] = np.abs(np.round(maps[f"share_{whose}"] * n)) / n
    maps["difference"] = maps["share_case"] - maps["share_baseline"]
    sign = {"both": f"|z| > {threshold:g}", "below": f"z < -{threshold:g}",
            "above": f"z > {threshold:g}"}[direction]
    return found.about(maps, f"share of people with {sign}")


def _two_groups(voxels: VoxelTable, group: str, contrast: tuple[str, str] | None
                ) -> tuple[pd.DataFrame, pd.Series, dict[str, int], tuple[str, ...]]:
    """People of two groups, which one, how many (baseline first), and notes."""
    kept, levels, notes = honest_subjects(voxels.subjects, group)
    found = sorted(levels.unique())
    if contrast is not None:
        unknown = [level for level in contrast if str(level) not in found]
        if len(contrast) != 2 or unknown or str(contrast[0]) == str(contrast[1]):
            raise ComparisonError(f"contrast is (case, baseline), two values of {group}: it has "
                                  f"{listed(found, 12)}; got {contrast!r}")
        levels = levels[levels.isin([str(level) for level in contrast])]
    elif len(found) > 2:
        raise ComparisonError(f"{group} has {len(found)} values ({listed(found)}); name the two "
                              f"to compare, as in contrast=({found[0]!r}, {found[1]!r})")
    subjects = voxels.subjects.loc[levels.index]
    n, why = group_sizes(subjects, levels, None if contrast is None else contrast[1])
    return subjects, levels, n, (*notes, why)


def _shuffles(correction: object, subjects: pd.DataFrame, case: Array, adjust: tuple[str, ...]
              ) -> tuple[Shuffles | None, tuple[str, ...]]:
    if not isinstance(correction, Shuffled):
        return None, ()
    name = correction.blocks
    notes: tuple[str, ...] = ()
    if name is None:
        blocks = np.zeros(len(subjects), dtype=np.int64)
    elif name not in subjects:
        raise ComparisonError(f"blocks {name!r} is not a column of the subjects table; it has "
                              f"{listed(subjects.columns, 12)}. Give blocks=None if everybody may "
                              "change places with everybody")
    else:
        lacking = subjects.index[subjects[name].isna()]
        if len(lacking):
            raise ComparisonError(f"{name} is missing for {listed(lacking)}: without it nobody "
                                  "knows with whom they may change places")
        blocks = pd.factorize(subjects[name].astype(str), sort=True)[0]
        if name not in adjust:
            notes = (f"people change places within {name}, but t is not adjusted for it",)
    made = Shuffles(blocks, correction.n_permutations, correction.seed)
    return made, (*notes, *made.check(case, name))


@contextmanager
def _kept(resume: str | Path | None, settings: dict[str, Any]) -> Iterator[KeptWork]:
    if resume is not None:
        yield KeptWork(resume, settings)
        return
    with tempfile.TemporaryDirectory(prefix="normfuse-") as folder:
        yield KeptWork(folder, settings)


def _computed(people: VoxelTable, model: Model, shuffles: Shuffles | None, work: KeptWork,
              marked: bool, correction: object) -> tuple[dict[str, Array], Null | None]:
    """Every map, and what the shuffles found; pieces that are kept are not computed again."""
    from tqdm.auto import tqdm

    keeps = isinstance(correction, Shuffled) and correction.keeps_maps
    pieces, stretches = [], people.stretches()
    with tqdm(total=people.space.n_voxels, desc="voxels", unit="voxel", leave=False,
              disable=None) as bar:
        for at, y in people.each():
            name = f"voxels-{at.start:09d}"
            piece = work.load(name)
            mark = np.array(_mark(y) if marked else "")
            if piece is not None and piece["mark"] != mark:
                raise ComparisonError(
                    f"{work.folder} was begun with other values of voxels {at.start} to "
                    f"{at.stop}; choose another folder for this computation, or remove it")
            if piece is None or (keeps and not (work.folder / f"{name}-null.npy").exists()):
                piece = {"mark": mark, **_stretch(y, model, shuffles, work, name, keeps)}
                work.save(name, **piece)
            pieces.append(piece)
            bar.update(at.stop - at.start)
    maps = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]
            if name not in ("mark", "highest", "lowest")}
    if shuffles is None:
        return maps, None

    def each(function: Callable[[Array], float]) -> Array:
        return _of_each_map(function, shuffles.n, stretches, work)

    return maps, Null(np.max([piece["highest"] for piece in pieces], axis=0),
                      np.min([piece["lowest"] for piece in pieces], axis=0), each)


def _stretch(y: Array, model: Model, shuffles: Shuffles | None, work: KeptWork, name: str,
             keeps: bool) -> dict[str, Array]:
    """Statistics of some voxels, and the extremes of every shuffle in them."""
    parts, n = [], 0 if shuffles is None else shuffles.n
    highest, lowest = np.full(n, -np.inf), np.full(n, np.inf)
    with _null_maps(work, name, (n, y.shape[1]), keeps) as kept:
        for at in tiles(y.shape[1]):
            tile = y[:, at]
            found = model.statistics(tile)
            parts.append(found)
            if shuffles is None:
                continue
            for drawn, some, t in model.shuffled(tile, ~np.isnan(found["t"]), shuffles):
                highest[drawn] = np.maximum(highest[drawn], t.max(axis=1))
                lowest[drawn] = np.minimum(lowest[drawn], t.min(axis=1))
                if kept is not None:
                    kept[drawn, at.start + some] = t
    made = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {**made, "highest": highest, "lowest": lowest} if n else made


@contextmanager
def _null_maps(work: KeptWork, name: str, shape: tuple[int, int], keeps: bool
               ) -> Iterator[Array | None]:
    """On disk, a row a shuffle; None if nobody needs them."""
    if not keeps:
        yield None
        return
    with work.writing(f"{name}-null.npy") as path:
        kept = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        yield kept
        kept.flush()


def _of_each_map(function: Callable[[Array], float], n: int, stretches: list[slice],
                 work: KeptWork) -> Array:
    from tqdm.auto import tqdm

    found = []
    with tqdm(total=n, desc="permutations", unit="map", leave=False, disable=None) as bar:
        for start in range(0, n, _TOGETHER):
            name, at = f"maps-{start:09d}", slice(start, min(start + _TOGETHER, n))
            piece = work.load(name)
            if piece is None:
                maps = np.hstack([
                    np.load(work.folder / f"voxels-{s.start:09d}-null.npy", mmap_mode="r")[at]
                    for s in stretches])
                piece = {"found": np.array([function(one) for one in maps])}
                work.save(name, **piece)
            found.append(piece["found"])
            bar.update(at.stop - at.start)
    return np.concatenate(found)


def _mark(values: Array) -> str:
    """The same for the same bytes."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()

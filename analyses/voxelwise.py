"""Do two groups differ, voxel by voxel? And in how many people does a voxel lie far off?"""
from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pandas as pd

from normfuse import __version__
from normfuse.errors import ComparisonError, listed
from normfuse.runners import Runner, one_after_the_other

from .clusters import Box
from .effects import Array
from .groups import covariate_columns, group_sizes, honest_subjects
from .kept_work import KeptWork
from .shuffles import Shuffles
from .voxel_comparison import VoxelComparison
from .voxel_corrections import BenjaminiHochberg, MaxT, Null, Shuffled
from .voxel_ols import OlsT
from .voxel_pieces import PIECES, Model, OfEachMap, Stretches, mark_of
from .voxel_sums import p_values
from .voxel_table import VoxelTable
from .voxel_welch import WelchT


def compare_voxels(voxels: VoxelTable, group: str, *, adjust: Iterable[str] | None = None,
                   contrast: tuple[str, str] | None = None, test: OlsT | WelchT = OlsT(),
                   correction: BenjaminiHochberg | Shuffled = BenjaminiHochberg(),
                   resume: str | Path | None = None,
                   run: Runner = one_after_the_other) -> VoxelComparison:
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
    run : Runner, optional
        What does the pieces: one after the other, or :class:`~normfuse.cluster.OnDask` on several
        processes or machines, with the same bits on machines of one kind. Other machines must
        see the table on disk and the folder of ``resume``; a table in memory is sent to them.

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
    p_fwe: family-wise by the largest t, 99 permutations of everybody, seed 0; family: 60 voxels
    note: baseline CN: asked for
    """
    subjects, levels, n, notes = _two_groups(voxels, group, contrast)
    if group in voxels.covariates:
        raise ComparisonError(f"{group} is a covariate of the model: its effect was taken out of "
                              "these values; fit a model without it to compare by it")
    named, lacking = _adjusted(voxels, subjects, adjust)
    people = voxels.select(subjects.index)
    base, case = n
    who = (levels == case).to_numpy()
    design = covariate_columns(subjects, named, group, voxels.covariates)
    model = test.model(who, design, shares=people.coded is not None)
    shuffles, more = _shuffles(correction, subjects, model, named)
    settings = {
        "normfuse": __version__, "pieces": PIECES, "numpy": np.__version__, "test": repr(test),
        "correction": repr(correction), "coded": repr(people.coded),
        "space": people.space.fingerprint, "voxels at once": people.width,
        "people": mark_of(np.array([str(name) for name in subjects.index])),
        "groups and covariates": mark_of(np.column_stack([who, design])),
        "blocks": mark_of(shuffles.blocks) if shuffles else ""}
    with _kept(resume, settings) as work:
        keeps_maps = isinstance(correction, Shuffled) and correction.keeps_maps
        maps, null = _computed(Stretches(people, model, shuffles, work, resume is not None,
                                         keeps_maps), run)
        maps["p"] = p_values(maps["t"], maps["df"], test.two_sided)
        if isinstance(correction, Shuffled) and null is not None:
            done = correction.correct_by(null, Box.around(people.space), test.two_sided)
        else:
            done = BenjaminiHochberg().correct(maps)
        work.finish()
    return VoxelComparison(
        {**maps, **done.maps}, people.space, group, case, base, named, str(test),
        test.two_sided, str(correction), {case: n[case], base: n[base]}, done.null,
        (*voxels.notes, *notes, *lacking, *more, *done.notes),
        modality=voxels.modality, kind=voxels.kind)


def overlap_voxels(voxels: VoxelTable, group: str, *, threshold: float = 1.96,
                   direction: str = "both", contrast: tuple[str, str] | None = None,
                   correction: Shuffled = MaxT(), resume: str | Path | None = None,
                   run: Runner = one_after_the_other) -> VoxelComparison:
    r"""The share of each group beyond a threshold in every voxel, and whether the shares differ.

    .. math:: o_k(v) = \frac{\#\{i \in k : |z_{iv}| > t\}}{\#\{i \in k : z_{iv}
              \text{ measured}\}}

    The difference is judged by permutation alone: by t of a linear model of 0 and 1 on group and
    blocks, as counts are too small for any law of t. All of one group and none of the other would
    make t infinite; of n people it is :math:`\sqrt{n\,df}` then.

    Parameters
    ----------
    voxels : VoxelTable
        Of z.
    group, contrast, correction, resume, run
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
                           contrast=contrast, correction=correction, resume=resume, run=run)
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


def _adjusted(voxels: VoxelTable, subjects: pd.DataFrame, adjust: Iterable[str] | None
              ) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Covariates by name, and a note on those of the model that nobody knows of these people."""
    if adjust is not None:
        return (adjust,) if isinstance(adjust, str) else tuple(adjust), ()
    lacking = [name for name in voxels.covariates if name not in subjects]
    notes = (f"not adjusted for {listed(lacking, 12)}: covariates of the model, but no columns of "
             "the subjects table",) if lacking else ()
    return tuple(name for name in voxels.covariates if name in subjects), notes


def _shuffles(correction: object, subjects: pd.DataFrame, model: Model, adjust: tuple[str, ...]
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
    n, seed = int(correction.n_permutations), int(correction.seed)
    covariates_change = model.design_rows(Shuffles(blocks, n, seed)) > 1
    made, few = Shuffles.dealing(blocks, n, seed, model.case > 0, name, covariates_change)
    return made, (*notes, *few)


@contextmanager
def _kept(resume: str | Path | None, settings: dict[str, Any]) -> Iterator[KeptWork]:
    if resume is not None:
        yield KeptWork(resume, settings)
        return
    with tempfile.TemporaryDirectory(prefix="normfuse-") as folder:
        yield KeptWork(folder, settings)


def _computed(task: Stretches, run: Runner) -> tuple[dict[str, Array], Null | None]:
    """Every map, and what the shuffles found; pieces that are kept are not computed again."""
    numbers = range(len(task.all))
    with _bar("voxels", "voxel", task.people.space.n_voxels) as bar:
        for k in run(task, numbers):
            bar.update(task.all[k].stop - task.all[k].start)
    maps = task.maps()
    if task.shuffles is None:
        return maps, None
    n = task.shuffles.n

    def each(function: Callable[[Array], float]) -> Array:
        of_maps = OfEachMap(function, n, task.all, task.work)
        with _bar("permutations", "x 16 maps", len(of_maps.pieces)) as bar:
            for _ in run(of_maps, of_maps.pieces):
                bar.update()
        return of_maps.found()

    return maps, Null(maps.pop("highest"), maps.pop("lowest"), each, task.model.heights(maps))


def _bar(what: str, unit: str, total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=what, unit=unit, leave=False, disable=None)

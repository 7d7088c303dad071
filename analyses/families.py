"""What p-values are corrected over, and how; and whether z and raw values agree."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from normfuse.errors import ComparisonError, listed

from .effects import CORRECTIONS, corrected
from .group_comparison import ALPHA
from .linear_terms import Array
from .shuffles import Shuffles, changing_within
from .terms import FARTHEST, TableNull
from .voxel_corrections import MaxT, Shuffled, rank_p

_FEW, _TIMES = 20, 4  # of 100 null cohorts of 10 and 200 people .19 had a finding by HC3
FEWEST_APART, SHARE_APART = 2, 0.1
"""z and raw values are said to disagree from so many rows on that are significant in one of them
alone, if they are at least this share of those that are in either: with a q of .049 and .051 one
row falls on two sides of a border without any disagreement."""


def correction_name(correction: str | MaxT) -> str:
    """As one prints it; raises ComparisonError for what is no correction of a table.

    Examples
    --------
    >>> correction_name("holm"), correction_name(MaxT(99, blocks=None, seed=1))
    ('Holm', 'family-wise by the largest t, 99 permutations of everybody, seed 1,')
    """
    if isinstance(correction, MaxT):
        return f"{correction},"
    if correction not in CORRECTIONS:
        raise ComparisonError(f"correction is one of {', '.join(CORRECTIONS)}, or MaxT(…); "
                              f"got {correction!r}")
    return CORRECTIONS[str(correction)]


def family(table: pd.DataFrame, correction: str | MaxT, tests: str = "tests") -> str:
    """The name of what q was corrected over: correction, number of tests, which they are."""
    first, modality = (str(name) for name in table.index.names[:2])
    n = table.index.get_level_values(first).nunique()
    tested = table[table["p"].notna()].reset_index(modality)
    features = tested.groupby(modality, sort=False).size()
    apart = tested.groupby([first, modality]).size().unstack(modality, 0).reindex(
        table.index.unique(first), fill_value=0)
    each = n > 1 and bool((apart.nunique() == 1).all())
    said = ", ".join(f"{name} {count // n if each else count}"
                     for name, count in features.items())
    raw = f", raw over {table['raw_p'].notna().sum()}" if "raw_p" in table else ""
    return (f"{correction_name(correction)} over {len(tested)} {tests} ({n} {first}"
            f"{'s' * (n > 1)}; {said}{' each' * each}){raw}")


def shuffles_of(correction: str | Shuffled, subjects: pd.DataFrame, design: Array,
                levels: pd.Series, groups: Sequence[str] = ()
                ) -> tuple[Shuffles | None, tuple[str, ...]]:
    """As :func:`shuffles_for`; nothing for a correction that shuffles nobody."""
    if not isinstance(correction, Shuffled):
        return None, ()
    return shuffles_for(correction, subjects, design, levels, groups)


def shuffles_for(correction: Shuffled, subjects: pd.DataFrame, design: Array | None,
                 levels: pd.Series, groups: Sequence[str] = ()
                 ) -> tuple[Shuffles, tuple[str, ...]]:
    """The shuffles that a correction asks for, and a note for each contrast that has few.

    Two groups without covariates that vary within blocks are dealt out in every way, if there are
    not more ways than shuffles. Raises ComparisonError for an unknown or incomplete column of
    blocks, or one within which nobody can change places. ``groups``: the baseline first; none if
    it is no groups that are compared. ``design``: the columns of the covariates, if there are any
    but the blocks.
    """
    name = correction.blocks
    if name is not None and name not in subjects:
        raise ComparisonError(
            f"people may change places within {name!r}, which is not a column of the subjects "
            f"table; it has {listed(subjects.columns, 12)}; give MaxT(…, blocks=None) if "
            "everybody is exchangeable with everybody")
    blocks = np.zeros(len(subjects), int)
    if name is not None:
        lacking = subjects.index[subjects[name].isna()]
        if len(lacking):
            raise ComparisonError(f"{name} is missing for {len(lacking)} people "
                                  f"({listed(lacking)}), who cannot be shuffled within it")
        blocks = pd.factorize(subjects[name].astype(str), sort=True)[0]
    n, seed = correction.n_permutations, correction.seed
    varying = (design is not None
               and changing_within(np.linalg.qr(design)[0], blocks).shape[1] > 0)
    notes = []
    for case in groups[1:]:
        rows = levels.isin([case, groups[0]]).to_numpy()
        made, said = Shuffles.dealing(blocks[rows], n, seed, (levels[rows] == case).to_numpy(),
                                      name, varying or not rows.all())
        if rows.all():
            return made, said
        notes += [f"{case} - {groups[0]}: {note}" for note in said]
    return Shuffles(blocks, n, seed), tuple(notes)


def correct(p: pd.Series, statistic: pd.Series, correction: str | MaxT, alternative: str,
            shuffles: Shuffles | None, draw: Callable[[Shuffles], list[TableNull]]) -> pd.Series:
    """q: of p by its rank among p, or of the statistic among the largest of shuffled people.

    What is drawn of several contrasts are the same shuffles of the same people, so that the
    largest of each shuffle is taken over all of them.
    """
    if shuffles is None:
        return corrected(p, str(correction))
    drawn = np.max([null.largest(alternative) for null in draw(shuffles)], axis=0)
    return pd.Series(rank_p(sided(statistic, alternative), drawn), p.index).where(p.notna())


def sided(statistic: pd.Series, alternative: str) -> Array:
    """Larger is more extreme, up to what the largest of shuffles are cut at."""
    values = statistic.to_numpy().clip(-FARTHEST, FARTHEST)
    return {"two-sided": np.abs(values), "greater": values, "less": -values}[alternative]


def small_group(n: Mapping[str, int], test: str, correction: str | MaxT) -> tuple[str, ...]:
    """Notes on contrasts of a small group beside a large one, each with a variance of its own.

    That of the small one is hardly known, and HC3's t takes it for as well known as everybody's.
    Shuffles make the same mistake, and so are no note's business.
    """
    base, *cases = n
    if test == "ols" or isinstance(correction, MaxT):
        return ()
    pairs = {case: sorted((n[case], n[base])) for case in cases}
    return tuple(f"{case} - {base}: the error of {few} people beside {many} is hardly known, and "
                 "p may be too small; correction=MaxT(…) holds with this test"
                 for case, (few, many) in pairs.items() if few < _FEW and many >= _TIMES * few)


def disagreement(table: pd.DataFrame, look: str = "the groups differ in") -> tuple[str, ...]:
    """Notes on the result: do z and raw values agree, and was everything tested?

    ``look`` stands before "age, sex or site".
    """
    in_z, in_raw = (table[name] < ALPHA for name in ("q", "raw_q"))
    apart, either = int((in_z != in_raw).sum()), int((in_z | in_raw).sum())
    untested = int(table["p"].isna().sum())
    notes = []
    if apart >= FEWEST_APART and apart >= SHARE_APART * either:
        notes.append(f"z and raw values disagree in {apart} of {len(table)} rows at q < {ALPHA}: "
                     f"{int((in_z & ~in_raw).sum())} in z alone, {int((in_raw & ~in_z).sum())} "
                     f"raw alone, {either - apart} in both; look whether {look} "
                     "age, sex or site. A region can stand out in z alone because the rest of "
                     "the brain changed")
    if untested:
        notes.append(f"{untested} of {len(table)} rows could not be tested; see reason")
    return tuple(notes)

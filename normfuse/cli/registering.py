"""The verb that brings scans into MNI space."""
from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CohortError, listed
from .application import free_place
from .choices import NewFolder, Overwrite
from .made import Made
from .verbs import verb

if TYPE_CHECKING:
    from ..imaging.registration_kinds import RegistrationKind

Kind = StrEnum("Kind", ["rigid", "affine", "deformable"])
WHOLE = 0.95
"""Share of the template's brain that whole brains show; those of three people had .96 to .99."""

FIELDS = ("id", "modality")


@verb("""
normfuse register 'raw/{id}/{id}_{modality}.nii.gz' --out mni/
# maps of one acquisition go where its b0 goes; other modalities to the person's T1w first
normfuse register 'raw/{id}_{modality}.nii.gz' --carry FA=b0 --carry MD=b0 \\
    --out mni/
""")
def register(pattern: Annotated[str, typer.Argument(
                 metavar="PATTERN", help="Where the images are, with {id} and {modality} in their "
                 "places; * stands for anything. In quotes, so that the shell leaves it alone.")],
             out: NewFolder,
             anchor: Annotated[str, typer.Option(
                 metavar="MODALITY", help="What goes to the template itself; the others of a "
                 "person go to it rigidly.")] = "T1w",
             kind: Annotated[Kind, typer.Option(
                 help="What may be done to the anchor: turned and shifted, also stretched, or "
                 "also bent.")] = Kind.affine,
             carry: Annotated[list[str] | None, typer.Option(
                 metavar="MODALITY=OTHER", help="The one goes where the other goes.")] = None,
             template: Annotated[Path | None, typer.Option(
                 help="A brain image to register to; by default ICBM 152 2009a, T1-weighted.")
             ] = None,
             representations: Annotated[Path | None, typer.Option(
                 metavar="FOLDER", help="Compare learned representations (written by "
                 "ContrastiveRepresentations.save) in the place of mutual information. The "
                 "template is taken for a T1w.")] = None,
             correct_bias: Annotated[bool, typer.Option(
                 "--correct-bias", help="Compare images without their bias fields (N4, some "
                 "seconds an image more): where fields are strong. What is written keeps them.")
             ] = False,
             resolution: Annotated[float, typer.Option(
                 min=0.5, max=10, help="Voxels of what is written, mm.")] = 2.0,
             overwrite: Overwrite = False) -> Made:
    """Bring scans into MNI space: images, transforms, a table of quality and sheets to look at.

    Of brains without skull. The same command goes on where a stopped one was. Whatever looks
    wrong (outlines that do not overlap, headers that swap sides) is named; look at the sheets
    for the rest. Needs SimpleITK: pip install 'normfuse[registration]'.
    """
    from ..imaging.extra import need
    from ..imaging.registered_people import RegistrationPlan, register_people
    from ..imaging.registration_work import is_ours
    from ..volumes.header import read_volume

    free_place(out, overwrite, "registration.json", is_ours)

    need("SimpleITK", "registration")

    images = found(pattern)
    plan = RegistrationPlan(anchor, _kind(kind), carried=_pairs(carry or []),
                            resolution=resolution, correct_bias=correct_bias)
    if representations is not None:
        from ..imaging.representations import ContrastiveRepresentations

        plan = replace(plan, by=ContrastiveRepresentations.load(representations))
    target = None if template is None else read_volume(template)
    table = register_people(images, out, plan, template=target, overwrite=overwrite)
    lost = table["file"].isna()
    doubtful = table[~table["ok"] & ~lost]
    said = [f"  {row['person']} {row['modality']}{word}: {row['problems']}"
            for word, some in ((" was left out", table[lost]), ("", doubtful))
            for _, row in some.iterrows()]
    cut = table[table["ok"] & (table["shown"] < WHOLE)]
    said += [f"  {row['person']} {row['modality']} shows {row['shown']:.0%} of the template's "
             "brain; the rest of it is 0 (read it with zeros = \"missing\" in cohort.toml)"
             for _, row in cut.iterrows()]
    sheets = len(list(out.glob("contact_sheet_*.png")))
    return Made("registered images", out, "\n".join([
        f"registered: {out}", f"{(~lost).sum()} images of {len(images)} people"
        f"{f', {lost.sum()} left out' if lost.any() else ''}; {len(doubtful)} to look at first",
        *said,
        f"look at {'contact_sheet_1.png' if sheets == 1 else f'{sheets} contact sheets'}"]),
        {"people": len(images), "images": int((~lost).sum()),
         "left_out": int(lost.sum()), "doubtful": len(doubtful)},
        result={"problems": table.loc[~table["ok"], ["person", "modality", "problems"]]
                .to_dict("records")})


def found(pattern: str) -> dict[str, dict[str, Path]]:
    """Person -> modality -> file.

    >>> found("raw/{id}.nii.gz")
    Traceback (most recent call last):
    normfuse.errors.CohortError: the pattern 'raw/{id}.nii.gz' lacks {modality}; write ...
    """
    lacking = [f for f in FIELDS if f"{{{f}}}" not in pattern]
    if lacking:
        raise CohortError(f"the pattern {pattern!r} lacks {{{lacking[0]}}}; write it as in "
                          "'raw/{id}/{id}_{modality}.nii.gz'")
    unknown = set(re.findall(r"{(.*?)}", pattern)).difference(FIELDS)
    if unknown:
        raise CohortError(f"the pattern {pattern!r} names {listed(sorted(unknown))}; in braces "
                          f"may stand {listed(FIELDS)}")
    path = Path(pattern)
    anywhere = Path(*[re.sub(r"{.*?}", "*", part) for part in path.parts])
    root = Path(anywhere.anchor) if anywhere.anchor else Path()
    files = sorted(root.glob(str(anywhere.relative_to(anywhere.anchor))))
    # with *, sidecars beside images fit too
    files = [f for f in files if f.name.lower().endswith((".nii", ".nii.gz"))] or files
    images: dict[str, dict[str, Path]] = {}
    for file in files:
        match = _as_expression(path).fullmatch(file.as_posix())
        if match is None:
            continue
        mine, modality = images.setdefault(match["id"], {}), match["modality"]
        if modality in mine:
            raise CohortError(f"{match['id']} has two files of {modality}: {mine[modality]} and "
                              f"{file}; make the pattern narrower")
        mine[modality] = file
    if not images:
        raise CohortError(f"no file fits the pattern {pattern!r}; {_instead(path, files)}")
    return images


def _instead(path: Path, near: list[Path]) -> str:
    """What there is in the place of files that fit a pattern."""
    fixed = Path(*[part for k, part in enumerate(path.parts)
                   if not any(c in "".join(path.parts[:k + 1]) for c in "{*")])
    if not fixed.is_dir():
        return f"there is no folder {fixed}"
    there = near or sorted(f for f in fixed.iterdir() if not f.name.startswith("."))
    return f"there are {listed(there)}" if there else f"{fixed} is empty"


def _as_expression(path: Path) -> re.Pattern[str]:
    """The pattern as a regular expression; a field that stands twice is the same twice."""
    seen: set[str] = set()
    parts = []
    for piece in re.split(r"({id}|{modality}|\*)", path.as_posix()):
        name = piece[1:-1]
        if piece == "*":
            parts.append("[^/]*")
        elif name in FIELDS and piece.startswith("{"):
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)")
            seen.add(name)
        else:
            parts.append(re.escape(piece))
    return re.compile("".join(parts))


def _kind(name: Kind) -> RegistrationKind:
    from ..imaging import registration_kinds as kinds

    made: dict[Kind, RegistrationKind] = {Kind.rigid: kinds.Rigid(), Kind.affine: kinds.Affine(),
                                          Kind.deformable: kinds.Deformable()}
    return made[name]


def _pairs(carry: list[str]) -> dict[str, str]:
    """``FA=b0`` as {"FA": "b0"}."""
    pairs = [text.split("=") for text in carry]
    for text, pair in zip(carry, pairs):
        if len(pair) != 2 or not all(pair):
            raise typer.BadParameter(f"--carry is MODALITY=OTHER, as FA=b0; got {text!r}")
    twice = [m for m, n in Counter(m for m, _ in pairs).items() if n > 1]
    if twice:
        raise typer.BadParameter(f"--carry says more than once where {listed(twice)} goes")
    return {modality: other for modality, other in pairs}

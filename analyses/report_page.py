"""Pages as HTML: the facts, the words of ``templates/``, and what a browser may run."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd

from normfuse import __version__
from normfuse.deviations import Reference

from . import figures, wording
from .brain_viewer import Viewer, allowed, scripts_of, shared, viewer
from .data_tables import DataTable
from .pictures import TOP, WIDTH, picture
from .report_evaluation import evaluation_facts
from .report_findings import finding_facts
from .report_groups import comparison_facts, spread
from .report_methods import methods
from .report_people import Z_LIMIT, people_facts, people_table, person, persons
from .voxel_regions import calibrates_voxels

if TYPE_CHECKING:
    from .report_contents import Contents

_UNSAFE_NAME = re.compile(r"[^A-Za-z0-9]+")


def cohort_page(contents: Contents) -> str:
    """Everything there is, with a part on each of the most deviant people."""
    comparisons = [comparison_facts(contents, c, f"g{k}")
                   for k, c in enumerate(contents.comparisons, 1)]
    findings = [finding_facts(contents, f, f"f{k}") for k, f in enumerate(contents.findings, 1)]
    voxels, (maps, limit) = contents.voxels.contrasts(), contents.voxels.contrast_maps()
    return _rendered(
        contents, "cohort.html.j2", **people_facts(contents), **persons(contents),
        comparisons=comparisons, findings=findings, voxels=voxels,
        contrasts=[part for c in comparisons for part in c["contrasts"]],
        voxel_notes=contents.voxel_notes,
        voxel_viewer=viewer("voxel-groups", maps, limit), voxel_limit=limit,
        people=people_table(contents) if len(contents.people) else None, **spread(contents),
        evaluation=None if contents.evaluation is None else evaluation_facts(contents.evaluation))


def subject_page(contents: Contents, who: str) -> str:
    """One person, and what the deviations rest on."""
    one = person(contents, who, "p1")
    attributed = contents.people.attribution is not None
    return _rendered(contents, "subject.html.j2", person={"by": "", **one},
                     has_attribution=attributed)


def index_page(contents: Contents, pages: dict[str, str]) -> str:
    """A table that leads to the page of each person."""
    return _rendered(contents, "index.html.j2", people=people_table(contents, pages),
                     n_pages=len(pages))


def _rendered(contents: Contents, template: str, **facts: Any) -> str:
    """The page. Its policy names each script in it by what it says, so no other can run."""
    reference = contents.people.reference
    pieces, short = shared(found := list(_viewers(facts)))
    runs = {script for v in found for page in v.pages for script in scripts_of(page)}
    scripts = [_script("tables.js"), *([_script("viewer.js")] if found else [])]
    _, no_maps = contents.regional
    policy = " ".join(sorted(map(allowed, {*runs, *scripts})))
    return _templates().get_template(template).render(
        reference=reference, modalities=contents.people.modalities, atlas=contents.painted,
        version=__version__, written=f"{datetime.now(UTC):%Y-%m-%d %H:%M}", no_maps=no_maps,
        top=TOP, z_limit=Z_LIMIT, scripts=scripts, policy=policy,
        pieces=_json(pieces) if found else "",
        pages={v.key: _json(v.pages) for v in short},
        citation=methods(reference, (*contents.comparisons, *contents.findings), contents.painted,
                         contents.voxels if contents.voxels.groups else None),
        **_reference_facts(reference), **facts)


def _viewers(facts: Any) -> list[Viewer]:
    """Wherever in the facts there is one."""
    if isinstance(facts, Viewer):
        return [facts]
    parts = facts.values() if isinstance(facts, Mapping) else \
        facts if isinstance(facts, (list, tuple)) else ()
    return [v for part in parts for v in _viewers(part)]


@cache
def _script(name: str) -> str:
    """Without the line break at the end, so that what is hashed is what stands in the page."""
    return (files("normfuse.analyses") / "templates" / name).read_text(encoding="utf-8")


@cache
def _templates() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                       lstrip_blocks=True, loader=FunctionLoader(_script))
    page.filters.update(p=wording.p_value, number=wording.number, percent=wording.percent,
                        effect=wording.effect, minus=wording.minus, word=wording.word,
                        region=wording.region_label, file=_file, role=wording.role)
    return page


def _file(table: DataTable) -> str:
    """What a downloaded table is called."""
    return f"{_UNSAFE_NAME.sub('-', table.key).strip('-')}.csv"


def _json(value: Any) -> str:
    """That may stand inside ``<script>``."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _reference_facts(reference: Reference) -> dict[str, Any]:
    """Training and calibration: rows and pictures; None where the reference kept nothing."""
    of_voxels = calibrates_voxels(reference)
    shares = pd.DataFrame(reference.calibration)
    if of_voxels:
        shares = shares[~shares["quantity"].str.startswith("z ")]
    if len(shares):
        shares["off"] = (shares["low"] > shares["nominal"]) | (shares["high"] < shares["nominal"])
        n_rows = shares["quantity"].nunique()
    return {
        "n_reference": sum(reference.n_subjects.values()), "shares": shares.to_dict("records"),
        "of_voxels": of_voxels,
        "training": picture(lambda ax: figures.plot_training(reference, ax=ax),
                            (WIDTH, 3.0)) if reference.history else None,
        "calibration": picture(lambda ax: figures.plot_calibration(_only(reference, shares),
                                                                   ax=ax),
                               (WIDTH, 1 + 0.42 * n_rows)) if len(shares) else None,
        "qq": picture(lambda ax: figures.plot_qq(reference, ax=ax), (4.8, 4.6))
        if any(q["observed"] for q in reference.quantiles.values()) and not of_voxels else None}


def _only(reference: Reference, shares: pd.DataFrame) -> Reference:
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()}
                                  for row in shares.to_dict("records")]
    return replace(reference, calibration=rows)

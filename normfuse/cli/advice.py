"""Messages whose advice is what one types on the command line."""
from __future__ import annotations

import re

_OPTIONS = {
    "contrast is (case, baseline)": "--contrast is CASE,BASELINE",
    "give blocks=None": "give --blocks none", "Give blocks=None": "Give --blocks none",
    "name another with baseline=": "name it with --contrast CASE,BASELINE",
    "fill it in, leave them out with deviations.select(), or do not adjust for":
        "fill it in before `normfuse score`, or name the others with --adjust, without",
    "with resume=…": "with --out",
    "or leave it out with deviations.select()":
        "or leave it out with --contrast (of voxels) or `normfuse score --subjects QUERY`",
    "controls=True (--controls)": "--controls",
    "Score them with normfuse.cross_fit, or keep them with include_seen=True (--include-seen)":
        "Fit with --calibration cross-fit to have fair z of all of them, or keep them with "
        "--include-seen",
    "score the controls too: model.deviations(cohort) on the whole cohort, from which the people "
    "the model was fitted on are left out": "score the controls too: `normfuse score` of the "
    "whole cohort, from which the people the model was fitted on are left out",
    "nf.evaluate shows that": "`normfuse evaluate` shows that",
    "overwrite=True (--overwrite)": "--overwrite",
    "compare_groups compares": "`normfuse compare` compares"}
"""What messages advise in Python, and the same on the command line."""


def as_options(problem: object) -> str:
    """A message whose advice is what one types here.

    >>> as_options("is there; ask for it to be replaced with overwrite=True (--overwrite)")
    'is there; ask for it to be replaced with --overwrite'
    """
    said = re.sub(r"contrast=\('([^']*)', '([^']*)'\)", r"--contrast \1,\2", str(problem))
    for written, typed in _OPTIONS.items():
        said = said.replace(written, typed)
    return said

"""The command line: verbs, each thin over the library's own.

Everything heavy is imported inside the verbs, so that ``normfuse --help`` answers at once.
"""
from __future__ import annotations

# a verb belongs to the program once its module is imported; help lists them in this order
from . import demo, check, models, deviations, voxels, registering  # noqa: F401
from .application import app
from .choices import AGAINST, WHEN, Deviation, Fusion

__all__ = ["AGAINST", "WHEN", "Deviation", "Fusion", "app"]

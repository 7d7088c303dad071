"""Conformance cases and small fixtures, shipped so that extensions can be tested alike."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fixtures import (tiny_cohort, tiny_deviations, tiny_head, tiny_images, tiny_scored,
                       tiny_segmentations, tiny_voxel_deviations)

if TYPE_CHECKING:
    from .aggregators import AggregatorCase

__all__ = ["AggregatorCase", "tiny_cohort", "tiny_deviations", "tiny_head",
           "tiny_images", "tiny_scored", "tiny_segmentations", "tiny_voxel_deviations"]


def __getattr__(name: str) -> Any:
    if name == "AggregatorCase":  # needs torch; the fixtures do not
        from .aggregators import AggregatorCase

        return AggregatorCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

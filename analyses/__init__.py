"""From deviations to tables, maps and conclusions: statistics only, never torch.

The public names load on first use, so that ``import normfuse.analyses`` stays fast.
"""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Associations": "association_table",
    "BenjaminiHochberg": "voxel_corrections",
    "ClusterExtent": "voxel_corrections",
    "ClusterMass": "voxel_corrections",
    "ExtremeCounts": "extremes",
    "GroupComparison": "group_comparison",
    "MaxT": "voxel_corrections",
    "OlsT": "voxel_ols",
    "OverlapMaps": "overlap_maps",
    "RegionalDeviations": "regional",
    "Report": "report",
    "StabilityPlan": "subtyping",
    "Subtypes": "subtype_table",
    "Tfce": "voxel_corrections",
    "VisitChanges": "longitudinal",
    "VoxelComparison": "voxel_comparison",
    "VoxelFindings": "report_voxels",
    "VoxelTable": "voxel_table",
    "WelchT": "voxel_welch",
    "abnormal_share": "indices",
    "associations": "score_associations",
    "attribution_table": "attribution",
    "by_lesion": "lesions",
    "compare_distances": "ranks",
    "compare_extremes": "ranks",
    "compare_groups": "groups",
    "compare_visits": "longitudinal",
    "compare_voxels": "voxelwise",
    "dissimilarity": "indices",
    "extreme_counts": "extremes",
    "group_map": "deviation_maps",
    "modality_shares": "attribution",
    "overlap": "overlap_maps",
    "overlap_voxels": "voxelwise",
    "parcellate": "regional",
    "profile_dissimilarity": "profile_distances",
    "severity_index": "indices",
    "significance_ratio": "indices",
    "subject_map": "deviation_maps",
    "subtypes": "subtyping",
    "unparcellate": "voxel_regions",
    "write_maps": "map_files",
    "write_report": "report",
    "write_voxel_maps": "voxel_map_files",
}

if TYPE_CHECKING:
    from .association_table import Associations
    from .score_associations import associations
    from .attribution import attribution_table, modality_shares
    from .deviation_maps import group_map, subject_map
    from .extremes import ExtremeCounts, extreme_counts
    from .group_comparison import GroupComparison
    from .groups import compare_groups
    from .indices import abnormal_share, dissimilarity, severity_index, significance_ratio
    from .lesions import by_lesion
    from .longitudinal import VisitChanges, compare_visits
    from .map_files import write_maps
    from .overlap_maps import OverlapMaps, overlap
    from .profile_distances import profile_dissimilarity
    from .ranks import compare_distances, compare_extremes
    from .regional import RegionalDeviations, parcellate
    from .report import Report, write_report
    from .report_voxels import VoxelFindings
    from .subtype_table import Subtypes
    from .subtyping import StabilityPlan, subtypes
    from .voxel_comparison import VoxelComparison
    from .voxel_corrections import BenjaminiHochberg, ClusterExtent, ClusterMass, MaxT, Tfce
    from .voxel_ols import OlsT
    from .voxel_regions import unparcellate
    from .voxel_table import VoxelTable
    from .voxel_welch import WelchT
    from .voxel_map_files import write_voxel_maps
    from .voxelwise import compare_voxels, overlap_voxels

__all__ = ["Associations", "BenjaminiHochberg", "ClusterExtent", "ClusterMass", "ExtremeCounts",
           "GroupComparison", "MaxT", "OlsT", "OverlapMaps", "RegionalDeviations", "Report",
           "StabilityPlan", "Subtypes", "Tfce", "VisitChanges", "VoxelComparison",
           "VoxelFindings", "VoxelTable", "WelchT", "abnormal_share", "associations",
           "attribution_table", "by_lesion", "compare_distances", "compare_extremes",
           "compare_groups", "compare_visits", "compare_voxels", "dissimilarity",
           "extreme_counts", "group_map", "modality_shares", "overlap", "overlap_voxels",
           "parcellate", "profile_dissimilarity", "severity_index", "significance_ratio",
           "subject_map", "subtypes", "unparcellate", "write_maps", "write_report",
           "write_voxel_maps"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

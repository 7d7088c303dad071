"""All figures: each takes an axis, draws on it and returns it; without one it makes a figure.

==========================================  =====================================================
of a reference
:func:`plot_training`                       loss of each epoch, and the weights that were kept
:func:`plot_qq`                             quantiles of held-out controls' z against N(0, 1)
:func:`plot_calibration`                    how often held-out controls exceed a threshold
:func:`plot_reliability`                    the same at every threshold
of groups and scores
:func:`plot_group_effects`                  forest plot of Hedges' g with 95 % intervals
:func:`plot_associations`                   forest plot of correlations with a score
:func:`plot_extremes`                       extreme deviations per person, by group
:func:`plot_extreme_counts`                 the same of a result, for any threshold and direction
:func:`plot_overlap`                        share of each group beyond a threshold, by region
:func:`plot_distances`                      latent distance per person, by group
:func:`plot_latent`                         people in two latent dimensions, by group
:func:`plot_heatmap`                        z of everybody in every region
:func:`plot_changes`                        change between two visits, beside controls
:func:`plot_stability`                      clusters of people beside those of one cloud
:func:`plot_consensus`                      who falls together with whom
:func:`plot_profiles`                       mean z of each subtype
of people
:func:`plot_centiles`                       normal range of a feature by age, people and one person
:func:`plot_missingness`                    which modalities people have together
:func:`plot_subject`                        where one person deviates most
:func:`plot_attribution`                    what each modality adds to one person's latent z
:func:`plot_radar`                          mean z of one person by lobe or tissue
in the brain
:func:`plot_brain`                          axial slices of a map over the MNI152 template
:func:`plot_glass`                          a map seen through the brain from three sides
:func:`plot_surface`                        a map on the inflated cortex
==========================================  =====================================================

:func:`common_limit` gives the panels of one figure the same colours.
"""
from __future__ import annotations

from .drawing import EXTREME, MARKERS, PALETTE, SIGNIFICANT
from .figures_brain import AXIAL_CUTS, plot_brain, plot_glass
from .figures_centiles import plot_centiles
from .figures_changes import plot_changes
from .figures_counts import plot_extreme_counts, plot_overlap
from .figures_forest import plot_associations, plot_group_effects
from .figures_groups import plot_distances, plot_extremes
from .figures_heatmap import plot_heatmap
from .figures_latent import plot_latent
from .figures_people import plot_attribution, plot_missingness, plot_subject
from .figures_radar import plot_radar
from .figures_reference import plot_calibration, plot_qq, plot_training
from .figures_reliability import plot_reliability
from .figures_subtypes import plot_consensus, plot_profiles, plot_stability
from .figures_surface import common_limit, plot_surface
from .wording import region_label

__all__ = ["AXIAL_CUTS", "EXTREME", "MARKERS", "PALETTE", "SIGNIFICANT", "common_limit",
           "plot_associations", "plot_attribution", "plot_brain", "plot_calibration",
           "plot_centiles", "plot_changes", "plot_consensus", "plot_distances",
           "plot_extreme_counts", "plot_extremes", "plot_glass", "plot_group_effects",
           "plot_heatmap", "plot_latent", "plot_missingness", "plot_overlap", "plot_profiles",
           "plot_qq", "plot_radar", "plot_reliability", "plot_stability", "plot_subject",
           "plot_surface", "plot_training", "region_label"]

"""Images of people as tables of voxels: which voxels, what must be true of an image, reading.

* :class:`VolumePlan`: mask, resolution, smoothing, and what an image must cover.
* :func:`read_images`: one image a person -> a :class:`~normfuse.stored.StoredTable`.
* :class:`WhiteMatterMode`, :class:`BrainMean`: what images without a unit are divided by.
* :func:`template_space`: masks of the template that nilearn ships.
"""
from __future__ import annotations

from .findings import Finding, Problem
from .intensity import BrainMean, Scaling, WhiteMatterMode
from .plan import VolumePlan, template_space, tissue_probability
from .reading import ImageSet, read_images

__all__ = ["BrainMean", "Finding", "ImageSet", "Problem", "Scaling", "VolumePlan",
           "WhiteMatterMode", "read_images", "template_space", "tissue_probability"]

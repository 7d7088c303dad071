"""Normative modelling of multimodal brain scans.

The public names load on first use, so that ``import normfuse`` stays fast and
``normfuse.analyses`` never brings torch in.
"""
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Atlas": "atlas",
    "Cohort": "cohort",
    "Convolutional": "models",
    "CrossFit": "calibration",
    "Deviations": "deviations",
    "Evaluation": "evaluation",
    "HeldOut": "calibration",
    "ImageSynthesiser": "imaging.synthesis",
    "IncompleteSegmenter": "imaging.segmentation",
    "Ladder": "models",
    "Modality": "modality",
    "NormativeModel": "normative",
    "NormfuseError": "errors",
    "OneLatent": "models",
    "Pyramid": "networks.pyramid",
    "RobustMean": "parcels",
    "Segmentations": "segmentations",
    "Space": "space",
    "TrainingPlan": "training",
    "WeightedMean": "parcels",
    "check_imputation": "imputation_check",
    "cross_fit": "cross_fitting",
    "evaluate": "criticism",
    "load_atlas": "atlas",
    "simulate_cohort": "simulate",
    "simulate_images": "imaging.simulated_images",
    "simulate_volumes": "simulated_volumes",
    "write_cohort": "simulate",
}

if TYPE_CHECKING:
    from .atlas import Atlas, load_atlas
    from .calibration import CrossFit, HeldOut
    from .cohort import Cohort
    from .criticism import evaluate
    from .cross_fitting import cross_fit
    from .deviations import Deviations
    from .errors import NormfuseError
    from .evaluation import Evaluation
    from .imaging.simulated_images import simulate_images
    from .imaging.segmentation import IncompleteSegmenter
    from .imaging.synthesis import ImageSynthesiser
    from .imputation_check import check_imputation
    from .modality import Modality
    from .models import Convolutional, Ladder, OneLatent
    from .networks.pyramid import Pyramid
    from .normative import NormativeModel
    from .parcels import RobustMean, WeightedMean
    from .segmentations import Segmentations
    from .simulate import simulate_cohort, write_cohort
    from .simulated_volumes import simulate_volumes
    from .space import Space
    from .training import TrainingPlan

__all__ = ["Atlas", "Cohort", "Convolutional", "CrossFit", "Deviations", "Evaluation", "HeldOut",
           "ImageSynthesiser", "IncompleteSegmenter", "Ladder", "Modality", "NormativeModel",
           "NormfuseError", "OneLatent", "Pyramid", "RobustMean", "Segmentations", "Space",
           "TrainingPlan", "WeightedMean", "__version__", "check_imputation", "cross_fit",
           "evaluate", "load_atlas", "simulate_cohort", "simulate_images", "simulate_volumes",
           "write_cohort"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

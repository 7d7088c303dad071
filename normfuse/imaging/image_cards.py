"""What a notebook shows of an image model."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..cards import Card, some


def image_model_card(model: Any, facts: Mapping[str, object]) -> Card:
    """Of a synthesiser or segmenter, with further facts of its own once it is fitted."""
    what = type(model).__name__
    told = {"fusion": repr(model.fusion), "networks": repr(model.sizes),
            "worked on": f"{model.plane} slices" if model.plane else "whole volumes"}
    f = model._fitted
    if f is None:
        return Card(what, "not fitted yet", told)
    units = pd.DataFrame({"unit": [m.unit or "–" for m in f.modalities], "mean": f.units.mean,
                          "sd": f.units.sd}, pd.Index([m.name for m in f.modalities],
                                                      name="modality"))
    weights = sum(p.numel() for p in f.net.parameters())
    return Card(what, f"of {some(units.index)}", {
        **told, **facts, "voxels": repr(f.frame.space).strip("<>"), "weights": f"{weights:,}",
        "epochs": len(f.history)}, {"": units})

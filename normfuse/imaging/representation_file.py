"""Fitted representations on disk: JSON for what is said, safetensors for weights."""
from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from ..choices import choice_from_dict, choice_to_dict
from ..errors import ModelFileError
from ..fusion import Choice
from ..signed import read_signed, write_signed
from ..training import TrainingPlan
from .contrastive import AbsoluteDifference, Cosine, MeanSquare
from .representations import ContrastiveRepresentations, FittedRepresentations
from .supervision import Alternating, BottleneckFirst, Summed

FORMAT = 1
JSON_NAME = "representations.json"
_KNOWN = (MeanSquare, AbsoluteDifference, Cosine, Summed, Alternating, BottleneckFirst)


def write_representations(model: ContrastiveRepresentations, folder: Path, *, overwrite: bool
                          ) -> Path:
    """Write to a new folder, all or nothing."""
    f = model.fitted
    options = {name: choice_to_dict(value) if isinstance(value, Choice) else value
               for name, value in model.options().items()}
    content = {"format": FORMAT, "kind": type(model).__name__,
               "options": {**options, "plan": asdict(model.plan)}, "names": list(f.net.names),
               "dimensions": f.net.dimensions, "resolution": f.resolution,
               "history": f.history.to_dict("list")}
    weights = {name: t.detach().cpu().contiguous() for name, t in f.net.state_dict().items()}
    return write_signed(folder, JSON_NAME, content, weights, overwrite=overwrite)


def read_representations(folder: Path, device: str | None) -> ContrastiveRepresentations:
    """Read them; refuses what is missing, truncated, edited or another kind."""
    content, weights = read_signed(folder, JSON_NAME, FORMAT, "ContrastiveRepresentations.save")
    try:
        options = dict(content["options"])
        options["plan"] = TrainingPlan(**options["plan"])
        for name in ("critic", "supervision"):
            if options[name] is not None:
                options[name] = choice_from_dict(options[name], folder, _KNOWN)
        options |= {} if device is None else {"device": device}
        model = ContrastiveRepresentations(**options)
        if len(weights) > 1000 or max(t.numel() for t in weights.values()) > 10 ** 8:
            raise ValueError("these weights are of no network of ours")
        with torch.random.fork_rng(devices=[]):  # fresh weights draw; the caller's state stays
            net = model.network([str(n) for n in content["names"]], int(content["dimensions"]))
        net.load_state_dict(weights)
        model._fitted = FittedRepresentations(net.to(model.device).eval(),
                                              float(content["resolution"]),
                                              pd.DataFrame(content["history"]))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError
            ) as problem:
        raise ModelFileError(f"{folder} does not hold complete representations: {problem!r}; save "
                             "them again") from problem
    return model

"""A fitted image model on disk: JSON for what is said, safetensors for weights; never a pickle.

Hashes recognise the people of the fit; nothing that was measured of them is kept, but the mean
and sd of each modality.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from ..choices import choice_from_dict, choice_to_dict
from ..errors import ModelFileError
from ..fusion import Aggregator, Choice
from ..modality import Modality
from ..networks.pyramid import Pyramid
from ..signed import read_signed, write_signed
from ..space import Space
from ..training import TrainingPlan
from .adversarial import PatchAdversary
from .augmentation import Augmentation
from .fitted_synthesis import FittedSynthesis
from .images import Frame, Units
from .segmentation import FittedSegmentation, IncompleteSegmenter
from .synthesis import ImageSynthesiser
from .widths import Widths

FORMAT = 2
JSON_NAME = "image_model.json"

ImageModel = TypeVar("ImageModel", ImageSynthesiser, IncompleteSegmenter)
Net = TypeVar("Net", bound=torch.nn.Module)


def write_image_model(model: ImageSynthesiser | IncompleteSegmenter, folder: Path, *,
                      overwrite: bool) -> Path:
    """Write a fitted model to a new folder, all or nothing."""
    f = model.fitted
    options = {name: choice_to_dict(value) if isinstance(value, Choice) else value
               for name, value in model.options().items()}
    own: dict[str, Any] = {}
    if isinstance(f, FittedSegmentation):
        own = {"labels": list(f.labels.items()), "softness": f.softness}
    else:
        own = {"widths": [{"present": list(p), "factors": [_plain(v) for v in factors]}
                          for p, factors in f.widths.factors.items()],
               "n_people": dict(f.n_people)}
    content = {
        "format": FORMAT, "kind": type(model).__name__,
        "options": {**options, "plan": asdict(model.plan)}, "space": f.frame.space.to_dict(),
        "modalities": [{"name": m.name, "unit": m.unit} for m in f.modalities],
        "units": asdict(f.units), "start": f.start, "known": f.known,
        "history": f.history.to_dict("list"), **own}
    # adversaries keep measured images, which are nobody else's business
    weights = {name: t.detach().cpu().contiguous() for name, t in f.net.state_dict().items()
               if not name.startswith("adversaries.")}
    return write_signed(folder, JSON_NAME, content, weights, overwrite=overwrite)


def read_image_model(kind: type[ImageModel], folder: Path, fusion: Aggregator | None,
                     device: str | None) -> ImageModel:
    """Read a model of this kind; refuses what is missing, truncated, edited or another kind."""
    content, weights = read_signed(folder, JSON_NAME, FORMAT, f"{kind.__name__}.save")
    if content.get("kind") != kind.__name__:
        raise ModelFileError(f"{folder} holds {content.get('kind')!r}, no {kind.__name__}; load "
                             "it with the class that saved it")
    try:
        options = dict(content["options"])
        if fusion is not None and choice_to_dict(fusion) != options["fusion"]:
            raise ModelFileError(f"{folder} was fitted with {options['fusion']}; it cannot be read"
                                 f" as {fusion!r}")
        options["plan"] = TrainingPlan(**options["plan"])
        for name in ("sizes", "alignment", "adversary", "augmentation",
                     *["fusion"] * (fusion is None)):
            if options.get(name) is not None:
                options[name] = choice_from_dict(options[name], folder,
                                                 [PatchAdversary, Augmentation])
        options |= {name: given for name, given in (("fusion", fusion), ("device", device))
                    if given is not None}
        model = kind(**options)
        model._fitted = _fitted(model, content, weights)  # type: ignore[assignment]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError
            ) as problem:
        raise ModelFileError(f"{folder} does not hold a complete image model: {problem!r}; save "
                             "it again") from problem
    return model


def _fitted(model: ImageSynthesiser | IncompleteSegmenter, content: Mapping[str, Any],
            weights: Mapping[str, torch.Tensor]) -> FittedSynthesis | FittedSegmentation:
    space = Space.from_dict(content["space"])
    modalities = tuple(Modality(m["name"], space.features, m["unit"], space=space)
                       for m in content["modalities"])
    units = Units(tuple(content["units"]["mean"]), tuple(content["units"]["sd"]))
    names = tuple(m.name for m in modalities)
    frame = Frame(space, model.sizes.step, model.plane)
    common = (frame, units, modalities)
    after = (dict(content["known"]), pd.DataFrame(content["history"]))
    start = str(content.get("start", ""))
    if isinstance(model, IncompleteSegmenter):
        labels = {str(name): int(number) for name, number in content["labels"]}
        segmenting = _filled(model.sizes, lambda: model.network(names, frame.dimensions,
                                                                len(labels)), weights)
        return FittedSegmentation(*common, labels, segmenting.to(model.device),
                                  float(content["softness"]), *after, start)
    synthesising = _filled(model.sizes, lambda: model.network(names, frame.dimensions), weights)
    widths = Widths({tuple(bool(v) for v in w["present"]):
                     tuple(torch.nan if v is None else float(v) for v in w["factors"])
                     for w in content["widths"]})
    return FittedSynthesis(*common, synthesising.to(model.device), widths, *after,
                           dict(content["n_people"]), start)


def _filled(sizes: Pyramid, make: Callable[[], Net], weights: Mapping[str, torch.Tensor]) -> Net:
    """The network with these weights; ValueError if it is of another size, before it is made."""
    sides = {side for weight in weights.values() for side in weight.shape}
    if not sides.issuperset([*sizes.channels, *(2 * c for c in sizes.latents if c)]):
        raise ValueError(f"{sizes!r} is of another network than the weights")
    with torch.random.fork_rng(devices=[]):  # fresh weights draw; the caller's state stays
        net = make()
    net.load_state_dict(dict(weights))
    return net.eval()


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return None if value != value else value

"""Choices as JSON-ready values and back, for normfuse's own classes only; never a pickle."""
from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from . import fusion as fusions
from . import inference as inferences
from . import kinds, models
from .errors import ModelFileError
from .fusion import Choice
from .networks import pyramid


def choice_to_dict(choice: Choice) -> dict[str, Any]:
    """A choice as its class name and options, inner choices included."""
    options = {k: choice_to_dict(v) if isinstance(v, Choice) else v
               for k, v in choice.options().items()}
    return {"class": type(choice).__name__, "options": options}


def choice_from_dict(spec: Mapping[str, Any], where: object = "this model",
                     also: Collection[type] = ()) -> Any:
    """The inverse of :func:`choice_to_dict`, for normfuse's own classes only.

    ``also``: those of layers above this one.
    """
    known = {**_known(), **{kind.__name__: kind for kind in also}}
    if spec["class"] not in known:
        raise ModelFileError(f"{where} was made with {spec['class']!r}, which normfuse does not "
                             "know; if it is a fusion of yours: load(folder, fusion=…)")
    options = {k: choice_from_dict(v, where, also) if isinstance(v, dict) else v
               for k, v in spec["options"].items()}
    return known[spec["class"]](**options)


@cache
def _known() -> dict[str, type]:
    return {name: found for module in (fusions, models, inferences, kinds, pyramid)
            for name in dir(module)
            if isinstance(found := getattr(module, name), type) and issubclass(found, Choice)}
